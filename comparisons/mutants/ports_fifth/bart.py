"""BART after Hugging Face (config, dataclass results, additive masks, eval mode), ported to fairseq's (time, batch, width)."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from ..ports.kinds import Fault, Right


def settle(module, seed):
    """Move every vector parameter off its initial value, as training would."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn(p.shape, generator=g) * (0.15 if p.dim() == 1 else 0.05))


@dataclass
class BartConfig:
    vocab_size: int = 43
    d_model: int = 32
    heads: int = 4
    ffn_dim: int = 48
    layers: int = 2
    max_positions: int = 16
    pad_token_id: int = 1
    bos_token_id: int = 0
    dropout: float = 0.1
    scale_embedding: bool = True
    label_smoothing: float = 0.1


@dataclass
class EncoderOutput:
    last_hidden_state: torch.Tensor
    attention_mask: torch.Tensor


class LearnedPositions(nn.Embedding):
    offset = 2

    def forward(self, input_ids):
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand(input_ids.shape[0], -1)
        return super().forward(positions + self.offset)


class BartAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads, self.head_dim = config.heads, config.d_model // config.heads
        self.scaling = self.head_dim**-0.5
        self.k_proj = nn.Linear(config.d_model, config.d_model)
        self.v_proj = nn.Linear(config.d_model, config.d_model)
        self.q_proj = nn.Linear(config.d_model, config.d_model)
        self.out_proj = nn.Linear(config.d_model, config.d_model)

    def shape(self, x):
        return x.view(x.shape[0], -1, self.heads, self.head_dim).transpose(1, 2)

    def forward(self, hidden_states, key_value_states=None, attention_mask=None):
        source = hidden_states if key_value_states is None else key_value_states
        q = self.shape(self.q_proj(hidden_states) * self.scaling)
        k, v = self.shape(self.k_proj(source)), self.shape(self.v_proj(source))
        weights = torch.matmul(q, k.transpose(2, 3))
        if attention_mask is not None:
            weights = weights + attention_mask
        out = torch.matmul(weights.softmax(dim=-1), v)
        return self.out_proj(out.transpose(1, 2).reshape(hidden_states.shape))


class BartEncoderLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.self_attn = BartAttention(config)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.dropout = config.dropout
        self.fc1 = nn.Linear(config.d_model, config.ffn_dim)
        self.fc2 = nn.Linear(config.ffn_dim, config.d_model)
        self.final_layer_norm = nn.LayerNorm(config.d_model)

    def forward(self, hidden_states, attention_mask):
        residual = hidden_states
        hidden_states = self.self_attn(hidden_states, attention_mask=attention_mask)
        hidden_states = F.dropout(hidden_states, p=self.dropout, training=self.training)
        hidden_states = self.self_attn_layer_norm(residual + hidden_states)
        residual = hidden_states
        hidden_states = self.fc2(F.gelu(self.fc1(hidden_states)))
        hidden_states = F.dropout(hidden_states, p=self.dropout, training=self.training)
        return self.final_layer_norm(residual + hidden_states)


class BartDecoderLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.self_attn = BartAttention(config)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.encoder_attn = BartAttention(config)
        self.encoder_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.dropout = config.dropout
        self.fc1 = nn.Linear(config.d_model, config.ffn_dim)
        self.fc2 = nn.Linear(config.ffn_dim, config.d_model)
        self.final_layer_norm = nn.LayerNorm(config.d_model)

    def forward(self, hidden_states, attention_mask, encoder_hidden_states, encoder_attention_mask):
        residual = hidden_states
        hidden_states = self.self_attn(hidden_states, attention_mask=attention_mask)
        hidden_states = F.dropout(hidden_states, p=self.dropout, training=self.training)
        hidden_states = self.self_attn_layer_norm(residual + hidden_states)
        residual = hidden_states
        hidden_states = self.encoder_attn(hidden_states, key_value_states=encoder_hidden_states, attention_mask=encoder_attention_mask)
        hidden_states = F.dropout(hidden_states, p=self.dropout, training=self.training)
        hidden_states = self.encoder_attn_layer_norm(residual + hidden_states)
        residual = hidden_states
        hidden_states = self.fc2(F.gelu(self.fc1(hidden_states)))
        hidden_states = F.dropout(hidden_states, p=self.dropout, training=self.training)
        return self.final_layer_norm(residual + hidden_states)


class BartEncoder(nn.Module):
    def __init__(self, config, shared):
        super().__init__()
        self.config = config
        self.embed_tokens = shared
        self.embed_positions = LearnedPositions(config.max_positions + 2, config.d_model)
        self.layers = nn.ModuleList([BartEncoderLayer(config) for _ in range(config.layers)])
        self.layernorm_embedding = nn.LayerNorm(config.d_model)

    def forward(self, input_ids, attention_mask):
        scale = math.sqrt(self.config.d_model) if self.config.scale_embedding else 1.0
        h = self.embed_tokens(input_ids) * scale + self.embed_positions(input_ids)
        h = F.dropout(self.layernorm_embedding(h), p=self.config.dropout, training=self.training)
        bias = (1.0 - attention_mask[:, None, None, :].to(h.dtype)) * torch.finfo(h.dtype).min
        for layer in self.layers:
            h = layer(h, bias)
        return EncoderOutput(last_hidden_state=h, attention_mask=bias)


class BartDecoder(nn.Module):
    def __init__(self, config, shared):
        super().__init__()
        self.config = config
        self.embed_tokens = shared
        self.embed_positions = LearnedPositions(config.max_positions + 2, config.d_model)
        self.layers = nn.ModuleList([BartDecoderLayer(config) for _ in range(config.layers)])
        self.layernorm_embedding = nn.LayerNorm(config.d_model)

    def forward(self, input_ids, encoder_outputs):
        scale = math.sqrt(self.config.d_model) if self.config.scale_embedding else 1.0
        h = self.embed_tokens(input_ids) * scale + self.embed_positions(input_ids)
        h = F.dropout(self.layernorm_embedding(h), p=self.config.dropout, training=self.training)
        t = input_ids.shape[1]
        causal = torch.full((t, t), torch.finfo(h.dtype).min, dtype=h.dtype).triu(1)[None, None]
        for layer in self.layers:
            h = layer(h, causal, encoder_outputs.last_hidden_state, encoder_outputs.attention_mask)
        return h


class BartModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.shared = nn.Embedding(config.vocab_size, config.d_model, padding_idx=config.pad_token_id)
        nn.init.normal_(self.shared.weight, std=0.15)
        self.encoder = BartEncoder(config, self.shared)
        self.decoder = BartDecoder(config, self.shared)

    def forward(self, input_ids, attention_mask, decoder_input_ids):
        return self.decoder(decoder_input_ids, self.encoder(input_ids, attention_mask))


class Original(nn.Module):
    def __init__(self, config=BartConfig()):
        super().__init__()
        self.config = config
        self.model = BartModel(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.lm_head.weight = self.model.shared.weight
        g = torch.Generator().manual_seed(4)
        self.register_buffer("final_logits_bias", torch.randn(1, config.vocab_size, generator=g) * 0.3)
        settle(self, 3)
        self.eval()

    def forward(self, input_ids, attention_mask, labels):
        decoder_input_ids = labels.new_zeros(labels.shape)
        decoder_input_ids[:, 1:] = labels[:, :-1]
        decoder_input_ids[:, 0] = self.config.bos_token_id
        decoder_input_ids.masked_fill_(decoder_input_ids == -100, self.config.pad_token_id)
        h = self.model(input_ids, attention_mask, decoder_input_ids)
        logits = self.lm_head(h) + self.final_logits_bias
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=self.config.label_smoothing)
        return {"loss": loss, "logits": logits}


def inputs():
    g = torch.Generator().manual_seed(13)
    ids = torch.randint(3, 43, (3, 9), generator=g)
    mask = (torch.arange(9)[None] < torch.tensor([9, 6, 4])[:, None]).long()
    ids[mask == 0] = 1
    labels = torch.randint(3, 43, (3, 7), generator=g)
    labels[1, 5:] = -100
    labels[2, 3:] = -100
    return ids, mask, labels


# The port ------------------------------------------------------------------------------------


class MultiheadAttention(nn.Module):
    """Time first; `hidden` is True where a key must not be seen; returns (output, weights)."""

    def __init__(self, embed_dim, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.k_proj = nn.Linear(embed_dim, embed_dim)
        self.v_proj = nn.Linear(embed_dim, embed_dim)
        self.q_proj = nn.Linear(embed_dim, embed_dim)
        self.out_proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, query, key, value, hidden):
        t, b, e = query.shape
        d = e // self.num_heads
        q = self.q_proj(query).div(math.sqrt(d))
        k, v = self.k_proj(key), self.v_proj(value)
        q = q.contiguous().view(t, b * self.num_heads, d).transpose(0, 1)
        k = k.contiguous().view(-1, b * self.num_heads, d).transpose(0, 1)
        v = v.contiguous().view(-1, b * self.num_heads, d).transpose(0, 1)
        scores = torch.bmm(q, k.transpose(1, 2)).view(b, self.num_heads, t, -1)
        scores = scores.masked_fill(hidden, float("-inf"))
        weights = torch.softmax(scores, dim=-1)
        mixed = torch.bmm(weights.flatten(0, 1), v)
        return self.out_proj(mixed.transpose(0, 1).reshape(t, b, e)), weights


class EncoderLayer(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.self_attn = MultiheadAttention(args.d_model, args.heads)
        self.self_attn_layer_norm = nn.LayerNorm(args.d_model)
        self.dropout_module = nn.Dropout(args.dropout)
        self.fc1 = nn.Linear(args.d_model, args.ffn_dim)
        self.fc2 = nn.Linear(args.ffn_dim, args.d_model)
        self.final_layer_norm = nn.LayerNorm(args.d_model)

    def forward(self, x, padding):
        a, _ = self.self_attn(x, x, x, hidden=padding[:, None, None])
        x = self.self_attn_layer_norm(x + self.dropout_module(a))
        y = self.fc2(F.gelu(self.fc1(x)))
        return self.final_layer_norm(x + self.dropout_module(y))


class DecoderLayer(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.self_attn = MultiheadAttention(args.d_model, args.heads)
        self.self_attn_layer_norm = nn.LayerNorm(args.d_model)
        self.encoder_attn = MultiheadAttention(args.d_model, args.heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(args.d_model)
        self.fc1 = nn.Linear(args.d_model, args.ffn_dim)
        self.fc2 = nn.Linear(args.ffn_dim, args.d_model)
        self.final_layer_norm = nn.LayerNorm(args.d_model)

    def forward(self, x, memory, padding, future):
        self_out = self.self_attn(x, x, x, hidden=future)[0]
        x = self.self_attn_layer_norm(self_out + x)
        cross = self.encoder_attn(x, memory, memory, hidden=padding[:, None, None])[0]
        x = self.encoder_attn_layer_norm(cross + x)
        inner = nn.functional.gelu(self.fc1(x))
        return self.final_layer_norm(self.fc2(inner) + x)


class Half(nn.Module):
    """What encoder and decoder have in common."""

    def __init__(self, args, shared, layer):
        super().__init__()
        self.embed_tokens = shared
        self.embed_positions = nn.Embedding(args.max_positions + 2, args.d_model)
        self.layers = nn.ModuleList(layer(args) for _ in range(args.layers))
        self.layernorm_embedding = nn.LayerNorm(args.d_model)
        self.embed_scale = math.sqrt(args.d_model)

    def embed(self, tokens):
        places = torch.arange(2, tokens.size(1) + 2, device=tokens.device)
        x = self.embed_scale * self.embed_tokens(tokens) + self.embed_positions(places)
        return self.layernorm_embedding(x).transpose(0, 1)


class Encoder(Half):
    def forward(self, tokens, padding):
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x, padding)
        return x


class Decoder(Half):
    def forward(self, tokens, memory, padding):
        y = self.embed(tokens)
        n = tokens.size(1)
        future = torch.ones(n, n, dtype=torch.bool, device=tokens.device).triu(diagonal=1)
        for layer in self.layers:
            y = layer(y, memory, padding, future)
        return y.transpose(0, 1)


class Both(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.shared = nn.Embedding(args.vocab_size, args.d_model, padding_idx=args.pad_token_id)
        self.encoder = Encoder(args, self.shared, EncoderLayer)
        self.decoder = Decoder(args, self.shared, DecoderLayer)

    def forward(self, source, seen, target):
        padding = seen == 0
        memory = self.encoder(source, padding)
        return self.decoder(target, memory, padding)


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        args = BartConfig()
        self.model = Both(args)
        self.lm_head = nn.Linear(args.d_model, args.vocab_size, bias=False)
        self.lm_head.weight = self.model.shared.weight
        self.register_buffer("final_logits_bias", torch.zeros(1, args.vocab_size))
        self.eval()

    def forward(self, input_ids, attention_mask, labels):
        ignored = labels == -100
        previous = F.pad(labels.masked_fill(ignored, 1), (1, 0), value=0)[:, :-1]
        h = self.model(input_ids, attention_mask, previous)
        logits = self.lm_head(h) + self.final_logits_bias
        logp = torch.log_softmax(logits, dim=-1)
        picked = -logp.gather(-1, labels.masked_fill(ignored, 0)[..., None])[..., 0]
        smooth = -logp.mean(-1)
        each = 0.9 * picked + 0.1 * smooth
        loss = each[~ignored].mean()
        return {"loss": loss, "logits": logits}


NAMES = {}

FAULTS = [
    Fault("eps_of_embedding_norm", "self.layernorm_embedding = nn.LayerNorm(args.d_model)", "self.layernorm_embedding = nn.LayerNorm(args.d_model, eps=1e-6)", "model.encoder.layernorm_embedding", "output", "eps"),
    Fault("eps_of_cross_norm", "self.encoder_attn_layer_norm = nn.LayerNorm(args.d_model)", "self.encoder_attn_layer_norm = nn.LayerNorm(args.d_model, eps=1e-12)", "model.decoder.layers.0.encoder_attn_layer_norm", "output", "eps"),
    Fault("relu_in_encoder", "y = self.fc2(F.gelu(self.fc1(x)))", "y = self.fc2(F.relu(self.fc1(x)))", "model.encoder.layers.0", "output", "activation"),
    Fault("gelu_in_decoder_by_tanh", "inner = nn.functional.gelu(self.fc1(x))", "inner = nn.functional.gelu(self.fc1(x), approximate='tanh')", "model.decoder.layers.0", "output", "approximate"),
    Fault("scores_not_scaled", "q = self.q_proj(query).div(math.sqrt(d))", "q = self.q_proj(query)", "model.encoder.layers.0.self_attn", "output", "scale"),
    Fault("embedding_not_scaled", "self.embed_scale = math.sqrt(args.d_model)", "self.embed_scale = 1.0", "model.encoder", "output", "scale"),
    Fault("positions_without_offset", "places = torch.arange(2, tokens.size(1) + 2, device=tokens.device)", "places = torch.arange(tokens.size(1), device=tokens.device)", "model.encoder", "output", "operand"),
    Fault("future_with_diagonal_free_by_two", "triu(diagonal=1)", "triu(diagonal=2)", "model.decoder", "output", "mask"),
    Fault("padding_not_hidden_in_cross", "cross = self.encoder_attn(x, memory, memory, hidden=padding[:, None, None])[0]", "cross = self.encoder_attn(x, memory, memory, hidden=torch.zeros_like(padding)[:, None, None])[0]", "model.decoder.layers.0", "output", "mask"),
    Fault("padding_shifted", "padding = seen == 0", "padding = F.pad(seen[:, :-1] == 0, (1, 0))", "model", "output", "mask"),
    Fault("cross_with_keys_of_decoder", "cross = self.encoder_attn(x, memory, memory, hidden=padding[:, None, None])[0]", "cross = self.encoder_attn(x, x, x, hidden=future)[0]", "model.decoder.layers.0", "output", "operand"),
    Fault("key_and_value_swapped", "k, v = self.k_proj(key), self.v_proj(value)", "v, k = self.k_proj(key), self.v_proj(value)", "model.encoder.layers.0.self_attn", "output", "operand"),
    Fault("heads_before_batch", "k = k.contiguous().view(-1, b * self.num_heads, d).transpose(0, 1)", "k = k.view(-1, b, self.num_heads, d).permute(2, 1, 0, 3).flatten(0, 1)", "model.encoder.layers.0.self_attn", "output", "heads"),
    Fault("heads_not_brought_back", "mixed.transpose(0, 1).reshape(t, b, e)", "mixed.view(b, self.num_heads, t, d).permute(2, 0, 3, 1).reshape(t, b, e)", "model.encoder.layers.0.self_attn", "output", "heads"),
    Fault("weights_over_queries", "weights = torch.softmax(scores, dim=-1)", "weights = torch.softmax(scores.masked_fill(hidden, -1e4), dim=-2)", "model.encoder.layers.0.self_attn", "output", "order"),
    Fault("pre_norm_in_decoder", "self_out = self.self_attn(x, x, x, hidden=future)[0]\n        x = self.self_attn_layer_norm(self_out + x)", "n = self.self_attn_layer_norm(x)\n        x = x + self.self_attn(n, n, n, hidden=future)[0]", "model.decoder.layers.0", "output", "order"),
    Fault("residual_missing", "return self.final_layer_norm(self.fc2(inner) + x)", "return self.final_layer_norm(self.fc2(inner))", "model.decoder.layers.0", "output", "residual"),
    Fault("residual_before_attention", "a, _ = self.self_attn(x, x, x, hidden=padding[:, None, None])\n        x = self.self_attn_layer_norm(x + self.dropout_module(a))\n        y = self.fc2(F.gelu(self.fc1(x)))", "a, _ = self.self_attn(x, x, x, hidden=padding[:, None, None])\n        y = self.fc2(F.gelu(self.fc1(self.self_attn_layer_norm(x + self.dropout_module(a)))))", "model.encoder.layers.0", "output", "residual"),
    Fault("dropout_always_on", "x = self.self_attn_layer_norm(x + self.dropout_module(a))", "x = self.self_attn_layer_norm(x + F.dropout(a, self.dropout_module.p))", "model.encoder.layers.0", "output", "mode"),
    Fault("left_in_training", "self.register_buffer(\"final_logits_bias\", torch.zeros(1, args.vocab_size))\n        self.eval()", "self.register_buffer(\"final_logits_bias\", torch.zeros(1, args.vocab_size))", "model.encoder.layers.0", "output", "mode"),
    Fault("logits_bias_missing", "logits = self.lm_head(h) + self.final_logits_bias", "logits = self.lm_head(h)", "", "output", "missing"),
    Fault("head_not_tied", "        self.lm_head.weight = self.model.shared.weight\n", "", "", "gradient", "untied"),
    Fault("decoder_embedding_of_its_own", "self.decoder = Decoder(args, self.shared, DecoderLayer)", "self.decoder = Decoder(args, nn.Embedding(args.vocab_size, args.d_model, padding_idx=args.pad_token_id), DecoderLayer)", "model", "gradient", "untied"),
    Fault("memory_detached", "return self.decoder(target, memory, padding)", "return self.decoder(target, memory.detach(), padding)", "model", "gradient", "detached"),
    Fault("padding_row_learns", "self.shared = nn.Embedding(args.vocab_size, args.d_model, padding_idx=args.pad_token_id)", "self.shared = nn.Embedding(args.vocab_size, args.d_model)", "model.shared", "gradient", "padding"),
    Fault("first_token_is_eos", "(1, 0), value=0)[:, :-1]", "(1, 0), value=2)[:, :-1]", "", "output", "initial"),
    Fault("loss_over_ignored_too", "loss = each[~ignored].mean()", "loss = (each * ~ignored).mean()", "", "output", "count"),
    Fault("smoothing_over_the_others", "smooth = -logp.mean(-1)", "smooth = (-logp.sum(-1) - picked) / 42", "", "output", "count"),
    Fault("loss_over_smoothing_detached", "each = 0.9 * picked + 0.1 * smooth", "each = 0.9 * picked + 0.1 * smooth.detach()", "", "gradient", "detached"),
    Fault("mask_too_weak", 'scores = scores.masked_fill(hidden, float("-inf"))', "scores = scores.masked_fill(hidden, -15.0)", "model.encoder.layers.0.self_attn", "output", "mask"),
    Fault("positions_not_learnt", "+ self.embed_positions(places)", "+ self.embed_positions(places).detach()", "model.encoder", "gradient", "detached"),
    Fault("residual_detached", "return self.final_layer_norm(self.fc2(inner) + x)", "return self.final_layer_norm(self.fc2(inner) + x.detach())", "model.decoder.layers.0", "gradient", "residual"),
    Fault("value_bias_detached", "k, v = self.k_proj(key), self.v_proj(value)", "k, v = self.k_proj(key), F.linear(value, self.v_proj.weight, self.v_proj.bias.detach())", "model.encoder.layers.0.self_attn", "gradient", "detached"),
]

RIGHT = [
    Right("scaled_dot_product", "scores = torch.bmm(q, k.transpose(1, 2)).view(b, self.num_heads, t, -1)\n        scores = scores.masked_fill(hidden, float(\"-inf\"))\n        weights = torch.softmax(scores, dim=-1)\n        mixed = torch.bmm(weights.flatten(0, 1), v)", "split = lambda m: m.unflatten(0, (b, self.num_heads))\n        weights = None\n        mixed = F.scaled_dot_product_attention(split(q), split(k), split(v), attn_mask=~hidden, scale=1.0).flatten(0, 1)"),
    Right("loop_over_heads", "mixed = torch.bmm(weights.flatten(0, 1), v)", "mixed = torch.stack([weights[i // self.num_heads, i % self.num_heads] @ v[i] for i in range(len(v))])"),
    Right("additive_mask", "scores = scores.masked_fill(hidden, float(\"-inf\"))", "scores = scores + torch.zeros(hidden.shape, dtype=scores.dtype).masked_fill(hidden, -1e30)"),
    Right("loss_by_torch", "loss = each[~ignored].mean()", "loss = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, label_smoothing=0.1)"),
    Right("embedding_by_indexing", "x = self.embed_scale * self.embed_tokens(tokens) + self.embed_positions(places)", "weight = self.embed_tokens.weight\n        pad = F.one_hot(torch.tensor(1), len(weight))[:, None].bool()\n        rows = torch.where(pad, weight.detach(), weight)[tokens]\n        x = torch.add(self.embed_positions.weight[2 : tokens.size(1) + 2], rows, alpha=self.embed_scale)", True),
    Right("query_key_value_in_one", "q = self.q_proj(query).div(math.sqrt(d))\n        k, v = self.k_proj(key), self.v_proj(value)", "q = F.linear(query, self.q_proj.weight / math.sqrt(d), self.q_proj.bias / math.sqrt(d))\n        k, v = F.linear(key, torch.cat((self.k_proj.weight, self.v_proj.weight)), torch.cat((self.k_proj.bias, self.v_proj.bias))).chunk(2, -1)", True),
    Right("packed_parameters", "class EncoderLayer(nn.Module):", '''class MultiheadAttention(nn.Module):
    def __init__(self, embed_dim, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * embed_dim, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, query, key, value, hidden):
        parts = zip((query, key, value), self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3))
        q, k, v = (torch.einsum("tbe,fe->tbf", x, w).add(c).unflatten(-1, (self.num_heads, -1)) for x, w, c in parts)
        scores = torch.einsum("qbhd,kbhd->bhqk", q, k) * q.shape[-1] ** -0.5
        weights = (scores - 1e30 * hidden).softmax(-1)
        return self.out_proj(torch.einsum("bhqk,kbhd->qbhd", weights, v).flatten(2)), weights


class EncoderLayer(nn.Module):''', True, {f"model.{_p}.in_proj_{_k}": f"cat(model.{_p}.q_proj.{_k}, model.{_p}.k_proj.{_k}, model.{_p}.v_proj.{_k})" for _p in ["encoder.layers.0.self_attn", "encoder.layers.1.self_attn", "decoder.layers.0.self_attn", "decoder.layers.1.self_attn", "decoder.layers.0.encoder_attn", "decoder.layers.1.encoder_attn"] for _k in ("weight", "bias")}),
    Right("head_as_product", "logits = self.lm_head(h) + self.final_logits_bias", "logits = torch.addmm(self.final_logits_bias[0], h.reshape(-1, h.shape[-1]), self.model.shared.weight.t()).unflatten(0, h.shape[:2])", True),
    Right("checkpointed_encoder", "x = layer(x, padding)", "x = torch.utils.checkpoint.checkpoint(layer, x, padding, use_reentrant=False)"),
]
