"""Text of users, names, paths and messages of errors, for where it is shown: one function for each
place, so that it stands there as it is and does nothing."""

from __future__ import annotations

import unicodedata


def plain(text: str) -> str:
    """The text for a terminal: what moves its cursor, rings, changes its colours or turns the
    direction of letters is written out; lines and tabs stay."""
    return "".join(map(_shown, text))


def line(text: str) -> str:
    """The text for one line: as `plain`, but lines and tabs are blanks."""
    return plain(" ".join(text.split()))


def markdown(text: str) -> str:
    """The text for a cell of a Markdown table."""
    written = line(text)
    for sign in "\\|`<[":
        written = written.replace(sign, f"\\{sign}")
    return written


def xml(text: str) -> str:
    """The text for XML, whose writer takes care of its own signs but not of those that it may not
    have."""
    return "".join(c if c in "\t\n" or _allowed(c) else _code(c) for c in text)


def digits(*numbers: float, least: int = 6) -> int:
    """How many digits tell numbers apart that differ, at least so many."""
    known = len({f"{x:.17g}" for x in numbers})
    enough = (n for n in range(least, 17) if len({f"{x:.{n}g}" for x in numbers}) == known)
    return next(enough, 17)


def apart(*numbers: float, least: int = 6) -> list[str]:
    """Numbers that are to be compared, with as many digits as tell them apart."""
    enough = digits(*numbers, least=least)
    return [f"{x:.{enough}g}" for x in numbers]


def said(error: BaseException) -> str:
    """The text of an error, which may itself raise one."""
    try:
        return str(error)
    except Exception as other:
        return f"(its text raises {type(other).__name__})"


def raised(error: BaseException) -> str:
    """The type of an error and the first line of its text, no longer than a line may be."""
    lines = said(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:150]}" if lines else type(error).__name__


def _shown(c: str) -> str:
    return (
        c
        if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
        else _code(c)
    )


def _allowed(c: str) -> bool:
    return c >= " " and not "\x7f" <= c <= "\x9f" and not "\ud800" <= c <= "\udfff" and c < "\ufffe"


def _code(c: str) -> str:
    return c.encode("unicode_escape").decode("ascii")
