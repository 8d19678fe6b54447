"""One step of the backward pass made otherwise: a wrong operand, a slope that was forgotten, what
comes from another place, a share left out.

The reference is traced into simple operations, and what its backward pass does at each of them is
exchanged for what a mistake would do. Which exchanges explain a wrong gradient is told along one
random direction r of the argument: a share that differs by δ at a value changes the gradient by g
with ⟨r, g⟩ = ⟨t, δ⟩, where t is how the value moves where the argument moves along r. What agrees
there is then gone through in full.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch

from ....reference.adapters import array, tensor
from ...verdict.noise import cast
from ..backward import Backward
from ..traced import traced
from .case import Candidate, Case, Wrong
from .closeness import where_finite
from .exchanges import (
    SEEN,
    Exchange,
    View,
    cotangents,
    each_time,
    everywhere,
    exchanged,
    operands,
    slopes,
    times_a_number,
    turned,
)
from .graphs import once

STEPS = 160  # the most operations that are gone through
VISITED = 4_000  # the most steps that are gone through for exchanges at several of them


def of_one_step(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    yield from once(case, wrong, _found)


def _found(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    function = case.done.reference.in_torch if case.done.reference else None
    if function is None:
        return
    inputs = cast(wrong.inputs, np.float64)
    trace = traced(function, inputs, case.done.order)
    if len(trace.graph.nodes) > STEPS:
        return
    ours, truth = where_finite(wrong.ours, wrong.truth)
    along = torch.from_numpy(np.random.default_rng(11).standard_normal(truth.shape))
    aim = float((along * tensor(ours - truth)).sum())
    view = View(Backward(trace, inputs[2]), wrong.name, along)
    node = view.backward.arguments[wrong.name]

    def made(exchange: Exchange) -> Iterator[Candidate]:
        gradient = view.backward.reversed(exchange.shares).get(node)
        if gradient is not None:
            yield Candidate(exchange.cause, exchange.text, array(gradient))

    for exchange in itertools.chain(
        times_a_number(view, aim, wrong, case.done.settings),
        exchanged(view),
        operands(view),
        slopes(view),
        cotangents(view),
        turned(view),
    ):
        if _seen(view, exchange, aim):
            yield from made(exchange)
    yield from _closed_forms(view, aim)
    most = VISITED // max(len(view.backward.steps), 1)
    for exchange in itertools.islice(itertools.chain(everywhere(view), each_time(view)), most):
        yield from made(exchange)


def _closed_forms(view: View, aim: float) -> Iterator[Candidate]:
    """The share of a value that is such a function of another, made as a mistake would."""
    for x, y, form, axis in view.compounds():
        dy = view.backward.cotangents[y]
        slope = view.backward.between(x, y, dy)
        for text, (cause, made) in form.wrong(view.tensors[x], view.tensors[y], dy, axis).items():
            more = made - slope
            terms = view.tangents[x] * more
            if abs(float(terms.sum()) - aim) <= SEEN * max(
                abs(aim), 1e-6 * float(terms.abs().sum())
            ):
                found = view.backward.reversed({}, {x: more}).get(view.argument)
                said = f"that of {form.name}, {text}, in {view.names[x]} → {view.names[y]}"
                if found is not None:
                    yield Candidate(cause, said, array(found))


def _seen(view: View, exchange: Exchange, aim: float) -> bool:
    """Whether the exchange explains the gradient along the direction."""
    moved = size = 0.0
    for (name, k), other in exchange.shares.items():
        step = view.backward.steps[name]
        share, made = view.shares.get((name, k)), other(step, view.backward.cotangents[name])
        if share is None or made is None:
            continue
        terms = view.tangents[step.inputs[step.moving[k]]] * (made - share)
        moved += float(terms.sum())
        size += float(terms.abs().sum())
    return abs(moved - aim) <= SEEN * max(abs(aim), 1e-6 * size)
