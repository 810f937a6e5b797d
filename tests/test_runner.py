"""A run that is killed anywhere ends where an uninterrupted one does."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from penstock import Predictor, SnapshotStore, checkpoints, config, runner
from penstock.errors import ConfigError, DataError, StoreError
from penstock.observers import Observer
from penstock.state import digest

ROOT = Path(__file__).parents[1]
# That of Kafka needs a broker: it is killed in tests/kafka.
CONFIGS = [path for path in sorted((ROOT / "configs").glob("*.yaml")) if path.stem != "kafka"]
PIPELINE = {
    "name": "killed",
    "task": "binary",
    "learners": {
        "sgd": {"kind": "sgd", "bits": 10},
        "vw": {"kind": "vw", "args": "--loss_function logistic -b 10"},
        "river": {
            "kind": "river",
            "model": ["preprocessing.StandardScaler", "linear_model.LogisticRegression"],
        },
    },
    "drift": [{"kind": "adwin", "direction": "up", "react": "warm_restart"}],
    "replay": {"kind": "reservoir", "size": 200},
    "shadow": {"refresh_every": 400, "min_effect": 0.002},
}


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("PENSTOCK_KEY", "a key of the tests")


def events(n, drift_at=2000):
    chance = random.Random(1)
    for i in range(n):
        a, b = chance.gauss(0, 1), chance.gauss(0, 1)
        up = 2 * a - b > 0
        yield {"id": str(i), "features": {"a": a, "b": {"c": b}}, "label": up != (i >= drift_at)}


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def given(directory, **changes):
    """The pipeline with everything it writes below `directory`."""
    return {
        **PIPELINE,
        "source": {"kind": "file", "path": str(directory.parent / "events.jsonl")},
        "snapshots": {"path": str(directory / "snapshots"), "keep": 1000},
        "checkpoint": {"path": str(directory / "checkpoint"), "every_events": 100},
        "dead_letters": {"path": str(directory / "dead.jsonl")},
        **changes,
    }


def pipeline(directory, **changes):
    return config.parse(given(directory, **changes))


def test_run_stores_snapshots_and_letters(tmp_path):
    records = [json.dumps(record) for record in events(1500)]
    records.insert(700, '{"features": {"a": 1}}')
    (tmp_path / "events.jsonl").write_text("\n".join(records))
    outcome = runner.run(pipeline(tmp_path / "run"))
    assert (outcome.events, outcome.rejected, outcome.stopped) == (1500, 1, False)
    (letter,) = map(json.loads, (tmp_path / "run" / "dead.jsonl").read_text().splitlines())
    assert letter["data"] == '{"features": {"a": 1}}'
    assert "a label" in letter["reason"]
    assert letter["where"].endswith("events.jsonl:701")
    store = SnapshotStore(tmp_path / "run" / "snapshots")
    assert store.verify() == []
    assert store.alias("serving").version == outcome.serving
    with Predictor(tmp_path / "run" / "snapshots", follow=False) as predictor:
        assert predictor.predict({"a": 3.0}) > 0.9 > 0.1 > predictor.predict({"a": -3.0})


def test_finished_run_has_nothing_left_to_do(tmp_path):
    write(tmp_path / "events.jsonl", events(1000))
    first = runner.run(pipeline(tmp_path / "run"))
    again = runner.run(pipeline(tmp_path / "run"))
    assert (again.events, again.resumed_at, again.digest) == (1000, 1000, first.digest)


def test_run_goes_on_with_what_was_appended(tmp_path):
    everything = list(events(3000))
    write(tmp_path / "events.jsonl", everything)
    whole = runner.run(pipeline(tmp_path / "whole"))
    write(tmp_path / "events.jsonl", everything[:1234])
    runner.run(pipeline(tmp_path / "parts"))
    write(tmp_path / "events.jsonl", everything)
    assert runner.run(pipeline(tmp_path / "parts")).digest == whole.digest


def test_stopping_when_asked_loses_nothing(tmp_path):
    write(tmp_path / "events.jsonl", events(3000))
    whole = runner.run(pipeline(tmp_path / "whole"))
    asked = iter([False] * 7 + [True])
    stopped = runner.run(pipeline(tmp_path / "parts"), batch=100, should_stop=lambda: next(asked))
    assert (stopped.stopped, stopped.events) == (True, 800)
    resumed = runner.run(pipeline(tmp_path / "parts"))
    assert (resumed.resumed_at, resumed.digest, resumed.serving) == (800, whole.digest, whole.serving)


def test_a_store_that_has_gone_is_made_again(tmp_path, caplog):
    """Also what would serve again, so that a rollback has somewhere to go."""
    records = list(events(3000))
    for record in records[1500:]:
        record["label"] = not record["label"]
    write(tmp_path / "events.jsonl", records)
    for name in ("kept", "moved"):
        asked = iter([False] * 7 + [True])
        runner.run(pipeline(tmp_path / name), batch=200, should_stop=lambda asked=asked: next(asked))
    kept, moved = (SnapshotStore(tmp_path / name / "snapshots") for name in ("kept", "moved"))
    before = moved.aliases()
    moved.path.rename(tmp_path / "elsewhere")
    outcomes = {name: runner.run(pipeline(tmp_path / name)) for name in ("kept", "moved")}
    assert before["fallback"].version in moved.versions()
    assert outcomes["moved"] == outcomes["kept"]
    assert moved.aliases() == kept.aliases()
    again = re.findall(r"version (\d+) was not there", caplog.text)
    assert {int(version) for version in again} == {before["fallback"].version, before["serving"].version}
    assert digest(moved.load()[0].state()) == digest(kept.load()[0].state())


def run_with_kills(path, checkpoint, *, n_kills, seed, batch):
    """Run a configuration until it ends by itself, killing it at random moments; return how often."""
    chance = random.Random(seed)
    command = [sys.executable, "-m", "penstock", "run", str(path), "--batch", str(batch)]
    for kills in range(n_kills):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        # Wait for a sign of life, so that every run gets somewhere, then for a random moment.
        while process.poll() is None:
            if checkpoint.exists() and checkpoint.stat().st_mtime_ns != before:
                break
            time.sleep(0.002)
        time.sleep(chance.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            return kills  # it had finished: nothing is left to kill
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return n_kills


def test_killed_again_and_again(tmp_path):
    """SIGKILL at random moments: in learning, in storing a snapshot, in writing a checkpoint."""
    lines = [json.dumps(record) for record in events(6000)]
    for at in (10, 1500, 4000):
        lines.insert(at, "not a record")
    (tmp_path / "events.jsonl").write_text("\n".join(lines) + "\n")
    whole = runner.run(pipeline(tmp_path / "whole"))
    path = tmp_path / "killed.yaml"
    path.write_text(json.dumps(given(tmp_path / "killed")))
    assert run_with_kills(path, tmp_path / "killed" / "checkpoint", n_kills=10, seed=0, batch=50) >= 5
    resumed = runner.run(pipeline(tmp_path / "killed"))
    assert resumed.digest == whole.digest
    assert resumed.serving == whole.serving
    for name in ("dead.jsonl", "snapshots/serving.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    killed, uninterrupted = (SnapshotStore(tmp_path / name / "snapshots") for name in ("killed", "whole"))
    assert killed.versions() == uninterrupted.versions()
    assert killed.verify() == []


@pytest.mark.crash
@pytest.mark.parametrize("shipped", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_killed_twenty_times(tmp_path, shipped, capsys):
    known = config.load(shipped)
    changes = config.read(shipped)
    if known.source.kind == "file":
        data = ROOT.parent / "shared" / "data" / known.source.parameters["path"]
        if not data.exists():
            pytest.skip(f"{data.name} is not on this machine")
        changes["source"]["path"] = str(data)
    whole = runner.run(config.parse({**changes, "snapshots": None, "checkpoint": None, "dead_letters": {}}))
    directory = tmp_path / "killed"
    changes["checkpoint"] = {"path": str(directory / "checkpoint"), "every_events": 100}
    changes["dead_letters"] = {}
    if "snapshots" in changes:
        changes["snapshots"] = {"path": str(directory / "snapshots")}
    path = tmp_path / "killed.yaml"
    path.write_text(json.dumps(changes))  # which is YAML, too
    batch = max(1, whole.events // 400)
    kills = run_with_kills(path, directory / "checkpoint", n_kills=20, seed=0, batch=batch)
    resumed = runner.run(config.load(path))
    with capsys.disabled():
        print(f"\n{shipped.stem}: {kills} kills in {whole.events:,} events; digest {resumed.digest[:16]}")
    assert (resumed.events, resumed.digest) == (whole.events, whole.digest)


def test_sigterm_checkpoints_and_exits_0(tmp_path):
    write(tmp_path / "events.jsonl", events(500))
    path = tmp_path / "p.yaml"
    changes = given(tmp_path / "run")
    changes["source"]["follow"] = True
    path.write_text(json.dumps(changes))
    process = subprocess.Popen(
        [sys.executable, "-m", "penstock", "run", str(path)], stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "checkpoint").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.startswith("stopped at event 500 ")


def test_second_run_of_the_same_checkpoint_is_refused(tmp_path):
    write(tmp_path / "events.jsonl", events(200))

    def second():
        with pytest.raises(StoreError, match="another run is using the checkpoint"):
            runner.run(pipeline(tmp_path / "run"))
        return True

    assert runner.run(pipeline(tmp_path / "run"), should_stop=second).stopped


def test_checkpoint_of_another_configuration_is_refused(tmp_path):
    write(tmp_path / "events.jsonl", events(300))
    runner.run(pipeline(tmp_path / "run"))
    before = (tmp_path / "run" / "checkpoint").read_bytes()
    with pytest.raises(StoreError, match="belongs to another configuration"):
        runner.run(pipeline(tmp_path / "run", tick=100))
    assert (tmp_path / "run" / "checkpoint").read_bytes() == before


def test_new_run_counts_on_in_a_store_that_is_not_empty(tmp_path):
    write(tmp_path / "events.jsonl", events(1000))
    first = runner.run(pipeline(tmp_path / "run"))
    for name in ("checkpoint", "checkpoint.previous"):
        (tmp_path / "run" / name).unlink()
    second = runner.run(pipeline(tmp_path / "run"))
    assert second.digest == first.digest
    assert second.serving == 2 * first.serving


def test_pickles_need_a_key_or_consent_before_anything_is_learned(tmp_path, monkeypatch):
    monkeypatch.delenv("PENSTOCK_KEY")
    with pytest.raises(ConfigError, match=r"PENSTOCK_KEY to sign it, or `checkpoint\.trust_pickle: true`"):
        runner.run(pipeline(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_checkpoint_signed_with_another_key_is_not_unpickled(tmp_path, monkeypatch):
    write(tmp_path / "events.jsonl", events(300))
    runner.run(pipeline(tmp_path / "run"))
    monkeypatch.setenv("PENSTOCK_KEY", "another")
    with pytest.raises(StoreError, match="PENSTOCK_KEY"):
        runner.run(pipeline(tmp_path / "run"))


def test_too_many_bad_records_end_the_run_and_keep_what_was_learned(tmp_path):
    lines = [json.dumps(record) for record in events(500)] + ["x"] * 50
    (tmp_path / "events.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"50 of 550 records cannot be used.*max_bad_rate 0.01"):
        runner.run(pipeline(tmp_path / "run"))
    assert len((tmp_path / "run" / "dead.jsonl").read_text().splitlines()) == 50


def test_truncated_gzip_keeps_what_was_readable(tmp_path):
    import gzip

    text = "".join(json.dumps(record) + "\n" for record in events(4000)).encode()
    packed = gzip.compress(text, mtime=0)
    (tmp_path / "events.jsonl").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match=r"events\.jsonl"):
        runner.run(pipeline(tmp_path / "run"))
    (tmp_path / "events.jsonl").write_bytes(packed)
    resumed = runner.run(pipeline(tmp_path / "run"))
    assert resumed.resumed_at > 1000
    assert resumed.digest == runner.run(pipeline(tmp_path / "whole")).digest


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_directory(tmp_path):
    write(tmp_path / "events.jsonl", events(300))
    (tmp_path / "run").mkdir(mode=0o500)
    with pytest.raises(StoreError, match="cannot write"):
        runner.run(pipeline(tmp_path / "run"))


class Crash(BaseException):
    """What no handler of errors may catch."""


@pytest.mark.parametrize("every_events", [100, 100_000])
@pytest.mark.parametrize("batch", [50, 777])
@pytest.mark.parametrize("crash_at", [1, 2, 3])
def test_dying_behind_a_snapshot_and_resuming_with_other_batches(tmp_path, every_events, batch, crash_at):
    """What was stored and not yet in a checkpoint is stored again: the same, under the same number."""
    write(tmp_path / "events.jsonl", events(2600))
    changes = {"learners": {"sgd": PIPELINE["learners"]["sgd"], "coin": {"kind": "sgd", "update": "coin"}}}

    def small(name):
        return pipeline(
            tmp_path / name,
            **changes,
            checkpoint={"path": str(tmp_path / name / "checkpoint"), "every_events": every_events},
        )

    whole = runner.run(small("whole"))
    seen = 0

    def crash(notice):
        nonlocal seen
        seen += notice.what == "promoted"
        if seen == crash_at:
            raise Crash

    with pytest.raises(Crash):
        runner.run(small("died"), on_notice=crash)
    resumed = runner.run(small("died"), batch=batch)
    assert (resumed.digest, resumed.serving) == (whole.digest, whole.serving)
    for version in SnapshotStore(tmp_path / "whole" / "snapshots").versions():
        name = f"snapshots/{version:08d}.safetensors"
        assert (tmp_path / "died" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert SnapshotStore(tmp_path / "died" / "snapshots").verify() == []


def test_a_source_that_cannot_be_used_leaves_nothing_behind(tmp_path):
    with pytest.raises(DataError, match=r"events\.jsonl: cannot be opened"):
        runner.run(pipeline(tmp_path / "run"))
    assert not (tmp_path / "run" / "checkpoint").exists()


class Witness(Observer):
    def __init__(self):
        self.told = []
        self.events = 0
        self.saved_at = []
        self.error = "never stopped"

    def started(self, run):
        self.told.append("started")
        self.events = run.resumed_at

    def learned(self, chunk):
        self.told.append("learned")
        self.events += chunk.n_new
        assert self.events - chunk.duplicates == chunk.events

    def noticed(self, notice, version):
        self.told.append(notice.what)

    def saved(self, checkpoint):
        self.saved_at.append(checkpoint.events)
        assert checkpoint.pause_s >= 0.0 <= checkpoint.seconds
        assert len(checkpoint.sha256) == 64

    def stopped(self, error):
        self.told.append("stopped")
        self.error = error


def test_observers_are_told(tmp_path):
    write(tmp_path / "events.jsonl", events(1000))
    witness = Witness()
    outcome = runner.run(pipeline(tmp_path / "run"), batch=100, observers=[witness])
    assert (witness.told[0], witness.told[-1], witness.error) == ("started", "stopped", None)
    assert witness.told.count("learned") == 10
    assert "promoted" in witness.told
    assert witness.events == 1000
    assert witness.saved_at == sorted(witness.saved_at)
    assert (witness.saved_at[0], witness.saved_at[-1]) == (0, outcome.events)


def test_observers_are_told_of_what_ended_the_run(tmp_path):
    witness = Witness()
    with pytest.raises(DataError):
        runner.run(pipeline(tmp_path / "run"), observers=[witness])
    assert isinstance(witness.error, DataError)


def test_events_that_come_twice_are_learned_once(tmp_path):
    """Also across a restart: what is remembered is in the checkpoint, but not in the engine's state."""
    once = list(events(1000))
    write(tmp_path / "events.jsonl", once)
    whole = runner.run(pipeline(tmp_path / "whole"))
    twice = [
        record for i in range(0, 1000, 50) for record in once[i : i + 50] + once[max(0, i - 20) : i + 30]
    ]
    write(tmp_path / "events.jsonl", twice)

    def deduplicating(name):
        return pipeline(tmp_path / name, dedup={"window": 200})

    outcome = runner.run(deduplicating("twice"))
    assert (outcome.events, outcome.duplicates, outcome.digest) == (1000, len(twice) - 1000, whole.digest)
    asked = iter([False] * 8)
    stopped = runner.run(deduplicating("parts"), batch=37, should_stop=lambda: next(asked, True))
    assert 0 < stopped.duplicates < outcome.duplicates
    resumed = runner.run(deduplicating("parts"), batch=41)
    assert (resumed.duplicates, resumed.digest) == (outcome.duplicates, whole.digest)


def test_a_checkpoint_that_cannot_be_written_ends_the_run(tmp_path, monkeypatch):
    """It is written beside the learning; what goes wrong there is not lost."""
    write(tmp_path / "events.jsonl", events(1000))
    real, calls = checkpoints.save, 0

    def full(*arguments, **keywords):
        nonlocal calls
        calls += 1
        if calls > 2:
            raise StoreError("cannot write: No space left on device")
        return real(*arguments, **keywords)

    monkeypatch.setattr(checkpoints, "save", full)
    with pytest.raises(StoreError, match="No space left on device"):
        runner.run(pipeline(tmp_path / "run"), batch=50)
    monkeypatch.setattr(checkpoints, "save", real)
    resumed = runner.run(pipeline(tmp_path / "run"))
    assert 0 < resumed.resumed_at < 1000
    assert resumed.digest == runner.run(pipeline(tmp_path / "whole")).digest
