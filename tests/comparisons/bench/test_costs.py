"""What is called dear and what is called plain are what they should be, and what is slow shows."""

import math
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from gradtwin.comparisons.bench import (
    commands,
    costs,
    judging,
    memory,
    models,
    modules,
    noise,
    recording,
    rules,
    timing,
)
from gradtwin.comparisons.check.verify import check
from gradtwin.comparisons.curves.grid import GRID
from gradtwin.comparisons.ops import evaluate
from gradtwin.comparisons.ops import optimizers as of_optimizers
from gradtwin.comparisons.samples import array, call
from gradtwin.comparisons.trace.models import built
from gradtwin.comparisons.trace.recorder import trace
from gradtwin.comparisons.training.cells import start
from gradtwin.comparisons.training.datasets import load
from gradtwin.comparisons.training.loop import by_torch, train
from gradtwin.comparisons.verdict.classes import IDENTICAL, ROUNDING
from gradtwin.comparisons.verdict.floor import DRAWS, Floor
from gradtwin.reference.adapters import array as to_array
from gradtwin.reference.adapters import leaves

SMALL = [name for name in noise.NETWORKS if "512" not in name]


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Turns of one call, of which no time is asserted."""
    monkeypatch.setattr(costs, "TURN", 1e-9)


def waiting(function, seconds=0.01):
    def slow(*args, **kwargs):
        time.sleep(seconds)
        return function(*args, **kwargs)

    return slow


def test_a_cost_is_of_one_of_many_and_turns_count_as_often_as_they_do(monkeypatch):
    done = []

    def timed(tasks, repeats):
        for task in tasks.values():
            task()
        return {"dear": [16.0, 32.0, 64.0], "plain": [1.0, 1.0, 2.0]}

    monkeypatch.setattr(costs, "_often", lambda task: len(task()))
    monkeypatch.setattr(costs, "interleaved", timed)
    both = (lambda: done.append("dear") or "ab", lambda: done.append("plain") or "a")
    row = costs.cost("subject", "case", *both, each=4, bound=9)
    assert done == ["dear", "plain", "dear", "dear", "plain"]
    assert row == {
        "id": "subject/case", "case": "case", "ratio": 4, "low": 3, "high": 4, "bound": 9,
    }  # fmt: skip


def test_short_tasks_are_repeated_until_a_turn_is_full(monkeypatch):
    now = 0.0

    def takes(seconds):
        def task():
            nonlocal now
            now += seconds

        return task

    monkeypatch.setattr(costs, "TURN", 1)
    monkeypatch.setattr(costs.time, "perf_counter", lambda: now)
    assert [costs._often(takes(s)) for s in (0.25, 2, 200)] == [4, 1, 1]


def test_quartiles_are_of_the_ratios_of_each_turn():
    found = costs.quartiles([2, 40, 6, 80, 10], [1, 10, 1, 10, 1])
    assert found == {"ratio": 6, "low": 4, "high": 8}


def test_the_outcome_counts_bounds_and_names_the_worst():
    def row(case, ratio, bound=math.nan):
        return {"case": case, "ratio": ratio, "bound": bound}

    free, met, missed = row("free", 99.0), row("met", 2.0, 8.0), row("missed", 5.0, 2.0)
    assert costs.outcome([free]) == "The largest of 1 is 99.00, of free; no bounds."
    both = costs.outcome([free, met, missed])
    assert both.startswith("1 of 2 bounds are met; the largest excess is 2.50 times the bound")
    assert both.endswith("of missed.")
    assert "1 of 1 bounds are met; the largest share is 0.25" in costs.outcome([free, met])


def test_a_clock_of_processors_does_not_count_waiting():
    seconds = timing.interleaved({"waits": lambda: time.sleep(0.05)}, 1, time.process_time)
    assert max(seconds["waits"]) < 0.05


@pytest.mark.parametrize("network", SMALL)
def test_all_draws_of_a_network_are_made(network):
    drawn, plain = noise.pair(network)
    floor = drawn()
    assert floor.draws == DRAWS
    assert {n: a.shape for n, a in plain().items()} == {n: a.shape for n, a in floor.truth.items()}
    assert all(np.array_equal(a, floor.truth[name]) for name, a in plain().items())
    assert any(moves.any() for moves in floor.noise.values())


def test_fused_and_composed_attention_are_one_function():
    """Within the floor of the composed one, value and gradients."""
    composed, fused = (
        noise.pair(f"transformer layer, 64 × 64{words}") for words in ("", ", fused attention")
    )
    floor = composed[0]()
    for name, a in fused[1]().items():
        assert np.all(floor.margin(name, a) <= 1), name


def test_a_draw_that_waits_is_dear(monkeypatch):
    small = {"pointwise": (noise.pointwise, call(array(4, 4)), 8)}
    monkeypatch.setattr(noise, "NETWORKS", small)
    (before,) = noise.rows(repeats=3)
    monkeypatch.setattr(Floor, "_evaluated", waiting(Floor._evaluated))
    (row,) = noise.rows(repeats=3)
    assert (row["id"], row["bound"]) == ("noise/pointwise", 8)
    assert row["ratio"] > before["ratio"]


@pytest.mark.parametrize("case", models.cases())
def test_both_sides_of_a_model_are_the_same(case):
    model, described = models.cases()[case]
    inputs = evaluate.drawn(model, described, "float32", 0)
    kinds = {v.kind for v in evaluate.judge_inputs(model, inputs, "float32").values()}
    assert kinds <= {IDENTICAL, ROUNDING}
    by_hand = leaves(rules.by_hand(model, *inputs)())
    assert [a.shape for a in by_hand] == [tuple(t.shape) for t in rules.by_torch(model, *inputs)()]


@pytest.mark.parametrize("cell", GRID, ids=lambda cell: f"{cell.model}-{cell.optimizer}")
def test_a_plain_training_ends_where_the_reference_does(cell):
    cell, data = replace(cell, steps=8), load(cell.data)
    parameters = start(cell)
    *_, last = train(by_torch(cell, data), parameters, cell.steps, cell.all_settings)
    plain = judging.trained(cell)()
    for name, value in last.new_parameters.items():
        assert np.array_equal(to_array(plain[name]), value)


def test_a_plain_pass_gives_the_gradients_of_the_trace():
    module, parameters, x = built("mlp", "digits")
    plain = judging._differentiated(module, list(parameters.values()), x)
    module(x).backward()
    assert all(map(torch.equal, plain, [p.grad for p in parameters.values()]))


def test_what_is_judged_has_a_row_each(monkeypatch):
    monkeypatch.setattr(judging, "DATA", {"linear_regression": "line"})
    monkeypatch.setattr(judging, "CHECKED", (("relu", call(array(2))),))
    monkeypatch.setattr(judging, "GRID", [replace(GRID[-1], steps=2)])
    slow = judging.traces(waiting(trace, 0.5), built, repeats=1)
    assert slow[0]["ratio"] > judging.traces(trace, built, repeats=1)[0]["ratio"]
    found = [*slow, *judging.checks(1), *judging.curves(1)]
    found += judging.trajectories("sgd", 3, 1) + judging.trajectories("sparse_adam", 3, 1)
    assert all(row["ratio"] > 1 for row in found)
    assert [row["id"] for row in found] == [
        "trace/linear_regression, line",
        "check/relu(array(2))",
        "curves/linear_regression, line, rmsprop, stochastic, float64, 2 steps",
        "trajectories/sgd(), 3 steps",
        "trajectories/sparse_adam(), 3 steps",
    ]


def test_ids_are_unique():
    cells = judging.cells()
    assert len({(c.model, c.data, c.optimizer, c.regime, c.dtype) for c in cells}) == len(cells)
    assert {c.model for c in cells} == {c.model for c in GRID}
    assert len({f"{op}({described})" for op, described in judging.CHECKED}) == len(judging.CHECKED)


def test_the_first_choice_of_settings_is_that_of_torch():
    assert of_optimizers.configurations("adam")[0] == {}


def test_commands_are_held_to_an_import_of_torch(monkeypatch):
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    monkeypatch.setattr(commands, "TORCH", ("-c", "pass"))
    monkeypatch.setattr(
        commands, "STARTS", {"nothing": (("-c", "pass"), 0), "busy": (("-c", busy), 0)}
    )
    nothing, slow = commands.starts(repeats=1)
    assert (nothing["id"], slow["id"]) == ("start/nothing", "start/busy")
    assert slow["ratio"] > nothing["ratio"]
    assert nothing["bound"] == commands.SHARE


def test_a_command_that_ends_otherwise_is_refused():
    with pytest.raises(RuntimeError, match="exit status 3: no luck"):
        commands.run(("-c", "import sys; print('no luck'); sys.exit(3)"))
    assert commands.run(("-c", "import sys; sys.exit(3)"), (3,)).cpu > 0


def test_the_job_is_timed_by_parts_and_until_its_first_row(monkeypatch):
    row = "print('op  class'); print('relu rounding')"
    monkeypatch.setattr(commands, "TORCH", ("-c", "pass"))
    monkeypatch.setattr(commands, "WHOLE", ("-c", row))
    monkeypatch.setattr(commands, "PARTS", {"curves": ("-c", "print('op  class')")})
    whole, curves, first = commands.job()
    assert [r["id"] for r in (whole, curves, first)] == [
        "job/whole", "job/curves", "job/until the first row",
    ]  # fmt: skip
    assert whole["share"] == 1
    assert 0 < first["seconds"] <= whole["seconds"]
    assert whole["ratio"] == whole["low"] == whole["high"]
    assert math.isnan(commands.run(commands.PARTS["curves"]).row)


def test_the_optimizers_of_the_main_job_are_run_by_names_that_exist():
    head, _ = commands._OPTIMIZERS.split("runner = ")
    exec(head, {})


@pytest.mark.sweep
def test_memory_is_what_the_passes_take_at_most():
    """Attention keeps its results and one block of scores; all of them are 4 · 8 · 512² floats. A
    convolution keeps its results and one block of windows; all of them are nine times its input.
    """
    attention, convolution = memory.rows()
    image = 8 * 64 * 128 * 128
    for found, op, floats, every in (
        (attention, "scaled_dot_product_attention", 5 * 4 * 8 * 512 * 64, 4 * 8 * 512 * 512),
        (convolution, "conv2d", 2 * image, 9 * image),
    ):
        assert found["id"] == f"memory/{op}"
        assert floats * 4 / 2**20 <= found["manual"] < every * 4 / 2**20
        assert floats * 4 / 2**20 <= found["torch"]
        assert found["ratio"] == found["manual"] / found["torch"]


def test_what_is_kept_beside_the_results_counts():
    code = """
from gradtwin.comparisons.bench import memory
import numpy as np
def hoarding(op, args):
    kept = memory.by_hand(op, args), np.ones(16 * args[0].size)  # of a million
print(memory.taken(hoarding, "scaled_dot_product_attention"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 128


def test_the_port_of_the_bench_is_right():
    original, port, tokens = modules.pair(modules.Size(2, 8, 16))
    report = check(port, original, [tokens])
    assert report.passed
    port.ln_f.eps = 1e-3
    assert not check(port, original, [tokens]).passed


@pytest.mark.sweep
def test_a_check_of_modules_takes_more_than_passes(monkeypatch):
    monkeypatch.setattr(modules, "LARGE", modules.Size(1, 64, 4000))
    time, memory = modules.rows(1)
    assert time["ratio"] > 1
    assert memory["ratio"] > 1
    assert [r["bound"] for r in (time, memory)] == [60, 6]


def test_a_recorded_step_that_is_slow_is_dear(monkeypatch):
    """And what is measured records what its name says."""
    monkeypatch.setattr(recording, "WIDTHS", (5, 7, 3))
    forms = []

    def step(recorder, loss):
        forms.append(recorder.forms)
        end = time.process_time() + 0.01
        while time.process_time() < end:
            pass

    monkeypatch.setattr(recording.Recorder, "step", step)
    monkeypatch.setattr(recording.Recorder, "_finish", lambda recorder, error: None)
    found = recording.rows(repeats=3)
    assert all(row["ratio"] > 5 > row["bound"] for row in found)
    assert [row["id"].partition(",")[0] for row in found] == [
        "recording/the loss alone", *["recording/sketches of parameters and gradients"] * 2,
    ]  # fmt: skip
    assert not forms[0]
    assert forms[-1].keys() == {"parameter ", "buffer ", "gradient of "}
