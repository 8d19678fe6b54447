"""What of JAX's is a subject: functions that jax.vjp differentiates, and what is written over its
arrays. JAX is an extra, `gradtwin[jax]`: nothing here imports it before a subject has."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from ...reference.adapters import listed
from ..verdict.noise import is_floating
from .misuse import Misuse, described
from .trees import items, mapped


def is_array(leaf: Any) -> bool:
    """Whether it is an array of JAX's."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(leaf, jax.Array)


def is_answered(answer: Any) -> bool:
    """Whether there are arrays of JAX's in what a function returned."""
    return any(is_array(leaf) for _, leaf in items(answer))


def array(leaf: Any) -> Any:
    """An array of JAX's as one of NumPy's, into which can be written; anything else as it is."""
    return np.array(leaf) if is_array(leaf) else leaf


def rule_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of JAX as a rule over arrays, differentiated by jax.vjp. y is the floating results
    in order, or the one that there is, and behind them those of whole numbers."""
    import jax

    def rule(*args: Any, **kwargs: Any) -> tuple[Any, Callable[[Any], Any]]:
        tree = (args, kwargs)
        wide = _wide(tree)
        sources = [leaf for _, leaf in items(tree) if is_floating(leaf)]

        def outputs(*traced: Any) -> Any:
            given = iter(traced)
            args, kwargs = mapped(lambda a: next(given) if is_floating(a) else _sent(a), tree)
            answer = function(*args, **kwargs)
            results = list(map(jax.numpy.asarray, jax.tree.leaves(answer)))
            whole = [not jax.numpy.issubdtype(y.dtype, jax.numpy.floating) for y in results]
            if all(whole):
                raise Misuse(f"y: expected a floating array, got {described(answer)}")
            beside = [y for y, w in zip(results, whole, strict=True) if w]
            return [y for y, w in zip(results, whole, strict=True) if not w], beside

        with _precision(wide):
            ys, pull, beside = jax.vjp(outputs, *map(_sent, sources), has_aux=True)

        def pullback(dy: Any) -> Any:
            with _precision(wide):
                return list(map(array, pull(list(map(_sent, listed(dy)[: len(ys)])))))

        found = tuple(map(array, (*ys, *beside)))
        return found[0] if len(found) == 1 else found, pullback

    return rule


def over_arrays(rule: Callable[..., Any]) -> Callable[..., Any]:
    """A rule over JAX's arrays as one over NumPy's."""

    def over_numpy(*args: Any, **kwargs: Any) -> Any:
        wide = _wide((args, kwargs))
        with _precision(wide):
            args, kwargs = mapped(_sent, (args, kwargs))
            y, pull = rule(*args, **kwargs)

        def pullback(dy: Any) -> Any:
            with _precision(wide):
                return mapped(array, pull(mapped(_sent, dy)))

        return mapped(array, y), pullback

    return over_numpy


def tried(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """What a function answers to JAX's arrays."""
    with _precision(_wide((args, kwargs))):
        args, kwargs = mapped(_sent, (args, kwargs))
        return function(*args, **kwargs)


def _sent(leaf: Any) -> Any:
    import jax

    return jax.numpy.asarray(leaf) if isinstance(leaf, (np.ndarray, np.generic)) else leaf


def _wide(tree: Any) -> bool:
    return any(getattr(leaf, "dtype", None) == np.float64 for _, leaf in items(tree))


def _precision(wide: bool) -> contextlib.AbstractContextManager[Any]:
    """float64 for one call. Else JAX is left as it is, where what a function makes without saying
    its dtype is float32."""
    if not wide:
        return contextlib.nullcontext()
    import jax

    if not hasattr(jax, "enable_x64"):  # until 0.8
        import jax.experimental

        return jax.experimental.enable_x64(True)
    return jax.enable_x64(True)
