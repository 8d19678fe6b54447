"""The tape: its gradients, and its errors in the situations in which torch raises them."""

import inspect
import itertools
import random
from functools import partial

import numpy as np
import pytest
import torch
from gradtwin.comparisons import ops
from gradtwin.comparisons.bench import tape
from gradtwin.comparisons.ops import arguments, evaluate
from gradtwin.comparisons.training import cells, loop
from gradtwin.comparisons.training.cells import MODELS, Cell
from gradtwin.comparisons.training.datasets import DATASETS, load
from gradtwin.comparisons.verdict import judge
from gradtwin.comparisons.verdict.classes import DIFFERENT, DTYPES, IDENTICAL, ROUNDING
from gradtwin.manual.arguments import Constant
from gradtwin.manual.checkpoint import checkpoint
from gradtwin.manual.grad_mode import enable_grad, no_grad
from gradtwin.manual.tape import Tensor, apply
from gradtwin.manual.trees import leaves, tree_map

from gradtwin import manual

DTYPES = pytest.mark.parametrize("dtype", DTYPES)
CELLS = [
    (model, data, activation)
    for model in ("linear_regression", "logistic_regression", "mlp")
    for data in DATASETS
    if load(data).task in MODELS[model].losses
    for activation in (("tanh", "relu") if model == "mlp" else ("tanh",))
]


def of_tape(number):
    return Tensor(np.array(number), requires_grad=True)


def of_torch(number):
    return torch.from_numpy(np.array(number)).requires_grad_()


def on_tape(cell, parameters, x):
    """The model, rule by rule, over tensors."""
    layers = sorted({name.rpartition(".")[0] for name in parameters}, key=lambda n: int(n or 0))
    for i, layer in enumerate(layers):
        prefix = f"{layer}." if layer else ""
        if i:
            x = apply(getattr(manual.activations, cell.activation), x)
        weight, bias = parameters[f"{prefix}weight"], parameters[f"{prefix}bias"]
        x = x @ weight.transpose(0, 1) + bias
    return 1 / (1 + (-x).exp()) if cell.model == "logistic_regression" else x


@pytest.mark.parametrize(("model", "data", "activation"), CELLS)
@DTYPES
def test_models_agree_with_torch_and_with_those_composed_by_hand(model, data, dtype, activation):
    cell = Cell(model, data, "sgd", 0.1, dtype=dtype, activation=activation, hidden=(8, 5))
    table = load(data)
    parameters = cells.start(cell)
    torch_side, hand = loop.by_torch(cell, table), loop.by_hand(cell, table)
    x, target = (a[:64] for a in torch_side.batch(0))

    def results(loss, gradients):
        return {"value": np.asarray(loss), **gradients}

    def tape(inputs):
        given, x, target = inputs
        leaves = {name: Tensor(a, requires_grad=True) for name, a in given.items()}
        output = on_tape(cell, leaves, Tensor(x))
        loss = apply(getattr(manual.losses, cell.loss), output, target)
        loss.backward()
        return results(loss.data, {name: leaf.grad.data for name, leaf in leaves.items()})

    def by(side):
        return lambda inputs: results(*side.gradient(*inputs))

    inputs = parameters, x, target
    for other in (by(torch_side), by(hand)):
        found = judge.judge(tape, other, inputs, np.dtype(dtype))
        print({name: (v.kind, v.margin) for name, v in found.items()})
        assert {v.kind for v in found.values()} <= {IDENTICAL, ROUNDING}
    wrong = judge.judge(
        lambda i: {n: a * (1 + 1e-4 * (n != "value")) for n, a in tape(i).items()},
        by(torch_side),
        inputs,
        np.dtype(dtype),
    )
    assert DIFFERENT in {v.kind for v in wrong.values()}


def twice(x):
    y = (x * x).sum()
    y.backward()
    y.backward()


def twice_retained(x):
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()


def twice_without_saved(x):
    y = (x + 1).sum()
    y.backward()
    y.backward()


def saved_input_changed(x):
    y = x + 1
    z = y * y
    y.add_(1)
    z.sum().backward()


def saved_result_changed(x):
    y = (x + 1).exp()
    y.mul_(2)
    y.add_(1)
    y.sum().backward()


def saved_result_changed_behind(x):
    y = (x + 1).exp()
    y.detach().add_(1)
    y.sum().backward()


def changed_before_it_is_saved(x):
    y = x + 1
    y.mul_(x)
    (y * y).sum().backward()


def changed_where_nothing_is_saved(x):
    y = x * 3
    z = y + 1
    y.add_(1)
    z.sum().backward()


def leaf_changed(x):
    x.add_(1)


def many_numbers(x):
    (x * 2).backward()


def many_numbers_with_a_cotangent(x):
    (x * x).backward(gradient=(x * 3).detach())


def cotangent_of_another_shape(x):
    (x * 2).backward(gradient=x.sum().detach())


def constant(x):
    x.detach().sum().backward()


def hook_changes_the_shape(x):
    y = x * 2
    y.register_hook(lambda grad: grad.sum())
    y.sum().backward()


def hook_of_a_leaf_changes_the_shape(x):
    x.register_hook(lambda grad: grad.sum())
    (x * 2).sum().backward()


def hooks_change_the_gradient(x):
    y = x * x
    handle = y.register_hook(lambda grad: grad * 100)
    y.register_hook(lambda grad: grad * 3)
    x.register_hook(lambda grad: grad + 1)
    handle.remove() if hasattr(handle, "remove") else handle()
    y.sum().backward()


def hook_of_a_constant(x):
    x.detach().register_hook(lambda grad: grad)


def shared(x):
    y = x * 2
    z = y.exp() + y * y - y / x + (y[1] - x[0]) ** 2
    (z + z).mean().backward()


def many_rules(x):
    y = (2 - x.abs().sqrt().log()) / (1 + x.reshape((3, 1)) @ x.reshape((1, 3)))
    (-y.transpose(0, 1).permute((1, 0)).sum(0) * 2.0**x).sum().backward()


SITUATIONS = [
    *(twice, twice_retained, twice_without_saved, saved_input_changed, saved_result_changed),
    *(saved_result_changed_behind, changed_before_it_is_saved, changed_where_nothing_is_saved),
    *(leaf_changed, many_numbers, many_numbers_with_a_cotangent, cotangent_of_another_shape),
    *(constant, hook_changes_the_shape, hook_of_a_leaf_changes_the_shape, hook_of_a_constant),
    *(hooks_change_the_gradient, shared, many_rules),
]


@pytest.mark.parametrize("situation", SITUATIONS)
def test_does_and_refuses_what_torch_does_and_refuses(situation):
    def gradient(leaf, number):
        x = leaf(number)
        situation(x)
        return {"x": x.grad.numpy() if leaf is of_torch else x.grad.data}

    start, said = np.array([0.5, 2.0, 3.0]), []
    for leaf in (of_tape, of_torch):
        try:
            gradient(leaf, start)
        except RuntimeError as error:
            said.append(str(error))
    assert len(said) in (0, 2), said  # both sides refuse, or none
    if said:
        assert ":" in said[0]
    else:
        sides = (partial(gradient, leaf) for leaf in (of_tape, of_torch))
        found = judge.judge(*sides, start, np.dtype(float))["x"]
        assert found.kind in (IDENTICAL, ROUNDING), found


def test_leaves_add_up_and_others_keep_what_they_are_asked_to():
    x = of_tape([1.0, 2.0])
    y = x * 3
    y.retain_grad()
    (y * y).sum().backward()
    assert np.array_equal(y.grad.data, 2 * y.data)
    (x * 2).sum().backward()
    assert np.array_equal(x.grad.data, 18 * x.data + 2)
    assert (x * 3).grad is None


def test_nothing_is_recorded_without_grad():
    x = of_tape([1.0])
    with no_grad():
        assert not (x * 2).requires_grad
        with enable_grad():
            assert (x * 2).requires_grad
        x.add_(1)
    assert (x * 2).requires_grad
    assert x.data == 2


def test_a_checkpoint_saves_less_and_gives_the_same():
    w = of_tape([[0.5, -1.0], [2.0, 0.1]])
    runs = []

    def block(x):
        runs.append(None)
        return (x @ w).exp() * x

    grads = []
    for make in (block, lambda x: checkpoint(block, x)):
        x, w.grad = of_tape([1.0, -0.3]), None
        y = make(make(x))
        y.sum().backward()
        grads.append((y.data, x.grad.data, w.grad.data))
    assert all(map(np.array_equal, *grads))
    assert len(runs) == 2 + 4  # forward, and again backward
    saved = [len(make(of_tape([1.0, -0.3])).grad_fn.saved) for make in (block,)]
    assert saved[0] > 0


def test_a_long_chain_needs_no_recursion():
    x = of_tape([1.0, 1.0])
    y, expected = x, np.ones(2)
    for _ in range(10_000):
        y, expected = y * 1.0001, expected * 1.0001
    y.sum().backward()
    assert np.array_equal(x.grad.data, expected)  # the same products, in the other order
    del y  # nor does its end


def test_an_array_is_a_constant():
    x = of_tape([1.0, 2.0])
    y = np.array([3.0, 4.0]) * x + np.array([1.0, 1.0]) @ x
    y.sum().backward()
    assert np.array_equal(x.grad.data, [5.0, 6.0])
    with pytest.raises(RuntimeError, match="requires_grad: expected floating, got int64"):
        Tensor(np.array([1, 2]), requires_grad=True)
    with pytest.raises(AttributeError, match="sinus"):
        x.sinus()


def test_several_outputs_and_constants():
    weight, index = of_tape(np.arange(6.0).reshape(3, 2)), np.array([0, 2, 2])
    rows, table = apply(manual.embedding.embedding, index, weight, max_norm=1.0)
    (rows * rows).sum().backward()
    assert np.array_equal(weight.grad.data[1], [0, 0])
    assert weight.grad.shape == table.shape
    x = of_tape(np.arange(6.0).reshape(2, 3))
    loss, target = manual.losses.cross_entropy, np.array([0, 2])
    for constant in (np.ones(3), Tensor(np.ones(3))):
        x.grad = None
        apply(loss, x, target, weight=constant).backward()
        assert np.array_equal(x.grad.data, loss(x.data, target, np.ones(3))[1](np.array(1.0)))


MOST = 30  # mixtures that are drawn of a call with more than four arrays


def given_as(kinds, names, call):
    """The call with each named array as an array "a", a tensor "t" or one that requires a gradient
    "g", and the tensors; keywords in reverse."""
    tensors = {}

    def made(leaf):
        name = names.get(id(leaf))
        if kinds.get(name, "a") == "a":
            return leaf
        tensors[name] = Tensor(leaf, requires_grad=kinds[name] == "g")
        return tensors[name]

    args, kwargs = tree_map(made, call)
    return args, dict(reversed(kwargs.items())), tensors


def landed(rule, dy, args, kwargs):
    """Pulls the cotangents back through the outputs of a rule, if any requires a gradient."""

    def met(*outputs):
        def pullback(_):
            pairs = [
                (o, d) for o, d in zip(outputs, leaves(dy), strict=True) if o.dtype.kind == "f"
            ]
            return tuple(np.zeros_like(o) if d is None else d for o, d in pairs)

        return np.zeros(()), pullback

    y = apply(rule, *args, **kwargs)
    end = apply(met, *(y if isinstance(y, tuple) else (y,)))
    if end.requires_grad:
        end.backward()


def same_bits(a, b):
    return (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())


@pytest.mark.thinned(2)
@pytest.mark.parametrize("op", ops.names())
def test_each_gradient_lands_in_its_argument_whatever_else_is_a_tensor(op):
    ours, twin = ops.named(op).pair
    for kind, row in ops.named(op).rows() if twin else ():
        if kind != "sample":
            continue
        args, kwargs, dy = evaluate.drawn(op, row, "float64", 0)
        every, wanted = (
            arguments.argument_names(ours, args, kwargs, constant)
            for constant in (frozenset(), twin.facts.constant)
        )
        bound = inspect.signature(ours).bind(*args, **kwargs).arguments
        floats = [a for a in leaves(bound) if isinstance(a, np.ndarray) and a.dtype.kind == "f"]
        names = dict(zip(map(id, floats), every, strict=True))
        by_hand = dict(zip(wanted, leaves(ours(*args, **kwargs)[1](dy)), strict=True))
        mixtures = list(itertools.product("atg", repeat=min(len(every), 4)))
        if len(every) > 4:
            drawn = random.Random(0)
            mixtures = [drawn.choices("atg", k=len(every)) for _ in range(MOST)]
        for mixture in mixtures:
            kinds = dict(zip(every, mixture, strict=True))
            *call, tensors = given_as(kinds, names, (args, kwargs))
            try:
                landed(ours, dy, *call)
            except Exception as error:
                error.add_note(f"{op}({row}), {kinds}")
                raise
            for name, t in tensors.items():
                where = f"{op}({row}), {kinds}: {name}"
                if kinds[name] == "g" and name in wanted:
                    assert t.grad is not None, where
                    assert same_bits(t.grad.data, np.asarray(by_hand[name])), where
                else:
                    assert t.grad is None, where


def probabilities():
    x, t, w = np.array([0.2, 0.7, 0.4]), np.array([0.5, 0.1, 0.9]), np.array([1.0, 2.0, 0.5])
    loss = manual.losses.binary_cross_entropy
    return loss, x, t, w, loss(x, t, w)[1](np.array(1.0))


def test_an_array_in_front_of_a_tensor_takes_no_gradient_from_it():
    loss, x, t, w, (_, dt) = probabilities()
    target = of_tape(t)
    apply(loss, x, target, Tensor(w)).backward()
    assert same_bits(target.grad.data, dt)


def test_one_of_three_tensors_may_require_a_gradient():
    loss, x, t, w, (dx, _) = probabilities()
    p = of_tape(x)
    apply(loss, p, Tensor(t), Tensor(w)).backward()
    assert same_bits(p.grad.data, dx)


def test_a_constant_that_requires_a_gradient_gets_none():
    loss, x, t, w, (dx, _) = probabilities()
    p, weight = of_tape(x), of_tape(w)
    y = apply(loss, p, t, weight)
    y.backward()
    assert y.grad_fn.names == {"x": ["x"], "target": ["target"]}
    assert same_bits(p.grad.data, dx)
    assert weight.grad is None
    with pytest.raises(RuntimeError, match="backward: expected a tensor that requires a gradient"):
        apply(loss, x, t, weight).backward()


def soft(x, target, scale: Constant = 1.0, **others):
    """A user's rule: scale · x · target, and what else there is is added."""
    y = scale * x * target + sum(others.values())

    def pullback(dy):
        return scale * dy * target, scale * dy * x, *(dy for _ in others)

    return y, pullback


class Doubled:
    def __call__(self, x):
        def pullback(dy):
            return (2 * dy,)  # a lone one that is not bare

        return 2 * x, pullback


def test_rules_of_a_user():
    a, b, c = of_tape([1.0, 2.0]), of_tape([3.0, 5.0]), of_tape([0.5, 0.5])
    apply(partial(soft, scale=of_tape(2.0)), target=b, more=c, x=a).sum().backward()
    assert np.array_equal(a.grad.data, [6, 10])
    assert np.array_equal(b.grad.data, [2, 4])
    assert np.array_equal(c.grad.data, [1, 1])
    a.grad = b.grad = None
    apply(partial(soft, target=b), a).sum().backward()  # a tensor that partial holds
    assert np.array_equal(b.grad.data, [1, 2])
    y = apply(Doubled(), apply(lambda x: manual.pointwise.mul(x, 3.0), c))
    assert (y.grad_fn.name, y.grad_fn.next_edges[0][0].name) == ("Doubled", "<lambda>")
    y.sum().backward()
    assert np.array_equal(c.grad.data, [7, 7])


def stacked(tensors, scale=1.0):
    """A user's rule over a list, in which there may be whole numbers."""

    def pullback(dy):
        return [
            scale * d if a.dtype.kind == "f" else None for a, d in zip(tensors, dy, strict=True)
        ]

    return scale * np.stack(tensors), pullback


def test_lists_and_dicts():
    a, b = of_tape([1.0, 2.0]), of_tape([3.0, 5.0])
    y = apply(stacked, [np.array([1, 1]), a, Tensor([0.0, 0.0]), b])
    assert y.grad_fn.names == {"tensors": ["tensors.1", "tensors.2", "tensors.3"]}
    (y * np.arange(8.0).reshape(4, 2)).sum().backward()
    assert np.array_equal(a.grad.data, [2, 3])
    assert np.array_equal(b.grad.data, [6, 7])
    one = of_tape([1.0])
    apply(stacked, (one,), scale=3.0).sum().backward()
    assert np.array_equal(one.grad.data, [3])
    x, weight, bias = np.ones((4, 3)), of_tape(np.ones((2, 3))), of_tape(np.zeros(2))
    for parameters in ({"weight": weight, "bias": bias}, {"bias": bias, "weight": weight}):
        weight.grad = bias.grad = None
        apply(manual.models.linear_regression, parameters, x).sum().backward()
        assert np.array_equal(weight.grad.data, np.full((2, 3), 4))
        assert np.array_equal(bias.grad.data, [4, 4])


def test_a_scalar_of_numpy_is_a_number():
    x = of_tape(np.ones(2, np.float32))
    (np.float64(2) * x + x * np.float32(3)).sum().backward()
    assert np.array_equal(x.grad.data, np.full(2, 5, np.float32))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (lambda dy: dy, "wrong: pullback: expected 3 gradients, of x, p.b and p.w, got 1"),
        (lambda dy: (dy,), "expected 3 gradients, of x, p.b and p.w, got 1$"),
        (lambda dy: (dy, [dy, dy]), "expected .*, got 3, of x, p.0 and p.1$"),
        (lambda dy: (dy, {"b": dy, "v": dy}), "expected .*, got 3, of x, p.b and p.v$"),
        (lambda dy: (dy, {"b": dy, "w": None}), "expected .*, got 2$"),
        (lambda dy: (dy, {"b": dy, "w": dy}, dy), "expected .*, got 4$"),
    ],
)
def test_gradients_that_do_not_fit_are_named(found, said):
    def wrong(x, p):
        return x + p["b"] + p["w"], found

    x = of_tape([1.0, 2.0])
    y = apply(wrong, x, {"b": x, "w": np.ones(2)})
    with pytest.raises(RuntimeError, match=said):
        y.sum().backward()


@pytest.mark.parametrize(
    ("found", "got"), [(lambda dy: dy, 1), (lambda dy: (), 0), (lambda dy: (dy, dy, dy), 3)]
)
def test_too_few_or_too_many_gradients_are_named(found, got):
    def soft(x, target, scale: Constant = None):
        return x * target, found

    y = apply(soft, of_tape([1.0]), np.ones(1), np.ones(1))
    said = f"^soft: pullback: expected 2 gradients, of x and target, got {got}$"
    with pytest.raises(RuntimeError, match=said):
        y.backward()


def test_a_checkpoint_takes_constants_and_whole_numbers():
    x, rows = of_tape(np.arange(6.0).reshape(3, 2)), np.array([0, 2])
    scale = np.array(3.0)
    y = checkpoint(lambda scale, rows, x: x[rows.data] * scale, scale, rows, x)
    assert y.grad_fn.names == {"arrays.0": ["arrays.0"], "arrays.2": ["arrays.2"]}
    y.sum().backward()
    assert np.array_equal(x.grad.data, [[3, 3], [0, 0], [3, 3]])


def test_the_bench_gives_a_row_for_each_length():
    rows = tape.rows((10, 20), repeats=1)
    assert [row["nodes"] for row in rows] == [10, 20]
    assert all(row["manual"] > 0 and row["torch"] > 0 for row in rows)
