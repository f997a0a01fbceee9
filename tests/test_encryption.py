"""Encryption at rest, as Python programs use it: the argument `keys`, rotation, and what shows no key (contract 13)."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import threading
import time
import traceback

import pytest
import zoho_token_store
from children import fork, join
from own_process import in_own_process
from support import PLANTED, login, run_program, values
from zoho_token_store import (
    PLAINTEXT,
    CustomStoreInMemory,
    CustomStoreList,
    CustomStorePostgreSQL,
    CustomStoreSQLite,
    StoreError,
    key_environment,
    key_file,
    key_id,
    new_key,
)
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException

OLD, NEW, OTHER = new_key(), new_key(), new_key()
ADA = "ada@example.com"

# A store in memory ends with its object.
LASTING = pytest.mark.parametrize("make", [CustomStoreSQLite, CustomStorePostgreSQL], indirect=True)


def refusal(make, **arguments):
    """Return the `StoreError` that a constructor raises."""
    with pytest.raises(SDKException) as raised:
        make(**arguments)
    return raised.value.cause


def failure(call, *arguments):
    """Return the `StoreError` of a call that fails."""
    with pytest.raises(SDKException) as raised:
        call(*arguments)
    return raised.value.cause


def stored(path):
    """Return the bytes of all files of a database."""
    return b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))


FORMS = {
    "str": OLD,
    "bytes": OLD.encode(),
    "list": [OLD],
    "tuple": (OLD, NEW),
    "mixed": [OLD, PLAINTEXT],
    "function": lambda: OLD,
    "function of a list": lambda: [OLD],
}


@pytest.mark.parametrize("keys", FORMS.values(), ids=FORMS)
def test_a_store_with_keys_keeps_tokens(make, keys):
    """Each form of `keys` gives a store that finds what it has saved, by every key of a token."""
    with make(keys=keys) as store:
        saved = login()
        store.save_token(saved)
        for partial in (login(ADA, 1), login(None, 1)):
            assert values(store.find_token(partial)) == values(saved)
        assert values(store.find_token_by_id("1")) == values(saved)
        assert store.key_usage() == {key_id(OLD): 1}


@pytest.mark.parametrize("keys", [None, [], (), list, [""]])
def test_no_key_is_an_error(make, keys):
    """`keys=os.environ.get(…)` and an empty list cannot turn encryption off, and make nothing (rule 1)."""
    assert refusal(make, keys=keys).code == "invalid-key"
    assert "path" not in make.place or not make.place["path"].exists()


NO_KEYS = {
    "PLAINTEXT": PLAINTEXT,
    "int": 5,
    "set": {OLD},
    "dict": {OLD: 1},
    "iterator": iter([OLD]),
    "int in a list": [OLD, 5],
    "list in a list": [[OLD]],
    "None in a list": [None],
    "Ellipsis": ...,
}


@pytest.mark.parametrize("keys", NO_KEYS.values(), ids=NO_KEYS)
def test_another_type_is_an_error(keys):
    """`keys` is text, bytes, a sequence of those and PLAINTEXT, or a function. A set has no order."""
    assert refusal(CustomStoreList, keys=keys).code == "invalid-argument"
    assert refusal(CustomStoreList, keys=lambda: keys).code == "keys-unavailable"


def test_a_function_that_returns_a_function_is_an_error():
    """`keys=key_environment` without parentheses returns a function that reads keys, and not keys."""
    for keys in (key_environment, lambda: lambda: OLD):
        error = refusal(CustomStoreList, keys=keys)
        assert error.code == "keys-unavailable"
        assert "the value is a function, and not keys: return what it returns" in str(error)


FERNET = "bWFkZSB1cCBtYWRlIHVwIG1hZGUgdXAgbWFkZSB1cCA="
BAD = ["correct horse battery staple", FERNET, "0123456789abcdef" * 4, OLD[:-1], OLD.upper(), b"\xff" * 32, "\ud800"]


@pytest.mark.parametrize(
    "bad", BAD, ids=["passphrase", "Fernet", "hexadecimal", "cut", "upper case", "bytes", "no UTF-8"]
)
@pytest.mark.parametrize("position", [1, 2])
def test_a_text_that_is_no_key_is_named_by_its_position(bad, position):
    """A passphrase, a Fernet key, hexadecimal and a cut key are refused. The text is not repeated (rule 17)."""
    keys = [OLD, bad] if position == 2 else [bad, OLD]
    error = refusal(CustomStoreList, keys=keys)
    assert error.code == "invalid-key"
    assert f"key number {position} " in str(error)
    assert str(bad)[:12] not in str(error)


def test_plaintext_is_one_object():
    """A copy and a pickle of PLAINTEXT are PLAINTEXT, and it shows as its name."""
    assert copy.copy(PLAINTEXT) is copy.deepcopy([PLAINTEXT])[0] is pickle.loads(pickle.dumps(PLAINTEXT)) is PLAINTEXT
    assert repr(PLAINTEXT) == "PLAINTEXT"


def test_a_new_key_differs_from_each_other_and_has_an_id():
    """A key is never made twice, and its id is not a part of it."""
    keys = {new_key() for _ in range(100)}
    assert len(keys) == len({key_id(key) for key in keys}) == 100
    assert all(key_id(key.encode()) == key_id(key) and key_id(key) not in key for key in keys)
    for bad, code in [("made-up", "invalid-key"), (5, "invalid-argument"), (PLAINTEXT, "invalid-argument")]:
        with pytest.raises(StoreError) as raised:
            key_id(bad)
        assert raised.value.code == code


def test_without_its_key_a_row_is_an_error_and_never_missing(path):
    """A find, a save and a search by a token fail, and no second row is inserted (rules 5 to 7)."""
    with CustomStoreSQLite(path, keys=OLD) as store:
        store.save_token(login())
    for options in ({"keys": NEW}, {}, {"keys": [NEW, PLAINTEXT]}):
        with CustomStoreSQLite(path, **options) as store:
            for call in (
                lambda store=store: store.find_token_by_id("1"),
                lambda store=store: store.find_token(login(ADA)),
                lambda store=store: store.find_token(login(None)),
                lambda store=store: store.save_token(login(None)),
                lambda store=store: store.save_token(login(ADA)),
            ):
                error = failure(call)
                assert error.code == "unknown-key"
                assert key_id(OLD) in str(error)
            assert len(store) == 1
            # No key is needed to count.
            assert store.key_usage() == {key_id(OLD): 1}


def test_a_row_in_clear_text_is_an_error_unless_it_is_allowed(path):
    """A person without the key cannot insert a row with a refresh token of their own (rule 10)."""
    with CustomStoreSQLite(path) as store:
        store.save_token(login())
    with CustomStoreSQLite(path, keys=OLD) as store:
        assert failure(store.find_token_by_id, "1").code == "plaintext-row"
        assert failure(store.find_token, login(None)).code == "plaintext-row"
    with CustomStoreSQLite(path, keys=[OLD, PLAINTEXT]) as store:
        assert store.find_token_by_id("1").get_refresh_token() == login().get_refresh_token()


@LASTING
def test_a_rotation_step_by_step(make):
    """The order for fixed lists: [old, new], [new, old], rekey, drop the old key (rule 13). Ids and order stay."""
    expected = []
    with make(keys=[OLD, NEW]) as store:
        for number in range(1, 121):
            store.save_token(login(f"user{number}@example.com", number))
        expected = [values(token) for token in store.get_tokens()]
    with make(keys=[NEW, OLD]) as store:
        assert {finding.code for finding in store.check()} - {"far-expiry"} == {"old-key"}
        result = store.rekey()
        assert (repr(result), result.rewritten, result.left) == ("Rekeyed(rewritten=120, left=0)", 120, 0)
        assert [values(token) for token in store.get_tokens()] == expected
        assert store.rekey() != result
    with make(keys=NEW) as store:
        assert [values(token) for token in store.get_tokens()] == expected
        assert store.key_usage() == {key_id(NEW): 120}
        assert not [finding for finding in store.check() if "key" in finding.code]


def test_an_existing_file_is_sealed_and_opened_again(path):
    """After `[key, PLAINTEXT]` and rekey no file has a secret. After `[PLAINTEXT, key]` and rekey no key is needed."""
    with CustomStoreSQLite(path) as store:
        for number in range(1, 61):
            store.save_token(login(f"user{number}@example.com", number))
        expected = [values(token) for token in store.get_tokens()]
    assert PLANTED.encode() in stored(path)
    with CustomStoreSQLite(path, keys=[OLD, PLAINTEXT]) as store:
        assert repr(store.rekey()) == "Rekeyed(rewritten=60, left=0)"
        # While the store is open, in the log as well.
        assert PLANTED.encode() not in stored(path)
    with CustomStoreSQLite(path, keys=[PLAINTEXT, OLD]) as store:
        assert repr(store.rekey()) == "Rekeyed(rewritten=60, left=0)"
        assert store.key_usage() == {"plaintext": 60}
    with CustomStoreSQLite(path) as store:
        assert [values(token) for token in store.get_tokens()] == expected


def test_rekey_counts_the_rows_that_it_cannot_read(path):
    """Rows under a key that is missing stay as they are, and are counted."""
    with CustomStoreSQLite(path, keys=OTHER) as store:
        store.save_token(login("eve@example.com", 3))
    with CustomStoreSQLite(path, keys=[OLD, OTHER]) as store:
        store.save_token(login(ADA, 1))
    with CustomStoreSQLite(path, keys=[NEW, OLD]) as store:
        assert repr(store.rekey()) == "Rekeyed(rewritten=1, left=1)"
        assert store.key_usage() == {key_id(NEW): 1, key_id(OTHER): 1}


@in_own_process
def test_rekey_lets_other_threads_and_signals_through(path):
    """An exception of a signal handler ends it between two batches, and it can be run again (rule 12)."""

    class Interrupted(Exception):  # noqa: N818 - it is no error
        pass

    def interrupt(*_):
        raise Interrupted

    def signal_after_the_first_batch():
        with CustomStoreSQLite(path, keys=[OLD, NEW]) as other:
            while key_id(NEW) not in other.key_usage():
                time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGALRM)

    signal.signal(signal.SIGALRM, interrupt)
    with CustomStoreSQLite(path, keys=OLD) as store:
        store.import_tokens([login(f"user{number}@example.com", number) for number in range(2000)])
    with CustomStoreSQLite(path, keys=[NEW, OLD]) as store:
        thread = threading.Thread(target=signal_after_the_first_batch, daemon=True)
        thread.start()
        with pytest.raises(Interrupted):
            store.rekey()
        thread.join(60)
        left = store.key_usage()[key_id(OLD)]
        assert 0 < left < 2000
        assert repr(store.rekey()) == f"Rekeyed(rewritten={left}, left=0)"


class Supplier:
    """A function that returns keys, and counts its calls."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.calls = 0
        self.threads = set()

    def __call__(self):
        self.calls += 1
        self.threads.add(threading.get_ident())
        answer = self.answers[min(self.calls, len(self.answers)) - 1]
        if isinstance(answer, BaseException):
            raise answer
        return answer


@LASTING
def test_a_function_is_asked_again_when_a_key_is_missing(make):
    """A rotated secret is picked up without a restart: at once the first time, and then not for 30 s (rule 16)."""
    supplier = Supplier(OLD, [OLD, NEW], [OLD, NEW, OTHER])
    with make(keys=supplier) as store, make(keys=NEW) as rotated, make(keys=OTHER) as later:
        store.find_token(login())
        assert supplier.calls == 1
        rotated.save_token(login(ADA, 1))
        assert values(store.find_token(login(ADA))) == values(login(ADA, 1, id="1"))
        assert supplier.calls == 2
        later_row = login("bob@example.com", 2, client_id="1000.OTHER")
        with pytest.raises(SDKException):  # a miss by token is not certain for this store either
            later.save_token(later_row)
        assert failure(later.find_token_by_id, "1").code == "unknown-key"
        # No row is under this store's first key. So it asks whether another one comes first by now.
        store.save_token(later_row)
        assert store.key_usage() == {key_id(NEW): 1, key_id(OLD): 1}
        assert supplier.calls == 3


@LASTING
def test_a_program_with_both_keys_follows_a_rotation(make):
    """It lacks no key, and still asks: otherwise it would save under the old key for as long as it runs."""
    supplier = Supplier([OLD, NEW], [NEW, OLD])
    with make(keys=supplier) as store, make(keys=[NEW, OLD]) as rotated:
        store.save_token(login(ADA, 1))
        assert store.key_usage() == {key_id(OLD): 1}
        assert (rotated.rekey().rewritten, supplier.calls) == (1, 1)
        store.save_token(login(ADA, 2))
        store.save_token(login("bob@example.com", 3))
        assert store.key_usage() == {key_id(NEW): 2}
        assert supplier.calls == 2


@LASTING
def test_a_program_that_wrote_in_clear_text_follows_an_encryption(make):
    """While programs begin to encrypt, some still write in clear text. They stop when all rows are sealed."""
    supplier = Supplier([PLAINTEXT, NEW], [NEW])
    with make(keys=supplier) as store, make(keys=[NEW, PLAINTEXT]) as sealing:
        store.save_token(login(ADA, 1))
        assert store.key_usage() == {"plaintext": 1}
        assert sealing.rekey().rewritten == 1
        store.save_token(login("bob@example.com", 2))
        assert store.key_usage() == {key_id(NEW): 2}


@pytest.mark.parametrize("patches", ["", "time=False"])
def test_greenlets_that_switch_inside_the_function(path, patches):
    """Under gevent a key service is waited for by running other greenlets of the thread. They need the keys, too."""
    code = """
from gevent import monkey; monkey.patch_all(PATCHES)
import gevent, random
from zoho_token_store import CustomStoreSQLite
path, old, new = sys.argv[1:]
with CustomStoreSQLite(path, keys=old) as store:
    store.save_token(login("ada@example.com", 1))
calls = []
def ask():
    calls.append(gevent.getcurrent())
    gevent.sleep(random.random() / 20)
    return [new, old] if len(calls) > 1 else new
store = CustomStoreSQLite(path, keys=ask, busy_timeout=60)
def work(number):
    assert store.find_token(token("ada@example.com")) is not None
    store.save_token(login(f"user{number}", number))
    return store.rekey().left
greenlets = [gevent.spawn(work, number) for number in range(2, 10)]
gevent.joinall(greenlets, raise_error=True, timeout=60)
print([greenlet.value for greenlet in greenlets], len(store), len(store.key_usage()))
"""
    assert run_program(code.replace("PATCHES", patches), path, OLD, NEW) == "[0, 0, 0, 0, 0, 0, 0, 0] 9 1\n"


def test_a_thread_that_waits_for_the_answer_lets_the_function_run(path):
    """Where `time.sleep` is replaced, a thread keeps the GIL, but not while another one asks."""
    code = """
sleep = time.sleep
time.sleep = lambda seconds: sleep(seconds)
from zoho_token_store import CustomStoreSQLite
path, old, new = sys.argv[1:]
with CustomStoreSQLite(path, keys=old) as store:
    store.save_token(login("ada@example.com", 1))
calls, asked, found = [], threading.Event(), []
def ask():
    calls.append(1)
    if len(calls) == 1:
        return new
    asked.set()
    sleep(0.3)
    return [new, old]
store = CustomStoreSQLite(path, keys=ask, busy_timeout=30)
def find():
    found.append(store.find_token(token("ada@example.com")) is not None)
thread = threading.Thread(target=find)
thread.start()
assert asked.wait(30)
find()
thread.join(30)
print(found, len(calls))
"""
    assert run_program(code, path, OLD, NEW) == "[True, True] 2\n"


@in_own_process
def test_a_function_that_forks_is_not_asked_by_its_child(path):
    """The child goes on inside of the function. There it gets an error instead of asking itself."""
    with CustomStoreSQLite(path, keys=OLD) as store:
        store.save_token(login())
    calls = []

    def ask():
        calls.append(os.getpid())
        if len(calls) == 1:
            return NEW
        join([fork(find_in_child)])
        return [NEW, OLD]

    def find_in_child():
        assert failure(store.find_token_by_id, "1").code == "unknown-key"
        assert len(calls) == 2

    with CustomStoreSQLite(path, keys=ask) as store:
        assert store.find_token_by_id("1").get_user_signature().get_name() == ADA
    assert calls == [os.getpid()] * 2


def test_a_function_may_use_the_store_and_other_threads(path):
    """It is asked outside of locks and transactions, so it may use the file itself (rule 16)."""
    with CustomStoreSQLite(path, keys=OLD) as store:
        store.save_token(login())
    answers = []

    def ask():
        if not answers:
            answers.append("constructor")
            return NEW
        with CustomStoreSQLite(path, keys=OLD) as other:
            other.save_token(login("bob@example.com", 2))
        thread = threading.Thread(target=lambda: answers.append(failure(store.find_token_by_id, "1").code))
        answers.append("again")
        thread.start()  # this one has to wait for the answer, at most `busy_timeout`
        return [NEW, OLD]

    with CustomStoreSQLite(path, keys=ask, busy_timeout=30) as store:
        assert store.find_token_by_id("1").get_user_signature().get_name() == ADA
        assert len(store) == 2
    assert answers[:2] == ["constructor", "again"]


def test_an_exception_of_the_function_is_the_cause(path):
    """The message has the name of the exception alone, and the exception is chained."""
    with pytest.raises(SDKException) as raised:
        CustomStoreSQLite(path, keys=Supplier(OSError(f"{PLANTED} is down")))
    error = raised.value.cause
    assert error.code == "keys-unavailable"
    assert "has raised OSError" in str(error)
    assert PLANTED not in str(error)
    assert isinstance(error.__cause__, OSError)
    assert not path.exists()


def test_an_exception_of_a_later_question_is_the_cause_too(path):
    """The error says which key is missing, and its cause why there is no answer."""
    with CustomStoreSQLite(path, keys=OLD) as store:
        store.save_token(login())
    with CustomStoreSQLite(path, keys=Supplier(NEW, OSError("down"))) as store:
        error = failure(store.find_token_by_id, "1")
        assert error.code == "unknown-key"
        assert isinstance(error.__cause__, OSError)
        # The source is not asked again so soon.
        assert failure(store.find_token_by_id, "1").__cause__ is None


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_an_exception_that_ends_the_program_passes_through(path, ending):
    """Ctrl-C while a key service is asked ends the program."""
    with pytest.raises(ending):
        CustomStoreSQLite(path, keys=Supplier(ending()))
    with CustomStoreSQLite(path, keys=OLD) as store:
        store.save_token(login())
    with CustomStoreSQLite(path, keys=Supplier(NEW, ending())) as store, pytest.raises(ending):
        store.find_token_by_id("1")


def write_keys(path, *lines, mode=0o600):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    path.chmod(mode)
    return path


def test_a_key_file_has_one_key_per_line(path, tmp_path):
    """Blanks and empty lines do not count, and the word PLAINTEXT is one of the entries. The file is read again."""
    with CustomStoreSQLite(path) as store:
        store.save_token(login("bob@example.com", 2))
    file = write_keys(tmp_path / "tokens.key", f"  {OLD}\r", "", "PLAINTEXT")
    source = key_file(file)
    assert source() == [OLD, PLAINTEXT]
    with CustomStoreSQLite(path, keys=source) as store:
        assert repr(store.rekey()) == "Rekeyed(rewritten=1, left=0)"
        write_keys(file, OLD, NEW)
        with CustomStoreSQLite(path, keys=[NEW, OLD]) as rotated:
            rotated.rekey()
        assert store.find_token_by_id("1").get_refresh_token() == login(number=2).get_refresh_token()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o666, 0o601])
def test_a_key_file_that_others_can_use_is_refused(tmp_path, mode):
    """Other users can read it, or write keys of their own into it (rule 17)."""
    file = write_keys(tmp_path / "tokens.key", OLD, mode=mode)
    error = refusal(CustomStoreList, keys=key_file(file))
    assert error.code == "keys-unavailable"
    assert "chmod 600" in str(error)
    file.chmod(0o400)
    CustomStoreList(keys=key_file(file)).close()


def test_the_group_may_read_a_key_file_of_another_user(tmp_path):
    """A service gets a mounted secret in this way: the file is root's, and an access list or the group lets it read."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    file = write_keys(tmp_path / "tokens.key", OLD, mode=0o440)
    os.chown(file, 12345, 0)
    CustomStoreList(keys=key_file(file)).close()
    for mode in (0o460, 0o444):
        file.chmod(mode)
        assert refusal(CustomStoreList, keys=key_file(file)).code == "keys-unavailable"


def test_a_key_file_that_is_none_is_refused(tmp_path):
    """A missing file, a folder, a pipe, an empty, a cut and a large file are errors, and none of them blocks."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    large = write_keys(tmp_path / "large", *[OLD] * 2000)
    for file in (tmp_path / "missing", tmp_path, tmp_path / "pipe", large):
        assert refusal(CustomStoreList, keys=key_file(file)).code == "keys-unavailable"
    for lines in ([], [""], [OLD, NEW[:-1]]):
        file = write_keys(tmp_path / "tokens.key", *lines)
        error = refusal(CustomStoreList, keys=key_file(file))
        assert error.code == "invalid-key"
        assert "tokens.key" in str(error)
    (tmp_path / "tokens.key").write_bytes(b"\xff\xfe")
    assert refusal(CustomStoreList, keys=key_file(file)).code == "keys-unavailable"


@pytest.mark.parametrize("given", [OLD, OLD[:40], f"./{OLD}", OLD.upper()], ids=["key", "cut", "path", "upper case"])
def test_a_key_is_no_path(given):
    """A key that is given where a path or a name belongs is not repeated (rule 17)."""
    for function in (key_file, key_environment):
        with pytest.raises(StoreError) as raised:
            function(given)
        assert raised.value.code == "invalid-argument"
        assert given not in str(raised.value)


def test_keys_in_a_variable(monkeypatch):
    """Blanks, commas and line breaks separate keys. A variable that is missing or empty is an error."""
    monkeypatch.delenv("ZOHO_TOKEN_STORE_KEYS", raising=False)
    assert refusal(CustomStoreList, keys=key_environment()).code == "keys-unavailable"
    monkeypatch.setenv("ZOHO_TOKEN_STORE_KEYS", " ")
    assert refusal(CustomStoreList, keys=key_environment()).code == "invalid-key"
    monkeypatch.setenv("MADE_UP", f"{OLD}, {NEW}\nPLAINTEXT")
    source = key_environment("MADE_UP")
    assert source() == [OLD, NEW, PLAINTEXT]
    CustomStoreList(keys=source).close()
    for name in ("", "A=B", "A\0B", OLD):
        with pytest.raises(StoreError) as raised:
            key_environment(name)
        assert raised.value.code == "invalid-argument"
        assert not name or name not in str(raised.value)


def test_no_key_comes_from_the_environment_unless_it_is_asked_for(monkeypatch, path, tmp_path):
    """A store without `keys` reads no variable and no file, and encrypts nothing (rule 17)."""
    monkeypatch.setenv("ZOHO_TOKEN_STORE_KEYS", OLD)
    monkeypatch.setenv("ZOHO_TOKEN_STORE_KEY_FILE", str(write_keys(tmp_path / "tokens.key", OLD)))
    with CustomStoreSQLite(path) as store:
        store.save_token(login())
        assert store.key_usage() == {"plaintext": 1}
    assert PLANTED.encode() in stored(path)


def test_no_key_in_texts_pickles_and_tracebacks(path, tmp_path, caplog):
    """No key and no secret is in a repr, an error with its traceback, a log line or a pickle (rule 18)."""
    caplog.set_level("DEBUG")
    file = write_keys(tmp_path / "tokens.key", OLD)
    texts = [repr(key_file(file)), repr(key_environment("MADE_UP"))]
    with CustomStoreSQLite(path, keys=[OLD, NEW]) as store:
        store.save_token(login())
        texts += [repr(store), repr(store.rekey()), str(store.check()), str(store.key_usage())]
        with pytest.raises(TypeError) as unpicklable:
            pickle.dumps(store)
        with pytest.raises(TypeError) as uncopyable:
            copy.copy(store)
        texts += [str(unpicklable.value), str(uncopyable.value)]
    for options in ({"keys": OTHER}, {"keys": [OTHER, OLD[:-1]]}, {"keys": [OTHER, 5]}, {"keys": lambda: [OTHER, ""]}):
        with pytest.raises(SDKException) as raised, CustomStoreSQLite(path, **options) as store:
            store.find_token_by_id("1")
        texts += traceback.format_exception(raised.value) + traceback.format_exception(raised.value.cause)
    texts += [record.getMessage() for record in caplog.records]
    for secret in (OLD, NEW, OTHER, OLD[:-1], PLANTED):
        assert not [text for text in texts if secret in text]


def test_a_backup_is_as_encrypted_as_the_store(make, tmp_path):
    """A backup needs the keys of the store, and its file has no secret (rule 15)."""
    with make(keys=OLD) as store:
        store.save_token(login())
        store.backup(tmp_path / "backup.db")
    assert PLANTED.encode() not in stored(tmp_path / "backup.db")
    with CustomStoreSQLite(tmp_path / "backup.db", keys=OLD) as copied:
        assert values(copied.find_token(login(ADA))) == values(login(ADA, id="1"))
    with CustomStoreSQLite(tmp_path / "backup.db") as copied:
        assert failure(copied.find_token_by_id, "1").code == "unknown-key"


def test_a_value_that_looks_like_a_seal_is_refused():
    """Otherwise a store could not tell it from a seal of its own (rule 10)."""
    for options in ({}, {"keys": OLD}):
        with CustomStoreInMemory(**options) as store:
            assert failure(store.save_token, login(client_secret="zts1.made-up")).code == "invalid-argument"


def test_the_names_are_exported():
    """The package exports what a program with encryption needs, and not the classes that only the command line uses."""
    names = {"PLAINTEXT", "Rekeyed", "key_environment", "key_file", "key_id", "new_key"}
    assert names <= set(zoho_token_store.__all__)
    assert not {"Plaintext", "write_new_key"} & set(zoho_token_store.__all__)
