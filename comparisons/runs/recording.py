"""The file of a recorded training run, written whole and read back to the bit."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from ..report import files

FORMAT = 1  # it rises when a column changes its meaning
KEY = b"gradtwin.recording"
LOSS = "loss"
PERTURBED = 6  # runs that a user records for a floor
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
About = dict[str, Any]  # what a recording says about a run: versions, settings, how it ended
Bits = tuple[str, tuple[int, ...], bytes]  # dtype, shape, data


def bits(name: str, tensor: torch.Tensor) -> Bits:
    """The numbers of a tensor; TypeError if they are not of DTYPES."""
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
        """The perturbed runs that a floor still takes."""
        return [k for k in range(1, PERTURBED + 1) if str(k) not in self.runs]

    def complete(self) -> Recorded:
        """Itself; ValueError if the run was cut short."""
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
    """What a recording says about its runs. OSError where nothing can be read, ValueError for a
    file that is no recording."""
    path.open("rb").close()
    try:
        about = json.loads((pq.read_schema(path).metadata or {})[KEY])
    except (pa.ArrowInvalid, OSError, KeyError):
        raise ValueError(
            f"{path}: expected a recording of gradtwin.record_run, got another or a truncated file"
        ) from None
    if about["format"] != FORMAT:
        raise ValueError(f"{path}: expected format {FORMAT}, got {about['format']}")
    return about["runs"]


def read(path: Path) -> Recorded:
    """The recording. OSError where nothing can be read, ValueError for a file that is no recording
    or is damaged."""
    runs = describe(path)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return Recorded(path, runs, file.read())
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: expected a whole recording, got damaged data: {error}") from None


def write(path: Path, runs: Mapping[str, About], rows: Sequence[Sequence[Any]]) -> None:
    """A new recording, or, of a perturbed run, one more run in the recording that is there."""
    cells = zip(zip(*rows, strict=True), COLUMNS, strict=True)
    table = pa.table([pa.array(column, field.type) for column, field in cells], schema=COLUMNS)
    if "0" not in runs:
        before = read(path)
        others = [k for k in before.runs if k not in runs]
        kept = before.table.filter(pc.is_in(before.table["run"], pa.array(map(int, others))))
        table, runs = pa.concat_tables([kept, table]), {**before.runs, **runs}
    about = {KEY: json.dumps({"format": FORMAT, "runs": runs})}
    buffer = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata(about), buffer, compression="zstd", write_page_checksum=True
    )
    files.write(path, buffer.getvalue())
