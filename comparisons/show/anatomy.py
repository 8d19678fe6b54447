"""What torch makes of an op: the nodes of its graph, and the functions of ATen that it runs."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ...reference.adapters import leaves, tensor
from .. import ops
from ..ops import evaluate


class Recorder(TorchDispatchMode):
    """The names of all that ATen is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = str(function).removeprefix("aten.").rpartition(".")[0]
        if name not in ("lift_fresh", "detach"):  # these compute nothing
            self.names.append(name)
        return function(*args, **kwargs or {})


def anatomy(op: str) -> tuple[list[str], list[str], list[str]]:
    """What torch makes of the op's first call: the nodes of its graph from the last one back, and
    the functions of ATen that it runs forward and backward."""
    _, row = next(ops.named(op).rows())
    args, kwargs, dy = evaluate.drawn(op, row, "float64", 0)
    sources = []

    def source(leaf: Any) -> torch.Tensor:
        sources.append(tensor(leaf).requires_grad_())
        return sources[-1]

    with Recorder() as forward:
        y = evaluate.by_torch(op, args, kwargs, source)
    pairs = [(o, tensor(d)) for o, d in zip(leaves(y), leaves(dy), strict=True) if d is not None]
    nodes, todo = [], [o.grad_fn for o, _ in pairs]
    for node in todo:  # it grows meanwhile
        if node is not None and node not in nodes:
            nodes.append(node)
            todo += [behind for behind, _ in node.next_functions]
    with Recorder() as backward:
        if pairs:
            outputs, cotangents = zip(*pairs, strict=True)
            torch.autograd.grad(outputs, sources, cotangents, allow_unused=True)
    names = [node.name().rpartition("::")[2] for node in nodes]
    return [n for n in names if n != "AccumulateGrad"], forward.names, backward.names
