from itertools import pairwise

from . import array, call

_LINE = {"weight": array(2, 3), "bias": array(2)}


def _layers(*widths):
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
        call(_layers(3, 2), array(5, 3)),
        call(_layers(3, 7, 2), array(5, 3), activation="tanh"),
        call(_layers(3, 7, 2), array(5, 3), "sigmoid"),
        call(_layers(3, 7, 6, 5, 2), array(5, 3)),
        call(_layers(64, 32, 10), array(100, 64)),
    ],
}

CORNERS = {
    "linear_regression": [call(_LINE, array(0, 3))],
    "logistic_regression": [call(_LINE, array(5, 3, scale=100.0))],
    "mlp": [
        call(_layers(3, 7, 2), array(0, 3)),
        call(_layers(3, 7, 6, 2), array(5, 3, scale=50.0), activation="tanh"),
    ],
}
