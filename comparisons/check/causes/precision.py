"""Errors of the size of float32's, or of a shorter type's, that no common factor explains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ....reference.adapters import array, tensor, tree_map
from ...verdict.classes import HALF_DTYPES
from ...verdict.noise import is_floating
from ..probes import ORDINARY
from .case import Case, Cause, Sides, at
from .closeness import where_finite

NUDGE = 2.0**-7  # some ulps of the shortest type: rounding is another there


def of_a_shorter_type(case: Case) -> Iterator[Cause]:
    for f in case.findings:
        ordinary = f.dtype == "float64" and ORDINARY in f.probe.traits
        sides = case.sides(f) if ordinary else None
        if sides is None:
            continue
        ours, truth = where_finite(sides.ours, sides.truth)
        norm = float(np.linalg.norm(truth))
        if not norm:
            continue
        error = float(np.linalg.norm(ours - truth)) / norm
        if not 2.0**-34 < error < 2.0**-6 or _is_a_factor(ours, truth, error):
            return
        for dtype in HALF_DTYPES:
            rounds = _is_made_by_rounding(case, sides, ours, dtype)
            if np.array_equal(_through(ours, dtype), ours) or rounds:
                yield Cause("precision", f"{f.name} is computed in {dtype} ({f.probe.name})")
        if error < 2.0**-20 or np.array_equal(ours.astype("float32").astype(float), ours):
            yield Cause("precision", f"{f.name} is computed in float32 ({f.probe.name})")
        if error < 2.0**-9 and _scatters(case, sides):
            yield Cause("precision", f"{f.name} is computed in half precision ({f.probe.name})")
        return


def _is_a_factor(ours: np.ndarray, truth: np.ndarray, error: float) -> bool:
    factor = float(np.sum(ours * truth) / np.sum(truth * truth))
    rest = float(np.linalg.norm(ours - factor * truth) / np.linalg.norm(truth))
    return truth.size > 1 and rest < 0.3 * error


def _scatters(case: Case, sides: Sides) -> bool:
    """Whether the errors are others where all that goes in is moved by a little, but by more than
    the digits that are left: those of another formula hardly change."""
    rng = np.random.default_rng(0)

    def moved(leaf: Any) -> Any:
        if not is_floating(leaf):
            return leaf
        by = 1 + NUDGE * rng.uniform(-1, 1, leaf.shape)
        return np.asarray(leaf * by, leaf.dtype)

    inputs, name = tree_map(moved, sides.inputs), sides.finding.name
    ours, truth = at(case.ours, inputs, name), at(case.truth, inputs, name)
    if ours is None or truth is None or ours.shape != sides.ours.shape:
        return True
    before = np.subtract(*where_finite(sides.ours, sides.truth))
    after = np.subtract(*where_finite(ours, truth))
    return float(np.linalg.norm(after - before)) > 0.25 * float(np.linalg.norm(before))


def _is_made_by_rounding(case: Case, sides: Sides, ours: np.ndarray, dtype: str) -> bool:
    """Whether rounding what goes in, or comes out, to this dtype comes as close to ours."""
    name, (args, kwargs, dy) = sides.finding.name, sides.inputs
    truth = case.truth(sides.inputs)[name]
    wrong = float(np.linalg.norm(ours - truth))
    other_args, other_kwargs = _through((args, kwargs), dtype)
    other_dy = _through(dy, dtype)
    for inputs in (
        (other_args, other_kwargs, dy),
        (args, kwargs, other_dy),
        (other_args, other_kwargs, other_dy),
    ):
        if np.linalg.norm(ours - case.truth(inputs)[name]) < 0.5 * wrong:
            return True
    return bool(np.linalg.norm(ours - _through(truth, dtype)) < 0.5 * wrong)


def _through(tree: Any, dtype: str) -> Any:
    kind = getattr(torch, dtype)
    return tree_map(
        lambda a: array(tensor(a).to(kind).double()).astype(a.dtype) if is_floating(a) else a, tree
    )
