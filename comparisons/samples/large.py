"""Calls of about as many elements as one asks for, to be timed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import Array, Call, array, call, classes, log_probabilities, positive, signs, truths, uniform

CLASSES = 100
_OF_X = (
    *("neg", "abs", "exp", "relu", "relu6", "hardtanh", "leaky_relu", "hardshrink", "softshrink"),
    *("tanhshrink", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "logsigmoid"),
    *("softsign", "hardsigmoid", "hardswish", "sigmoid", "tanh", "sum", "mean"),
)
_OF_TWO = (
    *("add", "sub", "mul", "maximum", "minimum"),
    *("mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss"),
)
_OF_ROWS = (
    *("cumsum", "max", "min", "amax", "amin", "var", "std", "logsumexp"),
    *("softmax", "log_softmax", "softmin"),
)


def calls(elements: int) -> dict[str, Call]:
    """A call of each op, whose largest array has about so many elements."""
    n, rows = elements, max(elements // CLASSES, 1)
    side = math.isqrt(n)
    scores, target = array(rows, CLASSES), classes(rows, below=CLASSES)
    matrices = array(side, side // 4 or 1), array(side // 4 or 1, side)
    width = min(max(side // 2, 1), 64)
    front = max(elements // (width * width), 1)
    sequences = array(front, width, width)
    images, channels = array(max(elements // 1024, 1), 16, 8, 8), (array(16), array(16))
    sides = math.isqrt(max(elements // 16, 1))
    picture = array(1, 16, sides, sides)
    planes = max(elements // 4096, 1), 4
    return {
        **{op: call(array(n)) for op in _OF_X},
        **{op: call(array(n), array(n)) for op in _OF_TWO},
        "div": call(array(n), positive(n)),
        "log": call(positive(n)),
        "sqrt": call(positive(n)),
        "rsqrt": call(positive(n)),
        "clamp": call(array(n), -0.5, 0.5),
        "clamp_min": call(array(n), -0.5),
        "clamp_max": call(array(n), 0.5),
        "pow": call(positive(n), 3.0),
        "threshold": call(array(n), 0.1, 0.5),
        "prelu": call(array(n), array(1)),
        "glu": call(array(rows, CLASSES)),
        **{op: call(scores, 1) for op in _OF_ROWS},
        "norm": call(scores, 2, 1),
        "linear": call(array(rows, CLASSES), array(CLASSES, CLASSES), array(CLASSES)),
        "matmul": call(*matrices),
        "addmm": call(array(side), *matrices),
        "bmm": call(sequences, sequences),
        "baddbmm": call(sequences, sequences, sequences),
        "outer": call(array(side), array(side)),
        "einsum": call("ijk,ikl->ijl", sequences, sequences),
        "split": call(scores, CLASSES // 4, 1),
        "chunk": call(scores, 4),
        "unbind": call(array(4, n // 4)),
        "cat": call([array(rows, CLASSES // 2), array(rows, CLASSES // 2)], 1),
        "stack": call([array(n // 2), array(n // 2)]),
        **{op: call(scores) for op in ("flatten", "squeeze", "tril", "triu")},
        "sort": call(scores, stable=True),
        "unsqueeze": call(scores, 0),
        "expand": call(array(rows, 1), (rows, CLASSES)),
        "repeat": call(array(n // 4), 4),
        "narrow": call(scores, 1, 10, CLASSES // 2),
        "roll": call(scores, 3, 1),
        "flip": call(scores, (1,)),
        "masked_fill": call(scores, truths(rows, CLASSES), 0.5),
        "topk": call(scores, 5),
        "gather": call(scores, 1, classes(rows, CLASSES, below=CLASSES)),
        "index_select": call(scores, 0, classes(rows, below=rows)),
        "embedding": call(classes(rows, below=rows), array(rows, CLASSES)),
        "cosine_similarity": call(array(rows, CLASSES), array(rows, CLASSES)),
        "pairwise_distance": call(array(rows, CLASSES), array(rows, CLASSES)),
        "layer_norm": call(scores, (CLASSES,), array(CLASSES), array(CLASSES)),
        "rms_norm": call(scores, (CLASSES,), array(CLASSES)),
        "batch_norm": call(images, None, None, *channels, True),
        "instance_norm": call(images, None, None, *channels),
        "group_norm": call(images, 4, *channels),
        "normalize": call(scores),
        **_pools(planes),
        **{f"conv{n}d": _convolution(n, elements) for n in (1, 2, 3)},
        **{f"conv_transpose{n}d": _convolution(n, elements) for n in (1, 2, 3)},
        "unfold": call(array(*_images(2, elements / 9)), 3, padding=1),
        "fold": _fold(elements),
        "scaled_dot_product_attention": call(sequences, sequences, sequences),
        **{op: _network(gates, width, front) for op, gates in (("gru", 3), ("lstm", 4))},
        "interpolate": call(picture, scale_factor=2, mode="bilinear"),
        "grid_sample": call(picture, uniform(1, sides, sides, 2), align_corners=False),
        "affine_grid": call(array(1, 2, 3), (1, 1, side, side), align_corners=False),
        "pixel_shuffle": call(picture, 2),
        "pixel_unshuffle": call(array(1, 1, *(2 * max(side // 2, 1),) * 2), 2),
        "channel_shuffle": call(picture, 4),
        "pad": call(picture, (1, 1, 1, 1), "reflect"),
        "constant_pad_nd": call(picture, (1, 1, 1, 1)),
        "nll_loss": call(log_probabilities(rows, CLASSES), target),
        "cross_entropy": call(scores, target),
        # Of a plain mean torch warns in every call, which takes longer than it.
        "kl_div": call(
            log_probabilities(rows, CLASSES), uniform(rows, CLASSES), reduction="batchmean"
        ),
        "poisson_nll_loss": call(array(n), positive(n)),
        "gaussian_nll_loss": call(array(rows, CLASSES), scores, uniform(rows, CLASSES)),
        "hinge_embedding_loss": call(array(n), signs(n)),
        "soft_margin_loss": call(array(n), signs(n)),
        "margin_ranking_loss": call(array(n), array(n), signs(n)),
        "multi_margin_loss": call(scores, target),
        "multilabel_soft_margin_loss": call(scores, uniform(rows, CLASSES)),
        "cosine_embedding_loss": call(array(rows, CLASSES), array(rows, CLASSES), signs(rows)),
        "triplet_margin_loss": call(*(array(rows, CLASSES) for _ in range(3))),
        "binary_cross_entropy": call(uniform(n), uniform(n)),
        "binary_cross_entropy_with_logits": call(array(n), uniform(n)),
    }


def _pools(planes: tuple[int, int]) -> dict[str, Call]:
    """Each pooling of so many planes of 1,024 elements, over one, two and three axes."""
    found: dict[str, Call] = {}
    for rank, space in enumerate(((1024,), (32, 32), (8, 8, 16)), start=1):
        x = array(*planes, *space)
        found |= {
            f"max_pool{rank}d": call(x, 3, 2, 1),
            f"avg_pool{rank}d": call(x, 2),
            f"lp_pool{rank}d": call(x, 2, 2),
            f"adaptive_max_pool{rank}d": call(x, 7),
            f"adaptive_avg_pool{rank}d": call(x, 7),
            f"max_unpool{rank}d": call(x, _places(*planes, *space, below=1024 * 2**rank), 2),
        }
        if rank > 1:
            samples = uniform(*planes, rank)
            ratio = (0.5,) * rank
            found[f"fractional_max_pool{rank}d"] = call(x, 2, None, ratio, _random_samples=samples)
    return found


def _places(N: int, C: int, *space: int, below: int) -> Array:
    """Indices of elements of N · C planes, each of which is there once."""

    def draw(rng: np.random.Generator, dtype: Any) -> np.ndarray:
        every = np.tile(np.arange(below), (N * C, 1))
        return rng.permuted(every, axis=1)[:, : math.prod(space)].reshape(N, C, *space)

    return Array(f"places below {below}", draw)


def _convolution(n: int, elements: int) -> Call:
    """Windows of three elements along each axis of space, from 16 channels to as many."""
    return call(array(*_images(n, elements)), array(16, 16, *[3] * n), array(16), padding=1)


def _fold(elements: int) -> Call:
    """The windows that a convolution over two axes sees."""
    N, C, side, _ = _images(2, elements / 9)
    return call(array(N, 9 * C, side * side), side, 3, padding=1)


def _images(n: int, elements: float) -> tuple[int, ...]:
    """Some images of 16 channels, none of which has more than about a thousand places."""
    side = int(min(max(elements / 16, 1), 1024) ** (1 / n) + 0.5)
    return max(int(elements / (16 * side**n)), 1), 16, *[side] * n


def _network(gates: int, width: int, front: int) -> Call:
    """One layer of a recurrent network, with as many numbers in a state as in an input."""
    state, G = array(1, front, width), gates * width
    params = [array(G, width), array(G, width), array(G), array(G)]
    x = array(width, front, width, scale=width**-0.5)
    return call(x, (state, state) if gates == 4 else state, params, True, 1, 0.0, True, False)
