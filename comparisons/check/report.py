"""What `check` found, for people."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..verdict.classes import CLASSES, CONVENTION, DIFFERENT, IMPRECISE, UNDECIDED
from . import findings
from .causes import Cause
from .findings import NOT_APPLICABLE, UNSUPPORTED, Finding, Outcome
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
        bad = {DIFFERENT, UNDECIDED, CONVENTION}
        bad |= {IMPRECISE, UNSUPPORTED} if self.strict else set()
        return self.table[self.table["class"].isin(bad) & ~self.table["accepted"]]

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


def row(subject: str, sample: str, outcome: Outcome) -> dict[str, Any]:
    """An outcome as a row of the table."""
    probe, v = outcome.probe.name, outcome.verdict
    return {
        "id": f"{subject}({sample})/{probe}/{outcome.name}/{outcome.dtype}",
        "sample": sample,
        "probe": probe,
        "argument": outcome.name,
        "dtype": outcome.dtype,
        "max_ulp": v.ulp if v else None,
        "index": str(list(v.index)) if v and v.index is not None else "",
        "subject": v.manual if v else math.nan,
        "reference": v.reference if v else math.nan,
        "error": v.error if v else math.nan,
        "floor": v.floor if v else math.nan,
        "margin": v.margin if v else math.nan,
        "resolution": v.resolution if v else math.nan,
        "class": outcome.kind,
        "accepted": outcome.accepted,
        "note": note(outcome),
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
        yield from _first(r.failed)
        yield from _voices(r.votes)
        yield from _groups(r.failed, r.table)
    else:
        told = r.table["class"].isin([IMPRECISE, UNSUPPORTED]) | r.table["accepted"]
        yield from _groups(r.table[told], r.table)
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
    groups = list(rows.groupby(["argument", "dtype", "class", "accepted", "note"], sort=False))
    for (argument, dtype, kind, accepted, why), part in groups[:LINES]:
        probes = list(dict.fromkeys(part["probe"]))
        tried = table[(table["argument"] == argument) & (table["dtype"] == dtype)][
            "probe"
        ].nunique()
        every = len(probes) == tried > 1
        where = "every probe" if every else ", ".join(probes[:3])
        more = "" if every or len(probes) <= 3 else f" and {len(probes) - 3} more of {tried}"
        error = part["error"].max()
        size = f" · relative error up to {error:.2g}" if error > 0 else ""
        named = (" · accepted" if accepted else "") + (f" · {why}" if why else "")
        yield f"  {kind}: {argument or 'the call'} · {dtype} · {where}{more}{size}{named}"
    if len(groups) > LINES:
        yield f"  … and {len(groups) - LINES} more groups"
