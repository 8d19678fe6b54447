"""Pooling."""

import inspect
from functools import wraps

import torch
import torch.nn.functional as F

from .adapters import array, refusing, rule, seeded, tensor


def _signed(function):
    """A function of torch that hands on what it is given, with the signature of what it calls where
    indices are asked for."""

    @wraps(function)
    def signed(*args, **kwargs):
        return function(*args, **kwargs)

    signed.__signature__ = inspect.signature(getattr(F, f"{function.__name__}_with_indices"))
    return signed


def _listed(value, rank):
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values * (rank // len(values)) if values else values


def _misses(rank):
    """Whether a window has no element of the input: torch then counts on until it is beyond it, and
    reads, and in the backward pass writes, there."""

    def fault(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, **_):
        try:
            stride = stride or kernel_size
            sides = [_listed(v, rank) for v in (kernel_size, stride, padding, dilation)]
            sides = list(zip(x.shape[-rank:], *sides, strict=True))
            return any(_missing(*side, ceil_mode) for side in sides if min(side) >= 0)
        except (TypeError, ValueError, ZeroDivisionError, AttributeError):
            return False  # that torch refuses

    return fault


def _missing(n, k, s, p, d, ceil_mode):
    out = (n + 2 * p - d * (k - 1) - 1 + (s - 1 if ceil_mode else 0)) // s + 1
    out -= ceil_mode and (out - 1) * s >= n + p
    return any(not range(n)[max(a, a % d) : a + d * k : d] for a in (i * s - p for i in range(out)))


def _maximum(function, rank):
    looked_at = refusing(_signed(function), _misses(rank), "a window has no element of the input")
    return rule(looked_at, also=f"{function.__name__}_with_indices")


def _adaptive_maximum(function):
    return rule(_signed(function), also=f"{function.__name__}_with_indices")


def _beyond(x, kernel_size, *_, **__):
    """Torch takes a kernel of 0 and less, and reads behind the input then."""
    sides = kernel_size if isinstance(kernel_size, (list, tuple)) else [kernel_size]
    return any(isinstance(side, int) and side < 1 for side in sides)


def _fractional(function):
    """With what torch would draw, where that is not given."""
    looked_at = refusing(_signed(function), _beyond, "a kernel has elements")
    twin = rule(looked_at, constant="_random_samples", lengths="output_ratio")

    def uniform(x, rank):
        planes = (x.shape[0], x.shape[1]) if x.ndim == rank + 2 else (1, x.shape[0])
        return torch.rand(*planes, rank, dtype=x.dtype)

    def drawn(*args, **kwargs):
        given = kwargs.get("_random_samples")
        rank = 2 if function is F.fractional_max_pool2d else 3
        made = array(seeded(uniform)(tensor(args[0]), rank)) if given is None else given
        return {"_random_samples": made}

    drawn.keyword = "_random_samples"
    twin.draw = drawn
    return twin


max_pool1d = _maximum(F.max_pool1d, 1)
max_pool2d = _maximum(F.max_pool2d, 2)
max_pool3d = _maximum(F.max_pool3d, 3)
avg_pool1d = rule(F.avg_pool1d)
avg_pool2d = rule(F.avg_pool2d)
avg_pool3d = rule(F.avg_pool3d)
adaptive_avg_pool1d = rule(F.adaptive_avg_pool1d)
adaptive_avg_pool2d = rule(F.adaptive_avg_pool2d)
adaptive_avg_pool3d = rule(F.adaptive_avg_pool3d)
adaptive_max_pool1d = _adaptive_maximum(F.adaptive_max_pool1d)
adaptive_max_pool2d = _adaptive_maximum(F.adaptive_max_pool2d)
adaptive_max_pool3d = _adaptive_maximum(F.adaptive_max_pool3d)
fractional_max_pool2d = _fractional(F.fractional_max_pool2d)
fractional_max_pool3d = _fractional(F.fractional_max_pool3d)
max_unpool1d = rule(F.max_unpool1d)
max_unpool2d = rule(F.max_unpool2d)
max_unpool3d = rule(F.max_unpool3d)
lp_pool1d = rule(F.lp_pool1d)
lp_pool2d = rule(F.lp_pool2d)
lp_pool3d = rule(F.lp_pool3d)
