"""What a model is given at each step: in sixteen numbers that do not depend on the order of the
samples, nor on how they are dealt out to several calls, and in sixteen that do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .recording import INPUT
from .sketches import PARTS, sketch


class Inputs:
    """The inputs of modules, from the first call of a step to the last."""

    def __init__(self, modules: Sequence[torch.nn.Module]) -> None:
        self.modules = modules
        self.sums = torch.zeros(2, PARTS, dtype=torch.float64)
        self.calls = 0
        self.autocast: set[torch.dtype] = set()  # the dtypes of autocast, where it was on
        self.hooks: list[Any] = []

    def __enter__(self) -> Inputs:
        self.hooks = [
            module.register_forward_pre_hook(self._see, with_kwargs=True) for module in self.modules
        ]
        return self

    def __exit__(self, *_: Any) -> None:
        for hook in self.hooks:
            hook.remove()

    @torch.no_grad()
    def _see(self, module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        if torch.compiler.is_compiling():
            return
        leaves = torch.utils._pytree.tree_leaves((args, kwargs))
        tensors = [x for x in leaves if isinstance(x, torch.Tensor) and x.numel()]
        plain = [x for x in tensors if x.layout == torch.strided and not x.is_complex()]
        for x in plain:
            if torch.is_autocast_enabled(x.device.type):
                self.autocast.add(torch.get_autocast_dtype(x.device.type))
            total = x.sum(0) if x.ndim > 1 else x
            self.sums += torch.from_numpy(sketch([total, x])[:, 1:])
        self.calls += 1

    def taken(self) -> dict[str, torch.Tensor]:
        """Both since they were last taken, by name; nothing if there was no call."""
        names = (INPUT, f"{INPUT} in order, of {self.calls} calls")
        found = dict(zip(names, self.sums, strict=True)) if self.calls else {}
        self.sums, self.calls = torch.zeros(2, PARTS, dtype=torch.float64), 0
        return found
