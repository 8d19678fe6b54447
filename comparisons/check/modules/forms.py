"""The form in which a port's submodule takes and gives its tensors, as its parent shows it.

A submodule that both have may take a boolean mask where the original's takes what is added, a list
for a tensor, other axes. What its parent gives it, when that is evaluated at what the original's
was given, is the same tensors in another form; so the original's can be given in that form as well.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from ....reference.adapters import is_differentiable
from ..trees import items, mapped
from .objects import boxed, opened, settled
from .recording import floating

Way = Callable[[Sequence[torch.Tensor]], torch.Tensor]  # one tensor, made of several
SIMPLE = (bool, int, float, str, type(None))
AXES = 5  # of tensors whose axes are tried in every order


class Given(NamedTuple):
    """What a submodule was called with, and what it gave."""

    args: Any
    kwargs: Any
    y: Any


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
    results  of the original's results
    tied     whether the original's has several times what the port's has once
    """

    given: Given
    ways: Sequence[Way | None]
    results: Sequence[Way]
    tied: bool = False

    def called(self, module: torch.nn.Module, args: Any, kwargs: Any) -> tuple[torch.Tensor, ...]:
        """The floating results of the port's, called with what the original's is called with."""
        theirs = floating((args, kwargs))
        ways = iter(self.ways)

        def made(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            if not is_differentiable(leaf):
                return leaf.clone()
            way = next(ways)
            if way is not None:
                return way(theirs)
            return leaf.to(torch.promote_types(leaf.dtype, theirs[0].dtype), copy=True)

        with torch._C.DisableTorchFunction():  # it is no part of what the port computes
            own = mapped(made, (self.given.args, self.given.kwargs))
            own = opened(own)
        y = floating(module(*own[0], **own[1]))
        with torch._C.DisableTorchFunction():
            return tuple(way(y) for way in self.results)


class Watched(contextlib.AbstractContextManager["Watched"]):
    """Keeps what some submodules are given, and give, at each of their calls."""

    def __init__(self, modules: Mapping[str, torch.nn.Module]) -> None:
        self.modules = modules
        self.calls: dict[str, list[Given]] = {name: [] for name in modules}
        self._open: list[Any] = []  # what those were given that are not through

    def __enter__(self) -> Watched:
        self._hooks = [
            hook
            for name, module in self.modules.items()
            for hook in (
                module.register_forward_pre_hook(self._before, with_kwargs=True, prepend=True),
                module.register_forward_hook(
                    functools.partial(self._after, name), with_kwargs=True
                ),
            )
        ]
        return self

    def __exit__(self, *error: Any) -> None:
        for hook in self._hooks:
            hook.remove()

    def _after(self, name: str, module: Any, args: Any, kwargs: Any, y: Any) -> None:
        taken, settings = settled(self._open.pop())
        self.calls[name].append(Given(taken, settings, mapped(_kept, y)))

    def _before(self, module: Any, args: Any, kwargs: Any) -> None:
        self._open.append(boxed(mapped(_kept, (tuple(args), dict(kwargs))), _kept))


def form_of(given: Given, args: Any, kwargs: Any, outputs: Sequence[torch.Tensor]) -> Form | None:
    """The form in which a port's was called, beside what the original's was called with, and what
    that gave; None if it is the same form, or if it cannot be told: of each tensor of which a
    gradient is asked, or of another that is the same, one of the port's has to be made, and each
    result of the port's."""
    theirs = floating((args, kwargs))
    tree = (given.args, given.kwargs)
    if any(t.is_complex() for t in (*theirs, *floating(tree), *floating(given.y), *outputs)):
        return None
    ways = _nearest(theirs, floating(tree))
    used = frozenset[int]().union(*(made.of for made in ways if made))
    unused = [t for i, t in enumerate(theirs) if t.requires_grad and i not in used]
    if not all(any(torch.equal(t, theirs[i]) for i in used) for t in unused):
        return None
    stays = (m is None or (m.plain and m.of == {i}) for i, m in enumerate(ways))
    if _same(tree, (args, kwargs)) and all(stays):
        return None
    ours = floating(given.y)
    elsewhere = [
        m for m in ways if m and not m.plain and any(theirs[i].requires_grad for i in m.of)
    ]
    if not elsewhere and [t.shape for t in ours] == [t.shape for t in outputs]:
        results: list[Way | None] = [_one(i) for i in range(len(ours))]
    else:
        results = [made and made.way for made in _nearest(ours, outputs)]
    found = [way for way in results if way is not None]
    if len(found) < len(results):
        return None
    return Form(given, [made and made.way for made in ways], found, tied=bool(unused))


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
    if is_differentiable(a) and is_differentiable(b):
        return a.shape == b.shape
    return a.dtype == b.dtype and torch.equal(a, b)


def _nearest(
    sources: Sequence[torch.Tensor], targets: Sequence[torch.Tensor]
) -> list[_Made | None]:
    """How tensors are made of others: each by what comes nearest to it, if that is nearer than
    nothing; of what is as near, by such as no other is made of."""
    wide = [s.detach().double() for s in sources]
    used: set[int] = set()
    found: list[_Made | None] = []
    for target in targets:
        goal = target.detach().double()
        best, least = None, (float(goal.norm()), True)
        for of, way, plain in _ways([s.shape for s in wide], goal.shape):
            far = (float((way(wide) - goal).norm()), not used.isdisjoint(of))
            if far < least:
                best, least = _Made(way, of, plain), far
        used |= best.of if best else set()
        found.append(best)
    return found


def _ways(
    shapes: Sequence[torch.Size], goal: torch.Size
) -> Iterator[tuple[frozenset[int], Way, bool]]:
    """All ways to make a tensor of some shape of others, by layout alone: the plainest first."""
    for i, shape in enumerate(shapes):
        if shape == goal:
            yield frozenset((i,)), _one(i), True
    for i, shape in enumerate(shapes):
        for way in itertools.chain(_arranged(shape, goal), _cut(shape, goal)):
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
        yield lambda t, order=order: t.permute(order).reshape(goal)
    if len(goal) > len(shape):
        for order in itertools.permutations(range(len(goal))):
            parted = [goal[k] for k in order]
            back = [order.index(k) for k in range(len(goal))]
            yield lambda t, parted=parted, back=back: t.reshape(parted).permute(back)


def _cut(shape: torch.Size, goal: torch.Size) -> Iterator[Callable[[Any], torch.Tensor]]:
    """A part of it along one axis."""
    for axis, size in enumerate(shape):
        others = (*shape[:axis], *shape[axis + 1 :])
        if others == tuple(goal):
            yield from (lambda t, i=i, axis=axis: t.select(axis, i) for i in range(size))
        if len(goal) == len(shape) and others == (*goal[:axis], *goal[axis + 1 :]):
            for start in range(size - goal[axis] + 1):
                yield lambda t, start=start, axis=axis: t.narrow(axis, start, goal[axis])


def _joined(shapes: Sequence[torch.Size], goal: torch.Size) -> Iterator[Callable[[Any], Any]]:
    """Several, one after another along an axis, or along a new one."""
    first = shapes[0]
    for axis in range(len(goal)):
        rest = (*goal[:axis], *goal[axis + 1 :])
        if all(tuple(s) == rest for s in shapes) and len(shapes) == goal[axis]:
            yield lambda several, axis=axis: torch.stack(tuple(several), axis)
        if (
            len(first) == len(goal)
            and all(len(s) == len(goal) and (*s[:axis], *s[axis + 1 :]) == rest for s in shapes)
            and sum(s[axis] for s in shapes) == goal[axis]
        ):
            yield lambda several, axis=axis: torch.cat(tuple(several), axis)


def _kept(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf
