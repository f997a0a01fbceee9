"""Deleted secrets leave no residue in files, and no error, copy or log line has a secret (contract 6 and 9)."""

from __future__ import annotations

import copy
import faulthandler
import os
import pickle
import random
import re
import signal
import time
import traceback

import children
import pytest
from faults import injection
from own_process import run_in_fork
from support import PLANTED, login, token, values
from zoho_token_store import CustomStoreSQLite
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException

SECRETS = ("client_secret", "grant_token", "refresh_token", "access_token")
LONG = "0123456789abcdef" * 1_000  # longer than a page, so SQLite needs overflow pages for it


def secrets(number, *names):
    """Make secrets with a kind and a number, which `secrets_in` finds in the bytes of files."""
    return {name: f"planted-{name.replace('_', '')}-{number};" for name in names}


def with_secrets(number, user=None, **more):
    user = f"user{number if user is None else user}@example.com"
    return login(user, 1, **{**secrets(number, *SECRETS), **more})


def number_of(secret):
    return int(secret.rstrip(";").rpartition("-")[2])


def secrets_in(folder):
    """Return the secrets in the bytes of all files of a folder."""
    return secrets_among(file.read_bytes() for file in folder.iterdir())


def secrets_among(texts):
    """Return the secrets in some texts."""
    return {secret.decode() for text in texts for secret in re.findall(rb"planted-[a-z]+-[0-9]+;", text)}


def log_in_again(store):
    store.save_token(with_secrets(2, **secrets(22, "refresh_token", "access_token")))


def save_new_credentials(store):
    new = secrets(22, "client_secret", "grant_token", "access_token")
    store.save_token(token("user2@example.com", client_id="1000.CLIENT", **new))


def purge(store):
    time.sleep(0.002)
    assert store.purge(idle_for=0.001) == 3


# The call, the secrets of user 2 that it deletes or replaces, and whether the other users' secrets stay.
DELETIONS = [
    (lambda store: store.delete_token("2"), SECRETS, True),
    (lambda store: store.delete_tokens(), SECRETS, False),
    (purge, SECRETS, False),
    (log_in_again, ("access_token", "refresh_token"), True),
    (save_new_credentials, ("client_secret", "grant_token", "access_token"), True),
]


def delete_and_replace(folder, mode):
    if mode == "rollback":
        injection.watch(folder)
        injection.refuse_shared_memory()
    for delete, names, others_stay in DELETIONS:
        for long in ("", LONG):
            store = CustomStoreSQLite(folder / "tokens.db")
            deleted = set(secrets(2, *names).values())
            more = {name: value + long for name, value in secrets(2, *names).items()}
            store.import_tokens([with_secrets(1), with_secrets(2, **more), with_secrets(3)])
            assert deleted <= secrets_in(folder)
            delete(store)
            left = secrets_in(folder)
            assert deleted & left == set()
            assert not any(LONG[:200].encode() in file.read_bytes() for file in folder.iterdir())
            assert ("planted-refreshtoken-1;" in left) == others_stay
            files = sorted(file.name for file in folder.iterdir())
            wal = ["tokens.db-shm", "tokens.db-wal"] if mode == "wal" else []
            assert files == ["tokens.db", *wal]
            store.close()
            for file in folder.iterdir():
                file.unlink()


@pytest.mark.usefixtures("preload")
@pytest.mark.parametrize("mode", ["wal", "rollback"])
def test_deleted_and_replaced_secrets_are_in_no_file(tmp_path, mode):
    """Contract 9: they do not stay readable, whatever their size, with a WAL or without."""
    run_in_fork(delete_and_replace, tmp_path, mode)


def move_rows(folder, seed, rounds):
    draw = random.Random(seed)
    live, number = {}, 0
    with CustomStoreSQLite(folder / "tokens.db") as store:
        for _ in range(rounds):
            # With these sizes SQLite often moves rows and index entries from page to page.
            made = []
            for _ in range(draw.randrange(1, 12)):
                number += 1
                size = draw.choice([0, 0, 40, 300, 900])
                padded = {
                    name: f"{draw.random()}-{value}" + "x" * size for name, value in secrets(number, *SECRETS).items()
                }
                made.append(with_secrets(number, **padded))
            store.import_tokens(made)
            live.update((number_of(one.get_client_secret().partition(";")[0]), one.get_id()) for one in made)
            for _ in range(draw.randrange(1, 10)):
                if live:
                    store.delete_token(live.pop(draw.choice(list(live))))
        store.delete_token(live.popitem()[1])
        residue = sorted(secret for secret in secrets_in(folder) if number_of(secret) not in live)
        assert residue == []


def test_rows_that_move_from_page_to_page_leave_no_copies(tmp_path, extent):
    """Contract 9: `secure_delete` overwrites deleted content, but not the copies made when SQLite moves rows."""
    # The seed 0.5 is known to leave copies, if nothing removes them.
    for seed in [0.5, *(extent.random.random() for _ in range(extent.of(0, 10)))]:
        folder = tmp_path / str(seed)
        folder.mkdir()
        run_in_fork(move_rows, folder, seed, 60)


def delete_beside_readers(folder, rounds):
    path = folder / "tokens.db"
    CustomStoreSQLite(path).close()
    kept = CustomStoreSQLite(path, busy_timeout=30)

    def work(child):
        with CustomStoreSQLite(path, busy_timeout=30) as store:
            if child == 0:
                for _ in range(20 * rounds):
                    store.get_tokens()
                return
            for number in range(1000 * child, 1000 * child + rounds):
                made = with_secrets(number)
                store.save_token(made)
                if number % 2:
                    store.delete_token(made.get_id())
                else:
                    store.save_token(with_secrets(number, **secrets(500_000 + number, "refresh_token", "access_token")))

    children.at_once(5, work)
    first_secrets = {secret for secret in secrets_in(folder) if number_of(secret) < 500_000}
    live = {getattr(made, f"get_{name}")() for made in kept.get_tokens() for name in ("client_secret", "grant_token")}
    assert len(kept) == 4 * rounds // 2
    assert first_secrets == live


def test_secrets_are_scrubbed_while_other_processes_read_and_save(tmp_path, extent):
    """Contract 9: four processes save and delete, and one reads. When they have ended, there is no residue."""
    run_in_fork(delete_beside_readers, tmp_path, extent.of(10, 60))


def kill_savers(folder, seed, rounds):
    draw, path = random.Random(seed), folder / "tokens.db"
    CustomStoreSQLite(path).close()
    for turn in range(rounds):
        reading, writing = os.pipe()

        def work(turn=turn, reading=reading, writing=writing):
            os.close(reading)
            store = CustomStoreSQLite(path)
            for number in range(10_000 * turn, 10_000 * turn + 10**6):
                store.save_token(with_secrets(number, user=number % 5))
                if number % 3 == 0:
                    store.delete_token(store.find_token(token(f"user{number % 5}@example.com")).get_id())
                os.write(writing, b".")

        child = children.fork(work)
        os.close(writing)
        for _ in range(draw.randrange(5)):
            os.read(reading, 1)
        time.sleep(draw.random() / 100)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        store = CustomStoreSQLite(path)
        live = {value for made in store.get_tokens() for value in values(made).values() if value.startswith("planted")}
        assert secrets_in(folder) == live, turn
        assert not [file for file in folder.iterdir() if file.name.endswith("-journal")]
        store.close()
        assert os.listdir(folder) == ["tokens.db"]  # noqa: PTH208 - names


def test_the_residue_of_a_killed_process_is_scrubbed_by_the_next_store(tmp_path, extent):
    """Contract 9: the process is killed at any moment, also between a deletion and its scrub."""
    run_in_fork(kill_savers, tmp_path, extent.random.random(), extent.of(12, 300))


def replace_access_tokens(folder, count):
    """Return after how many saves at most a replaced access token has gone."""
    path, first, longest = folder / "tokens.db", 1000, 0
    store = CustomStoreSQLite(path)
    store.import_tokens(with_secrets(number) for number in range(3))
    for number in range(first, first + count):
        store.save_token(token("user1@example.com", client_id="1000.CLIENT", **secrets(number, "access_token")))
        if number % 8 == 0:
            left = {number_of(secret) for secret in secrets_in(folder)}
            assert number in left
            longest = max(longest, number - min(other for other in left if other >= first))
    other = CustomStoreSQLite(path)
    store.close()
    other.close()
    left = [number_of(secret) for secret in secrets_in(folder)]
    assert [number for number in left if number >= first] == [first + count - 1]
    return longest


def test_a_replaced_access_token_goes_after_a_hundred_saves_or_with_the_last_close(tmp_path, extent):
    """Contract 9: it is valid for an hour at most. A scrub with each save would be slow, so many go at a time."""
    assert 10 < run_in_fork(replace_access_tokens, tmp_path, extent.of(140, 1000)) < 100


def kill_backups(folder, step):
    os.umask(0)
    path, target = folder / "tokens.db", folder / "backup.db"
    store = CustomStoreSQLite(path)
    store.import_tokens(with_secrets(number) for number in range(5))
    store.backup(target)
    expected = sorted(file.name for file in folder.iterdir())

    def back_up_and_die(at):
        injection.watch(folder)
        injection.kill(at)
        store.backup(target)

    at, with_content = 0, 0
    while True:
        at += step
        child = children.fork(lambda at=at: back_up_and_die(at))
        if os.waitpid(child, 0)[1] != signal.SIGKILL:
            break
        temporary = [file for file in folder.iterdir() if file.name.startswith(".zoho-token-store-")]
        if any(b"planted-refreshtoken" in file.read_bytes() for file in temporary):
            with_content += 1
            assert {file.stat().st_mode & 0o777 for file in temporary} == {0o600}
        # The next store or the next backup removes the temporary file.
        if at % 2:
            CustomStoreSQLite(path).close()
        else:
            store.backup(target)
        assert sorted(file.name for file in folder.iterdir()) == expected, at
    assert at > 8
    assert with_content > 1


@pytest.mark.usefixtures("preload")
def test_the_temporary_file_of_a_killed_backup_is_removed_by_the_next_store_or_backup(tmp_path, extent):
    """Contract 9: an incomplete backup has tokens. Only its owner can read it."""
    run_in_fork(kill_backups, tmp_path, extent.of(3, 1))


def back_up_at_once(folder, count):
    path = folder / "tokens.db"
    CustomStoreSQLite(path).close()

    def work(child):
        with CustomStoreSQLite(path, busy_timeout=30) as store:
            store.save_token(with_secrets(child))
            for number in range(count):
                store.backup(folder / f"backup{child}.db")
                CustomStoreSQLite(folder / f"new{child}.{number}.db", busy_timeout=30).close()

    children.at_once(4, work)
    assert [file.name for file in folder.iterdir() if file.name.startswith(".")] == []


def test_backups_do_not_remove_each_others_temporary_files(tmp_path, extent):
    """Contract 10: any number of processes can write backups and create files in one folder at the same time."""
    run_in_fork(back_up_at_once, tmp_path, extent.of(8, 80))


def test_no_copy_repr_log_or_traceback_of_a_store_or_an_error_has_a_secret(store, tmp_path, caplog):
    """Contract 6: no secret is in a `repr`, a copy, a pickle, a log line, or a traceback with local variables."""
    made = login()
    store.save_token(made)
    for way in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied or pickled: open another store instead"):
            way(store)
    store.find_token(made)
    bad = login(refresh_token=7)
    with pytest.raises(SDKException) as caught:
        store.save_token(bad)
    ours = caught.value.__cause__
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    text = "".join(shown.format())
    assert "bad = <" in text
    assert all(PLANTED not in seen for seen in (text, repr(store), str(store), f"{store!a}", repr(vars(type(store)))))
    for another in (copy.copy(ours), copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert (type(another), str(another)) == (type(ours), str(ours))
    assert PLANTED.encode() not in pickle.dumps(ours)
    with (tmp_path / "dump").open("w+") as dump:
        faulthandler.dump_traceback(dump, all_threads=True)
        dump.seek(0)
        assert PLANTED not in dump.read()
    assert PLANTED not in caplog.text
    assert not re.search(PLANTED, repr(ours.__dict__))
    if isinstance(store, CustomStoreSQLite):
        assert repr(store).startswith("CustomStoreSQLite('")
