"""Second derivatives and forward modes are judged where torch has them."""

import numpy as np
import pytest
import torch

from gradtwin import check

F = torch.nn.functional
rng = np.random.default_rng(0)
X, W = rng.standard_normal((3, 4)), rng.standard_normal((2, 4))
QUICK = {"probes": ["ordinary"]}


class Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        return torch.tanh(x)

    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        return (1 - torch.tanh(x) ** 2) * dy

    @staticmethod
    def jvp(ctx, tangent):
        (x,) = ctx.saved_tensors
        return (1 - torch.tanh(x) ** 2) * tangent


class Detached(Tanh):
    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        return (1 - torch.tanh(x.detach()) ** 2) * dy


class HalfDetached(Tanh):
    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        return (1 - torch.tanh(x) * torch.tanh(x).detach()) * dy


class ThroughNumPy(Tanh):
    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        slope = 1 - np.tanh(x.detach().numpy()) ** 2
        return torch.from_numpy(np.asarray(slope * dy.detach().numpy()))


class WrongTangent(Tanh):
    @staticmethod
    def jvp(ctx, tangent):
        (x,) = ctx.saved_tensors
        return (1 - torch.tanh(x)) * tangent


class NoTangent(Tanh):
    jvp = torch.autograd.Function.jvp


AGAINST = pytest.mark.parametrize("against", [torch.tanh, None], ids=["torch", "nothing"])


@AGAINST
def test_what_is_right_is_right_of_any_order(against):
    report = check(Tanh, against, [X], **QUICK, order=2, forward_mode=True)
    assert report.passed, str(report)
    ids = report.table["id"].str
    assert ids.startswith("backward of Tanh").any()
    assert ids.startswith("forward mode of Tanh").any()


@AGAINST
@pytest.mark.parametrize("wrong", [Detached, HalfDetached, ThroughNumPy])
def test_a_backward_that_leaves_the_graph_has_no_second_derivative(wrong, against):
    assert check(wrong, against, [X], **QUICK).passed
    report = check(wrong, against, [X], **QUICK, order=2)
    assert not report.passed
    assert set(report.failed["argument"]) <= {"x", "dy"}
    assert report.failed["id"].str.startswith("backward of").all()


@AGAINST
def test_a_wrong_tangent_is_found(against):
    assert check(WrongTangent, against, [X], **QUICK, order=2).passed
    report = check(WrongTangent, against, [X], **QUICK, forward_mode=True)
    assert report.failed["id"].str.startswith("forward mode of").all()
    assert not report.passed


def test_a_forward_mode_that_is_not_there_is_said():
    report = check(NoTangent, torch.tanh, [X], forward_mode=True)
    assert "jvp" in report.cause.text
    assert not report.passed


@pytest.mark.parametrize(
    ("function", "arrays", "settings"),
    [
        (F.gelu, [X], {}),
        (F.softmax, [X], {"dim": -1}),
        (F.linear, [X, W], {}),
        (F.layer_norm, [X], {"normalized_shape": (4,)}),
        (torch.amax, [X], {"dim": -1}),
        (torch.max, [X], {"dim": -1}),
        (torch.var_mean, [X], {"dim": -1}),
        (torch.nn.Linear(4, 3), [X], {}),
    ],
    ids=lambda given: getattr(given, "__name__", type(given).__name__),
)
def test_torch_is_right(function, arrays, settings):
    report = check(function, function, arrays, settings, order=2, forward_mode=True)
    assert report.passed, str(report)


def test_our_samples_are_taken():
    report = check(F.cross_entropy, "cross_entropy", order=2, forward_mode=True)
    assert report.passed, str(report)


def test_the_domain_is_that_of_the_arguments():
    def positive(a):
        return abs(a) + 0.1

    class Log(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return torch.log(x)

        @staticmethod
        def backward(ctx, dy):
            return dy / ctx.saved_tensors[0]

    report = check(Log, torch.log, [positive(X)], domain=positive, order=2)
    assert report.passed, str(report)
    assert set(report.table["probe"]) >= {"mixed", "× 2²⁰"}


@pytest.mark.parametrize(
    ("subject", "settings", "words"),
    [
        ("tanh", {"order": 2}, "subject: expected one of torch's"),
        (lambda x: (x, lambda dy: dy), {"forward_mode": True}, "subject: expected one of torch's"),
        (Tanh, {"order": 3}, "order: expected 1 or 2, got 3"),
    ],
)
def test_what_cannot_be_derived_is_refused(subject, settings, words):
    with pytest.raises(ValueError, match=words):
        check(subject, None, [X], **settings)


def test_a_dy_of_its_own_is_no_hindrance():
    def scaled(dy, x):
        return dy * torch.sin(x)

    report = check(scaled, scaled, [X, X + 1], order=2)
    assert report.passed, str(report)
    assert {"dy", "x", "dy_"} <= set(report.table["argument"])
