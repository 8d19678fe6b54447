"""torch's own GRU, written out with the reset gate in another place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ..calls import Change, Trace

Changes = Iterator[tuple[str, Change]]


def exchanged(trace: Trace, k: int) -> Changes:
    if trace.seen[k].name == "gru":
        yield "order: reset before the product with the state, not after", _reset_first


def _reset_first(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
    """By torch's arguments: of a packed sequence the lengths of the steps come second."""
    packed = not args[1].is_floating_point()
    if packed:
        state, weights, biased, layers, _, _, both = args[2:]
        steps, axis = args[0].split(args[1].tolist()), 0
    else:
        state, weights, biased, layers, _, _, both, first = args[1:]
        axis = int(first)
        steps = args[0].unbind(axis)
    each, ends = (4 if biased else 2), []
    for layer in range(layers):
        ways = []
        for way in range(1 + both):
            n = layer * (1 + both) + way
            own = weights[n * each : (n + 1) * each]
            ys, end = _one_way(steps, state[n], own, backwards=bool(way))
            ways.append(ys)
            ends.append(end)
        steps = [torch.cat(of, -1) for of in zip(*ways, strict=True)]
    y = torch.cat(steps) if packed else torch.stack(steps, axis)
    return y, torch.stack(ends)


def _one_way(
    steps: Sequence[torch.Tensor],
    state: torch.Tensor,
    weights: Sequence[torch.Tensor],
    backwards: bool,
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """What a layer gives at each step, and its last state; later steps may have fewer rows."""
    w, u, *biases = weights
    b, c = biases or (w.new_zeros(len(w)), w.new_zeros(len(w)))
    (u_r, u_z, u_n), (c_r, c_z, c_n) = u.chunk(3), c.chunk(3)
    ys = []
    for x in reversed(steps) if backwards else steps:
        own, rest = state[: len(x)], state[len(x) :]
        x_r, x_z, x_n = (x @ w.T + b).chunk(3, -1)
        reset = torch.sigmoid(x_r + own @ u_r.T + c_r)
        update = torch.sigmoid(x_z + own @ u_z.T + c_z)
        new = torch.tanh(x_n + (reset * own) @ u_n.T + c_n)
        y = (1 - update) * new + update * own
        ys.append(y)
        state = torch.cat([y, rest])
    return ys[::-1] if backwards else ys, state
