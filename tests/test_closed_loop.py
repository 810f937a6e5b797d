"""An application decides, rewards come late, the daemon learns, is killed, and hands back better policies."""

import functools
import json
import random
import signal
import subprocess
import sys
import time

import pytest

from penstock import Predictor, SnapshotStore, bandit_config, bandit_evaluate, checkpoints, runner
from penstock.actor import Actor, audit
from penstock.errors import DataError
from penstock.feedback import parse
from penstock.sinks import FileSink
from penstock.sources.feedback import FeedbackSource
from penstock.state import digest

ARMS = ["news", "sport", "weather"]
APPLICATION = """
import random, sys, time
from penstock import Predictor

log, snapshots, n, pause_s = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
chance = random.Random(7)
late = []
with Predictor(snapshots, wait_s=None, cold_start="uniform", sink=log, poll_s=0.02, pipeline="loop") as app:
    for i in range(n):
        who = chance.choice(["news", "sport", "weather"])
        decision = app.act({"likes": who}, ["news", "sport", "weather"], id=f"d-{i}")
        time.sleep(pause_s)
        if decision.action == who:
            late.append(decision.id)
        if len(late) > 40 and chance.random() < 0.9:
            app.reward(late.pop(chance.randrange(len(late))), 1.0)
    for id_ in late:
        app.reward(id_, 1.0)
"""


def given(directory):
    return {
        "name": "loop",
        "task": "bandit",
        "source": {"kind": "feedback", "path": str(directory / "log"), "poll_s": 0.02},
        "policies": {
            "greedy": {"kind": "greedy", "floor": 0.2},
            "blind": {"kind": "beta_thompson", "floor": 0.2},
        },
        "rewards": {"window_s": 0.5, "lateness_s": 1.0},
        "shadow": {"refresh_every": 200, "min_effect": 0.01},
        "snapshots": {"path": str(directory / "snapshots"), "keep": 1000},
        "checkpoint": {"path": str(directory / "checkpoint"), "every_events": 50, "every_s": 0.2},
        "tick": 50,
    }


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_every_decision_is_learned_once_though_the_daemon_is_killed_five_times(tmp_path):
    close_the_loop(tmp_path, 5000, pause_s=0.001, alive_s=0.3)


@pytest.mark.crash
def test_fifty_thousand_decisions_are_learned_once(tmp_path):
    close_the_loop(tmp_path, 50_000, pause_s=0.0002, alive_s=8.0)


def close_the_loop(tmp_path, n, *, pause_s, alive_s):
    """Let an application decide n times while five daemons, one after the other, learn and are killed."""
    path = tmp_path / "loop.yaml"
    path.write_text(json.dumps(given(tmp_path)))
    application = subprocess.Popen(
        [
            *(sys.executable, "-c", APPLICATION),
            *(str(tmp_path / "log"), str(tmp_path / "snapshots"), str(n), str(pause_s)),
        ]
    )
    command = [sys.executable, "-m", "penstock", "run", str(path), "--follow", "--batch", "100", "-q"]
    chance = random.Random(0)
    checkpoint = tmp_path / "checkpoint"
    for _ in range(5):
        daemon = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        until(lambda before=before: checkpoint.exists() and checkpoint.stat().st_mtime_ns != before)
        time.sleep(chance.random() * alive_s)
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
    assert application.wait(timeout=120) == 0
    # One last word, from long after: by then every reward is certain.
    last = json.loads((tmp_path / "log" / "decisions.jsonl").read_text().splitlines()[-1])
    sink = FileSink(tmp_path / "log")
    sink.send(parse(json.dumps({"id": "none", "time": last["time"] + 3600, "reward": 0.0})))
    sink.close()
    outcome = runner.run(bandit_config.parse(given(tmp_path)))
    assert outcome.events == n
    assert outcome.rejected == 0

    # The same log, read in one piece by a run that was never interrupted, makes the same policies.
    whole = given(tmp_path)
    whole["snapshots"] = {"path": str(tmp_path / "whole" / "snapshots"), "keep": 1000}
    whole["checkpoint"] = {"path": str(tmp_path / "whole" / "checkpoint")}
    uninterrupted = runner.run(bandit_config.parse(whole))
    assert uninterrupted.events == n
    states = [
        {k: v for k, v in saved.state.items() if k.startswith("bandit/lanes/")}
        for saved in (
            checkpoints.load(p, config_hash=bandit_config.parse(given(tmp_path)).hash())
            for p in (checkpoint, tmp_path / "whole" / "checkpoint")
        )
    ]
    assert digest(states[0]) == digest(states[1])

    # Every logged probability can be recomputed from the decision's id and the snapshot that made it.
    store = SnapshotStore(tmp_path / "snapshots")
    lines = (tmp_path / "log" / "decisions.jsonl").read_text().splitlines()
    assert len(lines) == n
    actor = functools.cache(lambda version: Actor.of(*store.load(version)))
    events = [parse(line) for line in lines]
    for event in events:
        if event.snapshot:
            assert actor(event.snapshot).redo(event) == event
        else:
            assert audit(event, store) == event
    versions = {event.snapshot for event in events}
    assert len(versions) > 1
    rewards = {
        json.loads(line)["id"] for line in (tmp_path / "log" / "rewards.jsonl").read_text().splitlines()
    }
    late = [json.loads(line)["id"] in rewards for line in lines[-1000:]]
    assert sum(late) / len(late) > 0.6  # chance gets a third
    print(f"{n} decisions by {len(versions)} policies, 5 kills, {len(rewards)} rewards")


def test_feedback_of_a_directory_can_be_evaluated_off_policy(tmp_path):
    with Predictor(
        tmp_path / "snapshots", wait_s=None, cold_start="uniform", sink=tmp_path / "log", pipeline="loop"
    ) as app:
        for i in range(600):
            decision = app.act({"likes": ARMS[i % 3]}, ARMS, id=str(i))
            app.reward(decision.id, float(decision.action == ARMS[i % 3]))
    result = bandit_evaluate.evaluate(bandit_config.parse(given(tmp_path)))
    assert result.events == 600
    assert result.baselines["uniform"]["ips"] == pytest.approx(1 / 3, abs=0.08)
    assert result.policies["greedy"]["dr"] > 0.6


def records(directory, n=300):
    with Predictor(
        directory / "none", wait_s=None, cold_start="uniform", sink=directory / "log", pipeline="p"
    ) as app:
        for i in range(n):
            app.act({"x": i % 5}, ARMS, id=str(i))
            if i % 3 == 0:
                app.reward(str(i), 1.0)
    return FeedbackSource(str(directory / "log"))


def test_source_resumes_anywhere_and_takes_only_whole_lines(tmp_path):
    source = records(tmp_path)
    whole = [event for chunk in source.chunks(None, 10_000) for event in chunk.batch]
    assert len(whole) == 400
    assert [event.time for event in whole] == sorted(event.time for event in whole)
    for chunk in source.chunks(None, 37):
        rest = [event for later in source.chunks(chunk.position, 50) for event in later.batch]
        assert rest == whole[len(whole) - len(rest) :]
    with (tmp_path / "log" / "decisions.jsonl").open("a") as file:
        file.write('{"id": "torn", "ti')
    assert sum(len(chunk.batch) for chunk in source.chunks(None, 1000)) == 400


def test_source_rejects_lines_and_goes_on(tmp_path):
    source = records(tmp_path)
    with (tmp_path / "log" / "rewards.jsonl").open("a") as file:
        file.write('{"id": "7", "time": 1e18, "reward": NaN}\nnot JSON\n')
    chunks = list(source.chunks(None, 1000))
    assert sum(len(chunk.batch) for chunk in chunks) == 400
    rejected = [letter for chunk in chunks for letter in chunk.rejected]
    assert [letter.where for letter in rejected] == ["rewards.jsonl:101", "rewards.jsonl:102"]


def test_source_notices_a_file_that_was_replaced(tmp_path):
    source = records(tmp_path)
    *_, last = source.chunks(None, 1000)
    (tmp_path / "log" / "decisions.jsonl").write_text("")
    with pytest.raises(DataError, match=r"decisions\.jsonl: has 0 bytes of content, and the position"):
        list(source.chunks(last.position, 10))
    with pytest.raises(DataError, match="no such directory"):
        list(FeedbackSource(str(tmp_path / "nowhere")).chunks(None, 10))
