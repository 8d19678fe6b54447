"""Models of images as plain torch: forward only, so that the whole backward is autograd's."""

from functools import partial
from itertools import count

import torch
import torch.nn.functional as F

from ..adapters import rule, written_out


@partial(rule, constant="buffers mask")
def convnet(parameters, x, buffers, training=False, p=0.5, *, mask=None):
    norm, moved = _batch_norms(parameters, buffers, training)
    for i in count(1):
        if f"conv{i}.weight" not in parameters:
            break
        x = F.conv2d(x, *_of(parameters, f"conv{i}"), padding=1)
        x = F.max_pool2d(norm(x, f"bn{i}").relu(), 2)
    x = x.flatten(1)
    if training:
        x = _dropped(x, p, mask)
    return _with(moved, F.linear(x, *_of(parameters, "fc")), training)


@written_out("dropout")
def _dropped(x, p, mask):
    """What F.dropout does with a draw of its own, for it cannot be given one."""
    return x * (mask.to(x.dtype) * (0.0 if p == 1 else 1 / (1 - p)))


@partial(rule, constant="buffers")
def resnet(parameters, x, buffers, training=False):
    norm, moved = _batch_norms(parameters, buffers, training)
    x = norm(F.conv2d(x, *_of(parameters, "conv1"), padding=1), "bn1").relu()
    for name in _numbered(parameters, "layer", ".conv1.weight"):
        group, block = name.removeprefix("layer").split(".")
        stride = 2 if block == "0" and group != "1" else 1
        y = F.conv2d(x, *_of(parameters, f"{name}.conv1"), stride=stride, padding=1)
        y = norm(y, f"{name}.bn1").relu()
        y = norm(F.conv2d(y, *_of(parameters, f"{name}.conv2"), padding=1), f"{name}.bn2")
        if f"{name}.downsample.0.weight" in parameters:
            x = F.conv2d(x, *_of(parameters, f"{name}.downsample.0"), stride=stride)
            x = norm(x, f"{name}.downsample.1")
        x = (y + x).relu()
    x = F.adaptive_avg_pool2d(x, 1).flatten(1)
    return _with(moved, F.linear(x, *_of(parameters, "fc")), training)


@rule
def autoencoder(parameters, x):
    for name in _numbered(parameters, "encoder.", ".weight"):
        x = F.conv2d(x, *_of(parameters, name), stride=2, padding=1).relu()
    first, *others = _numbered(parameters, "decoder.", ".weight")
    for name in (first, *others):
        x = x if name == first else x.relu()
        x = F.conv_transpose2d(x, *_of(parameters, name), stride=2, padding=1, output_padding=1)
    return x.sigmoid()


@rule
def vit(parameters, x, num_heads=4):
    weight, bias = _of(parameters, "patch_embed.proj")
    x = F.conv2d(x, weight, bias, stride=weight.shape[2:]).flatten(2).transpose(1, 2)
    N, _, D = x.shape
    x = torch.cat([parameters["cls_token"].expand(N, -1, -1), x], 1) + parameters["pos_embed"]
    for name in _numbered(parameters, "blocks.", ".norm1.weight"):
        y = F.layer_norm(x, (D,), *_of(parameters, f"{name}.norm1"), 1e-6)
        y = F.linear(y, *_of(parameters, f"{name}.attn.qkv"))
        y = y.reshape(*y.shape[:2], 3, num_heads, D // num_heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(*y.unbind(0)).transpose(1, 2).flatten(2)
        x = x + F.linear(y, *_of(parameters, f"{name}.attn.proj"))
        y = F.layer_norm(x, (D,), *_of(parameters, f"{name}.norm2"), 1e-6)
        y = F.gelu(F.linear(y, *_of(parameters, f"{name}.mlp.fc1")))
        x = x + F.linear(y, *_of(parameters, f"{name}.mlp.fc2"))
    x = F.layer_norm(x, (D,), *_of(parameters, "norm"), 1e-6)[:, 0]
    return F.linear(x, *_of(parameters, "head"))


def _of(parameters, name):
    """The weight of a layer, and its bias or None."""
    return parameters[f"{name}.weight"], parameters.get(f"{name}.bias")


def _numbered(parameters, before, behind):
    """The names of layers, which begin so and whose parameters end so, by their numbers."""
    names = [n for n in parameters if n.startswith(before) and n.endswith(behind)]
    numbers = [n.removeprefix(before).removesuffix(behind).split(".") for n in names]
    return [before + ".".join(n) for n in sorted(numbers, key=lambda n: [*map(int, n)])]


def _batch_norms(parameters, buffers, training):
    """A function (x, name) that is the batch norm of that name, and the buffers that it moves."""
    moved = {name: a.detach().clone() for name, a in buffers.items()}

    def norm(x, name):
        mean, var = moved[f"{name}.running_mean"], moved[f"{name}.running_var"]
        moved[f"{name}.num_batches_tracked"] += training
        return F.batch_norm(x, mean, var, *_of(parameters, name), training)

    return norm, moved


def _with(moved, y, training):
    return (y, *moved.values()) if training else y
