"""The gradient-parity table: every rule and its mirror, on every sample, argument by argument."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .. import ops
from ..ops.evaluate import drawn, judge_inputs
from ..verdict.classes import DTYPES, IDENTICAL, worst


def rows(
    op: str, seed: int = 0, dtypes: Sequence[str] = DTYPES, thorough: bool = False
) -> Iterator[dict[str, Any]]:
    """The rows of one op in the table; corners show the exact value as well."""
    for kind, row in ops.named(op).rows():
        for dtype in dtypes:
            inputs = drawn(op, row, dtype, seed)
            oracle = ops.named(op).oracle(inputs)
            for argument, verdict in judge_inputs(op, inputs, dtype, thorough).items():
                known = kind == "corner" and verdict.index is not None
                yield {
                    "id": f"{op}({row})/{argument}/{dtype}/{seed}",
                    "op": op,
                    "kind": kind,
                    "sample": repr(row),
                    "argument": argument,
                    "dtype": dtype,
                    "seed": seed,
                    "max_ulp": verdict.ulp,
                    "index": "" if verdict.index is None else str(list(verdict.index)),
                    "manual": verdict.manual,
                    "reference": verdict.reference,
                    "exact": oracle(argument, verdict.index or ()) if known else None,
                    "error": verdict.error,
                    "floor": verdict.floor,
                    "margin": verdict.margin,
                    "resolution": verdict.resolution,
                    "class": verdict.kind,
                    "note": verdict.note,
                }


def summed(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One line for all rows of an op."""
    largest = max(rows, key=lambda r: r["margin"])
    return {
        "op": rows[0]["op"],
        "results": len(rows),
        "identical": sum(r["class"] == IDENTICAL for r in rows),
        "max_ulp": max(r["max_ulp"] for r in rows),
        "margin": largest["margin"],
        "at": f"{largest['sample']}, {largest['argument']}, {largest['dtype']}",
        "resolution": float(np.nanmedian([r["resolution"] for r in rows])),
        "class": worst(r["class"] for r in rows),
    }
