"""Custom Functions and operators of torch.library: seen when they are called, and examined."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch.autograd.function import _SingleLevelFunction

from ...reference.adapters import leaves
from ..check.probes import AS_GIVEN
from ..check.torch_subjects import applied
from ..check.verify import check
from ..ops.arguments import array_names, signature_of
from ..ops.torch_samples import text
from ..report.text import raised
from ..verdict.classes import CLASSES, DIFFERENT, DTYPES, EMPTY, Verdict, worst
from ..verdict.noise import is_floating
from .batched import rows_of
from .judging import many
from .steps import Step

Record = Callable[[Any, Callable[..., Any], tuple[Any, ...]], Any]


@contextlib.contextmanager
def calls_of_functions(record: Record) -> Iterator[None]:
    """Every call of a torch.autograd.Function goes through record(Function, torch's apply, args).

    People keep `apply = Square.apply`, so that stands between their `apply` and torch's own.
    """

    def apply(cls: Any, *args: Any) -> Any:
        return record(cls, super(_SingleLevelFunction, cls).apply, args)

    between: Any = _SingleLevelFunction
    between.apply = classmethod(apply)
    try:
        yield
    finally:
        del between.apply


class Examinations:
    """What `check` says of custom backwards. A call like one before, but for its numbers, has the
    report of that."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.known: dict[Any, Any] = {}

    def of(self, step: Step) -> None:
        """Gives the step its report, a verdict for each argument of it, and the cause in a word."""
        constant, call = _constant(step), (step.args, step.kwargs)
        if step.batched:
            call = next(rows_of(call, many(step, call)))
        key = step.custom, text(*call), step.half, constant
        if key not in self.known:
            self.known[key] = self._report(step, *call, constant)
        found = self.known[key]
        if isinstance(found, str):
            step.note = found
            return
        step.report = found
        step.verdicts |= _verdicts(found)
        why = found.cause or "; ".join(found.facts)
        step.note = "examined by check" if found.passed else f"check: {why}".removesuffix(": ")

    def _report(self, step: Step, args: Any, kwargs: Any, constant: str) -> Any:
        """A Report, or why there is none."""
        dtypes = (*DTYPES, step.half) if step.half else DTYPES
        try:
            found = check(
                *(step.custom, None, args, kwargs, dtypes),
                constant=constant,
                seed=self.seed,
                quick=True,
            )
        except (TypeError, ValueError) as error:  # what it says of arguments that it cannot take
            return f"check: {raised(error)}"
        # It was called, so what it refuses is another dtype, which the differences need.
        refused = found.failed["argument"].eq("") & found.failed["probe"].eq(AS_GIVEN)
        return f"not examined: {found.cause}" if refused.any() else found


def _constant(step: Step) -> str:
    """The floating arguments of which the model asks no gradient, by the names of `check`."""
    function = step.custom
    is_function = isinstance(function, type) and issubclass(function, torch.autograd.Function)
    signature = applied(function)[1] if is_function else signature_of(function)
    names = array_names(step.args, step.kwargs, signature)
    arrays = [a for a in leaves((step.args, step.kwargs)) if is_floating(a)]
    pairs = zip(names, arrays, strict=True)
    return " ".join(name for name, a in pairs if id(a) not in step.ends)


def _verdicts(report: Any) -> dict[str, Verdict]:
    """Of each result that was judged, the worst verdict at any point."""
    failed = set(report.failed.index)
    found: dict[str, Verdict] = {}
    for name, rows in report.table.groupby("argument", sort=False):
        kinds = [DIFFERENT if i in failed else k for i, k in rows["class"].items()]
        kinds = [k for k in kinds if k in CLASSES]
        margin = rows["margin"][[k in CLASSES for k in rows["class"]]].max()
        if kinds:
            margin = 0.0 if math.isnan(margin) else float(margin)
            found[str(name) or "call"] = replace(EMPTY, kind=worst(kinds), margin=margin)
    return found
