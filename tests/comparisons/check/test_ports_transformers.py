"""Models of transformers, random and small, and ports of them as textbooks have them: right ones
are right, and 27 planted faults are found. Written down before they were first run."""

import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gradtwin import check, record_module

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install -e '.[transformers]'"
)
WORDS, WIDTH, HEADS, GROUPS, HIDDEN, LAYERS = 23, 24, 4, 2, 40, 2
# Libraries warn of settings of their own.
pytestmark = pytest.mark.filterwarnings("ignore")


def tokens(seed, length=7):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, WORDS, (2, length), generator=generator)


def randomized(model):
    """Biases of 0 and weights of 1 hide what is done with them; and nothing is drawn."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(p + 0.3 * noise if p.ndim == 1 else noise / p.shape[-1] ** 0.5)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model.train()


def heads_of(x, heads):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def joined(x):
    return x.transpose(1, 2).flatten(2)


class CausalAttention(nn.Module):
    """Of GPT-2, with a mask in a buffer."""

    def __init__(self):
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.register_buffer("mask", torch.ones(32, 32).tril(), persistent=False)

    split = staticmethod(lambda x: heads_of(x, HEADS))

    def forward(self, x):
        q, k, v = map(self.split, self.c_attn(x).split(WIDTH, 2))
        return self.c_proj(joined(self.scores(q, k, x.shape[1]).softmax(-1) @ v))

    def scores(self, q, k, t):
        scores = q @ k.transpose(-2, -1) * (1.0 / math.sqrt(k.size(-1)))
        return scores.masked_fill(self.mask[:t, :t] == 0, float("-inf"))


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    act = staticmethod(lambda x: F.gelu(x, approximate="tanh"))

    def forward(self, x):
        return self.c_proj(self.act(self.c_fc(x)))


class Block(nn.Module):
    eps = 1e-5

    def __init__(self):
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(WIDTH, eps=self.eps), CausalAttention()
        self.ln_2, self.mlp = nn.LayerNorm(WIDTH, eps=self.eps), Mlp()

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Gpt(nn.Module):
    tied, first = True, 0

    def __init__(self):
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(WORDS, WIDTH),
                "wpe": nn.Embedding(32, WIDTH),
                "h": nn.ModuleList(Block() for _ in range(LAYERS)),
                "ln_f": nn.LayerNorm(WIDTH),
            }
        )
        self.lm_head = nn.Linear(WIDTH, WORDS, bias=False)
        if self.tied:
            self.lm_head.weight = self.transformer.wte.weight

    def forward(self, input_ids, labels):
        places = torch.arange(self.first, self.first + input_ids.shape[1])
        x = self.transformer.wte(input_ids) + self.transformer.wpe(places)
        for block in self.transformer.h:
            x = block(x)
        logits = self.lm_head(self.transformer.ln_f(x))
        return self.loss(logits, labels), logits

    def loss(self, logits, labels):
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


class RmsNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(WIDTH)), 1e-6

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class Rotating(nn.Module):
    """Attention of Llama."""

    base, causal, size = 10000.0, True, WIDTH // HEADS

    def __init__(self):
        super().__init__()
        self.wq, self.wo = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2))
        self.wk, self.wv = (nn.Linear(WIDTH, GROUPS * self.size, bias=False) for _ in range(2))

    def angles(self, t):
        rates = self.base ** (-torch.arange(self.size // 2).float() * 2 / self.size)
        return torch.outer(torch.arange(t).float(), rates)

    def rotate(self, x):
        cos, sin = self.angles(x.shape[2]).cos(), self.angles(x.shape[2]).sin()
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def repeat(self, x):
        return x.repeat_interleave(HEADS // GROUPS, dim=1)

    def forward(self, x):
        q, k, v = heads_of(self.wq(x), HEADS), heads_of(self.wk(x), GROUPS), self.wv(x)
        k, v = self.repeat(self.rotate(k)), self.repeat(heads_of(v, GROUPS))
        y = F.scaled_dot_product_attention(self.rotate(q), k, v, is_causal=self.causal)
        return self.wo(joined(y))


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.w1, self.w3 = (nn.Linear(WIDTH, HIDDEN, bias=False) for _ in range(2))
        self.w2 = nn.Linear(HIDDEN, WIDTH, bias=False)

    def forward(self, x):
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class LlamaBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention_norm, self.attention = RmsNorm(), Rotating()
        self.ffn_norm, self.feed_forward = RmsNorm(), Gated()

    def forward(self, x):
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.ffn_norm(x))


class Llama(nn.Module):
    def __init__(self):
        super().__init__()
        self.tok_embeddings = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.ModuleList(LlamaBlock() for _ in range(LAYERS))
        self.norm, self.output = RmsNorm(), nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, input_ids):
        x = self.tok_embeddings(input_ids)
        for layer in self.layers:
            x = layer(x)
        return self.output(self.norm(x))


class Embeddings(nn.Module):
    """Of BERT."""

    def __init__(self):
        super().__init__()
        self.word_embeddings = nn.Embedding(WORDS, WIDTH, padding_idx=0)
        self.position_embeddings = nn.Embedding(32, WIDTH)
        self.token_type_embeddings = nn.Embedding(2, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, input_ids, token_type_ids):
        x = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids)
        return self.LayerNorm(x + self.position_embeddings(torch.arange(input_ids.shape[1])))


class Both(nn.Module):
    """Attention of BERT, to both sides."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x, mask):
        q, k, v = (heads_of(f(x), HEADS) for f in (self.query, self.key, self.value))
        return joined(self.scores(q, k, mask).softmax(-1) @ v)

    def scores(self, q, k, mask):
        return q @ k.mT / math.sqrt(WIDTH // HEADS) + mask


class AddNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.dense, self.LayerNorm = nn.Linear(width, WIDTH), nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, x, residual):
        return self.LayerNorm(self.dense(x) + residual)


class BertAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.self, self.output = Both(), AddNorm(WIDTH)

    def forward(self, x, mask):
        return self.output(self.self(x, mask), x)


class Intermediate(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(WIDTH, HIDDEN)

    def forward(self, x):
        return F.gelu(self.dense(x))


class BertLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.intermediate = BertAttention(), Intermediate()
        self.output = AddNorm(HIDDEN)

    def forward(self, x, mask):
        x = self.attention(x, mask)
        return self.output(self.intermediate(x), x)


class Transform(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense, self.LayerNorm = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, x):
        return self.LayerNorm(F.gelu(self.dense(x)))


class Bert(nn.Module):
    def __init__(self):
        super().__init__()
        self.embeddings, self.head = Embeddings(), Transform()
        self.layers = nn.ModuleList(BertLayer() for _ in range(LAYERS))
        self.bias = nn.Parameter(torch.zeros(WORDS))

    def forward(self, input_ids, attention_mask, token_type_ids, labels):
        mask = (1.0 - attention_mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
        x = self.embeddings(input_ids, token_type_ids)
        for layer in self.layers:
            x = layer(x, mask)
        logits = F.linear(self.head(x), self.embeddings.word_embeddings.weight, self.bias)
        return {"loss": self.loss(logits.view(-1, WORDS), labels.view(-1)), "logits": logits}

    def loss(self, logits, labels):
        return F.cross_entropy(logits, labels, ignore_index=-100)


def gpt2(**settings):
    size = {"vocab_size": WORDS, "n_positions": 32, "n_embd": WIDTH, "n_layer": LAYERS}
    ends = {"n_head": HEADS, "bos_token_id": 1, "eos_token_id": 2}
    config = transformers.GPT2Config(**size, **ends, **settings)
    return randomized(transformers.GPT2LMHeadModel(config))


SIZE = {
    **{"vocab_size": WORDS, "hidden_size": WIDTH, "intermediate_size": HIDDEN},
    **{"num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "max_position_embeddings": 32},
}


def llama(**settings):
    config = transformers.LlamaConfig(**SIZE, num_key_value_heads=GROUPS, **settings)
    return randomized(transformers.LlamaForCausalLM(config))


def bert(**settings):
    return randomized(transformers.BertForMaskedLM(transformers.BertConfig(**SIZE, **settings)))


def masked():
    labels, mask, types = tokens(3), torch.ones(2, 7, dtype=torch.long), torch.zeros(2, 7)
    labels[0, :3], mask[1, 5:], types[:, 4:] = -100, 0, 1
    ids = {"input_ids": tokens(1), "attention_mask": mask, "labels": labels}
    return {**ids, "token_type_ids": types.long()}


TURNED = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
OF_BLOCK = {
    **{"attention": "self_attn", "feed_forward": "mlp"},
    **{"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"},
    **{f"attention.w{n}": f"self_attn.{n}_proj" for n in "qkvo"},
    **{"feed_forward.w1": "mlp.gate_proj", "feed_forward.w2": "mlp.down_proj"},
    "feed_forward.w3": "mlp.up_proj",
}
LLAMA = {"tok_embeddings": "model.embed_tokens", "norm": "model.norm", "output": "lm_head"}
for _i in range(LAYERS):
    _other = f"model.layers.{_i}"
    LLAMA |= {f"layers.{_i}": _other}
    LLAMA |= {f"layers.{_i}.{ours}": f"{_other}.{theirs}" for ours, theirs in OF_BLOCK.items()}
GPT = {
    f"transformer.h.{i}.{name}.weight": f"transformer.h.{i}.{name}.weight.T"
    for i in range(LAYERS)
    for name in TURNED
}
BERT = {
    **{f"layers.{i}": f"bert.encoder.layer.{i}" for i in range(LAYERS)},
    **{"embeddings": "bert.embeddings", "head": "cls.predictions.transform"},
    "bias": "cls.predictions.bias",
}
MODELS = {
    "gpt2": (Gpt, gpt2, GPT, {"input_ids": tokens(1), "labels": tokens(1)}),
    "llama": (Llama, llama, LLAMA, {"input_ids": tokens(2)}),
    "bert": (Bert, bert, BERT, masked()),
}


def checked(model, port=None, **names):
    kind, original, own, settings = MODELS[model]
    made = port or kind()
    return check(made, original(), settings=settings, names=names.get("names", own))


@pytest.mark.parametrize("model", MODELS)
def test_a_right_port_is_right(model):
    report = checked(model)
    assert report.passed, str(report)
    assert not report.warnings
    assert "" in set(report.table[report.table["class"] == "rounding"]["place"])


def off_by_one(self, q, k, t):
    scores = q @ k.transpose(-2, -1) / math.sqrt(k.size(-1))
    return scores.masked_fill(torch.ones(t, t).tril(1) == 0, float("-inf"))


def unscaled(self, q, k, t):
    return (q @ k.transpose(-2, -1)).masked_fill(self.mask[:t, :t] == 0, float("-inf"))


def after_norm(self, x):
    x = self.ln_1(x)
    x = x + self.attn(x)
    return x + self.mlp(self.ln_2(x))


def of_all(self, logits, labels):
    rows = logits[:, :-1].flatten(0, 1)
    return F.cross_entropy(rows, labels[:, 1:].flatten(), reduction="sum") / labels.numel()


def by_pairs(self, x):
    turn = torch.polar(torch.ones(()), self.angles(x.shape[2]))
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turn).flatten(-2).type_as(x)


def keys_as_they_are(self, x):
    q, k, v = heads_of(self.wq(x), HEADS), heads_of(self.wk(x), GROUPS), self.wv(x)
    k, v = self.repeat(k), self.repeat(heads_of(v, GROUPS))
    return self.wo(joined(F.scaled_dot_product_attention(self.rotate(q), k, v, is_causal=True)))


def centered(self, x):
    x = x - x.mean(-1, keepdim=True)
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


def eps_outside(self, x):
    return x / (x.pow(2).mean(-1, keepdim=True).sqrt() + self.eps) * self.weight


def statistics_detached(self, x):
    size = x.detach().pow(2).mean(-1, keepdim=True)
    return x * torch.rsqrt(size + self.eps) * self.weight


def exchanged(self, x, mask):
    q, k, v = (heads_of(f(x), HEADS) for f in (self.key, self.query, self.value))
    return joined(self.scores(q, k, mask).softmax(-1) @ v)


def residual_detached(self, x, mask):
    x = self.attention(x, mask)
    return self.output(self.intermediate(x), x.detach())


def without_types(self, input_ids, token_type_ids):
    x = self.word_embeddings(input_ids)
    return self.LayerNorm(x + self.position_embeddings(torch.arange(input_ids.shape[1])))


HEADS_FIRST = staticmethod(lambda x: x.unflatten(-1, (-1, HEADS)).permute(0, 3, 1, 2))
IN_GPT, IN_LLAMA, IN_BERT = "transformer.h.0", "model.layers.0", "bert.encoder.layer.0"
# What is changed in which class, and where the innermost such place is.
FAULTS = {
    "no scale": ("gpt2", CausalAttention, "scores", unscaled, f"{IN_GPT}.attn"),
    "mask off by one": ("gpt2", CausalAttention, "scores", off_by_one, f"{IN_GPT}.attn"),
    "heads": ("gpt2", CausalAttention, "split", HEADS_FIRST, f"{IN_GPT}.attn"),
    "exact gelu": ("gpt2", Mlp, "act", staticmethod(F.gelu), f"{IN_GPT}.mlp"),
    "eps": ("gpt2", Block, "eps", 1e-6, f"{IN_GPT}.ln_1"),
    "residual after the norm": ("gpt2", Block, "forward", after_norm, IN_GPT),
    "mean over all": ("gpt2", Gpt, "loss", of_all, ""),
    "untied": ("gpt2", Gpt, "tied", False, ""),
    "from 1": ("gpt2", Gpt, "first", 1, ""),
    "pairs": ("llama", Rotating, "rotate", by_pairs, f"{IN_LLAMA}.self_attn"),
    "base": ("llama", Rotating, "base", 500000.0, f"{IN_LLAMA}.self_attn"),
    "tiled": (
        *("llama", Rotating, "repeat", lambda self, x: x.repeat(1, HEADS // GROUPS, 1, 1)),
        f"{IN_LLAMA}.self_attn",
    ),
    "keys not rotated": (
        *("llama", Rotating, "forward", keys_as_they_are),
        f"{IN_LLAMA}.self_attn",
    ),
    "not causal": ("llama", Rotating, "causal", False, f"{IN_LLAMA}.self_attn"),
    "gelu": (
        *("llama", Gated, "forward", lambda self, x: self.w2(F.gelu(self.w1(x)) * self.w3(x))),
        f"{IN_LLAMA}.mlp",
    ),
    "gate": (
        *("llama", Gated, "forward", lambda self, x: self.w2(self.w1(x) * F.silu(self.w3(x)))),
        f"{IN_LLAMA}.mlp",
    ),
    "centered": ("llama", RmsNorm, "forward", centered, f"{IN_LLAMA}.input_layernorm"),
    "eps outside": ("llama", RmsNorm, "forward", eps_outside, f"{IN_LLAMA}.input_layernorm"),
    "statistics": ("llama", RmsNorm, "forward", statistics_detached, f"{IN_LLAMA}.input_layernorm"),
    "no padding mask": (
        *("bert", Both, "scores", lambda self, q, k, mask: q @ k.mT / math.sqrt(WIDTH // HEADS)),
        f"{IN_BERT}.attention.self",
    ),
    "query and key": ("bert", Both, "forward", exchanged, f"{IN_BERT}.attention.self"),
    "gelu by tanh": (
        *("bert", Intermediate, "forward"),
        lambda self, x: F.gelu(self.dense(x), approximate="tanh"),
        f"{IN_BERT}.intermediate",
    ),
    "ignored labels": (
        *("bert", Bert, "loss", lambda self, a, labels: F.cross_entropy(a, labels.clamp(min=0))),
        "",
    ),
    "norm first": (
        *("bert", Transform, "forward", lambda self, x: F.gelu(self.LayerNorm(self.dense(x)))),
        "cls.predictions.transform",
    ),
    "residual detached": ("bert", BertLayer, "forward", residual_detached, IN_BERT),
    "no types": ("bert", Embeddings, "forward", without_types, "bert.embeddings"),
}
CAUSES = {
    **{"no scale": "scale", "mask off by one": "mask", "exact gelu": "approximate", "eps": "eps"},
    **{"mean over all": "count", "untied": "untied", "base": "rope"},
    **{"not causal": "mask", "gelu": "activation", "gate": "operand", "eps outside": "eps"},
    **{"residual after the norm": "residual", "statistics": "detached", "norm first": "order"},
    **{"no padding mask": "mask", "query and key": "operand", "gelu by tanh": "approximate"},
    "residual detached": "detached",
}


def is_around(place, inner):
    return place == inner or not place or inner.startswith(f"{place}.")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault, monkeypatch):
    model, kind, name, wrong, place = FAULTS[fault]
    monkeypatch.setattr(kind, name, wrong)
    report = checked(model)
    assert not report.passed
    assert is_around(report.failed.iloc[0]["place"], place), report.first
    if fault in CAUSES:
        assert report.cause is not None, str(report)
        assert report.cause.name == CAUSES[fault], str(report.cause)


def test_a_weight_that_is_not_transposed():
    names = {ours: theirs for ours, theirs in GPT.items() if "h.1.attn.c_proj" not in ours}
    report = checked("gpt2", names=names)
    assert report.first == "output in transformer.h.1.attn.c_proj"
    assert report.cause.name == "transposed"


@pytest.mark.parametrize("model", MODELS)
def test_a_model_is_itself_however_it_is_run(model, tmp_path):
    """With a cache or without, checkpointed, by a record; and all that is in it is judged."""
    _, made, _, settings = MODELS[model]
    saving = made()
    saving.gradient_checkpointing_enable()
    hidden = settings | {"output_hidden_states": True}
    pairs = [(made(), made(), settings), (made(), saving, settings), (made(), made(), hidden)]
    if model != "bert":
        pairs.append((made(), made(), settings | {"use_cache": False}))
    for port, original, given in pairs:
        report = check(port, original, settings=given)
        assert report.passed, str(report)
        assert "n/a" not in set(report.table["class"]), str(report)
    path = record_module(made(), tmp_path / "old.npz", (), settings)
    assert check(made(), path).passed
    wrong = made()
    for module in wrong.modules():
        for name in {"eps", "variance_epsilon"} & vars(module).keys():
            setattr(module, name, 1e-3)
    assert check(wrong, path).cause.name == "eps"


@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_a_cache_that_is_filled(model):
    _, made, _, _ = MODELS[model]
    name = "cache" if "cache" in inspect.signature(made().forward).parameters else "past_key_values"
    with torch.no_grad():
        cache = made()(tokens(4), use_cache=True)[name]
    length = cache.get_seq_length()
    given = {"input_ids": tokens(5, 3), name: cache}
    report = check(made(), made(), settings=given)
    assert report.passed, str(report)
    assert "n/a" not in set(report.table["class"])
    assert cache.get_seq_length() == length
    wrong = made()
    for module in wrong.modules():
        if hasattr(module, "scaling") and hasattr(module, "layer_idx"):
            module.scaling *= 1.01
    report = check(wrong, made(), settings=given)
    assert report.first.startswith("output in")
    assert report.cause.name == "scale"
