"""The normal distribution."""

import math

import numpy as np
from scipy.special import ndtr

from .arrays import where

# e^(a²/2) (1 − Φ(a)) is the first of these polynomials over the second, the highest power first,
# for 0 ≤ a ≤ 15, beyond which 1 − Φ(a) is 0 in float32. No term is negative, so nothing cancels.
# They are the limit of fits by least squares at 100 Chebyshev nodes, exact at 0, of the relative
# error times the denominator over that of the fit before (Sanathanan & Koerner, 1963). That error
# is 8.8e-9 at most, and 2.1e-8 where they are rounded to float32, a third of its unit roundoff.
ABOVE = (0.00843030241, 0.082589636, 0.370372978, 0.881815464, 1)
BELOW = (0.0211314306, 0.207032873, 0.949246905, 2.42114989, 3.35940081, 2)


def normal(x):
    """Φ(x) and its slope, the density φ(x) = e^(−x²/2) / √(2π), of a floating array between ± 40,
    where both have reached their limits.

    In float64, Φ is SciPy's. In float32, for which SciPy computes in float64, 1 − Φ(a) is e^(−a²/2)
    times a quotient of polynomials (Hart et al., 1968, "Computer Approximations"). Half an ulp of
    a² would be up to a² / 4 ulps of e^(−a²/2), so that is e^(−h²/2) e^((h² − a²) / 2), where h is
    near a and has so few digits that h² is exact.
    """
    if x.dtype == np.float64:
        return ndtr(x), np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    a = abs(x.astype(np.float32, copy=False))
    h = (a + 2.0**17) - 2.0**17  # the nearest 64th, as the sum has no digits for more
    bell = np.exp(-h * h / 2) * np.exp((h - a) * (h + a) / 2)
    tail = bell * (_polynomial(ABOVE, a) / _polynomial(BELOW, a))
    Phi, phi = where(x < 0, tail, 1 - tail), bell / math.sqrt(2 * math.pi)
    return Phi.astype(x.dtype, copy=False), phi.astype(x.dtype, copy=False)


def _polynomial(coefficients, a):
    """Horner's scheme."""
    first, second, *others = coefficients
    total = first * a + second
    for c in others:
        total *= a
        total += c
    return total
