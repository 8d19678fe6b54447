"""One forward and backward of a torch module, function by function: torch's nodes beside rules."""

from __future__ import annotations

import contextlib
import inspect
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch._functorch.autograd_function import custom_function_call
from torch.autograd.graph import get_gradient_edge
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import CheckpointFunction

from ...reference.adapters import array, leaves, listed, tree_map
from ..check.misuse import described
from ..check.trees import items
from ..report.text import raised
from ..verdict.classes import DIFFERENT, HALF_DTYPES, Verdict
from ..verdict.noise import is_floating
from .batched import axis_of, is_wrapped, unwrapped
from .compiled import uncompiled
from .functions import Examinations, calls_of_functions
from .judging import arrival, carried, judged, worse
from .places import Leaf, names_of, submodules
from .steps import End, Sent, Step, Trace, is_leaf, named

IN_FUNC = "inside of a transform of torch.func that is not one vmap alone"
UNSEEN = "called by nothing that Python sees"


def trace(
    module: Callable[..., Any],
    inputs: Any = (),
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> Trace:
    """Runs the module, a torch callable, forward and backward, and each of its functions once more
    by hand, from the same inputs and cotangent. What torch's nodes really passed on is judged too,
    with all that the module's own hooks make of it.

    module    a torch callable; its result is a tensor, or some in lists, tuples, dicts, dataclasses
    inputs    a tensor, or a list of the positional arguments
    seed      of the cotangent that the backward starts from; it is 1 where a result is one number
    settings  the keyword arguments

    A step in 16 bits, by itself or under autocast, is judged by the u of its dtype. A custom
    Function, or an operator of torch.library, is examined by `check`, as its own report says. What
    torch.compile made is traced as what it was made from; of a module the notes say so. No
    gradient is left behind anywhere. Raises TypeError if nothing of the result requires a gradient,
    and for what cannot be seen from Python: torch.jit, a reentrant checkpoint.
    """
    if not callable(module):
        raise TypeError(f"module: expected a torch callable, got a {type(module).__name__}")
    if not isinstance(settings or {}, Mapping):
        raise TypeError(f"settings: expected a mapping, got a {type(settings).__name__}")
    names = names_of(module, listed(inputs), settings or {})
    recorder = _Recorder(names)
    with uncompiled(module) as notes, _every_cast_anew(), recorder.recording(module):
        y = module(*listed(inputs), **(settings or {}))
    outputs = [o for _, o in items(y) if isinstance(o, torch.Tensor) and o.grad_fn is not None]
    if not outputs:
        raise TypeError(
            "module: expected a result that was computed and requires a gradient, got "
            f"{described(y)}"
        )
    recorder.claim([o.grad_fn for o in outputs])
    generator = torch.Generator().manual_seed(seed)
    cotangents = [
        torch.ones_like(o) if o.numel() == 1 else torch.randn(o.shape, generator=generator).to(o)
        for o in outputs
    ]
    # What is judged is computed in the dtypes that it has, whatever the caller is in.
    with torch.enable_grad(), torch.autocast("cpu", enabled=False):
        sent, got = _backward(outputs, cotangents)
        arrivals = {end: arrival(grad, sent[end]) for end, grad in got.items() if _judges(grad)}
        examinations = Examinations(seed)
        arrived_at: dict[Any, list[Verdict]] = defaultdict(list)
        for (node, _), verdict in arrivals.items():
            arrived_at[node].append(verdict)
        for step in recorder.steps:
            judged(step, sent, got, arrivals)
            if step.custom is not None:
                examinations.of(step)
            arrived = worse(v for node in step.nodes for v in arrived_at[node])
            if step.op or step.report or arrived.kind == DIFFERENT:
                step.verdicts["cotangent"] = arrived
    _pass_on(recorder.steps, sent)
    ends = {
        node: Leaf(names.get(id(node.variable), ""), array(node.variable), got.get((node, 0)))
        for node, _ in sent
        if is_leaf(node)
    }
    return Trace([step for step in recorder.steps if step.nodes], tuple(notes), ends)


def _pass_on(steps: Sequence[Step], sent: Sent) -> None:
    """Gives each step the norms of the gradients that its nodes passed on to others."""
    owners = {node: step for step in steps for node in step.nodes}
    for end, parts in sent.items():
        for step in dict.fromkeys(owners[node] for node, _ in parts if node in owners):
            if end[0] not in step.nodes:
                passed = [carried(grad) for node, grad in parts if owners.get(node) is step]
                step.passed[end] = float(np.linalg.norm(sum(passed, np.zeros_like(passed[0]))))


def _judges(grad: Any) -> bool:
    return is_floating(carried(grad))


@contextlib.contextmanager
def _every_cast_anew() -> Iterator[None]:
    """Else autocast casts a parameter once, and the node of that belongs to several steps."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        with torch.enable_grad():
            yield
    finally:
        torch.set_autocast_cache_enabled(before)


class NotAnArray(TypeError):
    """A tensor whose numbers cannot be had as one array."""


class _Recorder(TorchFunctionMode):
    """Every function of torch that the module calls, with the nodes that it made."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self.names = names  # of the tensors that the module has and is given, by their id
        self.steps: list[Step] = []
        self.claimed: set[Any] = set()
        self.inside = False  # a function that is recorded: what that calls belongs to it
        self.running = [""]  # the submodules

    @contextlib.contextmanager
    def recording(self, module: Any) -> Iterator[None]:
        with calls_of_functions(self._function), submodules(module) as self.running, self:
            yield

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = getattr(function, "__name__", str(function)).strip("_")
        step = Step(name, method=inspect.ismethoddescriptor(function))
        packet = getattr(function, "overloadpacket", function)
        if isinstance(packet, torch._ops.OpOverloadPacket):  # an operator, maybe of torch.library
            library, _, step.name = packet._qualified_op_name.partition("::")
            step.custom = None if library == "aten" else function
        if function is custom_function_call:  # as `Function.apply` goes inside of torch.func
            step.name, step.custom = args[0].__name__, args[0]
            return self._recorded(step, partial(function, args[0]), args[1:], kwargs or {})
        return self._recorded(step, function, args, kwargs or {})

    def _function(self, function: Any, call: Callable[..., Any], args: Any) -> Any:
        """A call of a torch.autograd.Function."""
        if function is CheckpointFunction and torch.is_grad_enabled():
            raise TypeError(
                "module: expected checkpoints with use_reentrant=False, got a reentrant one, whose "
                "functions are called by its backward, where a trace sees none; with "
                "use_reentrant=False the gradients are the same"
            )
        with torch._C.DisableTorchFunction():  # as it is in `__torch_function__`
            return self._recorded(Step(function.__name__, custom=function), call, args, {})

    def _recorded(self, step: Step, function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if self.inside or not torch.is_grad_enabled():  # where it makes no nodes
            return function(*args, **kwargs)
        self.inside = True
        try:
            return self._called(step, function, args, kwargs)
        finally:
            self.inside = False

    def _called(self, step: Step, function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        tensors = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        fault = None
        if any(is_wrapped(t) and axis_of(t) is None for t in tensors):
            step.note, step.custom = IN_FUNC, None
        else:  # before the call: a function in place gives its argument another node
            try:
                step.args, step.kwargs = tree_map(partial(_taken, step), (tuple(args), kwargs))
            except NotAnArray as error:  # which does not matter where no node is made
                fault = error
        made_before = [node for node, _ in step.ends.values()]
        y = function(*args, **kwargs)
        outputs = [unwrapped(o) for o in leaves(y) if isinstance(o, torch.Tensor)]
        self.claim(made_before)
        step.nodes = self._new([o.grad_fn for o in outputs if o.grad_fn is not None])
        if not step.nodes:
            return y
        if fault:
            raise fault
        step.y = None if step.note else tree_map(partial(_taken, step), y)
        step.half = step.half or _cast_to(step, outputs[0].device.type)
        step.saved = dict(item for node in step.nodes for item in _saved(node))
        step.place = self.running[-1]
        given = (t for t in tensors if not t.requires_grad and id(t) in self.names)
        step.given = {} if step.note else {self.names[id(t)]: array(t) for t in given}
        self.steps.append(step)
        return y

    def claim(self, nodes: Sequence[Any]) -> None:
        """What was made unseen, as by a loop in C++, is a step without a function."""
        self.steps += [Step(named(n), nodes=[n], note=UNSEEN) for n in self._new(nodes)]

    def _new(self, nodes: Sequence[Any]) -> list[Any]:
        new = _behind(nodes, self.claimed)
        self.claimed.update(new)
        return [node for node in new if not is_leaf(node)]


def _taken(step: Step, leaf: Any) -> Any:
    """The leaf as an array; the step notes to which end its gradient goes, and which 16 bits it
    has."""
    if not isinstance(leaf, torch.Tensor):
        return carried(array(leaf))
    axis = axis_of(leaf)
    leaf = unwrapped(leaf)
    try:
        taken = array(leaf)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        kind = type(leaf).__name__ if leaf.layout is torch.strided else f"of {leaf.layout}"
        raise NotAnArray(
            f"module: expected tensors that are arrays, {step.name} has one that is not "
            f"({kind}, on {leaf.device}): {raised(error)}"
        ) from error
    if taken.dtype.name in HALF_DTYPES:
        step.half = step.half or taken.dtype.name
        taken = carried(taken)
    if axis is not None:
        taken = np.ascontiguousarray(np.moveaxis(taken, axis, 0))
        step.batched[id(taken)] = axis
    if leaf.requires_grad:
        edge = get_gradient_edge(leaf)
        step.ends[id(taken)] = edge.node, edge.output_nr
    return taken


def _cast_to(step: Step, device: str) -> str:
    """To which 16 bits autocast has cast some of it, that came and went in more."""
    casts = any(named(node).startswith("ToCopyBackward") for node in step.nodes)
    if not (casts and torch.is_autocast_enabled(device)):
        return ""
    name = str(torch.get_autocast_dtype(device)).removeprefix("torch.")
    return name if name in HALF_DTYPES else ""


def _backward(
    outputs: Sequence[torch.Tensor], cotangents: Sequence[torch.Tensor]
) -> tuple[Sent, dict[End, Any]]:
    """What each end was sent, and what it got. Hooks that come last see what the module's own have
    made of it."""
    sent: Sent = defaultdict(list)
    got: dict[End, Any] = {}

    def receive(node: Any, grads: Sequence[Any]) -> None:
        got.update(((node, i), array(grad)) for i, grad in enumerate(grads))

    def send(node: Any, grads: Sequence[Any], _: Any) -> None:
        for end, grad in zip(node.next_functions, grads, strict=True):
            if grad is not None:
                sent[end].append((node, array(grad)))

    nodes = _behind([o.grad_fn for o in outputs])
    ends = [node for node in nodes if is_leaf(node)]
    inner = [node for node in nodes if not is_leaf(node)]
    hooks = [node.register_prehook(partial(receive, node)) for node in inner]
    hooks += [node.register_hook(partial(send, node)) for node in inner]
    for o, dy in zip(outputs, cotangents, strict=True):
        sent[o.grad_fn, o.output_nr].append((None, array(dy)))
    variables = [node.variable for node in ends]
    found = torch.autograd.grad(outputs, variables, cotangents, allow_unused=True)
    got |= {(node, 0): array(grad) for node, grad in zip(ends, found, strict=True)}
    for hook in hooks:
        hook.remove()
    return sent, got


def _behind(nodes: Sequence[Any], known: Collection[Any] = ()) -> list[Any]:
    """All nodes reachable but through those that are known, the given ones first."""
    found = list(dict.fromkeys(n for n in nodes if n is not None and n not in known))
    seen = set(found)
    for node in found:  # it grows meanwhile
        behind = [n for n, _ in node.next_functions if n is not None and n not in known]
        new = [n for n in behind if n not in seen]
        found += dict.fromkeys(new)
        seen.update(new)
    return found


def _saved(node: Any) -> list[tuple[str, int]]:
    names = [name for name in dir(node) if name.startswith("_saved_")]
    saved = [(name.removeprefix("_saved_"), getattr(node, name)) for name in names]
    saved += [("saved_tensors", t) for t in getattr(node, "saved_tensors", ())]  # of a Function
    return [
        (f"{named(node)}.{name}", t.numel() * t.element_size())
        for name, t in saved
        if isinstance(t, torch.Tensor)
    ]
