"""Dialects: where papers and frameworks write the same optimizer differently.

Each is data: the lines of its rule that differ, what stands there instead, and who
writes it so. `variant` makes the optimizer of them.
"""

import inspect
from dataclasses import dataclass, field

from . import optimizers


@dataclass(frozen=True)
class Dialect:
    """One deviation of one optimizer. Of those about the same thing, only one can hold."""

    optimizer: str
    about: str
    name: str
    lines: dict = field(hash=False)  # a line as it stands: what stands there instead
    source: str


def of(optimizer):
    """The dialects of the optimizer of this name."""
    return [d for d in DIALECTS if d.optimizer == optimizer]


def variant(optimizer, *dialects):
    """The optimizer of this name with the lines of those dialects.

    Raises ValueError if a dialect is another optimizer's, or if its line does not stand there once.
    """
    rule = getattr(optimizers, optimizer)
    source = inspect.getsource(rule)
    for dialect in dialects:
        if dialect.optimizer != optimizer:
            raise ValueError(f"dialects: expected those of {optimizer}, got {dialect}")
        for line, instead in dialect.lines.items():
            if source.count(line + "\n") != 1:
                raise ValueError(f"dialects: {line!r} does not stand in {optimizer} once")
            source = source.replace(line + "\n", instead + "\n")
    scope = dict(vars(inspect.getmodule(rule)))
    exec(compile(source, f"<{optimizer}>", "exec"), scope)
    return scope[optimizer]


COUPLED = "g = direction(p, g, weight_decay, maximize)"
COUPLED_SGD = "d = direction(p, g, weight_decay, maximize)"
NO_LR = "without lr: p shrinks by 1 − λ"
KERAS = "Keras, weight_decay of every optimizer"
LOSHCHILOV = "Loshchilov & Hutter, 2019, arXiv:1711.05101"


def _decays(optimizer, line):
    """What `line`, which adds λ p to the gradient, becomes where the decay is decoupled."""
    made, plain = line.split(" = ")[0], line.replace("weight_decay", "0.0").split(" = ")[1]
    return [
        Dialect(optimizer, "decay", name, {line: f"p, {made} = p * (1 - {rate}), {plain}"}, source)
        for name, rate, source in (
            ("decoupled: p shrinks by 1 − lr λ", "lr * weight_decay", f"{LOSHCHILOV}; {KERAS}"),
            (NO_LR, "weight_decay", f"{LOSHCHILOV}, where the step's α does not scale λ"),
        )
    ]


def _without_lr(optimizer, array="p"):
    """A decay that is decoupled already, of the rate too."""
    shrunk = f"{array} = {array} * (1 - lr * weight_decay)"
    lines = {shrunk: shrunk.replace("lr * ", "")}
    source = "optax" if optimizer == "adafactor" else f"{LOSHCHILOV}, where α does not scale λ"
    return Dialect(optimizer, "decay", NO_LR, lines, source)


DIALECTS = [
    Dialect(
        "sgd",
        "momentum",
        "the buffer holds lr d: a new lr acts on new gradients alone",
        {
            COUPLED_SGD: f"d = lr * {COUPLED_SGD.split(' = ')[1]}",
            "return (p - lr * d,)": "return (p - d,)",
            "return p - lr * (d + momentum * b if nesterov else b), b": (
                "return p - (d + momentum * b if nesterov else b), b"
            ),
        },
        "Sutskever, Martens, Dahl & Hinton, 2013; Keras",
    ),
    Dialect(
        "sgd",
        "start",
        "the first gradient is dampened like all others",
        {
            "b = momentum * b + (1 - dampening) * d if begun else d": (
                "b = momentum * b + (1 - dampening) * d"
            )
        },
        "a running mean from 0, as optax.ema",
    ),
    *_decays("sgd", COUPLED_SGD),
    Dialect(
        "adagrad",
        "ε",
        "inside the root",
        {
            "return p - rate * (g / (np.sqrt(s) + eps)), s": (
                "return p - rate * (g / np.sqrt(s + eps)), s"
            )
        },
        "Keras; optax",
    ),
    *_decays("adagrad", COUPLED),
    Dialect(
        "rmsprop",
        "ε",
        "inside the root",
        {"d = g / (np.sqrt(variance) + eps)": "d = g / np.sqrt(variance + eps)"},
        "TensorFlow; Keras; optax",
    ),
    Dialect(
        "rmsprop",
        "start",
        "the mean of squares starts at 1",
        {
            "start = dict.fromkeys(kept, 0.0)": (
                'start = dict.fromkeys(kept, 0.0) | {"square_avg": 1.0}'
            )
        },
        "TensorFlow 1, tf.train.RMSPropOptimizer",
    ),
    *_decays("rmsprop", COUPLED),
    *_decays("adadelta", COUPLED),
    Dialect(
        "adam",
        "ε",
        "before the bias correction",
        {
            "return p - rate * (m / (spread + eps)), m, v, *largest": (
                "return p - rate * (m / (spread + eps / root)), m, v, *largest"
            )
        },
        "Kingma & Ba, 2015, end of section 2; TensorFlow; Keras",
    ),
    Dialect(
        "adam",
        "ε",
        "inside the root",
        {
            "return p - rate * (m / (spread + eps)), m, v, *largest": (
                "return p - rate * (m / np.sqrt(spread * spread + eps)), m, v, *largest"
            )
        },
        "optax, eps_root",
    ),
    Dialect(
        "adam",
        "maximum",
        "of the corrected v̂",
        {
            "largest = [np.maximum(vmax, v) for vmax in largest]": (
                "largest = [np.maximum(vmax, v / root**2) for vmax in largest]"
            ),
            "spread = np.sqrt(largest[0] if amsgrad else v) / root": (
                "spread = np.sqrt(largest[0]) if amsgrad else np.sqrt(v) / root"
            ),
        },
        "optax.amsgrad",
    ),
    Dialect(
        "adam",
        "correction",
        "none for the start at 0",
        {
            "rate, root = lr / (1 - beta1**t), math.sqrt(1 - beta2**t)": "rate, root = lr, 1.0",
        },
        "Devlin, Chang, Lee & Toutanova, 2019, the code of BERT; Reddi, Kale & Kumar, 2018",
    ),
    _without_lr("adam"),
    Dialect(
        "adamax",
        "ε",
        "added to u when it divides",
        {
            "u = np.maximum(beta2 * u, abs(g) + eps)": "u = np.maximum(beta2 * u, abs(g))",
            "return p - rate * (m / u), m, u": "return p - rate * (m / (u + eps)), m, u",
        },
        "Keras",
    ),
    *_decays("adamax", COUPLED),
    Dialect(
        "nadam",
        "schedule",
        "constant momentum",
        {
            "mu, ahead = (beta1 * (1 - 0.5 * 0.96 ** (n * momentum_decay)) for n in (t, t + 1))": (
                "mu = ahead = beta1"
            )
        },
        "optax",
    ),
    Dialect(
        "nadam",
        "v̂",
        "times β₂",
        {"corrected = 1 - beta2**t": "corrected = (1 - beta2**t) / beta2"},
        "Dozat, 2016, algorithm 2",
    ),
    _without_lr("nadam"),
    Dialect(
        "radam",
        "ε",
        "after the bias correction",
        {
            "return p - rate * (m / (np.sqrt(v) + eps) if adaptive else m), m, v": (
                "return p - rate * (m / (np.sqrt(v) + eps * math.sqrt(corrected)) if adaptive "
                "else m), m, v"
            )
        },
        "optax",
    ),
    Dialect(
        "radam",
        "warm-up",
        "until ρ > 4",
        {"if adaptive := rho > 5:": "if adaptive := rho > 4:"},
        "Liu et al., 2020, algorithm 2; 5 is in the authors' code",
    ),
    _without_lr("radam"),
    Dialect(
        "rprop",
        "turn",
        "an element whose sign turned does not wait",
        {"g = np.where(trend < 0, 0, g)": "pass"},
        "Rprop−, as named by Igel & Hüsken, 2000; torch's is their iRprop−",
    ),
    Dialect(
        "rprop",
        "delay",
        "each step is that of the gradient before, unless the sign turns now",
        {
            "trend = g * before": (
                "trend, late = g * before, np.where(g * before < 0, 0, np.sign(before) * size)"
            ),
            "return p - np.sign(g) * size, g, size": "return p - late, g, size",
        },
        "optax 0.2.8",
    ),
    *_decays("asgd", COUPLED),
    Dialect(
        "adafactor",
        "ε₁",
        "added to the squares",
        {
            "rows, columns = _mean_square(g, -1), _mean_square(g, -2)": (
                "rows, columns = _mean_square(g, -1) + least, _mean_square(g, -2) + least"
            ),
            "squares = g * g": "squares = g * g + least",
            "np.maximum(v, least * least, out=v)": "pass",
        },
        "Shazeer & Stern, 2018, algorithms 4 and 5; Keras; optax",
    ),
    Dialect(
        "adafactor",
        "rate",
        "lr at every step",
        {
            "alpha = max(eps[1], _rms(param)) * min(lr, 1 / math.sqrt(t))": (
                "alpha = max(eps[1], _rms(param)) * lr"
            )
        },
        "optax",
    ),
    _without_lr("adafactor", "param"),
    Dialect(
        "muon",
        "precision",
        "that of the parameter",
        {"rounded = _bfloat16": "rounded = np.asarray"},
        "Keras; optax.contrib",
    ),
]
