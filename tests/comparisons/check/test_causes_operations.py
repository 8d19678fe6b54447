"""Operations of the pullback made otherwise, once or in every round of a loop, and closed forms."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gradtwin.comparisons.check.causes.closed import recognised

from gradtwin import check

rng = np.random.default_rng(0)
X = rng.standard_normal((3, 5))


def named(rule, against, arrays):
    report = check(rule, against, arrays, dtypes=["float64"], quick=True)
    assert not report.passed, str(report)
    return report.cause.name if report.cause else ""


# A recurrence ---------------------------------------------------------------------------------


def rnn_torch(x, h, w):
    states = []
    for t in range(x.shape[1]):
        h = torch.tanh(x[:, t] + h @ w)
        states.append(h)
    return torch.stack(states, 1)


def rnn(wrong):
    def rule(x, h, w):
        states = [h]
        for t in range(x.shape[1]):
            states.append(np.tanh(x[:, t] + states[-1] @ w))

        def pullback(dy):
            dx, dw, carry = np.zeros_like(x), np.zeros_like(w), np.zeros_like(h)
            for t in reversed(range(x.shape[1])):
                y, before = states[t + 1], states[t]
                da = (dy[:, t] + (0 if wrong == "carry" else carry)) * (1 - y * y)
                dx[:, t] = da
                more = (y if wrong == "new" else before).T @ da
                dw = more if wrong == "=" else dw + more
                carry = da @ w.T
            return dx, carry, dw

        return np.stack(states[1:], 1), pullback

    return rule


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    ("wrong", "cause"),
    [
        ("carry", "missing term"),
        ("new", "operand"),
        ("=", "overwritten"),
    ],
)
def test_every_round_of_a_loop(wrong, cause):
    x, h, w = (rng.standard_normal(s) for s in ((2, 4, 3), (2, 3), (3, 3)))
    assert named(rnn(wrong), rnn_torch, [x, h, w]) == cause


def gated_torch(a, b, x):
    c, out = torch.zeros_like(x[0]), []
    for t in range(len(x)):
        c = a[t] * c + b[t] * torch.tanh(x[t])
        out.append(torch.sigmoid(c) * c)
    return torch.stack(out)


def gated(wrong):
    """c[t] = a[t] c[t − 1] + b[t] tanh(x[t]), whose output is gated by itself."""

    def rule(a, b, x):
        states, y, g = [np.zeros_like(x[0])], np.empty_like(x), np.tanh(x)
        for t in range(len(x)):
            states.append(a[t] * states[-1] + b[t] * g[t])
        c = np.stack(states[1:])
        s = 1 / (1 + np.exp(-c))
        y = s * c

        def pullback(dy):
            da, db, dx, carry = np.empty_like(a), np.empty_like(b), np.empty_like(x), 0
            for t in reversed(range(len(x))):
                more = 0 if wrong == "less" else dy[t] * c[t] * s[t] * (1 - s[t])
                carry = carry + dy[t] * s[t] + more
                decayed = carry * a[t]
                dc = decayed if wrong == "late" else carry
                da[t] = dc * states[t]
                db[t] = dc * g[t]
                dx[t] = dc * b[t] * (g[t] * (1 - g[t]) if wrong == "slope" else 1 - g[t] ** 2)
                carry = decayed
            return da, db, dx

        return y, pullback

    return rule


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    ("wrong", "cause"),
    [
        ("less", "missing term"),
        ("late", "elementwise factor"),
        ("slope", "elementwise factor"),
    ],
)
def test_every_round_with_its_first_and_last(wrong, cause):
    a, b, x = (rng.standard_normal((4, 2)) for _ in range(3))
    assert named(gated(wrong), gated_torch, [a, b, x]) == cause


def scan_torch(a, x):
    h, states = 0, []
    for t in range(x.shape[1]):
        h = a[:, t] * h + x[:, t]
        states.append(h)
    return torch.stack(states, 1)


def scan_of_the_same_step(a, x):
    """h[t] = a[t] h[t − 1] + x[t], with h[t] for h[t − 1] in its pullback."""
    states = [np.zeros_like(x[:, 0])]
    for t in range(x.shape[1]):
        states.append(a[:, t] * states[-1] + x[:, t])

    def pullback(dy):
        da, dx, carry = np.empty_like(a), np.empty_like(x), np.zeros_like(states[0])
        for t in reversed(range(x.shape[1])):
            dx[:, t] = carry = carry + dy[:, t]
            da[:, t] = carry * states[t + 1]
            carry = carry * a[:, t]
        return da, dx

    return np.stack(states[1:], 1), pullback


def test_the_state_of_another_round():
    arrays = [rng.standard_normal((2, 4, 2)) for _ in range(2)]
    assert named(scan_of_the_same_step, scan_torch, arrays) == "operand"


# One operation, and closed forms ----------------------------------------------------------------


def softmax(x):
    p = np.exp(x - x.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def dropped(x, mask, of_p):
    """softmax(x) times a mask, and its gradients; `of_p` makes that of x."""
    p = softmax(x)
    return p * mask, lambda dy: (of_p(p, dy * mask, mask), dy * p)


@pytest.mark.parametrize(
    ("cause", "of_p"),
    [
        ("missing term", lambda p, d, m: p * (1 - p) * d),
        ("missing term", lambda p, d, m: p * d),
        ("operand", lambda p, d, m: X * (d - (p * d).sum(-1, keepdims=True))),
        (
            "extra term",
            lambda p, d, m: (
                p * (d - (p * d).sum(-1, keepdims=True)) - (p * d).mean(-1, keepdims=True)
            ),
        ),
    ],
)
def test_a_softmax_that_is_masked(cause, of_p):
    mask = rng.standard_normal((3, 5))

    def rule(x, mask):
        return dropped(x, mask, of_p)

    assert named(rule, lambda x, mask: torch.softmax(x, -1) * mask, [X, mask]) == cause


def test_blocks_that_overwrite_one_another():
    """dx = dy W in blocks of the columns of W, of which the last is left."""

    def rule(x, w):
        def pullback(dy):
            for k in range(0, len(w), 2):
                dx = dy[:, k : k + 2] @ w[k : k + 2]
            return dx, dy.T @ x

        return x @ w.T, pullback

    w = rng.standard_normal((6, 5))
    assert named(rule, F.linear, [X, w]) == "overwritten"


def test_a_branch_of_the_reference_that_hangs_on_a_value():
    """Clipped by its norm; the norm's own share is left out."""

    def rule(x):
        norm = np.sqrt((x * x).sum())
        return x / norm, lambda dy: (dy / norm,)

    def clipped(x):
        norm = x.square().sum().sqrt()
        return x / norm if norm > 1 else x * 1

    assert named(rule, clipped, [X]) == "missing term"


def test_any_number_is_a_multiple_of_another():
    """A gradient that is one number is no factor times the right one: no such cause."""

    def rule(x, a):
        odd = np.sin(7 * x)
        return a * x, lambda dy: (a * dy, (odd * dy).sum().reshape(a.shape))

    assert named(rule, lambda x, a: a * x, [X, np.array([0.7])]) != "factor"


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("softmax", lambda x: torch.softmax(x, -1)),
        ("log_softmax", lambda x: torch.log_softmax(x, -1)),
        ("a norm", lambda x: F.layer_norm(x, (5,))),
        ("x over its length", lambda x: F.rms_norm(x, (5,))),
        ("x over its length", lambda x: F.normalize(x, dim=-1)),
    ],
)
def test_closed_forms_are_right_but_for_the_mistake(name, function):
    """The right gradient is none of those with a mistake, and each form is known by its values."""
    x = torch.tensor(X, requires_grad=True)
    y, dy = function(x), torch.tensor(rng.standard_normal(X.shape))
    (right,) = torch.autograd.grad(y, x, dy)
    x, y = x.detach(), y.detach()
    ((form, axis),) = recognised(x, y)
    assert form.name == name
    for text, (_, made) in form.wrong(x, y, dy, axis).items():
        assert not torch.allclose(made, right), text
    assert not list(recognised(x, torch.tanh(x)))
