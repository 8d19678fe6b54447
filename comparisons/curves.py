"""The loss-curve divergence table: training by hand and by torch, judged step by step, and left to run free."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import verdict
from .datasets import Data, load
from .noise import cast, moved, unit_roundoff
from .training import Arrays, Cell, Side, Step, by_hand, by_torch, start, train
from .verdict import Drift, Results, Verdict, free_drift, judge, ulps

JUDGED = 100  # steps from the first on that are all judged; later ones are log-spaced, 20 to a decade
PER_DECADE = 20
RUNS = 6  # of the reference under noise


@dataclass
class Lockstep:
    """The manual side at work on the reference's own inputs, step after step, so that no chaos can build up.

    Between the judged steps every step is screened: where a tensor is further from the reference than the largest
    floor seen so far, relative to its size, would allow, that step is judged as well.
    """

    ours: Side
    twin: Side
    dtype: Any
    settings: dict[str, Any]
    margin: float = 0.0
    step: int = 0
    tensor: str = ""
    judged: int = 0
    imprecise: int = 0
    kinds: set[str] = field(default_factory=set)
    outside: tuple[int, str, str] | None = None  # step, tensors, note
    _levels: dict[str, float] = field(default_factory=dict)
    _resolutions: dict[str, float] = field(default_factory=dict)

    def look(self, step: Step, due: bool) -> None:
        """Judges the step if it is due or does not pass the screen; nothing after the first that is different."""
        if self.outside or not np.isfinite(step.loss) or not _finite(step.gradients):
            return
        if due or self._suspicious(step):
            self._judge(step)

    @property
    def resolution(self) -> float:
        """The smallest relative error, of whatever tensor, that would have been seen at its sharpest step."""
        return max(self._resolutions.values(), default=math.nan)

    def _pairs(self, step: Step) -> Iterator[tuple[Callable[[Any], Results], Callable[[Any], Results], Any, Any]]:
        """(subject, reference, inputs, before) of the gradient and of the optimizer's step."""

        batch = self.ours.batch(step.t)
        same = all(np.array_equal(a, b) for a, b in zip(batch, step.batch, strict=True))

        def gradient(inputs: Any) -> Results:
            """From the reference's parameters, and a batch of its own if that is another one."""
            parameters, *theirs = inputs
            kind = next(iter(parameters.values())).dtype
            return _gradient(self.ours, (parameters, *(theirs if same else cast(batch, kind))))

        yield gradient, lambda i: _gradient(self.twin, i), (step.parameters, *step.batch), None
        inputs = (step.parameters, step.gradients, step.states, self.settings)
        yield lambda i: _update(self.ours, i), lambda i: _update(self.twin, i), inputs, step.parameters

    def _judge(self, step: Step) -> None:
        self.judged += 1
        verdicts: dict[str, Verdict] = {}
        for subject, reference, inputs, before in self._pairs(step):
            verdicts |= judge(subject, reference, inputs, self.dtype, before=before)
        name, largest = max(verdicts.items(), key=lambda item: item[1].margin)
        if largest.margin >= self.margin:
            self.margin, self.step, self.tensor = largest.margin, step.t + 1, name
        for n, v in verdicts.items():
            self._levels[n] = max(v.level, self._levels.get(n, 0))
            if not n.endswith(".step"):  # a count
                known = self._resolutions.get(n, math.nan)
                self._resolutions[n] = float(np.fmin(v.resolution, known))
        self.kinds |= {v.kind for v in verdicts.values()}
        self.imprecise += any(v.kind == verdict.IMPRECISE for v in verdicts.values())
        wrong = {n: v for n, v in verdicts.items() if v.kind == verdict.DIFFERENT}
        if wrong:
            names = sorted(wrong, key=lambda n: -wrong[n].margin)
            self.outside = step.t + 1, ", ".join(names), wrong[names[0]].note

    def _suspicious(self, step: Step) -> bool:
        recorded: Arrays = {"loss": step.loss, **_named("gradient of ", step.gradients)}
        recorded |= _flat_update(step.new_parameters, step.new_states)
        for subject, _, inputs, _ in self._pairs(step):
            for name, ours in subject(inputs).items():
                theirs = recorded[name]
                if ours.shape != theirs.shape:
                    return True
                apart = np.max(abs(ours.astype(float) - theirs), initial=0)
                if not apart <= verdict.LIMIT * self._levels[name] * np.max(abs(theirs), initial=0):
                    return True
        return False


@dataclass(frozen=True)
class Comparison:
    """One cell, compared: its row in the table, and the curves behind it."""

    cell: Cell
    row: dict[str, Any]
    manual: np.ndarray  # loss at each step
    reference: np.ndarray
    drift: Drift


def compare(
    cell: Cell,
    ours: Callable[[Cell, Data], Side] = by_hand,
    twin: Callable[[Cell, Data], Side] = by_torch,
) -> Comparison:
    """Trains the cell on both sides and judges the run, in lockstep and free."""
    data = load(cell.data)
    hand, torch_side = ours(cell, data), twin(cell, data)
    parameters, settings = start(cell, data.x.shape[1], data.outputs), cell.all_settings
    u = unit_roundoff(cell.dtype)

    def noisy(seed: int) -> Iterator[Step]:
        rng = np.random.default_rng([cell.seed, 2, seed])
        return train(
            torch_side, parameters, cell.steps, settings, lambda tree: moved(tree, 2 * u, rng, zeros=True)
        )

    lockstep = Lockstep(hand, torch_side, np.dtype(cell.dtype), settings)
    due = _due(cell.steps)
    reference = []
    for step in train(torch_side, parameters, cell.steps, settings):
        lockstep.look(step, step.t in due)
        reference.append(step.loss)
    losses = {
        "reference": _padded(reference, cell.steps),
        "again": _losses(train(torch_side, parameters, cell.steps, settings), cell.steps),
        "manual": _losses(train(hand, parameters, cell.steps, settings), cell.steps),
    }
    runs = np.array([_losses(noisy(seed), cell.steps) for seed in range(RUNS)])
    drift = free_drift(losses["manual"], losses["reference"], runs, u)
    repeats = np.array_equal(losses["reference"], losses["again"], equal_nan=True)
    row = _row(cell, losses["manual"], losses["reference"], drift, lockstep, repeats)
    return Comparison(cell, row, losses["manual"], losses["reference"], drift)


def classify(lockstep: Lockstep, drift: Drift, bits_equal: bool, repeats: bool) -> tuple[str, str]:
    """The class of a run, and a note where there is something to say."""
    if not repeats:
        return verdict.UNDECIDED, "the reference differs from itself when it is run again"
    if lockstep.outside:
        return verdict.DIFFERENT, lockstep.outside[2]
    if drift.parted is not None:
        return verdict.PARTED, "every step is right, yet the free run is outside its floor"
    note = f"{lockstep.imprecise} steps lose digits" if lockstep.imprecise else ""
    return (verdict.IDENTICAL if bits_equal else verdict.ROUNDING), note


def _row(
    cell: Cell, manual: np.ndarray, reference: np.ndarray, drift: Drift, lockstep: Lockstep, repeats: bool
) -> dict[str, Any]:
    distance = ulps(manual.astype(cell.dtype), reference.astype(cell.dtype))
    differing = np.flatnonzero(distance)
    kind, note = classify(lockstep, drift, not differing.size, repeats)
    at, worst = int(np.argmax(drift.drift)), int(np.argmax(drift.ratio))
    growth, growth_from, growth_to = growth_rate(drift.drift)
    parted = None if drift.parted is None else drift.parted + 1
    outside = lockstep.outside or (parted, "loss" if parted else "", "")
    settings = ", ".join(f"{k}={v}" for k, v in cell.settings.items())
    shape = f"{'-'.join(map(str, cell.hidden))} {cell.activation}" if cell.model == "mlp" else ""
    regime = f"{cell.regime} {cell.batch_size}" if cell.regime == "mini-batch" else cell.regime
    what = (cell.model, shape, cell.data, cell.optimizer, f"lr={cell.lr:g}", settings, regime, cell.steps)
    return {
        "id": f"curve({'/'.join(str(w) for w in what if w)})/{cell.dtype}/{cell.seed}",
        "model": cell.model,
        "shape": shape,
        "data": cell.data,
        "optimizer": cell.optimizer,
        "lr": cell.lr,
        "settings": settings,
        "regime": regime,
        "dtype": cell.dtype,
        "seed": cell.seed,
        "steps": cell.steps,
        "start_manual": manual[0],
        "start_reference": reference[0],
        "end_manual": manual[-1],
        "end_reference": reference[-1],
        "max_drift": drift.drift[at],
        "max_drift_step": at + 1,
        "max_ulp": int(distance.max()),
        "first_differing_step": int(differing[0]) + 1 if differing.size else None,
        "max_ratio": drift.ratio[worst],
        "max_ratio_step": worst + 1,
        "floor": drift.floor[worst],
        "sharpness": drift.sharpness,
        "growth": growth,
        "growth_from": growth_from,
        "growth_to": growth_to,
        "lockstep_margin": lockstep.margin,
        "lockstep_step": lockstep.step,
        "lockstep_tensor": lockstep.tensor,
        "judged_steps": lockstep.judged,
        "imprecise_steps": lockstep.imprecise,
        "resolution": lockstep.resolution,
        "class": kind,
        "outside_step": outside[0],
        "outside_tensor": outside[1],
        "note": note,
    }


def growth_rate(drift: np.ndarray) -> tuple[float, int | None, int | None]:
    """e-folds of the drift in 100 steps, by least squares, and the first and last step of the fit.

    It is fitted from the first step that drifts to the largest drift, where growth has ended.
    """
    seen = np.flatnonzero((drift > 0) & np.isfinite(drift))
    seen = seen[seen <= np.argmax(np.where(np.isfinite(drift), drift, 0))]
    if len(seen) < 3:
        return math.nan, None, None
    slope = np.polyfit(seen, np.log(drift[seen]), 1)[0]
    return float(100 * slope), int(seen[0]) + 1, int(seen[-1]) + 1


def _due(steps: int) -> set[int]:
    decades = max(math.log10(steps / JUDGED), 0)
    later = np.geomspace(JUDGED, max(steps, JUDGED), 1 + math.ceil(PER_DECADE * decades))
    return {*range(min(JUDGED, steps)), *(int(t) - 1 for t in np.round(later))}


def _losses(run: Iterator[Step], steps: int) -> np.ndarray:
    return _padded([step.loss for step in run], steps)


def _padded(losses: list[np.ndarray], steps: int) -> np.ndarray:
    """The losses as float64; a run that ended early has diverged, and is NaN from there on."""
    return np.array([*map(float, losses), *[math.nan] * (steps - len(losses))])


def _gradient(side: Side, inputs: Any) -> Arrays:
    loss, gradients = side.gradient(*inputs)
    return {"loss": np.asarray(loss), **_named("gradient of ", gradients)}


def _update(side: Side, inputs: Any) -> Arrays:
    return _flat_update(*side.step(*inputs))


def _flat_update(parameters: Arrays, states: dict[str, Arrays]) -> Arrays:
    flat = dict(parameters)
    for name, state in states.items():
        flat |= _named(f"{name}.", state)
    return flat


def _named(prefix: str, arrays: Arrays) -> Arrays:
    return {f"{prefix}{name}": np.asarray(a) for name, a in arrays.items()}


def _finite(arrays: Arrays) -> bool:
    return all(np.all(np.isfinite(a)) for a in arrays.values())
