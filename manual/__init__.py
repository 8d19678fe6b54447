"""Every derivative and every optimizer, written by hand in NumPy. Nothing in here knows torch.

A rule is `y, pullback = rule(...)`: the value, and the function that carries a gradient of y back
to a gradient of each floating array that was passed, in the order of the signature.

A family is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import (
        activations,
        attention,
        averaging,
        clipping,
        convolution,
        distances,
        dropout,
        embedding,
        indexing,
        linear,
        losses,
        masked,
        models,
        normalization,
        optimizers,
        padding,
        pointwise,
        pooling,
        products,
        recurrent,
        reductions,
        resampling,
        schedules,
        second_order,
        sorting,
        views,
    )

__all__ = [
    "activations",
    "attention",
    "averaging",
    "clipping",
    "convolution",
    "distances",
    "dropout",
    "embedding",
    "indexing",
    "linear",
    "losses",
    "masked",
    "models",
    "normalization",
    "optimizers",
    "padding",
    "pointwise",
    "pooling",
    "products",
    "recurrent",
    "reductions",
    "resampling",
    "schedules",
    "second_order",
    "sorting",
    "views",
]
_OLD = ("elementary",)  # removed in version 0.3


def __getattr__(name):
    if name in (*__all__, *_OLD):
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
