"""Models of timm, random and small, and ports of them as their papers have them: right ones are
right, and 16 planted faults are found. Written down before they were first run."""

import itertools
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gradtwin import check

try:
    with warnings.catch_warnings():  # of parts of torchvision that cannot be loaded
        warnings.simplefilter("ignore")
        from timm.models.convnext import ConvNeXt
        from timm.models.resnet import BasicBlock, ResNet
        from timm.models.vision_transformer import VisionTransformer
except ImportError:
    pytest.skip("timm is not installed: pip install -e '.[timm]'", allow_module_level=True)
except RuntimeError as error:
    pytest.skip(f"torchvision is of another torch: {error}", allow_module_level=True)

WIDTH, HEADS, CLASSES = 24, 4, 5
pytestmark = pytest.mark.filterwarnings("ignore")


def images(count, size):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(5))


def randomized(model):
    """Biases of 0 and weights of 1 hide what is done with them."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(p + 0.3 * noise if p.ndim == 1 else noise / p[0].numel() ** 0.5)
    return model.train()


class Attention(nn.Module):
    scale = (WIDTH // HEADS) ** -0.5

    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def split(self, qkv):
        return qkv.unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)

    def forward(self, x):
        q, k, v = self.split(self.qkv(x))
        y = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1) @ v
        return self.proj(y.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    eps = 1e-6

    def __init__(self):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(WIDTH, eps=self.eps), Attention()
        self.norm2, self.mlp = nn.LayerNorm(WIDTH, eps=self.eps), Mlp()

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Patches(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Conv2d(3, WIDTH, 4, 4)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class Vit(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_embed = Patches()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.zeros(1, 17, WIDTH))
        self.blocks = nn.Sequential(*(Block() for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(WIDTH, eps=1e-6), nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        x = self.placed(self.patch_embed(x))
        return self.head(self.pooled(self.norm(self.blocks(x))))

    def placed(self, x):
        return torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed

    def pooled(self, x):
        return x[:, 0]


class ChannelNorm(nn.Module):
    """Layer norm over the channels of images, by hand."""

    def __init__(self, width):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def variance(self, x):
        return (x - x.mean(1, keepdim=True)).pow(2).mean(1, keepdim=True)

    def forward(self, x):
        x = (x - x.mean(1, keepdim=True)) / torch.sqrt(self.variance(x) + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class NextBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1, self.pwconv2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.ones(width))

    act = staticmethod(F.gelu)

    def forward(self, x):
        y = self.dwconv(x).permute(0, 2, 3, 1)
        y = self.pwconv2(self.act(self.pwconv1(self.norm(y))))
        return self.added(x, y)

    def added(self, x, y):
        return x + (self.gamma * y).permute(0, 3, 1, 2)


class Next(nn.Module):
    def __init__(self, depths=(1, 1, 1, 2), widths=(8, 8, 16, 16)):
        super().__init__()
        self.downsample_layers = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(3, widths[0], 4, 4), ChannelNorm(widths[0]))]
        )
        for a, b in itertools.pairwise(widths):
            self.downsample_layers.append(nn.Sequential(ChannelNorm(a), nn.Conv2d(a, b, 2, 2)))
        self.stages = nn.ModuleList(
            nn.Sequential(*(NextBlock(width) for _ in range(depth)))
            for depth, width in zip(depths, widths, strict=True)
        )
        self.norm, self.head = nn.LayerNorm(widths[-1], eps=1e-6), nn.Linear(widths[-1], CLASSES)

    def forward(self, x):
        for down, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(down(x))
        return self.head(self.norm(x.mean([-2, -1])))


class Basic(nn.Module):
    def __init__(self, a, b, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b)
        self.conv2, self.bn2 = nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b)
        self.downsample = nn.Sequential(nn.Conv2d(a, b, 1, stride, bias=False), nn.BatchNorm2d(b))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return self.added(y, self.downsample(x))

    def added(self, y, x):
        return F.relu(y + x)


class Residual(nn.Module):
    pool = staticmethod(lambda x: F.max_pool2d(x, 3, 2, 1))

    def __init__(self, widths=(8, 12, 16, 20)):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        for i, (a, b) in enumerate(zip((64, *widths[:-1]), widths, strict=True)):
            self.add_module(f"layer{i + 1}", nn.Sequential(Basic(a, b, 1 + (i > 0))))
        self.fc = nn.Linear(widths[-1], CLASSES)

    def forward(self, x):
        x = self.pool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


NEXT = {"downsample_layers.0": "stem", "norm": "head.norm", "head": "head.fc"}
NEXT |= {f"downsample_layers.{i}": f"stages.{i}.downsample" for i in range(1, 4)}
for _place in ("0.0", "1.0", "2.0", "3.0", "3.1"):
    _ours, _theirs = f"stages.{_place}", f"stages.{_place.replace('.', '.blocks.')}"
    NEXT |= {_ours: _theirs, f"{_ours}.dwconv": f"{_theirs}.conv_dw"}
    NEXT |= {f"{_ours}.pwconv{n}": f"{_theirs}.mlp.fc{n}" for n in (1, 2)}


def vit():
    size = {"img_size": 16, "patch_size": 4, "embed_dim": WIDTH, "depth": 2, "num_heads": HEADS}
    return VisionTransformer(num_classes=CLASSES, **size)


def convnext():
    size = {"depths": (1, 1, 1, 2), "dims": (8, 8, 16, 16), "ls_init_value": 1.0}
    return ConvNeXt(num_classes=CLASSES, **size)


def resnet():
    return ResNet(BasicBlock, (1, 1, 1, 1), num_classes=CLASSES, channels=(8, 12, 16, 20))


MODELS = {
    "vit": (Vit, vit, None, images(2, 16)),
    "convnext": (Next, convnext, NEXT, images(2, 64)),
    "resnet": (Residual, resnet, None, images(3, 32)),
}


def checked(model, port=None):
    kind, original, names, x = MODELS[model]
    return check(port or kind(), randomized(original()), [x], names=names)


@pytest.mark.parametrize("model", MODELS)
def test_a_right_port_is_right(model):
    report = checked(model)
    assert report.passed, str(report)
    assert not report.warnings


def gamma_on_both(self, x, y):
    return ((x.permute(0, 2, 3, 1) + y) * self.gamma).permute(0, 3, 1, 2)


def class_without_place(self, x):
    x = x + self.pos_embed[:, 1:]
    return torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)


def class_last(self, x):
    return torch.cat([x, self.cls_token.expand(len(x), -1, -1)], 1) + self.pos_embed


def norm_before_pool(self, x):
    for down, stage in zip(self.downsample_layers, self.stages, strict=True):
        x = stage(down(x))
    return self.head(self.norm(x.permute(0, 2, 3, 1)).mean((1, 2)))


IN_NEXT = "stages.0.blocks.0"
# What is changed in which class, where the innermost such place is, and the cause, if one is known.
FAULTS = {
    "qkv": (
        *("vit", Attention, "split"),
        lambda self, qkv: qkv.unflatten(-1, (HEADS, 3, -1)).permute(3, 0, 2, 1, 4),
        *("blocks.0.attn", None),
    ),
    "scale": ("vit", Attention, "scale", WIDTH**-0.5, "blocks.0.attn", "scale"),
    "eps": ("vit", Block, "eps", 1e-5, "blocks.0.norm1", "eps"),
    "class last": ("vit", Vit, "placed", class_last, "", "order"),
    "class without a place": ("vit", Vit, "placed", class_without_place, "", None),
    "mean pool": ("vit", Vit, "pooled", lambda self, x: x.mean(1), "", None),
    "patches by columns": (
        *("vit", Patches, "forward", lambda self, x: self.proj(x).flatten(2).mT.flip(1)),
        *("patch_embed", None),
    ),
    "unbiased": (
        *("convnext", ChannelNorm, "variance", lambda self, x: x.var(1, keepdim=True)),
        *("stem.1", "variance"),
    ),
    "gamma on both": ("convnext", NextBlock, "added", gamma_on_both, IN_NEXT, "order"),
    "relu": ("convnext", NextBlock, "act", staticmethod(F.relu), IN_NEXT, "activation"),
    "norm before the pool": ("convnext", Next, "forward", norm_before_pool, "head", None),
    "relu before the sum": (
        *("resnet", Basic, "added", lambda self, y, x: F.relu(y) + x),
        *("layer1.0", "order"),
    ),
    "mean over windows": (
        *("resnet", Residual, "pool", staticmethod(lambda x: F.avg_pool2d(x, 3, 2, 1))),
        *("maxpool", None),
    ),
}


def is_around(place, inner):
    return place == inner or not place or inner.startswith(f"{place}.")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault, monkeypatch):
    model, kind, name, wrong, place, cause = FAULTS[fault]
    monkeypatch.setattr(kind, name, wrong)
    report = checked(model)
    assert not report.passed
    assert is_around(report.failed.iloc[0]["place"], place), report.first
    assert cause is None or report.cause.name == cause, str(report)


def moved_otherwise():
    port = Residual()
    for module in port.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.01
    return port


def strides_exchanged():
    port = Residual()
    for layer in (port.layer2, port.layer3, port.layer4):
        layer[0].conv1.stride, layer[0].conv2.stride = (1, 1), (2, 2)
    return port


@pytest.mark.parametrize(
    ("made", "place", "cause"),
    [
        (moved_otherwise, "bn1", "momentum"),
        (lambda: Residual().eval(), "bn1", "mode"),
        (strides_exchanged, "layer2.0.conv1", None),
    ],
)
def test_settings_of_a_port(made, place, cause):
    report = checked("resnet", made())
    assert not report.passed
    assert is_around(report.failed.iloc[0]["place"], place), report.first
    assert cause is None or report.cause.name == cause


@pytest.mark.parametrize("model", MODELS)
def test_a_model_is_itself_and_all_of_it_is_judged(model):
    _, made, _, x = MODELS[model]
    report = check(randomized(made()), randomized(made()), [x])
    assert report.passed, str(report)
    assert "n/a" not in set(report.table["class"]), str(report)
    saving = randomized(made())
    saving.set_grad_checkpointing()
    report = check(saving, randomized(made()), [x])
    if model != "resnet":
        assert report.passed, str(report)
    else:  # what is done once more in the backward moves the statistics once more
        assert report.first == "buffer layer1.0.bn1.running_mean in ResNet"
        assert report.cause.name == "momentum"
