"""The compound backward passes that are written in a closed form, and what is left out of them.

A softmax or a norm that the reference composes of simple steps is written by hand as one: for
y = softmax(x) as p (dy − Σ dy p). A value of the trace is known for such a function of another by
what it is, however it was computed; then its share of the cotangent is made as a mistake would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

Forms = dict[str, tuple[str, torch.Tensor]]  # the gradient with a mistake, its cause, by text


class Form(NamedTuple):
    """A function along an axis, by name: whether y is that of x, and what is made of its slope."""

    name: str
    is_it: Callable[[torch.Tensor, torch.Tensor, int], bool]
    wrong: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int], Forms]


def _alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool(torch.allclose(a, b, 1e-9, 1e-12))


def _constant(a: torch.Tensor, axis: int) -> bool:
    """Whether it is the same all along an axis."""
    return _alike(a, a.mean(axis, keepdim=True).expand_as(a))


def _sum(a: torch.Tensor, axis: int) -> torch.Tensor:
    return a.sum(axis, keepdim=True)


def _mean(a: torch.Tensor, axis: int) -> torch.Tensor:
    return a.mean(axis, keepdim=True)


def _is_softmax(x: torch.Tensor, y: torch.Tensor, axis: int) -> bool:
    return _alike(y, torch.softmax(x, axis))


def _of_softmax(x: torch.Tensor, p: torch.Tensor, dy: torch.Tensor, axis: int) -> Forms:
    right = p * (dy - _sum(dy * p, axis))
    return {
        "p dy, without p Σ p dy": ("missing term", p * dy),
        "p (1 − p) dy, of each element by itself": ("missing term", p * (1 - p) * dy),
        "dy − Σ p dy, without the factor p": ("elementwise factor", dy - _sum(dy * p, axis)),
        "p (dy − Σ dy)": ("elementwise factor", p * (dy - _sum(dy, axis))),
        "p (dy − mean of p dy)": ("factor", p * (dy - _mean(dy * p, axis))),
        "with p twice": ("elementwise factor", p * right),
    }


def _is_log_softmax(x: torch.Tensor, y: torch.Tensor, axis: int) -> bool:
    return _alike(y, torch.log_softmax(x, axis))


def _of_log_softmax(x: torch.Tensor, y: torch.Tensor, dy: torch.Tensor, axis: int) -> Forms:
    p = y.exp()
    return {
        "dy, without p Σ dy": ("missing term", dy),
        "− p Σ dy, without dy": ("missing term", -p * _sum(dy, axis)),
        "dy − Σ dy, without the factor p": ("elementwise factor", dy - _sum(dy, axis)),
        "dy − p dy": ("missing term", dy - p * dy),
        "dy − y Σ dy": ("operand", dy - y * _sum(dy, axis)),
        "dy − x Σ dy": ("operand", dy - x * _sum(dy, axis)),
    }


def _deviation(x: torch.Tensor, y: torch.Tensor, axis: int) -> torch.Tensor:
    """By what x − mean has to be divided to make y, along the axis."""
    centred = x - _mean(x, axis)
    return _sum(centred * centred, axis) / _sum(centred * y, axis)


def _is_norm(x: torch.Tensor, y: torch.Tensor, axis: int) -> bool:
    centred = x - _mean(x, axis)
    if x.shape[axis] < 3:
        return False
    sigma = _deviation(x, y, axis)
    near = (sigma * sigma - _mean(centred * centred, axis)).abs() <= 0.1 * sigma * sigma
    return _alike(centred, y * sigma) and bool(near.all())


def _of_norm(x: torch.Tensor, y: torch.Tensor, dy: torch.Tensor, axis: int) -> Forms:
    """With ŷ y of the deviation with its eps: (dy − mean dy − ŷ mean(dy ŷ)) / σ, as eps is in σ."""
    sigma, centred = _deviation(x, y, axis), x - _mean(x, axis)
    first, second = _mean(dy, axis), y * _mean(dy * y, axis)
    other = {"x": x, "x − mean": centred}
    found: Forms = {
        "without the mean of dy": ("missing term", (dy - second) / sigma),
        "without x̂ mean(dy x̂)": ("missing term", (dy - first) / sigma),
        "dy / σ alone": ("missing term", dy / sigma),
        "without the factor 1 / σ": ("elementwise factor", dy - first - second),
        "with the factor 1 / σ twice": ("elementwise factor", (dy - first - second) / sigma**2),
    }
    for name, v in other.items():
        found |= {
            f"with {name} in the place of x̂": (
                "operand",
                (dy - first - v * _mean(dy * v, axis)) / sigma,
            ),
            f"with {name} in the place of x̂ before mean(dy x̂)": (
                "operand",
                (dy - first - v * _mean(dy * y, axis)) / sigma,
            ),
            f"with {name} in the place of x̂ in mean(dy x̂)": (
                "operand",
                (dy - first - y * _mean(dy * v, axis)) / sigma,
            ),
        }
    return found


def _scale(x: torch.Tensor, y: torch.Tensor, axis: int) -> tuple[torch.Tensor, float]:
    """By what x has to be divided to make y along the axis, and 1 if that is about its length, 1/n
    if it is the root of its mean square, 0 if it is neither."""
    square, scaled_by = _sum(x * x, axis), 0.0
    scale = square / _sum(x * y, axis)
    for part in (1.0, 1 / x.shape[axis]):
        size = (part * square).sqrt()
        if bool(((scale - size).abs() <= 0.05 * size).all()):
            scaled_by = part
    return scale, scaled_by


def _is_scaled(x: torch.Tensor, y: torch.Tensor, axis: int) -> bool:
    scale, part = _scale(x, y, axis)
    return bool(part) and _alike(x, y * scale) and not _constant(scale, 0)


def _of_scaled(x: torch.Tensor, y: torch.Tensor, dy: torch.Tensor, axis: int) -> Forms:
    """(dy − x̂ Σ dy x̂) / length, or the mean in the place of the sum."""
    scale, part = _scale(x, y, axis)
    inner, of_x = part * _sum(dy * y, axis), part * _sum(dy * x, axis)
    return {
        "dy over the length, without x̂ Σ dy x̂": ("missing term", dy / scale),
        "− x̂ Σ dy x̂ over the length, without dy": ("missing term", -y * inner / scale),
        "without the factor of the length": ("elementwise factor", dy - y * inner),
        "with the factor of the length twice": ("elementwise factor", (dy - y * inner) / scale**2),
        "with the mean of dy taken off": (
            "extra term",
            (dy - _mean(dy, axis) - y * inner) / scale,
        ),
        "with x in the place of x̂": ("operand", (dy - x * of_x) / scale),
        "with x in the place of x̂ before Σ dy x̂": ("operand", (dy - x * inner) / scale),
        "with x in the place of x̂ in Σ dy x̂": ("operand", (dy - y * of_x) / scale),
        "without the factor x̂ before Σ dy x̂": ("elementwise factor", (dy - inner) / scale),
    }


FORMS = (
    Form("softmax", _is_softmax, _of_softmax),
    Form("log_softmax", _is_log_softmax, _of_log_softmax),
    Form("a norm", _is_norm, _of_norm),
    Form("x over its length", _is_scaled, _of_scaled),
)


def recognised(x: torch.Tensor, y: torch.Tensor) -> Iterator[tuple[Form, int]]:
    """Which functions along which axes make y of x."""
    if x.shape != y.shape or not x.ndim or x.numel() < 2:
        return
    for axis in range(-1, -x.ndim - 1, -1):
        for form in FORMS:
            if x.shape[axis] > 1 and form.is_it(x, y, axis):
                yield form, axis
