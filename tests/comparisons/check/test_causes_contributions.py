"""What each element of dy contributes, and what is added up: lost, counted once, beside dy."""

import numpy as np
import pytest
import torch
from gradtwin.comparisons.check.causes import contributions, diagnose
from gradtwin.comparisons.check.causes.case import Case

from .test_causes import ordinary

rng = np.random.default_rng(8)
X = rng.standard_normal(6)
ROWS = rng.standard_normal((4, 3))
SQUARE = rng.standard_normal((6, 6)) + 6 * np.eye(6)


def tried(value, pull, arrays):
    """A function with this pullback, which takes its arrays and dy."""

    def rule(*arrays):
        y = value(*map(torch.tensor, arrays)).numpy()
        return y, lambda dy: pull(*arrays, dy)

    return ordinary(rule, value, list(arrays))


def said(value, pull, *arrays):
    found = str(diagnose([tried(value, pull, arrays)]) or "")
    return found.replace("arg0", "x").replace("arg1", "b")


def one_by_one(value, pull, *arrays):
    """What is said where no other search is asked."""
    call = tried(value, pull, arrays)
    found = next(contributions.one_by_one(Case(call, call.findings)), "")
    return str(found).replace("arg0", "x")


def linear(matrix, taken, search=said):
    """Of x ↦ matrix x, where the contributions taken are others."""
    kernel = torch.tensor(matrix)
    return search(lambda x: kernel @ x, lambda x, dy: dy @ taken, X)


# One by one -------------------------------------------------------------------------------------

FROM, TO = [0, 2, 0, 3, 5, 2], [1, 0, 4, 4, 1, 3]


def edges(x):
    return 3 * (x[TO] - x[FROM])


def of_edges(x, dy, add):
    g, dx = 3 * dy, np.zeros_like(x)
    add(dx, TO, g)
    add(dx, FROM, -g)
    return dx


def once(dx, index, g):
    dx[index] += g


def test_indices_that_repeat():
    found = one_by_one(edges, lambda x, dy: of_edges(x, dy, once), X)
    assert found.startswith("overwritten: the gradient of x: at (0,) 1 of 3 contributions of")


def test_windows_of_which_all_write_zeros():
    def pull(x, dy):
        dx = np.zeros_like(x)
        best = np.lib.stride_tricks.sliding_window_view(x, 3).argmax(-1)
        for i in range(3):
            dx[i : i + 4] = np.where(best == i, dy, 0)
        return dx

    x = np.array([0.1, 0.7, 0.3, 0.2, 0.9, 0.4])
    found = said(lambda x: x.unfold(0, 3, 1).amax(-1), pull, x)
    assert found.startswith("overwritten: ")


def test_what_is_lost_in_no_order_is_not_overwritten():
    kept = (np.arange(6)[:, None] - np.arange(6)) % 3 != 1
    assert not linear(SQUARE, SQUARE * kept, one_by_one).startswith("overwritten")


def test_a_window_that_ends_too_early():
    def pull(x, dy):
        dx = np.zeros_like(x)
        for k in range(6):
            low = max(k - 2, 0)
            dx[low + (k > 1) : k + 1] += dy[k] / (k + 1 - low)
        return dx

    def value(x):
        return torch.stack([x[max(k - 2, 0) : k + 1].mean() for k in range(6)])

    found = one_by_one(value, pull, X)
    assert found.startswith("misplaced: the gradient of x: the first place of elements of dy")


def test_a_sign_in_one_place():
    def pull(a, dy):
        x, y, z = np.moveaxis(np.cross(ROWS, dy), -1, 0)
        x = x + 2 * ROWS[:, 2] * dy[:, 1]
        return np.stack([x, y, z], -1)

    other = torch.tensor(ROWS)
    assert one_by_one(lambda a: torch.linalg.cross(a, other), pull, ROWS + 1).startswith("sign: ")


def test_an_inverse_that_is_not_transposed():
    a = torch.tensor(SQUARE)
    found = one_by_one(
        lambda x: torch.linalg.solve(a, x), lambda x, dy: np.linalg.solve(SQUARE, dy), X
    )
    assert found.startswith("transpose: ")


def test_what_contributes_too_much():
    lower = np.linalg.inv(np.tril(SQUARE))
    more = np.linalg.inv(SQUARE)
    assert linear(lower, lower + np.triu(more, 1), one_by_one).startswith("extra term: ")


def test_an_offset_along_two_axes():
    w = rng.standard_normal((3, 3))
    kernel = torch.tensor(w)[None, None]

    def pull(x, dy):
        padded = np.zeros((x.shape[0] + 2, x.shape[1] + 2))
        for i, j in np.ndindex(3, 3):
            padded[i : i + x.shape[0], j : j + x.shape[1]] += w[i, j] * dy
        return padded[: x.shape[0], : x.shape[1]]

    def value(x):
        return torch.nn.functional.conv2d(x[None, None], kernel, padding=1)[0, 0]

    assert one_by_one(value, pull, rng.standard_normal((4, 5))).startswith("misplaced: ")


# Beside dy --------------------------------------------------------------------------------------

TURNED = np.linalg.qr(SQUARE)[0]


@pytest.mark.parametrize(
    ("cause", "taken"),
    [
        ("missing term", TURNED - np.eye(6)),
        ("extra term", TURNED + np.eye(6)),
        ("sign", 2 * np.eye(6) - TURNED),
    ],
)
def test_what_is_beside_dy(cause, taken):
    assert linear(TURNED, taken).startswith(f"{cause}: the gradient of x is ")


def test_dy_alone():
    def value(x):
        return x * (1 - 0.03 * 0.97)

    assert said(value, lambda x, dy: dy.copy(), X).startswith(
        "missing term: the gradient of x is dy"
    )
    assert said(lambda x: x * 2, lambda x, dy: dy.copy(), X).startswith("factor: ")


# What is added up -------------------------------------------------------------------------------


def test_the_last_at_each_index_on_the_way():
    def pull(x, dy):
        h = np.tanh(x[FROM])
        dx = np.zeros_like(x)
        dx[FROM] += 2 * dy * h * (1 - h * h)
        return dx

    for take in (lambda x: x[FROM], lambda x: torch.gather(x, 0, torch.tensor(FROM))):
        found = said(lambda x, take=take: (take(x).tanh() ** 2).sum(), pull, X)
        assert found.startswith("overwritten: the gradient of x is that of the last alone")


def test_what_is_counted_once():
    """A hinge against each other class, of which the own one's share counts as many."""
    own = np.array([0, 2, 1, 1])
    at = np.arange(4), own

    def margins(x):
        return (x - x[at][:, None] + 1).clamp(min=0) * torch.tensor(np.arange(3) != own[:, None])

    def pull(x, dy):
        hit = ((x - x[at][:, None] + 1 > 0) & (np.arange(3) != own[:, None])).astype(float)
        hit[at] -= 1
        return dy * hit

    found = said(lambda x: margins(x).sum(), pull, np.array(ROWS))
    assert found.startswith("counts: ")


def test_a_target_at_another_place():
    """Its index within a block of classes, in the place of that among all."""
    w, target = rng.standard_normal((3, 6)), np.array([1, 4, 2, 5])
    kernel, labels = torch.tensor(w), torch.tensor(target)

    def pull(x, dy):
        p = np.exp(x @ w)
        p /= p.sum(1, keepdims=True)
        for k, t in enumerate(target):
            p[k, t % 3] -= 1
        return dy * p @ w.T / 4

    def value(x):
        return torch.nn.functional.cross_entropy(x @ kernel, labels)

    found = said(value, pull, ROWS)
    assert found.endswith("that with the target's part of some rows at another place")


def test_one_of_two_parts_in_the_place_of_both():
    other = torch.tensor(ROWS)

    def value(x):
        s = x @ other.T
        return -(s.log_softmax(0).diagonal() + s.log_softmax(1).diagonal()).mean() / 2

    def pull(x, dy):
        p = np.exp(x @ ROWS.T)
        return dy * (p / p.sum(1, keepdims=True) - np.eye(4)) @ ROWS / 4

    assert said(value, pull, ROWS + 0.3).startswith("missing term: the gradient of x is twice")


@pytest.mark.parametrize(("kept", "cause"), [(slice(6), "misplaced"), (slice(6, 8), "overwritten")])
def test_a_block_that_is_forgotten_is_not_overwritten(kept, cause):
    w = rng.standard_normal((3, 8))
    kernel = torch.tensor(w)

    def pull(x, dy):
        return dy * np.sinh(x @ w)[:, kept] @ w[:, kept].T

    assert said(lambda x: (x @ kernel).cosh().sum(), pull, ROWS).startswith(f"{cause}: ")


def test_a_group_of_which_the_last_is_left():
    of = np.array([0, 1, 0, 1, 1, 0])
    group = torch.tensor(of == np.arange(2)[:, None])

    def value(x):
        return (torch.softmax(x.masked_fill(~group, -torch.inf), 1)).sum(0) ** 2

    def pull(x, dy):
        p = np.exp(x) / np.bincount(of, np.exp(x))[of]
        g = dy * 2 * p
        inner = np.zeros(2)
        inner[of] += p * g
        return p * (g - inner[of])

    assert said(value, pull, X).startswith("overwritten: ")


def test_one_of_several_results():
    def value(x):
        return torch.stack([x - 0.1 * x.sin(), x.sin()])

    def pull(x, dy):
        return dy[0] * (1 - 0.1 * np.cos(x))

    assert said(value, pull, X).startswith("missing term: ")


@pytest.mark.parametrize(("axis", "cause"), [(0, "factor"), (1, "broadcast")])
def test_a_mean_over_rows_or_over_an_axis_that_was_broadcast(axis, cause):
    def pull(x, b, dy):
        return dy, dy.mean(axis, keepdims=bool(axis))

    b = rng.standard_normal((5, 1) if axis else 3)
    found = said(torch.add, pull, rng.standard_normal((5, 3)), b)
    assert found.startswith(f"{cause}: the gradient of b is averaged over what it was broadcast to")


@pytest.mark.parametrize(
    ("shape", "cause"), [((2, 3, 4), "transpose"), ((2, 1, 3, 4), "misplaced")]
)
def test_matrices_are_transposed_and_maps_misplaced(shape, cause):
    found = said(
        lambda x: x + 1, lambda x, dy: dy.swapaxes(-1, -2).reshape(x.shape), rng.random(shape)
    )
    assert found.startswith(f"{cause}: the gradient of x is that with its axes as ")
