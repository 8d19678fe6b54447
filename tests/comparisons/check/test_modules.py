"""Two modules: a right port is right however it is written, a wrong one is told where and why."""

import copy

import pytest
import torch
import torch.nn.functional as F
from gradtwin.comparisons.check.modules import verify
from gradtwin.comparisons.check.modules.wide import Wide
from torch import nn
from torch.utils.checkpoint import checkpoint

from gradtwin import check

WIDTH, HEADS = 8, 2


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.drop = nn.Dropout(0.2)

    def forward(self, x):
        n, t, d = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, HEADS, -1).permute(2, 0, 3, 1, 4).unbind()
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.drop(self.proj(y.transpose(1, 2).reshape(n, t, d)))


class Block(nn.Module):
    attention = Attention

    def __init__(self):
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(WIDTH), self.attention()
        self.ln_2, self.fc = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + F.gelu(self.fc(self.ln_2(x)))


class Gpt(nn.Module):
    block = Block

    def __init__(self):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(11, WIDTH), nn.Embedding(6, WIDTH)
        self.blocks = nn.ModuleList(self.block() for _ in range(2))
        self.head = nn.Linear(WIDTH, 11, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, tokens, target=None):
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        y = self.head(x)
        if target is None:
            return {"logits": y, "hidden": x}
        return F.cross_entropy(y.flatten(0, 1), target.flatten())


class ByHand(Attention):
    """Attention from products and a softmax."""

    scale, shift = 1.0, 1

    def forward(self, x):
        n, t, d = x.shape
        q, k, v = (a.view(n, t, HEADS, -1).transpose(1, 2) for a in self.qkv(x).split(d, -1))
        scores = q @ k.mT * (self.scale * (d // HEADS) ** -0.5)
        scores = scores.masked_fill(torch.ones(t, t, dtype=torch.bool).triu(self.shift), -torch.inf)
        y = scores.softmax(-1) @ v
        return self.drop(self.proj(y.transpose(1, 2).reshape(n, t, d)))


def tokens():
    return [torch.randint(11, (3, 6), generator=torch.Generator().manual_seed(i)) for i in (0, 1)]


def port(attention=ByHand, **attributes):
    made = Gpt()
    for block in made.blocks:
        block.attn.__class__ = attention
        vars(block.attn).update(attributes)
    return made


def test_a_right_port_is_right_and_nothing_is_changed():
    original, subject = Gpt(), port()
    before, generator = copy.deepcopy(original.state_dict()), torch.get_rng_state()
    report = check(subject, original, tokens())
    assert report.passed, str(report)
    assert not report.first
    assert report.cause is None
    assert {"blocks.0.attn", "blocks.1.ln_2", ""} <= set(report.table["place"])
    assert all(torch.equal(before[n], t) for n, t in original.state_dict().items())
    assert torch.equal(generator, torch.get_rng_state())
    assert original.training
    assert all(p.grad is None for p in original.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_modules_are_judged_in_their_own_dtype_and_stay_as_they_are(dtype):
    original = Gpt().to(dtype)
    before = copy.deepcopy(original.state_dict())
    assert check(port().to(dtype), original, tokens()).passed
    assert all(torch.equal(before[n], t) for n, t in original.state_dict().items())
    report = check(port(scale=8.0).to(dtype), original, tokens())
    assert report.first == "output in blocks.0.attn"


def changed(place, **attributes):
    made = port()
    vars(made.get_submodule(place)).update(attributes)
    return made


class Detached(ByHand):
    def forward(self, x):
        self.proj.bias, bias = nn.Parameter(self.proj.bias.detach()), self.proj.bias
        y = super().forward(x)
        self.proj.bias = bias
        return y


class Reordered(Block):
    def forward(self, x):
        x = self.ln_1(x)
        x = x + self.attn(x)
        return x + F.gelu(self.fc(self.ln_2(x)))


def reordered():
    made = port()
    made.blocks[1].__class__ = Reordered
    return made


def untied():
    made = port()
    made.head.weight = nn.Parameter(made.wte.weight.detach().clone())
    return made


@pytest.mark.parametrize(
    ("wrong", "first", "cause"),
    [
        (lambda: changed("blocks.1.ln_1", eps=1e-6), "output in blocks.1.ln_1", "eps"),
        (lambda: port(scale=2**-0.5), "output in blocks.0.attn", "scale"),
        (lambda: port(shift=2), "output in blocks.0.attn", "mask"),
        (lambda: changed("blocks.0.attn.drop", training=False), None, "mode"),
        (reordered, "output in blocks.1", "residual"),
        (untied, "gradient of wte.weight in Gpt", "untied"),
    ],
)
def test_a_wrong_port_is_told_where_and_why(wrong, first, cause):
    report = check(wrong(), Gpt(), tokens())
    assert not report.passed
    assert report.first == (first or "output in blocks.0.attn.drop")
    assert report.cause is not None, str(report)
    assert report.cause.name == cause
    with pytest.raises(AssertionError, match=cause):
        report.raise_for_failure()


class Checkpointed(Gpt):
    reentrant = False

    def forward(self, tokens, target=None):
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        y = self.head(x)
        return F.cross_entropy(y.flatten(0, 1), target.flatten())


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_on_either_side(reentrant):
    made = Checkpointed()
    made.reentrant = reentrant
    for pair in ((made, Gpt()), (Gpt(), made)):
        report = check(*pair, tokens())
        assert report.passed, str(report)
        assert "gradient of x" in set(report.table[report.table["place"] == "blocks.1"]["result"])


def test_a_compiled_module_against_itself():
    original = Gpt()
    compiled = torch.compile(copy.deepcopy(original), backend="aot_eager")
    assert check(compiled, original, tokens()).passed


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


def test_running_statistics_are_judged():
    x = torch.randn(5, 2, 6, 6)
    assert check(Net(), Net(), [x]).passed
    wrong = Net()
    wrong.bn.momentum = 0.01
    report = check(wrong, Net(), [x])
    assert report.first == "buffer running_mean in bn"
    assert report.cause.name == "momentum"
    assert check(Net(), Net().eval(), [x]).cause.name == "mode"


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.out = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        y, (h, _) = self.lstm(x)
        return self.out(y), h[0]


class ByCells(nn.Module):
    def __init__(self):
        super().__init__()
        self.both = nn.Linear(3 + 4, 4 * 4)
        self.bias = nn.Parameter(torch.zeros(4 * 4))
        self.out = nn.Linear(4, 2)

    def forward(self, x):
        h = c = x.new_zeros(len(x), 4)
        ys = []
        for t in range(x.shape[1]):
            gates = self.both(torch.cat([x[:, t], h], -1)) + self.bias
            i, f, g, o = gates.chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            ys.append(h)
        return self.out(torch.stack(ys, 1)), h


NAMES = {
    "both.weight": "cat(lstm.weight_ih_l0.T, lstm.weight_hh_l0.T)",
    "both.bias": "lstm.bias_ih_l0",
    "bias": "lstm.bias_hh_l0",
}


class Product(nn.Module):
    """A linear layer whose weight is laid out the other way round."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3 + 4, 4 * 4))
        self.bias = nn.Parameter(torch.zeros(4 * 4))

    def forward(self, x):
        return x @ self.weight + self.bias


class Turned(ByCells):
    def __init__(self):
        super().__init__()
        self.both = Product()


def test_names_cut_turn_and_join():
    x = torch.randn(3, 5, 3)
    report = check(Turned(), Lstm(), [x], names=NAMES)
    assert report.passed, str(report)
    assert "lstm" in set(report.table[report.table["class"] == "n/a"]["place"])

    def by_function(state):
        made = {
            n: state[t] for n, t in (("both.bias", "lstm.bias_ih_l0"), ("bias", "lstm.bias_hh_l0"))
        }
        both = torch.cat([state["lstm.weight_ih_l0"].T, state["lstm.weight_hh_l0"].T])
        return (
            made | {"both.weight": both} | {n: t for n, t in state.items() if n.startswith("out")}
        )

    assert check(Turned(), Lstm(), [x], names=by_function).passed
    swapped = NAMES | {"both.weight": "cat(lstm.weight_hh_l0.T, lstm.weight_ih_l0.T)"}
    assert not check(Turned(), Lstm(), [x], names=swapped).passed


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"bias": "lstm.nothing"}, "no tensor 'lstm.nothing'"),
        ({"nothing": "lstm.bias_ih_l0"}, "neither a tensor nor a submodule 'nothing'"),
        ({"bias": "lstm.bias_ih_l0[:3]"}, "has shape"),
        ({"bias": "lstm.bias_ih_l0.exp()"}, "slices of it and moves"),
        (3, "expected a mapping or a function"),
        (lambda: {}, "expected a function of the original's state"),
        (lambda state: {"nothing": state["out.bias"]}, "a state with 'nothing'"),
    ],
)
def test_names_that_say_something_else(names, said):
    with pytest.raises((TypeError, ValueError), match=said):
        check(ByCells(), Lstm(), [torch.randn(3, 5, 3)], names=names)


class Another(Net):
    def forward(self, x):
        y = super().forward(x)
        return y, y


class Renamed(Net):
    def forward(self, images, *, scale):
        return super().forward(images) * scale


@pytest.mark.parametrize(("made", "said"), [(Another, "2 tensors, not 1"), (Renamed, "no such")])
def test_the_whole_is_judged_or_wrong(made, said):
    report = check(made(), Net(), [torch.randn(5, 2, 6, 6)])
    assert report.first == "call in Net"
    assert said in str(report)


class Dead(Net):
    def forward(self, x):
        return super().forward(x) * 0


class Frozen(Net):
    def forward(self, x):
        return super().forward(x).detach()


@pytest.mark.parametrize(("made", "said"), [(Dead, "is zero"), (Frozen, "only values")])
def test_a_model_that_does_not_train_agrees_with_anything(made, said):
    (warning,) = check(made(), made(), [torch.randn(5, 2, 6, 6)]).warnings
    assert said in warning
    assert not check(Net(), Net(), [torch.randn(5, 2, 6, 6)]).warnings


def test_what_says_nothing_about_modules():
    with pytest.raises(TypeError, match="quick: expected no such argument"):
        check(Net(), Net(), [torch.randn(5, 2, 6, 6)], quick=True)
    with pytest.raises(TypeError, match="names: expected two modules"):
        check(torch.tanh, torch.tanh, [torch.randn(3)], names={})


def test_float64_whatever_is_cast_to_on_the_way():
    x = torch.rand(50, dtype=torch.float64)
    with Wide(torch.float32):
        y = (x.float() + torch.full((1,), 0.1)).to(torch.bfloat16)
    assert y.dtype == torch.float64
    assert torch.equal(y, x + 0.1)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_computed_in_float64(masked):
    x = torch.randn(2, 2, 9, 4)
    mask = torch.randn(9, 9) if masked else None
    wide = mask.double() if masked else None
    found = [F.scaled_dot_product_attention(*[x.double()] * 3, wide)]
    with Wide(torch.float32):
        found.append(F.scaled_dot_product_attention(x, x, x, mask))
    assert found[1].dtype == torch.float64
    assert torch.allclose(*found, rtol=0, atol=1e-14)


def test_what_is_drawn_in_float64_is_what_is_drawn_in_the_modules_dtype():
    x = torch.ones(1000)
    for draw in (F.dropout, torch.rand_like, torch.bernoulli):
        torch.manual_seed(0)
        narrow = draw(x / 2)
        torch.manual_seed(0)
        with Wide(torch.float32):
            wide = draw(x.double() / 2)
        assert torch.equal(narrow.double(), wide)


class Chain(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 3), nn.Tanh())

    def forward(self, x):
        return self.layers(x)


class Loop(Chain):
    def __init__(self, times=1):
        super().__init__()
        self.layers, self.times = nn.ModuleList(self.layers), times

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x * self.times


def test_a_list_of_submodules_is_judged_with_what_calls_them():
    x = torch.randn(5, 3)
    report = check(Loop(), Chain(), [x])
    assert report.passed, report
    assert "not judged alone: layers: the port does not call it" in str(report)
    assert not check(Loop(1.001), Chain(), [x]).passed
    assert check(Chain(), Loop(), [x]).passed


class Masked(nn.Module):
    def forward(self, x, mask):
        return x + mask


class Hidden(nn.Module):
    def forward(self, x, mask):
        return x.masked_fill(~mask, 0.0)


class Outer(nn.Module):
    kind = Masked

    def __init__(self):
        super().__init__()
        self.inner = self.kind()

    def forward(self, x):
        return self.inner(x, torch.zeros(3))


class OfAnother(Outer):
    kind = Hidden
    calls = 2

    def forward(self, x):
        keep = torch.ones(3, dtype=torch.bool)
        return sum(self.inner(x, keep) for _ in range(self.calls)) / self.calls


def test_a_submodule_that_takes_another_form_and_is_called_otherwise_is_judged_with_its_parent():
    x = torch.randn(5, 3)
    report = check(OfAnother(), Outer(), [x])
    assert report.passed, report
    assert "not judged alone: inner: the port raises" in str(report)
    OfAnother.calls = 1
    assert "not judged alone" not in str(check(OfAnother(), Outer(), [x]))


def test_a_submodule_that_raises_is_different_where_the_whole_raises_as_well():
    wrong = Outer()
    wrong.inner = Hidden()
    assert check(wrong, Outer(), [torch.randn(5, 3)]).first == "call in inner"


class Embedded(nn.Module):
    reentrant = None

    def __init__(self):
        super().__init__()
        self.emb, self.fc, self.out = nn.Embedding(5, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def inner(self, x):
        return torch.tanh(self.fc(x))

    def forward(self, tokens):
        x = self.emb(tokens)
        if self.reentrant is None:
            return self.out(self.inner(x))
        return self.out(checkpoint(self.inner, x, use_reentrant=self.reentrant))


class Reentrant(Embedded):
    reentrant = True


@pytest.mark.parametrize("sides", [(Embedded, Reentrant), (Reentrant, Embedded)])
def test_gradients_asked_part_by_part_are_those_asked_at_once(sides, monkeypatch):
    """A reentrant checkpoint passes on no gradient where nothing before it asks for one."""
    monkeypatch.setattr(verify, "MANY", 20)
    port, original = (side() for side in sides)
    tokens = torch.arange(4)
    assert check(port, original, [tokens]).passed
    parts = check(port, original, [tokens]).table
    monkeypatch.setattr(verify, "MANY", 2**22)
    assert set(parts["id"]) == set(check(port, original, [tokens]).table["id"])
    port.inner = lambda x: torch.tanh(port.fc(x.detach()))
    monkeypatch.setattr(verify, "MANY", 20)
    assert check(port, original, [tokens]).first == f"gradient of emb.weight in {sides[1].__name__}"
