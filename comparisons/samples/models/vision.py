from math import prod

from .. import array, call, truths, uniform, values


def norm(name, channels):
    """The parameters of a batch norm or a layer norm."""
    return {f"{name}.weight": array(channels), f"{name}.bias": array(channels)}


def statistics(**channels):
    """The buffers of batch norms, {name: channels}, of which a dot in the name is written _."""
    buffers = {}
    for name, n in channels.items():
        prefix = name.replace("_", ".")
        buffers[f"{prefix}.running_mean"] = array(n)
        buffers[f"{prefix}.running_var"] = uniform(n)
        buffers[f"{prefix}.num_batches_tracked"] = values(7)
    return buffers


def affine(name, *shape):
    """The weight of that shape and the bias of a linear map or a convolution."""
    fan_in = prod(shape[1:])
    return {f"{name}.weight": array(*shape, scale=fan_in**-0.5), f"{name}.bias": array(shape[0])}


def block(name, channels, others):
    """The parameters of a residual block, with a convolution of 1×1 beside it if it has other
    channels behind it than in front."""
    shapes = {"1": (others, channels, 3, 3), "2": (others, others, 3, 3)}
    parameters = {}
    for i, shape in shapes.items():
        parameters[f"{name}.conv{i}.weight"] = array(*shape, scale=0.3)
        parameters |= norm(f"{name}.bn{i}", others)
    if others != channels:
        parameters[f"{name}.downsample.0.weight"] = array(others, channels, 1, 1)
        parameters |= norm(f"{name}.downsample.1", others)
    return parameters


def transformer_block(name, width):
    """The parameters of a block of vit."""
    return {
        **norm(f"{name}.norm1", width),
        **affine(f"{name}.attn.qkv", 3 * width, width),
        **affine(f"{name}.attn.proj", width, width),
        **norm(f"{name}.norm2", width),
        **affine(f"{name}.mlp.fc1", 2 * width, width),
        **affine(f"{name}.mlp.fc2", width, 2 * width),
    }


_ONE_STAGE = {
    "conv1.weight": array(2, 1, 3, 3),
    **norm("bn1", 2),
    **affine("fc", 3, 8),
}
_TWO_STAGES = {
    **affine("conv1", 2, 2, 3, 3),
    **norm("bn1", 2),
    "conv2.weight": array(3, 2, 3, 3, scale=0.3),
    **norm("bn2", 3),
    **affine("fc", 2, 3),
}
_FREE_STAGES = {name: a for name, a in _TWO_STAGES.items() if name != "conv1.bias"}
_ALL = values([[True]])
_RESIDUAL = {
    "conv1.weight": array(2, 1, 3, 3),
    **norm("bn1", 2),
    **block("layer1.0", 2, 2),
    **block("layer2.0", 2, 3),
    **affine("fc", 2, 3),
}
_RESIDUAL_STATISTICS = statistics(
    bn1=2, layer1_0_bn1=2, layer1_0_bn2=2, layer2_0_bn1=3, layer2_0_bn2=3, layer2_0_downsample_1=3
)
_CODER = {
    **affine("encoder.0", 2, 1, 3, 3),
    **affine("encoder.2", 3, 2, 3, 3),
    "decoder.0.weight": array(3, 2, 3, 3, scale=0.3),
    "decoder.0.bias": array(2),
    "decoder.2.weight": array(2, 1, 3, 3, scale=0.3),
    "decoder.2.bias": array(1),
}
_PATCHES = {
    "cls_token": array(1, 1, 4),
    "pos_embed": array(1, 5, 4),
    **affine("patch_embed.proj", 4, 1, 2, 2),
    **transformer_block("blocks.0", 4),
    **norm("norm", 4),
    **affine("head", 3, 4),
}


SAMPLES = {
    "convnet": [
        call(_ONE_STAGE, array(3, 1, 4, 4), statistics(bn1=2), True, mask=truths(3, 8)),
        call(_ONE_STAGE, array(2, 1, 4, 4), statistics(bn1=2), True, 0.3, mask=truths(2, 8)),
        call(_ONE_STAGE, array(2, 1, 4, 4), statistics(bn1=2)),
        call(_TWO_STAGES, array(3, 2, 4, 5), statistics(bn1=2, bn2=3)),
        call(_FREE_STAGES, array(3, 2, 4, 5), statistics(bn1=2, bn2=3), True, 0.0, mask=_ALL),
    ],
    "resnet": [
        call(_RESIDUAL, array(3, 1, 4, 4), _RESIDUAL_STATISTICS, True),
        call(_RESIDUAL, array(2, 1, 4, 4), _RESIDUAL_STATISTICS),
    ],
    "autoencoder": [call(_CODER, array(2, 1, 8, 4))],
    "vit": [
        call(_PATCHES, array(3, 1, 4, 4), 2),
        call(_PATCHES | transformer_block("blocks.1", 4), array(2, 1, 4, 4)),
    ],
}
CORNERS = {
    "convnet": [call(_ONE_STAGE, array(0, 1, 4, 4), statistics(bn1=2))],
    "resnet": [call(_RESIDUAL, array(0, 1, 4, 4), _RESIDUAL_STATISTICS)],
    "autoencoder": [call(_CODER, array(0, 1, 4, 4)), call(_CODER, array(2, 1, 4, 4, scale=30.0))],
    "vit": [call(_PATCHES, array(0, 1, 4, 4), 2), call(_PATCHES, array(2, 1, 4, 4, scale=30.0), 1)],
}
