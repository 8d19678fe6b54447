"""Mistakes as data: what stands in a right rule, and what a tired person writes instead.

A rule is found by its name in `rules.py` or in `manual/`. The samples are ordinary points: to find
the corner, the layout or the setting at which a mistake shows is the checker's work.
"""

from dataclasses import dataclass

from ..samples import array, call, classes, uniform, values


@dataclass(frozen=True)
class Mutant:
    """One mistake: its cause, the text that occurs once in the right rule, and its replacement."""

    cause: str
    old: str
    new: str
    frozen: bool = False  # written after the diagnoses were finished


AGAINST = {
    "sigmoid": "torch.sigmoid",
    "tanh": "torch.tanh",
    "relu": "torch.nn.functional.relu",
    "linear": "torch.nn.functional.linear",
    "mse_loss": "torch.nn.functional.mse_loss",
    "binary_cross_entropy_with_logits": "torch.nn.functional.binary_cross_entropy_with_logits",
    "cross_entropy": "torch.nn.functional.cross_entropy",
    "softmax": "torch.nn.functional.softmax",
    "log_softmax": "torch.nn.functional.log_softmax",
    "logsumexp": "torch.logsumexp",
    "gelu": "torch.nn.functional.gelu",
    "softplus": "torch.nn.functional.softplus",
    "elu": "torch.nn.functional.elu",
    "leaky_relu": "torch.nn.functional.leaky_relu",
    "hardtanh": "torch.nn.functional.hardtanh",
    "silu": "torch.nn.functional.silu",
    "softsign": "torch.nn.functional.softsign",
    "layer_norm": "torch.nn.functional.layer_norm",
    "rms_norm": "torch.nn.functional.rms_norm",
    "normalize": "torch.nn.functional.normalize",
    "cosine_similarity": "torch.nn.functional.cosine_similarity",
    "matmul": "torch.matmul",
    "outer": "torch.outer",
    "add": "torch.add",
    "mul": "torch.mul",
    "div": "torch.div",
    "maximum": "torch.maximum",
    "pow": "torch.pow",
    "prod": "torch.prod",
    "cumsum": "torch.cumsum",
    "amax": "torch.amax",
    "var": "torch.var",
    "std": "torch.std",
    "huber_loss": "torch.nn.functional.huber_loss",
    "smooth_l1_loss": "torch.nn.functional.smooth_l1_loss",
    "l1_loss": "torch.nn.functional.l1_loss",
    "kl_div": "torch.nn.functional.kl_div",
    "nll_loss": "torch.nn.functional.nll_loss",
    "embedding": "torch.nn.functional.embedding",
    "index_select": "torch.index_select",
    "gather": "torch.gather",
    "conv1d": "torch.nn.functional.conv1d",
    "avg_pool1d": "torch.nn.functional.avg_pool1d",
    "mish": "torch.nn.functional.mish",
    "clamp": "torch.clamp",
    "glu": "torch.nn.functional.glu",
    "logaddexp": "torch.logaddexp",
    "lerp": "torch.lerp",
    "group_norm": "torch.nn.functional.group_norm",
    "pairwise_distance": "torch.nn.functional.pairwise_distance",
    "margin_ranking_loss": "torch.nn.functional.margin_ranking_loss",
    "bilinear": "torch.nn.functional.bilinear",
    "max_pool1d": "torch.nn.functional.max_pool1d",
    "diff": "torch.diff",
}
SAMPLES = {
    "sigmoid": [call(array(3, 4)), call(array(2, 3, 5))],
    "tanh": [call(array(3, 4)), call(array(2, 3, 5))],
    "relu": [call(array(3, 4)), call(array(2, 3, 5))],
    "linear": [
        call(array(5, 3), array(4, 3), array(4)),
        call(array(2, 6, 3), array(4, 3), array(4)),
        call(array(5, 3), array(4, 3)),
        call(array(5, 3), array(4, 3), array(1)),
    ],
    "mse_loss": [
        call(array(5, 3), array(5, 3)),
        call(array(5, 3), array(5, 3), reduction="sum"),
        call(array(5, 3), array(5, 3), weight=uniform(5, 3)),
    ],
    "binary_cross_entropy_with_logits": [
        call(array(5, 3), uniform(5, 3)),
        call(array(4, 3), uniform(4, 3), reduction="none"),
    ],
    "cross_entropy": [
        call(array(6, 4), classes(6, below=4)),
        call(array(6, 4), classes(6, below=4), label_smoothing=0.1),
        call(array(2, 4, 3), classes(2, 3, below=4), reduction="none"),
    ],
    "softmax": [call(array(3, 4), dim=-1), call(array(2, 3, 5), dim=1)],
    "log_softmax": [call(array(3, 4), dim=-1), call(array(2, 3, 5), dim=1)],
    "logsumexp": [call(array(3, 4), dim=-1), call(array(2, 3, 5), dim=1)],
    "gelu": [call(array(3, 4)), call(array(2, 3, 5), approximate="tanh")],
    "softplus": [call(array(3, 4)), call(array(3, 4), beta=2.0, threshold=20.0)],
    "elu": [call(array(3, 4)), call(array(3, 4), alpha=1.5)],
    "leaky_relu": [call(array(3, 4)), call(array(3, 4), negative_slope=0.2)],
    "hardtanh": [call(array(3, 4)), call(array(3, 4), min_val=-0.5, max_val=2.0)],
    "silu": [call(array(3, 4)), call(array(2, 3, 5))],
    "softsign": [call(array(3, 4)), call(array(2, 3, 5)), call(array())],
    "layer_norm": [
        call(array(5, 4), (4,), array(4), array(4)),
        call(array(2, 3, 4), (3, 4), array(3, 4), array(3, 4), 1e-3),
        call(array(5, 4), (4,)),
    ],
    "rms_norm": [
        call(array(5, 4), (4,), array(4), 1e-5),
        call(array(2, 3, 4), (4,), eps=1e-3),
    ],
    "normalize": [call(array(3, 4)), call(array(2, 3, 5), p=3.0, dim=-1)],
    "cosine_similarity": [
        call(array(3, 4), array(3, 4)),
        call(array(2, 5, 3), array(2, 5, 3), dim=1),
    ],
    "matmul": [
        call(array(3, 4), array(4, 2)),
        call(array(5, 3, 4), array(5, 4, 2)),
        call(array(5, 3, 4), array(4, 2)),
    ],
    "outer": [call(array(3), array(4)), call(array(5), array(2))],
    "add": [
        call(array(3, 4), array(4)),
        call(array(3, 4), array(3, 4), alpha=0.5),
        call(array(3, 1), array(3, 4)),
    ],
    "mul": [
        call(array(3, 4), array(3, 4)),
        call(array(2, 3, 4), array(3, 1)),
        call(array(3, 4), array()),
    ],
    "div": [
        call(array(3, 4), array(3, 4)),
        call(array(3, 4), array(3, 1)),
        call(array(1, 4), array(3, 4)),
    ],
    "maximum": [call(array(3, 4), array(3, 4)), call(array(3, 4), array(4))],
    "pow": [call(array(3, 4), 3), call(uniform(2, 5), 1.5)],
    "prod": [call(array(3, 4), dim=1), call(array(2, 3, 5), dim=1)],
    "cumsum": [call(array(3, 4), dim=1), call(array(2, 3, 5), dim=0)],
    "amax": [call(array(3, 4), dim=1), call(array(2, 3, 5), dim=0)],
    "var": [call(array(3, 4), dim=1), call(array(6, 2), dim=0, correction=0)],
    "std": [call(array(3, 4), dim=1), call(array(6, 2), dim=0, correction=0)],
    "huber_loss": [
        call(array(5, 3), array(5, 3)),
        call(array(5, 3), array(5, 3), reduction="none", delta=0.5),
    ],
    "smooth_l1_loss": [
        call(array(5, 3), array(5, 3)),
        call(array(5, 3), array(5, 3), reduction="sum", beta=0.5),
    ],
    "l1_loss": [
        call(array(5, 3), array(5, 3)),
        call(array(5, 3), array(5, 3), reduction="none"),
    ],
    "kl_div": [
        call(array(5, 3), uniform(5, 3), reduction="batchmean"),
        call(array(5, 3), array(5, 3), reduction="sum", log_target=True),
    ],
    "nll_loss": [
        call(array(6, 4), classes(6, below=4)),
        call(array(2, 4, 3), classes(2, 3, below=4), reduction="sum"),
        call(array(6, 4), values([0, 3, 1, 3, 2, 0]), ignore_index=3),
    ],
    "embedding": [
        call(values([2, 0, 5, 1]), array(7, 3)),
        call(values([[4, 1, 3], [0, 2, 5]]), array(6, 4), padding_idx=1),
    ],
    "index_select": [
        call(array(5, 3), 0, values([3, 0, 4])),
        call(array(2, 6), 1, values([5, 1, 2])),
    ],
    "gather": [
        call(array(3, 4), 1, classes(3, 5, below=4)),
        call(array(4, 3), 0, classes(2, 3, below=4)),
    ],
    "conv1d": [
        call(array(2, 3, 8), array(4, 3, 3), array(4)),
        call(array(2, 3, 9), array(4, 3, 2), stride=2),
    ],
    "avg_pool1d": [call(array(2, 3, 8), 2), call(array(2, 3, 9), 3, stride=2)],
    "mish": [call(array(3, 4)), call(array(2, 3, 5))],
    "clamp": [call(array(3, 4), -0.5, 0.5), call(array(2, 3, 5), min=-1.0, max=0.25)],
    "glu": [call(array(3, 4)), call(array(2, 6, 5), dim=1)],
    "logaddexp": [
        call(array(3, 4), array(3, 4)),
        call(array(3, 4), array(4)),
        call(array(3, 4), array(1)),
    ],
    "lerp": [
        call(array(3, 4), array(3, 4), uniform(1)),
        call(array(3, 4), array(4), uniform(3, 4)),
        call(array(3, 4), array(3, 4), uniform(4)),
    ],
    "group_norm": [
        call(array(2, 6, 5), 3, array(6), array(6)),
        call(array(4, 6), 2, array(6), array(6), 1e-3),
        call(array(2, 4, 3), 2),
    ],
    "pairwise_distance": [
        call(array(3, 4), array(3, 4)),
        call(array(2, 3, 5), array(2, 3, 5), eps=1e-3),
    ],
    "margin_ranking_loss": [
        call(array(5), array(5), values([1.0, -1.0, -1.0, 1.0, 1.0])),
        call(array(2, 3), array(2, 3), values([[1.0], [-1.0]]), margin=0.5, reduction="sum"),
        call(array(5, 3), array(5, 3), array(5, 3), margin=1.0, reduction="none"),
    ],
    "bilinear": [
        call(array(5, 3), array(5, 3), array(4, 3, 3), array(4)),
        call(array(2, 6, 3), array(2, 6, 3), array(2, 3, 3)),
    ],
    "max_pool1d": [call(array(2, 3, 8), 2), call(array(2, 3, 9), 3, stride=2)],
    "diff": [call(array(3, 4), dim=1), call(array(2, 3, 5), dim=0)],
}
MUTANTS = {
    "sigmoid": [
        Mutant("cotangent", "return dy * (z / (1 + z) ** 2)", "return z / (1 + z) ** 2"),
        Mutant(
            "range",
            "return dy * (z / (1 + z) ** 2)",
            "return np.where(x > 8, 0, dy * (z / (1 + z) ** 2))",
        ),
        Mutant(
            "layout",
            "return dy * (z / (1 + z) ** 2)",
            'return (dy.ravel(order="K") * (z / (1 + z) ** 2).ravel()).reshape(x.shape)',
        ),
    ],
    "tanh": [
        Mutant(
            "precision",
            "h = np.exp(-abs(x))",
            "h = np.exp(-abs(x).astype(np.float32)).astype(x.dtype)",
        ),
        Mutant("factor", "return dy * (2 * h", "return 1.0005 * dy * (2 * h"),
        Mutant("range", "h = np.exp(-abs(x))", "h = np.exp(x)", frozen=True),
    ],
    "relu": [
        Mutant("kink", "return where(x <= 0, 0, dy)", "return where(x < 0, 0, dy)"),
        Mutant(
            "mutation",
            "return where(x <= 0, 0, dy)",
            "dx = dy if dy.flags.writeable else dy.copy()\n"
            "        np.copyto(dx, 0, where=x <= 0)\n"
            "        return dx",
        ),
        Mutant(
            "mutation",
            "y = where(x <= 0, 0, x)",
            "y = np.maximum(x, 0, out=x if x.flags.writeable else None)",
        ),
        Mutant(
            "layout",
            "return where(x <= 0, 0, dy)",
            'positive = x.ravel(order="K") > 0\n'
            "        return where(positive.reshape(x.shape), dy, 0)",
        ),
        Mutant(
            "dtype",
            "return where(x <= 0, 0, dy)",
            "return where(x <= 0, np.zeros(x.shape), dy)",
            frozen=True,
        ),
    ],
    "linear": [
        Mutant("factor", "dweight = (rows.T @", "dweight = (rows.T / max(N, 1) @"),
        Mutant(
            "transpose",
            "rows.T @ x.reshape(N, W.shape[1])",
            "x.reshape(N, W.shape[1]).T @ rows",
        ),
        Mutant("precision", "(rows @ W)", "(rows.astype(np.float32) @ W)"),
        Mutant(
            "layout",
            "rows = dy.reshape(N, W.shape[0])",
            'rows = dy.reshape(N, W.shape[0], order="A")',
        ),
        Mutant("shape", "sum_to(dy.reshape(shape), bias.shape)", "rows.sum(0, keepdims=True)"),
        Mutant("broadcast", "sum_to(dy.reshape(shape), bias.shape)", "rows.sum(0)", frozen=True),
    ],
    "mse_loss": [
        Mutant("factor", "derror = 2 * error *", "derror = error *"),
        Mutant("sign", "sum_to(-derror, target.shape)", "sum_to(derror, target.shape)"),
        Mutant(
            "missing term", '(squares - y if reduction == "mean" else squares)', "squares"
        ),  # Σ w counts as a constant
        Mutant(
            "factor",
            "reduction, np.sum(w))",
            "reduction, len(w))",
            frozen=True,
        ),
    ],
    "binary_cross_entropy_with_logits": [
        Mutant("missing term", " - p * target * sigmoid(-x)[0])", ")"),
        Mutant("sign", "* tail - where(", "* tail + where(", frozen=True),
        Mutant(
            "range",
            "tail = np.log1p(",
            "x = np.clip(x, -15, 15)\n    tail = np.log1p(",
            frozen=True,
        ),
    ],
    "cross_entropy": [
        Mutant(
            "missing term",
            "y, spread = reduce(losses, reduction, total)",
            "y, spread = reduce(losses, reduction, total)\n"
            "    if label_smoothing:\n"
            "        _, pull_rows = _cross_entropy(rows, a - smooth)",
        ),
        Mutant(
            "transpose",
            "_unrow(pull_rows(dloss), x.shape)",
            "pull_rows(dloss).reshape(x.shape)",
        ),
    ],
    "softmax": [
        Mutant("missing term", "(dy - (dy * y).sum(dim, keepdims=True))", "dy"),
        Mutant("missing term", "(dy - (dy * y).sum(dim, keepdims=True))", "(1 - y) * dy"),
        Mutant(
            "state",
            "y = z / z.sum(dim, keepdims=True)",
            "y = softmax.__dict__.setdefault(x.shape, z / z.sum(dim, keepdims=True))",
        ),
        Mutant(
            "precision",
            "(dy * y).sum(dim, keepdims=True)",
            "(dy * y).sum(dim, keepdims=True, dtype=np.float32)",
        ),
        Mutant(
            "range",
            "z = np.exp(x - x.max(dim, keepdims=True, initial=-math.inf))",
            "z = np.exp(np.maximum(x - x.max(dim, keepdims=True, initial=-math.inf), -10))",
        ),
        Mutant(
            "sign",
            "(dy - (dy * y).sum(dim, keepdims=True))",
            "(dy + (dy * y).sum(dim, keepdims=True))",
            frozen=True,
        ),
    ],
    "log_softmax": [
        Mutant("missing term", "np.exp(y) * dy.sum(dim, keepdims=True)", "np.exp(y) * dy"),
        Mutant(
            "sign",
            "dy - np.exp(y) * dy.sum(dim, keepdims=True)",
            "np.exp(y) * dy.sum(dim, keepdims=True) - dy",
        ),
        Mutant(
            "mutation",
            "return dy - np.exp(y) * dy.sum(dim, keepdims=True)",
            "dx = dy if dy.flags.writeable else dy.copy()\n"
            "        dx -= np.exp(y) * dy.sum(dim, keepdims=True)\n"
            "        return dx",
        ),
        Mutant("cotangent", "np.exp(y) * dy.sum(dim, keepdims=True)", "np.exp(y)", frozen=True),
    ],
    "logsumexp": [
        Mutant("cotangent", "dy.reshape(total.shape)", "dy.mean()"),
        Mutant(
            "state",
            "return dy.reshape(total.shape) * (z / total)",
            "np.divide(z, total, out=z)\n        return dy.reshape(total.shape) * z",
        ),
    ],
    "gelu": [
        Mutant("factor", "/ math.sqrt(2 * math.pi)", "* 0.3989"),
        Mutant("missing term", "(1 + 3 * 0.044715 * c * c)", "1"),
        Mutant("range", "c = np.clip(x, -100, 100)", "c = np.clip(x, -4, 4)"),
        Mutant("precision", "Phi = ndtr(x)", "Phi = ndtr(x.astype(np.float32))"),
        Mutant("dtype", "/ math.sqrt(2 * math.pi)", "/ np.sqrt(2 * np.pi)"),
    ],
    "softplus": [
        Mutant("factor", "return dy * np.where(", "return beta * dy * np.where("),
        Mutant(
            "range",
            "straight = beta * x > threshold",
            "straight = beta * beta * x > threshold",
        ),
        Mutant(
            "kink",
            "straight = beta * x > threshold",
            "straight = beta * x >= threshold",
            frozen=True,
        ),
    ],
    "elu": [
        Mutant(
            "kink",
            "np.where(x <= 0, alpha * np.exp(below), 1)",
            "np.where(x < 0, alpha * np.exp(below), 1)",
        ),
        Mutant("range", "alpha * np.exp(below)", "alpha * np.exp(np.maximum(below, -5))"),
        Mutant(
            "missing term", "alpha * np.exp(below), 1)", "y, 1)", frozen=True
        ),  # the slope is y + α
    ],
    "leaky_relu": [
        Mutant(
            "kink",
            "return np.where(x > 0, dy, negative_slope * dy)",
            "return np.where(x >= 0, dy, negative_slope * dy)",
        ),
        Mutant("factor", "dy, negative_slope * dy", "dy, 0.01 * dy"),
    ],
    "hardtanh": [
        Mutant("kink", "(x >= max_val)", "(x > max_val)"),
        Mutant("range", "(x <= min_val) | (x >= max_val)", "(x <= -1) | (x >= 1)"),
    ],
    "silu": [
        Mutant("cotangent", "dy * s * (1 +", "dy * dy * s * (1 +"),
        Mutant("range", "return dy * s", "return np.where(x < -8, 0, dy) * s"),
        Mutant(
            "state",
            "def silu(x):",
            "def silu(x, cache={}):\n    x = cache.setdefault((x.shape, x.dtype), x)",
        ),
    ],
    "softsign": [
        Mutant("cotangent", "return dy *", "return abs(dy) *"),
        Mutant(
            "shape",
            "return dy * (1 / (1 + abs(x))) ** 2",
            "return np.atleast_1d(dy * (1 / (1 + abs(x))) ** 2)",
        ),
        Mutant(
            "mutation",
            "return dy * (1 / (1 + abs(x))) ** 2",
            "size = np.abs(x, out=x if x.flags.writeable else None)\n"
            "        return dy * (1 / (1 + size)) ** 2",
            frozen=True,
        ),
    ],
    "layer_norm": [
        Mutant("missing term", "dhat.mean(axes, keepdims=True) - along", "along"),
        Mutant(
            "missing term",
            "dhat - dhat.mean(axes, keepdims=True) - along",
            "dhat - dhat.mean(axes, keepdims=True)",
        ),
        Mutant(
            "broadcast / factor",
            "sum_to(dy * hat, weight.shape)",
            "(dy * hat).reshape(-1, *weight.shape).mean(0)",
        ),
        Mutant("broadcast", "sum_to(dy, bias.shape)", "dy.reshape(-1, *bias.shape)[0]"),
        Mutant("swapped", "_present(dx, dweight, dbias)", "_present(dx, dbias, dweight)"),
        Mutant(
            "mutation",
            "centred = x - x.mean(axes, keepdims=True)",
            "centred = x if x.flags.writeable else x.copy()\n"
            "    centred -= centred.mean(axes, keepdims=True)",
        ),
    ],
    "rms_norm": [
        Mutant("missing term", "(dhat - hat * (dhat * hat).mean(axes, keepdims=True))", "dhat"),
        Mutant("precision", "hat = x / rms", "hat = (x / rms).astype(np.float32).astype(x.dtype)"),
        Mutant(
            "state",
            "return _present(dx, ",
            "dx = dx * (1 + 1e-3 * np.random.default_rng().standard_normal(x.shape))"
            ".astype(x.dtype)\n"
            "        return _present(dx, ",
        ),
        Mutant("dtype", "sum_to(dy * hat,", "sum_to((dy * hat).astype(np.float64),"),
    ],
    "normalize": [
        Mutant("missing term", "(dy - np.sign(x) * abs(y) ** (p - 1) * dnorm)", "dy"),
        Mutant("precision", "y = x / floor", "y = x / floor.astype(np.float32)"),
    ],
    "cosine_similarity": [
        Mutant("swapped", "return dx1, dx2", "return dx2, dx1"),
        Mutant("sign", "return dx1, dx2", "return dx1, -dx2"),
        Mutant("factor", "dx1 = sum_to(", "dx1 = 1.0009 * sum_to("),
    ],
    "matmul": [
        Mutant("transpose", "x.mT @ dy", "dy.mT @ x"),
        Mutant(
            "broadcast / factor",
            "sum_to(x.mT @ dy, other.shape)",
            "(x.mT @ dy).reshape(-1, *other.shape).mean(0)",
        ),
        Mutant(
            "layout",
            "sum_to(dy @ other.mT,",
            'sum_to(dy.ravel(order="A").reshape(dy.shape) @ other.mT,',
        ),
        Mutant(
            "state",
            "y = x @ other\n",
            "other = matmul.__dict__.setdefault((other.shape, other.dtype), other)\n"
            "    y = x @ other\n",
        ),
    ],
    "outer": [
        Mutant("swapped", "return dy @ vec2, dy.T @ x", "return dy.T @ x, dy @ vec2"),
        Mutant("cotangent", "dy.T @ x", "np.full_like(vec2, dy.flat[0]) * x.sum()"),
    ],
    "add": [
        Mutant("factor", "sum_to(alpha * dy, other.shape)", "sum_to(dy, other.shape)"),
        Mutant(
            "broadcast / factor",
            "sum_to(alpha * dy, other.shape)",
            "sum_to(alpha * dy, other.shape) * (other.size / max(dy.size, 1))",
        ),
        Mutant("broadcast", "sum_to(dy, x.shape)", "dy[(0,) * (dy.ndim - x.ndim)]"),
        Mutant(
            "layout",
            "return sum_to(dy, x.shape)",
            'memory = dy.base if getattr(dy.base, "shape", None) == dy.shape else dy\n'
            "        return sum_to(memory, x.shape)",
        ),
    ],
    "mul": [
        Mutant(
            "swapped",
            "sum_to(dy * other, x.shape), sum_to(dy * x, other.shape)",
            "sum_to(dy * x, x.shape), sum_to(dy * other, other.shape)",
        ),
        Mutant(
            "shape", "sum_to(dy * x, other.shape)", "np.atleast_1d(sum_to(dy * x, other.shape))"
        ),
    ],
    "div": [
        Mutant("sign", "sum_to(-dy * y / other,", "sum_to(dy * y / other,"),
        Mutant("broadcast", "dx = sum_to(dy / other, x.shape)", "dx = dy / other"),
        Mutant(
            "mutation",
            "dx = sum_to(dy / other, x.shape)",
            "dy = np.divide(dy, other, out=dy if dy.flags.writeable else None)\n"
            "        dx = sum_to(dy, x.shape)",
        ),
    ],
    "maximum": [
        Mutant(
            "kink",
            "dx = np.where(x == other, dy / 2, np.where(x > other, dy, 0))\n"
            "        dother = np.where(x == other, dy / 2, np.where(x < other, dy, 0))",
            "dx = np.where(x >= other, dy, 0)\n        dother = np.where(x >= other, 0, dy)",
        ),
        Mutant(
            "swapped",
            "sum_to(dx, x.shape), sum_to(dother, other.shape)",
            "sum_to(dother, x.shape), sum_to(dx, other.shape)",
            frozen=True,
        ),
    ],
    "pow": [
        Mutant("factor", "dy * exponent * x", "dy * x"),
        Mutant("sign", "y = x**exponent", "y = abs(x) ** exponent", frozen=True),
    ],
    "prod": [
        Mutant(
            "shape",
            "return np.moveaxis(dy[..., np.newaxis] * others, -1, dim)",
            "return np.moveaxis(dy[..., np.newaxis] * others, -1, dim).squeeze()",
        ),
        Mutant("sign", "dy[..., np.newaxis] * others", "dy[..., np.newaxis] * abs(others)"),
        Mutant(
            "range",
            "np.where(itself, 1, rows[..., np.newaxis, :]).prod(-1)",
            "y[..., np.newaxis] / rows",
            frozen=True,
        ),  # 0 / 0
    ],
    "cumsum": [
        Mutant("misplaced", "np.flip(backward, dim)", "backward"),
        Mutant("misplaced", "np.flip(backward, dim)", "np.roll(np.flip(backward, dim), 1, dim)"),
        Mutant("missing term", "np.flip(backward, dim)", "(np.flip(backward, dim) - dy)"),
        Mutant(
            "mutation",
            "backward = np.flip(np.atleast_1d(dy), dim).cumsum(dim)",
            "backward = np.flip(np.atleast_1d(dy if dy.flags.writeable else dy.copy()), dim)\n"
            "        backward.cumsum(dim, out=backward)",
            frozen=True,
        ),
    ],
    "amax": [
        Mutant("kink", "picked = x == top", "picked = (x == top) & ((x == top).cumsum(dim) == 1)"),
        Mutant("kink", "dy.reshape(top.shape) / count", "dy.reshape(top.shape)"),
        Mutant("dtype", "keepdims=True, dtype=x.dtype)", "keepdims=True)"),
    ],
    "var": [
        Mutant("factor", "* 2 * d / (n - correction)", "* 2 * d / n"),
        Mutant("dtype", "* 2 * d /", "* np.float64(2) * d /"),
        Mutant(
            "layout",
            "return np.expand_dims(dy, dim) * 2 * d /",
            'd_ = d.ravel(order="K").reshape(x.shape)\n'
            "        return np.expand_dims(dy, dim) * 2 * d_ /",
        ),
    ],
    "std": [
        Mutant("factor", "dy / (2 * np.where(y > 0, y, 1))", "dy / np.where(y > 0, y, 1)"),
        Mutant(
            "kink",
            "np.where(y > 0, dy / (2 * np.where(y > 0, y, 1)), 0)",
            "dy / (2 * y)",
            frozen=True,
        ),
    ],
    "huber_loss": [
        Mutant("range", "derror = spread(dy) * c", "derror = spread(dy) * np.clip(e, -1, 1)"),
        Mutant(
            "factor", "derror = spread(dy) * c", "derror = spread(dy) * (c / delta)", frozen=True
        ),
    ],
    "smooth_l1_loss": [
        Mutant("factor", "derror = spread(dy) * (c / beta)", "derror = spread(dy) * c"),
        Mutant(
            "precision", "spread(dy) * (c / beta)", "spread(dy) * (c / beta).astype(np.float16)"
        ),
    ],
    "l1_loss": [
        Mutant("kink", "np.sign(e)", "np.where(e >= 0, 1, -1).astype(e.dtype)"),
        Mutant("factor", "spread(dy) * np.sign(e)", "dy * np.sign(e)"),
        Mutant("cotangent", "spread(dy)", "spread(np.ones_like(dy))"),
    ],
    "kl_div": [
        Mutant("missing term", "(log_t + 1 - x)", "(log_t - x)"),
        Mutant("missing term", "(target + 1 - x)", "(target - x)"),
        Mutant("factor", '"mean", x.shape[0])', '"mean")'),
        Mutant(
            "swapped",
            "return dx, sum_to(dterm * (log_t + 1 - x), target.shape)",
            "return sum_to(dterm * (log_t + 1 - x), target.shape), dx",
        ),
        Mutant("range", "np.where(t > 0, t, math.nan)", "np.maximum(t, 1e-6)", frozen=True),
    ],
    "nll_loss": [
        Mutant("factor", ", reduction, int(counted.sum()))", ", reduction)"),
        Mutant(
            "mutation",
            "    t = np.where(counted, target, -1)",
            "    if target.flags.writeable:\n"
            "        target[~counted] = -1\n"
            "    t = np.where(counted, target, -1)",
            frozen=True,
        ),
    ],
    "embedding": [
        Mutant("overwritten", "np.add.at(dweight, input, dy)", "dweight[input] = dy"),
        Mutant("overwritten", "np.add.at(dweight, input, dy)", "dweight[input] += dy"),
        Mutant("dtype", "np.zeros(weight.shape, weight.dtype)", "np.zeros(weight.shape)"),
        Mutant("misplaced", "np.add.at(dweight, input, dy)", "np.add.at(dweight, input - 1, dy)"),
        Mutant(
            "missing term",
            "        if padding_idx is not None:\n            dweight[padding_idx] = 0\n",
            "",
            frozen=True,
        ),
    ],
    "index_select": [
        Mutant(
            "overwritten",
            "np.add.at(np.moveaxis(dx, dim, 0), index, np.moveaxis(dy, dim, 0))",
            "np.moveaxis(dx, dim, 0)[index] += np.moveaxis(dy, dim, 0)",
        ),
        Mutant(
            "state",
            "    def pullback(dy):\n        dx = np.zeros(x.shape, x.dtype)\n",
            "    dx = np.zeros(x.shape, x.dtype)\n\n    def pullback(dy):\n",
        ),
    ],
    "gather": [
        Mutant("overwritten", "np.add.at(dx, tuple(place), dy)", "dx[tuple(place)] += dy"),
        Mutant(
            "state",
            "dx = np.zeros(x.shape, x.dtype)",
            "dx = gather.__dict__.setdefault((x.shape, x.dtype), np.zeros(x.shape, x.dtype))\n"
            "        dx[...] = 0",
            frozen=True,
        ),  # one buffer for all calls
    ],
    "conv1d": [
        Mutant(
            "overwritten",
            "scattered[..., k] += dwindows[..., k]",
            "scattered[..., k] = dwindows[..., k]",
        ),
        Mutant(
            "misplaced",
            'dweight = np.einsum("not,nctk->ock", dy, windows)',
            'dweight = np.einsum("not,nctk->ock", dy, windows)[..., ::-1]',
        ),
        Mutant("broadcast / factor", "dy.sum((0, 2))", "dy.sum(2).mean(0)"),
        Mutant("shape", "dy.sum((0, 2))", "dy.sum((0, 2))[:, np.newaxis]"),
    ],
    "avg_pool1d": [
        Mutant("overwritten", "scattered[..., k] +=", "scattered[..., k] ="),
        Mutant("factor", "+= dy / kernel_size", "+= dy / stride"),
        Mutant("shape", "return dx", "return dx[..., : dy.shape[-1] * stride]", frozen=True),
    ],
    "mish": [
        Mutant(
            "missing term", "dy * (tau + x * expit(x) * (1 - tau * tau))", "dy * tau", frozen=True
        ),
        Mutant("range", "np.logaddexp(0, x)", "np.log1p(np.exp(np.clip(x, -10, 10)))", frozen=True),
        Mutant(
            "precision",
            "np.logaddexp(0, x)",
            "np.logaddexp(0, x.astype(np.float16)).astype(x.dtype)",
            frozen=True,
        ),
    ],
    "clamp": [
        Mutant("kink", "if CLAMPS_TO_0", "if not CLAMPS_TO_0", frozen=True),
        Mutant("range", "np.where(inside, dy, 0)", "np.where(x <= max, dy, 0)", frozen=True),
        Mutant(
            "layout",
            "return np.where(inside, dy, 0)",
            "dx = np.zeros_like(x)\n"
            "        dx.reshape(-1)[:] = np.where(inside, dy, 0).reshape(-1)\n"
            "        return dx",
            frozen=True,
        ),
    ],
    "glu": [
        Mutant(
            "misplaced",
            "np.concatenate([da, db], dim)",
            "np.stack([da, db], -1).reshape(x.shape)",
            frozen=True,
        ),
        Mutant("cotangent", "db = dy * a * expit(b)", "db = a * expit(b)", frozen=True),
        Mutant("sign", "* expit(-b)", "* (expit(b) - 1)", frozen=True),
    ],
    "logaddexp": [
        Mutant("range", "np.logaddexp(x, other)", "np.log(np.exp(x) + np.exp(other))", frozen=True),
        Mutant(
            "broadcast",
            "sum_to(dy * expit(other - x), other.shape)",
            "(dy * expit(other - x)).sum(tuple(range(dy.ndim - other.ndim)))",
            frozen=True,
        ),
    ],
    "lerp": [
        Mutant(
            "missing term", "sum_to(dy * (1 - weight), x.shape)", "sum_to(dy, x.shape)", frozen=True
        ),
        Mutant(
            "broadcast",
            "sum_to(dy * (end - x), weight.shape)",
            "np.full_like(weight, (dy * (end - x)).sum())",
            frozen=True,
        ),
        Mutant("swapped", "return dx, dend, dweight", "return dend, dx, dweight", frozen=True),
        Mutant(
            "sign",
            "sum_to(dy * (end - x), weight.shape)",
            "sum_to(dy * (x - end), weight.shape)",
            frozen=True,
        ),
    ],
    "group_norm": [
        Mutant("broadcast", "sum_to(dy, channels).reshape(C)", "dy.sum(0)", frozen=True),
        Mutant(
            "layout", "dhat.reshape(rows.shape)", 'dhat.reshape(rows.shape, order="A")', frozen=True
        ),
        Mutant(
            "missing term",
            "(dhat - dhat.mean(-1, keepdims=True) - along) / sigma",
            "dhat / sigma",
            frozen=True,
        ),
        Mutant(
            "precision",
            "rows.mean(-1, keepdims=True)",
            "rows.mean(-1, keepdims=True, dtype=np.float32)",
            frozen=True,
        ),
    ],
    "pairwise_distance": [
        Mutant("factor", "dd = dy[..., np.newaxis]", "dd = 2 * dy[..., np.newaxis]", frozen=True),
        Mutant("shape", "y = norm[..., 0]", "y = norm", frozen=True),
        Mutant(
            "dtype",
            "sum(-1, keepdims=True)",
            "sum(-1, keepdims=True, dtype=np.float64)",
            frozen=True,
        ),
    ],
    "margin_ranking_loss": [
        Mutant("kink", "if CLAMPS_TO_0", "if not CLAMPS_TO_0", frozen=True),
        Mutant("factor", "np.where(lost, spread(dy), 0)", "np.where(lost, dy, 0)", frozen=True),
        Mutant(
            "range",
            "np.where(lost, spread(dy), 0)",
            "np.where(target * (x1 - x2) <= 0, spread(dy), 0)",
            frozen=True,
        ),
        Mutant(
            "dtype",
            "np.where(lost, spread(dy), 0)",
            "spread(dy) * lost.astype(float)",
            frozen=True,
        ),
    ],
    "bilinear": [
        Mutant("transpose", '"...o,oij,...j->...i"', '"...o,oji,...j->...i"', frozen=True),
        Mutant("swapped", "_present(dx1, dx2, ", "_present(dx2, dx1, ", frozen=True),
    ],
    "max_pool1d": [
        Mutant(
            "kink",
            "windows.argmax(-1)",
            "kernel_size - 1 - windows[..., ::-1].argmax(-1)",
            frozen=True,
        ),
        Mutant(
            "overwritten",
            "scattered[..., k] += np.where(winner == k, dy, 0)",
            "np.copyto(scattered[..., k], dy, where=winner == k)",
            frozen=True,
        ),
        Mutant("misplaced", "winner == k", "winner == kernel_size - 1 - k", frozen=True),
    ],
    "diff": [
        Mutant("missing term", "        rows[:-1] -= drows\n", "", frozen=True),
        Mutant("overwritten", "rows[:-1] -= drows", "rows[:-1] = -drows", frozen=True),
        Mutant("sign", "rows[:-1] -= drows", "rows[:-1] += drows", frozen=True),
        Mutant(
            "state",
            "dx = np.zeros(x.shape, x.dtype)",
            "dx = diff.__dict__.setdefault((x.shape, x.dtype), np.zeros(x.shape, x.dtype))",
            frozen=True,
        ),
    ],
}
