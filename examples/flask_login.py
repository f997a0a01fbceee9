"""Log in with Zoho: a web application for any number of users. Each user has a row in the token database.

Register a "server-based application" at https://api-console.zoho.com with the redirect URL
http://127.0.0.1:5000/callback, then:

    pip install flask zohocrmsdk8_0 zoho-token-store
    export ZOHO_CLIENT_ID=… ZOHO_CLIENT_SECRET=…
    # The key that signs the session cookies. Generate it once: python -c "import secrets; print(secrets.token_hex())"
    export FLASK_SECRET_KEY=…
    flask --app flask_login run   # http://127.0.0.1:5000

The users can be in any of Zoho's data centres: the login begins at one of them, and Zoho tells the callback where the
user is. For that, enable "Multi-DC" for the client, with the same client secret for all data centres.

The session cookie contains the id of the user's row and no token. With HTTPS, also set SESSION_COOKIE_SECURE.
"""

import os
import re
import secrets
from urllib.parse import urlencode

from flask import Flask, abort, redirect, render_template_string, request, session, url_for
from werkzeug.wrappers import Response
from zoho_token_store import CustomStoreSQLite, StoreError
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.api.authenticator.token import Token
from zohocrmsdk.src.com.zoho.crm.api.dc import (
    AUDataCenter,
    CADataCenter,
    CNDataCenter,
    EUDataCenter,
    INDataCenter,
    JPDataCenter,
    SADataCenter,
    USDataCenter,
)
from zohocrmsdk.src.com.zoho.crm.api.dc.data_center import DataCenter
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.org import OrgOperations

# By the `location` that Zoho sends to the callback. The client secret goes to these servers alone.
ENVIRONMENTS = {
    "us": USDataCenter.PRODUCTION(),
    "eu": EUDataCenter.PRODUCTION(),
    "in": INDataCenter.PRODUCTION(),
    "au": AUDataCenter.PRODUCTION(),
    "jp": JPDataCenter.PRODUCTION(),
    "ca": CADataCenter.PRODUCTION(),
    "sa": SADataCenter.PRODUCTION(),
    "cn": CNDataCenter.PRODUCTION(),
}
UNAUTHORIZED, UNAVAILABLE = 401, 503
SCOPES = "ZohoCRM.users.READ,ZohoCRM.org.READ"
PAGE = """<!doctype html>
<title>Log in with Zoho</title>
{% if user %}
  <p>You are <b id="user">{{ user }}</b> of <b id="organisation">{{ organisation }}</b>.</p>
  <form method="post" action="{{ url_for('logout') }}"><button id="logout">Log out</button></form>
{% else %}
  <p id="problem">{{ problem }}</p>
  {% if can_try_again %}<p><a id="again" href="{{ url_for('home') }}">Try again</a></p>{% endif %}
  <p><a id="login" href="{{ url_for('login') }}">Log in with Zoho</a></p>
{% endif %}
"""


class NoUser(Token):
    """A placeholder for the time outside of a request. The SDK must be initialized with a token."""

    def generate_token(self) -> None:
        """Do nothing: there is no token."""

    def authenticate(self, url_connection: object) -> None:  # noqa: ARG002 - the SDK's signature
        """Refuse every call."""
        raise PermissionError("no user is logged in")

    def remove(self) -> bool:
        """Remove nothing."""
        return False


app = Flask(__name__)
app.config.update(SECRET_KEY=os.environ["FLASK_SECRET_KEY"], SESSION_COOKIE_SAMESITE="Lax")
store = CustomStoreSQLite("zohooauth.db")
# These settings apply to the whole process. `switch_user` sets user and data centre of the current thread.
Initializer.initialize(environment=ENVIRONMENTS["us"], token=NoUser(), store=store)


class UnknownDataCentreError(Exception):
    """The data centre of a row is not in `ENVIRONMENTS`, for example because the file has rows of another program."""


def environment_of(token: OAuthToken) -> DataCenter.Environment:
    """Return the environment of a stored token. Its row has the API domain that Zoho sent with the login."""
    domain = (token.get_api_domain() or "").rstrip("/")
    for environment in ENVIRONMENTS.values():
        if environment.url == domain:
            return environment
    raise UnknownDataCentreError(domain)


def is_login_over(error: SDKException) -> bool:
    """Return whether only a new login helps. Everything else, such as an outage of Zoho, passes.

    `error.code` does not tell: it is "TOKEN_STORE" for all errors of the store, also for those that pass.
    """
    if isinstance(error.cause, StoreError):
        return error.cause.code == "missing-id"  # the row was deleted
    return (error.code, error.error_message) == ("INVALID TOKEN ERROR", "invalid_code")  # the token was revoked


def show_problem(problem: str, error: Exception) -> Response:
    """Show what does not work at the moment, and when the user may try again, if the error says so."""
    app.logger.error("row %s: %s", session.get("row"), getattr(error, "cause", None) or error)
    when = re.search(r"may begin in (\d+)", str(error))  # while refreshes fail, the store says when it tries again
    seconds = int(when[1]) + 1 if when else None
    text = f"{problem} Please try again {'later' if seconds is None else f'in {seconds} s'}."
    page = app.make_response(render_template_string(PAGE, problem=text, can_try_again=True))
    page.status_code = UNAVAILABLE
    page.retry_after = seconds
    return page


@app.errorhandler(UnknownDataCentreError)
def show_unknown_data_centre(error: UnknownDataCentreError) -> tuple[str, int]:
    """Say that this program does not know the data centre of the user."""
    app.logger.error("row %s: the API domain %s is not in ENVIRONMENTS", session.get("row"), error)
    return render_template_string(PAGE, problem="Your data centre is not configured in this application."), UNAVAILABLE


@app.teardown_request
def reset_user(_error: BaseException | None) -> None:
    """Reset the thread's user and data centre: the thread's next request may be another user's."""
    Initializer.switch_user(environment=ENVIRONMENTS["us"], token=NoUser())


@app.get("/")
def home() -> Response | str:
    """Show the logged-in user, with the organisation from Zoho."""
    if "row" not in session:
        return render_template_string(PAGE)
    try:
        token = store.find_token_by_id(session["row"])
        Initializer.switch_user(environment=environment_of(token), token=token)  # this thread now acts for this user
        used = token.get_token()
        response = OrgOperations().get_organization()
        if response.get_status_code() == UNAUTHORIZED:  # Zoho can refuse an access token before its hour is over
            store.refused(used)
            response = OrgOperations().get_organization()
        [organisation] = response.get_object().get_org()
    except SDKException as error:
        if not is_login_over(error):
            return show_problem("Zoho cannot be asked for your data at the moment.", error)
        app.logger.warning("row %s: %s", session.pop("row"), error)
        return render_template_string(PAGE, problem="Your login is no longer valid.")
    name = organisation.get_company_name() or organisation.get_zgid()
    return render_template_string(PAGE, user=token.get_user_signature().get_name(), organisation=name)


@app.get("/login")
def login() -> Response:
    """Send the browser to Zoho, which sends it back to `callback`."""
    session["state"] = secrets.token_urlsafe()
    query = {
        "response_type": "code",
        "client_id": os.environ["ZOHO_CLIENT_ID"],
        "redirect_uri": url_for("callback", _external=True),
        "scope": SCOPES,
        "state": session["state"],
        # With these two settings Zoho issues a refresh token at every login.
        "access_type": "offline",
        "prompt": "consent",
    }
    return redirect(ENVIRONMENTS["us"].accounts_url.replace("/token", "/auth") + "?" + urlencode(query))


@app.get("/callback")
def callback() -> Response | str:
    """Redeem the grant code, save the token, and log the user in."""
    state = session.pop("state", None)
    if state is None or request.args.get("state") != state:
        abort(400, "This login was not started in this browser.")
    if "code" not in request.args:
        return render_template_string(PAGE, problem="You did not give your consent, so nothing was saved.")
    # Never the server in `accounts-server`: the query comes from the browser, and a forged one would get the secret.
    environment = ENVIRONMENTS.get(request.args.get("location", "us"))
    if environment is None:
        abort(400, "This data centre is not configured.")
    token = OAuthToken(
        client_id=os.environ["ZOHO_CLIENT_ID"],
        client_secret=os.environ["ZOHO_CLIENT_SECRET"],
        grant_token=request.args["code"],
        redirect_url=url_for("callback", _external=True),
    )
    try:
        Initializer.switch_user(environment=environment, token=token)
    except SDKException as error:
        if not is_login_over(error):
            return show_problem("You cannot be logged in at the moment.", error)
        app.logger.warning("a login: %s", error)
        return render_template_string(PAGE, problem="Zoho did not accept this login. Please try again.")
    if token.get_id() is None:
        # The SDK has swallowed the error of the save. The log of the store has it.
        return show_problem("You cannot be logged in at the moment.", RuntimeError("the login was not saved"))
    session["row"] = token.get_id()
    return redirect(url_for("home"))


@app.post("/logout")
def logout() -> Response | str:
    """Revoke the user's token at Zoho, delete it from the database, and end the session.

    If the token cannot be revoked, its row is kept. Otherwise the token could be used, and not be revoked any more.
    """
    row = session.get("row")
    if row is None:
        return redirect(url_for("home"))
    try:
        # Without `get_token`, which would refresh an expired token.
        token = store.find_token_by_id(row)
        Initializer.switch_user(environment=environment_of(token), token=NoUser())
        has_access = bool(token.get_refresh_token()) and not token.revoke(row)
        if not has_access:
            store.delete_token(row)
    except SDKException as error:
        if not is_login_over(error):
            return show_problem("The logout has failed, and you are still logged in.", error)
        has_access = False  # another browser was faster
    session.pop("row")
    if has_access:
        app.logger.error("row %s: Zoho has not revoked the token. If it is revoked already, delete the row", row)
        problem = "You are logged out. But Zoho has not revoked the access to your data: it may be revoked already."
        return render_template_string(PAGE, problem=problem)
    return redirect(url_for("home"))
