"""What is done for many points together is what each does alone."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from gradtwin.comparisons.training.cells import MODELS, OPTIMIZERS, Cell, start
from gradtwin.comparisons.training.datasets import load
from gradtwin.comparisons.training.loop import by_hand, by_torch, gradients_at, stepped
from gradtwin.comparisons.verdict.classes import IDENTICAL, ROUNDING
from gradtwin.comparisons.verdict.judge import judge
from gradtwin.comparisons.verdict.noise import moved

DATA = {"regression": "diabetes", "binary": "breast_cancer", "multiclass": "digits"}
CELLS = [
    Cell(
        model, DATA[task], "sgd", 0.1, hidden=(7, 5), steps=12, regime="mini-batch", batch_size=200
    )
    for model in ("linear_regression", "logistic_regression", "mlp")
    for task in MODELS[model].losses
]
SMALL = {
    **{f"char_{network}": {"embedding": 3, "width": 4} for network in ("rnn", "lstm", "gru")},
    "gpt": {"width": 8, "dropout": 0.25},
    "llama": {"width": 8, "feed_forward": 12},
}
TEXT = [
    Cell(
        *(model, "text", "sgd", 0.1),
        **{"regime": "mini-batch", "batch_size": 3, "steps": 12, "size": {**size, "context": 5}},
    )
    for model, size in SMALL.items()
]
ACTIVE = [
    replace(CELLS[-1], activation=name)
    for name in ("sigmoid", "relu", "leaky_relu", "elu", "gelu", "silu", "mish", "softplus")
]

SOME = [
    pytest.param(c, marks=[] if c.model in ("char_rnn", "gpt") else pytest.mark.sweep) for c in TEXT
]


def points(cell, many=9):
    """Parameters that differ, each with a batch of its own; the last of an epoch is smaller."""
    data = load(cell.data)
    side, rng = by_torch(cell, data), np.random.default_rng(0)
    parameters = start(cell)
    found = [(moved(parameters, 1e-3, rng), *side.batch(t)) for t in range(many)]
    return side, found


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "cell", [*CELLS, *ACTIVE, *SOME], ids=lambda c: f"{c.model}-{c.loss}-{c.activation}"
)
def test_gradients_at_many_points_are_those_at_each(cell, dtype):
    """Within the floor; and no two points give the same."""
    side, chosen = points(replace(cell, dtype=dtype))

    def results(point):
        return named(*side.gradient(*point))

    assert cell.data == "text" or len({x.shape for _, x, _ in chosen}) == 2
    together = gradients_at(side, chosen)
    for found, point in zip(together, chosen, strict=True):
        verdicts = judge(lambda _, f=found: named(*f), results, point, np.dtype(dtype))
        kinds = {name: v.kind for name, v in verdicts.items()}
        assert {*kinds.values()} <= {IDENTICAL, ROUNDING}, kinds
    assert len({float(loss) for loss, _ in together}) == len(chosen)


def named(loss, gradients):
    return {"loss": np.asarray(loss), **gradients}


def test_a_side_that_cannot_is_asked_for_each():
    cell = CELLS[-1]
    _, chosen = points(cell)
    side = by_hand(cell, load(cell.data))
    assert not side.together
    for found, point in zip(gradients_at(side, chosen), chosen, strict=True):
        assert found[0] == side.gradient(*point)[0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_many_steps_are_each_step_to_the_bit(name):
    cell = replace(CELLS[-1], optimizer=name, lr=0.01)
    side, chosen = points(cell)
    many = [
        (params, side.gradient(params, *rest)[1], {name: {} for name in params})
        for params, *rest in chosen
    ]
    for _ in range(2):
        new = stepped(side, many, cell.all_settings)
        for (params, states), trees in zip(new, many, strict=True):
            params_alone, states_alone = side.step(*trees, cell.all_settings)
            for key, p in params_alone.items():
                assert params[key].tobytes() == p.tobytes()
                assert states[key].keys() == states_alone[key].keys()
        many = [(p, g, s) for (p, s), (_, g, _) in zip(new, many, strict=True)]
    weights = [params["0.weight"] for params, _ in new]
    assert not any(np.array_equal(a, b) for a, b in itertools.combinations(weights, 2))
