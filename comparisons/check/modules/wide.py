"""What a module computes, in float64 whatever it casts to on the way."""

from __future__ import annotations

import functools
from typing import Any

import torch

from ...verdict.dispatch import Dispatch
from ..trees import mapped

NARROW = (torch.float32, torch.bfloat16, torch.float16)
WIDER = dict.fromkeys(NARROW, torch.float64) | {
    torch.complex64: torch.complex128,
    torch.complex32: torch.complex128,
}
# What is drawn beside a computation on numbers whose digits count; and attention, which may draw
# and on a CPU never does.
BESIDE = frozenset(
    (
        *("native_dropout", "rrelu_with_noise", "rrelu_with_noise_functional"),
        "_scaled_dot_product_flash_attention_for_cpu",
    )
)


class Wide(Dispatch):
    """Makes float64 of every narrower dtype, and complex numbers of such: of casts, of what is made
    anew, and of tensors that a module keeps beside its parameters and buffers. It works below
    autograd.

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
            if (wider := WIDER.get(kwargs.get("dtype"))) is not None:
                kwargs["dtype"] = wider
        return function(*args, **kwargs) if kwargs else function(*args)

    def _drawn(self, function: Any, args: Any, kwargs: Any) -> Any:
        def narrowed(leaf: Any) -> Any:
            wide = isinstance(leaf, torch.Tensor) and leaf.dtype in natives
            return leaf.to(natives[leaf.dtype]) if wide else leaf

        natives = {torch.float64: self.native, torch.complex128: self.native.to_complex()}
        if "dtype" in kwargs:
            dtype = kwargs["dtype"] or torch.float64
            kwargs = {**kwargs, "dtype": natives.get(dtype, dtype)}
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
        return argument.dtype in WIDER
    return isinstance(argument, (list, tuple)) and any(map(_has_narrow, argument))


def _widened(leaf: Any) -> Any:
    narrow = isinstance(leaf, torch.Tensor) and leaf.dtype in WIDER
    return leaf.to(WIDER[leaf.dtype]) if narrow else leaf
