"""A gradient held to nothing: a right one causes no alarm, and what cannot be told says why."""

import numpy as np
import pytest
from gradtwin.comparisons.check.adapt import subject_of
from gradtwin.comparisons.check.votes import BLUNT, GROUPS, HIDDEN, Direction, numeric
from gradtwin.comparisons.verdict.classes import DIFFERENT, IDENTICAL, LIMIT, ROUNDING
from gradtwin.comparisons.verdict.differences import EDGE, FLAT, JUMP, KINK, STEPS

from gradtwin import check

U = 2.0**-53
SEEDS = range(12)


def looked_at(rule, arrays, seed=0, position=0, dy=None):
    """What is said of one gradient of a rule."""
    subject = subject_of(rule, arrays, {})
    y, pullback = subject.run(arrays, {})
    rng = np.random.default_rng([seed, 3])
    dy = np.asarray(rng.standard_normal(np.shape(y)) if dy is None else dy)
    gradients = pullback(dy)
    gradient = gradients[position] if isinstance(gradients, tuple) else gradients
    return Direction(subject, (tuple(arrays), {}, dy), position, seed).verdict(np.asarray(gradient))


def said(rule, arrays, seed=0, position=0, dy=None):
    """The class of the verdict, or the reason why there is none."""
    found = looked_at(rule, arrays, seed, position, dy)
    return found if isinstance(found, str) else found[0].kind


def elementwise(function, slope):
    """A rule of one array."""
    return lambda x: (function(x), lambda dy: dy * slope(x))


def normal(seed, *shape):
    return np.random.default_rng([seed, 5]).standard_normal(shape)


# Right rules ------------------------------------------------------------------------------------


def subtract(x, other):
    return x - other, lambda dy: (dy, -dy)


def transposed(x, w):
    return x @ w.T, lambda dy: (dy @ w, dy.T @ x)


def scaled(x, s):
    return x * s, lambda dy: (dy * s, (dy * x).sum(0))


def layer_norm(x):
    d = x - x.mean(-1, keepdims=True)
    sigma = np.sqrt((d * d).mean(-1, keepdims=True) + 1e-5)
    y = d / sigma

    def pullback(dy):
        along = y * (dy * y).mean(-1, keepdims=True)
        return (dy - dy.mean(-1, keepdims=True) - along) / sigma

    return y, pullback


def affine(x, weight, bias):
    hat, pull = layer_norm(x)

    def pullback(dy):
        return pull(dy * weight), (dy * hat).sum(0), dy.sum(0)

    return hat * weight + bias, pullback


def examples(seed):
    """Calls at which f is linear and an operand is 0, or equal to another, or all are equal."""
    x, w = normal(seed, 3, 4), normal(seed + 100, 5, 4)
    return {
        "one operand twice": (subtract, [x, x], 0),
        "x of zeros": (transposed, [0 * x, w], 0),
        "weights of zeros": (transposed, [x, 0 * w], 1),
        "a scale of zeros": (scaled, [x, 0 * x[0]], 1),
        "equal rows": (layer_norm, [np.full_like(x, x[0, 0])], 0),
    }


@pytest.mark.parametrize("name", examples(0))
def test_a_right_rule_causes_no_alarm_at_hard_points(name):
    found = [said(*examples(seed)[name][:2], seed, examples(seed)[name][2]) for seed in SEEDS]
    print(found)
    assert set(found) <= {IDENTICAL, ROUNDING}


@pytest.mark.parametrize(
    ("rule", "shapes", "seed"),
    [
        ("sub", [(3, 4), (3, 4)], 0),
        (transposed, [(3, 4), (5, 4)], 3),
        (scaled, [(6, 4), (4,)], 2),
        (affine, [(3, 4), (4,), (4,)], 3),
    ],
)
def test_a_right_rule_is_right_when_it_is_held_to_nothing(rule, shapes, seed):
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(shape) for shape in shapes]
    check(rule, None, arrays, seed=seed).raise_for_failure()


def test_an_array_without_axes_is_checked():
    check(elementwise(np.tanh, lambda x: 1 - np.tanh(x) ** 2), None, [np.array(0.3)])


def test_the_rounding_of_a_pullback_is_no_mistake():
    """1 − tanh² loses digits where tanh is near 1, and no difference of the forward shows it."""
    rule = elementwise(np.tanh, lambda x: 1 - np.tanh(x) ** 2)
    for seed in SEEDS:
        found = said(rule, [np.sign(normal(seed, 40)) * (8 + 2 * abs(normal(seed + 50, 40)))], seed)
        assert found in (ROUNDING, HIDDEN)


@pytest.mark.thinned(2)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tiny", [1e-10, 1e-13])
def test_what_large_elements_leave_of_each_other_is_rounded_as_they_are(tiny, seed):
    """dx₁ = dy₁ − (dy₁ + tiny dy₂), of which the sum rounds, and nothing that moves shows it."""
    share = np.array([0.0, 1.0, tiny])
    x = np.array([-0.5, 6.0, 0.5])

    def rule(factor):
        def leaves(x):
            return x - share * np.sum(x), lambda dy: (dy - np.sum(dy * share)) * factor

        return leaves

    assert check(rule(1), None, [x], seed=seed).passed
    assert not check(rule(np.array([1, 2, 1])), None, [x], seed=seed).passed


def test_an_infinite_gradient_beside_others_is_no_alarm():
    """√ at 0 has no slope, and says nothing of the elements beside it."""
    x = abs(normal(0, 24))
    x[3] = 0
    with np.errstate(divide="ignore"):
        found = looked_at(elementwise(np.sqrt, lambda x: 0.5 / np.sqrt(x)), [x])
    verdict, only = found
    assert verdict.kind in (IDENTICAL, ROUNDING)
    assert not only[3]


# Mistakes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_a_single_wrong_element_is_found(seed):
    where = (seed % 6, seed % 4)

    def rule(x):
        def pullback(dy):
            dx = layer_norm(x)[1](dy)
            dx[where] *= 1 + 1e-7
            return dx

        return layer_norm(x)[0], pullback

    verdict, only = looked_at(rule, [normal(seed, 6, 4)], seed)
    assert verdict.kind == DIFFERENT
    assert verdict.index == where
    assert np.flatnonzero(only).size == 1
    assert verdict.resolution < 1e-7


@pytest.mark.parametrize(("error", "kind"), [(1e-9, DIFFERENT), (0.0, ROUNDING)])
def test_an_error_of_a_billionth_is_seen(error, kind):
    for seed in range(5):
        rule = elementwise(np.exp, lambda x: (1 + error) * np.exp(x))
        assert said(rule, [normal(seed, 3, 4)], seed) == kind


def test_nan_where_the_forward_is_smooth_is_a_mistake():
    with np.errstate(all="ignore"):
        found = looked_at(elementwise(lambda x: x**3, lambda x: 3 * x**3 / x), [np.arange(-4.0, 4)])
    assert found[0].kind == DIFFERENT
    assert found[0].index == (4,)


def test_nan_is_a_mistake_where_the_forward_is_flat_too():
    """0 to the power p, whose slope in p is 0 log 0 in a careless rule."""
    x = np.array([0.0, 1.5, 2.0])

    def rule(p):
        y = x**p
        with np.errstate(all="ignore"):
            slope = y * np.log(x)
        return y, lambda dy: dy * slope

    verdict, _ = looked_at(rule, [np.array([2.0, 3.0, 0.5])])
    assert verdict.kind == DIFFERENT
    assert verdict.index == (0,)


def test_a_backward_in_float32_is_seen_by_a_dy_that_float32_does_not_hold():
    def rule(x):
        return 2 * x, lambda dy: 2.0 * np.float32(dy).astype(x.dtype)

    report = check(rule, None, [normal(0, 3, 4)], dtypes=["float64"])
    assert "as given" in set(report.failed["probe"])


def test_a_smooth_forward_whose_gradient_is_meant_to_differ_is_still_wrong():
    assert said(elementwise(np.sin, lambda x: 0 * x), [normal(0, 3, 4)]) == DIFFERENT


# What cannot be told ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "slope", "x", "why"),
    [
        (np.round, np.ones_like, 0.25, FLAT),
        (abs, np.zeros_like, 0.0, KINK),
        (np.sign, np.zeros_like, 0.0, JUMP),
        (lambda x: np.floor(100 * x), np.ones_like, 0.101, STEPS),
        (np.sqrt, np.zeros_like, 0.0, EDGE),
        (lambda x: 3e12 + np.sin(x), lambda x: 2 + x, 0.5, HIDDEN),
    ],
)
def test_it_is_said_why_differences_cannot_tell(function, slope, x, why):
    with np.errstate(invalid="ignore"):
        assert said(elementwise(function, slope), [np.full(3, x)]) == why


def test_a_gradient_of_zeros_is_right_where_the_forward_is_flat():
    x = np.full(3, 0.25)
    assert said(elementwise(np.round, np.zeros_like), [x]) == IDENTICAL
    assert said(elementwise(np.exp, np.exp), [x], dy=np.zeros(3)) == IDENTICAL


def test_a_gradient_for_a_dy_of_zeros_is_wrong():
    assert said(lambda x: (np.exp(x), lambda dy: np.exp(x)), [np.ones(3)], dy=np.zeros(3)) == (
        DIFFERENT
    )


@pytest.mark.parametrize("seed", range(10))
def test_kinks_that_cancel_cause_no_alarm(seed):
    """relu(x) − relu(−x) is x, as smooth as can be; the convention at 0 makes its slope 0."""

    def both(x):
        def pullback(dy):
            return np.where(x > 0, dy[0], 0) - np.where(x < 0, dy[1], 0)

        return np.stack([np.maximum(x, 0), np.maximum(-x, 0)]), pullback

    dy = np.stack([np.ones(8), -np.ones(8)])
    assert said(both, [np.zeros(8)], seed, dy=dy) == KINK
    assert said(both, [np.full(8, -0.5)], seed, dy=dy) == ROUNDING


def test_a_staircase_that_is_too_fine_causes_no_alarm():
    x = 2.0**20 * normal(0, 24)
    assert said(elementwise(np.floor, np.zeros_like), [x]) == STEPS


def test_an_array_without_elements_is_flat():
    assert said(elementwise(np.exp, np.exp), [np.ones((0, 3))]) == FLAT


# How sharp, and how dear ------------------------------------------------------------------------


def test_a_claim_is_sharp_and_costs_a_few_calls():
    calls = []

    def rule(x):
        calls.append(x)
        return np.tanh(x), lambda dy: dy * (1 - np.tanh(x) ** 2)

    verdict, _ = looked_at(rule, [normal(0, 6, 4)])
    assert LIMIT * U < verdict.resolution < 1e-11 < BLUNT
    assert len(calls) < 45 * GROUPS


def test_every_element_of_a_small_array_by_differences():
    x, w = normal(0, 3, 4), normal(1, 5, 4)
    dy = normal(2, 3, 5)
    subject, known = subject_of(transposed, [x, w], {}), {}
    found = numeric(subject, ((x, w), {}, dy), ["x", "w"], 12, known)
    assert set(found) == {"value", "x"}  # w has more elements than 12
    np.testing.assert_allclose(found["x"], dy @ w, rtol=1e-11)
    evaluated = len(known)
    again = numeric(subject, ((x, w), {}, 2 * dy), ["x", "w"], 12, known)
    assert np.array_equal(again["x"], 2 * found["x"])
    assert len(known) == evaluated  # another dy costs none
    moved = numeric(subject, ((2 * x, w), {}, dy), ["x", "w"], 12, known)
    assert np.array_equal(moved["x"], found["x"])  # it is linear in x, and steps are twice as long
    assert len(known) > evaluated


@pytest.mark.parametrize("seed", SEEDS)
def test_steps_beside_a_slope_cause_no_alarm_and_a_mistake_beside_them_does(seed):
    """1 − σ is a staircase where σ is nearly 1, and flat at the scale at which another element has
    the sharpest slope."""
    rng = np.random.default_rng([seed, 6])
    x = np.concatenate([rng.uniform(0, 10, 12), rng.uniform(33, 35.5, 12)])

    def naive(factor):
        def slope(x):
            return -factor / (1 + np.exp(-x))

        return elementwise(lambda x: np.log(1 - 1 / (1 + np.exp(-x))), slope)

    assert said(naive(1.0), [x], seed) != DIFFERENT
    assert said(naive(np.where(x < 30, 1.001, 1.0)), [x], seed) == DIFFERENT


def test_what_is_infinite_cannot_move():
    x = np.array([np.inf, 1.0, 2.0, -np.inf])
    finite = np.isfinite(x)

    def chosen(x):
        y = np.where(finite, x, 0.0)
        return y, lambda dy: np.where(finite, dy, 0.0)

    assert said(chosen, [x]) == ROUNDING
    assert said(lambda x: (chosen(x)[0], lambda dy: 2 * chosen(x)[1](dy)), [x]) == DIFFERENT
