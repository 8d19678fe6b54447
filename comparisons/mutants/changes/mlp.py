"""A small tanh network on the digits, trained by Adam (float32, calm)."""

import io

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from .kinds import Change

STEPS = 140
BATCH = 64


class MLP(nn.Module):
    def __init__(self, width=96):
        super().__init__()
        self.inp = nn.Linear(64, width)
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, 10)
        nn.init.xavier_uniform_(self.hidden.weight, gain=1.0)

    def forward(self, x):
        h = self.inp(x)
        h = torch.tanh(self.norm(h))
        h = h + torch.tanh(self.hidden(h))
        return self.out(h)


def digits():
    images, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(images).float()
    x = (x - x.mean()) / x.std()
    return x, torch.from_numpy(labels)


def batches(count, generator):
    """Endless batches of indices, every epoch in another order."""
    epoch = 0
    while True:
        order = torch.randperm(count, generator=generator)
        for start in range(0, count, BATCH):
            yield order[start : start + BATCH]
        epoch += 1


def train(record):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, y = digits()
    model = MLP()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    indices = batches(len(x), torch.Generator().manual_seed(1))
    with record(model) as run:
        for step in range(STEPS):
            index = next(indices)
            images, labels = x[index], y[index]
            optimizer.zero_grad()
            logits = model(images)
            loss = F.cross_entropy(logits, labels)
            loss.backward()
            run.step(loss)
            optimizer.step()


HARMLESS = [
    Change(
        "log_softmax and nll_loss for cross_entropy",
        "loss = F.cross_entropy(logits, labels)",
        "loss = F.nll_loss(F.log_softmax(logits, dim=1), labels)",
    ),
    Change(
        "cross-entropy by logsumexp",
        "loss = F.cross_entropy(logits, labels)",
        "loss = (torch.logsumexp(logits, 1) - logits.gather(1, labels[:, None])[:, 0]).sum() / len(labels)",
    ),
    Change(
        "first layer by einsum",
        "h = self.inp(x)",
        'h = torch.einsum("bi,oi->bo", x, self.inp.weight) + self.inp.bias',
    ),
    Change(
        "layer norm by hand",
        "h = torch.tanh(self.norm(h))",
        "centred = h - h.mean(-1, keepdim=True)\n"
        "        scale = (centred.square().mean(-1, keepdim=True) + self.norm.eps).rsqrt()\n"
        "        h = torch.tanh(centred * scale * self.norm.weight + self.norm.bias)",
    ),
    Change(
        "tanh by the sigmoid",
        "h = h + torch.tanh(self.hidden(h))",
        "h = h + (2 * torch.sigmoid(2 * self.hidden(h)) - 1)",
    ),
    Change(
        "fused Adam",
        "torch.optim.Adam(model.parameters(), lr=2e-3)",
        "torch.optim.Adam(model.parameters(), lr=2e-3, fused=True)",
    ),
    Change(
        "Adam by hand",
        "            optimizer.step()\n",
        """            with torch.no_grad():
                for p in model.parameters():
                    state = optimizer.state[p]
                    if not state:
                        state["m"], state["v"] = torch.zeros_like(p), torch.zeros_like(p)
                    state["m"] = 0.9 * state["m"] + 0.1 * p.grad
                    state["v"] = 0.999 * state["v"] + 0.001 * p.grad**2
                    m = state["m"] / (1 - 0.9 ** (step + 1))
                    v = state["v"] / (1 - 0.999 ** (step + 1))
                    p -= 2e-3 * m / (v.sqrt() + 1e-8)
""",
    ),
    Change("gradients kept and zeroed", "optimizer.zero_grad()", "optimizer.zero_grad(set_to_none=False)"),
    Change(
        "checkpoint saved and loaded in the middle",
        "            optimizer.step()\n",
        """            optimizer.step()
            if step == 69:
                file = io.BytesIO()
                torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
                file.seek(0)
                saved = torch.load(file)
                model.load_state_dict(saved["model"])
                optimizer = torch.optim.Adam(model.parameters(), lr=1.0)
                optimizer.load_state_dict(saved["optimizer"])
""",
    ),
    Change(
        "the batch sorted by label",
        "images, labels = x[index], y[index]",
        "index = index[torch.argsort(y[index], stable=True)]\n            images, labels = x[index], y[index]",
        note="the same examples in every batch, summed in another order",
    ),
]

FAULTY = [
    Change("rate 0.1 % larger", "lr=2e-3", "lr=2e-3 * 1.001", "optimizer"),
    Change("layer norm's eps 1e-6", "nn.LayerNorm(width, eps=1e-5)", "nn.LayerNorm(width, eps=1e-6)", "forward"),
    Change("beta2 0.99", "lr=2e-3", "lr=2e-3, betas=(0.9, 0.99)", "optimizer"),
    Change("Adam's eps 1e-6", "lr=2e-3", "lr=2e-3, eps=1e-6", "optimizer"),
    Change(
        "label smoothing 0.01",
        "F.cross_entropy(logits, labels)",
        "F.cross_entropy(logits, labels, label_smoothing=0.01)",
        "forward",
        "as an argument of the loss: forward rather than data",
    ),
    Change("gradients times 32 under Adam", "loss.backward()", "(32 * loss).backward()", "backward"),
    Change(
        "order of the batches from the third epoch on",
        "order = torch.randperm(count, generator=generator)",
        "order = torch.randperm(count, generator=generator)\n        if epoch >= 2:\n            order = order.flip(0)",
        "data",
    ),
    Change("biased standard deviation of the pixels", "x.std()", "x.std(correction=0)", "data", "4e-6 of the pixels, and LayerNorm takes most of it away again"),
    Change("residual branch detached", "h = h + torch.tanh(self.hidden(h))", "h = h.detach() + torch.tanh(self.hidden(h))", "backward"),
    Change(
        "initial gain of one layer",
        "gain=1.0",
        "gain=5 / 3",
        "forward",
        "only the initial parameters differ: no kind fits quite",
    ),
    Change(
        "decay of 1e-5 that was not there",
        "lr=2e-3",
        "lr=2e-3, weight_decay=1e-5",
        "optimizer",
    ),
    Change(
        "bias correction left out",
        "            optimizer.step()\n",
        """            with torch.no_grad():
                for p in model.parameters():
                    state = optimizer.state[p]
                    if not state:
                        state["m"], state["v"] = torch.zeros_like(p), torch.zeros_like(p)
                    state["m"] = 0.9 * state["m"] + 0.1 * p.grad
                    state["v"] = 0.999 * state["v"] + 0.001 * p.grad**2
                    p -= 2e-3 * state["m"] / (state["v"].sqrt() + 1e-8)
""",
        "optimizer",
    ),
]
