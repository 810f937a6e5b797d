"""A daemon that dies between a promotion, the moves of aliases and a checkpoint goes on as if it had not."""

import json
import random
from itertools import pairwise

import pytest

from penstock import SnapshotStore, config, runner
from penstock.verdicts import VerdictLog


class Crash(BaseException):
    """What no handler of errors may catch."""


def write(path, n=6000):
    """A world that turns round, and twice: learners overtake one another, and what serves is taken back."""
    chance = random.Random(1)
    with path.open("w") as file:
        for i in range(n):
            a, b = chance.gauss(0, 1), chance.gauss(0, 1)
            up = ((2 * a - b > 0) != (i % 1500 >= 1100)) and chance.random() < 0.95
            file.write(json.dumps({"id": str(i), "features": {"a": a, "b": b}, "label": up}) + "\n")


def pipeline(directory, **changes):
    return config.parse(
        {
            "name": "killed",
            "source": {"kind": "file", "path": str(directory.parent / "events.jsonl")},
            "learners": {
                "slow": {"kind": "sgd", "bits": 8, "learning_rate": 0.02},
                "quick": {"kind": "sgd", "bits": 8},
                "coin": {"kind": "sgd", "bits": 8, "update": "coin"},
            },
            "tick": 64,
            "shadow": {
                "refresh_every": 192,
                "min_effect": 0.0,
                "max_events": 1000,
                "retry_after": 256,
                "challengers": 2,
                "alpha": 0.5,
                "rollback": {"watch_events": 512, "alpha": 0.5},
            },
            "snapshots": {"path": str(directory / "snapshots"), "keep": 2},
            "checkpoint": {"path": str(directory / "checkpoint"), "every_events": 1500, "every_s": 1e6},
            **changes,
        }
    )


def serving(directory):
    """What applications see, and what is kept for them."""
    store = SnapshotStore(directory / "snapshots")
    assert store.verify() == []
    return store.aliases()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nothing interrupts: its directory, outcome and what it said."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    write(directory.parent / "events.jsonl")
    said = []
    outcome = runner.run(pipeline(directory), batch=300, on_notice=said.append)
    return directory, outcome, said


def test_everything_happens_in_the_run_that_is_killed(whole):
    _, _, said = whole
    assert {notice.what for notice in said} >= {"opened", "promoted", "rejected", "rolled_back"}
    assert {notice.how for notice in said} >= {"initial", "refresh", "replace", "rollback"}


@pytest.mark.parametrize("what", ["opened", "promoted", "rejected", "rolled_back"])
@pytest.mark.parametrize("which", [0, -1])
def test_dying_behind_any_notice(tmp_path, whole, what, which):
    """The checkpoint is far behind: dozens of promotions are repeated, whose snapshots are pruned by now."""
    directory, outcome, said = whole
    (tmp_path / "events.jsonl").symlink_to(directory.parent / "events.jsonl")
    crash_at = [i for i, notice in enumerate(said) if notice.what == what][which]
    seen = -1

    def crash(notice):
        nonlocal seen
        seen += 1
        if seen == crash_at:
            raise Crash

    with pytest.raises(Crash):
        runner.run(pipeline(tmp_path / "died"), batch=300, on_notice=crash)
    resumed = runner.run(pipeline(tmp_path / "died"), batch=77)
    assert resumed.digest == outcome.digest
    assert serving(tmp_path / "died") == serving(directory)
    logs = [VerdictLog(place / "snapshots").read() for place in (tmp_path / "died", directory)]
    assert logs[0] == logs[1]


def test_a_hold_stands_across_restarts_and_what_was_promoted_last_waits(tmp_path, whole):
    """Also what the engine takes back waits; what is held, pending or to fall back to is not pruned."""
    directory, outcome, _ = whole
    lines = (directory.parent / "events.jsonl").read_text().splitlines(keepends=True)
    file, held = tmp_path / "events.jsonl", tmp_path / "held"
    file.write_text("".join(lines[:1000]))
    before = runner.run(pipeline(held)).serving
    store = SnapshotStore(held / "snapshots")
    assert store.hold() == before
    for stop in (2500, 4930, 6000):
        file.write_text("".join(lines[:stop]))
        assert runner.run(pipeline(held)).serving == before
        assert {alias.version for alias in store.aliases().values()} <= set(store.versions())
    ended = runner.run(pipeline(held))
    assert ended.digest == outcome.digest
    assert store.release() == outcome.serving
    aliases = store.aliases()
    assert aliases == SnapshotStore(directory / "snapshots").aliases()


def test_with_several_in_shadow_the_alias_names_one_that_is_still_there(whole):
    directory, _, said = whole
    store = SnapshotStore(directory / "snapshots")
    versions = [move.version for move in store.history() if move.alias == "candidate"]
    opened = [notice.version for notice in said if notice.what == "opened"]
    assert set(filter(None, versions)) == set(opened)
    # Where the newest was rejected before an older one, the alias went back to the older one.
    assert any(a and b and b < a for a, b in pairwise(versions))
