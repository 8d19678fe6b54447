"""What two modules were found to be, for people."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ...report import files
from ...report.text import line
from ...verdict.classes import CLASSES, CONVENTION, DIFFERENT, EMPTY, UNDECIDED, Verdict
from ..causes.case import Cause
from ..findings import NOT_APPLICABLE
from ..report import measured
from .page import page, part
from .recording import Call

__unittest = True  # unittest leaves out the frames of a module that says so
LINES = 8  # of a kind that the page shows
BAD = (DIFFERENT, UNDECIDED, CONVENTION)
FAILED = replace(EMPTY, kind=DIFFERENT, margin=math.inf)  # what has no numbers to compare


@dataclass(frozen=True)
class Place:
    """A result of one call of a submodule, judged; or why the call is not."""

    call: Call
    kind: str
    result: str = ""
    dtype: str = ""
    verdict: Verdict | None = None
    note: str = ""


class Source(NamedTuple):
    """Lines of a file: whose they are, and the number of the first."""

    what: str
    first: int
    lines: tuple[str, ...]


@dataclass(frozen=True)
class ModulesReport:
    """What `check` found of two modules. `table` has one row for each result of each call of a
    submodule, in the order in which the calls end, so that what lies inside comes first.

    notes   what has no partner, or was paired by order and shape; whether the original is a record
    source  the port's forward at the first place that is different, if its file is there
    """

    subject: str
    against: str
    table: pd.DataFrame
    places: tuple[Place, ...]
    notes: tuple[str, ...] = ()
    cause: Cause | None = None
    warnings: tuple[str, ...] = ()
    source: Source | None = None

    @property
    def failed(self) -> pd.DataFrame:
        return self.table[self.table["class"].isin(BAD)]

    @property
    def passed(self) -> bool:
        return self.failed.empty

    @property
    def first(self) -> str:
        """Where they part: "gradient of weight in blocks.1.ln_1"; nothing where they do not."""
        failed = self.failed
        if failed.empty:
            return ""
        row = failed.iloc[0]
        return f"{row['result']} in {row['place'] or self.against}"

    def raise_for_failure(self) -> None:
        """AssertionError with the page, unless it passed."""
        __tracebackhide__ = True
        if not self.passed:
            raise AssertionError(str(self))

    def save(self, path: str | Path) -> Path:
        """Writes a page that stands alone: the tree of submodules, and all results of each.
        OSError."""
        return files.write(Path(path), page(self))

    def __str__(self) -> str:
        return "\n".join(_page(self))

    def __repr__(self) -> str:
        """One line."""
        wrong = f"WRONG, {len(self.failed)} of {len(self.table)} results, first {self.first}"
        cause = f", cause: {self.cause.name}" if self.cause else ""
        verdict = f"right, {len(self.table)} results" if self.passed else wrong + cause
        return f"<ModulesReport: {line(f'{self.subject} against {self.against}: {verdict}')}>"

    def _repr_html_(self) -> str:
        return part(self)


def row(place: Place) -> dict[str, Any]:
    """A place as a row of the table."""
    call = place.call
    where = call.place + (f" (call {call.number + 1})" if call.number else "")
    return {
        "id": f"{where}/{place.result}",
        "place": call.place,
        "call": call.number + 1,
        "module": type(call.module).__name__,
        "result": place.result,
        "dtype": place.dtype,
        **measured(place.verdict, "port", "original"),
        "class": place.kind,
        "note": place.note,
    }


def _page(r: ModulesReport) -> Iterator[str]:
    yield f"{r.subject} against {r.against}: {'right' if r.passed else 'WRONG'}"
    yield from (f"  warning: {warning}" for warning in r.warnings)
    yield from (f"  note: {note}" for note in r.notes[:LINES])
    if len(r.notes) > LINES:
        yield f"  … and {len(r.notes) - LINES} more notes"
    if not r.passed:
        row = r.failed.iloc[0]
        yield f"  cause: {r.cause or 'none of those that are known'}"
        yield f"  first: {r.first}"
        if not math.isnan(row["port"]):
            yield f"    the port gives    {row['port']:.17g} at {row['index']}"
            yield f"    the original has  {row['original']:.17g}"
        elif row["note"]:
            yield f"    {row['note']}"
        for place, part in list(r.failed.groupby("place", sort=False))[:LINES]:
            results = ", ".join(part["result"][:LINES])
            yield f"  different: {str(place) or 'the whole'} ({part.iloc[0]['module']}): {results}"
    skipped = r.table[r.table["class"] == NOT_APPLICABLE]
    for note, part in skipped.groupby("note", sort=False):
        where = (p or r or "the whole" for p, r in zip(part["place"], part["result"], strict=True))
        yield f"  not judged alone: {', '.join(dict.fromkeys(where))}: {note}"
    counts = r.table["class"].value_counts()
    kinds = [f"{counts[k]} {k}" for k in (*CLASSES, NOT_APPLICABLE) if k in counts]
    resolution = r.table["resolution"].median()
    sharp = f"; relative errors from {resolution:.1g} on are seen" if resolution > 0 else ""
    modules = r.table["place"].nunique()
    yield f"  {len(r.table)} results of {modules} modules: {', '.join(kinds)}{sharp}"
