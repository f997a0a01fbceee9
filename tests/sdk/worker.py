"""A program that uses the real SDK. A test chooses which methods of `Worker` it runs.

It runs in its own process (`program.py` starts it), so that the tests do not share state. The SDK keeps its state in
class attributes and thread locals. In SDK 5 to 7 a second `Initializer.initialize` on a thread keeps the first store.
"""

import contextlib
import logging
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor

import zoho_token_store
from own_process import drop_privileges
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
TIMEOUT = 30  # seconds until all threads are at a barrier: far more than they need


class ErrorHandler(logging.Handler):
    """Keeps the errors that the SDK logs and does not raise."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self.logged = []

    def emit(self, record):
        # getMessage() would fail: the SDK passes an exception as the argument of a message without a placeholder.
        self.logged.append(f"{record.msg}: {record.args!r}")


def only_loopback(event, arguments):
    """Refuse connections to other machines (an audit hook)."""
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] != LOOPBACK:
        raise PermissionError(f"a test connects to {arguments[1][0]}")


class Worker:
    """The methods that a test runs. All except `in_threads` run on one thread, until `restart` starts a new one."""

    def __init__(self, store, place, environment, folder):
        self.environment = environment
        self.folder = folder
        if "key_file" in place:
            place = {**place, "keys": zoho_token_store.key_file(place["key_file"])}
            del place["key_file"]
        self.store = getattr(zoho_token_store, store)(**place)
        self.errors = ErrorHandler()
        sdk_log = logging.getLogger("SDKLogger")
        sdk_log.addHandler(self.errors)
        sdk_log.propagate = False
        self.thread = ThreadPoolExecutor(1)

    def call(self, method, arguments):
        return self.thread.submit(getattr(self, method), **arguments).result()

    def restart(self):
        """Reset the state of the SDK, which is in the class and in the thread. Keep the store."""
        self.thread.shutdown()
        Initializer.initializer = None
        self.thread = ThreadPoolExecutor(1)

    def initialize(self, **fields):
        """Initialize the SDK with a new token object. Return the token's fields after that."""
        assert self.environment.url.startswith(f"http://{LOOPBACK}:")
        assert self.environment.accounts_url.startswith(f"http://{LOOPBACK}:")
        token = fresh_token(fields)
        Initializer.initialize(self.environment, token, store=self.store, resource_path=self.folder)
        return seen(token)

    def use_second_store(self, path):
        """Use another file from now on. The SDK gets it with the next `initialize`."""
        self.store = zoho_token_store.CustomStoreSQLite(path)

    def continue_in_new_thread(self):
        """Run the next methods on a new thread. Unlike `restart`, this keeps the state of the SDK's class."""
        self.thread.shutdown(wait=False)
        self.thread = ThreadPoolExecutor(1)

    def switch_user(self, **fields):
        """Switch to another user, with a new token object. Return the token's fields after that."""
        token = fresh_token(fields)
        Initializer.switch_user(token=token)
        return seen(token)

    def switch_to_stored(self, number):
        """Switch to a token that `get_tokens` has returned. Return its fields after that."""
        token = self.store.get_tokens()[number]
        Initializer.switch_user(token=token)
        return seen(token)

    def in_threads(self, users):
        """Make five calls for each user, each user in its own thread. Return the organisations that each one got."""
        # All threads make each call at the same time. So no thread is finished before another one has switched.
        barrier = threading.Barrier(len(users))

        def work(fields):
            Initializer.switch_user(token=fresh_token(fields))
            organisations = []
            for _ in range(5):
                barrier.wait(TIMEOUT)
                organisations.append(self.organisation())
            return organisations

        with ThreadPoolExecutor(len(users)) as pool:
            return list(pool.map(work, users))

    def save_expiry(self, text):
        """Save this expiry in the first row, as another program or an import may have done."""
        token = self.store.get_tokens()[0]
        token.set_expires_in(text)
        self.store.save_token(token)

    def organisation(self):
        """Make an authorised call through the SDK. Return the organisation whose access token Zoho has received."""
        response = OrgOperations().get_organization()
        assert response.get_status_code() == 200, response.get_status_code()
        return response.get_object().get_org()[0].get_zgid()

    def remove(self):
        """Call `remove()` of the SDK's current token."""
        return Initializer.get_initializer().token.remove()

    def revoke(self, of):
        """Call `revoke(id)` of the SDK's current token."""
        return Initializer.get_initializer().token.revoke(of)

    def lose_privileges(self):
        """Let file permissions apply to this thread, also if the tests run as root."""
        drop_privileges()

    def refuse_current(self):
        """Report that Zoho has refused the current user's access token. Return what the store answers."""
        access = self.store.find_token(Initializer.get_initializer().token).get_access_token()
        return self.store.refused(access)

    def rows(self):
        """Return all rows of the store."""
        return [seen(token) for token in self.store.get_tokens()]

    def logged(self):
        """Return the errors that the SDK has logged."""
        return self.errors.logged

    def errors_so_far(self):
        """Return the same, while the program goes on: `Program.logged` is complete when it has ended."""
        return self.errors.logged


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
    """Run the methods that come through the pipe, until the pipe is closed."""
    sys.addaudithook(only_loopback)
    worker = Worker(*arguments)
    with contextlib.suppress(EOFError):
        while True:
            method, arguments = connection.recv()
            try:
                answer = (True, worker.restart() if method == "restart" else worker.call(method, arguments))
            except BaseException as error:  # noqa: BLE001 - the test checks it
                code = getattr(error, "code", None)
                answer = (False, (type(error).__name__, code, str(error), traceback.format_exc()))
            connection.send(answer)
