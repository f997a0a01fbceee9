"""``zoho-token-store``, which is ``python -m zoho_token_store``: the command line, if its libraries are there."""

import sys

_OF_THE_EXTRA = {"click", "wcwidth"}
_INTERRUPTED = 130  # 128 + SIGINT, as a shell has it


def main() -> int:
    """Run the command line; return the exit status."""
    # Imported here: the libraries are those of an extra, and even their import can be interrupted.
    try:
        from ._cli import run  # noqa: PLC0415

        return run()
    except ModuleNotFoundError as error:
        if error.name not in _OF_THE_EXTRA:
            raise
        sys.stderr.write(
            f"Error: the command line needs {error.name}. To install what it needs: "
            'pip install "zoho-token-store[cli]"\n'
        )
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
