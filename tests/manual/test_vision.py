"""Models of images beside a torch.nn.Module: a state_dict goes in, and trained out again."""

import numpy as np
import pytest
import torch
from gradtwin.comparisons.samples.models import vision
from gradtwin.comparisons.verdict.classes import DIFFERENT, IDENTICAL, ROUNDING
from gradtwin.comparisons.verdict.judge import judge
from gradtwin.manual.models.layers import parted
from gradtwin.reference.adapters import array, tensor
from torch import nn

from gradtwin import manual


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.dropout, self.fc = nn.Dropout(0.0), nn.Linear(24, 10)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 2)
        x = nn.functional.max_pool2d(self.bn2(self.conv2(x)).relu(), 2)
        return self.fc(self.dropout(x.flatten(1)))


class Block(nn.Module):
    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(n_out), nn.BatchNorm2d(n_out)
        self.downsample = None
        if n_in != n_out:
            convolution = nn.Conv2d(n_in, n_out, 1, stride, bias=False)
            self.downsample = nn.Sequential(convolution, nn.BatchNorm2d(n_out))

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + (self.downsample(x) if self.downsample else x)).relu()


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(Block(4, 4, 1), Block(4, 4, 1))
        self.layer2 = nn.Sequential(Block(4, 6, 2))
        self.fc = nn.Linear(6, 10)

    def forward(self, x):
        x = self.layer2(self.layer1(self.bn1(self.conv1(x)).relu()))
        return self.fc(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU()
        )
        self.decoder = nn.Sequential(
            *(nn.ConvTranspose2d(6, 4, 3, 2, 1, 1), nn.ReLU()),
            *(nn.ConvTranspose2d(4, 1, 3, 2, 1, 1), nn.Sigmoid()),
        )

    def forward(self, x):
        return self.decoder(self.encoder(x))


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.qkv, self.proj, self.heads = (
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
            heads,
        )

    def forward(self, x):
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(x).chunk(3, -1)
        )
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Transformed(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.attn, self.mlp = Attention(width, 4), nn.Module()
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp.fc2(nn.functional.gelu(self.mlp.fc1(self.norm2(x))))


class ViT(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.pos_embed = nn.Parameter(torch.randn(1, 17, width))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(1, width, 2, 2)
        self.blocks = nn.Sequential(Transformed(width), Transformed(width))
        self.norm, self.head = nn.LayerNorm(width, 1e-6), nn.Linear(width, 10)

    def forward(self, x):
        patches = self.patch_embed.proj(x).flatten(2).mT
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), patches], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


MODULES = {"convnet": ConvNet, "resnet": ResNet, "autoencoder": Autoencoder, "vit": ViT}


def made(model):
    """A module in float64 whose statistics have moved, and a batch."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = MODULES[model]().double()
        x = torch.rand(6, 1, 8, 8, dtype=torch.float64)
        for _ in range(3):
            module(torch.rand_like(x))
    return module, x


def arrays(module):
    return parted({name: array(t) for name, t in module.state_dict().items()})


def settings(buffers, training):
    """The settings of a rule; without dropout, which a module would draw."""
    found = {"training": training} if buffers else {}
    return found | ({"p": 0.0, "mask": np.array([[True]])} if "bn2.running_mean" in buffers else {})


def by_hand(model, parameters, x, buffers, training):
    """The output and the buffers behind it, by name, and the pullback of the output."""
    given = (buffers,) if buffers else ()
    y, pull = getattr(manual.models, model)(parameters, x, *given, **settings(buffers, training))
    y, *moved = y if buffers and training else (y, *buffers.values())
    held = [None for _ in moved] if training else []
    return {"y": y} | dict(zip(buffers, moved, strict=True)), lambda dy: pull(
        (dy, *held) if held else dy
    )


def by_module(module, parameters, x, buffers, training):
    state = {name: tensor(a) for name, a in (parameters | buffers).items()}
    y = torch.func.functional_call(module.train(training), state, (tensor(x),))
    return {"y": array(y)} | {name: array(state[name]) for name in buffers}


def kinds(model, module, *inputs):
    """Of the output and of the buffers."""
    found = judge(
        lambda given: by_hand(model, *given)[0],
        lambda given: by_module(module, *given),
        inputs,
        np.dtype("float64"),
    )
    return {verdict.kind for verdict in found.values()}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("model", MODULES)
def test_a_state_dict_of_torch_goes_in(model, training):
    module, x = made(model)
    parameters, buffers = arrays(module)
    assert kinds(model, module, parameters, array(x), buffers, training) <= {IDENTICAL, ROUNDING}
    wrong = parameters | {n: a * (1 + 1e-9) for n, a in parameters.items() if a.ndim > 1}
    out = by_hand(model, wrong, array(x), buffers, training)[0]
    verdicts = judge(
        lambda _: out,
        lambda given: by_module(module, *given),
        (parameters, array(x), buffers, training),
        np.dtype("float64"),
    )
    assert verdicts["y"].kind == DIFFERENT


@pytest.mark.parametrize("model", MODULES)
def test_what_was_trained_by_hand_goes_back(model):
    module, x = made(model)
    parameters, buffers = arrays(module)
    for _ in range(3):
        found, pullback = by_hand(model, parameters, array(x), buffers, True)
        gradients, _ = pullback(found.pop("y"))
        parameters = {name: p - 0.01 * gradients[name] for name, p in parameters.items()}
        buffers = found
    module.load_state_dict({n: tensor(a) for n, a in (parameters | buffers).items()}, strict=True)
    assert {int(n) for name, n in buffers.items() if name.endswith("tracked")} <= {6}
    back, moved = arrays(module)
    assert kinds(model, module, back, array(x), moved, False) <= {IDENTICAL, ROUNDING}


X = np.zeros((2, 1, 4, 4))


def drawn(model, row=0):
    """The parameters of a sample, and its buffers or none."""
    (parameters, _, *others), _ = vision.SAMPLES[model][row].draw(0, np.dtype(float))
    return parameters, *(a for a in others if isinstance(a, dict))


@pytest.mark.parametrize(
    ("model", "change", "error", "words"),
    [
        (
            "convnet",
            {"fc.bias": None},
            ValueError,
            "parameters: expected 5 entries, got no fc.bias",
        ),
        ("resnet", {"fc2.bias": X}, ValueError, "entries, got also fc2.bias"),
        ("resnet", {"layer2.0.downsample.0.weight": None}, ValueError, "got no layer2.0.down"),
        ("autoencoder", {"decoder.2.bias": None}, ValueError, "got no decoder.2.bias"),
        ("vit", {"cls_token": None}, ValueError, "got no cls_token"),
        ("convnet", {"conv1.weight": X[0]}, ValueError, "conv1: weight: expected 4 axes"),
        ("vit", {"head.bias": X.astype(np.float32)}, TypeError, "head: bias: expected the dtype"),
        ("convnet", {"bn1.weight": X[0, 0]}, ValueError, r"bn1: weight: expected shape \(2,\)"),
    ],
)
def test_entries_that_do_not_fit_are_named(model, change, error, words):
    parameters, *buffers = drawn(model)
    changed = {n: a for n, a in (parameters | change).items() if a is not None}
    with pytest.raises(error, match=words):
        getattr(manual.models, model)(changed, X, *buffers)


@pytest.mark.parametrize("model", MODULES)
def test_what_else_is_refused(model):
    rule, (parameters, *buffers) = getattr(manual.models, model), drawn(model)
    with pytest.raises(TypeError, match="parameters: expected a dict, got list"):
        rule([], X, *buffers)
    with pytest.raises(ValueError, match=r"x: expected \(N, C, …\)"):
        rule(parameters, X[0], *buffers)
    if buffers:
        with pytest.raises(ValueError, match=r"buffers: expected \d+ entries, got no bn1\.num"):
            rule(parameters, X, {})
        with pytest.raises(TypeError, match="buffers: expected a dict, got None"):
            rule(parameters, X, None)
        with pytest.raises(TypeError, match="training: expected True or False"):
            rule(parameters, X, *buffers, 1)


def test_the_heads_part_the_features_and_dropout_has_a_mask():
    with pytest.raises(ValueError, match="num_heads: expected a divisor of 4, got 3"):
        manual.models.vit(*drawn("vit"), X, num_heads=3)
    parameters, buffers = drawn("convnet")
    with pytest.raises(TypeError, match="mask: expected a boolean array"):
        manual.models.convnet(parameters, X, buffers, True)
