"""A table in one Parquet file that is written and read piece by piece, since it may be larger than
the memory. As in `parquet`, digests cover every cell and the header."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from . import files
from .parquet import BROKEN, Damaged, Format, damaged, digest, memory

VERSION = 1  # it rises when a file of the version before is no longer read like one of this


class Writer:
    """A file while it is written."""

    def __init__(self, file: Path, kind: Format) -> None:
        self.kind, self.digests = kind, list[str]()
        settings = {"compression": "zstd", "write_page_checksum": True, "write_statistics": False}
        self.file = pq.ParquetWriter(file, kind.columns, **settings)

    def add(self, table: pa.Table) -> int:
        """Writes a piece, and gives its number."""
        self.file.write_table(table, row_group_size=max(1, table.num_rows))
        self.digests.append(digest(table, {}))
        return len(self.digests) - 1

    def head(self, header: Mapping[str, Any]) -> None:
        """Writes the header, behind all pieces."""
        sealed = {"format": VERSION, **header, "pieces": self.digests}
        about = json.dumps({**sealed, "digest": _sealed(sealed)})
        self.file.add_key_value_metadata({self.kind.key: about})


@contextlib.contextmanager
def writing(path: Path, kind: Format) -> Iterator[Writer]:
    """A new file, which appears whole when all is written, or not at all."""
    with files.draft(path) as new:
        writer = Writer(new, kind)
        try:
            yield writer
        finally:
            writer.file.close()


class Pieces:
    """A file that was written so: its header, and its pieces when they are asked for."""

    def __init__(self, path: Path, kind: Format) -> None:
        """OSError where nothing can be read, Damaged for a file that is no such file."""
        self.path, self.kind = path, kind
        try:
            with pq.ParquetFile(files.readable(path)) as file:
                text = (file.metadata.metadata or {}).get(kind.key)
                number, schema = file.num_row_groups, file.schema_arrow
        except BROKEN as error:
            if isinstance(error, OSError) and error.errno:
                raise
            raise damaged(path, error) from None
        if not text:
            raise Damaged(f"{path}: expected {kind.name}, got another Parquet file")
        try:
            header: dict[str, Any] = json.loads(text)
            sealed = {k: v for k, v in header.items() if k != "digest"}
            msgspec.convert(sealed, kind.header)
            self.digests: Sequence[str] = msgspec.convert(sealed["pieces"], list[str])
        except (ValueError, KeyError, RecursionError) as error:
            raise Damaged(f"{path}: its header is not that of {kind.name}: {error}") from None
        if header["format"] != VERSION:
            raise Damaged(f"{path}: expected format {VERSION}, got {header['format']}")
        if header.get("digest") != _sealed(sealed) or len(self.digests) != number:
            raise Damaged(f"{path}: damaged: its header has another digest")
        expected, got = ({f.name: f.type for f in s} for s in (kind.columns, schema))
        if got != expected:
            raise Damaged(f"{path}: expected the columns of {kind.name}, got {', '.join(got)}")
        self.header = {k: v for k, v in sealed.items() if k not in ("format", "pieces")}

    def piece(self, number: int) -> pa.Table:
        """One piece, as it was written. Damaged where it is not."""
        if not 0 <= number < len(self.digests):
            raise Damaged(f"{self.path}: expected {len(self.digests)} pieces, asked for {number}")
        try:
            with pq.ParquetFile(self.path, page_checksum_verification=True) as file:
                needed, there = file.metadata.row_group(number).total_byte_size, memory()
                if needed > there:
                    raise Damaged(
                        f"{self.path}: needs {needed:,} bytes of memory, and there are {there:,}"
                    )
                table = file.read_row_group(number)
                table.validate(full=True)
        except Damaged:
            raise
        except BROKEN as error:
            raise damaged(self.path, error) from None
        empty = [
            n for n in table.column_names if n not in self.kind.optional and table[n].null_count
        ]
        if empty:
            raise Damaged(f"{self.path}: column {empty[0]!r}: expected a value in every row")
        if digest(table, {}) != self.digests[number]:
            raise Damaged(f"{self.path}: damaged: piece {number} has another digest")
        return table


def holds(path: Path, kind: Format) -> bool:
    """Whether a file says that it is of this kind."""
    try:
        with pq.ParquetFile(files.readable(path)) as file:
            return kind.key in (file.metadata.metadata or {})
    except BROKEN as error:
        if isinstance(error, OSError) and error.errno:
            raise
        return False


def _sealed(header: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()
