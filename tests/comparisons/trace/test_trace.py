"""The trace: what torch made, what a rule says of it, and where the two differ."""

import functools
import gc
import json
import re
import weakref

import numpy as np
import pytest
import torch
from gradtwin.comparisons import exact
from gradtwin.comparisons.cli.app import app
from gradtwin.comparisons.trace.models import traced
from gradtwin.comparisons.trace.steps import NO_RULE
from gradtwin.comparisons.verdict.classes import DIFFERENT, IDENTICAL, REFERENCE_IMPRECISE, ROUNDING
from torch import nn
from typer.testing import CliRunner

from gradtwin import manual, trace

F = nn.functional
RIGHT = {IDENTICAL, ROUNDING, REFERENCE_IMPRECISE}
BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


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
        ("convnet", "digits", ""),
        pytest.param("gpt", "text", "", marks=pytest.mark.sweep),
        ("vit", "digits", ""),
    ],
)
def test_the_models_are_covered(model, data, loss):
    found = traced(model, data, loss)
    print(found)
    assert found.covered >= 0.9
    assert {step.kind for step in found.steps} <= RIGHT
    assert found.steps[-1].op == (loss or found.steps[-1].name)
    assert np.array_equal(found.steps[-1].dy, 1)


def drawn(dtype, *shape):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


def wrong_edges(found):
    """Of each wrong step, its function and the arguments whose edge is different."""
    return [
        (s.name, [e.argument for e in s.edges if e.verdict.kind == DIFFERENT]) for s in found.wrong
    ]


@BOTH
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


class Called(nn.Module):
    """A module that is called with one tensor in several places, and gives its first result."""

    def __init__(self, module, places=1, **settings):
        super().__init__()
        self.module, self.places, self.settings = module, places, settings

    def forward(self, x):
        y = self.module(*[x] * self.places, **self.settings)
        return y[0] if isinstance(y, tuple) else y


@BOTH
@pytest.mark.parametrize(
    ("made", "op", "settings"),
    [
        (lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0), "layer_norm", {}),
        (lambda: nn.MultiheadAttention(8, 2), "multi_head_attention_forward", {"places": 3}),
        (
            lambda: nn.MultiheadAttention(8, 2),
            "multi_head_attention_forward",
            {"places": 3, "need_weights": False},
        ),
        (lambda: nn.LSTM(8, 6, num_layers=2), "lstm", {}),
        (lambda: nn.GRU(8, 6, num_layers=2, bidirectional=True), "gru", {}),
        (lambda: nn.RNN(8, 6), "rnn_tanh", {}),
        (lambda: nn.Sequential(nn.BatchNorm1d(2), nn.GroupNorm(1, 2)), "batch_norm", {}),
    ],
)
def test_what_networks_are_made_of_is_covered(made, op, settings, dtype):
    torch.manual_seed(0)
    found = trace(Called(made().to(dtype), **settings), drawn(dtype, 5, 2, 8))
    print(found)
    assert op in {step.op for step in found.steps}
    assert found.covered >= 0.9
    assert {step.kind for step in found.steps} <= RIGHT


def test_a_mistake_in_a_network_is_found_at_its_step(monkeypatch):
    right = manual.recurrent.lstm

    @functools.wraps(right)
    def wrong(*args, **kwargs):
        y, pullback = right(*args, **kwargs)
        return y, lambda dy: pullback((dy[0], 2 * dy[1], dy[2]))

    class Last(nn.LSTM):
        def forward(self, x):
            _, (h, _) = super().forward(x)
            return h

    torch.manual_seed(0)
    net, x = Last(8, 6).double(), drawn(torch.float64, 5, 2, 8)
    assert not trace(net, x).wrong
    monkeypatch.setattr(manual.recurrent, "lstm", wrong)
    assert [step.op for step in trace(net, x).wrong] == ["lstm"]


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
    assert wrong_edges(found) == [("gelu", ["x"]), ("linear", ["bias"])]
    assert found.wrong[1] is found.steps[2]


def test_a_large_layer_is_judged_without_an_exact_value(monkeypatch):
    right = manual.linear.linear

    def linear(x, weight, bias=None):
        y, pullback = right(x, weight, bias)
        return y, lambda dy: (1.01 * pullback(dy)[0], *pullback(dy)[1:])

    def never(*args):
        raise AssertionError("a definition was given a large layer")

    monkeypatch.setattr(manual.linear, "linear", linear)
    monkeypatch.setattr(exact, "_exactly", never)
    found = trace(nn.Linear(400, 300), drawn(torch.float32, 3, 400).requires_grad_())
    assert wrong_edges(found) == [("linear", ["x"])]


def test_a_rule_that_fails_on_what_torch_took_is_wrong(monkeypatch):
    def gelu(x, approximate="none"):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(manual.activations, "gelu", gelu)
    found = trace(*network())
    assert [step.name for step in found.wrong] == ["gelu"]
    assert found.wrong[0].note == "ZeroDivisionError: planted"


@BOTH
def test_every_edge_has_a_verdict(dtype):
    net, x = network(dtype)
    found = trace(net, x)
    assert {e.verdict.kind for s in found.steps for e in s.edges} <= RIGHT
    assert [(e.argument, e.next) for s in found.steps for e in s.edges] == [
        ("weight", "AccumulateGrad"),
        ("bias", "AccumulateGrad"),
        ("x", "AddmmBackward0"),
        ("x", "GeluBackward0"),
        ("weight", "AccumulateGrad"),
        ("bias", "AccumulateGrad"),
        ("x", "AddmmBackward0"),
    ]
    for step, behind in zip(found.steps[1:], found.steps, strict=False):
        assert np.isclose(step.edges[0].norm, np.linalg.norm(behind.dy))


@BOTH
@pytest.mark.parametrize("argument", ["x", "weight", "bias"])
def test_a_wrong_node_is_named_at_its_step_and_argument(dtype, argument):
    net, x = network(dtype)

    def module(x):
        h = net[3](net[1](net[0](x)))  # its node takes bias, x and the transposed weight
        place = ["bias", "x", "weight"].index(argument)
        h.grad_fn.register_hook(
            lambda passed, _: tuple(g * (1 + 1e-3 * (i == place)) for i, g in enumerate(passed))
        )
        return net[4](h)

    found = trace(module, x)
    assert wrong_edges(found) == [("linear", [argument])]
    assert found.wrong[0] is found.steps[2]
    assert {v.kind for s in found.steps for v in s.verdicts.values()} <= RIGHT
    (name,) = [name for name, v in found.wrong[0].judged.items() if v.kind == DIFFERENT]
    assert f"different: {name}\n" in str(found)


@BOTH
@pytest.mark.parametrize(
    ("place", "name", "edges"),
    [
        ("middle", "gelu", []),
        ("result", "log_softmax", []),
        ("parameter", "linear", ["weight"]),
        ("without a rule", "sin", []),
        ("node", "gelu", []),
    ],
)
def test_a_gradient_that_is_changed_on_its_way_is_named_where_it_arrives(dtype, place, name, edges):
    net, x = network(dtype)

    def module(x):
        h = net[1](net[0](x))
        s = h.sin()
        y = net[4](net[3](h) + net[3](s))
        changed = {"middle": h, "result": y, "parameter": net[3].weight, "without a rule": s}
        if place == "node":
            h.grad_fn.register_prehook(lambda grads: (grads[0] * 1.001,))
        else:
            changed[place].register_hook(lambda grad: grad * 1.001)
        return y

    found = trace(module, x)
    assert {n for n, _ in wrong_edges(found)} == {name}
    assert all(arguments == edges for _, arguments in wrong_edges(found))
    if not edges:
        assert found.wrong[0].verdicts["cotangent"].kind == DIFFERENT
    assert found.missing == ["SinBackward0"]
    assert found.covered < 1


@BOTH
def test_a_tensor_in_two_places(dtype, monkeypatch):
    x = drawn(dtype, 5, 5).requires_grad_()
    found = trace(lambda x: (x @ x + x) * x.tanh(), x)
    assert {step.kind for step in found.steps} <= RIGHT
    square = found.steps[0]
    assert [e.argument for e in square.edges] == ["x + other"]
    assert {"x", "other"} < square.verdicts.keys()

    def module(x):
        y = x @ x
        y.grad_fn.register_hook(lambda passed, _: (passed[0], passed[1] * 1.001))
        return (y + x) * x.tanh()

    assert wrong_edges(trace(module, x)) == [("matmul", ["x + other"])]

    right = manual.products.matmul

    def matmul(x, other):
        y, pullback = right(x, other)
        return y, lambda dy: tuple(1.001 * grad for grad in pullback(dy))

    monkeypatch.setattr(manual.products, "matmul", matmul)
    (wrong,) = trace(lambda x: x @ x, x).wrong
    differing = {name for name, v in wrong.judged.items() if v.kind == DIFFERENT}
    assert differing == {"x", "other", "x + other", "x + other → AccumulateGrad"}


@BOTH
def test_functions_in_place_and_views(dtype):
    def module(x, fault=1):
        y = (x * 2).tanh_()
        y.grad_fn.register_hook(lambda passed, _: (passed[0] * fault,))
        z = (y.view(2, -1) + 1).transpose(0, 1)
        z[0] *= 3
        return z.relu_().reshape(-1) * 0.5

    x = drawn(dtype, 4, 3).requires_grad_()
    assert {step.kind for step in trace(module, x).steps if step.op} <= RIGHT
    found = trace(lambda x: module(x, 1.001), x)
    assert wrong_edges(found) == [("tanh", ["x"])]
    assert found.wrong[0].edges[0].next == "MulBackward0"


@BOTH
def test_gradients_that_are_not_used_are_zero(dtype):
    x = drawn(dtype, 4, 3).requires_grad_()
    weight = drawn(dtype, 3, 3).requires_grad_()

    def module(x, drop=False):
        y = F.linear(torch.var_mean(x, dim=0)[0] + x, weight)
        y.grad_fn.register_hook(lambda passed, _: (None, *passed[1:]) if drop else None)
        y.retain_grad()
        return torch.stack([y, y.detach()]).sum() + torch.cat([y, y.detach()]).mean()

    found = trace(module, x)
    assert not found.wrong
    moments = next(step for step in found.steps if step.name == "var_mean")
    assert np.any(moments.dy[0])
    assert np.array_equal(moments.dy[1], np.zeros(3))
    found = trace(lambda x: module(x, True), x)
    assert wrong_edges(found) == [("linear", ["x"])]
    assert found.wrong[0].edges[0].norm == 0


def test_hooks_do_not_stay():
    x = torch.ones(3, requires_grad=True) + 1
    found = trace(torch.exp, x)
    cotangent = weakref.ref(found.steps[-1].dy)
    assert cotangent() is not None
    del found
    gc.collect()
    assert cotangent() is None


@pytest.mark.parametrize(
    "module",
    [
        lambda x: F.embedding(torch.tensor([1, 4, 1]), x, max_norm=1.0),
        lambda x: F.triplet_margin_loss(x, x.exp(), -x),
        lambda x: F.triplet_margin_with_distance_loss(x, x.exp(), -x, swap=True),
    ],
)
def test_further_outputs_and_names_without_value(module):
    found = trace(lambda x: module(x * 1), torch.randn(6, 5, requires_grad=True))
    print(found)
    assert found.covered == 1
    assert {step.kind for step in found.steps} <= RIGHT


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
    assert "SinBackward0" in found.missing
    assert found.examined == ["SquareBackward"]
    assert found.covered < 1
    assert next(s for s in found.steps if s.name == "dropout").note == "draws at random"
    assert str(found).count(NO_RULE) == 2
    assert not found.wrong


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
    assert re.search(r"x +→ TanhBackward0 +(rounding|identical), margin ", result.output)
    assert (tmp_path / "mlp+digits/trace.parquet").exists()
    rows = json.loads(call("linear_regression", "--json").output)
    assert [row["rule"] for row in rows] == ["linear", "mse_loss"]
    for wrong in (("mlq",), ("mlp", "--data", "x"), ("mlp", "--loss", "x"),
                  ("logistic_regression", "--data", "line")):  # fmt: skip
        assert call(*wrong).exit_code == 2


def test_a_method_that_shares_its_name_with_a_rule_is_not_taken_for_it():
    x = torch.randn(2, 3, 5, 5)
    found = trace(lambda x: F.unfold(x, 2).sum(), x.requires_grad_())
    steps = {step.name: step for step in found.steps}
    assert steps["unfold"].op == "unfold"
    assert {v.kind for v in steps["unfold"].verdicts.values()} <= RIGHT
    steps = {step.name: step for step in trace(lambda x: x.unfold(2, 3, 1).sum(), x).steps}
    assert not steps["unfold"].op
    assert not steps["unfold"].note


def test_every_node_of_a_convolutional_network_has_a_rule():
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3, padding="same"), nn.ConvTranspose2d(4, 2, 2, stride=2)]
    network = nn.Sequential(*layers, nn.Unfold(2), nn.Fold((10, 10), 2))
    steps = trace(network, torch.randn(1, 2, 5, 5)).steps
    assert [step.op for step in steps] == ["conv2d", "conv_transpose2d", "unfold", "fold"]
    assert all(v.kind in RIGHT for step in steps for v in step.verdicts.values())
