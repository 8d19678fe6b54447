"""A baseline: all quantities of one recording in one Parquet file, whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..report import files
from .measure import ARRAYS, Quantity

FORMAT = 1  # it rises when a column changes its meaning
KEY = b"gradtwin.baseline"
BOUND = 1.0  # that every margin is promised to keep; what was observed stands beside it
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


class NotComparable(ValueError):
    """A file that is no whole baseline, with the reason."""


@dataclass(frozen=True)
class Baseline:
    """What a recording found, by id, and what it says about itself: `environment` the names and
    values that a result may depend on, `names` and `seed` what was asked for, `history` a reason
    for every update."""

    quantities: dict[str, Quantity]
    about: About

    @property
    def environment(self) -> dict[str, str]:
        return dict(self.about["environment"])


def write(path: Path, quantities: Iterable[Quantity], about: Mapping[str, Any]) -> None:
    """Writes a baseline in one go. The number of rows and a digest of them are kept in it, so that
    a part of it is never taken for the whole."""
    table = pa.Table.from_pylist([_row(q) for q in quantities], schema=COLUMNS)
    known = {"format": FORMAT, "rows": table.num_rows, "digest": _digest(table.to_pylist())}
    buffer = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata({KEY: json.dumps(known | dict(about))}),
        buffer,
        compression="zstd",
    )
    files.write(path, buffer.getvalue())


def read(path: Path) -> Baseline:
    """The baseline in a file. NotComparable, with the reason, for any other file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise NotComparable(f"{path}: {error.strerror}") from None
    try:
        table = pq.ParquetFile(pa.BufferReader(content)).read()
        text = (table.schema.metadata or {}).get(KEY)
        about = json.loads(text) if text else {}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise NotComparable(f"{path}: no Parquet file, or damaged: {error}") from None
    if not about:
        raise NotComparable(f"{path}: a Parquet file, but no baseline of gradtwin")
    if about.get("format") != FORMAT:
        raise NotComparable(f"{path}: expected format {FORMAT}, got {about.get('format')}")
    rows = table.to_pylist()
    expected, got = (about.get("rows"), about.get("digest")), (len(rows), _digest(rows))
    if got != expected:
        raise NotComparable(f"{path}: damaged: expected {_told(expected)}, got {_told(got)}")
    return Baseline({row["id"]: _quantity(row) for row in rows}, about)


def _told(counted: tuple[Any, Any]) -> str:
    return f"{counted[0]} rows with digest {str(counted[1])[:12]}"


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
    manual, reference, allowed = (_array(row[name]) for name in ARRAYS)
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
    """Dtype, shape and bits; an array of objects has none, and is refused."""
    a = np.asarray(a)
    if a.dtype.kind not in "fiub":
        raise TypeError(f"array: expected numbers or truth values, got dtype {a.dtype}")
    little = a.astype(a.dtype.newbyteorder("<"), order="C")
    return {"dtype": little.dtype.str, "shape": list(a.shape), "data": little.tobytes()}


def _array(stored: Mapping[str, Any]) -> np.ndarray:
    return np.frombuffer(stored["data"], stored["dtype"]).reshape(stored["shape"])


def _digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """Of every row, whatever the file's compression and layout."""
    total = hashlib.sha256()
    for row in rows:
        total.update(repr(row).encode())
    return total.hexdigest()
