"""Mistakes written blind, from the README alone, and before any was tried."""

from . import (
    attention,
    blocks,
    convolutions,
    kernels,
    losses,
    norms,
    optimizer_steps,
    recurrences,
)

MODULES = (
    attention,
    blocks,
    convolutions,
    kernels,
    losses,
    norms,
    optimizer_steps,
    recurrences,
)
