"""The trials of one call: both sides evaluated, at its own point and at probes made from it."""

from __future__ import annotations

import copy
import functools
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...reference.adapters import leaves, tree_map
from ..ops.arguments import array_names
from ..ops.torch_samples import Sample
from ..report.text import raised
from ..verdict.classes import CONVENTION, DIFFERENT, Function, Results
from ..verdict.halves import is_half
from ..verdict.noise import cast, is_floating
from . import findings
from .adapt import WHOLE, Misuse, Subject, of_torch
from .arguments import argument, arrays, converted, double, floating, native, private
from .findings import NOT_APPLICABLE, UNSUPPORTED, Finding, Outcome, Reason, error_of
from .pace import Pace
from .probes import (
    ALSO_IN_FLOAT32,
    AS_GIVEN,
    FOREIGN,
    LONG,
    MUST_ANSWER,
    ORDINARY,
    OWN,
    SHAPE,
    UNASKED,
    Probe,
)
from .votes import Vote

RESULTS = 1000  # of a long axis, which one that is taken apart has more of


@dataclass(frozen=True)
class Trial:
    """One evaluation of the subject, still to be judged."""

    probe: Probe
    dtype: str
    inputs: Any
    call: Function
    results: dict[str, Any]
    truth: Results  # the reference in float64
    lay: Callable[[Any], Any] | None = None  # how the inputs were laid out in memory

    @property
    def derived(self) -> bool:
        """Whether only the elements count where the reference is finite."""
        return OWN not in self.probe.traits

    @property
    def carrier(self) -> str:
        """The dtype of the arrays that stand for it."""
        return "float32" if is_half(self.dtype) else self.dtype


class Trials:
    """All that was tried on one call, in order: outcomes, and trials that are still to be judged.

    Without a reference the gradient is held to differences in float64, and all that is judged of
    other dtypes, layouts and calls is whether the subject agrees with itself.
    """

    def __init__(
        self,
        subject: Subject,
        reference: Subject | None,
        sample: Sample,
        settings: Sequence[float],
        seed: int,
        once: bool,
        pace: Pace,
    ) -> None:
        self.subject, self.reference, self.sample = subject, reference, sample
        self.settings, self.seed, self.pace = settings, seed, pace
        self.once = once  # whether what comes in 16 bits was computed in float32 and rounded once
        self.order = array_names(sample.args, sample.kwargs, subject.signature)
        usual = frozenset((OWN, ORDINARY, MUST_ANSWER, ALSO_IN_FLOAT32))
        self.own = Probe(AS_GIVEN, sample.args, sample.kwargs, usual)
        self.point = self.own  # from which the other probes are made
        self.tried: list[Outcome | Trial] = []
        self.outcomes: list[Outcome] = []
        self.votes: list[Vote] = []
        self.random = False  # whether the subject differs from itself when it is called again
        self.unexcused: Counter[str] = Counter()  # results, by name, that were different
        self.base: Trial | None = None  # the first, at the caller's own point
        self.beside: Trial | None = None  # the same, at the point from which others are made
        self.spared = False  # whether the reference is so long that few probes are tried
        self._promoted: set[tuple[str, str]] = set()  # results by name, and the dtype asked for
        self._last: tuple[list[Any], Results] | None = None  # a point, and the truth there

    @property
    def findings(self) -> list[Finding]:
        """What is wrong, in the order of the outcomes."""
        return [
            o.why
            for o in self.outcomes
            if isinstance(o.why, Finding) and o.kind in (DIFFERENT, CONVENTION) and not o.accepted
        ]

    def branch(self) -> Trials:
        """The same call, of which nothing was tried."""
        other = copy.copy(self)
        other.tried, other.outcomes, other.votes = [], [], []
        return other

    # Evaluated ---------------------------------------------------------------------------------

    def at(self, probe: Probe, dtype: str, dy: Any = None) -> Trial | None:
        """Evaluates both sides, with a random dy unless one is given; None where there is nothing
        to judge. Raises ValueError where the reference refuses the caller's own call."""
        if self.late(probe, dtype):
            return None
        try:
            inputs, truth = self._known(probe, dtype, dy)
        except Exception as refusal:
            if not self.reference:
                self.refused(probe, dtype, None, refusal)
            elif OWN in probe.traits and not self.base:
                raise ValueError(f"against: it refuses this call: {raised(refusal)}") from refusal
            else:
                self.not_judged(probe, dtype, findings.REFUSED_BY_REFERENCE, raised(refusal))
            return None
        if OWN not in probe.traits and truth and _finite_nowhere(truth):
            self.not_judged(probe, dtype, findings.FINITE_NOWHERE)
            return None
        if LONG in probe.traits and truth and len(truth) > RESULTS:
            self.not_judged(probe, dtype, findings.NOT_TRIED, "of each element a result is dear")
            return None
        call = self.called_in(dtype)
        results = self.answer(probe, dtype, inputs, call)
        if results is None:
            return None
        if truth is None:
            try:
                truth = self.truth(double(inputs))
            except Exception as refusal:  # it answers once, or in one dtype only
                self.refused(probe, dtype, inputs, refusal)
                return None
        return self.trial(probe, dtype, inputs, truth, results, call)

    def call(self, inputs: Any) -> dict[str, Any]:
        """The subject's value and gradients by name."""
        args, kwargs, dy = inputs
        y, pullback = self.subject.run(args, kwargs)
        came, expected = len(leaves(y)), len(leaves(dy))
        if came != expected:
            raise Misuse(
                f"y: expected as many outputs as the reference has, {expected}, got {came}"
            )
        return self.subject.results(y, pullback(dy), self.order, pullback.whole)

    def called_in(self, dtype: str) -> Function:
        """The subject in this dtype, of inputs that float32 carries if that has 16 bits."""
        if not is_half(dtype):
            return self.call
        return lambda inputs: self.call(native(inputs, dtype))

    def answer(
        self,
        probe: Probe,
        dtype: str,
        inputs: Any,
        call: Function,
        lay: Callable[[Any], Any] | None = None,
    ) -> dict[str, Any] | None:
        """What the subject gives; None where it raises or answers like no rule, or is late."""
        if self.late(probe, dtype):
            return None
        passed = (lay or private)(inputs)
        try:
            results = {n: None if g is None else g.copy() for n, g in call(passed).items()}
        except Misuse as misuse:
            self.fail(findings.RAISED, probe, "", dtype, inputs, error=error_of(misuse))
            return None
        except Exception as refusal:
            if lay and self._refuses_layout(lay(inputs)):
                self.not_judged(probe, dtype, findings.LAYOUT_REFUSED, raised(refusal))
            else:
                self.refused(probe, dtype, inputs, refusal)
            return None
        self._unchanged(probe, dtype, inputs, passed)
        return results

    def trial(
        self,
        probe: Probe,
        dtype: str,
        inputs: Any,
        truth: Results,
        results: dict[str, Any],
        call: Function,
        lay: Callable[[Any], Any] | None = None,
    ) -> Trial:
        """What the subject gave, to be judged. None for a gradient is right where it is zero, and a
        fault elsewhere. Whole results are held to those of the reference where both have as many:
        many a rule has none, or returns what it kept."""
        whole = {n for n in (*results, *truth) if n.startswith(WHOLE)}
        if not all(n in results and n in truth for n in whole):
            results = {n: g for n, g in results.items() if n not in whole}
        for name in [n for n, g in results.items() if g is None]:
            if name in truth and not truth[name].any():
                results[name] = truth[name].astype(np.dtype(dtype))
            else:
                del results[name]
                self.fail(findings.NO_GRADIENT, probe, name, dtype, inputs)
        for name, g in results.items():
            results[name] = (
                g.astype(truth[name].dtype)
                if name.startswith(WHOLE)
                else self._as_asked(probe, name, dtype, inputs, g)
            )
        laid = lay or private
        return Trial(probe, dtype, inputs, lambda i: call(laid(i)), results, truth, lay)

    def _as_asked(
        self, probe: Probe, name: str, dtype: str, inputs: Any, g: np.ndarray
    ) -> np.ndarray:
        """The result in the dtype asked for. NumPy computes in float64 what meets a number of it:
        no wrong value, and said once. Torch mixes no dtypes by itself."""
        wider = g.dtype.itemsize > np.dtype(dtype).itemsize
        if g.dtype != dtype and (self.subject.in_torch or not wider):
            return g  # and wrong
        if wider and (name, dtype) not in self._promoted:
            self._promoted.add((name, dtype))
            made = self.finding(findings.WRONG_DTYPE, probe, name, dtype, inputs, ours=g)
            self.tried.append(Outcome(probe, name, dtype, UNSUPPORTED, None, made))
        return np.asarray(cast(g, dtype)) if wider or is_half(dtype) else g  # known by itself

    def _known(self, probe: Probe, dtype: str, dy: Any) -> tuple[Any, Results | None]:
        """What the subject is called with, and the reference's truth about it, if there is one.

        That is known already where the other dtype holds the same numbers.
        """
        args, kwargs = converted((probe.args, probe.kwargs), dtype)
        call, answer = double((args, kwargs), dtype), None
        if dy is None:
            answer = self._side.run(*private(call))
            numbers = np.dtype(np.float32 if self.reference else np.float64)
            dy = cotangent(answer[0], self.random_numbers(probe), numbers)
        inputs = args, kwargs, converted(dy, dtype)
        if not self.reference:
            return inputs, None
        wide = *call, double(inputs[2], dtype)
        point = [(a.shape, a.tobytes()) for a in arrays(wide)]
        if self._last is None or self._last[0] != point:
            answer = answer or self.reference.run(*call)
            self._last = point, self._differentiated(wide, *answer)
        return inputs, self._last[1]

    def random_numbers(self, probe: Probe) -> np.random.Generator:
        """Those of a probe, which do not depend on what was tried before."""
        return np.random.default_rng([self.seed, zlib.crc32(probe.name.encode())])

    # The two sides -----------------------------------------------------------------------------

    @property
    def _side(self) -> Subject:
        """Who knows the truth: without a reference the subject itself, held to differences."""
        return self.reference or self.subject

    def answers(self, probe: Probe) -> bool:
        """Whether both sides take this call."""
        try:
            for side in (self._side, self.subject):
                side.run(*private((probe.args, probe.kwargs)))
        except Exception:
            return False
        return True

    def truth(self, inputs: Any) -> Results:
        """The reference's results; without one, the subject's own, for it is held to
        differences."""
        return self._differentiated(inputs, *self._side.run(*inputs[:2]))

    def _differentiated(self, inputs: Any, y: Any, pullback: Any) -> Results:
        found = self._side.results(y, pullback(inputs[2]), self.order, pullback.whole)
        if not any(g is None for g in found.values()):
            return found
        if not self.reference:
            return {n: g for n, g in found.items() if g is not None}
        given = dict(zip(self.order, floating(inputs), strict=True))
        return {n: np.zeros_like(given[n]) if g is None else g for n, g in found.items()}

    def as_torch_lays(self, laid: Any) -> Results:
        """The reference over the memory of the arrays themselves."""
        y, pullback = self._sharing.run(*laid[:2])
        return self._sharing.results(y, pullback(laid[2]), self.order, pullback.whole)

    def as_torch_in(self, dtype: str, inputs: Any) -> Results:
        """The reference in a type of 16 bits itself; nothing where torch does not know that."""
        try:
            found = self.as_torch_lays(native(private(inputs), dtype))
        except RuntimeError:  # NotImplementedError among them
            return {}
        return cast(found, np.float32)

    @functools.cached_property
    def _sharing(self) -> Subject:
        assert self.reference
        function, names = self.reference.in_torch, self.sample.constant
        assert function
        return of_torch(function, self.subject.signature, names)

    def _refuses_layout(self, laid: Any) -> bool:
        try:
            return self.reference is not None and not self._sharing(laid)
        except Exception:
            return True

    # What was written to -----------------------------------------------------------------------

    def _unchanged(self, probe: Probe, dtype: str, inputs: Any, passed: Any) -> None:
        dys = len(leaves(inputs[2]))
        names = iter([*self.order, *(["dy"] * dys)])
        for a, b in zip(arrays(inputs), arrays(passed), strict=True):
            what = next(names) if is_floating(a) else "an array of whole numbers"
            if a.tobytes() != b.tobytes() and not self._written(what, probe):
                self.fail(findings.MUTATED, probe, what, dtype, inputs)

    def _written(self, name: str, probe: Probe) -> bool:
        """Whether the reference writes into this argument itself, there or at the caller's own
        point: running statistics."""
        if not self.reference or name not in self.sample.constant:
            return False
        for point in (self.own, probe):
            after = private(before := (point.args, point.kwargs))
            self._sharing.run(*after)
            pairs = zip(self.order, floating(before), floating(after), strict=True)
            if any(n == name and not np.array_equal(a, b) for n, a, b in pairs):
                return True
        return False

    # Noted -------------------------------------------------------------------------------------

    def late(self, probe: Probe, dtype: str) -> bool:
        """Whether there is no time left for it, which is noted."""
        if over := self.pace.over:
            self.not_judged(probe, dtype, findings.OUT_OF_BUDGET, self.pace.seconds)
        return over

    def not_judged(self, probe: Probe, dtype: str, kind: str, detail: Any = None) -> None:
        why = Reason(kind, detail)
        self.tried.append(Outcome(probe, "", dtype, NOT_APPLICABLE, None, why))

    def refused(self, probe: Probe, dtype: str, inputs: Any, error: Exception) -> None:
        """The subject raises: a fault at the caller's own values, however they lie in memory, and
        at a probe that must answer, unless nobody has: without inputs the point may be none."""
        own = probe.args is self.point.args or (MUST_ANSWER in probe.traits and inputs is not None)
        if own and UNASKED not in probe.traits and not (self.sample.drawn and OWN in probe.traits):
            self.fail(findings.RAISED, probe, "", dtype, inputs, error=error_of(error))
        else:
            self.not_judged(probe, dtype, findings.REFUSED_BY_SUBJECT, raised(error))

    def fail(
        self, kind: str, probe: Probe, name: str, dtype: str, inputs: Any, **found: Any
    ) -> None:
        """Notes what is wrong, where that is known before anything is judged."""
        made = self.finding(kind, probe, name, dtype, inputs, **found)
        self.tried.append(Outcome(probe, name, dtype, self.wrong(made), None, made))

    def finding(
        self, kind: str, probe: Probe, name: str, dtype: str, inputs: Any, **found: Any
    ) -> Finding:
        x = argument(self.order, inputs, name)
        return Finding(kind, probe, name, dtype, inputs, argument=x, **found)

    def wrong(self, finding: Finding) -> str:
        """The class of a row with this finding."""
        traits = finding.probe.traits
        if FOREIGN in traits or (SHAPE in traits and not self.reference):
            return UNSUPPORTED
        # An axis that became 1 is broadcast now, as the caller's own is not.
        if SHAPE in traits and finding.kind == findings.WRONG_SHAPE and _not_summed(finding):
            return UNSUPPORTED
        return DIFFERENT


def cotangent(y: Any, rng: np.random.Generator, numbers: np.dtype) -> Any:
    """A random dy in the shape of y, of such numbers, None for outputs that are whole. Raises
    TypeError for complex ones, which are not judged.

    Beside a reference float32 holds it exactly, so that one truth serves both dtypes. Without one
    this dy must show by itself a backward that casts it to float32.
    """

    def like(part: Any) -> np.ndarray | None:
        part = np.asarray(part)
        if part.dtype.kind == "c":
            raise TypeError("expected floating results, got complex ones")
        if not is_floating(part):
            return None
        kind: Any = numbers
        return np.asarray(rng.standard_normal(part.shape, kind), np.float64)

    return tree_map(like, y)


def _not_summed(finding: Finding) -> bool:
    """Whether what came is what should have come, broadcast."""
    assert finding.ours is not None
    assert finding.truth is not None
    try:
        shape = np.broadcast_shapes(finding.ours.shape, finding.truth.shape)
    except ValueError:
        return False
    return bool(shape == finding.ours.shape)


def _finite_nowhere(results: Results) -> bool:
    """Whether there are numbers, and none is finite; or the value has none, as a mean over nothing,
    and so no gradient."""
    numbers = {name: a for name, a in results.items() if is_floating(a) and a.size}
    values = [a for name, a in numbers.items() if name.split(".")[0] == "value"]
    undefined = bool(values) and all(np.isnan(a).all() for a in values)
    return bool(numbers) and (undefined or not any(np.isfinite(a).any() for a in numbers.values()))
