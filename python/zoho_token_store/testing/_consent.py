"""The page where a user agrees to what a client wants: whom it lets choose, and where it sends the browser.

Whoever opens it counts as nobody yet and chooses whom to be: there are no passwords here. Every consent brings a
refresh token, as with ``access_type=offline`` and ``prompt=consent`` at Zoho.
"""

from collections.abc import Mapping
from html import escape
from http import HTTPStatus
from urllib.parse import urlencode

from werkzeug.wrappers import Response

from ._accounts import Accounts
from ._records import Client, User

_PAGE = """<!doctype html>
<title>{title}</title>
<h1>{title}</h1>
{body}
"""
_REFUSE = "refuse"


def consent(accounts: Accounts, form: Mapping[str, str], *, chosen: bool) -> tuple[Response, User | None, str]:
    """Answer with the page, or, once a user has `chosen`, with the way back; and say for whom, and what came of it."""
    client = accounts.client(form.get("client_id", ""))
    back = form.get("redirect_uri", "")
    # What is wrong is not answered by a redirect: the URL is not to be trusted.
    if client is None:
        return _error("invalid_client")
    wrong = _what_is_wrong(client, back, form)
    if wrong is not None:
        return _error(wrong)
    if not chosen:
        return _page(accounts.users()), None, "ok"
    if form.get("user") == _REFUSE:
        return _redirect(back, {"error": "access_denied"}, form), None, "access_denied"
    user = next((user for user in accounts.users() if user.name == form.get("user")), None)
    if user is None:
        return _error("invalid_user")
    answer = {
        "code": accounts.grant_code(user, client),
        "location": "us",
        "accounts-server": accounts.api_domain,
    }
    return _redirect(back, answer, form), user, "ok"


def _what_is_wrong(client: Client, back: str, form: Mapping[str, str]) -> str | None:
    if not back.startswith(("http://", "https://")) or client.redirect_url not in (None, back):
        return "invalid_redirect_uri"
    return None if form.get("response_type") == "code" else "unsupported_response_type"


def _page(users: list[User]) -> Response:
    # The form goes to the page's own URL, and so carries the client's query along.
    buttons = "\n".join(
        f'<p><button name="user" value="{escape(user.name)}">{escape(user.name)}</button></p>' for user in users
    )
    body = f'<form method="post">\n{buttons}\n<p><button name="user" value="{_REFUSE}">No</button></p>\n</form>'
    return Response(_PAGE.format(title="Log in as", body=body), mimetype="text/html")


def _redirect(back: str, answer: dict[str, str], form: Mapping[str, str]) -> Response:
    if "state" in form:
        answer["state"] = form["state"]
    separator = "&" if "?" in back else "?"
    return Response(status=HTTPStatus.FOUND, headers={"Location": f"{back}{separator}{urlencode(answer)}"})


def _error(error: str) -> tuple[Response, None, str]:
    page = _PAGE.format(title="Error", body=f"<p>{error}</p>")
    return Response(page, HTTPStatus.BAD_REQUEST, mimetype="text/html"), None, error
