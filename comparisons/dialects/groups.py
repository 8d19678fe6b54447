"""Each tensor's own answer, from that of another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from .candidates import Candidate
from .forced import GIVEN
from .judged import Match, lost_state
from .settled import opened, reach, sensible, settled, tried
from .trajectory import Trajectory


@dataclass(frozen=True)
class Tensor:
    """A tensor by its name, and what made its trajectory. One is still that never moves."""

    name: str
    match: Match
    still: bool = False

    @classmethod
    def of(cls, record: Trajectory, match: Match, moves: bool) -> Tensor:
        """The answer for a record of one tensor, where that for another is known: by the same
        settings, or else by the fewest others that do."""
        name = record.names[0]
        if not moves:
            return cls(name, match, still=True)
        best: Match | None = None
        for candidate in _near(match.candidate):
            if candidate.free:
                found = settled(candidate, record, GIVEN)
            else:
                found = tried(candidate, record, plain=False)
            if found.leaves is None:
                return cls(name, found)
            best = found if best is None else max(best, found, key=reach)
        assert best is not None
        return cls(name, lost_state(sensible(best, record), record))


def _near(candidate: Candidate) -> Iterator[Candidate]:
    yield replace(candidate, free=())
    if "weight_decay" in candidate.settings:
        yield replace(candidate, settings={**candidate.settings, "weight_decay": 0.0}, free=())
        yield opened(candidate, {"weight_decay"})
    if not candidate.rate:
        yield opened(candidate, {"lr"})
        yield opened(candidate, {"lr", "weight_decay"})
    yield opened(candidate)


def as_groups(tensors: tuple[Tensor, ...]) -> list[list[Tensor]]:
    """The tensors of one candidate together, in the order of the first of each; those that are
    still in one of their own."""
    groups: list[list[Tensor]] = []
    for tensor in tensors:
        for group in groups:
            if _alike(tensor, group[0]):
                group.append(tensor)
                break
        else:
            groups.append([tensor])
    return groups


def _alike(one: Tensor, other: Tensor) -> bool:
    if one.still or other.still:
        return one.still and other.still
    a, b = one.match.candidate, other.match.candidate
    return (a.optimizer, a.dialects, a.settings, a.rate, one.match.leaves) == (
        b.optimizer,
        b.dialects,
        b.settings,
        b.rate,
        other.match.leaves,
    ) and np.array_equal(one.still, other.still)
