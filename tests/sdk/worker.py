"""A program that uses the real SDK, seen from inside: what a test lets it do.

It runs in a process of its own (`program.py` starts it), because the SDK keeps its state in class attributes
and thread locals: in SDK 5 to 7 a second `Initializer.initialize` on a thread goes on with the first one's
store, and no test must see what another left behind.
"""

import contextlib
import logging
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor

import zoho_token_store
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.org.org_operations import OrgOperations
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

FIELDS = (
    "id",
    "client_id",
    "client_secret",
    "refresh_token",
    "access_token",
    "grant_token",
    "expires_in",
    "redirect_url",
    "api_domain",
)
LOOPBACK = "127.0.0.1"
IN_TIME = 30  # seconds for two threads to meet: far more than they need


class Ears(logging.Handler):
    """Keeps the errors that the SDK logs instead of raising them."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self.heard = []

    def emit(self, record):
        # Not getMessage(): the SDK passes its exceptions as arguments of a message that takes none.
        self.heard.append(f"{record.msg}: {record.args!r}")


def only_loopback(event, arguments):
    """Let no flow out of the machine, whatever URL it took up (an audit hook)."""
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] != LOOPBACK:
        raise PermissionError(f"a flow wants to connect to {arguments[1][0]}")


class Worker:
    """The verbs. All but `in_threads` run on the one thread that the SDK is used from until `restart`."""

    def __init__(self, store, path, environment, folder):
        self.environment = environment
        self.folder = folder
        store_class = getattr(zoho_token_store, store)
        self.store = store_class(path) if store == "CustomStoreSQLite" else store_class()
        self.ears = Ears()
        sdk_log = logging.getLogger("SDKLogger")
        sdk_log.addHandler(self.ears)
        sdk_log.propagate = False
        self.thread = ThreadPoolExecutor(1)

    def ask(self, verb, arguments):
        return self.thread.submit(getattr(self, verb), **arguments).result()

    def restart(self):
        """Forget all the SDK knows, the store aside: its state is in this class and in the thread."""
        self.thread.shutdown()
        Initializer.initializer = None
        self.thread = ThreadPoolExecutor(1)

    def initialize(self, **fields):
        """Initialize the SDK with a fresh token. Returns the token's fields after that."""
        assert self.environment.url.startswith(f"http://{LOOPBACK}:")
        assert self.environment.accounts_url.startswith(f"http://{LOOPBACK}:")
        token = fresh_token(fields)
        Initializer.initialize(self.environment, token, store=self.store, resource_path=self.folder)
        return seen(token)

    def switch_user(self, **fields):
        """Go on as another user, with a fresh token. Returns the token's fields after that."""
        token = fresh_token(fields)
        Initializer.switch_user(token=token)
        return seen(token)

    def switch_to_stored(self, number):
        """Go on with a token as `get_tokens` returns it."""
        token = self.store.get_tokens()[number]
        Initializer.switch_user(token=token)
        return seen(token)

    def in_threads(self, users):
        """Let each user work in a thread of their own, all at once. Returns the organisations each saw."""
        # Each turn begins together, so that none can be through before another has switched.
        together = threading.Barrier(len(users))

        def work(fields):
            Initializer.switch_user(token=fresh_token(fields))
            turns = []
            for _ in range(5):
                together.wait(IN_TIME)
                turns.append(self.organisation())
            return turns

        with ThreadPoolExecutor(len(users)) as pool:
            return list(pool.map(work, users))

    def organisation(self):
        """Make an authorised call through the SDK: the organisation that Zoho takes the program for."""
        response = OrgOperations().get_organization()
        assert response.get_status_code() == 200, response.get_status_code()
        return response.get_object().get_org()[0].get_zgid()

    def remove(self):
        """`remove()` of the SDK's present token."""
        return Initializer.get_initializer().token.remove()

    def revoke(self, of):
        """`revoke(id)` by the SDK's present token."""
        return Initializer.get_initializer().token.revoke(of)

    def rows(self):
        """What the store holds."""
        return [seen(token) for token in self.store.get_tokens()]

    def heard(self):
        """The errors that the SDK logged."""
        return self.ears.heard


def fresh_token(fields):
    fields = dict(fields)
    user = fields.pop("user", None)
    if user is not None:
        fields["user_signature"] = UserSignature(user)
    return OAuthToken(**fields)


def seen(token):
    user = token.get_user_signature()
    fields = {field: getattr(token, f"get_{field}")() for field in FIELDS}
    return {**fields, "user": None if user is None else user.get_name()}


def serve(connection, *arguments):
    """Do what is asked through the pipe, until it is closed."""
    sys.addaudithook(only_loopback)
    worker = Worker(*arguments)
    with contextlib.suppress(EOFError):
        while True:
            verb, arguments = connection.recv()
            try:
                answer = (True, worker.restart() if verb == "restart" else worker.ask(verb, arguments))
            except BaseException as error:  # noqa: BLE001 - the test judges it
                code = getattr(error, "code", None)
                answer = (False, (type(error).__name__, code, str(error), traceback.format_exc()))
            connection.send(answer)
