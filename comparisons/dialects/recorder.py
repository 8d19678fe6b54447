"""A trajectory of one's own, recorded step by step from a torch optimizer."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..report import files
from . import trajectory

NAMED = {torch.float32: "float32", torch.float64: "float64"}


def record_optimizer(
    path: str | os.PathLike[str],
    optimizer: torch.optim.Optimizer,
    model: torch.nn.Module | None = None,
) -> OptimizerRecorder:
    """Records what an optimizer does into an .npz file, for `gradtwin dialect`.

        with record_optimizer("run.npz", optimizer):
            for x, y in loader:
                ...
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()

    Gradients are taken as the step sees them: at its begin, after what the loop did to them,
    clipping included; parameters are those before the first step and after each. The rate is
    written as lr where all groups share one and it changes. All numbers are kept in memory, until
    the file appears whole at the end. When the loop raises, the steps until then are written, only
    where there was no file; only a recording is ever replaced.

    Tensors have the names that the model gives them, or that the optimizer was given; else they
    are group.index. One that never has a gradient is left out. Raises TypeError for another thing
    than a torch optimizer or parameters in 16 bits; ValueError for a name that does not end in
    .npz, for an optimizer that has stepped already, whose state the file could not tell, for
    parameters of two dtypes, a closure, and a gradient that is missing, sparse or not finite.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer: expected a torch optimizer, got {type(optimizer).__name__}")
    file = Path(path)
    if file.suffix != ".npz":
        raise ValueError(f"path: expected a name that ends in .npz, got {file}")
    for state in optimizer.state.values():
        if float(state.get("step", 0)) > 0 or state.get("momentum_buffer") is not None:
            raise ValueError("optimizer: expected one that has not stepped yet, got one with state")
    files.folder(file.parent)
    if file.exists():
        trajectory.read(file)  # only a recording is ever replaced
    return OptimizerRecorder(file, optimizer, _named(optimizer, model))


class OptimizerRecorder:
    """An optimizer while it is recorded."""

    def __init__(
        self, path: Path, optimizer: torch.optim.Optimizer, named: dict[str, torch.Tensor]
    ) -> None:
        dtypes = {p.dtype for p in named.values()}
        if not dtypes or not dtypes <= NAMED.keys():
            found = ", ".join(sorted(str(d) for d in dtypes)) or "none"
            raise TypeError(f"optimizer: expected parameters in float32 or float64, got {found}")
        if len(dtypes) > 1:
            raise ValueError("optimizer: expected parameters of one dtype, got float32 and float64")
        self.path, self.optimizer, self.named = path, optimizer, named
        self.params = {name: [_array(p)] for name, p in named.items()}
        self.grads: dict[str, list[np.ndarray]] = {name: [] for name in named}
        self.rates: list[tuple[float, ...]] = []
        self.hooks: list[Any] = []

    def __enter__(self) -> OptimizerRecorder:
        self.hooks = [
            self.optimizer.register_step_pre_hook(self._before),
            self.optimizer.register_step_post_hook(self._after),
        ]
        return self

    @property
    def steps(self) -> int:
        """How many steps are recorded."""
        return min(len(after) - 1 for after in self.params.values())

    def _before(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if any(a is not None for a in (*args[1:], *kwargs.values())):  # the first is itself
            raise ValueError("closure: expected none, for the gradients come before the step")
        self.rates.append(tuple(float(g["lr"]) for g in optimizer.param_groups))
        for name, p in self.named.items():
            grad = p.grad
            begun = len(self.grads[name]) == len(self.rates) - 1
            if grad is None and not self.grads[name]:
                continue
            if grad is None or not begun:
                raise ValueError(f"{name}: expected a gradient at every step or at none, got both")
            if grad.is_sparse:
                raise ValueError(f"{name}: expected a dense gradient, got a sparse one")
            if not bool(grad.isfinite().all()):
                raise ValueError(f"{name}: expected a finite gradient, got NaN or infinity")
            self.grads[name].append(_array(grad))

    def _after(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for name, p in self.named.items():
            self.params[name].append(_array(p))

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        for hook in self.hooks:
            hook.remove()
        steps = self.steps
        names = [name for name, grads in self.grads.items() if len(grads) >= steps > 0]
        if error is None and not names:
            raise ValueError("optimizer: expected a step with gradients in the loop, got none")
        if error is not None and self.path.exists():
            error.add_note(f"{self.path} is kept as it was")
            return
        if names:
            arrays = {f"params.{n}": np.array(self.params[n][: steps + 1]) for n in names}
            arrays |= {f"grads.{n}": np.array(self.grads[n][:steps]) for n in names}
            rates = {rate for group in self.rates[:steps] for rate in group}
            if all(len(set(groups)) == 1 for groups in self.rates[:steps]) and len(rates) > 1:
                arrays["lr"] = np.array([groups[0] for groups in self.rates[:steps]])
            content = io.BytesIO()
            np.savez_compressed(content, allow_pickle=False, **arrays)
            files.write(self.path, content.getvalue())
        if error is not None and names:
            error.add_note(f"the steps until then are in {self.path}")


def _named(
    optimizer: torch.optim.Optimizer, model: torch.nn.Module | None
) -> dict[str, torch.Tensor]:
    """Every tensor that the optimizer steps, by its name."""
    names = {} if model is None else {p: name for name, p in model.named_parameters()}
    found = {}
    for i, group in enumerate(optimizer.param_groups):
        given = group.get("param_names") or [f"{i}.{k}" for k in range(len(group["params"]))]
        for p, name in zip(group["params"], given, strict=True):
            found[names.get(p, name)] = p
    return found


def _array(tensor: torch.Tensor) -> np.ndarray:
    return np.array(tensor.detach().cpu().numpy())
