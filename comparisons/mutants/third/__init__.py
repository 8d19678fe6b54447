"""Mistakes written blind, from the README alone, and before any was tried."""

from . import (
    attention,
    blocks,
    conv,
    distances,
    fused,
    kernels,
    losses,
    norms,
    optim,
    positions,
    recurrent,
    resampling,
)

MODULES = (
    attention,
    blocks,
    conv,
    distances,
    fused,
    kernels,
    losses,
    norms,
    optim,
    positions,
    recurrent,
    resampling,
)
