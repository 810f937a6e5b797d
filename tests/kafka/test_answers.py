"""Every request is answered exactly once, whoever dies."""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from penstock import Predictor, SnapshotStore
from penstock.events import Batch, Task
from penstock.kafka import answers as answering
from penstock.kafka import topics
from penstock.kafka.client import Connection, producer
from penstock.kafka.requests import answer_all
from penstock.learners import build
from penstock.outputs_config import AnswersSpec


def store_model(path, kind="binary", classes=None):
    """A store whose first snapshot has learned that `a` decides."""
    labels = [1.0, 0.0] * 50
    learner = build("sgd", Task(kind), bits=8)
    learner.progress(Batch.from_rows([{"a": 2 * y - 1} for y in labels], labels=labels))
    store = SnapshotStore(path)
    model = learner.freeze()
    manifest = {"kind": "sgd", "task": kind, "name": "asked", "classes": classes}
    store.promote(store.put(model.state(), manifest), sequence=1)
    return store


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    path = tmp_path_factory.mktemp("asked") / "snapshots"
    store_model(path)
    with Predictor(path, follow=False) as made:
        yield made


def ask(predictor, *requests):
    return [json.loads(answer.data) for answer in answer_all(predictor, requests, bandit=False)]


def test_answers_say_what_the_predictor_does(predictor):
    rows = [{"a": 1.0}, {"a": -1.0, "b": {"c": "x"}}, {}]
    answers = ask(predictor, *(json.dumps({"id": i, "features": row}).encode() for i, row in enumerate(rows)))
    assert answers == [
        {"id": i, "prediction": predictor.predict(row), "snapshot": 1} for i, row in enumerate(rows)
    ]


def test_a_bad_request_spoils_no_other(predictor):
    bad = [
        (b"{", None, "expected JSON"),
        (None, None, "expected JSON"),
        (b"[]", None, "expected an object"),
        (b'{"features": {}}', None, "$.id"),
        (b'{"id": true, "features": {}}', None, "$.id"),
        (b'{"id": "%s", "features": {}}' % (b"x" * 2000), None, "$.id"),
        (b'{"id": 7}', 7, "$.features"),
        (b'{"id": 8, "features": {"a": 1e300}}', 8, "$.features"),
    ]
    good = b'{"id": "good", "features": {"a": 1}}'
    answers = ask(predictor, *(part for data, _, _ in bad for part in (good, data)))
    expected = {"id": "good", "prediction": predictor.predict({"a": 1}), "snapshot": 1}
    assert answers[::2] == [expected] * len(bad)
    for (_, request_id, text), answer in zip(bad, answers[1::2], strict=True):
        assert answer["id"] == request_id
        assert text in answer["error"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
requests = st.binary(max_size=40) | st.one_of(
    json_values,
    st.fixed_dictionaries({"id": json_values, "features": json_values}),
    st.fixed_dictionaries({"id": st.text(), "features": st.dictionaries(st.text(max_size=3), json_values)}),
).map(lambda value: json.dumps(value).encode())


@given(st.lists(requests, max_size=8))
def test_every_request_gets_one_answer_whatever_it_is(predictor, asked):
    answers = ask(predictor, *asked)
    assert len(answers) == len(asked)
    for data, answer in zip(asked, answers, strict=True):
        assert ("error" in answer) != ("prediction" in answer)
        assert [answer] == ask(predictor, data)  # the others change nothing


def test_classes_are_named(tmp_path):
    store_model(tmp_path / "s", kind="multiclass", classes=["no", "yes"])
    with Predictor(tmp_path / "s", follow=False) as predictor:
        (answer,) = ask(predictor, b'{"id": "i", "features": {"a": 1}}')
    assert answer["prediction"] == "yes"
    assert sum(answer["probabilities"].values()) == pytest.approx(1)


@pytest.fixture
def asked(kafka, new_topic, tmp_path):
    """A configuration on the broker, with topics of its own."""
    given = {
        "name": "asked",
        "source": {"kind": "file", "path": "none.jsonl"},
        "shadow": {},
        "snapshots": {"path": str(tmp_path / "snapshots")},
        "answers": {
            "bootstrap": kafka,
            "requests": new_topic(partitions=4),
            "results": new_topic(partitions=4),
            "group": f"g-{random.getrandbits(64)}",
            "session_timeout_s": 6,
            "transaction_timeout_s": 5,
            "batch": 50,
        },
    }
    (tmp_path / "asked.yaml").write_text(yaml.safe_dump(given))
    return given["answers"]


def start(tmp_path, *arguments):
    command = [sys.executable, "-m", "penstock", "answer", str(tmp_path / "asked.yaml"), *arguments]
    with (tmp_path / "copies.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def send(kafka, topic, numbers):
    client = producer(Connection(bootstrap=kafka))
    for i in numbers:
        value = f'{{"id": {i}, "features": {{"a": {i % 3 - 1}}}}}' if i % 50 else "garbage"
        client.produce(topic, value, f"k{i % 17}", on_delivery=lambda error, _: error and pytest.fail(error))
        client.poll(0)
    assert client.flush(30) == 0
    client.close()


def results(kafka, topic):
    return list(topics.read(Connection(bootstrap=kafka), topic, {}))


def wait_for(kafka, topic, n, seconds):
    deadline = time.monotonic() + seconds
    while len(found := results(kafka, topic)) < n and time.monotonic() < deadline:
        time.sleep(0.3)
    return found


@pytest.mark.kafka
def test_exactly_one_answer_through_ten_kills(kafka, asked, tmp_path):
    store_model(tmp_path / "snapshots")
    chance = random.Random(4)
    copies = [start(tmp_path, "--instance", f"copy-{i}") for i in range(2)]
    n = 0
    try:
        for kill in range(10):
            send(kafka, asked["requests"], range(n, n + 1000))
            n += 1000
            time.sleep(chance.uniform(0.2, 1.5))
            victim = kill % 2
            copies[victim].kill()
            copies[victim].wait()
            copies[victim] = start(tmp_path, "--instance", f"copy-{victim}")
        found = wait_for(kafka, asked["results"], n, 60)
        for copy in copies:
            copy.send_signal(signal.SIGTERM)
        codes = {copy.wait(30) for copy in copies}
        # One may still be importing after its last kill, with no handler of its own yet.
        assert codes <= {0, -signal.SIGTERM}, (tmp_path / "copies.log").read_text()
    finally:
        for copy in copies:
            copy.kill()
            copy.wait()
    found = results(kafka, asked["results"])
    asked_for = {
        f"{m.topic()}[{m.partition()}]@{m.offset()}".encode(): m for m in results(kafka, asked["requests"])
    }
    answered = Counter(dict(m.headers())["penstock-request"] for m in found)
    assert len(asked_for) == n
    assert answered == Counter(asked_for.keys())
    with Predictor(tmp_path / "snapshots", follow=False) as predictor:
        for message in found:
            request = asked_for[dict(message.headers())["penstock-request"]]
            assert (message.key(), message.partition()) == (request.key(), request.partition())
            answer = json.loads(message.value())
            if request.value() == b"garbage":
                assert answer["id"] is None
                assert "expected JSON" in answer["error"]
            else:
                told = json.loads(request.value())
                assert answer == {
                    "id": told["id"],
                    "prediction": predictor.predict(told["features"]),
                    "snapshot": 1,
                }


@pytest.mark.kafka
def test_requests_wait_for_the_first_snapshot(kafka, asked, tmp_path):
    send(kafka, asked["requests"], range(1, 20))
    copy = start(tmp_path)
    try:
        deadline = time.monotonic() + 20
        while b"requests wait" not in (tmp_path / "copies.log").read_bytes() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert results(kafka, asked["results"]) == []
        store_model(tmp_path / "snapshots")
        found = wait_for(kafka, asked["results"], 19, 30)
        copy.terminate()
        assert copy.wait(30) == 0
    finally:
        copy.kill()
        copy.wait()
    assert sorted(json.loads(m.value())["id"] for m in found) == list(range(1, 20))
    assert "19 requests" in (tmp_path / "copies.log").read_text()


@pytest.mark.kafka
def test_a_bandit_decides_and_logs_what_it_decided(kafka, new_topic, tmp_path):
    connection = Connection(bootstrap=kafka)
    spec = AnswersSpec(
        requests=new_topic(partitions=2),
        results=f"{new_topic()}.results",
        decisions=new_topic(),
        group=f"g-{random.getrandbits(64)}",
        cold_start="uniform",
    )
    client = producer(connection)
    for i in range(20):
        client.produce(
            spec.requests, json.dumps({"id": f"d{i}", "context": {"h": i}, "actions": ["a", "b"]}), str(i)
        )
    client.produce(spec.requests, b'{"id": "bad", "context": {"h": 1}, "actions": 7}')
    client.produce(spec.requests, b'{"id": "huge", "context": {}, "actions": ["' + b"x" * 600_000 + b'"]}')
    assert client.flush(30) == 0
    client.close()
    asked = iter(range(60))
    done = answering.answer(
        spec,
        connection,
        pipeline="deciding",
        snapshots=tmp_path,
        bandit=True,
        should_stop=lambda: next(asked, None) is None,
    )
    assert (done.requests, done.errors) == (22, 2)
    answers = {m["id"]: m for m in (json.loads(m.value()) for m in results(kafka, spec.results))}
    logged = {m["id"]: m for m in (json.loads(m.value()) for m in results(kafka, spec.decisions))}
    assert "$.actions" in answers.pop("bad")["error"]
    assert "a decision of at most 900,000 bytes" in answers.pop("huge")["error"]
    assert answers.keys() == logged.keys() == {f"d{i}" for i in range(20)}
    for name, told in answers.items():
        assert told["propensity"] == logged[name]["propensity"] == 0.5
        assert (told["action"], told["snapshot"]) == (logged[name]["action"], logged[name]["snapshot"])
    assert not (tmp_path / "decisions.jsonl").exists()
