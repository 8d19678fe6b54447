"""What `check` found, for people."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ..report import notebook
from ..report.text import digits, line
from ..verdict.classes import CLASSES, CONVENTION, DIFFERENT, IMPRECISE, UNDECIDED, Verdict
from . import findings
from .causes import Cause
from .findings import NOT_APPLICABLE, UNSUPPORTED, Finding, Outcome, Smallest
from .votes import Vote

__unittest = True  # unittest leaves out the frames of a module that says so
LINES = 12  # groups of failing rows that the page shows
LATE = "not judged within the budget"


@dataclass(frozen=True)
class Report:
    """What `check` found. `table` has one row for each sample, argument, probe and dtype.

    Of what is wrong:
    cause     a known mistake that makes the wrong values, if there is one; else
    facts     up to three that narrow it down: which argument, which elements, what ratio
    again     the call that finds the first wrong element again, and tries nothing else
    smallest  where the same is still wrong, if that is a smaller call; looked for when it is asked
              for, or shown
    """

    subject: str
    against: str
    strict: bool
    table: pd.DataFrame
    cause: Cause | None
    warnings: tuple[str, ...] = ()
    votes: tuple[Vote, ...] = ()
    facts: tuple[str, ...] = ()
    again: str = ""
    search: Callable[[], Smallest | None] | None = field(default=None, repr=False, compare=False)

    @functools.cached_property
    def smallest(self) -> Smallest | None:
        return self.search() if self.search else None

    def __getstate__(self) -> dict[str, Any]:
        """What another process gets has been looked for."""
        return {**self.__dict__, "smallest": self.smallest, "search": None}

    @property
    def first(self) -> pd.Series | None:
        """Of the rows that fail the first, one with values if there is one; its element is the
        worst of that row."""
        failed = self.failed
        with_values = failed[failed["subject"].notna()]
        rows = with_values if len(with_values) else failed
        return rows.iloc[0] if len(rows) else None

    @property
    def failed(self) -> pd.DataFrame:
        """The rows that fail."""
        bad = {DIFFERENT, UNDECIDED, CONVENTION}
        bad |= {IMPRECISE, UNSUPPORTED} if self.strict else set()
        return self.table[self.table["class"].isin(bad) & ~self.table["accepted"]]

    @property
    def passed(self) -> bool:
        return self.failed.empty

    def raise_for_failure(self) -> None:
        """AssertionError with the page, unless it passed."""
        __tracebackhide__ = True
        if not self.passed:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        return "\n".join(_page(self))

    def __repr__(self) -> str:
        """One line, which does not look for the smallest call."""
        wrong = f"WRONG, {len(self.failed)} of {len(self.table)} rows"
        cause = f", cause: {self.cause.name}" if self.cause else ""
        verdict = f"right, {len(self.table)} rows" if self.passed else wrong + cause
        return f"<Report: {line(f'{self.subject} against {self.against}: {verdict}')}>"

    def _repr_html_(self) -> str:
        return notebook.part(self.passed, str(self), self.table if self.passed else self.failed)


def row(subject: str, sample: str, outcome: Outcome) -> dict[str, Any]:
    """An outcome as a row of the table."""
    probe = outcome.probe.name
    return {
        "id": f"{subject}({sample})/{probe}/{outcome.name}/{outcome.dtype}",
        "sample": sample,
        "probe": probe,
        "argument": outcome.name,
        "dtype": outcome.dtype,
        **measured(outcome.verdict, "subject", "reference"),
        "class": outcome.kind,
        "accepted": outcome.accepted,
        "note": note(outcome),
    }


def measured(v: Verdict | None, ours: str, truth: str) -> dict[str, Any]:
    """What a verdict measured, in columns of which two have these names."""
    return {
        "max_ulp": v.ulp if v else None,
        "index": str(list(v.index)) if v and v.index is not None else "",
        ours: v.manual if v else math.nan,
        truth: v.reference if v else math.nan,
        "error": v.error if v else math.nan,
        "floor": v.floor if v else math.nan,
        "margin": v.margin if v else math.nan,
        "resolution": v.resolution if v else math.nan,
    }


def note(outcome: Outcome) -> str:
    """Why a row is what it is."""
    why = outcome.why
    if why is None:
        return outcome.verdict.note if outcome.verdict else ""
    if outcome.kind == CONVENTION:
        return "another slope at a kink"
    if isinstance(why, Finding):
        return _wrong(why) or (outcome.verdict.note if outcome.verdict else "")
    detail = why.detail
    if why.kind == findings.DIGITS_LOST:
        return f"{detail:.1f} digits lost"
    if why.kind == findings.OUT_OF_BUDGET:
        return f"{LATE} of {detail:g} seconds"
    texts = {
        findings.REFUSED_BY_REFERENCE: f"the reference refuses it: {detail}",
        findings.REFUSED_BY_SUBJECT: f"the subject raises {detail}",
        findings.FINITE_NOWHERE: "the reference is finite nowhere",
        findings.LAYOUT_REFUSED: f"torch as well refuses the layout: {detail}",
        findings.LAYOUT_MATTERS: "torch as well depends on the layout",
        findings.NO_DIFFERENCES: f"differences cannot tell here: {detail}",
        findings.OUTSIDE_DOMAIN: f"the domain has no such point: {detail}",
        findings.CRASHED: f"{detail}",
        findings.LEFT_NEARBY: f"outside the first floor, and nearby {detail}",
        findings.NOT_TRIED: f"{detail}",
        findings.OVERFLOWS: "overflows, where float64 does not",
        findings.TORCH_ALONE: "torch stands alone",
        findings.AS_ITSELF: f"torch itself gives this in {detail}",
        findings.AS_COMPOSED: f"within the floor of torch's own {detail}",
    }
    return texts[why.kind]


def _wrong(found: Finding) -> str:
    """What is wrong, in words; nothing where the values say it."""
    expected = found.truth if found.truth is not None else found.argument
    if found.kind == findings.RAISED:
        assert found.error
        return found.error.text if found.error.misuse else f"the subject raises {found.error.text}"
    if found.kind == findings.MUTATED:
        return f"{found.name} was changed in place"
    if found.kind == findings.NO_GRADIENT:
        return f'None instead of a gradient; if that is meant, say constant="{found.name}"'
    if found.kind == findings.NOT_FINITE:
        return "not finite, where the reference is"
    if found.ours is not None and found.kind == findings.WRONG_DTYPE:
        if found.ours.dtype.itemsize > np.dtype(found.dtype).itemsize:
            return f"returns {found.ours.dtype} for {found.dtype}"
        return f"dtype {found.ours.dtype} instead of {found.dtype}"
    if found.ours is not None and expected is not None and found.kind == findings.WRONG_SHAPE:
        return f"shape {found.ours.shape} instead of {expected.shape}"
    return ""


def _page(r: Report) -> Iterator[str]:
    yield f"{r.subject} against {r.against}: {'right' if r.passed else 'WRONG'}"
    for warning in r.warnings:
        yield f"  warning: {warning}"
    if not r.passed:
        yield f"  cause: {r.cause or 'none of those that are known'}"
        yield from (f"    {fact}" for fact in r.facts)
        yield from _first(r)
        yield from _smallest(r.smallest)
        yield from _voices(r.votes)
        yield from _groups(r.failed, r.table)
    else:
        told = r.table["class"].isin([IMPRECISE, UNSUPPORTED]) | r.table["accepted"]
        yield from _groups(r.table[told], r.table)
    yield from _late(r.table)
    counts = r.table["class"].value_counts()
    kinds = [f"{counts[k]} {k}" for k in (*CLASSES, UNSUPPORTED, NOT_APPLICABLE) if k in counts]
    resolution = r.table[r.table["dtype"] == "float64"]["resolution"].median()
    sharp = f"; relative errors from {resolution:.1g} on are seen" if resolution > 0 else ""
    yield f"  {len(r.table)} rows: {', '.join(kinds)}{sharp}"


def _first(r: Report) -> Iterator[str]:
    """The first wrong element, and how it is found again."""
    row = r.first
    assert row is not None
    yield f"  first at: {row['argument']}{row['index']} · {row['probe']} · {row['dtype']}"
    yield f"    of the call ({row['sample']})"
    if not math.isnan(row["subject"]):
        yield f"    the subject gives {row['subject']:.17g}"
        yield f"    it should be      {row['reference']:.17g}"
    elif row["note"]:
        yield f"    {row['note']}"
    if r.again:
        yield f"  again: {r.again}"


def _smallest(found: Smallest | None) -> Iterator[str]:
    """Where it is still wrong, with the numbers if they are few."""
    if found is None:
        return
    yield f"  still wrong at shapes {', '.join(map(str, found.shapes))}"
    if not found.inputs:
        return
    for name, a in found.inputs.items():
        yield f"    {name} = {_array(a)}"
    what = f"the gradient of {found.name}" if found.name in found.inputs else found.name
    if found.ours is not None:
        yield f"    the subject gives {_array(found.ours)} for {what}"
    if found.truth is not None:
        yield f"    it should be      {_array(found.truth)}"


def _array(a: np.ndarray) -> str:
    """All its digits, on one line."""
    kept = np.array2string(a, separator=", ", floatmode="unique", max_line_width=1_000_000)
    return " ".join(kept.split())


def _voices(votes: Sequence[Vote]) -> Iterator[str]:
    """What the three oracles say, where they do not agree."""
    for v in [v for v in votes if v.alone][:4]:
        alone = "no two agree" if v.alone == "each" else f"the {v.alone} stands alone"
        other = v.derivative if v.alone == "differences" else v.subject
        n = digits(v.reference, other, least=9)
        yield f"  along one direction of {v.name}, {alone}:"
        yield f"    subject {v.subject:.{n}g} · reference {v.reference:.{n}g}"
        yield f"    differences {v.derivative:.{n}g} ± {v.error:.1g}"


def _late(table: pd.DataFrame) -> Iterator[str]:
    """What there was no time for."""
    late = table[table["note"].str.startswith(LATE)]
    if len(late):
        names = list(dict.fromkeys(late["probe"]))
        more = f" and {len(names) - LINES} more" if len(names) > LINES else ""
        yield f"  {late.iloc[0]['note']}: {', '.join(names[:LINES])}{more}"


def _groups(rows: pd.DataFrame, table: pd.DataFrame) -> Iterator[str]:
    """Rows of one argument, dtype and note together, with the probes they are about."""
    groups = list(rows.groupby(["argument", "dtype", "class", "accepted", "note"], sort=False))
    for (argument, dtype, kind, accepted, why), part in groups[:LINES]:
        probes = list(dict.fromkeys(part["probe"]))
        tried = table[(table["argument"] == argument) & (table["dtype"] == dtype)][
            "probe"
        ].nunique()
        every = len(probes) == tried > 1
        where = "every probe" if every else ", ".join(probes[:3])
        more = "" if every or len(probes) <= 3 else f" and {len(probes) - 3} more of {tried}"
        named = (" · accepted" if accepted else "") + (f" · {why}" if why else "")
        yield f"  {kind}: {argument or 'the call'} · {dtype} · {where}{more}{_size(part)}{named}"
    if len(groups) > LINES:
        yield f"  … and {len(groups) - LINES} more groups"


def _size(rows: pd.DataFrame) -> str:
    """The largest relative error; of what should be 0 there is none."""
    errors = rows["error"].to_numpy(float)
    values = rows[["subject", "reference"]].to_numpy(float)
    if np.isinf(values).any() and np.isinf(errors).any():
        return " · relative error up to inf"
    largest = np.max(errors, where=np.isfinite(errors), initial=0)
    if largest > 0:
        return f" · relative error up to {largest:.2g}"
    return " · not 0, as it should be" if np.isinf(errors).any() else ""
