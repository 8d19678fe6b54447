"""One call of a subject, examined: at its own point and at every probe made from it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ...reference.adapters import array, leaves, tensor, tree_map
from ..ops.arguments import array_names
from ..ops.torch_samples import Sample
from ..report.text import said
from ..verdict.classes import (
    DIFFERENT,
    IMPRECISE,
    LIMIT,
    REFERENCE_IMPRECISE,
    ROUNDING,
    UNDECIDED,
    Exact,
    Function,
    Results,
    Sides,
    Verdict,
)
from ..verdict.floor import Floor
from ..verdict.judge import screen, settle
from ..verdict.noise import cast, is_floating, unit_roundoff
from ..verdict.ulps import same_bits
from .adapt import Misuse, Subject, of_torch
from .probes import Probe, cut, layouts, points
from .votes import Direction, Vote

NOT_APPLICABLE = "n/a"  # the class of a probe that could not be judged; the note says why

# What is wrong for shapes that the caller's call does not show to be meant. It fails when strict.
UNSUPPORTED = "unsupported"
OWN = "as given"  # the probe that is the caller's own call
MUST_ANSWER = (OWN, "another dy", "permuted", "mixed")  # where raising is a fault, not a refusal
IN_FLOAT32 = (OWN, "permuted", "mixed", "on kinks", "zeros", "some zeros", "0-d", "wide", "far")


@dataclass(frozen=True)
class Failure:
    """A result that is different, with all that is needed to look for its cause."""

    probe: str
    name: str
    dtype: str
    inputs: Any  # (args, kwargs, dy)
    note: str = ""
    argument: np.ndarray | None = None  # the one whose gradient it is
    ours: np.ndarray | None = None
    truth: np.ndarray | None = None
    outside: np.ndarray | None = None  # the wrong elements; None where it is not about elements


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
        return self.probe.name != OWN


class Trials:
    """Collects rows, failures and votes of one sample.

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
        exact: Callable[[Any], Exact | None],
        sides: Callable[[Any], Sides | None] | None = None,
    ) -> None:
        self.subject, self.reference, self.sample = subject, reference, sample
        self.settings, self.seed, self.exact, self.sides = settings, seed, exact, sides
        self.order = array_names(sample.args, sample.kwargs, subject.signature)
        self.own = Probe(OWN, sample.args, sample.kwargs)
        self.rows: list[dict[str, Any]] = []
        self.failures: list[Failure] = []
        self.votes: list[Vote] = []
        self.random = False  # whether the subject differs from itself when it is called again
        self.base: Trial | None = None  # the first, at the caller's own point
        self._entries: list[dict[str, Any] | Trial] = []
        self._settled_base: tuple[Trial, dict[str, Verdict], dict[str, np.ndarray]] | None = None
        self._last: tuple[list[Any], Results] | None = None  # a point, and the truth there
        self._rng = np.random.default_rng(seed)  # of cotangents

    # What is judged ----------------------------------------------------------------------------

    def run(self, dtypes: Sequence[str], probing: bool) -> None:
        """Tries the sample in every dtype, with all the probes or at its own point alone; `judge`
        must follow, and `conclude`.

        Raises ValueError where the reference refuses the call itself.
        """
        answered = [self._at_own_point(dtype, probing) for dtype in dtypes]
        if all(answered) and probing:
            self._at_probes(dtypes)

    def conclude(self, probing: bool) -> None:
        """Raises ValueError where the reference differs from itself; else the oracles vote."""
        if any(f.probe == OWN for f in self.failures) or probing:
            self._repeat()
        if probing:
            self._vote()

    def _at_own_point(self, dtype: str, probing: bool) -> bool:
        base = self._at(self.own, dtype, self.base and self.base.inputs[2])
        if base is None:
            return False  # it cannot be called, or answers like no rule
        if self.base is None:
            self.base = base
        if probing:
            if self.base is base:
                self._laws(base)
            self._cotangents(base)
        return True

    def _at_probes(self, dtypes: Sequence[str]) -> None:
        args, kwargs = cut(self.sample.args, self.sample.kwargs)
        if args is not self.sample.args:
            try:
                self._side.run(*_private((args, kwargs)))
            except Exception:  # the rows hang together
                args, kwargs = self.sample.args, self.sample.kwargs
        for probe in points(args, kwargs, self.settings, self.seed):
            dy = None
            for dtype in dtypes:
                if dtype == dtypes[0] or probe.name in IN_FLOAT32:
                    trial = self._at(probe, dtype, dy)
                    dy = trial and trial.inputs[2]
        if self.subject.in_torch and self.reference:
            for low in (torch.float16, torch.bfloat16):
                self._half(low)

    def _cotangents(self, base: Trial) -> None:
        """Other cotangents at the caller's own point. The gradient is linear in dy in every dtype,
        so that one more is enough beside those in the first."""

        def one_hot(d: np.ndarray) -> np.ndarray:
            hot = np.zeros(d.shape)
            if d.size:
                hot.flat[int(self._rng.integers(d.size))] = 1.0
            return hot

        changes: dict[str, Callable[[np.ndarray], Any]] = {
            "another dy": lambda d: self._rng.standard_normal(d.shape),
            "one-hot dy": one_hot,
            "dy of zeros": np.zeros_like,
            "dy × 2⁻³⁰": lambda d: d * 2.0**-30,
            "broadcast dy": lambda d: np.broadcast_to(d.flat[0] if d.size else 0.0, d.shape),
        }
        for name, change in changes.items():
            if base is self.base or name == "another dy":
                dy = tree_map(
                    lambda d, f=change: np.asarray(f(d)) if is_floating(d) else d, base.inputs[2]
                )
                self._at(replace(self.own, name=name), base.dtype, dy)

    def _laws(self, base: Trial) -> None:
        """What must not change the result: layout in memory, calls before and between, the size of
        dy."""

        def tried(name: str, call: Function, lay: Callable[[Any], Any] | None = None) -> None:
            probe = replace(self.own, name=name)
            results = self._answer(probe, base.dtype, base.inputs, call, lay)
            if results is not None:
                for n, g in base.results.items():  # most do not change, and are kept once
                    if (other := results.get(n)) is not None and same_bits(g, other):
                        results[n] = g
                trial = self._trial(probe, base.dtype, base.inputs, base.truth, results, call, lay)
                self._entries.append(trial)

        for kind in ("non-contiguous", "read-only", "negative strides", "Fortran order"):

            def laid(tree: Any, kind: str = kind) -> Any:
                return _once_each(lambda a: layouts(a, kind), tree)

            def arguments(inputs: Any, laid: Any = laid) -> Any:
                return (*laid(inputs[:2]), _private(inputs[2]))

            def cotangent(inputs: Any, laid: Any = laid) -> Any:
                return (*_private(inputs[:2]), laid(inputs[2]))

            tried(f"{kind} arguments", self._call, arguments)
            tried(f"{kind} dy", self._call, cotangent)

        def again(inputs: Any) -> Results:
            """The second call of one pullback, after one with another dy, and one of another
            rule."""
            args, kwargs, dy = inputs
            y, pullback = self.subject.run(args, kwargs)
            pullback(_times(-3.0, dy))
            other = tree_map(lambda a: a[::-1] / 2 if is_floating(a) and a.ndim else a, args)
            self.subject.run(_private(other), _private(kwargs))[1](dy)
            return self.subject.results(y, pullback(dy), self.order)

        def kept(inputs: Any) -> Results:
            """The result of one call after others, which may have been written over."""
            args, kwargs, dy = inputs
            y, pullback = self.subject.run(args, kwargs)
            gradients = pullback(dy)
            pullback(_times(-3.0, dy))
            self.subject.run(*_private(inputs[:2]))[1](_times(2.0, dy))
            return self.subject.results(y, gradients, self.order)

        def scaled(factor: float) -> Function:
            def results(inputs: Any) -> Results:
                args, kwargs, dy = inputs
                y, pullback = self.subject.run(args, kwargs)
                found = self.subject.results(y, pullback(_times(factor, dy)), self.order)
                return {
                    n: g if g is None or n.startswith("value") else np.asarray(g / factor, g.dtype)
                    for n, g in found.items()
                }

            return results

        tried("called again", again)
        tried("after later calls", kept)
        tried("dy × −1", scaled(-1.0))
        tried("dy × 2¹⁰", scaled(1024.0))

    def _repeat(self) -> None:
        """Whether both sides give the same again."""
        if not (base := self.base):
            return
        if self.reference and not _identical(self._truth(_double(base.inputs)), base.truth):
            raise ValueError(
                "against: it gives different results when it is called again with the same "
                "arguments; expected a function that draws nothing at random"
            )
        try:
            self.random = not _identical(self._call(_private(base.inputs)), base.results)
        except Exception:  # it answers once only, which has failed already
            self.random = True

    def _half(self, low: torch.dtype) -> None:
        """A torch subject in half precision, beside torch in it: what torch loses is the floor."""
        assert self.reference
        dtype = str(low).removeprefix("torch.")

        def lowered(function: Any) -> Subject:
            def through(*args: Any, **kwargs: Any) -> Any:
                args, kwargs = tree_map(lambda t: _to(t, low), (args, kwargs))
                return tree_map(lambda t: _to(t, torch.float32), function(*args, **kwargs))

            return of_torch(through, self.subject.signature, self.sample.constant)

        def rounded(leaf: Any) -> Any:
            return array(_to(tensor(leaf), low).float()) if is_floating(leaf) else leaf

        assert self.base
        inputs = tree_map(rounded, (self.sample.args, self.sample.kwargs, self.base.inputs[2]))
        try:
            theirs = lowered(self.reference.in_torch)(_private(inputs))
            truths = self._truth(_double(inputs))
        except Exception as refusal:
            self._none(self.own, dtype, f"the reference refuses it: {_said(refusal)}")
            return
        try:
            found = lowered(self.subject.in_torch)(_private(inputs))
        except Exception as refusal:
            self._none(self.own, dtype, f"the subject raises {_said(refusal)}")
            return
        info = torch.finfo(low)
        for name, truth in truths.items():
            ours, native = found.get(name), theirs.get(name)
            if ours is None or native is None or ours.shape != truth.shape or not truth.size:
                continue
            both = np.isfinite(native) & np.isfinite(truth)
            own = np.max(abs(native - truth), where=both, initial=0)
            floor = info.eps / 2 * abs(truth) + own + info.tiny
            gap = np.where(np.isfinite(ours), abs(ours - truth), np.inf)
            margin = np.where(both, gap / (LIMIT * floor), 0)
            index = np.unravel_index(np.argmax(margin), margin.shape)
            worst = float(margin[index])
            kind = ROUNDING if worst <= 1 else IMPRECISE if worst < np.inf else DIFFERENT
            note = f"not finite in {dtype}, where torch is" if kind == DIFFERENT else ""
            verdict = Verdict(
                kind,
                worst,
                0,
                tuple(map(int, index)),
                float(ours[index]),
                float(truth[index]),
                float(gap[index] / abs(truth[index])) if truth[index] else math.nan,
                float(floor[index]),
                math.nan,
                math.nan,
                note,
            )
            self._entries.append(self._row(self.own, name, dtype, kind, verdict, note))
            if note:
                self._fail(self.own, name, dtype, inputs, note)

    # How it is tried ---------------------------------------------------------------------------

    @property
    def _side(self) -> Subject:
        """Who knows the truth: without a reference the subject itself, held to differences."""
        return self.reference or self.subject

    def _call(self, inputs: Any) -> dict[str, Any]:
        """The subject's value and gradients by name."""
        args, kwargs, dy = inputs
        y, pullback = self.subject.run(args, kwargs)
        came, expected = len(leaves(y)), len(leaves(dy))
        if came != expected:
            raise Misuse(
                f"y: expected as many outputs as the reference has, {expected}, got {came}"
            )
        return self.subject.results(y, pullback(dy), self.order)

    def _at(self, probe: Probe, dtype: str, dy: Any = None) -> Trial | None:
        """Evaluates both sides, with a random dy unless one is given; None where there is nothing
        to judge. Raises ValueError where the reference refuses the caller's own call."""
        try:
            inputs, truth = self._known(probe, dtype, dy)
        except Exception as refusal:
            if not self.reference:
                self._refused(probe, dtype, None, refusal)
            elif probe is self.own and not self.base:
                raise ValueError(f"against: it refuses this call: {_said(refusal)}") from refusal
            else:
                self._none(probe, dtype, f"the reference refuses it: {_said(refusal)}")
            return None
        if probe.name != OWN and truth and _finite_nowhere(truth):
            self._none(probe, dtype, "the reference is finite nowhere")
            return None
        results = self._answer(probe, dtype, inputs, self._call)
        if results is None:
            return None
        if truth is None:
            try:
                truth = self._truth(_double(inputs))
            except Exception as refusal:  # it answers once, or in one dtype only
                self._refused(probe, dtype, inputs, refusal)
                return None
        trial = self._trial(probe, dtype, inputs, truth, results, self._call)
        alone = not self.reference and dtype == "float64"
        if alone:
            self._differentiate(trial)
        if not alone or probe.name == OWN:
            self._entries.append(trial)
        return trial

    def _known(self, probe: Probe, dtype: str, dy: Any) -> tuple[Any, Results | None]:
        """What the subject is called with, and the reference's truth about it, if there is one.

        That is known already where the other dtype holds the same numbers.
        """
        args, kwargs = _cast((probe.args, probe.kwargs), np.dtype(dtype))
        call, answer = _double((args, kwargs), dtype), None
        if dy is None:
            answer = self._side.run(*_private(call))
            dy = self._cotangent(answer[0])
        inputs = args, kwargs, _cast(dy, np.dtype(dtype))
        if not self.reference:
            return inputs, None
        double = *call, _double(inputs[2], dtype)
        point = [(a.shape, a.tobytes()) for a in _arrays(double)]
        if self._last is None or self._last[0] != point:
            answer = answer or self.reference.run(*call)
            self._last = point, self._differentiated(double, *answer)
        return inputs, self._last[1]

    def _answer(
        self,
        probe: Probe,
        dtype: str,
        inputs: Any,
        call: Function,
        lay: Callable[[Any], Any] | None = None,
    ) -> dict[str, Any] | None:
        """What the subject gives; None where it raises or answers like no rule."""
        passed = (lay or _private)(inputs)
        try:
            results = {n: None if g is None else g.copy() for n, g in call(passed).items()}
        except Misuse as misuse:
            self._failed(probe, "", dtype, inputs, str(misuse))
            return None
        except Exception as refusal:
            if lay and self._refuses_layout(lay(inputs)):
                self._none(probe, dtype, f"torch as well refuses the layout: {_said(refusal)}")
            else:
                self._refused(probe, dtype, inputs, refusal)
            return None
        self._unchanged(probe, dtype, inputs, passed)
        return results

    def _trial(
        self,
        probe: Probe,
        dtype: str,
        inputs: Any,
        truth: Results,
        results: dict[str, Any],
        call: Function,
        lay: Callable[[Any], Any] | None = None,
    ) -> Trial:
        """What the subject gave, to be judged."""
        self._without_none(probe, dtype, inputs, results, truth)
        laid = lay or _private
        return Trial(probe, dtype, inputs, lambda i: call(laid(i)), results, truth, lay)

    def _without_none(
        self, probe: Probe, dtype: str, inputs: Any, results: dict[str, Any], truth: Results
    ) -> None:
        """None for a gradient is right where it is zero, and a fault elsewhere."""
        for name in [n for n, g in results.items() if g is None]:
            if name in truth and not truth[name].any():
                results[name] = truth[name].astype(dtype)
                continue
            del results[name]
            note = f'None instead of a gradient; if that is meant, say constant="{name}"'
            self._failed(probe, name, dtype, inputs, note)

    def _refused(self, probe: Probe, dtype: str, inputs: Any, refusal: Exception) -> None:
        """The subject raises: a fault at the caller's own values, however they lie in memory."""
        note = f"the subject raises {_said(refusal)}"
        own = probe.args is self.sample.args or probe.name in MUST_ANSWER
        if own and not (self.sample.drawn and probe.name == OWN):
            self._failed(probe, "", dtype, inputs, note)
        else:
            self._none(probe, dtype, note)

    def _unchanged(self, probe: Probe, dtype: str, inputs: Any, passed: Any) -> None:
        dys = len(leaves(inputs[2]))
        names = iter([*self.order, *(["dy"] * dys)])
        for a, b in zip(_arrays(inputs), _arrays(passed), strict=True):
            what = next(names) if is_floating(a) else "an array of whole numbers"
            if a.tobytes() != b.tobytes() and not self._written(what):
                self._failed(probe, what, dtype, inputs, f"{what} was changed in place")

    def _written(self, name: str) -> bool:
        """Whether the reference writes into this argument itself: running statistics."""
        if not self.reference or name not in self.sample.constant:
            return False
        return any(name == n for n, a, b in self._touched if not np.array_equal(a, b))

    @functools.cached_property
    def _touched(self) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """Each floating argument by name, before and after a call of the reference."""
        before = self.sample.args, self.sample.kwargs
        after = _private(before)
        self._sharing.run(*after)
        sides = ([a for a in leaves(side) if is_floating(a)] for side in (before, after))
        return list(zip(self.order, *sides, strict=True))

    def _refuses_layout(self, laid: Any) -> bool:
        try:
            if self.reference:
                self._sharing(laid)
        except Exception:
            return True
        return False

    @functools.cached_property
    def _sharing(self) -> Subject:
        """The reference over the memory of the arrays themselves."""
        assert self.reference
        function, names = self.reference.in_torch, self.sample.constant
        assert function
        return of_torch(function, self.subject.signature, names)

    # How it is judged --------------------------------------------------------------------------

    @property
    def trials(self) -> list[Trial]:
        return [entry for entry in self._entries if isinstance(entry, Trial)]

    def record(self, known: Mapping[tuple[int, str], Verdict]) -> None:
        """Puts all that was tried into rows; what is not known yet is settled, and what is found
        then comes last."""
        for entry in self._entries:  # to which settling adds
            if isinstance(entry, Trial):
                names = [n for n in entry.results if (id(entry), n) not in known]
                verdicts = {n: known[id(entry), n] for n in entry.results if n not in names}
                self._record(entry, verdicts, names)
            else:
                self.rows.append(entry)

    def _record(self, trial: Trial, verdicts: dict[str, Verdict], names: Sequence[str]) -> None:
        """Settles the results of these names, and puts all of the trial's into rows."""
        outside: dict[str, np.ndarray] = {}
        if names and self._settled_base and self._settled_base[0].truth is trial.truth:
            base, found, where = self._settled_base  # most layouts do not change a bit
            same = [n for n in names if n in found and trial.results[n] is base.results[n]]
            verdicts = verdicts | {n: found[n] for n in same}
            outside = {n: where[n] for n in same if n in where}
            names = [n for n in names if n not in same]
        if names:
            try:
                native = trial.truth if trial.dtype == "float64" else self._truth(trial.inputs)
            except Exception as refusal:
                if self.reference:
                    self._none(
                        trial.probe, trial.dtype, f"the reference refuses it: {_said(refusal)}"
                    )
                else:  # the subject itself, which has answered before
                    self._refused(trial.probe, trial.dtype, trial.inputs, refusal)
                return
            try:
                found, where = self._settled(trial, names, native)
            except Exception as refusal:  # at a point nearby
                note = f"outside the first floor, and nearby {_said(refusal)}"
                self.rows.append(self._row(trial.probe, "", trial.dtype, UNDECIDED, None, note))
                return
            verdicts, outside = verdicts | found, outside | where
            if trial.probe is self.own:
                self._settled_base = trial, found, where
        for name, ours in trial.results.items():
            verdict = verdicts[name]
            kind, note = verdict.kind, verdict.note
            if name in outside and kind == DIFFERENT:
                kind, note = self._named(trial, name, outside[name])
            elif not self.reference and np.any(~np.isfinite(ours) & np.isfinite(trial.truth[name])):
                kind, note = IMPRECISE, "overflows, where float64 does not"
            elif kind == IMPRECISE:
                note = f"{_digits_lost(verdict, trial.dtype):.1f} digits lost"
            if kind == DIFFERENT:
                elements = ours, trial.truth[name], outside.get(name)
                kind = self._fail(trial.probe, name, trial.dtype, trial.inputs, note, *elements)
            self.rows.append(self._row(trial.probe, name, trial.dtype, kind, verdict, note))

    def _settled(
        self, trial: Trial, names: Sequence[str], native: Results
    ) -> tuple[dict[str, Verdict], dict[str, np.ndarray]]:
        """Verdicts with all of the floor, and which elements are outside."""
        ours, *known = ({n: of[n] for n in names} for of in (trial.results, trial.truth, native))
        reference, call = _only(names, self._truth), _only(names, trial.call, trial.truth)
        floor = Floor(reference, trial.inputs, np.dtype(trial.dtype), known)
        exact = self.exact if self.reference else None
        sides = self.sides(trial.inputs) if self.sides else None
        verdicts = settle(floor, call, trial.inputs, ours, exact, finite=trial.derived, sides=sides)
        outside = {}
        for name, verdict in verdicts.items():
            if verdict.kind == DIFFERENT and not verdict.note:
                outside[name] = floor.margin(name, ours[name]) > 1
                if trial.derived:
                    outside[name] &= np.isfinite(floor.truth[name])
        return verdicts, outside

    def _named(self, trial: Trial, name: str, outside: np.ndarray) -> tuple[str, str]:
        """Class and note of what is outside the floor, and does not shrink with u."""
        if trial.lay and self.reference:
            theirs = self._sharing(trial.lay(trial.inputs))[name]
            if theirs is not None and np.array_equal(theirs, trial.results[name], equal_nan=True):
                return NOT_APPLICABLE, "torch as well depends on the layout"
        if self.reference and name in self.order and trial.dtype == "float64":
            direction = Direction(self.subject, trial.inputs, self.order.index(name), self.seed)
            vote = direction.vote(name, trial.results[name], trial.truth[name], outside)
            if vote and vote.alone == "reference":
                return REFERENCE_IMPRECISE, "torch stands alone"
        lost = not np.isfinite(trial.results[name][outside]).any()
        return DIFFERENT, "not finite, where the reference is" if lost else ""

    # Without a reference, and beside it ---------------------------------------------------------

    def _differentiate(self, trial: Trial) -> None:
        """Holds every gradient to differences."""
        arrays = [a for a in leaves(trial.inputs[:2]) if is_floating(a)]
        for position, (name, x) in enumerate(zip(self.order, arrays, strict=True)):
            if name in self.sample.constant or name not in trial.results:
                continue
            gradient = trial.results[name]
            if gradient.shape != x.shape or gradient.dtype != x.dtype:
                note = (
                    f"shape {gradient.shape} and dtype {gradient.dtype} instead of {x.shape} and "
                    f"{x.dtype}"
                )
                self._failed(trial.probe, name, trial.dtype, trial.inputs, note)
                continue
            found = Direction(self.subject, trial.inputs, position, self.seed).verdict(gradient)
            if found is None:
                note = f"{name}: differences cannot tell here: a kink or an edge"
                self._none(trial.probe, trial.dtype, note)
                continue
            verdict, only = found
            kind, note = verdict.kind, verdict.note
            if kind == DIFFERENT:
                elements = gradient, None, only
                kind = self._fail(trial.probe, name, trial.dtype, trial.inputs, note, *elements)
            self._entries.append(self._row(trial.probe, name, trial.dtype, kind, verdict, note))

    def _vote(self) -> None:
        """Along one direction of each argument: subject, reference, and differences."""
        if not self.reference or not self.base or self.base.dtype != "float64":
            return
        for position, name in enumerate(self.order):
            ours, theirs = self.base.results.get(name), self.base.truth.get(name)
            if ours is None or theirs is None or ours.shape != theirs.shape:
                continue
            direction = Direction(self.subject, self.base.inputs, position, self.seed)
            if vote := direction.vote(name, ours, theirs):
                self.votes.append(vote)

    def lints(self) -> Iterator[str]:
        """What is unfortunate about the caller's own point."""
        for name, gradient in self.base.truth.items() if self.base else ():
            small = abs(gradient) < 1e-9
            if name.startswith("value") or not gradient.size:
                continue
            if small.all():
                yield f"every gradient of {name} is near zero: a wrong one might be as well"
            elif small.mean() > 0.5:
                yield f"{small.mean():.0%} of the gradients of {name} are near zero: saturated?"
        for vote in self.votes:
            if vote.error > 1e-3 * abs(vote.derivative):
                yield f"{vote.name} lies on a kink, or at the edge of the domain"

    def _truth(self, inputs: Any) -> Results:
        """The reference's results; without one, the subject's own, for it is held to
        differences."""
        return self._differentiated(inputs, *self._side.run(*inputs[:2]))

    def _differentiated(self, inputs: Any, y: Any, pullback: Callable[[Any], Any]) -> Results:
        found = self._side.results(y, pullback(inputs[2]), self.order)
        if not any(g is None for g in found.values()):
            return found
        if not self.reference:
            return {n: g for n, g in found.items() if g is not None}
        arrays = dict(zip(self.order, filter(is_floating, leaves(inputs[:2])), strict=True))
        return {n: np.zeros_like(arrays[n]) if g is None else g for n, g in found.items()}

    # Rows --------------------------------------------------------------------------------------

    def skip(self, dtypes: Sequence[str], note: str) -> None:
        """Marks the sample as not judged, whatever was found."""
        self.failures, self.votes = [], []
        self.rows = [self._row(self.own, "", d, NOT_APPLICABLE, None, note) for d in dtypes]

    def _none(self, probe: Probe, dtype: str, note: str) -> None:
        self._entries.append(self._row(probe, "", dtype, NOT_APPLICABLE, None, note))

    def _fail(
        self,
        probe: Probe,
        name: str,
        dtype: str,
        inputs: Any,
        note: str,
        ours: np.ndarray | None = None,
        truth: np.ndarray | None = None,
        outside: np.ndarray | None = None,
    ) -> str:
        """Notes a failure, and returns the class of its row."""
        if probe.foreign or (probe.reshaped and not self.reference):
            return UNSUPPORTED
        x = argument(self.order, inputs, name)
        self.failures.append(
            Failure(probe.name, name, dtype, inputs, note, x, ours, truth, outside)
        )
        return DIFFERENT

    def _failed(self, probe: Probe, name: str, dtype: str, inputs: Any, note: str) -> None:
        """A failure that is not about elements, and its row."""
        kind = self._fail(probe, name, dtype, inputs, note)
        self._entries.append(self._row(probe, name, dtype, kind, None, note))

    def _row(
        self, probe: Probe, name: str, dtype: str, kind: str, v: Verdict | None, note: str
    ) -> dict[str, Any]:
        return {
            "id": f"{self.subject.name}({self.sample.text})/{probe.name}/{name}/{dtype}",
            "sample": self.sample.text,
            "probe": probe.name,
            "argument": name,
            "dtype": dtype,
            "max_ulp": v.ulp if v else None,
            "index": str(list(v.index)) if v and v.index is not None else "",
            "subject": v.manual if v else math.nan,
            "reference": v.reference if v else math.nan,
            "error": v.error if v else math.nan,
            "floor": v.floor if v else math.nan,
            "margin": v.margin if v else math.nan,
            "resolution": v.resolution if v else math.nan,
            "class": kind,
            "note": note,
        }

    def _cotangent(self, y: Any) -> Any:
        """A random dy in the shape of y that float32 holds exactly, None for outputs that are whole
        numbers. Raises TypeError for complex ones, which are not judged."""

        def like(part: Any) -> np.ndarray | None:
            part = np.asarray(part)
            if part.dtype.kind == "c":
                raise TypeError("expected floating results, got complex ones")
            if part.dtype.kind != "f":
                return None
            return np.asarray(self._rng.standard_normal(part.shape, np.float32), np.float64)

        return tree_map(like, y)


def _only(names: Sequence[str], function: Function, given: Results | None = None) -> Function:
    """The function with these of its results; 0 in the shape of the given where it has None."""

    def results(inputs: Any) -> Results:
        found = function(inputs)
        return {n: given[n] * 0 if given and found[n] is None else found[n] for n in names}

    return results


def _finite_nowhere(results: Results) -> bool:
    """Whether there are numbers, and none is finite."""
    return any(a.size for a in results.values()) and not any(
        np.isfinite(a).any() for a in results.values()
    )


def _to(leaf: Any, dtype: torch.dtype) -> Any:
    floating = isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
    return leaf.to(dtype) if floating else leaf


def judge(all_tried: Sequence[Trials]) -> None:
    """Judges all trials: most are settled together, by the first terms of the floor."""
    asked = [
        (trial, name)
        for tried in all_tried
        for trial in tried.trials
        for name, ours in trial.results.items()
        if name in trial.truth
        and ours.dtype == trial.dtype
        and ours.shape == trial.truth[name].shape
    ]
    pairs = [(t.results[n], t.truth[n]) for t, n in asked]
    settled = screen(pairs, [t.derived for t, _ in asked])
    known = {(id(t), n): v for (t, n), v in zip(asked, settled, strict=True) if v}
    for tried in all_tried:
        tried.record(known)


def argument(order: Sequence[str], inputs: Any, name: str) -> np.ndarray | None:
    """The floating array of this name among the inputs."""
    if inputs is None or name not in order:
        return None
    return [a for a in leaves(inputs[:2]) if is_floating(a)][list(order).index(name)]


def _arrays(tree: Any) -> list[np.ndarray]:
    return [leaf for leaf in leaves(tree) if isinstance(leaf, np.ndarray)]


def _times(factor: float, dy: Any) -> Any:
    return tree_map(lambda d: np.asarray(d * factor) if is_floating(d) else d, dy)


def _double(tree: Any, dtype: str = "") -> Any:
    """The tree in float64, which it may be already."""
    return tree if dtype == "float64" else _cast(tree, np.dtype(float))


def _cast(tree: Any, dtype: np.dtype) -> Any:
    """Copies, the floating ones in this dtype; what is broadcast stays broadcast, and one array
    passed twice stays one."""

    def converted(leaf: np.ndarray) -> np.ndarray:
        if 0 in leaf.strides and leaf.size:
            once = leaf[tuple(slice(None, None if stride else 1) for stride in leaf.strides)]
            return np.broadcast_to(cast(once, dtype), leaf.shape)
        return leaf.astype(dtype) if leaf.dtype.kind == "f" else leaf.copy()

    return _once_each(converted, tree)


def _private(tree: Any) -> Any:
    """Copies, so that a subject which writes into them harms nobody."""
    return _once_each(
        lambda leaf: leaf if 0 in leaf.strides and leaf.size else leaf.copy(order="K"), tree
    )


def _once_each(function: Callable[[Any], Any], tree: Any) -> Any:
    """The tree with the function applied to every array, once to one that occurs twice."""
    made: dict[int, Any] = {}

    def at(leaf: Any) -> Any:
        if not isinstance(leaf, np.ndarray):
            return leaf
        if id(leaf) not in made:
            made[id(leaf)] = function(leaf)
        return made[id(leaf)]

    return tree_map(at, tree)


def _identical(a: Results, b: Results) -> bool:
    return all(
        g is not None and np.array_equal(g, b[n], equal_nan=True) for n, g in a.items() if n in b
    )


def _said(error: Exception) -> str:
    text = said(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:150]}" if text else type(error).__name__


def _digits_lost(verdict: Verdict, dtype: str) -> float:
    """Decimal digits of the worst element beyond those that one rounding loses."""
    gap = abs(verdict.manual - verdict.reference)
    if not gap or not math.isfinite(gap):
        return math.inf
    relative = min(gap / abs(verdict.reference), 1.0) if verdict.reference else 1.0
    return max(math.log10(relative / unit_roundoff(np.dtype(dtype))), 0.0)
