"""Steps of the backward pass made otherwise: each is named, and not where it is not so."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gradtwin.comparisons.check.backward import Backward
from gradtwin.comparisons.check.traced import traced

from gradtwin import check

rng = np.random.default_rng(0)
X, Z = rng.standard_normal((4, 4)), rng.standard_normal((4, 4))
W = rng.standard_normal(4)


def gated(a, b, dy, wrong):
    """y = σ(a) tanh(b)."""
    s, t = 1 / (1 + np.exp(-a)), np.tanh(b)
    made = {
        "right": (dy * t * s * (1 - s), dy * s * (1 - t * t)),
        "operand": (dy * b * s * (1 - s), dy * s * (1 - t * t)),
        "elementwise factor": (dy * t * s * (1 - s), dy * s),
        "sign": (dy * t * s * (s - 1), dy * s * (1 - t * t)),
        "missing term": (np.zeros_like(a), dy * s * (1 - t * t)),
    }
    return s * t, made[wrong]


def scores(a, b, dy, wrong):
    """y = softmax(a bᵀ) b."""
    z = a @ b.T
    p = np.exp(z - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    dp = dy @ b.T
    dz = p * (dp - (dp * p).sum(-1, keepdims=True))
    made = {
        "right": (dz @ b, dz.T @ a + p.T @ dy),
        "transpose": (dz @ b, dz @ a + p.T @ dy),
        "missing term": (dz @ b, p.T @ dy),
        "operand": (dz @ a, dz.T @ a + p.T @ dy),
    }
    return p @ b, made[wrong]


def normed(a, w, dy, wrong):
    """y = w a / √(mean a² + 1), row by row."""
    r = 1 / np.sqrt((a * a).mean(-1, keepdims=True) + 1)
    h = dy * w
    right = r * h - a * r**3 * (h * a).mean(-1, keepdims=True)
    without = r * dy - a * r**3 * (dy * a).mean(-1, keepdims=True)
    made = {
        "right": (right, (dy * a * r).sum(0)),
        "elementwise factor": (without, (dy * a * r).sum(0)),
        "missing term": (r * h, (dy * a * r).sum(0)),
    }
    return w * a * r, made[wrong]


CASES = [
    (gated, lambda a, b: torch.sigmoid(a) * torch.tanh(b), (X, Z)),
    (scores, lambda a, b: F.softmax(a @ b.T, -1) @ b, (X, Z)),
    (normed, lambda a, w: w * a / (a.square().mean(-1, keepdim=True) + 1).sqrt(), (X, W)),
]
WRONG = {
    gated: ("operand", "elementwise factor", "sign", "missing term"),
    scores: ("transpose", "missing term", "operand"),
    normed: ("elementwise factor", "missing term"),
}


def rule_of(function, wrong):
    def rule(a, b):
        y, _ = function(a, b, 0.0 * a, wrong)
        return y, lambda dy: function(a, b, dy, wrong)[1]

    return rule


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    ("function", "against", "arrays", "wrong"),
    [(f, g, arrays, wrong) for f, g, arrays in CASES for wrong in WRONG[f]],
)
def test_the_step_is_named(function, against, arrays, wrong):
    report = check(rule_of(function, wrong), against, arrays)
    assert report.cause.name == wrong, str(report)


@pytest.mark.parametrize(("function", "against", "arrays"), CASES)
def test_the_right_ones_pass(function, against, arrays):
    report = check(rule_of(function, "right"), against, arrays)
    assert report.passed, str(report)
    assert report.cause is None


@pytest.mark.parametrize(("function", "against", "arrays"), CASES)
def test_noise_has_no_such_cause(function, against, arrays):
    """What is off by numbers of no origin is no step made otherwise."""

    def rule(a, b):
        y, pullback = rule_of(function, "right")(a, b)
        odd = 1 + 0.1 * np.sin(7 * np.arange(a.size).reshape(a.shape) + 1e3 * a)
        return y, lambda dy: [g * odd if g.shape == a.shape else g for g in pullback(dy)]

    report = check(rule, against, arrays)
    assert not report.passed
    assert report.cause is None, str(report.cause)


def test_what_is_written_in_place_is_traced():
    def running(x):
        y = torch.empty_like(x)
        state = torch.zeros_like(x[:, 0])
        for t in range(x.shape[1]):
            state = 0.5 * state + x[:, t]
            y[:, t] = state
        return y

    dy = rng.standard_normal(X.shape)
    trace = traced(running, ((X,), {}, dy), ["x"])
    x = torch.from_numpy(X.copy()).requires_grad_()
    (expected,) = torch.autograd.grad(running(x), x, torch.from_numpy(dy))
    _, (found,) = trace.evaluated()
    np.testing.assert_allclose(found, expected.numpy(), 1e-12)
    backward = Backward(trace, dy)
    node = backward.arguments["x"]
    np.testing.assert_allclose(backward.cotangents[node].numpy(), expected.numpy(), 1e-12)
