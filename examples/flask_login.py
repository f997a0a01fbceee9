"""Log in with Zoho: a web application with any number of users at once, each with a row of the token database.

Register a "server-based application" at https://api-console.zoho.com with the redirect URL
http://127.0.0.1:5000/callback, then:

    pip install flask zohocrmsdk8_0 zoho-token-store
    export ZOHO_CLIENT_ID=… ZOHO_CLIENT_SECRET=…
    export FLASK_SECRET_KEY=…     # python -c "import secrets; print(secrets.token_hex())", once: it signs the sessions
    flask --app flask_login run   # http://127.0.0.1:5000

A browser's session holds the id of its user's row, and no token. Behind HTTPS, set SESSION_COOKIE_SECURE, too.
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


class Nobody(Token):
    """Whom the SDK works for outside a request: it has to be initialized with somebody."""

    def generate_token(self) -> None:
        """Have none."""

    def authenticate(self, url_connection: object) -> None:  # noqa: ARG002 - the SDK's signature
        """Let no call through."""
        raise PermissionError("nobody is logged in")

    def remove(self) -> bool:
        """Say that there was nothing to remove."""
        return False


app = Flask(__name__)
app.config.update(SECRET_KEY=os.environ["FLASK_SECRET_KEY"], SESSION_COOKIE_SAMESITE="Lax")
environment = USDataCenter.PRODUCTION()
store = CustomStoreSQLite("zohooauth.db")
# Once: its settings are the process's. What belongs to a user is the thread's, and set by `switch_user`.
Initializer.initialize(environment=environment, token=Nobody(), store=store)


@app.teardown_request
def leave(_error: BaseException | None) -> None:
    """Leave no user, and no user's data centre, behind on a thread that serves somebody else next."""
    Initializer.switch_user(environment=environment, token=Nobody())


@app.get("/")
def home() -> str:
    """Show who is logged in, as Zoho knows them."""
    if "row" not in session:
        return render_template_string(PAGE)
    token = OAuthToken(id=session["row"])
    try:
        Initializer.switch_user(token=token)  # from here on this thread works for this user
        [organisation] = OrgOperations().get_organization().get_object().get_org()
    except SDKException:
        # The row is gone, the user has revoked it at Zoho, or Zoho is out of reach.
        app.logger.exception("row %s", session["row"])
        return render_template_string(PAGE, problem="Zoho does not know you any more.")
    name = organisation.get_company_name() or organisation.get_zgid()
    return render_template_string(PAGE, user=token.get_user_signature().get_name(), organisation=name)


@app.get("/login")
def login() -> Response:
    """Send the browser to Zoho, to come back to `callback`."""
    session["state"] = secrets.token_urlsafe()
    query = {
        "response_type": "code",
        "client_id": os.environ["ZOHO_CLIENT_ID"],
        "redirect_uri": url_for("callback", _external=True),
        "scope": SCOPES,
        "state": session["state"],
        "access_type": "offline",  # with these two
        "prompt": "consent",  # Zoho issues a refresh token each time
    }
    return redirect(environment.accounts_url.replace("/token", "/auth") + "?" + urlencode(query))


@app.get("/callback")
def callback() -> Response | str:
    """Redeem the code that the browser brings, and save the token."""
    state = session.pop("state", None)
    if state is None or request.args.get("state") != state:
        abort(400, "this login was not begun here")
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
    return render_template_string(PAGE, problem="You did not agree, so nothing was saved.")


@app.post("/logout")
def logout() -> Response:
    """End this user's access: at Zoho, in the database, and in the browser."""
    row = session.pop("row", None)
    if row is not None:
        try:
            OAuthToken(id=row).revoke(row)
        finally:
            store.delete_token(row)
    return redirect(url_for("home"))
