"""A model's forward and backward pass by hand beside torch eager."""

from __future__ import annotations

from ..ops import evaluate
from ..samples import Call, array, call, classes, truths
from ..samples.models.dense import layers
from ..samples.models.text import gpt_parameters
from ..samples.models.vision import affine, norm, statistics
from .costs import REPEATS, Row, cost
from .rules import by_hand, by_torch

BATCHES = (32, 1024)
_CONVNET = {
    "conv1.weight": array(8, 1, 3, 3, scale=1 / 3),
    **norm("bn1", 8),
    "conv2.weight": array(16, 8, 3, 3, scale=0.1),
    **norm("bn2", 16),
    **affine("fc", 10, 64),
}
_POINT = {"weight": array(1, 30), "bias": array(1)}


def cases() -> dict[str, tuple[str, Call]]:
    """Each model, at some widths and sizes of its batch."""
    found = {}
    for n in BATCHES:
        for model in ("linear_regression", "logistic_regression"):
            found[f"{model}, 30-1, batch {n}"] = model, call(_POINT, array(n, 30))
        for widths in ((64, 32, 10), (64, 256, 256, 10)):
            shape = "-".join(map(str, widths))
            described = call(layers(*widths), array(n, widths[0]), activation="tanh")
            found[f"mlp, {shape}, batch {n}"] = "mlp", described
    images = array(64, 1, 8, 8), statistics(bn1=8, bn2=16), True
    found["convnet, 8-16, batch 64"] = "convnet", call(_CONVNET, *images, mask=truths(64, 64))
    parameters = gpt_parameters(V=96, C=32, T=16, blocks=2, F=128, scale=0.02)
    tokens = classes(8, 16, below=96)
    found["gpt, 2 blocks of 32, batch 8 × 16"] = "gpt", call(parameters, tokens, heads=4)
    return found


def rows(repeats: int = REPEATS) -> list[Row]:
    """One row for each case, in float32."""
    return [_row(case, *what, repeats) for case, what in cases().items()]


def _row(case: str, model: str, described: Call, repeats: int) -> Row:
    inputs = evaluate.drawn(model, described, "float32", 0)
    return cost("models", case, by_hand(model, *inputs), by_torch(model, *inputs), repeats=repeats)
