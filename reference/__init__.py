"""The same rules and optimizers, obtained from torch. Nothing in here knows the hand-written
side."""

from . import (
    activations,
    attention,
    averaging,
    clipping,
    distances,
    dropout,
    embedding,
    indexing,
    linear,
    losses,
    models,
    optimizers,
    pointwise,
    products,
    reductions,
    schedules,
    second_order,
    views,
)

__all__ = [
    "activations",
    "attention",
    "averaging",
    "clipping",
    "distances",
    "dropout",
    "embedding",
    "indexing",
    "linear",
    "losses",
    "models",
    "optimizers",
    "pointwise",
    "products",
    "reductions",
    "schedules",
    "second_order",
    "views",
]
