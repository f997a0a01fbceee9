"""Contract 7 when other code has its hands on the file: in the same process, or with its own SQLite in another one."""

from __future__ import annotations

import pytest
from support import JUDGE, judge, judge_last, run_forked

# Four processes save at one moment. What is acknowledged stands in the file, as another SQLite finds it afterwards.
PROGRAM = (
    JUDGE
    + """
import children, contextlib, json, shutil, sqlite3
path, count = sys.argv[1], int(sys.argv[2])

@contextlib.contextmanager
def meanwhile(work):
    '''Do it again and again in a thread of this process.'''
    stop, done = threading.Event(), []
    def go_on():
        while not stop.is_set():
            work()
            done.append(work)
    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(children.PATIENCE)
        assert done

def look_and_copy():
    connection = sqlite3.connect(path)
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    connection.close()
    shutil.copy(path, f"{path}-copy-{os.getpid()}")

def save(child, number, store):
    store.save_token(login(f"user{child}.{number}@example.com", 1000 * child + number))

def save_as_the_sample_does(child, number):
    connection = sqlite3.connect(path, timeout=children.PATIENCE)
    columns = ("id,user_name,client_id,client_secret,refresh_token,access_token,grant_token,"
               "expiry_time,redirect_url,api_domain")
    # Ids that the stores, which go on from the highest, do not come to.
    row = [f"{100_000 - number}", f"user{child}.{number}@example.com", "1000.CLIENT", "planted-secret",
           f"planted-refresh-{number}", "planted-access", None, "1", None, None]
    with connection:
        connection.execute(f"INSERT INTO oauthtoken({columns}) VALUES (?,?,?,?,?,?,?,?,?,?)", row)
    connection.close()

def judge_all(processes):
    judge(f"user{child}.{number}@example.com" for child in range(processes) for number in range(count))
"""
)


def test_code_that_opens_and_closes_the_file_costs_no_acknowledged_save(path, extent):
    """Contract 7: `sqlite3.connect(path).close()` and `shutil.copy(path)` drop the POSIX locks of the process."""
    code = """
kept = CustomStoreSQLite(path, busy_timeout=children.PATIENCE)

def work(child):
    with meanwhile(look_and_copy):
        for number in range(count):
            if number % 2:
                save(child, number, kept)
            else:
                # Opened and closed each time, so that some process closes the file last again and again.
                with CustomStoreSQLite(path, busy_timeout=children.PATIENCE) as store:
                    save(child, number, store)

children.at_once(4, work, 100)
judge_all(4)
"""
    judge_last(run_forked(PROGRAM + code, path, extent.of(40, 200), timeout=110))


def test_the_sample_may_write_beside_stores(path, extent):
    """Contract 7: any number of processes may use one file at once, the samples among them."""
    code = """
CustomStoreSQLite(path).close()

def work(child):
    if child == 0:
        for number in range(count):
            save_as_the_sample_does(child, number)
        return
    for number in range(count):
        with CustomStoreSQLite(path, busy_timeout=children.PATIENCE) as store:
            save(child, number, store)

children.at_once(4, work, 100)
judge_all(4)
"""
    judge_last(run_forked(PROGRAM + code, path, extent.of(40, 200), timeout=110))


@pytest.mark.parametrize(
    "statement", ["PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA journal_mode=DELETE", "BEGIN EXCLUSIVE; COMMIT"]
)
def test_other_programs_may_tidy_the_file_while_stores_save(path, extent, statement):
    """Contract 7, 9: what another SQLite does to the whole file is refused or survived, and the stores stay in WAL."""
    code = """
def tidy():
    connection = sqlite3.connect(path, timeout=0.01, isolation_level=None)
    refused = 0
    for part in sys.argv[3].split(";"):
        try:
            connection.execute(part).fetchall()
        except sqlite3.OperationalError as error:
            assert "locked" in str(error) or "no transaction is active" in str(error), error
            refused += 1
    connection.close()
    return refused

def work(child):
    if child == 0:
        until = time.monotonic() + children.PATIENCE
        while len(os.listdir(ended)) < 3 and time.monotonic() < until:
            tidy()
            time.sleep(0.002)
        return
    try:
        with CustomStoreSQLite(path, busy_timeout=children.PATIENCE) as kept:
            for number in range(count):
                if number % 10:
                    save(child - 1, number, kept)
                    continue
                with CustomStoreSQLite(path, busy_timeout=children.PATIENCE) as store:
                    save(child - 1, number, store)
            assert kept.find_token(token(f"user{child - 1}.0@example.com"))
    finally:
        open(f"{ended}/{child}", "w").close()

ended = f"{path}-ended"
os.mkdir(ended)
CustomStoreSQLite(path).close()
children.at_once(4, work, 100)
with CustomStoreSQLite(path) as store:
    assert sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone() == ("wal",)
judge_all(3)
"""
    judge_last(run_forked(PROGRAM + code, path, extent.of(20, 200), statement, timeout=110))


def test_code_that_is_at_the_file_while_it_is_made_and_closed_costs_nothing_either(tmp_path, extent):
    """Contract 7: not even where all stores begin at once on no file, each beside foreign code, and end one by one."""
    code = """
def look_and_copy_if_there():
    with contextlib.suppress(sqlite3.Error, OSError):
        connection = sqlite3.connect(f"file:{path}?mode=rw", uri=True)
        with contextlib.closing(connection):
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        shutil.copy(path, f"{path}-copy-{os.getpid()}")

def work(child):
    with meanwhile(look_and_copy_if_there), CustomStoreSQLite(path, busy_timeout=children.PATIENCE) as store:
        for number in range(count):
            save(child, number, store)

for round in range(int(sys.argv[3])):
    path = f"{sys.argv[1]}-{round}"
    children.at_once(4, work)
    judge_all(4)
"""
    printed = run_forked(PROGRAM + code, tmp_path / "tokens.db", 5, extent.of(8, 100))
    for line in printed.splitlines():
        judge(line)
