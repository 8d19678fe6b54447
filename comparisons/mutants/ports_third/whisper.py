"""A small Whisper: strided convolutions and sinusoids before an audio encoder, a text decoder with cross attention and a tied head, as by OpenAI; the port with the names of Hugging Face."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from ..ports.kinds import Fault, Right


@dataclass
class Seq2SeqOutput:
    logits: torch.Tensor
    encoder_last_hidden_state: torch.Tensor


def sinusoids(length, channels, like):
    increment = math.log(10000) / (channels // 2 - 1)
    rates = torch.exp(-increment * torch.arange(channels // 2).to(like))
    scaled = torch.arange(length).to(like)[:, None] * rates[None, :]
    return torch.cat([torch.sin(scaled), torch.cos(scaled)], dim=1)


class MultiHeadAttention(nn.Module):
    def __init__(self, n_state, n_head):
        super().__init__()
        self.n_head = n_head
        self.query = nn.Linear(n_state, n_state)
        self.key = nn.Linear(n_state, n_state, bias=False)
        self.value = nn.Linear(n_state, n_state)
        self.out = nn.Linear(n_state, n_state)

    def forward(self, x, xa=None, mask=None):
        q = self.query(x)
        k = self.key(x if xa is None else xa)
        v = self.value(x if xa is None else xa)
        return self.out(self.qkv_attention(q, k, v, mask))

    def qkv_attention(self, q, k, v, mask):
        n_batch, n_ctx, n_state = q.shape
        scale = (n_state // self.n_head) ** -0.25
        q = q.view(*q.shape[:2], self.n_head, -1).permute(0, 2, 1, 3) * scale
        k = k.view(*k.shape[:2], self.n_head, -1).permute(0, 2, 3, 1) * scale
        v = v.view(*v.shape[:2], self.n_head, -1).permute(0, 2, 1, 3)
        qk = q @ k
        if mask is not None:
            qk = qk + mask[:n_ctx, :n_ctx]
        w = F.softmax(qk, dim=-1)
        return (w @ v).permute(0, 2, 1, 3).flatten(start_dim=2)


class ResidualAttentionBlock(nn.Module):
    def __init__(self, n_state, n_head, cross_attention=False):
        super().__init__()
        self.attn = MultiHeadAttention(n_state, n_head)
        self.attn_ln = nn.LayerNorm(n_state)
        self.cross_attn = MultiHeadAttention(n_state, n_head) if cross_attention else None
        self.cross_attn_ln = nn.LayerNorm(n_state) if cross_attention else None
        self.mlp = nn.Sequential(nn.Linear(n_state, n_state * 2), nn.GELU(), nn.Linear(n_state * 2, n_state))
        self.mlp_ln = nn.LayerNorm(n_state)

    def forward(self, x, xa=None, mask=None):
        x = x + self.attn(self.attn_ln(x), mask=mask)
        if self.cross_attn is not None:
            x = x + self.cross_attn(self.cross_attn_ln(x), xa)
        return x + self.mlp(self.mlp_ln(x))


class AudioEncoder(nn.Module):
    def __init__(self, n_mels, n_state, n_head, n_layer):
        super().__init__()
        self.conv1 = nn.Conv1d(n_mels, n_state, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(n_state, n_state, kernel_size=3, stride=2, padding=1)
        self.blocks = nn.ModuleList([ResidualAttentionBlock(n_state, n_head) for _ in range(n_layer)])
        self.ln_post = nn.LayerNorm(n_state)

    def forward(self, x):
        x = F.gelu(self.conv1(x))
        x = F.gelu(self.conv2(x))
        x = x.permute(0, 2, 1)
        x = x + sinusoids(x.shape[1], x.shape[2], x)
        for block in self.blocks:
            x = block(x)
        return self.ln_post(x)


class TextDecoder(nn.Module):
    def __init__(self, n_vocab, n_ctx, n_state, n_head, n_layer):
        super().__init__()
        self.token_embedding = nn.Embedding(n_vocab, n_state)
        self.positional_embedding = nn.Parameter(0.3 * torch.randn(n_ctx, n_state))
        self.blocks = nn.ModuleList([ResidualAttentionBlock(n_state, n_head, cross_attention=True) for _ in range(n_layer)])
        self.ln = nn.LayerNorm(n_state)

    def forward(self, x, xa):
        x = self.token_embedding(x) + self.positional_embedding[:x.shape[-1]]
        mask = torch.full((x.shape[1], x.shape[1]), -math.inf).triu(1).to(x)
        for block in self.blocks:
            x = block(x, xa, mask=mask)
        x = self.ln(x)
        return x @ self.token_embedding.weight.T


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = AudioEncoder(8, 24, 3, 2)
        self.decoder = TextDecoder(40, 12, 24, 3, 2)
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for p in self.parameters():
                if p.dim() == 1:
                    p.add_(0.1 * torch.randn(p.shape, generator=generator))

    def forward(self, mel, tokens):
        states = self.encoder(mel)
        return Seq2SeqOutput(logits=self.decoder(tokens, states), encoder_last_hidden_state=states)


def inputs():
    g = torch.Generator().manual_seed(14)
    return torch.randn(2, 8, 18, generator=g), torch.randint(0, 40, (2, 7), generator=g)


# The port ------------------------------------------------------------------------------------


class WhisperAttention(nn.Module):
    def __init__(self, embed_dim, num_heads):
        super().__init__()
        self.num_heads, self.head_dim = num_heads, embed_dim // num_heads
        self.scaling = self.head_dim ** -0.5
        self.k_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.v_proj = nn.Linear(embed_dim, embed_dim, bias=True)
        self.q_proj = nn.Linear(embed_dim, embed_dim, bias=True)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=True)

    def _shape(self, y):
        return y.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def forward(self, hidden_states, key_value_states=None, attention_mask=None):
        source = hidden_states if key_value_states is None else key_value_states
        query = self._shape(self.q_proj(hidden_states) * self.scaling)
        key = self._shape(self.k_proj(source))
        value = self._shape(self.v_proj(source))
        scores = torch.einsum("bhqd,bhkd->bhqk", query, key)
        if attention_mask is not None:
            scores = scores.masked_fill(attention_mask, torch.finfo(scores.dtype).min)
        mixed = torch.einsum("bhqk,bhkd->bqhd", scores.softmax(-1), value)
        mixed = mixed.reshape(*hidden_states.shape)
        return {"attn_output": self.out_proj(mixed)}


class EncoderLayer(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.self_attn = WhisperAttention(d, heads)
        self.self_attn_layer_norm = nn.LayerNorm(d)
        self.activation_fn = F.gelu
        self.fc1 = nn.Linear(d, 2 * d)
        self.fc2 = nn.Linear(2 * d, d)
        self.final_layer_norm = nn.LayerNorm(d)

    def forward(self, hidden_states):
        residual = hidden_states
        hidden_states = self.self_attn_layer_norm(hidden_states)
        hidden_states = residual + self.self_attn(hidden_states)["attn_output"]
        residual = hidden_states
        hidden_states = self.final_layer_norm(hidden_states)
        hidden_states = self.fc2(self.activation_fn(self.fc1(hidden_states)))
        return residual + hidden_states


class DecoderLayer(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.self_attn = WhisperAttention(d, heads)
        self.self_attn_layer_norm = nn.LayerNorm(d)
        self.encoder_attn = WhisperAttention(d, heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(d, eps=1e-5)
        self.fc1 = nn.Linear(d, 2 * d)
        self.fc2 = nn.Linear(2 * d, d)
        self.final_layer_norm = nn.LayerNorm(d)

    def forward(self, x, states, mask):
        y = self.self_attn(self.self_attn_layer_norm(x), attention_mask=mask)["attn_output"]
        x = x + y
        y = self.encoder_attn(self.encoder_attn_layer_norm(x), key_value_states=states)["attn_output"]
        x = x + y
        y = nn.functional.gelu(self.fc1(self.final_layer_norm(x)))
        return x + self.fc2(y)


class Encoder(nn.Module):
    def __init__(self, mels, d, heads, layers):
        super().__init__()
        self.conv1 = nn.Conv1d(mels, d, 3, padding=1)
        self.conv2 = nn.Conv1d(d, d, 3, stride=2, padding=1)
        self.layers = nn.ModuleList(EncoderLayer(d, heads) for _ in range(layers))
        self.layer_norm = nn.LayerNorm(d)

    def positions(self, x):
        half = x.shape[-1] // 2
        rates = 10000.0 ** (-torch.arange(half).to(x) / (half - 1))
        angles = torch.einsum("t,f->tf", torch.arange(x.shape[1]).to(x), rates)
        return torch.cat([angles.sin(), angles.cos()], -1)

    def forward(self, mel):
        y = F.gelu(self.conv1(mel))
        y = F.gelu(self.conv2(y))
        x = y.mT
        x = x + self.positions(x)
        for layer in self.layers:
            x = layer(x)
        return self.layer_norm(x)


class Decoder(nn.Module):
    def __init__(self, vocab, context, d, heads, layers):
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab, d)
        self.embed_positions = nn.Embedding(context, d)
        self.layers = nn.ModuleList(DecoderLayer(d, heads) for _ in range(layers))
        self.layer_norm = nn.LayerNorm(d)

    def forward(self, ids, states):
        places = torch.arange(ids.shape[1])
        x = self.embed_tokens(ids) + self.embed_positions(places)
        mask = places[None, :] > places[:, None]
        for index, layer in enumerate(self.layers):
            x = layer(x, states, mask)
        return F.linear(self.layer_norm(x), self.embed_tokens.weight)


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = Encoder(8, 24, 3, 2)
        self.decoder = Decoder(40, 12, 24, 3, 2)

    def forward(self, mel, tokens):
        states = self.encoder(mel)
        logits = self.decoder(tokens, states)
        return Seq2SeqOutput(logits, states)


def attention_names(port, original):
    return {f"{port}.{a}_proj": f"{original}.{b}" for a, b in (("q", "query"), ("k", "key"), ("v", "value"), ("out", "out"))}


NAMES = {
    "encoder.layer_norm": "encoder.ln_post",
    "decoder.layer_norm": "decoder.ln",
    "decoder.embed_tokens": "decoder.token_embedding",
    "decoder.embed_positions.weight": "decoder.positional_embedding",
}
for side in ("encoder", "decoder"):
    for k in range(2):
        p, o = f"{side}.layers.{k}", f"{side}.blocks.{k}"
        NAMES |= {p: o, f"{p}.self_attn": f"{o}.attn", f"{p}.self_attn_layer_norm": f"{o}.attn_ln",
                  f"{p}.final_layer_norm": f"{o}.mlp_ln", f"{p}.fc1": f"{o}.mlp.0", f"{p}.fc2": f"{o}.mlp.2"}
        NAMES |= attention_names(f"{p}.self_attn", f"{o}.attn")
        if side == "decoder":
            NAMES |= {f"{p}.encoder_attn": f"{o}.cross_attn", f"{p}.encoder_attn_layer_norm": f"{o}.cross_attn_ln"}
            NAMES |= attention_names(f"{p}.encoder_attn", f"{o}.cross_attn")

FAULTS = [
    Fault("scale_of_width", "self.scaling = self.head_dim ** -0.5", "self.scaling = embed_dim ** -0.5", "encoder.blocks.0.attn", "output", "scale"),
    Fault("heads_inner", "return y.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)", "return y.unflatten(-1, (self.head_dim, self.num_heads)).permute(0, 3, 1, 2)", "encoder.blocks.0.attn", "output", "heads"),
    Fault("keys_of_itself", "key = self._shape(self.k_proj(source))", "key = self._shape(self.k_proj(source)) if key_value_states is None else self._shape(self.k_proj(source).flip(1))", "decoder.blocks.0.cross_attn", "output", "operand"),
    Fault("sees_next", "mask = places[None, :] > places[:, None]", "mask = places[None, :] > places[:, None] + 1", "decoder", "output", "mask"),
    Fault("no_causal_mask_in_last", "x = layer(x, states, mask)", "x = layer(x, states, mask if index == 0 else None)", "decoder", "output", "mask"),
    Fault("conv2_padded_at_the_end", """class Encoder(nn.Module):
    def __init__(self, mels, d, heads, layers):
        super().__init__()
        self.conv1 = nn.Conv1d(mels, d, 3, padding=1)
        self.conv2 = nn.Conv1d(d, d, 3, stride=2, padding=1)""", """class SameConv(nn.Conv1d):
    def forward(self, y):
        return F.conv1d(F.pad(y, (0, 2)), self.weight, self.bias, self.stride)


class Encoder(nn.Module):
    def __init__(self, mels, d, heads, layers):
        super().__init__()
        self.conv1 = nn.Conv1d(mels, d, 3, padding=1)
        self.conv2 = SameConv(d, d, 3, stride=2)""", "encoder.conv2", "output", "padding"),
    Fault("stride_by_late_steps", "y = F.gelu(self.conv2(y))", "y = F.gelu(F.conv1d(y, self.conv2.weight, self.conv2.bias, padding=1)[..., 1::2])", "encoder", "output", "stride"),
    Fault("sinusoid_rates", "/ (half - 1))", "/ half)", "encoder", "output", "count"),
    Fault("sinusoids_cos_first", "[angles.sin(), angles.cos()]", "[angles.cos(), angles.sin()]", "encoder", "output", "order"),
    Fault("positions_offset_by_two", "+ self.embed_positions(places)", "+ self.embed_positions(places + 2)", "decoder", "output", "initial"),
    Fault("eps_of_encoder_attn_norm", "self.encoder_attn_layer_norm = nn.LayerNorm(d, eps=1e-5)", "self.encoder_attn_layer_norm = nn.LayerNorm(d, eps=1e-6)", "decoder.blocks.0.cross_attn_ln", "output", "eps"),
    Fault("gelu_of_tanh_in_decoder", "y = nn.functional.gelu(self.fc1(self.final_layer_norm(x)))", "y = nn.functional.gelu(self.fc1(self.final_layer_norm(x)), approximate=\"tanh\")", "decoder.blocks.0", "output", "approximate"),
    Fault("residual_of_normed", """        hidden_states = self.final_layer_norm(hidden_states)
""", """        residual = hidden_states = self.final_layer_norm(hidden_states)
""", "encoder.blocks.0", "output", "residual"),
    Fault("states_detached", "logits = self.decoder(tokens, states)", "logits = self.decoder(tokens, states.detach())", "", "gradient", "detached"),
    Fault("last_layer_gets_detached_states", "x = layer(x, states, mask)", "x = layer(x, states if index == 0 else states.detach(), mask)", "decoder", "gradient", "detached"),
    Fault("head_untied", "return F.linear(self.layer_norm(x), self.embed_tokens.weight)", "return F.linear(self.layer_norm(x), self.embed_tokens.weight.detach())", "decoder", "gradient", "untied"),
    Fault("positions_detached", "+ self.embed_positions(places)", "+ self.embed_positions(places).detach()", "decoder", "gradient", "detached"),
]

RIGHT = [
    Right("attention_of_torch", """        scores = torch.einsum("bhqd,bhkd->bhqk", query, key)
        if attention_mask is not None:
            scores = scores.masked_fill(attention_mask, torch.finfo(scores.dtype).min)
        mixed = torch.einsum("bhqk,bhkd->bqhd", scores.softmax(-1), value)
""", """        seen = None if attention_mask is None else ~attention_mask
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=1.0).transpose(1, 2)
"""),
    Right("loop_over_heads", """        mixed = torch.einsum("bhqk,bhkd->bqhd", scores.softmax(-1), value)
""", """        mixed = torch.cat([scores[:, h].softmax(-1).bmm(value[:, h]) for h in range(self.num_heads)], -1)
"""),
    Right("scores_by_baddbmm", """        scores = torch.einsum("bhqd,bhkd->bhqk", query, key)
        if attention_mask is not None:
            scores = scores.masked_fill(attention_mask, torch.finfo(scores.dtype).min)
""", """        floor = query.new_zeros(query.shape[2], key.shape[2])
        if attention_mask is not None:
            floor = floor.masked_fill(attention_mask, -1e9)
        scores = torch.baddbmm(floor, query.flatten(0, 1), key.flatten(0, 1).mT).unflatten(0, query.shape[:2])
"""),
    Right("conv2_by_unfold", "y = F.gelu(self.conv2(y))", """c = self.conv2
        windows = F.pad(y, (1, 1)).unfold(2, 3, 2)
        y = F.gelu(torch.einsum("bctk,dck->bdt", windows, c.weight) + c.bias[:, None])""", True, NAMES),
    Right("layers_checkpointed", "            x = layer(x)\n", "            x = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=True)\n"),
    Right("keys_and_values_in_one", """        self.k_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.v_proj = nn.Linear(embed_dim, embed_dim, bias=True)
        self.q_proj = nn.Linear(embed_dim, embed_dim, bias=True)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=True)
""", """        self.kv = nn.Parameter(torch.zeros(2 * embed_dim, embed_dim))
        self.v_bias = nn.Parameter(torch.zeros(embed_dim))
        self.q_proj = nn.Linear(embed_dim, embed_dim, bias=True)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=True)

    def k_proj(self, y):
        return y @ self.kv[:y.shape[-1]].mT

    def v_proj(self, y):
        return F.linear(y, self.kv[y.shape[-1]:], self.v_bias)
""", True, {a: b for a, b in NAMES.items() if ".k_proj" not in a and ".v_proj" not in a} | {
        f"{a}.{n}": t.format(b) for a, b in NAMES.items() if a.endswith("_attn")
        for n, t in (("kv", "cat({0}.key.weight, {0}.value.weight)"), ("v_bias", "{0}.value.bias"))}),
    Right("mlp_kept_transposed", """        self.fc1 = nn.Linear(d, 2 * d)
        self.fc2 = nn.Linear(2 * d, d)
        self.final_layer_norm = nn.LayerNorm(d)

    def forward(self, hidden_states):""", """        self.w1 = nn.Parameter(torch.zeros(d, 2 * d))
        self.b1 = nn.Parameter(torch.zeros(2 * d))
        self.fc2 = nn.Linear(2 * d, d)
        self.final_layer_norm = nn.LayerNorm(d)

    def fc1(self, y):
        return torch.addmm(self.b1, y.flatten(0, 1), self.w1).unflatten(0, y.shape[:2])

    def forward(self, hidden_states):""", True, {a: b for a, b in NAMES.items() if not (a.startswith("encoder") and a.endswith("fc1"))} | {
        f"encoder.layers.{k}.{n}": f"encoder.blocks.{k}.mlp.0.{t}" for k in range(2) for n, t in (("w1", "weight.T"), ("b1", "bias"))}),
    Right("additions_in_place", "        y = self.self_attn(self.self_attn_layer_norm(x), attention_mask=mask)[\"attn_output\"]\n        x = x + y", "        y = self.self_attn(self.self_attn_layer_norm(x), attention_mask=mask)[\"attn_output\"]\n        x = y.add_(x)"),
]
