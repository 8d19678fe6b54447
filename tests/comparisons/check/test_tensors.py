"""Mistakes in functions of tensors that look right: `check` finds each, not what is right."""

import inspect
import types

import numpy as np
import pytest
import torch
from gradtwin.comparisons.ops import evaluate
from gradtwin.comparisons.verdict.classes import DIFFERENT, IDENTICAL, REFERENCE_IMPRECISE

from gradtwin import check, manual, reference

rng = np.random.default_rng(0)
X, Y, V = (rng.standard_normal(shape) for shape in ((4, 5), (4, 5), 5))
P = abs(X) + 0.1
B, C = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 4, 5))
A, SQUARE, M = (rng.standard_normal(shape) for shape in ((5, 3), (3, 3), (5, 5)))
FAMILY = {
    **dict.fromkeys(("rsqrt", "maximum", "minimum", "clamp"), manual.pointwise),
    **dict.fromkeys(("bmm", "addmm", "baddbmm", "outer", "einsum"), manual.products),
}


def planted(op, old, new):
    """The rule of this name, from its family with one mistake."""
    family = FAMILY.get(op, manual.reductions)
    source = inspect.getsource(family)
    assert source.count(old) == 1
    made = types.ModuleType(family.__name__)
    made.__package__ = family.__package__
    exec(source.replace(old, new), vars(made))
    return getattr(made, op)


MISTAKES = [
    ("rsqrt", "** 3 / -2", "** 3 / 2", (P,)),
    ("rsqrt", "** 3 / -2", "** 2 / -2", (P,)),
    ("maximum", "shared = where(x == other, dy / 2, dy)", "shared = dy", (X, Y)),
    ("maximum", "where(wins(other, x), 0, shared)", "where(~wins(x, other), 0, dy)", (X, Y)),
    ("minimum", "_chosen(np.minimum, np.less,", "_chosen(np.minimum, np.greater,", (X, V)),
    ("minimum", "sum_to(dx, x.shape), sum_to(dother, other.shape)", "dx, dother", (X, V)),
    ("clamp", "(x >= low) & (x <= high)", "(x > low) & (x < high)", (X, -0.5, 0.5)),
    ("clamp", "(x >= low) & (x <= high)", "(x >= low) | (x <= high)", (X, -0.5, 0.5)),
    ("clamp", '"min": (x < low) & np.less(low, high)', '"min": (x < low)', (X, Y, V)),
    ("clamp", "(x > high) | np.greater(low, high)", "(x > high)", (X, Y, V)),
    ("clamp", "np.minimum(np.maximum(x, b", "np.maximum(np.minimum(x, b", (X, 0.5, -0.5)),
    ("cumsum", "back = np.flip(np.atleast_1d(dy), axis)", "back = np.atleast_1d(dy)", (X, 1)),
    ("cumsum", "np.cumsum(sums, 0, out=sums)", "np.cumsum(sums, -1, out=sums)",
     (X, 0)),
    ("cumsum", "return np.flip(_running(back, axis, x.dtype), axis).reshape(x.shape)",
     "return np.flip(_running(back, axis, x.dtype), axis).reshape(x.shape) - dy", (X, 1)),
    ("max", "return where(equal, dy / int(np.count_nonzero(equal)), 0)",
     "return where(equal, dy, 0)", (X,)),
    ("max", "_best(x, np.argmax, dim, keepdim)", "_best(x, np.argmin, dim, keepdim)", (X, 1)),
    ("max", "y = np.take_along_axis(lines, first, axis).reshape(kept), first.reshape(kept)",
     "y = np.take_along_axis(lines, first, axis).reshape(kept), first.reshape(kept) + 1", (X, 1)),
    ("min", "np.put_along_axis(dx, first,", "np.put_along_axis(dx, first * 0,", (X, 1)),
    ("min", "y = np.take_along_axis(lines, first, axis).reshape(kept), first.reshape(kept)",
     "y = np.take_along_axis(lines, first, axis).reshape(kept), lines.shape[axis] - 1 - "
     "place(np.flip(lines, axis), axis=axis, keepdims=True).reshape(kept)", (X, 1)),
    ("amax", "share = dy / where(count > 0, count, math.nan).astype(dy.dtype)",
     "share = dy / where(count > 0, 1, math.nan).astype(dy.dtype)", (X, 1)),
    ("amin", "return _over_rows(_extreme, x, dim, keepdim, np.min)",
     "return _over_rows(_extreme, abs(x), dim, keepdim, np.min)", (X, 1)),
    ("amin", "return dx.reshape(moved.shape).transpose(np.argsort(order))",
     "return dx.reshape(x.shape)", (X, 0)),
    ("var", "return dim, int(unbiased)", "return dim, int(not unbiased)", (X, 1)),
    ("var", "return dim, int(unbiased)", "return dim, 1", (X, 1, False)),
    ("var", "return div(2 * dy * d, freedom)[0]", "return div(2 * dy * d, rows.shape[-1])[0]",
     (X, 1)),
    ("var", "return div(2 * dy * d, freedom)[0]", "return div(2 * dy * rows, freedom)[0]", (X, 1)),
    ("std", "where(s == 0, 0, div(dy * hat / where(s == 0, 1, s), freedom)[0])",
     "div(dy * hat / s, freedom)[0]", (X, 1)),
    ("std", "dy * hat / where(s == 0, 1, s), freedom",
     "2 * dy * hat / where(s == 0, 1, s), freedom", (X, 1)),
    ("norm", "2 if p in (\"fro\", None) else p)", "2)", (X, 3, 1)),
    ("norm", "return pull(dy[..., 0])", "return np.abs(pull(dy[..., 0]))", (X, 2, 1)),
    ("norm", "dy * (U @ Vt)", "dy * (U * S[..., np.newaxis, :] @ Vt)", (X, "nuc")),
    ("logsumexp", "where(winner, 1, z) / total", "z", (X, 1)),
    ("logsumexp", "where(winner, 1, z) / total", "np.exp(rows) / total", (X, 1)),
    ("logsumexp", "where(finite, top, 0) + np.log1p(others)", "np.log1p(others)", (X, 1)),
    ("bmm", "dx, dother = sum_to(d @ b.mT, a.shape), sum_to(a.mT @ d, b.shape)",
     "dx, dother = sum_to(d @ b.mT, a.shape), sum_to((d.mT @ a).mT * 2, b.shape)", (B, C)),
    ("addmm", "sum_to(beta * dy, x.shape)", "sum_to(dy, x.shape)", 
     (V, X, M, {"beta": 0.5})),
    ("addmm", "alpha * da, alpha * db", "da, alpha * db",
     (V, X, M, {"alpha": 0.5})),
    ("baddbmm", "sum_to(beta * dy, x.shape)", "sum_to(beta * dy, x.shape) / len(dy)", (V, B, C)),
    ("baddbmm", "y = beta * x + alpha * product if beta else alpha * product",
     "y = x + alpha * product", (V, B, C, {"beta": 0.5})),
    ("outer", "return dy @ vec2, x @ dy", "return dy @ vec2, dy.T @ x * 1.001",
     (V, A[:, 0].copy())),
    ("outer", "return dy @ vec2, x @ dy", "return x @ dy, dy @ vec2", (V, Y[0].copy())),
    ("einsum", "slopes.append(_contracted(d, of_d, a, of_a, of_b))",
     "slopes.append(_contracted(d, of_d, a * 0 + a.mean(), of_a, of_b))", ("ij,jk->ik", X, A)),
    ("einsum", "later.union(out))", "later.union(out, of_b))", ("ij,jk->ik", X, A)),
    ("einsum", "strides[label] = strides.get(label, 0) + stride", "strides[label] = stride",
     ("ii->i", SQUARE)),
    ("einsum", "view[...] = np.expand_dims", "dx[...] = np.expand_dims", ("ii->i", SQUARE)),
    ("einsum", "sorted(c for c in times if times[c] == 1)", "[c for c in times if times[c] == 1]",
     ("ba", X)),
    ("einsum", "if n != 1:\n            sizes[label]", "if True:\n            sizes[label]",
     ("ij,ij->ij", X, Y[:1].copy())),
]  # fmt: skip


def divided(args):
    """Arguments and settings of a row."""
    return (args[:-1], args[-1]) if isinstance(args[-1], dict) else (args, {})


@pytest.mark.thinned(3)
@pytest.mark.parametrize(("op", "old", "new", "args"), MISTAKES)
@pytest.mark.usefixtures("no_cause")
def test_a_mistake_is_found(op, old, new, args):
    args, settings = divided(args)
    report = check(planted(op, old, new), op, args, settings, probes=["ordinary", "kink"])
    print(report.table)
    assert not report.passed


CALLS = {(row[0], repr(row[3])): (row[0], row[3]) for row in MISTAKES}


@pytest.mark.thinned(3)
@pytest.mark.parametrize(("op", "args"), CALLS.values())
def test_the_same_without_it_passes(op, args):
    args, settings = divided(args)
    report = check(op, op, args, settings, probes=["ordinary", "kink"])
    assert report.passed, report


def with_places(changed, right=manual.reductions.max):
    """The rule of max, with the places of the largest changed."""

    def largest(x, dim):
        (y, first), pull = right(x, dim)
        return (y, changed(first)), pull

    return largest


@pytest.mark.parametrize("against", ["max", torch.max])
def test_where_the_largest_is_must_be_right(against):
    right = check(with_places(lambda i: i), against, (X, 1))
    other_dtype = check(with_places(lambda i: i.astype(np.int32)), against, (X, 1))
    wrong = check(with_places(lambda i: (i + 1) % 5), against, (X, 1))
    assert right.passed, right
    assert other_dtype.passed, other_dtype
    assert not wrong.passed
    assert "value.whole.0" in str(wrong)
    assert "the gradients are right" in str(wrong)


def test_of_two_that_are_equal_the_place_is_the_first():
    def last(x, dim):
        (y, _), pull = manual.reductions.max(x, dim)
        return (y, x.shape[dim] - 1 - np.flip(x, dim).argmax(dim)), pull

    assert check(last, "max", (X, 1), probes=["ordinary"]).passed
    assert not check(last, "max", (np.round(X), 1), probes=["ordinary"]).passed


def test_a_torch_function_with_indices_is_held_to_them():
    def turned(x, k, dim):
        y, places = torch.topk(x, k, dim)
        return y, places.flip(dim)

    assert check(torch.topk, torch.topk, (X, 2, 1)).passed
    assert not check(turned, torch.topk, (X, 2, 1)).passed


def test_a_rule_without_indices_is_held_to_its_value():
    def values(x, dim):
        (y, _), pull = manual.reductions.max(x, dim)
        return y, lambda dy: pull((dy, None))

    assert check(values, torch.max, (X, 1)).passed


def test_a_rule_of_whole_numbers_alone_is_judged_by_them(monkeypatch):
    classes = np.array([2, 0, 1])
    right = evaluate.judge_inputs("one_hot", ((classes,), {}, None), "float64")
    assert {v.kind for v in right.values()} == {IDENTICAL}
    given = manual.embedding.one_hot
    monkeypatch.setattr(
        manual.embedding, "one_hot", lambda x, num_classes=-1: (1 - given(x)[0], given(x)[1])
    )
    wrong = evaluate.judge_inputs("one_hot", ((classes,), {}, None), "float64")
    assert {v.kind for v in wrong.values()} == {DIFFERENT}


def test_wrong_indices_are_seen_where_a_rule_is_judged(monkeypatch):
    inputs = (X, 1), {}, (V[:4], None)
    assert evaluate.judge_inputs("max", inputs, "float64")["value.1"].kind == IDENTICAL
    wrong = with_places(lambda i: (i + 1) % 5)
    monkeypatch.setattr(manual.reductions, "max", lambda x, dim=None, keepdim=False: wrong(x, dim))
    found = evaluate.judge_inputs("max", inputs, "float64")
    assert found["value.1"].kind == DIFFERENT
    assert found["value.0"].kind == found["x"].kind == IDENTICAL


def gradient_of(function, *tensors):
    made = [t.clone().requires_grad_() for t in map(torch.as_tensor, tensors)]
    return [g.numpy() for g in torch.autograd.grad(function(*made).sum(), made)]


def test_torch_takes_no_axes_for_one_element():
    """The variance over dim=() is that over all axes, and its slope is divided by 1 − correction,
    which the table shows."""
    by_torch = gradient_of(lambda x: torch.var(x, (), correction=0), X)[0]
    assert np.allclose(by_torch, 2 * (X - X.mean()))
    assert np.isinf(gradient_of(lambda x: torch.var(x, ()), X)[0]).all()
    _, pullback = manual.reductions.var(X, (), correction=0)
    assert np.allclose(pullback(np.ones(())), 2 * (X - X.mean()) / X.size)
    inputs = (X, ()), {"correction": 0}, np.ones(())
    assert evaluate.judge_inputs("var", inputs, "float64")["x"].kind == REFERENCE_IMPRECISE


@pytest.mark.filterwarnings("ignore:var.*degrees of freedom")
def test_torch_forgets_signs_without_a_degree_of_freedom():
    x = np.array([1.0, 2.0, 4.0])
    assert np.array_equal(gradient_of(lambda x: torch.var(x, correction=3), x)[0], [np.inf] * 3)
    signs = -np.inf, -np.inf, np.inf
    assert np.array_equal(gradient_of(lambda x: torch.var(x, 0, correction=3), x)[0], signs)
    for side in (manual, reference):  # whose mirror names the axes
        assert np.array_equal(side.reductions.var(x, correction=3)[1](np.ones(())), signs)


def test_torch_has_no_gradient_of_bounds_that_broadcast():
    x, low, high = V, V[:3, np.newaxis], V[:2, np.newaxis, np.newaxis]
    with pytest.raises(RuntimeError, match="doesn't match the broadcast shape"):
        gradient_of(torch.clamp, x, low, high)
    ours, mirrors = (
        side.pointwise.clamp(x, low, high)[1](np.ones((2, 3, 5))) for side in (manual, reference)
    )
    assert all(np.array_equal(a, b) for a, b in zip(ours, mirrors, strict=True))


def test_the_nuclear_norm_of_what_has_not_full_rank_is_not_compared():
    with pytest.raises(ValueError, match="LAPACK's choice"):
        reference.reductions.norm(np.ones((3, 3)), "nuc")
    y, pullback = manual.reductions.norm(np.ones((3, 3)), "nuc")
    assert abs(y - 3) < 1e-14
    assert pullback(np.ones(())).shape == (3, 3)
