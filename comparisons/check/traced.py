"""A function of torch as torch's decompositions write it, which can be run again with paths cut."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch._decomp import decomposition_table
from torch.fx import Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...reference.adapters import array, leaves, tensor, tree_map
from .. import ops
from ..verdict.noise import is_floating

# Operations of torch's core set that are compositions nevertheless.
FUSED = {name for op in map(ops.named, ops.names()) for name in op.facts.fused}


# Its parts write into an array in a way that cannot be written otherwise.
WRITTEN_INTO = torch.ops.aten.diagonal_backward.default


def _taken_apart(op: Any) -> bool:
    """Whether an operation is written in others: if it is in the core set it stays as it is, for it
    has a derivative of its own, unless it is a composition, or a derivative itself."""
    if not isinstance(op, torch._ops.OpOverload) or op == WRITTEN_INTO:
        return False
    name = op._schema.name.split("::")[1]
    return torch.Tag.core not in op.tags or name in FUSED or name.endswith("_backward")


TABLE: dict[Any, Callable[..., Any]] = {
    op: parts for op, parts in decomposition_table.items() if _taken_apart(op)
}
Edge = tuple[str, int]  # a node of the graph, and which of its inputs
Place = tuple[str, int | str]  # a node of the graph, and which of its arguments


def traced(function: Callable[..., Any], inputs: Any, names: Sequence[str]) -> Trace:
    """The function at one call; inputs are (args, kwargs, dy), y a single array, `names` those of
    the floating arrays. Raises whatever torch does for one that cannot be traced."""
    spots = _floating(inputs)
    without_writing = torch.func.functionalize(_of_tensors(function, inputs), remove="mutations")
    graph = _graph(without_writing, spots)
    return Trace(graph, spots, inputs[2], names)


def traced_both_ways(function: Callable[..., Any], inputs: Any, names: Sequence[str]) -> BothWays:
    """The same with its pullback, of which every step stands in the graph: attention as two
    products and a softmax between them, for the pullback of torch's kernel is one step, and not
    that of its decomposition."""
    spots = _floating(inputs)
    forward = sdpa_kernel(SDPBackend.MATH)(_of_tensors(function, inputs))

    def both(*tensors: torch.Tensor) -> Any:
        *sources, dy = tensors
        sources = [source.detach().requires_grad_() for source in sources]
        y = forward(*sources)
        y = y[0] if isinstance(y, (tuple, list)) else y
        return y, *torch.autograd.grad(y, sources, dy, allow_unused=True, materialize_grads=True)

    given = [*spots, np.asarray(inputs[2])]
    graph = _graph(both, given)
    if any(map(_writes, graph.nodes)):
        graph = _graph(torch.func.functionalize(graph.owning_module), given)
    return BothWays(graph, given, [*names, "dy"])


def _floating(inputs: Any) -> list[np.ndarray]:
    return [leaf for leaf in leaves(inputs[:2]) if is_floating(leaf)]


def _of_tensors(function: Callable[..., Any], inputs: Any) -> Callable[..., Any]:
    """The function of its floating arrays alone."""
    args, kwargs, _ = inputs

    def forward(*tensors: torch.Tensor) -> Any:
        given = iter(tensors)
        made = tree_map(
            lambda leaf: next(given) if is_floating(leaf) else tensor(leaf), (args, kwargs)
        )
        return function(*made[0], **made[1])

    return forward


def _graph(function: Callable[..., Any], spots: Sequence[np.ndarray]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # A branch that hangs on a value is taken as it is at these.
        made = make_fx(function, decomposition_table=TABLE, _error_on_data_dependent_ops=False)
        return made(*map(tensor, spots)).graph


def literals(nodes: Sequence[Any]) -> Iterator[tuple[Place, float]]:
    """The numbers that operations compute with, each with its place; not those that say which axis,
    which index or what shape is meant."""
    for node in nodes:
        if node.op != "call_function" or not hasattr(node.target, "_schema"):
            continue
        sources = [n.meta.get("val") for n in node.all_input_nodes]
        if not any(isinstance(v, torch.Tensor) and v.is_floating_point() for v in sources):
            continue
        declared = node.target._schema.arguments
        given: dict[int | str, Any] = {**dict(enumerate(node.args)), **node.kwargs}
        types = {**dict(enumerate(declared)), **{a.name: a for a in declared}}
        for key, value in given.items():
            plain = isinstance(value, (int, float)) and not isinstance(value, bool)
            if plain and str(types[key].type).removeprefix("Optional[").rstrip("]") in NUMBERS:
                yield (node.name, key), value


# Operations that hand on what they are given.
AS_IT_IS = {"alias", "clone", "detach", "expand", "permute", "squeeze", "t", "unsqueeze", "view"}
NUMBERS = {"number", "Scalar", "float", "Tensor"}


class Trace:
    """A traced function that can be run again with some of its edges cut."""

    def __init__(self, graph: Any, spots: list[np.ndarray], dy: Any, names: Sequence[str]) -> None:
        self.graph, self.spots, self.dy = graph, spots, dy
        self.nodes = {node.name: node for node in graph.nodes}
        arguments = [n.name for n in graph.nodes if n.op == "placeholder"]
        self.arguments = dict(zip(arguments, names, strict=True))
        self.edges = self._edges()

    @functools.cached_property
    def right(self) -> list[np.ndarray]:
        """The gradients of the function as it is."""
        return self.evaluated()[1]

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

    def evaluated(
        self, cut: frozenset[Edge] = frozenset(), numbers: Mapping[Place, float] | None = None
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """y, and the gradient of each floating array; with other numbers at some places."""
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
                values[node.name] = self._applied(node, values, cut, numbers or {})
            elif node.op == "output":
                y = tree_map(lambda a: values[a.name] if hasattr(a, "name") else a, node.args[0])
        y = y[0] if isinstance(y, (tuple, list)) else y
        found = torch.autograd.grad(
            y, sources, tensor(np.asarray(self.dy)), allow_unused=True, materialize_grads=True
        )
        return array(y.detach()), [array(g) for g in found]

    def _applied(
        self,
        node: Any,
        values: dict[str, Any],
        cut: frozenset[Edge],
        numbers: Mapping[Place, float],
    ) -> Any:
        count = itertools.count()

        def given(leaf: Any) -> Any:
            if not hasattr(leaf, "name") or leaf.name not in values:
                return leaf
            value = values[leaf.name]
            if _moves(leaf, self.moving) and (node.name, next(count)) in cut:
                return value.detach() if isinstance(value, torch.Tensor) else value
            return value

        args, kwargs = tree_map(given, _arguments(node, numbers))
        return differentiable(node.target)(*args, **kwargs)


class BothWays:
    """A traced function and its pullback, of which single values can be exchanged.

    values    of every node
    forward   the names of those nodes that y is made of
    """

    def __init__(self, graph: Any, spots: Sequence[np.ndarray], names: Sequence[str]) -> None:
        self.graph = graph
        self.nodes = {node.name: node for node in graph.nodes}
        if any(_writes(node) for node in graph.nodes):
            raise ValueError("a graph in which nothing is written in place is needed")
        arguments = [n.name for n in graph.nodes if n.op == "placeholder"]
        self.arguments = dict(zip(arguments, names, strict=True))
        self.results = [a.name for a in leaves(next(iter(reversed(graph.nodes))).args)]
        given = dict(zip(arguments, map(tensor, spots), strict=True))
        self.values = self._run(given)
        self.forward = self._made_of(self.results[0])

    def _made_of(self, name: str) -> set[str]:
        found, open_ = set(), [self.nodes[name]]
        while open_:
            node = open_.pop()
            if node.name not in found:
                found.add(node.name)
                open_ += node.all_input_nodes
        return found

    @functools.cached_property
    def forward_calls(self) -> list[Any]:
        """The operations that y is made of."""
        return [self.nodes[n] for n in self.nodes if n in self.forward]

    @functools.cached_property
    def backward(self) -> list[Any]:
        """The operations of the pullback."""
        calls = (n for n in self.graph.nodes if n.op == "call_function")
        return [n for n in calls if n.name not in self.forward]

    def plain(self, name: str) -> str:
        """The argument's name, or the operation without the spelling of its overload."""
        while (known := name.rstrip("_0123456789")) in AS_IT_IS:
            name = self.nodes[name].all_input_nodes[0].name
        return self.arguments.get(name) or known

    def again(self, changed: Mapping[str, Any], forward: bool = False) -> dict[str, Any]:
        """The values of all nodes that follow from the changed ones: those of the pullback alone,
        or those `forward` alone. What is changed is given, or made of the values known by then."""
        return self._run(changed, forward)

    def gradients(self, changed: Mapping[str, Any]) -> list[np.ndarray]:
        """Those of all floating arrays, where the pullback has the changed values."""
        made = self.again(changed)
        return [array(made.get(n, self.values[n])) for n in self.results[1:]]

    def slopes(
        self, argument: str, along: Sequence[torch.Tensor]
    ) -> Iterator[dict[str, torch.Tensor]]:
        """How the gradient of an argument along each of several directions moves with dy and with
        each floating value of the pullback that it hangs on."""
        result = self.results[1 + list(self.arguments.values()).index(argument)]
        dy = next(node for node, name in self.arguments.items() if name == "dy")
        made = {**self.values, dy: self.values[dy].detach().requires_grad_()}
        moving = {dy: made[dy]}
        for node in self.backward:
            with torch.enable_grad():
                args, kwargs = _filled(node, made)
                value = differentiable(node.target)(*args, **kwargs)
                if isinstance(value, torch.Tensor) and value.is_floating_point():
                    value = value if value.requires_grad else value.detach().requires_grad_()
                    moving[node.name] = value
            made[node.name] = value
        options: dict[str, Any] = {"retain_graph": True, "allow_unused": True}
        for direction in along if result in moving else ():
            found = torch.autograd.grad(made[result], list(moving.values()), direction, **options)
            known = zip(moving, found, strict=True)
            yield {name: slope for name, slope in known if slope is not None}

    def at(self, node: Any, changed: Mapping[str, Any]) -> Any:
        """The value of one node where what it takes is changed."""
        return self._applied(node, {**self.values, **changed})

    @functools.cached_property
    def of_dy(self) -> set[str]:
        """The nodes whose values are made from dy, in which they are linear."""
        found = {next(node for node, name in self.arguments.items() if name == "dy")}
        for node in self.backward:
            if any(n.name in found for n in node.all_input_nodes):
                found.add(node.name)
        return found

    @functools.cached_property
    def place(self) -> dict[str, int]:
        """Where each node stands in the graph."""
        return {name: k for k, name in enumerate(self.nodes)}

    def applied(self, node: Any, values: Mapping[str, Any], others: Mapping[int, Any]) -> Any:
        """What an operation makes of these values, with others at some of its places."""
        args, kwargs = _filled(node, values)
        args = [others[k](a) if k in others else a for k, a in enumerate(args)]
        with torch.no_grad():
            return _runnable(node.target)(*args, **kwargs)

    def with_numbers(self, numbers: Mapping[Place, float]) -> dict[str, Any]:
        """The values of the nodes that have other numbers among their arguments."""
        return {name: self._applied(self.nodes[name], self.values, numbers) for name, _ in numbers}

    def _run(self, given: Mapping[str, Any], forward: bool | None = None) -> dict[str, Any]:
        fresh = {name: value for name, value in given.items() if not callable(value)}
        known = {**self.values, **fresh} if forward is not None else fresh
        nodes = self.graph.nodes
        if forward is not None:
            nodes = self.forward_calls if forward else self.backward
        for node in nodes:
            if node.op in ("placeholder", "output"):
                continue
            if node.name in given:
                if callable(given[node.name]):
                    fresh[node.name] = known[node.name] = given[node.name](known)
            elif node.op == "get_attr":
                fresh[node.name] = getattr(self.graph.owning_module, node.target)
            elif forward is None or any(n.name in fresh for n in node.all_input_nodes):
                fresh[node.name] = known[node.name] = self._applied(node, known)
        return fresh

    def _applied(
        self, node: Any, values: Mapping[str, Any], numbers: Mapping[Place, float] | None = None
    ) -> Any:
        args, kwargs = _filled(node, values, numbers)
        with torch.no_grad():
            return _runnable(node.target)(*args, **kwargs)


def _writes(node: Any) -> bool:
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and bool(schema and schema.is_mutable)


def operation(node: Any) -> str:
    """The plain name of what a node computes: "mul" of aten.mul.Tensor."""
    schema = getattr(node.target, "_schema", None)
    return schema.name.split("::")[1] if schema else getattr(node.target, "__name__", node.name)


def _filled(
    node: Any, values: Mapping[str, Any], numbers: Mapping[Place, float] | None = None
) -> tuple[Any, Any]:
    """The arguments of a node, with values in the place of other nodes."""

    def given(leaf: Any) -> Any:
        if isinstance(leaf, Node):
            return values.get(leaf.name, leaf)
        return tree_map(given, leaf) if isinstance(leaf, (list, tuple, dict)) else leaf

    args, kwargs = _arguments(node, numbers) if numbers else (node.args, node.kwargs)
    return tuple(map(given, args)), {k: given(a) for k, a in kwargs.items()}


def _arguments(node: Any, numbers: Mapping[Place, float]) -> tuple[Any, Any]:
    """The arguments of a node, with other numbers at some places."""
    args = tuple(numbers.get((node.name, i), a) for i, a in enumerate(node.args))
    return args, {k: numbers.get((node.name, k), a) for k, a in node.kwargs.items()}


def _runnable(target: Any) -> Callable[..., Any]:
    """The operation itself; of a view, which what was exchanged may not have the strides for, its
    like."""
    return torch.reshape if target is torch.ops.aten.view.default else target


def differentiable(target: Any) -> Callable[..., Any]:
    """The operation itself, or for one of torch's prims, which have no derivative, its like."""
    if target in (torch.ops.aten.copy_.default, torch.ops.aten.copy.default):  # over a clone
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
