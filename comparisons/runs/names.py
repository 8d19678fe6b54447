"""The tensors of a model by name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

Part = torch.nn.Module | torch.Tensor
Model = torch.nn.Module | Mapping[str, Part] | Iterable[tuple[str, Part]]
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


class Named:
    """The parameters and buffers of a model, asked for anew at every step, since a training may
    exchange them."""

    def __init__(self, model: Model) -> None:
        """TypeError for what has no names, ValueError for a name that stands twice."""
        self.parts = [("", model)] if isinstance(model, torch.nn.Module) else _pairs(model)
        twice = {name for i, (name, _) in enumerate(self.parts) if name in dict(self.parts[:i])}
        if twice:
            raise ValueError(
                f"model: expected names that differ, got {min(twice)!r} twice: give prefixes, as "
                'in {"generator": g, "discriminator": d}'
            )

    @property
    def modules(self) -> list[torch.nn.Module]:
        return [part for _, part in self.parts if isinstance(part, torch.nn.Module)]

    def parameters(self) -> dict[str, torch.Tensor]:
        """The parameters; what is given as a tensor counts as one. A shared one stands once."""
        return self._tensors("named_parameters")

    def buffers(self) -> dict[str, torch.Tensor]:
        return self._tensors("named_buffers")

    def _tensors(self, which: str) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        seen: set[int] = set()
        for prefix, part in self.parts:
            if isinstance(part, torch.Tensor):
                pairs = [(prefix, part)] if which == "named_parameters" else []
            else:
                inner = getattr(part, which)()
                pairs = [(f"{prefix}.{name}" if prefix else name, t) for name, t in inner]
            for name, tensor in pairs:
                if id(tensor) not in seen:
                    seen.add(id(tensor))
                    found[name] = tensor
        return found


def _pairs(model: Any) -> list[tuple[str, Part]]:
    try:
        pairs = list(model.items() if isinstance(model, Mapping) else model)
        named = [(name, part) for name, part in pairs]
    except (TypeError, ValueError, RuntimeError):  # no pairs
        named = [(0, model)]
    if not all(isinstance(n, str) and isinstance(p, Part) for n, p in named):
        got = type(model).__name__
        several = isinstance(model, list | tuple) and all(
            isinstance(part, torch.nn.Module) for part in model
        )
        hint = '; of several modules a dict, as {"generator": g, "discriminator": d}'
        raise TypeError(
            f"model: expected a module or parameters with their names, got {got}"
            f"{hint if several else ''}"
        )
    return named


def unwrapped(quantity: str) -> str:
    """The name without what DistributedDataParallel, torch.compile and the like put into it."""
    kind, _, name = quantity.rpartition(" ")
    inner = ".".join(part for part in name.split(".") if part not in WRAPPERS)
    return f"{kind} {inner}" if kind else quantity


def of_rank(path: str | os.PathLike[str]) -> Path:
    """The path, in which {rank} is the number of this process: that of torch.distributed if it is
    initialised, else that in the environment as RANK, else 0."""
    text = os.fspath(path)
    if "{rank}" not in text:
        return Path(text)
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        rank = str(distributed.get_rank())
    else:
        rank = os.environ.get("RANK", "0")
    return Path(text.replace("{rank}", rank))
