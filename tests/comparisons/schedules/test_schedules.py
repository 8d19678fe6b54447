"""Every schedule of torch.optim in closed form, beside torch's from step to step; clipping and
averages of weights."""

import inspect
import math

import numpy as np
import pytest
import torch
from gradtwin.comparisons.samples.schedules import SAMPLES
from gradtwin.comparisons.schedules import table
from gradtwin.comparisons.verdict import judge
from gradtwin.comparisons.verdict.classes import DTYPES
from gradtwin.reference.adapters import listed
from torch.optim import lr_scheduler

from gradtwin import manual, reference

EVERY = pytest.mark.parametrize(
    ("name", "settings"),
    [pytest.param(n, s, id=f"{n}-{i}") for n, rows in SAMPLES.items() for i, s in enumerate(rows)],
)
DTYPES = pytest.mark.parametrize("dtype", DTYPES)


@EVERY
def test_every_step_is_rounding(name, settings):
    for row in table.rows(name, settings):
        # torch never restores the rate where total_iters is 0, its own closed form does
        known = settings == {"total_iters": 0} and row["class"] == "reference imprecise"
        assert known or row["class"] in ("identical", "rounding"), row


def test_every_schedule_of_torch_is_here():
    theirs = {n for n in lr_scheduler.__all__ if n != "LRScheduler"} | {"SWALR"}
    named = {f.__wrapped__.__name__ for f in vars(reference.schedules).values() if _is_rate(f)}
    assert theirs == {n for n in named if n[0].isupper()} | {"SequentialLR", "ChainedScheduler"}
    ours = {n for n, f in vars(manual.schedules).items() if inspect.isfunction(f) and _public(f)}
    assert ours == set(SAMPLES)


def _is_rate(thing):
    return hasattr(thing, "__wrapped__")


def _public(f):
    return not f.__name__.startswith("_") and f.__module__.endswith("schedules")


@pytest.mark.parametrize("name", [n for n in SAMPLES if n != "reduce_lr_on_plateau"])
def test_a_closed_form_takes_any_steps_in_any_shape(name):
    closed = getattr(manual.schedules, name)
    settings = SAMPLES[name][-1]
    whole = closed(np.arange(60), lr=0.1, **settings)
    some = closed(np.array([[7, 0], [59, 7]]), lr=0.1, **settings)
    for a, b in zip(listed(whole), listed(some), strict=True):
        assert np.array_equal(a[[[7, 0], [59, 7]]], b)
    with pytest.raises(ValueError, match="steps: expected whole numbers from 0 on"):
        closed(np.array([0.5]), lr=0.1, **settings)


@pytest.mark.parametrize(
    ("name", "settings", "text"),
    [
        ("step_lr", {"step_size": 0}, "step_size: expected above 0"),
        ("constant_lr", {"factor": 2.0}, "factor: expected from 0 to 1"),
        ("linear_lr", {"start_factor": 0.0}, "start_factor: expected above 0"),
        ("linear_lr", {"end_factor": 1.5}, "end_factor: expected from 0 to 1"),
        ("cosine_annealing_warm_restarts", {"T_0": 0}, "T_0: expected a whole number"),
        ("cosine_annealing_warm_restarts", {"T_0": 3, "T_mult": 0}, "T_mult: expected a whole"),
        ("cyclic_lr", {"base_lr": 0.1, "max_lr": 1.0, "mode": "saw"}, "mode: expected"),
        ("one_cycle_lr", {"max_lr": 1.0}, "total_steps: expected a number"),
        ("one_cycle_lr", {"max_lr": 1.0, "total_steps": -1}, "total_steps: expected above 0"),
        ("one_cycle_lr", {"max_lr": 1.0, "total_steps": 9, "pct_start": 2.0}, "pct_start"),
        ("one_cycle_lr", {"max_lr": 1.0, "total_steps": 9, "anneal_strategy": "x"}, "anneal_str"),
        ("one_cycle_lr", {"max_lr": 1.0, "total_steps": 9}, "steps: expected below total_steps"),
        ("swa_lr", {"swa_lr": 0.1, "anneal_strategy": "x"}, "anneal_strategy: expected"),
        ("swa_lr", {"swa_lr": 0.1, "anneal_epochs": -1}, "anneal_epochs: expected at least 0"),
        ("reduce_lr_on_plateau", {"factor": 1.0}, "factor: expected below 1"),
        ("reduce_lr_on_plateau", {"mode": "x"}, "mode: expected"),
        ("reduce_lr_on_plateau", {"threshold_mode": "x"}, "threshold_mode: expected"),
        (
            "sequential_lr",
            {"schedules": [("exponential_lr", {"gamma": 0.9})], "milestones": [3]},
            "milestones: expected one fewer",
        ),
    ],
)
def test_refuses_what_torch_refuses(name, settings, text):
    at = table.inputs(name)
    with pytest.raises((ValueError, ZeroDivisionError)):
        getattr(reference.schedules, name)(at, lr=0.1, **settings)
    with pytest.raises(ValueError, match=text):
        getattr(manual.schedules, name)(at, lr=0.1, **settings)


RIGHT = {name: getattr(manual.schedules, name) for name in SAMPLES}


# Planted faults, each different at the step named.
def one_step_late(steps, *, lr, step_size, gamma=0.1):
    return lr * gamma ** (np.maximum(steps - 1, 0) // step_size)


def restarts_a_step_late(steps, *, lr, T_0):
    return RIGHT["cosine_annealing_lr"](steps % (T_0 + 1), lr=lr, T_max=T_0)


def momentum_with_the_rate(steps, *, lr, **settings):
    rate, momentum = RIGHT["cyclic_lr"](steps, lr=lr, **settings)
    return rate, 1.7 - momentum


@pytest.mark.parametrize(
    ("name", "wrong", "quantity", "step"),
    [
        ("step_lr", one_step_late, "lr", 7),
        ("cosine_annealing_warm_restarts", restarts_a_step_late, "lr", 10),
        ("cyclic_lr", momentum_with_the_rate, "momentum", 0),
    ],
)
def test_planted_faults_are_different(name, wrong, quantity, step, monkeypatch):
    monkeypatch.setattr(manual.schedules, name, wrong)
    rows = {row["quantity"]: row for row in table.rows(name, SAMPLES[name][0])}
    assert rows[quantity]["class"] == "different"
    assert rows[quantity]["outside_step"] == step


# Clipping and averaging --------------------------------------------------------------------------

CLIPS = [
    ("clip_grad_norm_", {"max_norm": 1.0}),
    ("clip_grad_norm_", {"max_norm": 1e3}),
    ("clip_grad_norm_", {"max_norm": 0.5, "norm_type": 1.0}),
    ("clip_grad_norm_", {"max_norm": 0.5, "norm_type": 3.5}),
    ("clip_grad_norm_", {"max_norm": 0.5, "norm_type": math.inf}),
    ("clip_grad_value_", {"clip_value": 0.3}),
]


@pytest.mark.parametrize(("name", "settings"), CLIPS)
@DTYPES
def test_clipping_is_rounding(name, settings, dtype):
    rng = np.random.default_rng(0)
    grads = [rng.standard_normal(s).astype(dtype) for s in ((3, 4), (5,), (), (2, 40))]

    def results(side):
        def of(grads):
            answer = getattr(side.clipping, name)(grads, **settings)
            total, clipped = answer if isinstance(answer, tuple) else (np.zeros(()), answer)
            listed = {f"grads.{i}": np.asarray(g) for i, g in enumerate(clipped)}
            return {"total": np.asarray(total, listed["grads.0"].dtype), **listed}

        return of

    found = judge.judge(results(manual), results(reference), grads, np.dtype(dtype))
    assert {v.kind for v in found.values()} <= {"identical", "rounding"}


def test_clipping_at_the_edges():
    clip = manual.clipping.clip_grad_norm_
    zeros = [np.zeros(3)]
    assert clip(zeros, 1.0)[0] == 0
    assert np.array_equal(
        clip(zeros, 1.0)[1][0], reference.clipping.clip_grad_norm_(zeros, 1.0)[1][0]
    )
    huge = [np.full(4, 1e200)]
    assert clip(huge, 1.0)[0] == 2e200  # torch's squares overflow
    bad = [np.array([1.0, np.nan])]
    assert np.isnan(clip(bad, 1.0)[1][0]).all()
    with pytest.raises(ValueError, match=r"grads: expected a finite norm of order 2\.0, got nan"):
        clip(bad, 1.0, error_if_nonfinite=True)
    with pytest.raises(ValueError, match="clip_value: expected at least 0"):
        manual.clipping.clip_grad_value_(zeros, -1.0)


@DTYPES
def test_averages_are_rounding(dtype):
    """In every step of torch's AveragedModel, which the mirror equals bit for bit."""
    rng = np.random.default_rng(0)
    params = rng.standard_normal((20, 3, 4)).astype(dtype)
    for name, averaging in (
        ("swa_update", torch.optim.swa_utils.get_swa_avg_fn()),
        ("ema_update", torch.optim.swa_utils.get_ema_avg_fn(0.9)),
    ):
        model = torch.nn.Linear(4, 3, bias=False, dtype=getattr(torch, dtype))
        averaged = torch.optim.swa_utils.AveragedModel(model, avg_fn=averaging)
        for n, p in enumerate(params):
            before = averaged.module.weight.detach().numpy().copy()
            model.weight.data.copy_(torch.from_numpy(p.copy()))
            averaged.update_parameters(model)
            if n == 0:  # torch copies the first
                continue
            setting = n if name == "swa_update" else 0.9

            def side(which, name=name, setting=setting):
                step = getattr(which.averaging, name)
                return lambda pair: {"average": step(*pair, setting)}

            kept = averaged.module.weight.detach().numpy()
            assert np.array_equal(side(reference)((before, p))["average"], kept)
            found = judge.judge(side(manual), side(reference), (before, p), np.dtype(dtype))
            assert found["average"].kind in ("identical", "rounding")
    with pytest.raises(ValueError, match="decay: expected from 0 to 1"):
        manual.averaging.ema_update(params[0], params[1], 1.5)
