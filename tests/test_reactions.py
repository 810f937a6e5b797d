"""What an alarm does to the learner; and that it does nothing to what serves."""

from itertools import pairwise

import numpy as np
import pytest

from penstock.config import parse
from penstock.engine import Engine
from penstock.errors import ConfigError
from penstock.events import Batch, Task
from penstock.learners.sgd import SGD
from penstock.state import digest

N = 6000
LEARNERS = {
    "native": {"kind": "sgd", "bits": 8},
    "river": {
        "kind": "river",
        "model": ["preprocessing.StandardScaler", "linear_model.LogisticRegression"],
    },
}
REACTIONS = ["log", "reset", "warm_restart", "bump", "background", "recall"]
MAKES_A_LINEAGE = ["reset", "warm_restart", "background", "recall"]


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("PENSTOCK_KEY", "a key of the tests")


def stream(n=N, period=2000, seed=0):
    """Two concepts by turns, each the other one's opposite, and one label of twenty wrong."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    labels = (x @ [2.0, -1.0] > 0) ^ (np.arange(n) // period % 2 == 1) ^ (rng.random(n) < 0.05)
    return Batch.from_rows([{"a": a, "b": b} for a, b in x.tolist()], labels * 1.0)


def engine(react, learner="native", **more):
    return Engine(
        parse(
            {
                "source": {"kind": "memory", "rows": [], "labels": []},
                "learners": {"one": LEARNERS[learner]},
                "drift": [{"kind": "adwin", "direction": "up", "react": react}],
                "replay": {"kind": "reservoir", "size": 300, "ratio": 0.0},
                "shadow": {"refresh_every": 500, "min_effect": 0.0, "rollback": False},
                **more,
            }
        )
    )


CASES = [
    (react, learner) for learner in LEARNERS for react in REACTIONS if (react, learner) != ("bump", "river")
]


@pytest.mark.parametrize(("react", "learner"), CASES)
def test_no_reaction_touches_what_serves(react, learner):
    """Tick by tick: the serving snapshot is the very same object unless the gate says that it changed."""
    running, events = engine(react, learner), stream(4500)
    lineages, alarms = {0}, 0
    serving = None
    for start in range(0, len(events), 250):
        for part in running.ticks(events.slice(start, min(start + 250, len(events)))):
            notices = running.progress(part)
            alarms += any(notice.what == "drift" for notice in notices)
            lineages.add(running._lanes["one"].lineage)
            promoted = [notice for notice in notices if notice.what == "promoted"]
            if not promoted:
                assert running.shadow.serving_version is serving
            for notice in promoted:  # after a new lineage only a replacement may serve
                version = running.shadow.serving_version
                same = serving is None or version.lineage == serving.lineage
                assert same == (notice.how in ("initial", "refresh"))
            serving = running.shadow.serving_version
    assert alarms
    if (react, learner) != ("recall", "river"):  # which adapts before anything remembered is better
        assert (len(lineages) > 1) == (react in MAKES_A_LINEAGE)


@pytest.mark.parametrize(("react", "learner"), CASES)
def test_batches_change_nothing_and_neither_does_a_restart_in_mid_reaction(react, learner):
    events = stream(4500)
    whole, pieces = engine(react, learner), engine(react, learner)
    said = [notice.text for notice in whole.progress(events)]
    found = []
    cuts = [0, 700, 1999, 2111, 2300, 2304, 2600, 3333, 4100, 4500]
    for start, stop in pairwise(cuts):
        found += [notice.text for notice in pieces.progress(events.slice(start, stop))]
        resumed = engine(react, learner)
        resumed.restore(pieces.state())
        assert digest(resumed.state()) == digest(pieces.state())
        pieces = resumed
    assert found == said
    assert pieces.digest() == whole.digest()


def loss_behind(running, events, start, stop):
    """Brier loss of the live learner on events start … stop."""
    running.progress(events.slice(running.n_events, start))
    total = 0.0
    for at in range(start, stop, 50):
        part = events.slice(at, at + 50)
        total += float(((running._lanes["one"].learner.predict(part) - part.labels) ** 2).sum())
        running.progress(part)
    return total / (stop - start)


def test_a_bump_forgets_the_old_concept_faster():
    events = stream()
    bumped, calm = (loss_behind(engine(react), events, 2300, 3000) for react in ("bump", "log"))
    assert bumped < 0.6 * calm


def test_a_background_learner_takes_over_once_it_is_better():
    running = engine("background")
    notices = running.progress(stream(3500))
    alarm = next(notice for notice in notices if notice.what == "drift" and notice.event > 2000)
    reacted = next(notice for notice in notices if notice.what == "reacted")
    assert "goes on in place of one" in reacted.text
    assert reacted.event >= alarm.event + 512
    assert running._lanes["one"].lineage == 1
    assert running._lanes["one"].background is None


@pytest.mark.parametrize("react", ["reset", "background", "recall"])
def test_without_a_gate_nobody_learns_beside_the_learner_for_long(react):
    running = engine(react, shadow=None)
    running.progress(stream(4400))
    lane = running._lanes["one"]
    assert lane.lineage > 0
    assert lane.incumbent is None


def test_the_incumbent_goes_on_until_the_new_one_serves():
    """A reset for nothing: what serves goes on getting newer weights, of the learner from before."""
    running = engine("log")
    events = stream(8000, period=8000)
    running.progress(events.slice(0, 2048))
    lane = running._lanes["one"]
    lane.restart()
    refreshes = 0
    for tick in running.ticks(events.slice(2048, 8000)):
        for notice in running.progress(tick):
            if notice.what == "promoted" and lane.incumbent is not None:
                assert (notice.how, running.shadow.serving_version.lineage) == ("refresh", 0)
                refreshes += 1
            elif notice.what == "promoted":
                assert running.shadow.serving_version.lineage == 1
    assert refreshes
    assert lane.incumbent is None or running.shadow.serving_version.lineage == 0


def test_the_learner_gives_way_to_an_incumbent_that_does_better():
    running = engine("log", learners={"one": {"kind": "sgd", "bits": 8, "learning_rate": 0.002}})
    events = stream(16_000, period=16_000)
    running.progress(events.slice(0, 4096))
    lane = running._lanes["one"]
    before = lane.learner
    lane.restart()  # it learns so slowly that what was lost is not made up for in 10,000 events
    (reacted,) = [
        notice for notice in running.progress(events.slice(4096, 16_000)) if notice.what == "reacted"
    ]
    assert "goes on as if it had not been restarted" in reacted.text
    assert lane.learner is before
    assert (lane.lineage, lane.incumbent) == (0, None)


def test_a_background_learner_that_is_no_better_is_dropped_in_time():
    running = engine("background")
    events = stream(12_000, period=12_000)
    running.progress(events.slice(0, 1024))
    lane = running._lanes["one"]
    lane.begin_background()
    lane.background.compare(np.zeros(400), np.ones(400))  # as if it had begun very badly
    lane.background._live_loss._weight = lane.background.loss._weight
    lane.background.loss._total = 1e9
    notices = running.progress(events.slice(1024, 12_000))
    (dropped,) = [notice for notice in notices if notice.what == "reacted"]
    assert "was dropped" in dropped.text
    assert (lane.background, lane.lineage) == (None, 0)


def test_a_recurring_concept_is_recalled():
    """At 4,000 the first concept returns: the learner is set back to what it knew then."""
    running, plain = engine("recall"), engine("log")
    events = stream()
    notices = running.progress(events.slice(0, 4400))
    reacted = [notice for notice in notices if notice.what == "reacted" and notice.event > 4000]
    assert reacted
    assert "goes on from where it was at event" in reacted[0].text
    assert loss_behind(running, events, 4400, 5000) < 0.5 * loss_behind(plain, events, 4400, 5000)


@pytest.mark.parametrize("update", ["nag", "adagrad", "sgd"])
def test_hastened_learners_say_the_same_and_move_further(update):
    events = stream(3000, period=3000)
    calm, quick = SGD(Task("binary"), update=update, bits=8), SGD(Task("binary"), update=update, bits=8)
    for learner in (calm, quick):
        learner.learn(events.slice(0, 2900))
    quick.hasten(0.01)
    probe = events.slice(2900, 3000)
    before = calm.predict(probe)
    np.testing.assert_array_equal(quick.predict(probe), before)
    flipped = probe.with_labels(1.0 - probe.labels)
    for learner in (calm, quick):
        learner.learn(flipped)
    assert np.abs(quick.predict(probe) - before).mean() > 2 * np.abs(calm.predict(probe) - before).mean()


def test_hastening_by_nothing_changes_nothing():
    learner = SGD(Task("binary"), bits=8)
    learner.learn(stream(100))
    before = digest(learner.state())
    learner.hasten(1.0)
    assert digest(learner.state()) == before


@pytest.mark.parametrize("factor", [0.0, -1.0, 2.0, float("nan")])
def test_a_factor_that_makes_no_sense(factor):
    with pytest.raises(ConfigError, match="cannot be hastened by"):
        SGD(Task("binary"), bits=8).hasten(factor)


@pytest.mark.parametrize(
    "spec",
    [
        {"kind": "sgd", "update": "coin"},
        {"kind": "vw", "args": "--loss_function logistic"},
        LEARNERS["river"],
    ],
)
def test_who_cannot_be_hastened_is_refused_at_once(spec):
    with pytest.raises(ConfigError, match="`react: bump` cannot make learner `one`"):
        engine("bump", learners={"one": spec})
