"""A deep ReLU network on the digits, at a large rate (float32, chaotic): one activation is a function of its own."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits

from .kinds import Change

STEPS = 160
BATCH = 32
CLIP = 2.0


class Swish(torch.autograd.Function):
    """x sigmoid(x), keeping x alone for the backward."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return grad * (s + x * s * (1 - s))


class DeepNet(nn.Module):
    def __init__(self, width=64, depth=6):
        super().__init__()
        self.first = nn.Linear(64, width)
        self.layers = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])
        self.last = nn.Linear(width, 10)
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight)
        nn.init.normal_(self.last.weight, std=0.1)

    def forward(self, x):
        x = self.first(x)
        x = Swish.apply(x)
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.last(x)


def train(record):
    torch.set_num_threads(1)
    torch.manual_seed(5)
    data, target = load_digits(return_X_y=True)
    data = torch.as_tensor(data, dtype=torch.float32) / 8 - 1
    target = torch.as_tensor(target)
    draw = torch.Generator().manual_seed(17)
    model = DeepNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with record(model) as run:
        for step in range(STEPS):
            index = torch.randint(len(data), (BATCH,), generator=draw)
            inputs, labels = data[index], target[index]
            output = model(inputs)
            loss = F.cross_entropy(output, labels)
            optimizer.zero_grad()
            loss.backward()
            run.step(loss)
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()


HARMLESS = [
    Change("silu for the own function", "x = Swish.apply(x)", "x = F.silu(x)"),
    Change(
        "derivative of swish written otherwise",
        "return grad * (s + x * s * (1 - s))",
        "y = x * s\n        return grad * (y + s * (1 - y))",
    ),
    Change("matmul for linear", "torch.relu(layer(x))", "torch.relu(x @ layer.weight.t() + layer.bias)"),
    Change(
        "sums in reverse order",
        "torch.relu(layer(x))",
        "torch.relu(F.linear(x.flip(1), layer.weight.flip(1), layer.bias))",
    ),
    Change(
        "clipping by hand",
        "nn.utils.clip_grad_norm_(model.parameters(), CLIP)",
        "total = torch.sqrt(sum(p.grad.square().sum() for p in model.parameters()))\n"
        "            for p in model.parameters():\n"
        "                p.grad *= torch.clamp(CLIP / (total + 1e-6), max=1.0)",
    ),
    Change(
        "clipping by one flat vector",
        "nn.utils.clip_grad_norm_(model.parameters(), CLIP)",
        "flat = torch.cat([p.grad.flatten() for p in model.parameters()])\n"
        "            scale = min(1.0, CLIP / (float(flat.norm()) + 1e-6))\n"
        "            for p in model.parameters():\n"
        "                p.grad.mul_(scale)",
    ),
    Change(
        "momentum by hand",
        "            optimizer.step()\n",
        """            with torch.no_grad():
                for p in model.parameters():
                    velocity = optimizer.state[p].get("velocity", torch.zeros_like(p))
                    velocity = velocity * 0.9 - 0.1 * p.grad
                    p += velocity
                    optimizer.state[p]["velocity"] = velocity
""",
        note="the rate inside the velocity: equal while the rate is constant",
    ),
    Change("loss as the mean of the examples'", "F.cross_entropy(output, labels)", 'F.cross_entropy(output, labels, reduction="none").mean()'),
]

FAULTY = [
    Change("derivative of swish lacks a term", "grad * (s + x * s * (1 - s))", "grad * s", "backward"),
    Change("derivative of swish with a wrong factor", "grad * (s + x * s * (1 - s))", "grad * (s + x * s * (1 - s) * 1.01)", "backward"),
    Change("clipping at 2.2", "CLIP = 2.0", "CLIP = 2.2", "optimizer", "acts only where the norm exceeds 2"),
    Change(
        "clipping by value",
        "nn.utils.clip_grad_norm_(model.parameters(), CLIP)",
        "nn.utils.clip_grad_value_(model.parameters(), CLIP)",
        "optimizer",
        "shows from the first step whose norm exceeds 2",
    ),
    Change(
        "clipping of each parameter for itself",
        "nn.utils.clip_grad_norm_(model.parameters(), CLIP)",
        "for p in model.parameters():\n                nn.utils.clip_grad_norm_([p], CLIP)",
        "optimizer",
        "shows from the first step whose norm exceeds 2",
    ),
    Change("momentum 0.899", "momentum=0.9)", "momentum=0.899)", "optimizer"),
    Change(
        "last bias not trained",
        "SGD(model.parameters()",
        'SGD([p for name, p in model.named_parameters() if name != "last.bias"]',
        "optimizer",
    ),
    Change(
        "loss divided by one less",
        "loss = F.cross_entropy(output, labels)",
        'loss = F.cross_entropy(output, labels, reduction="sum") / (BATCH - 1)',
        "forward",
    ),
    Change("one layer's initial spread", "std=0.1", "std=0.11", "forward", "only the initial parameters differ: no kind fits quite"),
    Change("gradients zeroed every second step", "optimizer.zero_grad()", "if step % 2 == 0:\n                optimizer.zero_grad()", "optimizer"),
    Change(
        "first bias's gradient averaged",
        "    model = DeepNet()\n",
        "    model = DeepNet()\n    model.first.bias.register_hook(lambda grad: grad / BATCH)\n",
        "backward",
    ),
    Change("labels of a few examples", "target = torch.as_tensor(target)", "target = torch.as_tensor(target)\n    target[::50] = 9 - target[::50]", "data"),
    Change(
        "another draw from step 100 on",
        "inputs, labels = data[index], target[index]",
        "if step >= 100:\n                index = (index + 1) % len(data)\n            inputs, labels = data[index], target[index]",
        "data",
    ),
    Change("leaky slope of 0.001", "torch.relu(layer(x))", "F.leaky_relu(layer(x), 0.001)", "forward"),
]
