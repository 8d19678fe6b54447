"""What a module gives: its floating tensors, and which of them are those of another one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..trees import items
from .objects import boxed
from .state import is_numeric

if TYPE_CHECKING:
    from .recording import Call


class Incomparable(Exception):
    """A submodule of the same name that takes or gives something else.

    lacking   the numbers of the results that it has not, where it has the others
    """

    def __init__(self, said: str, lacking: Sequence[int] = ()) -> None:
        super().__init__(said)
        self.lacking = lacking


def outputs_of(y: Any) -> list[tuple[str, torch.Tensor]]:
    """The floating tensors of a result, complex ones included, in order, each with the keys that
    lead to it; those that objects hold are looked for where there are no others."""
    found = [(path, t) for path, t in items(y) if is_numeric(t)]
    if found:
        return found
    return [(path, t) for path, t in items(boxed(y, lambda t: t)) if is_numeric(t)]


def empty_in(y: Any) -> set[str]:
    """The keys that lead to nothing."""
    return {path for path, leaf in items(y) if leaf is None and path}


def matched(y: Any, call: Call, dys: Sequence[Any]) -> dict[int, torch.Tensor]:
    """Which of the results of the original's call a port's are: by their keys, if these are the
    same, else in order. It may give something where the original gives nothing. Raises
    Incomparable for others, also where some are lacking of which there is a cotangent."""
    outputs = outputs_of(y)
    if len(outputs) > len(dys):
        outputs = [(path, t) for path, t in outputs if path not in call.empty]
    numbers = {path: i for i, path in enumerate(call.paths)}
    if len(outputs) == len(dys):
        order = numbers if {path for path, _ in outputs} == set(numbers) else {}
        return {order.get(path, i): t for i, (path, t) in enumerate(outputs)}
    said = f"it gives {len(outputs)} tensors, not {len(dys)}"
    if len(outputs) == 1 and not outputs[0][0] and numbers:  # alone, not the first of a tuple
        outputs = [(call.paths[0], outputs[0][1])]
    if not call.place or not outputs or not all(path in numbers for path, _ in outputs):
        raise Incomparable(said)
    given = {numbers[path]: t for path, t in outputs}
    lacking = [i for i in numbers.values() if i not in given]
    if any(dys[i] is not None for i in lacking):
        raise Incomparable(said, lacking)
    return given
