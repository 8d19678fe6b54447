"""A side of a call as a function of all its tensors, as `check` takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..trees import mapped
from .evaluation import Inputs, Side
from .memory import remembered
from .outputs import outputs_of
from .recording import asked, kept_generator
from .state import swapped


def as_function(side: Side, inputs: Inputs) -> Callable[..., Any]:
    """A side as a torch callable of all tensors of which a gradient is asked, for `check`."""
    given, args, kwargs, _ = inputs.tree
    own = [(n, t) for n, t in given.items() if t.is_floating_point()]

    def function(*tensors: torch.Tensor) -> Any:
        dtype = tensors[0].dtype
        new = {
            id(old): t
            for old, t in zip([*asked((args, kwargs)), *(t for _, t in own)], tensors, strict=True)
        }

        def made(leaf: Any) -> Any:
            if id(leaf) in new:
                return new[id(leaf)]
            narrow = isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
            return leaf.to(dtype) if narrow else leaf

        state = side.arrange({n: made(t) for n, t in given.items()})
        kept = {n: state[n] for n in side.held}
        kept = {n: t if t.requires_grad else t.clone() for n, t in kept.items()}
        inside = swapped(side.slots, kept), remembered(side.module, side.memory)
        with kept_generator(inputs.call.generator), inside[0], inside[1]:
            y = side.called(mapped(made, args), mapped(made, kwargs))
        return tuple(t for _, t in outputs_of(y))

    return function


def arrays_of(inputs: Inputs) -> list[np.ndarray]:
    """What such a function is called with."""
    given, args, kwargs, _ = inputs.tree
    own = [t for t in given.values() if t.is_floating_point()]
    return [t.detach().double().numpy() for t in (*asked((args, kwargs)), *own)]
