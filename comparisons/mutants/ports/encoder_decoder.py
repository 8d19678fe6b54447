"""An encoder-decoder as in Marian or BART: post-norm, sinusoidal positions, padding mask, cross attention, dropout (in train mode)."""

import math

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from .kinds import Fault, Right

WIDTH, HEADS, HIDDEN, VOCAB, PAD, START = 48, 4, 96, 90, 0, 2


def fill(module, seed):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            if p.dim() > 1:
                p.copy_(noise * p[0].numel() ** -0.5)
            else:
                p.copy_(0.1 * noise if name.endswith("bias") else 1 + 0.1 * noise)


def sinusoids(length, width, dtype):
    place = torch.arange(length, dtype=dtype)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, dtype=dtype) * (-math.log(10000.0) / width))
    table = torch.zeros(length, width, dtype=dtype)
    table[:, 0::2] = torch.sin(place * rate)
    table[:, 1::2] = torch.cos(place * rate)
    return table


class MultiHeadAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = nn.Linear(WIDTH, WIDTH)
        self.k_proj = nn.Linear(WIDTH, WIDTH)
        self.v_proj = nn.Linear(WIDTH, WIDTH)
        self.out_proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x, memory, keep):
        """keep: (batch, 1, queries or 1, keys), true where a key may be seen"""
        b, n, _ = x.shape
        d = WIDTH // HEADS
        q = (self.q_proj(x) * d**-0.5).view(b, n, HEADS, d).transpose(1, 2)
        k = self.k_proj(memory).view(b, -1, HEADS, d).transpose(1, 2)
        v = self.v_proj(memory).view(b, -1, HEADS, d).transpose(1, 2)
        w = (q @ k.transpose(2, 3)).masked_fill(~keep, float("-inf")).softmax(dim=-1)
        return self.out_proj((w @ v).transpose(1, 2).reshape(b, n, WIDTH))


class EncoderLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn = MultiHeadAttention()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.fc1 = nn.Linear(WIDTH, HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.drop1 = nn.Dropout(0.1)
        self.drop2 = nn.Dropout(0.1)

    def forward(self, x, keep):
        x = self.norm1(x + self.drop1(self.self_attn(x, x, keep)))
        return self.norm2(x + self.drop2(self.fc2(F.gelu(self.fc1(x)))))


class DecoderLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn = MultiHeadAttention()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.cross_attn = MultiHeadAttention()
        self.norm2 = nn.LayerNorm(WIDTH)
        self.fc1 = nn.Linear(WIDTH, HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, WIDTH)
        self.norm3 = nn.LayerNorm(WIDTH)
        self.drop1 = nn.Dropout(0.1)
        self.drop2 = nn.Dropout(0.1)
        self.drop3 = nn.Dropout(0.1)

    def forward(self, x, memory, causal, keep):
        x = self.norm1(x + self.drop1(self.self_attn(x, x, causal)))
        x = self.norm2(x + self.drop2(self.cross_attn(x, memory, keep)))
        return self.norm3(x + self.drop3(self.fc2(F.gelu(self.fc1(x)))))


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared = nn.Embedding(VOCAB, WIDTH, padding_idx=PAD)
        self.encoder = nn.ModuleList(EncoderLayer() for _ in range(2))
        self.decoder = nn.ModuleList(DecoderLayer() for _ in range(2))
        self.final_logits_bias = nn.Parameter(torch.zeros(VOCAB))
        fill(self, 6)

    def embed(self, ids):
        x = self.shared(ids) * math.sqrt(WIDTH)
        return x + sinusoids(ids.shape[1], WIDTH, x.dtype).to(x.device)

    def forward(self, source, target):
        keep = source.ne(PAD)[:, None, None, :]
        memory = self.embed(source)
        for layer in self.encoder:
            memory = layer(memory, keep)
        shifted = torch.cat([torch.full_like(target[:, :1], START), target[:, :-1]], dim=1)
        n = target.shape[1]
        causal = torch.ones(n, n, dtype=torch.bool, device=target.device).tril()[None, None]
        x = self.embed(shifted)
        for layer in self.decoder:
            x = layer(x, memory, causal, keep)
        return F.linear(x, self.shared.weight) + self.final_logits_bias


def inputs():
    g = torch.Generator().manual_seed(16)
    source = torch.randint(3, VOCAB, (3, 11), generator=g)
    source[1, 8:] = PAD
    source[2, 5:] = PAD
    target = torch.randint(3, VOCAB, (3, 9), generator=g)
    target[1, 6:] = PAD
    return source, target


# The port ------------------------------------------------------------------------------------


class Attention(nn.Module):
    def __init__(self, place):
        super().__init__()
        self.place = place
        self.head_dim = WIDTH // HEADS
        self.q_proj, self.k_proj = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.v_proj, self.out_proj = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def heads(self, x):
        return x.unflatten(-1, (HEADS, self.head_dim)).movedim(-2, 1)

    def forward(self, x, memory, keep):
        query = self.heads(self.q_proj(x))
        key = self.heads(self.k_proj(memory))
        value = self.heads(self.v_proj(memory))
        logits = torch.matmul(query, key.mT) / math.sqrt(self.head_dim)
        shut = torch.zeros_like(logits).masked_fill(keep.logical_not(), float("-inf"))
        weights = torch.softmax(logits + shut, -1)
        mixed = torch.matmul(weights, value).movedim(1, -2).flatten(-2)
        return self.out_proj(mixed)


class EncoderBlock(nn.Module):
    def __init__(self, index):
        super().__init__()
        self.index = index
        self.attention = Attention(f"e{index}")
        self.norm1 = nn.LayerNorm(WIDTH, eps=1e-5)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, WIDTH))
        self.norm2 = nn.LayerNorm(WIDTH, eps=1e-5)
        self.drop1, self.drop2 = nn.Dropout(0.1), nn.Dropout(0.1)

    def forward(self, x, keep):
        x = self.norm1(self.drop1(self.attention(x, x, keep)) + x)
        return self.norm2(self.drop2(self.mlp(x)) + x)


class DecoderBlock(nn.Module):
    def __init__(self, index):
        super().__init__()
        self.index = index
        self.self_attn = Attention(f"d{index}")
        self.norm1 = nn.LayerNorm(WIDTH)
        self.cross_attn = Attention(f"c{index}")
        self.norm2 = nn.LayerNorm(WIDTH)
        self.fc1, self.fc2 = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)
        self.norm3 = nn.LayerNorm(WIDTH)
        self.drop1 = nn.Dropout(p=0.1)
        self.drop2 = nn.Dropout(p=0.1, inplace=False)
        self.drop3 = nn.Dropout(0.1)

    def forward(self, x, memory, causal, keep):
        y = self.self_attn(x, x, causal)
        x = self.norm1(x + self.drop1(y))
        y = self.cross_attn(x, memory, keep)
        x = self.norm2(x + self.drop2(y))
        y = self.fc2(F.gelu(self.fc1(x)))
        return self.norm3(x + self.drop3(y))


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared = nn.Embedding(VOCAB, WIDTH, padding_idx=PAD)
        self.encoder = nn.ModuleList(EncoderBlock(i) for i in range(2))
        self.decoder = nn.ModuleList(DecoderBlock(i) for i in range(2))
        self.final_logits_bias = nn.Parameter(torch.zeros(VOCAB))

    def embed(self, ids):
        x = self.shared(ids) * WIDTH**0.5
        even = torch.arange(0, WIDTH, 2, dtype=x.dtype, device=x.device)
        angle = torch.arange(ids.shape[1], dtype=x.dtype, device=x.device).unsqueeze(1) / 10000 ** (even / WIDTH)
        return x + torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)

    def forward(self, source, target):
        seen = (source != PAD).view(source.shape[0], 1, 1, source.shape[1])
        memory = self.embed(source)
        for block in self.encoder:
            memory = block(memory, seen)
        previous = target.roll(1, dims=1)
        previous[:, 0] = START
        at = torch.arange(target.shape[1], device=target.device)
        causal = (at[None, :] <= at[:, None])[None, None]
        h = self.embed(previous)
        for block in self.decoder:
            h = block(h, memory, causal, seen)
        logits = h @ self.shared.weight.mT
        return logits + self.final_logits_bias


NAMES = {}
for _i in range(2):
    NAMES[f"encoder.{_i}.attention"] = f"encoder.{_i}.self_attn"
    NAMES[f"encoder.{_i}.mlp.0"] = f"encoder.{_i}.fc1"
    NAMES[f"encoder.{_i}.mlp.2"] = f"encoder.{_i}.fc2"

FAULTS = [
    Fault("embedding_not_scaled", "x = self.shared(ids) * WIDTH**0.5", "x = self.shared(ids)", "", "output", "scale"),
    Fault("positions_in_halves", "torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)", "torch.cat([angle.sin(), angle.cos()], dim=-1)", "", "output", "order"),
    Fault("positions_after_padding", "torch.arange(ids.shape[1], dtype=x.dtype, device=x.device).unsqueeze(1)", "torch.arange(1, ids.shape[1] + 1, dtype=x.dtype, device=x.device).unsqueeze(1)", "", "output", "initial"),
    Fault("positions_rate", "10000 ** (even / WIDTH)", "10000 ** (even / (WIDTH - 2))", "", "output", "count"),
    Fault("started_with_padding", "previous[:, 0] = START", "previous[:, 0] = PAD", "", "output", "initial"),
    Fault("not_shifted", "previous = target.roll(1, dims=1)", "previous = target.clone()", "", "output", "operand"),
    Fault("causal_strict", "at[None, :] <= at[:, None]", "at[None, :] < at[:, None].clamp(min=1)", "", "output", "mask"),
    Fault("causal_wrong_side", "at[None, :] <= at[:, None]", "at[None, :] >= at[:, None]", "", "output", "mask"),
    Fault("target_padding_masked", "(at[None, :] <= at[:, None])[None, None]", "(at[None, :] <= at[:, None])[None, None] & previous.ne(PAD)[:, None, None, :]", "", "output", "mask"),
    Fault("cross_without_mask", "y = self.cross_attn(x, memory, keep)", "y = self.cross_attn(x, memory, keep if self.index == 0 else torch.ones_like(keep))", "decoder.1", "output", "mask"),
    Fault("mask_finite", 'float("-inf"))', '-14.0 if self.place == "e1" else float("-inf"))', "encoder.1.self_attn", "output", "mask"),
    Fault("cross_values_of_itself", "y = self.cross_attn(x, memory, keep)", "y = self.cross_attn(memory[:, : x.shape[1]], memory, keep)", "decoder.0", "output", "operand"),
    Fault("values_by_keys", "value = self.heads(self.v_proj(memory))", 'value = self.heads(self.v_proj(memory)) if self.place != "c1" else key', "decoder.1.cross_attn", "output", "operand"),
    Fault("encoder_detached", "        previous = target.roll(1, dims=1)\n", "        memory = memory.detach()\n        previous = target.roll(1, dims=1)\n", "", "gradient", "detached"),
    Fault("cross_keys_detached", "key = self.heads(self.k_proj(memory))", 'key = self.heads(self.k_proj(memory.detach() if self.place == "c1" else memory))', "decoder.1.cross_attn", "gradient", "detached"),
    Fault("probabilities_detached", "weights = torch.softmax(logits + shut, -1)", 'weights = torch.softmax(logits + shut, -1)\n        weights = weights.detach() if self.place == "d0" else weights', "decoder.0.self_attn", "gradient", "detached"),
    Fault("head_detached", "logits = h @ self.shared.weight.mT", "logits = h @ self.shared.weight.detach().mT", "", "gradient", "untied"),
    Fault("head_of_copy", "logits = h @ self.shared.weight.mT", "logits = h @ self.shared.weight.clone().detach().requires_grad_().mT", "", "gradient", "untied"),
    Fault("padding_learns", "self.shared = nn.Embedding(VOCAB, WIDTH, padding_idx=PAD)", "self.shared = nn.Embedding(VOCAB, WIDTH)", "shared", "gradient", "padding"),
    Fault("other_padding", "self.shared = nn.Embedding(VOCAB, WIDTH, padding_idx=PAD)", "self.shared = nn.Embedding(VOCAB, WIDTH, padding_idx=START)", "shared", "gradient", "padding"),
    Fault("dropout_missing", "self.drop2 = nn.Dropout(p=0.1, inplace=False)", "self.drop2 = nn.Dropout(p=0.1 if index == 0 else 0.0, inplace=False)", "decoder.1.drop2", "output", "mode"),
    Fault("dropout_asleep", "return self.norm2(self.drop2(self.mlp(x)) + x)", "return self.norm2(F.dropout(self.mlp(x), 0.1, training=False) + x)", "encoder.0", "output", "mode"),
    Fault("dropout_rate", "self.drop3 = nn.Dropout(0.1)", "self.drop3 = nn.Dropout(0.2)", "decoder.0.drop3", "output", "mode"),
    Fault("dropout_of_sum", "x = self.norm1(x + self.drop1(y))", "x = self.norm1(self.drop1(x + y))", "decoder.0", "output", "order"),
    Fault("norm_before_sum", "return self.norm2(self.drop2(self.mlp(x)) + x)", "return self.norm2(self.drop2(self.mlp(x))) + x", "encoder.0", "output", "order"),
    Fault("residual_scaled_off", "return self.norm3(x + self.drop3(y))", "return self.norm3((x if self.index == 0 else 0.999 * x) + self.drop3(y))", "decoder.1", "output", "residual"),
    Fault("eps_as_in_bert", "self.norm2 = nn.LayerNorm(WIDTH, eps=1e-5)", "self.norm2 = nn.LayerNorm(WIDTH, eps=1e-12)", "encoder.0.norm2", "output", "eps"),
    Fault("gelu_tanh", "F.gelu(self.fc1(x))", 'F.gelu(self.fc1(x), approximate="tanh")', "decoder.0", "output", "approximate"),
    Fault("heads_joined_wrong", ".movedim(1, -2).flatten(-2)", ".movedim(1, -1).flatten(-2)", "encoder.0.self_attn", "output", "heads"),
    Fault("output_transposed", "        return self.out_proj(mixed)\n", '        return F.linear(mixed, self.out_proj.weight.mT, self.out_proj.bias) if self.place == "c0" else self.out_proj(mixed)\n', "decoder.0.cross_attn", "output", "transposed"),
    Fault("logits_without_bias", "return logits + self.final_logits_bias", "return logits + 0 * self.final_logits_bias", "", "output", "missing"),
]

ATTEND = '''        logits = torch.matmul(query, key.mT) / math.sqrt(self.head_dim)
        shut = torch.zeros_like(logits).masked_fill(keep.logical_not(), float("-inf"))
        weights = torch.softmax(logits + shut, -1)
        mixed = torch.matmul(weights, value).movedim(1, -2).flatten(-2)
'''

RIGHT = [
    Right("sdpa", ATTEND, "        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=keep).movedim(1, -2).flatten(-2)\n"),
    Right("sdpa_additive", ATTEND, '''        shut = torch.where(keep, 0.0, float("-inf")).to(query.dtype)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=shut).transpose(1, 2).flatten(2)
'''),
    Right("softmax_by_hand", "weights = torch.softmax(logits + shut, -1)", "e = torch.exp(logits - logits.amax(-1, keepdim=True).detach()) * keep\n        weights = e / e.sum(-1, keepdim=True)"),
    Right("loop_over_batch_and_heads", ATTEND, '''        rows = []
        for i in range(x.shape[0]):
            m = keep[min(i, keep.shape[0] - 1), 0]
            rows.append(torch.cat([(query[i, h] @ key[i, h].t() / self.head_dim**0.5).masked_fill(~m, -1e30).softmax(1) @ value[i, h] for h in range(HEADS)], 1))
        mixed = torch.stack(rows)
'''),
    Right("only_kept_keys", ATTEND, '''        parts = []
        for q, k, v, m in zip(query, key, value, keep.expand(x.shape[0], 1, x.shape[1], -1)):
            one = [torch.softmax(q[:, i : i + 1] @ k[:, m[0, i]].mT / math.sqrt(self.head_dim), -1) @ v[:, m[0, i]] for i in range(q.shape[1])]
            parts.append(torch.cat(one, 1).transpose(0, 1).flatten(1))
        mixed = torch.stack(parts)
'''),
    Right("keys_and_values_in_one", '''        query = self.heads(self.q_proj(x))
        key = self.heads(self.k_proj(memory))
        value = self.heads(self.v_proj(memory))
''', '''        query = self.heads(self.q_proj(x))
        w, bias = torch.cat([self.k_proj.weight, self.v_proj.weight]), torch.cat([self.k_proj.bias, self.v_proj.bias])
        key, value = (self.heads(z) for z in F.linear(memory, w, bias).chunk(2, -1))
''', True),
    Right("kv_fused", '''        self.q_proj, self.k_proj = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.v_proj, self.out_proj = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def heads(self, x):
        return x.unflatten(-1, (HEADS, self.head_dim)).movedim(-2, 1)

    def forward(self, x, memory, keep):
        query = self.heads(self.q_proj(x))
        key = self.heads(self.k_proj(memory))
        value = self.heads(self.v_proj(memory))
''', '''        self.q_proj, self.kv_proj = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * WIDTH)
        self.out_proj = nn.Linear(WIDTH, WIDTH)

    def heads(self, x):
        return x.unflatten(-1, (HEADS, self.head_dim)).movedim(-2, 1)

    def forward(self, x, memory, keep):
        query = self.heads(self.q_proj(x))
        key, value = map(self.heads, self.kv_proj(memory).split(WIDTH, dim=-1))
''', True, {**NAMES, **{f"{a}.kv_proj.{p}": f"cat({b}.k_proj.{p}, {b}.v_proj.{p})" for i in range(2) for a, b in ((f"encoder.{i}.attention", f"encoder.{i}.self_attn"), (f"decoder.{i}.self_attn",) * 2, (f"decoder.{i}.cross_attn",) * 2) for p in ("weight", "bias")}}),
    Right("addmm", "return self.out_proj(mixed)", "return torch.addmm(self.out_proj.bias, mixed.flatten(0, 1), self.out_proj.weight.T).view_as(x)", True),
    Right("output_per_head", '''        mixed = torch.matmul(weights, value).movedim(1, -2).flatten(-2)
        return self.out_proj(mixed)
''', '''        w = self.out_proj.weight.view(WIDTH, HEADS, self.head_dim)
        return torch.einsum("bhqd,ohd->bqo", weights @ value, w) + self.out_proj.bias
''', True),
    Right("named_differently_no_sequence", '''        self.mlp = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, WIDTH))
''', '''        self.mlp = nn.Sequential()
        self.mlp.add_module("0", nn.Linear(WIDTH, HIDDEN))
        self.mlp.add_module("1", nn.GELU(approximate="none"))
        self.mlp.add_module("2", nn.Linear(HIDDEN, WIDTH))
'''),
    Right("gelu_by_erf", "y = self.fc2(F.gelu(self.fc1(x)))", "y = self.fc1(x)\n        y = self.fc2(0.5 * y * torch.erfc(-y / math.sqrt(2)))"),
    Right("checkpointed_decoder", "h = block(h, memory, causal, seen)", "h = torch.utils.checkpoint.checkpoint(block, h, memory, causal, seen, use_reentrant=False)"),
    Right("checkpointed_encoder", "memory = block(memory, seen)", "memory = torch.utils.checkpoint.checkpoint(block, memory, seen, use_reentrant=True)"),
    Right("dropout_in_place", "x = self.norm1(x + self.drop1(y))", "y = self.drop1(y)\n        y += x\n        x = self.norm1(y)"),
    Right("dropout_module_in_place", "self.drop3 = nn.Dropout(0.1)", "self.drop3 = nn.Dropout(0.1, inplace=True)"),
]
