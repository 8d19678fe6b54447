"""One call of a torch function, its nodes and its verdicts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ...reference.adapters import leaves
from ..report import tables
from ..verdict.classes import DIFFERENT, Verdict, worst

NO_RULE = "no rule"
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
        return tables.table(_row(i, step) for i, step in enumerate(self.steps, 1))

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


def named(node: Any) -> str:
    """A node's name, without its namespace."""
    return str(node.name()).rpartition("::")[2]


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
