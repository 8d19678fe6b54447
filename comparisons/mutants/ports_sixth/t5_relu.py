"""T5 after Hugging Face (layers of sublayers, one bias handed from block to block, plain ReLU), ported with flat blocks, einsum and edges for the buckets."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from ..ports.kinds import Fault, Right


@dataclass
class T5Config:
    vocab_size: int = 41
    d_model: int = 24
    d_kv: int = 5
    d_ff: int = 32
    num_layers: int = 2
    num_heads: int = 4
    relative_attention_num_buckets: int = 8
    relative_attention_max_distance: int = 12
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    pad_token_id: int = 0
    decoder_start_token_id: int = 0


class T5LayerNorm(nn.Module):
    def __init__(self, hidden_size, eps=1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.variance_epsilon = eps

    def forward(self, hidden_states):
        variance = hidden_states.pow(2).mean(-1, keepdim=True)
        hidden_states = hidden_states * torch.rsqrt(variance + self.variance_epsilon)
        return self.weight * hidden_states


class T5DenseActDense(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.wi = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)
        self.dropout = nn.Dropout(config.dropout_rate)
        self.act = nn.ReLU()

    def forward(self, hidden_states):
        hidden_states = self.wi(hidden_states)
        hidden_states = self.act(hidden_states)
        hidden_states = self.dropout(hidden_states)
        return self.wo(hidden_states)


class T5LayerFF(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.DenseReluDense = T5DenseActDense(config)
        self.layer_norm = T5LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, hidden_states):
        forwarded_states = self.layer_norm(hidden_states)
        forwarded_states = self.DenseReluDense(forwarded_states)
        return hidden_states + self.dropout(forwarded_states)


class T5Attention(nn.Module):
    def __init__(self, config, is_decoder, has_relative_attention_bias=False):
        super().__init__()
        self.is_decoder = is_decoder
        self.has_relative_attention_bias = has_relative_attention_bias
        self.num_buckets = config.relative_attention_num_buckets
        self.max_distance = config.relative_attention_max_distance
        self.n_heads, self.key_value_proj_dim = config.num_heads, config.d_kv
        self.inner_dim = self.n_heads * self.key_value_proj_dim
        self.dropout = config.dropout_rate
        self.q = nn.Linear(config.d_model, self.inner_dim, bias=False)
        self.k = nn.Linear(config.d_model, self.inner_dim, bias=False)
        self.v = nn.Linear(config.d_model, self.inner_dim, bias=False)
        self.o = nn.Linear(self.inner_dim, config.d_model, bias=False)
        if has_relative_attention_bias:
            self.relative_attention_bias = nn.Embedding(self.num_buckets, self.n_heads)

    @staticmethod
    def _relative_position_bucket(relative_position, bidirectional=True, num_buckets=32, max_distance=128):
        relative_buckets = 0
        if bidirectional:
            num_buckets //= 2
            relative_buckets += (relative_position > 0).to(torch.long) * num_buckets
            relative_position = torch.abs(relative_position)
        else:
            relative_position = -torch.min(relative_position, torch.zeros_like(relative_position))
        max_exact = num_buckets // 2
        is_small = relative_position < max_exact
        relative_position_if_large = max_exact + (
            torch.log(relative_position.float() / max_exact) / math.log(max_distance / max_exact) * (num_buckets - max_exact)
        ).to(torch.long)
        relative_position_if_large = torch.min(relative_position_if_large, torch.full_like(relative_position_if_large, num_buckets - 1))
        relative_buckets += torch.where(is_small, relative_position, relative_position_if_large)
        return relative_buckets

    def compute_bias(self, query_length, key_length):
        context_position = torch.arange(query_length)[:, None]
        memory_position = torch.arange(key_length)[None, :]
        relative_position = memory_position - context_position
        bucket = self._relative_position_bucket(relative_position, not self.is_decoder, self.num_buckets, self.max_distance)
        return self.relative_attention_bias(bucket).permute([2, 0, 1]).unsqueeze(0)

    def forward(self, hidden_states, mask=None, key_value_states=None, position_bias=None):
        batch_size, seq_length = hidden_states.shape[:2]
        current_states = hidden_states if key_value_states is None else key_value_states
        query_states = self.q(hidden_states).view(batch_size, -1, self.n_heads, self.key_value_proj_dim).transpose(1, 2)
        key_states = self.k(current_states).view(batch_size, -1, self.n_heads, self.key_value_proj_dim).transpose(1, 2)
        value_states = self.v(current_states).view(batch_size, -1, self.n_heads, self.key_value_proj_dim).transpose(1, 2)
        scores = torch.matmul(query_states, key_states.transpose(3, 2))
        if position_bias is None:
            key_length = key_states.shape[-2]
            if not self.has_relative_attention_bias:
                position_bias = torch.zeros((1, self.n_heads, seq_length, key_length), dtype=scores.dtype)
            else:
                position_bias = self.compute_bias(seq_length, key_length)
            if mask is not None:
                position_bias = position_bias + mask
        scores = scores + position_bias
        attn_weights = F.softmax(scores, dim=-1)
        attn_weights = F.dropout(attn_weights, p=self.dropout, training=self.training)
        attn_output = torch.matmul(attn_weights, value_states)
        attn_output = attn_output.transpose(1, 2).contiguous().view(batch_size, -1, self.inner_dim)
        return self.o(attn_output), position_bias


class T5LayerSelfAttention(nn.Module):
    def __init__(self, config, is_decoder, has_relative_attention_bias):
        super().__init__()
        self.SelfAttention = T5Attention(config, is_decoder, has_relative_attention_bias)
        self.layer_norm = T5LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, hidden_states, attention_mask, position_bias):
        attention_output = self.SelfAttention(self.layer_norm(hidden_states), mask=attention_mask, position_bias=position_bias)
        return hidden_states + self.dropout(attention_output[0]), attention_output[1]


class T5LayerCrossAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.EncDecAttention = T5Attention(config, True)
        self.layer_norm = T5LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, hidden_states, key_value_states, attention_mask, position_bias):
        attention_output = self.EncDecAttention(
            self.layer_norm(hidden_states), mask=attention_mask, key_value_states=key_value_states, position_bias=position_bias
        )
        return hidden_states + self.dropout(attention_output[0]), attention_output[1]


class T5Block(nn.Module):
    def __init__(self, config, is_decoder, has_relative_attention_bias):
        super().__init__()
        self.is_decoder = is_decoder
        self.layer = nn.ModuleList([T5LayerSelfAttention(config, is_decoder, has_relative_attention_bias)])
        if is_decoder:
            self.layer.append(T5LayerCrossAttention(config))
        self.layer.append(T5LayerFF(config))

    def forward(self, hidden_states, attention_mask, position_bias=None, encoder_hidden_states=None, encoder_attention_mask=None, encoder_decoder_position_bias=None):
        hidden_states, position_bias = self.layer[0](hidden_states, attention_mask, position_bias)
        if self.is_decoder:
            hidden_states, encoder_decoder_position_bias = self.layer[1](
                hidden_states, encoder_hidden_states, encoder_attention_mask, encoder_decoder_position_bias
            )
        return self.layer[-1](hidden_states), position_bias, encoder_decoder_position_bias


class T5Stack(nn.Module):
    def __init__(self, config, embed_tokens, is_decoder):
        super().__init__()
        self.embed_tokens = embed_tokens
        self.is_decoder = is_decoder
        self.block = nn.ModuleList([T5Block(config, is_decoder, i == 0) for i in range(config.num_layers)])
        self.final_layer_norm = T5LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, input_ids, attention_mask, encoder_hidden_states=None, encoder_attention_mask=None):
        hidden_states = self.dropout(self.embed_tokens(input_ids))
        lowest = torch.finfo(hidden_states.dtype).min
        extended = attention_mask[:, None, None, :].to(hidden_states.dtype)
        if self.is_decoder:
            ids = torch.arange(input_ids.shape[1])
            extended = extended * (ids[None, :] <= ids[:, None])[None, None]
            encoder_attention_mask = (1.0 - encoder_attention_mask[:, None, None, :].to(hidden_states.dtype)) * lowest
        extended = (1.0 - extended) * lowest
        position_bias = encoder_decoder_position_bias = None
        for layer_module in self.block:
            hidden_states, position_bias, encoder_decoder_position_bias = layer_module(
                hidden_states, extended, position_bias, encoder_hidden_states, encoder_attention_mask, encoder_decoder_position_bias
            )
        return self.dropout(self.final_layer_norm(hidden_states))


class Original(nn.Module):
    def __init__(self, config=T5Config()):
        super().__init__()
        self.config = config
        self.model_dim = config.d_model
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = T5Stack(config, self.shared, is_decoder=False)
        self.decoder = T5Stack(config, self.shared, is_decoder=True)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.lm_head.weight = self.shared.weight
        g = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for name, p in self.named_parameters():
                if "layer_norm" in name:
                    p.copy_(1 + 0.2 * torch.randn(p.shape, generator=g))
                elif "relative" in name:
                    p.copy_(0.7 * torch.randn(p.shape, generator=g))
                else:
                    p.copy_(torch.randn(p.shape, generator=g) * (0.6 if "shared" in name else p.shape[-1] ** -0.5))
        self.eval()

    def forward(self, input_ids, attention_mask, labels):
        memory = self.encoder(input_ids, attention_mask)
        shifted = labels.new_zeros(labels.shape)
        shifted[..., 1:] = labels[..., :-1].clone()
        shifted[..., 0] = self.config.decoder_start_token_id
        shifted.masked_fill_(shifted == -100, self.config.pad_token_id)
        ones = torch.ones_like(shifted)
        sequence_output = self.decoder(shifted, ones, memory, attention_mask)
        logits = self.lm_head(sequence_output * self.model_dim**-0.5)
        loss = F.cross_entropy(logits.view(-1, logits.size(-1)), labels.view(-1), ignore_index=-100)
        return {"loss": loss, "logits": logits, "encoder_last_hidden_state": memory}


def inputs():
    g = torch.Generator().manual_seed(21)
    mask = (torch.arange(11)[None] < torch.tensor([11, 7])[:, None]).long()
    ids = torch.randint(2, 41, (2, 11), generator=g) * mask
    labels = torch.randint(2, 41, (2, 9), generator=g)
    labels[1, 6:] = -100
    return ids, mask, labels


# The port ------------------------------------------------------------------------------------


class RMSNorm(nn.Module):
    def __init__(self, width, eps=1e-6):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        power = x.square().mean(dim=-1, keepdim=True)
        inverse = 1 / torch.sqrt(power + self.eps)
        return x * (inverse * self.weight)


def far_edges(near, total, reach):
    """The distances at which each of the wide buckets ends."""
    ends = torch.arange(1, total - near, dtype=torch.float64) / (total - near)
    return near * (reach / near) ** ends


def bucket_of(offset, both_sides, total=8, reach=12):
    """offset: place of the key minus place of the query."""
    if both_sides:
        total //= 2
        side = total * (offset > 0).long()
        distance = offset.abs()
    else:
        side = 0
        distance = offset.clamp(max=0).neg()
    near = total // 2
    far = near + torch.bucketize(distance.double(), far_edges(near, total, reach), right=True)
    return side + torch.where(distance < near, distance, far)


class Attention(nn.Module):
    def __init__(self, args, causal=False, table=False):
        super().__init__()
        self.causal, self.heads = causal, args.num_heads
        inner = args.num_heads * args.d_kv
        self.q = nn.Linear(args.d_model, inner, bias=False)
        self.k = nn.Linear(args.d_model, inner, bias=False)
        self.v = nn.Linear(args.d_model, inner, bias=False)
        self.o = nn.Linear(inner, args.d_model, bias=False)
        self.drop = nn.Dropout(args.dropout_rate)
        self.relative_attention_bias = nn.Embedding(8, args.num_heads) if table else None

    def positions(self, queries, keys, like):
        if self.relative_attention_bias is None:
            return like.new_zeros(1, self.heads, queries, keys)
        offset = torch.arange(keys) - torch.arange(queries).unsqueeze(1)
        buckets = bucket_of(offset, both_sides=not self.causal)
        return self.relative_attention_bias(buckets).movedim(-1, 0).unsqueeze(0)

    def forward(self, x, mask, memory=None, bias=None):
        source = x if memory is None else memory
        q = self.q(x).unflatten(-1, (self.heads, -1))
        k = self.k(source).unflatten(-1, (self.heads, -1))
        v = self.v(source).unflatten(-1, (self.heads, -1))
        if bias is None:
            bias = self.positions(x.size(1), source.size(1), x) + mask
        scores = torch.einsum("bqhc,bkhc->bhqk", q, k)
        scores = scores + bias
        weights = self.drop(scores.softmax(-1))
        mixed = torch.einsum("bhqk,bkhc->bqhc", weights, v)
        return self.o(mixed.flatten(2)), bias


class FeedForward(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.wi = nn.Linear(args.d_model, args.d_ff, bias=False)
        self.wo = nn.Linear(args.d_ff, args.d_model, bias=False)
        self.p = args.dropout_rate

    def forward(self, x):
        h = self.wi(x).relu()
        h = F.dropout(h, self.p, self.training)
        return self.wo(h)


class EncoderBlock(nn.Module):
    def __init__(self, args, first):
        super().__init__()
        self.norm1, self.attn = RMSNorm(args.d_model), Attention(args, table=first)
        self.norm2, self.mlp = RMSNorm(args.d_model), FeedForward(args)
        self.drop = nn.Dropout(args.dropout_rate)

    def forward(self, x, mask, bias):
        a, bias = self.attn(self.norm1(x), mask, bias=bias)
        x = x + self.drop(a)
        m = self.mlp(self.norm2(x))
        return x + self.drop(m), bias


class DecoderBlock(nn.Module):
    def __init__(self, args, first):
        super().__init__()
        self.norm1, self.attn = RMSNorm(args.d_model), Attention(args, causal=True, table=first)
        self.norm_cross, self.cross = RMSNorm(args.d_model), Attention(args)
        self.norm2, self.mlp = RMSNorm(args.d_model), FeedForward(args)
        self.drop = nn.Dropout(args.dropout_rate)

    def forward(self, y, mask, bias, memory, memory_mask, memory_bias):
        a, bias = self.attn(self.norm1(y), mask, bias=bias)
        y = y + self.drop(a)
        c, memory_bias = self.cross(self.norm_cross(y), memory_mask, memory=memory, bias=memory_bias)
        y = y + self.drop(c)
        return y + self.drop(self.mlp(self.norm2(y))), bias, memory_bias


class Encoder(nn.Module):
    def __init__(self, args, table):
        super().__init__()
        self.embed_tokens = table
        self.blocks = nn.ModuleList([EncoderBlock(args, i == 0) for i in range(args.num_layers)])
        self.final_layer_norm = RMSNorm(args.d_model)
        self.drop = nn.Dropout(args.dropout_rate)

    def forward(self, tokens, real):
        x = self.drop(self.embed_tokens(tokens))
        mask = torch.zeros(real.shape, dtype=x.dtype).masked_fill(real == 0, torch.finfo(x.dtype).min)[:, None, None]
        bias = None
        for block in self.blocks:
            x, bias = block(x, mask, bias)
        return self.drop(self.final_layer_norm(x))


class Decoder(nn.Module):
    def __init__(self, args, table):
        super().__init__()
        self.embed_tokens = table
        self.blocks = nn.ModuleList([DecoderBlock(args, i == 0) for i in range(args.num_layers)])
        self.final_layer_norm = RMSNorm(args.d_model, eps=1e-6)
        self.drop = nn.Dropout(args.dropout_rate)

    def forward(self, tokens, real, memory, memory_real):
        y = self.drop(self.embed_tokens(tokens))
        low, n = torch.finfo(y.dtype).min, tokens.size(1)
        future = torch.ones(n, n, dtype=torch.bool).triu(1) | (real == 0)[:, None, None]
        mask = torch.zeros(future.shape, dtype=y.dtype).masked_fill(future, low)
        memory_mask = (memory_real == 0).to(y.dtype)[:, None, None] * low
        bias = memory_bias = None
        for block in self.blocks:
            y, bias, memory_bias = block(y, mask, bias, memory, memory_mask, memory_bias)
        return self.drop(self.final_layer_norm(y))


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        args = T5Config()
        self.shared = nn.Embedding(args.vocab_size, args.d_model)
        self.encoder = Encoder(args, self.shared)
        self.decoder = Decoder(args, self.shared)
        self.lm_head = nn.Linear(args.d_model, args.vocab_size, bias=False)
        self.lm_head.weight = self.shared.weight
        self.eval()

    def forward(self, ids, real, labels):
        memory = self.encoder(ids, real)
        previous = F.pad(labels.clamp(min=0)[:, :-1], (1, 0), value=0)
        y = self.decoder(previous, torch.ones_like(previous), memory, real)
        logits = self.lm_head(y / math.sqrt(y.size(-1)))
        logp = logits.log_softmax(-1)
        counted = labels != -100
        each = logp.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        loss = -each[counted].mean()
        return {"loss": loss, "logits": logits, "encoder_last_hidden_state": memory}


NAMES = {}
for _i in range(2):
    for _s, _ff in (("encoder", 1), ("decoder", 2)):
        NAMES[f"{_s}.blocks.{_i}"] = f"{_s}.block.{_i}"
        NAMES[f"{_s}.blocks.{_i}.norm1"] = f"{_s}.block.{_i}.layer.0.layer_norm"
        NAMES[f"{_s}.blocks.{_i}.attn"] = f"{_s}.block.{_i}.layer.0.SelfAttention"
        NAMES[f"{_s}.blocks.{_i}.norm2"] = f"{_s}.block.{_i}.layer.{_ff}.layer_norm"
        NAMES[f"{_s}.blocks.{_i}.mlp"] = f"{_s}.block.{_i}.layer.{_ff}.DenseReluDense"
    NAMES[f"decoder.blocks.{_i}.norm_cross"] = f"decoder.block.{_i}.layer.1.layer_norm"
    NAMES[f"decoder.blocks.{_i}.cross"] = f"decoder.block.{_i}.layer.1.EncDecAttention"

_ATTENTIONS = [f"{_s}.blocks.{_i}.{_a}" for _i in range(2) for _s, _a in (("encoder", "attn"), ("decoder", "attn"), ("decoder", "cross"))]
_PACKED = NAMES | {f"{_a}.qkv": "cat(" + ", ".join(f"{NAMES[_a]}.{_k}.weight" for _k in "qkv") + ")" for _a in _ATTENTIONS}
_TURNED = NAMES | {f"{_m}.{_k}": f"{NAMES[_m]}.{_k}.weight.T" for _m in NAMES if _m.endswith("mlp") for _k in ("wi", "wo")}

FAULTS = [
    Fault("eps_of_all_norms", "def __init__(self, width, eps=1e-6):", "def __init__(self, width, eps=1e-5):", "encoder.block.0.layer.0.layer_norm", "output", "eps"),
    Fault("eps_of_last_norm", "RMSNorm(args.d_model, eps=1e-6)", "RMSNorm(args.d_model, eps=1e-5)", "decoder.final_layer_norm", "output", "eps"),
    Fault("mean_subtracted", "power = x.square().mean(dim=-1, keepdim=True)", "power = x.var(dim=-1, keepdim=True, unbiased=False)", "encoder.block.0.layer.0.layer_norm", "output", "variance"),
    Fault("power_over_one_less", "power = x.square().mean(dim=-1, keepdim=True)", "power = x.square().sum(dim=-1, keepdim=True) / (x.size(-1) - 1)", "encoder.block.0.layer.0.layer_norm", "output", "count"),
    Fault("power_detached", "power = x.square().mean(dim=-1, keepdim=True)", "power = x.detach().square().mean(dim=-1, keepdim=True)", "encoder.block.0.layer.0.layer_norm", "gradient", "detached"),
    Fault("scores_scaled", "scores = scores + bias", "scores = scores * q.size(-1) ** -0.5 + bias", "encoder.block.0.layer.0.SelfAttention", "output", "scale"),
    Fault("farthest_distance", "total=8, reach=12", "total=8, reach=16", "encoder.block.0.layer.0.SelfAttention", "output", "count"),
    Fault("edges_rounded_down", "return near * (reach / near) ** ends", "return (near * (reach / near) ** ends).floor()", "encoder.block.0.layer.0.SelfAttention", "output", "approximate"),
    Fault("wide_buckets_linear", "return near * (reach / near) ** ends", "return near + (reach - near) * ends", "encoder.block.0.layer.0.SelfAttention", "output", "approximate"),
    Fault("near_too_few", "near = total // 2", "near = total // 4", "encoder.block.0.layer.0.SelfAttention", "output", "count"),
    Fault("last_bucket_not_used", "far_edges(near, total, reach), right=True)", "far_edges(near, total, reach), right=True).clamp(max=total - near - 2)", "encoder.block.0.layer.0.SelfAttention", "output", "count"),
    Fault("own_place_on_the_right", "side = total * (offset > 0).long()", "side = total * (offset >= 0).long()", "encoder.block.0.layer.0.SelfAttention", "output", "operand"),
    Fault("query_minus_key", "offset = torch.arange(keys) - torch.arange(queries).unsqueeze(1)", "offset = torch.arange(queries).unsqueeze(1) - torch.arange(keys)", "encoder.block.0.layer.0.SelfAttention", "output", "transposed"),
    Fault("decoder_buckets_two_sided", "both_sides=not self.causal", "both_sides=True", "decoder.block.0.layer.0.SelfAttention", "output", "operand"),
    Fault("bias_forgotten_in_second_block", "x, bias = block(x, mask, bias)", "x, _ = block(x, mask, bias)", "encoder", "output", "missing"),
    Fault("bias_detached_for_second_block", "y, bias, memory_bias = block(y, mask, bias, memory, memory_mask, memory_bias)", "y, bias, memory_bias = block(y, mask, bias, memory, memory_mask, memory_bias)\n            bias = bias.detach()", "decoder", "gradient", "detached"),
    Fault("bias_scaled_twice", "return self.relative_attention_bias(buckets).movedim(-1, 0).unsqueeze(0)", "return self.relative_attention_bias(buckets).movedim(-1, 0).unsqueeze(0) * 5**-0.5", "encoder.block.0.layer.0.SelfAttention", "output", "scale"),
    Fault("bias_in_half", "return self.relative_attention_bias(buckets).movedim(-1, 0).unsqueeze(0)", "return self.relative_attention_bias(buckets).half().to(like).movedim(-1, 0).unsqueeze(0)", "encoder.block.0.layer.0.SelfAttention", "output", "approximate"),
    Fault("weights_over_queries", "scores.softmax(-1)", "scores.softmax(-2)", "encoder.block.0.layer.0.SelfAttention", "output", "order"),
    Fault("head_size_outside", "k = self.k(source).unflatten(-1, (self.heads, -1))", "k = self.k(source).unflatten(-1, (-1, self.heads)).transpose(-1, -2)", "encoder.block.0.layer.0.SelfAttention", "output", "heads"),
    Fault("heads_flattened_inside_out", '"bhqk,bkhc->bqhc"', '"bhqk,bkhc->bqch"', "encoder.block.0.layer.0.SelfAttention", "output", "heads"),
    Fault("values_from_keys", "v = self.v(source)", "v = self.k(source)", "encoder.block.0.layer.0.SelfAttention", "output", "operand"),
    Fault("padding_mask_weak", "masked_fill(real == 0, torch.finfo(x.dtype).min)", "masked_fill(real == 0, -10.0)", "encoder", "output", "mask"),
    Fault("padding_seen_by_decoder", "(memory_real == 0).to(y.dtype)", "(memory_real < 0).to(y.dtype)", "decoder", "output", "mask"),
    Fault("next_token_seen", "dtype=torch.bool).triu(1)", "dtype=torch.bool).triu(2)", "decoder", "output", "mask"),
    Fault("gelu", "h = self.wi(x).relu()", "h = F.gelu(self.wi(x))", "encoder.block.0.layer.1.DenseReluDense", "output", "activation"),
    Fault("dropout_always_on", "h = F.dropout(h, self.p, self.training)", "h = F.dropout(h, self.p)", "encoder.block.0.layer.1.DenseReluDense", "output", "mode"),
    Fault("decoder_in_training", "        self.lm_head.weight = self.shared.weight\n        self.eval()", "        self.lm_head.weight = self.shared.weight\n        self.eval()\n        self.decoder.drop.train()", "decoder", "output", "mode"),
    Fault("residual_of_normed", "m = self.mlp(self.norm2(x))\n", "x = self.norm2(x)\n        m = self.mlp(x)\n", "encoder.block.0", "output", "residual"),
    Fault("residual_detached", "y = y + self.drop(c)", "y = y.detach() + self.drop(c)", "decoder.block.0", "gradient", "residual"),
    Fault("cross_not_normed", "self.cross(self.norm_cross(y), memory_mask", "self.cross(y, memory_mask", "decoder.block.0", "output", "missing"),
    Fault("norms_of_decoder_exchanged", "return y + self.drop(self.mlp(self.norm2(y))), bias, memory_bias", "return y + self.drop(self.mlp(self.norm_cross(y))), bias, memory_bias", "decoder.block.0", "output", "operand"),
    Fault("memory_detached", "y = self.decoder(previous, torch.ones_like(previous), memory, real)", "y = self.decoder(previous, torch.ones_like(previous), memory.detach(), real)", "", "gradient", "detached"),
    Fault("starts_with_end", "(1, 0), value=0)", "(1, 0), value=1)", "", "output", "initial"),
    Fault("ignored_fed_as_end", "F.pad(labels.clamp(min=0)[:, :-1]", "F.pad(labels.masked_fill(labels == -100, 1)[:, :-1]", "", "output", "padding"),
    Fault("head_not_rescaled", "logits = self.lm_head(y / math.sqrt(y.size(-1)))", "logits = self.lm_head(y)", "", "output", "scale"),
    Fault("head_not_tied", "        self.lm_head.weight = self.shared.weight\n", "", "", "gradient", "untied"),
    Fault("encoder_table_of_its_own", "self.encoder = Encoder(args, self.shared)", "self.encoder = Encoder(args, nn.Embedding(args.vocab_size, args.d_model))", "", "gradient", "untied"),
    Fault("loss_over_ignored_too", "loss = -each[counted].mean()", "loss = -(each * counted).mean()", "", "output", "count"),
]

RIGHT = [
    Right("scaled_dot_product", '''        scores = torch.einsum("bqhc,bkhc->bhqk", q, k)
        scores = scores + bias
        weights = self.drop(scores.softmax(-1))
        mixed = torch.einsum("bhqk,bkhc->bqhc", weights, v)
''', '''        mixed = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=bias, scale=1.0)
        mixed = mixed.transpose(1, 2)
'''),
    Right("head_by_head", '''        scores = torch.einsum("bqhc,bkhc->bhqk", q, k)
        scores = scores + bias
        weights = self.drop(scores.softmax(-1))
        mixed = torch.einsum("bhqk,bkhc->bqhc", weights, v)
''', '''        heads = []
        for h in range(self.heads):
            score = torch.bmm(q[:, :, h], k[:, :, h].mT) + bias[:, h]
            score = score - score.amax(-1, keepdim=True).detach()
            e = score.exp()
            heads.append(torch.bmm(e, v[:, :, h]) / e.sum(-1, keepdim=True))
        mixed = torch.stack(heads, 2)
'''),
    Right("buckets_by_logarithm", "far = near + torch.bucketize(distance.double(), far_edges(near, total, reach), right=True)", "ratio = torch.log(distance.clamp(min=1) / near) / math.log(reach / near)\n    far = (near + (ratio * (total - near)).long()).clamp(max=total - 1)"),
    Right("bias_by_one_hot", "return self.relative_attention_bias(buckets).movedim(-1, 0).unsqueeze(0)", 'hot = F.one_hot(buckets, 8).to(like.dtype)\n        return torch.einsum("qkn,nh->hqk", hot, self.relative_attention_bias.weight)[None]', True),
    Right("norm_of_torch", "power = x.square().mean(dim=-1, keepdim=True)\n        inverse = 1 / torch.sqrt(power + self.eps)\n        return x * (inverse * self.weight)", "return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)"),
    Right("norm_by_length", "power = x.square().mean(dim=-1, keepdim=True)", "power = torch.linalg.vector_norm(x, dim=-1, keepdim=True).pow(2) / x.size(-1)"),
    Right("feed_forward_in_one", "h = self.wi(x).relu()\n        h = F.dropout(h, self.p, self.training)\n        return self.wo(h)", "flat = x.reshape(-1, x.size(-1))\n        return (flat @ self.wi.weight.t()).clamp_min(0).mm(self.wo.weight.t()).view_as(x)", True),
    Right("feed_forward_turned", "        self.wi = nn.Linear(args.d_model, args.d_ff, bias=False)\n        self.wo = nn.Linear(args.d_ff, args.d_model, bias=False)\n        self.p = args.dropout_rate\n\n    def forward(self, x):\n        h = self.wi(x).relu()\n        h = F.dropout(h, self.p, self.training)\n        return self.wo(h)", "        self.wi = nn.Parameter(torch.zeros(args.d_model, args.d_ff))\n        self.wo = nn.Parameter(torch.zeros(args.d_ff, args.d_model))\n\n    def forward(self, x):\n        return torch.matmul(torch.matmul(x, self.wi).relu(), self.wo)", True, _TURNED),
    Right("packed_query_key_value", "class FeedForward(nn.Module):", '''class Attention(Attention):
    def __init__(self, args, causal=False, table=False):
        super().__init__(args, causal, table)
        del self.q, self.k, self.v
        self.qkv = nn.Parameter(torch.zeros(3 * args.num_heads * args.d_kv, args.d_model))

    def forward(self, x, mask, memory=None, bias=None):
        source = x if memory is None else memory
        w = self.qkv.view(3, self.heads, -1, x.size(-1))
        q = torch.einsum("btd,hcd->bhtc", x, w[0])
        k, v = torch.einsum("btd,nhcd->nbhtc", source, w[1:])
        if bias is None:
            bias = self.positions(q.size(2), k.size(2), x) + mask
        weights = torch.softmax(q @ k.mT + bias, -1)
        return self.o((weights @ v).transpose(1, 2).flatten(2)), bias


class FeedForward(nn.Module):''', True, _PACKED),
    Right("loss_of_torch", "loss = -each[counted].mean()", "loss = F.cross_entropy(logits.transpose(1, 2), labels)"),
    Right("head_as_product", "logits = self.lm_head(y / math.sqrt(y.size(-1)))", 'logits = torch.einsum("btd,vd->btv", y, self.shared.weight * y.size(-1) ** -0.5)', True),
    Right("checkpointed_blocks", "x, bias = block(x, mask, bias)", "x, bias = torch.utils.checkpoint.checkpoint(block, x, mask, bias, use_reentrant=False)"),
    Right("residual_in_place", "y = y + self.drop(c)", "y = torch.add(self.drop(c), y)"),
]
