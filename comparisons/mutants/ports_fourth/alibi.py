"""A causal language model with ALiBi in the manner of BLOOM in Hugging Face, in train mode with dropout, ported in nanoGPT's style."""

import math
from dataclasses import dataclass
from typing import Optional

import torch
import torch.nn.functional as F
from torch import nn

from ..ports.kinds import Fault, Right


@dataclass
class AlibiConfig:
    vocab_size: int = 48
    hidden_size: int = 48
    n_layer: int = 2
    n_head: int = 6
    layer_norm_epsilon: float = 1e-5
    hidden_dropout: float = 0.1
    pad_token_id: int = 0


@dataclass
class CausalLMOutput:
    loss: Optional[torch.Tensor] = None
    logits: Optional[torch.Tensor] = None


def build_alibi(attention_mask, heads, dtype):
    closest = 2 ** math.floor(math.log2(heads))
    base = 2 ** (-(2 ** -(math.log2(closest) - 3)))
    slopes = [base ** i for i in range(1, closest + 1)]
    if closest != heads:
        extra = 2 ** (-(2 ** -(math.log2(2 * closest) - 3)))
        slopes += [extra ** i for i in range(1, 1 + 2 * min(closest, heads - closest), 2)]
    position = ((attention_mask.cumsum(-1) - 1) * attention_mask)[:, None, :]
    return (torch.tensor(slopes, dtype=torch.float64)[None, :, None] * position)[:, :, None, :].to(dtype)


class BloomGelu(nn.Module):
    def forward(self, x):
        return x * 0.5 * (1.0 + torch.tanh(0.79788456 * x * (1 + 0.044715 * x * x)))


class BloomMLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, 2 * config.hidden_size)
        self.gelu_impl = BloomGelu()
        self.dense_4h_to_h = nn.Linear(2 * config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, hidden_states, residual):
        x = self.dense_4h_to_h(self.gelu_impl(self.dense_h_to_4h(hidden_states)))
        return residual + self.dropout(x)


class BloomAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads = config.n_head
        self.head_dim = config.hidden_size // config.n_head
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, hidden_states, residual, alibi=None, attention_mask=None):
        b, t, c = hidden_states.shape
        fused = self.query_key_value(hidden_states).view(b, t, self.heads, 3, self.head_dim)
        q, k, v = (fused[..., i, :].transpose(1, 2) for i in range(3))
        scores = q @ k.transpose(-1, -2) / math.sqrt(self.head_dim) + alibi
        probs = F.softmax(scores + attention_mask, dim=-1)
        context = (probs @ v).transpose(1, 2).reshape(b, t, c)
        return residual + self.dropout(self.dense(context)), probs


class BloomBlock(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.self_attention = BloomAttention(config)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.mlp = BloomMLP(config)

    def forward(self, hidden_states, alibi=None, attention_mask=None):
        normed = self.input_layernorm(hidden_states)
        attended, probs = self.self_attention(normed, hidden_states, alibi=alibi, attention_mask=attention_mask)
        return self.mlp(self.post_attention_layernorm(attended), attended), probs


class BloomModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.word_embeddings_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.h = nn.ModuleList([BloomBlock(config) for _ in range(config.n_layer)])
        self.ln_f = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        nn.init.normal_(self.word_embeddings.weight, std=0.1)

    def forward(self, input_ids, attention_mask):
        x = self.word_embeddings_layernorm(self.word_embeddings(input_ids))
        t = input_ids.shape[1]
        alibi = build_alibi(attention_mask, self.config.n_head, x.dtype)
        allowed = torch.ones(t, t, dtype=torch.bool).tril() & attention_mask[:, None, None, :].bool()
        added = torch.zeros(allowed.shape, dtype=x.dtype).masked_fill(~allowed, torch.finfo(x.dtype).min)
        for block in self.h:
            x, _ = block(x, alibi=alibi, attention_mask=added)
        return self.ln_f(x)


class Original(nn.Module):
    def __init__(self, config=None):
        super().__init__()
        config = config or AlibiConfig()
        self.transformer = BloomModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.lm_head.weight = self.transformer.word_embeddings.weight

    def forward(self, input_ids, attention_mask, labels=None):
        logits = self.lm_head(self.transformer(input_ids, attention_mask))
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        return CausalLMOutput(loss=loss, logits=logits)


def inputs():
    g = torch.Generator().manual_seed(21)
    ids = torch.randint(1, 48, (2, 12), generator=g)
    mask = torch.ones(2, 12, dtype=torch.long)
    mask[1, 9:] = 0
    ids[1, 9:] = 0
    labels = ids.masked_fill(mask == 0, -100)
    return ids, mask, labels


# The port ------------------------------------------------------------------------------------


class Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return 0.5 * x * (1 + torch.tanh(0.79788456 * (x + 0.044715 * x ** 3)))

    @staticmethod
    def backward(ctx, grad):
        x, = ctx.saved_tensors
        t = torch.tanh(0.79788456 * (x + 0.044715 * x ** 3))
        inner = 0.79788456 * (1 + 3 * 0.044715 * x * x)
        return grad * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * inner)


class MLP(nn.Module):
    def __init__(self, n, p):
        super().__init__()
        self.p = p
        self.dense_h_to_4h = nn.Linear(n, 2 * n)
        self.dense_4h_to_h = nn.Linear(2 * n, n)

    def forward(self, x, skip):
        h = self.dense_4h_to_h(Gelu.apply(self.dense_h_to_4h(x)))
        return F.dropout(h, self.p, self.training) + skip


class CausalAttention(nn.Module):
    """Takes the slopes and a boolean mask, true where a query may look; gives the stream alone, without weights."""

    def __init__(self, n, heads, p):
        super().__init__()
        self.heads, self.p = heads, p
        self.query_key_value = nn.Linear(n, 3 * n)
        self.dense = nn.Linear(n, n)

    def forward(self, x, skip, seen, slopes):
        b, t, n = x.shape
        qkv = self.query_key_value(x).view(b, t, self.heads, 3, n // self.heads)
        q, k, v = qkv.permute(3, 0, 2, 1, 4)
        att = (q @ k.mT) * (n // self.heads) ** -0.5
        distance = torch.arange(t)[None, :] - torch.arange(t)[:, None]
        att = att + slopes[:, None, None] * distance
        att = att.masked_fill(~seen, float("-inf")).softmax(-1)
        y = (att @ v).transpose(1, 2).reshape(b, t, n)
        y = self.dense(y)
        return F.dropout(y, p=self.p, training=self.training) + skip


class Block(nn.Module):
    def __init__(self, n, heads, p):
        super().__init__()
        self.ln_1 = nn.LayerNorm(n)
        self.attn = CausalAttention(n, heads, p)
        self.ln_2 = nn.LayerNorm(n)
        self.mlp = MLP(n, p)

    def forward(self, x, seen, slopes):
        normed = self.ln_1(x)
        x = self.attn(normed, x, seen, slopes)
        normed = self.ln_2(x)
        return self.mlp(normed, x)


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(48, 48, padding_idx=0)
        self.ln_e = nn.LayerNorm(48)
        self.h = nn.ModuleList([Block(48, 6, 0.1), Block(48, 6, 0.1)])
        self.ln_f = nn.LayerNorm(48)
        self.lm_head = nn.Linear(48, 48, bias=False)
        self.lm_head.weight = self.wte.weight

    def slopes(self, heads):
        n = 2 ** int(math.log2(heads))
        slopes = [2.0 ** (-8.0 * (i + 1) / n) for i in range(n)]
        slopes += [2.0 ** (-4.0 * (2 * i + 1) / n) for i in range(heads - n)]
        return torch.tensor(slopes, dtype=torch.float64)

    def forward(self, idx, keep, targets):
        b, t = idx.shape
        x = self.ln_e(self.wte(idx))
        causal = torch.tril(torch.ones(t, t, dtype=torch.bool))
        seen = causal[None, None] & keep.bool()[:, None, None]
        slopes = self.slopes(6).to(x)
        for block in self.h:
            x = block(x, seen, slopes)
        x = self.ln_f(x)
        logits = self.lm_head(x)
        guess, wanted = logits[:, :-1], targets[:, 1:]
        loss = F.cross_entropy(guess.transpose(1, 2), wanted, ignore_index=-100)
        return CausalLMOutput(loss, logits)


NAMES = {"wte": "transformer.word_embeddings", "ln_e": "transformer.word_embeddings_layernorm", "ln_f": "transformer.ln_f"}
for _i in range(2):
    NAMES[f"h.{_i}"] = f"transformer.h.{_i}"
    NAMES[f"h.{_i}.ln_1"] = f"transformer.h.{_i}.input_layernorm"
    NAMES[f"h.{_i}.ln_2"] = f"transformer.h.{_i}.post_attention_layernorm"
    NAMES[f"h.{_i}.attn"] = f"transformer.h.{_i}.self_attention"

FAULTS = [
    Fault("eps_of_embedding_norm", "self.ln_e = nn.LayerNorm(48)", "self.ln_e = nn.LayerNorm(48, eps=1e-6)",
          "transformer.word_embeddings_layernorm", "output", "eps"),
    Fault("exact_gelu", "h = self.dense_4h_to_h(Gelu.apply(self.dense_h_to_4h(x)))", "h = self.dense_4h_to_h(F.gelu(self.dense_h_to_4h(x)))",
          "transformer.h.0.mlp", "output", "approximate"),
    Fault("gelu_derivative_short", "inner = 0.79788456 * (1 + 3 * 0.044715 * x * x)", "inner = 0.79788456 * (1 + 0.044715 * x * x)",
          "transformer.h.0.mlp", "gradient", "missing"),
    Fault("qkv_outside_heads", """.view(b, t, self.heads, 3, n // self.heads)
        q, k, v = qkv.permute(3, 0, 2, 1, 4)
""", """.view(b, t, 3, self.heads, n // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
""", "transformer.h.0.self_attention", "output", "heads"),
    Fault("scores_over_width", "(n // self.heads) ** -0.5", "n ** -0.5", "transformer.h.0.self_attention", "output", "scale"),
    Fault("bias_scaled_too", "        att = att + slopes[:, None, None] * distance\n",
          "        att = att + slopes[:, None, None] * distance * (n // self.heads) ** -0.5\n", "transformer.h.0.self_attention", "output", "scale"),
    Fault("no_bias_of_distance", "        att = att + slopes[:, None, None] * distance\n", "", "transformer.h.0.self_attention", "output", "missing"),
    Fault("dense_bias_missing", "        y = self.dense(y)\n", "        y = y @ self.dense.weight.T\n", "transformer.h.0.self_attention", "output", "missing"),
    Fault("causal_off_by_one", "torch.tril(torch.ones(t, t, dtype=torch.bool))", "torch.tril(torch.ones(t, t, dtype=torch.bool), 1)", "", "output", "mask"),
    Fault("padding_seen", "seen = causal[None, None] & keep.bool()[:, None, None]", "seen = causal[None, None] | ~keep.bool()[:, None, None]", "", "output", "mask"),
    Fault("residual_after_norm", "x = self.attn(normed, x, seen", "x = self.attn(normed, normed, seen",
          "transformer.h.0", "output", "residual"),
    Fault("mlp_without_dropout", "F.dropout(h, self.p, self.training)", "F.dropout(h, self.p, False)", "transformer.h.0.mlp", "output", "mode"),
    Fault("second_block_dropout", "Block(48, 6, 0.1), Block(48, 6, 0.1)", "Block(48, 6, 0.1), Block(48, 6, 0.2)", "transformer.h.1.self_attention", "output", "mode"),
    Fault("second_norm_of_stream", "self.mlp(normed, x)", "self.mlp(x, x)", "transformer.h.0", "output", "operand"),
    Fault("padding_row_trained", "self.wte = nn.Embedding(48, 48, padding_idx=0)", "self.wte = nn.Embedding(48, 48)", "transformer.word_embeddings", "gradient", "padding"),
    Fault("head_untied", "logits = self.lm_head(x)", "logits = x @ self.wte.weight.detach().T", "", "gradient", "untied"),
    Fault("loss_over_all", "loss = F.cross_entropy(guess.transpose(1, 2), wanted, ignore_index=-100)",
          "loss = F.cross_entropy(guess.transpose(1, 2), wanted, ignore_index=-100, reduction=\"none\").mean()", "", "output", "count"),
    Fault("loss_unshifted", "guess, wanted = logits[:, :-1], targets[:, 1:]", "guess, wanted = logits, targets", "", "output", "operand"),
    Fault("scores_detached", "att = (q @ k.mT) *", "att = (q @ k.mT).detach() *", "transformer.h.0.self_attention", "gradient", "detached"),
    Fault("mask_leaks", "att.masked_fill(~seen, float(\"-inf\"))", "att.masked_fill(~seen, -10.0)", "transformer.h.0.self_attention", "output", "mask"),
    Fault("eps_of_last_norm", "self.ln_f = nn.LayerNorm(48)", "self.ln_f = nn.LayerNorm(48, eps=1e-6)", "transformer.ln_f", "output", "eps"),
]

RIGHT = [
    Right("scaled_dot_product", """        att = (q @ k.mT) * (n // self.heads) ** -0.5
        distance = torch.arange(t)[None, :] - torch.arange(t)[:, None]
        att = att + slopes[:, None, None] * distance
        att = att.masked_fill(~seen, float("-inf")).softmax(-1)
        y = (att @ v).transpose(1, 2).reshape(b, t, n)
""", """        bias = slopes[:, None, None] * torch.arange(t)
        bias = bias.expand(b, -1, t, -1).masked_fill(~seen, float("-inf"))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2)
"""),
    Right("heads_in_a_loop", """        att = (q @ k.mT) * (n // self.heads) ** -0.5
        distance = torch.arange(t)[None, :] - torch.arange(t)[:, None]
        att = att + slopes[:, None, None] * distance
        att = att.masked_fill(~seen, float("-inf")).softmax(-1)
        y = (att @ v).transpose(1, 2).reshape(b, t, n)
""", """        parts = []
        for i in range(self.heads):
            att = torch.baddbmm((slopes[i] * torch.arange(t)).expand(b, t, t), q[:, i], k[:, i].mT, alpha=(n // self.heads) ** -0.5)
            e = torch.exp(att - att.amax(-1, keepdim=True)) * seen[:, 0]
            parts.append(e @ v[:, i] / e.sum(-1, keepdim=True))
        y = torch.cat(parts, -1)
"""),
    Right("three_products", "        qkv = self.query_key_value(x).view(b, t, self.heads, 3, n // self.heads)\n        q, k, v = qkv.permute(3, 0, 2, 1, 4)\n",
          """        w = self.query_key_value.weight.view(self.heads, 3, -1, n)
        c = self.query_key_value.bias.view(self.heads, 3, -1)
        q, k, v = (torch.einsum("btn,hdn->bhtd", x, w[:, i]) + c[:, i, None] for i in range(3))
""", True),
    Right("mlp_in_two_parts", "        h = self.dense_4h_to_h(Gelu.apply(self.dense_h_to_4h(x)))\n",
          """        h = self.dense_4h_to_h.bias
        for a, c, w in zip(self.dense_h_to_4h.weight.chunk(2), self.dense_h_to_4h.bias.chunk(2), self.dense_4h_to_h.weight.chunk(2, 1)):
            h = h + F.linear(Gelu.apply(F.linear(x, a, c)), w)
""", True),
    Right("gelu_composed", "Gelu.apply(self.dense_h_to_4h(x))", "(lambda u: u * torch.sigmoid(2 * 0.79788456 * (u + 0.044715 * u.pow(3))))(self.dense_h_to_4h(x))"),
    Right("loss_by_hand", "        loss = F.cross_entropy(guess.transpose(1, 2), wanted, ignore_index=-100)\n",
          """        real = wanted != -100
        log = guess - guess.logsumexp(-1, keepdim=True)
        loss = -(log.gather(-1, wanted.clamp(min=0)[..., None])[..., 0] * real).sum() / real.sum()
"""),
    Right("first_norm_by_hand", "        normed = self.ln_1(x)\n",
          """        var, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
        normed = torch.addcmul(self.ln_1.bias, (x - mean) / (var + 1e-5).sqrt(), self.ln_1.weight)
""", True),
    Right("head_in_blocks", "logits = self.lm_head(x)", "logits = torch.cat([x @ w.T for w in self.wte.weight.split(10)], -1)", True),
]
