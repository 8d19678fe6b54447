"""A small vision transformer on the digits' 2 by 2 patches, mixup, AdamW, a moving average of the head (float32, calm)."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from .kinds import Change

STEPS = 80
BATCH = 24
EMA = 0.98
MAX_NORM = 1.0


class NormFunction(torch.autograd.Function):
    """x over its root mean square."""

    @staticmethod
    def forward(ctx, x, eps):
        inverse = torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + eps)
        y = x * inverse
        ctx.save_for_backward(y, inverse)
        return y

    @staticmethod
    def backward(ctx, grad):
        y, inverse = ctx.saved_tensors
        return inverse * (grad - y * (grad * y).mean(dim=-1, keepdim=True)), None


class RMSNorm(nn.Module):
    def __init__(self, dim, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x):
        return self.weight * NormFunction.apply(x, self.eps)


class Layer(nn.Module):
    def __init__(self, dim, heads=4):
        super().__init__()
        self.heads = heads
        self.norm_a, self.norm_b = RMSNorm(dim), RMSNorm(dim)
        self.query, self.key, self.value = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.mix = nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def attend(self, x):
        n, tokens, dim = x.shape
        q = self.query(x).view(n, tokens, self.heads, -1)
        k = self.key(x).view(n, tokens, self.heads, -1)
        v = self.value(x).view(n, tokens, self.heads, -1)
        weights = torch.einsum("nqhd,nkhd->nhqk", q, k) * (dim // self.heads) ** -0.5
        weights = F.softmax(weights, dim=-1)
        return self.mix(torch.einsum("nhqk,nkhd->nqhd", weights, v).flatten(2))

    def forward(self, x):
        x = x + self.attend(self.norm_a(x))
        return x + self.mlp(self.norm_b(x))


class ViT(nn.Module):
    def __init__(self, dim=32, layers=2):
        super().__init__()
        self.patch = nn.Conv2d(1, dim, 2, stride=2)
        self.position = nn.Parameter(0.02 * torch.randn(16, dim))
        self.layers = nn.Sequential(*(Layer(dim) for _ in range(layers)))
        self.norm = nn.LayerNorm(dim, eps=1e-5)
        self.head = nn.Linear(dim, 10)
        self.register_buffer("average", self.head.weight.detach().clone())

    def forward(self, images):
        x = self.patch(images).flatten(2).transpose(1, 2)
        x = self.layers(x + self.position)
        x = self.norm(x).mean(dim=1)
        return self.head(x)

    @torch.no_grad()
    def follow(self):
        self.average.mul_(EMA).add_(self.head.weight, alpha=1 - EMA)


def mixup(images, targets, generator):
    share = 0.5 + 0.5 * torch.rand(len(images), generator=generator)
    other = torch.randperm(len(images), generator=generator)
    images = torch.lerp(images[other], images, share[:, None, None, None])
    targets = torch.lerp(targets[other], targets, share[:, None])
    return images, targets


def train(record):
    torch.set_num_threads(1)
    torch.manual_seed(61)
    bunch = load_digits()
    images = torch.tensor(bunch.images).float()[:, None] / 16 - 0.3
    targets = F.one_hot(torch.tensor(bunch.target)).to(images.dtype)
    model = ViT()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, betas=(0.9, 0.98), weight_decay=0.02)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=15)
    chooser = torch.Generator().manual_seed(62)
    mixer = torch.Generator().manual_seed(63)
    with record(model) as run:
        for step in range(STEPS):
            chosen = torch.randint(len(images), (BATCH,), generator=chooser)
            x, y = mixup(images[chosen], targets[chosen], mixer)
            loss = F.cross_entropy(model(x), y)
            model.zero_grad()
            loss.backward()
            run.step(loss)
            nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
            optimizer.step()
            model.follow()
            warmup.step()


HARMLESS = [
    Change(
        "scaled_dot_product_attention",
        """\
        weights = torch.einsum("nqhd,nkhd->nhqk", q, k) * (dim // self.heads) ** -0.5
        weights = F.softmax(weights, dim=-1)
        return self.mix(torch.einsum("nhqk,nkhd->nqhd", weights, v).flatten(2))
""",
        """\
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        return self.mix(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
""",
    ),
    Change("softmax by hand", "weights = F.softmax(weights, dim=-1)", "weights = (weights - weights.amax(-1, keepdim=True).detach()).exp()\n        weights = weights / weights.sum(-1, keepdim=True)"),
    Change("norm left to autograd", "return self.weight * NormFunction.apply(x, self.eps)", "return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight"),
    Change("torch's rms_norm", "return self.weight * NormFunction.apply(x, self.eps)", "return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)"),
    Change(
        "backward of the norm written otherwise",
        "return inverse * (grad - y * (grad * y).mean(dim=-1, keepdim=True)), None",
        "along = (grad * y).sum(-1, keepdim=True) / y.shape[-1]\n        return torch.addcmul(inverse * grad, inverse * y, along, value=-1), None",
    ),
    Change("patches by a product", "x = self.patch(images).flatten(2).transpose(1, 2)", "x = F.unfold(images, 2, stride=2).transpose(1, 2) @ self.patch.weight.flatten(1).t() + self.patch.bias"),
    Change("mean over the tokens as a sum", "x = self.norm(x).mean(dim=1)", "x = self.norm(x).sum(dim=1) / 16"),
    Change("cross-entropy of soft targets by hand", "loss = F.cross_entropy(model(x), y)", "loss = -(y * model(x).log_softmax(-1)).sum(-1).mean()"),
    Change("fused AdamW", "weight_decay=0.02)", "weight_decay=0.02, fused=True)"),
    Change("moving average by lerp", "self.average.mul_(EMA).add_(self.head.weight, alpha=1 - EMA)", "self.average += (1 - EMA) * (self.head.weight - self.average)"),
    Change(
        "decay by hand",
        "weight_decay=0.02)",
        """weight_decay=0.0)

    def decay(*_):
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.data.sub_(p.data, alpha=0.02 * group["lr"])

    optimizer.register_step_pre_hook(decay)""",
    ),
    Change(
        "three accumulated thirds of the batch",
        "            loss = F.cross_entropy(model(x), y)\n            model.zero_grad()\n            loss.backward()\n",
        """\
            model.zero_grad()
            loss = 0.0
            for a, b in zip(x.chunk(3), y.chunk(3)):
                third = F.cross_entropy(model(a), b) * len(a) / BATCH
                third.backward()
                loss = loss + third.detach()
""",
        note="the model is called three times per step",
    ),
]

FAULTY = [
    Change("gelu's tanh approximation", "nn.GELU()", 'nn.GELU(approximate="tanh")', "forward"),
    Change("rms norm's eps 1e-6", "dim, eps=1e-5):", "dim, eps=1e-6):", "forward"),
    Change("final norm's eps 1e-6", "LayerNorm(dim, eps=1e-5)", "LayerNorm(dim, eps=1e-6)", "forward"),
    Change("initial positions 1 % larger", "0.02 * torch.randn(16, dim)", "0.0202 * torch.randn(16, dim)", "forward", "only the initial parameters differ: no kind fits quite"),
    Change("backward of the norm without its projection", "inverse * (grad - y * (grad * y).mean(dim=-1, keepdim=True)), None", "inverse * grad, None", "backward"),
    Change("backward of the norm with an unbiased mean", "(grad * y).mean(dim=-1, keepdim=True)", "(grad * y).sum(dim=-1, keepdim=True) / (y.shape[-1] - 1)", "backward"),
    Change("attention's weights detached", "weights = F.softmax(weights, dim=-1)", "weights = F.softmax(weights, dim=-1).detach()", "backward", "the queries' and keys' weights get no gradient at all (None)"),
    Change("targets not mixed", "    targets = torch.lerp(targets[other], targets, share[:, None])\n", "", "data"),
    Change("mixed with the next instead of any other", "other = torch.randperm(len(images), generator=generator)", "torch.randperm(len(images), generator=generator)\n    other = torch.arange(len(images)).roll(1)", "data"),
    Change("seed of the mixup from step 50 on", "            x, y = mixup(", "            if step == 50:\n                mixer.manual_seed(64)\n            x, y = mixup(", "data"),
    Change("moving average's decay 0.979", "EMA = 0.98\n", "EMA = 0.979\n", "statistics"),
    Change("moving average taken before the step", "            optimizer.step()\n            model.follow()\n", "            model.follow()\n            optimizer.step()\n", "statistics", "the average alone differs"),
    Change("moving average every second step", "            model.follow()\n", "            if step % 2:\n                model.follow()\n", "statistics", "the average alone differs"),
    Change("warm-up of 16 steps", "total_iters=15", "total_iters=16", "optimizer"),
    Change("no decay on vectors", "AdamW(model.parameters()", "AdamW([{\"params\": [p for p in model.parameters() if p.dim() > 1]}, {\"params\": [p for p in model.parameters() if p.dim() < 2], \"weight_decay\": 0.0}]", "optimizer", "1e-4 of the vectors in a step, an order less in the warm-up"),
    Change("decay of 0.02 as L2", "torch.optim.AdamW(", "torch.optim.Adam(", "optimizer"),
    Change("clipping at 0.95", "MAX_NORM = 1.0", "MAX_NORM = 0.95", "optimizer", "Adam takes most of it away again"),
    Change("clipping left out", "            nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)\n", "", "optimizer", "shows from the first step whose norm exceeds 1, and then faintly under Adam"),
]
