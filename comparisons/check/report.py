"""What `check` found, for people."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from ..verdict.classes import CLASSES, DIFFERENT, IMPRECISE, UNDECIDED
from .causes import Cause
from .trials import NOT_APPLICABLE, UNSUPPORTED
from .votes import Vote

LINES = 12  # groups of failing rows that the page shows


@dataclass(frozen=True)
class Report:
    """What `check` found. `table` has one row for each sample, argument, probe and dtype."""

    subject: str
    against: str
    strict: bool
    table: pd.DataFrame
    cause: Cause | None
    warnings: tuple[str, ...] = ()
    votes: tuple[Vote, ...] = ()

    @property
    def failed(self) -> pd.DataFrame:
        """The rows that fail."""
        bad = {DIFFERENT, UNDECIDED} | ({IMPRECISE, UNSUPPORTED} if self.strict else set())
        return self.table[self.table["class"].isin(bad)]

    @property
    def passed(self) -> bool:
        return self.failed.empty

    def raise_for_failure(self) -> None:
        """AssertionError with the page, unless it passed."""
        if not self.passed:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        return "\n".join(_page(self))

    def _repr_html_(self) -> str:
        rows = (self.table if self.passed else self.failed).drop(columns=["schema", "id"])
        shown = rows.head(50).to_html(index=False, na_rep="", float_format="{:.4g}".format)
        return f"<pre>{html.escape(str(self))}</pre>{shown}"


def _page(r: Report) -> Iterator[str]:
    yield f"{r.subject} against {r.against}: {'right' if r.passed else 'WRONG'}"
    for warning in r.warnings:
        yield f"  warning: {warning}"
    if not r.passed:
        yield f"  cause: {r.cause or 'none of those that are known'}"
        yield from _first(r.failed)
        yield from _voices(r.votes)
        yield from _groups(r.failed, r.table)
    else:
        yield from _groups(r.table[r.table["class"].isin([IMPRECISE, UNSUPPORTED])], r.table)
    counts = r.table["class"].value_counts()
    kinds = [f"{counts[k]} {k}" for k in (*CLASSES, UNSUPPORTED, NOT_APPLICABLE) if k in counts]
    resolution = r.table[r.table["dtype"] == "float64"]["resolution"].median()
    sharp = f"; relative errors from {resolution:.1g} on are seen" if resolution > 0 else ""
    yield f"  {len(r.table)} rows: {', '.join(kinds)}{sharp}"


def _first(failed: pd.DataFrame) -> Iterator[str]:
    """The first wrong element."""
    with_values = failed[failed["subject"].notna()]
    row = (with_values if len(with_values) else failed).iloc[0]
    yield f"  first at: {row['argument']}{row['index']} · {row['probe']} · {row['dtype']}"
    yield f"    of the call ({row['sample']})"
    if not math.isnan(row["subject"]):
        yield f"    the subject gives {row['subject']:.17g}"
        yield f"    it should be      {row['reference']:.17g}"
    elif row["note"]:
        yield f"    {row['note']}"


def _voices(votes: Sequence[Vote]) -> Iterator[str]:
    """What the three oracles say, where they do not agree."""
    for v in [v for v in votes if v.alone][:4]:
        alone = "no two agree" if v.alone == "each" else f"the {v.alone} stands alone"
        yield f"  along one direction of {v.name}, {alone}:"
        yield f"    subject {v.subject:.9g} · reference {v.reference:.9g}"
        yield f"    differences {v.derivative:.9g} ± {v.error:.1g}"


def _groups(rows: pd.DataFrame, table: pd.DataFrame) -> Iterator[str]:
    """Rows of one argument, dtype and note together, with the probes they are about."""
    groups = list(rows.groupby(["argument", "dtype", "class", "note"], sort=False))
    for (argument, dtype, kind, note), part in groups[:LINES]:
        probes = list(dict.fromkeys(part["probe"]))
        tried = table[(table["argument"] == argument) & (table["dtype"] == dtype)][
            "probe"
        ].nunique()
        every = len(probes) == tried > 1
        where = "every probe" if every else ", ".join(probes[:3])
        more = "" if every or len(probes) <= 3 else f" and {len(probes) - 3} more of {tried}"
        error = part["error"].max()
        size = f" · relative error up to {error:.2g}" if error > 0 else ""
        named = f" · {note}" if note else ""
        yield f"  {kind}: {argument or 'the call'} · {dtype} · {where}{more}{size}{named}"
    if len(groups) > LINES:
        yield f"  … and {len(groups) - LINES} more groups"
