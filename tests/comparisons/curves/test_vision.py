"""Faults planted in models of images: each is *different* at its first step, at the right tensor.

What is seen first is what is computed first: a wrong forward pass shows in what the wrong function
gives, or in the statistics that it moves, a wrong backward pass in the gradient behind it.
"""

import numpy as np
import pytest
from gradtwin.comparisons.curves.divergence import compare
from gradtwin.comparisons.training.cells import Cell
from gradtwin.comparisons.training.loop import by_hand
from gradtwin.manual.models import layers, vision

from gradtwin import manual

SWEEP = pytest.mark.sweep
SIZES = {
    "convnet": {"width": 4},
    "resnet": {"width": 2},
    "autoencoder": {"width": 2},
    "vit": {"layers": 1, "width": 8, "heads": 2, "patch": 4},
}


def cell(model, steps=4, dtype="float64", optimizer="adamw", **settings):
    small = {"regime": "mini-batch", "batch_size": 8, "size": SIZES[model]} | settings
    return Cell(model, "digits", optimizer, **{"lr": 0.01, "steps": steps, "dtype": dtype} | small)


@pytest.mark.parametrize(
    "model",
    ["convnet", "vit", *(pytest.param(m, marks=SWEEP) for m in ("resnet", "autoencoder"))],
)
def test_a_right_training_is_rounding(model):
    row = compare(cell(model)).row
    print({k: row[k] for k in ("class", "max_ratio", "lockstep_margin", "lockstep_tensor")})
    assert row["class"] in ("identical", "rounding")
    assert not row["imprecise_steps"]


right_norm, right_conv = manual.normalization.batch_norm, manual.convolution.conv2d
right_transposed = manual.convolution.conv_transpose2d


def other_momentum(x, mean, var, **given):
    return right_norm(x, mean, var, momentum=0.01, **given)


def biased_variance(x, mean, var, **given):
    (y, new_mean, new_var), pull = right_norm(x, mean, var, **given)
    n = x.size / x.shape[1]
    return (y, new_mean, 0.9 * var + (new_var - 0.9 * var) * (n - 1) / n), pull


def statistics_that_stay(x, mean, var, **given):
    y, pull = right_norm(x, mean, var, **given)
    return (y[0], mean, var), pull


def statistics_taken_as_constant(x, mean, var, weight, bias, training):
    """In the backward pass."""
    y, pull = right_norm(x, mean, var, weight=weight, bias=bias, training=training)
    axes = (0, 2, 3)
    scale = (weight / np.sqrt(x.var(axes) + 1e-5))[:, np.newaxis, np.newaxis]

    def pullback(dy):
        _, *others = pull(dy)
        return dy[0] * scale, *others

    return y, pullback


def padded_at_the_end(x, weight, bias=None, stride=1, padding=0):
    """All of the padding."""
    wide = np.pad(x, [(0, 0), (0, 0), (0, 2 * padding), (0, 2 * padding)])
    y, pull = right_conv(wide, weight, bias, stride)

    def pullback(dy):
        dx, *others = pull(dy)
        return dx[:, :, : x.shape[2], : x.shape[3]], *others

    return y, pullback


def dilated_where_it_strides(x, weight, bias=None, stride=1, padding=0):
    """The right shape, from other elements."""
    if stride == 1 or weight.shape[-1] == 1:
        return right_conv(x, weight, bias, stride, padding)
    return right_conv(x, weight, bias, stride, 2 * padding, dilation=2)


def not_turned(x, weight, bias, **settings):
    """A transposed convolution turns the kernel round."""
    y, pull = right_transposed(x, weight[:, :, ::-1, ::-1], bias, **settings)

    def pullback(dy):
        dx, dweight, dbias = pull(dy)
        return dx, dweight[:, :, ::-1, ::-1], dbias

    return y, pullback


def not_scaled(x, p, training, mask):
    y, pull = manual.dropout.dropout(x, p, training, mask=mask)
    return y * (1 - p), lambda dy: pull(dy) * (1 - p)


def scaled_forward_only(x, p, training, mask):
    y, pull = manual.dropout.dropout(x, p, training, mask=mask)
    return y, lambda dy: pull(dy) * (1 - p)


def other_mask(x, p, training, mask):
    return manual.dropout.dropout(x, p, training, mask=np.roll(mask, 1, axis=0))


def no_identity_backward(first, second):
    def layer(x):
        y, pull = layers.added(first, second)(x)

        def pullback(dy):
            dx, found = pull(dy)
            return (dx - dy if y.shape == x.shape else dx), found

        return y, pullback

    return layer


def averaged(first, second):
    def layer(x):
        y, pull = layers.added(first, second)(x)
        return y / 2, lambda dy: pull(dy / 2)

    return layer


def unscaled_attention(query, key, value):
    return manual.attention.scaled_dot_product_attention(query, key, value, scale=1.0)


ENCODER = "activation conv2d (encoder.0.weight)"
DECODER = "activation conv_transpose2d (decoder.0.weight)"
DILATED = "activation conv2d (layer2.0.conv1.weight)"
ATTENTION = "activation scaled_dot_product_attention (behind blocks.0.attn.qkv.weight)"
NORM, VISION = manual.normalization, vision
# model, where, what is exchanged, the fault, what is seen first
FAULTS = [
    ("convnet", NORM, "batch_norm", other_momentum, "buffer bn1.running_mean"),
    ("convnet", NORM, "batch_norm", biased_variance, "buffer bn1.running_var"),
    ("convnet", NORM, "batch_norm", statistics_that_stay, "buffer bn1.running_mean"),
    ("convnet", NORM, "batch_norm", statistics_taken_as_constant, "gradient of conv2.weight"),
    ("convnet", VISION, "conv2d", padded_at_the_end, "activation conv2d (conv1.weight)"),
    ("convnet", VISION, "dropout", not_scaled, "activation dropout (behind bn2.weight)"),
    ("convnet", VISION, "dropout", scaled_forward_only, "gradient of bn2.bias"),
    ("convnet", VISION, "dropout", other_mask, "activation dropout (behind bn2.weight)"),
    ("resnet", NORM, "batch_norm", biased_variance, "buffer bn1.running_var"),
    ("resnet", VISION, "conv2d", dilated_where_it_strides, DILATED),
    ("resnet", VISION, "added", averaged, "activation relu (behind layer1.0.bn2.weight)"),
    ("resnet", VISION, "added", no_identity_backward, "gradient of bn1.bias"),
    (
        "autoencoder",
        VISION,
        "conv2d",
        dilated_where_it_strides,
        "activation conv2d (encoder.0.weight)",
    ),
    (
        "autoencoder",
        VISION,
        "conv_transpose2d",
        not_turned,
        "activation conv_transpose2d (decoder.0.weight)",
    ),
    ("vit", VISION, "scaled_dot_product_attention", unscaled_attention, ATTENTION),
    ("vit", VISION, "added", no_identity_backward, "gradient of blocks.0.attn.proj.bias"),
]
QUICK = (biased_variance, scaled_forward_only, not_turned)


def faults():
    for model, where, name, fault, tensor in FAULTS:
        quick = fault in QUICK and model != "resnet"
        marks = [] if quick else [SWEEP]
        yield pytest.param(
            model, where, name, fault, tensor, marks=marks, id=f"{model}-{fault.__name__}"
        )


@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=SWEEP)])
@pytest.mark.parametrize(("model", "where", "name", "fault", "tensor"), [*faults()])
def test_a_fault_is_seen_at_its_first_step(model, where, name, fault, tensor, dtype, monkeypatch):
    monkeypatch.setattr(where, name, fault)
    row = compare(cell(model, dtype=dtype)).row
    print({k: row[k] for k in ("class", "outside_step", "outside_tensor", "begins")})
    assert (row["class"], row["outside_step"], row["first_tensor"]) == ("different", 1, tensor)


@pytest.mark.parametrize("chaotic", [False, pytest.param(True, marks=SWEEP)])
def test_a_fault_of_one_step_is_seen_there(chaotic, monkeypatch):
    """The statistics of one batch are left out, once."""
    planted = cell("convnet", steps=8, optimizer="sgd", lr=2.0 if chaotic else 0.1)

    def side(cell, data):
        right = by_hand(cell, data)

        def gradient(state, *batch):
            loss, gradients, buffers = right.gradient(state, *batch)
            if int(state["bn1.num_batches_tracked"]) == 5:
                buffers |= {name: state[name] for name in buffers if name.startswith("bn2.run")}
            return loss, gradients, buffers

        return type(right)(right.batch, gradient, right.step)

    row = compare(planted, side).row
    assert (row["class"], row["outside_step"]) == ("different", 6)
    assert row["first_tensor"] == "buffer bn2.running_mean"
    assert "all before it is rounding" in row["begins"]
