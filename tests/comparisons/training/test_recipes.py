"""Recipes: both sides, what people write, and faults that people make."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gradtwin.comparisons.curves.divergence import compare
from gradtwin.comparisons.training import recipes
from gradtwin.comparisons.training.cells import Cell, start
from gradtwin.comparisons.training.datasets import load
from gradtwin.comparisons.training.loop import by_hand, by_torch, objective_of, train
from gradtwin.comparisons.training.recipes import RECIPES, in_one_loop, of_model
from gradtwin.reference.adapters import array, tensor, tree_map

SIZE = {"layers": 1, "width": 8, "heads": 2, "context": 8, "dropout": 0.2}
GPT = Cell("gpt", "text", "adamw", 0.01, regime="mini-batch", batch_size=2, steps=3, size=SIZE,
           dtype="float32", recipe="gpt")  # fmt: skip
SWEEP = pytest.mark.sweep


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_step_built_anew_is_the_loop_that_people_write(recipe, monkeypatch):
    """To the bit; a scaler that grows, and one that has met infinity, among them."""
    if recipe == "gpt-float16":
        monkeypatch.setitem(RECIPES, recipe, replace(RECIPES[recipe], growth=2, exponent=22))
    cell = replace(GPT, recipe=recipe, steps=14)
    side, state = by_torch(cell, load(cell.data)), start(cell)
    own, step = in_one_loop(cell, objective_of(cell), state)
    exponents = []
    for one in train(side, state, cell.steps, cell.all_settings):
        loss = step(tree_map(tensor, one.batch))
        assert np.array_equal(one.loss, array(loss))
        exponents.append(int(one.after["recipe.exponent"]))
        for name, p in own.items():
            assert np.array_equal(one.after[name], array(p)), (one.t, name)
    if recipe == "gpt-float16":
        assert min(np.diff([22, *exponents])) == -1
        assert max(np.diff(exponents)) == 1


@pytest.mark.parametrize(
    ("recipe", "dtype"),
    [
        ("gpt", "float32"),
        pytest.param("gpt", "float64", marks=SWEEP),
        *(pytest.param(r, "float32", marks=SWEEP) for r in RECIPES if RECIPES[r].precision),
    ],
)
def test_both_sides_train_alike(recipe, dtype):
    row = compare(replace(GPT, recipe=recipe, dtype=dtype)).row
    assert row["class"] in ("identical", "rounding")
    assert f"/{recipe}/3)" in row["id"]


def normalised_wrongly(cell, data, monkeypatch):
    """The sum of the micro-batches instead of their mean."""
    side = by_hand(cell, data)

    def gradient(*inputs):
        loss, slopes = side.gradient(*inputs)
        return loss, {name: 2 * slope for name, slope in slopes.items()}

    return replace(side, gradient=gradient)


def clipped_before_it_is_unscaled(cell, data, monkeypatch):
    right = recipes.manual.clipping.clip_grad_norm_

    def clip(grads, limit):
        return right([g * g.dtype.type(2.0**16) for g in grads], limit)

    def late(grads, limit):
        total, clipped = clip(grads, limit)
        return total, [g * g.dtype.type(2.0**-16) for g in clipped]

    monkeypatch.setattr(recipes.manual.clipping, "clip_grad_norm_", late)
    return by_hand(cell, data)


def norms_decay(cell, data, monkeypatch):
    right = recipes.grouped
    monkeypatch.setattr(recipes, "grouped", lambda recipe, axes, *rest: right(recipe, 2, *rest))
    return by_hand(cell, data)


def the_mask_reused(cell, data, monkeypatch):
    right = recipes.micro_batches

    def parts(recipe, batch):
        found = list(right(recipe, batch))
        return [[x, target, found[0][2]] for x, target, _ in found]

    side = by_hand(cell, data)

    def gradient(*inputs):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(recipes, "micro_batches", parts)
            return side.gradient(*inputs)

    return replace(side, gradient=gradient)


def the_rate_one_step_late(cell, data, monkeypatch):
    side = by_hand(cell, data)

    def step(state, *rest):
        late = {**state, "recipe.step": np.maximum(state["recipe.step"] - 1, 0)}
        new, states = side.step(late, *rest)
        return {**new, "recipe.step": state["recipe.step"] + 1}, states

    return replace(side, step=step)


# fault, recipe, first faulty step, the first tensor
FAULTS = [
    (normalised_wrongly, "gpt", 1, "gradient of transformer.ln_f.bias"),
    (clipped_before_it_is_unscaled, "gpt-float16", 1, "transformer.wte.weight.exp_avg"),
    (norms_decay, "gpt", 1, "transformer.h.0.ln_1.weight"),
    (the_mask_reused, "gpt", 1, "activation dropout (behind transformer.wpe.weight), call 2"),
    (the_rate_one_step_late, "gpt", 2, "transformer.wte.weight"),
]


@pytest.mark.parametrize("lr", [0.01, pytest.param(1.0, marks=SWEEP)], ids=["calm", "chaotic"])
@pytest.mark.parametrize(("fault", "recipe", "step", "tensor"), FAULTS)
def test_a_fault_of_a_recipe_is_found_at_its_first_step(
    fault, recipe, step, tensor, lr, monkeypatch
):
    cell = replace(GPT, recipe=recipe, lr=lr)
    row = compare(cell, lambda c, data: fault(c, data, monkeypatch)).row
    print({k: row[k] for k in ("class", "begins", "resolution")})
    assert (row["class"], row["outside_step"], row["first_tensor"]) == ("different", step, tensor)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"optimizer": "rprop"}, "needs an optimizer with weight_decay"),
        ({"regime": "batch"}, "needs mini-batches"),
        ({"batch_size": 1}, "needs a batch_size that 2 divides"),
        ({"recipe": "gpt-float16", "dtype": "float64"}, "needs dtype float32"),
        ({"recipe": "gtp"}, "did you mean gpt"),
    ],
)
def test_what_a_recipe_does_not_go_with_is_refused(changed, text):
    with pytest.raises(ValueError, match=text):
        replace(GPT, **changed)


def test_a_model_that_knows_no_16_bits_is_refused():
    with pytest.raises(ValueError, match="needs a model with 16 bits"):
        Cell("llama", "text", "adamw", 0.01, regime="mini-batch", dtype="float32",
             recipe="gpt-bfloat16")  # fmt: skip


def test_what_is_remembered_is_no_parameter():
    state = start(GPT)
    assert {*state} - {*of_model(state)} == {"recipe.step", "recipe.exponent", "recipe.good"}
    assert all(torch.is_tensor(t) for t in tree_map(tensor, of_model(state)).values())
