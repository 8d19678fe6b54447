"""The verdicts on a step: on its rule, and on what torch's nodes received and passed on."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ...manual.binding import named as leaves_by_name
from ...manual.binding import signature_of
from ...manual.trees import kept
from ...reference.adapters import NotAsked, array, leaves, tensor, tree_map
from .. import ops
from ..exact import SOON
from ..ops import Op, arguments, evaluate
from ..report.text import said
from ..verdict.classes import (
    CLASSES,
    DIFFERENT,
    EMPTY,
    HALF_DTYPES,
    Exact,
    Function,
    Results,
    Verdict,
)
from ..verdict.floor import LOOKS, Floor
from ..verdict.judge import judge, settle
from ..verdict.noise import is_floating
from ..verdict.ulps import same_bits
from .batched import of_each, rows_of
from .steps import Edge, End, Sent, Step, is_leaf


def carried(leaf: Any) -> Any:
    """An array of 16 bits in float32, which carries its numbers, and float32 in the place of such a
    dtype; anything else as it is."""
    if isinstance(leaf, np.ndarray) and leaf.dtype.name in HALF_DTYPES:
        return leaf.astype(np.float32)
    if isinstance(leaf, np.dtype) and leaf.name in HALF_DTYPES:
        return np.dtype(np.float32)
    return leaf


def arrival(grad: np.ndarray, sent: Sequence[tuple[Any, np.ndarray]]) -> Verdict:
    """Whether what an end got is the sum of what it was sent."""
    if len(sent) == 1 and same_bits(grad, sent[0][1]):
        return EMPTY
    half = grad.dtype.name in HALF_DTYPES
    dtype: Any = grad.dtype.name if half else grad.dtype
    grad = carried(grad)

    def total(parts: Any) -> Results:
        return {"sum": array(sum(map(tensor, parts), tensor(np.zeros_like(grad))))}

    return judge(lambda _: {"sum": grad}, total, [carried(part) for _, part in sent], dtype)["sum"]


def worse(verdicts: Iterable[Verdict]) -> Verdict:
    return max(verdicts, key=lambda v: (CLASSES.index(v.kind), v.margin), default=EMPTY)


def judged(step: Step, sent: Sent, got: dict[End, Any], arrivals: dict[End, Verdict]) -> None:
    """Runs the rule of the step's name on what torch was given, and judges both."""

    def cotangent(leaf: Any) -> Any:  # zero for what of several results was not used
        end = step.ends.get(id(leaf))
        if end is None or got.get(end) is None:
            return None if end is None else np.zeros_like(leaf)
        parts = [(node in step.nodes, carried(grad)) for node, grad in sent[end]]
        if any(own for own, _ in parts):  # one result is made of another
            others = sum((grad for own, grad in parts if not own), np.zeros_like(got[end]))
        else:
            others = got[end]
        return _many_first(step, leaf, carried(others))

    step.dy = tree_map(cotangent, step.y)
    call = None if step.note else _call(step)
    if call is None:
        return
    if not any(step.ends.get(id(leaf)) in got for leaf in leaves(step.y)):
        step.note = "no gradient came back to it"
        return
    op, args, kwargs = call
    one = next(rows_of((args, kwargs), many(step, (args, kwargs)))) if step.batched else call[1:]
    floats = [a.dtype for a in leaves((args, kwargs)) if is_floating(a)]
    if not floats or any(dtype not in (np.float32, np.float64) for dtype in floats):
        step.note = "of another dtype"
        return
    twin = op.mirror
    if hasattr(twin, "draw") and twin.draw(*one[0], **one[1])[twin.draw.keyword] is not None:
        again, given = (
            [a for a in leaves(y) if isinstance(a, np.ndarray)]
            for y in (twin(*one[0], **one[1])[0], step.y)
        )
        if not all(map(np.array_equal, again, given)):
            step.note = "draws at random"
            return
        kwargs = kwargs | twin.draw(*args, **kwargs)
    args, kwargs = op.held(args, kwargs)
    try:
        y, _ = twin(*one[0], **one[1])
    except NotAsked as reason:
        step.note = said(reason)
        return
    step.op = op.name
    if isinstance(y, tuple) and not isinstance(step.y, tuple):  # what torch writes in place
        step.dy = step.dy, *[None] * (len(y) - 1)
    elif isinstance(step.y, tuple) and not isinstance(y, tuple):  # torch's others are None
        step.dy = step.dy[0]
    _settle(step, (args, kwargs, step.dy), floats[0], sent, arrivals)


def many(step: Step, tree: Any) -> list[bool]:
    """Of each leaf of a call, whether it holds one for each of those that vmap goes through."""
    return [id(leaf) in step.batched for leaf in leaves(tree)]


def _many_first(step: Step, leaf: Any, grad: np.ndarray) -> np.ndarray:
    """A gradient of what the leaf was in torch, as one of the leaf."""
    axis = step.batched.get(id(leaf))
    return grad if axis is None else np.ascontiguousarray(np.moveaxis(grad, axis, 0))


def _settle(step: Step, inputs: Any, dtype: Any, sent: Sent, arrivals: Any) -> None:
    """The verdicts on the rule and on what torch's nodes passed on, against one floor. Of a step in
    16 bits, which no rule computes in, the rule is judged in float32, on the same numbers."""
    args, kwargs, _ = inputs
    ours, twin = ops.named(step.op).pair
    names = arguments.argument_names(ours, args, kwargs, twin.facts.constant)
    bound = leaves_by_name(dict(signature_of(ours).bind(*args, **kwargs).arguments))
    leaving = {end for node in step.nodes for end in node.next_functions}
    together: dict[Any, list[str]] = defaultdict(list)  # the arguments that are one tensor

    def given(name: str) -> Any:
        return bound.get(name.removeprefix("argument "))

    for name in names:
        end = step.ends.get(id(given(name)))
        if end in leaving:
            together[end].append(name)
    ends = {" + ".join(parts): end for end, parts in together.items()}

    flags = many(step, (args, kwargs)) + [isinstance(d, np.ndarray) for d in leaves(inputs[2])]
    alone = [n for n in names if id(given(n)) not in step.batched]

    def evaluated(
        rule: Callable[..., Any], inputs: Any, names: Sequence[str] = tuple(names)
    ) -> Results:
        once = partial(evaluate.evaluate, rule, names)
        found = of_each(once, inputs, flags, alone) if step.batched else once(inputs)
        parts = {name: name.split(" + ") for name in ends}
        sums = {name: sum(found[p] for p in of) for name, of in parts.items() if of[0] in found}
        return {**found, **{name: np.asarray(total) for name, total in sums.items()}}

    def some(wanted: Collection[str]) -> Function:
        parts = [part for name in wanted for part in name.split(" + ")]
        mirror, left = evaluate.asking(step.op, names, parts)
        return partial(evaluated, mirror, names=left)

    def exactly(inputs: Any) -> Exact:
        oracle = ops.named(step.op).oracle(inputs, kinks=False, work=SOON)
        return lambda name, index: sum(oracle(part, index) for part in name.split(" + "))

    subject = partial(evaluated, ours)
    try:
        if step.batched:
            results = subject(inputs)
        else:
            answer = ours(*args, **kwargs)
            step.kept = kept(answer[1])
            results = evaluated(lambda *_, **__: answer, inputs)
    except Exception as error:  # whatever the rule raises on a call that torch took is a finding
        step.note = f"{type(error).__name__}: {said(error)}"
        step.verdicts = {"rule": replace(EMPTY, kind=DIFFERENT, margin=math.inf)}
        return
    fewer = None if step.batched else some
    floor = Floor(partial(evaluated, twin), inputs, dtype, looks=LOOKS, some=fewer)
    exact = None if step.batched else exactly
    step.verdicts = settle(floor, subject, inputs, results, exact)
    if step.half:
        floor = Floor(partial(evaluated, twin), inputs, step.half)
    torchs = dict(floor.native)
    for name, end in ends.items():
        leaf = given(together[end][0])
        passed = (carried(grad) for node, grad in sent.get(end, ()) if node in step.nodes)
        parts = (_many_first(step, leaf, grad) for grad in passed)
        torchs[name] = sum(parts, np.zeros_like(torchs[name]))
    settled: dict[str, Verdict] = {}
    if not all(same_bits(torchs[name], floor.native[name]) for name in ends):
        # One that answers the same to all inputs is never excused as having lost only digits.
        settled = settle(floor, lambda _: torchs, inputs, torchs)
    for name, end in ends.items():
        arrived = arrivals.get(end, EMPTY) if is_leaf(end[0]) else EMPTY
        verdict = worse((step.verdicts[name], settled.get(name, EMPTY), arrived))
        step.edges.append(Edge(name, end[0], float(np.linalg.norm(torchs[name])), verdict))


def _call(step: Step) -> tuple[Op, Any, dict[str, Any]] | None:
    """The op of a step, and the call in its rule's signature; None if there is none."""
    name = step.name.removesuffix("_")
    op = ops.called(name)
    if op is None or step.custom is not None or step.is_another:
        return None
    args, kwargs = op.traced(name, step.args, step.kwargs, step.method)
    try:
        signature_of(op.rule).bind(*args, **kwargs)
    except TypeError as error:
        step.note = said(error)
        return None
    return op, args, kwargs
