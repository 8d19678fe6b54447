"""What moved between two baselines, written down: Markdown, HTML, JUnit's XML, JSON, CSV."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection
from typing import Any
from xml.etree import ElementTree

import pandas as pd

from ..report import pages, tables, text
from ..report.tables import SCHEMA
from .diff import Diff

ROWS_SHOWN = 20  # of a group, in the formats that people read
COLUMNS = ("class", "side", "id", "size", "ulp", "index", "before", "now",
           "margin_old", "margin_new", "explained")  # fmt: skip


def outcome(diff: Diff, fail_on: Collection[str]) -> str:
    """The counts, and what they come to, in one line."""
    counts = ", ".join(f"{n} {kind}" for kind, n in diff.counts.items() if n)
    failing = sum(diff.counts[kind] for kind in fail_on)
    share = f"{failing} of {len(diff.table)} rows" if failing else "no row"
    return f"{counts}: {share} {' or '.join(fail_on)}."


def surroundings(diff: Diff) -> list[str]:
    """A line for everything that changed in the environment, and for every update's reason."""
    lines = [f"{name}: {old} → {new}" for name, (old, new) in diff.environment.items()]
    return [*lines, *(f"updated: {reason}" for reason in diff.reasons)]


def groups(diff: Diff) -> list[tuple[str, pd.DataFrame]]:
    """The rows that moved, for people, by group, the groups with the worst first."""
    moved = diff.moved
    told = [told_apart(*pair) for pair in zip(moved["before"], moved["now"], strict=True)]
    moved = moved.assign(before=[pair[0] for pair in told], now=[pair[1] for pair in told])
    return [(str(name), moved[moved["group"] == name]) for name in moved["group"].unique()]


def told_apart(before: float, now: float) -> tuple[str, str]:
    """Two numbers with four digits, or as many as it takes to see a difference."""
    if math.isnan(before) and math.isnan(now):
        return "", ""
    pairs = [(f"{before:.{digits}g}", f"{now:.{digits}g}") for digits in range(4, 18)]
    return next((pair for pair in pairs if pair[0] != pair[1]), pairs[0])


def markdown(diff: Diff, fail_on: Collection[str]) -> bytes:
    """Short enough for a comment on a pull request: the rest is folded away or counted."""
    lines = [f"**gradtwin diff**: {outcome(diff, fail_on)}", ""]
    around = surroundings(diff)
    lines += [f"* {text.markdown(line)}" for line in around] or ["The environment is the same."]
    for name, rows in groups(diff):
        shown = rows.head(ROWS_SHOWN)
        cells = [[_cell(row[c]) for c in COLUMNS] for row in shown.to_dict("records")]
        lines += [
            "",
            f"<details{_open(rows, fail_on)}>"
            f"<summary>{text.markdown(name)}: {_counted(rows)}</summary>",
        ]
        lines += ["", f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in cells]
        lines += [f"\nand {len(rows) - ROWS_SHOWN} more"] if len(rows) > ROWS_SHOWN else []
        lines += ["", "</details>"]
    return ("\n".join(lines) + "\n").encode()


def html(diff: Diff, fail_on: Collection[str]) -> bytes:
    moved = diff.moved.assign(quantity=diff.moved["id"])
    shown = ["group", *("quantity" if column == "id" else column for column in COLUMNS)]
    frames = {"what moved": moved[shown]} if len(moved) else {}
    around = surroundings(diff) or ["The environment is the same."]
    return pages.page(
        "What moved between two baselines",
        outcome(diff, fail_on),
        frames,
        text="\n".join(around),
        file="",
    )


def junit(diff: Diff, fail_on: Collection[str]) -> bytes:
    """Every row a test case; those that fail say how far they moved, and from what to what."""
    suites = ElementTree.Element("testsuites", name="gradtwin diff")
    for name, rows in diff.table.groupby("group", sort=False):
        bad = rows["class"].isin(fail_on)
        suite = ElementTree.SubElement(
            suites,
            "testsuite",
            name=text.xml(str(name)),
            tests=str(len(rows)),
            failures=str(int(bad.sum())),
        )
        for row in rows.to_dict("records"):
            case = ElementTree.SubElement(
                suite,
                "testcase",
                classname=text.xml(f"{row['group']}.{row['name']}"),
                name=text.xml(row["id"]),
            )
            if row["class"] in fail_on:
                told = ", ".join(f"{c} {tables.number(row[c])}" for c in COLUMNS[3:])
                failure = ElementTree.SubElement(case, "failure", message=row["class"])
                failure.text = text.xml(f"{row['side']}: {told}")
    return ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)


def as_json(diff: Diff, fail_on: Collection[str]) -> bytes:
    rows = json.loads(diff.moved.to_json(orient="records", double_precision=15))
    failing = sum(diff.counts[kind] for kind in fail_on)
    known: dict[str, Any] = {
        "schema": SCHEMA,
        "failed": bool(failing),
        "counts": diff.counts,
        "environment": diff.environment,
        "reasons": diff.reasons,
        "rows": rows,
    }
    return json.dumps(known, ensure_ascii=False).encode()


def csv(diff: Diff, fail_on: Collection[str]) -> bytes:
    return diff.table.to_csv(index=False).encode()


FORMATS: dict[str, Callable[[Diff, Collection[str]], bytes]] = {
    ".md": markdown,
    ".html": html,
    ".xml": junit,
    ".json": as_json,
    ".csv": csv,
}


def _counted(rows: pd.DataFrame) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in rows["class"].value_counts().items())


def _open(rows: pd.DataFrame, fail_on: Collection[str]) -> str:
    return " open" if rows["class"].isin(fail_on).any() else ""


def _cell(value: Any) -> str:
    return text.markdown(tables.number(value))
