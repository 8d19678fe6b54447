"""Is a gradient right, and if not, what is wrong with it?"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ...reference.adapters import array, is_differentiable, leaves, tensor, tree_map
from .. import ops
from ..exact import SOON
from ..ops import Op, torch_samples
from ..ops.arguments import signature_of
from ..ops.torch_samples import Sample
from ..report import tables
from ..verdict.classes import DTYPES, Exact, Sides
from ..verdict.noise import is_floating
from .adapt import Subject, of_torch, subject_of
from .causes import diagnose
from .report import Report
from .trials import NOT_APPLICABLE, UNSUPPORTED, Trials, judge


@dataclass(frozen=True)
class Target:
    """What a subject is held to: a torch callable, or nothing."""

    name: str
    function: Callable[..., Any] | None = None
    op: str = ""  # its name among our rules
    constant: frozenset[str] = frozenset()
    draw: Any = None  # (call) → what it draws at random, by keyword

    def drawn(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The keywords, with what torch draws."""
        return {**kwargs, **(self.draw(*args, **kwargs) if self.draw else {})}

    def exact(self, inputs: Any) -> Exact | None:
        """The exact results of one call, of one of our rules; NaN where they cannot be had soon."""
        if not self.op:
            return None
        args, kwargs, dy = inputs
        call = (args, self.drawn(args, kwargs), dy)
        oracle = ops.named(self.op).oracle(call, kinks=False, work=SOON)

        def known(name: str, index: tuple[int, ...]) -> float:
            try:
                return oracle(name, index)
            except Exception:  # a probe that the definition does not take
                return math.nan

        return known

    def sides(self, inputs: Any) -> Sides | None:
        """The exact slopes to both sides of a kink, of one of our rules where torch's releases
        differ there."""
        if not self.op:
            return None
        args, kwargs, dy = inputs
        return ops.named(self.op).sides((args, self.drawn(args, kwargs), dy))


def check(
    subject: Any,
    against: Any = None,
    arrays: Sequence[Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    dtypes: Sequence[str] = DTYPES,
    strict: bool = False,
    *,
    constant: str = "",
    seed: int = 0,
) -> Report:
    """Examines a backward pass, and names what is wrong with it.

    subject   a rule `f(*arrays, **settings) → (y, pullback)`; a pair `forward(*arrays, **settings)
              → (y, saved)`, `backward(saved, dy) → gradients`; a torch.autograd.Function; a torch
              callable whose backward somebody wrote; or the name of one of our rules
    against   a torch callable, or the name of one of our rules; with nothing, the subject is held
              to differences of its own forward, with their own error estimate
    arrays    the positional arguments of one call, arrays of any floating dtype; without them our
              samples of the op are taken, or torch's own
    settings  the keyword arguments of the call
    dtypes    that are judged; a torch subject is in float16 and bfloat16 as well
    strict    whether a rule that is right but loses digits fails
    constant  names of floating arguments that have no gradient on purpose

    The number of calls does not grow with the arrays. Raises TypeError or ValueError for a wrong
    argument of `check` itself; what is wrong with the subject is in the report.
    """
    if unknown := [d for d in dtypes if d not in DTYPES] or not dtypes:
        raise ValueError(f"dtypes: expected some of {', '.join(DTYPES)}, got {unknown}")
    if not isinstance(settings or {}, Mapping):
        raise TypeError(f"settings: expected a mapping, got a {type(settings).__name__}")
    target = _target(against)
    frozen = target.constant | frozenset(constant.replace(",", " ").split())
    calls = _calls(subject, target, arrays, dict(settings or {}), frozen)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        done = _examined(subject, target, calls, tuple(dtypes), arrays is None, seed)
        failures = [failure for e in done for failure in e.failures]
        cause = diagnose(failures, done) if failures else None
    return Report(
        done[0].subject.name,
        target.name,
        strict,
        tables.table(row for e in done for row in e.rows),
        cause,
        tuple(_lints(done, arrays, dtypes)),
        tuple(vote for e in done for vote in e.votes),
    )


def _target(against: Any) -> Target:
    if against is None:
        return Target("differences")
    if isinstance(against, str):
        return _mirror(against, ops.named(against))
    if not callable(against):
        raise TypeError(
            "against: expected a torch callable, the name of a rule, or None, got a "
            f"{type(against).__name__}"
        )
    name = getattr(against, "__name__", None) or type(against).__name__
    module = str(getattr(against, "__module__", None) or "torch")
    for op in map(ops.named, ops.names()):
        if op.mirror is not None and inspect.unwrap(op.mirror) is against:
            return _mirror(f"{module}.{name}", op)
    return Target(f"{module.replace('torch._C._nn', 'torch.nn.functional')}.{name}", against)


def _mirror(name: str, op: Op) -> Target:
    twin = op.mirror
    constant, draw = frozenset(op.facts.constant), getattr(twin, "draw", None)
    return Target(name, twin.__wrapped__, op.name, constant, draw)


def _calls(
    subject: Any,
    target: Target,
    arrays: Sequence[Any] | None,
    settings: dict[str, Any],
    constant: frozenset[str],
) -> list[Sample]:
    """What the subject is called with: the caller's arrays, our samples and corners, or torch's."""
    if arrays is not None:
        if isinstance(arrays, (np.ndarray, torch.Tensor)) or not isinstance(arrays, Sequence):
            raise TypeError(
                "arrays: expected a list or tuple with the positional arguments of one call, got "
                f"a {type(arrays).__name__}"
            )
        args, settings = tree_map(_double, (tuple(arrays), settings))
        if not any(map(is_floating, leaves((args, settings)))):
            raise TypeError(
                "arrays: expected at least one floating array, got "
                + (", ".join(_kind(a) for a in args) or "none")
            )
        return [Sample(torch_samples.text(args, settings), args, settings, constant)]
    op = target.op or (subject if isinstance(subject, str) else "")
    if op:
        drawn = [(repr(row), *row.draw(0, np.dtype(float))) for _, row in ops.named(op).rows()]
        if not ops.named(op).has_gradient:
            raise TypeError(f"against: expected what has a gradient, got {op}")
        return [
            Sample(text, args, {**kwargs, **settings}, constant) for text, args, kwargs in drawn
        ]
    infos = torch_samples.infos_of(target.function) if target.function else []
    found = [s for info in infos for s in torch_samples.samples_of(info, target.function)]
    if not found:
        raise ValueError(
            f"arrays: needed, because there are no samples of {target.name}; expected a list or "
            "tuple with the positional arguments of one call"
        )
    return [
        replace(s, kwargs={**s.kwargs, **settings}, constant=s.constant | constant) for s in found
    ]


def _examined(
    thing: Any,
    target: Target,
    calls: Sequence[Sample],
    dtypes: tuple[str, ...],
    sampled: bool,
    seed: int,
) -> list[Trials]:
    """The trials of all calls; of many, the largest ordinary one has all the probes."""
    probed = max(calls, key=_weight)
    done = []
    refusals: dict[Trials, ValueError | TypeError] = {}

    def held(tried: Trials, step: Callable[..., None], *args: Any) -> None:
        """Does one step; what the reference refuses is an error only for the caller's own call."""
        if tried not in refusals:
            try:
                step(*args)
            except ValueError as refusal:
                if not sampled:
                    raise
                refusals[tried] = refusal

    for call in calls:
        subject = _drawing(subject_of(thing, call.args, call.kwargs, call.constant), target)
        twin = None
        if target.function:
            twin = of_torch(target.function, subject.signature, call.constant, tensor)
        numbers = []
        if call is probed:
            numbers = _numbers(_settings_of(target.function, subject.signature, call.kwargs))
        own = target.sides if isinstance(thing, str) else None
        tried = Trials(subject, twin, call, numbers, seed, target.exact, own)
        done.append(tried)
        if sampled and subject.signature:
            try:
                subject.signature.bind(*call.args, **call.kwargs)
            except TypeError as error:
                refusals[tried] = TypeError(f"the subject takes no such call: {error}")
        held(tried, tried.run, dtypes, call is probed)
    judge([e for e in done if e not in refusals])
    for tried in done:
        held(tried, tried.conclude, tried.sample is probed)
    for tried, refusal in refusals.items():
        tried.skip(dtypes, str(refusal))
    if all(row["class"] == NOT_APPLICABLE for e in done for row in e.rows):
        for refusal in refusals.values():
            if isinstance(refusal, ValueError):
                raise refusal
        notes = {row["note"] for e in done for row in e.rows}
        raise ValueError(f"subject: nothing could be judged: {'; '.join(sorted(notes)[:3])}")
    return done


def _weight(call: Sample) -> int:
    """How much there is to see in a call: many elements, but not of one kind only."""
    floating = [a for a in leaves((call.args, call.kwargs)) if is_floating(a)]
    ordinary = all(np.isfinite(a).all() and a.size for a in floating)
    return sum(a.size for a in floating) if ordinary else -1


def _drawing(subject: Subject, target: Target) -> Subject:
    """The subject, given in every call what torch draws, if it takes that."""
    taken = subject.signature.parameters if subject.signature else {}
    if target.draw is None or target.draw.keyword not in taken:
        return subject
    return replace(
        subject, rule=lambda *args, **kwargs: subject.rule(*args, **target.drawn(args, kwargs))
    )


def _settings_of(function: Any, signature: Any, kwargs: Mapping[str, Any]) -> Iterator[Any]:
    """The values of all settings, defaults included."""
    for source in (signature_of(function) if function else None, signature):
        for parameter in source.parameters.values() if source else ():
            yield parameter.default
    yield from kwargs.values()


def _numbers(settings: Iterable[Any]) -> list[float]:
    """The numbers among settings, and their quotients: softplus bends at threshold / beta."""
    found = {
        float(v)
        for v in settings
        if isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v)
    }
    return sorted(found | {a / b for a in found for b in found if b not in (0, a)})


def _double(leaf: Any) -> Any:
    """A floating array or tensor as an array in float64; numbers and the like as they are."""
    leaf = array(leaf.double() if is_differentiable(leaf) else leaf)
    return leaf.astype(np.float64) if is_floating(leaf) else leaf


def _kind(leaf: Any) -> str:
    return f"an array of {leaf.dtype}" if isinstance(leaf, np.ndarray) else repr(leaf)


def _lints(
    done: Sequence[Trials], arrays: Sequence[Any] | None, dtypes: Sequence[str]
) -> Iterator[str]:
    """What makes a check say less than it seems to."""
    if arrays is not None and all(
        a.dtype in (np.float32, torch.float32)
        for a in leaves(arrays)
        if is_floating(a) or is_differentiable(a)
    ):
        yield "every array came in float32, where only errors 2²⁹ times larger can be seen"
    if "float64" not in dtypes:
        yield "judged in float32 only, where only errors 2²⁹ times larger can be seen"
    if any(e.random for e in done):
        yield "the subject differs from itself when it is called again: unseeded randomness?"
    if arrays is not None:
        yield from done[0].lints()
    wrong = [r for e in done for r in e.rows if r["class"] == UNSUPPORTED]
    if wrong and not any(e.failures for e in done):
        yield (
            "wrong for other shapes, which the call does not show to be meant: "
            f"{wrong[0]['argument']}, {wrong[0]['note'] or 'its values'} ({wrong[0]['probe']})"
        )
