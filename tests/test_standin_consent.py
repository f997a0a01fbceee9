"""The stand-in's consent page: what it shows, where it redirects the browser, and what it refuses."""

from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from zoho_token_store.testing import ZohoStandIn

BACK = "http://127.0.0.1:9/back?page=1"


@pytest.fixture
def zoho():
    with ZohoStandIn() as standin:
        yield standin


@pytest.fixture
def browse(zoho):
    with requests.Session() as session:
        session.trust_env = False

        def send(method, user=None, **query):
            parameters = {
                "client_id": zoho.client_id,
                "redirect_uri": BACK,
                "response_type": "code",
                "state": "s & t",
                **query,
            }
            parameters = {key: value for key, value in parameters.items() if value is not None}
            data = None if user is None else {"user": user}
            return session.request(
                method, zoho.consent_url, params=parameters, data=data, allow_redirects=False, timeout=10
            )

        yield send


def redirect_query(response):
    assert response.status_code == 302
    url, _, query = response.headers["Location"].partition("?")
    assert url == BACK.partition("?")[0]
    return {key: value for key, [value] in parse_qs(query, strict_parsing=True).items()}


def test_it_shows_each_user(zoho, browse):
    """The page has a button for each registered user. It escapes the names and issues nothing."""
    zoho.add_user("ada@example.com", "1")
    zoho.add_user("<b>@example.com", "2")
    response = browse("GET")
    assert response.status_code == 200
    assert 'value="ada@example.com:1"' in response.text
    assert "&lt;b&gt;@example.com:2" in response.text
    assert "<b>" not in response.text
    assert zoho.token_calls == 0


def test_a_consent_redirects_with_a_code(zoho, browse):
    """After a consent the redirect has a grant code for this user, the `state`, and the query of the redirect URL."""
    user = zoho.add_user("ada@example.com", "1")
    zoho.add_user("bob@example.com", "2")
    answer = redirect_query(browse("POST", user.name))
    assert (answer["page"], answer["state"], answer["accounts-server"]) == ("1", "s & t", zoho.url)
    form = {"client_id": zoho.client_id, "client_secret": zoho.client_secret, "code": answer["code"]}
    with requests.Session() as session:
        session.trust_env = False
        form["grant_type"] = "authorization_code"
        assert "refresh_token" in session.post(zoho.accounts_url, data=form, timeout=10).json()
    assert [(call.kind, call.user, call.outcome) for call in zoho.calls] == [
        ("consent", user.name, "ok"),
        ("login", user.name, "ok"),
    ]


def test_a_refusal_redirects_without_a_code(zoho, browse):
    """After a refusal the redirect has `error=access_denied` and the `state`, and no code."""
    zoho.add_user("ada@example.com", "1")
    assert redirect_query(browse("POST", "refuse")) == {"page": "1", "error": "access_denied", "state": "s & t"}
    assert zoho.calls[-1].outcome == "access_denied"


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"client_id": "nobody"}, "invalid_client"),
        ({"client_id": None}, "invalid_client"),
        ({"redirect_uri": None}, "invalid_redirect_uri"),
        ({"redirect_uri": "javascript:alert(1)"}, "invalid_redirect_uri"),
        ({"response_type": "token"}, "unsupported_response_type"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_invalid_request_is_not_redirected(zoho, browse, method, wrong, error):
    """The page shows the error for an invalid client, redirect URL or response type. There is no redirect."""
    user = zoho.add_user("ada@example.com", "1")
    response = browse(method, user.name if method == "POST" else None, **wrong)
    assert (response.status_code, "Location" in response.headers) == (400, False)
    assert error in response.text
    assert zoho.calls[-1].outcome == error


def test_a_client_has_one_redirect_url(zoho, browse):
    """For a client with a redirect URL, any other redirect URL is refused."""
    user = zoho.add_user("ada@example.com", "1")
    client = zoho.add_client(BACK)
    assert "code" in redirect_query(browse("POST", user.name, client_id=client.id))
    elsewhere = browse("POST", user.name, client_id=client.id, redirect_uri="https://elsewhere.example.com")
    assert "invalid_redirect_uri" in elsewhere.text


def test_only_registered_users_can_be_chosen(zoho, browse):
    """The choice of an unregistered user is refused."""
    response = browse("POST", "eve@example.com:1")
    assert (response.status_code, zoho.calls[-1].outcome) == (400, "invalid_user")


def test_two_data_centres(zoho, browse):
    """A user of another data centre can log in, too. The code is valid at that user's accounts server only."""
    with ZohoStandIn(location="eu") as eu:
        zoho.know_data_centre(eu)
        users = {"us": zoho.add_user("ada@example.com", "1"), "eu": eu.add_user("bob@example.com", "2")}
        shown = browse("GET").text
        client = zoho.add_client()  # newer than the link between the two
        for location, standin in (("us", zoho), ("eu", eu)):
            user = users[location]
            assert f'value="{user.name}"' in shown
            answer = redirect_query(browse("POST", user.name, client_id=client.id))
            assert (answer["location"], answer["accounts-server"]) == (location, standin.url)
            form = {"client_id": client.id, "client_secret": client.secret, "code": answer["code"]}
            form["grant_type"] = "authorization_code"
            other = zoho if standin is eu else eu
            with requests.Session() as session:
                session.trust_env = False
                if location == "us":
                    other.know_client(client)
                assert session.post(other.accounts_url, data=form, timeout=10).json() == {"error": "invalid_code"}
                token = session.post(standin.accounts_url, data=form, timeout=10).json()
                assert token["api_domain"] == standin.url
                headers = {"Authorization": f"Zoho-oauthtoken {token['access_token']}"}
                for server, status in ((standin, 200), (other, 401)):
                    refused = session.get(f"{server.url}/crm/v8/org", headers=headers, timeout=10)
                    assert refused.status_code == status
                assert refused.json()["code"] == "INVALID_TOKEN"
        assert browse("POST", "eve@example.com:1").status_code == 400


def test_two_stand_ins_know_one_client(zoho):
    """`know_client` registers the client of another stand-in with the same id and secret."""
    with ZohoStandIn() as sandbox:
        client = zoho.add_client()
        sandbox.know_client(client)
        form = {"client_id": client.id, "client_secret": client.secret, "grant_type": "authorization_code"}
        form["code"] = sandbox.grant_code("ada@example.com", client)
        with requests.Session() as session:
            session.trust_env = False
            assert session.post(sandbox.accounts_url, data=form, timeout=10).json()["api_domain"] == sandbox.url
    assert urlsplit(sandbox.url).port != urlsplit(zoho.url).port
