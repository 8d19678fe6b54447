"""What it costs to hold a port to its original, beside a forward and backward pass of that."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from ..check.verify import check
from ..parallel import limited
from . import memory
from .costs import REPEATS, Row, cost, row

HEADS, BATCH, LENGTH = 4, 2, 64


class Size(NamedTuple):
    layers: int
    width: int
    vocabulary: int


SMALL = Size(3, 64, 1000)
LARGE = Size(13, 512, 16_000)  # 49 million parameters
TIMES, MEMORY = 60, 6  # bounds


class Attention(nn.Module):
    """Causal, by torch's fused kernel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.c_attn(x).chunk(3, -1)
        q, k, v = (a.unflatten(-1, (HEADS, -1)).transpose(1, 2) for a in parts)
        return self.c_proj(self.attended(q, k, v).transpose(1, 2).flatten(2))

    def attended(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class Composed(Attention):
    """The same, written out."""

    def attended(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        scores = q @ k.mT * q.shape[-1] ** -0.5
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        return scores.masked_fill(later, -torch.inf).softmax(-1) @ v


class Block(nn.Module):
    def __init__(self, width: int, attention: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.c_fc = attention(width), nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.c_proj(F.gelu(self.c_fc(self.ln_2(x))))


class Gpt(nn.Module):
    """Its loss on tokens (BATCH, LENGTH), with a tied head."""

    def __init__(self, size: Size, attention: Callable[[int], nn.Module] = Attention) -> None:
        super().__init__()
        self.wte = nn.Embedding(size.vocabulary, size.width)
        self.wpe = nn.Embedding(LENGTH, size.width)
        self.h = nn.ModuleList(Block(size.width, attention) for _ in range(size.layers))
        self.ln_f = nn.LayerNorm(size.width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.wte(tokens) + self.wpe.weight
        for block in self.h:
            x = block(x)
        logits = F.linear(self.ln_f(x), self.wte.weight)
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def rows(repeats: int = REPEATS) -> list[Row]:
    """Two rows: the time of a right port's check, and the most memory that one of a large port
    takes, beside both modules, in what a forward and backward pass of the original takes, with its
    parameters."""
    case, size = f"time: {_named(SMALL)}", f"memory: {_named(LARGE)}"
    timed = cost("modules", case, *tasks(SMALL), bound=TIMES, repeats=repeats)
    checked, plain = (memory.in_a_process(__name__, f"taken({LARGE}, {i})") for i in (0, 1))
    held = sum(p.numel() * p.element_size() for p in Gpt(LARGE).parameters()) / 2**20
    return [timed, row("modules", size, [checked], [plain + held], MEMORY)]


def _named(size: Size) -> str:
    return f"GPT, {size.layers} layers of {size.width}, {size.vocabulary} tokens"


def pair(size: Size) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    """An original, a right port of it, and tokens."""
    torch.manual_seed(0)
    tokens = torch.randint(0, size.vocabulary, (BATCH, LENGTH))
    return Gpt(size), Gpt(size, Composed), tokens


def tasks(size: Size) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The check of a right port, and a forward and backward pass of its original."""
    original, port, tokens = pair(size)
    return partial(check, port, original, [tokens]), partial(_passes, original, tokens)


def _passes(module: nn.Module, tokens: torch.Tensor) -> Any:
    return torch.autograd.grad(module(tokens), list(module.parameters()))


def taken(size: Size, which: int) -> float:
    """MiB by which one of the tasks raises the most that this process has had, with both modules
    made; that of small ones has loaded what is needed."""
    with limited(1):
        tasks(Size(1, HEADS, 8))[which]()
        task = tasks(size)[which]
        before = memory.most()
        task()
    return memory.most() - before
