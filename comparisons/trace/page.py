"""A trace as one self-contained page: a graph to zoom and click, and all about each step."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from ...reference.adapters import leaves
from .. import ops
from ..verdict.classes import DIFFERENT
from .steps import Step, Trace, named, told

PAGE = Path(__file__).with_name("page.html")
ACROSS, DOWN = 300, 90  # pixels from one step to the next
LARGE = 60  # the middle of an array with more elements is left out


def page(trace: Trace) -> bytes:
    """The page. Steps stand beneath those whose results they use."""
    owners = {node: i for i, step in enumerate(trace.steps) for node in step.nodes}
    behind = []  # of each step, the steps whose results it uses
    for i, step in enumerate(trace.steps):
        nodes = {n for node in step.nodes for n, _ in node.next_functions}
        behind.append(sorted({owners[n] for n in nodes if n in owners} - {i}))
    rows: list[int] = []
    for sources in behind:
        rows.append(1 + max((rows[j] for j in sources), default=-1))
    taken = [0] * (max(rows, default=0) + 1)
    steps = []
    for i, (step, row) in enumerate(zip(trace.steps, rows, strict=True)):
        place = {"x": 15 + ACROSS * taken[row], "y": 15 + DOWN * row}
        taken[row] += 1
        steps.append({"number": i + 1, **place, **_described(step)})
    template = jinja2.Template(PAGE.read_text(encoding="utf-8"), autoescape=True)
    return template.render(
        steps=steps,
        edges=[
            (steps[j], steps[i], _differs(trace.steps[j], trace.steps[i]))
            for i, sources in enumerate(behind)
            for j in sources
        ],
        width=30 + ACROSS * max(taken, default=1),
        height=30 + DOWN * len(taken),
        summary=f"{trace.covered:.0%} of torch's nodes have a rule here.",
        beside=trace.beside(),
    ).encode()


def _differs(source: Step, user: Step) -> bool:
    """Whether a gradient is different on its way from a step to the source of an argument."""
    judged = [e.verdict for e in user.edges if e.node in source.nodes]
    judged += [v for name, v in source.verdicts.items() if name == "cotangent"]
    return any(v.kind == DIFFERENT for v in judged)


def _described(step: Step) -> dict[str, Any]:
    shapes = [str(list(a.shape)) for a in leaves(step.y) if isinstance(a, np.ndarray)]
    rule = ops.named(step.op).rule if step.op else None
    return {
        "title": step.op or step.name,
        "shape": ", ".join(shapes),
        "kind": step.kind,
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


def _numbers(tree: Any) -> str:
    arrays = [a for a in leaves(tree) if isinstance(a, np.ndarray)]
    return "\n\n".join(np.array2string(a, precision=6, threshold=LARGE) for a in arrays) or "none"
