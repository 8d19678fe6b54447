"""A port trained on beside its original: every step of its optimizer from the original's own state.

At each step the port's optimizer is given the parameters, gradients and state that the original's
was given there, so that no difference of one step is seen in the next. Before each but the first
the two are compared as wholes once more, with the parameters and buffers that they have come to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import torch

from ...report.text import raised
from ...verdict.classes import DIFFERENT
from ..causes.case import Cause
from ..findings import NOT_APPLICABLE
from ..pace import Pace
from .arranging import Arranging
from .memory import Memory
from .optimizing import Before, Machine, Maker, Refused
from .pairing import Pairing
from .recording import Call, recorded
from .report import BAD, FAILED, Place
from .state import State, modules_of, slots_of, swapped
from .step_causes import cause_of, other_settings
from .stepped import Step

Makers = tuple[Maker, Maker]  # for the port and for the original
STILL = "no step moves a parameter of the original, with which anything agrees"
ALONE = "the original has none that could be arranged for it: the port goes on with its own"


class Whole(Protocol):
    """What judges the two modules as wholes; with what the port keeps from call to call."""

    memory: Memory

    def of(self, call: Call) -> Iterator[Place]: ...

    def cause(self) -> Cause | None: ...


class Training(NamedTuple):
    """How often both are stepped, by what, and the seed of what each run draws."""

    steps: int
    makers: Makers
    seed: int


def training_of(steps: Any, optimizer: Any, seed: int) -> Training | None:
    """None if there is no step. Raises TypeError or ValueError for what is no number of steps, and
    for a missing or wrong optimizer."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ValueError(f"steps: expected how many, 0 or more, got {steps!r}")
    if not steps and optimizer is None:
        return None
    if optimizer is None:
        raise TypeError("steps: expected an optimizer beside them, what makes one of parameters")
    if not steps:
        raise TypeError("optimizer: expected steps beside it, how many")
    both = optimizer if isinstance(optimizer, tuple) else (optimizer, optimizer)
    if len(both) != 2 or not all(map(callable, both)):
        raise TypeError(
            "optimizer: expected a function of parameters, or a pair of them, for the port and for "
            f"the original, got {optimizer!r}"
        )
    return Training(steps, both, seed)


class Stepping:
    """Judges steps, in order.

    cause      of the first that is different
    warnings   what makes agreement say less than it seems to
    """

    def __init__(
        self,
        port: torch.nn.Module,
        original: torch.nn.Module,
        pairing: Pairing,
        training: Training,
        pace: Pace,
    ) -> None:
        ours, theirs = training.makers
        self.port, self.original = Machine(port, ours), Machine(original, theirs)
        self.steps, self.seed = training.steps, training.seed
        self.pairing, self.pace = pairing, pace
        self.arranging = Arranging(port, original, pairing)
        self.cause: Cause | None = None
        self.warnings: tuple[str, ...] = ()
        self._failed = False  # from then on, no cause is looked for
        self._unlike: dict[str, None] = {}  # the settings that are not alike, in order
        self._told: set[str] = set()  # state of which it was said that it is not judged

    def places(self, call: Call, state: State, whole: Whole | None) -> Iterator[Place]:
        """A place for each result of each step, from the first run of the original on; and of the
        whole before each, if something judges it, as long as that is right. Where nothing does, it
        is different already. Raises ValueError for an optimizer that cannot step the original."""
        self._failed = whole is None
        self._memory: Memory = whole.memory if whole else {}
        try:
            ours, theirs = self.port.begun(), self.original.begun()
        except Refused as why:
            self.warnings += (f"no step is judged: {why}",)
            yield Place(call, NOT_APPLICABLE, "steps", note=str(why))
            return
        self.pace.expect(self.steps)
        moved = False
        for number in range(1, self.steps + 1):
            self.pace.step()
            if self.pace.over:
                yield Place(call, NOT_APPLICABLE, f"step {number}", note="no time was left for it")
                return
            if number > 1:
                call = self._run(call, state, self.seed + number - 1)
                if whole:
                    places = self._wholes(call, state, whole)
                    yield from (replace(p, result=f"{p.result} in step {number}") for p in places)
                    whole = None if any(p.kind in BAD for p in places) else whole
            reached = self._reached(call, state, self.seed + number - 1, whole is not None)
            now = {name: state[name].detach() for name in call.gradients}
            before = Before(now, call.gradients, theirs.state, theirs.kept)
            step = Step(self.arranging, self.port, self.original, before, ours, reached)
            try:
                theirs = step.theirs
            except Exception as error:  # of any kind: there is nothing to hold the port's to
                said = f"optimizer: that of the original raises {raised(error)}"
                raise ValueError(said) from error
            moved |= any(not torch.equal(now[n], p) for n, p in theirs.parameters.items())
            state = self.arranging.whole({**state, **call.after, **theirs.parameters})
            try:
                ours = step.ours
            except Exception as error:  # whatever it raises where the original's does not
                note = f"the port's optimizer raises {raised(error)}"
                yield Place(call, DIFFERENT, f"step {number}", verdict=FAILED, note=note)
                return
            self._unlike |= dict.fromkeys(text for text, _ in other_settings(step).values())
            yield from self._settled(step, number, call)
        if not moved:
            self.warnings += (STILL,)

    @property
    def notes(self) -> tuple[str, ...]:
        """The settings that are not alike, and no cause: in few bits they need not be seen."""
        said = self.cause.text if self.cause else ""
        return tuple(f"{text} in the optimizer" for text in self._unlike if text not in said)

    def _run(self, call: Call, state: State, seed: int) -> Call:
        """The original once more, with what it was given and what its state is now."""
        what = self.original.module, state, call.args, call.kwargs, seed
        return recorded(*what, kept=True, memory=call.left)[-1]

    def _reached(self, call: Call, state: State, seed: int, right: bool) -> set[str]:
        """The parameters of the port that have a gradient, be it 0; where the two are different,
        those whose partners have."""
        if not right:
            return self.arranging.has(call.gradients)
        own = self.arranging.ported(state)
        what = self.port.module, own, call.args, call.kwargs, seed
        run = recorded(*what, kept=True, memory=self._memory)[-1]
        self._memory = run.left
        return {name for name, gradient in run.gradients.items() if gradient is not None}

    def _wholes(self, call: Call, state: State, whole: Whole) -> list[Place]:
        whole.memory = self._memory
        with swapped(slots_of(self.original.module), state):
            places = list(whole.of(call))
            if any(p.kind in BAD for p in places) and not self._failed:
                self._failed, self.cause = True, whole.cause()
        return places

    def _settled(self, step: Step, number: int, call: Call) -> Iterator[Place]:
        verdicts = step.verdicts(self._failed)
        for name, verdict in verdicts.items():
            where, result = self._placed(name)
            kind = str(step.given[name].dtype) if name in step.given else ""
            result = f"{result} after step {number}"
            yield Place(where, verdict.kind, result, kind, verdict, verdict.note)
        for key in sorted(step.alone - self._told):
            yield Place(call, NOT_APPLICABLE, f"{key} after step {number}", note=ALONE)
        self._told |= step.alone
        wrong = any(v.kind == DIFFERENT for v in verdicts.values())
        if wrong and not self._failed:
            self._failed = True
            self.cause = None if self.pace.over else cause_of(step)

    def _placed(self, name: str) -> tuple[Call, str]:
        """The innermost submodule that both have in which a parameter of the port lies, and what is
        to be said of that there."""
        key, of, parameter = name.rpartition(" of ")
        place, _, own = parameter.rpartition(".")
        while place not in self.pairing.modules:
            place, _, more = place.rpartition(".")
            own = f"{more}.{own}"
        other = self.pairing.modules[place]
        module = modules_of(self.original.module)[other]
        return Call(other, 0, module, (), {}, {}), f"{key}{of}{own}"
