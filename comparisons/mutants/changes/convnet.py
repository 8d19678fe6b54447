"""A convolutional network with BatchNorm and dropout on shifted digits, trained by SGD with momentum (float32)."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from .kinds import Change

STEPS = 90


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 12, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(12)
        self.conv2 = nn.Conv2d(12, 24, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(24, momentum=0.1)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(24 * 16, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.conv2(x)
        x = F.relu(self.bn2(x))
        x = F.avg_pool2d(x, 2)
        x = torch.flatten(x, 1)
        x = self.dropout(x)
        return self.fc(x)


def shift(images, generator):
    """Each batch of images moved by up to one pixel."""
    down, right = torch.randint(-1, 2, (2,), generator=generator).tolist()
    return torch.roll(images, (down, right), dims=(2, 3))


def loader():
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(data.target)
    images, labels = images[:1000], labels[:1000]
    dataset = TensorDataset(images, labels)
    return DataLoader(dataset, batch_size=48, shuffle=True, generator=torch.Generator().manual_seed(3))


def endless(batches):
    while True:
        yield from batches


def train(record):
    torch.set_num_threads(1)
    torch.manual_seed(7)
    model = ConvNet()
    model.train()
    augmentation = torch.Generator().manual_seed(11)
    parameters = model.parameters()
    optimizer = torch.optim.SGD(parameters, lr=0.02, momentum=0.9, weight_decay=5e-4)
    criterion = nn.CrossEntropyLoss()
    data = endless(loader())
    with record(model) as run:
        for step in range(STEPS):
            images, labels = next(data)
            images = shift(images, augmentation)
            loss = criterion(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            run.step(loss)
            optimizer.step()


HARMLESS = [
    Change(
        "channels_last",
        "            images = shift(images, augmentation)\n",
        "            images = shift(images, augmentation).to(memory_format=torch.channels_last)\n"
        "            model = model.to(memory_format=torch.channels_last)\n",
    ),
    Change(
        "second convolution by unfold and matmul",
        "x = self.conv2(x)",
        "columns = F.unfold(x, 3, padding=1)\n"
        "        columns = self.conv2.weight.flatten(1) @ columns + self.conv2.bias[:, None]\n"
        "        x = columns.view(len(x), 24, 8, 8)",
    ),
    Change(
        "second BatchNorm by hand",
        "x = F.relu(self.bn2(x))",
        """bn = self.bn2
        mean = x.mean((0, 2, 3))
        variance = (x - mean[:, None, None]).square().mean((0, 2, 3))
        with torch.no_grad():
            count = x.numel() // x.shape[1]
            bn.running_mean.lerp_(mean, bn.momentum)
            bn.running_var.lerp_(variance * count / (count - 1), bn.momentum)
            bn.num_batches_tracked += 1
        scale = bn.weight / torch.sqrt(variance + bn.eps)
        x = F.relu((x - mean[:, None, None]) * scale[:, None, None] + bn.bias[:, None, None])""",
    ),
    Change("average pooling by reshape and mean", "x = F.avg_pool2d(x, 2)", "x = x.reshape(len(x), 24, 4, 2, 4, 2).mean((3, 5))"),
    Change(
        "dropout by a mask",
        "x = self.dropout(x)",
        "x = x * torch.empty_like(x).bernoulli_(1 - self.dropout.p) / (1 - self.dropout.p)",
    ),
    Change(
        "decay as L2 added to the gradient",
        "weight_decay=5e-4)",
        """weight_decay=0.0)

    def decay(*_):
        for p in model.parameters():
            p.grad.add_(p.detach(), alpha=5e-4)

    optimizer.register_step_pre_hook(decay)""",
        note="added after the gradients are recorded",
    ),
    Change("foreach SGD", "weight_decay=5e-4)", "weight_decay=5e-4, foreach=True)"),
    Change("fused SGD", "weight_decay=5e-4)", "weight_decay=5e-4, fused=True)"),
    Change("ReLU in place", "x = F.relu(self.bn2(x))", "x = F.relu_(self.bn2(x))"),
]

FAULTY = [
    Change("BatchNorm's momentum 0.11", "nn.BatchNorm2d(24, momentum=0.1)", "nn.BatchNorm2d(24, momentum=0.11)", "statistics"),
    Change(
        "running variance biased",
        "x = F.relu(self.bn2(x))",
        """bn = self.bn2
        with torch.no_grad():
            bn.running_mean.lerp_(x.mean((0, 2, 3)), bn.momentum)
            bn.running_var.lerp_(x.var((0, 2, 3), correction=0), bn.momentum)
            bn.num_batches_tracked += 1
        x = F.relu(F.batch_norm(x, None, None, bn.weight, bn.bias, True, 0.0, bn.eps))""",
        "statistics",
        "1e-3 and less of the running variance alone",
    ),
    Change(
        "statistics taken twice per step",
        "            optimizer.zero_grad()\n",
        "            with torch.random.fork_rng(), torch.no_grad():\n"
        "                accuracy = (model(images).argmax(1) == labels).double().mean()\n"
        "            optimizer.zero_grad()\n",
        "statistics",
        "an accuracy measured in training mode; the dropout masks stay",
    ),
    Change("first BatchNorm's eps 1e-3", "nn.BatchNorm2d(12)", "nn.BatchNorm2d(12, eps=1e-3)", "forward"),
    Change("dropout 0.25", "nn.Dropout(0.2)", "nn.Dropout(0.25)", "forward"),
    Change("seed of the augmentation", "manual_seed(11)", "manual_seed(12)", "data"),
    Change("last incomplete batch dropped", "shuffle=True,", "shuffle=True, drop_last=True,", "data"),
    Change("pixels divided by 15", "/ 16\n", "/ 15\n", "data"),
    Change("Nesterov's momentum", "momentum=0.9,", "momentum=0.9, nesterov=True,", "optimizer"),
    Change(
        "no decay on biases and BatchNorm",
        "parameters = model.parameters()",
        "parameters = [\n"
        '        {"params": [p for p in model.parameters() if p.dim() > 1]},\n'
        '        {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0},\n'
        "    ]",
        "optimizer",
    ),
    Change(
        "second ReLU's backward passes all",
        "x = F.relu(self.bn2(x))",
        "x = self.bn2(x)\n        x = x + (F.relu(x) - x).detach()",
        "backward",
    ),
    Change(
        "decoupled decay for L2",
        "weight_decay=5e-4)",
        """weight_decay=0.0)

    def decay(*_):
        for p in model.parameters():
            p.data.mul_(1 - 0.02 * 5e-4)

    optimizer.register_step_pre_hook(decay)""",
        "optimizer",
        "the two agree at the first step (to rounding); momentum sets them apart from the second on",
    ),
]
