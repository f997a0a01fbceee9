"""The consent page: the user logs in and grants a client access, and the browser returns to the client.

There are no passwords: the page lets the browser choose any registered user. Each login with the issued grant code
gets a refresh token, as at Zoho with ``access_type=offline`` and ``prompt=consent``.

A user of another data centre can log in here, too. The browser then brings the location and the accounts server of that
data centre, and only that one knows the grant code: https://www.zoho.com/crm/developer/docs/api/v8/multi-dc.html
"""

from collections.abc import Mapping
from html import escape
from http import HTTPStatus
from urllib.parse import urlencode

from werkzeug.wrappers import Response

from ._records import Client, User
from ._state import State

_PAGE = """<!doctype html>
<title>{title}</title>
<h1>{title}</h1>
{body}
"""
_REFUSE = "refuse"


def consent(state: State, form: Mapping[str, str], *, chosen: bool) -> tuple[Response, User | None, str]:
    """Return the response, the user and the outcome.

    The response is the page, or, once a user is `chosen`, a redirect to the client. The caller holds no lock.
    """
    with state.lock:
        client = state.accounts.client(form.get("client_id", ""))
    redirect_url = form.get("redirect_uri", "")
    # No redirect after an error: an unchecked redirect URL is not safe to follow.
    if client is None:
        return _error("invalid_client")
    error = _validate(client, redirect_url, form)
    if error is not None:
        return _error(error)
    centres = [state, *state.others]
    if not chosen:
        return _page([user for centre in centres for user in _users(centre)]), None, "ok"
    if form.get("user") == _REFUSE:
        return _redirect(redirect_url, {"error": "access_denied"}, form), None, "access_denied"
    for centre in centres:
        user = next((user for user in _users(centre) if user.name == form.get("user")), None)
        if user is not None:
            return _redirect(redirect_url, _grant(centre, user, client), form), user, "ok"
    return _error("invalid_user")


def _users(centre: State) -> list[User]:
    with centre.lock:
        return centre.accounts.users()


def _grant(centre: State, user: User, client: Client) -> dict[str, str]:
    with centre.change():
        # The client may be newer than the link between the data centres.
        centre.accounts.know_client(client)
        return {
            "code": centre.accounts.grant_code(user, client),
            "location": centre.location,
            "accounts-server": centre.accounts.api_domain,
        }


def _validate(client: Client, redirect_url: str, form: Mapping[str, str]) -> str | None:
    if not redirect_url.startswith(("http://", "https://")) or client.redirect_url not in (None, redirect_url):
        return "invalid_redirect_uri"
    return None if form.get("response_type") == "code" else "unsupported_response_type"


def _page(users: list[User]) -> Response:
    # The form has no `action`, so the browser sends it to the page's own URL, with the client's query.
    buttons = "\n".join(
        f'<p><button name="user" value="{escape(user.name)}">{escape(user.name)}</button></p>' for user in users
    )
    body = f'<form method="post">\n{buttons}\n<p><button name="user" value="{_REFUSE}">No</button></p>\n</form>'
    return Response(_PAGE.format(title="Log in as", body=body), mimetype="text/html")


def _redirect(redirect_url: str, answer: dict[str, str], form: Mapping[str, str]) -> Response:
    if "state" in form:
        answer["state"] = form["state"]
    separator = "&" if "?" in redirect_url else "?"
    return Response(status=HTTPStatus.FOUND, headers={"Location": f"{redirect_url}{separator}{urlencode(answer)}"})


def _error(error: str) -> tuple[Response, None, str]:
    page = _PAGE.format(title="Error", body=f"<p>{error}</p>")
    return Response(page, HTTPStatus.BAD_REQUEST, mimetype="text/html"), None, error
