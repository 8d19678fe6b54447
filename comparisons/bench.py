"""How fast it is: an optimizer's step by hand beside torch's, and beside the memory; a node of the
tape beside one of torch's graph."""

from __future__ import annotations

import functools
import inspect
import math
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.table import Table
from threadpoolctl import threadpool_limits

from .. import manual, reference
from ..manual.tape import Tensor
from ..reference.adapters import leaves
from . import report
from .optimizers import other_paths
from .samples import written
from .samples.optimizers import SAMPLES
from .session import RESULTS, Json, Out, Session, known

SIDE = 1000  # of the square parameter: a million elements
REPEATS = 15
PATIENCE = 10.0  # seconds
PATHS = ("loop", "foreach", "fused")
OTHERS = (*PATHS, "memory")
NODES = (1_000, 10_000, 100_000)
FILLED = 4  # steps before those that are timed, after which the state is full
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "sgd": [{}, {"momentum": 0.9}],
    "lbfgs": [{"max_iter": 1, "history_size": 2, "tolerance_grad": 0, "tolerance_change": 0}],
}


def rows(name: str, repeats: int = REPEATS, side: int = SIDE) -> list[dict[str, Any]]:
    """One row for each choice of settings: medians of interleaved steps, in seconds.

    `memory` is how long it takes to copy as many bytes as a step has to read and to write.
    """
    torch.set_num_threads(1)
    with threadpool_limits(1):
        return [_row(name, s, repeats, side) for s in SETTINGS.get(name, [{}])]


def _row(name: str, settings: dict[str, Any], repeats: int, side: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    param, grad = rng.standard_normal((2, side, side)).astype(np.float32)
    by_hand, held = _by_hand(name, param, grad, settings)
    tasks = {"manual": by_hand}
    accepted = inspect.signature(getattr(reference.optimizers, name)).parameters
    loop = {"foreach": False} if "foreach" in accepted else {}
    tasks["loop"] = _by_torch(name, param, grad, settings | loop)
    for choice in other_paths(name):
        (path,) = choice
        tasks[path] = _by_torch(name, param, grad, settings | choice)
    source = np.zeros(held // 2, np.uint8)
    target = np.zeros_like(source)
    tasks["memory"] = lambda: np.copyto(target, source)
    seconds = _medians(tasks, repeats)
    text = written(settings)
    return {
        "id": f"{name}({text})/{param.size}/float32",
        "optimizer": name,
        "settings": text,
        "manual": seconds["manual"],
        **{other: seconds.get(other) for other in OTHERS},
        **{f"to_{other}": seconds["manual"] / seconds.get(other, math.nan) for other in OTHERS},
    }


def _medians(tasks: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Interleaved, so that what disturbs one disturbs all; at least three times, and no longer than
    PATIENCE after that. The first, which fills the caches, does not count."""
    taken: dict[str, list[float]] = {what: [] for what in tasks}
    start = time.perf_counter()
    for i in range(repeats + 1):
        for what, task in tasks.items():
            begin = time.perf_counter()
            task()
            taken[what].append(time.perf_counter() - begin)
        if i >= 3 and time.perf_counter() - start > PATIENCE:
            break
    return {what: float(np.median(times[1:])) for what, times in taken.items()}


def _some_rows(grad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A sparse gradient: a tenth of the rows."""
    return np.arange(0, len(grad), 10), grad[::10]


def _by_hand(
    name: str, param: np.ndarray, grad: np.ndarray, settings: dict[str, Any]
) -> tuple[Callable[[], Any], int]:
    """One step from a state that is filled, and how many bytes it reads and writes."""
    step = getattr(manual.optimizers, name)
    given: Any = _some_rows(grad) if name == "sparse_adam" else grad
    if name == "lbfgs":
        weights = _weights(param)

        def given(params: list[np.ndarray]) -> tuple[float, list[np.ndarray]]:
            gradient = weights * params[0]
            return float(np.vdot(gradient, params[0])) / 2, [gradient]

    new: Any = [param] if name == "lbfgs" else param
    state: dict[str, Any] = {}
    for _ in range(FILLED):
        new, state = step(new, given, state, **settings)
    kept = sum(a.nbytes for a in leaves((new, state)) if isinstance(a, np.ndarray))
    return lambda: step(new, given, state, **settings), 2 * kept + grad.nbytes


def _weights(param: np.ndarray) -> np.ndarray:
    """Of a quadratic loss Σ w x² / 2 for L-BFGS, so unequal that no few steps reach its minimum."""
    return np.geomspace(1, 1e6, param.size, dtype=param.dtype).reshape(param.shape)


def _by_torch(
    name: str, param: np.ndarray, grad: np.ndarray, settings: dict[str, Any]
) -> Callable[[], Any]:
    parameter = torch.nn.Parameter(torch.from_numpy(param.copy()))
    machine = getattr(reference.optimizers, name).__wrapped__
    made = machine([parameter], **settings)
    if name == "lbfgs":
        weights = torch.from_numpy(_weights(param))

        def closure() -> torch.Tensor:
            x = parameter.detach()
            parameter.grad = weights * x
            return (parameter.grad * x).sum() / 2

        task = functools.partial(made.step, closure)
    else:
        task = made.step
    if name == "sparse_adam":
        indices, values = _some_rows(grad)
        parameter.grad = torch.sparse_coo_tensor(
            torch.from_numpy(indices)[None],
            torch.from_numpy(values.copy()),
            param.shape,
            check_invariants=True,
        )
    elif name != "lbfgs":
        parameter.grad = torch.from_numpy(grad.copy())
    for _ in range(FILLED):
        task()
    return task


def tape_rows(nodes: Sequence[int] = NODES, repeats: int = 5) -> list[dict[str, Any]]:
    """One row for each length of a chain: seconds for each of its nodes, forward and backward, by
    hand and by torch, medians of interleaved runs."""
    torch.set_num_threads(1)
    with threadpool_limits(1):
        return [_tape_row(n, repeats) for n in nodes]


def _tape_row(nodes: int, repeats: int) -> dict[str, Any]:
    def chained(x: Any) -> None:
        y = x
        for _ in range(nodes):
            y = y * 1.0001
        y.sum().backward()

    start = np.ones(3)
    seconds = _medians(
        {
            "manual": lambda: chained(Tensor(start, requires_grad=True)),
            "torch": lambda: chained(torch.ones(3, dtype=torch.float64, requires_grad=True)),
        },
        repeats,
    )
    each = {side: taken / nodes for side, taken in seconds.items()}
    return {"id": f"tape/{nodes}", "nodes": nodes, **each}


def _print_tape(session: Session, found: Sequence[dict[str, Any]]) -> None:
    session.console.print(
        "A node of a chain takes this many times as long as one of the shortest, or as torch's"
    )
    table = Table(box=None, pad_edge=False)
    for column in ("nodes", "by hand", "torch", "by hand / torch"):
        table.add_column(column, justify="right")
    for r in found:
        growth = [r[side] / found[0][side] for side in ("manual", "torch")]
        ratios = (*growth, r["manual"] / r["torch"])
        table.add_row(f"{r['nodes']:,}", *(f"{ratio:.2f}" for ratio in ratios))
    session.console.print(table)


def bench_command(
    what: Annotated[str, typer.Argument(metavar="optimizers|tape", help="What to time.")],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]…", help="Optimizers; all without.")
    ] = None,
    out: Out = RESULTS,
    as_json: Json = False,
) -> None:
    """How fast it is: an optimizer's step by hand beside torch's loop, foreach and fused, and the
    memory, on a million float32 elements; or a node of the tape beside one of torch's graph.

    One thread, medians of interleaved runs.
    """
    known("subject", what, ["optimizers", "tape"])
    for name in names or ():
        known("optimizer", name, SAMPLES)
    if names and what == "tape":
        raise typer.BadParameter(
            f"expected none with tape, got {', '.join(names)}", param_hint="NAME"
        )
    session = Session(out, as_json, 1, strict=False)
    if what == "tape":
        with session.console.status("timing"):
            found = tape_rows()
        report.save(report.table(found), "bench_tape", session.out)
        if as_json:
            print(report.table(found).to_json(orient="records"))
        else:
            _print_tape(session, found)
        return
    chosen: Sequence[str] = names or list(SAMPLES)
    with session.console.status("timing"):
        found = [
            row
            for name in chosen
            if getattr(reference.optimizers, name) is not None
            for row in rows(name)
        ]
    frame = report.table(found)
    report.save(frame, "bench", session.out)
    if as_json:
        print(frame.to_json(orient="records"))
        return
    title = (
        "One step by hand takes this many times as long as torch's, or as copying what it touches"
    )
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    table.add_column("optimizer")
    for other in OTHERS:
        table.add_column(other, justify="right")
    for r in found:
        ratios = (r[f"to_{other}"] for other in OTHERS)
        table.add_row(
            f"{r['optimizer']}({r['settings']})",
            *("" if math.isnan(x) else f"{x:.2f}" for x in ratios),
        )
    session.console.print(table)
