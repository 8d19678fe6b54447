"""Tables and pictures on one self-contained page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd

from .tables import number, told_apart
from .text import plain

PAGE = Path(__file__).with_name("page.html")


class Picture(NamedTuple):
    """The content of a PNG file, and what it shows, in words."""

    content: bytes
    alt: str


def picture(figure: Any, alt: str) -> Picture:
    """A picture of matplotlib's that says in words what it shows."""
    return Picture(png(figure), alt)


def png(figure: Any) -> bytes:
    """A picture of matplotlib's as the content of a file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def page(
    frames: Mapping[str, pd.DataFrame],
    pictures: Mapping[str, Sequence[Picture]],
    summary: str,
    text: str = "",
) -> bytes:
    """One self-contained page with every table and picture; `text` keeps its lines."""
    template = jinja2.Template(PAGE.read_text(encoding="utf-8"), autoescape=True)
    return template.render(
        frames={t: told_apart(f.drop(columns=["schema", "id"])) for t, f in frames.items()},
        pictures={
            title: [(base64.b64encode(p.content).decode(), plain(p.alt)) for p in several]
            for title, several in pictures.items()
        },
        summary=plain(summary),
        text=plain(text),
        cell=lambda value: plain(number(value)),
    ).encode()
