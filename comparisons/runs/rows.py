"""The row of two compared runs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..verdict.classes import IDENTICAL, ROUNDING
from ..verdict.ulps import difference, same_values
from .course import Course, Spot
from .judging import Judged
from .leaving import Leaving, distances, number
from .recording import INPUT, Recorded


def row(
    course: Course,
    judged: Judged,
    out: Spot | None,
    old: Recorded,
    new: Recorded,
    first: Leaving,
    losses: tuple[np.ndarray, np.ndarray],
) -> dict[str, Any]:
    """All that is said of two runs, in one line of the table."""
    dtype = old.runs["0"]["dtype"]
    return {
        "id": f"run({old.path}/{new.path})/{dtype}",
        "old": str(old.path),
        "new": str(new.path),
        "rank": "",
        "dtype": dtype,
        "steps": len(losses[0]),
        "from_step": int(course.first.steps[0]),
        **_losses(dtype, int(course.first.steps[0]), *losses),
        **_ratios(course, judged, out),
        "perturbed_runs": len(old.perturbed),
        **{f"first_{name}": value for name, value in vars(first).items()},
        **_outside(judged, out, old, new),
        "class": judged.kind,
        "note": "; ".join(
            filter(None, [judged.note, _unpaired(course.first.alone), _elsewhere(old, new)])
        ),
    }


def _losses(dtype: str, start: int, old: np.ndarray, new: np.ndarray) -> dict[str, Any]:
    distance = distances(dtype, old, new)
    differing = np.flatnonzero(distance)
    both = np.isfinite(old) & np.isfinite(new)
    drift = np.where(both | same_values(old, new), difference(old, new), np.inf)
    at = int(np.argmax(drift))
    return {
        "start_old": float(old[0]),
        "start_new": float(new[0]),
        "end_old": float(old[-1]),
        "end_new": float(new[-1]),
        "first_differing_step": start + int(differing[0]) if differing.size else None,
        "max_ulp": int(distance.max()),
        "max_drift": float(drift[at]),
        "max_drift_step": start + at,
    }


def _ratios(course: Course, judged: Judged, out: Spot | None) -> dict[str, Any]:
    """The largest distance in floors, of all that was judged, and what could have been seen."""
    # What comes after something that left follows from it.
    most = out or (course.most_within if judged.kind == ROUNDING else course.most)
    if most is None or not course.noisy:
        return {
            "max_ratio": math.nan,
            "max_ratio_step": None,
            "max_ratio_tensor": "",
            "limit": math.nan,
            "floor": math.nan,
            "resolution": math.nan,
            "resolution_of_all": math.nan,
            "seen": 0.0,
            "margin": 0.0 if judged.kind == IDENTICAL else math.inf,
        }
    return {
        "max_ratio": most.ratio,
        "max_ratio_step": most.step,
        "max_ratio_tensor": most.name,
        "limit": most.limit,
        "floor": most.floor,
        "resolution": course.resolution.of_one,
        "resolution_of_all": course.resolution.of_all,
        "seen": course.seen / max(1, course.judgeable),
        "margin": most.ratio / most.limit,
    }


def _outside(judged: Judged, out: Spot | None, old: Recorded, new: Recorded) -> dict[str, Any]:
    """What left first, with both values: of tensors the norms."""
    if out is None:
        unknown = dict.fromkeys(("outside_old", "outside_new", "outside", "factor"), math.nan)
        return {"outside_step": None, "outside_tensor": "", "kind": judged.meaning, **unknown}
    if math.isnan(out.scale):
        one, other = (number(run, out.step, out.name) for run in (old, new))
        apart = out.apart
    else:
        one, other = 1.0, out.scale
        apart = abs(one - other)
    size = max(abs(one), abs(other))
    return {
        "outside_step": out.step,
        "outside_tensor": out.name,
        "kind": judged.meaning,
        "outside_old": one,
        "outside_new": other,
        "outside": apart / size if size > 0 else math.nan,
        "factor": out.factor,
    }


def _elsewhere(old: Recorded, new: Recorded) -> str:
    """What else differs that bits depend on, as far as both say it."""
    pairs = [(key, old.runs["0"].get(key), new.runs["0"].get(key)) for key in ("torch", "threads")]
    return "; ".join(f"{k}: {b}, not {a}" for k, a, b in pairs if a and b and a != b)


def _unpaired(names: list[str]) -> str:
    alone = [name for name in names if not name.startswith(INPUT)]
    if not alone:
        return ""
    return f"{len(alone)} quantities in one run only, as {alone[0]}"
