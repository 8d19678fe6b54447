"""A recorded training run in its file, read back step by step.

Version 2: a row for each step of each run. Its `data` are the sketches of all that was recorded
then, one after another, and behind them the bits and the digests of what was kept so; what they are
of, the row says in `layout`, or the last row before that does. Version 1, of gradtwin 0.1, had a
row for each quantity and is read as if it were this.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import msgspec
import numpy as np
import pyarrow as pa
import torch

from ..report import pieces
from ..report.parquet import Damaged, Format
from .sketches import WIDTH, dense_sketch, sketch, start_parts, start_sums

LOSS = "loss"
PARAMETER, BUFFER, GRADIENT = "parameter ", "buffer ", "gradient of "  # how names begin
INPUT = "input"  # of the model: never judged, it tells other data from another forward pass
PERTURBED = 6  # the number of perturbed runs that a floor takes
AGAIN = 7  # the run once more, unperturbed
BASE, STARTS = 10, range(11, 17)  # its first step alone, as it is and from moved parameters
DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
SKETCH, DENSE, BITS, DIGEST, SUMS = "sketch", "dense", "bits", "digest", "sums"
SKETCHES = {SKETCH: sketch, DENSE: dense_sketch}
DIGEST_BYTES = 16
FEW = 64  # rows that are read at a time
VERSION = 2

ROWS = pa.schema(
    [
        ("run", pa.int32()),  # 0, AGAIN, or the number of a perturbed run or a start
        ("step", pa.int64()),
        ("loss", pa.float64()),
        ("layout", pa.string()),  # JSON, or none where it is that of the row before
        ("data", pa.large_binary()),
    ]
)


class About(TypedDict):
    """What a recording says about one of its runs."""

    ended: bool
    error: str  # of a run that was cut short
    steps: int
    start: NotRequired[int]  # the number of the first step
    dtype: str  # of the loss
    settings: dict[str, Any]
    precision: NotRequired[list[str]]  # the dtypes of all results that the loss was made of
    halves: NotRequired[bool]  # of a perturbed run, whether 16 bits were met without gradients
    threads: NotRequired[int]
    torch: str
    numpy: str
    gradtwin: str


class Span(TypedDict):
    """Which steps of which run a piece of the file has."""

    run: int
    first: int
    last: int


class Header(TypedDict):
    """What a recording says about itself: its runs by number, and what its pieces hold."""

    format: int
    version: int
    runs: dict[str, About]
    spans: list[Span]


RECORDING = Format(
    "a recording of gradtwin.record_run",
    b"gradtwin.run",
    ROWS,
    Header,
    lambda table, header: True,
    optional=("layout",),
)
Bits = tuple[str, tuple[int, ...], bytes]  # dtype, shape, data


def bits(name: str, tensor: torch.Tensor) -> Bits:
    """The bits of a tensor; raises TypeError if its dtype is none of DTYPES."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise TypeError(f"{name}: expected {', '.join(DTYPES)}, got {dtype}")
    return dtype, tuple(tensor.shape), _bytes(tensor)


def _bytes(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().to_dense().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


def bits_digest(tensor: torch.Tensor) -> bytes:
    """A digest of the bits of a tensor."""
    return hashlib.blake2b(_bytes(tensor), digest_size=DIGEST_BYTES).digest()


def values(bits: Bits) -> np.ndarray:
    """The numbers as an array; bfloat16, which NumPy lacks, as the same numbers in float32."""
    dtype, shape, data = bits
    tensor = torch.from_numpy(np.frombuffer(data, np.uint8).copy()).view(DTYPES[dtype])
    return (tensor.float() if dtype == "bfloat16" else tensor).numpy().reshape(shape)


class Quantity(NamedTuple):
    """A tensor that is recorded, and how: as a sketch, with dense sums or not, by its bits, by
    their digest, or, at the start, by the sums of short parts."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    form: str

    @property
    def size(self) -> int:
        """The bytes of its data, of a sketch none."""
        n = math.prod(self.shape) * (2 if self.dtype.startswith("complex") else 1)
        if self.form == BITS:
            return DTYPES[self.dtype].itemsize * n
        return {DIGEST: DIGEST_BYTES, SUMS: 4 * start_parts(n)}.get(self.form, 0)


@dataclass(frozen=True)
class Layout:
    """What the data of a step are of, in their order."""

    loss: str  # its dtype
    quantities: tuple[Quantity, ...]

    @functools.cached_property
    def sketched(self) -> list[str]:
        return [q.name for q in self.quantities if q.form in SKETCHES]

    @functools.cached_property
    def number(self) -> Any:
        """The dtype of sketches."""
        wide = any(q.dtype == "float64" for q in self.quantities if q.form in SKETCHES)
        return np.dtype("<f8" if wide else "<f4")

    @functools.cached_property
    def size(self) -> int:
        """The bytes of the data."""
        sketches = len(self.sketched) * WIDTH * self.number.itemsize
        return int(sketches + sum(q.size for q in self.quantities))

    def encode(self) -> str:
        return json.dumps([self.loss, self.quantities])


@functools.lru_cache(maxsize=64)
def layout_of(text: str) -> Layout:
    """The layout. ValueError for what is none."""
    loss, quantities = msgspec.json.decode(text, type=tuple[str, tuple[Quantity, ...]])
    for q in quantities:
        if q.form not in (*SKETCHES, DIGEST, BITS, SUMS) or min(q.shape, default=0) < 0:
            raise ValueError(f"{q.name}: expected a form and a shape, got {q.form} {q.shape}")
        if q.form == BITS and q.dtype not in DTYPES:
            raise ValueError(f"{q.name}: expected {', '.join(DTYPES)}, got {q.dtype}")
    if loss not in DTYPES:
        raise ValueError(f"loss: expected {', '.join(DTYPES)}, got {loss}")
    return Layout(loss, quantities)


@dataclass(frozen=True)
class Step:
    """What is recorded of one step."""

    number: int
    loss: float
    layout: Layout
    data: bytes

    def sketches(self) -> np.ndarray:
        """(sketched quantities, 17)"""
        kind, n = self.layout.number, len(self.layout.sketched)
        return np.frombuffer(self.data, kind, n * WIDTH).reshape(n, WIDTH)

    def others(self) -> dict[str, tuple[Quantity, bytes]]:
        """What is kept by bits or digest, by name."""
        return {name: kept for (name, form), kept in self.pieces().items() if form != SUMS}

    def pieces(self) -> dict[tuple[str, str], tuple[Quantity, bytes]]:
        """What is not kept as a sketch, by name and form."""
        found, at = {}, len(self.layout.sketched) * WIDTH * self.layout.number.itemsize
        for q in self.layout.quantities:
            if q.form not in SKETCHES:
                found[q.name, q.form] = q, self.data[at : at + q.size]
                at += q.size
        return found

    def start_sums(self, name: str) -> np.ndarray | None:
        """Of a tensor at the start, the sums of short parts, from its bits if need be."""
        kept = self.pieces()
        if (name, SUMS) in kept:
            return np.frombuffer(kept[name, SUMS][1], "<f4")
        if (name, BITS) in kept:
            quantity, data = kept[name, BITS]
            return start_sums(torch.from_numpy(values((quantity.dtype, quantity.shape, data))))
        return None


@functools.cache
def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@functools.lru_cache(maxsize=64)
def _layout(loss: str, quantities: tuple[Quantity, ...]) -> Layout:
    """The same object for the same layout, which is quick to compare."""
    return Layout(loss, quantities)


DATA: dict[str, Callable[[str, torch.Tensor], bytes]] = {
    BITS: lambda name, tensor: bits(name, tensor)[2],
    DIGEST: lambda name, tensor: bits_digest(tensor),
    SUMS: lambda name, tensor: start_sums(tensor).astype("<f4").tobytes(),
}


def taken(
    loss: torch.Tensor, tensors: Iterable[tuple[str, torch.Tensor, str]]
) -> tuple[Layout, bytes]:
    """The layout and the data of tensors, each with its name and a form."""
    quantities, data = [], []
    sketched: list[tuple[str, torch.Tensor]] = []
    for name, tensor, form in tensors:
        quantities.append(Quantity(name, _name(tensor.dtype), tuple(tensor.shape), form))
        if form in SKETCHES:
            sketched.append((form, tensor))
        else:
            data.append(DATA[form](name, tensor))
    layout = _layout(_name(loss.dtype), tuple(quantities))
    head = np.zeros((len(sketched), WIDTH), layout.number)
    for form in dict.fromkeys(form for form, _ in sketched):
        mine = [i for i, (of, _) in enumerate(sketched) if of == form]
        head[mine] = SKETCHES[form]([sketched[i][1] for i in mine])
    return layout, b"".join([head.tobytes(), *data])


def steps_of(tables: Iterable[pa.Table], path: Path, first: int) -> Iterator[Step]:
    """The steps in rows of one run, from that one on. Damaged where they are none."""
    layout: Layout | None = None
    number = first
    for table in tables:
        few = (batch.to_pylist() for batch in table.to_batches(max_chunksize=FEW))
        for row in itertools.chain.from_iterable(few):
            where = f"{path}: run {row['run']}, step {row['step']}"
            try:
                layout = layout_of(row["layout"]) if row["layout"] is not None else layout
            except (ValueError, TypeError) as error:
                raise Damaged(f"{where}: {error}") from None
            if layout is None or row["step"] != number:
                raise Damaged(f"{where}: expected step {number}, with a layout")
            if len(row["data"]) != layout.size:
                raise Damaged(f"{where}: expected {layout.size} bytes, got {len(row['data'])}")
            yield Step(number, row["loss"], layout, row["data"])
            number += 1


@dataclass(frozen=True)
class Recorded:
    """A recording, whose steps are read when they are asked for."""

    path: Path
    runs: dict[str, About]
    walk: Callable[[int], Iterator[Step]]  # the steps of a run
    version: int = VERSION

    @property
    def steps(self) -> int:
        return int(self.runs["0"]["steps"])

    @property
    def start(self) -> int:
        """The number of the first step."""
        return int(self.runs["0"].get("start", 1))

    @property
    def precision(self) -> list[str]:
        """The dtypes that the run computes in; none where it does not say."""
        return list(self.runs["0"].get("precision", []))

    @property
    def missing(self) -> list[int]:
        """The perturbed runs that a floor still lacks."""
        return [k for k in range(1, PERTURBED + 1) if str(k) not in self.runs]

    @property
    def perturbed(self) -> list[int]:
        """The perturbed runs that there are."""
        return [k for k in range(1, PERTURBED + 1) if str(k) in self.runs]

    def complete(self) -> Recorded:
        """The recording itself; raises ValueError if the run was cut short."""
        if not self.runs["0"]["ended"]:
            why = self.runs["0"]["error"]
            raise ValueError(f"{self.path}: cut short after {self.steps} steps ({why})")
        return self

    def losses(self, run: int = 0) -> np.ndarray:
        """The loss at each step in float64, which holds all of them exactly."""
        return np.array([step.loss for step in self.walk(run)])


def describe(path: Path) -> dict[str, About]:
    """What a recording says about its runs. OSError where nothing can be read, Damaged for a file
    that is no recording."""
    if pieces.holds(path, RECORDING):
        return _header(pieces.Pieces(path, RECORDING))[0]
    from . import version1

    return version1.describe(path)


def read(path: Path) -> Recorded:
    """The recording, or what a run that was killed has left of one. OSError where nothing can be
    read, Damaged, a ValueError, for a file that is no recording or is damaged; what is damaged in a
    piece shows when it is read."""
    from . import parts, version1

    if not path.exists() and parts.left(path):
        return parts.recovered(path)
    if not pieces.holds(path, RECORDING):
        return version1.read(path)
    file = pieces.Pieces(path, RECORDING)
    runs, spans = _header(file)

    def walk(run: int) -> Iterator[Step]:
        mine = [i for i, span in enumerate(spans) if span["run"] == run]
        start = runs[str(run)].get("start", 1)
        number = start - 1
        for step in steps_of((file.piece(i) for i in mine), path, start):
            number = step.number
            yield step
        if number != start - 1 + runs[str(run)]["steps"]:
            raise Damaged(f"{path}: run {run}: expected {runs[str(run)]['steps']} steps")

    return Recorded(path, runs, walk)


def _header(file: pieces.Pieces) -> tuple[dict[str, About], list[Span]]:
    """The runs and the spans of the pieces."""
    runs, spans, path = file.header["runs"], file.header["spans"], file.path
    if file.header["version"] != VERSION:
        raise Damaged(f"{path}: expected version 1 or {VERSION}, got {file.header['version']}")
    if "0" not in runs or not all(k.isdecimal() for k in runs):
        raise Damaged(f"{path}: expected runs 0, 1 and so on, got {', '.join(runs) or 'none'}")
    if len(spans) != len(file.digests) or any(str(span["run"]) not in runs for span in spans):
        raise Damaged(f"{path}: expected a run of its own for each piece")
    return runs, spans


def write(
    path: Path, runs: Mapping[int, tuple[About, Iterable[pa.Table]]], old: bool = False
) -> None:
    """A new recording of these runs; with `old`, they take their places in the one that is there.
    Of the other runs everything is kept. Where it cannot be written, OSError, and the old one
    stays."""
    abouts: dict[str, About] = {}
    spans: list[Span] = []
    with pieces.writing(path, RECORDING) as writer:

        def add(run: int, table: pa.Table) -> None:
            writer.add(table.replace_schema_metadata(None))
            first, last = table["step"][0].as_py(), table["step"][-1].as_py()
            spans.append({"run": run, "first": first, "last": last})

        if old:
            before = read(path)
            for run in sorted(map(int, before.runs)):
                if run not in runs:
                    abouts[str(run)] = before.runs[str(run)]
                    for table in tables_of(run, before.walk(run)):
                        add(run, table)
        for run, (about, tables) in runs.items():
            abouts[str(run)] = about
            for table in tables:
                add(run, table)
        writer.head({"version": VERSION, "runs": abouts, "spans": spans})


PIECE = 2**23  # bytes of a piece, about


def tables_of(run: int, steps: Iterable[Step]) -> Iterator[pa.Table]:
    """Steps as rows, in tables of about PIECE bytes, each of which says its layout."""
    rows: list[tuple[Any, ...]] = []
    layout, held = None, 0
    for step in steps:
        text = step.layout.encode() if not rows or step.layout != layout else None
        rows.append((run, step.number, step.loss, text, step.data))
        layout, held = step.layout, held + len(step.data) + 64
        if held > PIECE:
            yield table_of(rows)
            rows, held = [], 0
    if rows:
        yield table_of(rows)


def table_of(rows: Iterable[tuple[Any, ...]]) -> pa.Table:
    cells = zip(zip(*rows, strict=True), ROWS, strict=True)
    return pa.table([pa.array(column, field.type) for column, field in cells], schema=ROWS)
