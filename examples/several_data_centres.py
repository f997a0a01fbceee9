"""Users in several data centres: log in where the user's data is, and find the way back after a restart.

Zoho keeps each user in one data centre (US, EU, India, …). A code or token is only valid there: anywhere else Zoho
answers `invalid_code` or `INVALID_TOKEN`. Enable "Multi-DC" for your client at https://api-console.zoho.com, with the
same client secret for all data centres.

    pip install zohocrmsdk8_0 zoho-token-store
    export ZOHO_CLIENT_ID=… ZOHO_CLIENT_SECRET=… ZOHO_REDIRECT_URL=…
    python several_data_centres.py --login-url          # open this URL in a browser, and log in
    python several_data_centres.py --callback 'https://…?code=…&location=eu&accounts-server=…'
    python several_data_centres.py                      # calls Zoho for each user that has logged in

https://www.zoho.com/crm/developer/docs/api/v8/multi-dc.html describes what Zoho sends.
"""

import argparse
import os
from urllib.parse import parse_qs, urlencode, urlsplit

from zoho_token_store import CustomStoreSQLite
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
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
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.org import OrgOperations

# By the `location` that Zoho sends to the callback. For the sandbox, use SANDBOX() of each.
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


def environment_of_callback(query: dict[str, str]) -> DataCenter.Environment:
    """Return the environment of the user who has just logged in.

    The query comes from a browser, and the client secret goes to the accounts server. So take the server from the list,
    never from `accounts-server`: a forged link would send the secret to another server.
    """
    environment = ENVIRONMENTS.get(query.get("location", "us"))
    if environment is None:
        raise SystemExit(f"no data centre is configured for the location {query['location']!r}")
    return environment


def environment_of_row(token: OAuthToken) -> DataCenter.Environment:
    """Return the environment of a stored token. Its row has the API domain that Zoho sent with the login."""
    domain = (token.get_api_domain() or "").rstrip("/")
    for environment in ENVIRONMENTS.values():
        if environment.url == domain:
            return environment
    raise SystemExit(f"row {token.get_id()} has an API domain that is not configured: {domain}")


def act_for(environment: DataCenter.Environment, token: OAuthToken) -> None:
    """Make the calls of this thread for this user, in this user's data centre."""
    if Initializer.get_initializer() is None:
        Initializer.initialize(environment=environment, token=token, store=store)
    else:
        Initializer.switch_user(environment=environment, token=token)


def login_url() -> str:
    """Return the URL of Zoho's consent page. It may be that of any data centre: Zoho knows where the user is."""
    query = {
        "response_type": "code",
        "client_id": os.environ["ZOHO_CLIENT_ID"],
        "redirect_uri": os.environ["ZOHO_REDIRECT_URL"],
        "scope": "ZohoCRM.users.READ,ZohoCRM.org.READ",
        # With these two settings Zoho issues a refresh token at every login.
        "access_type": "offline",
        "prompt": "consent",
    }
    return ENVIRONMENTS["us"].accounts_url.replace("/token", "/auth") + "?" + urlencode(query)


def log_in(callback_url: str) -> None:
    """Redeem the grant code of a callback, and save the token."""
    query = {name: values[0] for name, values in parse_qs(urlsplit(callback_url).query).items()}
    token = OAuthToken(
        client_id=os.environ["ZOHO_CLIENT_ID"],
        client_secret=os.environ["ZOHO_CLIENT_SECRET"],
        grant_token=query["code"],
        redirect_url=os.environ["ZOHO_REDIRECT_URL"],
    )
    act_for(environment_of_callback(query), token)


def main() -> None:
    """Log in if asked to, and print the organisation of each user."""
    parser = argparse.ArgumentParser(description="Users in several data centres.")
    parser.add_argument("--login-url", action="store_true", help="print the URL of the consent page")
    parser.add_argument("--callback", metavar="URL", help="the URL that Zoho has redirected the browser to")
    options = parser.parse_args()
    if options.login_url:
        print(login_url())
        return
    if options.callback:
        log_in(options.callback)
    for token in store.get_tokens():
        act_for(environment_of_row(token), token)
        [organisation] = OrgOperations().get_organization().get_object().get_org()
        print(f"row {token.get_id()}: {token.get_user_signature().get_name()}, organisation {organisation.get_zgid()}")


store = CustomStoreSQLite("zohooauth.db")
if __name__ == "__main__":
    main()
