"""What a perturbed run moves: everything by one ulp, of its own dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from ..verdict.noise import moved
from .recording import DTYPES

HALVES = (torch.bfloat16, torch.float16)
# Of results of 16 bits one in so many moves, by one ulp: then the mean square is near that of what
# rounding to nearest does, half an ulp at most. Gradients stand for what an optimizer rounds, too.
ONE_IN, ONE_GRADIENT_IN = 8, 2


def disturb(tensors: Iterable[torch.Tensor], rng: np.random.Generator) -> None:
    """Moves parameters that have a gradient, and the gradients. ValueError if none has one."""
    chosen = [t for t in tensors if t.grad is not None]
    if not chosen:
        raise ValueError("model: expected gradients, got none: step() comes after backward()")
    for parameter in chosen:
        move_parameter(parameter, rng)
        move(parameter.grad, rng)


def move_parameter(parameter: torch.Tensor, rng: np.random.Generator) -> None:
    """Moves a parameter, but for one of 16 bits: of its last place a step of an optimizer often
    makes less than one unit, and no rewrite more or less. Its results and its gradient move."""
    if parameter.dtype not in HALVES:
        move(parameter, rng)


class Buffers:
    """Moves the buffers that a training has moved since the last time, as it does the statistics of
    a layer. What they are made of, as a simulation beside the model, may not go through it. Others
    are constants, which would drift; whole numbers are counts."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.left = {name: t.detach().clone() for name, t in _moving(tensors)}

    def move(self, tensors: Mapping[str, torch.Tensor], rng: np.random.Generator) -> None:
        for name, tensor in _moving(tensors):
            was = self.left.get(name)
            if was is None or not torch.equal(was, tensor):
                whole = tensor == tensor.round()
                kept = tensor.clone()
                move(tensor, rng)
                tensor.copy_(torch.where(whole, kept, tensor))
                self.left[name] = tensor.detach().clone()


def _moving(tensors: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """Those that may be moved; of 16 bits none, as of parameters."""
    for name, tensor in tensors.items():
        if tensor.dtype in (torch.float32, torch.float64):
            yield name, tensor


@torch.no_grad()
def move(tensor: Any, rng: np.random.Generator) -> None:
    """Moves every number by one ulp, in place; of a sparse gradient, those that it has. A zero
    stays: most are exact, of units and pixels that are off, and Adam makes whole steps of others.
    """
    held = tensor._values() if tensor.is_sparse else tensor.detach()
    held = torch.view_as_real(held) if held.is_complex() else held
    if held.dtype not in DTYPES.values():
        raise TypeError(f"model: expected {', '.join(DTYPES)}, got {held.dtype}")
    wide = held.detach().cpu().to(torch.promote_types(held.dtype, torch.float32)).numpy()
    with np.errstate(over="ignore"):  # a run may diverge
        new = moved(wide, torch.finfo(held.dtype).eps, rng)
    if held.dtype in HALVES:
        new = np.where(rng.integers(0, ONE_GRADIENT_IN, wide.shape) == 0, new, wide)
    held.copy_(torch.from_numpy(new))


class Activations(TorchFunctionMode):
    """Moves by one ulp every result of 16 bits that a gradient goes through, or that is made where
    none goes, as Muon makes its steps.

    Where autocast keeps parameters in float32 and computes in bfloat16, one ulp of the parameters
    says nothing of the roundings between. The backward pass goes through the same factors. What is
    drawn does not come from torch's own generators, whose draws belong to the training.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.halves = False  # whether any is met where no gradient goes, as in an optimizer
        self.generators: dict[torch.device, torch.Generator] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.__name__ == "__get__":  # what is read of a tensor is not made: a gradient is itself
            return result
        if isinstance(result, torch.Tensor):
            return self._moved(result, args)
        if type(result) in (tuple, list):
            return type(result)(
                self._moved(r, args) if isinstance(r, torch.Tensor) else r for r in result
            )
        return result

    def _moved(self, result: torch.Tensor, args: Any) -> torch.Tensor:
        if result.dtype not in HALVES:
            return result
        without = not torch.is_grad_enabled()
        self.halves |= without
        if not without and (not result.requires_grad or result.is_leaf):
            return result
        if result._is_view() or any(result is a for a in args):
            return result
        if without and any(_shared(result, a) for a in torch.utils._pytree.tree_leaves(args)):
            return result  # a view, which says so only where gradients go
        generator = self.generators.get(result.device)
        if generator is None:
            generator = torch.Generator(result.device).manual_seed(self.seed)
            self.generators[result.device] = generator
        eps = torch.finfo(result.dtype).eps
        drawn = torch.randint(
            2 * ONE_IN, result.shape, generator=generator, device=result.device, dtype=torch.int8
        )
        moves = (drawn == 0).to(result.dtype).mul_(2 * eps) - (drawn < 2).to(result.dtype).mul_(eps)
        return result * (1 + moves)


def _shared(result: torch.Tensor, argument: Any) -> bool:
    """Whether both are the same memory."""
    if not isinstance(argument, torch.Tensor):
        return False
    one, other = (t.untyped_storage().data_ptr() for t in (result, argument))
    return one == other


def precision(loss: torch.Tensor, autocast: set[torch.dtype]) -> list[str]:
    """The dtypes of all results that the loss was made of, as far as its graph shows them, and
    those of autocast, if it was met. None where neither is known, as of a loss without a graph."""
    if loss.grad_fn is None and not autocast:
        return []
    found = {loss.dtype, *autocast}
    seen, waiting = set(), [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        found.update(data.dtype for data in node._input_metadata)
        waiting += [before for before, _ in node.next_functions]
    return sorted(str(dtype).removeprefix("torch.") for dtype in found if dtype.is_floating_point)
