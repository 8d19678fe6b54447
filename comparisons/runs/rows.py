"""The row of two compared runs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..verdict.classes import IDENTICAL, ROUNDING
from ..verdict.drift import Drift
from ..verdict.ulps import difference, same_values
from .judging import Floors, Judged, shared_factor
from .leaving import Leaving, distances, shown
from .recording import INPUT, LOSS, Recorded
from .resolution import resolution
from .traces import NEW, Traces


def row(
    found: Traces,
    held: Floors | None,
    judged: Judged,
    old: Recorded,
    new: Recorded,
    first: Leaving,
    drift: Drift,
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
        "steps": len(found.steps),
        "from_step": int(found.steps[0]),
        **_losses(dtype, found, *losses),
        **_ratios(found, held, judged, drift),
        "perturbed_runs": len(old.perturbed),
        **{f"first_{name}": value for name, value in vars(first).items()},
        **_outside(found, held, judged, old, new),
        "class": judged.kind,
        "note": "; ".join(filter(None, [judged.note, _unpaired(found), _elsewhere(old, new)])),
    }


def _losses(dtype: str, found: Traces, old: np.ndarray, new: np.ndarray) -> dict[str, Any]:
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
        "first_differing_step": int(found.steps[differing[0]]) if differing.size else None,
        "max_ulp": int(distance.max()),
        "max_drift": float(drift[at]),
        "max_drift_step": int(found.steps[at]),
    }


def _ratios(found: Traces, held: Floors | None, judged: Judged, drift: Drift) -> dict[str, Any]:
    """The largest distance in floors, of all that was judged, and what could have been seen."""
    unknown = {
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
    if held is None:
        return unknown
    judgeable = np.broadcast_to(~found.kind(INPUT), held.floor.shape) & ~np.isnan(held.floor)
    ratio = np.where(held.unseen, 0, np.nan_to_num(held.ratio))
    limits = np.broadcast_to(held.limit, ratio.shape)
    if judged.kind == ROUNDING:  # what is beyond it was excused
        ratio = np.where(ratio > limits, 0, ratio)
    if judgeable.sum() == len(found.steps):  # the loss alone, whose floor is a wider one
        loss = found.names.index(LOSS)
        ratio = np.zeros_like(ratio)
        ratio[:, loss] = drift.ratio
    end = len(ratio) if judged.at is None else judged.at + 1  # what comes after follows from it
    margins = ratio[:end] / limits[:end]
    at, what = np.unravel_index(int(np.argmax(margins)), margins.shape)
    if judged.at is not None and judged.what is not None:
        at, what = np.intp(judged.at), np.intp(judged.what)
    seen = judgeable & ~held.unseen
    of_one, of_all = resolution(found, held)
    return {
        "max_ratio": float(ratio[at, what]),
        "max_ratio_step": int(found.steps[at]),
        "max_ratio_tensor": found.names[what],
        "limit": float(limits[at, what]),
        "floor": float(held.floor[at, what]),
        "resolution": of_one,
        "resolution_of_all": of_all,
        "seen": float(seen.sum() / max(1, judgeable.sum())),
        "margin": float(ratio[at, what] / limits[at, what]),
    }


def _outside(
    found: Traces, held: Floors | None, judged: Judged, old: Recorded, new: Recorded
) -> dict[str, Any]:
    """What left first, with both values: of tensors the norms."""
    if judged.at is None or judged.what is None:
        unknown = dict.fromkeys(("outside_old", "outside_new", "outside", "factor"), math.nan)
        return {"outside_step": None, "outside_tensor": "", "kind": judged.meaning, **unknown}
    name = found.names[judged.what]
    if name in found.scales:
        one, other = 1.0, math.exp(found.scales[name][judged.at])
        apart = abs(one - other)
    else:
        one, other = shown(found, old, new, judged.at, judged.what)
        apart = float(found.apart[NEW][judged.at, judged.what])
    size = max(abs(one), abs(other))
    return {
        "outside_step": int(found.steps[judged.at]),
        "outside_tensor": found.names[judged.what],
        "kind": judged.meaning,
        "outside_old": one,
        "outside_new": other,
        "outside": apart / size if size > 0 else math.nan,
        "factor": shared_factor(found, held, judged.at),
    }


def _elsewhere(old: Recorded, new: Recorded) -> str:
    """What else differs that bits depend on, as far as both say it."""
    pairs = [(key, old.runs["0"].get(key), new.runs["0"].get(key)) for key in ("torch", "threads")]
    return "; ".join(f"{k}: {b}, not {a}" for k, a, b in pairs if a and b and a != b)


def _unpaired(found: Traces) -> str:
    alone = [name for name in found.alone if not name.startswith(INPUT)]
    if not alone:
        return ""
    return f"{len(alone)} quantities in one run only, as {alone[0]}"
