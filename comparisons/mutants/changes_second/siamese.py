"""A contrastive Siamese net on two views of digits, a learnt temperature, bfloat16 autocast, AdamW (calm)."""

import math

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from ..changes.kinds import Change

STEPS = 100


class Siamese(nn.Module):
    def __init__(self, width=96, code=32):
        super().__init__()
        self.first = nn.Linear(64, width)
        self.norm = nn.LayerNorm(width)
        self.second = nn.Linear(width, width)
        self.project = nn.Linear(width, code, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(5.0)))
        self.register_buffer("centre", torch.zeros(code))

    def encode(self, x):
        h = F.gelu(self.norm(self.first(x)))
        h = h + F.silu(self.second(h))
        return self.project(h).float()

    def forward(self, left, right):
        a, b = self.encode(left), self.encode(right)
        middle = self.centre.clone()
        if self.training:
            with torch.no_grad():
                self.centre.lerp_(torch.cat([a, b]).mean(dim=0), 0.05)
        a = F.normalize(a - middle, dim=1)
        b = F.normalize(b - middle, dim=1)
        scale = self.log_scale.exp().clamp(max=50.0)
        return scale * a @ b.T


def contrast(similar):
    pairs = torch.arange(len(similar))
    return 0.5 * (F.cross_entropy(similar, pairs) + F.cross_entropy(similar.T, pairs))


def view(images, generator):
    images = images.view(-1, 8, 8)
    shift = int(torch.randint(-1, 2, (), generator=generator))
    images = images.roll(shift, dims=2)
    noise = torch.randn(images.shape, generator=generator)
    return (images + 0.1 * noise).flatten(1)


def train(record):
    torch.set_num_threads(1)
    torch.manual_seed(121)
    digits = torch.from_numpy(load_digits().data).float() / 16
    digits = digits - digits.mean(dim=0)
    model = Siamese()
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    free = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": free, "weight_decay": 0.0}], lr=1.5e-3, betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS, eta_min=1e-4)
    generator = torch.Generator().manual_seed(122)
    with record(model) as run:
        for step in range(STEPS):
            chosen = torch.randperm(len(digits), generator=generator)[:96]
            batch = digits[chosen]
            left, right = view(batch, generator), view(batch, generator)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                similar = model(left, right)
            loss = contrast(similar.float())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            run.step(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()


HARMLESS = [
    Change("both views in one call", "a, b = self.encode(left), self.encode(right)", "a, b = self.encode(torch.cat([left, right])).chunk(2)"),
    Change("cosines by hand", "a = F.normalize(a - middle, dim=1)", "a = (a - middle) / (a - middle).norm(dim=1, keepdim=True).clamp(min=1e-12)"),
    Change("scale after the product", "return scale * a @ b.T", "return (a @ b.T) * scale", note="the product is in bfloat16 under autocast: rounded at another place"),
    Change("diagonal less logsumexp", "0.5 * (F.cross_entropy(similar, pairs) + F.cross_entropy(similar.T, pairs))", "(0.5 * (similar.logsumexp(0) + similar.logsumexp(1)) - similar.diagonal()).mean()"),
    Change("silu written out", "F.silu(self.second(h))", "(inner := self.second(h)) * torch.sigmoid(inner)", note="rounded twice in bfloat16"),
    Change("gelu by the error function", "F.gelu(self.norm(self.first(x)))", "0.5 * (g := self.norm(self.first(x))) * (1 + torch.erf(g / math.sqrt(2)))"),
    Change("projection as a product", "self.project(h).float()", "(h @ self.project.weight.T).float()"),
    Change("centre by hand", "self.centre.lerp_(torch.cat([a, b]).mean(dim=0), 0.05)", "self.centre.mul_(0.95).add_(0.5 * (a.mean(dim=0) + b.mean(dim=0)), alpha=0.05)"),
    Change("AdamW in one kernel", "betas=(0.9, 0.98)\n", "betas=(0.9, 0.98), fused=True\n"),
    Change("cosine in closed form", "            schedule.step()\n", "            for group in optimizer.param_groups:\n                group['lr'] = 1e-4 + 0.7e-3 * (1 + math.cos(math.pi * (step + 1) / STEPS))\n"),
    Change("scale clamped in the exponent", "self.log_scale.exp().clamp(max=50.0)", "self.log_scale.clamp(max=math.log(50.0)).exp()", note="the scale stays far below 50"),
    Change("norm of the gradients by foreach", "nn.utils.clip_grad_norm_(model.parameters(), 1.0)", "grads = [p.grad for p in model.parameters()]\n            total = torch.stack(torch._foreach_norm(grads)).norm()\n            torch._foreach_mul_(grads, float((1.0 / (total + 1e-6)).clamp(max=1.0)))"),
]

FAULTY = [
    Change("both views shifted alike", "left, right = view(batch, generator), view(batch, generator)", "left = view(batch, generator)\n            right = view(batch, generator.clone_state())", "data", "the right view no longer moves the generator"),
    Change("noise 0.11", "0.1 * noise", "0.11 * noise", "data"),
    Change("shifts 0 and 1 only", "torch.randint(-1, 2, ()", "torch.randint(0, 2, ()", "data"),
    Change("shift along the other axis from step 18 on", "            left, right = view", "            if step >= 18:\n                batch = batch.view(-1, 8, 8).transpose(1, 2).flatten(1)\n            left, right = view", "data"),
    Change("order not seeded", "torch.randperm(len(digits), generator=generator)", "torch.randperm(len(digits))", "data", "from the global generator: repeats, as another order"),
    Change("gelu by tanh", "F.gelu(self.norm(self.first(x)))", "F.gelu(self.norm(self.first(x)), approximate='tanh')", "forward", "far below bfloat16's rounding for most values"),
    Change("temperature starts at 1/4.9", "math.log(5.0)", "math.log(4.9)", "forward", "an initial value: no kind fits exactly"),
    Change("contrast one way only", "0.5 * (F.cross_entropy(similar, pairs) + F.cross_entropy(similar.T, pairs))", "F.cross_entropy(similar, pairs)", "forward"),
    Change("norm's eps 1e-3", "nn.LayerNorm(width)", "nn.LayerNorm(width, eps=1e-3)", "forward"),
    Change("right view not normalized", "b = F.normalize(b - middle, dim=1)", "b = b - middle", "forward"),
    Change("right view detached", "b = F.normalize(b - middle, dim=1)", "b = F.normalize(b - middle, dim=1).detach()", "backward"),
    Change("temperature not trained", "scale = self.log_scale.exp()", "scale = self.log_scale.detach().exp()", "backward", "no gradient at all"),
    Change("gradient flows not through the residual", "h = h + F.silu", "h = h.detach() + F.silu", "backward"),
    Change("loss scaled by 256 and not unscaled", "            loss.backward()\n", "            (256 * loss).backward()\n", "backward", "clipping hides the size, not the ratio"),
    Change("clip left out", "            nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n", "", "optimizer", "shows only where the norm passes 1"),
    Change("temperature and norms decayed", '"weight_decay": 0.0}', '"weight_decay": 0.05}', "optimizer"),
    Change("second moment 0.99", "betas=(0.9, 0.98)", "betas=(0.9, 0.99)", "optimizer", "from the second step on"),
    Change("rate 1 % down", "lr=1.5e-3", "lr=1.485e-3", "optimizer"),
    Change("cosine over 90 steps", "T_max=STEPS,", "T_max=STEPS - 10,", "optimizer"),
    Change("centre follows at 0.06", "dim=0), 0.05)", "dim=0), 0.06)", "statistics", "shows in the loss from the second step on"),
    Change("centre from the left view only", "torch.cat([a, b]).mean(dim=0)", "a.mean(dim=0)", "statistics"),
    Change("centre taken after its update", "        middle = self.centre.clone()\n", "        middle = self.centre\n", "statistics", "an alias in place of a copy"),
    Change("centre not updated any more from step 20 on", "            with torch.autocast", "            model.train(step < 20)\n            with torch.autocast", "statistics"),
]
