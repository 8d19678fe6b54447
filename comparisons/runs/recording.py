"""The file of a recorded training run, written whole and read back to the bit."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from ..report import parquet
from ..report.parquet import Damaged, Format

LOSS = "loss"
PERTURBED = 6  # the number of perturbed runs that a floor takes
DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}

# A row for each quantity of each step: `data` are its bits, and `value`, of a loss, the number.
COLUMNS = pa.schema(
    [
        ("run", pa.int32()),  # 0, or the number of a perturbed run
        ("step", pa.int32()),  # from 1
        ("quantity", pa.string()),
        ("dtype", pa.string()),
        ("shape", pa.list_(pa.int64())),
        ("value", pa.float64()),
        ("data", pa.large_binary()),
    ]
)


class About(TypedDict):
    """What a recording says about one of its runs."""

    ended: bool
    error: str  # of a run that was cut short
    steps: int
    dtype: str  # of the loss
    settings: dict[str, bool]
    torch: str
    numpy: str
    gradtwin: str


class Header(TypedDict):
    """What a recording says about itself: its runs by number, 0 or that of a perturbed one."""

    format: int
    runs: dict[str, About]


RECORDING = Format(
    "a recording of gradtwin.record_run",
    b"gradtwin.recording",
    COLUMNS,
    Header,
    lambda table, header: True,  # version 1 had the checksums of its pages alone
    optional=("value",),
)
Bits = tuple[str, tuple[int, ...], bytes]  # dtype, shape, data


def bits(name: str, tensor: torch.Tensor) -> Bits:
    """The bits of a tensor; raises TypeError if its dtype is none of DTYPES."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise TypeError(f"{name}: expected {', '.join(DTYPES)}, got {dtype}")
    flat = tensor.detach().to_dense().cpu().contiguous().reshape(-1)
    return dtype, tuple(tensor.shape), flat.view(torch.uint8).numpy().tobytes()


def values(bits: Bits) -> np.ndarray:
    """The numbers as an array; bfloat16, which NumPy lacks, as the same numbers in float32."""
    dtype, shape, data = bits
    tensor = torch.from_numpy(np.frombuffer(data, np.uint8).copy()).view(DTYPES[dtype])
    return (tensor.float() if dtype == "bfloat16" else tensor).numpy().reshape(shape)


@dataclass(frozen=True)
class Recorded:
    """A recording, as it is in its file."""

    path: Path
    runs: dict[str, About]
    table: pa.Table

    @property
    def steps(self) -> int:
        return int(self.runs["0"]["steps"])

    @property
    def missing(self) -> list[int]:
        """The perturbed runs that a floor still lacks."""
        return [k for k in range(1, PERTURBED + 1) if str(k) not in self.runs]

    def complete(self) -> Recorded:
        """The recording itself; raises ValueError if the run was cut short."""
        if not self.runs["0"]["ended"]:
            why = self.runs["0"]["error"]
            raise ValueError(f"{self.path}: cut short after {self.steps} steps ({why})")
        return self

    def bits(self) -> dict[tuple[int, str], Bits]:
        """What the run itself recorded, by step and quantity, in that order."""
        rows = self.table.filter(pc.field("run") == 0)
        names = ("step", "quantity", "dtype", "shape", "data")
        cells = zip(*(rows[name].to_pylist() for name in names), strict=True)
        return {(step, name): (kind, tuple(shape), data) for step, name, kind, shape, data in cells}

    def losses(self, run: int = 0) -> np.ndarray:
        """The loss at each step in float64, which holds all of them exactly."""
        chosen = (pc.field("run") == run) & (pc.field("quantity") == LOSS)
        return self.table.filter(chosen)["value"].to_numpy()


def describe(path: Path) -> dict[str, About]:
    """What a recording says about its runs. OSError where nothing can be read, Damaged for a file
    that is no recording."""
    runs: dict[str, About] = parquet.header(path, RECORDING)["runs"]
    return runs


def read(path: Path) -> Recorded:
    """The recording. OSError where nothing can be read, Damaged, a ValueError, for a file that is
    no recording or is damaged."""
    table, header = parquet.read(path, RECORDING)
    runs = header["runs"]
    if "0" not in runs or not all(k.isdecimal() for k in runs):
        raise Damaged(f"{path}: expected runs 0, 1 and so on, got {', '.join(runs) or 'none'}")
    wrong = next(_misfits(table, runs), "")
    if wrong:
        raise Damaged(f"{path}: {wrong}")
    return Recorded(path, runs, table)


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


def write(path: Path, runs: Mapping[str, About], rows: Sequence[Sequence[Any]]) -> None:
    """A new recording, or, of a perturbed run, one more run in the recording that is there. Where
    it cannot be written, it is kept in a second place, which the OSError names."""
    cells = zip(zip(*rows, strict=True), COLUMNS, strict=True)
    table = pa.table([pa.array(column, field.type) for column, field in cells], schema=COLUMNS)
    if "0" not in runs:
        before = read(path)
        others = [k for k in before.runs if k not in runs]
        kept = before.table.filter(pc.is_in(before.table["run"], pa.array(map(int, others))))
        plain = kept.replace_schema_metadata(None)
        table, runs = pa.concat_tables([plain, table]), {**before.runs, **runs}
    header = {"runs": dict(runs)}
    try:
        parquet.write(path, RECORDING, table, header)
    except OSError as error:
        second = Path(tempfile.mkdtemp(prefix="gradtwin-")) / path.name
        parquet.write(second, RECORDING, table, header)
        text = f"{error.strerror}; what was recorded is kept in {second}"
        raise OSError(error.errno, text, str(path)) from None
