"""The entry point of the command line: ``zoho-token-store`` and ``python -m zoho_token_store``."""

import sys

_EXTRA_MODULES = {"click", "wcwidth"}  # installed by the extra `cli`
_EXIT_INTERRUPTED = 130  # the shell convention: 128 + SIGINT


def main() -> int:
    """Run the command line and return the exit status."""
    # The import is inside `try`: the extra may not be installed, and Ctrl-C can arrive during the import.
    try:
        from ._cli import run  # noqa: PLC0415

        return run()
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA_MODULES:
            raise
        sys.stderr.write(
            f'Error: The command line needs the package {error.name}.\nFix: Run pip install "zoho-token-store[cli]"\n'
        )
        return 1
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
