"""Tables and pictures on one self-contained page, to find something on."""

from __future__ import annotations

import datetime
import io
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from PIL import Image

from .. import environment
from . import interactive
from .interactive import Picture
from .text import plain

PAGE = Path(__file__).with_name("page.html")


class Check(NamedTuple):
    """What a check of a gradient said."""

    name: str
    passed: bool
    text: str


def picture(figure: Any, alt: str) -> Picture:
    """A picture of matplotlib's that says in words what it shows."""
    return Picture(png(figure), alt)


def png(figure: Any) -> bytes:
    """A picture of matplotlib's as the content of a file."""
    drawn, content = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110, metadata={"Software": None})
    # Of 256 colours: a third of the size, and no line looks otherwise.
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
            content, format="png", optimize=True
        )
    return content.getvalue()


def page(
    title: str,
    summary: str,
    frames: Mapping[str, pd.DataFrame],
    pictures: Mapping[str, Mapping[str, Picture]] | None = None,
    *,
    checks: Sequence[Check] = (),
    text: str = "",
    command: str = "",
    file: str = "{}.csv",
) -> bytes:
    """One self-contained page: what was found in a line, what each check said, the tables.

    frames    each with a column "class"; its name is its heading
    pictures  of a frame, by the names of their files
    text      keeps its lines
    command   by which the page is made again
    file      where all numbers of a frame of this name are
    """
    return (
        interactive.template(PAGE)
        .render(
            title=plain(title),
            summary=plain(summary),
            checks=[Check(plain(c.name), c.passed, plain(c.text)) for c in checks],
            text=plain(text),
            legend=interactive.legend(frames),
            tables=[
                interactive.table(name, frame, file.format(name), (pictures or {}).get(name))
                for name, frame in frames.items()
            ],
            date=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z"),
            command=plain(command),
            environment={"gradtwin": metadata.version("gradtwin"), **environment.fingerprint()},
            head=interactive.head(),
            scripts=interactive.scripts(),
        )
        .encode()
    )
