"""A layer as a function of its parameters as well, so that `check` judges their gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from ...reference.adapters import is_differentiable
from . import keras_subjects
from .kinds import in_order
from .misuse import Misuse, described
from .signatures import chosen, signed

PARTS = "a mapping from the place of each parameter to that of its gradient"


def functional(
    layer: Any, parameters: Mapping[str, str] | Iterable[str] | None = None
) -> Callable[..., Any]:
    """`f(*inputs, *parameters, **settings)` of a layer, for `check`: its inputs, of any shapes, and
    behind them the arrays that take the place of its parameters.

    layer       an object with `forward` (or that is called) and `backward(dy)`, which leaves the
                gradients of its parameters in itself; its class, or another function without
                arguments that makes one; a torch.nn.Module, or a layer of Keras 3 that is built, on
                its backend torch or jax
    parameters  of an object, where each parameter and its gradient lie, {"W": "dW"}; places within
                others are parted by dots, {"weight.data": "weight.grad"}, {"params.0": "grads.0"},
                {"params.W": "grads.W"}. Of a module or a layer of Keras, the names of those wanted;
                all by default

    An object is copied (or made) for every forward, and its gradients are set to zero before every
    backward, so that one may add to them. Each parameter is an argument called as its place, with _
    for dots. What forward takes beyond its inputs goes by keyword. Raises TypeError or ValueError
    for a place that does not exist.

        check(functional(Linear(4, 5), {"W": "dW", "b": "db"}), affine, [x, W, b])
    """
    if keras_subjects.is_layer(layer):
        return keras_subjects.functional(layer, _names(parameters))
    if isinstance(layer, torch.nn.Module):
        return _of_module(layer, _names(parameters))
    if not isinstance(parameters, Mapping) or not parameters:
        raise TypeError(f"parameters: expected {PARTS}, got {described(parameters)}")
    return _of_object(layer, dict(parameters))


def _names(parameters: Any) -> list[str] | None:
    if isinstance(parameters, (str, Mapping)):
        raise TypeError(
            f"parameters: expected a list of names of a module's own, got {described(parameters)}"
        )
    return None if parameters is None else list(parameters)


def _of_object(layer: Any, parameters: dict[str, str]) -> Callable[..., Any]:
    made = _maker(layer)
    first = made()
    for place in parameters:
        if _at(first, place) is None:
            raise ValueError(f"parameters: expected places in {_kind(first)}, got {place!r}")

    def rule(*args: Any, **kwargs: Any) -> tuple[Any, Callable[[Any], Any]]:
        inputs, values = args[: -len(parameters)], args[-len(parameters) :]
        if len(values) < len(parameters):
            raise Misuse(
                f"{_kind(first)}: expected inputs and behind them {', '.join(parameters)}, got "
                f"{described(args)}"
            )
        own = made()
        for place, value in zip(parameters, values, strict=True):
            _put(own, place, value)
        y = _forward(own)(*inputs, **kwargs)

        def pullback(dy: Any) -> list[Any]:
            for place, value in zip(parameters.values(), values, strict=True):
                _clear(own, place, value)
            gradients = in_order(own.backward(dy), [])
            return [*gradients, *(_gradient(own, *pair) for pair in parameters.items())]

        return y, pullback

    return signed(rule, _kind(first), _forward(first), parameters)


def _maker(layer: Any) -> Callable[[], Any]:
    """What makes the layer of one call."""
    made = layer
    if hasattr(layer, "backward") and not isinstance(layer, type):
        made = partial(copy.deepcopy, layer)
    elif not callable(layer):
        raise TypeError(
            "layer: expected an object with forward and backward, what makes one, a "
            f"torch.nn.Module or a layer of Keras, got {described(layer)}"
        )
    try:
        own = made()
    except TypeError as error:
        raise TypeError(f"layer: expected one, or what makes one, got {error}") from None
    if not callable(getattr(own, "backward", None)) or _forward(own) is None:
        raise TypeError(
            f"layer: expected an object with forward and backward, got {described(own)}"
        )
    return made


def _forward(own: Any) -> Any:
    forward = getattr(own, "forward", None)
    return own if callable(own) else forward


def _gradient(own: Any, parameter: str, place: str) -> Any:
    """What the backward left in a place, which it may write to again."""
    found = _at(own, place)
    if found is None:
        raise Misuse(f"backward: expected the gradient of {parameter} in {place}, got None")
    return copy.copy(found)


def _clear(own: Any, place: str, parameter: Any) -> None:
    """Zeros of the parameter's shape and dtype in the place of a gradient, if there is one: the
    same array, if it fits, of which the layer may know under another name."""
    before = _at(own, place)
    arrays = (np.ndarray, torch.Tensor)
    alike = np.shape(before) == np.shape(parameter)
    if isinstance(before, arrays) and alike and before.dtype == parameter.dtype:
        before[...] = 0
    elif isinstance(before, (*arrays, np.generic, int, float)):
        zeros: Any = torch.zeros_like if isinstance(parameter, torch.Tensor) else np.zeros_like
        _put(own, place, zeros(parameter))


def _at(own: Any, place: str) -> Any:
    """What lies in a place: of attributes, keys of dicts and positions in lists. None where there
    is none."""
    for step in place.split("."):
        try:
            within = isinstance(own, (Mapping, Sequence))
            own = own[_key(own, step)] if within else getattr(own, step)
        except (KeyError, IndexError, AttributeError, ValueError):
            return None
    return own


def _key(own: Any, step: str) -> Any:
    return int(step) if isinstance(own, Sequence) else step


def _put(own: Any, place: str, value: Any) -> None:
    above, _, last = place.rpartition(".")
    holder = _at(own, above) if above else own
    if isinstance(holder, (Mapping, Sequence)):
        holder[_key(holder, last)] = value  # type: ignore[index]
    else:
        setattr(holder, last, value)


def _of_module(module: torch.nn.Module, names: list[str] | None) -> Callable[..., Any]:
    known = dict(module.named_parameters())
    names = chosen(known, names)
    rest = {n: t for n, t in (*known.items(), *module.named_buffers()) if n not in names}

    def function(*args: Any, **kwargs: Any) -> Any:
        inputs, values = args[: len(args) - len(names)], args[len(args) - len(names) :]
        dtype = next((a.dtype for a in args if is_differentiable(a)), None)
        kept = {n: t.detach().to(dtype) if t.is_floating_point() else t for n, t in rest.items()}
        own = kept | dict(zip(names, values, strict=True))
        return torch.func.functional_call(module, own, inputs, kwargs)

    return signed(function, _kind(module), module.forward, names)


def _kind(layer: Any) -> str:
    return type(layer).__name__
