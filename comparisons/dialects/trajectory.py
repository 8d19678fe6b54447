"""A recorded trajectory, and its file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..report import npz


@dataclass(frozen=True)
class Trajectory:
    """A trajectory: tensors (parameters (steps + 1, …), gradients (steps, …)), all of one dtype.

    lr has the rate of every step, or is None: one that is not known, and does not change.
    """

    tensors: tuple[tuple[np.ndarray, np.ndarray], ...]
    lr: np.ndarray | None = None

    @property
    def steps(self) -> int:
        return len(self.tensors[0][1])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.tensors[0][0].dtype

    def first(self, steps: int) -> Trajectory:
        lr = self.lr if self.lr is None else self.lr[:steps]
        return Trajectory(tuple((p[: steps + 1], g[:steps]) for p, g in self.tensors), lr)

    def double(self) -> Trajectory:
        tensors = ((p.astype(np.float64), g.astype(np.float64)) for p, g in self.tensors)
        return Trajectory(tuple(tensors), self.lr)

    def flat(self, elements: int | None = None) -> Trajectory:
        """All tensors as one, or so many of its elements, drawn at random."""
        p, g = (
            np.concatenate([t[i].reshape(len(t[i]), -1) for t in self.tensors], 1) for i in (0, 1)
        )
        if elements is not None and elements < p.shape[1]:
            chosen = np.random.default_rng(0).choice(p.shape[1], elements, replace=False)
            p, g = p[:, chosen], g[:, chosen]
        return Trajectory(((p, g),), self.lr)

    def parameters(self) -> np.ndarray:
        """(steps, elements), what was recorded after every step."""
        return np.concatenate([p[1:].reshape(self.steps, -1) for p, _ in self.tensors], axis=1)


def read(path: Path) -> Trajectory:
    """The record in an .npz file: params (steps + 1, …) and grads (steps, …), or params.NAME and
    grads.NAME for each of several tensors, and lr (steps,) if the rate changes.

    Raises ValueError, naming the array, if it is anything else, and OSError where nothing can be
    read.
    """
    arrays = npz.read(path)
    names = [match[1] for name in arrays if (match := re.fullmatch(r"params(|\..+)", name))]
    if not names:
        raise ValueError(f"{path}: expected arrays params and grads, got {', '.join(arrays)}")
    tensors = []
    for name in names:
        if f"grads{name}" not in arrays:
            raise ValueError(f"grads{name}: missing beside params{name}")
        p, g = arrays[f"params{name}"], arrays[f"grads{name}"]
        if p.dtype.kind != "f" or p.dtype != g.dtype or p.dtype.itemsize not in (4, 8):
            raise ValueError(
                f"params{name}, grads{name}: expected both float32 or both float64, got {p.dtype} "
                f"and {g.dtype}"
            )
        if p.ndim == 0 or len(p) < 2 or g.shape != (len(p) - 1, *p.shape[1:]):
            raise ValueError(
                f"grads{name}: expected the shape of params{name} {p.shape} with one step less, "
                f"got {g.shape}"
            )
        for what, array in (("params", p), ("grads", g)):
            if not np.isfinite(array).all():
                raise ValueError(f"{what}{name}: expected finite numbers, got NaN or infinity")
        tensors.append((p, g))
    if len({(p.dtype, len(p)) for p, _ in tensors}) > 1:
        raise ValueError("params: expected one dtype and as many steps for all")
    if not sum(p[0].size for p, _ in tensors):
        raise ValueError("params: expected at least one element")
    steps = len(tensors[0][1])
    lr = arrays.get("lr")
    if lr is not None and (lr.shape != (steps,) or lr.dtype.kind != "f"):
        raise ValueError(f"lr: expected {steps} numbers, got {lr.dtype} {lr.shape}")
    if lr is not None and not (np.isfinite(lr) & (lr >= 0)).all():
        raise ValueError("lr: expected finite numbers of at least 0")
    return Trajectory(tuple(tensors), lr)
