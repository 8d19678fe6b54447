"""The normal distribution in float32."""

import math

import mpmath
import numpy as np
import pytest
from gradtwin.manual.activations import gelu
from gradtwin.manual.normal import ABOVE, BELOW, normal
from scipy.special import erfcx, ndtr

U = 2.0**-24  # the unit roundoff of float32
REACH = 15
# Each exponential is off by 3 ulps at most, the second also by what its argument is, (h − a) (h +
# a) / 2, at most 0.12 here, with two roundings; each step of a polynomial rounds twice, and the
# coefficients are off by a third; the two products, the quotient and 1 − Φ round once.
ROUNDINGS = 2 * 3 * 2 + 0.24 + 2 * (4 + 5) + 1 / 3 + 4


def upper(a):
    """e^(a²/2) (1 − Φ(a)); SciPy's is that of mpmath but for a few ulps of float64."""
    return erfcx(a / math.sqrt(2)) / 2


def quotient(above, below, a):
    return np.polyval(above, a) / np.polyval(below, a)


@pytest.mark.parametrize("a", [0.0, 0.3, 2.0, 7.5, 15.0])
def test_the_truth_is_that_of_mpmath(a):
    with mpmath.workdps(30):
        exact = mpmath.exp(mpmath.mpf(a) ** 2 / 2) * mpmath.ncdf(-a)
        assert abs(mpmath.mpf(float(upper(a))) / exact - 1) < 1e-15


def test_the_coefficients_are_those_of_the_fit():
    a = REACH * (1 - np.cos(np.pi * (np.arange(100) + 0.5) / 100)) / 2
    found, below = [], 1 + a
    for _ in range(20):
        weight = 1 / (upper(a) * below)
        columns = [a**k for k in (4, 3, 2, 1)] + [-upper(a) * a**k for k in (5, 4, 3, 2, 1)]
        matrix, right = np.transpose(columns * weight), (2 * upper(a) - 1) * weight
        found = np.linalg.lstsq(matrix, right, rcond=None)[0]
        below = np.polyval([*found[4:], 2], a)
    np.testing.assert_allclose([*found[:4], 1, *found[4:], 2], [*ABOVE, *BELOW], rtol=U)


@pytest.mark.parametrize(("dtype", "error"), [("float64", 8.8e-9), ("float32", 2.1e-8)])
def test_the_error_of_the_quotient_is_what_is_said(dtype, error):
    a = np.linspace(0, REACH, 30_001)
    above, below = (np.array(c, dtype).astype(float) for c in (ABOVE, BELOW))
    assert error / 1.1 < np.max(abs(quotient(above, below, a) / upper(a) - 1)) <= error


def test_in_float32_both_are_off_by_roundings_alone():
    """Up to where 1 − Φ is no normal number."""
    x = np.linspace(-12.5, 12.5, 100_001).astype(np.float32)
    wide = x.astype(float)
    exact = ndtr(wide), np.exp(-wide * wide / 2) / math.sqrt(2 * math.pi)
    for found, truth in zip(normal(x), exact, strict=True):
        assert found.dtype == np.float32
        assert np.max(abs(found / truth - 1)) < ROUNDINGS * U


def test_far_out_both_have_their_limits():
    x = np.array([-40, -15, 15, 40, np.nan], np.float32)
    Phi, phi = normal(x)
    assert Phi[:4].tolist() == [0, 0, 1, 1]
    assert not phi[:4].any()
    assert np.isnan([Phi[4], phi[4]]).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (3,), (5000,)])
def test_gelu_keeps_the_dtype(dtype, shape):
    x = np.full(shape, 0.5, dtype)
    y, pullback = gelu(x)
    assert y.dtype == pullback(x).dtype == dtype
