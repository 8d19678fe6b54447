"""Inputs as data: what each rule and each optimizer is tried on.

SAMPLES are ordinary points, CORNERS are points where the derivative is a convention or the
arithmetic is hard. A row is the call as one would write it, with a description in place of each
array; `Call.draw` makes the arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...manual.trees import tree_map


@dataclass(frozen=True)
class Array:
    """An array to be drawn: its text, and the function of (generator, dtype) that draws it."""

    text: str
    draw: Callable[[np.random.Generator, Any], np.ndarray]

    def __repr__(self) -> str:
        return self.text


def written(settings: Mapping[str, Any]) -> str:
    """Settings as one would write them."""
    return ", ".join(f"{k}={'λ' if callable(v) else v}" for k, v in settings.items())


def _literal(value: Any) -> str:
    """A value as one would write it, a function by its name."""
    return getattr(value, "__name__", "") or repr(value)


def _text(name: str, shape: tuple[int, ...]) -> str:
    return f"{name}({', '.join(map(str, shape))})"


def array(*shape: int, scale: float = 1.0) -> Array:
    """Normal numbers of the given standard deviation."""
    text = _text("array", shape) if scale == 1 else f"{scale:g} * {_text('array', shape)}"
    return Array(text, lambda rng, dtype: np.asarray(scale * rng.standard_normal(shape), dtype))


def uniform(*shape: int) -> Array:
    """Uniform numbers between 0 and 1."""
    return Array(_text("uniform", shape), lambda rng, dtype: np.asarray(rng.random(shape), dtype))


def classes(*shape: int, below: int) -> Array:
    """Class indices."""
    text = _text("classes", shape)
    return Array(text, lambda rng, dtype: np.asarray(rng.integers(below, size=shape), np.int64))


def positive(*shape: int, scale: float = 1.0) -> Array:
    """The sizes of normal numbers of the given standard deviation."""
    text = _text("positive", shape) if scale == 1 else f"{scale:g} * {_text('positive', shape)}"
    return Array(
        text, lambda rng, dtype: np.asarray(scale * abs(rng.standard_normal(shape)), dtype)
    )


def log_probabilities(*shape: int) -> Array:
    """Logarithms of numbers that add up to 1 over the last axis."""

    def draw(rng: np.random.Generator, dtype: Any) -> np.ndarray:
        x = rng.standard_normal(shape)
        return np.asarray(x - np.log(np.exp(x).sum(axis=-1, keepdims=True)), dtype)

    return Array(_text("log_probabilities", shape), draw)


def signs(*shape: int) -> Array:
    """Floating numbers 1 and −1."""
    text = _text("signs", shape)
    return Array(text, lambda rng, dtype: np.asarray(2 * rng.integers(2, size=shape) - 1, dtype))


def truths(*shape: int) -> Array:
    """True and False."""
    return Array(_text("truths", shape), lambda rng, dtype: rng.random(shape) < 0.5)


def values(numbers: Any) -> Array:
    """The numbers themselves, in the dtype asked for; whole ones without a point, and truth values,
    stay what they are."""
    own = np.asarray(numbers).dtype
    return Array(
        f"{numbers}", lambda rng, dtype: np.asarray(numbers, own if own.kind in "ib" else dtype)
    )


@dataclass(frozen=True)
class Call:
    """The arguments of one call, arrays described."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __repr__(self) -> str:
        settings = [f"{k}={_literal(v)}" for k, v in self.kwargs.items()]
        return ", ".join([*map(_literal, self.args), *settings])

    def draw(self, seed: int, dtype: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with all arrays drawn; the same numbers, rounded, in every dtype."""
        rng = np.random.default_rng(seed)
        made = tree_map(
            lambda a: a.draw(rng, dtype) if isinstance(a, Array) else a, (self.args, self.kwargs)
        )
        return made[0], made[1]


def call(*args: Any, **kwargs: Any) -> Call:
    return Call(args, kwargs)
