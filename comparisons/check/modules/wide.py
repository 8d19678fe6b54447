"""What a module computes, in float64 whatever it casts to on the way."""

from __future__ import annotations

import functools
from typing import Any

import torch

from ...verdict.dispatch import Dispatch
from ..trees import mapped

NARROW = (torch.float32, torch.bfloat16, torch.float16)
# What is drawn beside a computation on numbers whose digits count; and attention, which may draw
# and on a CPU never does.
BESIDE = frozenset(
    (
        *("native_dropout", "rrelu_with_noise", "rrelu_with_noise_functional"),
        "_scaled_dot_product_flash_attention_for_cpu",
    )
)


class Wide(Dispatch):
    """Makes float64 of every narrower dtype: of casts, of what is made anew, and of tensors that a
    module keeps beside its parameters and buffers. It works below autograd.

    What is drawn at random is drawn in the dtype of the module, `native`, so that it is what that
    itself draws from the same generator.
    """

    def __init__(self, native: torch.dtype) -> None:
        super().__init__()
        self.native = native

    def __enter__(self) -> Wide:
        self._default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.set_default_dtype(self._default)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        draws, written = _known(function)
        if draws:
            return self._drawn(function, args, kwargs or {})
        if any(i not in written and _has_narrow(a) for i, a in enumerate(args)):
            args = tuple(a if i in written else mapped(_widened, a) for i, a in enumerate(args))
        if kwargs:
            kwargs = {n: a if n == "out" else mapped(_widened, a) for n, a in kwargs.items()}
            if kwargs.get("dtype") in NARROW:
                kwargs["dtype"] = torch.float64
        return function(*args, **kwargs) if kwargs else function(*args)

    def _drawn(self, function: Any, args: Any, kwargs: Any) -> Any:
        def narrowed(leaf: Any) -> Any:
            real = isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float64
            return leaf.to(self.native) if real else leaf

        if kwargs.get("dtype") == torch.float64 or ("dtype" in kwargs and kwargs["dtype"] is None):
            kwargs = {**kwargs, "dtype": self.native}
        given = mapped(narrowed, tuple(args))
        result = function(*given, **kwargs)
        for i, argument in enumerate(function._schema.arguments):
            if argument.is_write and i < len(args):
                args[i].copy_(given[i])
                result = args[i]
        return mapped(_widened, result)


@functools.cache
def _known(function: Any) -> tuple[bool, frozenset[int]]:
    """Whether an overload draws at random, and which arguments it writes."""
    schema = function._schema
    draws = torch.Tag.nondeterministic_seeded in function.tags
    written = frozenset(i for i, a in enumerate(schema.arguments) if a.is_write)
    return draws and schema.name.split("::")[1] not in BESIDE, written


def _has_narrow(argument: Any) -> bool:
    if isinstance(argument, torch.Tensor):
        return argument.dtype in NARROW
    return isinstance(argument, (list, tuple)) and any(map(_has_narrow, argument))


def _widened(leaf: Any) -> Any:
    narrow = isinstance(leaf, torch.Tensor) and leaf.dtype in NARROW
    return leaf.to(torch.float64) if narrow else leaf
