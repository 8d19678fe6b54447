"""One call of a torch function, its nodes and its verdicts; and all of them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ...reference.adapters import leaves
from .. import ops
from ..report import files, notebook, tables
from ..verdict.classes import DIFFERENT, Verdict, worst
from .places import Leaf

if TYPE_CHECKING:
    from ..check.report import Report

NO_RULE = "no rule"
NEAR = 0.7  # of names: two of three letters in common is chance
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
    method: bool = False  # of a tensor
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
    passed: dict[End, float] = field(default_factory=dict)  # the norm of what its nodes sent there
    given: dict[str, np.ndarray] = field(default_factory=dict)  # inputs that ask for no gradient
    place: str = ""  # the submodule that called it
    note: str = ""
    half: str = ""  # of 16 bits, which that has something of: arrays of float32 carry its numbers
    batched: dict[int, int] = field(default_factory=dict)  # inside of vmap: of the arrays that hold
    # many along their first axis, by their id, where that was
    custom: Any = None  # the autograd.Function or the operator of torch.library, if it is one
    report: Report | None = None  # of `check`, on that

    @property
    def judged(self) -> dict[str, Verdict]:
        """All verdicts, that on an edge as "x → GeluBackward0"."""
        return self.verdicts | {f"{e.argument} → {e.next}": e.verdict for e in self.edges}

    @property
    def kind(self) -> str:
        """The worst class of its verdicts. Without a rule only its cotangent can be different."""
        kind = worst(v.kind for v in self.judged.values())
        return kind if self.op or self.report or kind == DIFFERENT else NO_RULE

    @property
    def nearest(self) -> str:
        """Of a function that has no rule, the rule with the nearest name, that of a node which was
        made unseen included; "" if none is near."""
        called = _function(self.name)
        if self.op or self.report or (ops.called(called) and called == self.name):
            return ""
        same = ops.called(called)
        near = difflib.get_close_matches(called, ops.names(), 1, cutoff=NEAR)
        return same.name if same else next(iter(near), "")

    @property
    def is_another(self) -> bool:
        """Whether it is a method of a tensor that shares its name with a rule, of something
        else."""
        op = ops.called(self.name.removesuffix("_")) if self.method else None
        return op is not None and bool(op.facts.entry)

    @property
    def next(self) -> list[str]:
        """The names of the nodes that its own lead to."""
        edges = [n for node in self.nodes for n, _ in node.next_functions if n is not None]
        return list(dict.fromkeys(map(named, edges)))


@dataclass(frozen=True)
class Trace:
    """All steps in the order of execution; `table` has one row for each. `notes` say what was
    traced as something else; `leaves` are what gradients end in, by torch's node."""

    steps: list[Step]
    notes: tuple[str, ...] = ()
    leaves: Mapping[Any, Leaf] = field(default_factory=dict)

    @property
    def table(self) -> pd.DataFrame:
        return tables.table(_row(i, step) for i, step in enumerate(self.steps, 1))

    @property
    def covered(self) -> float:
        """The share of torch's nodes that a rule answers for."""
        counts = [(len(s.nodes), bool(s.op)) for s in self.steps]
        total = sum(n for n, _ in counts)
        return sum(n for n, known in counts if known) / total if total else 1.0

    @property
    def examined(self) -> list[str]:
        """The names of the nodes that `check` answers for."""
        return [named(n) for s in self.steps if s.report for n in s.nodes]

    @property
    def missing(self) -> list[str]:
        """The names of the nodes that neither a rule nor `check` answers for."""
        return [named(n) for s in self.steps if not (s.op or s.report) for n in s.nodes]

    @property
    def wrong(self) -> list[Step]:
        """The steps where something is different: the rule, the cotangent, or an edge."""
        return [s for s in self.steps if s.kind == DIFFERENT]

    def save(self, path: str | Path) -> Path:
        """Writes the trace as one page, whole or not at all. Raises OSError."""
        from .page import page

        return files.write(Path(path), page(self))

    def __str__(self) -> str:
        lines = []
        for i, s in enumerate(self.steps, 1):
            wrong = [name for name, v in s.judged.items() if v.kind == DIFFERENT]
            said = f"{s.kind}: {', '.join(filter(None, [*wrong, told(s)]))}".removesuffix(": ")
            lines.append(f"{i:>3} {s.name:<20} {', '.join(map(named, s.nodes)):<40} {said}")
        return "\n".join([*lines, f"{self.covered:.0%} of the nodes have a rule", *self.beside()])

    def beside(self) -> list[str]:
        """What is said beside the share of nodes that a rule answers for."""
        found = [f"examined by check: {', '.join(self.examined)}"] if self.examined else []
        return [*found, *(f"note: {note}" for note in self.notes)]

    def _repr_html_(self) -> str:
        rows = self.table
        rows = rows[rows["class"] == DIFFERENT] if self.wrong else rows
        return notebook.part(not self.wrong, f"{self._told()}\n{self}", rows)

    def __repr__(self) -> str:
        """One line."""
        return f"<Trace: {self._told()}>"

    def _told(self) -> str:
        wrong = ", ".join(dict.fromkeys(step.name for step in self.wrong))
        verdict = f"WRONG: {wrong}" if wrong else "nothing is different"
        return f"{len(self.steps)} steps, {self.covered:.0%} of the nodes have a rule, {verdict}"


def told(step: Step) -> str:
    """What there is to be said of a step beside its verdicts."""
    near = f"the nearest rule is {step.nearest}" if step.nearest else ""
    return "; ".join(filter(None, [step.note, near]))


def _function(node: str) -> str:
    """How the function is called that makes such nodes: log_softmax of LogSoftmaxBackward0."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", re.sub(r"Backward\d*$", "", node))
    return words.lower()


def named(node: Any) -> str:
    """A node's name, without its namespace."""
    return str(node.name()).rpartition("::")[2]


def is_leaf(node: Any) -> bool:
    """Whether a node stands for a tensor that gradients are accumulated in."""
    return hasattr(node, "variable")


def _row(number: int, step: Step) -> dict[str, Any]:
    def norm(tree: Any) -> float:
        parts = [np.linalg.norm(a) for a in leaves(tree) if isinstance(a, np.ndarray)]
        return float(np.linalg.norm(parts)) if parts else float("nan")

    y = next((a for a in leaves(step.y) if isinstance(a, np.ndarray)), None)
    return {
        "id": f"{number}/{step.name}",
        "step": number,
        "function": step.name,
        "module": step.place,
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
