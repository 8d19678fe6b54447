"""A run judged in lockstep: at every step the manual side works from the reference's own inputs.

Chaos cannot build up that way, and the first step and tensor that leave the floor are named.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .classes import DIFFERENT, IMPRECISE, LIMIT, Function, Results, Verdict
from .floor import DRAWS, Floor
from .judge import judge, settle_rows
from .noise import cast

JUDGED = 100  # steps from the first on that are all judged; later ones are log-spaced
PER_DECADE = 20


class Pair(NamedTuple):
    """One thing that a step does, on both sides, from the same inputs."""

    subject: Function
    reference: Function
    inputs: Any
    recorded: Results  # what the reference's own run had there, to the bit
    before: Results | None = None  # what the results were before, if the step updates them
    # The reference from a list of inputs, where it takes many at once: bit for bit, and as
    # another evaluation of all of them, for noise alone.
    many: Callable[[list[Any]], Sequence[Results]] | None = None
    together: Callable[[list[Any]], Sequence[Results]] | None = None
    dtype: Any = None  # if it is judged in another than the run's: a name of one of HALF_DTYPES
    # What both compute on the way to their results, asked for where one of these is different.
    on_the_way: Callable[[], Pair] | None = None


class StepVerdict(NamedTuple):
    step: int  # from 1
    name: str
    verdict: Verdict


class Beginning(NamedTuple):
    """Where a run begins to be different: what is the first to be so in the order of computation,
    a result or what was computed on the way, and all that was judged before it."""

    first: StepVerdict
    before: Sequence[StepVerdict]


@dataclass
class Lockstep:
    """Collects a verdict on every result of every judged step, until one is different.

    Pairs, and the results recorded in each, stand in the order in which they are computed.

    Steps wait, so that many are judged at once. Those between the judged ones are screened: where
    a result is further from the reference than the largest floor seen so far, relative to the size
    of its tensor, would allow, that step is judged as well.
    """

    dtype: Any
    steps: int
    thorough: bool = False  # draw all the noise, even where less would settle it
    _verdicts: list[StepVerdict] = field(default_factory=list)
    _levels: dict[str, float] = field(default_factory=dict)
    _waiting: list[tuple[int, Sequence[Pair]]] = field(default_factory=list)
    _over: Pair | None = None  # the first of which a result is different

    def __post_init__(self) -> None:
        decades = max(math.log10(self.steps / JUDGED), 0)
        last = max(self.steps, JUDGED)
        spaced = np.geomspace(JUDGED, last, 1 + math.ceil(PER_DECADE * decades))
        self._due = {*range(1, JUDGED + 1), *map(int, np.round(spaced))}

    def look(self, step: int, pairs: Sequence[Pair]) -> None:
        """Has the step, counted from 1, judged if it is due or does not pass the screen. Every step
        has as many pairs."""
        if not all(np.all(np.isfinite(a)) for pair in pairs for a in pair.recorded.values()):
            return
        if step not in self._due:
            self._judge_waiting()  # whose floors the screen knows
            if self._over or self._passes(pairs):
                return
        if not self._over:
            self._waiting.append((step, pairs))

    def _passes(self, pairs: Sequence[Pair]) -> bool:
        for pair in pairs:
            for name, ours in pair.subject(pair.inputs).items():
                theirs = pair.recorded[name]
                if np.shape(ours) != theirs.shape:
                    return False
                allowed = LIMIT * self._levels[name] * np.max(abs(theirs), initial=0)
                if not np.max(abs(np.subtract(ours, theirs, dtype=float)), initial=0) <= allowed:
                    return False
        return True

    def _judge_waiting(self) -> None:
        """In order, and none behind one that is different."""
        waiting, self._waiting = self._waiting, []
        every = zip(*(pairs for _, pairs in waiting), strict=True)
        columns = [_Column(pairs, pairs[0].dtype or self.dtype, self.thorough) for pairs in every]
        for i, (step, pairs) in enumerate(waiting):
            for pair, column in zip(pairs, columns, strict=True):
                verdicts = column.verdicts[i]
                if verdicts is None:
                    verdicts = self._judged_alone(pair)
                    if all(v.kind != DIFFERENT for v in verdicts.values()):
                        column.draw(i)  # which is for nothing where the rest is as wrong
                self._add(step, {name: verdicts[name] for name in pair.recorded})
                if self._over is None and _first_different(verdicts.values()) is not None:
                    self._over = pair
            if self._over:
                return

    def _judged_alone(self, pair: Pair) -> dict[str, Verdict]:
        return judge(
            pair.subject,
            pair.reference,
            pair.inputs,
            pair.dtype or self.dtype,
            before=pair.before,
            thorough=self.thorough,
        )

    def _add(self, step: int, verdicts: Mapping[str, Verdict]) -> None:
        for name, verdict in verdicts.items():
            self._verdicts.append(StepVerdict(step, name, verdict))
            self._levels[name] = max(verdict.level, self._levels.get(name, 0.0))

    @property
    def verdicts(self) -> list[StepVerdict]:
        self._judge_waiting()
        return self._verdicts

    @property
    def outside(self) -> tuple[int, str, str] | None:
        """The first step that is different, its tensors with the worst first, and a note."""
        wrong = [r for r in self.verdicts if r.verdict.kind == DIFFERENT]
        wrong.sort(key=lambda r: -r.verdict.margin)
        if not wrong:
            return None
        return wrong[0].step, ", ".join(r.name for r in wrong), wrong[0].verdict.note

    @property
    def beginning(self) -> Beginning | None:
        """The first that is different, and what is known of all before it."""
        found, pair = self.verdicts, self._over
        at = _first_different(r.verdict for r in found)
        if at is None or pair is None:
            return None
        step = found[at].step
        if pair.on_the_way:
            within = self._judged_alone(pair.on_the_way())
            first = _first_different(within.values())
            if first is not None:
                seen = [StepVerdict(step, *one) for one in within.items()]
                earlier = [r for r in found if r.step < step]
                return Beginning(seen[first], [*earlier, *seen[:first]])
        return Beginning(found[at], found[:at])

    @property
    def worst(self) -> StepVerdict:
        """The one with the largest margin."""
        return max(self.verdicts, key=lambda r: r.verdict.margin)

    @property
    def judged(self) -> int:
        """How many steps were judged."""
        return len({r.step for r in self.verdicts})

    @property
    def imprecise(self) -> int:
        """How many steps had a result that is right but for its digits."""
        return len({r.step for r in self.verdicts if r.verdict.kind == IMPRECISE})

    def resolution(self, names: Mapping[str, Any]) -> float:
        """The smallest relative error that would have been seen in whichever of these results.

        Each result counts with its sharpest step, and the least sharp of them is what is returned.
        """
        sharpest: dict[str, float] = {}
        for r in self.verdicts:
            if r.name in names and not math.isnan(r.verdict.resolution):
                sharpest[r.name] = min(r.verdict.resolution, sharpest.get(r.name, math.inf))
        return max(sharpest.values(), default=math.nan)


class _Column:
    """One thing that many steps do, looked at together: the verdicts on each, None for a step that
    is not settled without noise, or not laid out like the others.

    What the reference gives in its own dtype is known from its run. If `thorough`, all the noise is
    drawn for all.
    """

    def __init__(self, pairs: Sequence[Pair], dtype: Any, thorough: bool) -> None:
        self.verdicts: list[dict[str, Verdict] | None] = [None] * len(pairs)
        self.pairs = pairs
        self.ours = [dict(pair.subject(pair.inputs)) for pair in pairs]
        layouts = [_layout(pair.recorded) for pair in pairs]
        usual = Counter(layouts).most_common(1)[0][0]
        self.open = [i for i, o in enumerate(self.ours) if layouts[i] == usual == _layout(o)]
        if not self.open:
            return
        many = pairs[0].many or (lambda inputs: list(map(pairs[0].reference, inputs)))
        together = pairs[0].together or many
        inputs = [pairs[i].inputs for i in self.open]
        native = _side_by_side([pairs[i].recorded for i in self.open])
        truth = native if dtype == np.float64 else _side_by_side(many(cast(inputs, np.float64)))
        self.floor = Floor(
            lambda i: _side_by_side(together(i)), inputs, dtype, known=(truth, native)
        )
        self.floor.widen()
        while thorough and self.floor.widen(thorough):
            pass
        self._settle()

    def draw(self, after: int) -> None:
        """Draws noise for the open steps behind this one, until all is settled or drawn."""
        later = [k for k, i in enumerate(self.open) if i > after]
        while later and self.floor.draws < DRAWS:
            self.open, self.floor = [self.open[k] for k in later], self.floor.rows(later)
            self.floor.widen()
            self._settle()
            later = list(range(len(self.open)))

    def _settle(self) -> None:
        """Leaves open what the floor as it is known does not settle."""
        before = _side_by_side([self.pairs[i].before or {} for i in self.open])
        ours = _side_by_side([self.ours[i] for i in self.open])
        found = settle_rows(self.floor, ours, before)
        for i, row in zip(self.open, found, strict=True):
            self.verdicts[i] = row
        still = [k for k, row in enumerate(found) if row is None]
        self.open, self.floor = [self.open[k] for k in still], self.floor.rows(still)


def _first_different(verdicts: Iterable[Verdict]) -> int | None:
    return next((i for i, v in enumerate(verdicts) if v.kind == DIFFERENT), None)


def _layout(results: Results) -> tuple[tuple[str, tuple[int, ...], np.dtype], ...]:
    return tuple((name, np.shape(a), np.asarray(a).dtype) for name, a in results.items())


def _side_by_side(steps: Sequence[Results]) -> dict[str, np.ndarray]:
    """Each result of many steps as one array, steps first."""
    return {name: np.array([step[name] for step in steps]) for name in steps[0]}
