"""Layers of Keras, on its backend torch, are subjects: by themselves, and with their weights."""

import numpy as np
import pytest
import torch

from gradtwin import check, functional

with pytest.MonkeyPatch.context() as patch:
    patch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras", reason="needs the extra gradtwin[keras]")
if keras.backend.backend() != "torch":
    pytest.skip(f"Keras runs on {keras.backend.backend()}", allow_module_level=True)

F = torch.nn.functional
rng = np.random.default_rng(0)
X, W, B, V, C = (rng.standard_normal(s) for s in ((3, 4), (4, 5), 5, (5, 2), 2))
FLOAT32 = {"dtypes": ["float32"], "quick": True}


def built(layer):
    layer.build((None, 4))
    return layer


def dense(x, w, b):
    return torch.tanh(x @ w + b)


def test_a_layer_is_a_function_of_its_weights():
    layer = functional(built(keras.layers.Dense(5, activation="tanh")))
    found = check(layer, dense, [X, W, B], **FLOAT32)
    found.raise_for_failure()
    assert set(found.table["argument"]) == {"value", "inputs", "kernel", "bias"}


def test_a_layer_has_weights_of_its_own():
    layer = built(keras.layers.Dense(5, activation="tanh", bias_initializer="ones"))
    kernel = layer.kernel.value.detach()
    one = torch.ones(5)
    check(layer, lambda x: dense(x, kernel.to(x), one.to(x)), [X], **FLOAT32).raise_for_failure()
    held = functional(layer, ["kernel"])
    truth = lambda x, w: dense(x, w, one.to(x))  # noqa: E731
    check(held, truth, [X, W], **FLOAT32).raise_for_failure()


def test_a_model_is_a_layer():
    layers = keras.layers
    model = keras.Sequential([layers.Input((4,)), layers.Dense(5, "relu"), layers.Dense(2)])
    truth = lambda x, w, b, v, c: F.relu(x @ w + b) @ v + c  # noqa: E731
    check(functional(model), truth, [X, W, B, V, C], **FLOAT32).raise_for_failure()


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, dy):
        return dy


class Wrong(keras.layers.Dense):
    def call(self, inputs):
        return Doubled.apply(super().call(inputs))


def test_a_mistake_in_a_layer_is_found():
    found = check(functional(built(Wrong(5))), lambda *a: 2 * dense_(*a), [X, W, B], **FLOAT32)
    assert not found.passed
    assert found.cause.name == "factor"


def dense_(x, w, b):
    return x @ w + b


def test_a_layer_knows_the_dtype_of_its_policy():
    found = check(functional(built(keras.layers.Dense(5))), dense_, [X, W, B], quick=True)
    assert found.cause.name == "precision"


def test_what_is_no_weight_is_named():
    layer = built(keras.layers.Dense(5))
    with pytest.raises(ValueError, match="expected some of kernel, bias, got w"):
        functional(layer, ["w"])
    with pytest.raises(ValueError, match="expected one that is built"):
        functional(keras.layers.Dense(5))
