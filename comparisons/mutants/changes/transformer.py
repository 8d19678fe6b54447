"""A character model on Python's help topics: pre-norm transformer, tied head, AdamW with warm-up (bfloat16 autocast)."""

import math
from pydoc_data.topics import topics

import torch
import torch.nn.functional as F
from torch import nn

from .kinds import Change

STEPS = 80
WARMUP = 10
LENGTH = 32
BATCH = 8
WIDTH = 48
HEADS = 4


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("mask", torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril(), persistent=False)

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (t.reshape(batch, length, HEADS, -1).transpose(1, 2) for t in (q, k, v))
        scores = q @ k.transpose(-2, -1) / math.sqrt(WIDTH // HEADS)
        scores = scores.masked_fill(~self.mask, float("-inf"))
        mixed = scores.softmax(dim=-1) @ v
        return self.proj(mixed.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.norm2 = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class CharModel(nn.Module):
    def __init__(self, symbols, layers=2):
        super().__init__()
        self.embed = nn.Embedding(symbols, WIDTH)
        self.position = nn.Parameter(torch.zeros(LENGTH, WIDTH))
        self.blocks = nn.ModuleList([Block() for _ in range(layers)])
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, symbols, bias=False)
        nn.init.normal_(self.embed.weight, std=0.05)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        x = self.embed(tokens) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def corpus():
    text = "\n".join(topics[name] for name in ("lambda", "if", "while", "for", "try", "with", "class", "import"))
    symbols = sorted(set(text))
    place = {symbol: i for i, symbol in enumerate(symbols)}
    return torch.tensor([place[symbol] for symbol in text]), len(symbols)


def schedule(step):
    """Linear warm-up, then a cosine to zero: a factor of the rate."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    return 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


def train(record):
    torch.set_num_threads(1)
    torch.manual_seed(100)
    text, symbols = corpus()
    model = CharModel(symbols)
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=3e-3, betas=(0.9, 0.95))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    sampler = torch.Generator().manual_seed(101)
    with record(model) as run:
        for step in range(STEPS):
            starts = torch.randint(len(text) - LENGTH - 1, (BATCH,), generator=sampler)
            window = torch.stack([text[s : s + LENGTH + 1] for s in starts.tolist()])
            tokens, targets = window[:, :-1], window[:, 1:]
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(tokens)
            loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
            optimizer.zero_grad()
            loss.backward()
            run.step(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()


HARMLESS = [
    Change(
        "scaled_dot_product_attention",
        """\
        scores = q @ k.transpose(-2, -1) / math.sqrt(WIDTH // HEADS)
        scores = scores.masked_fill(~self.mask, float("-inf"))
        mixed = scores.softmax(dim=-1) @ v
""",
        "        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)\n",
    ),
    Change(
        "attention by einsum",
        "scores = q @ k.transpose(-2, -1) / math.sqrt(WIDTH // HEADS)",
        'scores = torch.einsum("bhqd,bhkd->bhqk", q, k) * (WIDTH // HEADS) ** -0.5',
    ),
    Change(
        "queries scaled before the product",
        "q @ k.transpose(-2, -1) / math.sqrt(WIDTH // HEADS)",
        "(q / math.sqrt(WIDTH // HEADS)) @ k.transpose(-2, -1)",
    ),
    Change(
        "queries, keys and values each by a product of its own",
        "q, k, v = self.qkv(x).chunk(3, dim=-1)",
        "weights, biases = self.qkv.weight.chunk(3), self.qkv.bias.chunk(3)\n"
        "        q, k, v = (F.linear(x, weight, bias) for weight, bias in zip(weights, biases))",
    ),
    Change(
        "the mask added",
        'scores = scores.masked_fill(~self.mask, float("-inf"))',
        "scores = scores + torch.zeros(length, length).masked_fill(~self.mask, -math.inf)",
    ),
    Change(
        "torch.compile with aot_eager",
        "                logits = model(tokens)\n",
        "                if step == 0:\n"
        '                    compiled = torch.compile(model, backend="aot_eager")\n'
        "                logits = compiled(tokens)\n",
    ),
    Change("fused AdamW", "betas=(0.9, 0.95)", "betas=(0.9, 0.95), fused=True"),
    Change("schedule by hand", "            optimizer.step()\n            scheduler.step()\n", "            for group in optimizer.param_groups:\n                group[\"lr\"] = 3e-3 * schedule(step)\n            optimizer.step()\n"),
    Change(
        "blocks computed again in the backward",
        "x = block(x)",
        "x = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)",
    ),
    Change(
        "embedding by a one-hot product",
        "x = self.embed(tokens) + self.position",
        "x = F.one_hot(tokens, self.embed.num_embeddings).to(self.embed.weight.dtype) @ self.embed.weight + self.position",
        note="autocast rounds the embedding to bfloat16 here",
    ),
    Change(
        "loss by log_softmax and gather",
        "loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())",
        "likelihood = logits.float().log_softmax(-1).gather(-1, targets[..., None])\n            loss = -likelihood.mean()",
    ),
]

FAULTY = [
    Change("gelu's tanh approximation", "F.gelu(self.up(self.norm2(x)))", 'F.gelu(self.up(self.norm2(x)), approximate="tanh")', "forward", "1e-4 of the activation, below bfloat16's rounding"),
    Change("scores divided by the whole width", "math.sqrt(WIDTH // HEADS)", "math.sqrt(WIDTH)", "forward"),
    Change("mask open to the next symbol", ".tril()", ".tril(1)", "forward", "a buffer, not persistent, differs too"),
    Change("head not tied", "        self.head.weight = self.embed.weight\n", "        self.head.weight = nn.Parameter(self.embed.weight.detach().clone())\n", "forward", "one parameter more"),
    Change("second norm's eps 1e-3", "self.norm2 = nn.LayerNorm(WIDTH)", "self.norm2 = nn.LayerNorm(WIDTH, eps=1e-3)", "forward"),
    Change("no warm-up", "return (step + 1) / WARMUP", "return 1.0", "optimizer"),
    Change("schedule one step early", "return (step + 1) / WARMUP", "return (step + 2) / WARMUP", "optimizer", "during the warm-up alone"),
    Change("beta2 0.98", "(0.9, 0.95)", "(0.9, 0.98)", "optimizer"),
    Change("decay on biases and norms too", '{"params": vectors, "weight_decay": 0.0}', '{"params": vectors, "weight_decay": 0.1}', "optimizer", "3e-4 of a step at the full rate"),
    Change("L2 for decoupled decay", "torch.optim.AdamW(", "torch.optim.Adam(", "optimizer"),
    Change("clipping after the step", "            nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n            optimizer.step()\n", "            optimizer.step()\n            nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n", "optimizer", "no clipping in effect"),
    Change("symbol after the next as the target", "window[:, :-1], window[:, 1:]", "window[:, :-1], window.roll(-2, 1)[:, :-1]", "data"),
    Change("windows from step 40 on start one later", "            tokens, targets", "            if step >= 40:\n                window = torch.stack([text[s + 1 : s + LENGTH + 2] for s in starts.tolist()])\n            tokens, targets", "data"),
    Change("embedding's gradient scaled by frequency", "nn.Embedding(symbols, WIDTH)", "nn.Embedding(symbols, WIDTH, scale_grad_by_freq=True)", "backward"),
    Change("keys detached", "scores = q @ k.transpose", "scores = q @ k.detach().transpose", "backward"),
    Change(
        "first symbol left out of the loss",
        "F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())",
        "F.cross_entropy(logits[:, 1:].float().flatten(0, 1), targets[:, 1:].flatten())",
        "forward",
    ),
]
