"""The example with Celery: the workers of two hosts share a token in PostgreSQL."""

from zoho_token_store import CustomStorePostgreSQL
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

from .conftest import EXAMPLES, HOUR_SECONDS

HOSTS = ("a", "b")
TASKS = 24
QUEUE_TASKS = f"""
from celery_two_hosts import organisation
import sys
queued = [organisation.delay(sys.argv[1]) for _ in range({TASKS})]
print(*(task.get(timeout=40) for task in queued))
"""


def test_celery_two_hosts(workspace, zoho, ada, empty_database, monkeypatch):
    """Four processes of two hosts refresh the stored token once, and once more an hour later."""
    for name, value in empty_database.items():
        monkeypatch.setenv(name, value)
    store = CustomStorePostgreSQL()
    login = {"refresh_token": zoho.refresh_token(ada), "user_signature": UserSignature(ada.name)}
    store.save_token(OAuthToken(zoho.client_id, zoho.client_secret, **login))
    folder = workspace.folder
    workspace.environment.update(
        empty_database,
        PYTHONPATH=f"{workspace.environment['PYTHONPATH']}:{EXAMPLES}",
        CELERY_BROKER_URL=f"sqla+sqlite:///{folder / 'broker.db'}",
        CELERY_RESULT_BACKEND=f"db+sqlite:///{folder / 'results.db'}",
    )
    zoho.latency = 0.2
    for host in HOSTS:
        worker = ("-m", "celery", "--app", "celery_two_hosts", "worker", "--hostname", f"{host}@test")
        started = workspace.start(*worker, "--concurrency", "2", "--loglevel", "INFO")
        workspace.wait_for(*started, rf"{host}@test ready")
    for refreshes in (1, 2):
        [printed] = workspace.run("-c", QUEUE_TASKS, ada.name)
        assert printed.split() == ["1001"] * TASKS
        assert zoho.token_calls == refreshes
        [token] = store.get_tokens()
        clock = zoho.clock
        zoho.clock = lambda clock=clock: clock() + HOUR_SECONDS
        token.set_expires_in(str(int(token.get_expires_in()) - int(HOUR_SECONDS * 1000)))
        store.save_token(token)
    logs = "".join(log.read_text(encoding="utf-8") for log in folder.glob("program-*.log"))
    assert all(f"ForkPoolWorker-{number}" in logs for number in (1, 2))
