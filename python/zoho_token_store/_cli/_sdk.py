"""What the commands that ask Zoho need of the SDK. The SDK makes every request.

The import of the SDK takes 0.7 s, so it happens when a command calls `load`, and not with this module.
"""

import functools
import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from zoho_token_store._environment import ENVIRONMENTS, known_data_centres, load_environment
from zoho_token_store._native import Record, StoreError

from . import _terminal
from ._options import STREAM

if TYPE_CHECKING:
    from zohocrmsdk.src.com.zoho.crm.api.dc.data_center import DataCenter

_SDK = "zohocrmsdk"
_TOKEN_PATH = "/oauth/v2/token"  # noqa: S105 - a path
_MAX_SECRET = 1 << 16  # in characters
# Zoho's error codes, such as "invalid_code" and "Access Denied". They cannot be a secret: those have digits.
_ERROR_CODE = re.compile(r"[A-Za-z][A-Za-z _]{0,60}")


class Sdk(NamedTuple):
    """The classes of the installed SDK."""

    oauth_token: Any
    initializer: Any
    data_center: Any
    constants: Any
    exception: type[Exception]


def load() -> Sdk:
    """Import the SDK.

    Raises:
        Failure: It is not installed, or its import fails.

    """
    try:
        from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken  # noqa: PLC0415
        from zohocrmsdk.src.com.zoho.crm.api.dc.data_center import DataCenter  # noqa: PLC0415
        from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException  # noqa: PLC0415
        from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer  # noqa: PLC0415
        from zohocrmsdk.src.com.zoho.crm.api.util.constants import Constants  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == _SDK:
            message = "This command needs the Zoho CRM SDK, which is not installed. Nothing was changed."
            raise _terminal.Failure(message, "Run pip install zohocrmsdk8_0") from None
        message = (
            f"The Zoho CRM SDK cannot be imported, because it needs the package {error.name}. Nothing was changed."
        )
        raise _terminal.Failure(message, f"Run pip install {error.name}") from None
    return Sdk(OAuthToken, Initializer, DataCenter, Constants, SDKException)


@contextmanager
def asking_zoho(sdk: Sdk) -> Iterator[None]:
    """Let the SDK ask Zoho. It logs nothing meanwhile, and an error of the store is raised as a `StoreError`.

    Without a handler, Python prints the SDK's error log lines to stderr, and a traceback for those that it cannot
    format.
    """
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    except sdk.exception as error:
        if isinstance(error.cause, StoreError):  # type: ignore[attr-defined]
            raise error.cause from None  # type: ignore[attr-defined]
        raise
    finally:
        logging.disable(before)


class Zoho(NamedTuple):
    """The options that say where Zoho is."""

    data_centre: str | None
    environment: str | None
    api_domain: str | None
    accounts_url: str | None

    def is_given(self) -> bool:
        """Return whether there is any of these options."""
        return any(self)

    def load(self, sdk: Sdk) -> "DataCenter.Environment":
        """Return the SDK's object for it. Without an option it is the production environment of the US."""
        if self.api_domain is None:
            known = known_data_centres()
            name = (self.data_centre or "us").lower()
            if name not in known:
                raise click.UsageError(f"--data-centre must be one of {', '.join(known)}.")
            environment_name = (self.environment or ENVIRONMENTS[0]).lower()
            if environment_name not in ENVIRONMENTS:  # from a variable
                raise click.UsageError(f"--environment must be one of {', '.join(ENVIRONMENTS)}.")
            return load_environment(name, environment_name)
        urls = {"url": self.api_domain, "accounts_url": self.accounts_url, "file_upload_url": self.api_domain}
        if "name" in sdk.data_center.Environment.__init__.__code__.co_varnames:  # SDK 5
            urls["name"] = "custom"
        environment: DataCenter.Environment = sdk.data_center.Environment(**urls)
        return environment


def _parse_url(_ctx: click.Context, parameter: click.Parameter, url: str | None) -> str | None:
    from urllib.parse import urlsplit  # noqa: PLC0415 - only here

    if url is None:
        return None
    try:
        parts = urlsplit(url)
        is_plain = parts.scheme in {"http", "https"} and bool(parts.hostname) and "@" not in parts.netloc
        is_plain = is_plain and parts.port != 0 and not (parts.query or parts.fragment) and url.isprintable()
    except ValueError:
        is_plain = False
    if not is_plain:
        raise click.BadParameter("Give a URL such as https://accounts.zoho.eu, without a user name and a query.")
    url = url.rstrip("/")
    return url + _TOKEN_PATH if parameter.name == "accounts_url" and not parts.path.strip("/") else url


Command = Callable[..., None]


def zoho_options(command: Command) -> Command:
    """Add the options that say where Zoho is. The command gets them as one argument, `zoho`."""

    @functools.wraps(command)
    def with_zoho(
        *arguments: Any,  # noqa: ANN401 - those of the command
        data_centre: str | None,
        environment: str | None,
        api_domain: str | None,
        accounts_url: str | None,
        **options: Any,  # noqa: ANN401 - those of the command
    ) -> None:
        if (api_domain is None) != (accounts_url is None):
            raise click.UsageError("--api-domain and --accounts-url go together.")
        if api_domain is not None and (data_centre or environment):
            raise click.UsageError(
                "--api-domain and --accounts-url go neither with --data-centre nor with --environment."
            )
        command(*arguments, zoho=Zoho(data_centre, environment, api_domain, accounts_url), **options)

    options = (
        click.option("--data-centre", metavar="DC", help="us, eu, in, cn, au, jp, ca or sa."),
        click.option(
            "--environment",
            type=click.Choice(ENVIRONMENTS, case_sensitive=False),
            help="The environment of the data centre.  [default: production]",
        ),
        click.option("--api-domain", metavar="URL", callback=_parse_url, help="The URL of another Zoho's API."),
        click.option("--accounts-url", metavar="URL", callback=_parse_url, help="The URL of its accounts server."),
    )
    decorated: Command = with_zoho
    for option in reversed(options):
        decorated = option(decorated)
    return decorated


def environment_of(sdk: Sdk, record: Record, given: "DataCenter.Environment | None") -> "DataCenter.Environment | str":
    """Return the SDK's object for the data centre of a row, or the reason why there is none.

    The given one is for rows without an API domain, or with just that one: no other server may get the row's secrets.
    """
    domain = (record.api_domain or "").rstrip("/")
    known: DataCenter.Environment | None = sdk.data_center.get(domain)
    if known is not None:
        return known
    if given is not None and domain in {"", given.url}:
        return given
    if not domain:
        return "it has no API domain: give --data-centre"
    return "the SDK does not know its API domain: give it as --api-domain, with --accounts-url"


class Refusal(NamedTuple):
    """Why Zoho has not done what it was asked for. It contains no secret."""

    reason: str
    answer: str | None  # Zoho's error code


def explain(error: Exception, accounts_url: str) -> Refusal:
    """Return why a request of the SDK has failed.

    The text of the SDK's error is not used: the text of its cause is that of another library, and a proxy's URL can
    have a password.
    """
    host = host_of(accounts_url)
    cause = getattr(error, "cause", None)
    if cause is None:
        answer = str(getattr(error, "error_message", ""))
        if _ERROR_CODE.fullmatch(answer):
            return Refusal(f"{host} has answered {answer}", answer)
    # A request that fails raises an `OSError`. An answer that is not JSON raises one that is also a `ValueError`.
    elif isinstance(cause, OSError) and not isinstance(cause, ValueError):
        return Refusal(f"{host} cannot be reached ({type(cause).__name__})", None)
    return Refusal(f"{host} has not answered as Zoho does", None)


def host_of(url: str) -> str:
    """Return the host and the port of a URL."""
    from urllib.parse import urlsplit  # noqa: PLC0415 - only here

    return urlsplit(url).netloc.rpartition("@")[2]


def read_secret(file: str, what: str) -> str:
    """Read a secret from a file, or from stdin if the file is "-". If that is a terminal, ask for the secret.

    Raises:
        Failure: It cannot be read, or it is not one word.

    """
    from_stdin = file == STREAM
    if from_stdin and (sys.stdin is None or sys.stdin.isatty()):
        return _terminal.prompt_secret(what, f"Write the {what} to standard input.")
    name = "standard input" if from_stdin else file
    try:
        # 0: the encoding of `sys.stdin` may be another.
        with open(0 if from_stdin else file, encoding="utf-8", closefd=not from_stdin) as opened:
            secret = opened.read(_MAX_SECRET).strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        message = f"{name} cannot be read: {reason}. Nothing was changed."
        raise _terminal.Failure(message, f"Give the path of a file with the {what}.") from None
    if not secret or not secret.isprintable() or " " in secret:
        message = f"{name} does not have one line with the {what}. Nothing was changed."
        raise _terminal.Failure(message, f"Write the {what} into it, and nothing else.")
    return secret
