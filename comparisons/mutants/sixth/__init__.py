"""Mistakes written blind, from the README alone, and before any was tried."""

from . import (
    attention,
    blocks,
    conv_pool,
    fused_kernels,
    losses,
    norms,
    optimizers,
    recurrent,
)

MODULES = (
    attention,
    blocks,
    conv_pool,
    fused_kernels,
    losses,
    norms,
    optimizers,
    recurrent,
)
