"""What a training needs to know of a model beside its rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .datasets import Data

if TYPE_CHECKING:
    from .cells import Cell

Arrays = dict[str, np.ndarray]


def _nothing(cell: Cell) -> dict[str, Any]:
    return {}


def _as_it_is(data: Data, cell: Cell) -> tuple[np.ndarray, np.ndarray]:
    return data.x, data.target


def _sizes(cell: Cell) -> str:
    return " ".join(f"{name}={value}" for name, value in cell.sizes.items() if value)


def _silent(cell: Cell, model: Callable[..., Any], parameters: Arrays) -> str:
    return ""


def _no_draw(cell: Cell, x: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Model:
    """Functions are given the cell, which knows its sizes.

    losses    task of the data → loss
    data      what it is trained on where nothing is said
    regime    how, where nothing is said; with so many samples in a mini-batch
    start     generator, data, cell → parameters as torch draws them, in float64
    size      what it is made of, by name, and how large that is where nothing is said
    settings  those of its rule
    seen      data, cell → x and target as the model takes them, sample by sample
    drawn     cell, x of a batch, generator → what is drawn at random at a step, by the keyword of
              the rule that takes it
    written   cell, its rule or mirror, parameters → what a model of language writes
    shape     the sizes as a text, "" for none
    """

    losses: Mapping[str, str]
    data: str
    start: Callable[[np.random.Generator, Data, Cell], Arrays]
    regime: str = "batch"
    batch_size: int = 32
    size: Mapping[str, float] = field(default_factory=dict)
    settings: Callable[[Cell], dict[str, Any]] = _nothing
    seen: Callable[[Data, Cell], tuple[np.ndarray, np.ndarray]] = _as_it_is
    drawn: Callable[[Cell, np.ndarray, np.random.Generator], dict[str, Any]] = _no_draw
    written: Callable[[Cell, Callable[..., Any], Arrays], str] = _silent
    shape: Callable[[Cell], str] = _sizes
