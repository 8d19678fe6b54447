"""Bad uses of the tape, beside torch's own tensors."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from ...manual.tape import Tensor
from ...reference.adapters import array, tensor
from ..ops.bad_calls import Case, compared, of_call, spoiled, summed, unlooked
from ..verdict.classes import DIFFERENT, IDENTICAL

NAME = "tape"
X = np.arange(1.0, 7.0).reshape(2, 3)
Made = Callable[..., Any]  # a tensor of an array, of one of the two sides


def _tensor(made: Made, data: Any, requires_grad: Any = False) -> Any:
    return made(data, requires_grad=requires_grad)


def _backward(made: Made, gradient: Any, retain_graph: Any = False) -> Any:
    x = made(X, requires_grad=True)
    given = made(gradient) if isinstance(gradient, np.ndarray) else gradient
    (x * x).backward(given, retain_graph=retain_graph)
    return x.grad


def _twice(made: Made, retain_graph: Any = True) -> Any:
    x = made(X, requires_grad=True)
    y = (x * x).sum()
    y.backward(retain_graph=retain_graph)
    y.backward()
    return x.grad


def _hook(made: Made, hook: Any) -> Any:
    x = made(X, requires_grad=True)
    y = x * x
    y.register_hook(hook)
    y.backward(made(X))
    return x.grad


def _index(made: Made, index: Any) -> Any:
    return made(X)[index]


def _operator(sign: Callable[..., Any], made: Made, other: Any) -> Any:
    return sign(made(X), made(other) if isinstance(other, np.ndarray) else other)


def _in_place(made: Made, requires_grad: Any = False) -> Any:
    x = made(X, requires_grad=requires_grad)
    return x.exp_()


USES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "Tensor": (_tensor, (X,)),
    "backward": (_backward, (X,)),
    "backward twice": (_twice, ()),
    "register_hook": (_hook, (abs,)),
    "exp_": (_in_place, ()),
    "getitem": (_index, (1,)),
    **{
        sign: (partial(_operator, getattr(operator, sign)), (X,))
        for sign in ("add", "sub", "mul", "truediv", "pow")
    },
    "matmul": (partial(_operator, operator.matmul), (X.T,)),
}


def entry(name: str = NAME) -> tuple[dict[str, Any], list[Case]]:
    """The row of the tape in the coverage table, and the cases that it sums up."""
    cases = []
    for use, (function, args) in USES.items():
        for what, given, settings in spoiled(partial(function, Tensor), args, {}):
            cases.append(_tried(use, function, what, given, settings))
    return summed(name, name, cases), cases


def _tried(use: str, function: Callable[..., Any], what: str, args: Any, kwargs: Any) -> Case:
    """One use on both sides, which have to give the same numbers, bit for bit: they are exact."""
    ours, theirs = (partial(function, made, *args, **kwargs) for made in (Tensor, _torchs))

    def judged() -> Case:
        a, b = np.asarray(ours().data), array(theirs().detach())
        same = np.array_equal(a, b, equal_nan=a.dtype.kind == "f" == b.dtype.kind)
        return {"class": IDENTICAL if same else DIFFERENT, "manual": str(a), "torch": str(b)}

    _, _, fault = what.partition(": ")
    names = [*inspect.signature(function).parameters, "x", "exponent", "data", "in place"]
    case = of_call(NAME, f"{use}, {what}", args, kwargs)
    return compared(case, ours, theirs, names, judged, unlooked(fault, None), RuntimeError)


def _torchs(data: Any, requires_grad: Any = False) -> torch.Tensor:
    """Torch's tensor of an array or of what it makes one of."""
    made = tensor(data)
    if isinstance(made, torch.Tensor):
        return made.requires_grad_(requires_grad)
    return torch.tensor(data, requires_grad=requires_grad)
