"""An encoder-decoder in the manner of T5: bucketed relative positions shared by the layers, no scaling, gated GELU, RMSNorm, cross attention under a padding mask, tied head."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..ports.kinds import Fault, Right


class T5LayerNorm(nn.Module):
    def __init__(self, d_model, eps=1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.variance_epsilon = eps

    def forward(self, hidden_states):
        variance = hidden_states.pow(2).mean(-1, keepdim=True)
        return self.weight * (hidden_states * torch.rsqrt(variance + self.variance_epsilon))


class T5DenseGated(nn.Module):
    def __init__(self, d_model, d_ff):
        super().__init__()
        self.wi_0 = nn.Linear(d_model, d_ff, bias=False)
        self.wi_1 = nn.Linear(d_model, d_ff, bias=False)
        self.wo = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x):
        return self.wo(F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x))


class T5Attention(nn.Module):
    def __init__(self, d_model=40, d_kv=6, num_heads=4, bidirectional=True, has_bias=False, num_buckets=8, max_distance=12):
        super().__init__()
        self.n_heads, self.d_kv, self.bidirectional = num_heads, d_kv, bidirectional
        self.num_buckets, self.max_distance = num_buckets, max_distance
        inner = num_heads * d_kv
        self.q = nn.Linear(d_model, inner, bias=False)
        self.k = nn.Linear(d_model, inner, bias=False)
        self.v = nn.Linear(d_model, inner, bias=False)
        self.o = nn.Linear(inner, d_model, bias=False)
        if has_bias:
            self.relative_attention_bias = nn.Embedding(num_buckets, num_heads)

    def bucket(self, relative_position):
        num_buckets = self.num_buckets
        relative_buckets = 0
        if self.bidirectional:
            num_buckets //= 2
            relative_buckets = (relative_position > 0).to(torch.long) * num_buckets
            relative_position = torch.abs(relative_position)
        else:
            relative_position = -torch.min(relative_position, torch.zeros_like(relative_position))
        max_exact = num_buckets // 2
        is_small = relative_position < max_exact
        large = max_exact + (
            torch.log(relative_position.clamp(min=1).double() / max_exact) / math.log(self.max_distance / max_exact) * (num_buckets - max_exact)
        ).to(torch.long)
        large = torch.min(large, torch.full_like(large, num_buckets - 1))
        return relative_buckets + torch.where(is_small, relative_position, large)

    def compute_bias(self, query_length, key_length, device):
        context_position = torch.arange(query_length, device=device)[:, None]
        memory_position = torch.arange(key_length, device=device)[None, :]
        values = self.relative_attention_bias(self.bucket(memory_position - context_position))
        return values.permute(2, 0, 1).unsqueeze(0)

    def forward(self, hidden_states, mask=None, key_value_states=None, position_bias=None):
        batch, length = hidden_states.shape[:2]
        states = hidden_states if key_value_states is None else key_value_states

        def shape(x):
            return x.view(batch, -1, self.n_heads, self.d_kv).transpose(1, 2)

        query, key, value = shape(self.q(hidden_states)), shape(self.k(states)), shape(self.v(states))
        scores = torch.matmul(query, key.transpose(3, 2))
        if position_bias is None and hasattr(self, "relative_attention_bias"):
            position_bias = self.compute_bias(length, states.shape[1], hidden_states.device)
        if position_bias is not None:
            scores = scores + position_bias
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        weights = F.softmax(scores, dim=-1)
        output = torch.matmul(weights, value).transpose(1, 2).contiguous().view(batch, length, -1)
        return self.o(output), position_bias


class T5Block(nn.Module):
    def __init__(self, is_decoder, has_bias):
        super().__init__()
        self.is_decoder = is_decoder
        self.attn_norm = T5LayerNorm(40)
        self.attn = T5Attention(bidirectional=not is_decoder, has_bias=has_bias)
        if is_decoder:
            self.cross_norm = T5LayerNorm(40)
            self.cross = T5Attention()
        self.ff_norm = T5LayerNorm(40)
        self.ff = T5DenseGated(40, 56)

    def forward(self, hidden_states, mask, position_bias=None, encoder_states=None, encoder_mask=None):
        attended, position_bias = self.attn(self.attn_norm(hidden_states), mask=mask, position_bias=position_bias)
        hidden_states = hidden_states + attended
        if self.is_decoder:
            attended, _ = self.cross(self.cross_norm(hidden_states), mask=encoder_mask, key_value_states=encoder_states)
            hidden_states = hidden_states + attended
        hidden_states = hidden_states + self.ff(self.ff_norm(hidden_states))
        return hidden_states, position_bias


class T5Stack(nn.Module):
    def __init__(self, is_decoder):
        super().__init__()
        self.block = nn.ModuleList([T5Block(is_decoder, has_bias=i == 0) for i in range(2)])
        self.final_layer_norm = T5LayerNorm(40)

    def forward(self, hidden_states, mask, encoder_states=None, encoder_mask=None):
        position_bias = None
        for block in self.block:
            hidden_states, position_bias = block(hidden_states, mask, position_bias, encoder_states, encoder_mask)
        return self.final_layer_norm(hidden_states)


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared = nn.Embedding(53, 40)
        self.encoder = T5Stack(is_decoder=False)
        self.decoder = T5Stack(is_decoder=True)
        self.lm_head = nn.Linear(40, 53, bias=False)
        self.lm_head.weight = self.shared.weight
        for name, p in self.named_parameters():
            if "norm" in name:
                nn.init.normal_(p, 1.0, 0.2)

    def forward(self, input_ids, attention_mask, labels):
        decoder_input_ids = labels.new_zeros(labels.shape)
        decoder_input_ids[:, 1:] = labels[:, :-1].clone()
        decoder_input_ids[:, 0] = 0
        key_mask = attention_mask[:, None, None, :].bool()
        memory = self.encoder(self.shared(input_ids), key_mask)
        length = labels.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=labels.device).tril()[None, None]
        states = self.decoder(self.shared(decoder_input_ids), causal, memory, key_mask)
        return self.lm_head(states * 40**-0.5), memory


def inputs():
    g = torch.Generator().manual_seed(13)
    mask = (torch.arange(11) < torch.tensor([[11], [7]])).long()
    ids = torch.randint(2, 53, (2, 11), generator=g) * mask
    return ids, mask, torch.randint(2, 53, (2, 8), generator=g)


# The port ------------------------------------------------------------------------------------


class RMS(nn.Module):
    def __init__(self, width, eps=1e-6):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        power = torch.mean(x * x, dim=-1, keepdim=True)
        return x / torch.sqrt(power + self.eps) * self.weight


class GatedGelu(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.wi_0 = nn.Linear(width, hidden, bias=False)
        self.wi_1 = nn.Linear(width, hidden, bias=False)
        self.wo = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        u = self.wi_0(x)
        gate = 0.5 * u * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))
        return self.wo(gate * self.wi_1(x))


def buckets_of(distance, both_sides, total=8, furthest=12):
    """distance: key position minus query position, a long tensor"""
    offset = torch.zeros_like(distance)
    if both_sides:
        total = total // 2
        offset = total * (distance > 0)
        distance = distance.abs()
    else:
        distance = (-distance).clamp(min=0)
    exact = total // 2
    far = torch.log(distance.clamp(min=exact).double() / exact) / math.log(furthest / exact) * (total - exact)
    far = (exact + far.long()).clamp(max=total - 1)
    return offset + torch.where(distance < exact, distance, far)


class Attention(nn.Module):
    def __init__(self, both_sides=True, with_bias=False, width=40, heads=4, size=6):
        super().__init__()
        self.both_sides, self.heads, self.size = both_sides, heads, size
        self.q = nn.Linear(width, heads * size, bias=False)
        self.k = nn.Linear(width, heads * size, bias=False)
        self.v = nn.Linear(width, heads * size, bias=False)
        self.o = nn.Linear(heads * size, width, bias=False)
        self.relative_attention_bias = nn.Embedding(8, heads) if with_bias else None

    def forward(self, x, mask=None, key_value_states=None, position_bias=None):
        y = x if key_value_states is None else key_value_states
        q, k, v = self.q(x), self.k(y), self.v(y)
        q, k, v = (z.unflatten(-1, (self.heads, self.size)) for z in (q, k, v))
        if position_bias is None and self.relative_attention_bias is not None:
            i = torch.arange(x.shape[1], device=x.device)
            j = torch.arange(y.shape[1], device=x.device)
            table = self.relative_attention_bias(buckets_of(j[None] - i[:, None], self.both_sides))
            position_bias = table.movedim(-1, 0)[None]
        scores = torch.einsum("bihc,bjhc->bhij", q, k)
        if position_bias is not None:
            scores = scores + position_bias
        if mask is not None:
            scores = torch.where(mask, scores, float("-inf"))
        weights = torch.softmax(scores, -1)
        return self.o(torch.einsum("bhij,bjhc->bihc", weights, v).flatten(2)), position_bias


class Block(nn.Module):
    def __init__(self, decoder, first):
        super().__init__()
        self.attn_norm = RMS(40)
        self.attn = Attention(both_sides=not decoder, with_bias=first)
        self.cross_norm = RMS(40) if decoder else None
        self.cross = Attention() if decoder else None
        self.ff_norm = RMS(40)
        self.ff = GatedGelu(40, 56)

    def forward(self, x, mask, position_bias=None, memory=None, memory_mask=None):
        a, position_bias = self.attn(self.attn_norm(x), mask=mask, position_bias=position_bias)
        x = x + a
        if self.cross is not None:
            x = x + self.cross(self.cross_norm(x), mask=memory_mask, key_value_states=memory)[0]
        return x + self.ff(self.ff_norm(x)), position_bias


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.ModuleList([Block(False, True), Block(False, False)])
        self.final_layer_norm = RMS(40, eps=1e-6)

    def forward(self, x, mask):
        x, bias = self.block[0](x, mask)
        x, _ = self.block[1](x, mask, bias)
        return self.final_layer_norm(x)


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.ModuleList([Block(True, True), Block(True, False)])
        self.final_layer_norm = RMS(40)

    def forward(self, y, causal, memory, memory_mask):
        y, bias = self.block[0](y, causal, None, memory, memory_mask)
        y, _ = self.block[1](y, causal, bias, memory, memory_mask)
        return self.final_layer_norm(y)


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared = nn.Embedding(53, 40)
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.lm_head = nn.Linear(40, 53, bias=False)
        self.lm_head.weight = self.shared.weight

    def forward(self, ids, attention_mask, labels):
        shifted = F.pad(labels, (1, 0), value=0)[:, :-1]
        keys = (attention_mask != 0)[:, None, None]
        memory = self.encoder(self.shared(ids), keys)
        i = torch.arange(shifted.shape[1], device=ids.device)
        causal = i[:, None] >= i
        y = self.decoder(self.shared(shifted), causal[None, None], memory, keys)
        return self.lm_head(y / math.sqrt(40)), memory


NAMES = {}

FAULTS = [
    Fault("exact_gelu", "gate = 0.5 * u * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))", "gate = F.gelu(u)", "encoder.block.0.ff", "output", "approximate"),
    Fault("sigmoid_gelu", "gate = 0.5 * u * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))", "gate = u * torch.sigmoid(1.702 * u)", "encoder.block.0.ff", "output", "approximate"),
    Fault("relu_gate", "gate = 0.5 * u * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))", "gate = F.relu(u)", "encoder.block.0.ff", "output", "activation"),
    Fault("eps_of_encoder_norm", "self.final_layer_norm = RMS(40, eps=1e-6)", "self.final_layer_norm = RMS(40, eps=1e-5)", "encoder.final_layer_norm", "output", "eps"),
    Fault("mean_subtracted", "power = torch.mean(x * x, dim=-1, keepdim=True)", "power = torch.var(x, dim=-1, keepdim=True, unbiased=False)", "encoder.block.0.attn_norm", "output", "variance"),
    Fault("scores_scaled", 'scores = torch.einsum("bihc,bjhc->bhij", q, k)', 'scores = torch.einsum("bihc,bjhc->bhij", q, k) * self.size**-0.5', "encoder.block.0.attn", "output", "scale"),
    Fault("query_minus_key", "buckets_of(j[None] - i[:, None], self.both_sides)", "buckets_of(i[:, None] - j[None], self.both_sides)", "encoder.block.0.attn", "output", "transposed"),
    Fault("decoder_looks_both_ways", "Attention(both_sides=not decoder, with_bias=first)", "Attention(with_bias=first)", "decoder.block.0.attn", "output", "operand"),
    Fault("furthest_distance", "total=8, furthest=12", "total=8, furthest=16", "encoder.block.0.attn", "output", "count"),
    Fault("bias_in_first_block_only", "y, _ = self.block[1](y, causal, bias, memory, memory_mask)", "y, _ = self.block[1](y, causal, None, memory, memory_mask)", "decoder", "output", "missing"),
    Fault("bias_detached_for_second_block", "x, _ = self.block[1](x, mask, bias)", "x, _ = self.block[1](x, mask, bias.detach())", "encoder", "gradient", "detached"),
    Fault("memory_detached_in_second_block", "y, _ = self.block[1](y, causal, bias, memory, memory_mask)", "y, _ = self.block[1](y, causal, bias, memory.detach(), memory_mask)", "decoder", "gradient", "detached"),
    Fault("padding_seen_by_decoder", "causal[None, None], memory, keys)", "causal[None, None], memory, torch.ones_like(keys))", "", "output", "mask"),
    Fault("own_position_hidden", "causal = i[:, None] >= i", "causal = (i[:, None] > i) | (i == 0)", "", "output", "mask"),
    Fault("starts_with_end_token", "F.pad(labels, (1, 0), value=0)", "F.pad(labels, (1, 0), value=1)", "", "output", "initial"),
    Fault("head_not_tied", "self.lm_head.weight = self.shared.weight", "self.lm_head.weight = nn.Parameter(self.shared.weight.detach().clone())", "", "gradient", "untied"),
    Fault("head_not_rescaled", "self.lm_head(y / math.sqrt(40))", "self.lm_head(y)", "", "output", "scale"),
    Fault("heads_flattened_in_wrong_order", '"bhij,bjhc->bihc", weights, v).flatten(2)', '"bhij,bjhc->bich", weights, v).flatten(2)', "encoder.block.0.attn", "output", "heads"),
    Fault("cross_query_not_normed", "self.cross(self.cross_norm(x), mask", "self.cross(x, mask", "decoder.block.0", "output", "missing"),
    Fault("coefficient_of_gelu_rounded", "0.044715", "0.0447", "encoder.block.0.ff", "output", "approximate"),
    Fault("encoder_embedding_frozen", "memory = self.encoder(self.shared(ids), keys)", "memory = self.encoder(self.shared(ids).detach(), keys)", "", "gradient", "detached"),
]

RIGHT = [
    Right("attention_sdpa", """        scores = torch.einsum("bihc,bjhc->bhij", q, k)
        if position_bias is not None:
            scores = scores + position_bias
        if mask is not None:
            scores = torch.where(mask, scores, float("-inf"))
        weights = torch.softmax(scores, -1)
        return self.o(torch.einsum("bhij,bjhc->bihc", weights, v).flatten(2)), position_bias
""", """        added = torch.zeros((), dtype=x.dtype) if position_bias is None else position_bias
        if mask is not None:
            added = added.masked_fill(~mask, float("-inf"))
        added = added.expand(x.shape[0], self.heads, x.shape[1], y.shape[1])
        z = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=added, scale=1.0)
        return self.o(z.transpose(1, 2).flatten(2)), position_bias
"""),
    Right("attention_head_by_head", """        scores = torch.einsum("bihc,bjhc->bhij", q, k)
        if position_bias is not None:
            scores = scores + position_bias
        if mask is not None:
            scores = torch.where(mask, scores, float("-inf"))
        weights = torch.softmax(scores, -1)
        return self.o(torch.einsum("bhij,bjhc->bihc", weights, v).flatten(2)), position_bias
""", """        z = []
        for h in range(self.heads):
            s = q[:, :, h] @ k[:, :, h].mT
            if position_bias is not None:
                s = s + position_bias[:, h]
            if mask is not None:
                s = s.masked_fill(~mask[:, 0], torch.finfo(s.dtype).min)
            z.append(s.softmax(-1) @ v[:, :, h])
        return self.o(torch.cat(z, -1)), position_bias
"""),
    Right("bias_by_one_hot", "            table = self.relative_attention_bias(buckets_of(j[None] - i[:, None], self.both_sides))\n            position_bias = table.movedim(-1, 0)[None]\n",
          "            table = self.relative_attention_bias.weight\n            hot = F.one_hot(buckets_of(j[None] - i[:, None], self.both_sides), 8).to(table.dtype)\n            position_bias = torch.einsum(\"ijn,nh->hij\", hot, table)[None]\n", fused=True),
    Right("gelu_of_torch", "gate = 0.5 * u * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))", 'gate = nn.functional.gelu(u, approximate="tanh")'),
    Right("gelu_by_own_function", """class GatedGelu(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.wi_0 = nn.Linear(width, hidden, bias=False)
        self.wi_1 = nn.Linear(width, hidden, bias=False)
        self.wo = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        u = self.wi_0(x)
        gate = 0.5 * u * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))
""", """class TanhGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u):
        t = torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u.pow(3)))
        ctx.save_for_backward(u, t)
        return u * (1 + t) / 2

    @staticmethod
    def backward(ctx, g):
        u, t = ctx.saved_tensors
        inner = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * u * u)
        return g * ((1 + t) / 2 + u / 2 * (1 - t * t) * inner)


class GatedGelu(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.wi_0 = nn.Linear(width, hidden, bias=False)
        self.wi_1 = nn.Linear(width, hidden, bias=False)
        self.wo = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        u = self.wi_0(x)
        gate = TanhGelu.apply(u)
"""),
    Right("gates_in_one_matrix", """        self.wi_0 = nn.Linear(width, hidden, bias=False)
        self.wi_1 = nn.Linear(width, hidden, bias=False)
        self.wo = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        u = self.wi_0(x)
        gate = 0.5 * u * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))
        return self.wo(gate * self.wi_1(x))
""", """        self.wi = nn.Linear(width, 2 * hidden, bias=False)
        self.wo = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        u, linear = self.wi(x).tensor_split(2, -1)
        return self.wo(F.gelu(u, approximate="tanh") * linear)
""", fused=True, names={f"{p}.ff.wi.weight": f"cat({p}.ff.wi_0.weight, {p}.ff.wi_1.weight)" for p in ("encoder.block.0", "encoder.block.1", "decoder.block.0", "decoder.block.1")}),
    Right("keys_and_values_in_one_matrix", """        self.k = nn.Linear(width, heads * size, bias=False)
        self.v = nn.Linear(width, heads * size, bias=False)
        self.o = nn.Linear(heads * size, width, bias=False)
        self.relative_attention_bias = nn.Embedding(8, heads) if with_bias else None

    def forward(self, x, mask=None, key_value_states=None, position_bias=None):
        y = x if key_value_states is None else key_value_states
        q, k, v = self.q(x), self.k(y), self.v(y)
""", """        self.kv = nn.Linear(width, 2 * heads * size, bias=False)
        self.o = nn.Linear(heads * size, width, bias=False)
        self.relative_attention_bias = nn.Embedding(8, heads) if with_bias else None

    def forward(self, x, mask=None, key_value_states=None, position_bias=None):
        y = x if key_value_states is None else key_value_states
        q, (k, v) = self.q(x), self.kv(y).chunk(2, -1)
""", fused=True, names={f"{p}.kv.weight": f"cat({p}.k.weight, {p}.v.weight)" for p in
                        ("encoder.block.0.attn", "encoder.block.1.attn", "decoder.block.0.attn", "decoder.block.1.attn", "decoder.block.0.cross", "decoder.block.1.cross")}),
    Right("head_by_the_table_itself", "return self.lm_head(y / math.sqrt(40)), memory", "return torch.einsum(\"btd,vd->btv\", y, self.shared.weight) * 40**-0.5, memory", fused=True),
    Right("checkpointed_reentrant", "        x, bias = self.block[0](x, mask)\n        x, _ = self.block[1](x, mask, bias)\n", """        from torch.utils.checkpoint import checkpoint

        x, bias = self.block[0](x, mask)
        x, _ = checkpoint(self.block[1], x, mask, bias, use_reentrant=True)
"""),
]
