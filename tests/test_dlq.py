"""Dead letters and events go to topics, once; and letters come back."""

import json

import pytest

from penstock import config, dlq, runner
from penstock.cli import main
from penstock.dead_letters import FileLetters
from penstock.errors import ConfigError, DataError, StoreError
from penstock.kafka import letters, topic_log, topics
from penstock.kafka.client import Connection
from penstock.kafka.letters import TopicLetters
from penstock.sources import Rejected

EMBEDDED = Connection(bootstrap="embedded")


def records(n):
    for i in range(n):
        yield '{"no": ' + str(i) if i % 10 == 3 else json.dumps({"features": {"a": i % 2}, "label": i % 2})


def pipeline(directory, **changes):
    return config.parse(
        {
            "name": "lettered",
            "source": {"kind": "file", "path": str(directory / "events.jsonl")},
            "shadow": {"refresh_every": 100},
            "snapshots": {"path": str(directory / "snapshots")},
            "checkpoint": {"path": str(directory / "checkpoint"), "every_events": 100},
            "dead_letters": {"path": str(directory / "dead.jsonl"), "max_bad_rate": 0.5},
            **changes,
        }
    )


def events(bootstrap, topic):
    return [json.loads(m.value()) for m in topics.read(Connection(bootstrap=bootstrap), topic, {})]


class _CrashError(Exception):
    pass


def _crash_after(n):
    left = iter(range(n))

    def on_notice(notice):
        if next(left, None) is None:
            raise _CrashError

    return on_notice


def check_outputs(directory, bootstrap, name):
    """A run that dies between its checkpoints, several times, tells what an uninterrupted one does."""
    (directory / "events.jsonl").write_text("\n".join(records(1500)) + "\n")
    told = {}
    for how in ("whole", "cut"):
        given = pipeline(
            directory,
            snapshots={"path": str(directory / how / "snapshots")},
            checkpoint={"path": str(directory / how / "checkpoint"), "every_events": 300},
            dead_letters={"topic": f"{name}-{how}-dead", "bootstrap": bootstrap, "max_bad_rate": 0.5},
            events={"topic": f"{name}-{how}-events", "bootstrap": bootstrap},
            tick=50,
        )
        for notices in (5, 4, 3) if how == "cut" else ():
            with pytest.raises(_CrashError):
                runner.run(given, batch=64, on_notice=_crash_after(notices))
        runner.run(given, batch=64)
        found = events(bootstrap, f"{name}-{how}-events")
        lives = [e for e in found if e["what"] in ("started", "resumed", "checkpoint", "stopped")]
        in_order = sorted(
            (e for e in found if e not in lives), key=lambda e: (e["event"], e["what"], e["text"])
        )
        dead = letters.read(Connection(bootstrap=bootstrap), f"{name}-{how}-dead", "lettered")
        told[how] = in_order, sorted(dead, key=lambda letter: int(letter.where.rpartition(":")[2]))
        assert [e["what"] for e in lives].count("started") == 1
    assert told["cut"] == told["whole"]
    notices, found = told["whole"]
    assert len([e for e in notices if e["what"] == "promoted"]) > 5
    assert all(e["pipeline"] == "lettered" and e["event"] > 0 and e["text"] for e in notices)
    assert [x.data for x in found] == [line.encode() for line in records(1500) if "no" in line]
    assert found[0].where.endswith("events.jsonl:4")
    assert "JSON" in found[0].reason


@pytest.fixture
def _short_transactions(monkeypatch):
    """Much is in the topic already when a run dies, and some is not."""
    monkeypatch.setattr(topic_log, "_TRANSACTION_RECORDS", 3)


@pytest.mark.usefixtures("_short_transactions")
def test_outputs_are_told_once_through_crashes(tmp_path):
    check_outputs(tmp_path, "embedded", "told")


@pytest.mark.usefixtures("_short_transactions")
@pytest.mark.kafka
def test_outputs_are_told_once_through_crashes_on_a_broker(kafka, tmp_path):
    check_outputs(tmp_path, kafka, tmp_path.name.replace("_", "-"))


def rejected(i, **more):
    return Rejected(
        reason=f"reason {i % 2}", where=f"{more.pop('topic', 'src')}[0]@{i}", data=b"\xff%d" % i, **more
    )


def round_trip(bootstrap, source, dead, directory):
    """Letters of a topic, sent back in three goes."""
    connection = Connection(bootstrap=bootstrap)
    topics.ensure(connection, source, create=True)
    sink = TopicLetters(connection, dead, writer="lettered")
    for i in range(6):
        sink.take(
            rejected(
                i,
                topic=source,
                key=b"k%d" % i,
                headers=(("h", b"1"), ("h", None)),
                timestamp_ms=1_700_000_000_000 + i,
            )
        )
    sink.take(Rejected(reason="reason 0", where=f"{source}[0]@6", data=None, key=b"k6"))
    sink.take(Rejected(reason="reason 0", where="src[0]@9", data=b"x" * 2_000_000))
    sink.take(Rejected(reason="reason 0", where="f[1].jsonl:1", data=b"of a file"))
    sink.flush()
    sink.close()
    given = pipeline(
        directory,
        source={"kind": "kafka", "bootstrap": bootstrap, "topics": source},
        dead_letters={"topic": dead},
    )
    shown = []
    assert dlq.list_letters(given, limit=None, reason=None, show=shown.append) == 9
    assert not any(json.loads(line)["replayed"] for line in shown)
    sent = [dlq.replay(given, reason="1$"), *(dlq.replay(given, limit=2) for _ in range(3))]
    assert [found.n_sent for found in sent] == [3, 2, 2, 0]
    assert sent[0].left == []
    assert sorted(sent[-1].left) == [
        "f[1].jsonl:1: from no topic: say with --to-topic or --to-file where it is to go",
        "src[0]@9: its 2,000,000 bytes were too many to be kept",
    ]
    *back, empty = sorted(topics.read(connection, source, {}), key=lambda message: message.key())
    assert [m.value() for m in back] == [b"\xff%d" % i for i in range(6)]
    assert (empty.key(), empty.value()) == (b"k6", None)
    for message in back:
        i = int(message.key()[1:])
        where = f"{source}[0]@{i}".encode()
        assert message.timestamp()[1] == 1_700_000_000_000 + i
        assert message.headers() == [("h", b"1"), ("h", None), ("penstock-replayed", where)]
    shown.clear()
    dlq.list_letters(given, limit=None, reason=None, show=shown.append)
    assert sorted(json.loads(line)["replayed"] for line in shown) == [False] * 2 + [True] * 7


def test_letters_of_a_topic_go_back(tmp_path):
    round_trip("embedded", "round-source", "round-dead", tmp_path)


@pytest.mark.kafka
def test_letters_of_a_topic_go_back_on_a_broker(kafka, new_topic, tmp_path):
    round_trip(kafka, new_topic(), new_topic(), tmp_path)


def test_letters_of_other_pipelines_are_left_alone(tmp_path):
    topics.ensure(EMBEDDED, "shared-source", create=True)
    for writer in ("lettered", "other"):
        sink = TopicLetters(EMBEDDED, "shared-dead", writer=writer)
        sink.take(Rejected(reason="r", where="shared-source[0]@1", data=writer.encode()))
        sink.flush()
        sink.close()
    mine, other = (
        pipeline(
            tmp_path,
            name=name,
            source={"kind": "kafka", "bootstrap": "embedded", "topics": "shared-source"},
            dead_letters={"topic": "shared-dead"},
        )
        for name in ("lettered", "other")
    )
    shown = []
    assert dlq.list_letters(mine, limit=None, reason=None, show=shown.append) == 1
    assert json.loads(shown[0])["data"] == "lettered"
    assert [dlq.replay(given).n_sent for given in (mine, mine, other, other)] == [1, 0, 1, 0]
    assert {m.value() for m in topics.read(EMBEDDED, "shared-source", {})} == {b"lettered", b"other"}


@pytest.mark.parametrize("kind", ["file", "topic"])
def test_a_letter_is_not_marked_where_there_is_no_place_for_it(tmp_path, kind):
    where = {"path": str(tmp_path / "dead.jsonl"), "topic": None}
    if kind == "topic":
        where = {"topic": "no-place", "bootstrap": "embedded"}
        sink = TopicLetters(EMBEDDED, "no-place", writer="lettered")
        sink.take(rejected(1))
        sink.flush()
        sink.close()
    else:
        line = {"where": "f:1", "reason": "r", "data": {"base64": "/zE="}}
        (tmp_path / "dead.jsonl").write_text(json.dumps(line) + "\n")
    given = pipeline(tmp_path, dead_letters=where)
    with pytest.raises(StoreError, match=r"cannot write .*/nowhere/out: No such file"):
        dlq.replay(given, to_file=tmp_path / "nowhere" / "out")
    assert dlq.replay(given, to_file=tmp_path / "out").n_sent == 1
    assert (tmp_path / "out").read_bytes() == b"\xff1\n"


def test_letters_of_a_file_go_to_a_file(tmp_path):
    (tmp_path / "events.jsonl").write_text("\n".join(records(50)) + "\n")
    given = pipeline(tmp_path)
    runner.run(given)
    out = tmp_path / "again.jsonl"
    assert dlq.replay(given, limit=2, to_file=out) == (2, [])
    assert dlq.replay(given, to_file=out) == (3, [])
    assert dlq.replay(given, to_file=out) == (0, [])
    assert out.read_text().splitlines() == [line for line in records(50) if "no" in line]


def test_letters_of_a_topic_go_to_a_file(tmp_path):
    sink = TopicLetters(EMBEDDED, "to-file", writer="lettered")
    sink.take(Rejected(reason="r", where="f:1", data=b"one\n"))
    sink.flush()
    sink.close()
    given = pipeline(tmp_path, dead_letters={"topic": "to-file", "bootstrap": "embedded"})
    assert [dlq.replay(given, to_file=tmp_path / "out").n_sent for _ in range(2)] == [1, 0]
    assert (tmp_path / "out").read_bytes() == b"one\n"


def test_what_is_left_is_printed(tmp_path, capsys):
    sink = TopicLetters(EMBEDDED, "left", writer="p")  # named after its file
    sink.take(rejected(1, topic="left-source"))
    sink.take(Rejected(reason="r", where="decision d-1", data=b"1"))
    sink.flush()
    sink.close()
    topics.ensure(EMBEDDED, "left-source", create=True)
    (tmp_path / "p.yaml").write_text(
        "source: {kind: kafka, bootstrap: embedded, topics: left-source}\ndead_letters: {topic: left}\n"
    )
    assert main(["dlq", "replay", str(tmp_path / "p.yaml")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "sent 1 dead letters back",
        "1 cannot be sent back:",
        "  decision d-1: from no topic: say with --to-topic or --to-file where it is to go",
    ]


def test_a_message_without_a_value_goes_through_a_file(tmp_path):
    sink = FileLetters(tmp_path / "dead.jsonl")
    sink.take(Rejected(reason="r", where="src[0]@1", data=None))
    sink.flush()
    sink.close()
    topics.ensure(EMBEDDED, "nothing", create=True)
    given = pipeline(tmp_path, source={"kind": "kafka", "bootstrap": "embedded", "topics": "src"})
    shown = []
    dlq.list_letters(given, limit=None, reason=None, show=shown.append)
    assert json.loads(shown[0])["data"] is None
    assert dlq.replay(given, to_topic="nothing") == (1, [])
    assert [message.value() for message in topics.read(EMBEDDED, "nothing", {})] == [None]


def test_letters_that_cannot_go_back(tmp_path):
    with pytest.raises(ConfigError, match="say with --to-file"):
        dlq.replay(pipeline(tmp_path))
    with pytest.raises(ConfigError, match="not a regular expression"):
        dlq.replay(pipeline(tmp_path), reason="(", to_file=tmp_path / "out")
    with pytest.raises(ConfigError, match="nothing to look at"):
        dlq.replay(pipeline(tmp_path, dead_letters={}), to_file=tmp_path / "out")
    (tmp_path / "dead.jsonl").write_text('{"where": 1}\n')
    with pytest.raises(DataError, match=r"dead\.jsonl:1: not a dead letter"):
        dlq.replay(pipeline(tmp_path), to_file=tmp_path / "out")
    other = pipeline(
        tmp_path,
        source={"kind": "kafka", "bootstrap": "elsewhere:9092", "topics": "t"},
        dead_letters={"topic": "t", "bootstrap": "embedded"},
    )
    with pytest.raises(ConfigError, match="different Kafkas"):
        dlq.replay(other)
