"""A table with a header in one Parquet file: written whole, and read only as it was written.

The header is JSON in the metadata of the schema. With the number of rows it is covered by a
digest of all that the file holds, so that a part of it, or a changed word, is never taken for it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from . import files
from .text import line

VERSION = 2  # it rises when a file of the version before is no longer read like one of this


# What pyarrow raises for damaged files.
BROKEN = (pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError)


class Damaged(ValueError):
    """A file that is not what was asked for, whole: which, what is wrong, and what was expected."""


@dataclass(frozen=True)
class Format:
    """A kind of file. `header` is the type of its header, a TypedDict, and `first` checks table and
    header of a file of version 1, which had no digest of both."""

    name: str  # in words: "a baseline of gradtwin"
    key: bytes  # of the header in the metadata
    columns: pa.Schema
    header: Any
    first: Callable[[pa.Table, Mapping[str, Any]], bool]
    optional: tuple[str, ...] = ()  # columns that may have no value


def write(path: Path, kind: Format, table: pa.Table, header: Mapping[str, Any]) -> None:
    """Writes a file in one go."""
    sealed = {"format": VERSION, **header, "rows": table.num_rows}
    about = {kind.key: json.dumps({**sealed, "digest": digest(table, sealed)})}
    buffer = io.BytesIO()
    sheet = table.replace_schema_metadata(about)
    # Statistics would be bytes that no reader here looks at, and no digest covers.
    settings = {"compression": "zstd", "write_page_checksum": True, "write_statistics": False}
    pq.write_table(sheet, buffer, **settings)
    files.write(path, buffer.getvalue())


def read(path: Path, kind: Format) -> tuple[pa.Table, dict[str, Any]]:
    """Table and header. OSError where nothing can be read, Damaged for any other file."""
    file, header = _opened(path, kind)
    table = _table(path, kind, file)
    sealed = header.get("digest", "")
    if header["format"] == VERSION:
        good = sealed == digest(table, {k: v for k, v in header.items() if k != "digest"})
    else:
        good = kind.first(table, header)
    if not good:
        raise Damaged(
            f"{path}: damaged: expected {header.get('rows', 'other')} rows with digest "
            f"{sealed[:12] or 'none'}, got {table.num_rows} rows with another"
        )
    return table, _own(header)


def header(path: Path, kind: Format) -> dict[str, Any]:
    """The header alone, of a file whose table may be large."""
    return _own(_opened(path, kind)[1])


def _own(header: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in header.items() if k not in ("format", "rows", "digest")}


def _opened(path: Path, kind: Format) -> tuple[pq.ParquetFile, dict[str, Any]]:
    """The file, whose columns are those of this kind, and its header."""
    content = files.read(path)
    try:
        file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        text = (file.schema_arrow.metadata or {}).get(kind.key)
    except BROKEN as error:
        raise damaged(path, error) from None
    if not text:
        raise Damaged(f"{path}: expected {kind.name}, got another Parquet file")
    try:
        header: dict[str, Any] = json.loads(text)
        msgspec.convert(header, kind.header)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path}: its header is not that of {kind.name}: {error}") from None
    if header["format"] not in (1, VERSION):
        raise Damaged(f"{path}: expected format 1 or {VERSION}, got {header['format']}")
    return file, header


def _table(path: Path, kind: Format, file: pq.ParquetFile) -> pa.Table:
    expected, got = ({f.name: f.type for f in s} for s in (kind.columns, file.schema_arrow))
    if got != expected:
        wrong = next(n for n in {**expected, **got} if expected.get(n) != got.get(n))
        raise Damaged(f"{path}: expected the columns of {kind.name}, got others: {wrong!r}")
    try:
        groups = (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
        needed, there = sum(g.total_byte_size for g in groups), memory()
        if needed > there:
            raise Damaged(f"{path}: needs {needed:,} bytes of memory, and there are {there:,}")
        table = file.read()
        table.validate(full=True)
    except Damaged:
        raise
    except BROKEN as error:
        raise damaged(path, error) from None
    empty = [n for n in expected if n not in kind.optional and table[n].null_count]
    if empty:
        raise Damaged(f"{path}: column {empty[0]!r}: expected a value in every row, got none")
    return table


def damaged(path: Path, error: Exception) -> Damaged:
    return Damaged(f"{path}: no Parquet file, or damaged: {line(str(error))}")


def memory() -> int:
    """The bytes of memory that can be had, as far as the system says."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**63


def digest(table: pa.Table, header: Mapping[str, Any]) -> str:
    """A digest of the header and of every cell, whatever the compression and the layout of the
    file."""
    total = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in table.column_names:
        for value in _cells(table[name]):
            total.update(value if isinstance(value, bytes) else repr(value).encode())
            total.update(b"\0")
    return total.hexdigest()


def _cells(column: pa.ChunkedArray) -> Iterator[Any]:
    for chunk in column.chunks:
        yield from chunk.to_pylist()
