"""torch's own attention with other settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ..calls import Change, Trace
from .make import argument, with_settings

Changes = Iterator[tuple[str, Change]]


def settings(trace: Trace, k: int) -> Changes:
    call = trace.seen[k]
    if call.name != "scaled_dot_product_attention" or len(call.args) < 3:
        return
    query, key = call.args[:2]
    d = query.shape[-1]
    heads = query.shape[-3] if query.ndim > 2 else 1
    own = call.kwargs.get("scale") or d**-0.5
    for scale in (1.0, 1 / d, d**0.5, (d * heads) ** -0.5, 1 / (d * heads)):
        yield f"scale: {scale:.4g} instead of {own:.4g}", with_settings(scale=scale)
    causal = not call.kwargs.get("is_causal", False)
    yield f"mask: is_causal = {causal}", _masked(None, causal)
    yield "mask: none", _masked(None, False)
    for shift in (-1, 1):
        yield f"mask: causal, off by {shift:+d}", _masked(_triangle(shift, False), False)
    yield "mask: causal, off by −1, the first row as it was", _masked(_triangle(-1, True), False)
    yield "mask: causal the other way round", _masked(_later, False)
    for axis in (-2, -3):
        yield f"order: softmax over axis {axis}", _by_hand(axis, False)
    yield "mask: after the softmax", _by_hand(-1, True)
    if call.kwargs.get("enable_gqa") and query.shape[-3] != key.shape[-3]:
        yield "repeat: keys and values as a whole", _tiled(1, 2)
        yield "repeat: keys as a whole", _tiled(1)
        yield "repeat: values as a whole", _tiled(2)
    for i, j, what in ((0, 1, "queries and keys"), (1, 2, "keys and values")):
        if call.args[i].shape == call.args[j].shape:
            yield f"operand: {what} exchanged", _exchanged(i, j)


def _masked(mask: Callable[[int, int], torch.Tensor] | None, causal: bool) -> Change:
    def change(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
        other = mask(args[0].shape[-2], args[1].shape[-2]) if mask else None
        return function(*args[:3], **{**kwargs, "attn_mask": other, "is_causal": causal})

    return change


def _triangle(diagonal: int, first: bool) -> Callable[[int, int], torch.Tensor]:
    def made(n: int, m: int) -> torch.Tensor:
        mask = torch.ones(n, m, dtype=torch.bool).tril(diagonal)
        mask[0, 0] |= first
        return mask

    return made


def _later(n: int, m: int) -> torch.Tensor:
    return torch.ones(n, m, dtype=torch.bool).triu()


def _by_hand(axis: int, after: bool) -> Change:
    """From products and a softmax, which may be along another axis, or before the mask."""

    def change(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
        query, key, value = args[:3]
        scores = query @ key.mT * (kwargs.get("scale") or query.shape[-1] ** -0.5)
        mask = argument(args, kwargs, 3, "attn_mask")
        if kwargs.get("is_causal"):
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        if mask is None or mask.dtype != torch.bool:
            seen_all = torch.zeros(scores.shape[-2:], dtype=torch.bool)
            hidden, scores = seen_all, scores if mask is None else scores + mask
        else:
            hidden = ~mask
        if after:
            return scores.softmax(axis).masked_fill(hidden, 0.0) @ value
        return scores.masked_fill(hidden, -math.inf).softmax(axis) @ value

    return change


def _tiled(*which: int) -> Change:
    def change(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
        n = args[0].shape[-3] // args[1].shape[-3]
        other = [torch.cat([a] * n, -3) if i in which else a for i, a in enumerate(args)]
        other = [
            a.repeat_interleave(n, -3) if i in (1, 2) and i not in which else a
            for i, a in enumerate(other)
        ]
        return function(*other, **{**kwargs, "enable_gqa": False})

    return change


def _exchanged(i: int, j: int) -> Change:
    def change(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
        other = list(args)
        other[i], other[j] = other[j], other[i]
        return function(*other, **kwargs)

    return change
