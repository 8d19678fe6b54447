"""Other ways in which torch itself computes a function: of simple functions, where it has a kernel
that computes several at once, and rounds otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...reference.adapters import tensor
from .. import ops
from ..verdict.classes import Function, Results
from ..verdict.dispatch import Dispatch
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


class Whole(Dispatch):
    """Operations of torch that are cut off, and an approximation from there on, as a whole:
    softplus is linear above 20, though e⁻²⁰ is 2·10⁻⁹. They are cut off where they overflow."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        schema = function._schema
        if cut := CUT.get(schema.name.removeprefix("aten::").removesuffix("_backward")):
            place = [a.name for a in schema.arguments].index(cut)
            args = args[:place]
            kwargs[cut] = math.log(torch.finfo(args[0].dtype).max) - 1
        return function(*args, **kwargs)


def of_whole_functions(t: Trials) -> Function:
    def results(inputs: Any) -> Results:
        with Whole():
            return t.truth(inputs)

    return results


def of_decompositions(t: Trials) -> Function:
    """Its forward as torch's decompositions write it, differentiated by autograd: many a kernel of
    a backward has none."""
    function = _function(t)

    def results(inputs: Any) -> Results:
        y, gradients = traced(function, inputs, t.order).evaluated()
        return {"value": y, **dict(zip(t.order, gradients, strict=True))}

    return results


# Functions that are cut off, and which of their settings says where.
CUT = {op.name: op.facts.cut for op in map(ops.named, ops.names()) if op.facts.cut}
WAYS: dict[str, Way] = {
    "functions that are not cut off": of_whole_functions,
    "attention of simple functions": of_attention,
    "decomposition": of_decompositions,
}


def _of(t: Trials, function: Callable[..., Any]) -> Function:
    return of_torch(function, t.subject.signature, t.sample.constant, tensor)


def _function(t: Trials) -> Callable[..., Any]:
    assert t.reference
    assert t.reference.in_torch
    return t.reference.in_torch
