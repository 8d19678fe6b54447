"""The loss-curve divergence table: training by hand and by torch, judged step by step, and left to
run free."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...manual.trees import leaves
from .. import ops
from ..report.text import apart
from ..samples import written
from ..training.cells import Cell, start
from ..training.datasets import Data, load
from ..training.loop import NOTHING, Side, Step, by_hand, by_torch, gradients_at, stepped, train
from ..training.models import Arrays
from ..training.seconds import seconds
from ..verdict.classes import DIFFERENT, IDENTICAL, IMPRECISE, PARTED, ROUNDING, UNDECIDED, Results
from ..verdict.drift import Drift, chaos, free_drift
from ..verdict.lockstep import Beginning, Lockstep, Pair, StepVerdict
from ..verdict.noise import cast, unit_roundoff
from ..verdict.ulps import ulps
from .forward import on_the_way
from .free import Point, kinks, losses, noisy_losses


@dataclass(frozen=True)
class Comparison:
    """One cell, compared: its row in the table, and the curves behind it."""

    cell: Cell
    row: dict[str, Any]
    manual: np.ndarray  # loss at each step
    reference: np.ndarray
    drift: Drift
    manual_parameters: Arrays  # at the end
    reference_parameters: Arrays


def compare(
    cell: Cell,
    ours: Callable[[Cell, Data], Side] = by_hand,
    twin: Callable[[Cell, Data], Side] = by_torch,
    thorough: bool = False,
    disturb: Callable[[Any], Any] = lambda tree: tree,
) -> Comparison:
    """Trains the cell on both sides and judges the run, in lockstep and free. It starts from what
    `disturb` makes of the parameters."""
    data = load(cell.data)
    hand, torch_side = ours(cell, data), twin(cell, data)
    parameters = disturb(start(cell))
    settings = cell.all_settings
    lockstep = Lockstep(np.dtype(cell.dtype), cell.steps, thorough)

    def judged() -> Iterator[Step]:
        for step in train(torch_side, parameters, cell.steps, settings):
            lockstep.look(step.t + 1, _pairs(hand, torch_side, step, settings, cell.precision))
            yield step

    reference, theirs = losses(judged(), cell.steps)
    again, _ = losses(train(torch_side, parameters, cell.steps, settings), cell.steps)
    manual, ours_at_end = losses(train(hand, parameters, cell.steps, settings), cell.steps)
    noisy = noisy_losses(torch_side, cell, Point(parameters))
    drift = free_drift(manual, reference, noisy, unit_roundoff(cell.dtype))
    parted = drift.parted is not None and not lockstep.outside
    why = kinks(hand, torch_side, cell, Point(parameters), manual, drift) if parted else ""
    repeats = np.array_equal(reference, again, equal_nan=True)
    seen = {**_named_gradient(np.zeros(()), parameters), **parameters}
    rate = chaos(noisy, reference)
    row = _row(
        cell, manual, reference, drift, rate, lockstep, lockstep.resolution(seen), repeats, why
    )
    pairs = zip(
        ("manual", "reference"), ops.named(cell.model).pair, (ours_at_end, theirs), strict=True
    )
    ours_take, theirs_take = seconds(cell, hand, parameters)
    row |= {"seconds_manual": ours_take, "seconds_reference": theirs_take}  # of a step, on the CPU
    row |= {"seconds_ratio": ours_take / theirs_take}
    row |= {f"written_{side}": cell.written(model, at_end) for side, model, at_end in pairs}
    return Comparison(cell, row, manual, reference, drift, ours_at_end, theirs)


def _pairs(
    ours: Side, twin: Side, step: Step, settings: dict[str, Any], precision: str
) -> list[Pair]:
    """What a step does: the loss and its gradient, with that precision, and from the reference's
    gradient the update."""

    def gradient(inputs: Any) -> Results:
        """From the reference's parameters, and from a batch of its own if that is another one."""
        batch = ours.batch(step.t)  # here, because many steps later it is asked again
        pairs = zip(leaves(batch), leaves(step.batch), strict=True)
        same = all(np.array_equal(a, b) for a, b in pairs)
        parameters, *theirs = inputs
        kind = next(iter(parameters.values())).dtype
        return _named_gradient(*ours.gradient(parameters, *(theirs if same else cast(batch, kind))))

    def reference(inputs: Any) -> Results:
        return _named_gradient(*twin.gradient(*inputs))

    seen, dtype = (step.parameters, *step.batch), precision or None
    update = (step.parameters, step.gradients, step.states, settings)
    return [
        Pair(
            gradient,
            reference,
            seen,
            _named_gradient(step.loss, step.gradients, *step.moved),
            together=lambda many: _gradients(twin, many),
            dtype=dtype,
            on_the_way=lambda: on_the_way(gradient, reference, seen, dtype),
        ),
        Pair(
            lambda i: _named_update(*ours.step(*i)),
            lambda i: _named_update(*twin.step(*i)),
            update,
            _named_update(step.new_parameters, step.new_states),
            before=step.parameters,
            many=lambda many: _updates(twin, many),
        ),
    ]


def _gradients(side: Side, many: Sequence[Any]) -> list[Results]:
    return [_named_gradient(*found) for found in gradients_at(side, many)]


def _updates(side: Side, many: Sequence[Any]) -> list[Results]:
    """What many steps with the same settings update."""
    *_, settings = many[0]
    return [_named_update(*new) for new in stepped(side, [step[:3] for step in many], settings)]


def _classify(
    lockstep: Lockstep, drift: Drift, bits_equal: bool, repeats: bool, why: str
) -> tuple[str, str]:
    """The class of a run, and a note where there is something to say: `why` it has parted, if that
    is known."""
    if not repeats:
        return UNDECIDED, "the reference differs from itself when it is run again"
    if lockstep.outside:
        return DIFFERENT, lockstep.outside[2]
    if drift.parted is not None:
        return PARTED, f"every step is right, {why or 'yet the free run is outside its floor'}"
    note = f"{lockstep.imprecise} steps lose digits" if lockstep.imprecise else ""
    return (IDENTICAL if bits_equal else ROUNDING), note


def _row(
    cell: Cell,
    manual: np.ndarray,
    reference: np.ndarray,
    drift: Drift,
    rate: float,
    lockstep: Lockstep,
    resolution: float,
    repeats: bool,
    why: str,
) -> dict[str, Any]:
    distance = ulps(manual.astype(cell.dtype), reference.astype(cell.dtype))
    differing = np.flatnonzero(distance)
    kind, note = _classify(lockstep, drift, not differing.size, repeats, why)
    at, worst = int(np.argmax(drift.drift)), int(np.argmax(drift.ratio))
    growth, growth_from, growth_to = growth_rate(drift.drift)
    parted = None if drift.parted is None else drift.parted + 1
    outside = lockstep.outside or (parted, "loss" if parted else "", "")
    return {
        **described(cell),
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
        "chaos": rate,  # e-folds in a step, of the runs under noise
        "lockstep_margin": lockstep.worst.verdict.margin,
        "lockstep_step": lockstep.worst.step,
        "lockstep_tensor": lockstep.worst.name,
        "judged_steps": lockstep.judged,
        "imprecise_steps": lockstep.imprecise,
        "resolution": resolution,
        "class": kind,
        "outside_step": outside[0],
        "outside_tensor": outside[1],
        **_beginning(lockstep.beginning),
        "note": note,
    }


def described(cell: Cell) -> dict[str, Any]:
    """The columns of a row that are known before the run, its id first."""
    settings = written(cell.settings)
    regime = f"{cell.regime} {cell.batch_size}" if cell.regime == "mini-batch" else cell.regime
    what = (
        cell.model,
        cell.shape,
        cell.data,
        cell.optimizer,
        f"lr={cell.lr:g}",
        settings,
        regime,
        cell.recipe,
        cell.steps,
    )
    return {
        "id": f"curve({'/'.join(str(w) for w in what if w)})/{cell.dtype}/{cell.seed}",
        "model": cell.model,
        "shape": cell.shape,
        "data": cell.data,
        "optimizer": cell.optimizer,
        "lr": cell.lr,
        "settings": settings,
        "regime": regime,
        "recipe": cell.recipe,
        "dtype": cell.dtype,
        "seed": cell.seed,
        "steps": cell.steps,
    }


def _beginning(found: Beginning | None) -> dict[str, Any]:
    """Where a run that is different begins to be, in the order of computation."""
    if found is None:
        nothing = {"first_tensor": "", "first_index": ""}
        return nothing | {"first_manual": math.nan, "first_reference": math.nan, "begins": ""}
    step, name, verdict = found.first
    index = str(list(verdict.index)) if verdict.index else ""
    ours, theirs = apart(verdict.manual, verdict.reference)
    values = verdict.note or f"{ours} by hand, {theirs} by torch"
    where = f"step {step}, {name}{index and f' {index}'}"
    return {
        "first_tensor": name,
        "first_index": index,
        "first_manual": verdict.manual,
        "first_reference": verdict.reference,
        "begins": f"{where}: {values}; {_so_far(found.before)}",
    }


def _so_far(before: Sequence[StepVerdict]) -> str:
    """What is known of the results that were judged before the first that is different."""
    if not before:
        return "nothing was judged before it"
    imprecise = sum(r.verdict.kind == IMPRECISE for r in before)
    losing = f", {imprecise} but for lost digits" if imprecise else ""
    count = f"{len(before)} result{'s' * (len(before) > 1)}"
    step, name, verdict = max(before, key=lambda r: r.verdict.margin)
    nearest = f"at most {verdict.margin:.2g} of the limit, at step {step}, {name}"
    return f"all before it is rounding ({count}{losing}, {nearest})"


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


def _named_gradient(
    loss: np.ndarray, gradients: Arrays, buffers: Mapping[str, np.ndarray] = NOTHING
) -> Arrays:
    """Buffers move in the forward pass; then in the order of the backward pass, which comes to the
    last parameters first."""
    moved = {f"buffer {name}": buffer for name, buffer in buffers.items()}
    named = {f"gradient of {name}": gradients[name] for name in reversed(gradients)}
    return {**moved, "loss": np.asarray(loss), **named}


def _named_update(parameters: Arrays, states: dict[str, Arrays]) -> Arrays:
    """The state first, from which the parameters follow."""
    named = {f"{n}.{k}": np.asarray(v) for n, state in states.items() for k, v in state.items()}
    return {**named, **parameters}
