"""A table as CSV, Parquet and Markdown."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import text
from .files import write_all

# Columns that are compared: what came, and what should have come.
PAIRS = (
    ("manual", "reference"),
    ("subject", "reference"),
    ("port", "original"),
    ("before", "now"),
    ("end_manual", "end_reference"),
    ("end_old", "end_new"),
)
COMPARED = ("subject", "manual", "reference")  # those of a table of gradients
SCHEMA = 1  # of every table; it rises when a column changes its meaning


def table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows as a frame, schema version first, sorted by nothing: the order is that of the
    run."""
    frame = pd.DataFrame(list(rows))
    frame.insert(0, "schema", SCHEMA)
    return frame


def save(frame: pd.DataFrame, name: str, out: Path) -> list[Path]:
    """CSV and Parquet of the whole frame, Markdown for people; floats are kept to the last bit in
    the first two."""
    return write_all({out / file: content for file, content in contents(frame, name).items()})


def contents(frame: pd.DataFrame, name: str) -> dict[str, bytes]:
    """What `save` writes, by file name."""
    parquet = io.BytesIO()
    frame.to_parquet(parquet, index=False)
    shown = told_apart(frame.drop(columns=["schema", "id"])).map(
        lambda cell: text.markdown(cell) if isinstance(cell, str) else cell
    )
    compared = [i for i, c in enumerate(shown) if c in COMPARED and c in frame]
    markdown = shown.to_markdown(index=False, floatfmt=".4g", disable_numparse=compared)
    # Else every row is as long as the longest, and one row of a network makes it thousands.
    markdown = re.sub("  +", " ", re.sub("----+", "---", markdown))
    return {
        f"{name}.csv": frame.to_csv(index=False).encode(),
        f"{name}.parquet": parquet.getvalue(),
        f"{name}.md": (markdown + "\n").encode(),
    }


def told_apart(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame for people: what came beside what should have come, with as many digits as tell
    them apart."""
    pair = [c for c in frame if c in COMPARED and frame[c].dtype.kind == "f"]
    if len(pair) != 2:
        return frame
    # A NaN without an element is none: nothing was computed there.
    found = frame["index"].ne("") if "index" in frame else [False] * len(frame)
    texts = [
        [t.replace("nan", "NaN" if there else "") for t in text.apart(*row, least=4)]
        for row, there in zip(frame[pair].itertuples(index=False), found, strict=True)
    ]
    return frame.assign(**{c: [row[i] for row in texts] for i, c in enumerate(pair)})


def number(value: Any) -> str:
    """A value for people: four digits of a float, nothing for a missing one."""
    if (
        value is None
        or value is pd.NA
        or value is pd.NaT
        or (isinstance(value, float) and np.isnan(value))
    ):
        return ""
    long = isinstance(value, int) and abs(value) >= 10**6
    return f"{value:.4g}" if isinstance(value, float) or long else str(value)
