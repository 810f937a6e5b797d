"""The mirror of a snapshot directory, on librdkafka's in-process broker: crashes, garbage, restarts.

That broker rolls nothing back and fences nobody off, so nothing here is owed to transactions: the records
alone have to keep a follower from taking what is not whole.
"""

import itertools
import json
import logging
import shutil
import threading
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Producer
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.errors import BadRecord, ConfigError, ServiceError, StoreError
from penstock.kafka import snapshot_log
from penstock.kafka.client import Connection
from penstock.kafka.mirror import Follower
from penstock.kafka.publisher import Publisher
from penstock.kafka.snapshot_log import Held, changes, decode
from penstock.predictor import Predictor
from penstock.snapshots import SnapshotStore

PATIENCE_S = 60.0
SMALL_PART_BYTES = 2000  # the in-process broker forgets what is older than the last 5 MB of a topic


@pytest.fixture(scope="module")
def bootstrap():
    """Address of an in-process broker of this module's own."""
    cluster = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "embedded"})
    broker = next(iter(cluster.list_topics(timeout=30).brokers.values()))
    yield f"{broker.host}:{broker.port}"
    cluster.close()


@pytest.fixture
def connection(bootstrap):
    return Connection(bootstrap=bootstrap)


def new_topic(bootstrap):
    """Make a topic: the in-process broker does so when a producer asks for it."""
    topic = f"t-{uuid.uuid4().hex[:12]}"
    asking = Producer({"bootstrap.servers": bootstrap})
    asking.list_topics(topic, timeout=30)
    asking.close()
    return topic


@pytest.fixture
def topic(bootstrap):
    return new_topic(bootstrap)


@pytest.fixture
def store(tmp_path):
    return SnapshotStore(tmp_path / "snapshots")


def put(store, version, *, size=2, salt=0, parent=None):
    """Store a linear model whose bias tells its version."""
    state = {"weights": np.full(size, version + salt / 1000)}
    manifest = {"kind": "test", "task": "binary", "version": version, "parent": parent}
    return store.put(state, manifest)


def content(store):
    """What a reader of a directory can see."""
    files = {version: store.file(version).read_bytes() for version in store.versions()}
    return files, store.aliases()


class Raw:
    """Sends whatever it is told to, as a broken or a dying publisher does."""

    def __init__(self, bootstrap, topic):
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})
        self._topic = topic

    def send(self, *records):
        for key, value in records:
            self._producer.produce(self._topic, value, key, partition=0)
        assert self._producer.flush(PATIENCE_S) == 0

    def close(self):
        self._producer.close()


@pytest.fixture
def raw(bootstrap, topic):
    raw = Raw(bootstrap, topic)
    yield raw
    raw.close()


def records_of(store, held=None):
    """Every record that a publisher would send, in order."""
    held = Held() if held is None else held
    for change in changes(store, held):
        for key, value in change.records():
            yield key, value
            held.take(decode(key, value))


def test_a_directory_arrives(store, connection, topic, tmp_path):
    put(store, 1, size=300_000)  # three parts
    put(store, 2, parent=1)
    store.promote(1, 1)
    store.set_alias("candidate", 2)
    with Publisher(store, connection, topic) as publisher, Follower(connection, topic, tmp_path / "m") as m:
        sent = publisher.run_once()
        assert sent == ["the log's id", "version 1", "version 2", "alias candidate", "alias serving"]
        assert publisher.run_once() == []
        assert m.run_once()
        mirror = SnapshotStore(m.path)
        assert content(mirror) == content(store)
        assert mirror.verify() == []
        store.drop_alias("candidate")
        put(store, 3)
        store.promote(3, 2)
        store.prune(1)
        assert publisher.run_once() == [
            "version 3",
            "alias serving",
            "no alias candidate",
            "no version 1",
            "no version 2",
        ]
        assert m.run_once()
        assert content(mirror) == content(store)
        assert mirror.versions() == [3]


def test_a_restarted_publisher_sends_what_is_missing(store, connection, topic):
    put(store, 1)
    store.promote(1, 1)
    with Publisher(store, connection, topic) as publisher:
        assert len(publisher.run_once()) == 3
    put(store, 2)
    with Publisher(store, connection, topic) as publisher:
        assert publisher.run_once() == ["version 2"]


def test_another_run_needs_another_topic(store, connection, topic, tmp_path):
    put(store, 1)
    with Publisher(store, connection, topic) as publisher:
        publisher.run_once()
    other = SnapshotStore(tmp_path / "other")
    put(other, 1, salt=1)
    with Publisher(other, connection, topic) as publisher, pytest.raises(StoreError) as caught:
        publisher.run_once()
    assert str(caught.value) == (
        f"version 1 of {other.path} is in the topic with other content: a snapshot never changes, "
        f"so another run needs another topic"
    )


def test_a_damaged_file_is_not_sent_and_others_are(store, connection, topic):
    for version in (1, 2):
        put(store, version)
    file = store.file(1)
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with Publisher(store, connection, topic) as publisher:
        with pytest.raises(StoreError, match=r"00000001\.safetensors is damaged"):
            publisher.run_once()
        put(store, 3)
        with pytest.raises(StoreError):
            publisher.run_once()
        assert set(publisher._held.agreed | publisher._held.versions.keys()) >= {2, 3}


def test_a_restored_directory_takes_nothing_back(store, connection, topic, tmp_path):
    for version in (1, 2, 3):
        put(store, version)
        store.promote(version, version)
    old = SnapshotStore(tmp_path / "backup")
    shutil.copytree(store.path, old.path)
    for version in (4, 5):
        put(store, version)
        store.promote(version, version)
    with Publisher(store, connection, topic) as publisher:
        publisher.run_once()
    with Publisher(old, connection, topic) as publisher:
        assert publisher.run_once() == []
    empty = SnapshotStore(tmp_path / "empty")
    with Publisher(empty, connection, topic) as publisher:
        assert publisher.run_once() == []
        empty.path.mkdir()
        assert publisher.run_once() == []


def test_what_was_mirrored_elsewhere_is_refused(store, connection, topic, tmp_path):
    put(store, 1)
    with pytest.raises(StoreError) as caught, Follower(connection, topic, store.path) as follower:
        follower.run_once()
    assert str(caught.value) == (
        f"{store.path} holds snapshots that came from elsewhere: a mirror needs a directory of its own"
    )
    with Follower(connection, topic, tmp_path / "m") as follower:
        follower.run_once()
    with (
        pytest.raises(StoreError, match="mirrors the topic"),
        Follower(connection, "x", tmp_path / "m") as other,
    ):
        other.run_once()


def test_a_topic_made_anew_is_not_mixed_with_the_old(store, connection, topic, raw, tmp_path):
    put(store, 1)
    store.promote(1, 1)
    with Publisher(store, connection, topic) as publisher, Follower(connection, topic, tmp_path / "m") as m:
        publisher.run_once()
        m.run_once()
        before = content(SnapshotStore(m.path))
        raw.send((b"log", b'{"id": "another"}'))
        with pytest.raises(StoreError, match="which was made anew: empty the directory to follow it"):
            m.run_once()
        assert content(SnapshotStore(m.path)) == before


GARBAGE = [
    (None, b"x"),
    (b"version/0", b"{}"),
    (b"version/1/", b"x"),
    (b"version/99999999999999999999/0", b"x"),
    (b"version/1", b"[]"),
    (b"version/1", b'{"format": 1, "sha256": "ab", "parts": []}'),
    (b"version/1", b'{"format": 2}'),
    (b"version/1", json.dumps({"format": 1, "sha256": "0" * 64, "parts": [[True, "0" * 64]]}).encode()),
    (b"version/1", b"[" * 100_000),
    (b"alias/../serving", b"{}"),
    (b"alias/serving", b'{"version": 0, "sequence": 1}'),
    (b"alias/serving", b'{"version": 1, "sequence": 1.5}'),
    (b"alias/serving", b"\xff"),
    (b"log", b"{}"),
    (b"log", None),
]


@pytest.mark.parametrize("record", GARBAGE, ids=repr)
def test_garbage_is_named(record):
    with pytest.raises(BadRecord):
        decode(*record)


def test_garbage_is_logged_once_each_and_ignored(store, connection, topic, raw, tmp_path, caplog):
    put(store, 1)
    store.promote(1, 1)
    expected = content(store)
    lying = {"format": 1, "sha256": "0" * 64, "parts": [[1, "0" * 64]]}
    with Publisher(store, connection, topic) as publisher, Follower(connection, topic, tmp_path / "m") as m:
        raw.send(*GARBAGE)
        publisher.run_once()
        raw.send(
            *GARBAGE,
            (b"version/1/0", b"another part, too late"),
            (b"version/9/0", b"nobody's part"),
            (b"version/8", json.dumps(lying).encode()),
            (b"alias/serving", b'{"sequence": 1, "version": 8}'),  # it never comes
            (b"alias/serving", b'{"sequence": 0, "version": 1}'),  # it goes back
        )
        with caplog.at_level(logging.WARNING):
            m.run_once()
            m.run_once()
        assert content(SnapshotStore(m.path)) == expected or SnapshotStore(m.path).versions() == [1]
        assert sum("is not a snapshot's record" in line for line in caplog.messages) == 2 * len(GARBAGE)


def test_a_whole_version_that_is_no_snapshot_is_not_taken(connection, topic, raw, tmp_path, caplog):
    import hashlib

    data = b"not a snapshot at all"
    digest = hashlib.sha256(data).hexdigest()
    manifest = {"format": 1, "sha256": digest, "parts": [[len(data), digest]]}
    raw.send(
        (b"log", b'{"id": "a"}'),
        (b"version/1/0", data),
        (b"version/1", json.dumps(manifest).encode()),
        (b"alias/serving", b'{"sequence": 1, "version": 1}'),
    )
    with Follower(connection, topic, tmp_path / "m") as m:
        assert m.run_once()
    assert content(SnapshotStore(m.path)) == ({}, {})
    assert "what came for it cannot be used" in caplog.text
    assert sorted(p.name for p in m.path.iterdir()) == [".lock", ".mirror", ".mirror.lock"]


def test_a_missing_broker(tmp_path, store):
    nowhere = Connection(bootstrap="127.0.0.1:1")
    with (
        Follower(nowhere, "t", tmp_path / "m") as m,
        pytest.raises(ServiceError, match=r"Kafka at 127\.0\.0\.1:1"),
    ):
        m.run_once()
    put(store, 1)
    with Publisher(store, nowhere, "t", timeout_s=1) as publisher, pytest.raises(ServiceError):
        publisher.run_once()


class Mirror(RuleBasedStateMachine):
    """A directory, publishers that die anywhere, and a follower that starts again and again."""

    bootstrap = ""  # of the module's broker
    directory = Path()

    @initialize()
    def begin(self):
        self.path = self.directory / uuid.uuid4().hex
        self.store = SnapshotStore(self.path / "store")
        self.connection = Connection(bootstrap=self.bootstrap)
        self.topic = new_topic(self.bootstrap)
        self.raw = Raw(self.bootstrap, self.topic)
        self.mirror = SnapshotStore(self.path / "mirror")
        self.follower = Follower(self.connection, self.topic, self.mirror.path)
        self.publisher = None
        self.version = self.sequence = self.seen = 0
        put(self.store, self.next())

    def next(self):
        self.version += 1
        return self.version

    @rule(large=st.booleans(), serve=st.booleans())
    def learn(self, large, serve):
        version = self.next()
        put(self.store, version, size=2 + large * SMALL_PART_BYTES // 8 * 2)
        if serve:
            self.sequence += 1
            self.store.promote(version, self.sequence)
        else:
            self.store.set_alias("candidate", version)

    @rule()
    def drop(self):
        self.store.drop_alias("candidate")

    @precondition(lambda self: self.store.peek("serving"))
    @rule(data=st.data())
    def roll_back(self, data):
        current = self.store.alias("serving")
        self.store.set_alias("serving", data.draw(st.sampled_from(self.store.versions())), current.sequence)

    @rule()
    def prune(self):
        self.store.prune(1)

    @rule()
    def publish(self):
        if self.publisher is None:
            self.publisher = Publisher(self.store, self.connection, self.topic)
        self.publisher.run_once()

    @rule(n=st.integers(1, 12))
    def publish_and_die(self, n):
        """Send the first n records and no more; who publishes next begins by reading the topic."""
        probe = Publisher(self.store, self.connection, self.topic)
        probe._take_over()
        held = probe._held
        probe.close()
        self.raw.send(*itertools.islice(records_of(self.store, held), n))
        self.stop_publisher()

    @rule(record=st.sampled_from(GARBAGE))
    def garbage(self, record):
        self.raw.send(record)

    @rule(data=st.data())
    def foreign_part(self, data):
        """A part of a version is written over: the next publisher to start puts it right."""
        version = data.draw(st.sampled_from([*self.store.versions(), self.version + 1]))
        self.raw.send((f"version/{version}/0".encode(), b"foreign"))
        self.stop_publisher()

    def stop_publisher(self):
        if self.publisher is not None:
            self.publisher.close()
            self.publisher = None

    @rule()
    def follow(self):
        assert self.follower.run_once()

    @rule()
    def restart_follower(self):
        self.follower.close()
        self.follower = Follower(self.connection, self.topic, self.mirror.path)

    @rule()
    def lose_the_mirror(self):
        self.follower.close()
        shutil.rmtree(self.mirror.path, ignore_errors=True)
        self.seen = 0
        self.follower = Follower(self.connection, self.topic, self.mirror.path)

    @invariant()
    def whole(self):
        """What is visible is verified, and serving never goes back to an older promotion."""
        if not self.mirror.path.exists():
            return
        assert self.mirror.verify() == []
        serving = self.mirror.peek("serving")
        if serving is not None:
            assert serving.sequence >= self.seen
            self.seen = serving.sequence

    def teardown(self):
        if not hasattr(self, "follower"):
            return
        try:
            self.stop_publisher()
            self.publish()
            assert self.follower.run_once()
            assert content(self.mirror) == content(self.store)
        finally:
            self.stop_publisher()
            self.follower.close()
            self.raw.close()
            shutil.rmtree(self.path)


def test_any_history_ends_equal(bootstrap, tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot_log, "PART_BYTES", SMALL_PART_BYTES)

    class OnThisBroker(Mirror):
        pass

    OnThisBroker.bootstrap, OnThisBroker.directory = bootstrap, tmp_path
    case = OnThisBroker.TestCase
    case.settings = settings(
        max_examples=8,
        stateful_step_count=15,
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    case().runTest()


@pytest.fixture
def steady(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    import steady_learner

    return steady_learner.Steady


def serve(store, steady, version):
    store.put(
        steady(version).state(),
        {"kind": "steady_learner:Steady", "task": "regression", "version": version},
    )
    store.promote(version, version)


def eventually(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)


def test_a_predictor_follows_a_topic(store, bootstrap, connection, topic, steady):
    url = f"kafka://{bootstrap}/{topic}"
    with pytest.raises(StoreError, match="no snapshot serves yet"):
        Predictor(url)  # an empty topic is an answer: nothing is waited for
    serve(store, steady, 1)
    with Publisher(store, connection, topic) as publisher:
        publisher.start(poll_s=0.01)
        with Predictor(url, wait_s=PATIENCE_S, poll_s=0.01) as predictor:
            assert predictor.predict({}) == 1.0
            serve(store, steady, 2)
            publisher.wake()
            eventually(lambda: predictor.predict({}) == 2.0)
            assert predictor.error is None
            path = predictor._store.path
            assert path.exists()
        assert not path.exists()
        assert not any(thread.name == "penstock-mirror" for thread in threading.enumerate())


def test_refresh_reads_a_topic_that_is_not_followed(store, bootstrap, connection, topic, steady, tmp_path):
    url = f"kafka://{bootstrap}/{topic}"
    serve(store, steady, 1)
    with Publisher(store, connection, topic) as publisher:
        publisher.run_once()
        with Predictor(url, follow=False, cache=tmp_path / "c") as predictor:
            serve(store, steady, 2)
            publisher.run_once()
            assert predictor.predict({}) == 1.0
            assert predictor.refresh()
            assert predictor.predict({}) == 2.0
    # What is in the cache serves without a broker; what is not is a clear error.
    with Predictor(f"kafka://127.0.0.1:1/{topic}", cache=tmp_path / "c") as predictor:
        assert predictor.predict({}) == 2.0
        eventually(lambda: predictor.error)
        assert predictor.error.startswith("Kafka at 127.0.0.1:1: ")
    with pytest.raises(StoreError, match=r"no snapshot serves yet: Kafka at 127\.0\.0\.1:1"):
        Predictor("kafka://127.0.0.1:1/t")


def test_one_of_two_followers_works(connection, store, topic, tmp_path):
    put(store, 1)
    store.promote(1, 1)
    with (
        Publisher(store, connection, topic) as publisher,
        Follower(connection, topic, tmp_path / "m") as first,
        Follower(connection, topic, tmp_path / "m") as second,
    ):
        publisher.run_once()
        assert first.run_once()
        assert not second.run_once()
        assert second.standby
        assert second.caught_up
        first.close()
        assert second.run_once()


@pytest.mark.parametrize(
    ("url", "given", "expected"),
    [
        ("kafka://host", {}, "expected kafka://host:port/topic, got 'kafka://host'"),
        ("kafkas://h/t", {}, "no snapshot store is called 'kafkas' (did you mean 'kafka'?)"),
        ("dir", {"cache": "c"}, "`cache` and `kafka` are for kafka://host:port/topic, got 'dir'"),
        ("kafka://h/t", {"kafka": {"group.id": "g"}}, "`group.id` is not for the settings"),
        ("kafka://h/t", {"kafka": {"sasl.password": "${NO_SUCH_SECRET}"}}, "NO_SUCH_SECRET is not set"),
        ("kafka://h/t", {"kafka": {"no.such": 1}}, "no.such"),
    ],
)
def test_wrong_urls_and_settings(url, given, expected):
    with pytest.raises(ConfigError) as caught:
        Predictor(url, **given)
    assert expected in str(caught.value)


def test_the_command_line_mirrors_both_ways(store, bootstrap, topic, tmp_path, capsys):
    from penstock.cli import main

    put(store, 1)
    store.promote(1, 1)
    url = f"kafka://{bootstrap}/{topic}"
    assert main(["snapshots", "mirror", str(store.path), url, "--kafka", "client.id=me"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["version 1", "alias serving"]
    assert main(["snapshots", "mirror", url, str(tmp_path / "m")]) == 0
    assert capsys.readouterr().out == "version 1 serves\n"
    assert content(SnapshotStore(tmp_path / "m")) == content(store)
    assert main(["snapshots", "mirror", str(store.path)]) == 2
    assert main(["snapshots", "mirror", "kafka://127.0.0.1:1/t", str(tmp_path / "n")]) == 4
