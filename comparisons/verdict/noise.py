"""The reference under one ulp of noise: how far its results move is what rounding can do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch._decomp import decomposition_table
from torch.utils._python_dispatch import TorchDispatchMode

from ...reference.adapters import leaves, tree_map

# Results that are copies, selections or comparisons of what went in: exact, so left alone.
EXACT = frozenset(
    [
        "_to_copy",
        "abs",
        "alias",
        "amax",
        "amin",
        "arange",
        "bernoulli",
        "cat",
        "ceil",
        "clamp",
        "clamp_max",
        "clamp_min",
        "clone",
        "constant_pad_nd",
        "copy",
        "cummax",
        "cummin",
        "detach",
        "embedding",
        "empty",
        "empty_like",
        "eq",
        "fill",
        "flip",
        "floor",
        "full",
        "full_like",
        "gather",
        "ge",
        "gt",
        "hardtanh",
        "index_put",
        "index_select",
        "isnan",
        "le",
        "lift_fresh",
        "lt",
        "masked_fill",
        "max",
        "max_pool2d_with_indices",
        "maximum",
        "median",
        "min",
        "minimum",
        "multilabel_margin_loss_forward",  # its second result has to be 0 or 1
        "ne",
        "neg",
        "new_zeros",
        "ones",
        "ones_like",
        "relu",
        "repeat",
        "roll",
        "round",
        "scalar_tensor",
        "scatter",
        "sign",
        "slice_scatter",
        "sort",
        "stack",
        "take",
        "threshold_backward",
        "topk",
        "tril",
        "triu",
        "trunc",
        "unfold",
        "where",
        "zero",
        "zeros",
        "zeros_like",
    ]
)
PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.bmm.default)
SUMS = (torch.ops.aten.sum.default, torch.ops.aten.sum.dim_IntList)
PIECES, SHORT = 8, 64  # a sum of more terms than SHORT is added up in so many pieces


def unit_roundoff(dtype: Any) -> float:
    """u, the largest relative error of one rounding in this dtype."""
    return float(np.finfo(dtype).eps) / 2


def cast(tree: Any, dtype: Any) -> Any:
    """The tree with every floating array in `dtype`."""
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite there
        return tree_map(lambda a: a.astype(dtype) if is_floating(a) else a, tree)


def moved(tree: Any, size: float, rng: np.random.Generator, zeros: bool = False) -> Any:
    """The tree with every floating array, element by element, and every float times 1 ± size.

    With `zeros`, a zero moves too, by size/2 of the largest element beside it. What is at most 1
    in size remains so, and what has no negative gets none, because it may have to: a probability,
    a decay rate. Several numbers that are all −1, 0 or 1 are left alone: they may be labels.
    """

    def move(leaf: Any) -> Any:
        if isinstance(leaf, float):
            return float(move(np.array(leaf)))
        if not is_floating(leaf) or (leaf.size > 1 and np.isin(leaf, (-1, 0, 1)).all()):
            return leaf
        magnitude = abs(leaf)
        up = _coins(leaf.size, rng).reshape(leaf.shape).astype(bool)
        up &= (magnitude > 1) | (magnitude < 1 / (1 + size))
        factors = np.where(up, 1 + size, 1 - size)
        result = (leaf * factors).astype(leaf.dtype)
        if zeros and not magnitude.all():
            shift = (factors - 1) / 2 * np.max(magnitude, initial=0, where=np.isfinite(leaf))
            shift = shift if np.any(leaf < 0) else abs(shift)
            result = np.where(leaf == 0, shift.astype(leaf.dtype), result)
        return np.asarray(result)  # of an array without axes, arithmetic makes a number

    return tree_map(move, tree)


class OneUlpNoise(TorchDispatchMode):
    """Multiplies every floating result that torch computes, in place or not, by 1 + a random number
    of that size.

    A tensor of which nothing exceeds 1 in size remains so, as in `moved`. It works below autograd,
    so that the tensors which are saved for the backward are noisy as well; and a fused kernel is
    taken apart by torch's own decompositions, so that noise reaches what it computes inside. A sum
    and a matrix product become PIECES partial sums, each with the noise of as many additions as it
    makes.

    Results in 16 bits are left alone, but counted in `halves`; with `half` they alone are moved, as
    they come: a kernel rounds to 16 bits once, at its end.
    """

    def __init__(self, size: float, seed: int, half: bool = False) -> None:
        super().__init__()
        self.size, self.half = size, half
        self.rng = np.random.default_rng(seed)
        self.halves = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.half:
            result = function(*args, **kwargs)
            for t in leaves(result):
                self._disturb(t)
            return result
        schema = function._schema
        if function in PRODUCTS:
            return self._product(*args)
        if function in SUMS and _long(args[0]) and not kwargs:
            return self._sum(*args)
        inputs = [t for t in leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        exact = schema.name.split("::")[1].rstrip("_").removeprefix("_foreach_") in EXACT
        empty = any(not t.numel() for t in inputs)  # some decompositions divide by its size
        fused = function in decomposition_table and not schema.is_mutable
        if fused and not exact and not empty:
            with self:
                return decomposition_table[function](*args, **kwargs)
        result = function(*args, **kwargs)
        if exact:
            return result
        if schema.is_mutable:
            positional = zip(args, schema.arguments, strict=False)
            computed = [a for a, s in positional if s.is_write] + [kwargs.get("out")]
        else:
            seen = {_storage(t) for t in inputs}
            computed = [t for t in leaves(result) if _storage(t) not in seen]
        for t in leaves(computed):
            self._disturb(t)
        return result

    def _product(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """a @ b, when it is long added up piece by piece: n additions have √n times the noise of
        one."""
        terms = a.shape[-1]
        length = math.ceil(terms / PIECES) if terms > SHORT else max(terms, 1)
        size = self.size * math.sqrt(length) if terms > SHORT else self.size
        total = a[..., :length] @ b[..., :length, :]
        self._disturb(total, size)
        for i in range(length, terms, length):
            total += a[..., i : i + length] @ b[..., i : i + length, :]
            self._disturb(total, size)
        return total

    def _sum(self, x: torch.Tensor, axes: Any = None, keepdim: bool = False) -> torch.Tensor:
        axes = [axis % x.ndim for axis in axes] if axes else range(x.ndim)
        kept = [axis for axis in range(x.ndim) if axis not in axes]
        rows = x.permute(*kept, *axes).reshape(*(x.shape[axis] for axis in kept), -1)
        total = self._product(rows.unsqueeze(-2), rows.new_ones(rows.shape[-1], 1))
        shape = (
            [1 if axis in axes else n for axis, n in enumerate(x.shape)]
            if keepdim
            else [x.shape[a] for a in kept]
        )
        return total.reshape(shape)

    def _disturb(self, t: Any, size: float | None = None) -> None:
        if isinstance(t, torch.Tensor) and t.is_floating_point() and t.numel():
            if t.layout is not torch.strided:  # the values that it is made of have moved
                return
            self.halves += _is_half(t)
            if _is_half(t) != self.half:
                return
            size = size or self.size
            factors = 1 + size * _even(t.numel(), self.rng)
            at_most_1 = t.abs().max() <= 1
            t.mul_(torch.from_numpy(factors).view(t.shape).to(t))
            if at_most_1:
                most = size * math.sqrt(3)
                t.mul_(torch.where(t.abs() > 1, (1 - most) / (1 + most), 1.0).to(t.dtype))


def _is_half(t: Any) -> bool:
    return isinstance(t, torch.Tensor) and t.dtype in (torch.float16, torch.bfloat16)


def _long(t: torch.Tensor) -> bool:
    """Whether a sum over it may be long enough to be taken apart."""
    return t.is_floating_point() and t.numel() > SHORT


def _storage(t: Any) -> int | None:
    dense = isinstance(t, torch.Tensor) and t.layout is torch.strided
    return t.untyped_storage()._cdata if dense else None


def _coins(n: int, rng: np.random.Generator) -> np.ndarray:
    """n zeros and ones."""
    return np.unpackbits(np.frombuffer(rng.bytes(n // 8 + 1), np.uint8), count=n)


def _even(n: int, rng: np.random.Generator) -> np.ndarray:
    """n numbers, evenly distributed between ± √3, so that their mean square is 1.

    Signs alone would not do: of two results in a row, (1 + s)(1 − s) leaves half without noise.
    """
    numbers = np.frombuffer(rng.bytes(n), np.uint8).astype(np.float64)
    numbers -= 127.5
    numbers *= math.sqrt(3) / 127.5
    return numbers


def is_floating(leaf: Any) -> bool:
    """Whether the leaf is a floating array."""
    return isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f"
