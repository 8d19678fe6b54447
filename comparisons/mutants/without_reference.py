"""Right rules and the planted mistakes held to nothing: to differences of their own forward."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from ...manual.distances import cosine_similarity
from .. import ops
from ..check.adapt import subject_of
from ..check.arguments import private
from ..check.findings import NOT_APPLICABLE
from ..check.report import Report
from ..check.trials import cotangent
from ..check.verify import check
from ..ops.evaluate import completed
from ..verdict.ulps import difference
from .corpus import MUTANTS, SAMPLES
from .table import OWN, objects, planted, right

# Rules whose gradient is not the derivative of their value, why, and for which arguments.
ON_PURPOSE: dict[str, tuple[str, Callable[[Mapping[str, Any]], bool]]] = {
    "cosine_similarity": ("what keeps a norm from 0 is a constant of its gradient", lambda a: True),
    "embedding": (
        "neither padding nor what renormalizes and shares is differentiated",
        lambda a: a["scale_grad_by_freq"] or {a["max_norm"], a["padding_idx"]} != {None},
    ),
    "embedding_bag": (
        "neither what renormalizes nor what shares is differentiated",
        lambda a: a["scale_grad_by_freq"] or a["max_norm"] is not None,
    ),
    "binary_cross_entropy": ("at 0 and 1 it is divided by 1e-12", lambda a: True),
    "binary_cross_entropy_backward": ("at 0 and 1 it is divided by 1e-12", lambda a: True),
    "batch_norm": (
        "running statistics that move are not differentiated",
        lambda a: a["training"] and a["running_mean"] is not None,
    ),
    "instance_norm": (
        "running statistics that move are not differentiated",
        lambda a: a["use_input_stats"] and a["running_mean"] is not None,
    ),
    "triplet_margin_with_distance_loss": (
        "what keeps a norm from 0 is a constant of its gradient",
        lambda a: a["distance_function"] is cosine_similarity,
    ),
    "normalize": ("‖x‖₀ is a step, at which ε stands in for it", lambda a: a["p"] == 0),
    "nll_loss_backward": (
        "a mean over no weight is NaN, and so is its slope",
        lambda a: not np.any(a["total_weight"]),
    ),
    **dict.fromkeys(
        ("lp_pool1d", "lp_pool2d", "lp_pool3d"),
        (
            "its slope is 0 where a sum is, and NaN at 0 where a power has none",
            lambda a: a["norm_type"] <= 1,
        ),
    ),
    "softshrink": ("at λ = 0 it is x, and its slope at 0 is 0", lambda a: a["lambd"] == 0),
    "ctc_loss": ("its gradient is that of the logits, which are normalized", lambda a: True),
}
FELT = 1e-6  # a gradient that errs by less of its size at the first call has no mistake there


def right_row(op: str, seed: int) -> dict[str, Any]:
    """A hand-written rule on one of its rows, at each seed on another."""
    rows = [row for _, row in ops.named(op).rows()]
    row = rows[seed % len(rows)]
    args, kwargs, _ = completed(op, *row.draw(seed, np.dtype(float)), seed)
    constant = ",".join(ops.named(op).facts.constant)
    told = {"id": f"without reference/{op}/{seed}", "kind": "right", "op": op, "call": str(row)}
    try:
        report = check(op, None, args, kwargs, seed=seed, constant=constant)
    except ValueError as refusal:
        return {**told, "class": NOT_APPLICABLE, "says": str(refusal), **_counted(None)}
    found = {"class": "quiet", "says": ""}
    if not report.passed:
        why = _purpose(op, args, kwargs, report)
        found = {"class": "on purpose" if why else "alarm", "says": why or str(report)}
    return {**told, **found, **_counted(report)}


def _purpose(op: str, args: Any, kwargs: Any, report: Report) -> str:
    """Why it is no alarm: the gradient, and nothing else, differs where it is meant to."""
    why, holds = ON_PURPOSE.get(op, ("", lambda a: False))
    bound = inspect.signature(ops.named(op).rule).bind(*args, **kwargs)
    bound.apply_defaults()
    only_gradients = set(report.failed["argument"]) <= set(bound.arguments)
    return why if only_gradients and holds(bound.arguments) else ""


def mutant_row(op: str, number: int, seed: int) -> dict[str, Any]:
    """A planted mistake at the first call at which its forward is right and its gradient errs:
    caught or missed; without such a call it is not to be seen."""
    mutant = MUTANTS[op][number]
    subject = planted(op, mutant)
    row = {
        "id": f"without reference/{op}/{number}/{seed}",
        "kind": "mutant",
        "op": op,
        "call": f"{mutant.old} -> {mutant.new}",
    }
    for sample in SAMPLES[op]:
        args, kwargs = call = sample.draw(seed, np.dtype(float))
        if _errs(op, subject, call, seed):
            report = check(subject, None, args, kwargs, seed=seed)
            found = {"class": "caught", "says": str(report)}
            if not objects(report):
                found = {"class": "missed", "says": ""}
            return {**row, **found, **_counted(report)}
    return {**row, "class": "not to be seen", "says": "", **_counted(None)}


def _errs(op: str, wrong: Any, call: Any, seed: int) -> bool:
    """Whether only the gradient of a mistake is another one, in float64."""
    good, bad = (subject_of(rule, *call) for rule in (right(op), wrong))
    y, _ = good.run(*private(call))
    inputs = (*call, cotangent(y, np.random.default_rng([seed, 14]), np.dtype(float)))
    truth, found = good(private(inputs)), bad(private(inputs))
    felt = {
        name: found.get(name) is None
        or np.shape(found[name]) != np.shape(value)
        or bool(np.max(difference(found[name], value), initial=0) > FELT * np.max(abs(value)))
        for name, value in truth.items()
    }
    values = [hit for name, hit in felt.items() if name.startswith("value")]
    return any(felt.values()) and not any(values)


def _counted(report: Report | None) -> dict[str, Any]:
    """How much was judged: at the caller's own point, with the reasons for what was not, and at
    the other probes."""
    if report is None:
        return {"own": 0, "own_judged": 0, "elsewhere": 0, "elsewhere_judged": 0, "reasons": ""}
    table = report.table
    own, judged = table["probe"] == OWN, table["class"] != NOT_APPLICABLE
    return {
        "own": int(own.sum()),
        "own_judged": int((own & judged).sum()),
        "elsewhere": int((~own).sum()),
        "elsewhere_judged": int((~own & judged).sum()),
        "reasons": "; ".join(_reasons(table[own & ~judged])),
    }


def _reasons(table: pd.DataFrame) -> list[str]:
    """Why, without the name of the argument that stands before it."""
    return [str(text).rpartition(": ")[2] for text in table["note"]]
