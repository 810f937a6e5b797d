"""The snapshot store: immutability, aliases that survive crashes, integrity."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import penstock
from penstock import tensors
from penstock.errors import StoreError, UntrustedState
from penstock.snapshots import Alias, Move, SnapshotStore

HERE = Path(__file__).parent
STEADY = {"kind": "steady_learner:Steady", "task": "regression"}


@pytest.fixture(autouse=True)
def learners(monkeypatch):
    """Make the learners beside this file importable, and no key set."""
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.delenv("PENSTOCK_KEY", raising=False)
    import steady_learner

    return steady_learner


@pytest.fixture
def store(tmp_path):
    return SnapshotStore(tmp_path / "snapshots")


@pytest.fixture
def put(store, learners):
    def put(version, **manifest):
        parent = version - 1 or None
        return store.put(
            learners.Steady(version).state(), {**STEADY, "version": version, "parent": parent, **manifest}
        )

    return put


def error_of(call, *arguments, **keywords):
    with pytest.raises(StoreError) as caught:
        call(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_put_and_load(store, learners):
    given = {
        **STEADY,
        "name": "elec2",
        "version": 3,
        "parent": 2,
        "learner": "steady",
        "task": "multiclass",
        "classes": ["up", "down"],
        "config_hash": "c0ffee",
        "first_event": 1,
        "last_event": 5000,
        "promoted_as": "refresh",
        "evidence": {"e_value": 21.5},
        "metrics": {"accuracy": 0.8, "auc": float("nan")},
    }
    assert store.put(learners.Steady(0.5, n_classes=2).state(), given) == 3
    model, manifest = store.load(3)
    np.testing.assert_array_equal(model.predict_one({}), [0.5, 0.5])
    assert not model.weights.flags.writeable
    assert store.load(3, mmap=False)[0].weights.flags.writeable
    assert np.isnan(manifest["metrics"].pop("auc"))
    assert np.isnan(given["metrics"].pop("auc"))
    sha256 = manifest["sha256"]
    assert manifest == {**given, "format": 1, "created_by": penstock.__version__, "sha256": sha256}
    assert store.manifest(3)["sha256"] == sha256
    assert store.versions() == [3]
    assert (store.path / "00000003.safetensors").exists()


def test_versions_are_numbered_when_none_is_given(store, learners):
    assert [store.put(learners.Steady(n).state(), STEADY) for n in range(3)] == [1, 2, 3]
    assert store.manifest(2)["learner"] == "steady_learner:Steady"


def test_the_same_content_gives_the_same_file(tmp_path, learners):
    hashes = set()
    for name in ("a", "b"):
        store = SnapshotStore(tmp_path / name)
        store.put(learners.Steady(1).state(), STEADY)
        hashes.add(store.manifest(1)["sha256"])
    assert len(hashes) == 1


def test_putting_again_does_nothing_and_other_content_is_refused(store, put, learners, monkeypatch):
    put(1, metrics={"auc": float("nan")})
    before = (store.path / "00000001.safetensors").stat()
    monkeypatch.setattr(penstock, "__version__", "99.0")  # an upgrade in between
    put(1, metrics={"auc": float("nan")})
    assert (store.path / "00000001.safetensors").stat() == before
    refusal = (
        f"{store.path}/00000001.safetensors is there with other content: "
        f"a snapshot never changes, so another run needs another directory"
    )
    assert error_of(put, 1, metrics={"auc": 0.5}) == refusal
    assert error_of(store.put, learners.Steady(2).state(), {**STEADY, "version": 1}) == refusal


def test_a_pickle_is_compared_by_its_content(store, learners, monkeypatch):
    manifest = {**STEADY, "kind": "steady_learner:Pickled", "version": 1}
    model = learners.Pickled(1)
    assert model.state()["model"].data != model.state()["model"].data
    store.put(model.state(), manifest)
    monkeypatch.setenv("PENSTOCK_KEY", "a key since then")
    store.put(model.state(), manifest)
    assert "other content" in error_of(store.put, learners.Pickled(2).state(), manifest)


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        ({}, "a manifest needs `kind` and `task` and may have name, version,"),
        ({**STEADY, "metric": {}}, "a manifest needs `kind` and `task` and may have name, version,"),
        ({**STEADY, "version": 0}, "a manifest: expected a version from 1, got 0"),
        ({**STEADY, "version": "1"}, "a manifest: expected int in the manifest's `version`, got '1'"),
        ({**STEADY, "parent": True}, "a manifest: expected int or null in the manifest's `parent`, got True"),
        ({**STEADY, "classes": [1]}, "a manifest: expected text in the manifest's `classes`"),
        ({**STEADY, "metrics": {"x": {1}}}, "a manifest is plain JSON: Object of type set"),
    ],
)
def test_a_wrong_manifest_is_refused(store, manifest, expected):
    assert error_of(store.put, {}, manifest).startswith(expected)
    assert store.versions() == []


def test_what_is_missing_is_named_with_what_is_there(store, put):
    path = store.path
    for call in (store.versions, store.load, store.aliases, lambda: store.rollback(), lambda: store.prune(1)):
        assert error_of(call) == f"no snapshots at {path}: No such file or directory"
    assert not path.exists()
    assert store.peek("serving") is None

    put(1)
    put(2)
    assert error_of(store.load) == f"{path} has no alias 'serving': there are none"
    assert error_of(store.load, 7) == f"{path} has no version 7: there are 1 to 2, 2 in all"
    assert error_of(store.manifest, 7) == f"{path} has no version 7: there are 1 to 2, 2 in all"
    assert error_of(store.set_alias, "serving", 7) == f"{path} has no version 7: there are 1 to 2, 2 in all"
    assert error_of(store.promote, 7, 1) == f"{path} has no version 7: there are 1 to 2, 2 in all"
    store.set_alias("candidate", 2)
    assert error_of(store.load) == f"{path} has no alias 'serving': there are candidate"
    (path / "00000002.safetensors").unlink()
    assert error_of(store.load, "candidate") == (
        f"{path} has no version 2, which alias 'candidate' names: there are 1 to 1, 1 in all"
    )
    assert error_of(store.alias, "../x") == (
        "expected an alias of a-z, 0-9, _ and - that starts with a letter, got '../x'"
    )


def test_promotions_are_made_once(store, put):
    for version in (1, 2, 3):
        put(version)
    assert store.promote(1, 1)
    assert store.promote(2, 2)
    assert not store.promote(1, 1)  # repeated after a crash
    assert not store.promote(2, 2)
    assert store.alias("serving") == Alias(2, 2)
    assert store.promote(1, 3)  # a rollback decided by the engine is a promotion like any other
    assert store.alias("serving") == Alias(1, 3)
    assert store.manifest("serving")["version"] == 1


def test_a_rollback_by_hand_stands_until_it_is_released(store, put):
    for version in (1, 2, 3):
        put(version)
        store.promote(version, version)
    assert store.rollback() == 2
    assert store.alias("serving") == Alias(2, 3)
    assert not store.promote(3, 3)
    assert store.rollback(to=1) == 1
    assert error_of(store.rollback) == (
        f"{store.path}: version 1 serves and has no parent to go back to; say which version is to serve"
    )
    assert error_of(store.rollback, to=9).endswith("has no version 9: there are 1 to 3, 3 in all")
    put(4)
    assert not store.promote(4, 4)
    assert (store.alias("serving"), store.alias("pending")) == (Alias(1, 3), Alias(4, 4))
    assert not store.promote(4, 4)  # repeated after a crash
    assert store.release() == 4
    assert store.aliases() == {"serving": Alias(4, 4)}
    assert error_of(store.release) == f"{store.path} is not held"
    moves = [move for move in store.history() if move.alias == "serving"]
    assert [(m.how, m.previous, m.version, m.sequence) for m in moves] == [
        ("promote", None, 1, 1),
        ("promote", 1, 2, 2),
        ("promote", 2, 3, 3),
        ("rollback", 3, 2, 3),
        ("rollback", 2, 1, 3),
        ("promote", 1, 4, 4),
    ]


def test_a_hold_keeps_what_serves_and_a_release_catches_up(store, put):
    put(1)
    store.promote(1, 1)
    assert store.hold() == 1
    for version in (2, 3, 4):
        put(version)
        assert not store.promote(version, version)
    assert store.prune(1) == [2]  # what is held stays, and what is pending with its parent
    assert store.last_sequence() == 4
    assert store.release() == 4
    assert store.alias("serving") == Alias(4, 4)


def test_a_promotion_names_its_fallback_and_a_repeated_one_does_not(store, put):
    for version in (1, 2, 3, 4):
        put(version)
    store.promote(1, 1)
    assert store.promote(2, 2, fallback=1)
    assert store.alias("fallback") == Alias(1, None)
    assert store.promote(4, 3, fallback=3)
    assert store.prune(1) == [1]
    assert not store.promote(2, 2, fallback=1)  # told again after a crash, of what is pruned by now
    assert store.aliases() == {"fallback": Alias(3, None), "serving": Alias(4, 3)}
    assert store.promote(3, 4, how="rollback")
    assert store.aliases() == {"serving": Alias(3, 4)}
    assert store.promote(4, 5, fallback=1)  # not there, as in a directory that is not the one of then
    assert store.aliases() == {"serving": Alias(4, 5)}


def test_what_is_spared_is_not_pruned(store, put):
    for version in range(1, 8):
        put(version)
    store.promote(7, 1)
    assert store.prune(1, spare=(2, 4, 99)) == [1, 3, 5]
    assert store.versions() == [2, 4, 6, 7]


def test_a_rollback_that_is_cut_short_is_held_all_the_same(store, put, monkeypatch):
    for version in (1, 2):
        put(version)
        store.promote(version, version)
    replace, calls = tensors.replace, []

    def dies(path, parts):
        if calls:
            raise KeyboardInterrupt
        calls.append(path)
        return replace(path, parts)

    monkeypatch.setattr(tensors, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        store.rollback()
    monkeypatch.undo()
    put(3)
    assert not store.promote(3, 3)
    assert store.rollback() == 1
    assert store.alias("serving") == Alias(1, 2)


def test_a_release_without_news_changes_nothing(store, put):
    put(1)
    store.promote(1, 1)
    store.hold()
    assert store.release() == 1
    assert store.aliases() == {"serving": Alias(1, 1)}


def test_an_alias_keeps_its_sequence_unless_given_one(store, put):
    put(1)
    put(2)
    store.set_alias("candidate", 1)
    assert store.alias("candidate") == Alias(1, None)
    store.set_alias("candidate", 1, sequence=4)
    store.set_alias("candidate", 2)
    assert store.aliases() == {"candidate": Alias(2, 4)}
    assert json.loads((store.path / "candidate.json").read_text()) == {"sequence": 4, "version": 2}


def test_a_dropped_alias_is_gone_and_remembered(store, put):
    put(1)
    store.set_alias("candidate", 1, sequence=4)
    store.drop_alias("candidate")
    store.drop_alias("candidate")
    assert store.aliases() == {}
    assert store.versions() == [1]
    assert store.history()[1:] == [
        Move(alias="candidate", how="drop", version=None, previous=1, sequence=None)
    ]


def test_a_torn_last_line_of_the_history_is_dropped(store, put):
    put(1)
    put(2)
    store.promote(1, 1)
    file = store.path / "history.jsonl"
    with file.open("ab") as history:
        history.write(b'{"alias": "serving", "ver')
    moves = [Move(alias="serving", how="promote", version=1, previous=None, sequence=1)]
    assert store.history() == moves
    store.promote(2, 2)
    assert store.history() == [
        *moves,
        Move(alias="serving", how="promote", version=2, previous=1, sequence=2),
    ]
    file.write_bytes(b'{"alias":\n' + file.read_bytes())
    assert error_of(store.history).startswith(f"{file}:1 is damaged: ")


def test_a_crash_between_history_and_alias_is_repeated_without_a_trace(store, put):
    put(1)
    put(2)
    store.promote(1, 1)
    before = (store.path / "serving.json").read_bytes()
    store.promote(2, 2)
    whole = store.history()
    (store.path / "serving.json").write_bytes(before)  # as if the crash came just before the rename
    assert store.promote(2, 2)
    assert store.history() == whole


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"version": 1}',
        b'{"version": 0, "sequence": 1}',
        b'{"version": true, "sequence": 1}',
        b'{"version": 1, "sequence": "2"}',
    ],
)
def test_a_damaged_alias_is_named(store, put, content):
    put(1)
    store.promote(1, 1)
    file = store.path / "serving.json"
    file.write_bytes(content)
    for call in (store.load, store.verify, lambda: store.promote(1, 2), lambda: store.prune(1)):
        problem = call()[0] if call == store.verify else error_of(call)
        assert str(file) in problem
    assert store.versions() == [1]


def test_pruning_keeps_what_serves_and_its_parent(store, put):
    for version in range(1, 11):
        put(version, parent={7: 4}.get(version, version - 1 or None))
    store.promote(7, 1)
    store.set_alias("candidate", 2)
    assert store.prune(2) == [3, 5, 6, 8]
    assert store.versions() == [1, 2, 4, 7, 9, 10]
    assert store.rollback() == 4
    assert store.prune(2) == [7]
    assert error_of(store.prune, 0) == f"cannot prune {store.path} to 0 snapshots: at least 1 has to stay"


def test_verify_reads_every_byte(store, put):
    for version in (1, 2, 3):
        put(version)
    store.promote(3, 1)
    assert store.verify() == []
    file = store.path / "00000002.safetensors"
    good = file.read_bytes()
    for position in range(0, len(good), 97):  # header, padding and data
        flipped = bytearray(good)
        flipped[position] ^= 0x10
        file.write_bytes(flipped)
        (problem,) = store.verify()
        assert problem.startswith(f"{file} is damaged: expected ")
        assert store.verify(2) == [problem]
        assert error_of(store.load, 2) == problem
        assert store.verify(1) == []
    file.write_bytes((store.path / "00000001.safetensors").read_bytes())
    assert store.verify() == [f"{file} is not what its name says: it is version 1"]
    assert error_of(store.load, 2) == f"{file} is not what its name says: it is version 1"
    (store.path / "00000003.safetensors").unlink()
    assert store.verify()[-1] == f"{store.path}/serving.json names version 3, which is not there"


def test_a_newer_format_is_refused(store, put):
    put(1)
    file = store.path / "00000001.safetensors"
    state, manifest = tensors.read(file)
    del manifest["sha256"]
    tensors.write(file, state, {**manifest, "format": 2, "created_by": "7.0"})
    assert error_of(store.load, 1) == (
        f"{file} has format 2, written by Penstock 7.0: this is Penstock {penstock.__version__}, "
        f"which reads up to format 1; upgrade it"
    )


@pytest.mark.parametrize(
    ("kind", "state", "expected"),
    [
        ("sdg", {}, "no learner is called 'sdg' (did you mean 'sgd'?)"),
        ("steady_learner:Gone", {}, "module 'steady_learner' has no class 'Gone'"),
        ("steady_learner:Steady", {}, "'steady_learner:Steady' cannot load it: KeyError: 'n_classes'"),
    ],
)
def test_a_model_that_cannot_be_rebuilt_is_named(store, kind, state, expected):
    store.put(state, {**STEADY, "kind": kind})
    message = error_of(store.load, 1)
    assert message.startswith(f"{store.path}/00000001.safetensors: ")
    assert expected in message


def test_pickles_need_a_signature_or_an_opt_in(store, learners, monkeypatch):
    manifest = {**STEADY, "kind": "steady_learner:Pickled"}
    store.put(learners.Pickled(1).state(), manifest)
    with pytest.raises(UntrustedState, match=r"00000001\.safetensors: it holds a pickle that is not signed"):
        store.load(1)
    assert SnapshotStore(store.path, trust_pickle=True).load(1)[0].predict_one({}) == 1.0

    monkeypatch.setenv("PENSTOCK_KEY", "sesame")
    store.put(learners.Pickled(2).state(), manifest)
    assert store.load(2)[0].predict_one({}) == 2.0
    with pytest.raises(UntrustedState):
        store.load(1)
    monkeypatch.setenv("PENSTOCK_KEY", "simsim")
    with pytest.raises(UntrustedState):
        store.load(2)
    assert store.verify() == []  # intact is not the same as trusted


def test_unwritable_directories_are_one_line_errors(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "deeper"):
        store = SnapshotStore(path)
        assert error_of(store.put, {}, STEADY).startswith(f"cannot make {path}: ")
        assert error_of(store.versions).startswith(f"no snapshots at {path}: ")
        assert error_of(store.peek, "serving").startswith(f"cannot read {path}/serving.json: ")


def test_a_snapshot_pruned_between_alias_and_file_is_no_error(store, put):
    put(1)
    put(2, parent=None)
    store.promote(1, 1)

    class Interrupted(SnapshotStore):
        def alias(self, name):
            found = super().alias(name)
            if found.version == 1:
                store.promote(2, 2)
                store.prune(1)
            return found

    assert Interrupted(store.path).load()[1]["version"] == 2
    assert store.versions() == [2]


def test_writers_take_turns(store, learners):
    """Threads that let the store number their snapshots never get the same number."""
    got, failures = [], []

    def write(n):
        try:
            for m in range(5):
                version = store.put(learners.Steady(10 * n + m).state(), STEADY)
                got.append((version, 10 * n + m))
                store.promote(version, version)
        except Exception as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failures == []
    assert store.versions() == sorted(version for version, _ in got) == list(range(1, 21))
    for version, level in got:
        assert store.load(version)[0].predict_one({}) == level
    assert store.alias("serving") == Alias(20, 20)


def test_readers_never_see_half_of_anything(store, learners):
    """Loads go on while snapshots are put, promoted and pruned under them."""
    store.put(learners.Steady(1).state(), STEADY)
    store.promote(1, 1)
    last, seen, failures = 60, [0, 0, 0], []
    deadline = time.monotonic() + 60

    def read(n):
        try:
            while seen[n] < last and time.monotonic() < deadline:
                model, manifest = store.load()
                assert model.predict_one({}) == manifest["version"] >= seen[n]
                seen[n] = manifest["version"]
        except Exception as error:
            failures.append(error)

    readers = [threading.Thread(target=read, args=(n,)) for n in range(len(seen))]
    for reader in readers:
        reader.start()
    for version in range(2, last + 1):
        store.put(learners.Steady(version).state(), {**STEADY, "parent": version - 1})
        store.promote(version, version)
        store.prune(1)
    for reader in readers:
        reader.join()
    assert failures == []
    assert seen == [last] * len(seen)


WRITER = """
import sys
from penstock.snapshots import SnapshotStore
from steady_learner import Steady
store = SnapshotStore(sys.argv[1])
version = max(store.versions(), default=0) if store.path.exists() else 0
while True:
    version += 1
    manifest = {"kind": "steady_learner:Steady", "task": "regression", "version": version}
    store.put(Steady(version, size=20_000).state(), manifest)
    store.promote(version, version)
    print(flush=True)
"""


def test_a_killed_writer_leaves_whole_snapshots_only(store):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}
    for n in range(12):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, store.path], env=environment, stdout=subprocess.PIPE
        )
        with writer:
            writer.stdout.readline()
            time.sleep(0.0007 * n)  # somewhere in the next version, or the one after
            writer.send_signal(signal.SIGKILL)
        assert writer.returncode == -signal.SIGKILL
        assert store.verify() == []
        model, manifest = store.load()
        assert model.predict_one({}) == manifest["version"]
        last = store.history()[-1]
        assert manifest["version"] in (last.version, last.previous)  # the history is written first
    assert len(store.versions()) >= 12
    # The next writer of a file clears away what a killed one has left.
    litter = [name for name in os.listdir(store.path) if name.endswith(".tmp")]
    assert {name.split(".")[1] for name in litter} <= {"serving", f"{store.versions()[-1] + 1:08d}"}


def test_a_long_history_costs_nothing(store, put, monkeypatch):
    """A move reads the end of it, not the years before."""
    first, second = put(1), put(2)
    for sequence in range(1, 60):
        store.promote(first if sequence % 2 else second, sequence)
    whole = store.history()
    monkeypatch.setattr(type(store), "_history_lines", lambda _: pytest.fail("read it all"))
    store.promote(second, 60)
    monkeypatch.undo()
    assert store.history()[:-1] == whole
    assert store.history()[-1].sequence == 60
