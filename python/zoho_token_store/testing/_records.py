"""The data types of the stand-in: clients, users and recorded calls."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Client:
    """A registered OAuth client. Its `repr` does not contain the secret."""

    id: str
    secret: str = field(repr=False)
    redirect_url: str | None = None


@dataclass(frozen=True)
class User:
    """A person in one organisation. The same person in two organisations is two users."""

    email: str
    org_id: str

    @property
    def name(self) -> str:
        """The user name as the SDKs 6 to 8 build it: ``email:org_id``."""
        return f"{self.email}:{self.org_id}"


@dataclass(frozen=True)
class Call:
    """The record of one call. It contains no secret.

    Attributes:
        at: the arrival time in seconds, by the stand-in's clock.
        kind: what the call was for.

            - ``"login"``, ``"refresh"``: the token endpoint, with a grant code or with a refresh token.
            - ``"token"``: the token endpoint, with any other grant type.
            - ``"revoke"``: the revoke endpoint.
            - ``"consent"``: the consent page.
            - ``"user"``, ``"org"``: the look-ups that the SDKs 6 to 8 make after a login.
            - ``"api"``: any other part of the CRM's API.
            - ``"other"``: a URL that the stand-in does not have.
        user: the name of the user, if the call could be matched to one.
        outcome: ``"ok"``, the error in the answer (``"Access Denied"``), or the injected failure (``"HTTP 500"``,
            ``"dropped"``).
        path: the path of the URL, without the query.

    """

    at: float
    kind: str
    user: str | None
    outcome: str
    path: str
