"""Models: rules of rules. Parameters are a dict with the names of torch's `state_dict`; so is their
gradient."""

from . import activations
from .linear import linear


def linear_regression(parameters, x):
    """x Wᵀ + b, with the parameters of torch.nn.Linear: weight (out, in) and bias (out); x (N, in)
    → (N, out)."""
    (layer,) = _layers(parameters, {"weight", "bias"})
    y, pull_linear = linear(x, *layer)

    def pullback(dy):
        dx, dweight, dbias = pull_linear(dy)
        return {"weight": dweight, "bias": dbias}, dx

    return y, pullback


def logistic_regression(parameters, x):
    """p = σ(x Wᵀ + b), the probability of class 1; parameters and shapes as in `linear_regression`.

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

    x (N, in) → (N, out). `activation` is the name of a rule in `activations`.

    Rumelhart, Hinton & Williams, 1986, "Learning representations by back-propagating errors"
    """
    act = _activation(activation)
    names = [name.removesuffix(".weight") for name in parameters if name.endswith(".weight")]
    layers = _layers(
        parameters, {f"{name}.{part}" for name in names or ["0"] for part in ("weight", "bias")}
    )
    y, pull_linear = linear(x, *layers[0])
    pulls = [(pull_linear, None)]
    for layer in layers[1:]:
        hidden, pull_activation = act(y)
        y, pull_linear = linear(hidden, *layer)
        pulls.append((pull_linear, pull_activation))

    def pullback(dy):
        dparameters = {}
        for name, (pull_linear, pull_activation) in zip(
            reversed(names), reversed(pulls), strict=True
        ):
            dy, dparameters[f"{name}.weight"], dparameters[f"{name}.bias"] = pull_linear(dy)
            dy = dy if pull_activation is None else pull_activation(dy)
        return {name: dparameters[name] for name in parameters}, dy

    return y, pullback


def _layers(parameters, expected):
    """The (weight, bias) of each layer, first to last; ValueError unless the names are those
    expected."""
    if set(parameters) != expected:
        raise ValueError(
            f"parameters: expected the entries {sorted(expected)}, got {sorted(parameters)}"
        )
    weights = [name for name in parameters if name.endswith("weight")]
    return [
        (parameters[name], parameters[name.removesuffix("weight") + "bias"]) for name in weights
    ]


def _activation(name):
    names = [
        n
        for n, f in vars(activations).items()
        if getattr(f, "__module__", "") == activations.__name__
    ]
    if name not in names:
        raise ValueError(f"activation: expected one of {', '.join(names)}, got {name!r}")
    return getattr(activations, name)
