"""Models of images, x (N, C, H, W). A state_dict of torch is parted in two: parameters, and
buffers, which have no gradient: the running_mean, running_var and num_batches_tracked of each batch
norm. In training these are further outputs, as they have moved, in the order of `buffers`.

The models raise TypeError for arrays that are not floating of one dtype, ValueError for other
entries, shapes and settings; the message names the argument, or the layer and its.
"""

import re

import numpy as np

from ..activations import gelu, relu, sigmoid
from ..arguments import Constant, flag, floating, mapping, whole
from ..attention import scaled_dot_product_attention
from ..convolution import conv2d, conv_transpose2d
from ..dropout import dropout
from ..indexing import getitem
from ..linear import linear
from ..normalization import layer_norm
from ..pointwise import add
from ..pooling import adaptive_avg_pool2d, max_pool2d
from ..views import cat, expand, flatten, transpose
from ..windows import images
from .layers import STATISTICS, added, batch_norm, entries, in_sequence, plain, weighted

_AFFINE = ("weight", "bias")


def convnet(parameters, x, buffers: Constant, training=False, p=0.5, *, mask: Constant = None):
    """Stages of a convolution of 3×3, batch norm, ReLU and the maxima of 2×2, then dropout and a
    linear map: (N, C, H, W) → (N, classes). The entries are conv1.weight, bn1.weight, bn1.bias,
    conv2.weight, … and fc.weight, fc.bias; a convolution may have a bias, although a batch norm
    takes it off again. In training `mask` (N, features) is what dropout keeps.

    Raises ValueError for other entries and an x of other axes, TypeError for training without a
    mask.

    LeCun, Bottou, Bengio & Haffner, 1998; Ioffe & Szegedy, 2015, arXiv:1502.03167
    """
    stages = _numbers(r"conv(\d+)\.weight", parameters)
    convolutions, norms = ([f"{name}{i}" for (i,) in stages] for name in ("conv", "bn"))
    _check(parameters, x, convolutions, [*norms, "fc"], buffers, norms)
    flag(training=training)
    moved: dict[str, np.ndarray] = {}
    layers = [
        in_sequence(
            weighted(conv2d, parameters, convolution, padding=1),
            batch_norm(parameters, buffers, norm, training, moved),
            plain(relu),
            plain(max_pool2d, kernel_size=2),
        )
        for convolution, norm in zip(convolutions, norms, strict=True)
    ]
    model = in_sequence(
        *layers,
        plain(flatten, start_dim=1),
        plain(dropout, p=p, training=training, mask=mask),
        weighted(linear, parameters, "fc"),
    )
    return _evaluated(model, parameters, x, buffers, moved)


def resnet(parameters, x, buffers: Constant, training=False):
    """A convolution of 3×3 with batch norm and ReLU, groups of residual blocks, the mean over all
    places and a linear map: (N, C, H, W) → (N, classes). From the second group on the first block
    halves the sides.

    The entries are named as in torchvision: conv1.weight, bn1.weight, …, layer2.0.conv1.weight, …,
    layer2.0.downsample.0.weight, layer2.0.downsample.1.weight, …, fc.weight, fc.bias. Raises
    ValueError for other entries and an x of other axes.

    He, Zhang, Ren & Sun, 2016, arXiv:1512.03385
    """
    flag(training=training)
    blocks = _blocks(parameters)
    convolutions, norms = ["conv1"], ["bn1"]
    for name, stride in blocks:
        convolutions += [f"{name}.conv1", f"{name}.conv2"]
        norms += [f"{name}.bn1", f"{name}.bn2"]
        if stride > 1 or f"{name}.downsample.0.weight" in parameters:
            convolutions.append(f"{name}.downsample.0")
            norms.append(f"{name}.downsample.1")
    _check(parameters, x, convolutions, [*norms, "fc"], buffers, norms)
    moved: dict[str, np.ndarray] = {}
    state = parameters, buffers, training, moved
    model = in_sequence(
        _convolved(state, "conv1", "bn1", stride=1, padding=1),
        plain(relu),
        *(_residual(state, name, stride) for name, stride in blocks),
        plain(adaptive_avg_pool2d, output_size=1),
        plain(flatten, start_dim=1),
        weighted(linear, parameters, "fc"),
    )
    return _evaluated(model, parameters, x, buffers, moved)


def autoencoder(parameters, x):
    """Convolutions of 3×3 that halve the sides, then transposed ones that double them, with ReLU
    between them and σ at the end: (N, C, H, W) → (N, C, H, W), for sides that can be halved so
    often. The entries are encoder.0.weight, encoder.0.bias, encoder.2.weight, …, decoder.0.weight,
    …, as torch.nn.Sequential names them.

    Raises ValueError for other entries and an x of other axes.

    Hinton & Salakhutdinov, 2006; Masci, Meier, Cireşan & Schmidhuber, 2011
    """
    encoder, decoder = (
        [f"{half}.{i}" for (i,) in _numbers(rf"{half}\.(\d+)\.weight", parameters) or [(0,)]]
        for half in ("encoder", "decoder")
    )
    _check(parameters, x, [], [*encoder, *decoder])
    halving = {"stride": 2, "padding": 1}
    doubling = halving | {"output_padding": 1}
    maps = [
        *(weighted(conv2d, parameters, name, **halving) for name in encoder),
        *(weighted(conv_transpose2d, parameters, name, **doubling) for name in decoder),
    ]
    bent = [*[plain(relu)] * (len(maps) - 1), plain(sigmoid)]
    model = in_sequence(*(in_sequence(*pair) for pair in zip(maps, bent, strict=True)))
    return _evaluated(model, parameters, x)


def vit(parameters, x, num_heads=4):
    """Patches, each a token, and a token of the class in front of them, with an embedding of their
    places; blocks of attention and of two linear maps with GELU between them, each behind a layer
    norm and beside the identity; of the first token a layer norm and a linear map: (N, C, H, W) →
    (N, classes).

    The entries are named as in timm: cls_token, pos_embed, patch_embed.proj.weight, …,
    blocks.0.norm1.weight, blocks.0.attn.qkv.weight, blocks.0.attn.proj.weight,
    blocks.0.norm2.weight, blocks.0.mlp.fc1.weight, blocks.0.mlp.fc2.weight, …, norm.weight, …,
    head.weight, head.bias. Raises ValueError for other entries, an x of other axes, and heads that
    do not part the features evenly.

    Dosovitskiy et al., 2021, arXiv:2010.11929
    """
    blocks = [f"blocks.{i}" for (i,) in _numbers(r"blocks\.(\d+)\.norm1\.weight", parameters)]
    parts = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    layers = [f"{block}.{part}" for block in blocks for part in parts]
    affine = ["patch_embed.proj", *layers, "norm", "head"]
    _check(parameters, x, [], affine, alone=("cls_token", "pos_embed"))
    width = parameters["cls_token"].shape[-1]
    whole(num_heads=num_heads)
    if num_heads < 1 or width % num_heads:
        raise ValueError(f"num_heads: expected a divisor of {width}, got {num_heads}")
    model = in_sequence(
        _tokens(parameters),
        *(_transformed(parameters, block, width, num_heads) for block in blocks),
        _layer_norm(parameters, "norm", width),
        plain(getitem, index=(slice(None), 0)),
        weighted(linear, parameters, "head"),
    )
    return _evaluated(model, parameters, x)


def _check(parameters, x, free, affine, buffers=None, norms=(), alone=()):
    """Raises unless x is images, and there are the entries of layers that may have a bias, of those
    that have one, those that stand `alone`, and the buffers of the norms."""
    floating(x=x)
    images(2, many=True, x=x)
    expected = [f"{name}.{part}" for name in affine for part in _AFFINE]
    weights = [f"{name}.weight" for name in free]
    entries([*alone, *weights, *expected], [f"{n}.bias" for n in free], parameters=parameters)
    if norms:
        entries([f"{name}.{part}" for name in norms for part in STATISTICS], buffers=buffers)


def _evaluated(model, parameters, x, buffers=(), moved=()):
    """A layer as a rule of the parameters and x, with the buffers that have moved as outputs."""
    y, pull = model(x)

    def pullback(dy):
        dx, found = pull(dy[0] if moved else dy)
        return {name: found[name] for name in parameters}, dx

    return ((y, *(moved[name] for name in buffers)) if moved else y), pullback


def _numbers(pattern, parameters):
    """The numbers in the names that match the pattern, in order."""
    mapping(parameters=parameters)
    found = (re.fullmatch(pattern, name) for name in parameters)
    return sorted(tuple(map(int, match.groups())) for match in found if match)


def _blocks(parameters):
    """(name, stride) of each residual block."""
    numbers = _numbers(r"layer(\d+)\.(\d+)\.conv1\.weight", parameters)
    return [(f"layer{i}.{j}", 2 if i > 1 and j == 0 else 1) for i, j in numbers]


def _convolved(state, convolution, norm, **settings):
    """A convolution and its batch norm."""
    parameters, *others = state
    return in_sequence(
        weighted(conv2d, parameters, convolution, **settings),
        batch_norm(parameters, others[0], norm, *others[1:]),
    )


def _residual(state, name, stride):
    """Two convolutions beside the identity, or beside a convolution of 1×1, and ReLU."""
    parameters, *_ = state
    two = in_sequence(
        _convolved(state, f"{name}.conv1", f"{name}.bn1", stride=stride, padding=1),
        plain(relu),
        _convolved(state, f"{name}.conv2", f"{name}.bn2", padding=1),
    )
    short = in_sequence()
    if f"{name}.downsample.0.weight" in parameters:
        names = f"{name}.downsample.0", f"{name}.downsample.1"
        short = _convolved(state, *names, stride=stride)
    return in_sequence(added(two, short), plain(relu))


def _tokens(parameters):
    """x as tokens (N, T, D), the class in front."""
    weight, first = parameters["patch_embed.proj.weight"], parameters["cls_token"]
    patches = in_sequence(
        weighted(conv2d, parameters, "patch_embed.proj", stride=weight.shape[2:]),
        plain(flatten, start_dim=2),
        plain(transpose, dim0=1, dim1=2),
    )

    def layer(x):
        seen, pull = patches(x)
        token, pull_token = expand(first, (len(x), -1, -1))
        both, pull_both = cat([token, seen], 1)
        y, pull_sum = add(both, parameters["pos_embed"])

        def pullback(dy):
            dboth, dplaces = pull_sum(dy)
            dtoken, dseen = pull_both(dboth)
            dx, found = pull(dseen)
            return dx, found | {"cls_token": pull_token(dtoken), "pos_embed": dplaces}

        return y, pullback

    return layer


def _transformed(parameters, name, width, num_heads):
    """A block."""
    attention = in_sequence(
        _layer_norm(parameters, f"{name}.norm1", width),
        weighted(linear, parameters, f"{name}.attn.qkv"),
        plain(_attention, num_heads=num_heads),
        weighted(linear, parameters, f"{name}.attn.proj"),
    )
    perceptron = in_sequence(
        _layer_norm(parameters, f"{name}.norm2", width),
        weighted(linear, parameters, f"{name}.mlp.fc1"),
        plain(gelu),
        weighted(linear, parameters, f"{name}.mlp.fc2"),
    )
    identity = in_sequence()
    return in_sequence(added(identity, attention), added(identity, perceptron))


def _layer_norm(parameters, name, width):
    return weighted(layer_norm, parameters, name, normalized_shape=(width,), eps=1e-6)


def _attention(x, num_heads):
    """Attention of x (N, T, 3 D), which is queries, keys and values beside one another, by heads: →
    (N, T, D)."""
    N, T, wide = x.shape
    parts = N, T, 3, num_heads, wide // 3 // num_heads
    heads, pull = scaled_dot_product_attention(*x.reshape(parts).transpose(2, 0, 3, 1, 4))
    y = heads.transpose(0, 2, 1, 3).reshape(N, T, wide // 3)

    def pullback(dy):
        dheads = dy.reshape(N, T, *parts[3:]).transpose(0, 2, 1, 3)
        return np.stack(pull(dheads)).transpose(1, 3, 0, 2, 4).reshape(x.shape)

    return y, pullback
