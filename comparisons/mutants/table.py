"""The mutation table: planted wrong rules, caught or missed by `check` and by other judges."""

from __future__ import annotations

import contextlib
import inspect
import math
import operator
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ...reference.adapters import leaves, tree_map
from ..check.adapt import Rule, named_rule
from ..check.findings import UNSUPPORTED
from ..check.report import Report
from ..check.verify import check
from ..ops.torch_samples import database, infos_of, samples_of
from ..verdict.noise import is_floating
from . import rules
from .corpus import AGAINST, MUTANTS, SAMPLES, Mutant
from .judges import JUDGES, Count, objections

PATIENCE = 60.0  # seconds for one function, after which gradcheck is stopped
SMALL = 10_000  # elements of the largest sample whose Jacobian fits in memory
OWN = "as given"  # the probe that is the caller's own call
LARGE = (100, 100)  # the shape on which speed is measured


def right(op: str) -> Rule:
    """The right rule of an op: one of `rules`, or of the hand-written side."""
    rule: Rule = getattr(rules, op, None) or named_rule(op)
    return rule


def planted(op: str, mutant: Mutant) -> Rule:
    """The rule with the mistake in it. Raises ValueError unless its text is found once."""
    rule = right(op)
    source = inspect.getsource(rule)
    if source.count(mutant.old) != 1:
        raise ValueError(
            f"{op}: expected {mutant.old!r} once in the rule, found it {source.count(mutant.old)} "
            "times"
        )
    scope = dict(vars(inspect.getmodule(rule)))
    exec(source.replace(mutant.old, mutant.new), scope)
    return scope[op]


def against(op: str) -> Callable[..., Any]:
    """The torch function that the op is held to."""
    function: Callable[..., Any] = operator.attrgetter(AGAINST[op].removeprefix("torch."))(torch)
    return function


def mutant_row(op: str, number: int, seed: int = 0) -> dict[str, Any]:
    """One mutant before `check`, which stops where it objects, and before the other judges."""
    mutant = MUTANTS[op][number]
    calls = [call.draw(seed, np.dtype(float)) for call in SAMPLES[op]]
    subject = planted(op, mutant)
    count, started = Count(), time.perf_counter()
    report = next(r for r in _until_wrong(count.of(subject), op, calls, seed))
    took = time.perf_counter() - started
    named = report.cause.name if report.cause else "dtype" if warned(report) else ""
    return {
        **_row(f"mutant/{op}/{number}/{seed}", "mutant", op),
        "planted": mutant.cause,
        "frozen": mutant.frozen,
        "old": mutant.old,
        "new": mutant.new,
        "named": named,
        "rightly": named in mutant.cause.split(" / "),  # more than one name may be fair
        "says": report.cause.text if report.cause else "",
        **objections(subject, against(op), calls, seed),
        "calls": count.number,
        "seconds": took,
        "class": "caught" if objects(report) else "missed",
    }


def right_row(op: str, seed: int) -> dict[str, Any]:
    """A right rule of the corpus, which must cause no alarm at any call."""
    calls = [call.draw(seed, np.dtype(float)) for call in SAMPLES[op]]
    return _alarm(
        f"right/{op}/{seed}", "corpus", op, lambda: _until_wrong(right(op), op, calls, seed)
    )


def manual_row(op: str, seed: int) -> dict[str, Any]:
    """A hand-written rule on all its samples and corners."""

    def run() -> Iterator[Report]:
        yield check(op, op, seed=seed)

    return _alarm(f"manual/{op}/{seed}", "manual", op, run)


def public() -> list[str]:
    """The entries of torch's database, without what is internal: that does not check its arguments,
    and ends the process where they do not fit."""
    return [name for name in database() if not name.startswith(("_", "native_"))]


def torch_row(name: str, seed: int, one: bool, timed: bool) -> dict[str, Any]:
    """One of torch's own functions as the subject, held to itself: on all of its samples, or on the
    one that the seed chooses; and how long slow gradcheck takes for all, if they are SMALL. It is
    stopped after PATIENCE."""
    function = database()[name].op
    calls = samples_of(database()[name], function)

    def run() -> Iterator[Report]:
        if not one or not calls:
            yield check(function, function, seed=seed)
            return
        c = calls[seed % len(calls)]
        yield check(function, function, c.args, c.kwargs, constant=",".join(c.constant), seed=seed)

    row = _alarm(f"torch/{name}/{seed}", "torch", name, run)
    sizes = [sum(a.size for a in leaves((c.args, c.kwargs)) if is_floating(a)) for c in calls]
    if timed and row["class"] == "quiet" and max(sizes) <= SMALL:
        row["slow_seconds"] = _patiently(function, calls)
    return row


def _alarm(row: str, kind: str, op: str, run: Callable[[], Iterator[Report]]) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        wrong = [report for report in run() if not report.passed]
        found, says = ("alarm", str(wrong[0])) if wrong else ("quiet", "")
    except ValueError as refusal:  # random, sparse, or without a gradient
        found, says = "n/a", str(refusal)
    took = time.perf_counter() - started
    return {**_row(row, kind, op), "says": says, "seconds": took, "class": found}


def _row(row: str, kind: str, op: str) -> dict[str, Any]:
    none = dict.fromkeys(("planted", "named", "old", "new", "says"), "")
    unknown = dict.fromkeys(JUDGES)
    seconds = dict.fromkeys(("calls", "seconds", "slow_seconds", "fast_seconds"), math.nan)
    return {
        "id": row,
        "kind": kind,
        "op": op,
        **none,
        "frozen": False,
        "rightly": False,
        **unknown,
        **seconds,
    }


def _until_wrong(subject: Rule, op: str, calls: Sequence[Any], seed: int) -> Iterator[Report]:
    """The first report that fails, or the last of all."""
    for args, kwargs in calls:
        report = check(subject, against(op), args, kwargs, seed=seed)
        if objects(report):
            break
    yield report


def objects(report: Report) -> bool:
    """Whether there is something wrong with the caller's own call, or the warning that a dtype is
    not kept."""
    return not report.passed or warned(report)


def warned(report: Report) -> bool:
    """Whether a result of the caller's own call is in a wider dtype than was asked for."""
    odd = report.table[report.table["class"] == UNSUPPORTED]
    return bool((odd["probe"] == OWN).any())


def speeds(ops: Sequence[str]) -> Iterator[dict[str, Any]]:
    """How many times as long slow gradcheck takes: on 10,000 elements, and on torch's own samples
    of all the ops together; torch's functions are their own subjects."""
    x = torch.from_numpy(np.random.default_rng(0).standard_normal(LARGE))
    softmax = torch.nn.functional.softmax
    ours = _median(lambda: check(softmax, softmax, [x], {"dim": -1}))
    started = time.perf_counter()
    torch.autograd.gradcheck(lambda x: softmax(x, dim=-1), (x.requires_grad_(),))
    yield _speed("softmax of (100, 100)", time.perf_counter() - started, ours)
    slow = own = 0.0
    for function in map(against, ops):
        calls = [s for info in infos_of(function) for s in samples_of(info, function)]
        started = time.perf_counter()
        try:
            check(function, function)
        except ValueError:  # torch's samples are for a function with another order of arguments
            continue
        own += time.perf_counter() - started
        slow += _patiently(function, calls)
    if own:
        yield _speed("torch's own samples of all ops", slow, own)


def _patiently(function: Callable[..., Any], calls: Sequence[Any]) -> float:
    """The seconds that slow gradcheck takes for the calls, or for the first that take PATIENCE."""
    started = time.perf_counter()
    for call in calls:
        _torch_gradcheck(function, call)
        if time.perf_counter() - started > PATIENCE:
            break
    return time.perf_counter() - started


def _torch_gradcheck(function: Callable[..., Any], call: Any) -> None:
    tree = (call.args, call.kwargs)
    inputs = [torch.from_numpy(a.copy()).requires_grad_() for a in leaves(tree) if is_floating(a)]

    def through(*tensors: torch.Tensor) -> Any:
        given = iter(tensors)
        args, kwargs = tree_map(
            lambda leaf: next(given) if is_floating(leaf) else _tensor(leaf), tree
        )
        return function(*args, **kwargs)

    with warnings.catch_warnings(), contextlib.suppress(RuntimeError):  # of empty arrays
        warnings.simplefilter("ignore")
        torch.autograd.gradcheck(through, inputs, raise_exception=False)


def _tensor(leaf: Any) -> Any:
    return torch.from_numpy(leaf) if isinstance(leaf, np.ndarray) else leaf


def _median(run: Callable[[], Any], times: int = 3) -> float:
    took = []
    for _ in range(times):
        started = time.perf_counter()
        run()
        took.append(time.perf_counter() - started)
    return sorted(took)[len(took) // 2]


def _speed(what: str, slow: float, ours: float) -> dict[str, Any]:
    return {"what": what, "slow_seconds": slow, "seconds": ours, "ratio": slow / ours}
