"""Torch's fused kernels, seen from inside: what they are made of, or how far they move."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch._decomp import decomposition_table


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


OWN_PARTS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.linalg_matrix_exp.default: _exponential,
}

# How far a result moves, to first order, when each of the operations that it is made of moves by
# one: the root of the sum of the squares of what each makes of it. That is a matter of some few
# passes over it, where to evaluate the operations, with noise and without, takes some twenty.


def _sigmoid(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """1 / (1 + e⁻ˣ): the exponential is the share 1 − y of the sum."""
    share = 1 - y
    return share.mul_(share).add_(2).sqrt_().mul_(y)


def _sigmoid_backward(dx: torch.Tensor, dy: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """dy y (1 − y), each of which moves all of it."""
    return dx * math.sqrt(3)


def _tanh_backward(dx: torch.Tensor, dy: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """dy (1 − y²)."""
    squares = torch.mul(dy, y).mul_(y).square_()
    return squares.addcmul_(dx, dx, value=2).sqrt_()


def _softplus(
    y: torch.Tensor, x: torch.Tensor, beta: float = 1, threshold: float = 20
) -> torch.Tensor:
    """log(1 + e^βx) / β, of which the exponent's slope is σ(βx) / β; x itself above the
    threshold."""
    z = x if beta == 1 else x * beta
    share = torch.sigmoid(z).div_(beta).square_()
    squares = share.addcmul_(share, z.square()).addcmul_(y, y, value=2)
    return squares.masked_fill_(z > threshold, 0).sqrt_()


def _softplus_backward(
    dx: torch.Tensor, dy: torch.Tensor, x: torch.Tensor, beta: float, threshold: float
) -> torch.Tensor:
    """dy z / (z + 1), where z = e^βx, moves by the share 1 − σ(βx) of what z does; above the
    threshold it is dy itself."""
    z = x if beta == 1 else x * beta
    share = torch.neg(z).sigmoid_().square_()
    squares = share.addcmul_(share, z.square()).add_(3)
    return squares.masked_fill_(z > threshold, 0).sqrt_().mul_(dx)


MOVES: dict[Any, Callable[..., torch.Tensor]] = {
    torch.ops.aten.sigmoid.default: _sigmoid,
    torch.ops.aten.sigmoid_backward.default: _sigmoid_backward,
    torch.ops.aten.tanh_backward.default: _tanh_backward,
    torch.ops.aten.softplus.default: _softplus,
    torch.ops.aten.softplus_backward.default: _softplus_backward,
}
