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


def grouped_mm(
    a: torch.Tensor,
    b: torch.Tensor,
    offs: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Products of matrices of which one or both lie one behind the other and end at `offs`: those
    of experts, of which each has some rows. What lies behind the last is 0."""
    if offs is None:
        y = a @ b
    else:
        ends = offs.tolist()
        parts = [slice(*ends) for ends in zip([0, *ends], ends, strict=False)]
        if a.ndim == 2 and b.ndim == 3:
            y = torch.cat([a[part] @ b[i] for i, part in enumerate(parts)])
            y = torch.cat([y, y.new_zeros(len(a) - len(y), y.shape[1])])
        elif a.ndim == 3:
            y = torch.cat([a[i] @ b[:, part] for i, part in enumerate(parts)], 1)
            y = torch.cat([y, y.new_zeros(len(y), b.shape[1] - y.shape[1])], 1)
        else:
            y = torch.stack([a[:, part] @ b[part] for part in parts])
    return y if bias is None else y + bias


# Kernels that know no float64, and what they compute.
COMPOSED = {
    getattr(torch.ops.aten, name).default: function
    for name, function in {"_grouped_mm": grouped_mm}.items()
    if hasattr(torch.ops.aten, name)
}


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
        self.narrow: set[str] = set()  # what knows no float64, and was computed in that

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
        if function in COMPOSED:
            return COMPOSED[function](*args, **(kwargs or {}))
        try:
            return function(*args, **kwargs) if kwargs else function(*args)
        except RuntimeError as error:
            return self._narrowly(error, function, args, kwargs or {})

    def _narrowly(self, error: RuntimeError, function: Any, args: Any, kwargs: Any) -> Any:
        """What a kernel gives that knows no float64. Raises the error, if it is about something
        else."""
        try:
            result = self._drawn(function, args, kwargs)
        except RuntimeError:
            raise error from None
        self.narrow.add(function._schema.name)
        return result

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
