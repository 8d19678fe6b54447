"""One forward and backward of a torch module, function by function: torch's nodes beside rules."""

from __future__ import annotations

import inspect
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.autograd.graph import get_gradient_edge
from torch.overrides import TorchFunctionMode

from ..manual.arrays import kept
from ..reference.adapters import array, leaves, listed, tensor, tree_map
from . import exact, gradients, report, samples
from .coverage import LEFT_OUT
from .noise import is_floating
from .verdict import CLASSES, DIFFERENT, EMPTY, Floor, Results, Verdict, judge, settle, worst

NO_RULE = "no rule"
# Torch's other names of what has a rule here; a reflected operator has its operands swapped.
NAMES = {
    **dict.fromkeys(("truediv", "true_divide", "divide"), "div"),
    **dict.fromkeys(("mm", "bmm", "mv", "dot"), "matmul"),
    **{"multiply": "mul", "subtract": "sub", "negative": "neg", "view": "reshape"},
}
REFLECTED = {"radd": "add", "rsub": "sub", "rmul": "mul", "rtruediv": "div", "rpow": "pow"}
DEPRECATED = ("size_average", "reduce", "_weight")

End = tuple[Any, int]  # of an edge: a node, and the number of the result whose gradient it takes
Sent = dict[End, list[tuple[Any, np.ndarray]]]  # to each end: by which node, and what


@dataclass(frozen=True)
class Edge:
    """Where the gradient of an argument leaves a step, and the worse of two verdicts: on the
    rule's gradient, and on what torch's nodes passed on; if to a leaf, also on what it got.

    A view that is written in place has none: there torch leads to what it is a view of.
    """

    argument: str  # "x + other" where one tensor was passed twice: torch passes on their sum
    node: Any  # the next one
    norm: float  # of the gradient that was passed on
    verdict: Verdict

    @property
    def next(self) -> str:
        return named(self.node)


@dataclass(eq=False)
class Step:
    """One call of a torch function: what it was given and gave, the nodes that it made, and the
    verdicts: on the rule of its name, on the cotangent that arrived, and on each edge."""

    name: str
    args: Any = ()  # arrays in place of tensors
    kwargs: dict[str, Any] = field(default_factory=dict)
    y: Any = None
    dy: Any = None
    nodes: list[Any] = field(default_factory=list)
    op: str = ""  # the rule
    saved: dict[str, int] = field(default_factory=dict)  # torch's saved tensors, and their bytes
    kept: list[np.ndarray] = field(default_factory=list)  # what the rule's pullback holds on to
    ends: dict[int, End] = field(default_factory=dict)  # of the arrays above, by their id
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    note: str = ""

    @property
    def judged(self) -> dict[str, Verdict]:
        """All verdicts, that on an edge as "x → GeluBackward0"."""
        return self.verdicts | {f"{e.argument} → {e.next}": e.verdict for e in self.edges}

    @property
    def kind(self) -> str:
        """The worst class of its verdicts. Without a rule only its cotangent can be different."""
        kind = worst(v.kind for v in self.judged.values())
        return kind if self.op or kind == DIFFERENT else NO_RULE

    @property
    def next(self) -> list[str]:
        """The names of the nodes that its own lead to."""
        edges = [n for node in self.nodes for n, _ in node.next_functions if n is not None]
        return list(dict.fromkeys(map(named, edges)))


@dataclass(frozen=True)
class Trace:
    """All steps in the order of execution; `table` has one row for each."""

    steps: list[Step]

    @property
    def table(self) -> pd.DataFrame:
        return report.table(_row(i, step) for i, step in enumerate(self.steps, 1))

    @property
    def covered(self) -> float:
        """The share of torch's nodes that a rule answers for."""
        counts = [(len(s.nodes), bool(s.op)) for s in self.steps]
        total = sum(n for n, _ in counts)
        return sum(n for n, known in counts if known) / total if total else 1.0

    @property
    def missing(self) -> list[str]:
        """The names of the nodes that have no rule here."""
        return [named(n) for s in self.steps if not s.op for n in s.nodes]

    @property
    def wrong(self) -> list[Step]:
        """The steps where something is different: the rule, the cotangent, or an edge."""
        return [s for s in self.steps if s.kind == DIFFERENT]

    def __str__(self) -> str:
        lines = []
        for i, s in enumerate(self.steps, 1):
            wrong = [name for name, v in s.judged.items() if v.kind == DIFFERENT]
            said = f"{s.kind}: {', '.join(filter(None, [*wrong, s.note]))}".removesuffix(": ")
            lines.append(f"{i:>3} {s.name:<20} {', '.join(map(named, s.nodes)):<40} {said}")
        return "\n".join([*lines, f"{self.covered:.0%} of the nodes have a rule"])


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
    for step in recorder.steps:
        _judge(step, sent, got, arrivals)
        arrived = _worse(v for (node, _), v in arrivals.items() if node in step.nodes)
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
        step = Step(name)
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

    def total(parts: Any) -> Results:
        return {"sum": array(sum(map(tensor, parts), tensor(np.zeros_like(grad))))}

    return judge(lambda _: {"sum": grad}, total, [part for _, part in sent], grad.dtype)["sum"]


def _worse(verdicts: Iterable[Verdict]) -> Verdict:
    return max(verdicts, key=lambda v: (CLASSES.index(v.kind), v.margin), default=EMPTY)


def _behind(nodes: Sequence[Any], known: Collection[Any] = ()) -> list[Any]:
    """All nodes reachable but through those that are known, the given ones first."""
    found = list(dict.fromkeys(n for n in nodes if n is not None and n not in known))
    seen = set(found)
    for node in found:  # which grows meanwhile
        behind = [n for n, _ in node.next_functions if n is not None and n not in known]
        new = [n for n in behind if n not in seen]
        found += dict.fromkeys(new)
        seen.update(new)
    return found


def _is_leaf(node: Any) -> bool:
    return hasattr(node, "variable")


def named(node: Any) -> str:
    """A node's name, without its namespace."""
    return str(node.name()).rpartition("::")[2]


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
        end = step.ends.get(id(leaf), (None, 0))
        return np.zeros_like(leaf) if end in got and got[end] is None else got.get(end)

    step.dy = tree_map(cotangent, step.y)
    call = _call(step)
    if call is None or all(d is None for d in leaves(step.dy)):
        return
    op, args, kwargs = call
    floats = [a.dtype for a in leaves((args, kwargs)) if is_floating(a)]
    if not floats or any(dtype not in (np.float32, np.float64) for dtype in floats):
        step.note = "of another dtype"
        return
    _, twin = gradients.rule_pair(op)
    if hasattr(twin, "draw") and twin.draw(*args, **kwargs)[twin.draw.keyword] is not None:
        probe = twin(*args, **kwargs)[0]
        if not np.array_equal(probe, step.y):
            step.note = "draws at random"
            return
        kwargs = kwargs | twin.draw(*args, **kwargs)
    step.op = op
    y, _ = twin(*args, **kwargs)
    if isinstance(y, tuple) and not isinstance(step.y, tuple):  # what torch writes in place
        step.dy = step.dy, *[None] * (len(y) - 1)
    _settle(step, (args, kwargs, step.dy), floats[0], sent, arrivals)


def _settle(step: Step, inputs: Any, dtype: Any, sent: Sent, arrivals: Any) -> None:
    """The verdicts on the rule and on what torch's nodes passed on, against one floor."""
    args, kwargs, _ = inputs
    ours, twin = gradients.rule_pair(step.op)
    names = gradients.argument_names(ours, args, kwargs, twin.constant)
    bound = inspect.signature(ours).bind(*args, **kwargs).arguments
    leaving = {end for node in step.nodes for end in node.next_functions}
    together: dict[Any, list[str]] = defaultdict(list)  # the arguments that are one tensor
    for name in names:
        end = step.ends.get(id(bound.get(name)))
        if end in leaving:
            together[end].append(name)
    ends = {" + ".join(parts): end for end, parts in together.items()}

    def evaluated(rule: Callable[..., Any], inputs: Any) -> Results:
        found = gradients.evaluate(rule, names, inputs)
        sums = {name: sum(found[part] for part in name.split(" + ")) for name in ends}
        return {**found, **{name: np.asarray(total) for name, total in sums.items()}}

    def exactly(name: str, index: tuple[int, ...]) -> float:
        return sum(oracle(part, index) for part in name.split(" + "))

    subject = partial(evaluated, ours)
    try:
        step.kept = kept(ours(*args, **kwargs)[1])
        results = subject(inputs)
    except Exception as error:  # whatever the rule raises on a call that torch took is a finding
        step.note = f"{type(error).__name__}: {error}"
        step.verdicts = {"rule": replace(EMPTY, kind=DIFFERENT, margin=math.inf)}
        return
    oracle = exact.oracle(step.op, inputs, kinks=False, work=exact.SOON)
    floor = Floor(partial(evaluated, twin), inputs, dtype)
    step.verdicts = settle(floor, subject, inputs, results, exactly)
    torchs = dict(floor.native)
    for name, end in ends.items():
        parts = (grad for node, grad in sent.get(end, ()) if node in step.nodes)
        torchs[name] = sum(parts, np.zeros_like(torchs[name]))
    # One that answers the same to all inputs is never excused as having lost only digits.
    settled = settle(floor, lambda _: torchs, inputs, torchs)
    for name, end in ends.items():
        arrived = arrivals.get(end, EMPTY) if _is_leaf(end[0]) else EMPTY
        verdict = _worse((step.verdicts[name], settled[name], arrived))
        step.edges.append(Edge(name, end[0], float(np.linalg.norm(torchs[name])), verdict))


def _call(step: Step) -> tuple[str, Any, dict[str, Any]] | None:
    """The rule of a step, and the call in its signature; None if there is none."""
    name, args = step.name.removesuffix("_"), step.args
    if name in REFLECTED:
        name, args = REFLECTED[name], args[::-1]
    op = NAMES.get(name, name)
    if op not in samples.ops():
        return None
    kwargs = {n: a for n, a in step.kwargs.items() if n not in (*LEFT_OUT, *DEPRECATED)}
    if op in ("reshape", "permute") and len(args) > 1 and isinstance(args[1], int):
        args = args[0], tuple(args[1:])
    try:
        inspect.signature(gradients.rule_pair(op)[0]).bind(*args, **kwargs)
    except TypeError as error:
        step.note = str(error)
        return None
    return op, args, kwargs


def _row(number: int, step: Step) -> dict[str, Any]:
    def norm(tree: Any) -> float:
        parts = [np.linalg.norm(a) for a in leaves(tree) if isinstance(a, np.ndarray)]
        return float(np.linalg.norm(parts)) if parts else float("nan")

    y = next((a for a in leaves(step.y) if isinstance(a, np.ndarray)), None)
    return {
        "id": f"{number}/{step.name}",
        "step": number,
        "function": step.name,
        "rule": step.op or None,
        "nodes": ", ".join(map(named, step.nodes)),
        "next": ", ".join(step.next),
        "shape": "" if y is None else str(list(y.shape)),
        "value_norm": norm(step.y),
        "gradient_norm": norm(step.dy),
        "kept_bytes": sum(a.nbytes for a in step.kept),
        "saved": ", ".join(step.saved),
        "saved_bytes": sum(step.saved.values()),
        "margin": max((v.margin for v in step.judged.values()), default=float("nan")),
        "class": step.kind,
        "note": step.note,
    }
