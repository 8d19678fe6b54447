"""What was found, as a part of a notebook's page: a verdict, its words, and a short table."""

from __future__ import annotations

import html

import pandas as pd

from . import columns, text
from .kinds import sign, tone
from .tables import number

ROWS = 50  # that are shown
STYLE = """<style>
.gradtwin-part { --right: #17692f; --other: #0b6577; --wary: #8a5a00; --undecided: #7a1fa2;
  --wrong: #b00020; --none: #59616b; color: #1f2328; background: #fff; padding: .5rem }
@media (prefers-color-scheme: dark) { .gradtwin-part { --right: #6fcf8b; --other: #62c6d8;
  --wary: #e6b450; --undecided: #cf9bea; --wrong: #ff8091; --none: #a4acb5; color: #e6e8ea;
  background: #15171a } }
.gradtwin-part pre { color: inherit; background: none; white-space: pre-wrap; margin: .4rem 0 }
.gradtwin-part div { overflow: auto; max-height: 30rem }
.gradtwin-part table { border-collapse: collapse; font: 12px/1.4 ui-monospace, monospace }
.gradtwin-part :is(th, td) { padding: .1rem .6rem; text-align: left; white-space: nowrap;
  color: inherit; background: none; border-bottom: 1px solid #8885 }
.gradtwin-part b.right { color: var(--right) } .gradtwin-part b.other { color: var(--other) }
.gradtwin-part b.wary { color: var(--wary) } .gradtwin-part b.wrong { color: var(--wrong) }
.gradtwin-part b.undecided { color: var(--undecided) } .gradtwin-part b.none { color: var(--none) }
</style>"""


def part(passed: bool, page: str, frame: pd.DataFrame) -> str:
    """The first line of the page in the colour of the verdict, the others, and rows of a table,
    the class and what it is about at the left, the margin beside."""
    first, _, others = page.partition("\n")
    verdict = f"<b class={'right' if passed else 'wrong'}>{'✓' if passed else '✗'} "
    return (
        f'{STYLE}<div class="gradtwin-part">{verdict}{_escaped(first)}</b>'
        f"<pre>{_escaped(others)}</pre>{_table(frame)}</div>"
    )


def _table(frame: pd.DataFrame) -> str:
    shown = columns.ordered(frame.head(ROWS))
    heads = "".join(f"<th>{_escaped(columns.label(str(c), frame))}</th>" for c in shown)
    values = [_column(str(c), shown) for c in shown]
    lines = [f"<tr>{''.join(cells)}</tr>\n" for cells in zip(*values, strict=True)]
    more = len(frame) - len(shown)
    told = f"<p>… and {more:,} more rows</p>" if more else ""
    head, body = f"<thead><tr>{heads}</tr></thead>", f"<tbody>{''.join(lines)}</tbody>"
    return f"<div><table>{head}{body}</table></div>{told}"


def _column(name: str, frame: pd.DataFrame) -> list[str]:
    """The cells: what is compared with as many digits as tell it apart, nothing where nothing was
    measured."""
    if name == "class":
        return [f"<td><b class={tone(k)}>{sign(k)} {_escaped(k)}</b></td>" for k in frame[name]]
    measured, other = columns.measured(name, frame), columns.partner(name, frame)
    if other:
        pairs = zip(frame[name], frame[other], strict=True)
        texts = [text.apart(*pair, least=4)[0].replace("nan", "") for pair in pairs]
    else:
        texts = [number(value) for value in frame[name]]
    return [
        f"<td>{_escaped(t or ('NaN' if known else ''))}</td>"
        for t, known in zip(texts, measured, strict=True)
    ]


def _escaped(words: object) -> str:
    return html.escape(text.plain(str(words)))
