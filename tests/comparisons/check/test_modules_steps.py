"""Two modules trained on: a right optimizer is right however it is written, a wrong one is told at
which step, of which parameter and why."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import LBFGS, SGD, Adafactor, Adam, AdamW, NAdam, RMSprop, SparseAdam
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from gradtwin import assert_gradient, check

WIDTH, WORDS = 6, 7


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


class Tied(nn.Module):
    """Words, a block with dropout, and the words again."""

    def __init__(self):
        super().__init__()
        self.wte, self.ln, self.fc = nn.Embedding(WORDS, WIDTH), nn.LayerNorm(WIDTH), self.linear()
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        self.head.weight = self.wte.weight

    def linear(self):
        return nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens):
        x = self.wte(tokens)
        return self.head(x + self.drop(F.gelu(self.fc(self.ln(x)))))


TOKENS = [torch.tensor([[0, 3, 5], [1, 1, 6]])]


def stepped(optimizer, port=Tied, original=Tied, arrays=TOKENS, steps=3, dtype=None, **settings):
    pair = port().to(dtype), original().to(dtype)
    return check(*pair, arrays, steps=steps, optimizer=optimizer, **settings)


def momentum(parameters):
    return SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01)


def decayed(no, decay=0.1):
    """Makes an optimizer of a module that decays all parameters but those that `no` tells."""

    def made(module):
        spared = [p for n, p in module.named_parameters() if no(n, p)]
        rest = [p for n, p in module.named_parameters() if not no(n, p)]
        groups = [{"params": rest, "weight_decay": decay}, {"params": spared, "weight_decay": 0.0}]
        return AdamW(groups, lr=1e-2)

    return made


def vectors(name, p):
    return p.ndim < 2


def warmed(steps):
    def made(parameters):
        optimizer = AdamW(parameters)
        return optimizer, LambdaLR(optimizer, lambda step: min((step + 1) / steps, 1))

    return made


class ByHand(torch.optim.Optimizer):
    """Adam with other names for what it keeps."""

    late = 0  # by how many steps the correction of the bias is

    def __init__(self, parameters, lr=1e-3):
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            s = self.state[p]
            s["t"] = s.get("t", 0) + 1
            s["m"] = 0.9 * s.get("m", 0) + (1 - 0.9) * p.grad
            s["v"] = 0.999 * s.get("v", 0) + (1 - 0.999) * p.grad**2
            t = max(s["t"] - self.late, 1)
            m, v = s["m"] / (1 - 0.9**t), s["v"] / (1 - 0.999**t)
            p.sub_(self.param_groups[0]["lr"] * m / (v.sqrt() + 1e-8))


class Late(ByHand):
    late = 1


class Counting(torch.optim.Optimizer):
    """SGD with momentum, which keeps all in attributes of its own."""

    def __init__(self, parameters):
        super().__init__(parameters, {})
        self.every = self.param_groups[0]["params"]
        self.velocity = [torch.zeros_like(p) for p in self.every]
        self.t = 0

    @torch.no_grad()
    def step(self, closure=None):
        self.t += 1
        for i, p in enumerate(self.every):
            self.velocity[i] = 0.9 * self.velocity[i] + p.grad + 0.01 * p
            p.sub_(self.velocity[i], alpha=0.1 / self.t)


def fading(parameters):
    optimizer = momentum(parameters)
    return optimizer, LambdaLR(optimizer, lambda step: 1 / (step + 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("optimizer", [AdamW, momentum, NAdam, RMSprop, Adafactor])
def test_the_same_optimizer_is_right(optimizer, dtype):
    report = stepped(optimizer, dtype=dtype)
    assert report.passed, str(report)
    assert not report.warnings
    names = set(report.table["result"])
    assert {f"weight after step {k}" for k in (1, 2, 3)} <= names
    assert any(name.endswith("of weight after step 3") for name in names)


@pytest.mark.parametrize(
    "optimizer",
    [
        (decayed(vectors), decayed(lambda name, p: name.endswith("bias") or "ln" in name)),
        (lambda parameters: AdamW(parameters, fused=True), AdamW),
        (
            lambda parameters: Adam(parameters, weight_decay=0.01, decoupled_weight_decay=True),
            AdamW,
        ),
        (ByHand, Adam),
        (Adam, ByHand),
        (Counting, fading),
        (fading, Counting),
        (warmed(4), warmed(4)),
    ],
)
def test_groups_and_optimizers_may_be_written_otherwise(optimizer):
    report = stepped(optimizer)
    assert report.passed, str(report)
    assert "weight after step 3" in set(report.table["result"])


def test_nothing_is_changed():
    port, original, made = Tied(), Tied(), []

    def optimizer(parameters):
        made.extend(map(id, parameters))
        return momentum(parameters)

    before = copy.deepcopy((port.state_dict(), original.state_dict()))
    generator = torch.get_rng_state()
    assert check(port, original, TOKENS, steps=2, optimizer=optimizer).passed
    for module, state in zip((port, original), before, strict=True):
        assert all(torch.equal(state[n], t) for n, t in module.state_dict().items())
        assert all(p.grad is None and id(p) not in made for p in module.parameters())
    assert torch.equal(generator, torch.get_rng_state())


class Twice(AdamW):
    def step(self, closure=None):
        super().step()
        super().step()


class Undecayed(AdamW):
    def step(self, closure=None):
        for group in self.param_groups:
            group["weight_decay"] = 0.0
        super().step()


class Accumulating(SGD):
    """It adds up what nobody has set to zero."""

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.sums = {}

    def step(self, closure=None):
        for i, p in enumerate(self.param_groups[0]["params"]):
            self.sums[i] = self.sums.get(i, 0) + p.grad
            p.grad = self.sums[i].clone()
        super().step()


def without(place):
    return lambda module: AdamW([p for n, p in module.named_parameters() if place not in n])


def repeated(module):
    return AdamW([p for _, p in module.named_parameters(remove_duplicate=False)])


@pytest.mark.parametrize(
    ("wrong", "right", "first", "cause"),
    [
        (without("ln"), AdamW, "weight after step 1 in ln", "left out"),
        (lambda p: AdamW(p, lr=1e-2, weight_decay=0.1), decayed(vectors), None, "weight_decay"),
        (repeated, AdamW, "weight after step 1 in wte", "too often"),
        (Twice, AdamW, "weight after step 1 in wte", "too often"),
        (Undecayed, AdamW, "weight after step 1 in wte", "weight_decay"),
        (lambda p: AdamW(p, eps=1e-6), AdamW, "bias after step 1 in ln", "eps"),
        (lambda p: AdamW(p, betas=(0.9, 0.99)), AdamW, "exp_avg_sq of", "betas"),
        (lambda p: AdamW(p, lr=2e-3, eps=1e-6), AdamW, "weight after step 1 in wte", "settings"),
        (lambda p: SGD(p, 1e-3), AdamW, "weight after step 1 in wte", "optimizer"),
        (AdamW, warmed(4), "weight after step 1 in wte", "lr"),
        (warmed(2), lambda p: (AdamW(p, lr=5e-4), None), "weight after step 2 in wte", "lr"),
        (Late, Adam, "weight after step 2 in wte", "optimizer"),
        (lambda p: SGD(p, 0.1), lambda p: SGD(p, 0.1, momentum=0.9), "momentum_buffer", "momentum"),
        (lambda p: SGD(p, 0.1, momentum=0.9), lambda p: SGD(p, 0.1), "weight after", "momentum"),
        (
            lambda p: Accumulating(p, 0.1),
            lambda p: SGD(p, 0.1),
            "weight after step 2 in wte",
            None,
        ),
    ],
)
def test_a_wrong_optimizer_is_told_where_and_why(wrong, right, first, cause):
    report = stepped((wrong, right), steps=2)
    assert not report.passed
    assert report.first.startswith(first or "weight after step 1 in ln"), str(report)
    assert (report.cause.name if report.cause else None) == cause, str(report)
    assert report.first in str(report)


def test_a_setting_that_explains_but_a_part_is_no_cause():
    def wrong(module):
        named = dict(module.named_parameters())
        groups = [{"params": [p], "lr": 2e-3 if n == "fc.bias" else 1e-3} for n, p in named.items()]
        return Twice(groups)

    assert stepped((wrong, AdamW), steps=1).cause.name == "optimizer"


def test_settings_are_told_where_they_are_not_seen():
    """In 16 bits, a decay of 1e-5 of a parameter is far below its last place."""
    report = stepped((lambda p: AdamW(p, weight_decay=0.0), AdamW), dtype=torch.bfloat16)
    assert report.passed
    assert report.notes == ("weight_decay = 0.0 instead of 0.01 in the optimizer",)


class Frozen(Tied):
    def __init__(self):
        super().__init__()
        self.ln.bias.requires_grad_(False)


class Backwards(Tied):
    """The one tensor has another first name."""

    def __init__(self):
        super().__init__()
        self.wte, self.head, wte, head = None, None, self.wte, self.head
        del self.wte, self.head
        self.head, self.wte = head, wte


def test_what_a_module_does_with_its_parameters():
    report = stepped(AdamW, Frozen)
    assert report.first == "bias after step 1 in ln"
    assert report.cause.name == "left out"
    assert stepped(AdamW, Backwards).passed
    assert stepped(AdamW, original=Backwards).passed


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.bn(self.conv(x))


class Cached(Norm):
    """It keeps what it has seen first of a weight."""

    def forward(self, x):
        weight = vars(self).setdefault("kept", self.conv.weight.detach().clone())
        other = self.conv.weight - self.conv.weight.detach() + weight.to(x)
        return self.bn(F.conv2d(x, other, self.conv.bias))


def test_the_whole_is_judged_before_each_step():
    images = [torch.randn(4, 2, 5, 5)]
    report = stepped(momentum, Norm, Norm, images)
    assert report.passed, str(report)
    assert "buffer bn.running_mean in step 3" in set(report.table["result"])
    assert stepped(momentum, Cached, Norm, images).first == "output in step 2 in Norm"


class Turned(Tied):
    """Its layer has the weight the other way round, and in two."""

    def linear(self):
        return Halves()


class Halves(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = (nn.Parameter(torch.zeros(WIDTH, WIDTH // 2)) for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x):
        return torch.cat([x @ self.a, x @ self.b], -1) + self.bias


NAMES = {"fc.a": "fc.weight[:3].T", "fc.b": "fc.weight[3:].T"}


def halved(state):
    made = {n: t for n, t in state.items() if n != "fc.weight"}
    return made | dict(
        zip(("fc.a", "fc.b"), (h.T for h in state["fc.weight"].chunk(2)), strict=True)
    )


@pytest.mark.parametrize("names", [NAMES, halved])
def test_state_is_arranged_as_its_parameter(names):
    report = stepped(NAdam, Turned, names=names)
    assert report.passed, str(report)
    results = set(report.table[report.table["place"] == "fc"]["result"])
    assert {"a after step 1", "exp_avg_sq of b after step 3", "step of a after step 2"} <= results
    swapped = NAMES | {"fc.a": NAMES["fc.b"], "fc.b": NAMES["fc.a"]}
    assert not stepped(NAdam, Turned, names=swapped).passed


def test_what_is_turned_lies_in_memory_as_its_parameter_does():
    """A fused kernel goes through both side by side."""
    report = stepped((lambda p: AdamW(p, fused=True), AdamW), Turned, names=NAMES, steps=2)
    assert report.passed, str(report)


def test_what_is_not_laid_out_as_its_parameter_is_told():
    report = stepped(Adafactor, Turned, names=NAMES)
    told = report.table[report.table["class"] == "n/a"]
    assert {"row_var after step 1", "col_var after step 1"} <= set(told["result"])
    assert report.first == "a after step 1 in fc"  # for it is not scaled by the same rows
    assert stepped(Adafactor).table["class"].ne("n/a").all()


@pytest.mark.parametrize(
    ("optimizer", "asked"),
    [
        (LBFGS, "a step of LBFGS asks for its closure"),
        (lambda p: (o := SGD(p, 0.1), ReduceLROnPlateau(o)), "asks for its metrics"),
    ],
)
def test_what_cannot_be_judged_is_told(optimizer, asked):
    report = stepped(optimizer)
    assert any(asked in warning for warning in report.warnings)
    assert asked in report.table[report.table["class"] == "n/a"].iloc[-1]["note"]


def test_what_moves_nothing_agrees_with_anything():
    assert stepped(lambda p: SGD(p, 0.0)).warnings == (
        "no step moves a parameter of the original, with which anything agrees",
    )


class Sparse(nn.Module):
    sparse = True

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH, sparse=self.sparse)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, tokens):
        return self.words(tokens)


def test_gradients_may_be_sparse_or_missing():
    report = stepped(SparseAdam, Sparse, Sparse)
    assert report.passed, str(report)
    assert stepped(lambda p: SGD(p, 0.1, momentum=0.9), Sparse, Sparse).passed
    with pytest.raises(ValueError, match="optimizer: that of the original raises RuntimeError"):
        stepped(momentum, Sparse, Sparse)
    report = stepped((SparseAdam, lambda p: SparseAdam(p, lr=2e-3)), Sparse, Sparse)
    assert report.first == "weight after step 1 in words"
    assert report.cause.name == "lr"


class Dense(Sparse):
    sparse = False


class Zero(Dense):
    def forward(self, tokens):
        return super().forward(tokens) + 0 * self.unused.sum()


def test_a_gradient_of_0_is_a_gradient():
    """By which torch decays, where it passes over a parameter that has none."""
    for pair, told in (((Zero, Dense), "only the port"), ((Dense, Zero), "only the original")):
        report = stepped(AdamW, *pair)
        assert report.first == f"unused after step 1 in {pair[1].__name__}"
        assert report.cause.name == "no gradient"
        assert told in str(report)
    assert stepped(Adam, Zero, Dense).passed


class Raising(AdamW):
    def step(self, closure=None):
        raise RuntimeError("no memory")


def test_what_an_optimizer_raises_is_a_finding():
    report = stepped((Raising, AdamW))
    assert report.first == "step 1 in Tied"
    assert "the port's optimizer raises RuntimeError: no memory" in str(report)


def test_a_budget():
    report = stepped(AdamW, budget=1e-3)
    assert report.table.iloc[-1]["result"] == "step 1"
    assert report.table.iloc[-1]["class"] == "n/a"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"steps": 2}, "steps: expected an optimizer beside them"),
        ({"optimizer": AdamW}, "optimizer: expected steps beside it"),
        ({"steps": -1, "optimizer": AdamW}, "steps: expected how many, 0 or more, got -1"),
        ({"steps": True, "optimizer": AdamW}, "steps: expected how many, 0 or more, got True"),
        ({"steps": 1, "optimizer": 3}, "optimizer: expected a function of parameters"),
        ({"steps": 1, "optimizer": (AdamW,)}, "or a pair of them"),
        ({"steps": 1, "optimizer": len}, r"torch\.optim\.Optimizer, got a int"),
        ({"steps": 1, "optimizer": lambda: 3}, "it raises TypeError"),
        ({"steps": 1, "optimizer": lambda p: AdamW(p, lr=-1.0)}, "it raises ValueError"),
        ({"steps": 1, "optimizer": lambda p: (AdamW(p), 3)}, "expected a scheduler beside"),
        ({"steps": 1, "optimizer": lambda p: AdamW(Tied().parameters())}, "got it of others"),
        ({"steps": 1, "optimizer": lambda p: p.nothing}, "or of the module, but it raises Attr"),
    ],
)
def test_steps_that_are_none(settings, said):
    with pytest.raises((TypeError, ValueError), match=said):
        check(Tied(), Tied(), TOKENS, **settings)


def test_steps_of_what_is_no_module():
    for settings in ({"steps": 1}, {"optimizer": AdamW}):
        with pytest.raises(TypeError, match="expected two modules of torch"):
            check(torch.tanh, torch.tanh, [torch.randn(3)], **settings)


def test_a_pair_in_a_test():
    assert assert_gradient(Tied(), Tied(), TOKENS, steps=1, optimizer=AdamW).passed
    with pytest.raises(AssertionError, match="left out: the port's optimizer does not move ln"):
        assert_gradient(Tied(), Tied(), TOKENS, steps=1, optimizer=(without("ln"), AdamW))
