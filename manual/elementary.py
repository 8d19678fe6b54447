"""Where the rules of functions of tensors stood in version 0.1; goes with version 0.3."""

import warnings

from . import indexing, pointwise, products, reductions, views


def __getattr__(name):
    for family in (pointwise, products, reductions, views, indexing):
        if not name.startswith("_") and getattr(vars(family).get(name), "__module__", "") == (
            family.__name__
        ):
            warnings.warn(
                f"{__name__}.{name} is now {family.__name__}.{name}",
                DeprecationWarning,
                stacklevel=2,
            )
            return vars(family)[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
