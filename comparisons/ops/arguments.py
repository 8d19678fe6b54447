"""The arguments of a call by name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ...manual import binding
from ..verdict.noise import is_floating


def argument_names(
    rule: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], constant: frozenset[str]
) -> list[str]:
    """A name for each gradient that the pullback returns: "x", "parameters.0.weight" inside a dict,
    "params.0" inside a list, or "argument value" of an argument that is called as outputs are."""
    names: list[str] = []
    for name, argument in binding.signature_of(rule).bind(*args, **kwargs).arguments.items():
        if name not in constant:
            names += map(gradient_name, _inside(name, argument))
    return names


def array_names(
    args: Sequence[Any], kwargs: Mapping[str, Any], signature: inspect.Signature | None
) -> list[str]:
    """A name for each floating array of a call: "x", or "parameters.layers.0.w" inside others."""
    positional = positional_names(len(args), signature)
    keywords = in_order(kwargs, signature).items()
    found: list[str] = []
    for name, argument in [*zip(positional, args, strict=True), *keywords]:
        found += map(gradient_name, _inside(name, argument))
    return found


def _inside(name: str, argument: Any) -> Iterator[str]:
    if is_floating(argument):
        yield name
    elif isinstance(argument, (list, tuple, dict)):
        for key in argument if isinstance(argument, dict) else range(len(argument)):
            yield from _inside(f"{name}.{key}", argument[key])


def gradient_name(name: str) -> str:
    """What the gradient of this argument is called beside the outputs, which are "value" or
    "value.0"."""
    return f"argument {name}" if name.split(".")[0] == "value" else name


def in_order(kwargs: Mapping[str, Any], signature: inspect.Signature | None) -> dict[str, Any]:
    """The keywords in the order of the signature, those that it does not name behind them."""
    order = list(signature.parameters) if signature else []
    names = sorted(kwargs, key=lambda k: order.index(k) if k in order else len(order))
    return {name: kwargs[name] for name in names}


def positional_names(count: int, signature: inspect.Signature | None) -> list[str]:
    """The names of the first positional arguments."""
    names: list[str] = []
    for parameter in signature.parameters.values() if signature else ():
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}{i}" for i in range(count - len(names))]
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
    names += [f"arg{i}" for i in range(len(names), count)]
    return names[:count]


@functools.lru_cache(maxsize=256)
def signature_of(function: Any) -> inspect.Signature | None:
    """Its signature, if it has one that says something."""
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        return None
    generic = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    return None if all(p.kind in generic for p in signature.parameters.values()) else signature
