"""What may have made a trajectory: optimizers in dialects, with open settings."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...manual import dialects
from ...manual.dialects import Dialect
from ...reference.adapters import AMOUNT, SCALE, SHARE
from ..ops import optimizers
from .trajectory import Trajectory

BOUNDS = {SCALE: (math.log(1e-30), math.log(1e4)), SHARE: (0.0, 14.0), AMOUNT: (0.0, 10.0)}
OPTIMIZERS = [optimizer.name for optimizer in optimizers.every() if optimizer.facts.free]
# Settings that are usually 0: left alone at first, and then looked for from here.
RARE = {
    "momentum": 0.5,
    "dampening": 0.1,
    "weight_decay": 1e-3,
    "initial_accumulator_value": 0.1,
    "lr_decay": 1e-3,
}


@dataclass(frozen=True)
class Coordinate:
    """One number among the settings, as it is looked for."""

    setting: str
    index: int | None
    kind: str

    @property
    def name(self) -> str:
        return self.setting if self.index is None else f"{self.setting}[{self.index}]"

    def of(self, settings: Mapping[str, Any]) -> float:
        value = settings[self.setting]
        return float(value if self.index is None else value[self.index])

    def into(self, settings: Mapping[str, Any], value: float) -> dict[str, Any]:
        if self.index is None:
            return {**settings, self.setting: value}
        several = list(settings[self.setting])
        several[self.index] = value
        return {**settings, self.setting: tuple(several)}

    def there(self, value: float) -> float:
        if self.kind == SCALE:
            value = math.log(max(value, 1e-30))
        elif self.kind == SHARE:
            value = -math.log1p(-min(value, 1 - 1e-10))
        return float(np.clip(value, *BOUNDS[self.kind]))

    def back(self, x: float) -> float:
        if self.kind == SCALE:
            return math.exp(x)
        return -math.expm1(-x) if self.kind == SHARE else x


@dataclass(frozen=True)
class Candidate:
    """An optimizer in some dialects, its settings, and those of them that are still open."""

    optimizer: str
    dialects: tuple[Dialect, ...]
    settings: Mapping[str, Any]
    free: tuple[Coordinate, ...]

    @property
    def name(self) -> str:
        """As torch calls it."""
        return self._named[0]

    @property
    def _named(self) -> tuple[str, Mapping[str, Any]]:
        """The name, and the settings that it says already."""
        for other in optimizers.every():
            if other.facts.alias and other.facts.alias[0] == self.optimizer:
                given = other.facts.alias[1]
                if given.items() <= self.settings.items():
                    return other.name, given
        return self.optimizer, {}

    def unusual(self) -> dict[str, Any]:
        """The settings that are not the defaults."""
        defaults = optimizers.named(self.optimizer).defaults
        usual = {**dict.fromkeys(self.settings, False), **defaults, **self._named[1]}
        return {n: v for n, v in self.settings.items() if v != usual[n]}

    def digits(self) -> int:
        """How much has to be said: the digits of the unusual settings, and the dialects."""
        numbers = (
            float(n)
            for value in self.unusual().values()
            for n in (value if isinstance(value, tuple) else (value,))
        )
        return len(self.dialects) + sum(
            len(np.format_float_scientific(n, trim="-").split("e")[0].replace(".", ""))
            for n in numbers
        )

    def moved(self, values: Sequence[float]) -> Candidate:
        settings: Mapping[str, Any] = self.settings
        for coordinate, value in zip(self.free, values, strict=True):
            settings = coordinate.into(settings, value)
        return replace(self, settings=settings)


def candidates(record: Trajectory, spoken: int, names: Sequence[str]) -> Iterator[Candidate]:
    """The optimizers of these names in every choice, with so many dialects at a time: those that
    are not the same as another on this record."""
    p, g = record.flat().tensors[0]
    maximize = bool((np.sign(p[1] - p[0]) * np.sign(g[0])).sum() > 0)
    known = set()
    for name in names:
        optimizer = optimizers.named(name)
        several = [
            some
            for some in itertools.combinations(dialects.of(name), spoken)
            if len({d.about for d in some}) == spoken
        ]
        for choice, rare in itertools.product([{}, *optimizer.facts.choices], (False, True)):
            settings = optimizer.defaults | {"maximize": maximize} | choice
            if rare:
                settings |= {n: v for n, v in RARE.items() if n in settings and n not in choice}
            fixed = choice.keys() | ({"lr"} if record.lr is not None else set())
            fixed |= set() if rare else RARE.keys()
            free = tuple(
                Coordinate(n, i if isinstance(kind, tuple) else None, k)
                for n, kind in optimizer.facts.free.items()
                if n not in fixed
                for i, k in enumerate(kind if isinstance(kind, tuple) else (kind,))
            )
            for some in several:
                candidate = Candidate(name, some, settings, free)
                try:
                    same = run(candidate, record).tobytes()
                except ValueError:  # Nesterov without momentum
                    continue
                if same not in known:
                    known.add(same)
                    yield candidate


def run(
    candidate: Candidate, record: Trajectory, noise: Callable[[Any], Any] | None = None
) -> np.ndarray:
    """The parameters (steps, elements) of a free run from the record's start on its gradients.

    Noise moves the settings once, and what a step sees at every step.
    """
    step = _step(candidate.optimizer, candidate.dialects)
    settings = noise(dict(candidate.settings)) if noise else candidate.settings
    found = []
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # wrong settings diverge
        for params, grads in record.tensors:
            param, after = params[0], []
            state: dict[str, Any] = {}
            for t, grad in enumerate(grads):
                rate = {} if record.lr is None else {"lr": float(record.lr[t])}
                if noise:
                    param, grad = noise((param, grad))
                param, state = step(param, grad, state, **{**settings, **rate})
                after.append(param)
            found.append(np.reshape(after, (len(grads), -1)))
    return np.concatenate(found, axis=1)


@functools.lru_cache(maxsize=512)
def _step(optimizer: str, spoken: tuple[Dialect, ...]) -> Callable[..., Any]:
    return dialects.variant(optimizer, *spoken)
