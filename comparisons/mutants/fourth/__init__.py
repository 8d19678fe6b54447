"""Mistakes written blind, from the README alone, and before any was tried."""

from . import (
    activations,
    attention,
    convs,
    fused,
    gathers,
    geometry,
    losses,
    matrices,
    norms,
    recurrences,
    steps,
)

MODULES = (
    activations,
    attention,
    convs,
    fused,
    gathers,
    geometry,
    losses,
    matrices,
    norms,
    recurrences,
    steps,
)
