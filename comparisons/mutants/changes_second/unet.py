"""A small U-Net that takes noise off digits, GroupNorm, bfloat16 autocast, AdamW with an averaged copy (calm)."""

import math

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from ..changes.kinds import Change

STEPS = 70


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.GroupNorm(4, outputs)
        self.time = nn.Linear(16, outputs)

    def forward(self, x, t):
        x = self.norm(self.conv(x))
        return F.silu(x + self.time(t)[:, :, None, None])


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter = Block(1, 12)
        self.deep = Block(12, 24)
        self.bottom = Block(24, 24)
        self.rise = Block(36, 12)
        self.out = nn.Conv2d(12, 1, 1)
        self.register_buffer("frequencies", torch.exp(torch.linspace(0, 4, 8)))

    def forward(self, x, level):
        angle = level[:, None] * self.frequencies
        t = torch.cat([angle.sin(), angle.cos()], dim=1)
        wide = self.enter(x, t)
        low = F.avg_pool2d(wide, 2)
        low = self.bottom(self.deep(low, t), t)
        up = F.interpolate(low, scale_factor=2, mode="nearest")
        return self.out(self.rise(torch.cat([wide, up], dim=1), t))


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = UNet()
        self.register_buffer("by_level", torch.zeros(4))
        for name, p in self.net.named_parameters():
            self.register_buffer("slow_" + name.replace(".", "_"), p.detach().clone())

    def forward(self, x, level):
        return self.net(x, level).float()

    @torch.no_grad()
    def follow(self, step):
        decay = min(0.95, (1 + step) / (5 + step))
        for name, p in self.net.named_parameters():
            getattr(self, "slow_" + name.replace(".", "_")).mul_(decay).add_(p, alpha=1 - decay)


def train(record):
    torch.set_num_threads(1)
    torch.manual_seed(131)
    digits = torch.from_numpy(load_digits().images).float()[:, None] / 8 - 1
    model = Denoiser()
    plain = [p for n, p in model.named_parameters() if n.endswith("bias") or "norm" in n]
    others = [p for n, p in model.named_parameters() if not (n.endswith("bias") or "norm" in n)]
    optimizer = torch.optim.AdamW([{"params": others}, {"params": plain, "weight_decay": 0.0}], lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=STEPS + 1, cycle_momentum=False)
    generator = torch.Generator().manual_seed(132)
    with record(model) as run:
        for step in range(STEPS):
            clean = digits[torch.randint(len(digits), (48,), generator=generator)]
            level = torch.rand(len(clean), generator=generator)
            noise = torch.randn(clean.shape, generator=generator)
            keep = torch.cos(0.5 * math.pi * level)[:, None, None, None]
            spoilt = keep * clean + torch.sqrt(1 - keep**2) * noise
            with torch.autocast("cpu", dtype=torch.bfloat16):
                guess = model(spoilt, level)
            error = (guess - noise).pow(2).mean(dim=(1, 2, 3))
            weight = 1 / (1 + 0.5 * level)
            loss = (weight * error).sum() / weight.sum()
            with torch.no_grad():
                bins = (4 * level).long()
                sums = torch.zeros(4).index_add_(0, bins, error)
                model.by_level.lerp_(sums / bins.bincount(minlength=4).clamp(min=1), 0.1)
            optimizer.zero_grad()
            loss.backward()
            run.step(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            schedule.step()
            model.follow(step)


HARMLESS = [
    Change("error by the library", "(guess - noise).pow(2).mean(dim=(1, 2, 3))", "F.mse_loss(guess, noise, reduction='none').flatten(1).mean(dim=1)"),
    Change("nearest by repetition", 'F.interpolate(low, scale_factor=2, mode="nearest")', "low.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)"),
    Change("pooling by reshape", "F.avg_pool2d(wide, 2)", "wide.unflatten(3, (4, 2)).unflatten(2, (4, 2)).mean(dim=(3, 5))"),
    Change("silu written out", "F.silu(x + self.time(t)[:, :, None, None])", "(s := x + self.time(t)[:, :, None, None]) / (1 + torch.exp(-s))"),
    Change("channels last", "model = Denoiser()\n", "model = Denoiser().to(memory_format=torch.channels_last)\n"),
    Change(
        "group norm as a layer norm of groups",
        "x = self.norm(self.conv(x))",
        "x = self.conv(x)\n        grouped = x.unflatten(1, (4, -1))\n        x = F.layer_norm(grouped, grouped.shape[2:], eps=1e-5).flatten(1, 2)\n        x = x * self.norm.weight[:, None, None] + self.norm.bias[:, None, None]",
    ),
    Change("last layer as a product", "self.out(self.rise(torch.cat([wide, up], dim=1), t))", "F.linear(self.rise(torch.cat([wide, up], dim=1), t).movedim(1, 3), self.out.weight[:, :, 0, 0], self.out.bias).movedim(3, 1)"),
    Change("noise's share by the sine", "torch.sqrt(1 - keep**2)", "torch.sin(0.5 * math.pi * level)[:, None, None, None]"),
    Change("average by lerp", ".mul_(decay).add_(p, alpha=1 - decay)", ".lerp_(p, 1 - decay)"),
    Change("weighted mean by average", "loss = (weight * error).sum() / weight.sum()", "loss = torch.dot(weight / weight.sum(), error)"),
    Change("AdamW tensor by tensor", "weight_decay=0.02)", "weight_decay=0.02, foreach=False)"),
    Change("rise's convolution in two parts", "self.rise(torch.cat([wide, up], dim=1), t)", "self.rise(torch.hstack((wide, up)).contiguous(), t)", note="hstack in place of cat: the same numbers"),
]

FAULTY = [
    Change("images over 8.1", "/ 8 - 1", "/ 8.1 - 1", "data"),
    Change("levels in steps", "torch.rand(len(clean), generator=generator)", "torch.randint(100, (len(clean),), generator=generator) / 100", "data"),
    Change("keep by the root of 1 - level", "torch.cos(0.5 * math.pi * level)[:", "torch.sqrt(1 - level)[:", "data", "another schedule of noise: forward as well"),
    Change("same noise from step 20 on", "            noise = torch.randn(clean.shape, generator=generator)\n", "            if step < 20:\n                noise = torch.randn(clean.shape, generator=generator)\n", "data"),
    Change("replicated border", "outputs, 3, padding=1)", "outputs, 3, padding=1, padding_mode='replicate')", "forward"),
    Change("group norm with three groups", "nn.GroupNorm(4, outputs)", "nn.GroupNorm(3, outputs)", "forward"),
    Change("eps of the norms 1e-3", "nn.GroupNorm(4, outputs)", "nn.GroupNorm(4, outputs, eps=1e-3)", "forward"),
    Change("weights of the levels 0.52", "0.5 * level)\n", "0.52 * level)\n", "forward"),
    Change("bilinear", 'mode="nearest"', 'mode="bilinear"', "forward"),
    Change("mean of weighted errors", "(weight * error).sum() / weight.sum()", "(weight * error).mean()", "forward"),
    Change("skip detached", "torch.cat([wide, up], dim=1)", "torch.cat([wide.detach(), up], dim=1)", "backward"),
    Change("gradients divided by two", "            loss.backward()\n", "            (loss / 2).backward()\n", "backward", "as for two micro-batches that are one"),
    Change("gradients through half precision", "            loss.backward()\n", "            loss.backward()\n            for p in model.parameters():\n                p.grad = p.grad.half().to(p.dtype)\n", "backward", "gradients rounded to half precision: 5e-4 relative, less than bfloat16's own"),
    Change("gradients of the bottom lost from step 10 on", "            run.step(loss)\n", "            if step >= 10:\n                model.net.bottom.conv.weight.grad.zero_()\n            run.step(loss)\n", "backward"),
    Change("clip by each tensor's norm", "            nn.utils.clip_grad_norm_(model.parameters(), 0.5)\n", "            for p in model.parameters():\n                nn.utils.clip_grad_norm_([p], 0.5)\n", "optimizer"),
    Change("norms decayed", '"weight_decay": 0.0}', '"weight_decay": 0.02}', "optimizer"),
    Change("peak at 4.1e-3", "max_lr=4e-3", "max_lr=4.1e-3", "optimizer"),
    Change("L2 in Adam", "torch.optim.AdamW(", "torch.optim.Adam(", "optimizer", "the decay is coupled"),
    Change("cycle rises over 40 %", "cycle_momentum=False", "cycle_momentum=False, pct_start=0.4", "optimizer"),
    Change("average warms up over ten", "(5 + step)", "(10 + step)", "statistics", "nothing but the average moves"),
    Change("average taken before the step", "            optimizer.step()\n            schedule.step()\n            model.follow(step)\n", "            model.follow(step)\n            optimizer.step()\n            schedule.step()\n", "statistics"),
    Change("errors by level at 0.12", "clamp(min=1), 0.1)", "clamp(min=1), 0.12)", "statistics", "nothing but a buffer moves"),
]
