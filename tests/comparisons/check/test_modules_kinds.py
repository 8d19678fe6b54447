"""Modules of every kind in a pair: sparse gradients, hooks, operators of users, parametrizations,
what is shared, lazy, complex, compiled or empty; right ones are right, wrong ones wrong."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from gradtwin.comparisons.check.modules import wide
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from gradtwin import check, record_module

X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randint(7, (3, 6), generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


class Embedded(nn.Module):
    def __init__(self, sparse, times=1.0, kind=nn.Embedding):
        super().__init__()
        self.emb, self.out = kind(7, 4, sparse=sparse), nn.Linear(4, 2)
        self.times = times

    def forward(self, tokens):
        return self.out(torch.tanh(self.times * self.emb(tokens)))


class Steep(nn.Embedding):
    """Right values, and gradients that are too large."""

    def forward(self, tokens):
        y = super().forward(tokens)
        return y + 0.5 * (y - y.detach())


@pytest.mark.parametrize("port", [False, True])
@pytest.mark.parametrize("original", [False, True])
def test_sparse_gradients(port, original, tmp_path):
    path = record_module(Embedded(original), tmp_path / "old.npz", [TOKENS])
    for against in ({"against": Embedded(original), "arrays": [TOKENS]}, {"against": path}):
        assert check(Embedded(port), **against).passed
        assert check(Embedded(port, 1.001), **against).first == "output in Embedded"
        wrong = check(Embedded(port, kind=Steep), **against)
        assert wrong.first == "gradient of weight in emb"


class Bag(nn.Module):
    def __init__(self, mode):
        super().__init__()
        self.emb = nn.EmbeddingBag(7, 4, sparse=True, mode=mode)

    def forward(self, tokens, offsets):
        return self.emb(tokens, offsets)


class ByLoops(nn.Module):
    def __init__(self, first=0):
        super().__init__()
        self.emb, self.first = nn.Embedding(7, 4), first

    def forward(self, tokens, offsets):
        ends = [*offsets.tolist()[1:], len(tokens)]
        bags = zip(offsets.tolist(), ends, strict=True)
        return torch.stack([self.emb(tokens[a + self.first : b]).mean(0) for a, b in bags])


def test_a_bag_of_embeddings():
    given = [TOKENS.flatten(), torch.tensor([0, 4, 9])]
    assert check(ByLoops(), Bag("mean"), given).passed
    assert check(ByLoops(1), Bag("mean"), given).first == "output in Bag"
    report = check(Bag("sum"), Bag("mean"), given)
    assert report.first == "output in emb"
    assert report.cause.name == "mode"


def net(kind="", hook=None, at=0):
    made = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    if kind:
        getattr(made[at], f"register_{kind}_hook")(hook)
    return made


def times(factor):
    """A hook of any kind that makes its last argument, a result or gradient, so much larger."""

    def hook(module, *given):
        last = given[-1]
        return tuple(factor * t for t in last) if isinstance(last, tuple) else factor * last

    return hook


KINDS = ("forward", "forward_pre", "full_backward", "full_backward_pre")


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_that_look_and_hooks_that_change(kind):
    grads = "backward" in kind
    first = "gradient of input in 2" if grads else "output in 2"
    looking = net(kind, lambda *given: None, 2)
    for pair in ((looking, net()), (net(), looking)):
        report = check(*pair, [X])
        assert report.passed, str(report)
    changing = times(1.001) if kind != "full_backward" else lambda m, given, dys: (1.5 * given[0],)
    for pair in ((net(kind, changing, 2), net()), (net(), net(kind, changing, 2))):
        report = check(*pair, [X])
        assert report.first == first
        assert report.cause.name == "hook", str(report)
    assert check(net(kind, changing, 2), net(kind, changing, 2), [X]).passed


def test_a_hook_sees_what_was_given_once():
    """Where the original's own hook comes before what looks at it, its arguments are as given."""
    seen = []
    original = net("forward_pre", lambda module, args: (2 * args[0],))
    port = net("forward_pre", lambda module, args: seen.append(args[0]) or (2 * args[0],))
    assert check(port, original, [X]).passed
    assert all(torch.equal(x, X.to(x)) for x in seen)


def test_hooks_on_a_parameter():
    mask = (torch.arange(16).view(4, 4) % 3).float()

    def masked(factor):
        made = net()
        made[0].weight.register_hook(lambda dw: factor * mask * dw)
        return made

    assert check(masked(1.0), masked(1.0), [X]).passed
    for pair in ((net(), masked(1.0)), (masked(1.0), net()), (masked(1.001), masked(1.0))):
        assert check(*pair, [X]).first == "gradient of weight in 0"
    assert check(net(), masked(1.0), [X]).cause.name == "hook"


@torch.library.custom_op("gradtwin_tests::square", mutates_args=())
def square(x: torch.Tensor) -> torch.Tensor:
    return x * x


@torch.library.custom_op("gradtwin_tests::half", mutates_args=())
def half(x: torch.Tensor) -> torch.Tensor:
    return x * x


def _keep(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


square.register_autograd(lambda ctx, dy: 2 * ctx.saved_tensors[0] * dy, setup_context=_keep)
half.register_autograd(lambda ctx, dy: ctx.saved_tensors[0] * dy, setup_context=_keep)


class Squared(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.fc, self.function = nn.Linear(4, 4), function

    def forward(self, x):
        return self.function(self.fc(x))


def test_operators_of_users():
    plain = lambda x: x * x  # noqa: E731
    for pair in ((square, plain), (plain, square), (square, square)):
        report = check(*map(Squared, pair), [X])
        assert report.passed, str(report)
    for pair in ((half, plain), (half, square), (plain, half)):
        assert check(*map(Squared, pair), [X]).first == "gradient of x in Squared"


class Normed(nn.Module):
    def __init__(self, times):
        super().__init__()
        self.g, self.v = nn.Parameter(torch.ones(4, 1)), nn.Parameter(torch.ones(4, 4))
        self.bias, self.times = nn.Parameter(torch.zeros(4)), times

    def forward(self, x):
        return F.linear(x, self.times * self.g * F.normalize(self.v), self.bias)


class Symmetric(nn.Module):
    def __init__(self, times=1.0):
        super().__init__()
        self.times = times

    def forward(self, w):
        return self.times * (w.triu() + w.triu(1).mT)


def of_symmetric(times):
    made = nn.Sequential(nn.Linear(4, 4))
    parametrize.register_parametrization(made[0], "weight", Symmetric(times))
    return made


ORIGINAL = "0.parametrizations.weight.original"
NORMED = {
    "new": (parametrizations.weight_norm, {"0.g": f"{ORIGINAL}0", "0.v": f"{ORIGINAL}1"}),
    "old": (nn.utils.weight_norm, {"0.g": "0.weight_g", "0.v": "0.weight_v"}),
}


@pytest.mark.parametrize("kind", NORMED)
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_normalized_weights(kind):
    function, names = NORMED[kind]
    for times, right in ((1.0, True), (1.001, False)):
        port, original = nn.Sequential(Normed(times)), nn.Sequential(function(nn.Linear(4, 4)))
        assert check(port, original, [X], names=names).passed == right
        back = {theirs: ours for ours, theirs in names.items()}
        report = check(original, port, [X], names=back)
        assert report.passed == right
        assert right or report.first == "output in 0"


def test_a_weight_that_is_made_of_another():
    assert check(of_symmetric(1.0), of_symmetric(1.0), [X]).passed
    report = check(of_symmetric(1.001), of_symmetric(1.0), [X])
    assert report.first == "output in 0.parametrizations.weight.0"
    assert report.cause.name == "times"


class Twice(nn.Module):
    def __init__(self, shared):
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = self.a if shared else nn.Linear(4, 4)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x)))


def test_a_module_that_has_two_names():
    report = check(Twice(True), Twice(True), [X])
    assert report.passed, str(report)
    assert list(report.table["place"].unique()) == ["a", ""]
    report = check(Twice(False), Twice(True), [X])
    assert report.first == "gradient of a.weight in Twice"
    assert report.cause.name == "untied"
    assert check(Twice(True), Twice(False), [X]).first == "output in Twice"


class Table(nn.Module):
    times = 1.0

    def __init__(self, learns):
        super().__init__()
        self.rows = nn.Parameter(torch.ones(5, 4)) if learns else None

    def forward(self, n):
        rows = self.rows if self.rows is not None else torch.arange(20.0).view(5, 4)
        return self.times * rows[:n]


class Added(nn.Module):
    def __init__(self, learns, times=1.0):
        super().__init__()
        self.table = Table(learns)
        self.table.times = times

    def forward(self, x):
        return x.tanh() + self.table(len(x))


def test_a_submodule_that_is_given_no_tensor():
    assert check(Added(True), Added(True), [X]).passed
    assert check(Added(True, 1.001), Added(True), [X]).first == "output in table"
    assert check(Added(False), Added(False), [X]).passed
    report = check(Added(False, 1.001), Added(False), [X])
    assert report.first == "output in Added"
    assert "not judged alone: table: it is given no numbers, and holds none" in str(report)
    assert check(Table(True), Table(True), [3]).passed


class Listed(nn.Module):
    def __init__(self, times=1.0):
        super().__init__()
        self.weights = nn.ParameterList(torch.randn(4, 4) for _ in range(2))
        self.named, self.times = nn.ParameterDict({"bias": torch.randn(4)}), times

    def forward(self, x):
        for weight in self.weights:
            x = torch.tanh(x @ weight)
        return x + self.times * self.named["bias"]


def test_lists_and_dicts_of_parameters():
    report = check(Listed(), Listed(), [X])
    assert report.passed, str(report)
    assert "gradient of weights.1" in set(report.table["result"])
    assert check(Listed(1.001), Listed(), [X]).first == "output in Listed"


class Spectral(nn.Module):
    """A convolution by its Fourier coefficients."""

    conjugate = False

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 9, dtype=torch.cfloat))
        self.register_buffer("phase", torch.polar(torch.ones(9), torch.arange(9.0)))

    def forward(self, x):
        w = self.weight
        if self.conjugate:  # the value is right
            w = w + (w.conj() - w.conj().detach())
        return torch.fft.rfft(x, n=16) * w * self.phase


class Parts(nn.Module):
    """The same, of real and imaginary parts."""

    times = 1.0

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 9, 2))
        self.register_buffer("phase", torch.zeros(9, 2))

    def forward(self, x):
        re, im = torch.view_as_real(torch.fft.rfft(x, n=16)).unbind(-1)
        for a, b in (self.weight.unbind(-1), self.phase.unbind(-1)):
            re, im = re * a - im * b, self.times * (re * b + im * a)
        return torch.complex(re, im)


def as_parts(state):
    return {name: torch.view_as_real(t.resolve_conj()) for name, t in state.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_complex_parameters_buffers_and_results(dtype, tmp_path):
    x, original = torch.randn(3, 4, 16, dtype=dtype), Spectral()
    if dtype == torch.float64:
        original.weight = nn.Parameter(original.weight.detach().to(torch.complex128))
    path = record_module(original, tmp_path / "old.npz", [x])
    for against in ({"against": original, "arrays": [x]}, {"against": path}):
        report = check(Parts(), **against, names=as_parts)
        assert report.passed, str(report)
        assert "gradient of weight" in set(report.table["result"])
        wrong = Parts()
        wrong.times = 1.001
        assert check(wrong, **against, names=as_parts).first == "output in Spectral"
        wrong = Spectral()
        wrong.conjugate = True
        assert check(wrong, **against).first == "gradient of weight in Spectral"


@pytest.mark.parametrize(
    ("port", "original", "said"),
    [
        (net, lambda: nn.Sequential(nn.LazyLinear(4)), "the original has not made 0.weight"),
        (lambda: nn.Sequential(nn.LazyLinear(4)), net, "the port has not made 0.weight"),
        (net, lambda: net().to("meta"), "the original: expected values, got 0.weight on meta"),
    ],
)
def test_what_has_no_values(port, original, said):
    with pytest.raises(ValueError, match=said):
        check(port(), original(), [X])


def test_a_port_on_meta_is_given_the_values_of_the_original():
    assert check(net().to("meta"), net(), [X]).passed
    own = net().to("meta")
    own.register_buffer("table", torch.zeros(3, device="meta"))
    with pytest.raises(ValueError, match="the port: expected values, got table on meta"):
        check(own, net(), [X])


class Giving(nn.Module):
    """Something that is made of a loss and a penalty."""

    def __init__(self, made, times=1.0):
        super().__init__()
        self.fc, self.made, self.times = nn.Linear(4, 3), made, times

    def forward(self, x):
        y = self.fc(x)
        return self.made(y.logsumexp(-1).mean(), self.times * y.square().mean())


FORMS = {
    "one": lambda loss, penalty: loss + penalty,
    "dict": lambda loss, penalty: {"loss": loss, "penalty": penalty, "aux": None, "n": 3},
    "order": lambda loss, penalty: {"n": 3, "penalty": penalty, "loss": loss},
    "tuple": lambda loss, penalty: (loss, None, (penalty, "text")),
}


@pytest.mark.parametrize(
    ("form", "other"), [*((form, form) for form in FORMS), ("order", "dict"), ("dict", "order")]
)
def test_losses_in_any_form(form, other, tmp_path):
    original = Giving(FORMS[other])
    path = record_module(original, tmp_path / "old.npz", [X])
    for against in ({"against": original, "arrays": [X]}, {"against": path}):
        report = check(Giving(FORMS[form]), **against)
        assert report.passed, str(report)
        assert not check(Giving(FORMS[form], 1.001), **against).passed


@pytest.mark.parametrize("made", [lambda *losses: (t for t in losses), lambda *losses: None])
def test_a_whole_that_gives_no_tensor(made):
    with pytest.raises(TypeError, match=r"Giving gives a \w+, without a floating tensor"):
        check(Giving(made), Giving(made), [X])


def test_a_whole_that_writes_to_what_it_is_given():
    def made(slope):
        return nn.Sequential(nn.LeakyReLU(slope, inplace=True), nn.Linear(4, 3))

    x = X.clone()
    assert check(made(0.1), made(0.1), [x]).passed
    assert torch.equal(x, X)
    report = check(made(0.2), made(0.1), [x])
    assert report.first == "output in 0"


class Asking(nn.Linear):
    """Refuses an argument of which a gradient is asked already."""

    times = 1.0

    def forward(self, x):
        rows = x[:]
        rows.requires_grad = True
        return super().forward(rows) * self.times


def test_an_original_that_allows_no_gradient_of_its_arguments():
    report = check(nn.Sequential(nn.Linear(4, 3)), nn.Sequential(Asking(4, 3)), [X])
    assert report.passed, str(report)
    assert "with gradients of all its arguments the original raises" in report.notes[0]
    assert "gradient of weight" in set(report.table["result"])
    wrong = nn.Sequential(Asking(4, 3))
    wrong[0].times = 1.001
    assert check(wrong, nn.Sequential(Asking(4, 3)), [X]).first == "output in 0"


class Experts(nn.Module):
    """Rows that belong to one of three experts each, in order."""

    def __init__(self):
        super().__init__()
        self.up, self.down = (nn.Parameter(torch.randn(3, 16, 16) / 4) for _ in range(2))

    def forward(self, x, ends):
        h = torch.nn.functional.grouped_mm(x, self.up, offs=ends)
        return torch.nn.functional.grouped_mm(h.relu(), self.down, offs=ends)


class OneByOne(Experts):
    times = 1.0

    def forward(self, x, ends):
        starts = [0, *ends.tolist()[:-1]]
        rows = [x[a:b] for a, b in zip(starts, ends.tolist(), strict=True)]
        return torch.cat(
            [
                self.times * (r @ u).relu() @ d
                for r, u, d in zip(rows, self.up, self.down, strict=True)
            ]
        )


@pytest.mark.skipif(not hasattr(F, "grouped_mm"), reason="newer than this torch")
def test_products_of_experts_are_computed_in_float64():
    given = [torch.randn(9, 16), torch.tensor([2, 6, 9], dtype=torch.int32)]
    for pair in ((OneByOne(), Experts()), (Experts(), OneByOne()), (Experts(), Experts())):
        report = check(*pair, given)
        assert report.passed, str(report)
        assert not report.warnings
    wrong = OneByOne()
    wrong.times = 1.001
    assert check(wrong, Experts(), given).first == "output in Experts"


def masks(n, ends):
    """Of each group, where it stands."""
    places = torch.arange(n)
    starts = [0, *ends[:-1]]
    return torch.stack([(a <= places) & (places < b) for a, b in zip(starts, ends, strict=True)])


@pytest.mark.parametrize(
    ("a", "b", "grouped", "plain"),
    [
        ((9, 4), (3, 4, 5), 9, "gm,mk,gkn->mn"),
        ((3, 4, 9), (9, 5), 5, "gn,gmk,kn->mn"),
        ((4, 9), (9, 5), 9, "gk,mk,kn->gmn"),
    ],
)
def test_grouped_products_of_any_axes(a, b, grouped, plain):
    ends = [2, 2, 4]
    x, y, mask = torch.randn(a).double(), torch.randn(b).double(), masks(grouped, ends).double()
    found = wide.grouped_mm(x, y, torch.tensor(ends))
    assert torch.allclose(found, torch.einsum(plain, mask, x, y), rtol=0, atol=1e-13)


@torch.library.custom_op("gradtwin_tests::narrow", mutates_args=())
def narrow(x: torch.Tensor) -> torch.Tensor:
    if x.dtype == torch.float64:
        raise RuntimeError("narrow: not implemented for Double")
    return x.sin()


narrow.register_autograd(lambda ctx, dy: dy * ctx.saved_tensors[0].cos(), setup_context=_keep)


def test_an_operator_that_knows_no_float64():
    for pair in ((narrow, torch.sin), (torch.sin, narrow), (narrow, narrow)):
        report = check(*map(Squared, pair), [X])
        assert report.passed, str(report)
        said = " ".join(report.warnings)  # of the original: it is what is believed
        assert ("no float64 is known by gradtwin_tests::narrow" in said) == (pair[1] is narrow)
    assert check(Squared(torch.cos), Squared(narrow), [X]).first == "output in Squared"

    def broken(x):
        return narrow(x) @ x

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        check(Squared(torch.sin), Squared(broken), [X])


class Keeping(nn.Linear):
    def forward(self, x):
        self.last = super().forward(x)  # of which no copy can be made
        return self.last * self.times

    times = 1.0


def test_a_cause_is_looked_for_in_what_cannot_be_copied():
    def made(eps):
        return nn.Sequential(Keeping(4, 4), nn.LayerNorm(4, eps=eps))

    port, original = made(1e-6), made(1e-5)
    original(X)
    port(X)
    assert check(nn.Sequential(port), nn.Sequential(original), [X]).cause.name == "eps"
    wrong = made(1e-5)
    wrong(X)
    wrong[0].times = 1.001
    assert check(wrong, original, [X]).cause.name == "times"


def compiled(form, module):
    if form == "around":
        return torch.compile(module, backend="aot_eager")
    if form == "inside":
        module[0] = torch.compile(module[0], backend="aot_eager")
    else:
        module.compile(backend="aot_eager")
    return module


@pytest.mark.parametrize("form", ["around", "inside", "in place"])
def test_an_original_that_is_compiled_is_run_as_it_is_written(form, monkeypatch):
    original = compiled(form, net())
    original(X)
    report = check(net(), original, [X])
    assert report.passed, str(report)
    assert "the original is compiled" in report.notes[0]
    assert {"0", "2", ""} <= set(report.table["place"])
    assert check(net("forward", times(1.001)), original, [X]).first == "output in 0"


@pytest.mark.sweep  # a process
def test_torchs_compiler_is_not_imported_for_what_is_not_compiled():
    code = """
import sys, torch
from gradtwin import check
port, original = (torch.nn.Linear(3, 2) for _ in range(2))
assert check(port, original, [torch.randn(4, 3)]).passed
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
