"""Models as users have them are traced as they are, and a wrong backward inside is named; or it is
said by name why they are not."""

import contextlib
import dataclasses
import warnings

import numpy as np
import pytest
import torch
from gradtwin.comparisons.verdict.classes import DIFFERENT, IDENTICAL, REFERENCE_IMPRECISE, ROUNDING
from torch import nn
from torch.autograd.function import _SingleLevelFunction
from torch.nn.modules import module as modules
from torch.utils.checkpoint import checkpoint

from gradtwin import manual, trace

F = nn.functional
RIGHT = {IDENTICAL, ROUNDING, REFERENCE_IMPRECISE}


class Square(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, factor):
        return x * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.factor = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx, dy):
        return ctx.factor * dy * ctx.saved_tensors[0], None


square = Square.apply  # as people keep it


def drawn(*shape, dtype=torch.float32):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


@dataclasses.dataclass
class Result:
    loss: torch.Tensor
    rest: dict


class Net(nn.Module):
    """A linear layer, a custom backward, which is right for a factor of 2, and a GELU."""

    def __init__(self, factor, wrap=lambda layer: layer, around=contextlib.nullcontext):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.factor, self.around = wrap(nn.Linear(5, 3)), factor, around

    def inner(self, x):
        return F.gelu(square(self.layer(x), self.factor))

    def forward(self, x):
        with self.around():
            return self.inner(x)


class WithKeywords(Net):
    def forward(self, x, *, scale, flag=False):
        return self.inner(x) * scale if flag else None


class WithDataclass(Net):
    def forward(self, x):
        h = self.inner(x)
        return Result(h.sum(), {"h": [h], "name": "net"})


class Checkpointed(Net):
    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=False)


class OfEach(Net):
    def forward(self, x):
        return torch.vmap(self.inner)(x)


class AroundCompiled(Net):
    def forward(self, x):
        return torch.compile(self.inner, backend="aot_eager")(x)


def autocast():
    return torch.autocast("cpu", torch.bfloat16)


def compiled(factor):
    return torch.compile(Net(factor), backend="aot_eager")


x = drawn(4, 5)
KINDS = {
    "as it is": (Net, x, {}),
    "keywords": (WithKeywords, x, {"scale": drawn(3), "flag": True}),
    "dataclass": (WithDataclass, x, {}),
    "bfloat16": (lambda factor: Net(factor).bfloat16(), x.bfloat16(), {}),
    "float16": (lambda factor: Net(factor).half(), x.half(), {}),
    "autocast": (lambda factor: Net(factor, around=autocast), x, {}),
    "vmap": (OfEach, x, {}),
    "compiled": (compiled, x, {}),
    "around compiled": (AroundCompiled, x, {}),
    "parametrized": (lambda f: Net(f, nn.utils.parametrizations.spectral_norm), x, {}),
    "spectral norm": (lambda factor: Net(factor, nn.utils.spectral_norm), x, {}),
    "checkpoint": (Checkpointed, x, {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_right_is_traced_and_right(kind):
    made, inputs, settings = KINDS[kind]
    found = trace(made(2), inputs, settings=settings)
    print(found)
    assert {"linear", "Square", "gelu"} <= {step.name for step in found.steps}
    assert {step.kind for step in found.steps if step.op} <= RIGHT
    assert all(step.report.passed for step in found.steps if step.report)
    assert not found.wrong
    assert found.examined in (["SquareBackward"], ["VmappedSquareBackward"])
    assert set(found.missing) <= {"VdotBackward0"}


@pytest.mark.thinned(4)
@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_backward_is_found_in_each(kind):
    made, inputs, settings = KINDS[kind]
    found = trace(made(2.002), inputs, settings=settings)
    print(found)
    assert [step.name for step in found.wrong] == ["Square"]
    assert "factor: the gradient of x is 1.001 times" in found.wrong[0].note
    assert not found.wrong[0].report.passed


def test_what_was_compiled_is_said():
    plain = Net(2)
    made = (
        compiled(2),
        lambda x: compiled(2)(x).sum(),  # seen when it is called
        torch.compile(lambda x: plain(x), backend="aot_eager"),
    )
    for module in made:
        found = trace(module, x)
        assert len(found.notes) == 1
        assert f"note: {found.notes[0]}" in str(found)
    assert not trace(plain, x).notes
    plain.compile(backend="aot_eager")
    assert trace(plain, x).notes[0].startswith("Net is compiled")


def test_without_gradients_around_it():
    with torch.no_grad(), autocast():
        found = trace(nn.Linear(5, 3), x)
    assert [step.kind for step in found.steps] == [ROUNDING]


@pytest.mark.parametrize("argument", ["bias", "x", "weight"])
@pytest.mark.parametrize("cast", [True, False])
def test_a_wrong_node_in_16_bits_is_found_above_its_resolution(argument, cast):
    """The median resolution of bfloat16 is 8 · 2⁻⁸; the edges are found at a tenth."""
    torch.manual_seed(0)
    layers = nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 4)
    net = nn.Sequential(*layers) if cast else nn.Sequential(*layers).bfloat16()
    place = ["bias", "x", "weight"].index(argument)

    def module(x, factor=1.0):
        with autocast() if cast else contextlib.nullcontext():
            y = net(x)
        y.grad_fn.register_hook(
            lambda passed, _: tuple(g * (factor if i == place else 1) for i, g in enumerate(passed))
        )
        return y

    given = x if cast else x.bfloat16()
    assert not trace(module, given).wrong
    found = trace(lambda x: module(x, 1.25), given)
    differing = [e.argument for e in found.wrong[0].edges if e.verdict.kind == DIFFERENT]
    assert (found.wrong[0].name, differing) == ("linear", [argument])


def test_a_wrong_rule_is_found_in_16_bits_and_in_vmap(monkeypatch):
    right = manual.activations.gelu

    def gelu(x, approximate="none"):
        y, pullback = right(x, approximate)
        return y, lambda dy: pullback(dy) * (1 + 1e-3)

    monkeypatch.setattr(manual.activations, "gelu", gelu)
    for kind in ("bfloat16", "autocast", "vmap"):
        made, inputs, _ = KINDS[kind]
        assert [step.name for step in trace(made(2), inputs).wrong] == ["gelu"]


def test_a_layer_that_autocast_casts_twice_belongs_to_each_call():
    torch.manual_seed(0)
    layer = nn.Linear(5, 5)

    def module(x):
        with autocast():
            return layer(layer(x))

    found = trace(module, x)
    assert not found.wrong
    assert [[e.argument for e in step.edges] for step in found.steps] == [
        ["weight", "bias"],
        ["x", "weight", "bias"],
    ]
    assert torch.is_autocast_cache_enabled()


def of_many(x, weight, axes, fault=1.0):
    def one(row):
        h = F.softmax(F.linear(row, weight) * 2 + row.sum(), 0)
        return h[1:].view(1, 2) @ weight[:2]

    y = torch.vmap(one, in_dims=axes[0], out_dims=axes[1])(x)
    y.register_hook(lambda dy: dy * fault)
    return y


@pytest.mark.parametrize("axes", [(0, 0), (1, 2)])
def test_functions_of_many_are_judged_one_by_one(axes):
    weight = drawn(3, 5, dtype=torch.float64).requires_grad_()
    many = drawn(4, 5, dtype=torch.float64).movedim(0, axes[0]).requires_grad_()
    found = trace(lambda x: of_many(x, weight, axes), many)
    print(found)
    assert {step.kind for step in found.steps if step.op} <= RIGHT
    assert set(found.missing) <= {"PermuteBackward0"}
    linear = next(step for step in found.steps if step.name == "linear")
    assert [e.argument for e in linear.edges] == ["x", "weight"]
    if axes[1] == 0:
        wrong = trace(lambda x: of_many(x, weight, axes, 1.001), many).wrong
        assert [step.name for step in wrong] == ["matmul"]


def test_what_passes_on_something_else_is_found_in_vmap():
    torch.manual_seed(0)
    layer = nn.Linear(5, 3)

    def module(x, fault=1.0):
        def one(row):
            return layer(row).tanh()

        y = torch.vmap(one)(x)
        y.grad_fn.register_hook(lambda passed, _: tuple(g * fault for g in passed))
        return y

    assert not trace(module, x).wrong
    (wrong,) = trace(lambda x: module(x, 1.001), x).wrong
    assert (wrong.name, [e.verdict.kind for e in wrong.edges]) == ("tanh", [DIFFERENT])


def test_an_ensemble_of_networks():
    nets = [nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)) for _ in range(3)]
    state, _ = torch.func.stack_module_state(nets)

    def module(x):
        one = torch.vmap(torch.func.functional_call, in_dims=(None, 0, None))
        return one(nets[0], state, (x,))

    found = trace(module, x)
    assert [step.op for step in found.steps] == ["linear", "relu", "linear"]
    assert {step.kind for step in found.steps} <= RIGHT


def test_other_transforms_are_no_rules_business():
    found = trace(torch.vmap(torch.func.grad(lambda row: row.tanh().sum())), x.requires_grad_())
    assert {step.note for step in found.steps if step.name == "tanh"} == {
        "inside of a transform of torch.func that is not one vmap alone"
    }


def quietly(make, *arguments):
    """torch.jit warns that it is deprecated."""
    with warnings.catch_warnings(action="ignore"):
        return make(*arguments)


def double(x):
    return x * 2


scripted = quietly(torch.jit.script, double)


def reentrant(x):
    return checkpoint(torch.tanh, x, use_reentrant=True)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (scripted, "expected what Python runs, got 'double' made by torch.jit"),
        (lambda x: quietly(torch.jit.script, nn.Linear(5, 3))(x), "got 'Linear' made by torch.jit"),
        (quietly(torch.jit.trace, nn.Linear(5, 3), x), "made by torch.jit"),
        (reentrant, "expected checkpoints with use_reentrant=False, got a reentrant one"),
        (lambda x: x.to("meta") * 2, "expected tensors that are arrays, to has one that is not"),
        (lambda x: {"y": 3}, "requires a gradient, got a dict of y"),
    ],
)
def test_what_cannot_be_traced_is_named_and_leaves_nothing_behind(module, words):
    with pytest.raises(TypeError, match=f"^module: .*{words}"):
        trace(module, drawn(4, 5).requires_grad_())
    assert "apply" not in vars(_SingleLevelFunction)
    assert not modules._global_forward_pre_hooks
    assert torch.is_autocast_cache_enabled()


def test_settings_that_are_none():
    with pytest.raises(TypeError, match="settings: expected a mapping, got a list"):
        trace(torch.tanh, x, settings=[1])


def test_without_a_rule_the_nearest_is_named():
    def module(x):
        return torch.logcumsumexp(x, 0) + torch.erfinv(x.tanh()) + scripted(x)

    found = trace(module, x.requires_grad_())
    nearest = {step.name: step.nearest for step in found.steps if not step.op}
    assert nearest == {"logcumsumexp": "logsumexp", "erfinv": "", "MulBackward1": "mul"}
    assert "no rule: the nearest rule is logsumexp" in str(found)


def test_a_trace_is_saved_and_shown(tmp_path):
    found = trace(compiled(2.002), x)
    path = found.save(tmp_path / "trace.html")
    page = path.read_text(encoding="utf-8")
    assert "examined by check: SquareBackward" in page
    assert "1.001 times what it should be" in page
    assert "is compiled" in page
    html = found._repr_html_()
    assert "<b class=wrong>✗ different</b>" in html
    assert html.count("<tr") == 2  # the wrong one, below the head
    assert trace(nn.Linear(5, 3), x)._repr_html_().count("<tr") == 2
    with pytest.raises(OSError, match="there is no folder"):
        found.save(tmp_path / "missing" / "trace.html")


def test_numbers_of_16_bits_are_shown():
    (step,) = trace(nn.Linear(5, 3).bfloat16(), x.detach().bfloat16()).steps
    assert (step.half, step.y.dtype) == ("bfloat16", np.float32)
