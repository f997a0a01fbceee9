"""Threads, processes, forks, and a file that changes under a running store (contract 5, 7)."""

from __future__ import annotations

import shutil
import signal
import threading

import pytest
from support import (
    another_program_holding,
    everything,
    in_threads,
    login,
    rows_seen_elsewhere,
    run_program,
    start,
    token,
    values,
)
from zoho_token_store import CustomStoreSQLite
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException


def test_one_store_serves_many_threads(store):
    """Contract 7: one store object serves any number of threads."""

    def work(thread):
        for number in range(10):
            mine = login(f"user{thread}.{number}@example.com", 100 * thread + number)
            store.save_token(mine)
            found = store.find_token(token(f"user{thread}.{number}@example.com"))
            assert found.get_id() == mine.get_id()
            assert store.find_token_by_id(mine.get_id()).get_refresh_token() == mine.get_refresh_token()
            if number % 2:
                store.delete_token(mine.get_id())

    in_threads(8, work)
    assert len(store) == 40


def test_threads_that_save_at_once_fail_each_for_itself(store):
    """Contract 5: saves that come at one moment are made together, but who is refused is refused alone."""
    saved, refused = [], []

    def work(thread):
        for number in range(40):
            good = (thread + number) % 3 > 0
            mine = login(f"user{thread}.{number}@example.com", 100 * thread + number)
            if not good:
                mine = token(f"user{thread}.{number}@example.com", client_id="1000.CLIENT")
            try:
                store.save_token(mine)
                saved.append((mine.get_user_signature().get_name(), mine.get_id(), good))
            except SDKException as error:
                refused.append((good, "has neither a refresh token" in str(error)))

    in_threads(8, work)
    assert set(refused) == {(False, True)}, refused[:3]
    assert all(good for _, _, good in saved)
    assert len(saved) + len(refused) == 8 * 40
    names = {found.get_id(): found.get_user_signature().get_name() for found in store.get_tokens()}
    assert names == {row_id: name for name, row_id, _ in saved}


def test_other_threads_run_while_a_save_waits(path):
    """Contract 7: the GIL is released around every write and every wait."""
    with CustomStoreSQLite(path, busy_timeout=30) as store:
        store.save_token(login())
        with another_program_holding(path, "begin immediate"):
            waiting = threading.Thread(target=store.save_token, args=(login("bob@example.com", 2),))
            waiting.start()
            # This thread goes on, finds included; if the wait held the GIL it would last until the save gave up.
            assert store.find_token(token("ada@example.com")).get_id() == "1"
            assert store.find_token(token("bob@example.com")) is None
            assert waiting.is_alive()
        waiting.join(60)
        assert store.find_token(token("bob@example.com")).get_id() == "2"


def test_who_holds_the_file_too_long_is_a_clear_error(path):
    """Contract 6: what another program holds up is said, with what to do; afterwards saving works again."""
    with CustomStoreSQLite(path, busy_timeout=0.05) as store:
        store.save_token(login())
        with another_program_holding(path, "begin exclusive"):
            assert store.find_token(token("ada@example.com")).get_id() == "1", "a find never waits for a save"
            with pytest.raises(SDKException, match=r"save_token: .* in use by another program or thread for 0.05 s"):
                store.save_token(login("bob@example.com", 2))
        store.save_token(login("bob@example.com", 2))
        assert len(store) == 2


def test_processes_that_save_at_once_lose_nothing(path):
    """Contract 7: any number of processes may use one file at once; contract 5: no two insert the same."""
    code = """
import children

def work(child):
    with CustomStoreSQLite(sys.argv[1], busy_timeout=30) as store:
        for number in range(50):
            store.save_token(login(f"user{child}.{number}@example.com", 100 * child + number))
            store.save_token(login("shared@example.com", 10_000 + number, client_id="1000.SHARED"))

children.at_once(6, work)
"""
    run_program(code, path)
    assert rows_seen_elsewhere(path) == everything(301)


def test_a_find_sees_what_another_process_has_saved_however_often_it_was_asked_for(path):
    """Contract 2: what was found before is remembered until anybody saves, and not a save longer."""
    code = """
import children

store = CustomStoreSQLite(sys.argv[1], busy_timeout=30)
store.save_token(login("ada@example.com"))
store.save_token(login("bob@example.com", 2))
saved, tell = os.pipe()
heard, answer = os.pipe()

def save():
    for number in range(300):
        user = "ada@example.com" if number % 3 else "bob@example.com"
        store.save_token(login(user, access_token=f"made-up {number}"))
        os.write(tell, b"x")
        os.read(heard, 1)

child = children.fork(save)
for number in range(300):
    user = "ada@example.com" if number % 3 else "bob@example.com"
    os.read(saved, 1)
    for _ in range(3):
        found = store.find_token(token(user)).get_access_token()
        assert found == f"made-up {number}", (number, found)
    os.write(answer, b"x")
children.join([child])
"""
    run_program(code, path)


def test_a_fork_in_the_middle_of_other_threads_saves_leaves_a_store_that_works(make, path):
    """Contract 7: a child can use the store whatever the parent's other threads were doing."""
    kind = type(make()).__name__
    arguments = "sys.argv[1], busy_timeout=30" if kind == "CustomStoreSQLite" else ""
    code = f"""
import children, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, about forking with threads: that is the point
store = {kind}({arguments})
stop = threading.Event()

def work(thread):
    number = 0
    while not stop.is_set():
        number += 1
        store.save_token(login(f"thread{{thread}}.{{number % 20}}@example.com", 100 * thread + number % 20))
        store.find_token(token(f"thread{{thread}}.1@example.com"))

threads = [threading.Thread(target=work, args=(thread,)) for thread in range(3)]
for thread in threads:
    thread.start()
try:
    for fork in range(15):
        def child():
            for number in range(5):
                store.save_token(login(f"fork{{fork}}.{{number}}@example.com", 1000 + 10 * fork + number))
            assert store.find_token(token(f"fork{{fork}}.4@example.com")) is not None
            assert len(store.get_tokens()) <= len(store)
        children.join([children.fork(child)])
finally:
    stop.set()
    for thread in threads:
        thread.join(30)
assert all(store.find_token(token(f"thread{{thread}}.1@example.com")) for thread in range(3))
store.close()
"""
    run_program(code, path)
    if kind == "CustomStoreSQLite":
        assert rows_seen_elsewhere(path) == everything(15 * 5 + 60)


def test_a_fork_from_c_that_runs_no_hook_of_pythons_still_leaves_the_parents_connection_alone(path):
    """Contract 7: the child opens its own connection and never closes or reuses the parent's."""
    code = """
import ctypes, children
store = CustomStoreSQLite(sys.argv[1], busy_timeout=30)
store.save_token(login("before@example.com", 0))
child = ctypes.PyDLL(None).fork()
if child == 0:
    for number in range(20):
        store.save_token(login(f"child{number}@example.com", 100 + number))
    store.close()
    del store
    os._exit(0)
for number in range(20):
    store.save_token(login(f"parent{number}@example.com", 200 + number))
children.join([child])
store.save_token(login("after@example.com", 1))
print(len(store))
"""
    assert run_program(code, path) == "42\n"
    assert rows_seen_elsewhere(path) == everything(42)


def test_a_hook_of_the_forking_thread_may_use_the_store(path):
    """Nothing of the store's is locked against the thread that forks."""
    code = """
import children
os.register_at_fork(before=lambda: store.find_token(token("before@example.com")), after_in_child=lambda: len(store))
from zoho_token_store import _native
store = CustomStoreSQLite(sys.argv[1])
store.save_token(login("before@example.com", 0))
children.join([children.fork(lambda: store.save_token(login("child@example.com", 1)))])
print(len(store))
"""
    assert run_program(code, path) == "2\n"


def test_a_killed_process_has_lost_nothing_it_was_told_is_saved(path):
    """Contract 5: `save_token` returns after the row is durable; contract 7: others go on."""
    code = """
store = CustomStoreSQLite(sys.argv[1])
print("ready", flush=True)
number = 0
while True:
    number += 1
    store.save_token(login(f"user{number}@example.com", number))
    print(number, flush=True)
"""
    survivor = CustomStoreSQLite(path)
    program = start(code, path)
    for _ in range(50):
        program.stdout.readline()
    program.send_signal(signal.SIGKILL)
    printed = program.communicate(timeout=30)[0].splitlines()
    acknowledged = int(printed[-1]) if printed else 50
    survivor.save_token(login("survivor@example.com", 0))
    users = {values(made)["user"] for made in survivor.get_tokens()}
    assert {f"user{number}@example.com" for number in range(1, acknowledged + 1)} <= users
    survivor.close()


def test_a_program_may_end_with_stores_open(path):
    """A store nobody closed: what it saved is there, and the program ends by itself."""
    code = """
store = CustomStoreSQLite(sys.argv[1])
store.save_token(login())
threading.Thread(target=store.save_token, args=(login("bob@example.com", 2),)).start()
"""
    run_program(code, path)
    assert rows_seen_elsewhere(path) == everything(2)


@pytest.mark.parametrize("kind", ["CustomStoreInMemory", "CustomStoreList"])
def test_a_store_in_memory_goes_over_a_fork_with_its_rows(kind):
    """Contract 7: a store made before `os.fork()` works in parent and child; in memory each has its own rows then."""
    code = f"""
import children
store = {kind}()
store.save_token(login("before@example.com", 0))
def child():
    store.save_token(login("child@example.com", 1))
    assert len(store) == 2
children.join([children.fork(child)])
print(len(store))
"""
    assert run_program(code) == "1\n"


def test_stores_that_are_dropped_while_another_thread_forks_hold_nothing_up(path):
    """Nothing waits for a fork with the GIL held. (If it did, each drop would last the `busy_timeout`.)"""
    code = """
import children, warnings
warnings.simplefilter("ignore", DeprecationWarning)
stop = threading.Event()

def work(make):
    while not stop.is_set():
        store = make()
        store.save_token(login())
        del store

makers = [CustomStoreList, lambda: CustomStoreSQLite(sys.argv[1], busy_timeout=60)]
threads = [threading.Thread(target=work, args=(make,)) for make in makers]
for thread in threads:
    thread.start()
try:
    for _ in range(30):
        children.join([children.fork(lambda: None)])
finally:
    stop.set()
    for thread in threads:
        thread.join(30)
"""
    run_program(code, path, timeout=60)


def test_no_save_waits_for_a_reader_who_keeps_old_pages(path):
    """Contract 9: traces are wiped once nobody reads them; until then saving goes on."""
    with CustomStoreSQLite(path) as store:
        store.import_tokens(login(f"user{number}@example.com", number) for number in range(3))
        with another_program_holding(path, "begin; select * from oauthtoken"):
            store.delete_token("1")
            for number in range(200):  # a second each would be more than a test may take
                store.save_token(login("user2@example.com", 2, access_token=f"planted-renewed-{number}"))
        store.save_token(login("user2@example.com", 2))
        assert not any(b"planted-refresh-0" in file.read_bytes() for file in path.parent.iterdir())


def test_a_link_that_leads_elsewhere_costs_the_file_it_led_to_nothing(path):
    """Contract 7: the next call works on the file that the path names; the other's users keep theirs."""
    one, two, link = (path.with_name(name) for name in ("one.db", "two.db", "link.db"))
    link.symlink_to(one)
    CustomStoreSQLite(two).close()
    CustomStoreSQLite(one).close()
    code = """
store = CustomStoreSQLite(sys.argv[1], busy_timeout=30)
print("ready", flush=True)
for line in sys.stdin:
    store.save_token(login(line.strip(), hash(line) % 10**9))
    print(len(store), flush=True)
"""
    program = start(code, one)
    with CustomStoreSQLite(link) as store:
        store.save_token(login("first@example.com", 1))
        with another_program_holding(one, "begin; select * from oauthtoken"):
            program.stdin.write("second@example.com\n")
            program.stdin.flush()
            assert program.stdout.readline() == "2\n"
            link.unlink()
            link.symlink_to(two)
            store.save_token(login("third@example.com", 3))
            assert len(store) == 1
        output, _ = program.communicate("fourth@example.com\n", timeout=30)
        assert output == "3\n"
    assert rows_seen_elsewhere(one) == everything(3)
    assert rows_seen_elsewhere(two) == everything(1)


def test_a_file_deleted_again_and_again_is_never_an_error(path):
    """Contract 7: the file deleted under running stores: the next call works, in every process."""
    code = """
import children, contextlib
def work(child):
    with CustomStoreSQLite(sys.argv[1], busy_timeout=30) as store:
        for number in range(150):
            if child == 0:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(sys.argv[1])
            else:
                store.save_token(login(f"user{child}.{number}@example.com", 1000 * child + number))
                store.find_token(token(f"user{child}.{number}@example.com"))
children.at_once(3, work)
"""
    run_program(code, path)
    with CustomStoreSQLite(path) as store:
        store.save_token(login())
    assert rows_seen_elsewhere(path)[1] == "ok"


def test_copies_made_of_a_file_in_use_open(path, tmp_path):
    """Contract 10: `backup` is consistent while others write."""
    code = """
store = CustomStoreSQLite(sys.argv[1])
print("ready", flush=True)
number = 0
while os.path.exists(sys.argv[2]):
    number += 1
    store.import_tokens([login(f"a{number}@example.com", 2 * number), login(f"b{number}@example.com", 2 * number + 1)])
"""
    go_on = tmp_path / "go-on"
    go_on.touch()
    with CustomStoreSQLite(path, busy_timeout=30) as store:
        program = start(code, path, go_on)
        try:
            for number in range(10):
                backup = tmp_path / f"backup{number}.db"
                store.backup(backup)
                shutil.copyfile(backup, tmp_path / "copy.db")
                with CustomStoreSQLite(tmp_path / "copy.db") as copied:
                    assert len(copied) % 2 == 0, "the two tokens of one import are both there or neither"
        finally:
            go_on.unlink()
            program.communicate(timeout=30)
        assert program.returncode == 0
