"""A table, shown: on the terminal, and as CSV, Parquet, Markdown, PNG and HTML files that appear
whole or not at all."""

from __future__ import annotations

import base64
import io
import os
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from . import datasets, verdict

if TYPE_CHECKING:
    from .curves import Comparison

SCHEMA = 1  # of every table; it rises when a column changes its meaning

STYLES = {
    verdict.IDENTICAL: "green",
    verdict.ROUNDING: "green",
    verdict.REFERENCE_IMPRECISE: "cyan",
    verdict.IMPRECISE: "yellow",
    verdict.PARTED: "yellow",
    verdict.UNDECIDED: "magenta",
    verdict.DIFFERENT: "bold red",
    "unsupported": "yellow",
    "n/a": "dim",
    "no rule": "dim",
    "not judgeable": "dim",
    "caught": "green",
    "quiet": "green",
    "missed": "bold red",
    "alarm": "bold red",
}


def table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows as a frame, schema version first, sorted by nothing: the order is that of the
    run."""
    frame = pd.DataFrame(list(rows))
    frame.insert(0, "schema", SCHEMA)
    return frame


def folder(path: Path) -> Path:
    """The folder, made if need be; OSError with a clear text if nothing can be written there."""
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
        pass
    return path


def write(path: Path, content: bytes) -> Path:
    """Writes the file in one go: a reader sees the old one or the new one, whole."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def save(frame: pd.DataFrame, name: str, out: Path) -> list[Path]:
    """CSV and Parquet of the whole frame, Markdown for people; floats are kept to the last bit in
    the first two."""
    return [write(out / file, content) for file, content in contents(frame, name).items()]


def contents(frame: pd.DataFrame, name: str) -> dict[str, bytes]:
    """What `save` writes, by file name."""
    parquet = io.BytesIO()
    frame.to_parquet(parquet, index=False)
    markdown = frame.drop(columns=["schema", "id"]).to_markdown(index=False, floatfmt=".4g")
    return {
        f"{name}.csv": frame.to_csv(index=False).encode(),
        f"{name}.parquet": parquet.getvalue(),
        f"{name}.md": (markdown + "\n").encode(),
    }


def schedules_figure(drawn: Sequence[tuple[str, Mapping[str, np.ndarray]]]) -> Figure:
    """Every schedule by hand, by torch step by step, and in torch's closed form; above, where it
    moves, the momentum."""
    columns = min(len(drawn), 5)
    lines = -(-len(drawn) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.6 * lines), layout="constrained")
    cells = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in cells[len(drawn) :]:
        axes.axis("off")
    for axes, (title, quantities) in zip(cells, drawn, strict=False):
        for quantity, (ours, theirs, *closed) in quantities.items():
            if quantity == "momentum":
                axes = axes.twinx()
                axes.tick_params(labelsize=6, colors="0.5")
            shade = 1.0 if quantity == "lr" else 0.4
            axes.plot(theirs, color="tab:orange", linewidth=3, alpha=0.6 * shade, label="torch")
            for curve in closed:
                axes.plot(curve, ":", color="tab:green", linewidth=2, label="torch, closed form")
            axes.plot(ours, color="tab:blue", linewidth=0.9, alpha=shade, label="manual")
            if quantity == "lr":
                axes.set_title(textwrap.fill(title, 44), fontsize=6)
                axes.tick_params(labelsize=6)
    cells[0].legend(fontsize=6)
    return figure


def curves_figure(comparisons: Sequence[Comparison]) -> Figure:
    """Both loss curves of every cell, and beneath each the drift between them and its floor."""
    columns = min(len(comparisons), 4)
    lines = -(-len(comparisons) // columns)
    figure = Figure(figsize=(4.6 * columns, 4.4 * lines), layout="constrained")
    cells = np.atleast_1d(figure.subfigures(lines, columns, squeeze=False)).ravel()
    for part, c in zip(cells, comparisons, strict=False):
        above, below = part.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        steps = np.arange(1, len(c.reference) + 1)
        above.plot(steps, c.reference, color="tab:orange", linewidth=2.5, alpha=0.6, label="torch")
        above.plot(steps, c.manual, color="tab:blue", linewidth=0.8, label="manual")
        title = [
            c.row["model"],
            c.row["data"],
            f"{c.row['optimizer']} lr={c.row['lr']:g}",
            c.row["settings"],
        ]
        above.set_title(
            "\n".join(
                [
                    " · ".join(w for w in title if w),
                    f"{c.row['regime']} · {c.row['dtype']} · {c.row['class']}",
                ]
            ),
            fontsize=9,
        )
        above.set_ylabel("loss")
        finite = c.reference[np.isfinite(c.reference)]
        if finite.size and finite.min() > 0 and finite.max() > 20 * finite.min():
            above.set_yscale("log")
        above.legend(fontsize=8)
        allowed, label = verdict.LIMIT * c.drift.floor, f"{verdict.LIMIT:g} floors"
        below.fill_between(steps, allowed, color="0.85", label=label)
        below.plot(steps, c.drift.floor, color="0.45", linewidth=0.8, label="floor")
        below.plot(
            steps,
            np.where(c.drift.drift > 0, c.drift.drift, np.nan),
            ".",
            color="tab:red",
            markersize=2,
            label="drift",
        )
        below.set_yscale("log")
        below.set_ylabel("|Δ loss|")
        below.set_xlabel("step")
        below.legend(fontsize=8, loc="lower right")
    return figure


def fit_figure(manual: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> Figure:
    """The textbook line: the points, the truth, and the line that each side fitted."""
    data = datasets.load("line")
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    ends = np.array([0.0, 2.0])
    axes.plot(data.x[:, 0], data.target[:, 0], ".", color="0.6", label="2x + 1 + 0.3·noise")
    axes.plot(ends, 2 * ends + 1, ":", color="k", label="y = 2x + 1")
    for name, p, width in (("torch", reference, 4.0), ("manual", manual, 1.2)):
        slope, offset = p["weight"].item(), p["bias"].item()
        axes.plot(
            ends,
            slope * ends + offset,
            linewidth=width,
            alpha=0.7,
            label=f"{name}: {slope:.6f} x + {offset:.6f}",
        )
    axes.set_xlabel("x")
    axes.set_ylabel("y")
    axes.legend()
    return figure


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


PAGE = Path(__file__).with_name("page.html")


def page(
    frames: Mapping[str, pd.DataFrame],
    pictures: Mapping[str, Sequence[bytes]],
    summary: str,
    text: str = "",
) -> bytes:
    """One self-contained page with every table and picture; `text` keeps its lines."""
    template = jinja2.Template(PAGE.read_text(encoding="utf-8"), autoescape=True)
    return template.render(
        frames={title: frame.drop(columns=["schema", "id"]) for title, frame in frames.items()},
        pictures={t: [base64.b64encode(p).decode() for p in ps] for t, ps in pictures.items()},
        summary=summary,
        text=text,
        cell=number,
    ).encode()


def number(value: Any) -> str:
    """A value for people: four digits of a float, nothing for a missing one."""
    if (
        value is None
        or value is pd.NA
        or value is pd.NaT
        or (isinstance(value, float) and np.isnan(value))
    ):
        return ""
    long = isinstance(value, int) and abs(value) >= 10**6
    return f"{value:.4g}" if isinstance(value, float) or long else str(value)


Column = tuple[str, int, Callable[[Mapping[str, Any]], Any]]


def line(columns: Sequence[Column], row: Mapping[str, Any] | None = None) -> str:
    """One line of a table on the terminal, cut to the columns' widths; the header without a row."""
    cells = []
    for title, width, value in columns:
        text = title if row is None else number(value(row))
        text = text if len(text) <= abs(width) else text[: abs(width) - 1] + "…"
        cells.append(text.ljust(width) if width > 0 else text.rjust(-width))
    return " ".join(cells)
