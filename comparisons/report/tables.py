"""A table as CSV, Parquet and Markdown."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import text
from .files import write_all

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
    shown = frame.drop(columns=["schema", "id"]).map(
        lambda cell: text.markdown(cell) if isinstance(cell, str) else cell
    )
    markdown = shown.to_markdown(index=False, floatfmt=".4g")
    return {
        f"{name}.csv": frame.to_csv(index=False).encode(),
        f"{name}.parquet": parquet.getvalue(),
        f"{name}.md": (markdown + "\n").encode(),
    }


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
