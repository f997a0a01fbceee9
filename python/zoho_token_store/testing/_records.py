"""What the stand-in knows by name: clients, users, and the calls it was sent."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Client:
    """A registered OAuth client. Its secret stays out of `repr`."""

    id: str
    secret: str = field(repr=False)
    redirect_url: str | None = None


@dataclass(frozen=True)
class User:
    """A person in one organisation: the same person in two of them is two users."""

    email: str
    org_id: str

    @property
    def name(self) -> str:
        """The user name that the SDKs 6 to 8 make: ``email:org_id``."""
        return f"{self.email}:{self.org_id}"


@dataclass(frozen=True)
class Call:
    """One call, as it arrived. Holds no secret.

    Attributes:
        at: the stand-in's clock at its arrival, in seconds.
        kind: what was asked for. Of the token endpoint ``"login"`` and ``"refresh"``, its two grants, or
            ``"token"``, neither of them; ``"revoke"``; ``"consent"``, the page where a user agrees; ``"user"``
            and ``"org"``, the look-ups that the SDKs 6 to 8 make after a login; ``"api"``, the rest of the CRM's
            API; ``"other"``, no URL of Zoho's.
        user: the name of the user it was for, if that came out.
        outcome: ``"ok"``, the error that was answered (``"Access Denied"``), or the failure that was injected
            (``"HTTP 500"``, ``"dropped"``).
        path: the URL's path, without its query.

    """

    at: float
    kind: str
    user: str | None
    outcome: str
    path: str
