"""Bad calls of the schedules. What both sides compute is the business of their table."""

from __future__ import annotations

import inspect
from typing import Any

from ... import manual, reference
from ..ops.bad_calls import TOO_LARGE, Case, compared, of_call, spoiled, summed, unlooked
from ..samples.schedules import SAMPLES
from ..verdict.classes import IDENTICAL
from . import table


def entry(name: str) -> tuple[dict[str, Any], list[Case]]:
    """The row of one schedule in the coverage table, and the cases that it sums up."""
    rule, steps = getattr(manual.schedules, name), table.inputs(name)
    lr = inspect.signature(rule).parameters["lr"]
    begun = {"lr": table.LR} if lr.default is lr.empty else {}
    calls = [call for sample in SAMPLES[name] for call in spoiled(rule, (steps,), begun | sample)]
    calls = [call for call in calls if call[0] != f"steps: {TOO_LARGE}"]  # there is no last step
    cases = [_tried(name, *call) for call in calls]
    cases = list({case["id"]: case for case in cases}.values())  # samples share their defaults
    return summed(name, name, cases), cases


def _tried(name: str, what: str, args: Any, kwargs: Any) -> Case:
    ours, twin = getattr(manual.schedules, name), getattr(reference.schedules, name)
    parameters = inspect.signature(ours).parameters
    setting, _, fault = what.partition(": ")
    return compared(
        of_call(name, what, args, kwargs),
        lambda: ours(*args, **kwargs),
        lambda: twin(*args, **kwargs),
        list(parameters),
        lambda: {"class": IDENTICAL, "note": "both compute"},
        unlooked(fault, parameters[setting].default, (7, 0.5)),
    )
