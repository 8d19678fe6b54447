"""What a subject is called with: the caller's arrays, our samples and corners, or torch's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ...reference.adapters import array, is_differentiable, leaves, tree_map
from .. import ops
from ..ops import torch_samples
from ..ops.arguments import signature_of
from ..ops.torch_samples import Sample
from ..verdict.noise import is_floating
from . import jax_subjects
from .targets import Target


def calls_of(
    subject: Any,
    target: Target,
    arrays: Sequence[Any] | None,
    settings: dict[str, Any],
    constant: frozenset[str],
) -> list[Sample]:
    """What the subject is called with: the caller's arrays, our samples and corners, or torch's."""
    if arrays is not None:
        if isinstance(arrays, (np.ndarray, torch.Tensor)) or not isinstance(arrays, Sequence):
            raise TypeError(
                "arrays: expected a list or tuple with the positional arguments of one call, got "
                f"a {type(arrays).__name__}"
            )
        settings = tree_map(_number, settings)
        args, settings = tree_map(_double, (tuple(arrays), settings))
        if not any(map(is_floating, leaves((args, settings)))):
            raise TypeError(
                "arrays: expected at least one floating array, got "
                + (", ".join(_kind(a) for a in args) or "none")
            )
        text = torch_samples.text(args, settings)
        if target.op:
            args, settings = ops.named(target.op).held(args, settings)
        return [Sample(text, args, settings, constant)]
    op = target.op or (subject if isinstance(subject, str) else "")
    if op:
        drawn = [(repr(row), *row.draw(0, np.dtype(float))) for _, row in ops.named(op).rows()]
        if not ops.named(op).has_gradient:
            raise TypeError(f"against: expected what has a gradient, got {op}")
        return [
            Sample(text, *ops.named(op).held(args, {**kwargs, **settings}), constant)
            for text, args, kwargs in drawn
        ]
    infos = torch_samples.infos_of(target.function) if target.function else []
    found = [s for info in infos for s in torch_samples.samples_of(info, target.function)]
    if not found:
        raise ValueError(
            f"arrays: needed, because there are no samples of {target.name}; expected a list or "
            "tuple with the positional arguments of one call"
        )
    return [
        replace(s, kwargs={**s.kwargs, **settings}, constant=s.constant | constant) for s in found
    ]


def weight(call: Sample) -> int:
    """How much there is to see in a call: many elements, but not of one kind only."""
    floating = [a for a in leaves((call.args, call.kwargs)) if is_floating(a)]
    ordinary = all(np.isfinite(a).all() and a.size for a in floating)
    return sum(a.size for a in floating) if ordinary else -1


def settings_of(function: Any, signature: Any, kwargs: Mapping[str, Any]) -> Iterator[Any]:
    """The values of all settings, defaults included."""
    for source in (signature_of(function) if function else None, signature):
        for parameter in source.parameters.values() if source else ():
            yield parameter.default
    yield from kwargs.values()


def numbers_among(settings: Iterable[Any]) -> list[float]:
    """The numbers among settings, and their quotients: softplus bends at threshold / beta."""
    found = {
        float(v)
        for v in settings
        if isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v)
    }
    return sorted(found | {a / b for a in found for b in found if b not in (0, a)})


def _double(leaf: Any) -> Any:
    """A floating array or tensor as an array in float64, also one without axes; numbers and the
    like as they are."""
    leaf = jax_subjects.array(array(leaf.double() if is_differentiable(leaf) else leaf))
    if isinstance(leaf, np.generic):
        leaf = np.asarray(leaf)
    return leaf.astype(np.float64) if is_floating(leaf) else leaf


def _number(leaf: Any) -> Any:
    """A setting that is a number of NumPy, as one of Python."""
    return leaf.item() if isinstance(leaf, np.generic) else leaf


def _kind(leaf: Any) -> str:
    return f"an array of {leaf.dtype}" if isinstance(leaf, np.ndarray) else repr(leaf)
