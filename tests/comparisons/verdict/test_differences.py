"""A slope is within its bound, or it is said why it cannot be told."""

import math

import numpy as np
import pytest
from gradtwin.comparisons.verdict.classes import LIMIT
from gradtwin.comparisons.verdict.differences import (
    EDGE,
    FLAT,
    JUMP,
    KINK,
    SCALES,
    SPREAD,
    STEPS,
    WIDER,
    _nodes,
    derivative,
)
from hypothesis import given, settings
from hypothesis import strategies as st

U = 2.0**-53
NORMAL = st.floats(-1e3, 1e3).filter(lambda x: abs(x) > 1e-3)


def alone(function):
    """As `derivative` wants it: a function whose value is all that is summed."""

    def summed(h):
        with np.errstate(all="ignore"):
            y = float(function(h))
        return y, abs(y)

    return summed


def known(function, exact, sharp=1e-9):
    """The slope, which must be told, be right, and be told to a relative error of `sharp`."""
    slope = derivative(alone(function))
    assert not slope.why
    assert abs(slope.value - exact) <= LIMIT * slope.bound
    assert LIMIT * slope.bound <= sharp * abs(exact)
    return slope


# What is smooth ---------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(NORMAL, st.one_of(st.just(0.0), NORMAL))
def test_a_linear_function_has_an_error_of_some_roundings(slope, offset):
    """With an offset of 0 all differences over dyadic steps are the same number, so that their
    spread is 0 and any other rounding of the slope is a mistake."""
    found = known(lambda h: offset + slope * h, slope, 1e-12 * (1 + abs(offset / slope)))
    assert found.bound >= U * abs(slope)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=3, max_size=12), st.floats(0.1, 10))
def test_polynomials_of_any_degree(higher, slope):
    """Truncation is error too: with one of degree 12, six terms are left over."""
    coefficients = [1.0, slope, *higher]
    known(lambda h: np.polynomial.polynomial.polyval(h, coefficients), slope)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([np.exp, np.sin, np.tanh, np.arctan]), st.floats(-3, 3), NORMAL)
def test_elementary_functions_at_any_speed(function, x, speed):
    """sin(1000 h) oscillates so fast that only the finer scales see a polynomial."""
    exact = {
        np.exp: lambda x: np.exp(x),
        np.sin: lambda x: np.cos(x),
        np.tanh: lambda x: 1 - np.tanh(x) ** 2,
        np.arctan: lambda x: 1 / (1 + x * x),
    }[function](x) * speed
    slope = derivative(alone(lambda h: function(x + speed * h)))
    assert not slope.why
    assert abs(slope.value - exact) <= LIMIT * slope.bound + 8 * U * abs(exact)
    assert LIMIT * slope.bound <= 1e-7 * abs(speed)


def test_exponentials_that_overflow_a_step_away():
    known(lambda h: np.exp(700 * (1 + h)), 700 * math.exp(700))
    known(lambda h: np.exp(-700 * (1 + h)), -700 * math.exp(-700))


def test_squares_do_not_overflow():
    known(lambda h: 1e300 * (1 + h), 1e300)
    known(lambda h: 1e-300 * (1 + h), 1e-300)


def test_a_slope_of_zero_is_told():
    for power in (2, 3, 4):
        slope = derivative(alone(lambda h, p=power: h**p))
        assert not slope.why
        assert abs(slope.value) <= LIMIT * slope.bound < 1e-6 * slope.steep


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([np.exp, np.sinh, np.cosh, np.sqrt]), st.floats(0.5, 2))
def test_a_wrong_slope_is_seen_from_a_billionth_on(function, x):
    exact = {np.exp: np.exp, np.sinh: np.cosh, np.cosh: np.sinh}.get(
        function, lambda x: 0.5 / np.sqrt(x)
    )(x)
    slope = known(lambda h: function(x + h), exact)
    assert abs((1 + 1e-9) * exact - slope.value) > LIMIT * slope.bound


# What is rounded --------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.floats(1e4, 1e10), NORMAL)
def test_what_cancels_inside_is_seen_by_what_is_left_over(offset, slope):
    """(offset + h) − offset: the size of what comes out says nothing of the rounding inside."""
    found = derivative(alone(lambda h: (offset + slope * h) - offset))
    assert found.why or abs(found.value - slope) <= LIMIT * found.bound


@pytest.mark.parametrize("seed", range(50))
def test_what_cancels_inside_is_told_as_far_as_it_can_be(seed):
    offset = 1e8 * (1 + np.random.default_rng(seed).random())
    found = known(lambda h: (offset + h) - offset, 1, sharp=1e-5)
    assert found.noisy
    assert found.bound > U * offset


@pytest.mark.parametrize(
    ("offset", "slope"),
    [(58886.0242602547, -46.69827644124929), (10968.0, 12.063265228006122)],
)
def test_noise_that_looks_like_a_jump_at_one_scale_is_none(offset, slope):
    found = derivative(alone(lambda h: (offset + slope * h) - offset))
    assert not found.why
    assert abs(found.value - slope) <= LIMIT * found.bound


def test_what_is_summed_is_rounded_however_well_the_values_fit():
    """Also where it cancels at 0, and is large at other nodes alone."""
    assert derivative(lambda h: (h, 1e6)).bound >= U * 1e6
    assert derivative(lambda h: (h, 1e6 * abs(h))).bound >= U * 1e6 / 2


def test_where_rounding_rules_larger_steps_are_tried():
    found = known(lambda h: 1e8 + h, 1, sharp=1e-8)
    assert found.bound < 4 * U * 1e8 / 5  # what steps of up to 1/4 could tell


@pytest.mark.parametrize("seed", range(50))
def test_noise_is_part_of_the_error(seed):
    rng = np.random.default_rng(seed)
    slope = derivative(alone(lambda h: 2 * h + 1e-7 * rng.standard_normal()))
    assert not slope.why
    assert slope.noisy
    assert 1e-8 < abs(slope.bound) < 1e-5
    assert abs(slope.value - 2) <= LIMIT * slope.bound


def test_a_function_in_float32_is_known_to_float32():
    slope = known(lambda h: np.exp(np.float32(1 + h)), math.e, sharp=1e-4)
    assert slope.noisy
    assert slope.bound > 2.0**-24


# What has no slope ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (abs, KINK),
        (lambda h: max(h, 0.0), KINK),
        (lambda h: 5 + h + 1e-2 * abs(h), KINK),
        (lambda h: abs(h) ** 1.5, KINK),
        (np.cbrt, JUMP),
        (np.sign, JUMP),
        (lambda h: np.floor(5 + h), JUMP),
        (lambda h: h + 1e-6 * np.sign(h), JUMP),
        (lambda h: h + 1e-12 * (h >= 0), JUMP),
        (lambda h: h + 1e-6 * (h == 0), JUMP),
        (lambda h: 3.0, FLAT),
        (lambda h: np.floor(5.5 + h), FLAT),
        (lambda h: 1e20 + h, FLAT),
        (lambda h: np.floor(5.1 + h), STEPS),
        (lambda h: np.floor(5.1 + 3 * h), STEPS),
        (np.sqrt, EDGE),
        (np.log, EDGE),
        (lambda h: math.nan, EDGE),
        (lambda h: h if h <= 0 else math.inf, EDGE),
    ],
)
def test_it_is_said_why_a_slope_cannot_be_told(function, why):
    slope = derivative(alone(function))
    assert slope.why == why
    assert slope.bound == math.inf


def test_either_side_of_a_faint_kink_is_within_the_limit():
    """A kink too faint to be called one is an error that is known."""
    slope = derivative(alone(lambda h: 5 + h + 1e-4 * abs(h)))
    assert not slope.why
    assert abs(slope.value - 1) < 1e-4 < LIMIT * slope.bound < 1e-3


@pytest.mark.parametrize("at", [0.2, 0.01, -1e-3, 1e-5])
def test_a_kink_beside_the_point_is_stepped_around(at):
    known(lambda h: abs(h - at), -np.sign(at))


def test_a_domain_that_ends_beside_the_point():
    known(lambda h: np.sqrt(h + 1e-3), 0.5 / math.sqrt(1e-3))


def test_what_is_too_fine_to_be_seen_from_afar_is_seen_by_a_thorough_look():
    """Of an oscillation the finest scale knows the slope less sharply than the largest knows that
    of its mean; that they are apart is an error."""

    def staircase(h):
        return np.floor(2**20 * (1 + h))

    def ripples(h):
        return 1 + h + 1e-12 * np.sin(4e6 * h)

    for function, why in ((staircase, STEPS), (ripples, "")):
        assert derivative(alone(function)).noisy
        assert derivative(alone(function), thorough=True).why == why
    assert abs(derivative(alone(ripples)).value - 1 - 4e-6) > 1e-6
    slope = derivative(alone(ripples), thorough=True)
    assert abs(slope.value - 1 - 4e-6) <= LIMIT * slope.bound
    assert not derivative(alone(math.exp), thorough=True).why


def test_noise_at_small_steps_is_noise_at_larger_ones():
    def function(h):  # smooth at all nodes of the largest scale
        return 1 + h + (1e-9 * (1e9 * h % 1) if abs(h) < 0.02 else 0.0)

    assert derivative(alone(function)).bound > 1e-9


# What the constants say -------------------------------------------------------------------------


def test_limit_bounds_cover_every_single_kink_and_jump():
    """|h − c| for every c within reach: what the kink does to the slope, against the rms that is
    left over of it."""
    worst = {"kink": 0.0, "jump": 0.0}
    for k in range(len(SCALES) + len(WIDER)):
        nodes = _nodes(k)
        for c in np.linspace(-nodes.at[-1], nodes.at[-1], 2000)[1:-1]:  # 0 is not among them
            for kind, error in (
                ("kink", abs(nodes.at - c) + np.sign(c) * nodes.at),
                ("jump", np.sign(nodes.at - c)),
            ):
                rms = np.sqrt(np.sum((nodes.rest @ error) ** 2) / 6)
                worst[kind] = max(worst[kind], abs(nodes.slope @ error) / rms)
    print(worst)
    assert worst["kink"] < LIMIT * SPREAD
    assert worst["kink"] > LIMIT * SPREAD / 2  # a smaller one would not do
    assert worst["jump"] < worst["kink"]


def test_no_step_is_dyadic():
    for k in range(len(SCALES) + len(WIDER)):
        mantissas = np.frexp(abs(_nodes(k).at[_nodes(k).at != 0]))[0]
        assert np.all(mantissas * 2**20 % 1 != 0)
