"""Calls of about as many elements as one asks for, to be timed."""

from __future__ import annotations

import math

from . import Call, array, call, classes, log_probabilities, positive, signs, uniform

CLASSES = 100
_OF_X = (
    *("neg", "abs", "exp", "relu", "relu6", "hardtanh", "leaky_relu", "hardshrink", "softshrink"),
    *("tanhshrink", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "logsigmoid"),
    *("softsign", "hardsigmoid", "hardswish", "sigmoid", "tanh", "sum", "mean"),
)
_OF_TWO = ("add", "sub", "mul", "mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss")


def calls(elements: int) -> dict[str, Call]:
    """A call of each op, whose largest array has about so many elements."""
    n, rows = elements, max(elements // CLASSES, 1)
    side = math.isqrt(n)
    scores, target = array(rows, CLASSES), classes(rows, below=CLASSES)
    width = min(max(side // 2, 1), 64)
    front = max(elements // (width * width), 1)
    sequences = array(front, width, width)
    images, channels = array(max(elements // 1024, 1), 16, 8, 8), (array(16), array(16))
    planes = max(elements // 4096, 1), 4
    return {
        **{op: call(array(n)) for op in _OF_X},
        **{op: call(array(n), array(n)) for op in _OF_TWO},
        "div": call(array(n), positive(n)),
        "log": call(positive(n)),
        "sqrt": call(positive(n)),
        "pow": call(positive(n), 3.0),
        "threshold": call(array(n), 0.1, 0.5),
        "prelu": call(array(n), array(1)),
        "glu": call(array(rows, CLASSES)),
        "softmax": call(scores, 1),
        "log_softmax": call(scores, 1),
        "softmin": call(scores, 1),
        "linear": call(array(rows, CLASSES), array(CLASSES, CLASSES), array(CLASSES)),
        "matmul": call(array(side, side // 4 or 1), array(side // 4 or 1, side)),
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
        "scaled_dot_product_attention": call(sequences, sequences, sequences),
        **{op: _network(gates, width, front) for op, gates in (("gru", 3), ("lstm", 4))},
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
            f"max_unpool{rank}d": call(x, classes(*planes, *space, below=1024 * 2**rank), 2),
        }
        if rank > 1:
            samples = uniform(*planes, rank)
            ratio = (0.5,) * rank
            found[f"fractional_max_pool{rank}d"] = call(x, 2, None, ratio, _random_samples=samples)
    return found


def _network(gates: int, width: int, front: int) -> Call:
    """One layer of a recurrent network, with as many numbers in a state as in an input."""
    state, G = array(1, front, width), gates * width
    params = [array(G, width), array(G, width), array(G), array(G)]
    x = array(width, front, width, scale=width**-0.5)
    return call(x, (state, state) if gates == 4 else state, params, True, 1, 0.0, True, False)
