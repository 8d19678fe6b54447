"""The classes of what moved between two baselines."""

from __future__ import annotations

from ..verdict.classes import DIFFERENT, IDENTICAL, ROUNDING

NEW, BETTER, REMOVED, WORSE = "new", "better", "removed", "worse"
CLASSES = (IDENTICAL, NEW, BETTER, ROUNDING, REMOVED, WORSE, DIFFERENT)  # the worst last
MOVED, FAILING = CLASSES[1:], CLASSES[-2:]
NEAR = 0.25  # a margin that grows below this share of the limit is not reported
FORMATS = (".md", ".html", ".xml", ".json", ".csv")  # the formats of a report
