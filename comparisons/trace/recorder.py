"""One forward and backward of a torch module, function by function: torch's nodes beside rules."""

from __future__ import annotations

import inspect
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.autograd.graph import get_gradient_edge
from torch.overrides import TorchFunctionMode

from ...manual.binding import named as leaves_by_name
from ...manual.binding import signature_of
from ...manual.trees import kept
from ...reference.adapters import NotAsked, array, leaves, listed, tensor, tree_map
from .. import ops
from ..exact import SOON
from ..ops import Op, arguments, evaluate
from ..report.text import said
from ..verdict.classes import CLASSES, DIFFERENT, EMPTY, Exact, Function, Results, Verdict
from ..verdict.floor import LOOKS, Floor
from ..verdict.judge import judge, settle
from ..verdict.noise import is_floating
from ..verdict.ulps import same_bits
from .steps import Edge, End, Sent, Step, Trace, named


def trace(module: Callable[..., Any], inputs: Any, seed: int = 0) -> Trace:
    """Runs the module, a torch callable, forward and backward, and each of its functions once more
    by hand, from the same inputs and cotangent. What torch's nodes really passed on is judged too,
    with all that the module's own hooks make of it.

    `inputs` is a tensor, or a list of the positional arguments. The backward starts from a random
    cotangent, or from 1 where the result is one number. No gradient is left behind anywhere. Raises
    TypeError if nothing of the result requires a gradient.
    """
    if not callable(module):
        raise TypeError(f"module: expected a torch callable, got a {type(module).__name__}")
    recorder = _Recorder()
    with recorder:
        y = module(*listed(inputs))
    outputs = [o for o in leaves(y) if isinstance(o, torch.Tensor) and o.grad_fn is not None]
    if not outputs:
        raise TypeError("module: expected a result that was computed and requires a gradient")
    recorder.claim([o.grad_fn for o in outputs])
    generator = torch.Generator().manual_seed(seed)
    cotangents = [
        torch.ones_like(o) if o.numel() == 1 else torch.randn(o.shape, generator=generator).to(o)
        for o in outputs
    ]
    sent, got = _backward(outputs, cotangents)
    arrivals = {end: _arrival(grad, sent[end]) for end, grad in got.items() if is_floating(grad)}
    arrived_at: dict[Any, list[Verdict]] = defaultdict(list)
    for (node, _), verdict in arrivals.items():
        arrived_at[node].append(verdict)
    for step in recorder.steps:
        _judge(step, sent, got, arrivals)
        arrived = _worse(v for node in step.nodes for v in arrived_at[node])
        if step.op or arrived.kind == DIFFERENT:
            step.verdicts["cotangent"] = arrived
    return Trace([step for step in recorder.steps if step.nodes])


class _Recorder(TorchFunctionMode):
    """Every function of torch that the module calls, with the nodes that it made."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.claimed: set[Any] = set()

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", str(function)).strip("_")
        step = Step(name, method=inspect.ismethoddescriptor(function))
        # Before the call: a function in place gives its argument another node.
        step.args, step.kwargs = tree_map(partial(_taken, step), (tuple(args), dict(kwargs)))
        made_before = [node for node, _ in step.ends.values()]
        y = function(*args, **kwargs)
        outputs = [o for o in leaves(y) if isinstance(o, torch.Tensor) and o.grad_fn is not None]
        self.claim(made_before)
        step.nodes = self._new([o.grad_fn for o in outputs])
        if step.nodes:
            step.y = tree_map(partial(_taken, step), y)
            step.saved = dict(item for node in step.nodes for item in _saved(node))
            self.steps.append(step)
        return y

    def claim(self, nodes: Sequence[Any]) -> None:
        """What was made unseen, as by an autograd.Function, is a step without a function."""
        self.steps += [Step(named(node), nodes=[node]) for node in self._new(nodes)]

    def _new(self, nodes: Sequence[Any]) -> list[Any]:
        new = _behind(nodes, self.claimed)
        self.claimed.update(new)
        return [node for node in new if not _is_leaf(node)]


def _taken(step: Step, leaf: Any) -> Any:
    """The leaf as an array; the step notes to which end its gradient goes."""
    taken = array(leaf)
    if isinstance(leaf, torch.Tensor) and leaf.requires_grad:
        edge = get_gradient_edge(leaf)
        step.ends[id(taken)] = edge.node, edge.output_nr
    return taken


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
    ends = [node for node in nodes if _is_leaf(node)]
    inner = [node for node in nodes if not _is_leaf(node)]
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


def _arrival(grad: np.ndarray, sent: Sequence[tuple[Any, np.ndarray]]) -> Verdict:
    """Whether what an end got is the sum of what it was sent."""
    if len(sent) == 1 and same_bits(grad, sent[0][1]):
        return EMPTY

    def total(parts: Any) -> Results:
        return {"sum": array(sum(map(tensor, parts), tensor(np.zeros_like(grad))))}

    return judge(lambda _: {"sum": grad}, total, [part for _, part in sent], grad.dtype)["sum"]


def _worse(verdicts: Iterable[Verdict]) -> Verdict:
    return max(verdicts, key=lambda v: (CLASSES.index(v.kind), v.margin), default=EMPTY)


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


def _is_leaf(node: Any) -> bool:
    return hasattr(node, "variable")


def _saved(node: Any) -> list[tuple[str, int]]:
    names = [name for name in dir(node) if name.startswith("_saved_")]
    saved = [(name.removeprefix("_saved_"), getattr(node, name)) for name in names]
    return [
        (f"{named(node)}.{name}", t.numel() * t.element_size())
        for name, t in saved
        if isinstance(t, torch.Tensor)
    ]


def _judge(step: Step, sent: Sent, got: dict[End, Any], arrivals: dict[End, Verdict]) -> None:
    """Runs the rule of the step's name on what torch was given, and judges both."""

    def cotangent(leaf: Any) -> Any:  # zero for what of several results was not used
        end = step.ends.get(id(leaf))
        if end is None or got.get(end) is None:
            return None if end is None else np.zeros_like(leaf)
        parts = [(node in step.nodes, grad) for node, grad in sent[end]]
        if any(own for own, _ in parts):  # one result is made of another
            return sum((grad for own, grad in parts if not own), np.zeros_like(leaf))
        return got[end]

    step.dy = tree_map(cotangent, step.y)
    call = _call(step)
    if call is None or not any(step.ends.get(id(leaf)) in got for leaf in leaves(step.y)):
        return
    op, args, kwargs = call
    floats = [a.dtype for a in leaves((args, kwargs)) if is_floating(a)]
    if not floats or any(dtype not in (np.float32, np.float64) for dtype in floats):
        step.note = "of another dtype"
        return
    twin = op.mirror
    if hasattr(twin, "draw") and twin.draw(*args, **kwargs)[twin.draw.keyword] is not None:
        again, given = (
            [a for a in leaves(y) if isinstance(a, np.ndarray)]
            for y in (twin(*args, **kwargs)[0], step.y)
        )
        if not all(map(np.array_equal, again, given)):
            step.note = "draws at random"
            return
        kwargs = kwargs | twin.draw(*args, **kwargs)
    args, kwargs = op.held(args, kwargs)
    try:
        y, _ = twin(*args, **kwargs)
    except NotAsked as reason:
        step.note = said(reason)
        return
    step.op = op.name
    if isinstance(y, tuple) and not isinstance(step.y, tuple):  # what torch writes in place
        step.dy = step.dy, *[None] * (len(y) - 1)
    elif isinstance(step.y, tuple) and not isinstance(y, tuple):  # torch's others are None
        step.dy = step.dy[0]
    _settle(step, (args, kwargs, step.dy), floats[0], sent, arrivals)


def _settle(step: Step, inputs: Any, dtype: Any, sent: Sent, arrivals: Any) -> None:
    """The verdicts on the rule and on what torch's nodes passed on, against one floor."""
    args, kwargs, _ = inputs
    ours, twin = ops.named(step.op).pair
    names = arguments.argument_names(ours, args, kwargs, twin.facts.constant)
    bound = leaves_by_name(dict(signature_of(ours).bind(*args, **kwargs).arguments))
    leaving = {end for node in step.nodes for end in node.next_functions}
    together: dict[Any, list[str]] = defaultdict(list)  # the arguments that are one tensor
    for name in names:
        end = step.ends.get(id(bound.get(name.removeprefix("argument "))))
        if end in leaving:
            together[end].append(name)
    ends = {" + ".join(parts): end for end, parts in together.items()}

    def evaluated(
        rule: Callable[..., Any], inputs: Any, names: Sequence[str] = tuple(names)
    ) -> Results:
        found = evaluate.evaluate(rule, names, inputs)
        parts = {name: name.split(" + ") for name in ends}
        sums = {name: sum(found[p] for p in of) for name, of in parts.items() if of[0] in found}
        return {**found, **{name: np.asarray(total) for name, total in sums.items()}}

    def some(wanted: Collection[str]) -> Function:
        parts = [part for name in wanted for part in name.split(" + ")]
        mirror, left = evaluate.asking(step.op, names, parts)
        return partial(evaluated, mirror, names=left)

    def exactly(inputs: Any) -> Exact:
        oracle = ops.named(step.op).oracle(inputs, kinks=False, work=SOON)
        return lambda name, index: sum(oracle(part, index) for part in name.split(" + "))

    subject = partial(evaluated, ours)
    try:
        answer = ours(*args, **kwargs)
        step.kept = kept(answer[1])
        results = evaluated(lambda *_, **__: answer, inputs)
    except Exception as error:  # whatever the rule raises on a call that torch took is a finding
        step.note = f"{type(error).__name__}: {said(error)}"
        step.verdicts = {"rule": replace(EMPTY, kind=DIFFERENT, margin=math.inf)}
        return
    floor = Floor(partial(evaluated, twin), inputs, dtype, looks=LOOKS, some=some)
    step.verdicts = settle(floor, subject, inputs, results, exactly)
    torchs = dict(floor.native)
    for name, end in ends.items():
        parts = (grad for node, grad in sent.get(end, ()) if node in step.nodes)
        torchs[name] = sum(parts, np.zeros_like(torchs[name]))
    settled: dict[str, Verdict] = {}
    if not all(same_bits(torchs[name], floor.native[name]) for name in ends):
        # One that answers the same to all inputs is never excused as having lost only digits.
        settled = settle(floor, lambda _: torchs, inputs, torchs)
    for name, end in ends.items():
        arrived = arrivals.get(end, EMPTY) if _is_leaf(end[0]) else EMPTY
        verdict = _worse((step.verdicts[name], settled.get(name, EMPTY), arrived))
        step.edges.append(Edge(name, end[0], float(np.linalg.norm(torchs[name])), verdict))


def _call(step: Step) -> tuple[Op, Any, dict[str, Any]] | None:
    """The op of a step, and the call in its rule's signature; None if there is none."""
    name = step.name.removesuffix("_")
    op = ops.called(name)
    if op is None or (step.method and op.facts.entry):
        return None
    args, kwargs = op.traced(name, step.args, step.kwargs, step.method)
    try:
        signature_of(op.rule).bind(*args, **kwargs)
    except TypeError as error:
        step.note = said(error)
        return None
    return op, args, kwargs
