"""The words for what a row is: how each is shown, from harmless to wrong, and what it means."""

from __future__ import annotations

from typing import NamedTuple

from ..verdict.classes import (
    CONVENTION,
    DIFFERENT,
    IDENTICAL,
    IMPRECISE,
    PARTED,
    REFERENCE_IMPRECISE,
    ROUNDING,
    UNDECIDED,
)


class Kind(NamedTuple):
    """How a class is shown."""

    tone: str  # one of SIGNS
    meaning: str


SIGNS = {"right": "✓", "other": "✓", "wary": "!", "undecided": "?", "wrong": "✗", "none": "–"}

KINDS = {
    "n/a": Kind("none", "cannot be judged here; the note says why"),
    "no rule": Kind("none", "there is no rule by hand for it"),
    "not judgeable": Kind("none", "the call cannot be made in the rule's signature"),
    "on purpose": Kind("none", "refused, as it should be"),
    "not to be seen": Kind("none", "the change is below the resolution"),
    IDENTICAL: Kind("right", "the same bits"),
    ROUNDING: Kind("right", "within the floor: no further apart than rounding brings it"),
    "quiet": Kind("right", "what is right, and was not called wrong"),
    "found": Kind("right", "a change that is wrong, and it was found"),
    "caught": Kind("right", "a planted mistake, and it was found"),
    "new": Kind("other", "was not there before"),
    "better": Kind("other", "its margin has shrunk"),
    REFERENCE_IMPRECISE: Kind("other", "the reference loses digits: ours agrees with the exact"),
    CONVENTION: Kind("other", "another slope at a kink"),
    "unsupported": Kind("wary", "a shape or layout that the call does not show to be meant"),
    IMPRECISE: Kind("wary", "outside the floor, but only digits are lost: the formula is right"),
    PARTED: Kind("wary", "every step is right, and the free runs part all the same"),
    "removed": Kind("wary", "was there before"),
    UNDECIDED: Kind("undecided", "it repeats differently, or too little of it is seen"),
    "worse": Kind("wrong", "its margin has grown"),
    "missed": Kind("wrong", "a planted mistake that was not found"),
    "alarm": Kind("wrong", "what is right, and was called wrong"),
    DIFFERENT: Kind("wrong", "outside the floor, and not by digits alone: a mistake"),
}


def sign(kind: str) -> str:
    """A letter beside a class, so that its colour is never alone."""
    return SIGNS[KINDS[kind].tone] if kind in KINDS else SIGNS["none"]


def tone(kind: str) -> str:
    """The name of the colour of a class, one of SIGNS."""
    return KINDS[kind].tone if kind in KINDS else "none"
