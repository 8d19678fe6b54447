"""Small networks as people build them: a rule answers for nearly every node, and nothing is
different."""

import dataclasses

import pytest
import torch
from gradtwin.comparisons.trace.steps import NO_RULE
from gradtwin.comparisons.verdict.classes import DIFFERENT
from torch import nn

from gradtwin import reference, trace

F = nn.functional
BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def drawn(dtype, *shape):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


class Residual(nn.Module):
    """Two convolutions beside the identity, or where it has another shape a third."""

    def __init__(self, channels, out, stride):
        super().__init__()
        self.first = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(out), nn.BatchNorm2d(out)])
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = None
        if stride > 1 or channels != out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x):
        y = self.relu(self.norms[0](self.first(x)))
        y = self.norms[1](self.second(y))
        y += x if self.shortcut is None else self.shortcut(x)
        return self.relu(y)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 4, 5, 2, 2, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        )
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.blocks = nn.Sequential(Residual(4, 4, 1), Residual(4, 6, 2))
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.last = nn.Linear(6, 5)

    def forward(self, x):
        y = self.mean(self.blocks(self.pool(self.stem(x))))
        return F.cross_entropy(self.last(torch.flatten(y, 1)), torch.tensor([1, 4]))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.ModuleList([nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)])
        self.up = nn.ConvTranspose2d(6, 4, 2, 2)
        self.after = nn.ModuleList([nn.Conv2d(8, 4, 3), nn.Conv2d(6, 1, 1)])

    def forward(self, x):
        wide = F.relu(self.down[0](x))
        deep = F.relu(self.down[1](F.max_pool2d(wide, 2)))
        y = torch.cat([self.up(deep), wide], dim=1)
        y = F.relu(self.after[0](F.pad(y, (1, 1, 1, 1))))
        small = F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)
        again = F.interpolate(small, size=y.shape[-2:], mode="nearest")
        y = self.after[1](torch.cat((y, again), 1)).squeeze(1)
        return F.binary_cross_entropy_with_logits(y, (y.detach() > 0.1).to(y.dtype))


class Upscaling(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.GroupNorm(4, 8)
        self.second = nn.Conv2d(4, 4, 3, padding=1, groups=2)

    def forward(self, x):
        y = F.silu(self.norm(self.first(x)))
        gate, y = y.chunk(2, dim=1)
        y = self.second(y * torch.sigmoid(gate))
        y = F.pixel_shuffle(y, 2)
        return F.mse_loss(y, x.detach().repeat_interleave(2, 2).repeat_interleave(2, 3))


@BOTH
@pytest.mark.parametrize(
    ("made", "shape"), [(ResNet, (2, 3, 16, 16)), (UNet, (2, 2, 8, 8)), (Upscaling, (2, 1, 5, 5))]
)
def test_a_network_is_covered_and_right(made, shape, dtype):
    torch.manual_seed(0)
    found = trace(made().to(dtype), drawn(dtype, *shape).requires_grad_())
    print(found)
    assert not found.wrong
    assert found.covered >= 0.9, found.missing


@BOTH
def test_functions_that_rearrange_tensors_are_covered(dtype):
    def module(x):
        a, b, c = x.split([1, 2, 1], dim=-1)
        y = torch.concat([a, b.flip(-1), c.expand(-1, -1, 3)], -1).unsqueeze(0).repeat(1, 1, 1, 2)
        y = y.squeeze(0).roll(1, -1).narrow(-1, 2, 8)
        first, *_, last = torch.stack([y, y.ravel().view_as(y)]).unbind()
        y = first.masked_fill(first > 1, -1.0).tril() + last.triu(1)
        large, at = x.flatten(1).topk(2, dim=-1)
        other = y.swapaxes(0, 1)
        other = other.where(other.detach() > 0, torch.zeros((), dtype=dtype))
        ordered, _ = x.sort(dim=1, descending=True)
        picked = ordered.index_select(2, at[0] % 4).mean() + y.gather(-1, at[:, None] % 8).sum()
        return (large * torch.where(large > 0, large, 0.0)).sum() + other.mean() + picked

    found = trace(module, drawn(dtype, 2, 3, 4).requires_grad_())
    print(found)
    assert not found.wrong
    assert set(found.missing) <= {"ViewBackward0"}  # of view_as


def test_a_method_that_is_another_function_is_no_call_of_the_rule():
    found = trace(lambda x: x.unfold(0, 2, 1) * 2, drawn(torch.float64, 4, 3).requires_grad_())
    assert found.steps[0].kind == NO_RULE
    assert not found.wrong


def test_whether_a_method_is_the_function_is_a_fact(monkeypatch):
    twin = reference.activations.tanh
    monkeypatch.setattr(twin, "facts", dataclasses.replace(twin.facts, entry="another"))
    x = drawn(torch.float64, 4, 3).requires_grad_()
    found = trace(lambda x: torch.tanh(x) * x.tanh(), x)
    assert [step.op for step in found.steps] == ["tanh", "", "mul"]


def test_what_torch_leaves_open_is_said_and_not_judged():
    x = torch.zeros(3, 4, requires_grad=True)
    found = trace(lambda x: (2 * x).topk(2).values, x)
    assert "leaves open which of equal elements" in found.steps[-1].note
    assert found.steps[-1].kind == NO_RULE
    assert DIFFERENT not in {step.kind for step in found.steps}
