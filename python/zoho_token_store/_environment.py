"""A token and a data centre from environment variables. `__init__.py` exports both functions."""

from __future__ import annotations

import os

from ._native import token_from_dict

TYPE_CHECKING = False  # type checkers take it as true; `typing` would make the import of this package slower
if TYPE_CHECKING:
    from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
    from zohocrmsdk.src.com.zoho.crm.api.dc.data_center import DataCenter

# The package of the SDK with one module for each data centre, such as `eu_data_center`.
_DATA_CENTRES = "zohocrmsdk.src.com.zoho.crm.api.dc"
_MODULE_ENDING = "_data_center"
ENVIRONMENTS = ("production", "sandbox", "developer")

# Environment variables without their prefix, and the columns of a token.
_COLUMNS = {
    "CLIENT_ID": "client_id",
    "CLIENT_SECRET": "client_secret",
    "REFRESH_TOKEN": "refresh_token",
    "GRANT_TOKEN": "grant_token",
    "REDIRECT_URL": "redirect_url",
    "USER_NAME": "user_name",
    "TOKEN_ID": "id",
}


def read_variable(name: str) -> str | None:
    """Return the value of a variable, or of the file that `…_FILE` names. No message shows a value."""
    value, path = (os.environ.get(key, "").strip() for key in (name, f"{name}_FILE"))
    if value and path:
        message = f"{name} and {name}_FILE are both set: keep one of them"
        raise ValueError(message)
    if path:
        try:
            with open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib would make the import slower
                value = file.read().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            message = f"the file that {name}_FILE names cannot be read: {reason}"
            raise ValueError(message) from None
        if not value:
            message = f"the file that {name}_FILE names is empty"
            raise ValueError(message)
    return value or None


def token_from_environment(prefix: str = "ZOHO_") -> OAuthToken:
    """Make a token from environment variables.

    The variables are `CLIENT_ID`, `CLIENT_SECRET`, `REFRESH_TOKEN` or `GRANT_TOKEN`, `REDIRECT_URL`, `USER_NAME` and
    `TOKEN_ID`, each with the prefix. `…_FILE` names a file with the value instead, such as a mounted secret. An empty
    variable counts as missing, and white space around a value is removed.

    A token with a refresh or a grant token needs a client id and a client secret. Without one, `USER_NAME` or
    `TOKEN_ID` says which stored token is meant.

    Args:
        prefix: What the name of each variable begins with.

    Returns:
        A new `OAuthToken`. It is not saved yet.

    Raises:
        ValueError: a variable is missing, is given twice, or names a file that cannot be read. The message names the
            variable, and shows no value.
        ImportError: no Zoho CRM SDK is installed.

    Example:
        >>> import os
        >>> os.environ.update(ZOHO_CLIENT_ID="1000.CLIENT", ZOHO_CLIENT_SECRET="made-up")
        >>> os.environ.update(ZOHO_REFRESH_TOKEN="1000.made.up")
        >>> token_from_environment().get_client_id()
        '1000.CLIENT'
    """
    values = {name: read_variable(prefix + name) for name in _COLUMNS}
    names = {name: prefix + name for name in _COLUMNS}
    if values["REFRESH_TOKEN"] and values["GRANT_TOKEN"]:
        message = f"{names['REFRESH_TOKEN']} and {names['GRANT_TOKEN']} are both set: keep one of them"
        raise ValueError(message)
    if values["REFRESH_TOKEN"] or values["GRANT_TOKEN"]:
        missing = [names[name] for name in ("CLIENT_ID", "CLIENT_SECRET") if not values[name]]
        if missing:
            message = f"{' and '.join(missing)} must be set"
            raise ValueError(message)
    elif not (values["USER_NAME"] or values["TOKEN_ID"]):
        message = (
            f"{names['REFRESH_TOKEN']} or {names['GRANT_TOKEN']} must be set, "
            f"or {names['USER_NAME']} or {names['TOKEN_ID']} for a token that is stored already"
        )
        raise ValueError(message)
    token: OAuthToken = token_from_dict({column: values[name] for name, column in _COLUMNS.items()})
    return token


def data_centre_from_environment(prefix: str = "ZOHO_") -> DataCenter.Environment:
    """Return the SDK's environment object for a data centre, from environment variables.

    `DATA_CENTRE` is `us`, `eu`, `in`, `cn`, `au`, `jp`, `ca` or `sa`, as far as the installed SDK has it. `ENVIRONMENT`
    is `production`, `sandbox` or `developer`. Without it, it is `production`. Upper and lower case are the same.

    Args:
        prefix: What the name of each variable begins with.

    Returns:
        The first argument of the SDK's `Initializer.initialize`.

    Raises:
        ValueError: `DATA_CENTRE` is missing, or one of the two has another value. The message names the variable and
            the values that it can have.
        ImportError: no Zoho CRM SDK is installed.

    Example:
        >>> import os
        >>> os.environ.update(ZOHO_DATA_CENTRE="eu", ZOHO_ENVIRONMENT="sandbox")
        >>> data_centre_from_environment().url
        'https://sandbox.zohoapis.eu'
    """
    name = _choose(prefix + "DATA_CENTRE", known_data_centres(), None)
    return load_environment(name, _choose(prefix + "ENVIRONMENT", ENVIRONMENTS, "production"))


def known_data_centres() -> list[str]:
    """Return the names of the data centres that the installed SDK has."""
    import importlib  # noqa: PLC0415 - only here
    import pkgutil  # noqa: PLC0415 - only here

    package = importlib.import_module(_DATA_CENTRES)
    modules = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(name.removesuffix(_MODULE_ENDING) for name in modules if name.endswith(_MODULE_ENDING))


def load_environment(name: str, environment: str) -> DataCenter.Environment:
    """Return the SDK's environment object of a known data centre."""
    import importlib  # noqa: PLC0415 - only here

    module = importlib.import_module(f"{_DATA_CENTRES}.{name}{_MODULE_ENDING}")
    data_centre = getattr(module, f"{name.upper()}DataCenter")
    return getattr(data_centre, environment.upper())()


def _choose(variable: str, allowed: tuple[str, ...] | list[str], default: str | None) -> str:
    value = (read_variable(variable) or default or "").lower()
    if value not in allowed:
        message = f"{variable} must be one of {', '.join(allowed)}"
        raise ValueError(message)
    return value
