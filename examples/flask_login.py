"""Log in with Zoho: a web application for any number of users. Each user has a row in the token database.

Register a "server-based application" at https://api-console.zoho.com with the redirect URL
http://127.0.0.1:5000/callback, then:

    pip install flask zohocrmsdk8_0 zoho-token-store
    export ZOHO_CLIENT_ID=… ZOHO_CLIENT_SECRET=…
    # The key that signs the session cookies. Generate it once: python -c "import secrets; print(secrets.token_hex())"
    export FLASK_SECRET_KEY=…
    flask --app flask_login run   # http://127.0.0.1:5000

The users are in one data centre (US). For several, see several_data_centres.py.

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
from zohocrmsdk.src.com.zoho.crm.api.dc import USDataCenter
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.org import OrgOperations

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
environment = USDataCenter.PRODUCTION()
store = CustomStoreSQLite("zohooauth.db")
# These settings apply to the whole process. `switch_user` sets the user of the current thread.
Initializer.initialize(environment=environment, token=NoUser(), store=store)


@app.teardown_request
def reset_user(_error: BaseException | None) -> None:
    """Reset the thread's user and data centre: the thread's next request may be another user's."""
    Initializer.switch_user(environment=environment, token=NoUser())


@app.get("/")
def home() -> str:
    """Show the logged-in user, with the organisation from Zoho."""
    if "row" not in session:
        return render_template_string(PAGE)
    token = OAuthToken(id=session["row"])
    try:
        Initializer.switch_user(token=token)  # this thread now calls Zoho for this user
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
    return redirect(environment.accounts_url.replace("/token", "/auth") + "?" + urlencode(query))


@app.get("/callback")
def callback() -> Response | str:
    """Redeem the grant code, save the token, and log the user in."""
    state = session.pop("state", None)
    if state is None or request.args.get("state") != state:
        abort(400, "This login was not started in this browser.")
    if "code" in request.args:
        token = OAuthToken(
            client_id=os.environ["ZOHO_CLIENT_ID"],
            client_secret=os.environ["ZOHO_CLIENT_SECRET"],
            grant_token=request.args["code"],
            redirect_url=url_for("callback", _external=True),
        )
        Initializer.switch_user(token=token)
        session["row"] = token.get_id()
        return redirect(url_for("home"))
    return render_template_string(PAGE, problem="You did not give your consent, so nothing was saved.")


@app.post("/logout")
def logout() -> Response:
    """Revoke the user's token at Zoho, delete it from the database, and end the session."""
    row = session.pop("row", None)
    if row is not None:
        try:
            OAuthToken(id=row).revoke(row)
        finally:
            store.delete_token(row)
    return redirect(url_for("home"))
