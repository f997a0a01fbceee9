"""The command line: what the arguments mean, how things look, and when to ask.

What is done to a file is done by ``Administration`` in the native half; nothing here imports the SDK.
"""

from ._run import run

__all__ = ["run"]
