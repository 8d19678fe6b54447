"""What else is asked of a backward pass: torch's gradcheck, and tolerances that were picked."""

from __future__ import annotations

import functools
import inspect
import mmap
import struct
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ...reference.adapters import leaves, tree_map
from ..check.adapt import Subject, subject_of
from ..check.pace import Pace
from ..check.targets import Target, target_of
from ..check.trials import Trials
from ..ops.arguments import array_names
from ..ops.torch_samples import Sample
from ..verdict.classes import Results
from ..verdict.noise import is_floating
from ..verdict.ulps import same_values

PERCENT = 1e-2
TWICE = 2.0  # as kernels of attention are tried: no farther from the truth than torch, times this

Given = tuple[Sequence[Any], Mapping[str, Any]]  # the arguments of a call


def objections(
    thing: Any, against: Any, calls: Sequence[Given], seed: int = 0
) -> dict[str, bool | float | None]:
    """Of each of the JUDGES, whether it objects to the subject at any of the calls; and the seconds
    of both kinds of gradcheck.

    gradcheck is asked in float64, and the others in float32, of the value and all gradients. What
    raises, has another shape or is no gradient at all is objected to by all of them.
    """
    target = target_of(against)
    found: dict[str, bool | float | None] = {}
    for name, fast in (("gradcheck_slow", False), ("gradcheck_fast", True)):
        started = time.perf_counter()
        found[name] = any(not _gradchecked(thing, args, kwargs, fast) for args, kwargs in calls)
        found[name.replace("gradcheck_", "") + "_seconds"] = time.perf_counter() - started
    answers = [_in_float32(thing, target, args, kwargs, seed) for args, kwargs in calls]
    for name, accepts in PICKED.items():
        found[name] = any(answer is None or not accepts(*answer) for answer in answers)
    return found


# Tolerances ----------------------------------------------------------------------------------


def _in_float32(
    thing: Any, target: Target, args: Any, kwargs: Any, seed: int
) -> tuple[Results, Results, Results] | None:
    """The subject's results, torch's, and torch's in float64 of the same numbers; None where the
    subject has none that could be compared."""
    sample = Sample("", tuple(args), dict(kwargs), target.constant)
    try:
        subject = subject_of(thing, sample.args, sample.kwargs, target.constant, ("float32",))
        twin = target.reference(subject, target.constant)
        trials = Trials(subject, twin, sample, [], seed, once=False, pace=Pace())
        trial = trials.at(trials.own, "float32")
        if trial is None or trial.results.keys() != trial.truth.keys():
            return None
        theirs = trials.truth(trial.inputs)
    except (TypeError, ValueError):
        return None
    if any(np.shape(trial.results[n]) != np.shape(t) for n, t in theirs.items()):
        return None
    return trial.results, theirs, trial.truth


def _close(ours: Results, theirs: Results, truth: Results) -> bool:
    """As torch.testing.assert_close, with what it tolerates of float32."""
    try:
        for name, expected in theirs.items():
            given = np.asarray(ours[name]).astype(expected.dtype)
            pair = (torch.from_numpy(np.array(a)) for a in (given, expected))
            torch.testing.assert_close(*pair, equal_nan=True)
    except AssertionError:
        return False
    return True


def _within_one_percent(ours: Results, theirs: Results, truth: Results) -> bool:
    return all(
        np.allclose(ours[n], t, rtol=PERCENT, atol=PERCENT, equal_nan=True)
        for n, t in theirs.items()
    )


def _within_twice(ours: Results, theirs: Results, truth: Results) -> bool:
    """Whether no result is farther from the truth than TWICE as far as torch is, by the largest
    difference over all elements. What is not a number, and should be, is within nothing."""

    def apart(results: Results, name: str) -> float:
        with np.errstate(invalid="ignore"):  # of ∞ − ∞
            gap = abs(np.subtract(results[name], truth[name], dtype=np.float64))
        return float(np.max(np.where(same_values(results[name], truth[name]), 0, gap), initial=0))

    return all(apart(ours, name) <= TWICE * apart(theirs, name) for name in truth)


PICKED: dict[str, Callable[[Results, Results, Results], bool]] = {
    "assert_close": _close,
    "one_percent": _within_one_percent,
    "twice_torchs_error": _within_twice,
}
JUDGES = ("gradcheck_slow", "gradcheck_fast", *PICKED)


# gradcheck -----------------------------------------------------------------------------------


def _gradchecked(thing: Any, args: Any, kwargs: Any, fast: bool) -> bool:
    tree = (tuple(args), dict(kwargs))
    inputs = [torch.from_numpy(a.copy()).requires_grad_() for a in leaves(tree) if is_floating(a)]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            subject = subject_of(thing, *tree)

            def function(*tensors: torch.Tensor) -> Any:
                return _Wrapped.apply(subject, tree, *tensors)

            return torch.autograd.gradcheck(function, inputs, fast_mode=fast)
        except Exception:  # a subject raises what it likes
            return False


class _Wrapped(torch.autograd.Function):
    """A subject over arrays, as torch sees it."""

    @staticmethod
    def forward(ctx: Any, subject: Subject, tree: Any, *tensors: torch.Tensor) -> Any:
        given = iter(tensors)
        args, kwargs = tree_map(
            lambda leaf: next(given).detach().numpy() if is_floating(leaf) else leaf, tree
        )
        ctx.subject, ctx.names = subject, array_names(args, kwargs, subject.signature)
        ctx.y, ctx.pullback = subject.run(args, kwargs)
        outputs = tuple(torch.from_numpy(np.array(y)) for y in leaves(ctx.y))
        return outputs if isinstance(ctx.y, tuple) else outputs[0]

    @staticmethod
    def backward(ctx: Any, *dys: torch.Tensor) -> Any:
        given = tuple(dy.numpy() for dy in dys)
        gradients = ctx.pullback(given if isinstance(ctx.y, tuple) else given[0])
        found = ctx.subject.results(ctx.y, gradients, ctx.names)
        answers = (found.get(name) for name in ctx.names)
        return (None, None, *(None if g is None else torch.from_numpy(g.copy()) for g in answers))


# Calls ---------------------------------------------------------------------------------------


class Count:
    """Of calls of a subject, forks' among them."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)

    @property
    def number(self) -> int:
        return int(struct.unpack("q", self._memory)[0])

    def of(self, thing: Any) -> Any:
        """The same subject, whose forward is counted: a rule, a pair, or a class."""
        if isinstance(thing, tuple):
            return (self.of(thing[0]), *thing[1:])
        if isinstance(thing, type):
            forward = inspect.getattr_static(thing, "forward")
            if isinstance(forward, staticmethod):
                counted: Any = staticmethod(self.of(forward.__func__))
            else:
                counted = self.of(forward)
            return type(thing)(thing.__name__, (thing,), {"forward": counted})

        @functools.wraps(thing)
        def rule(*args: Any, **kwargs: Any) -> Any:
            self._memory[:] = struct.pack("q", self.number + 1)
            return thing(*args, **kwargs)

        return rule
