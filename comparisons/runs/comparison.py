"""Two recorded runs: where they leave each other, and how far beside what rounding can do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..verdict.classes import IDENTICAL, LIMIT, PARTED, ROUNDING, UNDECIDED
from ..verdict.drift import Drift, free_drift
from ..verdict.ulps import ulps
from .recording import DTYPES, LOSS, Bits, Recorded, values

Quantities = Mapping[tuple[int, str], Bits]  # by step and name


@dataclass(frozen=True)
class Leaving:
    """The first quantity that differs, at the element with the most ULPs."""

    step: int | None = None
    quantity: str = ""
    index: str = ""
    ulp: int = 0
    old: float = math.nan
    new: float = math.nan


@dataclass(frozen=True)
class RunComparison:
    """Two runs, compared: the row of the table, and the curves behind it."""

    row: dict[str, Any]
    old: np.ndarray  # loss at each step
    new: np.ndarray
    drift: Drift  # its floor is NaN where none was recorded


def compare(old: Recorded, new: Recorded) -> RunComparison:
    """Holds a run against an older one, and their drift against the floor of that.

    Identical is what both have recorded, where −0 is 0 and NaN is NaN; beyond that the loss
    decides. Without six perturbed runs of the older one there is no floor, and what is not
    identical is undecided. Raises ValueError where there is nothing to compare.
    """
    theirs, ours = old.complete().bits(), new.complete().bits()
    dtype, got = (quantities[1, LOSS][0] for quantities in (theirs, ours))
    if dtype != got:
        raise ValueError(f"dtype of loss: expected {dtype} as in {old.path}, got {got}")
    leaving = _leaving(theirs, ours)
    if old.steps != new.steps:
        where = f"differ from step {leaving.step} on" if leaving.step else "are identical"
        raise ValueError(
            f"steps: expected the {old.steps} of {old.path}, got {new.steps} in {new.path} "
            f"(those that both have {where})"
        )
    losses = (old.losses(), new.losses())
    drift = _drift(old, *losses, torch.finfo(DTYPES[dtype]).eps / 2)
    kind, note = _classify(old, drift, leaving)
    alone = sorted({name for _, name in theirs.keys() ^ ours.keys()})
    unpaired = f"{len(alone)} quantities in one run only, as {alone[0]}" if alone else ""
    row = {
        "id": f"run({old.path}/{new.path})/{dtype}",
        "old": str(old.path),
        "new": str(new.path),
        "dtype": dtype,
        "steps": old.steps,
        **_losses(dtype, *losses),
        **_drifting(drift, losses[0]),
        "perturbed_runs": len(old.runs) - 1,
        **{f"first_{name}": value for name, value in vars(leaving).items()},
        "class": kind,
        "note": "; ".join(filter(None, [note, unpaired])),
    }
    if old.missing:  # nothing but the same is within a floor that is not there
        row["margin"] = 0.0 if kind == IDENTICAL else math.inf
    return RunComparison(row, *losses, drift)


def _leaving(theirs: Quantities, ours: Quantities) -> Leaving:
    """The first quantity that differs, in the order of computing: parameters, the loss, and the
    gradients from the last layer back.

    Raises ValueError for a quantity of another dtype or shape.
    """
    for (step, name), old in theirs.items():
        new = ours.get((step, name), old)
        for what, was, got in zip(("dtype", "shape"), old[:2], new[:2], strict=True):
            if was != got:
                raise ValueError(f"{what} of {name}: expected {was} as in the old run, got {got}")
        distance = distances(old[0], values(old), values(new)) if old != new else np.zeros(())
        if distance.any():
            index = np.unravel_index(np.argmax(distance), distance.shape)
            where = ", ".join(map(str, index))
            numbers = (float(values(bits)[index]) for bits in (old, new))
            return Leaving(step, name, where, int(distance[index]), *numbers)
    return Leaving()


def distances(dtype: str, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The distance of each element; bfloat16 comes as float32, of which it is the upper half."""
    if dtype == "bfloat16":
        return ulps(new.astype(np.float32), old.astype(np.float32)) >> 16
    return ulps(new.astype(dtype), old.astype(dtype))


def _drift(old: Recorded, theirs: np.ndarray, ours: np.ndarray, u: float) -> Drift:
    if not old.missing:
        noisy = np.array([old.losses(int(k)) for k in old.runs if k != "0"])
        return free_drift(ours, theirs, noisy, u)
    drift = free_drift(ours, theirs, np.array([theirs, theirs]), u).drift
    unknown = np.full(len(drift), math.nan)
    return Drift(drift, unknown, unknown, math.nan)


def _classify(old: Recorded, drift: Drift, leaving: Leaving) -> tuple[str, str]:
    """The class of the run, and a note where there is something to say."""
    if leaving.step is None:
        return IDENTICAL, ""
    if old.missing:
        runs = ", ".join(map(str, old.missing))
        return UNDECIDED, f"no floor: {old.path.name} lacks runs with perturb={runs}"
    return (ROUNDING if drift.parted is None else PARTED), ""


def _losses(dtype: str, old: np.ndarray, new: np.ndarray) -> dict[str, Any]:
    distance = distances(dtype, old, new)
    differing = np.flatnonzero(distance)
    return {
        "start_old": float(old[0]),
        "start_new": float(new[0]),
        "end_old": float(old[-1]),
        "end_new": float(new[-1]),
        "first_differing_step": int(differing[0]) + 1 if differing.size else None,
        "max_ulp": int(distance.max()),
    }


def _drifting(drift: Drift, old: np.ndarray) -> dict[str, Any]:
    at, worst = int(np.argmax(drift.drift)), int(np.argmax(drift.ratio))
    seen = np.isfinite(drift.floor) & np.isfinite(old) & (old != 0)
    resolution = LIMIT * drift.floor[seen] / abs(old[seen])
    parted = None if drift.parted is None else drift.parted + 1
    return {
        "max_drift": float(drift.drift[at]),
        "max_drift_step": at + 1,
        "max_ratio": float(drift.ratio[worst]),
        "max_ratio_step": None if math.isnan(drift.ratio[worst]) else worst + 1,
        "floor": float(drift.floor[worst]),
        "sharpness": drift.sharpness,
        "resolution": float(np.median(resolution)) if resolution.size else math.nan,
        "margin": float(drift.ratio[worst]) / LIMIT,
        "outside_step": parted,
        "outside_tensor": LOSS if parted else "",
    }
