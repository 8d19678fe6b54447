"""The right numbers in the wrong place, places that are left out, and what was overwritten."""

import numpy as np
import pytest
import torch
from gradtwin.comparisons.check.causes import diagnose

from .test_causes import ordinary

rng = np.random.default_rng(1)
X = rng.standard_normal((3, 8))
LONG = rng.standard_normal((4, 11))
HEADS = rng.standard_normal((2, 3, 8))


def rule(value, pull):
    def f(x):
        return value(torch.tensor(x)).numpy(), lambda dy: pull(x, dy)

    return f


def said(value, pull, x, **more):
    """What is said of a function of x with this pullback; "" for nothing."""
    return str(diagnose([ordinary(rule(value, pull), value, [x], **more)]) or "")


def tanh(x, dy):
    return dy * (1 - np.tanh(x) ** 2)


def softmax(x, dy):
    y = torch.softmax(torch.tensor(x), -1).numpy()
    return y * (dy - (dy * y).sum(-1, keepdims=True))


FUNCTIONS = [
    pytest.param(torch.tanh, tanh, id="tanh"),
    pytest.param(lambda x: torch.softmax(x, -1), softmax, id="softmax"),
]


def moved(a):
    return np.concatenate([np.zeros_like(a[..., :1]), a[..., :-1]], -1)


def interleaved(a):
    first, second = np.split(a, 2, -1)
    return np.stack([first, second], -1).reshape(a.shape)


ORDERS = [
    (lambda g: np.roll(g, 1, 0), "that shifted by 1 along axis 0, wrapped round"),
    (lambda g: np.roll(g, -3, -1), "that shifted by -3 along axis 1, wrapped round"),
    (moved, "that shifted by 1 along axis 1"),
    (lambda g: np.roll(g, 4, -1), "that with its halves along axis 1 exchanged"),
    (interleaved, "that with its halves along axis 1 interleaved"),
    (
        lambda g: np.concatenate([g[..., ::2], g[..., 1::2]], -1),
        "that with even and odd elements along axis 1 one after another",
    ),
    (
        lambda g: g[..., [0, 1, 4, 5, 2, 3, 6, 7]],
        "that with its quarters along axis 1 as (0, 2, 1, 3)",
    ),
    (lambda g: g[[1, 2, 0]][:, [3, 1, 2, 0, 7, 5, 4, 6]], "the right one in another order"),
]


@pytest.mark.parametrize(("value", "pull"), FUNCTIONS)
@pytest.mark.parametrize(("order", "text"), ORDERS)
def test_the_right_numbers_in_another_order(value, pull, order, text):
    assert said(value, lambda x, dy: order(pull(x, dy)), X).startswith(
        f"misplaced: the gradient of x is {text}"
    )


@pytest.mark.parametrize(("value", "pull"), FUNCTIONS)
def test_a_reshape_where_a_transpose_was_needed(value, pull):
    def heads(g):  # (2, 3, 2, 4) is what it should be read as, then transposed
        return g.reshape(2, 3, 2, 4).transpose(0, 2, 1, 3).reshape(g.shape)

    found = said(value, lambda x, dy: heads(pull(x, dy)), HEADS)
    assert found.startswith("misplaced: the gradient of x is that read as 2×3×2×4")
    found = said(value, lambda x, dy: pull(x, heads(dy)), HEADS)
    assert found.startswith("misplaced: the gradient of x is that of dy read as 2×3×2×4")


@pytest.mark.parametrize(("value", "pull"), FUNCTIONS)
def test_what_is_turned_or_transposed_has_that_name(value, pull):
    square = X[:, :3]
    assert said(value, lambda x, dy: pull(x, dy)[:, ::-1], X).startswith("misplaced")
    assert said(value, lambda x, dy: pull(x, dy).T, square).startswith("transpose")


@pytest.mark.parametrize(("value", "pull"), FUNCTIONS)
@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda a: np.roll(a, 1, -1), "shifted by 1 along axis 1, wrapped round"),
        (moved, "shifted by 1 along axis 1"),
        (lambda a: np.roll(a, 4, -1), "with its halves along axis 1 exchanged"),
    ],
)
def test_another_order_of_dy_or_of_the_argument(value, pull, change, text):
    of_dy = said(value, lambda x, dy: pull(x, change(dy)), X)
    assert of_dy == f"misplaced: the gradient of x is that of dy {text}"
    at_x = said(value, lambda x, dy: pull(change(x), dy), X)
    assert at_x == f"misplaced: the gradient of x is that at x {text}"


def zero(where):
    def change(g):
        g = g.copy()
        g[where] = 0
        return g

    return change


PLACES = [
    ((slice(None), slice(8, None)), "from index 8 of 11 on along axis 1"),
    ((slice(None), 10), "at index 10 of 11 along axis 1"),
    ((slice(None), slice(4, 8)), "from index 4 to 7 of 11 along axis 1"),
    ((slice(2),), "up to index 1 of 4 along axis 0"),
    ((slice(None), slice(1, None, 3)), "at every index 1 + 3·i along axis 1"),
]


@pytest.mark.parametrize(("value", "pull"), FUNCTIONS)
@pytest.mark.parametrize(("where", "text"), PLACES)
def test_what_is_left_out(value, pull, where, text):
    found = said(value, lambda x, dy: zero(where)(pull(x, dy)), LONG)
    assert found == f"misplaced: the gradient of x is left out {text}"


def test_the_last_rows_of_two_axes_taken_together():
    rows = rng.standard_normal((2, 5, 3))

    def blocks(x, dy):
        return zero(slice(8, None))(tanh(x, dy).reshape(10, 3)).reshape(x.shape)

    found = said(torch.tanh, blocks, rows)
    assert found.endswith("left out from index 8 of 10 on along axes 0 to 1 taken together")


@pytest.mark.parametrize("length", [13, 18, 7])
def test_the_last_block_of_other_lengths(length):
    def blocks(x, dy):
        full = (x.shape[1] - 1) // 4 * 4
        return zero((slice(None), slice(full, None)))(tanh(x, dy))

    call = ordinary(rule(torch.tanh, blocks), torch.tanh, [LONG])
    call.found("longer", {"ordinary"}, [rng.standard_normal((2, length))])
    assert "left out from index 8 of 11 on along axis 1" in str(diagnose([call]))


@pytest.mark.parametrize(("value", "pull"), FUNCTIONS)
def test_what_is_wrong_only_in_a_place(value, pull):
    def change(x, dy):
        g = pull(x, dy)
        g[:, 8:] += np.cos(3 * x[:, 8:]) * dy[:, 8:] * g[:, :3]
        return g

    found = said(value, lambda x, dy: change(x, dy), LONG)
    # That this is not linear in dy is seen first.
    assert found.startswith("cotangent")

    def linear(x, dy):
        g = pull(x, dy)
        g[:, 8:] += np.cos(3 * x[:, 8:]) * dy[:, :3]
        return g

    # A place is no cause; that something contributes where nothing should is.
    assert said(value, linear, LONG).startswith("extra term" if value is torch.tanh else "")


def test_a_place_is_not_said_where_a_value_tells_it():
    ordered = np.sort(X, 1)  # at the caller's own point both tell it

    def beyond(x, dy):
        g = tanh(x, dy)
        return np.where(x > 0.5, g + np.sin(9 * x) * dy, g)

    assert said(torch.tanh, beyond, ordered).startswith("range: ")
    assert said(torch.tanh, lambda x, dy: np.where(x > 0.5, 0, tanh(x, dy)), ordered).startswith(
        "range: "
    )


def test_no_place_where_all_else_is_zero_anyway():
    def value(x):
        return torch.cat([torch.tanh(x[:, :3]), torch.ones_like(x[:, 3:])], 1)

    def pull(x, dy):
        g = zero((slice(None), slice(3, None)))(tanh(x, dy))
        g[:, :3] += np.cos(9 * x[:, :3]) * dy[:, :3]
        return g

    assert not said(value, pull, X).startswith("misplaced")


def test_a_wrong_formula_is_not_misplaced():
    def other(x, dy):
        return tanh(x, dy) + 0.3 * np.sin(5 * x) * dy

    assert said(torch.tanh, other, X) == ""


def test_a_wrong_formula_of_one_gate_is_not_misplaced():
    def swiglu(x):
        gate, up = x.chunk(2, -1)
        return torch.nn.functional.silu(gate) * up

    def pull(x, dy):
        gate, up = np.split(x, 2, -1)
        sigmoid = 1 / (1 + np.exp(-gate))
        wrong = dy * up * (sigmoid + np.sin(5 * gate))
        return np.concatenate([wrong, dy * gate * sigmoid], -1)

    assert said(swiglu, pull, X) == ""


# What was overwritten ---------------------------------------------------------------------------


def windows(x):
    return torch.cos(x).unfold(-1, 3, 1)


def products(x):
    return x @ torch.tensor(W)


W = rng.standard_normal((6, 8))


@pytest.mark.parametrize("keep", ["first", "last"])
def test_windows_that_overwrite_one_another(keep):
    def pull(x, dy):
        g = np.zeros_like(x)
        for k in range(dy.shape[1])[:: 1 if keep == "last" else -1]:
            g[:, k : k + 3] = dy[:, k]
        return -np.sin(x) * g

    found = said(windows, pull, X)
    assert found.startswith(f"overwritten: the gradient of x is the {keep} of the contributions")


@pytest.mark.parametrize("keep", ["first", "last"])
def test_blocks_that_overwrite_one_another(keep):
    def pull(x, dy):
        g = np.zeros_like(x)
        for k in range(0, dy.shape[1], 2)[:: 1 if keep == "last" else -1]:
            part = np.zeros_like(x)
            for j in range(k, min(k + 2, dy.shape[1])):
                part[:, j : j + 3] += dy[:, j]
            g[:, k : k + 4] = part[:, k : k + 4]
        return -np.sin(x) * g

    text = f"the {keep} of the contributions of 2 slices of dy each"
    assert text in said(windows, pull, X)


@pytest.mark.parametrize("count", [1, 3])
def test_the_last_block_of_rows_alone(count):
    def pull(x, dy):
        return dy[:, -count:] @ W.T[-count:]

    found = said(products, pull, X[:, :6])
    assert found.startswith("overwritten: the gradient of x is that of the last ")


def test_the_mean_in_the_place_of_the_sum():
    rows = [0, 1, 0, 2, 2, 2]

    def pull(of):
        return lambda x, dy: np.stack([of(dy[[r == k for r in rows]]) for k in range(3)])

    def taken(x):
        return x[rows]

    assert "the mean of the contributions" in said(taken, pull(lambda d: d.mean(0)), X)
    # A maximum is not linear in dy, which is seen first.
    assert said(taken, pull(lambda d: d.max(0)), X).startswith("cotangent")


def test_a_block_of_dy_that_is_forgotten():
    def pull(x, dy):
        return dy[:, :5] @ W.T[:5]

    found = said(products, pull, X[:, :6])
    assert found.endswith("that without the last 3 slices of dy along axis 1")


def test_the_own_part_of_dy_is_not_overwritten():
    """The share of the other part of y is forgotten."""

    def both(a, b):
        norm = torch.sqrt((a * a).sum() + (b * b).sum())
        return torch.cat([a / norm, b / norm])

    def rule_of_both(a, b):
        y = both(torch.tensor(a), torch.tensor(b)).numpy()

        def pullback(dy):
            at = [torch.tensor(v, requires_grad=True) for v in (a, b)]
            part = torch.tensor(np.where(np.arange(len(dy)) < len(a), 0, dy))
            whole = torch.autograd.grad(both(*at), at, torch.tensor(dy), retain_graph=True)
            own = torch.autograd.grad(both(*at), at, part)
            return whole[0].numpy(), own[1].numpy()

        return y, pullback

    found = diagnose([ordinary(rule_of_both, both, [X[0], X[1, :4]])])
    assert found is None or found.name != "overwritten"
