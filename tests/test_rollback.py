"""What was broken by its input is taken back: whole engines on streams with an injected regression.

Refreshes are rare here, so that it is the rollback that mends, and not newer weights.
"""

import numpy as np
import pytest

from penstock.config import parse
from penstock.engine import Engine
from penstock.events import Batch
from penstock.state import digest

N = 14_000
BROKEN, MENDED = 6_000, 9_000  # the injection begins and ends
SOON = 3_000  # events after the mending within which it is to be taken back


def stream(seed, n=N):
    """A logistic world of four numbers and a country, a third of its events from Sweden."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))
    sweden = rng.random(n) < 1 / 3
    score = x @ np.array([2.0, -2.0, 1.0, 0.0]) + np.where(sweden, 1.0, -1.0)
    labels = (rng.random(n) < 1 / (1 + np.exp(-score))) * 1.0
    return x, sweden, labels


def batch(x, sweden, labels):
    rows = [
        {"a": a, "b": b, "c": c, "d": d, "country": "SE" if se else "NO"}
        for (a, b, c, d), se in zip(x.tolist(), sweden.tolist(), strict=True)
    ]
    return Batch.from_rows(rows, labels)


def flipped_slice(x, sweden, labels):
    labels[BROKEN:MENDED] = np.where(
        sweden[BROKEN:MENDED], 1.0 - labels[BROKEN:MENDED], labels[BROKEN:MENDED]
    )


def scaled_feature(x, sweden, labels):
    x[BROKEN:MENDED, 0] *= -20.0


def nothing(x, sweden, labels):
    pass


def engine(**shadow):
    return Engine(
        parse(
            {
                "source": {"kind": "memory", "rows": [], "labels": []},
                "learners": {"sgd": {"kind": "sgd", "bits": 10}},
                "shadow": {"refresh_every": 3000, "rollback": {"watch_events": 20_000}, **shadow},
                "replay": {"kind": "reservoir", "size": 500, "ratio": 0.0},
            }
        )
    )


def rollbacks(inject, seed, **shadow):
    x, sweden, labels = stream(seed)
    inject(x, sweden, labels)
    found = engine(**shadow).progress(batch(x, sweden, labels))
    return [notice for notice in found if notice.what == "rolled_back"]


def share_taken_back(inject, n_runs):
    taken = 0
    for seed in range(n_runs):
        events = [notice.event for notice in rollbacks(inject, seed)]
        taken += any(BROKEN < event <= MENDED + SOON for event in events)
    return taken / n_runs


@pytest.mark.parametrize("inject", [flipped_slice, scaled_feature])
def test_an_injected_regression_is_taken_back(inject):
    assert share_taken_back(inject, 5) >= 0.8


@pytest.mark.statistics
@pytest.mark.parametrize("inject", [flipped_slice, scaled_feature])
def test_an_injected_regression_is_taken_back_in_95_of_100_runs(inject, capsys):
    share = share_taken_back(inject, 100)
    with capsys.disabled():
        print(f"\n{inject.__name__}: taken back within {SOON:,} events of its end in {share:.0%} of 100 runs")
    assert share >= 0.95


def test_nothing_is_taken_back_from_a_stream_that_stands_still():
    assert [rollbacks(nothing, seed) for seed in range(5)] == [[]] * 5


@pytest.mark.statistics
def test_false_rollbacks_at_full_size(capsys):
    wrong = sum(bool(rollbacks(nothing, seed)) for seed in range(200)) / 200
    with capsys.disabled():
        print(f"\nfalse rollbacks: {wrong:.3f} of 200 streams that stand still (alpha .05)")
    assert wrong <= 0.05


def test_the_learner_goes_on_from_what_serves_again():
    x, sweden, labels = stream(1)
    flipped_slice(x, sweden, labels)
    events = batch(x, sweden, labels)
    running = engine()
    for start in range(0, N, 256):
        found = running.progress(events.slice(start, min(start + 256, N)))
        if any(notice.what == "rolled_back" for notice in found):
            break
    else:
        raise AssertionError("nothing was taken back")
    good = running.shadow.model
    live = running._lanes["sgd"].learner
    probe = batch(*(part[-500:] for part in stream(2)))
    # It learned what the buffer holds of the events since, once, and nothing else: it is near what serves.
    assert np.abs(live.predict(probe) - good.predict(probe)).max() < 0.2
    resumed = engine()
    resumed.restore(running.state())
    rest = events.slice(running.n_events, N)
    assert [n.text for n in resumed.progress(rest)] == [n.text for n in running.progress(rest)]
    assert digest(resumed.state()) == digest(running.state())


def test_a_guard_on_a_slice_sees_the_slice_only():
    x, sweden, labels = stream(3, 4000)
    events = batch(x, sweden, labels)
    guards = [{"on": "loss", "slice": {"feature": "country", "equals": "SE"}, "margin": 0.05}]
    running = engine(guards=guards)
    of_all, of_slice = running._judge.frozen(running.learners["sgd"].freeze(), events)
    assert np.isnan(of_slice).tolist() == (~sweden).tolist()
    assert of_slice[sweden].tolist() == of_all[sweden].tolist()
    assert [n.what for n in running.progress(events)] == ["promoted"]
    resumed = engine(guards=guards)
    resumed.restore(running.state())
    assert digest(resumed.state()) == digest(running.state())


@pytest.mark.parametrize("react", ["reset", "background"])
def test_what_a_restarted_learner_replaced_is_taken_up_again(react):
    """The world turns over and back: what serves again comes with the learner that it was frozen of."""
    x, sweden, labels = stream(5, 8000)
    labels[3000:4500] = 1.0 - labels[3000:4500]
    running = Engine(
        parse(
            {
                "source": {"kind": "memory", "rows": [], "labels": []},
                "tick": 64,
                "learners": {"sgd": {"kind": "sgd", "bits": 10}},
                "drift": [{"kind": "adwin", "direction": "up", "react": react}],
                "shadow": {"refresh_every": 1024},
            }
        )
    )
    how = []
    for notice in running.follow(batch(x, sweden, labels)):
        how.append(notice.how)
        if notice.what == "rolled_back":
            break
    else:
        raise AssertionError("nothing was taken back")
    assert "replace" in how  # by the learner that was restarted
    assert running.shadow.serving_version.opened <= 3072
    assert running._lanes["sgd"].lineage == running.shadow.serving_version.lineage
    probe = batch(*(part[-500:] for part in stream(6)))
    live, good = running._lanes["sgd"].learner, running.shadow.model
    assert live.predict(probe).tobytes() == good.predict(probe).tobytes()
