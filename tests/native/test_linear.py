"""The loss steps against an integrator, and the kernel against nonsense."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.special import wrightomega

from penstock._native.linear import (
    TOTALS,
    Linear,
    LinearModel,
    first_bad_label,
    loss_derivative,
    loss_step,
    stride_of,
)

SMOOTH = ["squared", "logistic", "poisson"]
KINKED = ["hinge", "quantile"]
LABELS = {
    "squared": st.floats(-5, 5),
    "logistic": st.sampled_from([0.0, 1.0]),
    "hinge": st.sampled_from([0.0, 1.0]),
    "quantile": st.floats(-5, 5),
    "poisson": st.integers(0, 20).map(float),
}


def cases(loss):
    """Margin, label, learning rate times weight, sensitivity."""
    return st.tuples(st.floats(-6, 6), LABELS[loss], st.floats(1e-4, 4), st.floats(1e-4, 4))


def integrated(loss, p, y, h, q, tau=0.5):
    """Where the margin is after following the gradient continuously for `h`."""
    path = solve_ivp(
        lambda _, z: [-q * loss_derivative(loss, z[0], y, tau)],
        (0, h),
        [p],
        rtol=1e-11,
        atol=1e-12,
        method="LSODA",
    )
    return path.y[0, -1]


@pytest.mark.parametrize("loss", SMOOTH)
@given(data=st.data())
def test_smooth_steps_solve_their_differential_equation(loss, data):
    p, y, h, q = data.draw(cases(loss))
    moved = p + q * loss_step(loss, p, y, h, q)
    assert moved == pytest.approx(integrated(loss, p, y, h, q), abs=1e-9)


@pytest.mark.parametrize("loss", ["squared", "logistic", "poisson", "hinge", "quantile"])
@given(data=st.data())
def test_two_half_steps_are_one_step(loss, data):
    p, y, h, q = data.draw(cases(loss))
    whole = p + q * loss_step(loss, p, y, h, q, 0.3)
    half = p + q * loss_step(loss, p, y, h / 2, q, 0.3)
    halves = half + q * loss_step(loss, half, y, h / 2, q, 0.3)
    assert halves == pytest.approx(whole, abs=1e-12, rel=1e-12)


@pytest.mark.parametrize("loss", KINKED)
@given(data=st.data())
def test_kinked_steps_follow_the_gradient_up_to_the_kink(loss, data):
    p, y, h, q = data.draw(cases(loss))
    tau = data.draw(st.floats(0.1, 0.9))
    kink = 2 * y - 1 if loss == "hinge" else y
    gradient = loss_derivative(loss, p, y, tau)
    straight = p - h * q * gradient
    reached = gradient == 0 or (straight - kink) * (p - kink) <= 0
    expected = (p if gradient == 0 else kink) if reached else straight
    assert p + q * loss_step(loss, p, y, h, q, tau) == pytest.approx(expected, abs=1e-12)


@given(st.floats(-50, 50), st.floats(1e-3, 1e6))
def test_logistic_step_is_lamberts_where_that_is_accurate(margin, hq):
    x = hq + margin + math.exp(margin)
    expected = x - wrightomega(x).real - margin  # W(e^x) - x = log W(e^x)
    noise = 1e-15 * (abs(x) + abs(margin))
    assert loss_step("logistic", margin, 1.0, hq, 1.0) == pytest.approx(expected, rel=1e-9, abs=4 * noise)


@given(st.floats(-50, 50), st.floats(1e-12, 1e-6))
def test_logistic_step_keeps_its_precision_where_lamberts_cancels(margin, hq):
    first_order = hq / (1 + math.exp(margin))
    assert loss_step("logistic", margin, 1.0, hq, 1.0) == pytest.approx(first_order, rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "p", "y", "h", "q", "expected"),
    [
        ("squared", 0.0, 1.0, 0.5, 1.0, 1 - math.exp(-1)),
        ("squared", 0.0, 1.0, 0.5, 0.0, 1.0),
        ("hinge", 0.0, 1.0, 0.25, 2.0, 0.25),
        ("hinge", 0.0, 1.0, 5.0, 2.0, 0.5),
        ("hinge", 1.5, 1.0, 5.0, 2.0, 0.0),
        ("quantile", 0.0, 1.0, 1.0, 0.1, 0.5),
        ("quantile", 1.0, 1.0, 1.0, 1.0, 0.0),
        ("poisson", 0.0, 0.0, 1.0, 1.0, -math.log(2)),
        ("poisson", 30.0, 0.0, 0.5, 1e-13, -math.log1p(math.exp(30) * 0.5e-13) * 1e13),
        ("logistic", 0.0, 1.0, 1 + math.e - 1, 1.0, 1.0),
    ],
)
def test_steps_known_by_hand(loss, p, y, h, q, expected):
    assert loss_step(loss, p, y, h, q) == pytest.approx(expected, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("loss", ["squared", "logistic", "hinge", "quantile", "poisson"])
@given(
    p=st.floats(-1e18, 1e18),
    y=st.floats(0, 1),
    h=st.floats(0, 1e36),
    q=st.floats(0, 1e90),
)
def test_steps_are_finite_and_never_overshoot(loss, p, y, h, q):
    if loss in ("logistic", "poisson"):
        p = max(-50.0, min(50.0, p))
    if loss in ("logistic", "hinge"):
        y = float(round(y))
    u = loss_step(loss, p, y, h, q)
    assert math.isfinite(u)
    assert u * loss_derivative(loss, p, y) <= 0


def options(**changed):
    return {
        "head": "regression",
        "loss": "squared",
        "rule": "nag",
        "bits": 4,
        "constant": True,
        "interactions": [],
        "invariant": True,
        "clipped": True,
        "learning_rate": 0.5,
        "power_t": 0.5,
        "l1": 0.0,
        "l2": 0.0,
        "alpha": 1.0,
        "beta": 1.0,
        "tau": 0.5,
        "half_life": 0.0,
        **changed,
    }


def attached(**changed):
    kernel = Linear(**options(**changed))
    kernel.attach(
        np.zeros(16 * 4, np.float32),
        np.zeros((1, len(TOTALS))),
        np.ones(1, np.uint8),
        np.zeros(1, np.int64),
        np.zeros(2, np.uint64),
    )
    return kernel


def rows(indptr, nnz=3):
    return np.array(indptr, np.int64), np.zeros(nnz, np.uint32), np.ones(nnz), np.zeros(nnz, np.uint32)


@pytest.mark.parametrize("indptr", [[], [0, 4], [-1, 2], [0, 3, 2, 3], [2, 1]])
def test_row_pointers_that_lead_astray_are_refused(indptr):
    n = max(len(indptr) - 1, 0)
    with pytest.raises(ValueError, match="row pointers"):
        attached().run(*rows(indptr), None, None, np.zeros((n, 1)), 1)


def test_arrays_that_do_not_fit_are_refused():
    kernel = attached()
    features = rows([0, 1, 3])
    with pytest.raises(ValueError, match="do not fit together"):
        kernel.run(features[0], features[1], np.ones(2), features[3], None, None, None, 1)
    with pytest.raises(ValueError, match="not as many labels"):
        kernel.run(*features, np.zeros(1), np.zeros(2), None, 1)
    with pytest.raises(ValueError, match="do not fit 1 x 1"):
        kernel.run(*features, None, None, np.zeros((1, 1)), 1)
    with pytest.raises(ValueError, match="no room for 2 classes"):
        kernel.run(*features, None, None, np.zeros((2, 2)), 2)
    with pytest.raises(ValueError, match="weights do not fit"):
        kernel.effective_weights(np.zeros(3, np.float32), 1)
    with pytest.raises(ValueError, match="slots do not fit"):
        kernel.copy_slots(np.zeros(16, np.float32), 1)


def test_a_class_out_of_range_is_refused():
    kernel = attached(head="multiclass", loss="logistic")
    with pytest.raises(ValueError, match="not one of 1 classes"):
        kernel.run(*rows([0, 3]), np.array([1.0]), np.ones(1), None, 1)
    with pytest.raises(ValueError, match="not one of 1 classes"):
        kernel.run_one({"a": 1.0}, math.nan, 1.0, None, 1)


def test_a_kernel_without_arrays_refuses_to_run():
    with pytest.raises(ValueError, match="attach the arrays first"):
        Linear(**options()).run(*rows([0, 3]), None, None, np.zeros((1, 1)), 1)


@pytest.mark.parametrize("wrong", ["table", "totals", "sighted", "clock", "touched"])
def test_arrays_of_the_wrong_size_are_not_attached(wrong):
    arrays = {
        "table": np.zeros(16 * 4, np.float32),
        "totals": np.zeros((1, len(TOTALS))),
        "sighted": np.zeros(1, np.uint8),
        "clock": np.zeros(1, np.int64),
        "touched": np.zeros(2, np.uint64),
    }
    arrays[wrong] = np.concatenate([arrays[wrong], arrays[wrong]])
    with pytest.raises(ValueError, match="do not fit together"):
        Linear(**options()).attach(**arrays)


def test_a_model_of_the_wrong_size_is_refused():
    with pytest.raises(ValueError, match="do not fit together"):
        LinearModel(
            head="binary",
            loss="logistic",
            bits=4,
            constant=True,
            interactions=[],
            weights=np.zeros(15, np.float32),
            limits=np.zeros((1, 2)),
            sighted=np.ones(1, np.uint8),
        )


@pytest.mark.parametrize("bits", [0, 31])
def test_impossible_tables_are_refused(bits):
    with pytest.raises(ValueError, match="bits must be between 1 and 30"):
        Linear(**options(bits=bits))


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c", "d"]])
def test_interactions_are_of_two_or_three(names):
    with pytest.raises(ValueError, match="2 or 3 namespaces"):
        Linear(**options(interactions=[names]))


def test_slots_never_straddle_a_cache_line():
    for rule in ("nag", "adagrad", "sgd", "ftrl", "coin"):
        assert 64 % (4 * stride_of(rule, False)) == 0
    assert 64 % (4 * stride_of("nag", True)) == 0


def test_the_first_bad_label_is_found():
    labels = np.array([0.0, 1.0, 0.5, np.nan])
    ones = np.ones(4)
    assert first_bad_label(labels[:3], ones[:3], 0, 1, False) == -1
    assert first_bad_label(labels, ones, 0, 1, False) == 3
    assert first_bad_label(labels, ones, 0, 1, True) == 2
    assert first_bad_label(labels[:2], np.array([1.0, -1.0]), 0, 1, True) == 1
    assert first_bad_label(labels[:2], np.array([np.inf, 1.0]), 0, 1, True) == 0


@pytest.mark.parametrize("constant", [True, False])
@given(
    weights=st.lists(st.floats(-1e3, 1e3, width=32), min_size=8, max_size=8),
    entries=st.lists(st.tuples(st.integers(0, 2**32 - 1), st.floats()), max_size=600),
)
def test_a_model_without_crosses_answers_as_one_whose_crosses_find_nothing(constant, weights, entries):
    """The former sums on the fly what the latter gathers in blocks first; zeros and NaN included."""
    indices = np.array([index for index, _ in entries], np.uint32)
    values = np.array([value for _, value in entries], np.float64)
    answers = []
    for interactions in ([], [["nowhere", "nowhere"]]):
        model = LinearModel(
            head="regression",
            loss="squared",
            bits=3,
            constant=constant,
            interactions=interactions,
            weights=np.array(weights, np.float32),
            limits=np.array([[-1e300, 1e300]]),
            sighted=np.ones(1, np.uint8),
        )
        out = np.empty((1, 1))
        model.run(np.array([0, len(entries)]), indices, values, np.zeros(len(entries), np.uint32), out)
        answers.append(out.tobytes())
    assert answers[0] == answers[1]
