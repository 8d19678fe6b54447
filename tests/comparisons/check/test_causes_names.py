"""What a mistake is called, where more than one name may be true of it; and mistakes on one of two
ways through a pullback."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gradtwin.comparisons.check.causes import diagnose

from .test_causes import X, ordinary
from .test_causes_variant import of_torch

rng = np.random.default_rng(5)
Z = rng.uniform(0.5, 2.0, X.shape)


def of(rule, against, *arrays):
    cause = diagnose([ordinary(rule, against, list(arrays))])
    return cause and cause.name


# How one value is made of another ---------------------------------------------------------------


def quotient(of_z):
    """y = tanh(x) / (√z + 0.1); `of_z` is √z + 0.1 squared, times 2 √z, as it is written."""

    def rule(x, z):
        root, t = np.sqrt(z), np.tanh(x)
        y = t / (root + 0.1)
        return y, lambda dy: (dy * (1 - t * t) / (root + 0.1), -dy * t / of_z(root))

    return rule


@pytest.mark.parametrize(
    ("cause", "of_z"),
    [
        ("variant", lambda root: (root + 0.1) ** 2 * 2 * (root + 0.1)),
        ("elementwise factor", lambda root: (root + 0.1) * 2 * root),
        ("factor", lambda root: (root + 0.1) ** 2 * root),
    ],
)
def test_of_the_forward(cause, of_z):
    assert of(quotient(of_z), lambda x, z: torch.tanh(x) / (z.sqrt() + 0.1), X, Z) == cause


def test_a_number_that_no_one_knows_comes_last():
    """x over its length + 0.01, of which the pullback leaves out the 0.01 in one place."""

    def rule(x):
        n = np.sqrt((x * x).sum())
        return x / (n + 0.01), lambda dy: (dy / (n + 0.01) - x * (dy * x).sum() / n**3,)

    assert of(rule, lambda x: x / ((x * x).sum().sqrt() + 0.01), X) == "variant"


def turned(base):
    def rule(x):
        def made(a, base, sign):
            angle = np.arange(3)[:, None] * base ** np.arange(2)
            c, s, one, two = np.cos(angle), sign * np.sin(angle), a[:, :2], a[:, 2:]
            return np.concatenate([one * c - two * s, two * c + one * s], 1)

        return made(x, 0.7, 1), lambda dy: (made(dy, *base),)

    def against(x):
        angle = torch.tensor(np.arange(3)[:, None] * 0.7 ** np.arange(2))
        c, s, one, two = angle.cos(), angle.sin(), x[:, :2], x[:, 2:]
        return torch.cat([one * c - two * s, two * c + one * s], 1)

    return of(rule, against, X[:, :4])


def test_another_table_is_a_variant():
    assert turned((0.6, -1)) == "variant"
    assert turned((0.7, 1)) == "rotation"


# On one of two ways -----------------------------------------------------------------------------


def dropped(of_p):
    def rule(x, mask):
        e = np.exp(x)
        p = e / e.sum(-1, keepdims=True)
        return p * mask, lambda dy: (of_p(p, dy, mask), dy * p)

    return rule


@pytest.mark.parametrize(
    ("cause", "of_p"),
    [
        ("elementwise factor", lambda p, d, m: p * (d - (p * d * m).sum(-1, keepdims=True))),
        ("elementwise factor", lambda p, d, m: p * (d * m - (p * d).sum(-1, keepdims=True))),
    ],
)
def test_a_mask_is_left_out_of_one_of_two_terms(cause, of_p):
    mask = Z * (rng.uniform(size=Z.shape) > 0.3)
    assert of(dropped(of_p), lambda x, m: torch.softmax(x, -1) * m, X, mask) == cause


def test_what_was_written_over():
    """p is taken for the gradient of v when ds stands in its place."""

    def rule(x, v):
        e = np.exp(x)
        p = e / e.sum(-1, keepdims=True)
        y = p @ v

        def pullback(dy):
            dp = dy @ v.T
            ds = p * (dp - (dp * p).sum(-1, keepdims=True))
            return ds, ds.T @ dy

        return y, pullback

    v = rng.standard_normal((X.shape[1], 3))
    assert of(rule, lambda x, v: torch.softmax(x, -1) @ v, X, v) == "overwritten"


# What the reference calls -----------------------------------------------------------------------


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    ("value", "other", "said"),
    [
        (
            lambda x: F.huber_loss(x, x * 0, delta=0.3, reduction="none"),
            lambda x: F.huber_loss(x, x * 0, delta=1.0, reduction="none"),
            "delta = 1 in the place of 0.3 in huber_loss",
        ),
        (
            lambda x: 3 * F.gelu(x + 1, approximate="tanh"),
            lambda x: 3 * F.gelu(x + 1),
            "approximate = 'none' in the place of 'tanh' in gelu",
        ),
        (lambda x: F.relu(1 - x) ** 2, lambda x: (1 - x) ** 2, "x in the place of relu"),
    ],
)
def test_a_function_that_the_reference_calls(value, other, said):
    cause = diagnose([ordinary(lambda x: of_torch(value, other)(x), value, [X])])
    assert (cause.name, said in cause.text) == ("variant", True), cause.text


def test_torchs_own_deviation_in_the_pullback():
    """1/σ of n, and of n − 1 with no eps in the pullback."""

    def rule(x):
        c = x - x.mean(-1, keepdims=True)
        y = c / np.sqrt((c * c).mean(-1, keepdims=True) + 1e-5)

        def pullback(dy):
            r = 1 / x.std(-1, ddof=1, keepdims=True)
            hat = c * r
            inner = (dy * hat).mean(-1, keepdims=True)
            return (r * (dy - dy.mean(-1, keepdims=True) - hat * inner),)

        return y, pullback

    def against(x):
        c = x - x.mean(-1, keepdim=True)
        return c / ((c * c).mean(-1, keepdim=True) + 1e-5).sqrt()

    assert of(rule, against, X) == "variant"


def test_digits_that_do_not_scatter_are_no_rounding():
    """2⁻¹¹ of a sine on top is another formula, not one of fewer digits."""

    def rule(more):
        return lambda x: (np.sinh(x), lambda dy: (dy * np.cosh(x) * (1 + 2.0**-11 * more(x)),))

    assert of(rule(np.sin), torch.sinh, X) != "precision"
    assert of(rule(lambda x: np.sin(1e7 * x)), torch.sinh, X) == "precision"
