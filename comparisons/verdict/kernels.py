"""Torch's fused kernels, seen from inside: what they are made of, or how far they move."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._decomp import decomposition_table

SHORT = 64  # terms up to which a sum is one operation


def parts(function: Any) -> Callable[..., Any] | None:
    """What an overload computes, in simple operations; None where it is one."""
    return OWN_PARTS.get(function) or decomposition_table.get(function)


def _exponential(a: torch.Tensor) -> torch.Tensor:
    """exp(A) as torch has it: a polynomial of A / 2ˢ, whose norm is below 1, squared s times, which
    doubles each time what was lost before (Higham, "The scaling and squaring method for the matrix
    exponential revisited", 2005). Here it is Taylor's, with a remainder below 1 / 19!."""
    norm = float(a.abs().sum(-2).max()) if a.numel() else 0.0
    times = max(math.ceil(math.log2(norm)), 0) if 0 < norm < math.inf else 0
    part, one = a / 2**times, torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    power = one + part / 18
    for k in range(17, 0, -1):
        power = one + part @ power / k
    for _ in range(times):
        power = power @ power
    return power


def _layer_norm(
    x: torch.Tensor, shape: Sequence[int], weight: Any, bias: Any, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Normalized over the last axes."""
    y, mean, rstd, _ = _normalized(x, tuple(range(x.ndim - len(shape), x.ndim)), eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias, mean, rstd


def _group_norm(
    x: torch.Tensor, weight: Any, bias: Any, n: int, c: int, hw: int, groups: int, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Normalized over the channels of a group and all that lies in them."""
    y, mean, rstd, _ = _normalized(x.reshape(n, groups, c // groups * hw), (2,), eps)
    y, each = y.reshape(x.shape), (1, c, *(1 for _ in x.shape[2:]))
    y = y if weight is None else y * weight.reshape(each)
    y = y if bias is None else y + bias.reshape(each)
    return y, mean[..., 0], rstd[..., 0]


def _batch_norm(
    x: torch.Tensor,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Each channel normalized over all that lies in it, or by the running statistics, which it
    moves in training."""
    each, axes = (1, -1, *(1 for _ in x.shape[2:])), (0, *range(2, x.ndim))
    if training:
        y, mean, rstd, variance = _normalized(x, axes, eps)
        n = x.numel() // x.shape[1]
        unbiased = variance * (n / (n - 1) if n > 1 else math.nan)
        for old, new in ((running_mean, mean), (running_var, unbiased)):
            if old is not None:
                old.mul_(1 - momentum).add_(new.flatten(), alpha=momentum)
        saved = mean.flatten(), rstd.flatten()
    else:
        y = (x - running_mean.reshape(each)) * (running_var + eps).rsqrt().reshape(each)
        saved = x.new_empty(0), x.new_empty(0)
    y = y if weight is None else y * weight.reshape(each)
    return (y if bias is None else y + bias.reshape(each)), *saved


def _normalized(
    x: torch.Tensor, axes: tuple[int, ...], eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(x − mean) / √(variance + eps), the mean, the factor and the variance, by two sums; torch's
    parts have a kernel inside for these."""
    n = math.prod(x.shape[axis] for axis in axes)
    mean = x.sum(axes, keepdim=True) / n
    centred = x - mean
    variance = (centred * centred).sum(axes, keepdim=True) / n
    rstd = (variance + eps).rsqrt()
    return centred * rstd, mean, rstd, variance


OWN_PARTS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.linalg_matrix_exp.default: _exponential,
    torch.ops.aten.native_layer_norm.default: _layer_norm,
    torch.ops.aten.native_group_norm.default: _group_norm,
    torch.ops.aten.native_batch_norm.default: _batch_norm,
}

# How far a result moves, to first order, when each of the operations that it is made of moves by
# one: a term for each, or for several alike, which count as the root of their number. That takes
# some few passes over it, where to evaluate all operations, with noise and without, takes twenty.
# Elements that a term is broadcast to move together; there are none where nothing is known.
Terms = list[tuple[torch.Tensor, float]]


def _sigmoid(y: torch.Tensor, x: torch.Tensor) -> Terms:
    """1 / (1 + e⁻ˣ): the exponential is the share 1 − y of the sum."""
    return [(y, math.sqrt(2)), (torch.addcmul(y, y, y, value=-1), 1)]


def _sigmoid_backward(dx: torch.Tensor, dy: torch.Tensor, y: torch.Tensor) -> Terms:
    """dy y (1 − y), each of which moves all of it."""
    return [(dx, math.sqrt(3))]


def _tanh_backward(dx: torch.Tensor, dy: torch.Tensor, y: torch.Tensor) -> Terms:
    """dy (1 − y²)."""
    return [(dx, math.sqrt(2)), (torch.mul(dy, y).mul_(y), 1)]


def _softplus(y: torch.Tensor, x: torch.Tensor, beta: float = 1, threshold: float = 20) -> Terms:
    """log(1 + e^βx) / β, of which the exponent's slope is σ(βx) / β; x itself above the
    threshold."""
    z = x if beta == 1 else x * beta
    itself = z > threshold
    slope = _but(itself, torch.sigmoid(z))
    return [(_but(itself, y), math.sqrt(2)), (slope, 1 / beta), (slope * x, 1)]


def _softplus_backward(
    dx: torch.Tensor, dy: torch.Tensor, x: torch.Tensor, beta: float, threshold: float
) -> Terms:
    """dy z / (z + 1), where z = e^βx, moves by the share 1 − σ(βx) of what z does; above the
    threshold it is dy itself."""
    z = x if beta == 1 else x * beta
    moves = _but(z > threshold, dx)
    share = torch.neg(z).sigmoid_() * moves  # dy may have more axes
    return [(moves, math.sqrt(3)), (share, 1), (share * z, 1)]


def _gelu(y: torch.Tensor, x: torch.Tensor, approximate: str = "none") -> Terms:
    """(x / 2) (1 + e), where e = erf(x / √2), of which the inside moves y by x² φ(x)."""
    if approximate != "none":
        return []
    return [(y, math.sqrt(3)), (torch.sub(y, x, alpha=0.5), 1), (_density(x).mul_(x).mul_(x), 1)]


def _gelu_backward(
    dx: torch.Tensor, dy: torch.Tensor, x: torch.Tensor, approximate: str = "none"
) -> Terms:
    """dy (Φ + x φ): Φ = (1 + e) / 2, whose e moves by itself and, as its inside does, by x φ; and
    x φ, whose exponent −x² / 2 are two products."""
    if approximate != "none":
        return []
    part = _density(x).mul_(x) * dy
    rest = dx - part
    return [
        (dx, math.sqrt(2)),
        (rest, math.sqrt(2)),
        (torch.sub(rest, dy, alpha=0.5), 1),
        (part, 2),
        (part * x * x, math.sqrt(1 / 2)),
    ]


def _density(x: torch.Tensor) -> torch.Tensor:
    """φ, that of a normal distribution."""
    return torch.square(x).mul_(-0.5).exp_().mul_(1 / math.sqrt(2 * math.pi))


def _but(places: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A tensor, with 0 in these places."""
    return t.masked_fill(places, 0) if places.any() else t


def _log_softmax(y: torch.Tensor, x: torch.Tensor, dim: int, to_float: bool) -> Terms:
    """s − L, where s = x − max x and L = log Σ eˢ: of a row, L moves by the share p of what each eˢ
    does, which is by itself and by s, and by itself and by the sum."""
    if to_float or (y.ndim and y.shape[dim] > SHORT):
        return []
    s, p = x - x.amax(dim, keepdim=True), y.exp()
    total = (s - y).amax(dim, keepdim=True)
    row = (p * p + (p * s).nan_to_num_(0.0, 0.0, 0.0).square_()).sum(dim, keepdim=True)
    return [(y, 1), (s * (1 - p), 1), (row.add_(total.square_()).add_(1).sqrt_(), 1)]


def _log_softmax_backward(
    dx: torch.Tensor, dy: torch.Tensor, y: torch.Tensor, dim: int, dtype: torch.dtype
) -> Terms:
    """dy − p Σ dy, where p = eʸ."""
    if y.ndim and y.shape[dim] > SHORT:
        return []
    return [(dx, 1), (y.exp().mul_(dy.sum(dim, keepdim=True)), math.sqrt(3))]


MOVES: dict[Any, Callable[..., Terms]] = {
    torch.ops.aten._log_softmax.default: _log_softmax,
    torch.ops.aten._log_softmax_backward_data.default: _log_softmax_backward,
    torch.ops.aten.gelu.default: _gelu,
    torch.ops.aten.gelu_backward.default: _gelu_backward,
    torch.ops.aten.sigmoid.default: _sigmoid,
    torch.ops.aten.sigmoid_backward.default: _sigmoid_backward,
    torch.ops.aten.tanh_backward.default: _tanh_backward,
    torch.ops.aten.softplus.default: _softplus,
    torch.ops.aten.softplus_backward.default: _softplus_backward,
}
