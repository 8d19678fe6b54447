"""Dialects: where papers and frameworks write the same optimizer differently.

Each is data: the lines of its rule that differ, what stands there instead, and who
writes it so. `variant` makes the optimizer of them.
"""

import inspect
from dataclasses import dataclass, field

from . import optimizers
from .optimizers import elsewhere


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


def rule_of(optimizer):
    """The rule of this name: of torch's optimizers, or of those that torch does not have.

    Raises AttributeError if there is none.
    """
    return getattr(optimizers, optimizer, None) or getattr(elsewhere, optimizer)


def variant(optimizer, *dialects, **helpers):
    """The optimizer of this name with the lines of those dialects, and with other helpers than
    those of its file where some are named.

    Raises ValueError if a dialect is another optimizer's, or if its line does not stand there once.
    """
    rule = rule_of(optimizer)
    source = inspect.getsource(rule)
    for dialect in dialects:
        if dialect.optimizer != optimizer:
            raise ValueError(f"dialects: expected those of {optimizer}, got {dialect}")
        for line, instead in dialect.lines.items():
            if source.count(line + "\n") != 1:
                raise ValueError(f"dialects: {line!r} does not stand in {optimizer} once")
            source = source.replace(line + "\n", instead + "\n")
    scope = dict(vars(inspect.getmodule(rule))) | helpers
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
        "sgd",
        "decay",
        "a constant: lr λ is taken off every element, whatever its size",
        {
            COUPLED_SGD: f"p, d = p - lr * weight_decay, {COUPLED_SGD.split(' = ')[1]}".replace(
                "weight_decay, maximize", "0.0, maximize"
            )
        },
        "torch_optimizer, SGDW",
    ),
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
    Dialect(
        "rmsprop",
        "momentum",
        "the buffer holds lr d: a new lr acts on new gradients alone",
        {
            'd = new["momentum_buffer"] = momentum * old["momentum_buffer"] + d': (
                'd = new["momentum_buffer"] = momentum * old["momentum_buffer"] + lr * d'
            ),
            "return p - lr * d, *new.values()": (
                "return p - (d if momentum else lr * d), *new.values()"
            ),
        },
        "TensorFlow; Keras; timm, RMSpropTF",
    ),
    Dialect(
        "rmsprop",
        "lookahead",
        "Nesterov's",
        {
            'd = new["momentum_buffer"] = momentum * old["momentum_buffer"] + d': (
                'new["momentum_buffer"] = momentum * old["momentum_buffer"] + d\n'
                '            d = d + momentum * new["momentum_buffer"]'
            )
        },
        "optax, nesterov",
    ),
    *_decays("rmsprop", COUPLED),
    *_decays("adadelta", COUPLED),
    Dialect(
        "adam",
        "ε",
        "before the bias correction",
        {
            "d = m / (spread + eps)": "d = m / (spread + eps / root)",
        },
        "Kingma & Ba, 2015, end of section 2; TensorFlow; Keras",
    ),
    Dialect(
        "adam",
        "ε",
        "inside the root",
        {
            "d = m / (spread + eps)": "d = m / np.sqrt(spread * spread + eps)",
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
        "adam",
        "decay",
        "after the step, of what it leaves",
        {
            "p = p * (1 - lr * weight_decay)": "pass",
            "return p - rate * d, m, v, *largest": (
                "left = p - rate * d\n"
                "        if decoupled_weight_decay:\n"
                "            left = left * (1 - lr * weight_decay)\n"
                "        return left, m, v, *largest"
            ),
        },
        "Wolf et al., 2020, AdamW of Hugging Face's transformers, until version 4",
    ),
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
            ),
            "total = float(product)": "total = beta1**t",
        },
        "optax",
    ),
    Dialect(
        "nadam",
        "schedule",
        "constant momentum, both parts corrected by 1 − β₁ᵗ",
        {
            "now, later = lr * (1 - mu) / (1 - total), lr * ahead / (1 - total * ahead)": (
                "now, later = (lr * part / (1 - beta1**t) for part in (1 - beta1, beta1))"
            )
        },
        "timm, NAdamW; Dahl et al., 2023, arXiv:2306.07179",
    ),
    Dialect(
        "nadam",
        "schedule",
        "its product in float64, not in float32",
        {
            "total = float(product)": (
                "total = math.prod(beta1 * (1 - 0.5 * 0.96 ** (n * momentum_decay)) "
                "for n in range(1, int(t) + 1))"
            )
        },
        "timm, NAdamLegacy",
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
    Dialect(
        "adafactor",
        "rate",
        "lr at every step, whatever the size of the parameter",
        {"alpha = max(eps[1], _rms(param)) * min(lr, 1 / math.sqrt(t))": "alpha = lr"},
        "Hugging Face's transformers, scale_parameter=False; Raffel et al., 2020, fine-tuning",
    ),
    _without_lr("adafactor", "param"),
    Dialect(
        "muon",
        "precision",
        "that of the parameter",
        {"rounded = _bfloat16": "rounded = np.asarray"},
        "Keras; optax.contrib",
    ),
    _without_lr("lion"),
    _without_lr("qhadam"),
    _without_lr("adabelief"),
    *_decays("yogi", COUPLED),
    Dialect(
        "yogi",
        "start",
        "the mean of gradients starts at 0",
        {"mean = initial_accumulator_value": "mean = 0.0"},
        "Zaheer et al., 2018",
    ),
    *_decays("adabound", COUPLED),
    Dialect(
        "lamb",
        "correction",
        "none for the start at 0",
        {"corrected1, root = 1 - beta1**t, math.sqrt(1 - beta2**t)": "corrected1 = root = 1.0"},
        "You et al., 2020, version 3; torch_optimizer",
    ),
    Dialect(
        "lamb",
        "trust",
        "1 where there is no decay",
        {
            "trust = _ratio(_norm(param), _norm(u))": (
                "trust = _ratio(_norm(param), _norm(u)) if weight_decay else 1.0"
            )
        },
        "timm",
    ),
    Dialect(
        "lars",
        "trust",
        "1 where there is no decay",
        {
            "trust = _ratio(trust_coefficient * size, slope and bottom)": (
                "trust = trust_coefficient * size / bottom if weight_decay * size * slope else 1.0"
            )
        },
        "torch_optimizer; timm",
    ),
    Dialect(
        "lars",
        "momentum",
        "the buffer holds lr d: a new lr acts on new gradients alone",
        {
            "d = trust * direction(param, grad, weight_decay, maximize)": (
                "d = lr * trust * direction(param, grad, weight_decay, maximize)"
            ),
            'return param - lr * (d + momentum * b if nesterov else b), {"momentum_buffer": b}': (
                'return param - (d + momentum * b if nesterov else b), {"momentum_buffer": b}'
            ),
        },
        "You, Gitman & Ginsburg, 2017, algorithm 1",
    ),
]
