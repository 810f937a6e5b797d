"""What is produced is read back as the source gave it: the same hashes, labels, weights, times and ids."""

import csv
import gzip
import json

import numpy as np
import pytest

from penstock import cli, codecs, config, sources
from penstock.codecs.fields import Fields
from penstock.errors import ConfigError
from penstock.events import Batch, Task
from penstock.produce import Shape, produce


def pipeline(source, task="binary", name="origin"):
    return config.parse({"name": name, "task": task, "source": source})


def target(topic="feedback", task="binary", **options):
    source = {"kind": "kafka", "bootstrap": "embedded", "topics": topic, "follow": False, **options}
    return pipeline(source, task, "target")


def read(pipe, limit=None):
    source = sources.build(pipe.source.kind, pipe.learning_task, **pipe.source.parameters)
    chunks = list(source.chunks(None, 500))
    assert [bad.reason for chunk in chunks for bad in chunk.rejected] == []
    batch = Batch.concat([chunk.batch for chunk in chunks if len(chunk.batch)])
    return batch if limit is None else batch.slice(0, limit)


def decoded(batch, shape, **options):
    """The batch that the records of `batch` decode to."""
    pairs = list(shape.records(batch, first=0, name="x"))
    codec = codecs.build("json", Fields(Task(shape.task), **options))
    again, rejected = codec.decode([record for _, record in pairs], str)
    assert rejected == ()
    assert again.ids == [key for key, _ in pairs]
    return again


def in_order(batch):
    """The events of several partitions in the order in which they were sent."""
    return batch.take(np.argsort([int(key.rpartition("-")[2]) for key in batch.ids]))


def check_same(one, other):
    for column in ("indptr", "indices", "values", "namespaces"):
        np.testing.assert_array_equal(getattr(one.features, column), getattr(other.features, column))
    for column in ("labels", "weights", "times"):
        np.testing.assert_array_equal(getattr(one, column), getattr(other, column))


@pytest.mark.parametrize(
    ("source", "task"),
    [
        ({"kind": "river", "dataset": "Phishing"}, "binary"),
        ({"kind": "river", "dataset": "ImageSegments"}, "multiclass"),
        ({"kind": "river", "dataset": "TrumpApproval"}, "regression"),
        ({"kind": "river", "dataset": "synth.Friedman", "limit": 200}, "regression"),
    ],
)
def test_a_set_of_river_round_trips(source, task):
    batch = read(pipeline(source, task))
    check_same(decoded(batch, Shape(task=task)), batch)


def test_a_csv_round_trips(tmp_path):
    path = tmp_path / "trades.csv.gz"
    with gzip.open(path, "wt", newline="") as file:
        table = csv.writer(file)
        table.writerow(["number", "moment", "price", "state", "importance", "move"])
        for i in range(300):
            moment = f"2024-05-01T12:{i % 60:02}:00.5"
            table.writerow(
                [f"trade {i}", moment, i / 7, ["SE", "é,"][i % 2], 1 + i % 3, ["UP", "DOWN"][i % 2]]
            )
    roles = {"label": "move", "weight": "importance", "time": "moment", "id": "number"}
    source = {"kind": "file", "path": str(path), "classes": ["DOWN", "UP"], **roles}
    batch = read(pipeline(source))
    assert batch.ids[1] == "trade 1"
    assert not np.isnan(batch.times).any()

    check_same(decoded(batch, Shape(task="binary")), batch)
    theirs = {"classes": ["no", "yes"], "label": "ok", "weight": "w", "id": "n", "time": "t", "features": "x"}
    shape = Shape.of(target(**theirs))
    check_same(decoded(batch, shape, **theirs), batch)
    record = json.loads(next(shape.records(batch, first=0, name="x"))[1])
    assert (list(record), record["ok"]) == (["n", "t", "x", "ok", "w"], "yes")


def test_what_an_event_lacks_is_left_out():
    batch = Batch.from_rows([{"a": True, "b": [1, "x"], "ns": {"d": 10**18}, "e": np.float32(0.1)}])
    [(key, record)] = Shape(task="binary").records(batch, first=4, name="n")
    assert key == "n-4"
    assert json.loads(record) == {
        "id": "n-4",
        "features": {"a": True, "b": [1, "x"], "ns": {"d": 10**18}, "e": float(np.float32(0.1))},
        "weight": 1.0,
    }
    check_same(decoded(batch, Shape(task="binary"), require_label=False), batch)


def test_lines_of_vw_keep_their_hashes(tmp_path):
    path = tmp_path / "log.vw"
    path.write_text("1 2.0 'first|user age:31 SE |item 17:2 x:0.5\n-1 |user age:5 NO\n1 | plain 12 3:4\n")
    batch = read(pipeline({"kind": "file", "path": str(path)}))
    check_same(decoded(batch, Shape(task="binary")), batch)


def test_one_topic_holds_what_was_sent_and_a_repetition_has_the_same_keys():
    origin = pipeline({"kind": "river", "dataset": "Phishing", "repeat": 2})
    there = target("produce-phishing", features="features")
    sent = produce(origin, there, limit=1300)
    assert (sent.events, sent.rejected, sent.topic, sent.partitions) == (1300, 0, "produce-phishing", 4)
    batch = read(there)
    assert sorted(batch.ids) == sorted(f"origin-{i}" for i in range(1300))
    check_same(in_order(batch), read(origin, 1300))

    produce(origin, there, limit=20, rate=1e6)
    again = read(there)
    assert len(again) == 1320
    assert set(again.ids) == set(batch.ids)


@pytest.mark.kafka
def test_a_real_topic_is_made_with_so_many_partitions(kafka, new_topic, tmp_path, capsys):
    del new_topic
    there = tmp_path / "there.yaml"
    there.write_text(
        f"source: {{kind: kafka, bootstrap: '{kafka}', topics: produce-made, follow: false}}\nname: there\n"
    )
    here = tmp_path / "here.yaml"
    here.write_text("source: {kind: river, dataset: Phishing, limit: 50}\n")
    arguments = ["produce", str(here), "--to", str(there), "--partitions", "3"]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.startswith("50 events sent to produce-made (3 partitions) in ")
    check_same(in_order(read(config.load(there))), read(config.load(here)))

    assert cli.main([*arguments[:-1], "2"]) == 2
    error = "the topic 'produce-made' is there already, with 3 partitions, not 2"
    assert capsys.readouterr().err == f"penstock: error: {error}\n"


@pytest.mark.parametrize(
    ("origin", "there", "message"),
    [
        (
            {"kind": "river", "dataset": "ImageSegments"},
            target(),
            "origin is multiclass, target is binary: expected one task",
        ),
        (
            {"kind": "river", "dataset": "Phishing"},
            pipeline({"kind": "river", "dataset": "Phishing"}, name="target"),
            "target: `source.kind`: expected 'kafka', got 'river'",
        ),
        (
            {"kind": "river", "dataset": "Phishing"},
            target(format="msgpack"),
            "target: `source.format`: only JSON is sent, got 'msgpack'",
        ),
        (
            {"kind": "river", "dataset": "Phishing"},
            target(["a", "b"]),
            "target: `source.topics`: expected one topic to send to, got 2",
        ),
        (
            target().source.model_dump()["parameters"] | {"kind": "kafka"},
            target(),
            "origin reads the topic that it would be sent to, 'feedback'",
        ),
    ],
)
def test_pipelines_that_do_not_fit_are_refused(origin, there, message):
    task = "multiclass" if origin.get("dataset") == "ImageSegments" else "binary"
    with pytest.raises(ConfigError) as caught:
        produce(pipeline(origin, task), there)
    assert str(caught.value) == message


def test_an_endless_rate_is_refused(capsys):
    with pytest.raises(SystemExit):
        cli.main(["produce", "a.yaml", "--to", "b.yaml", "--rate", "inf"])
    assert "--rate: expected a number > 0, got inf" in capsys.readouterr().err
