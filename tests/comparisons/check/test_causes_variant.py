"""Another variant of the function, another count in each slice, a factor that is an array."""

import numpy as np
import pytest
import torch
from gradtwin.comparisons.check.causes import diagnose
from gradtwin.comparisons.check.traced import literals, traced, traced_both_ways
from gradtwin.reference.adapters import tensor

from .test_causes import S, V, X, name_of, ordinary

F = torch.nn.functional
ROWS = np.array([3.0, 1.0, 2.0])  # a count for each row


def of_torch(value, other):
    """A rule with torch's value of the one function, and the pullback of the other."""

    def rule(*arrays):
        def pullback(dy):
            given = [tensor(a).requires_grad_() for a in arrays]
            found = torch.autograd.grad(other(*given), given, tensor(dy))
            return tuple(g.numpy() for g in found) if len(found) > 1 else found[0].numpy()

        return value(*map(tensor, arrays)).numpy(), pullback

    return rule


def named(value, other, *arrays):
    def rule(x):
        return of_torch(value, other)(x)

    def both(x, z):
        return of_torch(value, other)(x, z)

    call = ordinary(rule if len(arrays) == 1 else both, value, list(arrays))
    return name_of(call), getattr(diagnose([call]), "text", "")


# Variants ---------------------------------------------------------------------------------------


def norm(x, eps=1e-2, squared=False):
    square = (x * x).mean(-1, keepdim=True)
    return x / (square if squared else torch.sqrt(square + eps))


def soft(x, beta=2.0, shift=0.25):
    return torch.log1p(torch.exp(beta * x)) / beta + shift * torch.tanh(x * shift)


SETTINGS = [
    (norm, {"eps": 1e-3}, "eps = 0.001 in the place of 0.01"),
    (norm, {"squared": True}, "squared = True in the place of False"),
    (soft, {"beta": 1.0}, "beta = 1 in the place of 2"),
    (soft, {"shift": 0.5}, "shift = 0.5 in the place of 0.25"),
    (F.gelu, {"approximate": "tanh"}, "approximate = 'tanh' in the place of 'none'"),
]


@pytest.mark.parametrize(("function", "settings", "text"), SETTINGS)
def test_another_setting(function, settings, text):
    found = named(function, lambda x: function(x, **settings), X)
    assert found == ("variant", f"the gradient of x is that with {text}")


def tanh_gelu(x, slope=0.044715):
    return 0.5 * x * (1 + torch.tanh(0.7978845608028654 * (x + slope * x**3)))


def standardised(x, eps=1e-3):
    centered = x - x.mean(-1, keepdim=True)
    return centered / torch.sqrt((centered**2).mean(-1, keepdim=True) + eps)


CONSTANTS = [
    (lambda x: tanh_gelu(x), lambda x: tanh_gelu(x, 0.44715), "0.44715 in the place of 0.044715"),
    (lambda x: standardised(x), lambda x: standardised(x, 1e-5), "1e-05 in the place of 0.001"),
]


@pytest.mark.thinned(2)
@pytest.mark.parametrize(("function", "other", "text"), CONSTANTS)
def test_another_constant(function, other, text):
    name, found = named(function, other, X)
    assert name == "variant"
    assert text in found
    assert "in the pullback alone" not in found


@pytest.mark.thinned(2)
@pytest.mark.parametrize("eps", [1e-2, 1e-3])
def test_another_constant_in_the_pullback_alone(eps):
    def rule(x):
        root = np.sqrt((x * x).mean(-1, keepdims=True) + eps)
        y = x / root

        def pullback(dy):
            wrong = np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)
            return (dy - y * (dy * y).mean(-1, keepdims=True)) / wrong

        return y, pullback

    call = ordinary(rule, lambda x: norm(x, eps), [X])
    assert name_of(call) == "variant"
    assert "in the pullback alone" in diagnose([call]).text


def hinge(x, margin=0.5):
    return torch.relu(margin - x) ** 2


def test_a_threshold_that_nothing_reaches_is_no_other_setting():
    assert named(hinge, lambda x: hinge(x, 1.0), X)[0] == "variant"

    def relu(x, margin=0.5):
        return torch.relu(margin - x)

    assert named(relu, lambda x: 0.5 - x, X)[0] != "variant"  # as with a margin of 5, or more


@pytest.mark.thinned(2)
@pytest.mark.parametrize("function", [norm, soft, tanh_gelu])
def test_what_no_constant_explains(function):
    """What is wrong by something else than a constant."""

    def other(x):
        return function(x) + 0.05 * torch.sin(3 * x) * x.flip(0)

    assert named(function, other, X)[0] != "variant"


# Counts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [torch.tanh, lambda x: x * x])
def test_another_count_in_each_row(function):
    counts = np.array([[1 / 2], [2 / 3], [3 / 4]])
    name, text = named(function, lambda x: function(x) * tensor(counts), X)
    assert name == "counts"
    assert "1/2, 2/3, 3/4 times as large in slices along axis 0" in text


@pytest.mark.parametrize("width", [2, 3])
def test_another_count_of_dy(width):
    """The mean of up to `width` values before each, divided by width at the edge as well."""
    band = np.tril(np.ones((4, 4))) - np.tril(np.ones((4, 4)), -width)
    count = band.sum(1)

    def mean(x):
        return x @ tensor((band / count[:, None]).T)

    name, _ = named(mean, lambda x: x @ tensor((band / width).T), X)
    assert name == "counts"


@pytest.mark.parametrize("ratios", [[0.51713, 0.6667321, 0.751337], [0.5, 0.6667321, 1.0]])
def test_ratios_of_no_counts(ratios):
    counts = np.array(ratios)[:, None]
    assert named(torch.tanh, lambda x: torch.tanh(x) * tensor(counts), X)[0] != "counts"


def test_elements_of_two_kinds_are_no_counts():
    kinds = np.array([2.0, 1.0, 2.0])
    assert named(torch.tanh, lambda x: torch.tanh(x) * tensor(kinds), ROWS / 4)[0] != "counts"


# Factors that are arrays ------------------------------------------------------------------------


@pytest.mark.parametrize("function", [torch.exp, torch.sigmoid])
def test_a_factor_on_the_way(function):
    """A product of an intermediate value with a function of the argument."""

    def value(x):
        return torch.sin(function(2 * x))

    def rule(x):
        given = tensor(x).requires_grad_()
        inner = function(2 * given).detach().numpy()

        def pullback(dy):
            (g,) = torch.autograd.grad(value(given), given, tensor(dy))
            return g.numpy() * inner

        return value(tensor(x)).numpy(), pullback

    call = ordinary(rule, value, [X])
    assert name_of(call) == "elementwise factor"
    assert "once more" in diagnose([call]).text


def test_a_factor_of_one_step():
    """Layer norm without its weight in the mean that is taken off."""

    def value(x, z):
        return standardised(x) * z

    def rule(x, z):
        centered = x - x.mean(-1, keepdims=True)
        std = np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-3)
        hat = centered / std

        def pullback(dy):
            g = dy  # times z
            dx = g - g.mean(-1, keepdims=True) - hat * (g * hat).mean(-1, keepdims=True)
            return dx / std, (dy * hat).sum(0)

        return hat * z, pullback

    call = ordinary(rule, value, [X, V])
    assert name_of(call) == "elementwise factor"
    assert "without the factor z" in diagnose([call]).text


def test_a_row_of_the_call():
    def value(x, z):
        return torch.tanh(x) * z[:, None]

    def rule(x, z):
        def pullback(dy):
            return dy * (1 - np.tanh(x) ** 2), (dy * np.tanh(x)).sum(1)

        return np.tanh(x) * z[:, None], pullback

    call = ordinary(rule, value, [X, ROWS])
    assert name_of(call) == "elementwise factor"


# The graph --------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [norm, soft, tanh_gelu, torch.relu])
def test_a_graph_both_ways_gives_the_same(function):
    inputs = ((X,), {}, np.cos(X))
    trace, both = traced(function, inputs, ["x"]), traced_both_ways(function, inputs, ["x"])
    np.testing.assert_allclose(both.gradients({})[0], trace.right[0], 1e-12)


def test_numbers_are_no_shapes_and_no_axes():
    def function(x):
        mask = torch.arange(4) >= 2
        return torch.where(mask, 3.5 * x.reshape(4, 4).sum(1, keepdim=True), x.reshape(4, 4))

    trace = traced(function, ((np.resize(S, 16),), {}, np.ones((4, 4))), ["x"])
    assert [number for _, number in literals(list(trace.graph.nodes))] == [3.5]
