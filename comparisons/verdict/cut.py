"""A call cut to the elements of which more must be known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ...reference.adapters import leaves, tree_map
from .classes import Function, Results
from .ulps import same_bits

SHARE = 4  # so many times smaller than the whole a cut is at least
BLOCK = 64  # a multiple of the elements that any processor takes at once

Places = Mapping[str, Any]  # the name of a result → the index of the elements that a cut keeps


class Cut(NamedTuple):
    """A smaller call: what becomes of the inputs, and where its results stand in the whole."""

    of: Callable[[Any], Any]
    places: Places

    def gives(self, function: Function, inputs: Any, results: Results) -> bool:
        """Whether a function gives in the smaller call what it gave in the whole, to the bit."""
        try:
            found = function(self.of(inputs))
        except Exception:  # whatever such a call is refused with, it is no cut
            return False
        return all(same_bits(found[n], results[n][place]) for n, place in self.places.items())


def cut(
    reference: Function, inputs: Any, truth: Results, wanted: Mapping[str, np.ndarray]
) -> Cut | None:
    """A far smaller call that gives the wanted elements of these results; None if there is none.

    Where all arrays have one shape, it may be one of these elements alone; else one of the rows
    that hold them. The reference decides: it must give back what it gave.
    """
    for candidate in _candidates(inputs, wanted):
        if candidate.gives(reference, inputs, truth):
            return candidate
    return None


def _candidates(inputs: Any, wanted: Mapping[str, np.ndarray]) -> Iterator[Cut]:
    masks = list(wanted.values())
    shapes = {mask.shape for mask in masks}
    arrays = {a.shape for a in leaves(inputs) if isinstance(a, np.ndarray) and a.size > 1}
    if len(shapes) == 1 and arrays <= shapes:
        (shape,) = shapes
        if len(picks := _whole_blocks(np.logical_or.reduce(masks).ravel())):
            elements = _where(lambda a: a.shape == shape, lambda a: a.reshape(-1)[picks])
            yield Cut(elements, dict.fromkeys(wanted, np.unravel_index(picks, shape)))
    heights = {shape[:1] for shape in shapes}
    if len(heights) == 1 and (height := heights.pop()):
        held = [mask.reshape(*height, -1).any(axis=1) for mask in masks]
        if len(rows := _whole_blocks(np.logical_or.reduce(held))):
            of_rows = _where(lambda a: a.shape[:1] == height, lambda a: a[rows])
            yield Cut(of_rows, dict.fromkeys(wanted, rows))


def _whole_blocks(mask: np.ndarray) -> np.ndarray:
    """The places where the mask holds, and some others, because what is left over from whole blocks
    is often computed in another way; nothing if that is not far less than all."""
    picks = np.flatnonzero(mask)
    missing = -len(picks) % BLOCK
    if SHARE * (len(picks) + missing) > mask.size:
        return picks[:0]
    return np.concatenate([picks, np.flatnonzero(~mask)[:missing]])


def _where(
    fits: Callable[[np.ndarray], bool], pick: Callable[[np.ndarray], np.ndarray]
) -> Callable[[Any], Any]:
    """Picks from every array of a tree that fits."""
    return partial(tree_map, lambda a: pick(a) if isinstance(a, np.ndarray) and fits(a) else a)
