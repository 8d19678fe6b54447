"""What other programs have logged of a training: one scalar by its steps, from a table of text,
from JSON, or from TensorBoard's event files."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..report import files
from ..report.parquet import Damaged
from ..report.text import line
from . import events

# The column that counts, by the first of these names; an epoch is many steps.
STEPS = (
    *("step", "_step", "global_step", "trainer/global_step", "train/global_step"),
    *("iteration", "iter", "epoch"),
)
# Columns that are no scalars, beside those that count.
OTHERS = ("wall time", "timestamp", "_timestamp", "_runtime", "relative time")
ENDS = ("__MIN", "__MAX")
NUMBER = re.compile(
    r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d{1,5})?|[-+]?(nan|inf|infinity)", re.IGNORECASE
)
SINGLE = 9  # digits that tell all numbers of float32 apart
LISTED = 20  # names in a message

Row = tuple[str, dict[str, str]]  # where it stands, and its cells


@dataclass(frozen=True)
class Log:
    """A scalar, as it was logged."""

    path: Path
    scalar: str  # its name
    steps: np.ndarray  # rising
    values: np.ndarray  # in float64
    slack: np.ndarray  # half a unit in the last digit that is printed
    dtype: str  # float64 where it shows so many digits, else float32
    early: bool  # whether the first value comes before any update
    note: str


@dataclass
class Table:
    """What a file holds: the texts of numbers by the name of their column, then by step."""

    columns: dict[str, dict[int, str]]
    counts: str = "step"  # the column that counts the steps, "" for none
    wrong: dict[str, str] = field(
        default_factory=dict
    )  # what is no number, of columns that have it
    means: set[str] = field(default_factory=set)  # the columns whose values are means of many
    note: str = ""


def is_log(path: Path) -> bool:
    """Whether it is taken for a log: all but what is called .parquet, which is a recording."""
    return path.suffix.lower() != ".parquet"


def read(path: Path, scalar: str | None = None) -> Log:
    """The scalar of that name, or the only one, or the one that is called loss.

    A table with a header (.csv .tsv .txt), as Weights & Biases, Lightning and TensorBoard export
    it; objects of JSON, one a line (.jsonl .ndjson) or all in a list (.json), as in the state of
    Hugging Face's Trainer; an event file of TensorBoard, or the folder of one run. Where a step has
    several values the last counts. OSError where nothing can be read; Damaged, a ValueError, for
    what is damaged; ValueError, which lists what there is, for a scalar that is not.
    """
    found = _reader(path)(path)
    name = _chosen(path, found, scalar)
    if name in found.wrong:
        raise Damaged(found.wrong[name])
    column = found.columns[name]
    steps = sorted(column)
    values = np.array([float(column[step]) for step in steps])
    slack, double = _printed(values, [column[step] for step in steps])
    means = "its values are means of several steps" if name in found.means else ""
    early = steps[0] in (0, 1) and found.counts != "epoch" and not means
    note = "; ".join(filter(None, [found.note, means]))
    dtype = "float64" if double else "float32"
    return Log(path, name, np.array(steps), values, slack, dtype, early, note)


def _reader(path: Path) -> Callable[[Path], Table]:
    if path.is_dir() or "tfevents" in path.name:
        return _events
    readers = {
        **dict.fromkeys((".csv", ".tsv", ".txt"), _csv),
        **dict.fromkeys((".jsonl", ".ndjson", ".json"), _json),
    }
    if path.suffix.lower() not in readers:
        raise ValueError(
            f"{path}: expected a recording (.parquet), a log ({' '.join(readers)}), an event file "
            "of TensorBoard or its folder"
        )
    return readers[path.suffix.lower()]


def _chosen(path: Path, found: Table, scalar: str | None) -> str:
    """The name of the column; that of a run of Weights & Biases is `run - name`."""
    names = list(found.columns)
    if scalar is not None:
        fit = [n for n in names if n == scalar] or [n for n in names if n.endswith(f" - {scalar}")]
    else:
        fit = names if len(names) == 1 else [n for n in names if _last(n) == "loss"]
    if len(fit) == 1:
        return fit[0]
    listed = ", ".join(map(line, names[:LISTED])) + (" …" if len(names) > LISTED else "")
    got = "none" if scalar is None else repr(scalar)
    if not names:
        told = f"{path}: expected a scalar by its steps, got no column of numbers"
        raise Damaged(next(iter(found.wrong.values()), told))
    raise ValueError(f"{path}: scalar: expected one of {listed}; got {got}")


def _last(name: str) -> str:
    return re.split(r" - |[/.]", name)[-1].strip().lower()


def _printed(values: np.ndarray, texts: Sequence[str]) -> tuple[np.ndarray, bool]:
    """Half a unit in the last digit that is printed, and whether these are numbers of float64.

    A format cuts off after a number of decimals or of digits, or nowhere; which, the whole column
    shows: a zero at the end is left out in some.
    """
    decimals, digits = 0, 1
    for text in filter(lambda text: math.isfinite(float(text)), texts):
        mantissa, _, exponent = text.lower().partition("e")
        whole, _, fraction = mantissa.lstrip("+-").partition(".")
        decimals = max(decimals, len(fraction) - int(exponent or 0))
        digits = max(digits, len((whole + fraction).lstrip("0")))
    size = np.where(np.isfinite(values) & (values != 0), abs(values), 1)
    unit = np.maximum(10.0**-decimals, 10.0 ** (np.floor(np.log10(size)) - digits + 1))
    finite = values[np.isfinite(values)]
    with np.errstate(over="ignore"):
        single = finite.astype(np.float32) == finite
    return unit / 2, digits > SINGLE and not single.all()


def _collected(rows: Iterable[Row]) -> Table:
    """The columns of numbers, and what is none in them."""
    kept = list(rows)
    names = list(dict.fromkeys(name for _, row in kept for name in row))
    counts = _counting(names)
    columns: dict[str, dict[int, str]] = {}
    wrong: dict[str, str] = {}
    again = False
    for number, (where, row) in enumerate(kept, start=1):
        step = _step(where, row.get(counts, "")) if counts else number
        for name, text in row.items():
            if not text or name == counts or _aside(name) or step is None:
                continue
            if NUMBER.fullmatch(text):
                column = columns.setdefault(name, {})
                again |= column.get(step, text) != text
                column[step] = text
            else:
                wrong.setdefault(name, f"{where}: {line(name)}: expected a number, got {text!r}")
    note = "of a step that has several values the last counts" if again else ""
    return Table(columns, _last(counts), wrong, note=note)


def _counting(names: Sequence[str]) -> str:
    """The column that counts the steps, or "" where they are not counted."""
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in STEPS if name in lower), "")


def _aside(name: str) -> bool:
    bare = name.split(" - ")[-1].lower()
    return bare in STEPS or bare.startswith(OTHERS) or not bare


def _step(where: str, text: str) -> int | None:
    """The number of a step; None where a row has none."""
    if not text:
        return None
    value = float(text) if NUMBER.fullmatch(text) else math.nan
    if not (abs(value) < 2**53 and value == int(value)):
        raise Damaged(f"{where}: step: expected a whole number, got {text!r}")
    return int(value)


def _csv(path: Path) -> Table:
    text = _text(path)
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise Damaged(f"{path}: expected a table: {error}") from None
    names = [name.strip() for name in lines[0]] if lines else []
    if not any(names) or any(NUMBER.fullmatch(name) for name in names):
        raise Damaged(f"{path}: expected a header with the names of columns, got {line(header)!r}")
    if not _counting(names) and names[0].lower().startswith(("relative time", "wall time")):
        raise ValueError(
            f"{path}: expected a column that counts steps, one of {', '.join(STEPS)}, got "
            f"{names[0]!r}: export it by its steps"
        )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise Damaged(f"{path}: expected different names, got {twice!r} twice")

    def rows() -> Iterator[Row]:
        for number, cells in enumerate(lines[1:], start=2):
            if cells and len(cells) != len(names):
                raise Damaged(
                    f"{path}: line {number}: expected {len(names)} cells, got {len(cells)}"
                )
            if cells:
                yield f"{path}: line {number}", dict(zip(names, map(str.strip, cells), strict=True))

    return _without_bounds(_collected(rows()))


def _without_bounds(found: Table) -> Table:
    """Without the bounds that Weights & Biases puts beside a column; where they are not the same,
    a value is the mean of many."""
    low, high = ({n: found.columns.get(n + end) for n in found.columns} for end in ENDS)
    plain = {name: c for name, c in found.columns.items() if not name.endswith(ENDS)}
    means = {name for name in plain if low[name] != high[name]}
    return replace(found, columns=plain, means=means)


def _json(path: Path) -> Table:
    """Numbers stay the texts that they are."""
    text = _text(path)

    def parsed(part: str, where: str) -> Any:
        try:
            return json.loads(part, parse_float=str, parse_int=str, parse_constant=str)
        except (ValueError, RecursionError) as error:
            raise Damaged(f"{where}: expected JSON: {line(str(error))}") from None

    if path.suffix.lower() == ".json":
        found = parsed(text, str(path))
        if isinstance(found, Mapping):  # trainer_state.json of Hugging Face
            found = found.get("log_history")
        if not isinstance(found, list):
            raise Damaged(f"{path}: expected a list of objects, or one as its log_history")
        objects = [(f"{path}: object {n}", each) for n, each in enumerate(found, start=1)]
    else:
        lines = [(f"{path}: line {n}", part) for n, part in enumerate(text.split("\n"), start=1)]
        objects = [(where, parsed(part, where)) for where, part in lines if part.strip()]

    def rows() -> Iterator[Row]:
        for where, each in objects:
            if not isinstance(each, dict):
                raise Damaged(f"{where}: expected an object, got {type(each).__name__}")
            yield where, {name: text for name, text in each.items() if isinstance(text, str)}

    return _collected(rows())


def _events(path: Path) -> Table:
    """One file, or those of a folder in the order of their names, which begin with their time."""
    paths = sorted(path.glob("*tfevents*")) if path.is_dir() else [path]
    if not paths:
        raise ValueError(f"{path}: expected a folder with event files of TensorBoard, got none")
    columns: dict[str, dict[int, str]] = {}
    notes = []
    for each in paths:
        found, cut = events.read(each)
        if cut:
            notes.append(f"{each.name} ends within a record")
        for said in found:
            if isinstance(said, events.Scalar):
                columns.setdefault(said.tag, {})[said.step] = f"{said.value:.17g}"
            else:
                columns = {
                    tag: {step: text for step, text in column.items() if step < said.step}
                    for tag, column in columns.items()
                }
    return Table({tag: column for tag, column in columns.items() if column}, note="; ".join(notes))


def _text(path: Path) -> str:
    try:
        return files.read(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Damaged(f"{path}: expected text in UTF-8") from None
