"""Losses of frozen models, found out ahead of the ticks that ask for them."""

import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.config import GuardSpec
from penstock.events import Batch, Task
from penstock.judging import Ahead, Judge
from penstock.learners.sgd import SGD

RNG = np.random.default_rng(0)
EVENTS = Batch.from_rows(
    [{"x": x, "country": "SE" if x > 0 else "NO"} for x in RNG.normal(size=60)], (RNG.random(60) < 0.5) * 1.0
)


class Asked:
    """A model that counts the events it was asked about."""

    def __init__(self, seed):
        learner = SGD(Task("binary"), bits=4)
        learner.learn(EVENTS.slice(seed, seed + 20))
        self.model, self.n = learner.freeze(), 0

    def predict(self, batch):
        self.n += len(batch)
        return self.model.predict(batch)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 30), st.booleans()), max_size=12))
def test_it_is_what_a_tick_would_have_found(steps):
    judge = Judge(Task("binary"))
    ahead, models, start = Ahead(EVENTS, judge), [Asked(0), Asked(1)], 0
    for n, further, second in steps:
        stop = min(start + n, len(EVENTS))
        model = models[second]
        found = ahead.losses(model, start, stop, stop + further)
        assert found.tobytes() == judge.frozen(model.model, EVENTS.slice(start, stop)).tobytes()
        start = stop


def test_a_model_is_asked_once_for_all_up_to_where_it_may_be_replaced():
    model, ahead = Asked(0), Ahead(EVENTS, Judge(Task("binary")))
    for start in range(0, 40, 10):
        ahead.losses(model, start, start + 10, 40)
        assert model.n == 40
    ahead.losses(model, 40, 50, 100)  # there are no more than 60
    ahead.losses(model, 50, 60, 100)
    assert model.n == 60


def test_two_models_do_not_get_mixed_up():
    first, second = Asked(0), Asked(5)
    ahead = Ahead(EVENTS, Judge(Task("binary")))
    losses = [ahead.losses(model, 0, 30, 60) for model in (first, second, first)]
    assert losses[0].tobytes() == losses[2].tobytes() != losses[1].tobytes()


def test_a_model_that_is_not_asked_any_more_is_let_go():
    first, second, ahead = Asked(0), Asked(5), Ahead(EVENTS, Judge(Task("binary")))
    gone = weakref.ref(first)
    ahead.losses(first, 0, 10, 20)
    ahead.losses(second, 10, 20, 20)
    del first
    assert gone() is not None  # there is more known of it
    ahead.losses(second, 20, 30, 40)
    assert gone() is None


@pytest.mark.parametrize("on", ["loss", "error", "logloss"])
def test_a_guard_counts_its_slice_only(on):
    guard = GuardSpec.model_validate(
        {"on": on, "margin": 0.1, "slice": {"feature": "country", "equals": "SE"}}
    )
    of_all, of_slice = Judge(Task("binary"), [guard]).frozen(Asked(0).model, EVENTS)
    sweden = np.array([row["country"] == "SE" for row in EVENTS.rows])
    assert np.isnan(of_slice).tolist() == (~sweden).tolist()
    expected = Judge(Task("binary")).losses(Asked(0).model.predict(EVENTS), EVENTS, on)
    assert of_slice[sweden].tolist() == expected[sweden].tolist()
    assert not np.isnan(of_all).any()


def test_a_regression_loss_waits_for_the_first_tick_and_its_scale_for_the_next():
    judge, labels = Judge(Task("regression")), np.array([0.0, 2.0, 4.0, 6.0])
    events = Batch.from_rows([{}] * 4, labels)
    judge.update(events)
    assert not judge.is_ready
    judge.end_tick()
    assert judge.is_ready
    off = 0.5 * 4.0 * labels.std()
    assert judge.losses(labels + off, events).tolist() == pytest.approx([0.5] * 4)
    judge.update(Batch.from_rows([{}], [1000.0]))
    assert judge.losses(labels + off, events).tolist() == pytest.approx([0.5] * 4)
    resumed = Judge(Task("regression"))
    resumed.restore(judge.state())
    judge.end_tick()
    resumed.end_tick()
    assert resumed.losses(labels + off, events).tolist() == judge.losses(labels + off, events).tolist()
    assert resumed.losses(labels + off, events)[0] < 0.1
