import numpy as np
import pytest
import vowpalwabbit

from penstock.bandits import build
from penstock.bandits.vw import VW, repaired
from penstock.decisions import Logged, Offers, draw
from penstock.errors import BadRecord, ConfigError, StoreError

ARMS = ["a", "b", "c d"]
OFFERS = Offers.from_rows([{"x": 0.5}], [ARMS])


def logged(n=120, weights=None):
    rng = np.random.default_rng(3)
    x = rng.random(n)
    chosen = rng.integers(0, 3, n)
    return Logged(
        offers=Offers.from_rows([{"x": float(v)} for v in x], [ARMS] * n),
        chosen=chosen,
        propensities=np.full(n, 1 / 3),
        rewards=(chosen == (x > 0.5)).astype(np.float64),
        weights=np.ones(n) if weights is None else weights,
    )


def lines(log, i):
    """What a user of VW would write."""
    for a, arm in enumerate(["a", "b", "c%20d"]):
        label = f"0:{-log.rewards[i]}:{log.propensities[i]} " if a == log.chosen[i] else ""
        yield f"{label}| |action id={arm}"


def test_learns_what_vw_learns():
    log, args = logged(), "--cb_explore_adf --cover 3 -q :a --random_seed 7"
    policy = VW(args=args)
    policy.learn(log)
    peer = vowpalwabbit.Workspace(f"{args} --quiet")
    for i in range(len(log)):
        peer.learn([f"shared | x:{log.offers.rows[i]['x']!r}", *lines(log, i)])
    theirs = [peer.predict([f"shared | x:{x}", *(f"| |action id={arm}" for arm in ("a", "b", "c%20d"))])
              for x in (0.1, 0.4, 0.9)]  # fmt: skip
    peer.finish()
    ours = policy.probabilities(Offers.from_rows([{"x": x} for x in (0.1, 0.4, 0.9)], [ARMS] * 3))
    np.testing.assert_allclose(ours, np.concatenate(theirs), atol=1e-6)
    assert policy.violations == 0


def test_equal_scores_are_equal_chances():
    np.testing.assert_allclose(VW(args="--squarecb").probabilities(OFFERS), 1 / 3, atol=1e-7)


def test_optimistic_ties_do_not_leave_as_several_certainties():
    policy = VW(args="--regcb --regcbopt")
    ten = Offers.from_rows([{}], [[str(i) for i in range(10)]])
    np.testing.assert_allclose(policy.probabilities(ten), 0.1, rtol=1e-12)
    assert policy.violations == 1
    frozen = policy.freeze()
    np.testing.assert_allclose(frozen.probabilities(ten), 0.1, rtol=1e-12)
    assert frozen.violations == 1


def test_negative_chances_do_not_leave():
    """``--squarecb --elim`` counts its survivors wrongly."""
    policy = VW(args="--squarecb --elim --mellowness 1 --cb_min_cost -1 --cb_max_cost 0 -q :a")
    for part in range(40):
        p = policy.probabilities(logged().offers).reshape(-1, 3)
        assert (p >= 0).all()
        np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-12)
        policy.learn(logged().slice(3 * part, 3 * part + 3))
    assert policy.violations > 0


@pytest.mark.parametrize(
    ("raw", "expected", "proper"),
    [
        ([0.25, 0.75], [0.25, 0.75], True),
        ([0.25, 0.7500005], [0.25 / 1.0000005, 0.7500005 / 1.0000005], True),
        ([-3.0, 1.0, 3.0], [0.0, 0.25, 0.75], False),
        ([0.0, 0.0], [0.5, 0.5], False),
        ([np.nan, 1.0], [0.0, 1.0], False),
        ([np.inf, 1.0], [0.5, 0.5], False),
    ],
)
def test_repairs(raw, expected, proper):
    probabilities, was_proper = repaired(raw)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-12)
    assert was_proper is proper


def test_chances_are_in_the_order_of_the_actions():
    policy = VW(args="--epsilon 0.3 -q :a")
    policy.learn(logged())
    p = policy.probabilities(Offers.from_rows([{"x": 0.9}] * 2, [["a", "b", "c d"], ["c d", "a", "b"]]))
    np.testing.assert_allclose(p, [0.1, 0.8, 0.1, 0.1, 0.1, 0.8], atol=1e-6)
    assert draw(p[:3], 11) in range(3)


def test_weights_are_repetitions():
    twice, once = VW(), VW()
    twice.learn(logged(40, np.full(40, 2.0)))
    for i in range(40):
        for _ in range(2):
            once.learn(logged(40).slice(i, i + 1))
    np.testing.assert_array_equal(twice.state()["model"], once.state()["model"])
    policy = VW()
    assert 20 < sum(policy._times(logged(100, np.full(100, 0.3)))) < 45
    with pytest.raises(
        BadRecord, match=r"expected a magnitude <= 1000, got 1000000\.0 - at `\$\.weight`, events\["
    ):
        policy.learn(logged(40, np.full(40, 1e6)))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--squarecb -f model", "vw: -f"),
        ("--oaa 3", "vw: "),
        ("--cb_sample", "vw: cb_sample is not known to go on"),
        ("--no_such_option", "vw: "),
        ("--squarecb 'open", "vw: args"),
    ],
)
def test_arguments_that_cannot_be_used(args, message):
    with pytest.raises(ConfigError) as error:
        build("vw", args=args)
    assert str(error.value).startswith(message)


def test_states_of_something_else_are_refused():
    policy = VW()
    with pytest.raises(StoreError, match="no model"):
        policy.restore({})
    state = policy.freeze().state()
    for wrong in ({"options": "-f somewhere"}, {"floor": 3.0}, {"model": "text"}):
        with pytest.raises(StoreError):
            VW.load({**state, **wrong})
