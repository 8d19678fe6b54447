"""Rotary positions: what is turned by the cosines and sines of angles, turned otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from .....reference.adapters import leaves
from ..calls import Called, Change, Trace
from ..recording import is_asked

Changes = Iterator[tuple[str, Change]]
JOINS = ("add", "cat", "stack", "flatten", "reshape", "view", "type_as", "to", "transpose")
BASES = (1e2, 1e3, 1e4, 1e5, 5e5, 1e6, 1e7)
REACH = 40  # calls that a rotation is made of, at most
# What a rotation is made into: of the angles, (…, places, halves) with 1 for the axes along which
# they do not differ, other ones.
Way = Callable[[torch.Tensor], torch.Tensor]


def exchanged(trace: Trace, k: int) -> Changes:
    """A rotation is known by what it does, however it is composed: each two numbers of a result are
    those of one from before, turned by angles that are the same for all of a batch."""
    call = trace.seen[k]
    if not trace.has_angles or call.name not in JOINS or not _is_wide(call.y):
        return
    found = _rotated(trace, k)
    if found is None:
        return
    where, halves = found
    yield f"rope: of {'pairs' if halves else 'halves'}", _turned(where, halves, not halves, _same)
    yield "rope: turned the other way round", _turned(where, halves, halves, torch.neg)
    yield "rope: not turned", _turned(where, halves, halves, torch.zeros_like)
    for by in (-1, 1):
        yield f"rope: counted from {by:+d} on", _turned(where, halves, halves, _moved(by))
    for base in BASES:
        yield f"rope: base {base:g}", _turned(where, halves, halves, _based(base))


def _is_wide(y: Any) -> bool:
    wide = isinstance(y, torch.Tensor) and y.ndim > 1 and y.shape[-1] % 2 == 0
    return bool(wide and y.is_floating_point() and is_asked(y) and y.shape[-1])


def _rotated(trace: Trace, k: int) -> tuple[tuple[int, int], bool] | None:
    """Of which result from before, and whether by halves."""
    y = trace.seen[k].y.detach()
    for j in range(k - 1, max(-1, k - REACH), -1):
        for i, x in enumerate(leaves(trace.seen[j].y)):
            if _is_wide(x) and x.shape == y.shape and _as_long(x.detach(), y):
                for halves in (True, False):
                    if _angles(x.detach(), y, halves) is not None:
                        return (j, i), halves
    return None


def _as_long(x: torch.Tensor, y: torch.Tensor) -> bool:
    """Whether one may be the other, turned: this only proposes, the floors decide."""
    ours, theirs = (t.square().sum(-1) for t in (x, y))
    near = 64 * torch.finfo(x.dtype).eps
    return bool(torch.allclose(ours, theirs, rtol=near, atol=0.0)) and not torch.equal(x, y)


def _two(x: torch.Tensor, halves: bool) -> tuple[torch.Tensor, torch.Tensor]:
    if halves:
        a, b = x.chunk(2, -1)
        return a, b
    return x[..., 0::2], x[..., 1::2]


def _angles(x: torch.Tensor, y: torch.Tensor, halves: bool) -> torch.Tensor | None:
    """By which each two numbers are turned, if they are all turned alike along the other axes but
    one; None if that is not so."""
    (a, b), (c, d) = _two(x, halves), _two(y, halves)
    along, across, length = a * c + b * d, a * d - b * c, a * a + b * b
    near = 1024 * torch.finfo(x.dtype).eps * length.max()
    for place in range(x.ndim - 2, -1, -1):
        rest = [axis for axis in range(x.ndim - 1) if axis != place]
        sums = [t.sum(rest, keepdim=True) if rest else t for t in (across, along)]
        angles = torch.atan2(*sums)
        left = along - length * angles.cos(), across - length * angles.sin()
        if rest and all(bool((t.abs() <= near).all()) for t in left):
            return angles
    return None


def _turned(where: tuple[int, int], halves: bool, into: bool, way: Way) -> Change:
    j, i = where

    def change(function: Any, args: Any, kwargs: Any, seen: Sequence[Called]) -> Any:
        x, y = leaves(seen[j].y)[i], function(*args, **kwargs)
        angles = _angles(x.detach(), y.detach(), halves)
        if angles is None:
            raise LookupError
        angles = way(angles)
        a, b = _two(x, into)
        cos, sin = angles.cos(), angles.sin()
        turned = a * cos - b * sin, b * cos + a * sin
        return torch.cat(turned, -1) if into else torch.stack(turned, -1).flatten(-2)

    return change


def _same(angles: torch.Tensor) -> torch.Tensor:
    return angles


def _places(angles: torch.Tensor) -> int:
    """The axis along which they differ."""
    return next(axis for axis in range(angles.ndim - 1) if angles.shape[axis] > 1)


def _moved(by: int) -> Way:
    """At another place, all steps being as wide as the first."""

    def way(angles: torch.Tensor) -> torch.Tensor:
        axis = _places(angles)
        first, second = (angles.narrow(axis, i, 1) for i in (0, 1))
        return angles + by * (second - first)

    return way


def _based(base: float) -> Way:
    """At the same places, which are counted from 0, with the frequencies of another base."""

    def way(angles: torch.Tensor) -> torch.Tensor:
        axis, half = _places(angles), angles.shape[-1]
        along = [-1 if i == axis else 1 for i in range(angles.ndim)]
        places = torch.arange(angles.shape[axis], dtype=angles.dtype).reshape(along)
        return places * base ** (-torch.arange(half, dtype=angles.dtype) / half)

    return way
