"""Custom Functions and operators of torch.library are examined as `check` does."""

import pytest
import torch
from gradtwin.comparisons.trace import functions
from gradtwin.comparisons.verdict.classes import DIFFERENT, IDENTICAL, ROUNDING
from torch import nn

from gradtwin import trace


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, dy):
        return ctx.factor * dy * ctx.saved_tensors[0], None


square = Square.apply  # as people keep it


def drawn(*shape, dtype=torch.float32):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


OPERATORS = torch.library.Library("gradtwin_tests", "DEF")
OPERATORS.define("cube(Tensor x, float factor) -> Tensor")
OPERATORS.impl("cube", lambda x, factor: x**3, "CompositeExplicitAutograd")


def _kept(ctx, inputs, output):
    x, ctx.factor = inputs
    ctx.save_for_backward(x)


torch.library.register_autograd(
    "gradtwin_tests::cube",
    lambda ctx, dy: (ctx.factor * dy * ctx.saved_tensors[0] ** 2, None),
    setup_context=_kept,
    lib=OPERATORS,
)


@pytest.mark.parametrize(("factor", "wrong"), [(3.0, []), (3.003, ["cube"])])
def test_operators_of_a_library_are_examined(factor, wrong):
    cube = torch.ops.gradtwin_tests.cube
    found = trace(lambda x: cube(x * 2, factor), drawn(4, 3).requires_grad_())
    assert [step.name for step in found.steps] == ["mul", "cube"]
    assert [step.name for step in found.wrong] == wrong
    assert len(found.examined) == 1


class Scaled(torch.autograd.Function):
    """x w; asked of w, its gradient is wrong."""

    @staticmethod
    def forward(ctx, x, w):
        if x.dtype == torch.float64:
            raise TypeError("float32 alone")
        ctx.save_for_backward(w)
        return x * w

    @staticmethod
    def backward(ctx, dy):
        return dy * ctx.saved_tensors[0], None


class Wide(Scaled):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(w)
        return x * w


def test_of_what_no_gradient_is_asked_none_is_missed():
    layer, w = nn.Linear(5, 3), drawn(3)
    assert not trace(lambda x: Wide.apply(layer(x), w), drawn(4, 5)).wrong
    (wrong,) = trace(lambda x: Wide.apply(layer(x), layer.bias), drawn(4, 5)).wrong
    assert "w" in wrong.verdicts
    assert wrong.verdicts["w"].kind == DIFFERENT
    assert wrong.verdicts["x"].kind in {IDENTICAL, ROUNDING}


def test_what_takes_no_other_dtype_is_not_examined():
    found = trace(lambda x: Scaled.apply(x * 2, drawn(3)), drawn(4, 3).requires_grad_())
    assert found.missing == ["ScaledBackward"]
    assert found.steps[1].note.startswith("not examined: raises")


def test_calls_that_differ_in_their_numbers_are_examined_once(monkeypatch):
    asked = []
    check = functions.check
    monkeypatch.setattr(functions, "check", lambda *a, **k: asked.append(a) or check(*a, **k))
    found = trace(
        lambda x: square(square(x * 2, 2), 2) + square(x, 2.0)[:1], drawn(3).requires_grad_()
    )
    assert len(found.examined) == 3
    assert len(asked) == 2


def test_a_function_with_the_name_of_a_rule_is_not_taken_for_it():
    other = type("exp", (Square,), {})
    found = trace(lambda x: other.apply(x * 2, 2), drawn(3).requires_grad_())
    assert [(step.name, step.op) for step in found.steps] == [("mul", "mul"), ("exp", "")]
    assert not found.wrong
