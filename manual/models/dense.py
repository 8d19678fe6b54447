"""Models of linear layers, and the gradient of their loss as a rule, for products with the Hessian.

All of them take arrays in float16, float32 or float64 of one dtype. They raise TypeError for
anything else, ValueError for entries, shapes and settings that do not fit; the message names the
argument.
"""

from functools import partial

import numpy as np

from .. import activations, losses, second_order
from ..activations import SELU_ALPHA, SELU_SCALE
from ..arguments import array, floating, mapping, one_of
from ..arrays import pairwise_sum
from ..linear import linear
from ..names import unknown
from ..trees import leaves


def linear_regression(parameters, x):
    """x Wᵀ + b, with the parameters of torch.nn.Linear: weight (out, in) and bias (out); x (N, in)
    → (N, out). Raises ValueError for parameters with other entries."""
    (layer,) = _layers(parameters, {"weight", "bias"})
    y, pull_linear = linear(x, *layer)

    def pullback(dy):
        dx, dweight, dbias = pull_linear(dy)
        return {"weight": dweight, "bias": dbias}, dx

    return y, pullback


def logistic_regression(parameters, x):
    """p = σ(x Wᵀ + b), the probability of class 1; parameters, shapes and errors as in
    `linear_regression`.

    The slope of σ is taken as p (1 − p), of the same rounded p that a cross entropy divides by: so
    the digits that 1 − p has lost cancel, where those of σ(z) σ(−z) would not.

    Cox, 1958, "The Regression Analysis of Binary Sequences"
    """
    z, pull_linear = linear_regression(parameters, x)
    p, _ = activations.sigmoid(z)

    def pullback(dp):
        return pull_linear(dp * (p * (1 - p)))

    return p, pullback


def mlp(parameters, x, activation="relu"):
    """Linear layers with an activation between them, named as torch.nn.Sequential names them:
    0.weight, 0.bias, 2.weight, …

    x (N, in) → (N, out). `activation` is the name of a rule in `activations`. Raises ValueError for
    one that is not there and for parameters with other entries, TypeError for one that is no
    string.

    Rumelhart, Hinton & Williams, 1986, "Learning representations by back-propagating errors"
    """
    _check_activation(activation)
    names, layers = _mlp_layers(parameters)
    pulls = []
    for name, layer in zip(names, layers, strict=True):
        x, pull = _dense(x, *layer, "" if name == names[-1] else activation)
        pulls.append(pull)

    def pullback(dy):
        dparameters = {}
        for name, pull in zip(reversed(names), reversed(pulls), strict=True):
            dy, dparameters[f"{name}.weight"], dparameters[f"{name}.bias"] = pull(dy)
        return {name: dparameters[name] for name in parameters}, dy

    return x, pullback


def loss_gradient(parameters, x, target, model, loss, activation="relu"):
    """The gradients of L = loss(model(parameters, x), target), a mean, in the parameters, in their
    order. Pulled back, a direction v gives the Hessian's product with it, and mixed derivatives:
    those of x, and of a floating target.

    x is (N, in); model, loss and activation are names. The gradient is what a forward pass and a
    backward pass compute. So v goes upside down through the backward pass, from the first layer to
    the last, and then through the forward pass, from the last to the first, with what the former
    left at each layer's arguments: "double backward".

    Raises ValueError for an x that is no matrix, for other parameters and for classes below 0.

    Pearlmutter, 1994, "Fast Exact Multiplication by the Hessian"
    """
    x = floating(x=x)
    if x.ndim != 2:
        raise ValueError(f"x: expected (N, in), got shape {x.shape}")
    a, forward, backward, gradient = x, [], [], {}
    for prefix, name in _composed(model, parameters, activation):
        arguments = a, parameters[f"{prefix}weight"], parameters[f"{prefix}bias"], name
        a, pull = _dense(*arguments)
        forward.append((f"{prefix}weight", f"{prefix}bias", arguments, pull))
    da, pull_loss = _loss_backward(loss, a, target)
    for weight, bias, arguments, _ in reversed(forward):
        (da, gradient[weight], gradient[bias]), pull = _dense_backward(da, *arguments)
        backward.append(pull)

    def pullback(dy):
        v = dict(zip(parameters, dy, strict=True))
        up, left, found = np.zeros_like(x), [], {}
        for (weight, bias, *_), pull in zip(forward, reversed(backward), strict=True):
            up, *rest = pull(up, v[weight], v[bias])
            left.append(rest)
        down, *dtarget = pull_loss(up)
        for (weight, bias, _, pull), rest in zip(reversed(forward), reversed(left), strict=True):
            both = zip(pull(down), rest, strict=True)
            down, found[weight], found[bias] = (through + at for through, at in both)
        return {name: found[name] for name in parameters}, down, *dtarget

    return tuple(gradient[name] for name in parameters), pullback


def _composed(model, parameters, activation):
    """The layers of a model: what the names of their parameters begin with, and their activation,
    "" for none."""
    one_of(("linear_regression", "logistic_regression", "mlp"), model=model)
    if model != "mlp":
        _layers(parameters, {"weight", "bias"})
        return [("", "sigmoid" if model == "logistic_regression" else "")]
    one_of(_BACKWARD, activation=activation)
    names, _ = _mlp_layers(parameters)
    return [(f"{name}.", "" if name == names[-1] else activation) for name in names]


def _dense(h, weight, bias, activation):
    """A layer as a rule of its first three arguments."""
    z, pull_linear = linear(h, weight, bias)
    a, pull_activation = _applied(activation, z)

    def pullback(da):
        return pull_linear(pull_activation(da))

    return a, pullback


def _dense_backward(da, h, weight, bias, activation):
    """The backward pass of a layer, (dh, dweight, dbias), as a rule of da and the layer's
    arguments.

    With the slopes (p, q, r), dz = da f′(z) has p Wᵀ + h qᵀ + r, h has dz q, and the weight dzᵀ p.
    """
    z, pull_linear = linear(h, weight, bias)
    a, pull_activation = _applied(activation, z)
    seen = a if activation in _OF_OUTPUT else z
    dz, pull_dz = _BACKWARD[activation](da, seen) if activation else (da, None)
    y = dz @ weight, dz.T @ h, pairwise_sum(dz, (0,))

    def pullback(p, q, r):
        ddz = p @ weight.T + h @ q.T + r
        dh, dweight = dz @ q, dz.T @ p
        if not activation:
            return ddz, dh, dweight, 0
        dda, at_seen = pull_dz(ddz)
        at_z = pull_activation(at_seen) if activation in _OF_OUTPUT else at_seen
        through_h, through_weight, dbias = pull_linear(at_z)
        return dda, dh + through_h, dweight + through_weight, dbias

    return y, pullback


def _applied(activation, z):
    return getattr(activations, activation)(z) if activation else (z, np.positive)


def _elu_backward(da, z, alpha=1.0, scale=1.0):
    return second_order.elu_backward(da, alpha, scale, 1, False, z)


# Their backward passes see the output, all others the input.
_OF_OUTPUT = ("sigmoid", "tanh")
_BACKWARD = {
    "sigmoid": second_order.sigmoid_backward,
    "tanh": second_order.tanh_backward,
    "relu": partial(second_order.threshold_backward, threshold=0),
    "relu6": partial(second_order.hardtanh_backward, min_val=0, max_val=6),
    "leaky_relu": partial(
        second_order.leaky_relu_backward, negative_slope=0.01, self_is_result=False
    ),
    "elu": _elu_backward,
    "selu": partial(_elu_backward, alpha=SELU_ALPHA, scale=SELU_SCALE),
    "gelu": second_order.gelu_backward,
    "silu": second_order.silu_backward,
    "mish": second_order.mish_backward,
    "softplus": partial(second_order.softplus_backward, beta=1, threshold=20),
    "hardswish": second_order.hardswish_backward,
}


def _loss_backward(loss, y, target):
    """The slope of a loss in y, as a rule of y and of a floating target."""
    elementwise = ("mse_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits")
    one_of((*elementwise, "cross_entropy"), loss=loss)
    if loss == "cross_entropy" and (array(target=target).dtype.kind != "i" or np.min(target) < 0):
        raise ValueError(f"target: expected classes, none of them ignored, got {target}")
    one = np.ones((), y.dtype)
    g = leaves(getattr(losses, loss)(y, target)[1](one))[0]
    if loss in elementwise[:2]:
        _, pull = getattr(second_order, f"{loss}_backward")(one, y, target, reduction=1)
    else:  # g is what squashes y, less the target, over n
        squashes = activations.sigmoid if loss in elementwise else activations.softmax
        _, pull_squashed = squashes(y)
    n = y.size if loss in elementwise else len(y)

    def pullback(dg):
        if loss in elementwise[:2]:
            return pull(dg)[1:]
        dy = pull_squashed(dg) / n
        return (dy, -dg / n) if loss in elementwise else (dy,)

    return g, pullback


def _mlp_layers(parameters):
    mapping(parameters=parameters)
    names = [name.removesuffix(".weight") for name in parameters if name.endswith(".weight")]
    return names, _layers(
        parameters, {f"{name}.{part}" for name in names or ["0"] for part in ("weight", "bias")}
    )


def _layers(parameters, expected):
    """The (weight, bias) of each layer, first to last. Raises ValueError unless the names are those
    expected."""
    mapping(parameters=parameters)
    if set(parameters) != expected:
        raise ValueError(
            f"parameters: expected the entries {sorted(expected)}, got {sorted(parameters)}"
        )
    weights = [name for name in parameters if name.endswith("weight")]
    return [
        (parameters[name], parameters[name.removesuffix("weight") + "bias"]) for name in weights
    ]


def _check_activation(name):
    if not isinstance(name, str):
        raise TypeError(f"activation: expected a name, got {name!r}")
    known = vars(activations)
    if name.startswith("_") or not _is_rule(known.get(name)):
        raise ValueError(unknown("activation", name, (n for n, f in known.items() if _is_rule(f))))


def _is_rule(thing):
    return getattr(thing, "__module__", "") == activations.__name__
