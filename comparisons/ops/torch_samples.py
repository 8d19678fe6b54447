"""PyTorch's own test inputs: the OpInfo samples, as calls over arrays."""

from __future__ import annotations

import functools
import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...reference.adapters import array, leaves, tree_map
from ..verdict.noise import cast, is_floating
from .arguments import array_names, signature_of

SEED = 1234  # torch's, of its tests


@dataclass(frozen=True)
class Sample:
    """A call that the subject is examined on, its floating arrays in float64."""

    text: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    constant: frozenset[str] = frozenset()  # names of floating arrays without a gradient
    drawn: bool = False  # it is not the caller's: the subject may refuse it


@functools.cache
def differentiable() -> dict[str, Any]:
    """The differentiable entries of torch's op_db by name, with the variant's behind a point."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db
    return {_name(info): info for info in op_db if info.supports_autograd}


@functools.cache
def database() -> dict[str, Any]:
    """Those of them that compute in float64."""
    return {n: info for n, info in differentiable().items() if torch.float64 in info.dtypes}


def infos_of(function: Callable[..., Any]) -> list[Any]:
    """The entries whose op is this function, under this or another of its names; all variants."""
    own = [info for info in database().values() if info.op is function]
    if own or not in_torch(function):
        return own
    name = getattr(function, "__name__", "").strip("_")
    spellings = {name, f"nn.functional.{name}", name.replace("_", ".", 1)}
    return [
        info
        for info in database().values()
        if spellings & {info.name, *(alias.name for alias in info.aliases)}
    ]


def listed(make: Callable[..., Iterable[Any]] | None, info: Any, *args: Any) -> list[Any]:
    """What `sample_inputs_func` or `error_inputs_func` of an entry makes, as torch's own iterator
    over it gives it: with all generators set anew before each.

    That iterator looks through the caller's stack for the test that it is in, and sets the
    generators of all devices, which takes longer than most inputs.
    """
    with warnings.catch_warnings(action="ignore"):
        torch.default_generator.manual_seed(0)
        inputs, found = iter(make(info, *args) if make else ()), []
        while True:
            torch.default_generator.manual_seed(SEED)
            random.seed(SEED)
            np.random.seed(SEED)  # noqa: NPY002 (the one that torch draws from)
            try:
                found.append(next(inputs))
            except StopIteration:
                return found


def samples_of(info: Any, names_from: Callable[..., Any] | None = None) -> tuple[Sample, ...]:
    """Its sample inputs in float64, rounded to float32 so that one truth serves both; what does
    not require a gradient there is constant."""
    return _cached(_name(info), names_from)


@functools.lru_cache(maxsize=64)
def _cached(name: str, names_from: Callable[..., Any] | None) -> tuple[Sample, ...]:
    return tuple(_drawn(database()[name], names_from))


def _name(info: Any) -> str:
    return f"{info.name}.{info.variant_test_name}" if info.variant_test_name else info.name


def _drawn(info: Any, names_from: Callable[..., Any] | None) -> Iterator[Sample]:
    signature = signature_of(names_from or info.op)
    for sample in listed(info.sample_inputs_func, info, "cpu", torch.float64, True):
        tree = ((sample.input, *sample.args), dict(sample.kwargs))
        tensors = [t for t in leaves(tree) if isinstance(t, torch.Tensor)]
        if any(t.is_complex() or t.layout is not torch.strided for t in tensors):
            continue
        args, kwargs = cast(cast(tree_map(array, tree), np.float32), np.float64)
        floating = [t for t in tensors if t.is_floating_point()]
        if not floating or not any(t.requires_grad for t in floating):
            continue
        names = array_names(args, kwargs, signature)
        constant = frozenset(n for n, t in zip(names, floating, strict=True) if not t.requires_grad)
        yield Sample(text(args, kwargs), tuple(args), kwargs, constant, drawn=True)


def text(args: Any, kwargs: Any) -> str:
    """A call as one would write it, with shapes in place of arrays."""

    def shown(leaf: Any) -> str:
        if isinstance(leaf, (list, tuple)):
            inner = ", ".join(map(shown, leaf))
            return f"[{inner}]" if isinstance(leaf, list) else f"({inner})"
        if isinstance(leaf, dict):
            return "{" + ", ".join(f"{k!r}: {shown(v)}" for k, v in leaf.items()) + "}"
        if isinstance(leaf, np.ndarray):
            what = "array" if is_floating(leaf) else str(leaf.dtype)
            return f"{what}({', '.join(map(str, leaf.shape))})"
        return getattr(leaf, "__name__", "") or repr(leaf)

    return ", ".join([*map(shown, args), *(f"{k}={shown(v)}" for k, v in kwargs.items())])


def in_torch(function: Callable[..., Any]) -> bool:
    """Whether it is one of torch's own functions."""
    kind = type(function).__name__
    where = str(getattr(function, "__module__", None) or "")
    return where.split(".")[0] == "torch" or kind == "builtin_function_or_method"
