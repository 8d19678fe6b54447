"""The trace: what torch made, what a rule says of it, and where the two differ."""

import json

import numpy as np
import pytest
import torch
from gradtwin.comparisons import verdict
from gradtwin.comparisons.cli import app
from gradtwin.comparisons.trace import NO_RULE
from gradtwin.comparisons.trace_command import traced
from torch import nn
from typer.testing import CliRunner

from gradtwin import manual, trace

F = nn.functional
RIGHT = {verdict.IDENTICAL, verdict.ROUNDING, verdict.REFERENCE_IMPRECISE}


def network(dtype=torch.float32):
    torch.manual_seed(0)
    layers = nn.Linear(5, 7), nn.GELU(), nn.Dropout(0.0), nn.Linear(7, 4), nn.LogSoftmax(dim=1)
    return nn.Sequential(*layers).to(dtype), torch.randn(6, 5, dtype=dtype)


@pytest.mark.parametrize(
    ("model", "data", "loss"),
    [
        ("mlp", "digits", ""),
        ("mlp", "diabetes", "smooth_l1_loss"),
        ("logistic_regression", "breast_cancer", ""),
        ("linear_regression", "line", "huber_loss"),
    ],
)
def test_the_models_are_covered(model, data, loss):
    found = traced(model, data, loss)
    print(found)
    assert found.covered >= 0.9
    assert {step.kind for step in found.steps} <= RIGHT
    assert found.steps[-1].op == (loss or found.steps[-1].name)
    assert np.array_equal(found.steps[-1].dy, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_module_of_the_users_is_covered_and_left_as_it_was(dtype):
    net, x = network(dtype)
    before = {name: p.clone() for name, p in net.state_dict().items()}
    found = trace(net, x)
    assert found.covered >= 0.9
    assert [step.name for step in found.steps] == ["linear", "gelu", "linear", "log_softmax"]
    assert {step.kind for step in found.steps} <= RIGHT
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(p, before[name]) for name, p in net.state_dict().items())
    row = found.table.iloc[1]
    assert (row["nodes"], row["next"], row["saved"]) == (
        "GeluBackward0",
        "AddmmBackward0",
        "GeluBackward0.self",
    )
    assert row["kept_bytes"] >= row["saved_bytes"] == 6 * 7 * x.element_size()


def test_planted_faults_are_named_at_their_node(monkeypatch):
    right_gelu, right_linear = manual.activations.gelu, manual.linear.linear

    def gelu(x, approximate="none"):
        y, pullback = right_gelu(x, approximate)
        return y, lambda dy: pullback(dy) * (1 + 1e-3)

    def linear(x, weight, bias=None):
        y, pullback = right_linear(x, weight, bias)

        def wrong(dy):
            dx, dweight, dbias = pullback(dy)
            return dx, dweight, (dbias if weight.shape[0] == 7 else -dbias)

        return y, wrong

    monkeypatch.setattr(manual.activations, "gelu", gelu)
    monkeypatch.setattr(manual.linear, "linear", linear)
    found = trace(*network())
    nodes = [found.table["nodes"][i] for i, s in enumerate(found.steps) if s in found.wrong]
    assert nodes == ["GeluBackward0", "AddmmBackward0, TBackward0"]
    assert [s.name for s in found.wrong] == ["gelu", "linear"]
    assert found.wrong[1] is found.steps[2]


def test_a_rule_that_fails_on_what_torch_took_is_wrong(monkeypatch):
    def gelu(x, approximate="none"):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(manual.activations, "gelu", gelu)
    found = trace(*network())
    assert [step.name for step in found.wrong] == ["gelu"]
    assert found.wrong[0].note == "ZeroDivisionError: planted"


def test_what_has_no_rule_is_named():
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, dy):
            return 2 * dy * ctx.saved_tensors[0]

    net, x = network()
    found = trace(lambda x: torch.sin(Square.apply(net(x))) + F.dropout(net(x), 0.5), x)
    assert {"SquareBackward", "SinBackward0"} <= set(found.missing)
    assert found.covered < 1
    assert next(s for s in found.steps if s.name == "dropout").note == "draws at random"
    assert str(found).count(NO_RULE) == 3


def test_operators_and_views():
    net, x = network()
    weight = torch.ones(4, 2, requires_grad=True)

    def module(x, y):
        z = (2 - net(x) / 3).view(-1, 2, 4) @ weight
        z = (z[:, 0] * 3).relu_().transpose(0, 1).reshape(-1) - y.exp().sum(dim=0).mean()
        return z.pow(2).mean()

    found = trace(module, [x, torch.randn(3, 2, requires_grad=True)])
    print(found)
    assert not found.missing
    assert {step.kind for step in found.steps} <= RIGHT


@pytest.mark.parametrize(
    ("module", "words"),
    [("relu", "module: expected a torch callable"), (torch.relu, "requires a gradient")],
)
def test_what_cannot_be_traced(module, words):
    with pytest.raises(TypeError, match=words):
        trace(module, torch.ones(3))


def test_the_command(tmp_path):
    def call(*arguments):
        return CliRunner().invoke(app, ["trace", *arguments, "--out", str(tmp_path)])

    result = call("mlp", "--data", "digits")
    assert result.exit_code == 0, result.output
    assert "100% of torch's nodes" in result.output
    assert "TanhBackward0" in result.output
    assert (tmp_path / "trace.parquet").exists()
    rows = json.loads(call("linear_regression", "--json").output)
    assert [row["rule"] for row in rows] == ["linear", "mse_loss"]
    for wrong in (("mlq",), ("mlp", "--data", "x"), ("mlp", "--loss", "x"),
                  ("logistic_regression", "--data", "line")):  # fmt: skip
        assert call(*wrong).exit_code == 2
