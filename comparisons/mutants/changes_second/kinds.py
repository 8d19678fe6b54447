"""What a change of a training script is, and how it is applied."""

from typing import NamedTuple

KINDS = ("data", "forward", "backward", "optimizer", "statistics")


class Change(NamedTuple):
    """A text that stands exactly once above the lists of a file, and what replaces it.

    `kind` is empty for a harmless change, else one of KINDS; `note` says what cannot be
    checked, or where the kind is open to argument.
    """

    name: str
    old: str
    new: str
    kind: str = ""
    note: str = ""


def head(text: str) -> str:
    """The training itself: the text of a file above its list HARMLESS."""
    return text[: text.index("\nHARMLESS = [")]


def apply(text: str, change: Change) -> str:
    """The training of a file after one change."""
    above = head(text)
    if above.count(change.old) != 1:
        raise ValueError(f"{change.name}: old stands {above.count(change.old)} times, not once")
    return above.replace(change.old, change.new)
