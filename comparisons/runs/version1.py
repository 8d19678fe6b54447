"""Recordings of gradtwin 0.1: a row for each quantity of each step, all to the bit, and of
perturbed runs the losses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from ..report import parquet
from ..report.parquet import Damaged, Format
from .recording import BITS, DTYPES, LOSS, About, Layout, Quantity, Recorded, Step

COLUMNS = pa.schema(
    [
        ("run", pa.int32()),  # 0, or the number of a perturbed run
        ("step", pa.int32()),  # from 1
        ("quantity", pa.string()),
        ("dtype", pa.string()),
        ("shape", pa.list_(pa.int64())),
        ("value", pa.float64()),  # of a loss
        ("data", pa.large_binary()),
    ]
)


class Header(TypedDict):
    """What a recording says about itself: its runs by number, 0 or that of a perturbed one."""

    format: int
    runs: dict[str, About]


FIRST = Format(
    "a recording of gradtwin.record_run",
    b"gradtwin.recording",
    COLUMNS,
    Header,
    lambda table, header: True,  # version 1 had the checksums of its pages alone
    optional=("value",),
)


def describe(path: Path) -> dict[str, About]:
    """What a recording says about its runs."""
    runs: dict[str, About] = parquet.header(path, FIRST)["runs"]
    return runs


def read(path: Path) -> Recorded:
    """The recording. OSError where nothing can be read, Damaged, a ValueError, for a file that is
    no recording or is damaged."""
    table, header = parquet.read(path, FIRST)
    runs = header["runs"]
    if "0" not in runs or not all(k.isdecimal() for k in runs):
        raise Damaged(f"{path}: expected runs 0, 1 and so on, got {', '.join(runs) or 'none'}")
    wrong = next(_misfits(table, runs), "")
    if wrong:
        raise Damaged(f"{path}: {wrong}")

    def walk(run: int) -> Iterator[Step]:
        rows = table.filter(pc.field("run") == run).to_pylist()
        for number in range(1, runs[str(run)]["steps"] + 1):
            mine = [row for row in rows if row["step"] == number]
            (loss,) = (row for row in mine if row["quantity"] == LOSS)
            kept = [row for row in mine if row["quantity"] != LOSS]
            quantities = tuple(
                Quantity(row["quantity"], row["dtype"], tuple(row["shape"]), BITS) for row in kept
            )
            data = b"".join(row["data"] for row in kept)
            yield Step(number, loss["value"], Layout(loss["dtype"], quantities), data)

    return Recorded(path, runs, walk, version=1)


def _misfits(table: pa.Table, runs: Mapping[str, About]) -> Iterator[str]:
    """What was never recorded so, row by row."""
    seen: set[tuple[int, int, str]] = set()
    losses = dict.fromkeys(runs, 0)
    for row in table.to_pylist():
        run, step, name = row["run"], row["step"], row["quantity"]
        where = f"run {run}, step {step}, {name!r}"
        if (run, step, name) in seen:
            yield f"{where}: expected once, got twice"
        seen.add((run, step, name))
        if str(run) not in runs or not 1 <= step <= runs[str(run)]["steps"]:
            yield f"{where}: there is no such run or step"
            continue
        if row["dtype"] not in DTYPES or None in row["shape"] or min(row["shape"], default=0) < 0:
            yield f"{where}: expected numbers with a shape, got {row['dtype']} {row['shape']}"
        elif len(row["data"]) != DTYPES[row["dtype"]].itemsize * math.prod(row["shape"]):
            yield f"{where}: expected the bytes of {row['dtype']} {row['shape']}"
        if name == LOSS:
            losses[str(run)] += 1
            if row["value"] is None:
                yield f"{where}: expected a value, got none"
    for run, about in runs.items():
        if losses[run] != about["steps"]:
            yield f"run {run}: expected a loss at each of {about['steps']} steps, got {losses[run]}"
