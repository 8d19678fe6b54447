"""Every derivative and every optimizer, written by hand in NumPy. Nothing in here knows torch.

A rule is `y, pullback = rule(...)`: the value, and the function that carries a gradient of y back
to a gradient of each floating array that was passed, in the order of the signature.
"""

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
    reductions,
    schedules,
    second_order,
    views,
)
from . import elementary as elementary

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
    "reductions",
    "schedules",
    "second_order",
    "views",
]
