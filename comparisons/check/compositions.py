"""Other ways in which torch itself computes a function: of simple functions, where it has a kernel
that computes several at once, and rounds otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch.nn.attention import SDPBackend, sdpa_kernel

from ...reference.adapters import tensor
from ..verdict.classes import Function, Results
from .adapt import of_torch
from .traced import traced
from .trials import Trials

Way = Callable[[Trials], Function]


def of_attention(t: Trials) -> Function:
    """With attention as two products and a softmax between them (Vaswani et al., 2017)."""
    function = _function(t)

    def composed(*args: Any, **kwargs: Any) -> Any:
        with sdpa_kernel(SDPBackend.MATH):
            return function(*args, **kwargs)

    return _of(t, composed)


def without(cut: str, t: Trials) -> Function:
    """Without the setting beyond which it is an approximation: softplus is linear above 20."""
    function = _function(t)
    return _of(t, lambda *args, **kwargs: function(*args, **{**kwargs, cut: math.inf}))


def of_decompositions(t: Trials) -> Function:
    """Its forward as torch's decompositions write it, differentiated by autograd: many a kernel of
    a backward has none."""
    function = _function(t)

    def results(inputs: Any) -> Results:
        y, gradients = traced(function, inputs, t.order).evaluated()
        return {"value": y, **dict(zip(t.order, gradients, strict=True))}

    return results


WAYS: dict[str, Way] = {
    "attention of simple functions": of_attention,
    "decomposition": of_decompositions,
}


def _of(t: Trials, function: Callable[..., Any]) -> Function:
    return of_torch(function, t.subject.signature, t.sample.constant, tensor)


def _function(t: Trials) -> Callable[..., Any]:
    assert t.reference
    assert t.reference.in_torch
    return t.reference.in_torch
