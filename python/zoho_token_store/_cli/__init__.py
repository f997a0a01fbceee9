"""The command line: argument parsing, output formats and confirmation prompts.

The native class ``Administration`` does the work on the database. This package does not import the SDK.
"""

from ._run import run

__all__ = ["run"]
