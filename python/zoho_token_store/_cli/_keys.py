"""Commands for encryption keys: key new, key id, rekey, forget-key."""

import re
import sys

import click

from zoho_token_store._native import PLAINTEXT, StoreError, key_file, key_id, key_names, new_key, write_new_key

from . import _format, _tables, _terminal
from ._database import KEY_VARIABLES, Database, KeySource, administration, key_source
from ._options import STREAM, dry_run_option, json_option, yes_option

_FILE = click.Path(readable=False)  # see the option --db
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{22}")
_PLAINTEXT = "plaintext"  # the name of rows in clear text, where ids of keys are listed


@click.group("key", short_help="Make a key, or show the ids of keys.")
def key() -> None:
    """Make a key for encryption at rest, or show the ids of keys.

    A key is text that begins with "ztsk1_". It is a secret. The id of a key is not: rows and messages name a key by it.

    Keep keys apart from the database and from its backups. Without its key, a row is lost.

    \b
    Examples:
      zoho-token-store key new --out /etc/zoho/tokens.key
      zoho-token-store key id /etc/zoho/tokens.key
    """  # noqa: D301 - see `cli`


@key.command("new", short_help="Make a new key.")
@click.option("--out", type=_FILE, metavar="FILE", help="Write the key into FILE, which must not exist.")
@click.option("--show", is_flag=True, help="Print the key even if the output is a terminal.")
@json_option
def new(*, out: str | None, show: bool, as_json: bool) -> None:
    """Make a new key. Nothing is encrypted with it yet.

    With --out, the key is written into a new FILE that only you can read (mode 0600). A file is never replaced. Without
    it, the key is printed, for a pipe. It is printed on a terminal only with --show.

    With --json, print an object with the keys id and file. Without --out, it has the key itself instead of file.

    \b
    Examples:
      zoho-token-store key new --out /etc/zoho/tokens.key
      zoho-token-store key new | vault kv put secret/zoho-tokens key=-
    """  # noqa: D301 - see `cli`
    if out is not None and (show or out == STREAM):
        raise click.UsageError("--out writes the key into a file. Without --out, it is printed.")
    if out is None:
        if _terminal.stdout_is_terminal() and not show:
            message = "The new key would appear on the terminal. No key was made."
            raise _terminal.Failure(message, "Pass --out FILE, pipe the output into another program, or pass --show.")
        _terminal.flush_stdout()
        made = new_key()
        _terminal.print_result(_tables.to_json({"id": key_id(made), "key": made}) if as_json else made)
        if _terminal.stdout_is_exposed_file():
            _terminal.note("Standard output is a file that other users can read: run chmod 600 on it.")
        return
    made_id = write_new_key(out)
    if as_json:
        _terminal.print_result(_tables.to_json({"id": made_id, "file": out}))
    else:
        _terminal.print_result(
            f"Wrote a new key with the id {made_id} to {_format.escape_unprintable(out)}. "
            "Keep a copy of it, apart from the database and its backups: without it, the rows are lost."
        )


@key.command("id", short_help="Show the ids of keys.")
@click.argument("file", type=_FILE, required=False)
@json_option
def id_(*, file: str | None, as_json: bool) -> None:
    """Show the ids of the keys in FILE, or of standard input if FILE is "-", in their order.

    Without FILE, they are those of the keys that commands use: of the file that ZOHO_TOKEN_STORE_KEY_FILE names, or of
    the variable ZOHO_TOKEN_STORE_KEYS. "plaintext" stands for PLAINTEXT.

    With --json, print an object with the key ids: an array.

    \b
    Examples:
      zoho-token-store key id /etc/zoho/tokens.key
      vault kv get -field=key secret/zoho-tokens | zoho-token-store key id -
    """  # noqa: D301 - see `cli`
    if file == STREAM:
        words = sys.stdin.read().split() if sys.stdin is not None else []
        ids = key_names([PLAINTEXT if word == repr(PLAINTEXT) else word for word in words])
    else:
        ids = key_names(_required_source()) if file is None else _names_in(file)
    _terminal.print_result(_tables.to_json({"ids": ids}) if as_json else "\n".join(ids))


def _names_in(file: str) -> list[str]:
    try:
        return key_names(key_file(file))
    except StoreError as error:
        if error.code != "keys-unavailable":
            raise
        # The hint of the error is about the keys of a store.
        message = str(error).removesuffix(f" {error.hint}")
        raise _terminal.Failure(message, "Give the path of a file with keys that only you can read.") from None


def _required_source() -> KeySource:
    source = key_source()
    if source is None:
        raise _terminal.Failure(
            "No keys were given. Nothing was changed.", f"Name a file with the keys in {KEY_VARIABLES[0]}."
        )
    return source


@click.command("rekey", short_help="Encrypt all rows under the first key.")
@dry_run_option
@json_option
@click.pass_context
def rekey(ctx: click.Context, *, dry_run: bool, as_json: bool) -> None:
    """Encrypt all rows under the first key, while programs use the database.

    The keys come from the file that ZOHO_TOKEN_STORE_KEY_FILE names, one per line, or from ZOHO_TOKEN_STORE_KEYS. Rows
    under the other keys are read, and encrypted under the first one. So are rows in clear text if a line is PLAINTEXT.
    If PLAINTEXT is the first line, rows are decrypted.

    You can interrupt the command and run it again. The exit status is 1 if rows are left that are not under the first
    key, or that were altered: "check" names them.

    With --json, print an object with the keys rewritten, left (numbers of rows), key (the id of the first key) and
    dry_run.

    \b
    Examples:
      ZOHO_TOKEN_STORE_KEY_FILE=/etc/zoho/tokens.key zoho-token-store rekey
      zoho-token-store rekey --dry-run
    """  # noqa: D301 - see `cli`
    database: Database = ctx.obj
    names = key_names(_required_source())
    with administration(database) as opened:
        try:
            result = opened.rekey_preview() if dry_run else opened.rekey()
        except KeyboardInterrupt:
            if not dry_run:
                _terminal.note("Interrupted. What was rewritten stays. Run the command again for the other rows.")
            raise
    rewritten, left = result.rewritten, result.left
    if as_json:
        report = {"rewritten": rewritten, "left": left, "key": names[0], "dry_run": dry_run}
        _terminal.print_result(_tables.to_json(report))
    else:
        done = (
            ("Would decrypt" if dry_run else "Decrypted")
            if names[0] == _PLAINTEXT
            else ("Would encrypt" if dry_run else "Encrypted")
        )
        under = "" if names[0] == _PLAINTEXT else f" under the key {names[0]}"
        _terminal.print_result(f"{done} {_format.count(rewritten, 'row')}{under}.")
    if left:
        many = "1 row is" if left == 1 else f"{left} rows are"
        _terminal.note(f'{many} left under other keys, in clear text or altered. "check" names them.')
        ctx.exit(1)


@click.command("forget-key", short_help="Delete the rows under a lost key.")
@click.argument("key_id", metavar="ID")
@json_option
@yes_option("Delete")
@click.pass_obj
def forget_key(database: Database, *, key_id: str, as_json: bool, assume_yes: bool) -> None:
    """Delete the rows under the key with this ID, which is lost. Other rows stay.

    Their users have to log in again. The key itself is not needed. "check" shows the IDs of missing keys.

    With --json, print an object with the key deleted: how many rows were deleted.

    \b
    Examples:
      zoho-token-store forget-key 6Ypl77eeicfTKPeS2sKSxg
      zoho-token-store forget-key 6Ypl77eeicfTKPeS2sKSxg --yes
    """  # noqa: D301 - see `cli`
    if not _KEY_ID.fullmatch(key_id):
        # It may be a key, so it is not repeated.
        raise _terminal.Failure("This is not the id of a key. Nothing was changed.", 'Run "check" to see the ids.')
    source = key_source()
    if source is not None and key_id in key_names(source):
        message = "You have this key, so its rows are not lost. Nothing was changed."
        raise _terminal.Failure(message, "Delete rows with delete or purge. Or run the command without this key.")
    with administration(database) as opened:
        rows = opened.key_usage().get(key_id, 0)
        if rows:
            what = "the row" if rows == 1 else f"the {rows} rows"
            question = f"Delete {what} under the key {key_id} from {database.name}? Nothing can bring them back."
            _terminal.confirm(question, assume_yes=assume_yes)
        # Even without rows: the database may still record the key.
        deleted = opened.forget_key(key_id)
    if as_json:
        _terminal.print_result(_tables.to_json({"deleted": deleted}))
    else:
        _terminal.print_result(f"Deleted {_format.count(deleted, 'row')} under the key {key_id}.")
