"""What stands in the place of a call: the changes that several kinds are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..calls import Change, at, with_at


def of_first(other: Callable[[Any], Any]) -> Change:
    """Another function of the first argument."""
    return lambda function, args, kwargs, seen: other(args[0])


def of_result(other: Callable[[Any], Any]) -> Change:
    """A function of the result."""
    return lambda function, args, kwargs, seen: other(function(*args, **kwargs))


def with_settings(**settings: Any) -> Change:
    """The same with other settings."""
    return lambda function, args, kwargs, seen: function(*args, **{**kwargs, **settings})


def with_operand(path: tuple[Any, ...], other: Callable[[Any], Any]) -> Change:
    """The same of a function of one of its operands."""

    def change(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
        return function(*with_at(args, path, other(at(args, path))), **kwargs)

    return change


def with_argument(place: int, keyword: str, value: Any) -> Change:
    """The same with another value of an argument that may come by position."""

    def change(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
        if len(args) > place:
            return function(*args[:place], value, *args[place + 1 :], **kwargs)
        return function(*args, **{**kwargs, keyword: value})

    return change


def argument(args: Any, kwargs: Any, place: int, keyword: str, default: Any = None) -> Any:
    """The value of an argument that may come by position."""
    return args[place] if len(args) > place else kwargs.get(keyword, default)


def left(path: tuple[Any, ...], in_place: bool) -> Change:
    """One of its operands in the place of the result."""

    def change(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
        operand = at(args, path)
        return operand if in_place or not isinstance(operand, torch.Tensor) else operand + 0

    return change
