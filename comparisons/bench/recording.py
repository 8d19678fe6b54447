"""A recorded step of a training beside a plain one."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from ..parallel import limited
from ..runs.record_run import Recorder, record_run
from .costs import Row, row
from .timing import interleaved

REPEATS = 200
WIDTHS = (500, 1000, 500)  # of an MLP of a million parameters
# case → whether parameters and gradients are recorded beside the loss, the rows of a batch, and how
# many plain steps of Adam a recorded one may take
CASES = {
    "the loss alone, batches of 256": (False, 256, 1.02),
    "sketches of parameters and gradients, batches of 256": (True, 256, 1.10),
    "sketches of parameters and gradients, batches of 32": (True, 32, 1.30),
}


def rows(repeats: int = REPEATS) -> list[Row]:
    """One row for each case: what a recorded step of Adam costs, in plain ones, by the time of the
    processor, on one thread, in interleaved turns."""
    with limited(1):
        return [_row(case, repeats) for case in CASES]


def _row(case: str, repeats: int) -> Row:
    sketches, batch, bound = CASES[case]
    torch.manual_seed(0)
    wide, inner, out = WIDTHS
    model = torch.nn.Sequential(
        torch.nn.Linear(wide, inner), torch.nn.ReLU(), torch.nn.Linear(inner, out)
    )
    plain = copy.deepcopy(model)  # which has no hook that sees its inputs
    data = torch.randn(batch, wide), torch.randn(batch, out)
    with tempfile.TemporaryDirectory(prefix="gradtwin-") as folder:
        path = Path(folder) / "run.parquet"
        with record_run(path, model if sketches else None) as recorder:
            tasks = {"recorded": _step(model, data, recorder), "plain": _step(plain, data, None)}
            seconds = interleaved(tasks, repeats, time.process_time)
    return row("recording", case, seconds["recorded"], seconds["plain"], bound)


def _step(
    model: torch.nn.Module, data: tuple[torch.Tensor, torch.Tensor], recorder: Recorder | None
) -> Callable[[], None]:
    """A step of Adam."""
    optimizer = torch.optim.Adam(model.parameters())
    x, y = data

    def step() -> None:
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        if recorder is not None:
            recorder.step(loss)
        optimizer.step()

    return step
