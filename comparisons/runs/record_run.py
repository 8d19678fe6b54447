"""A training run of one's own, recorded step by step."""

from __future__ import annotations

import contextlib
import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ... import __version__
from ..report import files
from ..report.text import said
from . import parts, turns
from .inputs import Inputs
from .judging import far
from .names import Model, Named, of_rank
from .perturbing import Activations, Buffers, disturb, move_parameter, precision
from .recording import (
    AGAIN,
    BASE,
    BITS,
    BUFFER,
    DIGEST,
    DTYPES,
    GRADIENT,
    PARAMETER,
    PERTURBED,
    SKETCH,
    SKETCHES,
    STARTS,
    SUMS,
    About,
    describe,
    read,
    taken,
    write,
)

First = Callable[[], torch.Tensor]


def record_run(
    path: str | os.PathLike[str],
    model: Model | None = None,
    *,
    perturb: int = 0,
    gradients: bool | None = None,
    parameters: bool | None = None,
    buffers: bool | None = None,
    full: bool = False,
    sketch: str = SKETCH,
    first: First | None = None,
    start: int = 1,
) -> Recorder:
    """Records a training loop into a Parquet file, for `gradtwin curves --compare`.

        with record_run("old.parquet", model) as run:
            for x, y in loader:
                optimizer.zero_grad()
                loss = criterion(model(x), y)
                loss.backward()
                run.step(loss)
                optimizer.step()

    The loss of each step is kept to the bit and, with a model, sketches of its parameters, buffers
    and gradients: the norm and sixteen sums of each. With `full`, or `gradients=True` and so on,
    every number is kept; with `gradients=False` and so on nothing; with `sketch="dense"` each sum
    goes over the whole tensor, which is dearer and allows half as much. The model is a module, a
    dict of several, or parameters with their names. What is recorded goes to the disk every two
    seconds, into `old.parquet.parts`; at the end the file appears whole. A run that is killed
    leaves what it had written there, which is read as a recording that was cut short. When the loop
    raises, the steps until then become a file, marked as cut short, only where there was none.

    `run.step(loss)` stands where the gradients are complete and the parameters have not moved,
    once for each step of the optimizer:

    * accumulation: behind the backward of the last micro-batch, with its loss or their mean;
    * clipping: before it, so that a change of the clipping is one of the optimizer;
    * GradScaler: behind `scaler.unscale_(optimizer)`;
    * several optimizers, as of a GAN: once, before the first of them steps, or, where they take
      turns, before each, with the loss of that turn.

    A floor takes six more runs of the same training from its start, with `perturb` from 1 to 6, and
    one with `perturb` 7, which moves nothing and shows whether the run repeats itself; or
    `gradtwin record-run`, which makes all of them. At every step the six multiply each parameter
    that has a gradient, and the gradient, by 1 ± 2u in place, and likewise buffers that the step
    has moved and results of 16 bits. Data, targets and what else is computed beside the model stay
    as they are: what a simulation or an environment carries from step to step belongs into a buffer
    of the model, if another order of its operations is to be rounding. The training has to repeat
    itself bit for bit: seed what it draws.

    `first`, a function without arguments that makes the loss of the first step, gives that step
    alone a floor, by seven calls before the loop. `start` is the number of the first step, of a run
    that goes on from a checkpoint. In a path, {rank} is the number of the process.

    Raises ValueError and TypeError for wrong arguments, OSError where nothing can be written.
    """
    turn = turns.take()
    if turn is not None and perturb:
        raise ValueError(f"perturb: expected 0 under gradtwin record-run, got {perturb!r}")
    if perturb not in range(AGAIN + 1):
        raise ValueError(
            f"perturb: expected 0 for the run itself, 1 to {PERTURBED}, or {AGAIN} for the run "
            f"once more, got {perturb!r}"
        )
    moving = turn is not None and turn.run in (*range(1, PERTURBED + 1), *STARTS)
    if model is None and (perturb in range(1, AGAIN) or moving or gradients or parameters or full):
        raise ValueError("model: expected a model or its named parameters, got None")
    if not isinstance(start, int) or start < 1:
        raise ValueError(f"start: expected the number of a step, from 1, got {start!r}")
    if first is not None and (model is None or not callable(first)):
        raise TypeError("first: expected a function that makes the first loss, beside a model")
    file = turn.path if turn else of_rank(path)
    if file.suffix != ".parquet":
        raise ValueError(f"path: expected a name that ends in .parquet, got {file}")
    if sketch not in SKETCHES:
        raise ValueError(f"sketch: expected {' or '.join(SKETCHES)}, got {sketch!r}")
    files.folder(file.parent)  # what cannot be written is known before the training, not after
    if perturb and not file.exists():
        raise FileNotFoundError(f"perturb: expected the run itself in {file} first, got no file")
    if file.exists() and not turn:
        describe(file)  # only a recording is ever replaced
    run = turn.run if turn else int(perturb)
    asked = {PARAMETER: parameters, BUFFER: buffers, GRADIENT: gradients}
    forms = _forms(full, sketch, asked)
    return Recorder(file, model, run, forms, start, first, bool(turn))


def _forms(full: bool, sketch: str, asked: dict[str, bool | None]) -> dict[str, str]:
    """How what begins so is kept; what is not kept is left out."""
    return {
        kind: BITS if wanted or (full and wanted is None) else sketch
        for kind, wanted in asked.items()
        if wanted is not False
    }


class Recorder:
    """A run while it is recorded."""

    def __init__(
        self,
        path: Path,
        model: Model | None,
        run: int,
        forms: dict[str, str],
        start: int,
        first: First | None,
        turn: bool,
    ) -> None:
        self.named = Named({} if model is None else model)
        self.path, self.run, self.steps, self.start = path, run, 0, start
        self.forms = forms if model is not None else {}
        self.turn, self.first = turn, first if run == 0 else None
        self.perturbed = 1 <= run <= PERTURBED or run in STARTS
        self.original = None if turn or not run else read(path).complete()
        self.rng = np.random.default_rng(run)
        self.noise = Activations(run) if self.perturbed else None
        self.buffers = Buffers(self.named.buffers() if self.perturbed else {})
        self.inputs = Inputs(self.named.modules if self.forms else [])
        self.about: About | None = None
        self.stream = parts.Stream(parts.folder(path), run)
        self.started: list[tuple[About, parts.Stream]] = []

    def __enter__(self) -> Recorder:
        if self.first is not None:
            self._begin(self.first)
        self.inputs.__enter__()
        if self.noise is not None:
            self.noise.__enter__()
        if self.perturbed:  # a gradient that is nearly 0 moves by more than one ulp of its own
            for parameter in self.named.parameters().values():
                if parameter.requires_grad:
                    move_parameter(parameter, self.rng)
        return self

    @torch.no_grad()
    def step(self, loss: torch.Tensor) -> None:
        """Records a step; it belongs between loss.backward() and optimizer.step()."""
        if not isinstance(loss, torch.Tensor):
            raise TypeError(f"loss: expected the tensor, for its dtype, got {type(loss).__name__}")
        if loss.numel() != 1:
            raise ValueError(f"loss: expected one number, got shape {tuple(loss.shape)}")
        dtype = str(loss.dtype).removeprefix("torch.")
        if dtype not in DTYPES:
            raise TypeError(f"loss: expected {', '.join(DTYPES)}, got {dtype}")
        number = loss.item()
        if self.about is None:
            self._check(number)
            self.about = self._about(loss)
        self.steps += 1
        kept = list(self._tensors()) if self.forms else []
        layout, data = taken(loss, kept)
        self.stream.add(self.start - 1 + self.steps, number, layout, data, self.about)
        if self.run in STARTS:
            raise SystemExit(0)  # its first step was what it is for
        if self.perturbed and self.noise is not None:
            disturb(self.named.parameters().values(), self.rng)
            self.buffers.move(self.named.buffers(), self.rng)

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor, str]]:
        """What is recorded of this step, in the order of computing."""
        parameters = self.named.parameters()
        form = self.forms.get(PARAMETER)
        for name, parameter in parameters.items() if form else ():
            yield f"{PARAMETER}{name}", parameter, form or ""
            if form in SKETCHES and self.steps == 1:  # one number of many may differ by little
                yield f"{PARAMETER}{name}", parameter, DIGEST
                if self.run == 0:
                    yield f"{PARAMETER}{name}", parameter, SUMS
        form = self.forms.get(BUFFER)
        for name, buffer in self.named.buffers().items() if form else ():
            whole = form if str(buffer.dtype).removeprefix("torch.") in DTYPES else SKETCH
            yield f"{BUFFER}{name}", buffer, whole or ""
        for name, numbers in self.inputs.taken().items():
            yield name, numbers, BITS
        form = self.forms.get(GRADIENT)
        for name, parameter in reversed(parameters.items()) if form else ():
            if parameter.grad is not None:
                yield f"{GRADIENT}{name}", parameter.grad, form or ""

    def _check(self, loss: float) -> None:
        """Raises ValueError where the first loss is not that of the run itself, by more than a few
        roundings: otherwise there is no floor."""
        if self.original is None:
            return
        first = next(self.original.walk(0)).loss
        precision = self.original.precision or [self.original.runs["0"]["dtype"]]
        off = far(precision) * abs(first)
        if not (abs(first - loss) <= off or (np.isnan(first) and np.isnan(loss))):
            raise ValueError(
                f"perturb: expected the training of {self.path}, whose first loss is {first}, "
                f"got one with {loss}: seed all that it draws"
            )

    def _begin(self, first: First) -> None:
        """The first step alone, as it is and from six starts that are moved by one ulp."""
        state = copy.deepcopy([torch.get_rng_state(), *torch.cuda.get_rng_state_all()])
        parameters = self.named.parameters()
        kept = {
            t: t.detach().clone() for t in (*parameters.values(), *self.named.buffers().values())
        }
        grads = {t: t.grad for t in parameters.values()}
        for run in (BASE, *STARTS):
            rng = np.random.default_rng(run)
            noise = Activations(run) if run in STARTS else contextlib.nullcontext()
            torch.set_rng_state(state[0])
            torch.cuda.set_rng_state_all(state[1:])
            for parameter in parameters.values():
                parameter.grad = None
                if run in STARTS:
                    move_parameter(parameter, rng)
            with noise, torch.enable_grad():
                loss = first()
                loss.backward()
            layout, data = taken(loss, list(self._tensors()))
            about: About = {**self._about(loss), "ended": True, "steps": 1}
            stream = parts.Stream(parts.folder(self.path), run)
            stream.add(self.start, loss.item(), layout, data, about)
            stream.close()
            self.started.append((about, stream))
            with torch.no_grad():
                for tensor, was in kept.items():
                    tensor.copy_(was)
        for parameter, grad in grads.items():
            parameter.grad = grad
        torch.set_rng_state(state[0])
        torch.cuda.set_rng_state_all(state[1:])

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.inputs.__exit__()
        if self.noise is not None:
            self.noise.__exit__(kind, error, trace)
        if self.run in STARTS and isinstance(error, SystemExit) and self.steps:
            error = None
        self.stream.close()
        try:
            self._finish(error)
        except OSError as failed:
            if self.steps:
                place = parts.folder(self.path)
                failed.add_note(f"what was recorded is kept in {place}")
            raise
        for stream in (self.stream, *(s for _, s in self.started)):
            if not self.turn:
                stream.remove()

    def _finish(self, error: BaseException | None) -> None:
        if self.turn:
            self._hand_over(error)
        elif error is not None:
            self._cut_short(error)
        elif not self.steps:
            raise ValueError("step: expected at least one call in the loop, got none")
        else:
            original = self.original
            if original is not None and self.steps != original.steps:
                expected = f"the {original.steps} of {self.path}"
                self.stream.remove()
                raise ValueError(f"steps: expected {expected}, got {self.steps}")
            self._write(None)

    def _hand_over(self, error: BaseException | None) -> None:
        """Says that the turn is over; gradtwin record-run makes the file of all turns."""
        if self.steps and error is None:
            about = json.dumps(self._ended(None)).encode()
            files.write(parts.folder(self.path) / f"{self.run}.json", about)

    def _cut_short(self, error: BaseException) -> None:
        if self.path.exists():
            error.add_note(f"{self.path} is kept as it was")
        elif self.steps:
            self._write(error)
            error.add_note(f"the steps until then are in {self.path}, marked as cut short")

    def _write(self, error: BaseException | None) -> None:
        mine = {self.run: (self._ended(error), self.stream.tables())}
        starts = {stream.run: (about, stream.tables()) for about, stream in self.started}
        write(self.path, {**mine, **starts}, old=self.run != 0)

    def _about(self, loss: torch.Tensor) -> About:
        return {
            "ended": False,
            "error": "",
            "steps": 0,
            "start": self.start,
            "dtype": str(loss.dtype).removeprefix("torch."),
            "settings": {kind.split()[0]: form for kind, form in self.forms.items()},
            "precision": precision(loss, self.inputs.autocast),
            "threads": torch.get_num_threads(),
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "gradtwin": __version__,
        }

    def _ended(self, error: BaseException | None) -> About:
        assert self.about is not None
        text = "" if error is None else f"{type(error).__name__}: {said(error)}"
        ended: About = {**self.about, "ended": error is None, "error": text, "steps": self.steps}
        if self.noise is not None:
            ended["halves"] = self.noise.halves
        return ended
