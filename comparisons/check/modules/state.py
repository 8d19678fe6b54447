"""The tensors and submodules of a module by name, and others in their place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

State = Mapping[str, torch.Tensor]
WRAPPED = "_orig_mod"  # as torch.compile calls what it wraps


def plain(name: str) -> str:
    """A name without those of wrappers."""
    return ".".join(part for part in name.split(".") if part != WRAPPED)


def modules_of(module: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """All submodules, wrappers under the name of what they wrap."""
    found: dict[str, torch.nn.Module] = {}
    for name, inner in module.named_modules(remove_duplicate=False):
        found.setdefault(plain(name), inner)
    return found


def tensors_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """All parameters and buffers, tied ones under each of their names."""
    parameters = module.named_parameters(remove_duplicate=False)
    buffers = module.named_buffers(remove_duplicate=False)
    return {plain(name): t for name, t in (*parameters, *buffers)}


def loaded_by(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that a state dict brings: all but the buffers that are not persistent."""
    known = {plain(name) for name in module.state_dict(keep_vars=True)}
    return {name: t for name, t in tensors_of(module).items() if name in known}


def parameters_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The parameters, of tied ones the first."""
    return {plain(name): t for name, t in module.named_parameters()}


def held_by(module: torch.nn.Module) -> list[str]:
    """The names of its parameters and buffers, of tied ones the first: what takes the place of that
    takes the place of all."""
    return [*parameters_of(module), *(plain(name) for name, _ in module.named_buffers())]


@contextlib.contextmanager
def swapped(module: torch.nn.Module, state: State) -> Iterator[None]:
    """With these tensors in the place of those that have their names, tied ones included."""
    new = {id(t): state[name] for name, t in tensors_of(module).items() if name in state}
    before = []
    for inner in module.modules():
        places: tuple[dict[str, Any], ...] = (inner._parameters, inner._buffers)
        for held in places:
            for name, t in held.items():
                if t is not None and id(t) in new:
                    before.append((held, name, t))
                    held[name] = new[id(t)]
    try:
        yield
    finally:
        for held, name, t in before:
            held[name] = t
