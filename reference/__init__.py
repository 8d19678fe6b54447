"""The same rules and optimizers, obtained from torch. Nothing in here knows the hand-written
side."""

from . import (
    activations,
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
    recurrent,
    reductions,
    schedules,
    second_order,
    views,
)

__all__ = [
    "activations",
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
    "recurrent",
    "reductions",
    "schedules",
    "second_order",
    "views",
]
