"""Tables on a page that are sorted, filtered and searched there. A page that has them stands alone:
rows are packed into it, and drawn fifty at a time by DataTables (MIT, in `vendor`)."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd
from markupsafe import Markup

from . import columns
from .kinds import KINDS, sign, tone
from .text import plain

HERE = Path(__file__).parent
SCRIPTS = ("vendor/dataTables.min.js", "tables.js", "heatmap.js")


class Picture(NamedTuple):
    """The content of a PNG file, and in words what is to be seen on it."""

    content: bytes
    alt: str


def read(path: Path) -> Markup:
    """A file of the package, to stand on a page as it is."""
    return Markup(path.read_text(encoding="utf-8"))


def template(path: Path) -> jinja2.Template:
    """A template of the package, of which all that is put in is escaped."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(path.read_text(encoding="utf-8"))


def head() -> Markup:
    """The styles of a page and its tables."""
    return Markup("<style>\n{}</style>").format(read(HERE / "page.css"))


def scripts(*others: Path) -> Markup:
    """What draws the tables, and what others a page needs; once on it, behind the tables."""
    known = {
        "ranks": {name: rank for rank, name in enumerate(KINDS)},
        "signs": {name: sign(name) for name in KINDS},
        "tones": {name: tone(name) for name in KINDS},
    }
    start = Markup("<script>\nconst KINDS = {};\n</script>").format(Markup(_json(known)))
    each = Markup("\n<script>\n{}</script>")
    files = (*(HERE / name for name in SCRIPTS), *others)
    return start + Markup("").join(each.format(read(file)) for file in files)


def table(
    name: str, frame: pd.DataFrame, file: str = "", pictures: Mapping[str, Picture] | None = None
) -> Markup:
    """A table with a column "class", below its name as a heading, and its pictures; `file` is
    where all its numbers are to be found."""
    shown = columns.ordered(frame).assign(**{"class": frame["class"].map(plain)})
    counts = shown["class"].value_counts()
    drawn = template(HERE / "table.html").render(
        name=plain(name),
        file=plain(file),
        beside=_shown(pictures or {}),
        rows=len(shown),
        counts={kind: counts[kind] for kind in sorted(counts.index, key=_rank, reverse=True)},
        packed=packed({"columns": [_column(str(c), shown) for c in shown]}),
        sign=sign,
        tone=tone,
    )
    return Markup(drawn)


def _shown(pictures: Mapping[str, Picture]) -> Markup:
    embedded = {
        plain(n): (base64.b64encode(p.content).decode(), plain(p.alt)) for n, p in pictures.items()
    }
    return Markup(template(HERE / "pictures.html").render(pictures=embedded))


def legend(frames: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """What the columns and classes of tables mean, as far as they occur."""
    heads = [(c, columns.label(str(c), f)) for f in frames.values() for c in columns.ordered(f)]
    found = {head: columns.MEANINGS[c] for c, head in heads if c in columns.MEANINGS}
    there = {kind for f in frames.values() for kind in f["class"]}
    return found | {k: KINDS[k].meaning for k in reversed(KINDS) if k in there}


def packed(value: Any) -> Markup:
    """The value as compressed JSON, in letters that mean nothing in HTML."""
    content = gzip.compress(_json(value).encode(), mtime=0)
    return Markup(base64.b64encode(content).decode())


def _column(name: str, frame: pd.DataFrame) -> dict[str, Any]:
    values = columns.values(name, frame)
    texts = [v for v in values if isinstance(v, str) and v not in ("NaN", "Infinity", "-Infinity")]
    kind = "text" if texts or not any(v is not None for v in values) else "number"
    known = {"class": "class", "max_ulp": "ulp", "ulp": "ulp"}
    return {
        "name": name,
        "label": columns.label(name, frame),
        "about": columns.MEANINGS.get(name, ""),
        "kind": known.get(name, kind),
        "subject": name == columns.subject(frame),
        "chosen": name in columns.CHOSEN_BY,
        "partner": columns.partner(name, frame),
        "values": [plain(v) if isinstance(v, str) else v for v in values],
    }


def _rank(kind: str) -> int:
    return list(KINDS).index(kind) if kind in KINDS else -1


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
