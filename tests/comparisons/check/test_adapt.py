"""Whatever people bring is one kind of subject: the right ones pass, the wrong ones are WRONG."""

import collections
import dataclasses
import functools
import operator
import random
import sys

import ml_dtypes
import numpy as np
import pytest
import torch
from gradtwin.comparisons.check import torch_subjects
from gradtwin.comparisons.check.adapt import Misuse, of_torch, subject_of
from gradtwin.comparisons.check.surroundings import Exited, Surroundings
from gradtwin.comparisons.cli.app import app
from gradtwin.reference.adapters import array, tensor
from torch.autograd.function import once_differentiable
from typer.testing import CliRunner

from gradtwin import check

F = torch.nn.functional
rng = np.random.default_rng(3)
X, Y = rng.standard_normal((3, 4)), rng.standard_normal((3, 4))
W, B = rng.standard_normal((4, 5)), rng.standard_normal(5)
LABELS = np.array([0, 3, 1])


def judged(subject, truth, args, kwargs=None, constant="", dtype="float64"):
    """Whether a subject agrees with torch at one point: value and gradients. Raises what it
    raises."""
    kwargs, names = kwargs or {}, frozenset(constant.split())
    made = subject_of(subject, args, kwargs, names, (dtype,))
    args, kwargs = of_dtype((tuple(args), kwargs), dtype)
    wide = of_dtype((args, kwargs), "float64")
    theirs = of_torch(truth, made.signature, names, tensor)
    y = theirs.run(*wide)[0]
    many = y if isinstance(y, tuple) else (y,)
    dys = tuple(np.asarray(rng.standard_normal(part.shape)) for part in many)
    dy = dys if isinstance(y, tuple) else dys[0]
    dy = of_dtype(dy, dtype)
    expected = theirs((*wide, of_dtype(dy, "float64")))
    found = made((args, kwargs, dy))
    assert found.keys() == expected.keys()
    close = 1e-9 if dtype == "float64" else 0.05
    for name, right in expected.items():
        ours = found[name]
        if ours is None:
            if right is not None and right.any():
                return False
            continue
        if ours.dtype != dtype or ours.shape != right.shape:
            return False
        if not np.allclose(ours.astype(float), right, close, close):
            return False
    return True


def of_dtype(tree, dtype):
    if isinstance(tree, dict):
        return {k: of_dtype(v, dtype) for k, v in tree.items()}
    if isinstance(tree, (tuple, list)):
        return type(tree)(of_dtype(v, dtype) for v in tree)
    floats = isinstance(tree, np.ndarray) and (
        tree.dtype.kind == "f" or "bfloat" in str(tree.dtype)
    )
    return tree.astype(dtype) if floats else tree


# Functions of torch.autograd: each with a factor, 1 where it is right -----------------------------


def sin_cos(k):
    class SinCos(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            s, c = torch.sin(x), torch.cos(x)
            ctx.save_for_backward(s, c)
            return s, c

        @staticmethod
        def backward(ctx, ds, dc):
            s, c = ctx.saved_tensors
            return ds * c - k * dc * s

    return SinCos


def unmaterialised(k):
    class Sparing(sin_cos(1)):
        @staticmethod
        def forward(ctx, x):
            ctx.set_materialize_grads(False)
            return sin_cos(1).forward(ctx, x)

        @staticmethod
        def backward(ctx, ds, dc):
            assert ds is None
            return -k * dc * ctx.saved_tensors[0]

    return Sparing


def largest(k):
    class Largest(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            v, i = x.max(-1)
            ctx.mark_non_differentiable(i)
            ctx.save_for_backward(i)
            ctx.shape = x.shape
            return v, i

        @staticmethod
        def backward(ctx, dv, di):
            (i,) = ctx.saved_tensors
            return k * dv.new_zeros(ctx.shape).scatter_(-1, i.unsqueeze(-1), dv.unsqueeze(-1))

    return Largest


def in_place(k):
    class Relu(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            x.mul_(2).clamp_(min=0)
            ctx.mark_dirty(x)
            ctx.save_for_backward(x)
            return x

        @staticmethod
        @once_differentiable
        def backward(ctx, dy):
            (y,) = ctx.saved_tensors
            return 2 * k * dy * (y > 0)

    return Relu


def affine(k):
    class Affine(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, w, bias=None, scale=1.0):
            ctx.save_for_backward(x, w)
            ctx.scale = scale
            return scale * (x @ w) + bias, None

        @staticmethod
        def backward(ctx, dy, _):
            x, w = ctx.saved_tensors
            return k * ctx.scale * dy @ w.T, ctx.scale * x.T @ dy, dy.sum(0), None

    return Affine


def times(k):
    class Times(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, dy):
            return 2 * k * dy

    return Times.apply


def plain_affine(x, w, bias, scale=1.0):
    return scale * (x @ w) + bias


# Results and arguments of torch callables -------------------------------------------------------

Named = collections.namedtuple("Named", "loss logits")


@dataclasses.dataclass
class Data:
    loss: torch.Tensor
    logits: torch.Tensor
    steps: int = 3


class Doubled(torch.nn.Module):
    """In float32, like all modules at first."""

    def __init__(self, k):
        super().__init__()
        self.linear, self.times = torch.nn.Linear(4, 2), times(k)

    def forward(self, x):
        return self.times(self.linear(x))


def of_module(x):
    torch.manual_seed(0)
    linear = torch.nn.Linear(4, 2).to(x.dtype)
    return 2 * linear(x)


def module(k):
    torch.manual_seed(0)
    return Doubled(k)


def compiled(backend):
    def made(k):
        multiply = times(k)

        def f(x):
            return torch.tanh(torch.exp(0.1 * multiply(x)) * x)

        return torch.compile(f, backend=backend)

    return made


def two(x):
    return (2 * x).sum(), 2 * x


TORCH = {
    "several outputs": (sin_cos, lambda x: (torch.sin(x), torch.cos(x)), (X,), {}),
    "second output": (lambda k: lambda x: sin_cos(k).apply(x)[1], torch.cos, (X,), {}),
    "not materialised": (lambda k: lambda x: unmaterialised(k).apply(x)[1], torch.cos, (X,), {}),
    "not differentiable": (largest, lambda x: x.max(-1), (X,), {}),
    "values alone": (lambda k: lambda x: largest(k).apply(x)[0], lambda x: x.amax(-1), (X,), {}),
    "in place": (in_place, lambda x: torch.relu(2 * x), (X,), {}),
    "tensor, None": (affine, plain_affine, (X, W, B), {"scale": 2.0}),
    "keywords": (affine, plain_affine, (X, W), {"scale": 2.0, "bias": B}),
    "dict": (lambda k: lambda x: {"a": times(k)(x).sum(), "b": times(k)(x)}, two, (X,), {}),
    "named": (lambda k: lambda x: Named(times(k)(x).sum(), times(k)(x)), two, (X,), {}),
    "dataclass": (lambda k: lambda x: Data(times(k)(x).sum(), times(k)(x)), two, (X,), {}),
    "nested": (lambda k: lambda x: [times(k)(x), (x, None)], lambda x: (2 * x, x), (X,), {}),
    "indices": (lambda k: lambda x, i: times(k)(x[i]), lambda x, i: 2 * x[i], (X, LABELS % 3), {}),
    "mask": (
        lambda k: lambda x, m: (times(k)(x.masked_fill(m, 0.0)), m),
        lambda x, m: 2 * x.masked_fill(m, 0.0),
        (X, X > 0.5),
        {},
    ),
    "module": (module, of_module, (X,), {}),
    "compiled": (compiled("eager"), compiled("eager")(1), (X,), {}),
    "compiled by AOT": (compiled("aot_eager"), compiled("eager")(1), (X,), {}),
    "partial": (
        lambda k: functools.partial(lambda x, y: times(k)(x * y), y=3.0),
        lambda x, y=3.0: 6 * x,
        (X,),
        {},
    ),
}


@pytest.mark.filterwarnings("ignore")  # torch's own, when it compiles
@pytest.mark.parametrize("name", TORCH)
def test_what_is_torchs_is_right_or_wrong(name):
    make, truth, args, kwargs = TORCH[name]
    assert judged(make(1), truth, args, kwargs)
    assert not judged(make(1.5), truth, args, kwargs)


@pytest.mark.thinned(4)
@pytest.mark.parametrize("name", ["not differentiable", "in place", "tensor, None", "nested"])
@pytest.mark.parametrize("alone", [False, True], ids=["torch", "nothing"])
def test_what_is_torchs_is_checked_whole(name, alone):
    make, truth, args, kwargs = TORCH[name]
    against = None if alone else truth
    check(make(1), against, args, kwargs).raise_for_failure()
    assert not check(make(1.5), against, args, kwargs, probes=["ordinary"]).passed


def test_a_compiled_backward_may_be_had_once():
    def f(x):
        return torch.tanh(torch.exp(x) * x.sin()) * x

    with torch._functorch.config.patch(donated_buffer=True):
        made = subject_of(torch.compile(f, backend="aot_eager"), [X], {})
        y, pullback = made.run([X], {})
        first, second = pullback(np.ones_like(y))[0], pullback(np.ones_like(y))[0]
    assert np.array_equal(first, second)
    assert np.allclose(first, of_torch(f).run([X], {})[1](np.ones_like(y))[0])


def test_a_function_that_answers_once_is_asked_again():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.kept = [x]
            return x * x

        @staticmethod
        def backward(ctx, dy):
            return 2 * dy * ctx.kept.pop()

    check(Once, torch.square, [X]).raise_for_failure()


@pytest.mark.parametrize("came", [1, 3])
def test_gradients_of_a_function_are_counted(came):
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, a, b):
            return a * b

        @staticmethod
        def backward(ctx, dy):
            return (dy,) * came

    made = subject_of(Product, [X, Y], {})
    with pytest.raises(Misuse, match=f"expected 2 gradients, .* got {came}"):
        made(((X, Y), {}, X))


def test_none_from_a_backward_is_no_gradient_and_none_too_many_is_fine():
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, a, b):
            return a * b

        @staticmethod
        def backward(ctx, dy):
            return None, dy, None

    found = subject_of(Product, [X, Y], {})(((X, Y), {}, X))
    assert found["a"] is None
    assert found["b"] is not None


def test_what_is_given_twice_gets_both_gradients():
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, a, b):
            ctx.save_for_backward(a, b)
            return a * b

        @staticmethod
        def backward(ctx, dy):
            a, b = ctx.saved_tensors
            return dy * b, dy * a

    assert judged(lambda x: Product.apply(x, x), torch.square, (X,))


# Written by hand over arrays --------------------------------------------------------------------


class Layer:
    def __init__(self, k=1):
        self.k = k

    def forward(self, x):
        self.y = np.tanh(x)
        return self.y

    def backward(self, dy):
        return self.k * dy * (1 - self.y**2)


class Called(Layer):
    def __call__(self, x):
        self.x = x
        return super().forward(x)

    def backward(self, dy):
        return self.k * dy * (1 - np.tanh(self.x) ** 2)


class OverTensors(Layer):
    def forward(self, x):
        self.y = torch.tanh(x)
        return self.y


class Rule(Layer):
    def __call__(self, x):
        return self.forward(x), self.backward


def of_context(k):
    class Tanh:
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(np.tanh(x))
            return np.tanh(x)

        @staticmethod
        def backward(ctx, dy):
            (y,) = ctx.saved_values
            return k * dy * (1 - y * y)

    return Tanh


def class_of(k):
    return type("Tanh", (Layer,), {"__init__": lambda self: Layer.__init__(self, k)})


def softmax_loss(k):
    def loss(x, y):
        p = np.exp(x - x.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        rows = np.arange(len(x))
        dx = p.copy()
        dx[rows, y] -= 1
        return -np.log(p[rows, y]).mean(), k * dx / len(x)

    return loss


def loss_and_dict(k):
    def loss(w, b, x):
        d = x @ w + b
        return np.mean(d * d), {"db": 2 * d.sum(0) / d.size, "dw": k * 2 * x.T @ d / d.size}

    return loss


def forward(x, w, b):
    return x @ w + b, (x, w)


def backward(k, turned=False, named=None):
    def gradients(dout, cache):
        x, w = cache
        found = dout @ w.T, k * x.T @ dout, dout.sum(0)
        return dict(zip(named[::-1], found[::-1], strict=True)) if named else found

    def other_way(cache, dout):
        return gradients(dout, cache)

    return forward, gradients if turned else other_way


def relu(k):
    def rule(x):
        y = x.copy()
        y[y < 0] = 0

        def pullback(dy):
            dx = dy.copy()
            dx[x <= 0] = 0
            return k * dx

        return y, pullback

    return rule


def writes_settings(k):
    def first(x, cfg):
        cfg["cache"], cfg["more"] = x, [x]
        return x * cfg.pop("k"), 3.0

    return first, lambda saved, dy: k * dy * saved


def of_parameters(k):
    def rule(x, params):
        def pullback(dy):
            return dy @ params["w"].T, {"b": dy.sum(0), "w": k * x.T @ dy}

        return x @ params["w"] + params["b"], pullback

    return rule


def keyword(k):
    def rule(x, *, w, scale=1.0):
        return scale * x * w, lambda dy: (scale * dy * w, k * scale * dy * x)

    return rule


def turns_everything_off(k):
    def rule(x):
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float16)
        np.seterr(all="raise")
        np.random.seed(0)  # noqa: NPY002
        random.seed(0)
        y = torch.tanh(x)

        def pullback(dy):
            torch.set_grad_enabled(False)
            return k * dy * (1 - y * y)

        return y, pullback

    return rule


def static(k):
    class Named:
        @staticmethod
        def rule(x, factor=2.0):
            return x * factor, lambda dy: k * dy * factor

    return Named


def mse(w, b, x):
    return torch.mean((x @ w + b) ** 2)


def of_dict(x, params):
    return x @ params["w"] + params["b"]


def scaled(x, cfg):
    return x * 3.0


ARRAYS = {
    "layer": (Layer, torch.tanh, (X,), {}),
    "layer that is called": (Called, torch.tanh, (X,), {}),
    "layer over tensors": (OverTensors, torch.tanh, (X,), {}),
    "two methods": (lambda k: (lambda o: (o.forward, o.backward))(Layer(k)), torch.tanh, (X,), {}),
    "object that is a rule": (Rule, torch.tanh, (X,), {}),
    "class": (class_of, torch.tanh, (X,), {}),
    "class with a context": (of_context, torch.tanh, (X,), {}),
    "loss and gradient": (softmax_loss, F.cross_entropy, (X, LABELS), {}),
    "loss and dict": (loss_and_dict, mse, (W, B, X), {}),
    "pair": (backward, F.linear, (X, W, B), {}),
    "pair, turned": (lambda k: backward(k, True), F.linear, (X, W, B), {}),
    "pair, dict": (lambda k: backward(k, False, ["x", "w", "b"]), F.linear, (X, W, B), {}),
    "pair, dx": (lambda k: backward(k, False, ["dx", "grad_w", "d_b"]), F.linear, (X, W, B), {}),
    "masks": (relu, torch.relu, (np.array(0.3),), {}),
    "settings": (writes_settings, scaled, (X,), {"cfg": {"k": 3.0}}),
    "settings in place": (writes_settings, scaled, (X, {"k": 3.0}), {}),
    "parameters": (of_parameters, of_dict, (X, {"w": W, "b": B}), {}),
    "keyword": (keyword, lambda x, *, w, scale: scale * x * w, (X,), {"w": Y, "scale": 2.0}),
    "global state": (turns_everything_off, torch.tanh, (X,), {}),
    "static": (lambda k: static(k).rule, lambda x: 2 * x, (X,), {}),
    "static, raw": (lambda k: vars(static(k))["rule"], lambda x: 2 * x, (X,), {}),
    "partial": (
        lambda k: functools.partial(static(k).rule, factor=5.0),
        lambda x, factor=5.0: 5 * x,
        (X,),
        {},
    ),
}


def truth_of(name):
    truth = ARRAYS[name][1]
    return plain_affine if truth is F.linear else truth


@pytest.mark.parametrize("name", ARRAYS)
def test_what_is_written_over_arrays_is_right_or_wrong(name):
    make, _, args, kwargs = ARRAYS[name]
    constant = "x" if name == "loss and dict" else ""
    assert judged(make(1), truth_of(name), args, kwargs, constant)
    assert not judged(make(1.5), truth_of(name), args, kwargs, constant)


@pytest.mark.thinned(2)
@pytest.mark.parametrize("name", ["layer", "class with a context", "pair, dx", "global state"])
@pytest.mark.parametrize("alone", [False, True], ids=["torch", "nothing"])
def test_what_is_written_over_arrays_is_checked_whole(name, alone):
    make, _, args, kwargs = ARRAYS[name]
    against = None if alone else truth_of(name)
    check(make(1), against, args, kwargs).raise_for_failure()
    assert not check(make(1.5), against, args, kwargs, probes=["ordinary"]).passed


def test_builtins_without_a_signature_are_taken():
    assert judged(operator.mul, torch.mul, (X, Y))
    assert judged(torch.add, torch.add, (X, Y))


def test_the_backward_of_an_object_is_what_is_judged():
    """Not autograd, through a forward that takes tensors as well."""

    class Square:
        def forward(self, x):
            self.x = x
            return x**2

        def backward(self, dy):
            return 3 * self.x * dy

    assert not judged(Square(), torch.square, (X,))


def test_unknown_names_of_gradients_are_named():
    with pytest.raises(Misuse, match="gradients of x, w, b, got one of q, p"):
        judged(backward(1, False, ["p", "q", "b"]), plain_affine, (X, W, B))


def test_a_gradient_that_a_dict_lacks_is_none():
    def rule(x, w):
        return x * w, lambda dy: {"w": dy * x}

    found = subject_of(rule, [X, Y], {})(((X, Y), {}, X))
    assert found["x"] is None
    assert found["w"] is not None


def test_numbers_are_handed_over_as_arrays():
    seen = []

    def rule(x, k):
        seen.append(x)
        return x * k, lambda dy: (seen.append(dy), dy * k)[1]

    made = subject_of(rule, [np.array(2.0), 3.0], {})
    y, pullback = made.run([np.float64(2.0), 3.0], {})
    pullback(np.float64(1.0))
    assert {type(leaf) for leaf in [*seen, y]} == {np.ndarray}


# What nobody can judge --------------------------------------------------------------------------


@pytest.mark.parametrize("subject", [lambda z, w: (z, lambda dy: dy), torch.mul])
def test_complex_arguments_are_refused_by_name(subject):
    with pytest.raises(TypeError, match=r"expected a floating array.*complex128"):
        subject_of(subject, [X, X + 1j], {})


@pytest.mark.parametrize("subject", [lambda x: (np.fft.fft(x), lambda dy: dy), torch.fft.fft])
def test_complex_results_are_a_misuse(subject):
    made = subject_of(subject, [X], {})
    with pytest.raises(Misuse, match=r"y: expected.*complex"):
        made.run([X], {})


def test_the_message_is_that_of_the_attempt_that_fits():
    def of_torch_(x):
        return torch.matmul(x, x.new_zeros(7, 7)), None

    def of_numpy(x):
        return np.matmul(x, np.zeros((7, 7))), None

    def annotated(x: "torch.Tensor"):
        return x.missing

    for subject, error, text in (
        (of_torch_, RuntimeError, "mat1 and mat2"),
        (of_numpy, ValueError, "matmul"),
        (annotated, AttributeError, "'Tensor'"),
    ):
        made = subject_of(subject, [X], {})
        with pytest.raises(error, match=text):
            made.run([X], {})


def test_one_that_ends_the_process_raises():
    for subject in (sys.exit, lambda x: sys.exit(3)):
        with pytest.raises(Exited):
            subject_of(subject, [X], {}).run([X], {})
    y, pullback = subject_of(lambda x: (x, lambda dy: sys.exit(1)), [X], {}).run([X], {})
    with pytest.raises(Exited):
        pullback(y)


def test_what_is_around_is_as_it_was():
    around = Surroundings()
    made = subject_of(turns_everything_off(1), [X], {}, around=around)
    y, pullback = made.run([X], {})
    pullback(y)
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32
    assert "torch's grad mode" in around.changed


def test_the_arguments_of_the_caller_stay_as_they_are():
    settings = {"k": 3.0}
    made = subject_of(writes_settings(1), [X], {"cfg": settings})
    made(((X,), {"cfg": settings}, X))
    assert settings == {"k": 3.0}


# Devices and 16 bits ----------------------------------------------------------------------------


class Elsewhere(torch.Tensor):
    pass


def test_a_subject_on_a_device_gets_its_arguments_there(monkeypatch):
    def there(leaf, device):
        sent = device is not None and isinstance(leaf, torch.Tensor)
        return leaf.as_subclass(Elsewhere) if sent else leaf

    for module in (torch_subjects, sys.modules[of_torch.__module__]):
        monkeypatch.setattr(module, "sent", there)

    def kernel(x):
        assert type(x) is Elsewhere
        return torch.tanh(x)

    kernel.device = "cuda"
    assert judged(kernel, torch.tanh, (X,))


def test_where_a_subject_is():
    where = torch_subjects.device_of
    assert where(torch.nn.Linear(2, 2)) is None
    assert where(torch.tanh) is None
    kernel = functools.partial(torch.tanh)
    kernel.device = "cuda:1"
    assert where(kernel) == torch.device("cuda:1")


def only_bfloat16(x):
    if x.dtype != torch.bfloat16:
        raise TypeError("expected bfloat16")
    return 2 * x


def numpy_rule(x):
    return 2 * x, lambda dy: 2 * dy


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("subject", [lambda x: times(1)(x), numpy_rule, only_bfloat16])
def test_sixteen_bits(subject, dtype):
    if subject is only_bfloat16 and dtype == "float16":
        pytest.skip("knows bfloat16 alone")
    assert judged(subject, lambda x: 2 * x, (X,), dtype=dtype)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_wrong_in_sixteen_bits(dtype):
    assert not judged(lambda x: times(1.5)(x), lambda x: 2 * x, (X,), dtype=dtype)


def test_bfloat16_goes_to_torch_and_back():
    a = X.astype(ml_dtypes.bfloat16)
    for laid in (a, a.T, a[:, ::2], a[0, 0], a[::-1], np.broadcast_to(a[0], (2, 4))):
        for made in (tensor(laid), torch_subjects.as_tensor(laid)):
            assert made.dtype == torch.bfloat16
            assert np.array_equal(array(made), np.asarray(laid))
    assert array(torch.bfloat16) == a.dtype
    assert tensor(a.dtype) == torch.bfloat16
    torch_subjects.as_tensor(a)[0, 0] = 3
    assert a[0, 0] == 3


# On the command line ----------------------------------------------------------------------------

RULES = """
import numpy as np

def gather(x, i):
    def pullback(dy):
        dx = np.zeros_like(x)
        np.add.at(dx, i, dy)
        return dx
    return x[i], pullback

def masked(x, m):
    return np.where(m, x, 0), lambda dy: np.where(m, dy, 0)

def tanh(x):
    return np.tanh(x), lambda dy: dy * (1 - np.tanh(x) ** 2)
"""


@pytest.mark.parametrize(
    ("name", "values", "status", "says"),
    [
        ("gather", ["--shape", "3", "--values", "0,2,1"], 0, "right"),
        ("masked", ["--values", "true,false", "--shape", "2"], 0, "right"),
        ("tanh", ["--values", "0.5,-2e-1"], 0, "right"),
        ("tanh", ["--values", "a,b"], 2, "expected numbers"),
    ],
)
def test_values_on_the_command_line(tmp_path, name, values, status, says):
    (tmp_path / "rules.py").write_text(RULES)
    done = CliRunner().invoke(app, ["check", f"{tmp_path / 'rules.py'}:{name}", *values])
    assert done.exit_code == status, done.output
    assert says in done.output
