"""What a baseline allows: a floor that is measured from the user's own call, ULPs, or a relative
error. What is planted above it is caught, what is below is quiet."""

import functools
import threading

import numpy as np
import pytest
import torch
from gradtwin.comparisons.snapshots import files
from gradtwin.comparisons.snapshots.arrays import collect, encoded

F = torch.nn.functional
rng = np.random.default_rng(0)


def kept(folder, arrays, **options):
    """What a test keeps, with arrays stored from before."""
    (folder / "layer.npz").write_bytes(encoded(collect(arrays), "there"))
    names = ("force_regen", "regen_all", "regen_platform")
    return files.Files(
        folder, "test_x.py::test_a", "test_a", folder / "record",
        **dict.fromkeys(names, False) | options,
    )  # fmt: skip


def holds(folder, now, then, **allowed):
    try:
        kept(folder, then).check("layer", now, **allowed)
    except AssertionError as error:
        print(error)
        return False
    return True


def gradients(model, x, dy):
    (model(x) * dy).sum().backward()
    return {name: p.grad for name, p in model.named_parameters()}


class Norm(torch.nn.Module):
    """A layer norm by hand."""

    def __init__(self, n):
        super().__init__()
        self.weight, self.bias = (torch.nn.Parameter(t) for t in (torch.ones(n), torch.zeros(n)))

    def forward(self, x):
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * self.weight


def softmax(x, dy):
    z = np.exp(x - x.max(-1, keepdims=True))
    y = z / z.sum(-1, keepdims=True)
    return {"dx": y * (dy - (y * dy).sum(-1, keepdims=True))}


def otherwise(x, dy):
    y = np.exp(x - np.log(np.exp(x).sum(-1, keepdims=True)))
    return {"dx": y * dy - y * np.einsum("ij,ij->i", y, dy)[:, None]}


def called(dtype, kind):
    """A call, what it gives, and the same in another way."""
    if kind == "numpy":
        x, dy = (rng.standard_normal((64, 32)).astype(dtype) for _ in range(2))
        return functools.partial(softmax, x, dy=dy), otherwise(x, dy)
    x, dy = (
        torch.tensor(rng.standard_normal((256, 64)), dtype=getattr(torch, dtype)) for _ in "xy"
    )
    model = torch.nn.LayerNorm(64).to(x.dtype)
    if kind == "threads":
        torch.set_num_threads(2)
        other = gradients(torch.nn.LayerNorm(64).to(x.dtype), x, dy)
        torch.set_num_threads(1)
    else:
        other = gradients(Norm(64).to(x.dtype), x, dy)
        other["bias"] = dy.sum(0)
    return functools.partial(gradients, model, x, dy), other


KINDS = pytest.mark.parametrize("kind", ["numpy", "by hand", "threads"])


@KINDS
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_same_in_another_way_is_within_the_floor(tmp_path, dtype, kind):
    call, other = called(dtype, kind)
    now = call.func(*call.args, **call.keywords)
    if kind != "numpy":
        call.args[0].zero_grad()
    assert not holds(tmp_path, now, other)  # not the same bits
    assert holds(tmp_path, now, other, floor=call)


@KINDS
@pytest.mark.parametrize(("dtype", "wrong"), [("float32", 1e-4), ("float64", 1e-12)])
def test_a_fault_is_beyond_the_floor(tmp_path, dtype, wrong, kind):
    call, _ = called(dtype, kind)
    now = call.func(*call.args, **call.keywords)
    then = {name: value * (1 + wrong) for name, value in now.items()}
    assert not holds(tmp_path, now, then, floor=call)
    then = {name: value * (1 + wrong / 1e4) for name, value in now.items()}
    assert holds(tmp_path, now, then, floor=call)


def test_sixteen_bits(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.GELU(), torch.nn.Linear(8, 4))
    x, dy = torch.randn(32, 16).bfloat16(), torch.randn(32, 4).bfloat16()
    call = functools.partial(gradients, model.bfloat16(), x, dy)
    now = gradients(model, x, dy)
    one_ulp = {name: g.float().mul(1 + 2**-8).bfloat16() for name, g in now.items()}
    assert not holds(tmp_path, now, one_ulp)
    assert holds(tmp_path, now, one_ulp, floor=call)
    assert not holds(tmp_path, now, {name: 3 * g for name, g in now.items()}, floor=call)


def test_a_kink_gives_no_slack(tmp_path):
    """At a tie a maximum may take the one or the other element, which is no rounding."""
    x = torch.tensor([[1.0, 1.0, 0.5], [3.0, 2.0, 1.0]])

    def slope(x):
        x = x.clone().requires_grad_()
        x.amax(1).sum().backward()
        return x.grad

    now = slope(x)
    assert holds(tmp_path, now, now.clone(), floor=functools.partial(slope, x))
    other = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    assert not holds(tmp_path, now, other, floor=functools.partial(slope, x))


def test_a_kink_that_rounding_turns_over_is_said(tmp_path, capsys):
    """One unit of a ReLU lies at a few u, where the order of a sum decides its side."""
    x, w = (torch.tensor(a, dtype=torch.float32) for a in rng.standard_normal((2, 8, 16)))
    with torch.no_grad():
        x[2] -= w[3] * ((x[2] @ w[3] - 1e-7) / w[3].square().sum())

    def slope(x, w):
        x = x.clone().requires_grad_()
        (x @ w.T).relu().sum().backward()
        return x.grad

    now, call = slope(x, w), functools.partial(slope, x, w)
    turned = now.clone()
    turned[2] += w[3] * (-1 if (x[2] @ w[3]) > 0 else 1)
    for then, said in ((turned, True), (now * 1.001, False)):
        assert not holds(tmp_path, now, then, floor=call)
        assert ("as at the kink of a ReLU" in capsys.readouterr().out) == said


def test_what_is_another_call_in_another_dtype_gives_no_slack(tmp_path):
    """Torch draws other numbers in float64."""

    def drawn(x, dy):
        torch.manual_seed(3)
        x = x.clone().requires_grad_()
        ((x + torch.randn_like(x)).tanh() * dy).sum().backward()
        return x.grad

    x, dy = torch.tensor(rng.standard_normal((2, 50, 20)), dtype=torch.float32).unbind()
    now = drawn(x, dy)
    assert not torch.allclose(now, drawn(x.double(), dy.double()).float(), atol=0.1)
    call = functools.partial(drawn, x, dy)
    assert not holds(tmp_path, now, now * (1 + 1e-4), floor=call)
    assert holds(tmp_path, now, now * (1 + 1e-7), floor=call)


def test_a_call_that_computes_in_one_dtype_alone(tmp_path):
    def fixed(x):
        x = x.clone().requires_grad_()
        (x @ torch.ones(20, 3)).tanh().sum().backward()
        return x.grad

    x = torch.tensor(rng.standard_normal((50, 20)), dtype=torch.float32)
    with pytest.raises(RuntimeError):
        fixed(x.double())
    now, call = fixed(x), functools.partial(fixed, x)
    assert not holds(tmp_path, now, now * (1 + 1e-4), floor=call)
    assert holds(tmp_path, now, now * (1 + 1e-7), floor=call)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "allowed",
    [{"ulps": 10**9}, {"rtol": 1e9}, {"floor": lambda: {"w": np.ones(3)}}],
    ids=lambda allowed: next(iter(allowed)),
)
def test_what_is_not_finite_must_stand_where_it_stood(tmp_path, value, allowed):
    assert not holds(tmp_path, {"w": np.ones(3)}, {"w": np.array([1, 1, value])}, **allowed)
    assert holds(tmp_path, {"w": np.ones(3)}, {"w": np.ones(3)}, **allowed)


@pytest.mark.parametrize(
    ("allowed", "ulps", "right"),
    [
        ({"ulps": 3}, 3, True),
        ({"ulps": 3}, 4, False),
        ({"ulps": 0}, 1, False),
        ({"rtol": 4 * 2.0**-23}, 4, True),
        ({"rtol": 4 * 2.0**-23}, 5, False),
        ({"rtol": 0}, 1, False),
    ],
)
def test_a_number_that_is_allowed(tmp_path, allowed, ulps, right):
    then = np.ones(4, np.float32)
    now = then.copy()
    now.view(np.uint32)[2] += ulps
    assert holds(tmp_path, now, then, **allowed) == right
    assert holds(tmp_path, torch.from_numpy(now), then, **allowed) == right
    assert not holds(tmp_path, now[:3], then, ulps=9)
    assert holds(tmp_path, np.zeros(2), -np.zeros(2), **allowed)  # of either sign


def test_what_is_shown_is_beyond_what_is_allowed(tmp_path):
    then = np.ones(4, np.float32)
    now = then.copy()
    now.view(np.uint32)[:] += np.array([0, 2, 3, 9], np.uint32)
    with pytest.raises(AssertionError) as shown:
        kept(tmp_path, then).check("layer", now, ulps=2)
    assert "1 of 1 arrays differ from" in str(shown.value)
    assert "by more than is allowed (2 ULPs are allowed)" in str(shown.value)
    assert "2 of 4  9     (3,)" in str(shown.value)
    assert str(shown.value).splitlines()[2].endswith("4.5")


def test_what_is_within_is_left_as_it_was_stored(tmp_path):
    then = np.ones(4, np.float32)
    for option in ("force_regen", "regen_all", "regen_platform"):
        found = kept(tmp_path, then, **{option: True})
        found.check("layer", np.nextafter(then, np.float32(2)), ulps=1)
        before = {p: p.read_bytes() for p in tmp_path.glob("*.npz")}
        assert found.finish() == []
        assert {p: p.read_bytes() for p in tmp_path.glob("*.npz")} == before


def unseeded(x):
    return F.dropout(x)


ONES = torch.ones(1000)


@pytest.mark.parametrize(
    ("allowed", "error", "words"),
    [
        ({"ulps": 1, "rtol": 1e-3}, TypeError, "ulps and rtol: expected one of them"),
        ({"ulps": -1}, ValueError, "ulps: expected a whole number from 0 on, got -1"),
        ({"ulps": 1.5}, ValueError, "ulps: expected a whole number"),
        ({"rtol": float("nan")}, ValueError, "rtol: expected a number from 0 on, got nan"),
        ({"floor": ONES}, TypeError, "floor: expected the call that makes the arrays, .* Tensor"),
        ({"floor": lambda: {}}, ValueError, "floor: of what it gives, {} holds no array"),
        ({"floor": lambda: ONES[:3]}, ValueError, "gives these arrays, got other shapes"),
        ({"floor": lambda: [ONES]}, ValueError, "got '0' in one of them only"),
        ({"floor": lambda: ONES + 1}, ValueError, "got others for 'array': seed what it draws"),
        ({"floor": functools.partial(unseeded, ONES)}, ValueError, "seed what it draws"),
        (
            {"floor": functools.partial(lambda *_: ONES, [threading.Lock()])},
            ValueError,
            "floor: expected arguments that can be copied: TypeError",
        ),
    ],
    ids=[
        *("several", "negative", "a fraction", "NaN", "a tensor", "nothing", "other shapes"),
        *("other names", "other numbers", "unseeded", "a lock"),
    ],
)
def test_what_cannot_be_allowed_is_said(tmp_path, allowed, error, words):
    with pytest.raises(error, match=words):
        kept(tmp_path, ONES * 2).check("layer", ONES, **allowed)


def test_an_error_of_the_call_is_its_own(tmp_path):
    with pytest.raises(ZeroDivisionError):
        kept(tmp_path, ONES * 2).check("layer", ONES, floor=lambda: 1 / 0)


def test_the_arguments_are_left_alone(tmp_path):
    model, x, dy = torch.nn.Linear(3, 2), torch.randn(4, 3), torch.randn(4, 2)
    before = {name: p.clone() for name, p in model.state_dict().items()}
    now = gradients(model, x, dy)
    grads = {name: g.clone() for name, g in now.items()}
    then = {name: g * (1 + 1e-7) for name, g in now.items()}
    assert holds(tmp_path, now, then, floor=functools.partial(gradients, model, x, dy))
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert all(torch.equal(p.grad, grads[name]) for name, p in model.named_parameters())


def test_an_optimizer_is_copied_with_its_model(tmp_path):
    """It steps the copy of the model, not the model."""
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)

    def stepped(model, optimizer, x):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
        return {name: p.detach().clone() for name, p in model.named_parameters()}

    call = functools.partial(stepped, model, optimizer, torch.ones(4, 3))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    now = stepped(*call.args)
    model.load_state_dict(before)
    optimizer.state.clear()
    far = {name: 2 * p for name, p in now.items()}  # hopeless, so that no more noise is drawn
    assert not holds(tmp_path, now, far, floor=call)
    near = {name: p * (1 + 1e-7) for name, p in now.items()}
    assert holds(tmp_path, now, near, floor=call)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_a_call_without_arguments_that_makes_all_itself(tmp_path):
    def made():
        torch.manual_seed(3)
        model, x = torch.nn.Linear(16, 4), torch.randn(32, 16)
        return gradients(model, x, torch.ones(32, 4))

    now = made()
    assert holds(tmp_path, now, {n: g * (1 + 1e-6) for n, g in now.items()}, floor=made)
    assert not holds(tmp_path, now, {n: g * (1 + 1e-3) for n, g in now.items()}, floor=made)
