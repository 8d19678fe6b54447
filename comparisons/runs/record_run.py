"""A training run of one's own, recorded step by step."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ... import __version__
from ..report import files
from ..report.text import said
from ..verdict.noise import moved
from .recording import DTYPES, LOSS, PERTURBED, About, bits, describe, read, write

Model = torch.nn.Module | Mapping[str, torch.Tensor] | Iterable[tuple[str, torch.Tensor]]


def record_run(
    path: str | os.PathLike[str],
    model: Model | None = None,
    *,
    perturb: int = 0,
    gradients: bool = False,
    parameters: bool = False,
) -> Recorder:
    """Records a training loop into a Parquet file, for `gradtwin curves --compare`.

        with record_run("old.parquet", model) as run:
            for x, y in loader:
                ...
                loss.backward()
                run.step(loss)
                optimizer.step()

    The loss of each step is kept to the bit, and on request all gradients and parameters, in memory
    until the end; then the file appears whole. When the loop raises, the steps until then are
    written, marked as cut short, only where there was no file.

    A floor takes six more runs of the same training from its start, with `perturb` from 1 to 6. At
    every step they multiply each parameter that has a gradient, and the gradient, by 1 ± 2u in
    place, and their losses are added to the file, one run after another. The training has to repeat
    itself bit for bit: seed what it draws. All but the loss needs the model, or its parameters with
    their names.
    """
    if perturb not in range(PERTURBED + 1):
        raise ValueError(
            f"perturb: expected 0 for the run itself or 1 to {PERTURBED}, got {perturb!r}"
        )
    if model is None and (perturb or gradients or parameters):
        raise ValueError("model: expected a model or its named parameters, got None")
    file = Path(path)
    if file.suffix != ".parquet":
        raise ValueError(f"path: expected a name that ends in .parquet, got {file}")
    files.folder(file.parent)  # what cannot be written is known before the training, not after
    if perturb and not file.exists():
        raise FileNotFoundError(f"perturb: expected the run itself in {file} first, got no file")
    if file.exists():
        describe(file)  # only a recording is ever replaced
    return Recorder(file, model, int(perturb), gradients, parameters)


class Recorder:
    """A run while it is recorded."""

    def __init__(
        self, path: Path, model: Model | None, perturb: int, gradients: bool, parameters: bool
    ) -> None:
        whole = model is None or isinstance(model, torch.nn.Module)
        self.model = model if whole else _named(model)
        self.path, self.perturb, self.steps = path, perturb, 0
        self.gradients, self.parameters = gradients, parameters
        self.original = read(path).complete().losses() if perturb else np.empty(0)
        self.rng = np.random.default_rng(perturb)
        self.rows: list[tuple[Any, ...]] = []

    def __enter__(self) -> Recorder:
        return self

    @torch.no_grad()
    def step(self, loss: torch.Tensor) -> None:
        """Records a step; it belongs between loss.backward() and optimizer.step()."""
        if not isinstance(loss, torch.Tensor):
            raise TypeError(f"loss: expected the tensor, for its dtype, got {type(loss).__name__}")
        if loss.numel() != 1:
            raise ValueError(f"loss: expected one number, got shape {tuple(loss.shape)}")
        self.steps += 1
        named = _named(self.model) if self.perturb or self.gradients or self.parameters else {}
        if self.perturb:
            self._keep(LOSS, loss.reshape(()))
            self._check()
            self._disturb([p for p in named.values() if p.grad is not None])
            return
        if self.parameters:
            for name, parameter in named.items():
                self._keep(f"parameter {name}", parameter)
        self._keep(LOSS, loss.reshape(()))
        if self.gradients:
            for name, parameter in reversed(named.items()):  # in the order of the backward pass
                if parameter.grad is not None:
                    self._keep(f"gradient of {name}", parameter.grad)

    def _keep(self, quantity: str, tensor: torch.Tensor) -> None:
        dtype, shape, data = bits(quantity, tensor)
        value = tensor.item() if quantity == LOSS else None
        self.rows.append((self.perturb, self.steps, quantity, dtype, shape, value, data))

    def _check(self) -> None:
        """Raises ValueError unless the first loss, before anything has moved, is that of the run
        itself: otherwise there is no floor."""
        first, ours = self.original[0], self.rows[0][5]
        if self.steps == 1 and not np.array_equal(first, ours, equal_nan=True):
            raise ValueError(
                f"perturb: expected the training of {self.path}, whose first loss is {first}, "
                f"got one with {ours}: seed all that it draws"
            )

    def _disturb(self, parameters: list[Any]) -> None:
        if not parameters:
            raise ValueError("model: expected gradients, got none: step() comes after backward()")
        for parameter in parameters:
            _move(parameter, self.rng)
            _move(parameter.grad, self.rng)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            self._cut_short(error)
        elif not self.rows:
            raise ValueError("step: expected at least one call in the loop, got none")
        elif self.perturb and self.steps != len(self.original):
            expected = f"the {len(self.original)} of {self.path}"
            raise ValueError(f"steps: expected {expected}, got {self.steps}")
        else:
            write(self.path, self._about(), self.rows)

    def _cut_short(self, error: BaseException) -> None:
        if self.path.exists():
            error.add_note(f"{self.path} is kept as it was")
        elif self.rows:
            write(self.path, self._about(error), self.rows)
            error.add_note(f"the steps until then are in {self.path}, marked as cut short")

    def _about(self, error: BaseException | None = None) -> dict[str, About]:
        about: About = {
            "ended": error is None,
            "error": "" if error is None else f"{type(error).__name__}: {said(error)}",
            "steps": self.steps,
            "dtype": next((row[3] for row in self.rows if row[2] == LOSS), ""),
            "settings": {"gradients": self.gradients, "parameters": self.parameters},
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "gradtwin": __version__,
        }
        return {str(self.perturb): about}


def _named(model: Any) -> dict[str, torch.Tensor]:
    """The parameters by name."""
    pairs = model.named_parameters() if isinstance(model, torch.nn.Module) else model
    try:
        named = dict(pairs)
    except (TypeError, ValueError, RuntimeError):  # no pairs
        named = {0: model}
    if not all(isinstance(n, str) and isinstance(p, torch.Tensor) for n, p in named.items()):
        got = type(model).__name__
        raise TypeError(f"model: expected a module or parameters with their names, got {got}")
    return named


def _move(tensor: torch.Tensor, rng: np.random.Generator) -> None:
    """Moves every number by one ulp, in place; of a sparse gradient, those that it has. A zero
    stays: most are exact, of units and pixels that are off, and Adam makes whole steps of others.
    """
    held = tensor._values() if tensor.is_sparse else tensor
    if held.dtype not in DTYPES.values():
        raise TypeError(f"model: expected {', '.join(DTYPES)}, got {held.dtype}")
    wide = held.detach().cpu().to(torch.promote_types(held.dtype, torch.float32)).numpy()
    with np.errstate(over="ignore"):  # a run may diverge
        held.copy_(torch.from_numpy(moved(wide, torch.finfo(held.dtype).eps, rng)))
