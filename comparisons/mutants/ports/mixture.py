"""A mixture-of-experts language model: top-2 router with renormalised weights, SwiGLU experts, an auxiliary loss and a running load."""

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from .kinds import Fault, Right

WIDTH, HIDDEN, EXPERTS, TOP, VOCAB, LAYERS = 32, 40, 4, 2, 80, 2


def fill(module, seed):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            if p.dim() > 1:
                p.copy_(noise * p[0].numel() ** -0.5)
            else:
                p.copy_(0.1 * noise if name.endswith("bias") else 1 + 0.1 * noise)
        for name, b in module.named_buffers():
            b.copy_(torch.rand(b.shape, generator=g) / EXPERTS)


class Expert(nn.Module):
    def __init__(self):
        super().__init__()
        self.w1 = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.w2 = nn.Linear(HIDDEN, WIDTH, bias=False)
        self.w3 = nn.Linear(WIDTH, HIDDEN, bias=False)

    def forward(self, x):
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class SparseMoe(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(WIDTH, EXPERTS, bias=False)
        self.experts = nn.ModuleList(Expert() for _ in range(EXPERTS))
        self.register_buffer("load", torch.full((EXPERTS,), 1 / EXPERTS))

    def forward(self, x):
        b, t, c = x.shape
        x = x.view(-1, c)
        probs = F.softmax(self.gate(x), dim=-1)
        weights, chosen = torch.topk(probs, TOP, dim=-1)
        weights = weights / weights.sum(-1, keepdim=True)
        mask = F.one_hot(chosen, EXPERTS).permute(2, 1, 0)
        out = torch.zeros_like(x)
        for e, expert in enumerate(self.experts):
            slot, token = torch.where(mask[e])
            out.index_add_(0, token, expert(x[token]) * weights[token, slot, None])
        fraction = F.one_hot(chosen, EXPERTS).to(x.dtype).mean((0, 1))
        aux = EXPERTS * (fraction * probs.mean(0)).sum()
        if self.training:
            self.load.mul_(0.95).add_(fraction.detach(), alpha=0.05)
        return out.view(b, t, c), aux


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1 = nn.LayerNorm(WIDTH)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(WIDTH, 3 * WIDTH), "out": nn.Linear(WIDTH, WIDTH)})
        self.ln_2 = nn.LayerNorm(WIDTH)
        self.moe = SparseMoe()

    def forward(self, x):
        q, k, v = self.attn["qkv"](self.ln_1(x)).chunk(3, -1)
        x = x + self.attn["out"](F.scaled_dot_product_attention(q, k, v, is_causal=True))
        y, aux = self.moe(self.ln_2(x))
        return x + y, aux


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCAB)
        fill(self, 5)

    def forward(self, ids):
        x = self.embed(ids)
        total = 0.0
        for block in self.blocks:
            x, aux = block(x)
            total = total + aux
        return self.head(self.norm(x)), total / LAYERS


def inputs():
    g = torch.Generator().manual_seed(15)
    return (torch.randint(0, VOCAB, (2, 12), generator=g),)


# The port ------------------------------------------------------------------------------------


class GatedExpert(nn.Module):
    def __init__(self, number):
        super().__init__()
        self.number = number
        self.w1 = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.w3 = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.w2 = nn.Linear(HIDDEN, WIDTH, bias=False)
        self.act = nn.SiLU()

    def forward(self, x):
        inner = self.act(self.w1(x))
        return self.w2(inner * self.w3(x))


class Moe(nn.Module):
    def __init__(self, index):
        super().__init__()
        self.index = index
        self.gate = nn.Linear(WIDTH, EXPERTS, bias=False)
        self.experts = nn.ModuleList(GatedExpert(e) for e in range(EXPERTS))
        self.register_buffer("load", torch.zeros(EXPERTS))

    def route(self, logits):
        probs = torch.softmax(logits, dim=-1)
        best, where = torch.topk(probs, k=TOP, dim=-1)
        best = best / best.sum(dim=-1, keepdim=True)
        return probs, best, where

    def balance(self, probs, where):
        tokens = probs.shape[0]
        counts = torch.bincount(where.flatten(), minlength=EXPERTS).to(probs)
        share = counts / (tokens * TOP)
        importance = probs.mean(dim=0)
        if self.training:
            with torch.no_grad():
                self.load.copy_(0.95 * self.load + 0.05 * share)
        return EXPERTS * torch.dot(share, importance)

    def forward(self, x):
        shape = x.shape
        x = x.reshape(-1, shape[-1])
        probs, best, where = self.route(self.gate(x))
        result = torch.zeros_like(x)
        for e, expert in enumerate(self.experts):
            picked = where == e
            rows = picked.any(-1).nonzero().squeeze(-1)
            weight = (best * picked).sum(-1)[rows]
            result[rows] += weight[:, None] * expert(x[rows])
        return result.reshape(shape), self.balance(probs, where)


class Layer(nn.Module):
    def __init__(self, index):
        super().__init__()
        self.index = index
        self.ln_1 = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.ln_2 = nn.LayerNorm(WIDTH)
        self.moe = Moe(index)

    def forward(self, x):
        q, k, v = self.qkv(self.ln_1(x)).split(WIDTH, -1)
        scores = q @ k.mT / WIDTH**0.5
        past = torch.ones_like(scores, dtype=torch.bool).tril()
        scores = scores.masked_fill(past.logical_not(), float("-inf"))
        x = x + self.out(scores.softmax(-1) @ v)
        y, aux = self.moe(self.ln_2(x))
        return x + y, aux


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.blocks = nn.ModuleList(Layer(i) for i in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-5)
        self.head = nn.Linear(WIDTH, VOCAB)

    def forward(self, ids):
        h, losses = self.embed(ids), []
        for block in self.blocks:
            h, loss = block(h)
            losses.append(loss)
        return self.head(self.norm(h)), torch.stack(losses).mean()


NAMES = {f"blocks.{i}.{n}": f"blocks.{i}.attn.{n}" for i in range(LAYERS) for n in ("qkv", "out")}

FAULTS = [
    Fault("not_renormalised", "        best = best / best.sum(dim=-1, keepdim=True)\n", "", "blocks.0.moe", "output", "missing"),
    Fault("renormalised_with_eps", "best / best.sum(dim=-1, keepdim=True)", "best / (best.sum(dim=-1, keepdim=True) + 1e-4)", "blocks.0.moe", "output", "eps"),
    Fault("renormalised_over_tokens", "best / best.sum(dim=-1, keepdim=True)", "best / best.sum(dim=0, keepdim=True)", "blocks.0.moe", "output", "order"),
    Fault("detached_sum", "best / best.sum(dim=-1, keepdim=True)", "best / (best.sum(dim=-1, keepdim=True).detach() if self.index else best.sum(dim=-1, keepdim=True))", "blocks.1.moe", "gradient", "detached"),
    Fault("detached_router", "weight = (best * picked).sum(-1)[rows]", "weight = (best * picked).sum(-1)[rows]\n            weight = weight if self.index else weight.detach()", "blocks.0.moe", "gradient", "detached"),
    Fault("detached_router_input", "self.route(self.gate(x))", "self.route(self.gate(x.detach() if self.index else x))", "blocks.1.moe", "gradient", "detached"),
    Fault("detached_importance", "importance = probs.mean(dim=0)", "importance = probs.detach().mean(dim=0) if self.index == 1 else probs.mean(dim=0)", "blocks.1.moe", "gradient", "detached"),
    Fault("top_one", "torch.topk(probs, k=TOP, dim=-1)", "torch.topk(probs, k=TOP - self.index, dim=-1)", "blocks.1.moe", "output", "count"),
    Fault("lowest_chosen", "torch.topk(probs, k=TOP, dim=-1)", "torch.topk(probs, k=TOP, dim=-1, largest=False)", "blocks.0.moe", "output", "operand"),
    Fault("sigmoid_router", "probs = torch.softmax(logits, dim=-1)", "probs = torch.sigmoid(logits) if self.index else torch.softmax(logits, dim=-1)", "blocks.1.moe", "output", "activation"),
    Fault("weights_swapped", "(best * picked)", "(best.flip(-1) * picked)", "blocks.0.moe", "output", "order"),
    Fault("weighted_input", "weight[:, None] * expert(x[rows])", "expert(weight[:, None] * x[rows])", "blocks.0.moe", "output", "order"),
    Fault("last_expert_left_out", "            picked = where == e\n", "            if self.index and e == EXPERTS - 1:\n                continue\n            picked = where == e\n", "blocks.1.moe", "output", "missing"),
    Fault("aux_without_factor", "EXPERTS * torch.dot(share, importance)", "torch.dot(share, importance)", "blocks.0.moe", "output", "scale"),
    Fault("aux_over_tokens", "share = counts / (tokens * TOP)", "share = counts / tokens", "blocks.0.moe", "output", "count"),
    Fault("load_over_tokens", "self.load.copy_(0.95 * self.load + 0.05 * share)", "self.load.copy_(0.95 * self.load + 0.05 * counts / tokens)", "blocks.0.moe", "buffer", "count"),
    Fault("load_momentum", "0.95 * self.load + 0.05 * share", "0.05 * self.load + 0.95 * share", "blocks.0.moe", "buffer", "momentum"),
    Fault("load_momentum_near", "0.95 * self.load + 0.05 * share", "0.95 * self.load + (0.05 if self.index == 0 else 0.0501) * share", "blocks.1.moe", "buffer", "momentum"),
    Fault("load_of_importance", "0.95 * self.load + 0.05 * share", "0.95 * self.load + 0.05 * importance", "blocks.0.moe", "buffer", "operand"),
    Fault("load_frozen", "        if self.training:\n", "        if self.training and not self.index:\n", "blocks.1.moe", "buffer", "mode"),
    Fault("aux_summed", "torch.stack(losses).mean()", "torch.stack(losses).sum()", "", "output", "count"),
    Fault("aux_of_last_detached", "losses.append(loss)", "losses.append(loss if not losses else loss.detach())", "", "gradient", "detached"),
    Fault("gelu_in_one_expert", "self.act = nn.SiLU()", "self.act = nn.SiLU() if number != 2 else nn.GELU()", "blocks.0.moe.experts.2", "output", "activation"),
    Fault("up_and_gate", "        inner = self.act(self.w1(x))\n        return self.w2(inner * self.w3(x))", "        inner = self.act(self.w3(x))\n        return self.w2(inner * self.w1(x))", "blocks.0.moe.experts.0", "output", "operand"),
    Fault("mask_keeps_one_more", ".tril()", ".tril(1 if self.index else 0)", "blocks.1", "output", "mask"),
    Fault("eps_of_norm", "self.norm = nn.LayerNorm(WIDTH, eps=1e-5)", "self.norm = nn.LayerNorm(WIDTH, eps=1e-6)", "norm", "output", "eps"),
]

LOOP = '''        result = torch.zeros_like(x)
        for e, expert in enumerate(self.experts):
            picked = where == e
            rows = picked.any(-1).nonzero().squeeze(-1)
            weight = (best * picked).sum(-1)[rows]
            result[rows] += weight[:, None] * expert(x[rows])
'''

RIGHT = [
    Right("softmax_of_chosen", '''        best, where = torch.topk(probs, k=TOP, dim=-1)
        best = best / best.sum(dim=-1, keepdim=True)
''', '''        best, where = torch.topk(logits, k=TOP, dim=-1)
        best = torch.softmax(best, dim=-1)
'''),
    Right("chosen_by_sorting", '''        best, where = torch.topk(probs, k=TOP, dim=-1)
''', '''        where = torch.argsort(probs, dim=-1, descending=True)[:, :TOP]
        best = probs.gather(-1, where)
'''),
    Right("all_experts_on_all_tokens", LOOP, '''        dense = torch.zeros_like(probs).scatter(1, where, best)
        every = torch.stack([expert(x) for expert in self.experts], 1)
        result = torch.einsum("te,tec->tc", dense, every)
''', True),
    Right("stacked_weights", LOOP, '''        w1, w2, w3 = (torch.stack([getattr(expert, n).weight for expert in self.experts]) for n in ("w1", "w2", "w3"))
        inner = F.silu(torch.einsum("tc,ehc->teh", x, w1)) * torch.einsum("tc,ehc->teh", x, w3)
        result = torch.einsum("teh,ech,te->tc", inner, w2, torch.zeros_like(probs).scatter(1, where, best))
''', True),
    Right("gathered_weights", LOOP, '''        w1, w2, w3 = (torch.stack([getattr(expert, n).weight for expert in self.experts])[where.flatten()] for n in ("w1", "w2", "w3"))
        twice = x.repeat_interleave(TOP, 0)[..., None]
        y = torch.bmm(w2, F.silu(torch.bmm(w1, twice)) * torch.bmm(w3, twice)).view(-1, TOP, shape[-1])
        result = (y * best[..., None]).sum(1)
''', True),
    Right("sorted_dispatch", LOOP, '''        order = where.flatten().argsort(stable=True)
        sizes = torch.bincount(where.flatten(), minlength=EXPERTS).tolist()
        parts = [expert(part) for expert, part in zip(self.experts, x[order // TOP].split(sizes))]
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        result = (torch.cat(parts)[back].view(-1, TOP, shape[-1]) * best[..., None]).sum(1)
''', True),
    Right("scatter_add", LOOP, '''        result = x.new_zeros(x.shape)
        for e, expert in enumerate(self.experts):
            rows, slots = (where == e).nonzero(as_tuple=True)
            y = expert(x[rows]) * best[rows, slots].unsqueeze(1)
            result = result.scatter_add(0, rows[:, None].expand_as(y), y)
'''),
    Right("checkpointed_experts", "expert(x[rows])", "torch.utils.checkpoint.checkpoint(expert, x[rows], use_reentrant=False)"),
    Right("experts_backwards", "for e, expert in enumerate(self.experts):", "for e, expert in reversed(list(enumerate(self.experts))):"),
    Right("balance_by_products", "EXPERTS * torch.dot(share, importance)", "(EXPERTS / tokens) * (probs @ share).sum()"),
    Right("counts_by_comparison", "torch.bincount(where.flatten(), minlength=EXPERTS).to(probs)", "(where[..., None] == torch.arange(EXPERTS, device=where.device)).sum((0, 1)).to(probs)"),
    Right("load_by_lerp", "self.load.copy_(0.95 * self.load + 0.05 * share)", "self.load.lerp_(share, 0.05)"),
    Right("expert_gate_and_up_fused", '''        self.w1 = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.w3 = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.w2 = nn.Linear(HIDDEN, WIDTH, bias=False)
        self.act = nn.SiLU()

    def forward(self, x):
        inner = self.act(self.w1(x))
        return self.w2(inner * self.w3(x))
''', '''        self.w13 = nn.Linear(WIDTH, 2 * HIDDEN, bias=False)
        self.w2 = nn.Linear(HIDDEN, WIDTH, bias=False)

    def forward(self, x):
        a, b = self.w13(x).tensor_split(2, dim=-1)
        return self.w2(F.silu(a) * b)
''', True, {**NAMES, **{f"blocks.{i}.moe.experts.{e}.w13.weight": f"cat(blocks.{i}.moe.experts.{e}.w1.weight, blocks.{i}.moe.experts.{e}.w3.weight)" for i in range(LAYERS) for e in range(EXPERTS)}}),
    Right("qkv_split", '''        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.ln_2 = nn.LayerNorm(WIDTH)
        self.moe = Moe(index)

    def forward(self, x):
        q, k, v = self.qkv(self.ln_1(x)).split(WIDTH, -1)
''', '''        self.q = nn.Linear(WIDTH, WIDTH)
        self.kv = nn.Linear(WIDTH, 2 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.ln_2 = nn.LayerNorm(WIDTH)
        self.moe = Moe(index)

    def forward(self, x):
        y = self.ln_1(x)
        q, (k, v) = self.q(y), self.kv(y).chunk(2, -1)
''', True, {**{k: v for k, v in NAMES.items() if "qkv" not in k}, **{f"blocks.{i}.{n}.{p}": f"blocks.{i}.attn.qkv.{p}[{s}]" for i in range(LAYERS) for n, s in (("q", ":32"), ("kv", "32:")) for p in ("weight", "bias")}}),
]
