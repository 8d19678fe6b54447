"""A recorded trajectory, and its file."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..report import npz


@dataclass(frozen=True)
class Trajectory:
    """A trajectory: tensors (parameters (steps + 1, …), gradients (steps, …)), all of one dtype.

    lr has the rate of every step, or is None: one that is not known. norms (steps,) are those of
    all gradients together, also where some tensors or elements were taken out of more; begun is
    how many steps were taken before.
    """

    tensors: tuple[tuple[np.ndarray, np.ndarray], ...]
    lr: np.ndarray | None = None
    names: tuple[str, ...] = ("",)
    norms: np.ndarray | None = None
    begun: int = 0

    @property
    def steps(self) -> int:
        return len(self.tensors[0][1])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.tensors[0][0].dtype

    def part(self, first: int, last: int) -> Trajectory:
        """Of the steps first, …, last − 1 alone."""
        lr = self.lr if self.lr is None else self.lr[first:last]
        norms = self.norms if self.norms is None else self.norms[first:last]
        tensors = tuple((p[first : last + 1], g[first:last]) for p, g in self.tensors)
        return replace(self, tensors=tensors, lr=lr, norms=norms, begun=self.begun + first)

    def first(self, steps: int) -> Trajectory:
        return self.part(0, steps)

    def tensor(self, index: int) -> Trajectory:
        """One tensor alone, which knows the norms of all."""
        return replace(
            self,
            tensors=(self.tensors[index],),
            names=(self.names[index],),
            norms=self.all_norms(),
        )

    def double(self) -> Trajectory:
        tensors = ((p.astype(np.float64), g.astype(np.float64)) for p, g in self.tensors)
        return replace(self, tensors=tuple(tensors))

    def flat(self, elements: int | None = None) -> Trajectory:
        """All tensors as one, or so many of its elements, drawn at random."""
        several = [[a.reshape(len(a), -1) for a in tensor] for tensor in self.tensors]
        norms, size = self.norms, sum(p.shape[1] for p, _ in several)
        if elements is not None and elements < size:
            norms = self.all_norms()
            chosen = np.random.default_rng(0).choice(size, elements, replace=False)
            starts = np.cumsum([0, *(p.shape[1] for p, _ in several)])
            which = np.searchsorted(starts, chosen, side="right") - 1
            several = [
                [a[:, chosen[which == i] - starts[i]] for a in tensor]
                for i, tensor in enumerate(several)
            ]
        p, g = (np.concatenate([tensor[i] for tensor in several], 1) for i in (0, 1))
        return replace(self, tensors=((p, g),), names=("",), norms=norms)

    def parameters(self) -> np.ndarray:
        """(steps, elements), what was recorded after every step."""
        return np.concatenate([p[1:].reshape(self.steps, -1) for p, _ in self.tensors], axis=1)

    def all_norms(self) -> np.ndarray:
        """(steps,), the norm of all gradients of a step together."""
        if self.norms is not None:
            return self.norms
        squares = sum(
            np.square(g.reshape(self.steps, -1), dtype=np.float64).sum(1) for _, g in self.tensors
        )
        return np.asarray(np.sqrt(squares))

    def clipped(self, how: str, size: float) -> Trajectory:
        """With the gradients as a clip leaves them, and without norms, which are others then."""

        def each(g: np.ndarray) -> np.ndarray:
            if how == "clip_grad_value":
                return np.clip(g, -size, size).astype(g.dtype)
            least = 1e-6 if how == "clip_grad_norm" else 0.0  # what torch adds to the norm
            factor = size / np.maximum(self.all_norms() + least, size)
            return (g * factor.reshape(-1, *[1] * (g.ndim - 1))).astype(g.dtype)

        return replace(self, tensors=tuple((p, each(g)) for p, g in self.tensors))

    def sizes(self, how: str) -> list[float]:
        """Sizes at which a clip would have an effect on some of the steps or elements."""
        if how == "clip_grad_value":
            of = np.concatenate([abs(g).ravel() for _, g in self.tensors])
        else:
            of = self.all_norms()
        of = of[of > 0]
        return [float(s) for s in np.quantile(of, (0.5, 0.2, 0.8, 0.95))] if of.size else [1.0]


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
    return Trajectory(tuple(tensors), lr, tuple(n.removeprefix(".") for n in names))
