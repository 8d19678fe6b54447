"""A small residual network on digits at a large rate, bfloat16 autocast, SGD with momentum (chaotic)."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits

from .kinds import Change

STEPS = 70
BATCH = 32
RATE = 0.4


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(x + y)


class ResNet(nn.Module):
    def __init__(self, channels=12):
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.blocks = nn.ModuleList([Block(channels) for _ in range(2)])
        self.fc = nn.Linear(channels, 10)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        x = x.mean(dim=(2, 3))
        return self.fc(x)


def batches(generator):
    data = load_digits()
    images = torch.tensor(data.images).float().unsqueeze(1)
    images = (images - 4.88) / 6.02
    labels = torch.tensor(data.target)
    while True:
        for index in torch.randperm(len(images), generator=generator).split(BATCH):
            yield images[index], labels[index]


def rate(step):
    return RATE * (1 - step / STEPS)


def train(record):
    torch.set_num_threads(1)
    torch.manual_seed(51)
    model = ResNet()
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, weight_decay=1e-4)
    stream = batches(torch.Generator().manual_seed(52))
    with record(model) as run:
        for step in range(STEPS):
            images, labels = next(stream)
            for group in optimizer.param_groups:
                group["lr"] = rate(step)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(images)
                loss = F.cross_entropy(logits.float(), labels)
            optimizer.zero_grad()
            loss.backward()
            run.step(loss)
            optimizer.step()


HARMLESS = [
    Change("channels_last", "    model.train()\n", "    model.train().to(memory_format=torch.channels_last)\n"),
    Change("mean over the pixels by pooling", "x = x.mean(dim=(2, 3))", "x = F.adaptive_avg_pool2d(x, 1).flatten(1)"),
    Change("residual in place", "return torch.relu(x + y)", "y += x\n        return y.relu_()"),
    Change("residual stream in float32", "return torch.relu(x + y)", "return torch.relu(x.float() + y.float())", note="less rounding, the same mathematics"),
    Change("foreach SGD", "weight_decay=1e-4)", "weight_decay=1e-4, foreach=True)"),
    Change("loss outside autocast by nll", "loss = F.cross_entropy(logits.float(), labels)", "loss = F.nll_loss(logits.float().log_softmax(1), labels)"),
    Change(
        "convolution as a product of unfolded patches",
        "y = self.bn2(self.conv2(y))",
        "patches = F.unfold(y, 3, padding=1).transpose(1, 2)\n"
        "        y = (patches @ self.conv2.weight.flatten(1).t()).transpose(1, 2).unflatten(2, (8, 8))\n"
        "        y = self.bn2(y)",
    ),
    Change(
        "decay added to the gradients",
        "momentum=0.9, weight_decay=1e-4)",
        "momentum=0.9)\n\n"
        "    def decay(*_):\n"
        "        torch._foreach_add_([p.grad for p in model.parameters()], [p.detach() for p in model.parameters()], alpha=1e-4)\n\n"
        "    optimizer.register_step_pre_hook(decay)",
        note="added after the gradients are recorded",
    ),
    Change(
        "torch.compile with aot_eager",
        "                logits = model(images)\n",
        "                if step == 0:\n"
        '                    compiled = torch.compile(model, backend="aot_eager")\n'
        "                logits = compiled(images)\n",
    ),
    Change("batch in the other order", "images, labels = next(stream)", "images, labels = (t.flip(0) for t in next(stream))"),
]

FAULTY = [
    Change("rate 1 % larger", "RATE = 0.4", "RATE = 0.404", "optimizer"),
    Change("schedule one step ahead", "lr\"] = rate(step)", "lr\"] = rate(step + 1)", "optimizer"),
    Change("dampening 0.1", "momentum=0.9,", "momentum=0.9, dampening=0.1,", "optimizer", "acts from the second step on"),
    Change("decay 1e-3", "weight_decay=1e-4", "weight_decay=1e-3", "optimizer"),
    Change("running statistics' momentum 0.2", "self.bn2 = nn.BatchNorm2d(channels)", "self.bn2 = nn.BatchNorm2d(channels, momentum=0.2)", "statistics", "the parameters stay bit for bit"),
    Change("cumulative statistics", "self.bn1 = nn.BatchNorm2d(channels)", "self.bn1 = nn.BatchNorm2d(channels, momentum=None)", "statistics", "the parameters stay bit for bit"),
    Change("statistics set back in the middle", "            optimizer.step()\n", "            optimizer.step()\n            if step == 35:\n                for block in model.blocks:\n                    block.bn1.reset_running_stats()\n", "statistics"),
    Change("ReLU before the sum", "return torch.relu(x + y)", "return x + torch.relu(y)", "forward"),
    Change("skip connection detached", "return torch.relu(x + y)", "return torch.relu(x.detach() + y)", "backward"),
    Change("branch's gradient 5 % too large", "return torch.relu(x + y)", "y = 1.05 * y - 0.05 * y.detach()\n        return torch.relu(x + y)", "backward"),
    Change("mean of the images off by 0.1", "4.88", "4.98", "data"),
    Change("images transposed", "tensor(data.images)", "tensor(data.images).mT", "data"),
    Change("two labels exchanged from step 30 on", "            for group in", "            if step >= 30:\n                labels = torch.where(labels == 3, 8, torch.where(labels == 8, 3, labels))\n            for group in", "data"),
    Change("classes weighted in the loss", "F.cross_entropy(logits.float(), labels)", "F.cross_entropy(logits.float(), labels, weight=torch.linspace(0.9, 1.1, 10))", "forward"),
]
