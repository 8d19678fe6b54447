"""What a wrong gradient was made of: the few mistakes that reproduce its values, tried in turn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...reference.adapters import leaves, tree_map
from ..verdict.classes import Results
from ..verdict.noise import cast, is_floating
from .missing_terms import left_out
from .probes import cut
from .trials import OWN, Failure, Trials, argument
from .votes import numeric

CASES = 3  # failures that a cause has to reproduce, or all if there are fewer
# The most elements of an array that get a derivative, or a contribution, each of its own.
SMALL = 32
LAYOUTS = ("non-contiguous", "read-only", "negative strides", "Fortran order", "broadcast dy")
ORDINARY = (OWN, "another dy", "permuted", "mixed", "one-hot dy")
AT_KINKS = (
    *("on kinks", "on settings", "apart by", "ties", "all equal", "repeated indices"),
    *("zeros", "some zeros", "one operand twice"),
)


@dataclass(frozen=True)
class Cause:
    """A diagnosis: its name, one of a short list, and a sentence."""

    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"


@dataclass(frozen=True)
class Case:
    """One wrong gradient beside the right one, and all that candidates are made of."""

    name: str
    probe: str
    inputs: Any
    ours: np.ndarray
    truth: np.ndarray
    x: np.ndarray  # the argument itself
    single: bool  # only float32 is wrong

    def is_made(self, candidate: np.ndarray) -> bool:
        """Whether the candidate gives the wrong values, far better than the right ones do."""
        if candidate.shape != self.ours.shape:
            return False
        ours, truth = _where_finite(self.ours, self.truth)
        made = np.where(np.isfinite(self.ours) & np.isfinite(self.truth), candidate, 0)
        if not np.isfinite(made).all():
            return False
        scale = float(np.max(abs(ours), initial=0))
        wrong = float(np.max(abs(ours - truth), initial=0))
        allowed = min((1e-4 if self.single else 1e-6) * scale, 1e-2 * wrong)
        return float(np.max(abs(ours - made), initial=0)) <= allowed + 1e-300


Candidate = tuple[str, str, np.ndarray]  # name of the cause, what it is, values


def diagnose(failures: Sequence[Failure], all_tried: Sequence[Trials]) -> Cause | None:
    """The first cause that accounts for what failed; None if there is none."""
    by_hand = [f for f in failures if f.outside is None]
    plain = [
        f
        for f in by_hand
        if "in place" in f.note or (f.probe in ORDINARY and not f.note.startswith("dtype"))
    ]
    if plain and (cause := _said(plain)):
        return cause
    for tried in all_tried:
        own = [f for f in tried.failures if f.outside is not None]
        if own and (cause := _Search(tried, own).cause()):
            return cause
    return _said(by_hand) if by_hand else None


def _said(by_hand: Sequence[Failure]) -> Cause | None:
    """Causes that need no search, for the subject did something that no rule does."""
    for f in by_hand:
        if "changed in place" in f.note:
            return Cause("mutation", f.note)
    shapes = [f for f in by_hand if f.note.startswith("shape") and f.name != "value"]
    for f in shapes:
        x = f.argument
        if f.ours is None or x is None:
            continue
        others = [o for o in shapes if o.probe == f.probe and o.dtype == f.dtype and o is not f]
        for o in others:
            if o.argument is not None and f.ours.shape == o.argument.shape != x.shape:
                return Cause("swapped", f"the gradient of {f.name} has the shape of {o.name}")
        came, wanted = f.ours.shape, x.shape
        more = math.prod(came) > math.prod(wanted)
        if more and (_broadcasts(wanted, came) or len(came) > len(wanted)):
            return Cause(
                "broadcast", f"the gradient of {f.name} has shape {came}: not summed to {wanted}"
            )
        if sorted(came) == sorted(wanted) and came != wanted:
            return Cause("transpose", f"the gradient of {f.name} has shape {came}, not {wanted}")
    for f in by_hand:
        if f.note.startswith("shape"):
            return Cause("shape", f"{f.name or 'a result'}: {f.note} ({f.probe})")
        if f.note.startswith("dtype"):
            return Cause("dtype", f"{f.name}: {f.note}")
    for f in by_hand:
        if "raises" in f.note:
            return Cause("raises", f"{f.note} ({f.probe})")
        if "None instead" in f.note:
            return Cause("missing gradient", f"{f.name}: {f.note}")
        if f.note.startswith("not finite in"):
            return Cause("range", f"{f.name}: {f.note}")
    return Cause("contract", by_hand[0].note)


class _Search:
    """The causes of the failures of one call, tried from the plainest on."""

    def __init__(self, tried: Trials, failures: Sequence[Failure]) -> None:
        self.e, self.failures = tried, list(failures)
        self.probes = {f.probe for f in failures}
        self.wrong = [f for f in self.failures if f.name in tried.order]
        self.values = [f for f in self.failures if f.name not in tried.order]

    def cause(self) -> Cause | None:
        for attempt in (
            self._state,
            self._layout,
            self._at_kinks,
            self._cotangent,
            self._reproduced,
            self._precision,
            self._in_range,
            self._forward,
        ):
            if cause := attempt():
                return cause
        return None

    # By where it fails --------------------------------------------------------------------------

    def _state(self) -> Cause | None:
        if self.e.random:
            return Cause("state", "the subject differs from itself when it is called again")
        if OWN not in self.probes and self.probes & {"called again", "after later calls"}:
            return Cause("state", "right at first, wrong when there are other calls around it")
        if self.e.base is None:
            return None
        base = self.e.base.inputs
        for f in self.failures:
            args, kwargs, dy = f.inputs
            if f.dtype != "float64" or f.ours is None or OWN in self.probes:
                continue
            if f.probe not in ("permuted", "mixed"):
                continue
            for i, (mine, earlier) in enumerate(zip(args, base[0], strict=True)):
                if not is_floating(mine) or mine.shape != earlier.shape:
                    continue
                stale = (*args[:i], earlier, *args[i + 1 :])
                try:
                    before = self._truth((stale, kwargs, dy))[f.name]
                except Exception:  # a point that the reference refuses
                    continue
                if (
                    f.truth is not None
                    and np.isfinite(f.ours).all()
                    and _better(f.ours, before, f.truth)
                ):
                    return Cause("state", f"{f.name} is that of an earlier call ({f.probe})")
        return None

    def _layout(self) -> Cause | None:
        """Wrong for a layout, right for the same numbers in another."""
        for f in self.failures:
            if not f.probe.startswith(LAYOUTS):
                continue
            plain = tree_map(
                lambda a: np.array(a, order="C") if isinstance(a, np.ndarray) else a, f.inputs
            )
            again = self._ours(plain).get(f.name)
            if f.truth is not None and again is not None and _better(again, f.truth, f.ours):
                return Cause("layout", f"{f.name} is wrong only for {f.probe}")
        return None

    def _at_kinks(self) -> Cause | None:
        """Wrong at points from which a small step to either side leads to right values."""
        if not all(f.probe.startswith(AT_KINKS) for f in self.failures):
            return None
        for f in self.failures:
            assert f.outside is not None
            beside = []
            rng = np.random.default_rng(0)
            for _ in range(2):

                def nudged(leaf: Any, rng: np.random.Generator = rng) -> Any:
                    if not is_floating(leaf):
                        return leaf
                    size = np.where(leaf == 0, np.mean(abs(leaf)) or 1.0, abs(leaf))
                    step = rng.choice([-1, 1], leaf.shape) * rng.uniform(0.5, 1, leaf.shape)
                    moved = leaf + 1e-3 * step * size
                    return abs(moved) if np.all(leaf >= 0) else moved

                args, kwargs, dy = cast(f.inputs, np.float64)
                moved = (*tree_map(nudged, (args, kwargs)), dy)
                try:
                    ours, truth = self._ours(moved)[f.name], self._truth(moved)[f.name]
                except Exception:
                    break
                beside.append(_better(ours, truth, _gapped(f, truth)))
            if len(beside) == 2 and all(beside):
                where = self._example(f)
                return Cause("kink", f"{f.name} is wrong only at kinks and ties: {where}")
        return None

    def _example(self, f: Failure) -> str:
        assert f.outside is not None
        index = tuple(map(int, np.argwhere(f.outside)[0])) if f.outside.any() else ()
        x = f.argument
        known = x is not None and x.shape == f.outside.shape
        place = f" where {f.name} is {x[index]:.6g}" if x is not None and known else ""
        ours = f.ours[index] if f.ours is not None else math.nan
        truth = f"{f.truth[index]:.6g}" if f.truth is not None else "another"
        return f"{ours:.6g} instead of {truth}{place} ({f.probe})"

    # By its values ------------------------------------------------------------------------------

    def _cases(self) -> Iterator[list[Case]]:
        """For each argument: up to CASES of its failures, the most ordinary first."""
        names = [n for n in self.e.order if any(f.name == n for f in self.wrong)]
        for name in names:
            mine = [f for f in self.wrong if f.name == name]
            double = [f for f in mine if f.dtype == "float64"] or mine
            double.sort(key=lambda f: ORDINARY.index(f.probe) if f.probe in ORDINARY else 99)
            chosen = double[:CASES]
            made = [case for f in chosen if (case := self._case(f))]
            if made:
                yield made

    def _case(self, f: Failure) -> Case | None:
        if f.argument is None or f.ours is None:
            return None
        single = f.dtype != "float64"
        if f.truth is not None:
            return Case(f.name, f.probe, f.inputs, f.ours, f.truth, f.argument, single)
        args, kwargs = cut(f.inputs[0], f.inputs[1], SMALL)
        y, _ = self.e.subject.run(args, kwargs)
        if not isinstance(y, np.ndarray) or f.argument.size > SMALL:
            return None
        inputs = args, kwargs, np.random.default_rng(0).standard_normal(y.shape)
        ours, truth = self._ours(inputs), self._truth(inputs)
        x = argument(self.e.order, inputs, f.name)
        if f.name not in truth or x is None:
            return None
        return Case(f.name, f.probe, inputs, ours[f.name], truth[f.name], x, single)

    def _precision(self) -> Cause | None:
        """Errors of the size of float32's, or of a shorter type's, that no common factor
        explains."""
        for f in self.failures:
            if f.dtype != "float64" or f.ours is None or f.probe not in ORDINARY:
                continue
            truth = self._truth(f.inputs)[f.name] if f.truth is None else f.truth
            ours, truth = _where_finite(f.ours, truth)
            norm = float(np.linalg.norm(truth))
            if not norm:
                continue
            error = float(np.linalg.norm(ours - truth)) / norm
            if not 2.0**-34 < error < 2.0**-6:
                return None
            factor = float(np.sum(ours * truth) / np.sum(truth * truth))
            rest = float(np.linalg.norm(ours - factor * truth)) / norm
            if rest < 0.3 * error and truth.size > 1:
                return None  # a factor
            for dtype, largest in (("float32", 2.0**-20), ("float16", 0.0)):
                if error < largest or np.array_equal(ours.astype(dtype).astype(float), ours):
                    return Cause("precision", f"{f.name} is computed in {dtype} ({f.probe})")
            if self._made_by_rounding(f, ours):
                return Cause("precision", f"{f.name} is computed in half precision ({f.probe})")
            return None
        return None

    def _made_by_rounding(self, f: Failure, ours: np.ndarray) -> bool:
        """Whether rounding what goes in, or comes out, to float16 comes as close to ours."""
        truth = self._truth(f.inputs)[f.name]
        wrong = float(np.linalg.norm(ours - truth))
        for part in range(2):
            args, kwargs, dy = f.inputs
            half = tuple(
                tree_map(lambda a: _through_half(a), side) if part == i else side
                for i, side in enumerate(((args, kwargs), dy))
            )
            rounded = self._truth((*half[0], half[1]))[f.name]
            if np.linalg.norm(ours - rounded) < 0.5 * wrong:
                return True
        return bool(
            np.linalg.norm(ours - _through_half(truth)) < 0.5 * wrong
        ) or wrong < 2.0**-9 * (float(np.linalg.norm(truth)))

    def _cotangent(self) -> Cause | None:
        """Whether the pullback is not linear in dy."""
        for f in [f for f in self.wrong if f.probe in ORDINARY][:1]:
            args, kwargs, dy = f.inputs
            other = _redrawn(dy)

            def at(dy: Any, args: Any = args, kwargs: Any = kwargs, f: Failure = f) -> np.ndarray:
                return np.array(self._ours((args, kwargs, dy))[f.name], float)

            def scaled(factor: float, dy: Any = dy) -> Any:
                return tree_map(lambda d: d * d.dtype.type(factor) if is_floating(d) else d, dy)

            once, twice, minus = at(dy), at(scaled(2.0)), at(scaled(-1.0))
            if _alike(once, at(other)) and once.any():
                return Cause("cotangent", f"the gradient of {f.name} does not depend on dy")
            if _alike(twice, 4 * once) and once.any():
                return Cause("cotangent", f"the gradient of {f.name} has dy in it twice")
            linear = _alike(twice, 2 * once) and _alike(minus, -once)
            if not linear or not _alike(at(_sum(dy, other)), once + at(other)):
                return Cause("cotangent", f"the gradient of {f.name} is not linear in dy")
        return None

    def _reproduced(self) -> Cause | None:
        """The first candidate that makes the wrong values of one case, and has its like in the
        others."""
        for first, *others in self._cases():
            for name, text, values in self._candidates(first):
                if first.is_made(values) and all(self._holds(case, name) for case in others):
                    return Cause(name, f"the gradient of {first.name} is {text}")
        return None

    def _holds(self, case: Case, name: str) -> bool:
        return any(c[0] == name and case.is_made(c[2]) for c in self._candidates(case))

    def _candidates(self, case: Case) -> Iterator[Candidate]:
        yield from self._exchanged(case)
        yield from self._scaled(case)
        yield from _rearranged(case)
        yield from self._other_dy(case)
        yield from self._other_argument(case)
        yield from self._forgotten(case)
        yield from self._multiplied(case)

    def _scaled(self, case: Case) -> Iterator[Candidate]:
        ours, truth = _where_finite(case.ours, case.truth)
        square = float(np.sum(truth * truth))
        factor = float(np.sum(ours * truth)) / square if square else 0.0
        text = f"{_named_factor(factor, case, self.e.settings)} times what it should be"
        stretched = self._stretched(case)
        args, kwargs, _ = case.inputs
        for other in leaves((args, kwargs)):  # of a batch, which the argument has no axis for
            if is_floating(other) and other.ndim >= case.x.ndim:
                own = (1,) * (other.ndim - case.x.ndim) + case.x.shape
                stretched += [n for n, m in zip(other.shape, own, strict=True) if n > 1 == m]
        if factor < 0 and abs(factor + 1) < 1e-6:
            yield "sign", "of the wrong sign", -case.truth
        elif stretched and any(abs(factor * n - 1) < 1e-6 for n in stretched):
            yield (
                "broadcast",
                "averaged over what it was broadcast to, not summed",
                factor * case.truth,
            )
        elif factor == 0:
            yield "missing term", "zero", np.zeros_like(case.truth)
        else:
            yield "factor", text, factor * case.truth
        flipped = np.where(case.ours * case.truth < 0, -case.truth, case.truth)
        yield "sign", "of the wrong sign at some elements", flipped

    def _stretched(self, case: Case) -> list[int]:
        """The numbers of times that the argument may have been repeated by broadcasting."""
        y = self._ours(case.inputs).get("value")
        if y is None or y.shape == case.x.shape or not _broadcasts(case.x.shape, y.shape):
            return []
        return [y.size // max(case.x.size, 1), *(n for n in y.shape if n > 1)]

    def _exchanged(self, case: Case) -> Iterator[Candidate]:
        """The gradient of another argument, which has this one's."""
        ours, truths = self._ours(case.inputs), self._truth(case.inputs)
        for name in self.e.order:
            theirs, truth = ours.get(name), truths.get(name)
            if name == case.name or truth is None or truth.shape != case.truth.shape:
                continue
            for sign, text in ((1, ""), (-1, ", with the wrong sign")):
                if theirs is not None and _better(sign * theirs, case.truth, truth):
                    yield "swapped", f"that of {name}{text}", sign * truth

    def _other_dy(self, case: Case) -> Iterator[Candidate]:
        """The right pullback of a wrong dy."""
        args, kwargs, dy = case.inputs
        if not is_floating(dy):
            return

        def of(changed: np.ndarray) -> np.ndarray:
            return self._truth((args, kwargs, np.asarray(changed, dy.dtype)))[case.name]

        y = self._ours(case.inputs).get("value")
        stretched = self._stretched(case)
        for text, changed in (
            ("of dy = 1", np.ones_like(dy)),
            ("of |dy|", abs(dy)),
            ("of dy's sign", np.sign(dy)),
            ("of dy²", dy * dy),
            ("of dy's mean", np.full_like(dy, dy.mean() if dy.size else 0)),
            ("of dy's sum", np.full_like(dy, dy.sum())),
            ("of dy's first element", np.full_like(dy, dy.flat[0] if dy.size else 0)),
            ("of dy times y", dy * y if y is not None else dy),
        ):
            yield "cotangent", f"that {text}", of(changed)
        for axis in range(dy.ndim):
            yield (
                "cotangent",
                f"that of dy's mean along axis {axis}",
                of(np.broadcast_to(dy.mean(axis, keepdims=True), dy.shape)),
            )
            for index, which in ((0, "first"), (dy.shape[axis] - 1, "last")):
                only = np.zeros_like(dy)
                at = (slice(None),) * axis + (index,)
                only[at] = dy[at]
                yield (
                    "broadcast" if stretched else "overwritten",
                    f"that of the {which} slice of dy along axis {axis} alone",
                    of(only),
                )
            yield "transpose", f"that of dy turned round along axis {axis}", of(np.flip(dy, axis))
            for step in (1, -1):
                yield (
                    "transpose",
                    f"that of dy rolled along axis {axis}",
                    of(np.roll(dy, step, axis)),
                )
        for axes in itertools.permutations(range(dy.ndim)):
            if axes != tuple(range(dy.ndim)) and dy.ndim <= 3:
                turned = dy.transpose(axes)
                yield (
                    "transpose",
                    f"that of dy with its axes as {axes}",
                    of(turned if turned.shape == dy.shape else turned.reshape(dy.shape)),
                )
        if self.e.reference:
            yield from self._accumulated(case, of, dy)

    def _other_argument(self, case: Case) -> Iterator[Candidate]:
        """The right pullback at an argument that was turned round, or taken for another."""
        args, kwargs, dy = case.inputs
        arrays = [a for a in leaves((args, kwargs)) if is_floating(a)]
        y = self._ours(case.inputs).get("value")

        def at(position: int, changed: np.ndarray) -> np.ndarray | None:
            count = itertools.count()
            tree = tree_map(
                lambda a: changed if is_floating(a) and next(count) == position else a,
                (args, kwargs),
            )
            try:
                return self._truth((*tree, dy)).get(case.name)
            except Exception:  # the reference refuses it
                return None

        for position, (name, a) in enumerate(zip(self.e.order, arrays, strict=True)):
            turned = [np.flip(a, axis) for axis in range(a.ndim)]
            turned += [np.flip(a, axes) for axes in ((-2, -1), None) if a.ndim > 1]
            turned += [
                a.transpose(axes)
                for axes in itertools.permutations(range(a.ndim))
                if a.ndim <= 4
                and axes != tuple(range(a.ndim))
                and a.transpose(axes).shape == a.shape
            ]
            for changed in turned:
                if (found := at(position, changed)) is not None:
                    yield "transpose", f"that at {name} with its axes turned round", found
            if y is not None and y.shape == a.shape and (found := at(position, y)) is not None:
                yield "missing term", f"that at y in place of {name}", found

    def _accumulated(
        self, case: Case, of: Callable[[np.ndarray], np.ndarray], dy: np.ndarray
    ) -> Iterator[Candidate]:
        """What is left if the pieces of dy overwrite one another's contributions instead of adding
        them up: the last or the first of them. And what is left with, or without, the share of each
        element's own dy alone."""
        for axis in [None, *range(dy.ndim)]:
            count = dy.size if axis is None else dy.shape[axis]
            if not 1 < count <= SMALL:
                continue
            parts = []
            for k in range(count):
                only = np.zeros_like(dy)
                if axis is None:
                    only.flat[k] = dy.flat[k]
                else:
                    at = (slice(None),) * axis + (k,)
                    only[at] = dy[at]
                parts.append(of(only))
            last, first = np.zeros_like(parts[0]), np.zeros_like(parts[0])
            for part in parts:
                last = np.where(part != 0, part, last)
            for part in reversed(parts):
                first = np.where(part != 0, part, first)
            yield "overwritten", "the last of the contributions, which were not added up", last
            yield "overwritten", "the first of the contributions, which were not added up", first
            if axis is None and dy.shape == case.x.shape:
                own = np.array([part.flat[k] for k, part in enumerate(parts)]).reshape(dy.shape)
                yield "missing term", "the share of each element's own dy alone", own
                yield "missing term", "without the share of each element's own dy", of(dy) - own

    def _forgotten(self, case: Case) -> Iterator[Candidate]:
        """A path of the function left out, or taken times a factor."""
        function = self.e.reference.in_torch if self.e.reference else None
        if function is None or not is_floating(case.inputs[2]):
            return
        position = self.e.order.index(case.name)
        ours, truth = _where_finite(case.ours, case.truth)
        double = cast(case.inputs, np.float64)
        parts = []
        for path, gradients in left_out(function, double, self.e.order):
            part = case.truth - gradients[position]
            missing = np.where(np.isfinite(part), part, 0)
            square = float(np.sum(missing * missing))
            if square and gradients[position].any():
                share = float(np.sum((truth - ours) * missing)) / square
                parts.append((path, part, share))
        for path, part, share in parts:
            if abs(share - 1) < 1e-6:
                yield "missing term", f"without its part through {path}", case.truth - part
        for path, part, share in parts:
            if abs(share - 2) < 1e-6:
                text = f"of the wrong sign in its part through {path}"
                yield "sign", text, case.truth - 2 * part
        for path, part, share in parts:
            factor = _named_factor(1 - share, case, self.e.settings)
            text = f"{factor} times what it should be in its part through {path}"
            yield "factor", text, case.truth - share * part

    def _multiplied(self, case: Case) -> Iterator[Candidate]:
        """The gradient multiplied once more by an array of the call, or not multiplied by it at
        all."""
        args, kwargs, dy = case.inputs
        arrays = dict(
            zip(self.e.order, [a for a in leaves((args, kwargs)) if is_floating(a)], strict=True)
        )
        for name, a in {**arrays, "dy": dy, "y": self._ours(case.inputs).get("value")}.items():
            if not is_floating(a) or not _broadcasts(a.shape, case.truth.shape):
                continue
            cause = "cotangent" if name == "dy" else "factor"
            yield cause, f"what it should be times {name} once more", case.truth * a
            safe = np.where(a == 0, np.nan, a)
            yield cause, f"what it should be without its factor {name}", case.truth / safe

    # By where its elements are ------------------------------------------------------------------

    def _in_range(self) -> Cause | None:
        """Wrong where an argument is beyond some value, right elsewhere."""
        usual = [f for f in self.failures if f.probe in ORDINARY and f.probe != "one-hot dy"]
        found = [
            bound
            for f in sorted(usual or self.failures, key=lambda f: f.dtype != "float64")[:CASES]
            for bound in self._bounds(f)
        ]
        for f, what, sign, text in found:
            agreeing = {g.probe for g, w, s, _ in found if (w, s) == (what, sign)}
            if usual and len(agreeing) < min(2, len({f.probe for f in usual})):
                continue
            place = f"where {what} {sign} {text}"
            if factor := self._factor_there(f, sign, text):
                return Cause("factor", f"{f.name} is {factor} times what it should be {place}")
            return Cause("range", f"{f.name} is wrong only {place} ({f.probe})")
        if not any(f.probe in ORDINARY for f in self.failures):
            probes = ", ".join(sorted(self.probes)[:4])
            return Cause("range", f"right at ordinary points, wrong at: {probes}")
        return None

    def _bounds(self, f: Failure) -> Iterator[tuple[Failure, str, str, str]]:
        if (where := self._outside(f)) is None:
            return
        inputs, outside = where
        arrays = [a for a in leaves(inputs[:2]) if is_floating(a)]
        named = list(zip(self.e.order, arrays, strict=True))
        named += [
            (f"{name} − {other}", a - b)
            for (name, a), (other, b) in itertools.combinations(named, 2)
            if a.shape == b.shape
        ]
        for name, a in named:
            for what, value, wrong in _views(name, a, outside):
                if found := _threshold(value, wrong):
                    yield (f, what, *found)

    def _outside(self, f: Failure) -> tuple[Any, np.ndarray] | None:
        """The inputs, and which elements are wrong; differences found but one of them."""
        if f.truth is not None and f.outside is not None:
            return f.inputs, f.outside
        if (case := self._case(f)) is None:
            return None
        return case.inputs, abs(case.ours - case.truth) > 1e-6 * np.max(abs(case.truth), initial=0)

    def _factor_there(self, f: Failure, sign: str, text: str) -> str:
        """On one side of 0 lies a branch of the function, not a range: its factor, if it is one."""
        low, _, high = text.partition(" … ")
        if sign not in "<>" or not high or not float(low) <= 0 <= float(high):
            return ""
        if f.truth is None or f.ours is None or (case := self._case(f)) is None:
            return ""
        ours, truth = f.ours[f.outside], f.truth[f.outside]
        if not np.all(truth) or ours.size < 2:
            return ""
        factor = float(ours[0] / truth[0])
        even = factor and _near(ours, factor * truth, f.dtype)
        return _named_factor(factor, case, self.e.settings) if even else ""

    def _forward(self) -> Cause | None:
        if self.values and not self.wrong:
            return Cause("forward", "the value itself is wrong, the gradients are right")
        if self.values:
            alone = [v.alone for v in self.e.votes]
            fits = " (its gradients fit it)" if "reference" in alone else ""
            return Cause(
                "forward", f"the value itself is wrong{fits}: {self._example(self.values[0])}"
            )
        return None

    # The two sides ------------------------------------------------------------------------------

    def _ours(self, inputs: Any) -> Results:
        copies = tree_map(lambda a: a.copy() if isinstance(a, np.ndarray) else a, inputs)
        return self.e.subject(copies)

    def _truth(self, inputs: Any) -> Results:
        inputs = cast(inputs, np.float64)
        if self.e.reference:
            return self.e._truth(inputs)
        return numeric(self.e.subject, inputs, self.e.order, SMALL)


def _rearranged(case: Case) -> Iterator[Candidate]:
    t = case.truth
    for axes in itertools.permutations(range(t.ndim)):
        if axes == tuple(range(t.ndim)) or t.ndim > 4:
            continue
        turned = t.transpose(axes)
        if turned.shape == t.shape:
            yield "transpose", f"that with its axes as {axes}", turned
        yield "transpose", f"that with its axes as {axes}, read in order", turned.reshape(t.shape)
        back = t.reshape(turned.shape).transpose(np.argsort(axes))
        yield "transpose", f"that read with its axes as {axes}", back.reshape(t.shape)
    for axis in range(t.ndim):
        yield "transpose", f"that turned round along axis {axis}", np.flip(t, axis)
        for step in (1, -1):
            yield "transpose", f"that rolled by one along axis {axis}", np.roll(t, step, axis)
    yield "transpose", "that with all axes turned round", np.flip(t)


def _views(
    name: str, a: np.ndarray, outside: np.ndarray
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(what it is called, values, which are wrong): element by element, or row by row."""
    if a.shape == outside.shape:
        yield name, a, outside
        yield f"|{name}|", abs(a), outside
    if a.ndim and outside.ndim and a.ndim == outside.ndim:
        for axis in range(a.ndim):
            rows = np.asarray(outside.any(axis))
            if a.shape[:axis] + a.shape[axis + 1 :] == rows.shape:
                yield f"the largest of {name} along axis {axis}", a.max(axis), rows
                yield f"the smallest of {name} along axis {axis}", a.min(axis), rows


def _threshold(a: np.ndarray, outside: np.ndarray) -> tuple[str, str] | None:
    """How the wrong elements can be told by their values: a sign and a bound."""
    wrong, right = a[outside], a[~outside]
    if not wrong.size or not right.size:
        return None
    if wrong.min() > right.max():
        return ">", _between(right.max(), wrong.min())
    if wrong.max() < right.min():
        return "<", _between(wrong.max(), right.min())
    inside = (right >= wrong.min()) & (right <= wrong.max())
    if wrong.size > 2 and not inside.any():
        return "is from", f"{wrong.min():.4g} to {wrong.max():.4g}"
    return None


def _between(low: float, high: float) -> str:
    return f"{low:.4g} … {high:.4g}"


def _named_factor(factor: float, case: Case, settings: Sequence[float]) -> str:
    """The factor as what it probably is: 3 as the length of an axis, 1.5 as n/(n − 1)."""
    args, kwargs, dy = case.inputs
    arrays = [a for a in leaves((args, kwargs, dy)) if isinstance(a, np.ndarray)]
    known = {"2": 2.0, "1/2": 0.5, "−1/2": -0.5, "−2": -2.0, "π": math.pi, "√2": math.sqrt(2)}
    for n in sorted({n for a in arrays for n in (*a.shape, a.size) if n > 1}):
        known |= {
            f"N = {n}": n,
            f"1/N = 1/{n}": 1 / n,
            f"n/(n − 1) = {n}/{n - 1}": n / (n - 1),
            f"(n − 1)/n = {n - 1}/{n}": (n - 1) / n,
            f"√{n}": math.sqrt(n),
            f"1/√{n}": 1 / math.sqrt(n),
        }
    for s in settings:
        if s not in (0, 1):
            known |= {f"the setting {s:g}": s, f"1/{s:g}, of a setting": 1 / s}
            known |= {f"1 − {s:g}": 1 - s, f"{s:g}², of a setting": s * s}
    for sign, prefix in ((1, ""), (-1, "−")):
        for name, value in known.items():
            if abs(factor - sign * value) <= 1e-7 * abs(value):
                return f"{prefix}{name}"
    return f"{factor:.9g}"


def _where_finite(ours: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    both = np.isfinite(ours) & np.isfinite(truth)
    return np.where(both, ours, 0).astype(float), np.where(both, truth, 0).astype(float)


def _gapped(f: Failure, truth: np.ndarray) -> np.ndarray:
    """The truth, as wrong as the failure was."""
    if f.ours is None or f.truth is None or f.outside is None:
        return truth + 1
    return truth + np.max(abs(f.ours - f.truth), where=f.outside, initial=0)


def _better(candidate: np.ndarray, aim: np.ndarray, other: np.ndarray | None) -> bool:
    """Whether the candidate is at most a hundredth as far from the aim as the other is."""
    if other is None or candidate.shape != aim.shape or other.shape != aim.shape:
        return False
    a, aim_a = _where_finite(candidate, aim)
    b, aim_b = _where_finite(other, aim)
    if np.any(~np.isfinite(candidate) & np.isfinite(aim)):
        return False
    far = float(np.max(abs(b - aim_b), initial=0)) if np.isfinite(other).all() else math.inf
    return far > 0 and float(np.max(abs(a - aim_a), initial=0)) <= 1e-2 * far


def _alike(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether they differ by no more than rounding in float32."""
    return float(np.max(abs(a - b), initial=0)) <= 1e-4 * float(np.max(abs(b), initial=0))


def _near(a: np.ndarray, b: np.ndarray, dtype: str) -> bool:
    a, b = _where_finite(a, b)
    scale = float(np.max(abs(b), initial=0))
    return float(np.max(abs(a - b), initial=0)) <= (1e-9 if dtype == "float64" else 1e-4) * scale


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, to) == to
    except ValueError:
        return False


def _through_half(a: Any) -> Any:
    return a.astype(np.float16).astype(a.dtype) if is_floating(a) else a


def _redrawn(dy: Any) -> Any:
    """Another dy of the same shapes."""
    rng = np.random.default_rng(0)
    return tree_map(
        lambda d: np.asarray(rng.standard_normal(d.shape), d.dtype) if is_floating(d) else d, dy
    )


def _sum(a: Any, b: Any) -> Any:
    """a + b, array by array."""
    others = iter(leaves(b))

    def added(x: Any) -> Any:
        y = next(others)
        return x + y if is_floating(x) else x

    return tree_map(added, a)
