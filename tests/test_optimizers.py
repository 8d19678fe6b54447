"""Every optimizer beside torch's, on a stream with zeros, tiny and huge gradients."""

import numpy as np
import pytest
import torch
from gradtwin.comparisons import optimizers, verdict
from gradtwin.comparisons.samples.optimizers import SAMPLES

from gradtwin import manual, reference

SETTINGS = [
    pytest.param(name, settings, id=f"{name}-{i}")
    for name, rows in SAMPLES.items()
    for i, settings in enumerate(rows)
]
EVERY = pytest.mark.parametrize(("name", "settings"), SETTINGS)
DTYPES = pytest.mark.parametrize("dtype", verdict.DTYPES)


@EVERY
@DTYPES
def test_a_thousand_steps_are_rounding(name, settings, dtype):
    rows = optimizers.rows(name, settings, dtype, seed=1)
    print({r["quantity"]: (r["lockstep_margin"], r["max_ratio"]) for r in rows})
    assert {r["class"] for r in rows} <= {"identical", "rounding"}
    assert {r["step"] for r in rows} == {1, 10, 100, 1000}
    assert all(np.isfinite(r["torch_spread"]) for r in rows)


@EVERY
@DTYPES
def test_the_mirror_equals_an_optimizer_that_is_kept(name, settings, dtype):
    """Bit for bit, though it is built anew around its state at every step."""
    gradients = optimizers.stream(60, 0, dtype)
    start = np.random.default_rng(0).standard_normal(gradients.shape[1:]).astype(dtype)
    kept = torch.nn.Parameter(torch.from_numpy(start.copy()))
    machine = getattr(reference.optimizers, name).__wrapped__([kept], **settings)
    twin = getattr(reference.optimizers, name)
    for grad, (*_, results) in zip(
        gradients, optimizers.run(twin, start, gradients, settings), strict=True
    ):
        kept.grad = torch.from_numpy(grad.copy())
        machine.step()
        assert np.array_equal(results["param"], kept.detach().numpy())
    for key, value in machine.state[kept].items():
        assert value is None or np.array_equal(results[key], value.numpy())


@EVERY
@DTYPES
def test_a_step_is_pure(name, settings, dtype):
    step = getattr(manual.optimizers, name)
    param, *gradients = np.random.default_rng(0).standard_normal((4, 3, 2)).astype(dtype)
    state = {}
    for grad in gradients:
        before = [np.array(a) for a in (param, grad, *state.values())]
        first, second = (step(param, grad, state, **settings) for _ in range(2))
        after = (param, grad, *state.values())
        assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
        assert np.array_equal(first[0], second[0])
        assert first[0].dtype == dtype
        assert not any(np.shares_memory(a, grad) for a in first[1].values())
        param, state = first


def test_the_stream_has_zeros_and_tiny_and_huge_values():
    stream = abs(optimizers.stream(1000, 0, "float64"))
    assert (stream == 0).any()
    assert ((stream > 0) & (stream < 1e-7)).any()
    assert (stream > 1e4).any()


@pytest.mark.parametrize("name", SAMPLES)
def test_enough_settings_that_differ(name):
    assert len(SAMPLES[name]) >= 5
    gradients = optimizers.stream(3, 0, "float64")
    step = getattr(manual.optimizers, name)
    ends = set()
    for settings in SAMPLES[name]:
        *_, (*_, results) = optimizers.run(step, gradients[0], gradients, settings)
        ends.add(results["param"].tobytes())
    assert len(ends) == len(SAMPLES[name])


BAD = [
    ("sgd", {"lr": -1.0}),
    ("sgd", {"momentum": -0.1}),
    ("sgd", {"weight_decay": -1.0}),
    ("sgd", {"nesterov": True}),
    ("sgd", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}),
    ("rmsprop", {"lr": -1.0}),
    ("rmsprop", {"alpha": -0.1}),
    ("rmsprop", {"eps": -1.0}),
    ("adagrad", {"lr_decay": -1.0}),
    ("adagrad", {"initial_accumulator_value": -1.0}),
    ("adam", {"betas": (1.0, 0.9)}),
    ("adam", {"betas": (0.9, -0.1)}),
    ("adam", {"eps": -1.0}),
    ("adamw", {"weight_decay": -1.0}),
]


@pytest.mark.parametrize(("name", "settings"), BAD)
def test_refuses_what_torch_refuses(name, settings):
    with pytest.raises(ValueError, match=r"(?i)invalid|nesterov"):
        getattr(reference.optimizers, name)(np.ones(2), np.ones(2), {}, **settings)
    key = next(iter(settings))
    with pytest.raises(ValueError, match=key):
        getattr(manual.optimizers, name)(np.ones(2), np.ones(2), {}, **settings)


def test_names_what_does_not_fit():
    with pytest.raises(ValueError, match=r"grad: expected the shape of param, \(2,\), got \(3,\)"):
        manual.optimizers.sgd(np.ones(2), np.ones(3), {})
    with pytest.raises(TypeError, match="grad: expected the dtype of param, float64, got float32"):
        manual.optimizers.sgd(np.ones(2), np.ones(2, np.float32), {})
    with pytest.raises(TypeError, match="param: expected a floating array, got dtype int64"):
        manual.optimizers.adam(np.array([1]), np.ones(1), {})


_RIGHT_ADAM, _RIGHT_RMSPROP = manual.optimizers.adam, manual.optimizers.rmsprop


# Planted faults: (name, settings) and a wrong step; each is different from the step named.
def _wrong_rmsprop(param, grad, state, *, lr=0.01, alpha=0.99, eps=1e-8):
    _, state = _RIGHT_RMSPROP(param, grad, state, lr=lr, alpha=alpha, eps=eps)
    return param - lr * (grad / np.sqrt(state["square_avg"] + eps)), state


def _wrong_adagrad(param, grad, state, *, lr=0.01):
    total = state.get("sum", 0) + abs(grad)
    step = np.asarray(state.get("step", 0) + 1, np.float32)
    return param - lr * (grad / (np.sqrt(total) + 1e-10)), {"step": step, "sum": total}


def _wrong_amsgrad(param, grad, state, *, amsgrad=True):
    forgetful = {**state, "max_exp_avg_sq": np.zeros_like(param)}
    return _RIGHT_ADAM(param, grad, forgetful, amsgrad=True)


@pytest.mark.parametrize(
    ("name", "settings", "wrong", "quantity", "step"),
    [
        ("rmsprop", {}, _wrong_rmsprop, "param", 1),
        ("adagrad", {}, _wrong_adagrad, "sum", 1),
        ("adam", {"amsgrad": True}, _wrong_amsgrad, "max_exp_avg_sq", 2),
    ],
)
@DTYPES
def test_planted_faults_are_different(name, settings, wrong, quantity, step, dtype, monkeypatch):
    monkeypatch.setattr(manual.optimizers, name, wrong)
    rows = optimizers.rows(name, settings, dtype, steps=10)
    found = [r for r in rows if r["class"] == "different" and r["quantity"] == quantity]
    assert found
    assert found[-1]["outside_step"] <= step + 1
