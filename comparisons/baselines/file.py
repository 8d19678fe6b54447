"""A baseline: all quantities of one recording in one Parquet file, whole or not at all."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import pyarrow as pa

from ..report import parquet
from ..report.parquet import Damaged, Format
from ..verdict.classes import CLASSES
from .measure import ARRAYS, TABLES, Quantity

BOUND = 1.0  # the bound promised for every margin; what was observed stands beside it
ARRAY = pa.struct(
    [("dtype", pa.string()), ("shape", pa.list_(pa.int64())), ("data", pa.large_binary())]
)
COLUMNS = pa.schema(
    [
        ("id", pa.string()),
        ("table", pa.string()),
        ("name", pa.string()),
        ("class", pa.string()),
        ("bound", pa.float64()),
        ("margin", pa.float64()),
        ("margins", pa.list_(pa.float64())),  # of repeated measurements, the margin first
        *((name, ARRAY) for name in ARRAYS),
    ]
)
About = dict[str, Any]
NotComparable = Damaged  # a file that is no whole baseline, with the reason


class Update(TypedDict):
    """Why a baseline was recorded, and what it found."""

    at: str
    reason: str
    revision: str
    classes: dict[str, int]


class Header(TypedDict):
    """What a baseline says about itself. A part of one says nothing."""

    format: int
    rows: int
    digest: str
    environment: NotRequired[dict[str, str]]
    names: NotRequired[list[str]]
    seed: NotRequired[int]
    threads: NotRequired[int]
    history: NotRequired[list[Update]]


@dataclass(frozen=True)
class Baseline:
    """What a recording found, by id, and what it says about itself: `environment` the names and
    values that a result may depend on, `names` and `seed` what was asked for, `history` a reason
    for every update."""

    quantities: dict[str, Quantity]
    about: About

    @property
    def environment(self) -> dict[str, str]:
        return dict(self.about.get("environment", {}))


def write(path: Path, quantities: Iterable[Quantity], about: Mapping[str, Any]) -> None:
    """Writes a baseline in one go."""
    table = pa.Table.from_pylist([_row(q) for q in quantities], schema=COLUMNS)
    parquet.write(path, BASELINE, table, about)


def read(path: Path) -> Baseline:
    """The baseline in a file. NotComparable, with the reason, for any other file."""
    try:
        table, about = parquet.read(path, BASELINE)
    except OSError as error:
        raise NotComparable(f"{path}: {error.strerror}") from None
    quantities: dict[str, Quantity] = {}
    for row in table.to_pylist():
        if row["id"] in quantities:
            raise NotComparable(f"{path}: two rows have the id {row['id']!r}; expected one")
        try:
            quantities[row["id"]] = _quantity(row)
        except (ValueError, TypeError, KeyError) as error:
            raise NotComparable(f"{path}: row {row['id']!r}: {error}") from None
    return Baseline(quantities, about)


def _row(q: Quantity) -> dict[str, Any]:
    return {
        "id": q.id,
        "table": q.table,
        "name": q.name,
        "class": q.kind,
        "bound": BOUND,
        "margin": q.margin,
        "margins": list(q.margins),
        **{name: _stored(getattr(q, name)) for name in ARRAYS},
    }


def _quantity(row: Mapping[str, Any]) -> Quantity:
    """The quantity in a row. Raises ValueError for a row that cannot have been written."""
    for column, known in (("table", TABLES), ("class", CLASSES)):
        if row[column] not in known:
            raise ValueError(f"{column}: expected one of {', '.join(known)}, got {row[column]!r}")
    if not row["margins"] or None in row["margins"]:
        raise ValueError(f"margins: expected numbers, got {row['margins']}")
    manual, reference, allowed = (_array(name, row[name]) for name in ARRAYS)
    return Quantity(
        row["id"],
        row["table"],
        row["name"],
        manual,
        reference,
        allowed,
        row["margin"],
        row["class"],
        tuple(row["margins"]),
    )


def _stored(a: np.ndarray) -> dict[str, Any]:
    """The dtype, shape and bits of an array; one of objects has none, and is refused."""
    a = np.asarray(a)
    if a.dtype.kind not in "fiub":
        raise TypeError(f"array: expected numbers or truth values, got dtype {a.dtype}")
    little = a.astype(a.dtype.newbyteorder("<"), order="C")
    return {"dtype": little.dtype.str, "shape": list(a.shape), "data": little.tobytes()}


def _array(name: str, stored: Mapping[str, Any]) -> np.ndarray:
    dtype = np.dtype(stored["dtype"])
    shape, data = stored["shape"], stored["data"]
    if dtype.kind not in "fiub" or None in shape or min(shape, default=0) < 0:
        raise ValueError(f"{name}: expected numbers with a shape, got {dtype} {shape}")
    if len(data) != dtype.itemsize * math.prod(shape):
        raise ValueError(f"{name}: expected the bytes of {dtype} {shape}, got {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(shape)


def _is_first(table: pa.Table, header: Mapping[str, Any]) -> bool:
    """Whether the number of rows and the digest in the header of version 1, which was that of the
    rows, are those of the table."""
    total = hashlib.sha256()
    for row in table.to_pylist():
        total.update(repr(row).encode())
    return (header["rows"], header["digest"]) == (table.num_rows, total.hexdigest())


BASELINE = Format("a baseline of gradtwin", b"gradtwin.baseline", COLUMNS, Header, _is_first)
