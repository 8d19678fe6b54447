"""A draw of noise beside a plain evaluation of the same network."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ...reference.adapters import rule
from ..ops import evaluate
from ..samples import Call, array, call, classes
from ..samples.models.dense import layers
from ..verdict.floor import DRAWS, Floor
from .costs import REPEATS, Row, cost

HEADS = 4
LARGE = 512


@rule
def mlp(parameters: Any, x: Any, target: Any) -> Any:
    h = F.relu(F.linear(x, parameters["0.weight"], parameters["0.bias"]))
    return F.cross_entropy(F.linear(h, parameters["2.weight"], parameters["2.bias"]), target)


@rule
def composed(parameters: Any, x: Any) -> Any:
    def attention(q: Any, k: Any, v: Any) -> Any:
        return F.softmax(q @ k.mT / math.sqrt(q.shape[-1]), -1) @ v

    return _transformer(parameters, x, attention)


@rule
def fused(parameters: Any, x: Any) -> Any:
    return _transformer(parameters, x, F.scaled_dot_product_attention)


def _transformer(parameters: Any, x: Any, attention: Callable[..., Any]) -> Any:
    """A layer whose norms stand before attention and the MLP (Xiong et al., 2020)."""
    n, length, width = x.shape

    def dense(name: str, h: Any) -> Any:
        return F.linear(h, parameters[f"{name}.weight"], parameters[f"{name}.bias"])

    projected = dense("in_proj", F.layer_norm(x, (width,)))
    heads = projected.reshape(n, length, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
    mixed = attention(*heads.unbind()).transpose(1, 2).reshape(n, length, width)
    x = x + dense("out_proj", mixed)
    return x + dense("linear2", F.gelu(dense("linear1", F.layer_norm(x, (width,)))))


@rule
def convnet(parameters: Any, x: Any) -> Any:
    h = F.conv2d(x, parameters["0.weight"], parameters["0.bias"], padding=1)
    h = F.max_pool2d(F.relu(h), 2).flatten(1)
    return F.linear(h, parameters["4.weight"], parameters["4.bias"])


@rule
def one_layer(parameters: Any, x: Any) -> Any:
    return F.relu(F.linear(x, parameters["0.weight"], parameters["0.bias"]))


@rule
def pointwise(x: Any) -> Any:
    return F.softplus(torch.tanh(x) * torch.sigmoid(x) + x)


def _dense(name: str, n_in: int, n_out: int) -> dict[str, Any]:
    weight = array(n_out, n_in, scale=n_in**-0.5)
    return {f"{name}.weight": weight, f"{name}.bias": array(n_out)}


_LAYER = {
    **_dense("in_proj", 64, 3 * 64),
    **_dense("out_proj", 64, 64),
    **_dense("linear1", 64, 4 * 64),
    **_dense("linear2", 4 * 64, 64),
}
_FILTERS = {"0.weight": array(8, 8, 3, 3, scale=72**-0.5), "0.bias": array(8)}

# network → what it is made of, what it is given, and how many evaluations a draw may cost
NETWORKS: dict[str, tuple[Any, Call, float]] = {
    "MLP 64-64-10, batch 64": (
        mlp,
        call(layers(64, 64, 10), array(64, 64), classes(64, below=10)),
        8,
    ),
    "transformer layer, 64 × 64": (composed, call(_LAYER, array(1, 64, 64)), 8),
    "transformer layer, 64 × 64, fused attention": (fused, call(_LAYER, array(1, 64, 64)), 8),
    "convnet, 8 × 8 × 16 × 16": (
        convnet,
        call({**_FILTERS, **_dense("4", 8 * 8 * 8, 10)}, array(8, 8, 16, 16)),
        8,
    ),
    "layer 512 × 512, batch 512": (one_layer, call(layers(LARGE, LARGE), array(LARGE, LARGE)), 6),
    "pointwise chain, 512 × 512": (pointwise, call(array(LARGE, LARGE)), 6),
}


def rows(repeats: int = REPEATS) -> list[Row]:
    """One row for each network: what one of all the draws of a floor costs, in evaluations of its
    value and all gradients."""
    return [_row(network, repeats) for network in NETWORKS]


def _row(network: str, repeats: int) -> Row:
    *_, bound = NETWORKS[network]
    drawn, plain = pair(network)
    return cost("noise", network, drawn, plain, each=DRAWS, bound=bound, repeats=repeats)


def pair(network: str) -> tuple[Callable[[], Floor], Callable[[], Any]]:
    """What makes all draws of a floor, and what evaluates the network once."""
    twin, described, _ = NETWORKS[network]
    args, kwargs = described.draw(0, np.dtype("float64"))
    y, pullback = twin(*args)
    inputs = args, kwargs, evaluate.cotangent(y, pullback.constant, 0)
    parameters = list(args[0]) if isinstance(args[0], dict) else []
    reference = partial(evaluate.evaluate, twin, [*parameters, "x"])
    truth = reference(inputs)

    def drawn() -> Floor:
        floor = Floor(reference, inputs, np.float64, known=(truth, truth), together=twin)
        while floor.draws < DRAWS:
            floor.draw()
        return floor

    return drawn, lambda: reference(inputs)
