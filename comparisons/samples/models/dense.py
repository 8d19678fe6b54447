from itertools import pairwise

from .. import array, call, classes, uniform

_LINE = {"weight": array(2, 3), "bias": array(2)}
_POINT = {"weight": array(1, 2), "bias": array(1)}
_ACTIVATIONS = (
    *("sigmoid", "tanh", "relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "mish"),
    *("softplus", "hardswish"),
)


def layers(*widths):
    """The parameters of an mlp with these widths, from input to output."""
    parameters = {}
    for i, (n_in, n_out) in enumerate(pairwise(widths)):
        parameters[f"{2 * i}.weight"] = array(n_out, n_in, scale=n_in**-0.5)
        parameters[f"{2 * i}.bias"] = array(n_out)
    return parameters


SAMPLES = {
    "linear_regression": [call(_LINE, array(5, 3)), call(_LINE, array(3))],
    "logistic_regression": [call(_LINE, array(5, 3)), call(_LINE, array(5, 3, scale=5.0))],
    "mlp": [
        call(layers(3, 2), array(5, 3)),
        call(layers(3, 7, 2), array(5, 3), activation="tanh"),
        call(layers(3, 7, 2), array(5, 3), "sigmoid"),
        call(layers(3, 7, 6, 5, 2), array(5, 3)),
        call(layers(64, 32, 10), array(100, 64)),
    ],
    "loss_gradient": [
        call(_LINE, array(5, 3), array(5, 2), "linear_regression", "mse_loss"),
        call(_POINT, array(3, 2), uniform(3, 1), "logistic_regression", "binary_cross_entropy"),
        *(
            call(layers(3, 4, 2), array(5, 3), array(5, 2), "mlp", "mse_loss", activation=name)
            for name in _ACTIVATIONS
        ),
        call(
            layers(3, 5, 4, 1),
            array(6, 3),
            uniform(6, 1),
            "mlp",
            "binary_cross_entropy_with_logits",
            "tanh",
        ),
        call(layers(3, 4, 3), array(5, 3), classes(5, below=3), "mlp", "cross_entropy", "gelu"),
        call(layers(3, 4), array(5, 3), classes(5, below=4), "mlp", "cross_entropy"),
    ],
}
CORNERS = {
    "loss_gradient": [  # of probabilities: both sides cancel where these saturate
        call(
            _POINT,
            array(2, 2, scale=5.0),
            uniform(2, 1),
            "logistic_regression",
            "binary_cross_entropy",
        ),
        call(
            layers(3, 4, 3),
            array(5, 3, scale=30.0),
            classes(5, below=3),
            "mlp",
            "cross_entropy",
            "tanh",
        ),
    ],
    "linear_regression": [call(_LINE, array(0, 3))],
    "logistic_regression": [call(_LINE, array(5, 3, scale=100.0))],
    "mlp": [
        call(layers(3, 7, 2), array(0, 3)),
        call(layers(3, 7, 6, 2), array(5, 3, scale=50.0), activation="tanh"),
    ],
}
