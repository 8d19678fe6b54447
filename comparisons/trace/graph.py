"""A trace as a graph: its steps and leaves, and the gradients that go from one to the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...reference.adapters import leaves as arrays_of
from ..report.kinds import sign, tone
from ..verdict.classes import DIFFERENT
from .steps import Step, Trace, named


def graph(trace: Trace) -> dict[str, list[dict[str, Any]]]:
    """Nodes and edges, as JSON holds them. An edge goes the way of the gradient, `from` the step
    that passed it on `to` the step or leaf that got it."""
    owners = {node: f"step-{i}" for i, s in enumerate(trace.steps, 1) for node in s.nodes}
    owners |= {node: f"leaf-{i}" for i, node in enumerate(trace.leaves, 1)}
    steps = {f"step-{i}": step for i, step in enumerate(trace.steps, 1)}
    nodes = [_step(i, step) for i, step in enumerate(trace.steps, 1)]
    edges: list[dict[str, Any]] = []
    for name, step in steps.items():
        targets: dict[str, list[tuple[Any, float]]] = {}
        for end, norm in step.passed.items():
            if end[0] in owners:
                targets.setdefault(owners[end[0]], []).append((end[0], norm))
        edges += [
            _edge(name, step, target, sent, steps.get(target)) for target, sent in targets.items()
        ]
    for i, (node, leaf) in enumerate(trace.leaves.items(), 1):
        given = [e.argument for step in trace.steps for e in step.edges if e.node == node]
        nodes.append(_leaf(f"leaf-{i}", leaf.name or next(iter(given), "leaf"), leaf.value))
    for i, (name, value) in enumerate(inputs(trace).items(), len(trace.leaves) + 1):
        nodes.append(_leaf(f"leaf-{i}", name, value))
        edges += [
            {"from": id, "to": f"leaf-{i}", "argument": name, "norm": "", "different": False}
            for id, step in steps.items()
            if name in step.given
        ]
    return {"nodes": nodes, "edges": edges}


def inputs(trace: Trace) -> dict[str, np.ndarray]:
    """What the module has or was given of which no gradient is asked for."""
    return {name: value for step in trace.steps for name, value in step.given.items()}


def _leaf(id: str, name: str, value: np.ndarray) -> dict[str, Any]:
    path = name.split(".")
    return {
        "id": id,
        "title": path[-1],
        "second": str(list(value.shape)),
        "place": _place(path[:-1]),
        "kind": "leaf",
        "tone": "none",
    }


def _step(number: int, step: Step) -> dict[str, Any]:
    return {
        "id": f"step-{number}",
        "title": f"{sign(step.kind)} {number} {step.op or step.name} → {shapes(step)}",
        "second": ", ".join(map(named, step.nodes)),
        "place": _place(step.place.split(".") if step.place else []),
        "kind": step.kind,
        "tone": tone(step.kind),
    }


def shapes(step: Step) -> str:
    """Those of its results."""
    arrays = [a for a in arrays_of(step.y) if isinstance(a, np.ndarray)]
    return ", ".join(str(list(a.shape)) for a in arrays)


def _edge(
    name: str, step: Step, target: str, sent: list[tuple[Any, float]], source: Step | None
) -> dict[str, Any]:
    """What a step passed on to another, or to a leaf."""
    ends = [node for node, _ in sent]
    judged = [edge for edge in step.edges if edge.node in ends]
    arrived = source.verdicts.get("cotangent") if source else None
    kinds = [edge.verdict.kind for edge in judged] + ([arrived.kind] if arrived else [])
    return {
        "from": name,
        "to": target,
        "argument": ", ".join(edge.argument for edge in judged),
        "norm": f"{np.linalg.norm([norm for _, norm in sent]):.3g}",
        "different": DIFFERENT in kinds,
    }


def _place(path: list[str]) -> list[str]:
    """The submodules around, from outside in; a number is part of the name before it."""
    found: list[str] = []
    for part in path:
        if part.isdigit() and found:
            found[-1] += f".{part}"
        else:
            found.append(part)
    return found
