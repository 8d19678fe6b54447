"""Gradients as others write them: with a cache, as layers that hold their parameters, beside a
loss. The right ones pass, and a planted mistake is caught."""

import re

import numpy as np
import pytest
import torch
from gradtwin.comparisons.cli.app import app
from typer.testing import CliRunner

from gradtwin import check, functional

F = torch.nn.functional
rng = np.random.default_rng(5)
X, W, B = rng.standard_normal((3, 4)), rng.standard_normal((4, 5)), rng.standard_normal(5)
CLASSES = np.array([0, 2, 1])


def affine(x, w, b):
    return x @ w + b


# Forward and backward with a cache: k is 1 where they are right --------------------------------


def affine_forward(x, w, b):
    return x.reshape(len(x), -1) @ w + b, (x, w, b)


def gradients(dout, cache, k):
    x, w, _ = cache
    return (dout @ w.T).reshape(x.shape), k * x.reshape(len(x), -1).T @ dout, dout.sum(0)


def named_dout(k):
    return affine_forward, lambda dout, cache: gradients(dout, cache, k)


def named_cache(k):
    return affine_forward, lambda cache, dout: gradients(dout, cache, k)


def named_nothing(k):
    return affine_forward, lambda above, below: gradients(above, below, k)


# Layers that hold their parameters -------------------------------------------------------------


class Affine:
    """A textbook's: the gradients of one backward are attributes."""

    places = {"W": "dW", "b": "db"}  # noqa: RUF012

    def __init__(self, k=1):
        self.k, self.W, self.b, self.dW, self.db = k, W, B, None, None

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        self.dW, self.db = self.k * self.x.T @ dout, dout.sum(0)
        return dout @ self.W.T


class Accumulating(Affine):
    """Another's: in lists, into which every backward adds, beginning where one is in training."""

    places = {"params.0": "grads.0", "params.1": "grads.1"}  # noqa: RUF012

    def __init__(self, k=1):
        self.k, self.params, self.grads = k, [W, B], [np.ones_like(W), np.ones_like(B)]

    def forward(self, x, train=True):
        self.x = x
        return x @ self.params[0] + self.params[1] if train else x

    def backward(self, dout):
        self.grads[0] += self.k * self.x.T @ dout
        self.grads[1] += dout.sum(0)
        return dout @ self.params[0].T


class InDicts(Affine):
    places = {"params.W": "grads.W", "params.b": "grads.b"}  # noqa: RUF012

    def __init__(self, k=1):
        self.k, self.params, self.grads = k, {"W": W, "b": B}, {}

    def forward(self, x):
        self.x = x
        return x @ self.params["W"] + self.params["b"]

    def backward(self, dout):
        self.grads = {"W": self.k * self.x.T @ dout, "b": dout.sum(0)}
        return dout @ self.params["W"].T


class Parameter:
    def __init__(self, data):
        self.data, self.grad = data, np.zeros_like(data)


class Called:
    """As of a small engine: it is called, and its parameters know their gradients."""

    places = {"weight.data": "weight.grad", "bias.data": "bias.grad"}  # noqa: RUF012

    def __init__(self, k=1):
        self.k, self.weight, self.bias = k, Parameter(W), Parameter(B)

    def __call__(self, x):
        self.x = x
        return x @ self.weight.data + self.bias.data

    def backward(self, dout):
        self.weight.grad = self.weight.grad + self.k * self.x.T @ dout
        self.bias.grad = self.bias.grad + dout.sum(0)
        return dout @ self.weight.data.T


class Lookup:
    """Its input is of whole numbers, for which backward returns nothing."""

    def __init__(self, k=1):
        self.k, self.W, self.dW = k, X, None

    def forward(self, i):
        self.i = i
        return self.W[i]

    def backward(self, dout):
        self.dW = np.zeros_like(self.W)
        np.add.at(self.dW, self.i, self.k * dout)


def layer(kind):
    return lambda k: functional(kind(k), kind.places)


# A number and its gradients --------------------------------------------------------------------


def loss_of_scores(k):
    def svm(x, y):
        rows = np.arange(len(x))
        margins = np.maximum(0, x - x[rows, y][:, None] + 1)
        margins[rows, y] = 0
        dx = (margins > 0).astype(x.dtype)
        dx[rows, y] = -k * dx.sum(1)
        return margins.sum() / len(x), dx / len(x)

    return svm


def regression(k):
    def loss(w, x, t):
        d = x @ w - t
        return (d * d).mean(), k * 2 * x.T @ d / d.size

    return loss


def in_a_dict(k):
    def loss(params, x):
        d = x @ params["W"] + params["b"]
        return (d * d).mean(), {"b": 2 * d.sum(0) / d.size, "W": k * 2 * x.T @ d / d.size}

    return loss


def torch_svm(x, y):
    return F.multi_margin_loss(x, y, reduction="sum") * x.shape[1] / x.shape[0]


STYLES = {
    "backward(dout, cache)": (named_dout, affine, [X, W, B]),
    "backward(cache, dout)": (named_cache, affine, [X, W, B]),
    "the order by what raises": (named_nothing, affine, [X, W, B]),
    "layer": (layer(Affine), affine, [X, W, B]),
    "layer that accumulates": (layer(Accumulating), affine, [X, W, B]),
    "layer with dicts": (layer(InDicts), affine, [X, W, B]),
    "layer that is called": (layer(Called), affine, [X, W, B]),
    "layer that is made": (
        lambda k: functional(lambda: Affine(k), Affine.places),
        affine,
        [X, W, B],
    ),
    "layer of whole numbers": (
        lambda k: functional(Lookup(k), {"W": "dW"}),
        lambda i, w: w[i],
        [CLASSES, X],
    ),
    "loss and gradient": (loss_of_scores, torch_svm, [X, CLASSES]),
    "loss of several": (
        regression,
        lambda w, x, t: ((x @ w - t) ** 2).mean(),
        [W, X, rng.standard_normal((3, 5))],
        "x, t",
    ),
    "loss and dict": (
        in_a_dict,
        lambda p, x: ((x @ p["W"] + p["b"]) ** 2).mean(),
        [{"W": W, "b": B}, X],
        "x",
    ),
}


@pytest.mark.thinned(2)
@pytest.mark.parametrize("style", STYLES)
def test_a_style_is_right_or_wrong(style):
    make, truth, arrays, *constant = STYLES[style]
    given = {"constant": "".join(constant), "quick": True, "dtypes": ["float64"]}
    check(make(1), truth, arrays, **given).raise_for_failure()
    found = check(make(2), truth, arrays, **given)
    assert not found.passed
    assert found.cause.name != "raises"


def test_a_module_is_a_function_of_its_parameters():
    module = torch.nn.Linear(4, 5)
    check(functional(module), F.linear, [X, W.T, B], quick=True).raise_for_failure()
    held = functional(module, ["bias"])
    weight = module.weight.detach().double()
    check(held, lambda x, b: F.linear(x, weight.to(x), b), [X, B], quick=True).raise_for_failure()


def test_a_layer_is_left_as_it_was():
    given = Accumulating()
    rule = functional(given, Accumulating.places)
    _, pullback = rule(X, 2 * W, B, train=True)
    first, second = pullback(X @ W), pullback(X @ W)
    assert all(map(np.array_equal, first, second))
    assert np.array_equal(given.grads[0], np.ones_like(W))
    assert given.params[0] is W


def test_the_arguments_of_a_layer_are_called_as_its_places():
    found = check(layer(Called)(2), affine, [X, W, B], quick=True)
    assert set(found.table["argument"]) == {"value", "x", "weight_data", "bias_data"}


# What is no subject says so in one line --------------------------------------------------------


class Silent(Affine):
    def backward(self, dout):
        return dout @ self.W.T


def too_few(x, w, b):
    return affine(x, w, b), lambda dy: (dy @ w.T, x.T @ dy)


def plain(x, w, b):
    return np.matmul(x, w) + b


def keeping(x, w, b):
    return np.matmul(x, w) + b, (x, w)


def turned_loss(x, w, b):
    return np.sum(x), np.ones_like(x).T


def nothing_back(x):
    return np.tanh(x), lambda dy: None


@pytest.mark.parametrize(
    ("subject", "says"),
    [
        (too_few, r"expected 3, one for each .*x, w, b.*got 2 gradients; constant= names"),
        (functional(Silent(), Affine.places), "expected the gradient of W in dW, got None"),
        ((affine_forward, lambda a, b: a @ b), r"expected .*\(saved, dy\) or \(dy, saved\), got"),
        ((affine, lambda dy, saved: dy), r"forward: expected \(y, saved\), got an array of shape"),
        (plain, r"expected \(y, pullback\), got an array .*; a forward alone has no backward"),
        (keeping, r"expected \(y, pullback\), got tuple .*checked as \(forward, backward\)"),
        (turned_loss, r"of \(loss, gradient, …\) each gradient has the shape of an"),
    ],
)
def test_what_came_and_what_was_expected_is_one_line(subject, says):
    arrays = [X, rng.standard_normal((4, 5)), B]
    found = check(subject, None, arrays, dtypes=["float64"], quick=True)
    assert not found.passed
    assert "\n" not in found.cause.text
    assert re.search(says, found.cause.text)


def test_a_backward_that_returns_none_has_no_gradient():
    found = check(nothing_back, torch.tanh, [X], quick=True)
    assert found.cause.name == "missing gradient"


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ((Affine(), {"V": "dV"}), ValueError, "expected places in Affine, got 'V'"),
        ((Affine(),), TypeError, "expected a mapping from the place .*, got None"),
        ((Affine(), ["W"]), TypeError, "expected a mapping from the place"),
        ((3, {"W": "dW"}), TypeError, "expected an object with forward and backward, .*got a"),
        ((dict, {"W": "dW"}), TypeError, "expected an object with forward and backward, got a"),
        ((Parameter, {"W": "dW"}), TypeError, "expected one, or what makes one, got .*missing"),
        ((torch.nn.Linear(2, 2), ["w"]), ValueError, "expected some of weight, bias, got w"),
        ((torch.nn.Linear(2, 2), {"w": "g"}), TypeError, "expected a list of names"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, says):
    with pytest.raises(error, match=says) as caught:
        functional(*arguments)
    assert "\n" not in str(caught.value)


FILE = """
import numpy as np
from gradtwin import functional

class Scale:
    def __init__(self):
        self.k, self.dk = np.ones(3), None

    def forward(self, x):
        self.x = x
        return self.k * x

    def backward(self, dy):
        self.dk = (dy * self.x).sum(0)
        return dy * self.k

scale = functional(Scale, {"k": "dk"})
"""


def test_a_layer_on_the_command_line(tmp_path):
    (tmp_path / "layers.py").write_text(FILE)
    subject = f"{tmp_path / 'layers.py'}:scale"
    done = CliRunner().invoke(app, ["check", subject, "--shape", "2,3", "--shape", "3", "--quick"])
    assert done.exit_code == 0, done.output
