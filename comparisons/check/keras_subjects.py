"""What of Keras is a subject: layers and models on its backend torch or jax. Keras is an extra,
`gradtwin[keras]`: nothing here imports it before a subject has."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from .signatures import chosen, signed

BACKENDS = ("torch", "jax")


def is_layer(thing: Any) -> bool:
    """Whether it is a layer, or a model, of Keras."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(thing, keras.layers.Layer)


def functional(layer: Any, names: Sequence[str] | None) -> Callable[..., Any]:
    """`f(*inputs, *weights, **settings)` of a layer that is built, by its stateless_call; all
    trainable weights if `names` is None. It computes in the dtype of its policy alone, to which it
    casts what it is given; under one of float64 Keras multiplies matrices in float32 as well.
    ValueError."""
    import keras

    if keras.backend.backend() not in BACKENDS:
        raise ValueError(
            f"layer: expected Keras on its backend {' or '.join(BACKENDS)}, got "
            f"{keras.backend.backend()}"
        )
    if not layer.built:
        raise ValueError(f"layer: expected one that is built or was called, got {layer.name}")
    known = _named(layer.trainable_variables)
    names = chosen(known, names)

    def function(*args: Any, **kwargs: Any) -> Any:
        inputs, weights = args[: len(args) - len(names)], args[len(args) - len(names) :]
        given = dict(zip(names, weights, strict=True))
        own = [given.get(n, v.value) for n, v in known.items()]
        others = [v.value for v in layer.non_trainable_variables]
        return layer.stateless_call(own, others, *inputs, **kwargs)[0]

    return signed(function, type(layer).__name__, layer.call, names)


def _named(variables: Sequence[Any]) -> dict[str, Any]:
    """The variables by their names, or where these are not alone, by their paths."""
    often = Counter(v.name for v in variables)
    return {v.name if often[v.name] == 1 else v.path: v for v in variables}
