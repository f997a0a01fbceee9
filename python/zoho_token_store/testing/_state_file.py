"""The file that keeps a stand-in's clients, users and tokens over a restart. Its secrets are made up."""

import json
import os
from collections.abc import Mapping
from typing import Any

FORMAT = "stand-in for Zoho, version 1"


def read_state(path: str) -> Mapping[str, Any] | None:
    """Return what `write_state` has written, or `None` if there is no file.

    Raises:
        ValueError: The file is another one. It is not overwritten.
        OSError: The file cannot be read.

    """
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - `pathlib` is not needed for one call
            state = json.load(file)
    except FileNotFoundError:
        return None
    except ValueError:
        state = None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"{path} is not a state file of the stand-in")
    return state


def write_state(path: str, state: Mapping[str, Any]) -> None:
    """Write the file. It has mode 0600, and it is always complete."""
    draft = f"{path}.{os.getpid()}.new"
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123
        json.dump({"format": FORMAT, **state}, file, indent=1)
    os.replace(draft, path)  # noqa: PTH105
