"""A function of torch as torch's decompositions write it, which can be run again with paths cut."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch._decomp import decomposition_table
from torch.fx.experimental.proxy_tensor import make_fx

from ...reference.adapters import array, leaves, tensor, tree_map
from .. import ops
from ..verdict.noise import is_floating

# Operations of torch's core set that are compositions nevertheless.
FUSED = {name for op in map(ops.named, ops.names()) for name in op.facts.fused}


# All others of the core set stay as they are, for they have a derivative of their own.
TABLE = {
    op: parts
    for op, parts in decomposition_table.items()
    if isinstance(op, torch._ops.OpOverload)
    and (torch.Tag.core not in op.tags or op._schema.name.split("::")[1] in FUSED)
}
Edge = tuple[str, int]  # a node of the graph, and which of its inputs


def traced(function: Callable[..., Any], inputs: Any, names: Sequence[str]) -> Trace:
    """The function at one call; inputs are (args, kwargs, dy), y a single array, `names` those of
    the floating arrays. Raises whatever torch does for one that cannot be traced."""
    args, kwargs, dy = inputs
    spots = [leaf for leaf in leaves((args, kwargs)) if is_floating(leaf)]

    def forward(*tensors: torch.Tensor) -> Any:
        given = iter(tensors)
        made = tree_map(
            lambda leaf: next(given) if is_floating(leaf) else tensor(leaf), (args, kwargs)
        )
        return function(*made[0], **made[1])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        without_writing = torch.func.functionalize(forward, remove="mutations")
        graph = make_fx(without_writing, decomposition_table=TABLE)(*map(tensor, spots))
    return Trace(graph.graph, spots, dy, names)


class Trace:
    """A traced function that can be run again with some of its edges cut."""

    def __init__(self, graph: Any, spots: list[np.ndarray], dy: Any, names: Sequence[str]) -> None:
        self.graph, self.spots, self.dy = graph, spots, dy
        self.nodes = {node.name: node for node in graph.nodes}
        arguments = [n.name for n in graph.nodes if n.op == "placeholder"]
        self.arguments = dict(zip(arguments, names, strict=True))
        self.edges = self._edges()

    def _edges(self) -> list[Edge]:
        """Every input of every operation that depends on an argument."""
        moving = {n.name for n in self.graph.nodes if n.op == "placeholder"}
        found = []
        for node in self.graph.nodes:
            if node.op != "call_function":
                continue
            inputs = [a for a in leaves((node.args, node.kwargs)) if _moves(a, moving)]
            if inputs:
                moving.add(node.name)
            if len(inputs) > 1 or any(len(a.users) > 1 for a in inputs):
                found += [(node.name, k) for k in range(len(inputs))]
        self.moving = moving
        return found

    def name(self, edge: Edge) -> str:
        node = self.nodes[edge[0]]
        source = [a for a in leaves((node.args, node.kwargs)) if _moves(a, self.moving)][edge[1]]
        return f"{self.plain(source.name)} → {self.plain(node.name)}"

    def plain(self, node: str) -> str:
        """The argument's name, or the operation without the spelling of its overload."""
        return self.arguments.get(node) or node.rstrip("_0123456789")

    def evaluated(self, cut: frozenset[Edge] = frozenset()) -> tuple[np.ndarray, list[np.ndarray]]:
        """y, and the gradient of each floating array."""
        values: dict[str, Any] = {}
        arguments = iter(self.spots)
        sources = []
        y: Any = None
        for node in self.graph.nodes:
            if node.op == "placeholder":
                values[node.name] = tensor(next(arguments)).requires_grad_()
                sources.append(values[node.name])
            elif node.op == "get_attr":
                values[node.name] = getattr(self.graph.owning_module, node.target)
            elif node.op == "call_function":
                values[node.name] = self._applied(node, values, cut)
            elif node.op == "output":
                y = tree_map(lambda a: values[a.name] if hasattr(a, "name") else a, node.args[0])
        y = y[0] if isinstance(y, (tuple, list)) else y
        found = torch.autograd.grad(
            y, sources, tensor(np.asarray(self.dy)), allow_unused=True, materialize_grads=True
        )
        return array(y.detach()), [array(g) for g in found]

    def _applied(self, node: Any, values: dict[str, Any], cut: frozenset[Edge]) -> Any:
        count = itertools.count()

        def given(leaf: Any) -> Any:
            if not hasattr(leaf, "name") or leaf.name not in values:
                return leaf
            value = values[leaf.name]
            if _moves(leaf, self.moving) and (node.name, next(count)) in cut:
                return value.detach() if isinstance(value, torch.Tensor) else value
            return value

        args, kwargs = tree_map(given, (tuple(node.args), dict(node.kwargs)))
        return differentiable(node.target)(*args, **kwargs)


def differentiable(target: Any) -> Callable[..., Any]:
    """The operation itself, or for one of torch's prims, which have no derivative, its like."""
    if target is torch.ops.aten.copy_.default:  # written over the result of a clone
        return lambda x, source: source.expand(x.shape)
    if getattr(target, "namespace", "") != "prims":
        return target
    name = target._schema.name.split("::")[1]
    likes: dict[str, Callable[..., Any]] = {
        "broadcast_in_dim": _broadcast_in_dim,
        "sum": lambda x, dims, **_: torch.sum(x, dims),
        "var": lambda x, dims, correction, **_: torch.var(x, dims, correction=correction),
        "convert_element_type": lambda x, dtype: x.to(dtype),
    }
    return likes[name] if name in likes else getattr(torch, name)


def _broadcast_in_dim(x: torch.Tensor, shape: Any, dims: Any) -> torch.Tensor:
    sizes = [x.shape[dims.index(i)] if i in dims else 1 for i in range(len(shape))]
    return x.reshape(sizes).expand(shape)


def _moves(leaf: Any, moving: set[str]) -> bool:
    return getattr(leaf, "name", None) in moving and hasattr(leaf, "users")
