"""PyTorch's own test inputs of modules, as the calls that the modules make of a function."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ...reference.adapters import array, tree_map

Calls = list[tuple[tuple[Any, ...], dict[str, Any]]]


@functools.cache
def calls_of(function: str, module: str, dtype: str) -> Calls:
    """The calls of a torch function by this name, over arrays, that a module of this name makes on
    the inputs that torch tests it with, in training and in evaluation."""
    kind = getattr(torch, dtype)
    with warnings.catch_warnings(action="ignore"), torch.random.fork_rng(devices=[]):
        from torch.testing._internal.common_modules import module_db

        torch.manual_seed(0)
        info = next(m for m in module_db if m.name == module)
        with _Recorder(function) as recorder:
            for training in (True, False):
                for given in info.module_inputs_func(info, "cpu", kind, True, training=training):
                    made = given.constructor_input
                    called = info.module_cls(*made.args, **made.kwargs, dtype=kind).train(training)
                    called(*given.forward_input.args, **given.forward_input.kwargs)
    return recorder.calls


class _Recorder(TorchFunctionMode):
    """What a function of this name is called with."""

    def __init__(self, function: str) -> None:
        super().__init__()
        self.function = function
        self.calls: Calls = []

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if getattr(function, "__name__", "") == self.function:
            self.calls.append(tree_map(array, (tuple(args), kwargs)))
        return function(*args, **kwargs)
