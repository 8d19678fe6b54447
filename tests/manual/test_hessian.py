"""Hessian-vector products of the models, on real data: against torch's, and symmetric."""

import numpy as np
import pytest
from gradtwin.comparisons import ops
from gradtwin.comparisons.ops import arguments, evaluate
from gradtwin.comparisons.training.cells import MODELS, Cell, start
from gradtwin.comparisons.training.datasets import DATASETS, load
from gradtwin.comparisons.verdict import judge
from gradtwin.comparisons.verdict.classes import DIFFERENT, DTYPES, IDENTICAL, ROUNDING

from gradtwin import manual

ROWS = 24  # how many rows of the data are used
RIGHT = {IDENTICAL, ROUNDING}
EVERY = [
    (model, data)
    for model in ("linear_regression", "logistic_regression", "mlp")
    for data in DATASETS
    if load(data).task in MODELS[model].losses
]


def inputs(model, data, dtype, activation="tanh"):
    """What `loss_gradient` takes, and a direction."""
    cell = Cell(model, data, "sgd", 0.1, dtype=dtype, hidden=(8,), activation=activation)
    table = load(data)
    parameters = start(cell)
    x, target = (a[:ROWS] for a in (table.x, table.target))
    x, target = (a.astype(dtype) if a.dtype.kind == "f" else a for a in (x, target))
    rng = np.random.default_rng(1)
    v = tuple(rng.standard_normal(a.shape).astype(dtype) for a in parameters.values())
    return (parameters, x, target, model, cell.loss), cell.model_settings, v


def judged(model, data, dtype):
    """The verdicts, by name. Torch's own product loses half its digits in the second slope of
    binary_cross_entropy: there it is asked for the same of the logits."""
    args, settings, v = inputs(model, data, dtype)
    ours, twin = ops.named("loss_gradient").pair
    names = arguments.argument_names(ours, args, settings, frozenset())
    composed = {"logistic_regression": ("linear_regression", "binary_cross_entropy_with_logits")}

    def reference(inputs):
        (*arrays, _, _), settings, v = inputs
        stable = *arrays, *composed.get(model, args[3:])
        return evaluate.evaluate(twin, names, (stable, settings, v))

    return judge.judge(
        lambda inputs: evaluate.evaluate(ours, names, inputs),
        reference,
        (args, settings, v),
        np.dtype(dtype),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("model", "data"), EVERY)
def test_the_product_agrees_with_torchs(model, data, dtype):
    found = judged(model, data, dtype)
    print({name: (v.kind, v.margin) for name, v in found.items()})
    assert {v.kind for v in found.values()} <= RIGHT


@pytest.mark.parametrize(("model", "data"), EVERY)
def test_the_hessian_is_symmetric_and_its_gradient_the_models(model, data):
    args, settings, v = inputs(model, data, "float64")
    parameters, x, target, _, loss = args
    gradient, pullback = manual.models.loss_gradient(*args, **settings)
    rng = np.random.default_rng(2)
    u = tuple(rng.standard_normal(a.shape) for a in v)
    hu, hv = (tuple(pullback(w)[0].values()) for w in (u, v))
    one, other, plain = (
        sum(np.sum(a * b) for a, b in zip(*pair, strict=True))
        for pair in ((u, hv), (v, hu), (u, v))
    )
    assert one == pytest.approx(other, rel=1e-9)
    assert one != pytest.approx(plain, rel=1e-3)

    y, pull_model = getattr(manual.models, model)(parameters, x, **settings)
    value, pull_loss = getattr(manual.losses, loss)(y, target)
    slopes = pull_loss(np.ones_like(value))
    composed = pull_model(slopes[0] if isinstance(slopes, tuple) else slopes)[0]
    for a, b in zip(gradient, composed.values(), strict=True):
        assert a == pytest.approx(b, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("where", "fault"),
    [
        ("_dense", lambda y, pull: (y, lambda da: tuple(0 * g for g in pull(da)))),
        ("_dense_backward", lambda y, pull: (y, lambda p, q, r: (*pull(p, q, r)[:3], 0 * r))),
        ("_loss_backward", lambda y, pull: (y, lambda dg: (-pull(dg)[0], *pull(dg)[1:]))),
    ],
)
def test_a_forgotten_part_is_seen(where, fault, monkeypatch):
    right = getattr(manual.models.dense, where)
    monkeypatch.setattr(manual.models.dense, where, lambda *args: fault(*right(*args)))
    assert DIFFERENT in {v.kind for v in judged("mlp", "digits", "float64").values()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "mlq"}, "model: expected 'linear_regression'"),
        ({"loss": "l1_loss"}, "loss: expected 'mse_loss'"),
        ({"activation": "softmax"}, "activation: expected 'sigmoid'"),
        ({"x": np.ones(64)}, r"x: expected \(N, in\)"),
        ({"target": np.array([-100] * ROWS)}, "target: expected classes, none of them ignored"),
    ],
)
def test_what_it_refuses(change, words):
    (parameters, x, target, model, loss), settings, _ = inputs("mlp", "digits", "float64")
    given = {"x": x, "target": target, "model": model, "loss": loss} | settings | change
    with pytest.raises(ValueError, match=words):
        manual.models.loss_gradient(parameters, **given)
