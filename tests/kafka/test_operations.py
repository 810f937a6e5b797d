"""What an operator meets with a broker: states and exit codes, replays, and who waits for whom."""

import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import replace

import pytest
from confluent_kafka import Producer, TopicPartition

from penstock import checkpoints, config, runner
from penstock.checkup import checks
from penstock.errors import ConfigError, DataError, PenstockError
from penstock.kafka import reader
from penstock.kafka.client import Connection, admin
from penstock.kafka.embedded import bootstrap
from penstock.observers import Observer
from penstock.recovery import new_journal
from penstock.replay_log import replay
from penstock.status import Status


def send(address, topic, start, n, partitions=4):
    producer = Producer({"bootstrap.servers": address, "log_level": 0})
    for i in range(start, start + n):
        record = {"id": f"e{i}", "x": i % 7, "y": i % 3, "label": int(i % 7 > 3)}
        producer.produce(topic, json.dumps(record), partition=i % partitions)
    assert producer.flush(60) == 0


def given(directory, address, topic, **source):
    return {
        "name": "clicks",
        "source": {
            "kind": "kafka",
            "bootstrap": address,
            "topics": topic,
            "id": "id",
            "poll_s": 0.1,
            "linger_s": 0.01,
            **source,
        },
        "learners": {"sgd": {"kind": "sgd", "bits": 10}},
        "replay": {"kind": "reservoir", "size": 100},
        "shadow": {"refresh_every": 400},
        "snapshots": {"path": str(directory / "snapshots")},
        "checkpoint": {"path": str(directory / "checkpoint"), "every_events": 100, "every_s": 0.2},
        "dead_letters": {"max_bad_rate": 0.1},
    }


@pytest.fixture
def topic():
    return f"t-{uuid.uuid4().hex[:12]}"


class TestReplay:
    """On the broker of this process: the journal does not care which broker it is."""

    @pytest.fixture
    def learned(self, tmp_path, topic):
        """A pipeline whose partitions came in an order that only the journal knows, and where it stopped."""
        pipeline = config.parse(given(tmp_path, bootstrap(), topic, follow=False))
        for start in range(0, 1200, 300):
            send(bootstrap(), topic, start, 300)
            if start == 600:
                producer = Producer({"bootstrap.servers": bootstrap()})
                producer.produce(topic, b"garbage", partition=2)
                producer.flush(30)
            outcome = runner.run(pipeline, batch=70)
        return pipeline, outcome

    def test_the_checkpoint_is_what_the_log_gives(self, learned):
        pipeline, outcome = learned
        for batch in (1, 64, 4096):
            found = replay(pipeline, batch=batch)
            assert (found.digest, found.events) == (outcome.digest, 1200)
        assert replay(pipeline, until="1200").digest == outcome.digest
        assert replay(pipeline, until="end").digest == outcome.digest

    def test_the_state_behind_a_record(self, learned, topic, tmp_path):
        """It is that of a run which was stopped there."""
        pipeline, _ = learned
        found = replay(pipeline, until=f"{topic}[2]@100")
        assert found.position["topics"][topic]["2"] == 101
        assert 300 < found.events < 600
        assert replay(pipeline, until=str(found.events)).digest == found.digest
        assert replay(pipeline, until=f"{topic}[2]@100", batch=33).digest == found.digest

    def test_an_event_is_explained(self, learned, topic):
        pipeline, _ = learned
        told = replay(pipeline, explain="e1102").explained
        assert told == replay(pipeline, explain=f"{topic}[2]@276").explained
        assert told == replay(pipeline, explain=str(told["event"]), until="end").explained
        assert told["features"] == {"x": 1102 % 7, "y": 1102 % 3}
        assert told["serving"]["frozen_at"] < told["event"]

    def test_what_is_not_in_the_journal_is_not_replayed(self, learned, topic):
        pipeline, _ = learned
        send(bootstrap(), topic, 1200, 10)
        with pytest.raises(DataError, match="the log ends after 1,200 events"):
            replay(pipeline, until=f"{topic}[0]@301")


def test_a_run_that_can_go_on(tmp_path, topic):
    send(bootstrap(), topic, 0, 40)
    spec = given(tmp_path, bootstrap(), topic, follow=False)
    runner.run(config.parse(spec))
    send(bootstrap(), topic, 40, 4)
    dead = f"{topic}.dead"
    send(bootstrap(), dead, 0, 1)
    spec |= {"events": {"topic": f"{topic}.events"}, "dead_letters": {"topic": dead, "create": False}}
    found = {check.what: (check.problem, check.found) for check in checks(lambda: config.parse(spec))}
    assert [problem for problem, _ in found.values() if problem] == []
    assert found["topic"][1] == f"{topic}: 4 partitions"
    assert found["positions"][1] == f"{topic}: all in the log, 4 records wait"
    assert found["journal"][1].endswith(": 0 entries to repeat")
    assert found["dead letters"][1] == f"{dead}: 4 partitions"
    spec["source"]["topics"] = "nowhere"
    found = {check.what: str(check.problem) for check in checks(lambda: config.parse(spec)) if check.problem}
    assert found == {
        "topic": "there is no topic 'nowhere': make it first, or correct the name",
        "positions": f"the position is in topic '{topic}', and the topics are nowhere",
    }


def both(spec):
    """What a dry run and a run say."""
    problems = [check.problem for check in checks(lambda: config.parse(spec)) if check.problem]
    with pytest.raises(PenstockError) as caught:
        runner.run(config.parse(spec))
    assert str(problems[-1]) == str(caught.value)
    assert type(problems[-1]) is type(caught.value)
    return str(caught.value)


def test_a_run_that_cannot_go_on(tmp_path, topic):
    """What a run would say only once it has begun is said beforehand, in its words."""
    send(bootstrap(), topic, 0, 40)
    spec = given(tmp_path, bootstrap(), topic, follow=False)
    runner.run(config.parse(spec))

    other = f"{topic}-b"
    send(bootstrap(), other, 0, 1)
    assert "the position is in topic" in both(given(tmp_path, bootstrap(), other))
    for name in ("checkpoint", "checkpoint.previous"):
        (tmp_path / name).unlink()
    assert f"is of topic '{topic}'" in both(given(tmp_path, bootstrap(), other))
    spec["source"] = {"kind": "file", "path": str(tmp_path / "events.jsonl"), "id": "id"}
    (tmp_path / "events.jsonl").write_text('{"id": "e1", "x": 1, "y": 2, "label": 1}\n')
    runner.run(config.parse(spec))
    spec = given(tmp_path, bootstrap(), topic)
    assert "has no position in Kafka" in both(spec)
    with pytest.raises(ConfigError, match=r"the checkpoint .* speaks of no journal"):
        new_journal(config.parse(spec))


class Daemon:
    """A run in a process of its own, watched as Prometheus and an orchestrator watch it."""

    def __init__(self, tmp_path, spec, *arguments):
        path = tmp_path / "pipeline.json"
        path.write_text(json.dumps({**spec, "monitor": {"port": 0}}))
        self.log = tmp_path / f"log-{uuid.uuid4().hex[:6]}"
        command = [sys.executable, "-m", "penstock", "run", str(path), "--log", "json", *arguments]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        self.until(lambda: "monitor" in self.events)
        (self.address,) = [line["address"] for line in self.lines if line["event"] == "monitor"]

    @property
    def lines(self):
        return [
            json.loads(line) for line in self.log.read_text().splitlines(keepends=True) if line[-1] == "\n"
        ]

    @property
    def events(self):
        return [line["event"] for line in self.lines]

    def health(self, path="/healthz"):
        try:
            with urllib.request.urlopen(self.address + path, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def metric(self, name):
        with urllib.request.urlopen(f"{self.address}/metrics", timeout=10) as answer:
            (found,) = re.findall(rf"^{re.escape(name)} (.+)$", answer.read().decode(), re.MULTILINE)
        return float(found)

    def until(self, done, within_s=60.0):
        deadline = time.monotonic() + within_s
        while not done():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def until_learned(self, n):
        self.until(lambda: self.health()[1]["events"] == n)

    def until_state(self, state):
        self.until(lambda: self.health()[1]["state"] == state)

    def end(self, signum=signal.SIGTERM):
        """Ask to stop; return exit code, output, and how long it took."""
        self.process.send_signal(signum)
        return self.ended()

    def ended(self, within_s=60.0):
        asked = time.monotonic()
        out, _ = self.process.communicate(timeout=within_s)
        return self.process.returncode, out, time.monotonic() - asked

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.mark.kafka
class TestFaults:
    def test_a_broker_that_goes_away_and_comes_back(self, broker, tmp_path):
        with broker.launch(1) as cluster:
            cluster.create("clicks", 4)
            send(cluster.bootstrap, "clicks", 0, 200)
            quick = {"reconnect.backoff.max.ms": 300}
            with Daemon(tmp_path, given(tmp_path, cluster.bootstrap, "clicks", settings=quick)) as daemon:
                daemon.until_learned(200)
                assert daemon.health("/readyz")[0] == 200
                cluster.kill(1)
                daemon.until_state("waiting_for_broker")
                code, told = daemon.health()
                assert (code, "no broker answers" in told["reason"]) == (200, True)
                assert daemon.health("/readyz")[0] == 503
                assert daemon.metric("penstock_broker_up") == 0
                cluster.start(1)
                send(cluster.bootstrap, "clicks", 200, 100)
                daemon.until_learned(300)
                daemon.until_state("running")
                assert daemon.metric("penstock_broker_up") == 1
                assert daemon.metric("penstock_events_learned_total") == 300
                states = [line["state"] for line in daemon.lines if line["event"] == "state"]
                assert states[-3:] == ["running", "waiting_for_broker", "running"]
                cluster.kill(1)
                daemon.until_state("waiting_for_broker")
                code, out, took = daemon.end()
                assert (code, out[:24]) == (0, "stopped at event 300 (30"), daemon.log.read_text()
                assert took < 10, "a second, on an idle machine"

    def test_a_topic_that_is_deleted(self, kafka, new_topic, tmp_path, monkeypatch):
        monkeypatch.setattr(reader, "_REFRESH_S", 0.5)
        topic = new_topic(2)
        send(kafka, topic, 0, 50, 2)
        spec = given(tmp_path, kafka, topic, connect_timeout_s=1.0)
        client = admin(Connection(bootstrap=kafka))  # its requests end with it

        class Deleting(Observer):
            def learned(self, chunk):
                if chunk.events == 50 and chunk.n_new:
                    client.delete_topics([topic])[topic].result(30)

        status = Status("clicks")
        with pytest.raises(DataError, match="was it deleted"):
            runner.run(config.parse(spec), observers=[status, Deleting()])
        assert DataError.exit_code == 3
        assert status.now.state == "failed"
        assert "was it deleted?" in status.now.reason
        assert saved(spec) == 50

    def test_a_log_that_was_cut_is_never_skipped(self, kafka, new_topic, tmp_path):
        topic = new_topic(1)
        send(kafka, topic, 0, 50, 1)
        spec = given(tmp_path, kafka, topic)
        outcome = runner.run(config.parse(given(tmp_path, kafka, topic, follow=False)))
        assert outcome.events == 50
        send(kafka, topic, 50, 50, 1)
        cut = TopicPartition(topic, 0, 70)
        client = admin(Connection(bootstrap=kafka))
        client.delete_records([cut])[cut].result(30)
        with Daemon(tmp_path, spec) as daemon:
            code, _, _ = daemon.ended()
        assert code == 3
        wanted = f"{topic}[0]: offset 50 is wanted, and the broker has 70 to 100"
        assert daemon.lines[-1]["message"].startswith(wanted)
        assert saved(spec) == 50

        def problems():
            return [str(check.problem) for check in checks(lambda: config.parse(spec)) if check.problem]

        assert problems() == [wanted]
        for name in ("checkpoint", "checkpoint.previous"):
            (tmp_path / name).unlink()
        assert problems() == [f"{topic}[0]: offset 0 is wanted, and the broker has 70 to 100"], (
            "the journal's"
        )

    def test_a_topic_of_another_id(self, kafka, new_topic, tmp_path):
        topic = new_topic(1)
        send(kafka, topic, 0, 50, 1)
        spec = given(tmp_path, kafka, topic, follow=False)
        pipeline = config.parse(spec)
        runner.run(pipeline)
        found = checkpoints.load(pipeline.checkpoint.path, config_hash=pipeline.hash())
        position = {**found.position, "ids": {topic: "that of the one before"}}
        checkpoints.save(
            pipeline.checkpoint.path, replace(found, position=position), config_hash=pipeline.hash()
        )
        assert "was deleted and made anew" in both(spec)

    def test_who_stands_by_takes_over(self, kafka, new_topic, tmp_path):
        topic = new_topic(4)
        send(kafka, topic, 0, 300)
        spec = given(tmp_path, kafka, topic)
        with Daemon(tmp_path, spec) as first, Daemon(tmp_path, spec, "--standby") as second:
            first.until_learned(300)
            assert second.health()[1]["state"] == "standby"
            first.end(signal.SIGKILL)
            send(kafka, topic, 300, 300)
            second.until_learned(600)
            code, out, _ = second.end()
            assert code == 0
        assert replay(config.parse(spec)).digest in out


def saved(spec):
    pipeline = config.parse(spec)
    return checkpoints.load(pipeline.checkpoint.path, config_hash=pipeline.hash()).state["n_events"]
