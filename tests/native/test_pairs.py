import numpy as np
import pytest

from penstock._native.features import encode_rows
from penstock._native.pairs import n_entries, pair_rows
from penstock.bandits.pairs import Pairs
from penstock.decisions import Offers

CONTEXTS = [{"x": 2.0, "town": "Oslo"}, {}, {"user": {"age": 3}}]
ARMS = [["a", "b"], ["b"], ["Zürich", "a", "c d"]]


def test_rows_of_actions_without_features_are_those_of_the_dicts():
    pairs = Pairs().all(Offers.from_rows(CONTEXTS, ARMS))
    expected, _ = encode_rows(
        [
            {**context, "action": {"id": arm}}
            for context, arms in zip(CONTEXTS, ARMS, strict=True)
            for arm in arms
        ]
    )
    for column in ("indptr", "indices", "values", "namespaces"):
        np.testing.assert_array_equal(getattr(pairs.features, column), getattr(expected, column))


def test_action_features_are_apart_from_the_context_and_in_the_namespace():
    offers = Offers.from_rows([{"x": 2.0}], [["a"]], action_rows=[[{"x": 2.0, "deep": {"y": 5.0}}]])
    features = Pairs().all(offers).features
    assert len(set(features.indices.tolist())) == 4
    assert features.values.tolist() == [2.0, 2.0, 5.0, 1.0]
    assert features.namespaces[0] == 0
    assert set(features.namespaces[1:].tolist()) == {int(features.namespaces[-1])} != {0}


def test_chosen_pairs_are_those_among_all():
    actions = [[{"n": float(len(arm))} for arm in arms] for arms in ARMS]
    offers = Offers.from_rows(CONTEXTS, ARMS, action_rows=actions)
    entries = offers.starts[:-1] + np.array([1, 0, 2])
    chosen, every = Pairs().chosen(offers, entries), Pairs().all(offers)
    for column in ("indptr", "indices", "values", "namespaces"):
        np.testing.assert_array_equal(
            getattr(chosen.features, column), getattr(every.features.take(entries), column)
        )
    assert list(chosen.rows) == [every.rows[entry] for entry in entries]
    assert chosen.rows[2] == {"user": {"age": 3}, "action": {"id": "c d", "n": 3.0}}
    assert list(every.rows[4:]) == [every.rows[4], every.rows[5]]


@pytest.mark.parametrize(
    ("starts", "contexts", "actions"),
    [
        ([0, 2], [0, 1], [0, 0]),  # fewer actions than offered
        ([1, 2], [0, 1], [0, 0, 0]),
        ([0, 2, 1], [0, 1, 1], [0, 0]),
        ([0, 1], [0, -1], [0, 0]),
        ([0, 1], [0, 1, 2], [0, 0]),
        ([0, 1], [1, 1], [0, 0]),
        ([0, 2], [0, 0], [0, 3, 1]),
        ([], [0], [0]),
    ],
)
def test_pointers_that_do_not_fit_are_refused(starts, contexts, actions):
    with pytest.raises(ValueError, match=r"fit|decrease|reach"):
        n_entries(np.array(starts, np.int64), np.array(contexts, np.int64), np.array(actions, np.int64))


def test_columns_that_do_not_fit_are_refused():
    starts, context, action = np.array([0, 1]), np.array([0, 2]), np.array([0, 0])
    two, none = np.zeros(2, np.uint32), np.zeros(0, np.uint32)
    fitting = [starts, context, two, np.zeros(2), two, action, none, np.zeros(0), np.zeros(1, np.uint32), 7]
    out = [np.zeros(2, np.int64), np.zeros(3, np.uint32), np.zeros(3), np.zeros(3, np.uint32)]
    pair_rows(*fitting, *out)
    for at, wrong in ((2, none), (3, np.zeros(1)), (4, none), (8, np.zeros(2, np.uint32))):
        with pytest.raises(ValueError, match="fit"):
            pair_rows(*fitting[:at], wrong, *fitting[at + 1 :], *out)
    for at, wrong in ((0, np.zeros(3, np.int64)), (2, np.zeros(2)), (3, none)):
        with pytest.raises(ValueError, match="fit"):
            pair_rows(*fitting, *out[:at], wrong, *out[at + 1 :])
    with pytest.raises(ValueError, match="entries"):
        pair_rows(*fitting, out[0], two, np.zeros(2), two)
