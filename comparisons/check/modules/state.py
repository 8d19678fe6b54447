"""The tensors and submodules of a module by name, and others in their place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

State = Mapping[str, torch.Tensor]
WRAPPED = "_orig_mod"  # as torch.compile calls what it wraps


def is_numeric(leaf: Any) -> bool:
    """Whether it is a tensor of real or complex numbers, of which a gradient can be asked."""
    return isinstance(leaf, torch.Tensor) and (leaf.is_floating_point() or leaf.is_complex())


def with_hooks(t: torch.Tensor, like: torch.Tensor) -> None:
    """Gives a tensor, of which a gradient is asked, the hooks that another one's gradient has."""
    for hook in (like._backward_hooks or {}).values():
        t.register_hook(hook)


def zeros_for(tensors: State) -> dict[str, torch.Tensor]:
    """Zeros in the place of each, complex where it is."""
    kinds = {True: torch.complex64, False: torch.float32}
    return {n: torch.zeros(t.shape, dtype=kinds[t.is_complex()]) for n, t in tensors.items()}


def plain(name: str) -> str:
    """A name without those of wrappers."""
    return ".".join(part for part in name.split(".") if part != WRAPPED)


def modules_of(module: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """All submodules, wrappers under the name of what they wrap."""
    found: dict[str, torch.nn.Module] = {}
    for name, inner in module.named_modules(remove_duplicate=False):
        found.setdefault(plain(name), inner)
    return found


def is_called(module: torch.nn.Module) -> bool:
    """Whether it has a forward, which a list or a dict of submodules has not."""
    return getattr(module.forward, "__func__", None) is not torch.nn.Module.forward


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


def first_names(tensors: State) -> dict[str, str]:
    """Of each name the first that its tensor has."""
    names: dict[int, str] = {}
    return {name: names.setdefault(id(t), name) for name, t in tensors.items()}


def refuse_script(module: torch.nn.Module, what: str) -> None:
    """Raises TypeError for a module into which no hook can look."""
    for name, inner in module.named_modules():
        if isinstance(inner, torch.jit.ScriptModule):
            raise TypeError(
                f"{what}: expected modules of Python, got {name or 'one'} of torch.jit; it may be "
                "the port, and what it was made of the original"
            )


def refuse_unmade(module: torch.nn.Module, what: str) -> None:
    """Raises ValueError for a parameter or buffer that a lazy module has not made yet."""
    for name, t in tensors_of(module).items():
        if torch.nn.parameter.is_lazy(t):
            kind = type(module.get_submodule(name.rpartition(".")[0])).__name__
            raise ValueError(f"{what} has not made {name} of a {kind} yet: call it once before")


def refuse_empty(tensors: State, what: str) -> None:
    """Raises ValueError for a tensor without values."""
    for name, t in tensors.items():
        if t.is_meta:
            raise ValueError(f"{what}: expected values, got {name} on meta")


Slots = list[tuple[dict[str, Any], str, str]]  # what holds a tensor, under which key, its name


def slots_of(module: torch.nn.Module) -> Slots:
    """Where a module keeps its tensors, tied ones in several places."""
    tensors = tensors_of(module)
    names = {id(tensors[name]): first for name, first in first_names(tensors).items()}
    return [
        (held, key, names[id(t)])
        for inner in module.modules()
        for held in (inner._parameters, inner._buffers)
        for key, t in held.items()
        if t is not None
    ]


@contextlib.contextmanager
def swapped(slots: Slots, state: State) -> Iterator[None]:
    """With these tensors in the place of those that have their names, tied ones included."""
    wanted = [(held, key, state[name]) for held, key, name in slots if name in state]
    before = [(held, key, held[key]) for held, key, _ in wanted]
    for held, key, t in wanted:
        held[key] = t
    try:
        yield
    finally:
        for held, key, t in before:
            held[key] = t
