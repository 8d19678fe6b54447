"""What people have trained with torch is loaded into a model, and goes back."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gradtwin.comparisons import ops
from gradtwin.comparisons.verdict.classes import IDENTICAL, ROUNDING
from gradtwin.comparisons.verdict.judge import judge
from gradtwin.reference.models.state_dicts import from_state_dict, to_state_dict
from torch import nn

V, C, T = 11, 8, 6


class Char(nn.Module):
    def __init__(self, name, network):
        super().__init__()
        self.name = name
        self.embedding = nn.Embedding(V, 5)
        self.add_module(name, network(5, C, 2, batch_first=True))
        self.linear = nn.Linear(C, V)

    def forward(self, tokens):
        h, _ = getattr(self, self.name)(self.embedding(tokens))
        return self.linear(h)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(C, 3 * C), nn.Linear(C, C)

    def forward(self, x):
        q, k, v = (a.view(*x.shape[:2], 2, -1).transpose(1, 2) for a in self.c_attn(x).split(C, 2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).reshape(x.shape))


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)

    def forward(self, x):
        return self.c_proj(F.gelu(self.c_fc(x)))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.attn, self.ln_2, self.mlp = (
            *(nn.LayerNorm(C), Attention(), nn.LayerNorm(C), MLP()),
        )

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        parts = {"wte": nn.Embedding(V, C), "wpe": nn.Embedding(T, C)}
        parts |= {"h": nn.ModuleList([Block(), Block()]), "ln_f": nn.LayerNorm(C)}
        self.transformer = nn.ModuleDict(parts)
        self.lm_head = nn.Linear(C, V, bias=False)
        self.lm_head.weight = self.transformer.wte.weight

    def forward(self, tokens):
        x = self.transformer.wte(tokens) + self.transformer.wpe(torch.arange(tokens.shape[1]))
        for block in self.transformer.h:
            x = block(x)
        return self.lm_head(self.transformer.ln_f(x))


class Layer(nn.Module):
    def __init__(self):
        super().__init__()

        def maps(**shapes):
            made = {f"{n}_proj": nn.Linear(*shape, bias=False) for n, shape in shapes.items()}
            return nn.ModuleDict(made)

        self.self_attn = maps(q=(C, C), k=(C, 4), v=(C, 4), o=(C, C))
        self.mlp = maps(gate=(C, 12), up=(C, 12), down=(12, C))
        self.input_layernorm, self.post_attention_layernorm = (
            *(nn.RMSNorm(C, 1e-6), nn.RMSNorm(C, 1e-6)),
        )

    def forward(self, x):
        maps, h = self.self_attn, self.input_layernorm(x)
        q, k, v = (
            m(h).unflatten(-1, (-1, 4)).transpose(1, 2)
            for m in (maps.q_proj, maps.k_proj, maps.v_proj)
        )
        # of heads of four numbers, as rotations of two complex ones
        angles = torch.arange(x.shape[1]).outer(10000.0 ** -torch.tensor([0, 0.5]).double())

        def turned(a):
            pairs = torch.complex(a[..., :2], a[..., 2:]) * torch.exp(1j * angles.to(a.dtype))
            return torch.cat([pairs.real, pairs.imag], -1)

        k, v = k.expand_as(q), v.expand_as(q)
        y = F.scaled_dot_product_attention(turned(q), turned(k), v, is_causal=True)
        x = x + maps.o_proj(y.transpose(1, 2).flatten(2))
        h, maps = self.post_attention_layernorm(x), self.mlp
        return x + maps.down_proj(F.silu(maps.gate_proj(h)) * maps.up_proj(h))


class Llama(nn.Module):
    def __init__(self):
        super().__init__()
        parts = {"embed_tokens": nn.Embedding(V, C), "layers": nn.ModuleList([Layer(), Layer()])}
        self.model = nn.ModuleDict({**parts, "norm": nn.RMSNorm(C, 1e-6)})
        self.lm_head = nn.Linear(C, V, bias=False)

    def forward(self, tokens):
        x = self.model.embed_tokens(tokens)
        for layer in self.model.layers:
            x = layer(x)
        return self.lm_head(self.model.norm(x))


MODULES = {
    "char_rnn": (lambda: Char("rnn", nn.RNN), {}),
    "char_lstm": (lambda: Char("lstm", nn.LSTM), {}),
    "char_gru": (lambda: Char("gru", nn.GRU), {}),
    "gpt": (GPT, {"heads": 2}),
    "llama": (Llama, {"heads": 2}),
}
TOKENS = np.random.default_rng(0).integers(V, size=(3, T))


def trained(make):
    """A module, a few steps from where it starts."""
    torch.manual_seed(0)
    module = make().double()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.05)
    for _ in range(5):
        optimizer.zero_grad()
        logits = module(torch.from_numpy(TOKENS))
        F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(TOKENS).flatten()).backward()
        optimizer.step()
    return module


def verdicts(name, module, parameters, settings):
    """The rule with these parameters against the module: logits and the gradient of each."""
    rule, dy = ops.named(name).rule, np.random.default_rng(1).standard_normal((*TOKENS.shape, V))
    names = [n for n, _ in module.named_parameters()]

    def by_hand(parameters):
        logits, pullback = rule(parameters, TOKENS, **settings)
        return {"logits": logits, **pullback(dy)}

    def by_module(parameters):
        state = {n: torch.from_numpy(np.array(a)) for n, a in parameters.items()}
        leaves = {n: state[n].requires_grad_() for n in names}
        logits = torch.func.functional_call(module, leaves, torch.from_numpy(TOKENS))
        gradients = torch.autograd.grad(logits, list(leaves.values()), torch.from_numpy(dy))
        found = {"logits": logits, **dict(zip(names, gradients, strict=True))}
        return {n: a.detach().numpy() for n, a in found.items()}

    return judge(by_hand, by_module, parameters, np.dtype("float64"))


@pytest.mark.parametrize("name", MODULES)
def test_a_saved_state_dict_is_loaded_and_goes_back(name, tmp_path):
    make, settings = MODULES[name]
    module = trained(make)
    torch.save(module.state_dict(), tmp_path / "model.pt")
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    parameters = from_state_dict(state)
    assert [*parameters] == [n for n, _ in module.named_parameters()]
    found = verdicts(name, module, parameters, settings)
    print({n: (v.kind, v.margin) for n, v in found.items()})
    assert {v.kind for v in found.values()} <= {IDENTICAL, ROUNDING}

    moved = {n: a + 0.01 for n, a in parameters.items()}
    other = make().double()
    other.load_state_dict(to_state_dict(moved, state))
    again = from_state_dict(other.state_dict())
    assert all(np.array_equal(again[n], a) for n, a in moved.items())


def test_a_tied_head_is_one_parameter_and_goes_back_under_both_names():
    module = trained(GPT)
    state = module.state_dict()
    parameters = from_state_dict(state)
    assert "lm_head.weight" in state
    assert "lm_head.weight" not in parameters
    back = to_state_dict(parameters, state)
    assert back["lm_head.weight"] is back["transformer.wte.weight"]
    with pytest.raises(ValueError, match="parameters: expected"):
        to_state_dict({**parameters, "lm_head.weight": parameters["transformer.wte.weight"]}, state)
    with pytest.raises(ValueError, match=r"transformer.wte.weight: expected shape \(11, 8\)"):
        to_state_dict({**parameters, "transformer.wte.weight": np.zeros((8, 11))}, state)
