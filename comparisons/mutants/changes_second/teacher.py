"""Diabetes regressed by a student with a mean teacher, BatchNorm and GroupNorm, micro-batches, one cycle (calm at first, rounding grows in the middle)."""

import copy

import torch
import torch.nn.functional as F
from sklearn.datasets import load_diabetes
from torch import nn

from ..changes.kinds import Change

STEPS = 90
MICRO = 3


class Student(nn.Module):
    def __init__(self, width=48):
        super().__init__()
        self.first = nn.Linear(10, width, bias=False)
        self.batch = nn.BatchNorm1d(width, momentum=0.1)
        self.second = nn.Linear(width, width)
        self.group = nn.GroupNorm(6, width)
        self.last = nn.Linear(width, 1)

    def forward(self, x):
        h = F.softplus(self.batch(self.first(x)))
        h = F.dropout(h, 0.05, self.training)
        h = h + torch.tanh(self.group(self.second(h)))
        return self.last(h).squeeze(1)


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.student = Student()
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.teacher.eval()

    @torch.no_grad()
    def follow(self, decay):
        for slow, fast in zip(self.teacher.parameters(), self.student.parameters()):
            slow.mul_(decay).add_(fast, alpha=1 - decay)
        for slow, fast in zip(self.teacher.buffers(), self.student.buffers()):
            slow.copy_(fast)


def train(record):
    torch.set_num_threads(1)
    torch.manual_seed(161)
    data = load_diabetes()
    x = torch.from_numpy(data.data).float()
    x = (x - x.mean(dim=0)) / x.std(dim=0)
    y = torch.from_numpy(data.target).float()
    y = (y - 150.0) / 75.0
    pair = Pair()
    student, teacher = pair.student, pair.teacher
    norms = [*student.batch.parameters(), *student.group.parameters()]
    rest = [*student.first.parameters(), *student.second.parameters(), *student.last.parameters()]
    optimizer = torch.optim.NAdam([{"params": rest, "weight_decay": 1e-3}, {"params": norms}], lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=STEPS + 2, base_momentum=0.85)
    generator = torch.Generator().manual_seed(162)
    with record(pair) as run:
        for step in range(STEPS):
            chosen = torch.randperm(len(x), generator=generator)[: 32 * MICRO]
            optimizer.zero_grad()
            total = 0.0
            ramp = min(1.0, step / 40)
            for part in chosen.chunk(MICRO):
                noisy = x[part] + 0.1 * torch.randn(x[part].shape, generator=generator)
                guess = student(noisy)
                with torch.no_grad():
                    wanted = teacher(x[part])
                loss = F.mse_loss(guess, y[part]) + 0.5 * ramp * F.mse_loss(guess, wanted)
                (loss / MICRO).backward()
                total = total + loss.detach() / MICRO
            run.step(total)
            nn.utils.clip_grad_norm_(student.parameters(), 1.5)
            optimizer.step()
            schedule.step()
            pair.follow(decay=0.97)


HARMLESS = [
    Change("error written out", "F.mse_loss(guess, y[part]) + ", "(guess - y[part]).square().mean() + "),
    Change("both errors in one", "F.mse_loss(guess, y[part]) + 0.5 * ramp * F.mse_loss(guess, wanted)", "((guess - y[part]) ** 2 + 0.5 * ramp * (guess - wanted) ** 2).mean()"),
    Change(
        "losses added before one backward",
        "                (loss / MICRO).backward()\n                total = total + loss.detach() / MICRO\n            run.step(total)\n",
        "                total = total + loss / MICRO\n            total.backward()\n            run.step(total)\n",
    ),
    Change("softplus as logaddexp", "F.softplus(self.batch(self.first(x)))", "torch.logaddexp(self.batch(self.first(x)), x.new_zeros(()))", note="softplus is the identity above 20, never reached"),
    Change("follow by lerp", "slow.mul_(decay).add_(fast, alpha=1 - decay)", "slow.lerp_(fast, 1 - decay)"),
    Change(
        "group norm by hand",
        "self.group(self.second(h))",
        "((g := self.second(h).unflatten(1, (6, -1))) - g.mean(dim=2, keepdim=True)).div((g.var(dim=2, keepdim=True, correction=0) + 1e-5).sqrt()).flatten(1) * self.group.weight + self.group.bias",
    ),
    Change(
        "batch norm by hand",
        "        h = F.softplus(self.batch(self.first(x)))\n",
        "        h, norm = self.first(x), self.batch\n"
        "        if self.training:\n"
        "            spread, middle = torch.var_mean(h, dim=0, correction=0)\n"
        "            with torch.no_grad():\n"
        "                norm.running_mean.lerp_(middle, 0.1)\n"
        "                norm.running_var.lerp_(spread * (len(h) / (len(h) - 1)), 0.1)\n"
        "                norm.num_batches_tracked += 1\n"
        "        else:\n"
        "            middle, spread = norm.running_mean, norm.running_var\n"
        "        h = F.softplus((h - middle) * torch.rsqrt(spread + norm.eps) * norm.weight + norm.bias)\n",
    ),
    Change("standardized by numpy's moments", "x = (x - x.mean(dim=0)) / x.std(dim=0)\n", "spread, middle = torch.std_mean(x, dim=0)\n    x = (x - middle).div_(spread)\n"),
    Change("targets by one affine", "y = (y - 150.0) / 75.0", "y = y / 75.0 - 2.0"),
    Change("tensor by tensor", '{"params": norms}], lr=2e-3)', '{"params": norms}], lr=2e-3, foreach=False)'),
    Change("clipping in two steps", "nn.utils.clip_grad_norm_(student.parameters(), 1.5)", "parameters = list(student.parameters())\n            size = nn.utils.get_total_norm([p.grad for p in parameters])\n            nn.utils.clip_grads_with_norm_(parameters, 1.5, size)"),
    Change("last layer as a product", "self.last(h).squeeze(1)", "h @ self.last.weight[0] + self.last.bias"),
    Change("gradients scaled and unscaled", "                (loss / MICRO).backward()\n", "                (loss * 1000).backward()\n                if part is not None and torch.equal(part, chosen.chunk(MICRO)[-1]):\n                    for p in student.parameters():\n                        p.grad.div_(1000 * MICRO)\n"),
]

FAULTY = [
    Change("moments of a third of the rows", "x = (x - x.mean(dim=0)) / x.std(dim=0)", "x = (x - x[::3].mean(dim=0)) / x[::3].std(dim=0)", "data"),
    Change("biased spread", "x.std(dim=0)\n", "x.std(dim=0, correction=0)\n", "data", "1e-3 relative"),
    Change("noise 0.102", "0.1 * torch.randn", "0.102 * torch.randn", "data"),
    Change("order with replacement from step 12 on", "            optimizer.zero_grad()\n", "            if step >= 12:\n                chosen = chosen[torch.arange(len(chosen)) // 2 * 2]\n            optimizer.zero_grad()\n", "data", "each second row in place of its neighbour"),
    Change("order from the global generator", "torch.randperm(len(x), generator=generator)", "torch.randperm(len(x))", "data", "dropout's draws move too"),
    Change("ramp over 42 steps", "step / 40", "step / 42", "forward", "no difference before the second step"),
    Change("dropout 0.06", "F.dropout(h, 0.05,", "F.dropout(h, 0.06,", "forward"),
    Change("dropout in evaluation too", "self.training)\n        h = h +", "True)\n        h = h +", "forward", "draws from the global generator for the teacher too"),
    Change("group norm's eps 1e-3", "nn.GroupNorm(6, width)", "nn.GroupNorm(6, width, eps=1e-3)", "forward"),
    Change("teacher sees the noise", "wanted = teacher(x[part])", "wanted = teacher(noisy)", "forward", "the ramp is zero at the first step"),
    Change("softplus's beta 1.02", "F.softplus(self.batch(self.first(x)))", "F.softplus(self.batch(self.first(x)), beta=1.02)", "forward"),
    Change("sums of micro-batches", "(loss / MICRO).backward()", "loss.backward()", "backward", "the reported loss stays at first"),
    Change("first micro-batch lost", "                (loss / MICRO).backward()\n", "                optimizer.zero_grad()\n                (loss / MICRO).backward()\n", "backward", "only the last one counts"),
    Change("mean over one micro-batch more from step 9 on", "(loss / MICRO).backward()", "(loss / (MICRO if step < 9 else MICRO + 1)).backward()", "backward"),
    Change("residual's branch detached", "self.group(self.second(h))", "self.group(self.second(h.detach()))", "backward"),
    Change("guess detached towards the teacher", "F.mse_loss(guess, wanted)", "F.mse_loss(guess.detach(), wanted)", "backward", "the ramp is zero at the first step"),
    Change("clipped each micro-batch", "                total = total + loss", "                nn.utils.clip_grad_norm_(student.parameters(), 0.5)\n                total = total + loss", "backward", "optimizer as well: the clip is at another place"),
    Change("norms decayed", '{"params": norms}]', '{"params": norms, "weight_decay": 1e-3}]', "optimizer"),
    Change("decay decoupled", "lr=2e-3)", "lr=2e-3, decoupled_weight_decay=True)", "optimizer"),
    Change("momentum not cycled", "base_momentum=0.85", "cycle_momentum=False", "optimizer"),
    Change("peak rate 1 % up", "max_lr=4e-3", "max_lr=4.04e-3", "optimizer"),
    Change("rate shrinks in every third step", "                total = total + loss", "                if step % 3 == 2:\n                    optimizer.param_groups[0]['lr'] *= 0.999\n                total = total + loss", "optimizer", "a rate that shrinks in the midst of a step; the schedule sets it again"),
    Change("momentum of BatchNorm 0.09", "momentum=0.1)", "momentum=0.09)", "statistics", "reaches the loss through the teacher as the ramp rises"),
    Change("teacher at 0.96", "decay=0.97", "decay=0.96", "statistics"),
    Change("teacher without the student's statistics", "            slow.copy_(fast)\n", "            continue\n", "statistics"),
    Change("teacher follows before the step", "            optimizer.step()\n            schedule.step()\n            pair.follow(decay=0.97)\n", "            pair.follow(decay=0.97)\n            optimizer.step()\n            schedule.step()\n", "statistics"),
    Change("teacher in train mode", "        self.teacher.eval()\n", "        self.teacher.train()\n", "statistics", "and dropout there: forward as well"),
]
