"""What each element of dy contributes, at other places than it should."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...verdict.noise import is_floating
from .case import Case, Cause, Wrong

MOST = 512  # elements of dy, whose gradients are computed one by one
FIRST = 3  # elements of dy of which another's may stand somewhere, before any that are whole

Index = tuple[int, ...]


def elsewhere(case: Case) -> Iterator[Cause]:
    """Every number that an element of dy contributes is one that it should contribute, but some
    stand elsewhere: a wrong index, stride or offset of what is gathered and scattered. Not where y
    is wrong as well."""
    for wrongs in () if case.values else case.wrong:
        places = [_first_place(case, wrong) for wrong in wrongs]
        if places[0] is not None and all(places):
            here, there = places[0]
            text = f"an element of dy contributes at {here} what belongs at {there}"
            yield Cause("misplaced", f"the gradient of {wrongs[0].name}: {text}")


def _first_place(case: Case, wrong: Wrong) -> tuple[Index, Index] | None:
    """The first place where something stands that belongs elsewhere, and where that is; None where
    more is wrong than places are, or nothing is left out where it belongs."""
    args, kwargs, dy = wrong.inputs
    if not case.done.reference or not is_floating(dy) or not 1 < dy.size <= MOST:
        return None
    known, foreign = [], []  # what is right, and what stands where it does not belong
    found: tuple[Index, Index] | None = None
    own = others = 0  # elements of dy of which all stands elsewhere, or some is another's
    lost = False
    for k in range(dy.size):
        only = np.zeros_like(dy)
        only.flat[k] = 1.0
        ours = np.asarray(case.ours((args, kwargs, only))[wrong.name], float).ravel()
        truth = case.pulled(wrong, only).ravel()
        within = (1e-5 if wrong.single else 1e-9) * float(np.max(abs(truth), initial=0))
        off = abs(ours - truth) > within
        moved = off & (abs(ours) > within)
        lost |= bool(np.any(off & (abs(truth) > within)))
        known.append(truth[abs(truth) > within])
        if not moved.any():
            continue
        away = _away(ours[moved], truth)
        own += bool((away <= within).all())
        others += bool((away > within).any())
        if others > own + FIRST:
            return None
        foreign.append(ours[moved][away > within])
        if found is None and away[0] <= within:
            here = int(np.argmax(moved))
            there = int(np.argmin(abs(truth - ours[here])))
            found = _index(here, wrong), _index(there, wrong)
    # At an edge a part of what is moved may belong to nothing, but it is of a neighbour's.
    rest, every = np.concatenate(foreign or [[]]), np.concatenate(known)
    within = (1e-5 if wrong.single else 1e-9) * float(np.max(abs(every), initial=0))
    if not lost or others > own or (rest.size and _away(rest, every).max() > within):
        return None
    return found


def _away(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How far each value is from the nearest of the others."""
    ranked = np.concatenate([[-np.inf], np.sort(others), [np.inf]])
    place = np.searchsorted(ranked, values)
    return np.minimum(abs(values - ranked[place - 1]), abs(ranked[place] - values))


def _index(flat: int, wrong: Wrong) -> Index:
    return tuple(map(int, np.unravel_index(flat, wrong.truth.shape)))
