"""What is kept of a cell, its row and thinned curves, and the folder in which each lies in a file
of its own as soon as it is done: a grid that was interrupted goes on from there."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import environment
from ..report import files
from ..training.cells import Cell
from .divergence import Comparison, compare, described

POINTS = 400  # of a curve, as many as a picture can show
FORMAT = 1
CURVES = ("steps", "manual", "reference", "drift", "floor")
# A result does not depend on these: sources have digests, and cells run on one thread.
BESIDE = ("revision", "threads")
# Nor on these, if it may come from any machine of a cluster.
PLACE = ("system", "processor", "numpy kernels", "torch kernels", "torch build", "blas")


@dataclass(frozen=True)
class Kept:
    """A cell that was compared: its row, its curves at `steps`, counted from 1, and what it was
    run with. `fitted` is (slope, offset) of either side, of a regression of one number on one."""

    row: dict[str, Any]
    steps: np.ndarray
    manual: np.ndarray
    reference: np.ndarray
    drift: np.ndarray
    floor: np.ndarray
    fitted: dict[str, list[float]]
    environment: dict[str, str]

    @property
    def content(self) -> bytes:
        """The file of it. Floats are written with all their digits, NaN and infinity as such."""
        curves = {name: getattr(self, name).tolist() for name in CURVES}
        about = {"format": FORMAT, "environment": self.environment, "fitted": self.fitted}
        return json.dumps({**about, "row": self.row, **curves}, default=_number).encode()


def run(cell: Cell) -> Kept:
    """Compares a cell, and keeps what the tables and pictures show of it."""
    return thinned(compare(cell))


def thinned(found: Comparison) -> Kept:
    """What is kept of a comparison: of a long run some steps, spread evenly, and those of which the
    row tells."""
    last, row = len(found.reference), found.row
    spread = np.round(np.linspace(1, last, min(last, POINTS))).astype(int)
    told = [row["max_drift_step"], row["max_ratio_step"], row["outside_step"]]
    steps = np.unique([*spread, *(step for step in told if step)])
    at = steps - 1
    sides = {"manual": found.manual_parameters, "torch": found.reference_parameters}
    return Kept(
        row={name: _number(value) for name, value in row.items()},
        steps=steps,
        manual=found.manual[at],
        reference=found.reference[at],
        drift=found.drift.drift[at],
        floor=found.drift.floor[at],
        fitted={side: _line(parameters) for side, parameters in sides.items()},
        environment=environment.fingerprint(),
    )


class Shelf:
    """The folder of the cells that are done. With `anywhere` a cell counts whichever machine it was
    run on; else only one that was run with what this process would run it with."""

    def __init__(self, folder: Path, anywhere: bool = False) -> None:
        self.folder = folder
        self._beside = BESIDE + PLACE if anywhere else BESIDE
        self._now = self._decisive(environment.fingerprint())
        self.others: list[str] = []  # why cells that are there do not count

    def found(self, cells: Sequence[Cell]) -> dict[int, Kept]:
        """Those of the cells that are done, by their index."""
        kept = {i: self._read(cell) for i, cell in enumerate(cells)}
        return {i: k for i, k in kept.items() if k is not None}

    def told(self, done: Mapping[int, Kept]) -> str:
        """How many cells are done, and why others that lie there do not count."""
        texts = [f"done before: {len(done)}"] if done else []
        if self.others:
            reasons = "; ".join(dict.fromkeys(self.others))
            texts.append(f"run again: {len(self.others)}, {reasons}")
        return "; ".join(texts)

    def keep(self, kept: Kept) -> None:
        """Writes a cell, whole. ConnectionError if a worker has run it with other versions than are
        here."""
        if why := self._differs(kept.environment):
            raise ConnectionError(f"a worker runs other versions than are here: {why}")
        files.folder(self.folder)
        files.write(self._path(kept.row["id"]), kept.content)

    def clear(self, cells: Sequence[Cell]) -> None:
        """Removes the files of these cells, and the folder, if nothing else is in it."""
        for cell in cells:
            self._path(described(cell)["id"]).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _read(self, cell: Cell) -> Kept | None:
        row_id = described(cell)["id"]
        path = self._path(row_id)
        if not path.exists():
            return None
        try:
            content = json.loads(files.read(path))
            if content.pop("format") != FORMAT or content["row"]["id"] != row_id:
                raise ValueError("another format")
            content |= {name: np.array(content[name]) for name in CURVES}
            kept = Kept(**content)
            why = self._differs(kept.environment)
        except (ValueError, TypeError, KeyError, AttributeError):
            why = "it cannot be read"
        if why:
            self.others.append(why)
            return None
        return kept

    def _differs(self, other: Mapping[str, str]) -> str:
        changed = environment.changes(self._decisive(other), self._now)
        return ", ".join(f"{name} {old} → {new}" for name, (old, new) in changed.items())

    def _decisive(self, environment: Mapping[str, str]) -> dict[str, str]:
        return {k: v for k, v in environment.items() if not k.startswith(self._beside)}

    def _path(self, row_id: str) -> Path:
        return self.folder / f"{files.stem(row_id)}.json"


def _line(parameters: Mapping[str, np.ndarray]) -> list[float]:
    values = [parameters[name] for name in ("weight", "bias") if name in parameters]
    return [float(v.item()) for v in values] if all(v.size == 1 for v in values) else []


def _number(value: Any) -> Any:
    """A number of NumPy's as one of Python's."""
    return value.item() if isinstance(value, np.generic) else value
