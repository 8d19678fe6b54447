"""Mistakes in normalizations that look right: `check` finds each, and passes what is right."""

import inspect

import numpy as np
import pytest
import torch.nn.functional as F
from gradtwin.comparisons.mutants import table
from gradtwin.comparisons.mutants.corpus import Mutant
from gradtwin.manual.second_order import normalization

from gradtwin import check, manual

rng = np.random.default_rng(0)
X, W, B, MEAN = (rng.standard_normal(shape) for shape in ((4, 3, 5), 3, 3, 3))
VAR = rng.random(3)
ROWS, V = rng.standard_normal((5, 4)), rng.standard_normal(4)
TRAINING = (X, MEAN, VAR, W, B), {"training": True, "momentum": 0.3}
EVALUATION = (X, MEAN, VAR, W, B), {"training": False}


def batch_norm(
    x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5
):
    axes, shape = (0, *range(2, x.ndim)), (1, -1, *(1 for _ in x.shape[2:]))
    n = x.size // x.shape[1]
    mean, var = x.mean(axes), x.var(axes)
    if not training:
        mean, var = running_mean, running_var
    sigma = np.sqrt(var + eps).reshape(shape)
    hat = (x - mean.reshape(shape)) / sigma
    y = hat if weight is None else hat * weight.reshape(shape)
    y = y if bias is None else y + bias.reshape(shape)
    moved = ()
    if training and running_mean is not None:
        unbiased = var * (n / (n - 1))
        moved = (
            (1 - momentum) * running_mean + momentum * mean,
            (1 - momentum) * running_var + momentum * unbiased,
        )

    def pullback(dy):
        dout = dy[0] if moved else dy
        dhat = dout if weight is None else dout * weight.reshape(shape)
        dx = dhat / sigma
        if training:
            along = hat * (dhat * hat).mean(axes, keepdims=True)
            dx = (dhat - dhat.mean(axes, keepdims=True) - along) / sigma
        dweight = None if weight is None else (dout * hat).sum(axes)
        dbias = None if bias is None else dout.sum(axes)
        found = [d for d in (dx, dweight, dbias) if d is not None]
        return found[0] if len(found) == 1 else tuple(found)

    return ((y, *moved) if moved else y), pullback


def with_mistake(function, old, new):
    source = inspect.getsource(function)
    assert source.count(old) == 1
    scope = dict(vars(inspect.getmodule(function)))
    exec(source.replace(old, new), scope)
    return scope[function.__name__]


@pytest.mark.parametrize("call", [TRAINING, EVALUATION])
def test_the_right_batch_norm_passes(call):
    report = check(batch_norm, "batch_norm", *call)
    assert report.passed, report


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    ("old", "new", "call"),
    [
        ("np.sqrt(var + eps)", "(np.sqrt(var) + eps)", TRAINING),
        ("np.sqrt(var + eps)", "(np.sqrt(var) + eps)", EVALUATION),
        ("x.var(axes)", "x.var(axes, ddof=1)", TRAINING),
        ("dhat - dhat.mean(axes, keepdims=True) - along", "dhat - along", TRAINING),
        (" - along", "", TRAINING),
        ("if training:", "if False:", TRAINING),
        ("if training:", "if True:", EVALUATION),
        ("var * (n / (n - 1))", "var", TRAINING),
        ("var * (n / (n - 1))", "var * ((n - 1) / n)", TRAINING),
        ("(1 - momentum) * running_mean + momentum * mean",
         "momentum * running_mean + (1 - momentum) * mean", TRAINING),
        ("(dout * hat).sum(axes)", "(dout * x).sum(axes)", TRAINING),
        ("x.size // x.shape[1]", "len(x)", TRAINING),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("no_cause")
def test_a_mistake_in_batch_norm_is_found(old, new, call):
    report = check(with_mistake(batch_norm, old, new), "batch_norm", *call, probes=["ordinary"])
    print(report.table)
    assert not report.passed


LAYER, RMS = ((ROWS, (4,), V, V), {}), ((ROWS, (4,), V), {})
WIDE = (ROWS, (4,), V, 0.1), {}  # beside the default, that of the dtype, all else is rounding
GROUPS = (rng.standard_normal((2, 6, 3)), 2, rng.standard_normal(6), rng.standard_normal(6)), {}


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    ("op", "old", "new", "call"),
    [
        ("layer_norm", "keepdims=True) + eps)", "keepdims=True)) + eps", LAYER),
        ("layer_norm", "(centred * centred).mean(axes, keepdims=True)",
         "(centred * centred).sum(axes, keepdims=True) / (x.shape[-1] - 1)", LAYER),
        ("layer_norm", "dhat - dhat.mean(axes, keepdims=True)", "dhat", LAYER),
        ("layer_norm", "keepdims=True) - along)", "keepdims=True))", LAYER),
        ("rms_norm", "keepdims=True) + eps)", "keepdims=True)) + eps", WIDE),
        ("rms_norm", "float(np.finfo(x.dtype).eps)", "1e-5", RMS),
        ("rms_norm", "dhat - hat * (dhat * hat).mean(axes, keepdims=True)", "dhat", RMS),
        ("group_norm", "rows = x.reshape(N, num_groups, C // num_groups * math.prod(rest))",
         "rows = x.reshape(N, C // num_groups, num_groups * math.prod(rest))", GROUPS),
        ("group_norm", "dhat - dhat.mean(-1, keepdims=True)", "dhat", GROUPS),
        ("normalize", "np.where(norm > eps, (dy * y).sum(dim, keepdims=True), 0)", "0",
         ((ROWS,), {})),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("no_cause")
def test_a_mistake_in_another_is_found(op, old, new, call):
    report = check(table.planted(op, Mutant("", old, new)), op, *call, probes=["ordinary"])
    print(report.table)
    assert not report.passed


@pytest.mark.parametrize(("op", "call"), [("layer_norm", LAYER), ("rms_norm", RMS)])
def test_the_others_pass_without_it(op, call):
    report = check(table.right(op), op, *call, probes=["ordinary"])
    assert report.passed, report


SECOND = "native_layer_norm_backward"
OF_SECOND = (ROWS[::-1].copy(), ROWS, (4,), V), {}


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ddx -= r * hat * mean(p, dx)", "pass"),
        (" + a * mean(p, hat)", ""),
        ("q * hat + s", "q * hat"),
        ("q * g_seen", "np.zeros_like(hat)"),
        ("dot(g_seen, back, along)", "dot(g_seen, hat, along)"),
    ],
)
@pytest.mark.usefixtures("no_cause")
def test_a_mistake_in_second_order_is_found(monkeypatch, old, new):
    wrong = with_mistake(normalization._of_norm, old, new)
    monkeypatch.setattr(normalization, "_of_norm", wrong)
    report = check(SECOND, SECOND, *OF_SECOND, probes=["ordinary"])
    print(report.table)
    assert not report.passed


def test_what_is_right_in_second_order_passes():
    assert check(SECOND, SECOND, *OF_SECOND, probes=["ordinary"]).passed


def of_its_value(x, running_mean, running_var, weight, bias, training):
    """As torch's own function answers, without the running statistics."""
    (y, *_), pullback = manual.normalization.batch_norm(
        x, running_mean, running_var, weight, bias, training
    )
    return y, lambda dy: pullback((dy, None, None))


def test_beside_torchs_own_function_the_value_is_the_only_result():
    arguments = (X, MEAN, VAR, W, B, True)
    constant = "running_mean,running_var"
    for subject in (of_its_value, F.batch_norm):
        report = check(subject, F.batch_norm, arguments, constant=constant, probes=["ordinary"])
        assert report.passed, report

    def wrong(*args):
        y, pullback = of_its_value(*args)
        return y, lambda dy: (pullback(dy)[0] * 1.01, *pullback(dy)[1:])

    assert not check(wrong, F.batch_norm, arguments, constant=constant, probes=["ordinary"]).passed
