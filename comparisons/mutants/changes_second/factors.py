"""Ratings factored into embeddings in float64: sparse users, dense items, three optimizers, a running mean (calm)."""

import torch
import torch.nn.functional as F
from torch import nn

from ..changes.kinds import Change

STEPS = 120
USERS = 200
ITEMS = 90
RANK = 8


class Factors(nn.Module):
    def __init__(self):
        super().__init__()
        self.users = nn.Embedding(USERS, RANK, sparse=True, dtype=torch.float64)
        self.items = nn.Embedding(ITEMS, RANK, dtype=torch.float64)
        self.user_bias = nn.Parameter(torch.zeros(USERS, dtype=torch.float64))
        self.item_bias = nn.Parameter(torch.zeros(ITEMS, dtype=torch.float64))
        self.mix = nn.Bilinear(RANK, RANK, 4, dtype=torch.float64)
        self.top = nn.Linear(4, 1, bias=False, dtype=torch.float64)
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("spread", torch.ones((), dtype=torch.float64))
        nn.init.normal_(self.users.weight, std=0.3)
        nn.init.normal_(self.items.weight, std=0.3)

    @torch.no_grad()
    def watch(self, ratings):
        self.mean.mul_(0.95).add_(ratings.mean(), alpha=0.05)
        self.spread.mul_(0.95).add_((ratings - self.mean).pow(2).mean(), alpha=0.05)

    def forward(self, user, item):
        u, v = self.users(user), self.items(item)
        inner = (u * v).sum(dim=1)
        crossed = self.top(torch.tanh(self.mix(u, v))).squeeze(1)
        guess = inner + crossed + self.user_bias[user] + self.item_bias[item]
        return guess * torch.sqrt(self.spread + 1e-6) + self.mean


def table(generator):
    u = torch.randn(USERS, 5, generator=generator, dtype=torch.float64)
    v = torch.randn(ITEMS, 5, generator=generator, dtype=torch.float64)
    user = torch.randint(USERS, (6000,), generator=generator)
    item = torch.randint(ITEMS, (6000,), generator=generator)
    noise = torch.randn(6000, generator=generator, dtype=torch.float64)
    rating = 3.5 + 0.5 * (u[user] * v[item]).sum(dim=1) + 0.2 * noise
    return user, item, rating.clamp(1, 5)


def train(record):
    torch.set_num_threads(1)
    torch.manual_seed(151)
    generator = torch.Generator().manual_seed(152)
    user, item, rating = table(generator)
    trust = 1 / user.bincount(minlength=USERS)[user].to(torch.float64).sqrt()
    model = Factors()
    sparse = torch.optim.SparseAdam([model.users.weight], lr=0.02)
    dense = torch.optim.Adam([model.items.weight, *model.mix.parameters(), *model.top.parameters()], lr=0.01, weight_decay=1e-4)
    biases = torch.optim.SGD([model.user_bias, model.item_bias], lr=2.0, momentum=0.8)
    schedule = torch.optim.lr_scheduler.MultiStepLR(dense, milestones=[15, 60, 90], gamma=0.6)
    order = torch.randperm(len(user), generator=generator)
    with record(model) as run:
        for step in range(STEPS):
            chosen = order[torch.arange(step * 150, (step + 1) * 150) % len(order)]
            model.watch(rating[chosen])
            guess = model(user[chosen], item[chosen])
            weight = trust[chosen]
            fit = (weight * F.huber_loss(guess, rating[chosen], reduction="none", delta=1.5)).sum() / weight.sum()
            loss = fit + 1e-3 * model.items(item[chosen]).pow(2).sum(dim=1).mean()
            for optimizer in (sparse, dense, biases):
                optimizer.zero_grad()
            loss.backward()
            run.step(loss)
            nn.utils.clip_grad_norm_([p for p in model.mix.parameters()], 0.05)
            for optimizer in (sparse, dense, biases):
                optimizer.step()
            schedule.step()


HARMLESS = [
    Change("inner product by einsum", "(u * v).sum(dim=1)", "torch.einsum('nr,nr->n', u, v)"),
    Change("bilinear written out", "self.mix(u, v)", "torch.einsum('ni,kij,nj->nk', u, self.mix.weight, v) + self.mix.bias"),
    Change("items taken by index", "u, v = self.users(user), self.items(item)", "u, v = self.users(user), self.items.weight[item]"),
    Change("items by a product", "u, v = self.users(user), self.items(item)", "u, v = self.users(user), F.one_hot(item, ITEMS).to(torch.float64) @ self.items.weight"),
    Change("mean by lerp", "self.mean.mul_(0.95).add_(ratings.mean(), alpha=0.05)", "self.mean.lerp_(ratings.mean(), 0.05)"),
    Change("spread from moments", "(ratings - self.mean).pow(2).mean()", "(ratings.var(correction=0) + (ratings.mean() - self.mean) ** 2)"),
    Change("huber by smooth l1", 'F.huber_loss(guess, rating[chosen], reduction="none", delta=1.5)', '1.5 * F.smooth_l1_loss(guess, rating[chosen], reduction="none", beta=1.5)'),
    Change("huber by a clamp", 'F.huber_loss(guess, rating[chosen], reduction="none", delta=1.5)', "((e := (guess - rating[chosen]).abs()).clamp(max=1.5) * (e - 0.5 * e.clamp(max=1.5)))"),
    Change("weighted mean by a dot", 'weight = trust[chosen]\n', 'weight = trust[chosen] / trust[chosen].sum()\n', note="divided by a sum that is one afterwards"),
    Change("tanh by sigmoid", "torch.tanh(self.mix(u, v))", "(2 * torch.sigmoid(2 * self.mix(u, v)) - 1)"),
    Change("biases gathered", "self.user_bias[user] + self.item_bias[item]", "self.user_bias.gather(0, user) + self.item_bias.index_select(0, item)"),
    Change("fused Adam", "weight_decay=1e-4)", "weight_decay=1e-4, fused=True)"),
    Change("gradients of users coalesced", "            run.step(loss)\n", "            model.users.weight.grad = model.users.weight.grad.coalesce()\n            run.step(loss)\n"),
    Change("drive of the milestones by hand", "            schedule.step()\n", "            for group in dense.param_groups:\n                group['lr'] = 0.01 * 0.6 ** sum(step + 1 >= m for m in (15, 60, 90))\n"),
    Change("root by power", "torch.sqrt(self.spread + 1e-6)", "(self.spread + 1e-6) ** 0.5"),
]

FAULTY = [
    Change("ratings not clamped", "rating.clamp(1, 5)", "rating", "data"),
    Change("ratings rounded to hundredths", "rating.clamp(1, 5)", "(100 * rating).round().div(100).clamp(1, 5)", "data", "as from a file of text"),
    Change("ratings through half precision", "rating.clamp(1, 5)", "rating.to(torch.half).to(torch.float64).clamp(1, 5)", "data", "2e-4 relative"),
    Change("last batch cut from step 15 on", "            model.watch(rating[chosen])\n", "            if step >= 15:\n                chosen = chosen[:-1]\n            model.watch(rating[chosen])\n", "data"),
    Change("items off by one", "item[chosen])\n            weight", "(item[chosen] + 1) % ITEMS)\n            weight", "data"),
    Change("huber's delta 1.4", "delta=1.5", "delta=1.4", "forward"),
    Change("weight missing in the sum", "/ weight.sum()", "/ weight.square().sum().sqrt()", "forward"),
    Change("penalty at 1.1e-3", "1e-3 * model.items", "1.1e-3 * model.items", "forward"),
    Change("eps under the root 1e-3", "self.spread + 1e-6", "self.spread + 1e-3", "forward"),
    Change("hard tanh", "torch.tanh(self.mix(u, v))", "F.hardtanh(self.mix(u, v))", "forward"),
    Change("users detached in the crossed term", "self.mix(u, v)", "self.mix(u.detach(), v)", "backward"),
    Change("items' gradient by frequency", "self.items = nn.Embedding(ITEMS, RANK, dtype", "self.items = nn.Embedding(ITEMS, RANK, scale_grad_by_freq=True, dtype", "backward"),
    Change("weights' gradient into the penalty lost", "model.items(item[chosen]).pow(2)", "model.items(item[chosen]).detach().pow(2)", "backward"),
    Change("biases keep their gradients from step 8 on", "            for optimizer in (sparse, dense, biases):\n                optimizer.zero_grad()\n", "            for optimizer in (sparse, dense, biases)[: 3 if step < 8 else 2]:\n                optimizer.zero_grad()\n", "backward"),
    Change("eps 1e-6 in Adam", "lr=0.01, weight_decay", "lr=0.01, eps=1e-6, weight_decay", "optimizer"),
    Change("users by plain Adam", "sparse = torch.optim.SparseAdam([model.users.weight], lr=0.02)", "model.users.sparse = False\n    sparse = torch.optim.Adam([model.users.weight], lr=0.02)", "optimizer", "moments decay for absent users too; the gradient is dense"),
    Change("decay decoupled", "dense = torch.optim.Adam(", "dense = torch.optim.AdamW(", "optimizer"),
    Change("milestone at 16", "milestones=[15,", "milestones=[16,", "optimizer", "one step's rate only, and what follows"),
    Change("users' rate 1 % up", "lr=0.02", "lr=0.0202", "optimizer"),
    Change("dampened biases", "momentum=0.8)", "momentum=0.8, dampening=0.1)", "optimizer", "from the second step on"),
    Change("the mix is not clipped", "            nn.utils.clip_grad_norm_([p for p in model.mix.parameters()], 0.05)\n", "", "optimizer"),
    Change("mean follows at 0.04", "self.mean.mul_(0.95).add_(ratings.mean(), alpha=0.05)", "self.mean.mul_(0.96).add_(ratings.mean(), alpha=0.04)", "statistics"),
    Change("spread unbiased", "(ratings - self.mean).pow(2).mean()", "(ratings - self.mean).pow(2).sum() / (len(ratings) - 1)", "statistics"),
    Change("spread about the batch's mean", "(ratings - self.mean).pow(2)", "(ratings - ratings.mean()).pow(2)", "statistics"),
    Change("statistics stop at step 22", "            model.watch(rating[chosen])\n", "            if step < 22:\n                model.watch(rating[chosen])\n", "statistics"),
    Change("watched after the forward", "            model.watch(rating[chosen])\n            guess = model(user[chosen], item[chosen])\n", "            guess = model(user[chosen], item[chosen])\n            model.watch(rating[chosen])\n", "statistics", "the guess uses the statistics of the step before"),
]
