"""The reference under one ulp of noise: how far its results move is what rounding can do."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from ml_dtypes import finfo

from ...reference.adapters import leaves, tree_map
from .classes import Fixed
from .dispatch import Dispatch
from .halves import BITS, is_half, rounded
from .kernels import MOVES, SHORT, Terms, parts
from .ulps import by_blocks

# Results that are copies, selections or comparisons of what went in: exact, so left alone.
EXACT = frozenset(
    [
        "_to_copy",
        "_unsafe_view",
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
        "empty_strided",
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
        "new_empty",
        "new_empty_strided",
        "new_full",
        "new_ones",
        "new_zeros",
        "ones",
        "ones_like",
        "relu",
        "repeat",
        "roll",
        "round",
        "scalar_tensor",
        "scatter",
        "select_backward",
        "select_scatter",
        "sign",
        "slice_backward",
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
SUMS = {
    torch.ops.aten.mm.default: "product",
    torch.ops.aten.bmm.default: "product",
    torch.ops.aten.addmm.default: "shifted",
    torch.ops.aten.sum.default: "sum",
    torch.ops.aten.sum.dim_IntList: "sum",
}
PIECES = 8  # in so many a sum of more terms than SHORT is added up
NEAR = 64  # sizes of the noise, within which the largest of a tensor is near 1
POOL = 65_521  # random numbers, over and over: a prime, so that no two rows or columns fit
LONG = 2**18  # elements, of which there are so many at hand; of larger tensors, piece by piece
HALVES = (torch.float16, torch.bfloat16)


@functools.cache
def unit_roundoff(dtype: Any) -> float:
    """u, the largest relative error of one rounding in this dtype, or type of 16 bits."""
    return 2.0 ** -BITS[dtype] if is_half(dtype) else float(finfo(dtype).eps) / 2


def cast(tree: Any, dtype: Any) -> Any:
    """The tree with every floating array in `dtype`; of one of 16 bits, in float32."""
    if is_half(dtype):
        return tree_map(lambda a: rounded(a, dtype) if is_floating(a) else a, tree)
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite there
        return tree_map(lambda a: a.astype(dtype) if is_floating(a) else a, tree)


def moved(tree: Any, size: float, rng: np.random.Generator, zeros: bool = False) -> Any:
    """The tree with every floating array, element by element, and every float times 1 ± size.

    With `zeros`, a zero moves too, by size/2 of the largest element beside it. What is at most 1
    in size remains so, and what has no negative gets none, because it may have to: a probability,
    a decay rate. Several numbers that are all −1, 0 or 1 are left alone: they may be labels.
    """
    return next(moved_by((size,), tree, rng, zeros))


def moved_by(
    sizes: Sequence[float],
    tree: Any,
    rng: np.random.Generator,
    zeros: bool = False,
    dtype: Any = None,
) -> Iterator[Any]:
    """As `moved`, once for each size, to the same sides, after each array has been cast to the
    dtype, if one is given. Each is made when it is asked for, because such trees may be large."""

    def leaf_of(leaf: Any) -> Any:
        return leaf if dtype is None else cast(leaf, dtype)

    sides = [_sides(leaf_of(leaf), max(sizes), rng) for leaf in leaves(tree)]
    for size in sizes:
        now = iter(sides)
        yield tree_map(
            lambda leaf, now=now, size=size: _to_side(leaf_of(leaf), next(now), size, zeros), tree
        )


def _sides(leaf: Any, size: float, rng: np.random.Generator) -> np.ndarray | None:
    """Which elements become larger; None for what stays."""
    if isinstance(leaf, Fixed):
        return None
    leaf = np.array(leaf) if isinstance(leaf, float) else leaf
    if not is_floating(leaf) or _may_be_labels(leaf):
        return None
    up = _coins(leaf.size, rng).reshape(leaf.shape).view(bool)
    return by_blocks(partial(_may_grow, 1 / (1 + size)), leaf, up)


def _to_side(leaf: Any, up: np.ndarray | None, size: float, zeros: bool) -> Any:
    if up is None:
        return leaf
    if isinstance(leaf, float):
        return float(_to_side(np.array(leaf), up, size, zeros))
    result = by_blocks(partial(_moved, np.array((1 - size, 1 + size))), leaf, up)
    if zeros and not leaf.all():
        scale = np.max(abs(leaf), initial=0, where=np.isfinite(leaf))
        shift = np.where(up, 1 + size - 1, 1 - size - 1) / 2 * scale
        shift = shift if np.any(leaf < 0) else abs(shift)
        result = np.where(leaf == 0, shift.astype(leaf.dtype), result)
    return np.asarray(result)  # of an array without axes, arithmetic makes a number


def _may_grow(most: float, leaf: np.ndarray, up: np.ndarray) -> np.ndarray:
    magnitude = abs(leaf)
    return up & ((magnitude > 1) | (magnitude < most))


def _moved(factors: np.ndarray, leaf: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Times one of two factors, which are looked up: a branch would be mispredicted."""
    return np.multiply(leaf, factors.take(up.view(np.uint8))).astype(leaf.dtype, copy=False)


class OneUlpNoise(Dispatch):
    """Multiplies every floating result that torch computes, in place or not, by 1 + a random number
    of that size.

    What is at most 1 in size remains so where it is near, as in `moved`. It works below autograd,
    so that the tensors which are saved for the backward are noisy as well, and below vmap, where
    one result is that of many draws. A sum and a matrix product become PIECES partial sums, each
    with the noise of as many additions as it makes. A fused kernel keeps its result, and moves by
    as much as torch's own decomposition of it moves, or as is known of it, so that noise reaches
    what it computes inside. The decomposition itself is no substitute: it may compute something
    else than the kernel whose backward follows, and then the gradient is wrong without any noise.

    Results in 16 bits are left alone, but counted in `halves`; with `half` they alone are moved, by
    so many units in the last place, as they come: a kernel rounds to 16 bits once, at its end.

    The same seed gives the same signs at every size.
    """

    def __init__(self, size: float, seed: int, half: bool = False) -> None:
        super().__init__()
        self.size, self.half = size, half
        self.random = random.Random(seed)
        self.halves = 0
        self._sums: dict[str, Callable[..., torch.Tensor]] = {
            "product": self._product,
            "shifted": self._shifted,
            "sum": self._sum,
        }

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.half:
            result = function(*args, **kwargs)
            self._disturb(result)
            return result
        way, written, sum_of, keeps = _way(function)
        if sum_of and not kwargs and (terms := _terms(sum_of, *args)) > SHORT:
            return self._sums[sum_of](terms, *args)
        result = function(*args, **kwargs)
        if way == "exact":
            return result
        given = _tensors((args, *kwargs.values()))
        if way == "known" and _is_real(result) and result.dtype not in HALVES:
            if moves := MOVES[function](result, *args, **kwargs):
                self._shift(result, moves)
                return result
            way = "fused"
        if way == "fused" and all(t.numel() for t in given):
            self._follow(result, parts(function), keeps, args, kwargs)
            return result
        if written:
            self._disturb([args[i] for i in written if i < len(args)])
            self._disturb(kwargs.get("out"))
        seen = set(map(_storage, given))
        self._disturb([t for t in _tensors(result) if _storage(t) not in seen])
        return result

    def _follow(
        self, result: Any, decomposition: Any, keeps: tuple[int, ...], args: Any, kwargs: Any
    ) -> None:
        """Moves what a kernel gave by as much as its decomposition moves; by itself, where that
        gives something else. Statistics that it keeps, and has moved on by now, are moved as well;
        the decomposition gets copies of them, to move those on once more."""

        def evaluated() -> list[torch.Tensor]:
            given = list(args)
            for i in keeps:
                given[i] = None if args[i] is None else args[i].clone()
            return _tensors(decomposition(*given, **kwargs)) + _tensors([given[i] for i in keeps])

        found, still = _tensors(result) + _tensors([args[i] for i in keeps]), evaluated()
        if [(t.shape, t.dtype) for t in found] != [(t.shape, t.dtype) for t in still]:
            self._disturb(result)
            return
        with self:
            moved = evaluated()
        for t, there, here in zip(found, moved, still, strict=True):
            if not _is_real(t) or t.dtype in HALVES or _once(t) is not t:
                self._disturb(t)
                continue
            self._take_off(t, here - there)

    def _shift(self, t: torch.Tensor, terms: Terms) -> None:
        """Moves each element of a term by a random number of its own times that."""
        move = torch.zeros_like(t)  # and never −0
        for scale, times in terms:
            for numbers, of, there in self._beside(scale.expand_as(t), move):
                there.addcmul_(of, numbers, value=times * self.size)
        self._take_off(t, move)

    def _take_off(self, t: torch.Tensor, move: torch.Tensor) -> None:
        """Not added, so that −0 remains −0."""
        move.nan_to_num_(0.0, 0.0, 0.0)
        if _near_1(t, self.size):
            t.copy_(_reflected(t - move, t))
        else:
            t.sub_(move)

    def _product(self, terms: int, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """a @ b, added up piece by piece: n additions have √n times the noise of one."""
        length = math.ceil(terms / PIECES)
        size = self.size * math.sqrt(length)
        total = a[..., :length] @ b[..., :length, :]
        add = total.addmm_ if total.ndim == 2 else total.baddbmm_
        for i in range(length, terms, length):
            for factors, piece in self._factors(total, size):
                piece.mul_(factors)
            add(a[..., i : i + length], b[..., i : i + length, :])
        self._disturb(total, size)
        return total

    def _shifted(
        self, terms: int, shift: torch.Tensor, a: torch.Tensor, b: torch.Tensor
    ) -> torch.Tensor:
        """shift + a @ b."""
        total = self._product(terms, a, b).add_(shift)
        self._disturb(total)
        return total

    def _sum(self, terms: int, x: torch.Tensor, axes: Any = None, keepdim: bool = False) -> Any:
        """The sum over these axes, as a product with ones."""
        axes = [axis % x.ndim for axis in axes] if axes else list(range(x.ndim))
        kept = [axis for axis in range(x.ndim) if axis not in axes]
        rows = x.permute(*kept, *axes).reshape(-1, terms)
        total = self._product(terms, rows, rows.new_ones(terms, 1))
        shape = [1 if axis in axes else n for axis, n in enumerate(x.shape)]
        return total.reshape(shape if keepdim else [x.shape[axis] for axis in kept])

    def _disturb(self, result: Any, size: float | None = None) -> None:
        """Moves every floating tensor of a result, each element by a random number of its own."""
        for t in filter(_is_real, _tensors(result)):
            half = t.dtype in HALVES
            self.halves += half
            if half == self.half:
                t = _once(t)
                if half:
                    for numbers, piece in self._beside(t):
                        _step(piece, numbers, int(self.size))
                else:
                    self._scale(t, size)

    def _scale(self, t: torch.Tensor, size: float | None = None) -> None:
        """Multiplies a tensor by random factors. Where the largest is near 1, no element gets
        beyond; that is looked at element by element, because the draws of a batch need not all be
        on the same side."""
        size = size or self.size
        near_1 = _near_1(t, size)
        for factors, piece in self._factors(t, size):
            if near_1:
                near = piece.abs() > 1 - 2 * size  # no other gets beyond 1
                old = piece[near]
                piece.mul_(factors)
                piece[near] = _reflected(piece[near], old)
            else:
                piece.mul_(factors)

    def _factors(self, t: torch.Tensor, size: float) -> Iterator[Sequence[torch.Tensor]]:
        if size == self.size:  # as of most results
            return self._beside(t, size=size)
        one = _one(t.dtype)
        return ((torch.add(one, n, alpha=size), piece) for n, piece in self._beside(t))

    def _beside(
        self, t: torch.Tensor, *others: torch.Tensor, size: float | None = None
    ) -> Iterator[Sequence[torch.Tensor]]:
        """Numbers of a pool for all elements, from some place on, in the layout of t, and t; with
        others of that shape, piece by piece."""
        start = self.random.randrange(POOL)
        for pieces in _pieces(t, *others):
            first = pieces[0]
            pool = _pool(1 << (_span(first) // POOL + 1).bit_length(), t.dtype, size)
            at = (start + first.storage_offset() - t.storage_offset()) % POOL
            yield pool.as_strided(first.shape, first.stride(), at), *pieces


def _span(t: torch.Tensor) -> int:
    """How many elements of memory there are from the first to the last."""
    return 1 + sum((n - 1) * stride for n, stride in zip(t.shape, t.stride(), strict=True))


def _pieces(*tensors: torch.Tensor) -> Iterator[Sequence[torch.Tensor]]:
    """Tensors of one shape, cut so that of the first none spans more than LONG."""
    first = tensors[0]
    if _span(first) <= LONG:
        yield tensors
        return
    axis = max(range(first.ndim), key=lambda i: (first.shape[i] > 1, first.stride(i)))
    rows = max(LONG // first.stride(axis), 1)
    for pieces in zip(*(t.split(rows, axis) for t in tensors), strict=True):
        yield from _pieces(*pieces)


class _Way(NamedTuple):
    """How the noise of an overload is made, which arguments it writes, which sum it is, and which
    are running statistics, which it writes where its schema does not say so."""

    kind: str
    written: tuple[int, ...] = ()
    sum_of: str = ""
    keeps: tuple[int, ...] = ()


@functools.cache
def _way(function: Any) -> _Way:
    schema = function._schema
    written = tuple(i for i, a in enumerate(schema.arguments) if a.is_write)
    views = schema.returns and all(r.alias_info for r in schema.returns)
    name = schema.name.split("::")[1].rstrip("_").removeprefix("_foreach_")
    if name in EXACT or (views and not written):
        return _Way("exact")
    if written:
        return _Way("plain", written)
    # A primitive is one step, though it has a decomposition: itself. What draws at random would
    # draw something else there.
    single = (
        name == "rsub"
        or hasattr(torch.ops.prims, name)
        or torch.Tag.nondeterministic_seeded in function.tags
    )
    if function in MOVES:
        return _Way("known")
    fused = parts(function) is not None and not single
    keeps = tuple(i for i, a in enumerate(schema.arguments) if a.name.startswith("running_"))
    return _Way("fused" if fused else "plain", (), SUMS.get(function, ""), keeps)


@functools.lru_cache(maxsize=64)
def _pool(times: int, dtype: torch.dtype, size: float | None) -> torch.Tensor:
    """So many times POOL random numbers, evenly distributed between ± √3, so that their mean square
    is 1; with a size, 1 + size times them.

    Signs alone would not do: of two results in a row, (1 + s)(1 − s) leaves half without noise.
    """
    numbers = torch.rand(POOL, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    numbers = numbers.sub_(0.5).mul_(2 * math.sqrt(3)).to(dtype)
    if size is not None:
        numbers = torch.add(_one(dtype), numbers, alpha=size)
    return numbers.repeat(times)


def _near_1(t: torch.Tensor, size: float) -> bool:
    """Whether the largest of a tensor is 1, up to what the noise can have made of it."""
    low, high = map(float, torch.aminmax(t))
    return abs(max(high, -low) - 1) <= NEAR * size


def _reflected(new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """What moved beyond 1 in size, moved by as much to the other side."""
    beyond = (old.abs() <= 1) & (new.abs() > 1)
    return torch.where(beyond, 2 * new.sign() - new, new)


def _step(t: torch.Tensor, numbers: torch.Tensor, ulps: int) -> None:
    """Moves a tensor of 16 bits by so many units in the last place, up or down by the signs of the
    numbers; never across 0 or 1, nor from 0 or to infinity."""
    bits = t.view(torch.int16)
    size = bits & 0x7FFF  # in units in the last place
    one = torch.ones((), dtype=t.dtype).view(torch.int16)
    largest = torch.tensor(torch.finfo(t.dtype).max, dtype=t.dtype).view(torch.int16)
    up = (numbers > 0) & ((size > one) | (size + ulps <= one)) & (size + ulps <= largest)
    stepped = torch.where(up, size + ulps, (size - ulps).clamp(min=0))
    moves = (size > 0) & (size <= largest)
    bits.copy_(torch.where(moves, stepped | (bits & -0x8000), bits))


@functools.cache
def _one(dtype: torch.dtype) -> torch.Tensor:
    return torch.ones((), dtype=dtype)


def _tensors(tree: Any) -> list[torch.Tensor]:
    """The tensors among arguments or results."""
    if isinstance(tree, torch.Tensor):
        return [tree]
    found: list[torch.Tensor] = []
    for branch in tree if isinstance(tree, (tuple, list)) else ():
        if isinstance(branch, torch.Tensor):  # as most are
            found.append(branch)
        elif isinstance(branch, (tuple, list)):
            found += _tensors(branch)
    return found


def _storage(t: torch.Tensor) -> int | None:
    return t.untyped_storage()._cdata if t.layout is torch.strided else None


def _is_real(t: torch.Tensor) -> bool:
    """Whether there is something to move; what a sparse tensor is made of has moved, and zeros may
    be without memory."""
    dense = t.is_floating_point() and t.layout is torch.strided and t.numel() > 0
    return dense and not t._is_zerotensor()


def _once(t: torch.Tensor) -> torch.Tensor:
    """Each element of a tensor once, where it is repeated along an axis without taking memory."""
    for axis, (n, stride) in enumerate(zip(t.shape, t.stride(), strict=True)):
        if n > 1 and stride == 0:
            t = t.narrow(axis, 0, 1)
    return t


def _terms(sum_of: str, x: torch.Tensor, other: Any = None, *more: Any) -> int:
    """How many terms each result of a sum over the other, its axes, or of a product with the other
    has; 1 where it is none of numbers that are moved."""
    if not _is_real(x) or x.dtype in HALVES:
        return 1
    if sum_of == "shifted":
        return other.shape[-1]
    if sum_of == "product":
        return x.shape[-1]
    return math.prod(x.shape[axis] for axis in other) if other and x.ndim else x.numel()


def _may_be_labels(a: np.ndarray) -> bool:
    """Whether it is several numbers, all −1, 0 or 1, of which the first says mostly no."""
    return a.size > 1 and a.flat[0] in (-1, 0, 1) and bool(np.isin(a, (-1, 0, 1)).all())


def _coins(n: int, rng: np.random.Generator) -> np.ndarray:
    """n zeros and ones."""
    return np.unpackbits(np.frombuffer(rng.bytes(n // 8 + 1), np.uint8), count=n)


def is_floating(leaf: Any) -> bool:
    """Whether the leaf is a floating array; NumPy has bfloat16 from ml_dtypes, of another kind."""
    if not isinstance(leaf, np.ndarray):
        return False
    return leaf.dtype.kind == "f" or (leaf.dtype.kind == "V" and leaf.dtype.name == "bfloat16")
