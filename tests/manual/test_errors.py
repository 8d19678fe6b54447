"""Bad calls: where torch raises so do we, and say which argument, what came, what was expected."""

import re

import numpy as np
import pytest
from gradtwin.comparisons.ops import evaluate
from gradtwin.comparisons.samples.models.text import gpt_parameters, llama_parameters
from gradtwin.comparisons.training.cells import Cell
from gradtwin.comparisons.training.datasets import Data

from gradtwin import manual, reference

X, T = np.ones((3, 4)), np.array([0, 1, 3])
HALF = np.full((3, 4), 0.5)
W, B = np.ones((5, 4)), np.ones(5)

# op, arguments, settings, exception, what its text must hold
BAD = [
    ("linear", (X, np.ones((5, 3))), {}, ValueError, "x: expected 3 features"),
    ("linear", (X, np.ones((2, 5, 4))), {}, ValueError, "weight: expected 1 or 2 axes"),
    (
        "linear",
        (X, W, np.ones(4)),
        {},
        ValueError,
        "bias: expected a shape that broadcasts to (3, 5)",
    ),
    ("linear", (X, W.astype(np.float32)), {}, TypeError, "weight: expected the dtype of x"),
    ("mse_loss", (X, np.ones(3)), {}, ValueError, "target: expected a shape that broadcasts"),
    ("mse_loss", (X, X), {"reduction": "avg"}, ValueError, "reduction: expected 'none', 'mean'"),
    ("mse_loss", (X, X), {"weight": np.ones(4)}, ValueError, "weight: expected the shape of x"),
    ("binary_cross_entropy", (HALF, np.ones(4)), {}, ValueError, "target: expected the shape of x"),
    ("binary_cross_entropy", (2 * X, X), {}, ValueError, "x: expected values from 0 to 1, got 2.0"),
    ("binary_cross_entropy", (HALF, -X), {}, ValueError, "target: expected values from 0 to 1"),
    (
        "binary_cross_entropy",
        (np.nan * X, X),
        {},
        ValueError,
        "x: expected values from 0 to 1, got nan",
    ),
    (
        "binary_cross_entropy",
        (HALF, HALF, np.ones((3, 1, 1))),
        {},
        ValueError,
        "weight: expected a shape",
    ),
    (
        "binary_cross_entropy",
        (HALF, np.ones((3, 4), int)),
        {},
        TypeError,
        "target: expected a floating",
    ),
    (
        "binary_cross_entropy_with_logits",
        (X, np.ones(4)),
        {},
        ValueError,
        "target: expected the shape",
    ),
    (
        "binary_cross_entropy_with_logits",
        (X, X),
        {"pos_weight": np.ones(3)},
        ValueError,
        "pos_weight: ",
    ),
    ("cross_entropy", (X, np.array([0, 1, 5])), {}, IndexError, "classes from 0 to 3, got 5"),
    ("cross_entropy", (X, np.array([0, 1, -1])), {}, IndexError, "classes from 0 to 3, got -1"),
    ("cross_entropy", (X, np.array([0, 1])), {}, ValueError, "target: expected shape (3,)"),
    ("cross_entropy", (X, T.astype(np.int32)), {}, TypeError, "target: expected class indices"),
    (
        "cross_entropy",
        (X, T, np.ones(3)),
        {},
        ValueError,
        "weight: expected one number for each of 4",
    ),
    (
        "cross_entropy",
        (X, T),
        {"label_smoothing": 1.5},
        ValueError,
        "label_smoothing: expected at most 1, got",
    ),
]


def op_named(side, op):
    family = "linear" if op == "linear" else "losses"
    return getattr(getattr(side, family), op)


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize(("op", "args", "kwargs", "error", "text"), BAD)
def test_a_bad_call_is_refused_in_words(op, args, kwargs, error, text):
    with pytest.raises((RuntimeError, ValueError, TypeError, IndexError)):
        op_named(reference, op)(*args, **kwargs)
    with pytest.raises(error, match=re.escape(text)):
        op_named(manual, op)(*args, **kwargs)


@pytest.mark.parametrize("op", ["sigmoid", "tanh", "relu"])
def test_integers_are_refused(op):
    with pytest.raises(TypeError, match="x: expected a floating array, got dtype int64"):
        getattr(manual.activations, op)(np.arange(3))


def test_a_broadcast_target_is_computed_as_torch_does():
    x, target, dy = np.arange(12.0).reshape(3, 4), np.arange(4.0), np.array(0.7)
    found = evaluate.judge_inputs("mse_loss", ((x, target), {}, dy), "float64")
    assert list(found) == ["value", "x", "target"]
    assert {v.kind for v in found.values()} <= {"identical", "rounding"}


def test_models_name_what_is_missing():
    with pytest.raises(ValueError, match=r"parameters: expected the entries .* got \['weight'\]"):
        manual.models.linear_regression({"weight": W}, X)
    with pytest.raises(ValueError, match="unknown activation 'rleu': did you mean relu"):
        manual.models.mlp({"0.weight": W, "0.bias": B}, X, activation="rleu")


GOOD = {"model": "mlp", "data": "digits", "optimizer": "sgd", "lr": 0.1}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"model": "mpl"}, "unknown model 'mpl': did you mean mlp"),
        ({"lr": -1.0}, "lr: expected at least 0, got -1.0"),
        ({"lr": float("nan")}, "lr: expected a finite number, got nan"),
        ({"steps": 0}, "steps: expected at least 1, got 0"),
        ({"batch_size": 0}, "batch_size: expected at least 1"),
        ({"dtype": "float16"}, "unknown dtype 'float16': did you mean float64 or float32"),
        ({"seed": -1}, "seed: expected at least 0"),
        ({"hidden": (0,)}, "hidden: expected widths"),
        ({"activation": "swish"}, "unknown activation 'swish'"),
        (
            {"settings": {"momentun": 0.9}},
            "momentun: no setting of sgd; its settings are lr, momentum",
        ),
        ({"settings": {"momentum": -0.9}}, "momentum: expected at least 0"),
        ({"model": "logistic_regression"}, "logistic_regression needs binary data, and digits is"),
    ],
)
def test_a_bad_cell_is_refused_in_words(change, text):
    with pytest.raises(ValueError, match=text):
        Cell(**{**GOOD, **change})


def test_data_with_nan_is_refused():
    x = np.ones((3, 2))
    x[1, 0] = np.nan
    with pytest.raises(
        ValueError, match=r"x of mine: expected finite numbers, got nan at \[1, 0\]"
    ):
        Data("mine", x, np.ones((3, 1)), "regression", 1)
    with pytest.raises(ValueError, match="N targets"):
        Data("mine", np.ones((3, 2)), np.ones((2, 1)), "regression", 1)


GPT = {name: a.draw(np.random.default_rng(0), float) for name, a in gpt_parameters().items()}
LLAMA = {name: a.draw(np.random.default_rng(0), float) for name, a in llama_parameters().items()}
TOKENS = np.zeros((2, 3), np.int64)


@pytest.mark.parametrize(
    ("model", "change", "given", "words"),
    [
        ("gpt", {"transformer.ln_f.bias": None}, {}, "parameters: expected 16 entries, got no"),
        ("gpt", {"transformer.wte.weight": None}, {}, "an entry transformer.wte.weight"),
        ("gpt", {"lm_head.bias": np.zeros(5)}, {}, "got also lm_head.bias"),
        ("gpt", {"transformer.h.0.ln_1.bias": np.zeros(3)}, {}, r"ln_1.bias: expected shape \(4\)"),
        ("gpt", {}, {"tokens": TOKENS[0]}, r"tokens: expected \(N, T\), T from 1 to 3, got"),
        ("gpt", {}, {"tokens": np.zeros((2, 4), np.int64)}, "tokens: expected"),
        ("gpt", {}, {"heads": 3}, "heads: expected a divisor of 4, got 3"),
        ("llama", {}, {"heads": 4}, "heads: expected heads of even width, got 4 of 1"),
        ("llama", {}, {"theta": 0.0}, "theta: expected above 0, got 0.0"),
        ("llama", {"model.norm.weight": np.zeros(5)}, {}, r"norm.weight: expected shape \(4\)"),
    ],
)
def test_models_of_text_name_what_does_not_fit(model, change, given, words):
    whole = {**(GPT if model == "gpt" else LLAMA), **change}
    parameters = {name: a for name, a in whole.items() if a is not None}
    arguments = {"tokens": TOKENS, "heads": 2, **given}
    with pytest.raises(ValueError, match=words):
        getattr(manual.models, model)(parameters, **arguments)


def test_models_of_text_refuse_other_types():
    with pytest.raises(TypeError, match="parameters: expected a dict"):
        manual.models.gpt([], TOKENS, 2)
    with pytest.raises(TypeError, match="input: expected indices"):
        manual.models.gpt(GPT, TOKENS.astype(float), 2)
    with pytest.raises(IndexError, match="input: expected indices from 0 to 4"):
        manual.models.gpt(GPT, TOKENS + 5, 2)
    mixed = {**GPT, "transformer.ln_f.bias": np.zeros(4, np.float32)}
    with pytest.raises(TypeError, match=r"ln_f\.bias: expected"):
        manual.models.gpt(mixed, TOKENS, 2)
