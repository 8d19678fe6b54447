"""What a module computes, in float64 whatever it casts to on the way."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ..trees import mapped

NARROW = (torch.float32, torch.bfloat16, torch.float16)
# What is drawn beside a computation on numbers whose digits count.
BESIDE = frozenset(("native_dropout", "rrelu_with_noise", "rrelu_with_noise_functional"))


class Wide(TorchDispatchMode):
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
        kwargs = kwargs or {}
        name = function._schema.name.split("::")[1]
        if torch.Tag.nondeterministic_seeded in function.tags and name not in BESIDE:
            return self._drawn(function, args, kwargs)
        if kwargs.get("dtype") in NARROW:
            kwargs = {**kwargs, "dtype": torch.float64}
        written = {i for i, a in enumerate(function._schema.arguments) if a.is_write}
        args = tuple(a if i in written else mapped(_widened, a) for i, a in enumerate(args))
        return function(*args, **kwargs)

    def _drawn(self, function: Any, args: Any, kwargs: Any) -> Any:
        def narrowed(leaf: Any) -> Any:
            real = isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float64
            return leaf.to(self.native) if real else leaf

        if kwargs.get("dtype") == torch.float64 or (
            "dtype" in kwargs and kwargs["dtype"] is None
        ):
            kwargs = {**kwargs, "dtype": self.native}
        given = mapped(narrowed, tuple(args))
        result = function(*given, **kwargs)
        for i, argument in enumerate(function._schema.arguments):
            if argument.is_write and i < len(args):
                args[i].copy_(given[i])
                result = args[i]
        return mapped(_widened, result)


def _widened(leaf: Any) -> Any:
    narrow = isinstance(leaf, torch.Tensor) and leaf.dtype in NARROW
    return leaf.to(torch.float64) if narrow else leaf
