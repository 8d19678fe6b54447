"""Values of one step of a pullback in other places, contributions elsewhere, pairs that are turned:
each is named, and not where it is not so."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gradtwin.comparisons.check.causes import diagnose

from .test_causes import ordinary

rng = np.random.default_rng(3)
X, V = rng.standard_normal((4, 4)), rng.standard_normal((4, 3))
W = rng.standard_normal((4, 6))
ROWS = rng.standard_normal((3, 8))


def said(rule, against, *arrays):
    return str(diagnose([ordinary(rule, against, list(arrays))]) or "")


# One step of the pullback -----------------------------------------------------------------------


def of_softmax(summed):
    """softmax(x) v, where the sum inside of its pullback is another."""

    def rule(x, v):
        p = np.exp(x) / np.exp(x).sum(-1, keepdims=True)

        def pullback(dy):
            dp = dy @ v.T
            return p * (dp - summed(dp * p)), p.T @ dy

        return p @ v, pullback

    return said(rule, lambda x, v: F.softmax(x, -1) @ v, X, V)


def of_projection(along):
    """x / ‖x‖ row by row, where what is taken off along x is another."""

    def rule(x):
        n = np.sqrt((x * x).sum(-1, keepdims=True))
        y = x / n
        return y, lambda dy: (dy - y * along(dy * y)) / n

    return said(rule, lambda x: x / x.square().sum(-1, keepdim=True).sqrt(), X[:, :3])


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    "summed",
    [
        lambda a: a.sum(-2, keepdims=True),
        lambda a: np.broadcast_to(a.sum(), a.shape) / 7,
        lambda a: a.sum(-1),
    ],
)
def test_a_sum_over_other_axes(summed):
    assert of_softmax(summed).startswith("broadcast: the gradient of x"), of_softmax(summed)
    if summed(X).ndim == 2:
        assert of_projection(summed).startswith("broadcast: the gradient of x")


def hidden(change):
    """tanh(x w) w[0], where the pullback changes what comes to x w."""

    def rule(x, w):
        h = np.tanh(x @ w)

        def pullback(dy):
            d = change(dy * (1 - h * h))
            return d @ w.T, x.T @ d

        return h, pullback

    return said(rule, lambda x, w: torch.tanh(x @ w), X, W)


def left_out(d):
    d = d.copy()
    d[:, 4:] = 0
    return d


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda d: np.roll(d, 3, 1), "with its halves along axis 1 exchanged"),
        (lambda d: d[:, [0, 3, 1, 4, 2, 5]], "with its halves along axis 1 interleaved"),
        (lambda d: d[np.arange(4) % 2], "slice i mod 2 in the place of slice i along axis 0"),
        (left_out, "left out from index 4 of 6"),
    ],
)
def test_a_step_in_other_places(change, text):
    found = hidden(change)
    assert found.startswith("misplaced"), found
    assert text in found


def test_blocks_of_rows_that_are_transposed():
    def rule(x):
        def pullback(dy):
            d = dy * (1 - np.tanh(x) ** 2)
            return np.concatenate([b.T.reshape(b.shape) for b in (d[:3], d[3:])])

        return np.tanh(x), pullback

    assert said(rule, torch.tanh, X).startswith(
        "transpose: the gradient of x is that with its bloc"
    )


def test_noise_has_no_such_cause():
    odd = 1 + 0.1 * np.sin(np.arange(24) * 7).reshape(4, 6)
    assert "misplaced" not in hidden(lambda d: d * odd)
    assert "broadcast" not in hidden(lambda d: d * odd)
    assert of_softmax(lambda a: (a**2).sum(-1, keepdims=True)).split(":")[0] not in (
        "misplaced",
        "broadcast",
    )


# What dy contributes ----------------------------------------------------------------------------


def windows(place):
    """Sums of w times every second window of three, scattered back to other places."""
    w = np.array([0.3, -1.1, 0.7])

    def rule(x):
        y = np.stack([x[:, 2 * i : 2 * i + 3] @ w for i in range(3)], 1)

        def pullback(dy):
            dx = np.zeros_like(x)
            for i in range(3):
                dx[:, place(i) : place(i) + 3] += dy[:, i : i + 1] * w
            return dx

        return y, pullback

    kernel = torch.tensor(w)
    return said(rule, lambda x: x.unfold(1, 3, 2) @ kernel, ROWS[:, :7])


def test_contributions_elsewhere():
    assert windows(lambda i: i).startswith("misplaced: the gradient of x: an element of dy contrib")
    assert windows(lambda i: 2 * i) == ""


# Pairs ------------------------------------------------------------------------------------------


def rotated(sign, interleaved=False):
    """Rotary embeddings, turned back by another angle."""
    angle = np.arange(3)[:, None] * 0.7 ** np.arange(4)
    cos, sin = np.cos(angle), np.sin(angle)

    def turned(a, s):
        one, two = (a[:, ::2], a[:, 1::2]) if interleaved else (a[:, :4], a[:, 4:])
        made = one * cos - s * two * sin, two * cos + s * one * sin
        return np.stack(made, -1).reshape(a.shape) if interleaved else np.concatenate(made, 1)

    def against(x):
        one, two = (x[:, ::2], x[:, 1::2]) if interleaved else (x[:, :4], x[:, 4:])
        c, s = torch.tensor(cos), torch.tensor(sin)
        made = one * c - two * s, two * c + one * s
        return torch.stack(made, -1).reshape(x.shape) if interleaved else torch.cat(made, 1)

    return said(lambda x: (turned(x, 1), lambda dy: turned(dy, sign)), against, ROWS)


@pytest.mark.parametrize("interleaved", [False, True])
def test_pairs_turned_the_other_way(interleaved):
    where = "neighbours" if interleaved else "halves"
    assert rotated(1, interleaved).startswith(f"rotation: the gradient of x has its {where}")
    assert rotated(-1, interleaved) == ""


def test_what_stretches_is_no_rotation():
    assert not rotated(-2).startswith("rotation")


# Counts and digits ------------------------------------------------------------------------------


def test_the_sum_of_weights_and_how_many_there_are():
    w = abs(W[:, 0])

    def rule(x, w):
        share = w / len(w)
        y = (w @ x**2) / w.sum()
        return y, lambda dy: (2 * dy * share[:, None] * x, dy @ (x**2 - y).T / w.sum())

    found = said(rule, lambda x, w: (w @ x**2) / w.sum(), X, w)
    assert found.startswith("counts: the gradient of x is divided by another count: Σw/n"), found


def test_products_in_bfloat16():
    def rule(x, w):
        def shorter(a):
            return torch.tensor(a).bfloat16()

        def pullback(dy):
            return (shorter(dy) @ shorter(w.T)).double().numpy(), x.T @ dy

        return x @ w, pullback

    found = said(rule, lambda x, w: x @ w, X, W)
    assert found.startswith("precision: x is computed in bfloat16"), found


def test_halves_that_change_places_are_not_turned():
    """Though the lengths of pairs of one dy remain, as do their angles."""

    def gated(x):
        gate, up = x[:, :4], x[:, 4:]
        s = 1 / (1 + np.exp(-gate))

        def pullback(dy):
            return np.concatenate([dy * gate * s, dy * up * s * (1 + gate * (1 - s))], 1)

        return gate * s * up, pullback

    def against(x):
        gate, up = x.chunk(2, -1)
        return torch.nn.functional.silu(gate) * up

    assert said(gated, against, ROWS).startswith("misplaced: ")


def test_signs_that_are_lost_turn_nothing():
    def product(x):
        others = np.stack([x[:, 1], x[:, 0]], 1)
        return x[:, 0] * x[:, 1], lambda dy: dy[:, None] * abs(others)

    assert said(product, lambda x: x[:, 0] * x[:, 1], ROWS[:, :2]).startswith("sign: ")
