"""Mistakes as data, beside the right functions that they are made in.

A module of a set has right functions in the forms in which people write them, what each is held to,
and MISTAKES: a text that stands once in the right function, and what a tired person wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Array:
    """An array to be drawn."""

    kind: str
    shape: tuple[int, ...]
    more: dict[str, Any] = field(default_factory=dict)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        if self.kind == "normal":
            numbers = rng.standard_normal(self.shape)
            return np.asarray(self.more["scale"] * numbers + self.more["shift"])
        if self.kind == "uniform":
            return np.asarray(rng.random(self.shape))
        if self.kind == "booleans":
            return np.asarray(rng.random(self.shape) < 0.5)
        return np.asarray(rng.integers(self.more["low"], self.more["below"], size=self.shape))


def normal(*shape: int, scale: float = 1.0, shift: float = 0.0) -> Array:
    return Array("normal", shape, {"scale": scale, "shift": shift})


def uniform(*shape: int) -> Array:
    return Array("uniform", shape)


def integers(*shape: int, below: int, low: int = 0) -> Array:
    return Array("integers", shape, {"below": below, "low": low})


def booleans(*shape: int) -> Array:
    return Array("booleans", shape)


@dataclass(frozen=True)
class Call:
    args: tuple[Any, ...]
    settings: dict[str, Any]

    def draw(self, seed: int) -> tuple[list[Any], dict[str, Any]]:
        rng = np.random.default_rng(seed)
        drawn = [a.draw(rng) if isinstance(a, Array) else a for a in self.args]
        return drawn, dict(self.settings)


def call(*args: Any, **settings: Any) -> Call:
    return Call(args, settings)


@dataclass(frozen=True)
class Subject:
    """What a right function is held to, by its full name or in torch beside it, and its calls."""

    against: str | Callable[..., Any]
    calls: list[Call]


@dataclass(frozen=True)
class Mistake:
    """`cause` is its fair name, or several with " / " between them."""

    of: str
    cause: str
    old: str
    new: str
