"""What two modules were found to be, as one self-contained page: a tree of submodules, and all
results of each, which needs no script; and all results in a table that is sorted and searched."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from ...report import interactive
from ...report.kinds import sign
from ...report.tables import number
from ...report.text import apart, plain
from ...verdict.classes import CLASSES, worst
from ..findings import NOT_APPLICABLE

if TYPE_CHECKING:
    from .report import ModulesReport

PAGE = Path(__file__).with_name("page.html")
LOW, HIGH = -4, 2  # the decades of a margin that a bar has


@dataclass
class Node:
    """A submodule: the rows of its own results, and what lies inside of it."""

    name: str  # from the one around it
    module: str = ""  # the name of its class, where it was called
    rows: list[dict[str, Any]] = field(default_factory=list)
    inside: list[Node] = field(default_factory=list)

    @property
    def every(self) -> Iterator[dict[str, Any]]:
        """Its rows, and those of all that lies inside."""
        yield from self.rows
        for node in self.inside:
            yield from node.every

    @property
    def kind(self) -> str:
        """The class of its own results."""
        return _worst(self.rows)

    @property
    def kind_inside(self) -> str:
        return _worst([row for node in self.inside for row in node.every])

    @property
    def margin(self) -> float:
        """The largest of its own, NaN where none was measured."""
        measured = [row["margin"] for row in self.rows if not math.isnan(row["margin"])]
        return max(measured, default=math.nan)

    @property
    def notes(self) -> list[str]:
        """Why it was not judged."""
        return list(dict.fromkeys(r["note"] for r in self.rows if r["class"] == NOT_APPLICABLE))


def page(report: ModulesReport) -> bytes:
    """The whole page."""
    return _rendered(report, whole=True).encode()


def part(report: ModulesReport) -> str:
    """The same for a notebook, as a part of its page."""
    return _rendered(report, whole=False)


def _rendered(report: ModulesReport, whole: bool) -> str:
    rows: Any = report.table.to_dict("records")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"plain": plain, "number": number, "slug": _slug, "bar": bar}
    environment.globals |= {"apart": apart, "sign": sign}
    failed = report.failed.to_dict("records")
    named = report.table.assign(place=report.table["place"].replace("", "the whole"))
    return environment.from_string(PAGE.read_text(encoding="utf-8")).render(
        whole=whole,
        head=interactive.head() if whole else "",
        results=interactive.table("all results", named) if whole else "",
        scripts=interactive.scripts() if whole else "",
        r=report,
        row=failed[0] if failed else None,
        tree=tree(rows),
        limit=bar(1.0),
        counts=_counts(rows),
        modules=report.table["place"].nunique(),
        resolution=report.table["resolution"].median(),
    )


def tree(rows: Sequence[Mapping[str, Any]]) -> Node:
    """The submodules by their names, in the order in which they are done."""
    root = Node("the whole")
    nodes = {"": root}

    def node(place: str) -> Node:
        if place not in nodes:
            around, _, own = place.rpartition(".")
            nodes[place] = Node(own)
            node(around).inside.append(nodes[place])
        return nodes[place]

    for row in rows:
        found = node(row["place"])
        found.module = row["module"]
        found.rows.append(dict(row))
    return root


def bar(margin: float) -> float:
    """How much of a bar a margin fills, in percent: decades from LOW to HIGH."""
    if not margin > 0:
        return 0.0
    decades = min(max(math.log10(margin), LOW), HIGH) if math.isfinite(margin) else HIGH
    return round(100 * (decades - LOW) / (HIGH - LOW), 1)


def _worst(rows: Sequence[Mapping[str, Any]]) -> str:
    kinds = [row["class"] for row in rows]
    judged = [kind for kind in kinds if kind in CLASSES]
    return worst(judged) if judged else (NOT_APPLICABLE if kinds else "")


def _counts(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    kinds = [row["class"] for row in rows]
    return {k: kinds.count(k) for k in (*CLASSES, NOT_APPLICABLE) if k in kinds}


def _slug(kind: str) -> str:
    return kind.replace(" ", "-").replace("/", "")
