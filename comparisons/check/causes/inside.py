"""The values of one step of the pullback in other places: in another order, summed over other axes,
left out or taken twice from an index on.

The gradient is linear in what one step of the pullback gives, so that one number tells what it may
have been: along a random direction r, ⟨r, gradient⟩ moves by ⟨s, δ⟩ where the value moves by δ, and
one pass gives the slopes s of all values.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from ....reference.adapters import array, leaves, tensor
from ...verdict.noise import is_floating
from ..traced import BothWays
from .case import Candidate, Case, Wrong
from .closeness import broadcasts, where_finite
from .graphs import LARGE, both_ways_of
from .orders import Named, table
from .slabs import spread_sums

STEPS = 200  # the most of a pullback that are gone through
SIMPLE = 40  # orders of what a step takes, the plainest
FULLY = 200  # exchanges that are computed without being told beforehand
SEEN = 1e-6  # of what is compared along the direction, when it agrees
IN_SINGLE = 1e-4

DIRECTIONS = 48  # along which the gradient is seen
AXES = 5
SPREADING = ("mul", "div", "add", "sub")
Exchange = tuple[str, str, dict[str, torch.Tensor]]  # cause, text, other values by node


class Step(NamedTuple):
    """One value of the pullback, and how the gradient moves with it."""

    node: Any
    name: str
    value: np.ndarray
    slope: np.ndarray
    slopes: np.ndarray  # along all directions


class View:
    """A pullback, and how far the wrong gradient is from the right one along some directions."""

    def __init__(self, both: BothWays, wrong: Wrong) -> None:
        ours, truth = where_finite(wrong.ours, wrong.truth)
        shape = min(DIRECTIONS, truth.size), *truth.shape
        along = np.random.default_rng(11).standard_normal(shape)
        self.both = both
        self.aims = (along * (ours - truth)).reshape(len(along), -1).sum(1)
        self.aim = float(self.aims[0]) if self.aims.size else 0.0
        self.within = IN_SINGLE if wrong.single else SEEN
        slopes = list(both.slopes(wrong.name, list(tensor(along))))
        self.steps = []
        for node in both.backward if slopes else ():
            if (slope := slopes[0].get(node.name)) is not None and slope.numel() > 1:
                every = np.stack([array(s[node.name]) for s in slopes])
                value = array(both.values[node.name])
                self.steps.append(Step(node, both.plain(node.name), value, every[0], every))
        del self.steps[STEPS:]

    def shapes(self, size: int, own: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Its own shape, and those of the other steps with as many elements."""
        others = [s.value.shape for s in self.steps if s.value.size == size]
        return [s for s in dict.fromkeys([own, *others]) if len(s) <= AXES]

    def agrees(self, moved: Any, size: Any) -> Any:
        """Whether what the gradient moves by is what it is wrong by."""
        return abs(moved - self.aim) <= self.within * np.maximum(abs(self.aim), 1e-6 * size)

    def tells(self, step: Step, made: np.ndarray) -> bool:
        terms = step.slope * (made - step.value)
        return bool(self.agrees(terms.sum(), abs(terms).sum()))


def of_one_step(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    """What makes all wrong gradients of one argument of one shape: the values of one call may fit
    by chance."""
    mine = _once(case, wrong)
    for wrongs in case.wrong:
        for other in wrongs:
            if mine and (other.name, other.truth.shape) == (wrong.name, wrong.truth.shape):
                texts = {candidate.text for candidate in _once(case, other)}
                mine = [candidate for candidate in mine if candidate.text in texts]
    yield from mine


def _once(case: Case, wrong: Wrong) -> list[Candidate]:
    """Those that make this one, looked for once though they are asked for again and again."""
    key = "inside", id(wrong)
    if key not in case.known:
        case.known[key] = wrong, []
        case.known[key][1].extend(c for c in _found(case, wrong) if wrong.is_made(c.values))
    found: list[Candidate] = case.known[key][1]
    return found


def _found(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    if sum(a.size for a in leaves(wrong.inputs) if is_floating(a)) > LARGE:
        return
    if (both := both_ways_of(case, wrong)) is None:
        return
    view = View(both, wrong)
    position = list(case.done.order).index(wrong.name)
    told = (_reordered, _summed, _in_part, _of_reordered_operands)
    fully = itertools.islice(itertools.chain(_along_other_axes(view), _saved(view)), FULLY)
    for cause, text, changed in itertools.chain(*(search(view) for search in told), fully):
        try:
            gradient = both.gradients(changed)[position]
        except Exception:  # shapes that do not go together
            continue
        yield Candidate(cause, f"that {text}", gradient)


def _reordered(view: View) -> Iterator[Exchange]:
    """One value in another order, or all of a kind, as in a loop."""
    groups: dict[Any, list[Step]] = {}
    for step in view.steps:
        takes = tuple(map(view.both.plain, (n.name for n in step.node.all_input_nodes)))
        groups.setdefault((step.name, str(step.node.target), step.value.shape, takes), []).append(
            step
        )
    for step in view.steps:
        yield from _in_other_orders(view, [step], "")
    for group in groups.values():
        if len(group) > 1:
            yield from _in_other_orders(view, group, ", each time")


def _in_other_orders(view: View, group: list[Step], times: str) -> Iterator[Exchange]:
    orders = table(group[0].value.shape)
    if not orders or not all(_tells_apart(step.value) for step in group):
        return
    moved, size = np.zeros(len(orders)), 0.0
    taken = np.array([order.taken for order in orders])
    for step in group:
        values = np.concatenate([[0.0], step.value.ravel()])
        moved += values[taken] @ step.slope.ravel() - np.sum(step.value * step.slope)
        size += float(np.sum(abs(step.value * step.slope)))
    for k in np.flatnonzero(view.agrees(moved, size)):
        cause, text, _ = orders[k]
        changed = {s.node.name: tensor(orders[k].of(s.value)) for s in group}
        yield cause, f"with {group[0].name} {text}{times}", changed


def _tells_apart(a: np.ndarray) -> bool:
    """Whether most values are different, or many: a few small numbers fit anywhere by chance."""
    values = np.unique(a[a != 0])
    return values.size > max(2, int(np.count_nonzero(a)) // 4)


def _summed(view: View) -> Iterator[Exchange]:
    """One value summed, or averaged, over axes that it should keep."""
    for step in view.steps:
        for text, made in spread_sums(step.value):
            if view.tells(step, made):
                yield "broadcast", f"with {step.name} {text}", {step.node.name: tensor(made)}


def _in_part(view: View) -> Iterator[Exchange]:
    """One value without its slices from an index on, or up to one; or with them twice."""
    for step in filter(lambda s: _tells_apart(s.value), view.steps):
        terms = step.value * step.slope
        size = float(abs(terms).sum())
        for axis in range(terms.ndim):
            n = terms.shape[axis]
            before = np.cumsum(np.moveaxis(terms, axis, 0).reshape(n, -1).sum(1))[:-1]
            for parts, first in ((before, True), (terms.sum() - before, False)):
                for sign, how in ((-1, "left out"), (1, "taken twice")):
                    for k in np.flatnonzero(view.agrees(sign * parts, size)):
                        slab = slice(k + 1) if first else slice(k + 1, None)
                        made = step.value.copy()
                        made[(slice(None),) * axis + (slab,)] *= 1 + sign
                        where = f"up to index {k}" if first else f"from index {k + 1}"
                        text = f"with {step.name} {how} {where} of {n} along axis {axis}"
                        yield "misplaced", text, {step.node.name: tensor(made)}


def _of_reordered_operands(view: View) -> Iterator[Exchange]:
    """One step at a value of the forward that is in another order."""
    for step in view.steps:
        for taken in dict.fromkeys(step.node.all_input_nodes):
            own = view.both.values.get(taken.name)
            if taken.name not in view.both.forward or not _is_many(own):
                continue
            for cause, text, made in _simple_orders(own):
                try:
                    other = array(view.both.at(step.node, {taken.name: made}))
                except Exception:  # a kernel that does not take it
                    continue
                fits = other.shape == step.value.shape and np.isfinite(other).all()
                if fits and view.tells(step, other):
                    named = f"with {view.both.plain(taken.name)} {text} in {step.name}"
                    yield cause, named, {step.node.name: tensor(other)}


def _along_other_axes(view: View) -> Iterator[Exchange]:
    """What is the same along some axes, as a sum over them is, in the place of what is the same
    along others: a sum over the wrong axes, or an array that is spread along them.

    It is solved for, so that its own factors need not be known; where nothing fits that is the same
    along the right axes, and what fits is told by far more numbers than it has.
    """
    for step in view.steps:
        name = str(step.node.target).partition(".")[2].partition(".")[0]
        if name not in SPREADING or len(step.node.args) < 2 or step.value.ndim > AXES:
            continue
        operands = [view.both.values.get(getattr(a, "name", "")) for a in step.node.args[:2]]
        if not all(isinstance(a, torch.Tensor) and a.is_floating_point() for a in operands):
            continue
        shape = step.value.shape
        for k in (0, 1):
            own, other = (np.broadcast_to(array(operands[i]), shape) for i in (k, 1 - k))
            same = _same(own)
            if not same or (name == "div" and (k or not other.all())):
                continue
            factor = other if name == "mul" else 1 / other if name == "div" else np.ones(shape)
            share = factor * own * (-1 if name == "sub" and k else 1)
            operand = view.both.plain(step.node.args[k].name)
            for text, made in _spread_otherwise(view, step, share, factor, same):
                text = f"with {operand} in {step.name} {text}"
                yield "broadcast", text, {step.node.name: tensor(made)}


def _same(a: np.ndarray) -> tuple[int, ...]:
    """The axes along which there is one value."""
    long = (axis for axis in range(a.ndim) if a.shape[axis] > 1)
    return tuple(axis for axis in long if np.all(a == a.take([0], axis)))


def _spread_otherwise(
    view: View, step: Step, share: np.ndarray, factor: np.ndarray, same: tuple[int, ...]
) -> Iterator[Named]:
    """The value of a step with its share of what is the same along some axes exchanged."""
    constant = [np.ones(share.shape)]  # what a sum takes in, though it is the same along its axes
    for name in view.both.forward:
        a = view.both.values[name]
        if _is_many(a) and broadcasts(tuple(a.shape), share.shape) and _within(a, share, same):
            for power in (1, 2, -1, -2, 3, -3):
                constant.append(np.broadcast_to(array(a) ** float(power), share.shape))
    shape_of = share.shape
    for shape in view.shapes(share.size, shape_of):
        for axes in _sets(shape):
            if shape == share.shape and axes == same:
                continue
            for more in constant:
                if (fit := _fitted(view, step, share, factor * more, axes, shape)) is None:
                    continue
                fewer = shape == share.shape and set(same) < set(axes)
                if not fewer and _fitted(view, step, share, factor, same, shape_of) is not None:
                    return
                there = " and ".join(f"axis {axis}" for axis in axes)
                yield f"of one value along {there}, not {same}", step.value - share + fit
                return


def _within(a: torch.Tensor, share: np.ndarray, same: tuple[int, ...]) -> bool:
    spread = np.broadcast_to(array(a), share.shape)
    return bool((spread > 0).all()) and set(same) <= set(_same(spread))


def _sets(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Some of the axes that are longer than one, the most first: that leaves least to solve."""
    long = [axis for axis in range(len(shape)) if shape[axis] > 1]
    for count in range(len(long), 0, -1):
        yield from itertools.combinations(long, count)


def _fitted(
    view: View,
    step: Step,
    share: np.ndarray,
    factor: np.ndarray,
    axes: tuple[int, ...],
    shape: tuple[int, ...],
) -> np.ndarray | None:
    """What may stand in the place of a share of the value of a step, if that is a factor times what
    is the same along these axes; None where nothing fits."""
    every = (len(step.slopes), *shape)
    rows = (step.slopes * factor).reshape(every).sum(tuple(a + 1 for a in axes), keepdims=True)
    flat = rows.reshape(len(rows), -1)
    if flat.shape[1] > len(flat) // 2:
        return None
    aims = view.aims + (step.slopes * share).reshape(len(rows), -1).sum(1)
    found = np.linalg.lstsq(flat, aims, rcond=1e-10)[0]
    if np.max(abs(flat @ found - aims)) > view.within * np.max(abs(view.aims)):
        return None
    spread = np.broadcast_to(found.reshape(rows.shape[1:]), shape)
    return np.asarray(factor * spread.reshape(factor.shape))


def _saved(view: View) -> Iterator[Exchange]:
    """A value of the forward in another order, wherever the pullback takes it: if that is more than
    one step, or an operation with several results, which is none."""
    seen = {step.node for step in view.steps}
    used: dict[str, int] = {}
    for node in view.both.backward:
        for taken in dict.fromkeys(node.all_input_nodes):
            if taken.name in view.both.forward:  # of an operation with several results: twice
                used[taken.name] = used.get(taken.name, 0) + (1 if node in seen else 2)
    for name, times in used.items():
        if times > 1 and _is_many(own := view.both.values.get(name)):
            for cause, text, made in _simple_orders(own):
                yield cause, f"with {view.both.plain(name)} {text}", {name: made}


def _simple_orders(own: Any) -> Iterator[tuple[str, str, torch.Tensor]]:
    a = array(own)
    for order in table(a.shape)[:SIMPLE]:
        yield order.cause, order.text, tensor(order.of(a))
    yield from (("broadcast", text, tensor(made)) for text, made in spread_sums(a))


def _is_many(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel() > 1
