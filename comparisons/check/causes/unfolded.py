"""A pullback in which nothing that is made from dy is used twice.

What goes two ways is computed for each of them, so that a mistake may be made on one of them alone,
as where p dy is written once more in Σ p dy.
"""

from __future__ import annotations

from typing import Any

import torch

from ..traced import BothWays

MORE = 200  # the most operations that are added


def unfolded(both: BothWays) -> tuple[BothWays, set[str]] | None:
    """The same pullback, and the names of what goes one of several ways; None where nothing does,
    or too much."""
    graph = torch.fx.Graph()
    known: dict[Any, Any] = {}
    graph.output(graph.graph_copy(both.graph, known))
    several = {known[both.nodes[name]] for name in both.of_dy if name in both.nodes}
    apart: set[str] = set()
    added = 0
    for node in reversed(list(graph.nodes)):
        if node.op != "call_function" or node not in several or len(node.users) < 2:
            continue
        apart.add(node.name)
        for user in list(node.users)[1:]:
            with graph.inserting_before(node):
                copy = graph.node_copy(node)
            user.replace_input_with(node, copy)
            apart.add(copy.name)
            added += 1
        if added > MORE:
            return None
    if not added:
        return None
    module = torch.fx.GraphModule(both.graph.owning_module, graph)
    spots = [both.values[name] for name in both.arguments]
    return BothWays(module.graph, spots, list(both.arguments.values())), apart
