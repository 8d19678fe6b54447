"""What something costs, as a multiple of something plain."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..parallel import limited
from .timing import interleaved

REPEATS = 15
TURN = 0.01  # seconds that one turn takes at least, beside which the clock counts little

Row = dict[str, Any]


def cost(
    subject: str,
    case: str,
    dear: Callable[[], Any],
    plain: Callable[[], Any],
    each: int = 1,
    bound: float = math.nan,
    repeats: int = REPEATS,
) -> Row:
    """The row of a case: how many times as long as what is plain one of the so many things takes
    that `dear` does, on one thread, in interleaved turns."""
    with limited(1):
        of_dear, of_plain = _often(dear), _often(plain)
        turns = {"dear": _repeated(dear, of_dear), "plain": _repeated(plain, of_plain)}
        seconds = interleaved(turns, repeats)
    one = np.array(seconds["dear"]) / (of_dear * each)
    return row(subject, case, one, np.array(seconds["plain"]) / of_plain, bound)


def row(subject: str, case: str, dear: Any, plain: Any, bound: float = math.nan) -> Row:
    """A row from what both sides took in each turn."""
    return {"id": f"{subject}/{case}", "case": case, **quartiles(dear, plain), "bound": bound}


def quartiles(dear: Any, plain: Any) -> dict[str, float]:
    """The median of the ratios of what was timed in turn, and both quartiles."""
    low, ratio, high = np.quantile(np.divide(dear, plain), (0.25, 0.5, 0.75))
    return {"ratio": float(ratio), "low": float(low), "high": float(high)}


def missed(row: Mapping[str, Any]) -> bool:
    """Whether a ratio is above its bound, if it has one."""
    return bool(row["ratio"] > row["bound"])


def outcome(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many bounds are met, and by how much the worst is missed; where none is missed, how near
    the nearest is."""
    bound = [r for r in rows if not math.isnan(r["bound"])]
    if not bound:
        worst = max(rows, key=lambda r: r["ratio"])
        return f"The largest of {len(rows)} is {worst['ratio']:.2f}, of {worst['case']}; no bounds."
    met = sum(not missed(r) for r in bound)
    worst = max(bound, key=lambda r: r["ratio"] / r["bound"])
    what = "excess" if missed(worst) else "share"
    return (
        f"{met} of {len(bound)} bounds are met; the largest {what} is "
        f"{worst['ratio'] / worst['bound']:.2f} times the bound, of {worst['case']}."
    )


def _often(task: Callable[[], Any]) -> int:
    """How many times in a row a task is done to fill a turn."""
    for _ in range(2):  # the first time fills the caches
        begin = time.perf_counter()
        task()
        taken = time.perf_counter() - begin
        if taken > 100 * TURN:
            return 1
    return max(math.ceil(TURN / taken), 1)


def _repeated(task: Callable[[], Any], times: int) -> Callable[[], None]:
    def turn() -> None:
        for _ in range(times):
            task()

    return turn
