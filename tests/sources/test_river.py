import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from river import datasets
from river.datasets import synth

from penstock.errors import ConfigError, DataError
from penstock.events import Batch, Task
from penstock.sources import Source, build
from penstock.sources.river import RiverSource

BINARY, MULTICLASS, REGRESSION = Task("binary"), Task("multiclass"), Task("regression")
DRIFT = {
    "stream": {"dataset": "synth.SEA", "params": {"seed": 1, "variant": 0}},
    "drift_stream": {"dataset": "synth.SEA", "params": {"seed": 2, "variant": 3}},
    "position": 50,
    "width": 10,
}


def read(source, position=None, size=100):
    chunks = list(source.chunks(position, size))
    return chunks, Batch.concat([chunk.batch for chunk in chunks])


def test_bundled_set():
    source = build("river", BINARY, dataset="Phishing")
    assert isinstance(source, Source)
    chunks, batch = read(source)
    pairs = list(datasets.Phishing())
    assert list(batch.rows) == [x for x, _ in pairs]
    np.testing.assert_array_equal(batch.labels, [float(y) for _, y in pairs])
    assert chunks[-1].position == {"record": 1250}


def test_labels_by_task():
    assert read(RiverSource(MULTICLASS, "ImageSegments", limit=5))[1].labels.tolist() == [
        y for _, y in itertools.islice(datasets.ImageSegments(), 5)
    ]
    assert set(read(RiverSource(MULTICLASS, "Phishing", limit=50))[1].labels) == {"true", "false"}
    assert read(RiverSource(REGRESSION, "TrumpApproval", limit=1))[1].labels.tolist() == [43.75505]
    assert set(read(RiverSource(BINARY, "Shuttle", limit=50))[1].labels) <= {0.0, 1.0}


def test_synthetic_stream():
    _, batch = read(RiverSource(BINARY, "synth.SEA", params={"seed": 7, "variant": 2}, limit=250))
    pairs = list(synth.SEA(seed=7, variant=2).take(250))
    assert list(batch.rows) == [{str(name): value for name, value in x.items()} for x, _ in pairs]
    assert len(Batch.from_state(batch.state())) == 250


def test_nested_streams():
    _, batch = read(RiverSource(BINARY, "synth.ConceptDriftStream", params={**DRIFT, "seed": 3}, limit=100))
    twin = synth.ConceptDriftStream(
        synth.SEA(seed=1, variant=0), synth.SEA(seed=2, variant=3), position=50, width=10, seed=3
    )
    assert batch.labels.tolist() == [float(y) for _, y in twin.take(100)]


@pytest.mark.parametrize(
    "name", ["synth.Agrawal", "synth.RandomRBFDrift", "synth.RandomTree", "synth.ConceptDriftStream"]
)
def test_nothing_is_left_to_chance(name):
    source = RiverSource(BINARY, name, limit=30)
    _, one = read(source)
    _, other = read(source)
    assert list(one.rows) == list(other.rows)
    assert one.labels.tolist() == other.labels.tolist()


@pytest.mark.parametrize("name", ["Phishing", "synth.SEA"])
def test_resume_from_every_position(name):
    def source():
        return RiverSource(BINARY, name, limit=90)

    chunks, whole = read(source(), size=20)
    assert [len(chunk.batch) for chunk in chunks] == [20, 20, 20, 20, 10]
    for i, chunk in enumerate(chunks[:-1]):
        _, rest = read(source(), json.loads(json.dumps(chunk.position)), size=7)
        assert list(rest.rows) == list(whole.rows[20 * (i + 1) :])
    assert list(source().chunks(chunks[-1].position, 7)) == []


def test_laps():
    _, batch = read(RiverSource(BINARY, "Phishing", repeat=2, limit=1300))
    assert list(batch.rows[1250:]) == list(batch.rows[:50])


def test_time():
    _, batch = read(RiverSource(REGRESSION, "AirlinePassengers", time="month", limit=2))
    assert list(batch.rows) == [{}, {}]
    np.testing.assert_array_equal(batch.times, [-662688000.0, -660009600.0])
    chunks, batch = read(RiverSource(REGRESSION, "AirlinePassengers", limit=2))
    assert len(batch) == 0
    assert chunks[0].rejected[1].reason == (
        "expected a number, a string, a boolean, a list or a mapping, "
        "got datetime.datetime(1949, 2, 1, 0, 0) - at `$.month`, AirlinePassengers:2"
    )


def test_labels_of_another_task_are_rejected():
    chunks, batch = read(RiverSource(BINARY, "TrumpApproval", limit=3))
    assert len(batch) == 0
    assert chunks[0].rejected[0].reason == (
        "expected true or false, 0 or 1, -1 or 1, got 43.75505 - at `$.y`, TrumpApproval:1"
    )


@pytest.mark.parametrize(
    ("dataset", "params", "message"),
    [
        (
            "Phising",
            {},
            "River has no data set called 'Phising' (did you mean 'Phishing'?): known are Airl",
        ),
        ("synth.SAE", {}, "River has no data set called 'synth.SAE' (did you mean 'synth.SEA'?): known are "),
        ("base.RemoteDataset", {}, "River has no data set called 'base.RemoteDataset'"),
        ("synth.SEA", {"sead": 1}, "river.datasets.synth.SEA: "),
        ("synth.SEA", {"variant": 9}, "river.datasets.synth.SEA: "),
        ("synth.ConceptDriftStream", {"stream": {"dataset": "x"}}, "River has no data set called 'x'"),
        (
            "synth.ConceptDriftStream",
            {"stream": {"dataset": "Bananas", "seed": 1}},
            "params: 'seed' beside",
        ),
    ],
)
def test_sets_that_cannot_be_built(dataset, params, message):
    with pytest.raises(ConfigError) as raised:
        RiverSource(BINARY, dataset, params=params)
    assert str(raised.value).startswith(message)


def test_nothing_is_downloaded(monkeypatch, tmp_path):
    monkeypatch.setenv("RIVER_DATA", str(tmp_path))
    with pytest.raises(DataError) as raised:
        RiverSource(BINARY, "Elec2")
    assert str(raised.value) == (
        "river.datasets.Elec2 does not ship with River and is not on this machine; to get it, run "
        "python -c 'from river import datasets; datasets.Elec2().download()'"
    )


@pytest.mark.parametrize("position", [{}, {"record": -1}, {"record": "1"}, {"file": "x"}])
def test_a_position_of_something_else(position):
    with pytest.raises(DataError, match=r"is no position of this source: expected {'record': a number}$"):
        read(RiverSource(BINARY, "Phishing"), position)


def test_river_is_imported_only_when_it_is_asked_for():
    code = "import sys, penstock.sources.river, penstock.sources.file; sys.exit('river' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
