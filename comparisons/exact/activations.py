import mpmath
import numpy as np

from ...manual.activations import SELU_ALPHA, SELU_SCALE
from .numbers import exp, expm1, log, ncdf
from .numbers import tanh as _tanh


def sigmoid(x):
    return 1 / (1 + exp(-x))


def tanh(x):
    return _tanh(x)


def relu(x):
    return np.where(x > 0, x, 0 * x)


def hardtanh(x, min_val=-1.0, max_val=1.0):
    return np.where(x < min_val, mpmath.mpf(min_val), np.where(x > max_val, mpmath.mpf(max_val), x))


def relu6(x):
    return hardtanh(x, 0, 6)


def leaky_relu(x, negative_slope=0.01):
    return np.where(x > 0, x, mpmath.mpf(negative_slope) * x)


def prelu(x, weight):
    w = weight.reshape(-1, *[1] * (x.ndim - 2)) if weight.size > 1 else weight.reshape(())
    return np.where(x > 0, x, w * x)


def rrelu(x, lower=1.0 / 8, upper=1.0 / 3, training=False, *, noise=None):
    return np.where(x > 0, x, noise * x) if training else leaky_relu(x, (lower + upper) / 2)


def threshold(x, threshold, value):
    return np.where(x > threshold, x, mpmath.mpf(value))


def hardshrink(x, lambd=0.5):
    return np.where(abs(x) > lambd, x, 0 * x)


def softshrink(x, lambd=0.5):
    return np.where(x > lambd, x - lambd, np.where(x < -lambd, x + lambd, 0 * x))


def tanhshrink(x):
    return x - _tanh(x)


def elu(x, alpha=1.0):
    return np.where(x > 0, x, mpmath.mpf(alpha) * expm1(np.where(x > 0, 0 * x, x)))


def selu(x):
    return mpmath.mpf(SELU_SCALE) * elu(x, SELU_ALPHA)


def celu(x, alpha=1.0):
    below = np.where(x > 0, 0 * x, x) / mpmath.mpf(alpha)
    return np.where(x > 0, x, mpmath.mpf(alpha) * expm1(below))


def gelu(x, approximate="none"):
    if approximate == "none":
        return x * ncdf(x)
    v = mpmath.sqrt(8 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3)
    return x * sigmoid(v)


def silu(x):
    return x * sigmoid(x)


def mish(x):
    return x * _tanh(log(1 + exp(x)))


def softplus(x, beta=1, threshold=20):
    v = mpmath.mpf(beta) * x
    return np.where(v > threshold, x, log(1 + exp(v)) / mpmath.mpf(beta))


def logsigmoid(x):
    return -log(1 + exp(-x))


def softsign(x):
    return x / (1 + abs(x))


def hardsigmoid(x):
    return hardtanh(x + 3, 0, 6) / 6


def hardswish(x):
    return x * hardsigmoid(x)


def glu(x, dim=-1):
    a, b = np.split(x, 2, dim)
    return a * sigmoid(b)


def softmax(x, dim=None, *, dtype=None):
    z = exp(x)
    if x.ndim == 0:
        return z / z
    dim = (0 if x.ndim in (1, 3) else 1) if dim is None else dim
    return z / z.sum(axis=dim, keepdims=True)


def log_softmax(x, dim=None, *, dtype=None):
    return log(softmax(x, dim))


def softmin(x, dim=None, *, dtype=None):
    return softmax(np.asarray(-x), dim)


def gumbel_softmax(logits, tau=1, hard=False, *, dim=-1, noise=None):
    return softmax(np.asarray((logits + noise) / mpmath.mpf(tau)), dim)
