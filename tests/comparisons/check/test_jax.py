"""Functions of JAX are subjects: right, or with another convention at a kink, beside torch's."""

import numpy as np
import pytest
import torch
from gradtwin.comparisons.check.adapt import subject_of
from gradtwin.comparisons.check.jax_subjects import is_array

from gradtwin import check, functional

jax = pytest.importorskip("jax", reason="needs the extra gradtwin[jax]")
jnp, lax, F = jax.numpy, jax.lax, torch.nn.functional
rng = np.random.default_rng(0)
X = rng.standard_normal((3, 4))
KINKS = np.array([-1.5, 0.0, -0.0, 2.0])
EDGES = np.array([-1.0, 1.0, 0.5, 3.0])


def normal(*shapes):
    return [rng.standard_normal(shape) for shape in shapes]


def rnn(x, h, w, u, b):
    def step(h, x):
        h = jnp.tanh(x @ w + h @ u + b)
        return h, h

    return lax.scan(step, h, x)[1]


def torch_rnn(x, h, w, u, b):
    states = []
    for part in x:
        h = torch.tanh(part @ w + h @ u + b)
        states.append(h)
    return torch.stack(states)


def layer_norm(x, w, b):
    d = x - x.mean(-1, keepdims=True)
    return d * lax.rsqrt((d * d).mean(-1, keepdims=True) + 1e-5) * w + b


def along(function, **settings):
    return lambda x: function(x, axis=-1, **settings)


def along_dim(function, **settings):
    return lambda x: function(x, dim=-1, **settings)


RIGHT = {
    "relu": (jax.nn.relu, F.relu, [KINKS]),
    "gelu": (jax.nn.gelu, lambda x: F.gelu(x, approximate="tanh"), [X]),
    "gelu by erf": (lambda x: jax.nn.gelu(x, approximate=False), F.gelu, [X]),
    "silu": (jax.nn.silu, F.silu, [X]),
    "elu": (jax.nn.elu, F.elu, [X]),
    "softplus": (jax.nn.softplus, F.softplus, [X]),
    "sigmoid": (jax.nn.sigmoid, torch.sigmoid, [X]),
    "relu6": (jax.nn.relu6, F.relu6, [X]),
    "softmax": (jax.nn.softmax, along_dim(torch.softmax), [X]),
    "log_softmax": (jax.nn.log_softmax, along_dim(torch.log_softmax), [X]),
    "logsumexp": (along(jax.nn.logsumexp), along_dim(torch.logsumexp), [X]),
    "maximum, ties in halves": (jnp.maximum, torch.maximum, [KINKS, KINKS.copy()]),
    "max": (along(jnp.max), along_dim(torch.amax), [X]),
    "sort": (jnp.sort, lambda x: torch.sort(x).values, [X]),
    "cumsum": (along(jnp.cumsum), along_dim(torch.cumsum), [X]),
    "norm": (along(jnp.linalg.norm), along_dim(torch.linalg.vector_norm), [X]),
    "std": (along(jnp.std, ddof=1), along_dim(torch.std), [X]),
    "conv": (lambda x, w: lax.conv(x, w, (1,), "VALID"), F.conv1d, normal((2, 3, 7), (4, 3, 3))),
    "rnn": (rnn, torch_rnn, normal((4, 2, 3), (2, 5), (3, 5), (5, 5), 5)),
    "layer norm": (
        layer_norm,
        lambda x, *p: F.layer_norm(x, x.shape[-1:], *p),
        normal((3, 4), 4, 4),
    ),
    "jit": (jax.jit(jnp.tanh), torch.tanh, [X]),
    "rows set": (lambda x: x.at[0].multiply(2.0), lambda x: torch.cat([2 * x[:1], x[1:]]), [X]),
}
# The slopes of JAX, and of torch: 1 or 0, 1 or α, 1 or 0, ½ or 0, NaN or 0.
OTHERWISE = {
    "abs at 0": (jnp.abs, torch.abs, [KINKS], "convention"),
    "leaky_relu at 0": (jax.nn.leaky_relu, F.leaky_relu, [KINKS], "convention"),
    "hard_tanh at ±1": (jax.nn.hard_tanh, F.hardtanh, [EDGES], "convention"),
    "clip at its edges": (
        lambda x: jnp.clip(x, -1.0, 1.0),
        torch.nn.Hardtanh(-1.0, 1.0),
        [EDGES],
        "convention",
    ),
    "norm at 0": (
        along(jnp.linalg.norm),
        torch.linalg.vector_norm,
        [np.zeros(3)],
        "different",
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_function_of_jax_is_right(name):
    subject, truth, arrays = RIGHT[name]
    found = check(subject, truth, arrays, quick=True)
    found.raise_for_failure()
    assert not {"convention", "different"} & set(found.table["class"])


@pytest.mark.parametrize("name", OTHERWISE)
def test_another_convention_is_told(name):
    subject, truth, arrays, kind = OTHERWISE[name]
    found = check(subject, truth, arrays, quick=True)
    assert not found.passed
    told = set(found.table["class"]) & {"convention", "different"}
    assert told == {kind}, found


def tanh(k):
    function = jax.custom_vjp(jnp.tanh)
    function.defvjp(lambda x: (jnp.tanh(x), x), lambda x, dy: (k * dy * (1 - jnp.tanh(x) ** 2),))
    return function


def rule(k):
    def over_jax(x):
        y = jnp.tanh(x)
        return y, lambda dy: k * dy * (1 - y * y)

    return over_jax


def pair(k):
    return lambda x: (jnp.tanh(x), x), lambda x, dy: k * dy * (1 - jnp.tanh(x) ** 2)


@pytest.mark.parametrize("make", [tanh, rule, pair])
@pytest.mark.parametrize("against", [torch.tanh, None], ids=["torch", "nothing"])
def test_what_is_written_for_jax_is_right_or_wrong(make, against):
    check(make(1), against, [X], quick=True).raise_for_failure()
    assert not check(make(1.001), against, [jnp.asarray(X)], quick=True).passed


def test_nothing_of_jax_is_tried_in_a_fork():
    """Its threads would not be there, and it would wait for them."""

    def of_numpy(x):
        y, pull = jax.vjp(jnp.tanh, x)
        return np.array(y), lambda dy: np.array(pull(jnp.asarray(dy))[0])

    for subject in (jnp.tanh, rule(1), pair(1), of_numpy):
        assert not subject_of(subject, [X], {}).forks
    assert subject_of(np.tanh, [X], {}).forks


def test_a_function_keeps_the_dtype_that_it_was_given():
    made = subject_of(lambda x: jnp.ones(4) * x, [X], {})
    for dtype in (np.float64, np.float32):
        y, pullback = made.run([X.astype(dtype)], {})
        assert y.dtype == pullback(y)[0].dtype == dtype
        assert not is_array(y)


def test_results_of_whole_numbers_are_beside_the_others():
    found = check(
        lambda x, i: (x[i], {"i": i}),
        lambda x, i: (x[i], i),
        [X, np.array([2, 0])],
        quick=True,
    )
    found.raise_for_failure()
    assert found.subject == "<lambda>"


def test_a_function_that_raises_says_what_jax_says():
    found = check(lambda x: jnp.reshape(x, (7,)), None, [X], quick=True)
    assert "reshape" in found.cause.text


def test_a_layer_over_jax_is_no_other():
    class Scale:
        def __init__(self):
            self.k = np.ones(4)

        def forward(self, x):
            self.x = x
            return jnp.multiply(x, self.k)

        def backward(self, dy):
            self.dk = (dy * self.x).sum(0)
            return dy * self.k

    check(functional(Scale, {"k": "dk"}), torch.multiply, [X, X[0]], quick=True).raise_for_failure()
