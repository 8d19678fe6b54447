"""The accuracy table: every rule and torch, both in the dtype itself, beside the exact value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...reference.adapters import leaves
from .. import ops
from ..exact import Oracle
from ..ops import arguments, evaluate
from ..samples import Call
from ..verdict.classes import DTYPES, worst
from ..verdict.noise import cast
from ..verdict.ulps import ulps

# An exact value takes time, the more the larger the inputs. It is computed for TAKEN elements of a
# result, those on which the two sides differ most; or for fewer, but at least one, so that the
# elements times the size of the inputs stay within BUDGET.
TAKEN = 8
BUDGET = 4000

# Where both sides are so far from the exact value, but not from each other, they follow one
# convention: the exact derivative at a kink is the mean of both sides.
CONVENTION = 1e-3
MANUAL, BOTH, TORCH = "manual", "both", "torch"  # the side that is nearer


def rows(op: str, seed: int = 0, dtypes: Sequence[str] = DTYPES) -> Iterator[dict[str, Any]]:
    """One row for each result of each sample and corner: the largest distance of either side from
    the exact value, in units in the last place."""
    for kind, row in ops.named(op).rows():
        for dtype in dtypes:
            yield from of_call(op, kind, row, dtype, seed)


def of_call(op: str, kind: str, row: Call, dtype: str, seed: int = 0) -> Iterator[dict[str, Any]]:
    """One row for each result of one sample or corner."""
    ours, twin = ops.named(op).pair
    inputs = evaluate.drawn(op, row, dtype, seed)
    names = arguments.argument_names(ours, inputs[0], inputs[1], twin.facts.constant)
    manual = evaluate.evaluate(ours, names, inputs)
    torch = evaluate.evaluate(twin, names, inputs)
    oracle = ops.named(op).oracle(inputs)
    verdicts = evaluate.judge_inputs(op, inputs, dtype)
    size = sum(a.size for a in leaves(inputs) if isinstance(a, np.ndarray))
    taken = min(TAKEN, max(1, BUDGET // max(size, 1)))
    for name, value in manual.items():
        if value.size:
            yield {
                "id": f"{op}({row})/{name}/{dtype}/{seed}",
                "op": op,
                "kind": kind,
                "sample": repr(row),
                "argument": name,
                "dtype": dtype,
                "seed": seed,
                **_measured(oracle, name, value, torch[name], taken),
                "margin": verdicts[name].margin,
                "class": verdicts[name].kind,
                "note": verdicts[name].note,
            }


def _measured(
    oracle: Oracle, name: str, manual: np.ndarray, torch: np.ndarray, count: int
) -> dict[str, Any]:
    apart = ulps(manual, torch).ravel()
    taken = [np.unravel_index(i, manual.shape) for i in np.argsort(-apart, kind="stable")[:count]]
    truth = cast(np.array([oracle(name, tuple(map(int, i))) for i in taken]), manual.dtype)
    ours, theirs = (np.array([side[i] for i in taken]) for side in (manual, torch))
    known = np.isfinite(truth) & np.isfinite(ours) & np.isfinite(theirs)
    a, b, c = (np.where(known, side, 0).astype(float) for side in (ours, theirs, truth))
    together = abs(a - b) <= CONVENTION * abs(b)
    convention = ~np.isfinite(truth) | (known & together & (abs(b - c) > CONVENTION * abs(c)))
    errors = [np.where(convention, 0, ulps(side, truth)) for side in (ours, theirs)]
    at = int((convention + errors[0].astype(float) + errors[1]).argmax())
    largest = tuple(int(e.max()) for e in errors)
    return {
        "elements": len(taken),
        "conventions": int(convention.sum()),
        "index": str([int(i) for i in taken[at]]),
        "manual": float(ours[at]),
        "torch": float(theirs[at]),
        "exact": float(truth[at]),
        "manual_ulp": largest[0],
        "torch_ulp": largest[1],
        "nearer": nearer(*largest),
    }


def nearer(manual: int, torch: int) -> str:
    """Which of two errors in ulp is clearly smaller: by more than half, and by more than two."""
    if 2 * manual + 2 < torch:
        return MANUAL
    return TORCH if 2 * torch + 2 < manual else BOTH


def summed(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line for each result and dtype of an op: the worst case of either side."""
    groups: dict[Any, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["argument"], row["dtype"]), []).append(row)
    found = []
    for group in groups.values():
        ours, theirs = (max(r[side] for r in group) for side in ("manual_ulp", "torch_ulp"))
        found.append(
            {
                **max(group, key=lambda r: r["manual_ulp"] + r["torch_ulp"]),
                "manual_ulp": ours,
                "torch_ulp": theirs,
                "elements": sum(r["elements"] for r in group),
                "conventions": sum(r["conventions"] for r in group),
                "nearer": nearer(ours, theirs),
                "class": worst(r["class"] for r in group),
            }
        )
    return found
