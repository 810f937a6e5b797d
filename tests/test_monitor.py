"""What is told over HTTP is what the run did."""

import json
import re
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from penstock import config, runner
from penstock.errors import ConfigError, ServiceError
from penstock.kafka.reader import Health
from penstock.monitor import Metrics, Monitor
from penstock.observers import Learned, Started
from penstock.outputs_config import MonitorSpec
from penstock.snapshots import Alias, SnapshotStore
from penstock.status import STATES, Status

DOCS = Path(__file__).parents[1] / "docs"


def get(address):
    """Ask; return the code and the body, whatever the code."""
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def health(monitor, path="/healthz"):
    code, body = get(monitor.address + path)
    return code, json.loads(body)


def samples(monitor):
    _, text = get(monitor.address + "/metrics")
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def watched():
    status = Status("clicks")
    metrics = Metrics(status, None)
    with Monitor(MonitorSpec(port=0), status, metrics.registry) as monitor:
        yield status, metrics, monitor


class Source:
    """What the monitor knows of a source."""

    health = Health(False, "not connected yet")
    repeating = False

    def lag(self):
        return {"clicks": {0: 7, 3: 0}}


class Engine:
    counts = {"late_decisions": 3}  # noqa: RUF012

    def metrics(self):
        return {"sgd": {"accuracy": 0.75}}


def begun(status, metrics, source):
    run = Started(name="clicks", source=source, engine=Engine(), resumed_at=100)
    for observer in (status, metrics):
        observer.started(run)


def learned(**changes):
    given = {
        "events": 100,
        "bad": 0,
        "duplicates": 0,
        "n_new": 0,
        "rejected": (),
        "position": {},
        "seconds": 0.0,
    }
    return Learned(**{**given, **changes})


def test_states_and_what_they_mean_for_health(watched):
    status, metrics, monitor = watched
    assert health(monitor)[1]["state"] == "starting"
    source = Source()
    begun(status, metrics, source)
    assert health(monitor) == (
        200,
        {"pipeline": "clicks", "state": "starting", "reason": "not connected yet", "events": 100},
    )
    assert health(monitor, "/readyz")[0] == 503
    source.health = Health(True, "connected")
    source.repeating = True
    assert health(monitor)[1]["state"] == "recovering"
    assert health(monitor, "/readyz")[0] == 503
    source.repeating = False
    assert (health(monitor)[1]["state"], health(monitor, "/readyz")[0]) == ("running", 200)
    source.health = Health(False, "no broker answers at localhost:1")
    code, told = health(monitor)
    assert (code, told["state"], told["reason"]) == (
        200,
        "waiting_for_broker",
        "no broker answers at localhost:1",
    )
    assert samples(monitor)["penstock_broker_up",] == 0.0
    source.health = Health(True, "connected")
    status.tell("stopping", "SIGTERM came")
    assert health(monitor)[1]["state"] == "stopping"
    status.stopped(ServiceError("it is broken"))
    code, told = health(monitor)
    assert (code, told["state"], told["reason"]) == (503, "failed", "it is broken")


def test_a_run_that_stalls_is_not_alive():
    now = 0.0
    status = Status("clicks", clock=lambda: now)
    with Monitor(MonitorSpec(port=0, stalled_after_s=60), status, Metrics(status, None).registry) as monitor:
        now = 1000.0
        assert health(monitor)[0] == 200, "who is starting may take its time"
        status.started(Started(name="clicks", source=object(), engine=None, resumed_at=0))
        now += 59.0
        assert health(monitor)[0] == 200
        now += 2.0
        code, told = health(monitor)
        assert (code, told["reason"]) == (503, "no sign of life for 61 s")
        status.learned(learned())
        assert health(monitor)[0] == 200


def test_counters_are_of_this_process_and_gauges_of_the_whole_life(watched):
    status, metrics, monitor = watched
    begun(status, metrics, Source())
    rejected = (object(), object())
    for observer in (status, metrics):
        observer.learned(learned(events=150, n_new=53, duplicates=10, rejected=rejected, seconds=0.3))
        observer.learned(learned(events=160, n_new=10, duplicates=10, seconds=0.1))
        observer.learned(learned(events=160, duplicates=10))
    found = samples(monitor)
    assert found["penstock_events_learned_total",] == 60
    assert found["penstock_events",] == 160
    assert found["penstock_records_rejected_total",] == 2
    assert found["penstock_duplicates_total",] == 3
    assert found["penstock_chunk_seconds_count",] == 2
    assert found["penstock_lag_records", "0", "clicks"] == 7
    assert found["penstock_score", "sgd", "accuracy"] == 0.75
    assert found["penstock_feedback", "late_decisions"] == 3
    assert found["process_resident_memory_bytes",] > 1e6
    assert sum(found["penstock_state", state] for state in STATES) == 1
    assert 0 <= time.time() - found["penstock_last_learned_timestamp_seconds",] < 60


def test_what_was_read_and_not_learned_is_not_the_last_that_was_learned(watched):
    status, metrics, monitor = watched
    begun(status, metrics, Source())
    for observer in (status, metrics):
        observer.learned(learned(n_new=10, duplicates=10))
    assert ("penstock_last_learned_timestamp_seconds",) not in samples(monitor)


def test_a_run_is_told_as_it_was(tmp_path):
    pipeline = config.parse(
        {
            "name": "watched",
            "source": {"kind": "river", "dataset": "Phishing"},
            "shadow": {"refresh_every": 400},
            "snapshots": {"path": str(tmp_path / "snapshots")},
            "checkpoint": {"path": str(tmp_path / "checkpoint"), "every_events": 256},
        }
    )
    status = Status(pipeline.name)
    store = SnapshotStore(tmp_path / "snapshots")
    metrics = Metrics(status, store)
    with Monitor(MonitorSpec(port=0), status, metrics.registry) as monitor:
        outcome = runner.run(pipeline, batch=256, observers=[status, metrics])
        found = samples(monitor)
        store.hold()
        assert samples(monitor)["penstock_snapshot_held",] == 1
        assert health(monitor)[1] == {
            "pipeline": "watched",
            "state": "stopped",
            "reason": "done",
            "events": 1250,
        }
    assert found["penstock_events_learned_total",] == outcome.events == 1250
    assert found["penstock_notices_total", "promoted"] == outcome.serving
    assert found["penstock_notices_total", "drift"] == 0
    assert found["penstock_snapshot_version",] == outcome.serving
    assert found["penstock_snapshot_sequence",] == store.last_sequence()
    assert found["penstock_snapshot_held",] == 0
    assert found["penstock_checkpoint_events",] == 1250
    assert (
        found["penstock_checkpoint_pause_seconds_count",] == found["penstock_checkpoint_seconds_count",] > 1
    )
    assert 0 <= found["penstock_checkpoint_age_seconds",] < 60
    assert 0 <= found["penstock_snapshot_age_seconds",] < 60


def exported():
    """Names of all metrics that a run can have."""
    status = Status("clicks")
    metrics = Metrics(status, store := FullStore(), store)
    begun(status, metrics, Source())
    for observer in (status, metrics):
        observer.learned(learned(events=101, n_new=1))
    status.saved_at = 1.0
    text = generate_latest(metrics.registry).decode()
    families = list(text_string_to_metric_families(text))
    return {sample.name for family in families for sample in family.samples if sample.name[-8:] != "_created"}


class FullStore:
    """A store in which something serves, and a publisher without an error."""

    error = None

    def peek(self, name):
        return Alias(1, 1)

    def file(self, version):
        return Path(__file__)


def names_in(text):
    """Metrics that a text speaks of."""
    return set(re.findall(r"\b(?:penstock|process)_[a-z_]+\b", text))


def test_the_dashboard_shows_what_there_is():
    board = json.loads((DOCS / "grafana.json").read_text())
    shown = set()
    for panel in board["panels"]:
        for target in panel["targets"]:
            shown |= names_in(target["expr"])
    assert shown <= exported()
    ours = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported() if name.startswith("penstock_")}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown if name[:8] == "penstock"} == ours
    places = [tuple(panel["gridPos"].values()) for panel in board["panels"]]
    assert len(set(places)) == len({panel["id"] for panel in board["panels"]}) == len(places)


def test_the_manual_names_what_there_is():
    named = names_in((DOCS / "operations.md").read_text())
    assert named <= exported() | {"penstock_checkpoint_seconds", "penstock_chunk_seconds"} | {
        "penstock_checkpoint_pause_seconds"
    }
    assert {name for name in exported() if not name.endswith(("_bucket", "_sum", "_count"))} - named <= {
        name for name in exported() if name.startswith("process_")
    }


def test_a_taken_port_and_a_strange_address_are_said():
    status = Status("clicks")
    registry = Metrics(status, None).registry
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServiceError) as found:
            Monitor(MonitorSpec(port=port), status, registry)
        assert str(found.value) == f"`monitor`: cannot listen on 127.0.0.1:{port}: Address already in use"
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1:9464"):
        Monitor(MonitorSpec(host="192.0.2.1"), status, registry)


def test_who_says_nothing_keeps_nobody_else_waiting(watched):
    _, _, monitor = watched
    host, port = monitor.address.removeprefix("http://").split(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(7)]
    try:
        assert get(monitor.address + "/healthz")[0] == 200
    finally:
        for one in silent:
            one.close()


def test_anything_else_is_not_found(watched):
    _, _, monitor = watched
    assert get(monitor.address + "/")[0] == 404
    request = urllib.request.Request(monitor.address + "/metrics", method="HEAD")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert (answer.status, answer.read()) == (200, b"")
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    with urllib.request.urlopen(
        urllib.request.Request(monitor.address + "/metrics", headers=accept)
    ) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        assert answer.read().endswith(b"# EOF\n")
