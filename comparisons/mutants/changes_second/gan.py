"""A GAN of digits: BatchNorm generator, leaky discriminator with a gradient penalty, two Adams (chaotic)."""

import copy

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from ..changes.kinds import Change

STEPS = 100
NOISE = 16


class Generator(nn.Module):
    def __init__(self, width=80):
        super().__init__()
        self.lift = nn.Linear(NOISE, width, bias=False)
        self.norm = nn.BatchNorm1d(width, momentum=0.2)
        self.mid = nn.Linear(width, width)
        self.out = nn.Linear(width, 64)

    def forward(self, z):
        h = F.relu(self.norm(self.lift(z)))
        h = F.relu(self.mid(h))
        return torch.sigmoid(self.out(h))


class Discriminator(nn.Module):
    def __init__(self, width=96):
        super().__init__()
        self.first = nn.Linear(64, width)
        self.second = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.judge = nn.Linear(width, 1)

    def forward(self, x):
        h = F.leaky_relu(self.first(2 * x - 1), 0.2)
        h = F.leaky_relu(self.norm(self.second(h)), 0.1)
        return self.judge(h).squeeze(1)


class GAN(nn.Module):
    def __init__(self):
        super().__init__()
        self.generator = Generator()
        self.discriminator = Discriminator()
        self.average = copy.deepcopy(self.generator).requires_grad_(False)

    @torch.no_grad()
    def follow(self, decay):
        for slow, fast in zip(self.average.parameters(), self.generator.parameters()):
            slow.lerp_(fast, 1 - decay)
        for slow, fast in zip(self.average.buffers(), self.generator.buffers()):
            slow.copy_(fast)


def penalty(discriminator, real):
    real = real.detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
    return slope.pow(2).sum(dim=1).mean()


def train(record):
    torch.set_num_threads(1)
    torch.manual_seed(101)
    pixels = torch.from_numpy(load_digits().data).float() / 16
    gan = GAN()
    g_optimizer = torch.optim.Adam(gan.generator.parameters(), lr=2e-2, betas=(0.5, 0.99))
    d_optimizer = torch.optim.Adam(gan.discriminator.parameters(), lr=2e-2, betas=(0.5, 0.98))
    g_schedule = torch.optim.lr_scheduler.ExponentialLR(g_optimizer, gamma=0.995)
    draws = torch.Generator().manual_seed(102)
    order = torch.Generator().manual_seed(103)
    with record(gan) as run:
        for step in range(STEPS):
            real = pixels[torch.randint(len(pixels), (64,), generator=order)]
            z = torch.randn(64, NOISE, generator=draws)
            fake = gan.generator(z)
            g_loss = F.softplus(-gan.discriminator(fake)).mean()
            g_optimizer.zero_grad()
            g_loss.backward()
            on_real = gan.discriminator(real)
            on_fake = gan.discriminator(fake.detach())
            d_loss = F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
            if step % 2 == 0:
                d_loss = d_loss + 0.05 * penalty(gan.discriminator, real)
            d_optimizer.zero_grad()
            d_loss.backward()
            run.step(g_loss + d_loss)
            g_optimizer.step()
            d_optimizer.step()
            g_schedule.step()
            gan.follow(decay=0.95)


HARMLESS = [
    Change("generator's loss by cross-entropy", "F.softplus(-gan.discriminator(fake)).mean()", "F.binary_cross_entropy_with_logits(gan.discriminator(fake), torch.ones(64))"),
    Change("discriminator's loss by logsigmoid", "F.softplus(-on_real).mean() + F.softplus(on_fake).mean()", "-(F.logsigmoid(on_real) + F.logsigmoid(-on_fake)).mean()"),
    Change(
        "real and fake in one call",
        "            on_real = gan.discriminator(real)\n            on_fake = gan.discriminator(fake.detach())\n",
        "            on_real, on_fake = gan.discriminator(torch.cat([real, fake.detach()])).chunk(2)\n",
        note="the discriminator has no batch statistics",
    ),
    Change("average by hand", "slow.lerp_(fast, 1 - decay)", "slow.mul_(decay).add_(fast, alpha=1 - decay)"),
    Change("fused Adam for the discriminator", "betas=(0.5, 0.98))", "betas=(0.5, 0.98), fused=True)"),
    Change("foreach off for the generator", "betas=(0.5, 0.99))", "betas=(0.5, 0.99), foreach=False)"),
    Change("sigmoid by tanh", "torch.sigmoid(self.out(h))", "0.5 * (1 + torch.tanh(0.5 * self.out(h)))"),
    Change("leaky ReLU as a maximum", "F.leaky_relu(self.first(2 * x - 1), 0.2)", "torch.maximum(a := self.first(2 * x - 1), 0.2 * a)", note="the same but in the kink"),
    Change("pixels shifted by an affine of the weights", "self.first(2 * x - 1)", "F.linear(x, 2 * self.first.weight, self.first.bias - self.first.weight.sum(dim=1))"),
    Change("penalty by norm", "slope.pow(2).sum(dim=1).mean()", "torch.einsum('ij,ij->', slope, slope) / len(slope)"),
    Change("schedule in closed form", "            g_schedule.step()\n", "            for group in g_optimizer.param_groups:\n                group['lr'] = 2e-2 * 0.995 ** (step + 1)\n"),
    Change("BatchNorm by its function", "self.norm(self.lift(z))", "F.batch_norm(self.lift(z), self.norm.running_mean, self.norm.running_var, self.norm.weight, self.norm.bias, True, 0.2) if self.norm.num_batches_tracked.add_(1) else None"),
]

FAULTY = [
    Change("noise uniform from step 20 on", "            fake = gan.generator(z)\n", "            if step >= 20:\n                z = z.clamp(-1.5, 1.5)\n            fake = gan.generator(z)\n", "data"),
    Change("pixels over 15", "/ 16\n", "/ 15\n", "data"),
    Change("order drawn with the noise's generator", "(64,), generator=order)", "(64,), generator=draws)", "data", "noise and order both move"),
    Change("last hundred images never drawn", "torch.randint(len(pixels),", "torch.randint(len(pixels) - 100,", "data"),
    Change("slope 0.1 in the first leaky ReLU too", "self.first(2 * x - 1), 0.2)", "self.first(2 * x - 1), 0.1)", "forward"),
    Change("LayerNorm's eps 1e-3", "nn.LayerNorm(width)", "nn.LayerNorm(width, eps=1e-3)", "forward"),
    Change("hard sigmoid from step 12 on", "            fake = gan.generator(z)\n", "            fake = gan.generator(z)\n            if step >= 12:\n                fake = fake.clamp(0.02, 0.98)\n", "forward", "also stops gradients there"),
    Change("saturating loss of the generator", "F.softplus(-gan.discriminator(fake)).mean()", "-F.softplus(gan.discriminator(fake)).mean()", "forward"),
    Change("penalty each step", "if step % 2 == 0:", "if step >= 0:", "forward", "from the second step on"),
    Change("penalty without its graph", "real, create_graph=True)", "real, create_graph=False)", "backward", "the loss stays until the next step"),
    Change("discriminator keeps the generator's gradient", "            d_optimizer.zero_grad()\n", "", "backward", "and its own of the steps before"),
    Change("hidden layer detached from the lift", "F.relu(self.mid(h))", "F.relu(self.mid(h.detach()))", "backward"),
    Change("first moment 0.9 in the generator", "betas=(0.5, 0.99)", "betas=(0.9, 0.99)", "optimizer"),
    Change("discriminator's rate 2 % up", "lr=2e-2, betas=(0.5, 0.98)", "lr=2.04e-2, betas=(0.5, 0.98)", "optimizer"),
    Change("schedule stepped every other step", "            g_schedule.step()\n", "            if step % 2:\n                g_schedule.step()\n", "optimizer"),
    Change("decay coupled in the discriminator", "betas=(0.5, 0.98))", "betas=(0.5, 0.98), weight_decay=1e-3)", "optimizer"),
    Change("momentum of BatchNorm 0.1", "nn.BatchNorm1d(width, momentum=0.2)", "nn.BatchNorm1d(width)", "statistics", "nothing but buffers moves"),
    Change("average at 0.96", "decay=0.95", "decay=0.96", "statistics", "nothing but the average moves"),
    Change("average does not take the buffers", "            slow.copy_(fast)\n", "            pass\n", "statistics", "nothing but the average's buffers moves"),
    Change("generator samples once more in train mode", "            g_schedule.step()\n", "            g_schedule.step()\n            with torch.no_grad():\n                gan.generator(z)\n", "statistics", "the running statistics are updated twice"),
]
