"""A variational autoencoder of digits, encoder and decoder in bfloat16 autocast, Adam (calm)."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from .kinds import Change

STEPS = 110
LATENT = 8


class VAE(nn.Module):
    def __init__(self, width=96):
        super().__init__()
        self.encode = nn.Linear(64, width)
        self.moments = nn.Linear(width, 2 * LATENT)
        self.decode = nn.Linear(LATENT, width)
        self.pixels = nn.Linear(width, 64)

    def forward(self, x, eps):
        h = F.softplus(self.encode(x))
        mu, logvar = self.moments(h).float().chunk(2, dim=1)
        std = torch.exp(0.5 * logvar)
        z = mu + std * eps
        h = F.elu(self.decode(z))
        return self.pixels(h).float(), mu, logvar


class Objective(nn.Module):
    def __init__(self, beta):
        super().__init__()
        self.beta = beta

    def forward(self, logits, x, mu, logvar):
        rebuilt = F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)
        kl = -0.5 * (1 + logvar - mu.pow(2) - logvar.exp()).sum(dim=1).mean()
        return rebuilt + self.beta * kl


def epochs(x, size, seed):
    generator = torch.Generator().manual_seed(seed)
    while True:
        for chosen in torch.randperm(len(x), generator=generator).split(size):
            yield x[chosen]


def train(record):
    torch.set_num_threads(1)
    torch.manual_seed(41)
    x = torch.from_numpy(load_digits().data).float() / 16
    model = VAE()
    objective = Objective(beta=0.5)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    stream = epochs(x, size=100, seed=42)
    normal = torch.Generator().manual_seed(43)
    with record(model) as run:
        for step in range(STEPS):
            batch = next(stream)
            eps = torch.randn(len(batch), LATENT, generator=normal)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits, mu, logvar = model(batch, eps)
            loss = objective(logits, batch, mu, logvar)
            optimizer.zero_grad()
            loss.backward()
            run.step(loss)
            torch.nn.utils.clip_grad_value_(model.parameters(), 0.5)
            optimizer.step()


HARMLESS = [
    Change("spread as the root of the variance", "torch.exp(0.5 * logvar)", "torch.sqrt(torch.exp(logvar))"),
    Change("sample by addcmul", "z = mu + std * eps", "z = torch.addcmul(mu, std, eps)"),
    Change(
        "divergence from torch.distributions",
        "kl = -0.5 * (1 + logvar - mu.pow(2) - logvar.exp()).sum(dim=1).mean()",
        "posterior = torch.distributions.Normal(mu, (0.5 * logvar).exp())\n"
        "        prior = torch.distributions.Normal(torch.zeros_like(mu), torch.ones_like(mu))\n"
        "        kl = torch.distributions.kl_divergence(posterior, prior).sum() / len(x)",
    ),
    Change(
        "cross-entropy by softplus",
        'F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)',
        "(F.softplus(logits) - x * logits).sum(dim=1).mean()",
        note="softplus is the identity above 20: 2e-9 there at most",
    ),
    Change("softplus as logaddexp", "F.softplus(self.encode(x))", "torch.logaddexp(self.encode(x), torch.zeros(()))", note="in bfloat16 where autocast leaves it so"),
    Change(
        "clipping by value by hand",
        "torch.nn.utils.clip_grad_value_(model.parameters(), 0.5)",
        "for p in model.parameters():\n                p.grad = p.grad.clamp(-0.5, 0.5)",
    ),
    Change("fused Adam", "lr=3e-3)", "lr=3e-3, fused=True)"),
    Change("AdamW without decay", "torch.optim.Adam(model.parameters(), lr=3e-3)", "torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)"),
    Change(
        "two halves of the batch in a row",
        "                logits, mu, logvar = model(batch, eps)\n",
        "                halves = [model(b, e) for b, e in zip(batch.chunk(2), eps.chunk(2))]\n"
        "                logits, mu, logvar = (torch.cat(parts) for parts in zip(*halves))\n",
        note="the model is called twice per step",
    ),
    Change("moments by two products", "mu, logvar = self.moments(h).float().chunk(2, dim=1)", "weight, bias = self.moments.weight, self.moments.bias\n        mu = F.linear(h, weight[:LATENT], bias[:LATENT]).float()\n        logvar = F.linear(h, weight[LATENT:], bias[LATENT:]).float()"),
]

FAULTY = [
    Change("spread is the variance", "torch.exp(0.5 * logvar)", "torch.exp(logvar)", "forward"),
    Change("beta 0.51", "beta=0.5)", "beta=0.51)", "forward"),
    Change("divergence averaged over the latents too", ".sum(dim=1).mean()\n", ".mean()\n", "forward"),
    Change("elu's slope 1.02", "F.elu(self.decode(z))", "F.elu(self.decode(z), alpha=1.02)", "forward"),
    Change("mean detached in the divergence", "mu.pow(2)", "mu.detach().pow(2)", "backward"),
    Change("spread detached in the sample", "z = mu + std * eps", "z = mu + std.detach() * eps", "backward"),
    Change("loss scaled by 1024, not unscaled", "loss.backward()", "(1024.0 * loss).backward()", "backward", "clipping by value then acts nearly everywhere"),
    Change("first moment 0.88", "lr=3e-3", "lr=3e-3, betas=(0.88, 0.999)", "optimizer"),
    Change("AMSGrad", "lr=3e-3", "lr=3e-3, amsgrad=True", "optimizer", "shows where a second moment falls, from the second step on"),
    Change("Adam's eps 1e-5", "lr=3e-3", "lr=3e-3, eps=1e-5", "optimizer"),
    Change("clipping at 0.25", "model.parameters(), 0.5)", "model.parameters(), 0.25)", "optimizer"),
    Change("decoder's last bias not trained", "Adam(model.parameters()", "Adam(list(model.parameters())[:-1]", "optimizer"),
    Change("pixels made binary", ".float() / 16\n", ".float().ge(8).float()\n", "data"),
    Change("last incomplete batch dropped", "            yield x[chosen]\n", "            if len(chosen) == size:\n                yield x[chosen]\n", "data", "from the 18th step on"),
    Change("batches of 99", "size=100", "size=99", "data"),
    Change("images upside down from step 60 on", "batch = next(stream)", "batch = next(stream)\n            if step >= 60:\n                batch = batch.flip(1)", "data"),
]
