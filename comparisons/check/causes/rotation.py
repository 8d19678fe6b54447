"""Pairs of elements that are turned by another angle, as complex numbers are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .case import Case, Cause, Wrong, at
from .cotangent import redrawn


def of_pairs(case: Case) -> Iterator[Cause]:
    """Each pair has the right length, and is turned by an angle that does not depend on dy: the
    halves of an axis, of its beginning, or neighbours on it, as of rotary embeddings (Su et al.,
    2021). Not where y is wrong as well."""
    for wrongs in () if case.values else case.wrong:
        first = wrongs[0]
        for text, pairs in _ways(first.truth.shape):
            if all(_is_turned(case, wrong, pairs) for wrong in wrongs):
                turned = "turned by another angle than they should be"
                cause = "variant" if _of_another_table(first, pairs) else "rotation"
                yield Cause(cause, f"the gradient of {first.name} has its {text} {turned}")


Pairs = tuple[int, list[int], list[int]]  # an axis, and the two of each pair along it


def _ways(shape: tuple[int, ...]) -> Iterator[tuple[str, Pairs]]:
    for axis in reversed(range(len(shape))):
        n = shape[axis]
        for length in range(n - n % 2, 3, -2):
            half = length // 2
            which = "halves" if length == n else f"first {half} and next {half} elements"
            pairs = axis, list(range(half)), list(range(half, length))
            yield f"{which} along axis {axis}", pairs
        if n > 1:
            even = list(range(0, n - 1, 2))
            yield f"neighbours along axis {axis}", (axis, even, [k + 1 for k in even])


def _is_turned(case: Case, wrong: Wrong, pairs: Pairs) -> bool:
    args, kwargs, dy = wrong.inputs
    if wrong.truth.ndim <= pairs[0] or wrong.truth.shape[pairs[0]] <= max(pairs[2]):
        return False
    other = args, kwargs, redrawn(dy)
    angles = _turn(wrong.ours, wrong.truth, pairs, wrong.single)
    if angles is None or not np.any(abs(angles.imag) > 1e-3):
        return False
    ours, truth = at(case.ours, other, wrong.name), at(case.truth, other, wrong.name)
    if ours is None or truth is None:
        return False
    again = _turn(ours, truth, pairs, wrong.single)
    return again is not None and bool(np.all(abs(again - angles) < _within(wrong.single)))


def _of_another_table(wrong: Wrong, pairs: Pairs) -> bool:
    """Whether what should be dy turned back is dy turned back by an angle that is none of the right
    ones with another sign: another base, offset or scale."""
    dy = wrong.inputs[2]
    if not isinstance(dy, np.ndarray) or dy.shape != wrong.truth.shape:
        return False
    right, ours = (_turn(a, dy, pairs, wrong.single) for a in (wrong.truth, wrong.ours))
    if right is None or ours is None:
        return False
    return bool(np.any(abs(ours - right.conj()) > _within(wrong.single)))


def _turn(ours: np.ndarray, truth: np.ndarray, pairs: Pairs, single: bool) -> np.ndarray | None:
    """By what each pair is turned, as a complex number of length 1; None where a length is wrong,
    or an element that is of no pair, or where both but change places, as also where one is 0, or
    signs."""
    axis, one, two = pairs
    a, b = (np.moveaxis(np.asarray(t, float), axis, -1) for t in (ours, truth))
    rest = [k for k in range(a.shape[-1]) if k not in {*one, *two}]
    within = _within(single)
    if not np.allclose(a[..., rest], b[..., rest], within, within):
        return None
    p, q = (t[..., one] + 1j * t[..., two] for t in (a, b))
    if not np.all(np.isfinite(p)) or not np.all(q.real * q.imag):
        return None
    places = np.allclose(p, 1j * q.conj(), within, within)
    if places or np.allclose(abs(a), abs(b), within, within):
        return None
    turn = p / q
    return turn if np.all(abs(abs(turn) - 1) < within) else None


def _within(single: bool) -> float:
    return 1e-3 if single else 1e-7
