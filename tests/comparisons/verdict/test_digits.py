"""A formula that loses digits is imprecise; a mistake made in float32 alone is different."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gradtwin.comparisons.verdict import digits
from gradtwin.comparisons.verdict.emulated import emulated
from gradtwin.comparisons.verdict.judge import judge
from gradtwin.reference.adapters import rule

U32 = 2.0**-24


def sides(of_torch, formula):
    """The reference, and a subject: (x, dy) → value and gradient."""
    twin = rule(of_torch)

    def reference(inputs):
        x, dy = inputs
        y, pullback = twin(x)
        return {"value": np.asarray(y), "x": np.asarray(pullback(dy))}

    def subject(inputs):
        with np.errstate(all="ignore"):
            y, dx = formula(*inputs)
        return {"value": np.asarray(y), "x": np.asarray(dx)}

    return reference, subject


def logs(low, high):
    return lambda rng: 10 ** rng.uniform(low, high, 60) * rng.choice([-1, 1], 60)


def between(low, high):
    return lambda rng: rng.uniform(low, high, 60)


def rows(scale, shift, shape=(6, 30)):
    return lambda rng: shift + scale * rng.standard_normal(shape)


def softplus(x, dy):
    return np.log(1 + np.exp(x)), dy / (1 + np.exp(-x))


def logsigmoid(x, dy):
    y = np.log(1 / (1 + np.exp(-x)))
    return y, dy * (1 - np.exp(y))


def tanh(x, dy):
    y = (np.exp(2 * x) - 1) / (np.exp(2 * x) + 1)
    return y, dy * (1 - y * y)


def variance(x, dy):
    mean = x.mean(-1, keepdims=True)
    return (x * x).mean(-1) - mean[..., 0] ** 2, dy[..., None] * 2 * (x - mean) / x.shape[-1]


def layer_norm(x, dy):
    mean = x.mean(-1, keepdims=True)
    r = 1 / np.sqrt((x * x).mean(-1, keepdims=True) - mean * mean + 1e-5)
    y = (x - mean) * r
    centred = dy - dy.mean(-1, keepdims=True) - y * (dy * y).mean(-1, keepdims=True)
    return y, r * centred


def logsumexp(x, dy):
    z = np.exp(x)
    total = z.sum(-1, keepdims=True)
    return np.log(total)[..., 0], dy[..., None] * z / total


def length(x, dy):
    y = np.sqrt((x * x).sum(-1, keepdims=True))
    return y[..., 0], dy[..., None] * x / y


def remainder(x, dy):
    z = (np.exp(x) - 1) - x
    return np.maximum(z, 0), dy * (z > 0) * (np.exp(x) - 1)


# What torch computes, a formula that loses digits, where it does, and which results.
LOSING = {
    "softplus": (F.softplus, softplus, between(-30, 15), ["value"]),
    "logsigmoid": (F.logsigmoid, logsigmoid, between(-20, 20), ["value", "x"]),
    "tanh": (torch.tanh, tanh, logs(-5, -1), ["value"]),
    "expm1": (torch.expm1, lambda x, dy: (np.exp(x) - 1, dy * np.exp(x)), logs(-6, -1), ["value"]),
    "log1p": (torch.log1p, lambda x, dy: (np.log(1 + x), dy / (1 + x)), logs(-6, -2), ["value"]),
    "sine": (
        lambda x: 2 * torch.sin(x / 2) ** 2,
        lambda x, dy: (1 - np.cos(x), dy * np.sin(x)),
        logs(-3, -1),
        ["value"],
    ),
    "variance": (lambda x: x.var(-1, correction=0), variance, rows(1, 30), ["value"]),
    "layer norm": (lambda x: F.layer_norm(x, x.shape[-1:]), layer_norm, rows(1, 30), ["value"]),
}
# Those that overflow, underflow, or decide by a digit that is lost.
BEYOND = {
    "overflow": (lambda x: x.logsumexp(-1), logsumexp, rows(60, 0), ["value", "x"]),
    "underflow": (lambda x: x.logsumexp(-1), logsumexp, rows(3, -95), ["x"]),
    "squares": (
        lambda x: torch.linalg.vector_norm(x, 2, -1),
        length,
        rows(1e-23, 0, (8, 5)),
        ["x"],
    ),
    "decision": (lambda x: F.relu(torch.expm1(x) - x), remainder, logs(-5, -2), ["value", "x"]),
}
SEEDS = 2


def inputs(draw, of_torch, seed, dtype=np.float32):
    rng = np.random.default_rng(seed)
    x = draw(rng)
    dy = rng.standard_normal(of_torch(torch.from_numpy(x)).shape)
    return x.astype(dtype), dy.astype(dtype)


def single_only(subject, change):
    """The subject with a mistake in float32 alone."""

    def wrong(inputs):
        found = subject(inputs)
        if inputs[0].dtype == np.float64:
            return found
        return {name: np.asarray(change(a), a.dtype) for name, a in found.items()}

    return wrong


def kinds(case, change=None, dtype=np.float32, seeds=SEEDS):
    """The classes of those results of a case that lose digits, at several seeds."""
    of_torch, formula, draw, names = case
    reference, subject = sides(of_torch, formula)
    if change:
        subject = single_only(subject, change)
    found = []
    for seed in range(seeds):
        verdicts = judge(subject, reference, inputs(draw, of_torch, seed, dtype), np.dtype(dtype))
        found += [verdicts[name].kind for name in names]
    return found


@pytest.mark.parametrize("name", LOSING | BEYOND)
def test_what_loses_digits_in_float32_is_imprecise(name):
    assert set(kinds((LOSING | BEYOND)[name])) == {"imprecise"}


@pytest.mark.parametrize("name", LOSING)
def test_what_loses_digits_in_float64_is_imprecise(name):
    assert set(kinds(LOSING[name], dtype=np.float64)) == {"imprecise"}


@pytest.mark.parametrize("factor", [2, -1, 1.01])
@pytest.mark.parametrize("name", [*LOSING, "overflow", "underflow", "decision"])
def test_a_mistake_in_float32_alone_is_different(name, factor):
    """Even one beside what loses digits, or all of them; but of infinities none can be seen."""
    case = LOSING[name] if name in LOSING else (*BEYOND[name][:3], ["x"])
    assert set(kinds(case, lambda a: a * factor, seeds=1)) == {"different"}


@pytest.mark.parametrize("factor", [2, 0.5, -1, 1.01, 1 + 1e-4, 1 + 1e-5])
def test_a_mistake_in_float32_alone_of_a_right_formula_is_different(factor):
    """Down to where it is within the floor: 1e-5 is 168 u."""
    right = (torch.sigmoid, lambda x, dy: (1 / (1 + np.exp(-x)), 0 * dy), between(-4, 4), ["value"])
    assert set(kinds(right)) <= {"identical", "rounding"}
    assert set(kinds(right, lambda a: a * np.float32(factor))) == {"different"}


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_what_is_lost_in_float32_by_no_formula_is_different(value):
    """In place of one element, of formulas that overflow nowhere."""

    def change(a):
        a = a.copy()
        a.flat[np.argmax(abs(a))] = value
        return a

    for name in ("expm1", "log1p", "variance"):
        assert set(kinds(LOSING[name], change, seeds=1)) == {"different"}


def test_the_smallest_error_counts_at_each_element_and_not_elsewhere(monkeypatch):
    """What is right at all elements but one is different, however much the others lose."""

    def change(a):
        a = a.copy()
        a.flat[3] *= 1.5
        return a

    assert set(kinds(LOSING["variance"], change, seeds=1)) == {"different"}
    monkeypatch.setattr(digits, "MORE", np.inf)
    assert set(kinds(LOSING["variance"], change, seeds=1)) == {"imprecise"}


def test_without_the_second_opinion_what_overflows_is_different(monkeypatch):
    monkeypatch.setattr(digits, "_as_rounded", lambda *given: [])
    for case in BEYOND.values():
        assert "different" in kinds(case, seeds=1)
    for case in LOSING.values():
        assert set(kinds(case, seeds=1)) == {"imprecise"}


def softmax_by_torch(factor=1.0):
    """A formula in torch, that overflows in float32, as a rule; and torch's own."""

    def naive(x):
        z = torch.exp(x)
        y = z / z.sum(-1, keepdim=True)
        return y * factor if x.dtype == torch.float32 else y

    def of(twin):
        def results(inputs):
            x, dy = inputs
            y, pullback = twin(x)
            return {"value": y, "x": pullback(dy)}

        return results

    return of(rule(lambda x: torch.softmax(x, -1))), of(rule(naive))


@pytest.mark.parametrize(("factor", "kind"), [(1.0, "imprecise"), (1.5, "different")])
def test_a_formula_in_torch_has_a_second_opinion_too(factor, kind):
    reference, subject = softmax_by_torch(factor)
    rng = np.random.default_rng(0)
    x = np.concatenate([90 + 10 * rng.standard_normal((3, 8)), rng.standard_normal((3, 8))])
    point = x.astype(np.float32), rng.standard_normal((6, 8)).astype(np.float32)
    found = judge(subject, reference, point, np.dtype(np.float32))
    assert found["value"].kind == kind


def test_who_refuses_such_arrays_has_no_second_opinion():
    of_torch, formula, draw, _ = BEYOND["underflow"]

    def picky(x, dy):
        if type(x) is not np.ndarray:
            raise TypeError("x: expected an array")
        return formula(x, dy)

    assert set(kinds((of_torch, picky, draw, ["x"]), seeds=1)) == {"different"}


def fits(a, dtype=np.float32):
    return np.array_equal(a.astype(dtype).astype(a.dtype), a, equal_nan=True)


def test_every_step_is_rounded():
    """Of NumPy: ufuncs, their methods, what is written in place, products; and of torch."""
    seen = []

    def formula(inputs):
        x = inputs["x"]
        steps = [x * 3.1, np.exp(x), x.sum(), x.mean(axis=0), x @ x.T, np.einsum("ij,kj", x, x)]
        steps += [np.divmod(x, 0.3)[1], np.where(x > 0, x * 0.7, x), np.add.accumulate(x * 1.3)]
        steps += [np.dot(x, x.T), np.concatenate([x * 0.9, x * 0.9])]
        total = x * 0.1
        total += x / 7
        np.add.at(total, 0, x[1] / 3)
        np.multiply(x, 0.3, out=total, where=np.arange(4)[:, None] > 1)
        t = torch.from_numpy(np.array(x)) * 0.1
        t += t.exp()
        t = torch.softmax(t, -1)
        steps += [total, t.numpy(), torch.log_softmax(t @ t.T, -1).numpy(), t.sigmoid().numpy()]
        seen.append(len(steps))
        return {str(i): np.asarray(a) for i, a in enumerate(steps)}

    x = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32).astype(np.float64)
    kept = x.copy()
    found = emulated(formula, np.float32, 0)({"x": x})
    assert np.array_equal(x, kept)
    assert seen == [len(found)]
    plain = formula({"x": x})
    for name, a in found.items():
        assert type(a) is np.ndarray
        assert a.dtype == np.float64
        assert fits(a), name
        assert not fits(plain[name]), name
        np.testing.assert_allclose(a, plain[name], rtol=1e-4, atol=1e-5)


def test_a_step_moves_by_an_ulp_at_most_and_other_seeds_otherwise():
    x = np.random.default_rng(0).uniform(1, 2, 200).astype(np.float32).astype(np.float64)
    found = [emulated(lambda x: {"y": x * 1.0}, np.float32, seed)(x)["y"] for seed in (0, 0, 1)]
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    assert np.all(abs(found[0] / x - 1) <= 3 * U32)
    assert np.any(found[0] != x)


def test_what_overflows_and_underflows_in_float32_does():
    x = np.array([1e30, 1e-30])
    assert emulated(lambda x: {"y": x * x}, np.float32, 0)(x)["y"].tolist() == [np.inf, 0.0]


@pytest.mark.parametrize("hidden", [-1e9, -1e38])
def test_a_mistake_is_none_of_lost_digits_beside_a_mask(hidden):
    """Some element loses digits at some scale of the inputs, and all errors are below u of the
    largest of them."""

    def attended(inputs, approximate):
        x, mask, dy = (torch.from_numpy(np.array(a)) for a in inputs)
        x.requires_grad_()
        y = F.gelu((x @ x.mT + mask).softmax(-1) @ x, approximate=approximate)
        y.backward(dy)
        return {"value": y.detach().numpy(), "x": x.grad.numpy()}

    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 9, 16)).astype(np.float32)
    mask = np.triu(np.full((9, 9), hidden, np.float32), 1)
    ours, twin = (lambda inputs, a=a: attended(inputs, a) for a in ("tanh", "none"))
    found = judge(ours, twin, [x, mask, dy], np.float32)
    assert {verdict.kind for verdict in found.values()} == {"different"}
