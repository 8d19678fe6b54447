"""The form in which a port's submodule takes and gives its tensors, as its parent shows it.

A submodule that both have may take a boolean mask where the original's takes what is added, a list
for a tensor, other axes. What the whole gives it, when that is evaluated at what the original was
given, is the same tensors in another form; so the original's can be given in that form as well.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from ..trees import items, mapped
from .objects import SIMPLE, opened, settled
from .outputs import outputs_of
from .recording import Call, copied, floating, taken
from .state import is_numeric

Way = Callable[[Sequence[torch.Tensor]], torch.Tensor]  # one tensor, made of several
AXES = 5  # of tensors whose axes are tried in every order


class Given(NamedTuple):
    """What a submodule was called with, and its floating results with the keys that lead there."""

    args: Any
    kwargs: Any
    y: list[tuple[str, torch.Tensor]]


class _Made(NamedTuple):
    """How a tensor is made, and of which."""

    way: Way
    of: frozenset[int]
    plain: bool  # it is one of them


@dataclass(frozen=True)
class Form:
    """How a call of the original's is made one of the port's, and the result one of the original's.

    given    what the port's was called with, by its parent
    ways     of its floating tensors in order, None for one that stays as the parent made it
    results  of the original's results, by the keys that lead to them; the port may lack some
    added    arguments of the original's, by number, that are a part of these beside the port's,
             because the port leaves it to its parent to add them
    tied     whether the original's is given one tensor several times
    """

    given: Given
    ways: Sequence[Way | None]
    results: Mapping[str, Way]
    added: Sequence[int]
    tied: bool

    def called(self, module: torch.nn.Module, args: Any, kwargs: Any) -> dict[str, torch.Tensor]:
        """The results of the port's, called with what the original's is called with."""
        theirs = floating((args, kwargs))
        ways = iter(self.ways)

        def made(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            if not is_numeric(leaf):
                return leaf.clone()
            way = next(ways)
            if way is not None:
                return way(theirs)
            wide = torch.promote_types(leaf.dtype, theirs[0].dtype) if theirs else leaf.dtype
            return leaf.detach().to(wide, copy=True)  # no number of the original

        with torch._C.DisableTorchFunction():  # it is no part of what the port computes
            own = opened(mapped(made, (self.given.args, self.given.kwargs)))
        y = [t for _, t in outputs_of(module(*own[0], **own[1]))]
        y += [theirs[i] for i in self.added]
        with torch._C.DisableTorchFunction():
            return {path: way(y) for path, way in self.results.items()}

    def missed(self, call: Call) -> Partly | None:
        """How the original's is called so that it has no gradient of what the port's is not given,
        as of zeros around it; None if the port's is given all."""
        theirs = [torch.zeros_like(t).requires_grad_() for t in floating((call.args, call.kwargs))]
        made = [way(theirs).sum() for way in self.ways if way is not None]
        made += [theirs[i].sum() for i in self.added]
        if made:
            torch.autograd.backward(made)
        seen = [None if t.grad is None else t.grad != 0 for t in theirs]
        if all(mask is None or bool(mask.all()) for mask in seen):
            return None
        return Partly(seen)


@dataclass(frozen=True)
class Partly:
    """A call of which some elements have no gradient.

    seen  those of each floating tensor that have one, None for all
    """

    seen: Sequence[torch.Tensor | None]

    def called(self, module: torch.nn.Module, args: Any, kwargs: Any) -> Any:
        masks = iter(self.seen)

        def made(leaf: Any) -> Any:
            mask = next(masks) if is_numeric(leaf) else None
            return leaf if mask is None else torch.where(mask, leaf, leaf.detach())

        with torch._C.DisableTorchFunction():
            own = opened(mapped(made, (args, kwargs)))
        return module(*own[0], **own[1])


class Watched(contextlib.AbstractContextManager["Watched"]):
    """Keeps what some submodules are given, and give, at each of their calls."""

    def __init__(self, modules: Mapping[str, torch.nn.Module]) -> None:
        self.modules = modules
        self.calls: dict[str, list[Given]] = {name: [] for name in modules}
        self._open: list[Any] = []

    def __enter__(self) -> Watched:
        self._hooks = [
            hook
            for name, module in self.modules.items()
            for hook in (
                module.register_forward_pre_hook(self._before, with_kwargs=True, prepend=True),
                module.register_forward_hook(functools.partial(self._after, name)),
            )
        ]
        return self

    def __exit__(self, *error: Any) -> None:
        for hook in self._hooks:
            hook.remove()

    def _before(self, module: Any, args: Any, kwargs: Any) -> None:
        self._open.append(copied((tuple(args), dict(kwargs)), taken))

    def _after(self, name: str, module: Any, args: Any, y: Any) -> None:
        args, kwargs = settled(self._open.pop())
        y = [(path, t.detach().clone()) for path, t in outputs_of(y)]
        self.calls[name].append(Given(args, kwargs, y))


def form_of(
    given: Given,
    call: Call,
    outputs: Mapping[str, torch.Tensor],
    flat: Collection[int] = (),
    exact: bool = True,
) -> Form | None:
    """The form in which a port's was called, beside a call of the original's and what that gave;
    None if it is the same form, or if it cannot be told: every tensor of which a gradient is asked,
    or another that is the same, has a part in what the port's is given, or is added to a result;
    and one at least of the results is made of the port's. Of those that are `flat`, by their
    numbers among the tensors, the gradient is 0. What is wrong before the call is in what the
    port's was given, so that unless it is to be `exact`, the nearest will do."""
    args, kwargs = call.args, call.kwargs
    theirs = floating((args, kwargs))
    tree = (given.args, given.kwargs)
    ways = _nearest(theirs, floating(tree), exact)
    used = frozenset[int]().union(*(made.of for made in ways if made))
    asked = [i for i, t in enumerate(theirs) if t.requires_grad and i not in flat]
    added = [i for i in asked if not any(i == j or torch.equal(theirs[i], theirs[j]) for j in used)]
    if added and not all(ways):  # what is not told may be these
        return None
    stays = (m is None or (m.plain and m.of == {i}) for i, m in enumerate(ways))
    shapes = [(path, t.shape) for path, t in given.y]
    alike = shapes == [(path, t.shape) for path, t in outputs.items()]
    if alike and _same(tree, (args, kwargs)) and all(stays):
        return None
    elsewhere = any(m and not m.plain and not m.of.isdisjoint(asked) for m in ways)
    results = _results(given.y, outputs, [theirs[i] for i in added], elsewhere)
    if not results:
        return None
    pairs = itertools.combinations(asked, 2)
    tied = any(torch.equal(theirs[i], theirs[j]) for i, j in pairs)
    return Form(given, [made and made.way for made in ways], results, added, tied)


def _results(
    ours: Sequence[tuple[str, torch.Tensor]],
    outputs: Mapping[str, torch.Tensor],
    added: Sequence[torch.Tensor],
    elsewhere: bool,
) -> dict[str, Way]:
    """How the original's results are made of the port's, and of all that is `added`; none, if that
    cannot be. What is of the same shape and stands in the same place is the same, unless its axes
    may be `elsewhere`, as those of the arguments are: else it would be put right where it is
    wrong."""
    given = [t for _, t in ours]
    goals = dict(outputs)
    terms: dict[str, list[int]] = {path: [] for path in outputs}
    for number, term in enumerate(added, len(given)):
        path = _gaining(goals, given, term)
        if path is None:
            return {}
        goals[path] = goals[path] - term
        terms[path].append(number)
    found: dict[str, Way] = {}
    paths = [path for path, _ in ours]
    for number, (path, t) in enumerate(goals.items()):
        i = paths.index(path) if path in paths else number
        if not elsewhere and i < len(ours) and ours[i][1].shape == t.shape:
            found[path] = _one(i)
    rest = {path: t for path, t in goals.items() if path not in found}
    made = _nearest(given, list(rest.values()))
    found |= {path: m.way for path, m in zip(rest, made, strict=True) if m}
    return {path: _beside(found[path], terms[path]) for path in outputs if path in found}


def _gaining(
    goals: Mapping[str, torch.Tensor], ours: Sequence[torch.Tensor], term: torch.Tensor
) -> str | None:
    """The first of the results to which what the port gives comes nearer without a term, or as
    near."""
    wide = [_wide(t) for t in ours]

    def far(goal: torch.Tensor) -> float:
        return _nearest_to(_wide(goal), wide, set())[1]

    fitting = (path for path, goal in goals.items() if goal.shape == term.shape)
    return next((path for path in fitting if far(goals[path] - term) <= far(goals[path])), None)


def _beside(way: Way, numbers: Sequence[int]) -> Way:
    return lambda sources: sum((sources[i] for i in numbers), way(sources))


def _same(tree: Any, other: Any) -> bool:
    """Whether a call is of the same form as another: tensors of the same shapes in the same places,
    and all that is no number of which a gradient may be asked the same."""
    ours, theirs = list(items(tree)), list(items(other))
    return [path for path, _ in ours] == [path for path, _ in theirs] and all(
        _alike(a, b) for (_, a), (_, b) in zip(ours, theirs, strict=True)
    )


def _alike(a: Any, b: Any) -> bool:
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        return type(a) is type(b) and (not isinstance(a, SIMPLE) or a == b)
    if is_numeric(a) and is_numeric(b):
        return a.shape == b.shape
    return a.dtype == b.dtype and torch.equal(a, b)


def _nearest(
    sources: Sequence[torch.Tensor], targets: Sequence[torch.Tensor], exact: bool = False
) -> list[_Made | None]:
    """How tensors are made of others: each by what comes nearest to it, if that is nearer than
    nothing, or by the sum of that and what comes nearest to the rest, if that makes half of its
    digits, as `exact` ones have to be made; of what is as near, by such as no other is made of."""
    wide = [_wide(s) for s in sources]
    used: set[int] = set()
    found: list[_Made | None] = []
    for target in targets:
        goal = _wide(target)
        least = torch.finfo(target.dtype).eps ** 0.5 * float(goal.norm())
        best, far = _nearest_to(goal, wide, used)
        if best and far > least:
            second, rest = _nearest_to(goal - best.way(wide), wide, used)
            made = _sum(best, second) if second and rest <= least else None
            best = made or (None if exact else best)
        used |= best.of if best else set()
        found.append(best)
    return found


def _nearest_to(
    goal: torch.Tensor, wide: Sequence[torch.Tensor], used: set[int]
) -> tuple[_Made | None, float]:
    best, least = None, (float(goal.norm()), True)
    for of, way, plain in _ways([s.shape for s in wide], goal.shape):
        far = (float((way(wide) - goal).norm()), not used.isdisjoint(of))
        if far < least:
            best, least = _Made(way, of, plain), far
    return best, least[0]


def _wide(t: torch.Tensor) -> torch.Tensor:
    return t.detach().to(torch.complex128 if t.is_complex() else torch.float64)


def _sum(one: _Made, other: _Made) -> _Made:
    return _Made(lambda t: one.way(t) + other.way(t), one.of | other.of, False)


def _ways(
    shapes: Sequence[torch.Size], goal: torch.Size
) -> Iterator[tuple[frozenset[int], Way, bool]]:
    """All ways to make a tensor of some shape of others, by layout alone: the plainest first."""
    for i, shape in enumerate(shapes):
        if shape == goal:
            yield frozenset((i,)), _one(i), True
    for i, shape in enumerate(shapes):
        ways = _arranged(shape, goal), _cut(shape, goal), _spread(shape, goal)
        for way in itertools.chain(*ways):
            yield frozenset((i,)), _of(i, way), False
    for first, last in itertools.combinations(range(len(shapes) + 1), 2):
        if last - first > 1:
            for way in _joined(shapes[first:last], goal):
                yield frozenset(range(first, last)), _of(slice(first, last), way), False


def _one(i: int) -> Way:
    return lambda sources: sources[i]


def _of(which: Any, way: Callable[[Any], torch.Tensor]) -> Way:
    return lambda sources: way(sources[which])


def _arranged(shape: torch.Size, goal: torch.Size) -> Iterator[Callable[[Any], torch.Tensor]]:
    """With its axes in another order, joined or parted."""
    if shape.numel() != goal.numel() or max(len(shape), len(goal)) > AXES:
        return
    for order in itertools.permutations(range(len(shape))):
        yield functools.partial(_joined_axes, order=order, goal=goal)
    if len(goal) > len(shape):
        for order in itertools.permutations(range(len(goal))):
            yield functools.partial(_parted_axes, order=order, goal=goal)


def _joined_axes(t: torch.Tensor, order: Sequence[int], goal: torch.Size) -> torch.Tensor:
    return t.permute(tuple(order)).reshape(goal)


def _parted_axes(t: torch.Tensor, order: Sequence[int], goal: torch.Size) -> torch.Tensor:
    back = [order.index(k) for k in range(len(goal))]
    return t.reshape([goal[k] for k in order]).permute(tuple(back))


def _cut(shape: torch.Size, goal: torch.Size) -> Iterator[Callable[[Any], torch.Tensor]]:
    """A part of it along one axis."""
    for axis, size in enumerate(shape):
        others = (*shape[:axis], *shape[axis + 1 :])
        if others == tuple(goal):
            yield from (functools.partial(torch.select, dim=axis, index=i) for i in range(size))
        if len(goal) == len(shape) and others == (*goal[:axis], *goal[axis + 1 :]):
            for start in range(size - goal[axis] + 1):
                yield functools.partial(torch.narrow, dim=axis, start=start, length=goal[axis])


def _spread(shape: torch.Size, goal: torch.Size) -> Iterator[Callable[[Any], torch.Tensor]]:
    """Once more for each place along axes that it has not, or has one place on."""
    missing = len(goal) - len(shape)
    if shape.numel() >= goal.numel() or missing < 0:
        return
    if all(n in (1, m) for n, m in zip(shape, goal[missing:], strict=True)):
        yield lambda t: t.expand(goal)


def _joined(shapes: Sequence[torch.Size], goal: torch.Size) -> Iterator[Callable[[Any], Any]]:
    """Several, one after another along an axis, or along a new one."""
    for axis in range(len(goal)):
        rest = (*goal[:axis], *goal[axis + 1 :])
        if all(tuple(s) == rest for s in shapes) and len(shapes) == goal[axis]:
            yield functools.partial(torch.stack, dim=axis)
        if (
            all(len(s) == len(goal) and (*s[:axis], *s[axis + 1 :]) == rest for s in shapes)
            and sum(s[axis] for s in shapes) == goal[axis]
        ):
            yield functools.partial(torch.cat, dim=axis)
