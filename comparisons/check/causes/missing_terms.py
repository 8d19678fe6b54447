"""The derivative with one path of the computation left out: what a forgotten term leaves behind."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..traced import Edge, traced

PATHS = 48  # the most paths that are left out one at a time
PAIRED = 16  # up to this many paths, pairs are left out as well

Without = tuple[str, list[np.ndarray]]


def left_out(function: Callable[..., Any], inputs: Any, names: Sequence[str]) -> Iterator[Without]:
    """(what was left out, the gradient of each floating array then), for every path of the
    function as torch's decompositions write it; inputs are (args, kwargs, dy), y a single array,
    `names` those of the floating arrays.
    """
    trace = traced(function, inputs, names)
    edges = trace.edges[:PATHS]
    groups: list[tuple[Edge, ...]] = [(edge,) for edge in edges]
    if len(edges) <= PAIRED:
        groups += itertools.combinations(edges, 2)
    for group in groups:
        try:
            _, found = trace.evaluated(frozenset(group))
        except Exception:  # nothing is left that depends on the arguments
            continue
        yield " and ".join(map(trace.name, group)), found
