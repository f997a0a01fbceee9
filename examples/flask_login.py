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
import secrets
from urllib.parse import urlencode

from flask import Flask, abort, redirect, render_template_string, request, session, url_for
from werkzeug.wrappers import Response
from zoho_token_store import CustomStoreSQLite
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.api.authenticator.token import Token
from zohocrmsdk.src.com.zoho.crm.api.dc import (
    AUDataCenter,
    CADataCenter,
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
}
SCOPES = "ZohoCRM.users.READ,ZohoCRM.org.READ"
PAGE = """<!doctype html>
<title>Log in with Zoho</title>
{% if user %}
  <p>You are <b id="user">{{ user }}</b> of <b id="organisation">{{ organisation }}</b>.</p>
  <form method="post" action="{{ url_for('logout') }}"><button id="logout">Log out</button></form>
{% else %}
  <p>{{ problem }}</p>
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


def environment_of(token: OAuthToken) -> DataCenter.Environment:
    """Return the environment of a stored token. Its row has the API domain that Zoho sent with the login."""
    by_domain = {environment.url: environment for environment in ENVIRONMENTS.values()}
    return by_domain[token.get_api_domain().rstrip("/")]


@app.teardown_request
def reset_user(_error: BaseException | None) -> None:
    """Reset the thread's user and data centre: the thread's next request may be another user's."""
    Initializer.switch_user(environment=ENVIRONMENTS["us"], token=NoUser())


@app.get("/")
def home() -> str:
    """Show the logged-in user, with the organisation from Zoho."""
    if "row" not in session:
        return render_template_string(PAGE)
    try:
        token = store.find_token_by_id(session["row"])
        Initializer.switch_user(environment=environment_of(token), token=token)  # this thread now acts for this user
        [organisation] = OrgOperations().get_organization().get_object().get_org()
    except SDKException:
        # The row was deleted, the user has revoked the token at Zoho, or Zoho cannot be reached.
        app.logger.exception("row %s", session["row"])
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
    except SDKException:
        app.logger.exception("a login")
        return render_template_string(PAGE, problem="Zoho did not accept this login. Please try again.")
    session["row"] = token.get_id()
    return redirect(url_for("home"))


@app.post("/logout")
def logout() -> Response:
    """Revoke the user's token at Zoho, delete it from the database, and end the session."""
    row = session.pop("row", None)
    if row is not None:
        try:
            # Without `get_token`, which would refresh an expired token.
            token = store.find_token_by_id(row)
            Initializer.switch_user(environment=environment_of(token), token=NoUser())
            token.revoke(row)
        finally:
            store.delete_token(row)
    return redirect(url_for("home"))
