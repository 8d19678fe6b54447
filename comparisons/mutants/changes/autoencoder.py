"""A denoising autoencoder of digits whose parameters are bfloat16, with AdamW, a cosine and a moving average of the codes."""

import copy
import math

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from .kinds import Change

STEPS = 120
BATCH = 64
NOISE = 0.2


class AutoEncoder(nn.Module):
    """The code is centred by a moving average of the batches' means."""

    def __init__(self, code=12, width=80):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, width), nn.Tanh(), nn.Linear(width, code))
        self.decoder = nn.Sequential(nn.Linear(code, width), nn.Tanh(), nn.Linear(width, 64))
        self.register_buffer("center", torch.zeros(code))
        self.decay = 0.9

    def forward(self, x):
        code = self.encoder(x)
        if self.training:
            with torch.no_grad():
                mean = code.mean(dim=0)
                self.center.mul_(self.decay).add_(mean, alpha=1 - self.decay)
        code = code - self.center
        return self.decoder(code)


def train(record):
    torch.set_num_threads(1)
    torch.manual_seed(31)
    images = torch.tensor(load_digits().data).float() / 8.0 - 1.0
    model = AutoEncoder().to(torch.bfloat16).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS)
    picks = torch.Generator().manual_seed(32)
    noise = torch.Generator().manual_seed(33)
    with record(model) as run:
        for step in range(STEPS):
            clean = images[torch.randperm(len(images), generator=picks)[:BATCH]]
            noisy = clean + NOISE * torch.randn(clean.shape, generator=noise)
            output = model(noisy.to(torch.bfloat16))
            loss = F.mse_loss(output.float(), clean)
            optimizer.zero_grad()
            loss.backward()
            run.step(loss)
            optimizer.step()
            scheduler.step()


HARMLESS = [
    Change(
        "layers called one by one, by matmul",
        "return self.decoder(code)",
        "first, act, second = self.decoder\n"
        "        h = act(code @ first.weight.mT + first.bias)\n"
        "        return h @ second.weight.mT + second.bias",
    ),
    Change("moving average by lerp", "self.center.mul_(self.decay).add_(mean, alpha=1 - self.decay)", "self.center.lerp_(mean, 1 - self.decay)"),
    Change(
        "moving average in float32, stored as bfloat16",
        "self.center.mul_(self.decay).add_(mean, alpha=1 - self.decay)",
        "self.center.copy_(self.decay * self.center.float() + (1 - self.decay) * mean.float())",
    ),
    Change("mean of squares by hand", "loss = F.mse_loss(output.float(), clean)", "loss = (output.float() - clean).pow(2).sum() / clean.numel()"),
    Change("loss in bfloat16", "F.mse_loss(output.float(), clean)", "F.mse_loss(output, clean.to(torch.bfloat16))", note="rounding of the loss itself to 8 bits"),
    Change("foreach AdamW", "weight_decay=0.05)", "weight_decay=0.05, foreach=True)"),
    Change(
        "fused AdamW",
        "weight_decay=0.05)",
        "weight_decay=0.05, fused=True)",
        note="rounds to bfloat16 once, where the plain one rounds the decayed parameter first (which swallows the decay)",
    ),
    Change("code's difference as an addition", "code = code - self.center", "code = torch.add(code, self.center, alpha=-1)"),
    Change(
        "model and optimizer copied in the middle",
        "            scheduler.step()\n",
        """            scheduler.step()
            if step == 60:
                states = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
                model.load_state_dict(states[0])
                optimizer.load_state_dict(states[1])
""",
    ),
    Change("schedule by hand", "            scheduler.step()\n", '            optimizer.param_groups[0]["lr"] = 1e-3 * (1 + math.cos(math.pi * (step + 1) / STEPS))\n'),
    Change("tanh by the sigmoid", "code = self.encoder(x)", "first, _, second = self.encoder\n        code = second(2 * torch.sigmoid(2 * first(x)) - 1)"),
    Change("hidden layer summed in reverse", "code = self.encoder(x)", "first, act, second = self.encoder\n        code = second(act(F.linear(x.flip(1), first.weight.flip(1), first.bias)))"),
]

FAULTY = [
    Change("moving average's decay 0.92", "self.decay = 0.9", "self.decay = 0.92", "statistics"),
    Change("moving average fed half as much", "self.center.mul_(self.decay).add_(mean, alpha=1 - self.decay)", "self.center.mul_(self.decay).add_(mean, alpha=0.5 * (1 - self.decay))", "statistics"),
    Change("moving average of the first half of the batch", "mean = code.mean(dim=0)", "mean = code[: len(code) // 2].mean(dim=0)", "statistics"),
    Change("moving average starts at the first mean", "                mean = code.mean(dim=0)\n", "                mean = code.mean(dim=0)\n                if not self.center.any():\n                    self.center.copy_(mean)\n", "statistics"),
    Change("no center in the code", "code = code - self.center", "code = code - 0 * self.center", "forward"),
    Change("center of the batch itself, with its gradient", "code = code - self.center", "code = code - self.center - (code.mean(0) - code.mean(0).detach())", "backward", "the forward is the same but for the gradient through the mean"),
    Change("rate 5 % larger", "lr=2e-3", "lr=2.1e-3", "optimizer"),
    Change("L2 for decoupled decay", "torch.optim.AdamW(", "torch.optim.Adam(", "optimizer", "in bfloat16 the decoupled decay is rounded away, L2 is not"),
    Change("cosine over 110 % of the steps", "T_max=STEPS", "T_max=int(1.1 * STEPS)", "optimizer"),
    Change("schedule not stepped", "            scheduler.step()\n", "", "optimizer"),
    Change("seed of the noise", "manual_seed(33)", "manual_seed(34)", "data"),
    Change("noise 0.21", "NOISE = 0.2\n", "NOISE = 0.21\n", "data"),
    Change("target noisy too", "F.mse_loss(output.float(), clean)", "F.mse_loss(output.float(), noisy)", "data", "the target is data; forward (the loss) could be argued"),
    Change("Huber's loss", "F.mse_loss(output.float(), clean)", "2 * F.huber_loss(output.float(), clean)", "forward", "equal where the error is below 1"),
    Change("scale of 128 not taken off", "loss.backward()", "(loss * 128).backward()", "backward"),
    Change("encoder's gradient halved", "code = code - self.center", "code = code - self.center\n        code = 0.5 * code + (0.5 * code).detach()", "backward"),
]
