"""The same rules and optimizers, obtained from torch. Nothing in here knows the hand-written
side."""

from . import (
    activations,
    averaging,
    clipping,
    distances,
    dropout,
    elementary,
    embedding,
    linear,
    losses,
    models,
    optimizers,
    schedules,
    second_order,
)

__all__ = [
    "activations",
    "averaging",
    "clipping",
    "distances",
    "dropout",
    "elementary",
    "embedding",
    "linear",
    "losses",
    "models",
    "optimizers",
    "schedules",
    "second_order",
]
