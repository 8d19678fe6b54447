"""Where a trace stands in its module: in which submodule a step was done, and the leaves, in which
gradients end."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from ..check.trees import items


class Leaf(NamedTuple):
    """A tensor in which gradients are accumulated, and what it got."""

    name: str  # of a parameter or an argument; "" if it is neither
    value: np.ndarray
    gradient: np.ndarray | None


@contextlib.contextmanager
def submodules(module: Any) -> Iterator[list[str]]:
    """The names of the submodules that run, the innermost last, while the module runs."""
    running = [""]
    if not isinstance(module, torch.nn.Module):
        yield running
        return
    names = {id(m): name for name, m in module.named_modules()}

    def entered(m: Any, _: Any) -> None:
        running.append(names.get(id(m), running[-1]))

    def left(*_: Any) -> None:
        running.pop()

    hooks = (
        register_module_forward_pre_hook(entered),
        register_module_forward_hook(left, always_call=True),
    )
    try:
        yield running
    finally:
        for hook in hooks:
            hook.remove()


def names_of(
    module: Callable[..., Any], inputs: Sequence[Any], settings: Mapping[str, Any]
) -> dict[int, str]:
    """By the id of a tensor, the name of the parameter, buffer or argument that it is."""
    called = module.forward if isinstance(module, torch.nn.Module) else module
    try:
        given = dict(inspect.signature(called).bind(*inputs, **settings).arguments)
    except (TypeError, ValueError):  # what is written in C has no signature
        given = {"input": list(inputs), **settings}
    found = {id(leaf): path for path, leaf in items(given) if isinstance(leaf, torch.Tensor)}
    if isinstance(module, torch.nn.Module):
        tensors = [*module.named_parameters(), *module.named_buffers()]
        found |= {id(tensor): name for name, tensor in tensors}
    return found
