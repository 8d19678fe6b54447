"""Faults that people make in a gpt: each is different at the first faulty step, with the tensor
that it is in, in a calm training and in a chaotic one, and begins where it was made; and neither is
without a fault."""

from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from gradtwin.comparisons.curves.divergence import compare
from gradtwin.comparisons.training.cells import Cell
from gradtwin.comparisons.training.loop import by_hand

from gradtwin import manual

SWEEP = pytest.mark.sweep
STEP = 12  # the first that is faulty
SMALL = {"layers": 2, "width": 8, "heads": 2, "context": 8}
CELL = Cell(
    *("gpt", "text", "adamw", 0.01, {"weight_decay": 0.1}),
    **{"regime": "mini-batch", "batch_size": 4, "steps": STEP + 3, "size": SMALL},
)
CHAOTIC = {"lr": 0.3}
models = manual.models.transformers
BLOCK = "transformer.h.0."


@contextmanager
def planted(name, wrong):
    """The models with another rule in place of one that they are made of."""
    right = getattr(models, name)
    setattr(models, name, partial(wrong, right))
    try:
        yield
    finally:
        setattr(models, name, right)


def from_step(side, gradient):
    """The side with another gradient from STEP on."""
    now = {}

    def batch(t):
        now["t"] = t
        return side.batch(t)

    def either(*inputs):
        return (gradient if now["t"] >= STEP - 1 else side.gradient)(*inputs)

    return replace(side, batch=batch, gradient=either)


def of_rule(name, wrong):
    """A fault in one rule."""

    def fault(side):
        def gradient(*inputs):
            with planted(name, wrong):
                return side.gradient(*inputs)

        return from_step(side, gradient)

    return fault


def of_gradient(name, change):
    """A fault in the gradient of one parameter."""

    def fault(side):
        def gradient(*inputs):
            loss, found = side.gradient(*inputs)
            return loss, {**found, name: change(found, *inputs)}

        return from_step(side, gradient)

    return fault


def unscaled(attend, q, k, v, attn_mask, dropout_p, is_causal, **settings):
    return attend(q, k, v, attn_mask, dropout_p, is_causal, scale=1.0, **settings)


def sees_ahead(attend, q, k, v, attn_mask, dropout_p, is_causal, **settings):
    """Each position sees the one behind it."""
    seen = np.tri(q.shape[-2], k.shape[-2], 1, dtype=bool)
    return attend(q, k, v, seen, dropout_p, **settings)


def constant_mean(norm, x, *rest):
    y, pull = norm(x, *rest)

    def pullback(dy):
        _, *others = pull(dy)
        x_hat = (x - x.mean(axis=-1, keepdims=True)) / x.std(axis=-1, keepdims=True)
        dhat = dy * rest[1]
        left = (dhat * x_hat).mean(axis=-1, keepdims=True)
        return (dhat - x_hat * left) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5), *others

    return y, pullback


def another_epsilon(norm, x, width, weight, bias):
    return norm(x, width, weight, bias, eps=1e-6)


def approximated(gelu, x):
    return gelu(x, approximate="tanh")


def untied(found, parameters, x, *_):
    """The embedding without what comes through the head: of the rows that are read, alone."""
    whole = found["transformer.wte.weight"]
    return np.where(np.isin(np.arange(len(whole)), x)[:, np.newaxis], whole, 0)


def averaged(found, parameters, x, *_):
    return found[f"{BLOCK}mlp.c_fc.bias"] / x.size


def decay_left_out_of_norms(side):
    def step(parameters, gradients, states, settings):
        new, new_states = side.step(parameters, gradients, states, settings)
        name = f"{BLOCK}ln_1.weight"
        if states[name] and states[name]["step"] >= STEP - 1:
            share = settings["lr"] * settings["weight_decay"]
            new = {**new, name: new[name] + (share * parameters[name]).astype(new[name].dtype)}
        return new, new_states

    return replace(side, step=step)


def mask_used_again(side):
    def batch(t):
        x, target, drawn = side.batch(t)
        return x, target, side.batch(t - 1)[2] if t >= STEP - 1 else drawn

    return replace(side, batch=batch)


ATTENTION = f"activation scaled_dot_product_attention (behind {BLOCK}attn.c_attn.weight)"
# fault → what makes it, a tensor that is named, the first one if that is another
FAULTS = {
    "attention scale": (
        of_rule("scaled_dot_product_attention", unscaled),
        f"gradient of {BLOCK}attn.c_attn.weight",
        ATTENTION,
    ),
    "mask": (
        of_rule("scaled_dot_product_attention", sees_ahead),
        f"gradient of {BLOCK}attn.c_attn.weight",
        ATTENTION,
    ),
    "a mean taken as constant": (
        of_rule("layer_norm", constant_mean),
        "gradient of transformer.wpe.weight",
        "gradient of transformer.h.1.mlp.c_proj.bias",
    ),
    "tied head untied": (
        of_gradient("transformer.wte.weight", untied),
        "gradient of transformer.wte.weight",
    ),
    "decay": (decay_left_out_of_norms, f"{BLOCK}ln_1.weight"),
    "epsilon": (
        of_rule("layer_norm", another_epsilon),
        f"gradient of {BLOCK}attn.c_attn.weight",
        f"activation layer_norm ({BLOCK}ln_1.weight)",
    ),
    "dropout mask reused": (
        mask_used_again,
        f"gradient of {BLOCK}mlp.c_proj.weight",
        "activation dropout (behind transformer.wpe.weight)",
    ),
    "a bias averaged": (
        of_gradient(f"{BLOCK}mlp.c_fc.bias", averaged),
        f"gradient of {BLOCK}mlp.c_fc.bias",
    ),
    "gelu by tanh": (
        of_rule("gelu", approximated),
        f"gradient of {BLOCK}mlp.c_fc.weight",
        f"activation gelu (behind {BLOCK}mlp.c_fc.weight)",
    ),
}
QUICK = ("tied head untied",)


def cell(fault, chaotic, dtype):
    size = {**SMALL, "dropout": 0.25} if fault == "dropout mask reused" else SMALL
    return replace(CELL, size=size, dtype=dtype, **(CHAOTIC if chaotic else {}))


@pytest.mark.parametrize("chaotic", [True, pytest.param(False, marks=SWEEP)])
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=SWEEP)])
@pytest.mark.parametrize(
    "fault", [f if f in QUICK else pytest.param(f, marks=SWEEP) for f in FAULTS]
)
def test_a_fault_is_found_at_its_first_step(fault, dtype, chaotic):
    plant, tensor, *first = FAULTS[fault]
    row = compare(cell(fault, chaotic, dtype), lambda c, data: plant(by_hand(c, data))).row
    print({k: row[k] for k in ("class", "outside_step", "outside_tensor", "begins", "resolution")})
    assert row["class"] == "different"
    assert row["outside_step"] == STEP
    assert tensor in row["outside_tensor"].split(", ")
    assert row["first_tensor"] == (first or [tensor])[0]


@SWEEP
@pytest.mark.parametrize("chaotic", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_without_a_fault_it_is_rounding(dtype, chaotic):
    steps = 40 if chaotic else STEP
    row = compare(replace(cell("", chaotic, dtype), steps=steps)).row
    print({k: row[k] for k in ("class", "chaos", "max_drift", "lockstep_margin", "max_ratio")})
    assert row["class"] in ("identical", "rounding")
    if chaotic:  # of float32, too few digits are left to grow
        assert row["max_drift"] > 1e-3 if dtype == "float32" else row["chaos"]
