"""A port held to its original, submodule by submodule, from the original's own inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from ...report import tables
from ...report.text import raised
from ...verdict.classes import DIFFERENT, EMPTY, Function, Results
from ...verdict.floor import LOOKS, Floor
from ...verdict.halves import is_half
from ...verdict.judge import settle
from ...verdict.noise import cast
from ..causes.case import Cause
from ..findings import NOT_APPLICABLE
from ..pace import Pace, Told
from ..trees import mapped
from .causes import cause_of
from .evaluation import Incomparable, Inputs, Side, as_array, evaluated
from .failure import Failure
from .pairing import Names, Pairing, paired
from .recording import Call, recorded
from .report import ModulesReport, Place, row
from .state import modules_of, parameters_of, tensors_of

FAILED = replace(EMPTY, kind=DIFFERENT, margin=math.inf)
LOW = {torch.bfloat16: "bfloat16", torch.float16: "float16"}


def check_modules(
    port: torch.nn.Module,
    original: torch.nn.Module,
    arrays: Sequence[Any],
    settings: Mapping[str, Any],
    names: Names = None,
    seed: int = 0,
    budget: float | None = None,
    progress: Told | None = None,
) -> ModulesReport:
    """Whether a module is another one; see `check`.

    The port gets copies of the parameters and buffers of the original; neither is changed. The
    original runs once; at each call of a submodule that both have, innermost first, the port's is
    given what the original's was, with the cotangents that arrived there: outputs, gradients and
    buffers are held to those in float64, within a measured floor.
    """
    pace = Pace(budget, progress)
    pairing = paired(port, original, names)
    state = tensors_of(original)
    args = mapped(_tensor(original), tuple(arrays))
    kwargs = mapped(_tensor(original), dict(settings))
    calls = recorded(original, state, args, kwargs, seed)
    pace.expect(len(calls))
    judged = _Judged(port, pairing, pace)
    places = [place for call in calls for place in judged.of(call)]
    cause = judged.cause()
    warned = tuple(judged.warnings())
    return ModulesReport(
        type(port).__name__,
        type(original).__name__,
        tables.table(row(p) for p in places),
        tuple(places),
        pairing.notes,
        cause,
        warned,
    )


def _tensor(original: torch.nn.Module) -> Callable[[Any], Any]:
    """Arrays as tensors in the dtype of the original; tensors stay."""
    dtype = next((p.dtype for p in original.parameters() if p.is_floating_point()), None)

    def made(leaf: Any) -> Any:
        if isinstance(leaf, np.ndarray):
            t = torch.from_numpy(np.array(leaf))
            return t.to(dtype) if dtype and t.is_floating_point() else t
        return leaf

    return made


class _Judged:
    """Judges calls, in order."""

    def __init__(self, port: torch.nn.Module, pairing: Pairing, pace: Pace) -> None:
        self.port, self.pairing, self.pace = port, pairing, pace
        self.seen: set[str] = set()  # submodules that were judged
        self.failure: Failure | None = None  # the first
        self.whole: Results = {}  # what is true of the module itself

    def of(self, call: Call) -> Iterator[Place]:
        """A place for each result of a call, or one that says why there are none."""
        self.pace.step()
        theirs = self.pairing.modules.items()
        ours = next((ours for ours, other in theirs if other == call.place), None)
        if ours is None:
            yield Place(call, NOT_APPLICABLE, note="the port has no such submodule")
        elif self.pace.over:
            yield Place(call, NOT_APPLICABLE, note="not judged within the budget")
        elif not (sides := self._sides(call, ours)):
            yield Place(call, NOT_APPLICABLE, note="made of what lies outside of it")
        elif call.dys:
            self.pace.first = self.pace.first or call
            of_call = tensors_of(call.module) | call.buffers
            inputs = Inputs(call, {n: t.detach() for n, t in of_call.items()})
            if inputs.arrays:
                yield from self._settled(call, *sides, inputs)

    def cause(self) -> Cause | None:
        """Of the first that is different."""
        if self.failure is None or self.pace.over:
            return None
        failure = self.failure

        def given(side: Side, backward: bool) -> Results:
            found = evaluated(side, failure.inputs, failure.inputs.arrays, backward=backward)
            own = side.arrange is failure.subject.arrange
            return found if own else _arranged(found, failure.subject, side)

        return cause_of(failure, given)

    def warnings(self) -> Iterator[str]:
        """What makes agreement say less than it seems to."""
        grads = [a for n, a in self.whole.items() if n.startswith("gradient")]
        if self.whole and not grads:
            yield "of the original no gradient can be asked: only values are judged"
        elif grads and not any(a.any() for a in grads):
            yield "every gradient of the original is zero, with which anything agrees"
        if any(np.isnan(a).all() for a in self.whole.values() if a.size):
            yield "the original gives NaN alone, with which anything agrees"

    def _sides(self, call: Call, ours: str) -> tuple[Side, Side] | None:
        """The submodules of both, the port's state made of what the original's holds.

        Gradients of parameters that a submodule inside has answered for are asked of the whole
        again, and of a submodule of which no other gradient is: there a path may be cut.
        """
        module, pairing = modules_of(self.port)[ours], self.pairing
        prefix, other = (f"{name}." if name else "" for name in (ours, call.place))
        own = tensors_of(module)
        full = {n: f"{prefix}{n}" for n in own}
        if not all(s.startswith(other) for f in full.values() for s in pairing.sources.get(f, ())):
            return None

        def arranged(given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            there = {f"{other}{n}": t for n, t in given.items()}
            dtype = next((t.dtype for t in given.values() if t.is_floating_point()), None)
            made = pairing.made(there, [f for f in full.values() if f in pairing.sources])
            return {n: made[f] if f in made else _alone(own[n], dtype) for n, f in full.items()}

        held = (n for n in parameters_of(module) if full[n] in pairing.sources)
        wanted = [n for n in held if own[n].is_floating_point() and own[n].requires_grad]
        theirs = [n for n, p in parameters_of(call.module).items() if p.requires_grad]
        if call.place and call.differentiable:
            seen = self.seen - {call.place}
            inside = {n for n in theirs if f"{other}{n}".rpartition(".")[0] in seen}
            theirs = [n for n in theirs if n not in inside]
            within = {f"{other}{n}" for n in inside}
            wanted = [n for n in wanted if not within.issuperset(pairing.sources[full[n]])]
        return Side(module, arranged, wanted), Side(call.module, dict, theirs)

    def _right(self, call: Call) -> tuple[tuple[torch.nn.Module, ...], ...]:
        """The submodules inside of a call, the first that is wrong, that were judged: those of the
        original, and those of the port."""
        prefix = f"{call.place}." if call.place else ""
        names = [n for n in self.seen if n.startswith(prefix) and n != call.place]
        theirs = tuple(modules_of(call.module)[n.removeprefix(prefix)] for n in names)
        port = modules_of(self.port)
        ours = tuple(port[mine] for mine, n in self.pairing.modules.items() if n in names)
        return theirs, ours

    def _settled(
        self, call: Call, subject: Side, reference: Side, inputs: Inputs
    ) -> Iterator[Place]:
        def truth(arrays: Any) -> Results:
            return _arranged(evaluated(reference, inputs, arrays), subject, reference)

        def ours(arrays: Any, kind: torch.dtype | None = None) -> Results:
            return evaluated(subject, inputs, arrays, kind)

        try:
            results = dict(ours(inputs.arrays))
        except Incomparable as why:
            if call.place:
                yield Place(call, NOT_APPLICABLE, note=str(why))
            else:  # around which nothing else is judged
                yield Place(call, DIFFERENT, "call", verdict=FAILED, note=str(why))
            return
        except Exception as error:  # whatever it raises on what the original takes is a finding
            note = f"the port raises {raised(error)}"
            yield Place(call, DIFFERENT, "call", verdict=FAILED, note=note)
            return
        self.seen.add(call.place)
        dtype = _dtype(inputs)
        known = truth(cast(inputs.arrays, np.float64)), truth(inputs.arrays)
        written = {f"buffer {n}" for n in _written(subject, inputs, results)}
        names = [n for n in known[0] if not n.startswith("buffer") or n in written]
        for name in names:
            if name not in results:
                yield Place(call, DIFFERENT, name, verdict=FAILED, note="the port has none")
        both = [n for n in names if n in results]
        if not call.place:
            self.whole = known[0]
        given = _some(results, both)
        wide, native = (_some(k, both) for k in known)
        floor = Floor(only(both, truth), inputs.arrays, dtype, (wide, native), looks=LOOKS)
        verdicts = settle(
            floor,
            only(both, ours),
            inputs.arrays,
            given,
            finer=only(both, partial(ours, kind=torch.float32)) if is_half(dtype) else None,
            hopeless=both if self.failure else (),
        )
        wrong = tuple(n for n, v in verdicts.items() if v.kind == DIFFERENT)
        if wrong and self.failure is None:
            self.failure = Failure(
                *(subject, reference, inputs, given, floor.truth, floor.values, wrong),
                *self._right(call),
            )
        for name, verdict in verdicts.items():
            kind = str(given[name].dtype)
            yield Place(call, verdict.kind, name, kind, verdict, verdict.note)


def only(names: Sequence[str], function: Function) -> Function:
    """A function that gives some of its results."""
    return lambda arrays: _some(function(arrays), names)


def _some(results: Results, names: Sequence[str]) -> Results:
    return {n: results[n] for n in names}


def _alone(t: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    own = t.detach().clone()
    return own.to(dtype) if dtype and own.is_floating_point() else own


def _dtype(inputs: Inputs) -> Any:
    """In which a call is judged: the narrowest of its numbers."""
    for kind, name in LOW.items():
        if kind in inputs.kinds:
            return name
    return np.float32 if torch.float32 in inputs.kinds else np.float64


def _written(subject: Side, inputs: Inputs, results: Results) -> set[str]:
    """The buffers of the port that it changes, or the original its own."""
    given = inputs.tree[0]
    marked = {n: torch.zeros_like(t) for n, t in given.items()}
    marked |= {n: torch.ones_like(marked[n]) for n in inputs.call.written}
    theirs = {n for n, t in subject.arrange(marked).items() if t.any()}
    before = subject.arrange(given)
    names = [n.removeprefix("buffer ") for n in results if n.startswith("buffer ")]
    ours = {n for n in names if not np.array_equal(results[f"buffer {n}"], as_array(before[n]))}
    return theirs.intersection(names) | ours


def _arranged(results: Results, subject: Side, reference: Side) -> Results:
    """Results of the original, its gradients of parameters and its buffers arranged as those of
    the port."""
    rest, grads = dict(results), {}
    for name in reference.wanted:
        if (gradient := rest.pop(f"gradient of {name}", None)) is not None:
            grads[name] = torch.from_numpy(np.array(gradient))
    after = {n: torch.from_numpy(np.array(rest.pop(f"buffer {n}"))) for n in reference.buffers}
    # Else no more than the shape, and nothing that the module holds: noise moves what it meets.
    empty = {n: torch.zeros(t.shape) for n, t in tensors_of(reference.module).items()}
    made = subject.arrange(empty | after | grads)
    if grads:
        rest |= {f"gradient of {n}": as_array(made[n]) for n in subject.wanted}
    return rest | {f"buffer {n}": as_array(made[n]) for n in subject.buffers}
