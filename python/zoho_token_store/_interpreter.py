"""Refuses the import in a sub-interpreter, before the native layer is loaded.

Web servers make sub-interpreters: mod_wsgi one for each application, uWSGI one for each application after the first.
PyO3 does not support them (https://github.com/PyO3/pyo3/issues/576). Its classes, and the classes of the SDK that the
native layer keeps, are those of one interpreter. In another one a token would not be an `OAuthToken`. And when CPython
3.10 or 3.11 ends, a sub-interpreter that releases the GIL in an `atexit` function never gets it back, so the process
hangs. PyO3 0.30 checks the interpreter only for submodules (`impl_/pymodule.rs`, `make_module`), so this module does.
"""

import importlib
import sys


def _is_main() -> bool:
    try:
        # CPython has renamed the module. The public one is new in 3.14.
        module = importlib.import_module("_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters")
    except ImportError:  # this Python has no sub-interpreters
        return True
    return bool(module.get_current() == module.get_main())


if not _is_main():
    raise ImportError(
        "zoho_token_store works only in the main interpreter of a process, and this is a sub-interpreter. For mod_wsgi "
        "set WSGIApplicationGroup %{GLOBAL}, for uWSGI set single-interpreter = true"
    )
