"""The logger `zoho_token_store` in a program with and without a logging configuration."""

from __future__ import annotations

from support import run_python


def test_a_library_does_not_write_to_stderr_by_itself():
    """Without a configuration nothing is printed. A handler of the logger, or of the root logger, gets the lines."""
    silent, of_the_logger, of_the_root = run_python("from programs import log_lines").splitlines()
    assert silent == "''"
    assert of_the_logger.startswith("WARNING zoho_token_store find_token_by_id: ")
    assert of_the_root == of_the_logger
