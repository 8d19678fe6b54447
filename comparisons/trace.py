"""One forward and backward of a torch module, function by function: torch's nodes beside rules."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.overrides import TorchFunctionMode

from ..manual.arrays import kept
from ..reference.adapters import array, leaves, listed, tree_map
from . import gradients, report, samples
from .coverage import LEFT_OUT
from .noise import is_floating
from .verdict import CLASSES, DIFFERENT, Verdict, worst

NO_RULE = "no rule"
# Torch's other names of what has a rule here; a reflected operator has its operands swapped.
NAMES = {
    **dict.fromkeys(("truediv", "true_divide", "divide"), "div"),
    **dict.fromkeys(("mm", "bmm", "mv", "dot"), "matmul"),
    **{"multiply": "mul", "subtract": "sub", "negative": "neg", "view": "reshape"},
}
REFLECTED = {"radd": "add", "rsub": "sub", "rmul": "mul", "rtruediv": "div", "rpow": "pow"}
DEPRECATED = ("size_average", "reduce", "_weight")


@dataclass(eq=False)
class Step:
    """One call of a torch function: what it was given and gave, the nodes that it made, and the
    verdict on the rule of its name."""

    name: str
    args: Any = ()  # arrays in place of tensors
    kwargs: dict[str, Any] = field(default_factory=dict)
    y: Any = None
    dy: Any = None
    nodes: list[Any] = field(default_factory=list)
    op: str = ""  # the rule
    saved: dict[str, int] = field(default_factory=dict)  # torch's saved tensors, and their bytes
    kept: list[np.ndarray] = field(default_factory=list)  # what the rule's pullback holds on to
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    note: str = ""

    @property
    def kind(self) -> str:
        """The worst class of its results; different where the rule fails on what torch took."""
        if self.verdicts:
            return worst(v.kind for v in self.verdicts.values())
        return DIFFERENT if self.op else NO_RULE

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
        counts = [(len(s.nodes), s.kind in CLASSES) for s in self.steps]
        total = sum(n for n, _ in counts)
        return sum(n for n, known in counts if known) / total if total else 1.0

    @property
    def missing(self) -> list[str]:
        """The names of the nodes that have no rule here."""
        return [named(n) for s in self.steps if s.kind not in CLASSES for n in s.nodes]

    @property
    def wrong(self) -> list[Step]:
        """The steps whose rule and torch differ."""
        return [s for s in self.steps if s.kind == DIFFERENT]

    def __str__(self) -> str:
        lines = []
        for i, s in enumerate(self.steps, 1):
            said = f"{s.kind}: {s.note}" if s.note else s.kind
            lines.append(f"{i:>3} {s.name:<20} {', '.join(map(named, s.nodes)):<40} {said}")
        return "\n".join([*lines, f"{self.covered:.0%} of the nodes have a rule"])


def trace(module: Callable[..., Any], inputs: Any, seed: int = 0) -> Trace:
    """Runs the module, a torch callable, forward and backward, and each of its functions once more
    by hand, from the same inputs and cotangent.

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
    ends = [node.variable for node in _behind([o.grad_fn for o in outputs]) if _is_leaf(node)]
    torch.autograd.grad(outputs, ends, cotangents, allow_unused=True)
    for step in recorder.steps:
        _judge(step, seed)
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
        made_before = [t.grad_fn for t in leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        step = Step(name, *tree_map(array, (tuple(args), dict(kwargs))))
        y = function(*args, **kwargs)
        outputs = [o for o in leaves(y) if isinstance(o, torch.Tensor) and o.grad_fn is not None]
        self.claim(made_before)
        step.nodes = self._new([o.grad_fn for o in outputs])
        if step.nodes:
            step.y, step.dy = tree_map(array, y), tree_map(lambda _: None, y)
            for i, output in enumerate(outputs):
                output.register_hook(lambda grad, i=i: _receive(step, i, grad))
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


def _receive(step: Step, i: int, grad: torch.Tensor) -> None:
    if isinstance(step.y, tuple):
        step.dy = tuple(array(grad) if j == i else d for j, d in enumerate(step.dy))
    else:
        step.dy = array(grad)


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


def _judge(step: Step, seed: int) -> None:
    """Runs the rule of the step's name on what torch was given."""
    call = _call(step)
    if call is None or all(d is None for d in leaves(step.dy)):
        return
    op, args, kwargs = call
    floats = [a.dtype for a in leaves((args, kwargs)) if is_floating(a)]
    if not floats or any(dtype not in (np.float32, np.float64) for dtype in floats):
        step.note = "of another dtype"
        return
    try:
        ours, twin = gradients.rule_pair(op)
        if hasattr(twin, "draw") and twin.draw(*args, **kwargs)[twin.draw.keyword] is not None:
            probe = twin(*args, **kwargs)[0]
            if not np.array_equal(probe, step.y):
                step.note = "draws at random"
                return
            kwargs = kwargs | twin.draw(*args, **kwargs)
        step.op = op
        step.kept = kept(ours(*args, **kwargs)[1])
        step.verdicts = gradients.judge_inputs(op, (args, kwargs, step.dy), str(floats[0]))
    except Exception as error:  # what a rule does on a call that torch took is a finding
        step.note = f"{type(error).__name__}: {error}"


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
        "margin": max((v.margin for v in step.verdicts.values()), default=float("nan")),
        "class": step.kind,
        "note": step.note,
    }
