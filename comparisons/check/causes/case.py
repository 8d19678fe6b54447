"""What a cause is looked for in: one call, and what was wrong about its numbers."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from ....reference.adapters import tree_map
from ...report.text import apart
from ...verdict.classes import Results
from ...verdict.noise import cast
from ..adapt import Subject
from ..arguments import argument
from ..findings import Finding
from ..probes import ORDINARY, OWN, SPARSE, cut
from ..votes import Vote, numeric
from .closeness import broadcasts, where_finite

CASES = 3  # findings of an argument that a cause has to reproduce, or all if there are fewer
# The most elements of an array that get a derivative, or a contribution, each of its own.
SMALL = 32


@dataclass(frozen=True)
class Cause:
    """A diagnosis: its name, one of a short list, and a sentence."""

    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"


class Evaluated(Protocol):
    """An evaluation of the subject."""

    @property
    def inputs(self) -> Any: ...


class Tried(Protocol):
    """One call of a subject after it was tried at all probes.

    order     the names of its floating arrays, in order
    settings  the numbers among its settings
    base      the first evaluation, at the caller's own point
    random    whether the subject differs from itself when it is called again
    """

    @property
    def subject(self) -> Subject: ...
    @property
    def reference(self) -> Subject | None: ...
    @property
    def order(self) -> Sequence[str]: ...
    @property
    def settings(self) -> Sequence[float]: ...
    @property
    def base(self) -> Evaluated | None: ...
    @property
    def random(self) -> bool: ...
    @property
    def votes(self) -> Sequence[Vote]: ...
    @property
    def findings(self) -> Sequence[Finding]: ...
    def truth(self, inputs: Any) -> Results:
        """The reference's value and gradients by name; only where there is a reference."""


class Candidate(NamedTuple):
    """What may have been computed instead of a gradient."""

    cause: str
    text: str
    values: np.ndarray
    fitted: float | None = None  # a number that fits best, and is none that is known


@dataclass(frozen=True)
class Sides:
    """A wrong result beside the right one."""

    finding: Finding
    inputs: Any
    ours: np.ndarray
    truth: np.ndarray


@dataclass(frozen=True)
class Wrong:
    """A wrong gradient beside the right one, and what candidates are made of."""

    name: str
    inputs: Any
    ours: np.ndarray
    truth: np.ndarray
    x: np.ndarray  # the argument itself
    all_ours: Results  # all that the subject gives there
    single: bool  # only float32 is wrong

    @property
    def y(self) -> np.ndarray | None:
        """The subject's value, if it is a single one."""
        return self.all_ours.get("value")

    @property
    def repeated(self) -> list[int]:
        """How many times the argument may have been repeated by broadcasting."""
        y, x = self.y, self.x
        if y is None or y.shape == x.shape or not broadcasts(x.shape, y.shape):
            return []
        return [y.size // max(x.size, 1), *(n for n in y.shape if n > 1)]

    def is_made(self, candidate: np.ndarray) -> bool:
        """Whether the candidate gives the wrong values, far better than the right ones do."""
        if candidate.shape != self.ours.shape:
            return False
        ours, truth = where_finite(self.ours, self.truth)
        made = np.where(np.isfinite(self.ours) & np.isfinite(self.truth), candidate, 0)
        if not np.isfinite(made).all():
            return False
        scale = float(np.max(abs(ours), initial=0))
        wrong = float(np.max(abs(ours - truth), initial=0))
        allowed = min((1e-4 if self.single else 1e-6) * scale, 1e-2 * wrong)
        # Where only NaN or infinity is wrong, nothing is left that could be made.
        return wrong > 0 and float(np.max(abs(ours - made), initial=0)) <= allowed + 1e-300


@dataclass(frozen=True)
class Case:
    """One call, the findings about elements that are wrong, and both sides at any other inputs."""

    done: Tried
    findings: Sequence[Finding]
    known: dict[Any, Any] = field(default_factory=dict)  # values at moved elements

    @property
    def gradients(self) -> list[Finding]:
        return [f for f in self.findings if f.name in self.done.order]

    @property
    def values(self) -> list[Finding]:
        return [f for f in self.findings if f.name not in self.done.order]

    def has(self, trait: str) -> bool:
        """Whether it was wrong at a probe with this trait."""
        return any(trait in f.probe.traits for f in self.findings)

    def ours(self, inputs: Any) -> Results:
        """What the subject gives, without the gradients that it leaves out."""
        args, kwargs, dy = _copied(inputs)
        y, pullback = self.done.subject.run(args, kwargs)
        found = self.done.subject.results(y, pullback(dy), self.done.order, pullback.whole)
        return {name: result for name, result in found.items() if result is not None}

    def truth(self, inputs: Any) -> Results:
        """The reference's results in float64; without one, differences of the subject's value, of
        arrays that are SMALL."""
        double = cast(inputs, np.float64)
        if not self.done.reference:
            return numeric(self.done.subject, double, self.done.order, SMALL, self.known)
        return self._by_our_names(self.done.truth(double))

    def _by_our_names(self, found: Results) -> Results:
        """Gradients go by the names of the subject's arguments, which the reference's own signature
        may call otherwise: `f(*arrays)` has arg0 where the reference has x."""
        order = self.done.order
        theirs = [n for n in found if n not in order and n.split(".")[0] != "value"]
        if not theirs:
            return found
        ours = [n for n in order if n not in self.done.subject.constant]
        gradients = [n for n in found if n in order or n in theirs]
        named = dict(zip(gradients, ours if len(gradients) == len(ours) else order, strict=True))
        return {named.get(n, n): result for n, result in found.items()}

    def sides(self, finding: Finding) -> Sides | None:
        """What came and what should have come. Where there are but differences, at a point with few
        enough elements to give each a derivative of its own; None where there is no such point."""
        f = finding
        if f.ours is None:
            return None
        if f.truth is not None:
            return Sides(f, f.inputs, f.ours, f.truth)
        try:
            args, kwargs = cut(f.inputs[0], f.inputs[1], SMALL)
            y, _ = self.done.subject.run(*_copied((args, kwargs)))
        except Exception:  # the rows hang together
            return None
        if not isinstance(y, np.ndarray):
            return None
        inputs = args, kwargs, np.random.default_rng(0).standard_normal(y.shape)
        ours, truth = at(self.ours, inputs, f.name), at(self.truth, inputs, f.name)
        return None if ours is None or truth is None else Sides(f, inputs, ours, truth)

    def pulled(self, wrong: Wrong, dy: np.ndarray) -> np.ndarray:
        """The right gradient for another dy."""
        args, kwargs, given = wrong.inputs
        return self.truth((args, kwargs, np.asarray(dy, given.dtype)))[wrong.name]

    @functools.cached_property
    def wrong(self) -> list[list[Wrong]]:
        """For each argument: up to CASES of its wrong gradients, the most ordinary first; none of
        what is wrong at odd points alone where another is at ordinary ones."""
        found = []
        ordinary = {f.name for f in self.gradients if ORDINARY in f.probe.traits}
        for name in self.done.order:
            mine = [f for f in self.gradients if f.name == name]
            if ordinary and name not in ordinary:
                continue
            double = [f for f in mine if f.dtype == "float64"] or mine
            chosen = sorted(double, key=_oddity)[:CASES]
            if made := [w for f in chosen if (w := self._wrong(f))]:
                found.append(made)
        return found

    def _wrong(self, f: Finding) -> Wrong | None:
        if (sides := self.sides(f)) is None:
            return None
        x = argument(self.done.order, sides.inputs, f.name)
        if x is None or sides.ours.shape != sides.truth.shape:
            return None
        single = f.dtype != "float64"
        every = self.ours(sides.inputs)
        return Wrong(f.name, sides.inputs, sides.ours, sides.truth, x, every, single)


def at(side: Callable[[Any], Results], inputs: Any, name: str) -> np.ndarray | None:
    """One result of one side; None where it refuses these inputs, or has no such."""
    try:
        return side(inputs).get(name)
    except Exception:
        return None


def example(f: Finding) -> str:
    """One wrong element, for the sentence."""
    index = () if f.outside is None or not f.outside.any() else tuple(np.argwhere(f.outside)[0])
    x = f.argument
    known = x is not None and f.outside is not None and x.shape == f.outside.shape
    place = f" where {f.name} is {x[index]:.6g}" if x is not None and known else ""
    ours = f.ours[index] if f.ours is not None else math.nan
    pair = apart(ours, f.truth[index]) if f.truth is not None else [f"{ours:.6g}", "another"]
    return f"{' instead of '.join(pair)}{place} ({f.probe.name})"


def _oddity(f: Finding) -> int:
    """0 at the caller's own point, more where it is less ordinary."""
    traits = f.probe.traits
    return 0 if OWN in traits else 3 if ORDINARY not in traits else 2 if SPARSE in traits else 1


def _copied(tree: Any) -> Any:
    return tree_map(lambda a: a.copy() if isinstance(a, np.ndarray) else a, tree)
