"""Models of images, as they are trained: on digits, of 8×8 pixels."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .datasets import Data
from .dense import linear
from .models import Arrays, Model

if TYPE_CHECKING:
    from .cells import Cell

Rng = np.random.Generator
SIDE = 8  # of an image
STD = 0.02  # of the class and the places of a vit (Dosovitskiy et al., 2021)


def images(data: Data, cell: Cell) -> tuple[np.ndarray, np.ndarray]:
    """x as images of one channel, (N, 1, 8, 8)."""
    return data.x.reshape(-1, 1, SIDE, SIDE), data.target


def _themselves(data: Data, cell: Cell) -> tuple[np.ndarray, np.ndarray]:
    """Images, and the same as what is wanted."""
    x, _ = images(data, cell)
    return x, x


def _convolution(rng: Rng, name: str, *shape: int, bias: bool = False) -> Arrays:
    """A weight between ±1/√fan-in, the fan-in being the elements behind its first axis, and a bias
    as torch.nn.Conv2d and ConvTranspose2d draw them: Kaiming's uniform numbers with a = √5."""
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    found = {f"{name}.weight": rng.uniform(-bound, bound, shape)}
    if bias:
        rows = shape[1] if name.startswith("decoder") else shape[0]
        found[f"{name}.bias"] = rng.uniform(-bound, bound, rows)
    return found


def _norm(name: str, channels: int) -> Arrays:
    return {f"{name}.weight": np.ones(channels), f"{name}.bias": np.zeros(channels)}


def _batch_norm(name: str, channels: int) -> Arrays:
    """Parameters and buffers."""
    statistics = {
        f"{name}.running_mean": np.zeros(channels),
        f"{name}.running_var": np.ones(channels),
        f"{name}.num_batches_tracked": np.zeros((), np.int64),
    }
    return _norm(name, channels) | statistics


def _convnet(rng: Rng, data: Data, cell: Cell) -> Arrays:
    """Each stage has twice the channels of that before it."""
    found: Arrays = {}
    channels = 1
    for i in range(cell.sizes["stages"]):
        before, channels = channels, cell.sizes["width"] * 2**i
        found |= _convolution(rng, f"conv{i + 1}", channels, before, 3, 3)
        found |= _batch_norm(f"bn{i + 1}", channels)
    return found | linear(rng, "fc.", _features(cell), data.outputs)


def _features(cell: Cell) -> int:
    """How many numbers the last stage of a convnet leaves."""
    stages = cell.sizes["stages"]
    return int(cell.sizes["width"] * 2 ** (stages - 1) * (SIDE >> stages) ** 2)


def _kept(cell: Cell, x: np.ndarray, rng: Rng) -> dict[str, Any]:
    """What dropout keeps."""
    return {"mask": rng.random((len(x), _features(cell))) >= cell.sizes["dropout"]}


def _resnet(rng: Rng, data: Data, cell: Cell) -> Arrays:
    """Each group has twice the channels of that before it."""
    channels = cell.sizes["width"]
    found = _convolution(rng, "conv1", channels, 1, 3, 3) | _batch_norm("bn1", channels)
    for group in range(cell.sizes["groups"]):
        for block in range(cell.sizes["blocks"]):
            name, before, channels = f"layer{group + 1}.{block}", channels, channels
            if group and not block:
                channels = 2 * before
            for i, n_in in ((1, before), (2, channels)):
                found |= _convolution(rng, f"{name}.conv{i}", channels, n_in, 3, 3)
                found |= _batch_norm(f"{name}.bn{i}", channels)
            if channels != before:
                found |= _convolution(rng, f"{name}.downsample.0", channels, before, 1, 1)
                found |= _batch_norm(f"{name}.downsample.1", channels)
    return found | linear(rng, "fc.", channels, data.outputs)


def _autoencoder(rng: Rng, data: Data, cell: Cell) -> Arrays:
    """Each convolution has twice the channels of that before it."""
    widths = [1, *(cell.sizes["width"] * 2**i for i in range(cell.sizes["layers"]))]
    found: Arrays = {}
    for i, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
        found |= _convolution(rng, f"encoder.{2 * i}", n_out, n_in, 3, 3, bias=True)
    for i, (n_in, n_out) in enumerate(itertools.pairwise(reversed(widths))):
        found |= _convolution(rng, f"decoder.{2 * i}", n_in, n_out, 3, 3, bias=True)
    return found


def _vit(rng: Rng, data: Data, cell: Cell) -> Arrays:
    D, side = cell.sizes["width"], cell.sizes["patch"]
    found = {
        "cls_token": rng.normal(0, STD, (1, 1, D)),
        "pos_embed": rng.normal(0, STD, (1, 1 + (SIDE // side) ** 2, D)),
    }
    found |= _convolution(rng, "patch_embed.proj", D, 1, side, side, bias=True)
    for i in range(cell.sizes["layers"]):
        block = f"blocks.{i}"
        found |= _norm(f"{block}.norm1", D)
        found |= linear(rng, f"{block}.attn.qkv.", D, 3 * D)
        found |= linear(rng, f"{block}.attn.proj.", D, D)
        found |= _norm(f"{block}.norm2", D)
        found |= linear(rng, f"{block}.mlp.fc1.", D, 4 * D)
        found |= linear(rng, f"{block}.mlp.fc2.", 4 * D, D)
    return found | _norm("norm", D) | linear(rng, "head.", D, data.outputs)


_OF_IMAGES: dict[str, Any] = {
    "losses": {"multiclass": "cross_entropy"},
    "data": "digits",
    "regime": "mini-batch",
    "seen": images,
}
MODELS = {
    "convnet": Model(
        start=_convnet,
        size={"stages": 2, "width": 8, "dropout": 0.5},
        settings=lambda cell: {"training": True, "p": cell.sizes["dropout"]},
        drawn=_kept,
        **_OF_IMAGES,
    ),
    "resnet": Model(
        start=_resnet,
        size={"groups": 2, "blocks": 1, "width": 4},
        settings=lambda cell: {"training": True},
        **_OF_IMAGES,
    ),
    "autoencoder": Model(
        start=_autoencoder,
        size={"layers": 2, "width": 8},
        **_OF_IMAGES | {"losses": {"multiclass": "mse_loss"}, "seen": _themselves},
    ),
    "vit": Model(
        start=_vit,
        size={"layers": 2, "width": 16, "heads": 4, "patch": 2},
        settings=lambda cell: {"num_heads": cell.sizes["heads"]},
        **_OF_IMAGES,
    ),
}
