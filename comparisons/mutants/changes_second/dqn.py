"""Double Q-learning of balanced poles: replay, a target network, a running normalization, ReLU, high rate (chaotic)."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from ..changes.kinds import Change

STEPS = 120
POLES = 16
KEPT = 1024


class Values(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.first = nn.Linear(4, width)
        self.second = nn.Linear(width, width)
        self.value = nn.Linear(width, 1)
        self.advantage = nn.Linear(width, 2)

    def forward(self, x):
        h = F.relu(self.first(x))
        h = F.relu(self.second(h))
        advantage = self.advantage(h)
        return self.value(h) + advantage - advantage.mean(dim=1, keepdim=True)


class Agent(nn.Module):
    def __init__(self):
        super().__init__()
        self.online = Values()
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.register_buffer("middle", torch.zeros(4))
        self.register_buffer("square", torch.ones(4))

    def forward(self, net, state):
        spread = (self.square - self.middle**2).clamp(min=1e-2).sqrt()
        return net((state - self.middle) / spread)

    @torch.no_grad()
    def watch(self, state):
        self.middle.mul_(0.98).add_(state.mean(dim=0), alpha=0.02)
        self.square.mul_(0.98).add_(state.pow(2).mean(dim=0), alpha=0.02)

    @torch.no_grad()
    def sync(self, rate):
        for slow, fast in zip(self.target.parameters(), self.online.parameters()):
            slow.lerp_(fast, rate)


def move(state, action):
    place, speed, angle, spin = state.unbind(dim=1)
    force = 10.0 * (2 * action.to(state.dtype) - 1)
    pull = (force + 0.05 * spin**2 * angle.sin()) / 1.1
    turn = (9.8 * angle.sin() - angle.cos() * pull) / (0.5 * (4 / 3 - 0.1 * angle.cos() ** 2 / 1.1))
    push = pull - 0.05 * turn * angle.cos() / 1.1
    after = torch.stack([place + 0.02 * speed, speed + 0.02 * push, angle + 0.02 * spin, spin + 0.02 * turn], dim=1)
    return after, (after[:, 2].abs() > 0.21) | (after[:, 0].abs() > 2.4)


class Replay:
    def __init__(self):
        self.rows, self.count = None, 0

    def add(self, *columns):
        if self.rows is None:
            self.rows = [torch.zeros((KEPT, *c.shape[1:]), dtype=c.dtype) for c in columns]
        at = torch.arange(self.count, self.count + len(columns[0])) % KEPT
        for rows, column in zip(self.rows, columns):
            rows[at] = column
        self.count += len(at)

    def draw(self, size, generator):
        chosen = torch.randint(min(self.count, KEPT), (size,), generator=generator)
        return [rows[chosen] for rows in self.rows]


def train(record):
    torch.set_num_threads(1)
    torch.manual_seed(171)
    agent = Agent()
    replay = Replay()
    optimizer = torch.optim.RMSprop(agent.online.parameters(), lr=1.5e-2, alpha=0.95, momentum=0.5)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=12, gamma=0.95)
    luck = torch.Generator().manual_seed(172)
    state = 0.05 * torch.randn(POLES, 4, generator=luck)
    with record(agent) as run:
        for step in range(STEPS):
            for _ in range(2):
                with torch.no_grad():
                    greedy = agent(agent.online, state).argmax(dim=1)
                odds = max(0.1, 1.0 - step / 60)
                blind = torch.rand(POLES, generator=luck) < odds
                action = torch.where(blind, torch.randint(2, (POLES,), generator=luck), greedy)
                after, over = move(state, action)
                reward = 1.0 - 2.0 * over.to(state.dtype) - after[:, 2].abs()
                replay.add(state, action, reward, after, over)
                agent.watch(after)
                fresh = 0.05 * torch.randn(POLES, 4, generator=luck)
                state = torch.where(over[:, None], fresh, after)
            was, did, paid, then, ended = replay.draw(64, luck)
            with torch.no_grad():
                best = agent(agent.online, then).argmax(dim=1, keepdim=True)
                future = agent(agent.target, then).gather(1, best).squeeze(1)
                goal = paid + 0.97 * future * (~ended)
            guess = agent(agent.online, was).gather(1, did[:, None]).squeeze(1)
            loss = F.smooth_l1_loss(guess, goal)
            optimizer.zero_grad()
            loss.backward()
            run.step(loss)
            nn.utils.clip_grad_norm_(agent.online.parameters(), 3.0)
            optimizer.step()
            schedule.step()
            if step % 4 == 3:
                agent.sync(rate=0.5)


HARMLESS = [
    Change("loss by huber", "F.smooth_l1_loss(guess, goal)", "F.huber_loss(guess, goal, delta=1.0)"),
    Change("loss written out", "F.smooth_l1_loss(guess, goal)", "((e := (guess - goal).abs()).clamp(max=1) * (e - 0.5 * e.clamp(max=1))).mean()"),
    Change("guess by a mask", "agent(agent.online, was).gather(1, did[:, None]).squeeze(1)", "(agent(agent.online, was) * F.one_hot(did, 2)).sum(dim=1)"),
    Change("future by where", "goal = paid + 0.97 * future * (~ended)", "goal = torch.where(ended, paid, paid + 0.97 * future)"),
    Change("centred advantage by halves", "advantage - advantage.mean(dim=1, keepdim=True)", "0.5 * (advantage - advantage.flip(1))"),
    Change("target by hand", "slow.lerp_(fast, rate)", "slow.mul_(1 - rate).add_(fast, alpha=rate)"),
    Change("normalization in the weights", "return net((state - self.middle) / spread)", "return net(torch.addcmul(-self.middle / spread, state, 1 / spread))"),
    Change("states shifted by lerp", "self.middle.mul_(0.98).add_(state.mean(dim=0), alpha=0.02)", "self.middle.lerp_(state.mean(dim=0), 0.02)"),
    Change("turn by one fraction", "(9.8 * angle.sin() - angle.cos() * pull) / (0.5 * (4 / 3 - 0.1 * angle.cos() ** 2 / 1.1))", "1.1 * (9.8 * angle.sin() - angle.cos() * pull) / (2.2 / 3 - 0.05 * angle.cos() ** 2)"),
    Change("heads in one product", "        advantage = self.advantage(h)\n        return self.value(h) + advantage", "        both = F.linear(h, torch.cat([self.value.weight, self.advantage.weight]), torch.cat([self.value.bias, self.advantage.bias]))\n        value, advantage = both[:, :1], both[:, 1:]\n        return value + advantage"),
    Change("tensor by tensor", "momentum=0.5)", "momentum=0.5, foreach=False)"),
    Change("ReLU by clamp", "F.relu(self.second(h))", "self.second(h).clamp(min=0)", note="the same but in the kink"),
    Change("rates in closed form", "            schedule.step()\n", "            for group in optimizer.param_groups:\n                group['lr'] = 1.5e-2 * 0.95 ** ((step + 1) // 12)\n"),
    Change("was and then in one call", "            guess = agent(agent.online, was).gather", "            guess = agent(agent.online, torch.cat([was, then]))[: len(was)].gather"),
]

FAULTY = [
    Change("rows of the replay never the newest", "torch.randint(min(self.count, KEPT),", "torch.randint(min(self.count, KEPT) - 1,", "data"),
    Change("state after kept in place of before", "replay.add(state, action, reward, after, over)", "replay.add(after, action, reward, after, over)", "data"),
    Change("fresh states not stored from step 10 on", "            was, did, paid", "            if step >= 10:\n                replay.count -= POLES\n            was, did, paid", "data", "the second half of each step's moves is overwritten"),
    Change("gravity 9.81", "(9.8 * angle.sin()", "(9.81 * angle.sin()", "data", "the world, not the net"),
    Change("starts twice as wide after a fall", "                fresh = 0.05 *", "                fresh = 0.1 *", "data", "shows as the first pole falls"),
    Change("order of the luck", "fresh = 0.05 * torch.randn(POLES, 4, generator=luck)\n", "fresh = 0.05 * torch.randn(POLES, 4)\n", "data", "from the global generator"),
    Change("exploration over 62 steps", "step / 60", "step / 62", "data", "no difference before an action flips"),
    Change("discount 0.98", "0.97 * future", "0.98 * future", "forward"),
    Change("future of the ended kept", "future * (~ended)", "future", "forward", "shows as soon as an ended row is drawn"),
    Change("single Q-learning", "best = agent(agent.online, then)", "best = agent(agent.target, then)", "forward", "no difference before the nets part"),
    Change("squared error", "F.smooth_l1_loss(guess, goal)", "0.5 * F.mse_loss(guess, goal)", "forward", "no difference while all errors are below 1"),
    Change("advantage less its maximum", "advantage.mean(dim=1, keepdim=True)", "advantage.amax(dim=1, keepdim=True)", "forward"),
    Change("leaky slope 0.01", "F.relu(self.first(x))", "F.leaky_relu(self.first(x))", "forward"),
    Change("target is the online net", "future = agent(agent.target, then)", "future = agent(agent.online, then)", "forward", "no gradient through it"),
    Change("mean of the advantages detached", "advantage.mean(dim=1, keepdim=True)", "advantage.mean(dim=1, keepdim=True).detach()", "backward"),
    Change("value's trunk detached", "self.value(h)", "self.value(h.detach())", "backward"),
    Change("gradients kept every fourth step", "            optimizer.zero_grad()\n", "            if step % 4 != 3:\n                optimizer.zero_grad()\n", "backward"),
    Change("residual gradient", "            loss = F.smooth_l1_loss(guess, goal)\n", "            future = agent(agent.online, then).gather(1, best).squeeze(1)\n            goal = goal + 0.97 * (future - future.detach()) * (~ended)\n            loss = F.smooth_l1_loss(guess, goal)\n", "backward", "the loss stays until the next step"),
    Change("clipped at 0.1", "agent.online.parameters(), 3.0)", "agent.online.parameters(), 0.1)", "optimizer"),
    Change("eps 1e-6", "lr=1.5e-2, alpha", "lr=1.5e-2, eps=1e-6, alpha", "optimizer"),
    Change("alpha 0.96", "alpha=0.95", "alpha=0.96", "optimizer"),
    Change("centred", "momentum=0.5)", "momentum=0.5, centered=True)", "optimizer"),
    Change("rate 2 % down", "lr=1.5e-2, alpha", "lr=1.47e-2, alpha", "optimizer"),
    Change("schedule one step late", "step_size=12", "step_size=13", "optimizer"),
    Change("target synchronized a step late", "if step % 4 == 3:", "if step % 4 == 0 and step:", "statistics", "a parameter that no optimizer moves: no kind fits exactly"),
    Change("target at 0.55", "rate=0.5)", "rate=0.55)", "statistics", "a parameter that no optimizer moves"),
    Change("middle follows at 0.03", "self.middle.mul_(0.98).add_(state.mean(dim=0), alpha=0.02)", "self.middle.mul_(0.97).add_(state.mean(dim=0), alpha=0.03)", "statistics"),
    Change("statistics of the states before", "agent.watch(after)", "agent.watch(state)", "statistics"),
    Change("statistics frozen from step 25 on", "                agent.watch(after)\n", "                if step < 25:\n                    agent.watch(after)\n", "statistics"),
]
