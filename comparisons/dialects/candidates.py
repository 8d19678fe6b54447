"""What may have made a trajectory: optimizers in dialects, with open settings."""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...manual import dialects
from ...manual.dialects import Dialect
from ...manual.optimizers.steps import next_step
from ...reference.adapters import AMOUNT, SCALE, SHARE
from ..ops import optimizers
from .facts import ELSEWHERE, OPTIMIZERS, defaults, facts
from .rates import Rate
from .trajectory import Trajectory

__all__ = ["OPTIMIZERS", "Candidate", "Coordinate", "candidates", "run"]

BOUNDS = {SCALE: (math.log(1e-30), math.log(1e4)), SHARE: (0.0, 14.0), AMOUNT: (0.0, 1e4)}
PLAIN = 2  # digits
PROBED = 256  # elements, on which two candidates that make the same are one
# Settings that are usually 0, whatever the default is.
RARE = {
    "momentum",
    "dampening",
    "weight_decay",
    "initial_accumulator_value",
    "lr_decay",
    "l1",
    "l2",
    "beta",
}
# What may stand between the recorded gradient and the step, as a setting of any optimizer: the
# bound of the norm of all tensors' gradients, with torch's 1e-6 beside it or without, or of each
# element.
CLIPS = {
    "clip_grad_norm": "clipped by the norm of all, as torch.nn.utils.clip_grad_norm_",
    "clip_by_global_norm": "clipped by the norm of all, as optax.clip_by_global_norm",
    "clip_grad_value": "clipped by value",
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
        x = float(np.clip(x, *BOUNDS[self.kind]))
        if self.kind == SCALE:
            return math.exp(x)
        return -math.expm1(-x) if self.kind == SHARE else x


def coordinates(optimizer: str) -> Iterator[Coordinate]:
    """Every number among the settings of the optimizer of this name that may be looked for."""
    for name, kind in facts(optimizer).free.items():
        if isinstance(kind, tuple):
            yield from (Coordinate(name, i, k) for i, k in enumerate(kind))
        else:
            yield Coordinate(name, None, kind)


@dataclass(frozen=True)
class Candidate:
    """An optimizer in some dialects, its settings, and those of them that are still open. With a
    rate, that of every step stands there, and not among the settings."""

    optimizer: str
    dialects: tuple[Dialect, ...]
    settings: Mapping[str, Any]
    free: tuple[Coordinate, ...]
    rate: Rate | None = None

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
        """The settings that are not the defaults; of a rate that changes, lr stands there."""
        name, given = self._named
        usual = {**dict.fromkeys(self.settings, False), **defaults(self.optimizer)}
        if given:  # which has defaults of its own
            accepted = inspect.signature(dialects.rule_of(name)).parameters
            usual |= {n: accepted[n].default for n in usual if n in accepted} | dict(given)
        without = {"lr"} if self.rate else set()
        return {n: v for n, v in self.settings.items() if v != usual[n] and n not in without}

    def digits(self) -> int:
        """How much has to be said: the digits of the unusual settings, and the dialects."""
        kinds = facts(self.optimizer).free
        said = sum(
            digits(float(n), SHARE in np.ravel(kinds.get(name, "")))
            for name, value in self.unusual().items()
            for n in (value if isinstance(value, tuple) else (value,))
        )
        said += sum(map(digits, self.rate.numbers())) if self.rate else 0
        theirs = self.optimizer in ELSEWHERE
        return len(self.dialects) + theirs + said

    def plain(self) -> bool:
        """Whether no setting has more digits than people write without a reason."""
        free = [c for c in self.free if c.setting != "lr" or not self.rate]
        if self.rate and not (
            self.rate.known and all(digits(n) <= PLAIN + 1 for n in self.rate.numbers())
        ):
            return False
        return all(digits(c.of(self.settings), c.kind == SHARE) <= PLAIN for c in free)

    def moved(self, values: Sequence[float]) -> Candidate:
        settings: Mapping[str, Any] = self.settings
        for coordinate, value in zip(self.free, values, strict=True):
            settings = coordinate.into(settings, value)
        return replace(self, settings=settings)

    @property
    def elementwise(self) -> bool:
        return bool(facts(self.optimizer).elementwise)


def digits(number: float, share: bool = False) -> int:
    """How many decimal digits it takes to write the number, or what a share lacks to 1."""

    def of(x: float) -> int:
        return len(np.format_float_scientific(x, trim="-").split("e")[0].replace(".", ""))

    if not (share and 0.5 < number < 1):
        return of(number)
    return min(of(number), of(float(f"{1 - number:.12g}")))


def candidates(
    record: Trajectory, spoken: int, names: Sequence[str], clip: str | None = None
) -> Iterator[Candidate]:
    """The optimizers of these names in every choice, with so many dialects at a time, behind a clip
    of the gradient or none: those that are not the same as another on this record."""
    maximize = ascends(record)
    record = record.first(6)
    known = set()
    for name in names:
        several = [
            some
            for some in itertools.combinations(dialects.of(name), spoken)
            if len({d.about for d in some}) == spoken
        ]
        for choice in [{}, *facts(name).choices]:
            settings = defaults(name) | {"maximize": maximize} | choice
            free = tuple(
                c
                for c in coordinates(name)
                if c.setting not in choice and (c.setting != "lr" or record.lr is None)
            )
            if clip:
                settings |= {clip: record.sizes(clip)[0]}
                free += (Coordinate(clip, None, SCALE),)
            for some in several:
                # What differs nowhere, even where every setting has an effect, is tried once.
                seen = {c.setting: 0.1 for c in free if c.setting in RARE}
                seen |= {"lr": 0.01} if "lr" in settings else {}
                probe = Candidate(name, some, {**settings, **seen}, free)
                try:
                    probed = record.flat(PROBED) if probe.elementwise else record
                    same = run(probe, probed).tobytes()
                except (
                    ValueError,
                    ArithmeticError,
                ):  # a line of the dialect that this choice does not have
                    continue
                if same not in known:
                    known.add(same)
                    yield Candidate(name, some, settings, free)


def ascends(record: Trajectory) -> bool:
    """Whether more elements move along their gradients than against, at the first step and over all
    of them: the first may begin elsewhere, and later ones follow earlier gradients."""
    p, g = record.flat(PROBED).tensors[0]
    along = (np.sign(np.diff(p, axis=0)) * np.sign(g)).sum(1)
    return bool(along[0] > 0 and along.sum() > 0)


def run(
    candidate: Candidate,
    record: Trajectory,
    noise: Callable[[Any], Any] | None = None,
    counted_as: str = "float64",
) -> np.ndarray:
    """The parameters (steps, elements) of a free run from the record's start on its gradients.
    Noise moves what a step sees, at every step. What depends on the count of steps alone, as bias
    corrections do, is computed in `counted_as`.
    """
    step = stepped(candidate.optimizer, candidate.dialects, counted_as)
    record, settings = clipped(record, dict(candidate.settings))
    rates = rates_of(candidate, record)
    found = []
    with np.errstate(all="ignore"):  # wrong settings diverge
        for params, grads in record.tensors:
            param, after = params[0], []
            state: dict[str, Any] = {}
            for t, grad in enumerate(grads):
                if rates is not None:
                    settings["lr"] = float(rates[t])
                if noise:
                    param, grad = noise((param, grad))
                param, state = step(param, grad, state, **settings)
                after.append(param)
            found.append(np.reshape(after, (len(grads), -1)))
    return np.concatenate(found, axis=1)


def rates_of(candidate: Candidate, record: Trajectory) -> np.ndarray | None:
    """The rate of every step, where it is not one of the settings."""
    if candidate.rate is not None:
        return candidate.rate.at(record.begun + np.arange(record.steps))
    return record.lr


def clipped(record: Trajectory, settings: dict[str, Any]) -> tuple[Trajectory, dict[str, Any]]:
    """The record with gradients as a clip among the settings leaves them, and the others."""
    found = [c for c in CLIPS if c in settings]
    if not found:
        return record, settings
    (how,) = found
    return record.clipped(how, settings[how]), {n: v for n, v in settings.items() if n != how}


@functools.lru_cache(maxsize=2048)
def stepped(optimizer: str, spoken: tuple[Dialect, ...], counted_as: str) -> Callable[..., Any]:
    if counted_as == "float64":
        return dialects.variant(optimizer, *spoken)

    def next_in_dtype(state: dict[str, Any]) -> tuple[Any, Any]:
        step, t = next_step(state)
        return step, np.dtype(counted_as).type(t)

    return dialects.variant(optimizer, *spoken, next_step=next_in_dtype)
