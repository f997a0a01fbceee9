"""The command login: redeem a grant code, and save the tokens."""

from typing import TYPE_CHECKING, NoReturn

import click

from zoho_token_store._environment import read_variable
from zoho_token_store._native import Record, StoreAtAddress, StoreError

from . import _sdk, _tables, _terminal
from ._database import Database, administration, key_arguments
from ._options import STREAM, json_option

if TYPE_CHECKING:
    from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
    from zohocrmsdk.src.com.zoho.crm.api.dc.data_center import DataCenter

_CLIENT_SECRET = "ZOHO_CLIENT_SECRET"  # noqa: S105 - the name of a variable
_FILE = click.Path(readable=False)  # see the option --db


class _Recorder(StoreAtAddress):
    """A store that remembers what became of the save. The SDKs 6 to 8 swallow its error."""

    row_id: str | None = None
    error: StoreError | None = None

    def save_token(self, token: "OAuthToken") -> None:
        """Save."""
        self.row_id = self.error = None
        try:
            super().save_token(token)
        except Exception as error:
            cause = getattr(error, "cause", None)
            self.error = cause if isinstance(cause, StoreError) else None
            raise
        self.row_id = token.get_id()


@click.command("login", short_help="Redeem a grant code, and save the tokens.")
@click.option("--client-id", metavar="ID", required=True, envvar="ZOHO_CLIENT_ID", show_envvar=True, help="The client.")
@click.option("--client-secret-file", type=_FILE, metavar="FILE", help="A file with the client secret.")
@click.option("--grant", metavar="CODE", help='The grant code. With "-", it is read from stdin.')
@click.option("--refresh-token-file", type=_FILE, metavar="FILE", help="Instead: a file with a refresh token.")
@click.option("--redirect-url", metavar="URL", help="The client's redirect URL, if it has one.")
@click.option("--no-user", is_flag=True, help="Do not ask Zoho for the name of the user.")
@_sdk.zoho_options
@json_option
@click.pass_obj
def login(  # noqa: PLR0913 - one argument per option
    database: Database,
    *,
    client_id: str,
    client_secret_file: str | None,
    grant: str | None,
    refresh_token_file: str | None,
    redirect_url: str | None,
    no_user: bool,
    zoho: _sdk.Zoho,
    as_json: bool,
) -> None:
    """Redeem a grant code at Zoho, save the tokens, and print the row. This needs the SDK, which asks Zoho.

    A grant code is valid for some minutes, for one login, and in one data centre: give --data-centre, or set
    ZOHO_DATA_CENTRE. Without either, it is us. With --refresh-token-file, an existing refresh token is tried and saved.
    A missing database is created.

    The client secret comes from the environment variable ZOHO_CLIENT_SECRET, from a file (or stdin: "-"), or from a
    prompt. It is never an argument: other users can see the arguments of a program.

    For another Zoho, such as a stand-in for tests, give --api-domain and --accounts-url instead of --data-centre.

    The exit status is 1 if the tokens are not saved. It is also 1 if they are saved, but Zoho has sent no refresh
    token, so that the login ends after an hour.

    With --json, print an object with the keys of "list --json".

    \b
    Examples:
      zoho-token-store login --client-id 1000.ABC --grant 1000.123.456
      zoho-token-store login --client-id 1000.ABC --grant - --data-centre eu
      zoho-token-store login --client-id 1000.ABC --refresh-token-file r.txt
    """  # noqa: D301 - see `cli`
    if (grant is None) == (refresh_token_file is None):
        raise click.UsageError("Give either --grant or --refresh-token-file.")
    if [grant, refresh_token_file, client_secret_file].count(STREAM) > 1:
        raise click.UsageError("Only one option can read stdin.")
    sdk = _sdk.load()
    if zoho.api_domain is None:
        zoho = zoho._replace(
            data_centre=zoho.data_centre or _read("ZOHO_DATA_CENTRE"),
            environment=zoho.environment or _read("ZOHO_ENVIRONMENT"),
        )
    where = zoho.load(sdk)
    values = {
        "client_id": client_id.strip(),
        "client_secret": _read_client_secret(client_secret_file),
        "grant_token": _sdk.read_secret(STREAM, "grant code") if grant == STREAM else grant,
        "refresh_token": refresh_token_file and _sdk.read_secret(refresh_token_file, "refresh token"),
        "redirect_url": redirect_url,
    }
    looks_user_up = "find_user" in sdk.oauth_token.__init__.__code__.co_varnames  # SDK 6 to 8
    token = sdk.oauth_token(**values, **({"find_user": not no_user} if looks_user_up else {}))
    with administration(database, make=True) as opened:
        # A code is good for one login: if the database cannot be written, fail before the code is used.
        opened.try_to_write()
    row_id = _redeem(sdk, database, where, token)
    with administration(database) as opened:
        record = opened.record(row_id)
    _print_row(record, as_json=as_json)
    if looks_user_up and not no_user and not record.user_name:
        _terminal.note(
            "The row has no user name, because Zoho has not answered who the user is. "
            "The scopes ZohoCRM.users.READ and ZohoCRM.org.READ allow it."
        )
    if not record.has_refresh_token:
        raise _terminal.Failure(
            "The row is saved, but Zoho has sent no refresh token. So this login ends within the hour.",
            "Log in again, with a code that was requested with access_type=offline and prompt=consent.",
        )


def _read(name: str) -> str | None:
    try:
        return read_variable(name)
    except ValueError as error:
        raise _terminal.Failure(f"{error}. Nothing was changed.", "Set one variable, or its _FILE.") from None


def _read_client_secret(file: str | None) -> str:
    if file is not None:
        return _sdk.read_secret(file, "client secret")
    return _read(_CLIENT_SECRET) or _terminal.prompt_secret(
        "client secret", f"Set {_CLIENT_SECRET}, or give --client-secret-file FILE."
    )


def _redeem(sdk: _sdk.Sdk, database: Database, where: "DataCenter.Environment", token: "OAuthToken") -> str:
    """Let the SDK redeem the token and save it. Return the id of the row.

    Raises:
        Failure: Zoho has refused, or the tokens are not saved.
        StoreError: The database cannot be read. Zoho was not asked.

    """
    accounts_url: str = where.accounts_url
    with _sdk.asking_zoho(sdk):
        store = _Recorder(database.address, busy_timeout=database.timeout, **key_arguments())
    with store:
        try:
            with _sdk.asking_zoho(sdk):
                sdk.initializer.initialize(where, token, store)
        except StoreError as error:
            if store.error is None:
                raise
            _fail_not_saved(error)
        except sdk.exception as error:
            _fail_refused(_sdk.explain(error, accounts_url), is_code=token.get_grant_token() is not None)
        if store.row_id is None:
            if token.get_id() is not None and store.error is None:
                _terminal.note("The database has these tokens already.")
            # SDK 6 to 8 swallow the error of a failed save, and they do not save if the look-up of the user fails in
            # another way than they expect.
            try:
                with _sdk.asking_zoho(sdk):
                    store.save_token(token)
            except StoreError as error:
                _fail_not_saved(error)
        return store.row_id or ""


def _fail_not_saved(error: StoreError) -> NoReturn:
    reason = str(error).removesuffix(f" {error.hint}")
    raise _terminal.Failure(
        f"Zoho has accepted the login, but the tokens are not saved, and are lost when this command ends. {reason}",
        f"{error.hint} Then log in again: a grant code cannot be used twice.",
    ) from None


_HINTS = {
    "invalid_client": "Check --client-id and the client secret. A client is known in its own data centre only: "
    "give another --data-centre.",
    "invalid_client_secret": "Check the client secret. Some clients have another one in each data centre.",
    "invalid_redirect_uri": "Give --redirect-url, exactly as the client has it in Zoho's API console.",
    "Access Denied": "Wait ten minutes: Zoho grants 10 tokens in ten minutes.",
}


def _fail_refused(refusal: _sdk.Refusal, *, is_code: bool) -> NoReturn:
    if refusal.answer == "invalid_code":
        hint = "It was revoked, or it belongs to another client or data centre (--data-centre)."
        if is_code:
            hint = "Get a new code: it is valid for some minutes, for one login, in one data centre (--data-centre)."
    elif refusal.answer is not None:
        hint = _HINTS.get(refusal.answer, "Check the client, its secret, its redirect URL and --data-centre.")
    else:
        hint = "Check the network and the URL, and try again. If Zoho then refuses the code, get a new one."
    raise _terminal.Failure(f"The login has failed: {refusal.reason}. Nothing was saved.", hint) from None


def _print_row(record: Record, *, as_json: bool) -> None:
    if as_json:
        _terminal.print_result(_tables.to_json(_tables.json_object(record)))
    else:
        table = _tables.columns([record], _terminal.now_ms())
        _terminal.print_result(_tables.render(table, _terminal.stdout_width()))
