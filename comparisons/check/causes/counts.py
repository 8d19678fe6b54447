"""Divided by another count in each row, sample or class."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from ...verdict.noise import is_floating
from .case import Candidate, Case, Wrong
from .closeness import where_finite
from .overwritten import alone

LARGEST = 64  # the largest count that is told from its quotient with another
IN_SINGLE = 8  # in float32, which has the digits of fewer
SLICES = 24  # of dy, whose gradients are computed one by one


def of_other_counts(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    """Times one quotient of small whole numbers in each slice along an axis, of the gradient or of
    dy."""
    ours, truth = where_finite(wrong.ours, wrong.truth)
    for axis in range(truth.ndim):
        n = truth.shape[axis]
        a, b = (np.moveaxis(t, axis, 0).reshape(n, -1) for t in (ours, truth))
        shown = (b != 0).sum(1)
        square = (b * b).sum(1)
        ratios = _ratios((a * b).sum(1) / np.where(square > 0, square, 1), shown > 0, wrong)
        if ratios is not None and _tells(ratios, shown, truth.ndim):
            yield Candidate("counts", _text(ratios, axis, ""), _along(ratios, axis, truth))
    dy = wrong.inputs[2]
    if not is_floating(dy):
        return
    for axis in range(dy.ndim):
        n = dy.shape[axis]
        if not 1 < n <= SLICES or 2 * n > truth.size:
            continue
        parts = np.stack([case.pulled(wrong, alone(dy, axis, k)) for k in range(n)])
        flat = where_finite(parts, parts)[0].reshape(n, -1)
        found = np.linalg.lstsq(flat.T, ours.reshape(-1), rcond=None)
        shown = (flat != 0).sum(1)
        ratios = _ratios(found[0], shown > 0, wrong)
        if found[2] == n and ratios is not None and _tells(ratios, shown, 2):
            made = np.tensordot(ratios, parts, 1)
            yield Candidate("counts", _text(ratios, axis, " of dy"), made)


def _ratios(found: np.ndarray, shown: np.ndarray, wrong: Wrong) -> np.ndarray | None:
    """The quotients of small whole numbers next to them, 1 where nothing is shown; None if there
    are none."""
    most, within = (IN_SINGLE, 1e-4) if wrong.single else (LARGEST, 1e-7)
    ratios = []
    for value in np.where(shown, found, 1):
        near = Fraction(float(value)).limit_denominator(most) if value > 0 else Fraction(0)
        if not 0 < near.numerator <= most or abs(float(near) - value) > within * value:
            return None
        ratios.append(float(near))
    return np.array(ratios)


def _tells(ratios: np.ndarray, shown: np.ndarray, ndim: int) -> bool:
    """Whether there is more than one ratio, which no single elements make up."""
    known = set(ratios[shown > 0])
    return len(known) > (1 if ndim > 1 else 2) and (ndim == 1 or (shown > 1).sum() > 1)


def _along(ratios: np.ndarray, axis: int, truth: np.ndarray) -> np.ndarray:
    return ratios.reshape([-1 if k == axis else 1 for k in range(truth.ndim)]) * truth


def _text(ratios: np.ndarray, axis: int, of: str) -> str:
    known = [str(Fraction(r).limit_denominator(LARGEST)) for r in dict.fromkeys(ratios)]
    more = ", …" if len(known) > 4 else ""
    slices = f"slices{of} along axis {axis}"
    return f"divided by another count: {', '.join(known[:4])}{more} times as large in {slices}"
