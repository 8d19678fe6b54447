"""A run while it is recorded: a stream beside the file, to which pieces are added as it goes, so
that a run which is killed leaves all but the last of them."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from ..report import files
from ..report.parquet import BROKEN, Damaged
from ..report.text import line
from .recording import PIECE, ROWS, About, Layout, Recorded, Step, steps_of, table_of

SECONDS = 2.0  # after which a piece is written, or sooner if it has PIECE bytes
KEY = b"gradtwin.run"
KILLED = "it was killed"


def folder(path: Path) -> Path:
    """Where the streams of a recording are until it is done."""
    return path.with_name(f"{path.name}.parts")


class Stream:
    """The stream of one run."""

    def __init__(self, place: Path, run: int) -> None:
        self.run, self.file = run, files.folder(place) / f"{run}.arrows"
        self.rows: list[tuple[Any, ...]] = []
        self.layout: Layout | None = None
        self.held, self.since = 0, time.monotonic()
        self.sink: Any = None
        self.writer: Any = None

    def add(self, number: int, loss: float, layout: Layout, data: bytes, about: About) -> None:
        """One step more. The first writes what the run says about itself."""
        if self.writer is None:
            self.sink = pa.OSFile(str(self.file), "wb")
            schema = ROWS.with_metadata({KEY: json.dumps(about)})
            self.writer = pa.ipc.new_stream(self.sink, schema)
        text = layout.encode() if not self.rows or layout != self.layout else None
        self.rows.append((self.run, number, loss, text, data))
        self.layout, self.held = layout, self.held + len(data)
        if self.held > PIECE or time.monotonic() - self.since > SECONDS:
            self.flush()

    def flush(self) -> None:
        if self.rows:
            table = table_of(self.rows)
            self.writer.write_table(table)
        self.rows, self.held, self.since = [], 0, time.monotonic()

    def close(self) -> None:
        if self.writer is not None:
            self.flush()
            self.writer.close()
            self.sink.close()
            self.writer = None

    def tables(self) -> Iterator[pa.Table]:
        """What was written, piece by piece."""
        return _tables(self.file)

    def remove(self) -> None:
        """Removes the stream, and the folder if it was the last."""
        self.file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.file.parent.rmdir()


def _tables(file: Path) -> Iterator[pa.Table]:
    """The pieces of a stream, up to where it is cut off, a few of them together."""
    held: list[pa.RecordBatch] = []
    with pa.OSFile(str(files.readable(file))) as source:
        try:
            reader = pa.ipc.open_stream(source)
            while True:
                batch = reader.read_next_batch()
                batch.validate(full=True)
                held.append(batch)
                if sum(of.nbytes for of in held) > PIECE:
                    yield pa.Table.from_batches(held)
                    held = []
        except (StopIteration, *BROKEN):  # the end, or what was cut off
            pass
    if held:
        yield pa.Table.from_batches(held)


def left(path: Path) -> bool:
    """Whether a run that was killed has left something of this recording."""
    return (folder(path) / "0.arrows").is_file()


def recovered(path: Path) -> Recorded:
    """What it has left, as a recording that was cut short. Damaged where it is not that."""
    file = folder(path) / "0.arrows"
    try:
        with pa.OSFile(str(files.readable(file))) as source:
            text = (pa.ipc.open_stream(source).schema.metadata or {})[KEY]
        about = msgspec.convert(json.loads(text), About)
        start = int(about.get("start", 1))
    except BROKEN as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise Damaged(f"{file}: expected what a run has left, got {line(str(error))}") from None

    def walk(run: int) -> Iterator[Step]:
        return steps_of(_tables(file), file, start)

    number = sum(1 for _ in walk(0))
    about = {**about, "ended": False, "error": KILLED, "steps": number}
    return Recorded(path, {"0": about}, walk)
