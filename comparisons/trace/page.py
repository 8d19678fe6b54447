"""A trace as one self-contained page: a graph to zoom and click, all about each step, a table."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np

from ...reference.adapters import leaves
from .. import ops
from ..report import interactive
from ..report.kinds import sign, tone
from .graph import graph, inputs, shapes
from .places import Leaf
from .steps import Step, Trace, named, told

HERE = Path(__file__).parent
SCRIPTS = ("vendor/dagre.min.js", "graph.js")
LARGE = 60  # the middle of an array with more elements is left out


def page(trace: Trace) -> bytes:
    """The page. Steps stand beneath those whose results they use."""
    wrong = ", ".join(dict.fromkeys(step.name for step in trace.wrong))
    ends = [*trace.leaves.values(), *(Leaf(n, a, None) for n, a in inputs(trace).items())]
    template = interactive.template(HERE / "page.html")
    return template.render(
        title=f"Forward and backward, in {len(trace.steps)} steps",
        summary=(f"Different: {wrong}. " if wrong else "Nothing is different. ")
        + f"{trace.covered:.0%} of torch's nodes have a rule here.",
        beside=trace.beside(),
        steps=[{"number": i, **_described(step)} for i, step in enumerate(trace.steps, 1)],
        leaves=[{"number": i, **_leaf(leaf)} for i, leaf in enumerate(ends, 1)],
        table=interactive.table("all steps", trace.table),
        data=interactive.packed(graph(trace)),
        head=interactive.head(),
        style=interactive.read(HERE / "page.css"),
        scripts=interactive.scripts(*(HERE / name for name in SCRIPTS)),
        sign=sign,
        tone=tone,
    ).encode()


def _described(step: Step) -> dict[str, Any]:
    rule = ops.named(step.op).rule if step.op else None
    return {
        "title": step.op or step.name,
        "shape": shapes(step),
        "kind": step.kind,
        "place": step.place,
        "note": told(step),
        "report": str(step.report) if step.report else "",
        "verdicts": step.verdicts,
        "edges": step.edges,
        "nodes": [named(node) for node in step.nodes],
        "next": step.next,
        "saved": step.saved,
        "kept": step.kept,
        "value": _numbers(step.y),
        "cotangent": _numbers(step.dy),
        "source": inspect.getsource(rule) if rule else "",
    }


def _leaf(leaf: Leaf) -> dict[str, Any]:
    return {
        "name": leaf.name,
        "shape": str(list(leaf.value.shape)),
        "value": _numbers(leaf.value),
        "gradient": _numbers(leaf.gradient),
    }


def _numbers(tree: Any) -> str:
    arrays = [a for a in leaves(tree) if isinstance(a, np.ndarray)]
    return "\n\n".join(np.array2string(a, precision=6, threshold=LARGE) for a in arrays) or "none"
