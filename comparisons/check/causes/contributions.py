"""What each element of dy contributes to a gradient, one by one: kept or lost, of the wrong sign,
at other places than it should, or too much.

A gradient is linear in dy, so that these are all numbers that it is made of, whatever the function
is composed of and however its backward pass is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from ...verdict.noise import is_floating
from .case import Case, Cause, Wrong

MOST = 512  # elements of dy, whose gradients are computed one by one
TOLD = 8  # different numbers that do not stand anywhere by chance

Index = tuple[int, ...]
Said = tuple[str, str]  # cause, text


class Contributions(NamedTuple):
    """What each element of dy contributes to each of a gradient, a row for each of dy.

    within  what is no more than rounding
    """

    ours: np.ndarray
    truth: np.ndarray
    within: float
    shape: Index  # of the gradient

    @property
    def here(self) -> np.ndarray:
        return np.asarray(abs(self.ours) > self.within)

    @property
    def due(self) -> np.ndarray:
        return np.asarray(abs(self.truth) > self.within)

    @property
    def off(self) -> np.ndarray:
        return np.asarray(abs(self.ours - self.truth) > self.within)

    @property
    def less(self) -> np.ndarray:
        """Where a part is left of what is due."""
        smaller = abs(self.ours) < abs(self.truth)
        return np.asarray(self.here & self.off & smaller & (self.ours * self.truth > 0))


def one_by_one(case: Case) -> Iterator[Cause]:
    """The same kind at all wrong gradients of an argument; of what was overwritten at those of all
    arguments, as nothing follows from a last step that adds up. Not where y is wrong as well."""
    wrong = [] if case.values else case.wrong
    for kind in KINDS:
        for first, *others in wrong:
            if kind is _overwritten:
                others = [w for wrongs in wrong for w in wrongs if w is not first]
            said = _said(kind, case, first)
            if said is not None and all(_said(kind, case, other) for other in others):
                yield Cause(said[0], f"the gradient of {first.name}: {said[1]}")


def _said(kind: Kind, case: Case, wrong: Wrong) -> Said | None:
    c = _contributions(case, wrong)
    return kind(c) if c is not None else None


def _contributions(case: Case, wrong: Wrong) -> Contributions | None:
    """Computed once."""
    key = "contributions", id(wrong)
    if key not in case.known:
        case.known[key] = None
        case.known[key] = _pulled(case, wrong)
    found: Contributions | None = case.known[key]
    return found


def _pulled(case: Case, wrong: Wrong) -> Contributions | None:
    args, kwargs, dy = wrong.inputs
    if not case.done.reference or not is_floating(dy) or not 1 < dy.size <= MOST:
        return None
    ours, truth = np.zeros((2, dy.size, wrong.truth.size))
    for k in range(dy.size):
        only = np.zeros_like(dy)
        only.flat[k] = 1.0
        ours[k] = case.ours((args, kwargs, only))[wrong.name].ravel()
        truth[k] = case.pulled(wrong, only).ravel()
    within = (1e-5 if wrong.single else 1e-9) * float(np.max(abs(truth), initial=0))
    made = Contributions(ours, truth, within, wrong.truth.shape)
    return made if np.isfinite(ours).all() and np.isfinite(truth).all() and within else None


def _overwritten(c: Contributions) -> Said | None:
    """Each is kept, or lost, in the whole or in part, and in one order of the elements of dy those
    that are lost come before one that is kept: where indices repeat, or windows overlap."""
    kept, lost = c.here & c.due & (~c.off | c.less), c.due & ~c.here
    if np.any(c.off & ~lost & ~c.less) or not np.any(lost & kept.any(0)):
        return None
    if (said := _cut_short(c, kept, lost)) is not None:
        return said
    lost &= kept.any(0)
    place = np.arange(len(kept))[:, None]
    last = np.where(kept, place, -1).max(0)
    first = np.where(kept, place, len(kept)).min(0)
    in_order = np.all(~lost | (place < last)) or np.all(~lost | (place > first))
    if not in_order and not _has_order(lost, kept):
        return None
    at = int(np.argmax(lost.any(0)))
    these = f"{int(lost[:, at].sum())} of {int(c.due[:, at].sum())} contributions"
    return "overwritten", f"at {_index(at, c.shape)} {these} of elements of dy are overwritten"


def _cut_short(c: Contributions, kept: np.ndarray, lost: np.ndarray) -> Said | None:
    """Lost is the last, or the first, place of elements of dy alone, where none that has as many
    places keeps its own: a window, or a mask, that ends too early."""
    many = c.due.sum(1)
    as_many = (many >= many[lost.any(1)].min())[:, None]
    for which, step in (("last", -1), ("first", 1)):
        end = np.zeros_like(lost)
        far = np.argmax(c.due[:, ::step], axis=1)
        end[np.arange(len(end)), far if step > 0 else end.shape[1] - 1 - far] = True
        if not np.any(lost & ~end) and not np.any((kept & end & as_many)[:, lost.any(0)]):
            return "misplaced", f"the {which} place of elements of dy, which contributes nothing"
    return None


def _has_order(lost: np.ndarray, kept: np.ndarray) -> bool:
    """Whether all that are lost can come before all that are kept in their columns."""
    before = (lost.astype(float) @ kept.T.astype(float)) > 0
    np.fill_diagonal(before, False)
    while len(before):
        free = ~before.any(0)
        if not free.any():
            return False
        before = before[~free][:, ~free]
    return True


def _of_the_wrong_sign(c: Contributions) -> Said | None:
    """Each is right, or of the wrong sign."""
    if np.any(abs(c.ours + c.truth)[c.off] > c.within) or not np.any(c.due & ~c.off):
        return None
    k, at = np.argwhere(c.off)[0]
    return (
        "sign",
        f"what element {k} of dy contributes at {_index(at, c.shape)} is of the wrong sign",
    )


def _turned(c: Contributions) -> Said | None:
    """What each element of dy should contribute to another, that contributes to it."""
    if c.truth.shape[0] != c.truth.shape[1] or np.any(abs(c.ours - c.truth.T) > c.within):
        return None
    return "transpose", "that of the linear map dy ↦ gradient, transposed"


def _elsewhere(c: Contributions) -> Said | None:
    """Every number that an element of dy contributes is one that it should contribute, but some
    stand elsewhere: a wrong index, stride or offset of what is gathered and scattered."""
    moved = c.off & c.here
    if not moved.any() or not np.any(c.off & c.due):
        return None
    away = np.zeros(c.ours.shape)
    for k in np.flatnonzero(moved.any(1)):
        away[k, moved[k]] = _away(c.ours[k, moved[k]], c.truth[k])
    foreign = moved & (away > c.within)
    every = c.truth[c.due]
    own, others = (moved & ~foreign).any(1).sum(), foreign.any(1).sum()
    nowhere = foreign.copy()
    nowhere[foreign] = _away(c.ours[foreign], every) > c.within
    # At an edge a part of what is moved may belong to nothing, but other elements show the rest.
    if nowhere.any() and 2 * nowhere.any(1).sum() > own:
        return None
    different = np.unique(np.round(abs(every) / (4 * c.within))).size
    if others > own and different < TOLD:
        return None
    k, at = np.argwhere(moved & ~nowhere)[0]
    row = k if not foreign[k, at] else int(np.argmin(abs(c.truth - c.ours[k, at]).min(1)))
    there = int(np.argmin(abs(c.truth[row] - c.ours[k, at])))
    here, there_ = _index(at, c.shape), _index(there, c.shape)
    what = f"what belongs at {there_}" if row == k else f"what belongs to another, at {there_}"
    return "misplaced", f"an element of dy contributes at {here} {what}"


def _too_much(c: Contributions) -> Said | None:
    """Nothing is less, but some contribute where they should not, and more where they should."""
    new = c.here & ~c.due
    more = new | ((c.ours * c.truth > 0) & (abs(c.ours) > abs(c.truth)))
    if not new.any() or np.any(c.off & ~more):
        return None
    k, at = np.argwhere(new)[0]
    return "extra term", f"element {k} of dy contributes at {_index(at, c.shape)}, and should not"


Kind = Callable[[Contributions], Said | None]
KINDS: tuple[Kind, ...] = (_overwritten, _of_the_wrong_sign, _turned, _too_much, _elsewhere)


def _away(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How far each value is from the nearest of the others."""
    ranked = np.concatenate([[-np.inf], np.sort(others), [np.inf]])
    place = np.searchsorted(ranked, values)
    return np.minimum(abs(values - ranked[place - 1]), abs(ranked[place] - values))


def _index(flat: int, shape: Index) -> Index:
    return tuple(map(int, np.unravel_index(flat, shape)))
