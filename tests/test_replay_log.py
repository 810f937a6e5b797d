"""A replay ends in the state that the run had there, to the bit."""

import json
import math
import random
from pathlib import Path

import pytest

from penstock import checkpoints, cli, config, runner
from penstock.bandit_config import parse as parse_bandit
from penstock.engine import Engine
from penstock.errors import ConfigError, DataError
from penstock.replay_log import replay

LEARNERS = {"sgd": {"kind": "sgd", "bits": 10}, "vw": {"kind": "vw", "args": "-b 10"}}


def events(n):
    chance = random.Random(1)
    for i in range(n):
        a, b = chance.gauss(0, 1), chance.gauss(0, 1)
        features = {"a": a, "user": {"country": "SE" if b > 0 else "DE", "b": b}, "tags": ["x", "y"]}
        yield {"id": f"e{i}", "features": features, "label": 2 * a > b}


@pytest.fixture
def given(tmp_path):
    """A pipeline with everything a replay has to get right: bad records, duplicates, drift, the gate."""
    records = [json.dumps(record) for record in events(1500)]
    records[300] = "garbage"
    records[900] = records[10]
    (tmp_path / "events.jsonl").write_text("\n".join(records) + "\n")
    return {
        "name": "replayed",
        "source": {"kind": "file", "path": str(tmp_path / "events.jsonl"), "id": "id"},
        "learners": LEARNERS,
        "drift": [{"kind": "adwin", "react": "reset"}],
        "replay": {"kind": "reservoir", "size": 100},
        "shadow": {"refresh_every": 400},
        "snapshots": {"path": str(tmp_path / "snapshots")},
        "checkpoint": {"path": str(tmp_path / "checkpoint")},
        "dead_letters": {"max_bad_rate": 0.1},
        "dedup": {"window": 1000},
    }


def stopped_at(pipeline, n_batches):
    """Run until so many batches of 100 were learned; return the digest of what the checkpoint holds."""
    asked = iter([False] * (n_batches - 1) + [True])
    outcome = runner.run(pipeline, batch=100, should_stop=lambda: next(asked))
    spec = pipeline.checkpoint
    engine = Engine(pipeline)
    engine.restore(checkpoints.load(spec.path, config_hash=pipeline.hash()).state)
    assert engine.digest() == outcome.digest
    return outcome


@pytest.mark.parametrize("batch", [64, 4096])
def test_the_checkpoint_is_what_the_log_gives(given, batch):
    pipeline = config.parse(given)
    outcome = stopped_at(pipeline, 11)
    found = replay(pipeline, batch=batch)
    assert (found.digest, found.events) == (outcome.digest, outcome.events)
    assert found.position["record"] == 1100
    assert replay(pipeline, until="events.jsonl:1100").digest == outcome.digest
    assert replay(pipeline, until=str(outcome.events)).digest == outcome.digest
    assert replay(pipeline, until="end", batch=batch).digest == runner.run(pipeline).digest


def test_any_place_can_be_said_in_two_ways(given):
    pipeline = config.parse(given)
    # Line 301 is garbage and line 901 a duplicate, so 950 lines are 948 events.
    assert replay(pipeline, until="events.jsonl:950").digest == replay(pipeline, until="948").digest
    assert replay(pipeline, until="0").events == 0


def test_an_event_is_explained_as_it_was_scored(given):
    pipeline = config.parse(given)
    by_id = replay(pipeline, explain="e700")
    by_number = replay(pipeline, explain="700", until="end")
    by_place = replay(pipeline, explain="events.jsonl:701")
    told = by_id.explained
    assert told == by_number.explained == by_place.explained
    assert by_id.events == by_place.events == 700
    record = list(events(701))[700]
    assert (told["event"], told["id"]) == (700, "e700")
    assert (told["features"], told["label"]) == (record["features"], record["label"])
    # What the learner said while it ran: the same engine, fed by hand.
    engine, source = runner.parts(pipeline)
    (chunk,) = list(source.chunks(None, 5000))
    before = chunk.batch.slice(0, 699)
    engine.progress(before)
    one = chunk.batch.slice(699, 700)
    assert one.ids[0] == "e700"
    for name, learner in engine.learners.items():
        assert told["learners"][name]["prediction"] == learner.predict(one)[0]
    assert told["serving"]["version"] == engine.shadow.serving_version.version == 1
    assert told["serving"]["prediction"] == engine.shadow.model.predict(one)[0]


def test_contributions_sum_to_the_log_odds(given):
    told = replay(config.parse(given), explain="e700").explained["learners"]["sgd"]
    parts = {one["feature"]: one for one in told["contributions"]}
    country = "user.country=SE" if "user.country=SE" in parts else "user.country=DE"
    assert set(parts) == {"a", "user.b", country, "tags[0]", "tags[1]", "(constant)"}
    assert all(one["contribution"] == one["weight"] * one["value"] for one in parts.values())
    odds = sum(one["contribution"] for one in parts.values())
    assert told["prediction"] == pytest.approx(1 / (1 + math.exp(-odds)), rel=1e-6)
    sizes = [abs(one["contribution"]) for one in told["contributions"]]
    assert sizes == sorted(sizes, reverse=True)


def test_classes_are_named(tmp_path):
    source = {"kind": "river", "dataset": "ImageSegments", "limit": 400}
    pipeline = config.parse({"task": "multiclass", "source": source, "learners": {"sgd": {"kind": "sgd"}}})
    told = replay(pipeline, explain="300").explained
    prediction = told["learners"]["sgd"]["prediction"]
    assert told["label"] in prediction
    assert sum(prediction.values()) == pytest.approx(1)
    assert set(told["learners"]["sgd"]["contributions"][0]["weight"]) == set(prediction)


def test_what_cannot_be_found_is_said(given):
    pipeline = config.parse(given)
    with pytest.raises(DataError, match="the log ends after 1,498 events, and event 2,000 is asked for"):
        replay(pipeline, until="2000")
    with pytest.raises(DataError, match="--explain nobody: no such event"):
        replay(pipeline, explain="nobody", until="100")
    with pytest.raises(DataError, match="this record was no event"):
        replay(pipeline, explain="events.jsonl:301")
    with pytest.raises(ConfigError, match="--until soon: expected a number of events"):
        replay(pipeline, until="soon")
    with pytest.raises(ConfigError, match="there is no checkpoint"):
        replay(pipeline, until="checkpoint")


@pytest.fixture
def bandit(tmp_path):
    chance = random.Random(2)
    decisions, rewards = [], []
    for i in range(600):
        arms = ["news", "sport", "food"]
        arm = chance.randrange(3)
        decisions.append(
            {
                "id": f"d{i}",
                "time": 1000.0 + i,
                "context": {"hour": chance.randrange(24)},
                "actions": arms,
                "action": arms[arm],
                "propensity": 1 / 3,
                "snapshot": 0,
                "pipeline": "ads",
            }
        )
        rewards.append({"id": f"d{i}", "time": 1001.5 + i, "reward": float(chance.random() < (arm + 1) / 4)})
    log = tmp_path / "log"
    log.mkdir()
    for name, lines in (("decisions", decisions), ("rewards", rewards)):
        (log / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return parse_bandit(
        {
            "name": "ads",
            "task": "bandit",
            "source": {"kind": "feedback", "path": str(log)},
            "policies": {"ts": {"kind": "beta_thompson"}, "lin": {"kind": "linucb", "dimension": 4}},
            "rewards": {"window_s": 5, "lateness_s": 1},
            "shadow": {"refresh_every": 200},
            "checkpoint": {"path": str(tmp_path / "checkpoint")},
        }
    )


def test_a_bandit_is_replayed_and_explained(bandit):
    asked = iter([False] * 7 + [True])
    outcome = runner.run(bandit, batch=100, should_stop=lambda: next(asked))
    found = replay(bandit)
    assert (found.digest, found.events) == (outcome.digest, outcome.events)
    by_id = replay(bandit, explain="d400", until="end").explained
    by_number = replay(bandit, explain="401", until="end").explained
    by_place = replay(bandit, explain="decisions.jsonl:401", until="end").explained
    assert by_id == by_number == by_place
    assert by_id["event"] == 401
    assert by_id["actions"] == ["news", "sport", "food"]
    for told in (*by_id["policies"].values(), by_id["serving"]):
        assert sum(told["pmf"].values()) == pytest.approx(1)
    assert replay(bandit, until="end").digest == replay(bandit, until="end", explain="d400").digest


def test_a_log_that_is_not_what_was_learned_is_no_proof(bandit):
    runner.run(bandit)
    rewards = Path(bandit.source.path, "rewards.jsonl")
    lines = rewards.read_text().splitlines()
    places = [i for i in range(100, 600) if '"reward": 1.0' in lines[i]]  # behind the head
    lines[places[0]] = lines[places[0]].replace('"reward": 1.0', '"reward": 0.0')
    rewards.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"at the position of the checkpoint, which holds 5\d\d and"):
        replay(bandit)
    assert replay(bandit, until="end").events > 500


def test_the_command(given, tmp_path, capsys):
    path = tmp_path / "pipeline.json"
    path.write_text(json.dumps(given))
    digest = runner.run(config.parse(given)).digest
    assert cli.main(["replay", str(path), "--json", "--explain", "e700", "--until", "checkpoint"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["digest"], told["events"], told["explained"]["id"]) == (digest, 1498, "e700")
    assert cli.main(["replay", str(path)]) == 0
    assert digest in capsys.readouterr().out
    assert cli.main(["replay", str(path), "--until", "9999"]) == 3
