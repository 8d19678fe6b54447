"""The laws of DESIGN: each over every sample and corner, in both dtypes, at several points.

A test is one law on one op; its failure names each row, dtype and seed where the law does not hold.
"""

import inspect
import warnings
from collections import OrderedDict
from functools import partial
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pytest
import torch
from gradtwin.comparisons import ops, samples
from gradtwin.comparisons.exact import inner
from gradtwin.comparisons.ops import FAMILIES, arguments, evaluate
from gradtwin.comparisons.samples import Call
from gradtwin.comparisons.show.anatomy import anatomy
from gradtwin.comparisons.verdict.classes import (
    CONVENTION,
    DTYPES,
    IDENTICAL,
    LIMIT,
    REFERENCE_IMPRECISE,
    ROUNDING,
)
from gradtwin.comparisons.verdict.differences import FLAT, derivative
from gradtwin.comparisons.verdict.floor import Floor, stacked
from gradtwin.comparisons.verdict.judge import settle
from gradtwin.comparisons.verdict.noise import OneUlpNoise, is_floating, moved
from gradtwin.manual.binding import named
from gradtwin.reference.adapters import array, leaves, tensor, tree_map
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from gradtwin import manual, reference

SLOPED = [op for op in ops.names() if op != "ctc_loss"]  # all but the one that has corners alone
RIGHT = {IDENTICAL, ROUNDING, REFERENCE_IMPRECISE, CONVENTION}


class Case(NamedTuple):
    op: str
    row: Call
    kind: str
    dtype: str
    seed: int

    def __str__(self):
        return f"{self.op}({self.row}), a {self.kind}, {self.dtype}, seed {self.seed}"


def cases(op, kinds=("sample", "corner"), dtypes=DTYPES, seeds=1):
    """Every row of an op, in every dtype, at every seed."""
    return [
        Case(op, row, kind, dtype, seed)
        for kind, row in ops.named(op).rows()
        if kind in kinds
        for dtype in dtypes
        for seed in range(seeds)
    ]


MANY = 4  # rows after which one case of each is enough but with --sweep


def law(names=None, seeds=1, **choice):
    """Makes a test for each op of a law that is written for one case. Of an op with many rows each
    is tried at one seed and in one dtype, by turns."""

    def made(holds):
        @pytest.mark.parametrize("op", names or ops.names())
        def test(op, held, sweep):
            rows = [list(row) for _, row in groupby(cases(op, **choice), lambda case: id(case.row))]
            by_turns = [row[i % len(row)] for i, row in enumerate(rows)]
            few = len(rows) <= MANY
            held(holds, cases(op, seeds=seeds, **choice) if few or sweep else by_turns)

        return test

    return made


def inputs(case):
    return evaluate.drawn(case.op, case.row, case.dtype, case.seed)


def drawn(case):
    """The two rules, and what they are called with."""
    return *ops.named(case.op).pair, *inputs(case)


def each(function, dy):
    """The cotangents with a function applied to each that there is."""
    return tree_map(lambda d: d if d is None else function(d), dy)


def same_bits(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@law(seeds=3)
def test_agrees_with_torch_or_is_nearer_to_the_exact_value(case):
    verdicts = evaluate.judge_inputs(case.op, inputs(case), case.dtype)
    wrong = {n: v for n, v in verdicts.items() if v.kind not in RIGHT}
    print({n: (v.kind, v.margin) for n, v in verdicts.items()})
    assert not wrong


def along_argument(rule, bound, name, direction, dy, h):
    """⟨dy, y⟩ with one argument moved h times the direction, and the size of what it sums."""
    name, arguments = name.removeprefix("argument "), bound.arguments
    argument, _, _ = name.partition(".")
    old = named(arguments[argument], argument)[name]
    new = tree_map(lambda a: a + h * direction if a is old else a, arguments[argument])
    changed = inspect.BoundArguments(bound.signature, OrderedDict(arguments | {argument: new}))
    y, _ = rule(*changed.args, **changed.kwargs)
    return float(inner(dy, y)), float(inner(each(abs, dy), each(abs, y)))


@law(SLOPED, kinds=["sample"], dtypes=["float64"], seeds=3)
def test_agrees_with_differences(case):
    ours, twin, args, kwargs, dy = drawn(case)
    names = arguments.argument_names(ours, args, kwargs, twin.facts.constant)
    found = evaluate.evaluate(ours, names, (args, kwargs, dy))
    bound = inspect.signature(ours).bind(*args, **kwargs)
    rng = np.random.default_rng(case.seed)
    for name in names:
        x = named(dict(bound.arguments))[name.removeprefix("argument ")]
        # small, so that no step leaves (0, 1) or crosses a kink
        direction = 1e-3 * rng.standard_normal(x.shape) * np.minimum(abs(x), abs(1 - x))

        moves = float(np.sum(abs(found[name] * direction)))
        slope = derivative(partial(along_argument, ours, bound, name, direction, dy), moves)
        ours_along = np.sum(found[name] * direction)
        print(name, ours_along, slope)
        assert slope.why == ("" if moves else FLAT)
        assert slope.bound <= 1e-6 * moves or slope.why  # a sharp oracle
        floor = slope.bound + np.finfo(float).eps / 2 * moves
        assert abs(ours_along - slope.value) <= LIMIT * floor or slope.why


def pushed(op, args, kwargs, v):
    """J v by torch's forward mode, one array for each output, None where nothing moves; attention
    made of simple functions, for its fused kernel has none."""
    tangents = iter(v)

    def dual(leaf):
        return forward_ad.make_dual(tensor(leaf), tensor(next(tangents)))

    composed = sdpa_kernel(SDPBackend.MATH)
    with warnings.catch_warnings(action="ignore"), forward_ad.dual_level(), composed:
        y = evaluate.by_torch(op, args, kwargs, dual)
        return [array(forward_ad.unpack_dual(part).tangent) for part in leaves(y)]


@law(SLOPED, kinds=["sample"], dtypes=["float64"])
def test_is_the_adjoint_of_torchs_forward_mode(case):
    """⟨dy, J v⟩ = ⟨pullback(dy), v⟩, up to rounding of the terms and to how far torch's own two
    modes are apart; or torch stands alone, and the exact value is with us."""
    op = case.op
    ours, twin, args, kwargs, dy = drawn(case)
    sides = [[*map(np.asarray, leaves(rule(*args, **kwargs)[1](dy)))] for rule in (ours, twin)]
    rng = np.random.default_rng(1)
    v = [np.asarray(rng.standard_normal(g.shape)) for g in sides[0]]
    if not ops.named(op).facts.forward:
        with pytest.raises(NotImplementedError, match="forward AD"):
            pushed(op, args, kwargs, v)
        return
    moves = zip(leaves(dy), pushed(op, args, kwargs, v), strict=True)
    forward = [d * move for d, move in moves if d is not None and move is not None]
    pulled, torchs = ([g * t for g, t in zip(side, v, strict=True)] for side in sides)
    along, back, by_torch = (sum(map(np.sum, terms), 0.0) for terms in (forward, pulled, torchs))
    size = sum(np.sum(abs(terms)) for terms in (*forward, *pulled))
    floor = LIMIT * (np.finfo(float).eps / 2 * size + abs(by_torch - along))
    print(along, back, floor)
    if abs(back - along) > floor:
        names = arguments.argument_names(ours, args, kwargs, twin.facts.constant)
        exactly = ops.named(op).oracle((args, kwargs, dy))
        expected = sum(
            exactly(name, index) * part[index]
            for name, part in zip(names, v, strict=True)
            for index in np.ndindex(part.shape)
        )
        print(expected)
        assert abs(back - expected) <= LIMIT * np.finfo(float).eps * size
        assert 10 * abs(back - expected) < abs(along - expected)
    assert not np.any(back) or abs(1.0001 * back - along) > floor


@law(["ctc_loss"], dtypes=["float64"], seeds=3)
def test_ctc_loss_has_the_slope_in_logits(case):
    """Torch leaves out what log_softmax takes from a gradient, so only both together are right."""
    (x, *rest), settings = case.row.draw(case.seed, np.dtype(float))
    rng = np.random.default_rng([case.seed, 2])
    direction = rng.standard_normal(x.shape)

    def loss(x):
        log_p, pull_softmax = manual.activations.log_softmax(x, -1)
        y, pull_ctc = manual.losses.ctc_loss(log_p, *rest, **settings)
        return y, lambda dy: pull_softmax(pull_ctc(dy))

    y, pullback = loss(x)
    dy = rng.standard_normal(np.shape(y))
    ours = np.sum(pullback(dy) * direction)
    if np.isnan(y).any():
        assert np.isnan(ours)
        return

    def along(h):
        losses = dy * loss(x + h * direction)[0]
        return float(np.sum(losses)), float(np.sum(abs(losses)))

    slope = derivative(along)
    print(ours, slope)
    assert not slope.why
    assert slope.bound < 1e-6 * abs(ours)
    assert abs(ours - slope.value) <= LIMIT * slope.bound


@law()
def test_keeps_shape_and_dtype(case):
    ours, twin, args, kwargs, dy = drawn(case)
    (y, pullback), (torch_y, torch_pullback) = ours(*args, **kwargs), twin(*args, **kwargs)
    assert isinstance(y, tuple) == isinstance(torch_y, tuple)
    for part, torch_part in zip(leaves(y), leaves(torch_y), strict=True):
        assert np.asarray(part).dtype == torch_part.dtype
        assert np.shape(part) == torch_part.shape
    names = arguments.argument_names(ours, args, kwargs, twin.facts.constant)
    found, expected = pullback(dy), torch_pullback(dy)
    assert isinstance(found, tuple) == isinstance(expected, tuple)
    assert [np.shape(g) for g in leaves(found)] == [np.shape(g) for g in leaves(expected)]
    assert {np.asarray(g).dtype for g in leaves(found)} <= {np.dtype(case.dtype)}
    assert len(leaves(found)) == len(names)


@law()
def test_leaves_its_arguments_alone_and_repeats(case):
    ours, _, args, kwargs, dy = drawn(case)
    before = tree_map(np.array, (args, tuple(a for a in kwargs.values() if is_floating(a)), dy))
    _, pullback = ours(*args, **kwargs)
    first, second = leaves(pullback(dy)), leaves(pullback(dy))
    after = (args, tuple(a for a in kwargs.values() if is_floating(a)), dy)
    assert all(map(same_bits, leaves(before), leaves(tree_map(np.asarray, after))))
    assert all(map(same_bits, first, second))


@law()
def test_is_linear_in_the_cotangent(case):
    ours, _, args, kwargs, dy = drawn(case)
    _, pullback = ours(*args, **kwargs)
    base = [np.asarray(g) for g in leaves(pullback(dy))]
    for factor in (-1, 2, 2.0**-10):
        scaled = leaves(pullback(each(lambda d, f=factor: (d * f).astype(d.dtype), dy)))
        for a, b in zip(base, scaled, strict=True):
            expected = (a * factor).astype(case.dtype)
            tiny = np.finfo(case.dtype).tiny  # below, scaling itself rounds
            normal = (abs(expected) > tiny) & (abs(a) > tiny) & np.isfinite(a)
            assert np.array_equal(np.asarray(b)[normal], expected[normal])
            assert np.all(abs(np.asarray(b)[~normal & np.isfinite(a)]) <= 2 * tiny)
    if case.kind == "sample":
        assert all(not np.any(g) for g in leaves(pullback(each(np.zeros_like, dy))))


def layouts(a):
    """The same numbers, laid out in memory in other ways."""
    if not is_floating(a):
        return [a] * 4
    spread = np.empty((*a.shape, 2), a.dtype)
    spread[..., 0] = a
    backwards = np.array(a[::-1])[::-1] if a.ndim else a
    frozen = np.array(a)
    frozen.setflags(write=False)
    return [spread[..., 0], backwards, np.asfortranarray(a) if a.ndim else a, frozen]


def is_right(op, laid, plain):
    """Whether a call gives the bits of one that is judged elsewhere, or is right by itself."""
    ours, twin = ops.named(op).pair
    names = arguments.argument_names(ours, *plain[:2], twin.facts.constant)
    found, expected = (evaluate.evaluate(ours, names, inputs) for inputs in (laid, plain))
    if all(
        found[name].shape == expected[name].shape
        and found[name].tobytes() == expected[name].tobytes()
        for name in found
    ):
        return True
    return {v.kind for v in evaluate.judge_inputs(op, laid, "float64").values()} <= RIGHT


@pytest.mark.thinned(2)
@law(dtypes=["float64"])
def test_takes_any_memory_layout(case):
    plain = inputs(case)
    for k in range(4):
        assert is_right(case.op, tree_map(lambda a, k=k: layouts(a)[k], plain), plain)


@pytest.mark.thinned(2)
@law(dtypes=["float64"])
def test_takes_a_broadcast_cotangent(case):
    args, kwargs, dy = inputs(case)
    one = each(lambda d: np.broadcast_to(d.flat[0] if d.size else 0.0, d.shape), dy)
    assert is_right(case.op, (args, kwargs, one), (args, kwargs, each(np.array, one)))


@pytest.mark.thinned(3)
@pytest.mark.parametrize("op", ops.names())
def test_all_the_noise_can_be_drawn(op, held, sweep):
    """On the first row of an op, or with --sweep on all."""

    def holds(case):
        verdicts = evaluate.judge_inputs(op, inputs(case), case.dtype, thorough=True)
        print({n: (v.kind, v.margin) for n, v in verdicts.items()})
        assert {v.kind for v in verdicts.values()} <= RIGHT

    every = cases(op)
    held(holds, every if sweep else [case for case in every if case.row is every[0].row])


class Watched(OneUlpNoise):
    """Noise that knows whether it took a sum apart."""

    sums = 0

    def _product(self, *terms):
        self.sums += 1
        return super()._product(*terms)


def judged_against_torch(case, results, inputs):
    """Verdicts on what stands in place of the mirror's results."""
    ours, twin, *_ = drawn(case)
    names = arguments.argument_names(ours, *inputs[:2], twin.facts.constant)
    floor = Floor(partial(evaluate.evaluate, twin, names), inputs, np.dtype(case.dtype))
    return settle(floor, lambda _: results, inputs, results)


class Idle(TorchDispatchMode):
    """Does nothing; but torch takes other paths inside of it."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


def holds_without_noise(case, noise=Watched):
    """Noise of size 0 changes no bit, but where a sum is taken apart; and there it is rounding."""
    ours, twin, args, kwargs, dy = drawn(case)
    names = arguments.argument_names(ours, args, kwargs, twin.facts.constant)
    with noise(0, 0) as mode:
        still = evaluate.evaluate(twin, names, (args, kwargs, dy))
    with Idle():
        plain = evaluate.evaluate(twin, names, (args, kwargs, dy))
    verdicts = judged_against_torch(case, still, (args, kwargs, dy))
    print({n: (v.kind, v.margin) for n, v in verdicts.items()})
    assert mode.sums or all(same_bits(plain[name], still[name]) for name in plain)
    assert {v.kind for v in verdicts.values()} <= {IDENTICAL, ROUNDING}


@pytest.mark.thinned(3)
@pytest.mark.parametrize("op", ops.names())
def test_noise_of_size_0_changes_nothing(op, held, sweep):
    """On the first and the last row of an op, or with --sweep on all."""
    every = cases(op)
    ends = [case for case in every if case.row in (every[0].row, every[-1].row)]
    held(holds_without_noise, every if sweep else ends)


class Substituting(Watched):
    """Noise that takes what the decomposition of a fused kernel gives for what the kernel gives."""

    def _follow(self, result, decomposition, args, kwargs):
        result.copy_(decomposition(*args, **kwargs))


def test_a_decomposition_that_is_another_function_breaks_the_law(held):
    """Torch's own of a hard sigmoid's backward holds 1/6 in float32."""
    with pytest.raises(pytest.fail.Exception, match="hardsigmoid"):
        held(partial(holds_without_noise, noise=Substituting), cases("hardsigmoid"))
    held(holds_without_noise, cases("hardsigmoid"))


@pytest.mark.thinned(3)
@pytest.mark.parametrize("op", ops.names())
def test_draws_together_are_what_each_is_by_itself(op, held, sweep):
    """On the first row of an op, or with --sweep on all."""
    every = cases(op, dtypes=["float64"])
    held(agree_together, every if sweep else every[:1])


def agree_together(case):
    args, kwargs, dy = inputs(case)
    rngs = [np.random.default_rng(seed) for seed in range(2)]
    ours, twin = ops.named(case.op).pair
    names = arguments.argument_names(ours, args, kwargs, twin.facts.constant)

    def arrays_moved(rng):
        return tree_map(lambda a: moved(a, 1e-3, rng) if is_floating(a) else a, (args, kwargs, dy))

    reference = partial(evaluate.evaluate, twin, names)
    floors = [
        Floor(reference, arrays_moved(rng), np.dtype(case.dtype), together=twin) for rng in rngs
    ]
    for floor in floors:
        while floor.widen():
            pass
    print([bool(floor.together) for floor in floors])
    if all(floor.together for floor in floors):
        found = reference(stacked([floor.inputs for floor in floors]))
        for i, floor in enumerate(floors):
            for name, a in found.items():
                print(name, floor.margin(name, a.array[i]))
                assert np.all(floor.margin(name, a.array[i]) <= 1)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("op", ops.names())
def test_no_floor_is_lower_because_draws_are_made_together(op, held, sweep):
    """As where torch.func.vmap computes by another formula. On the last row of an op, a corner
    where there is one, or with --sweep on all."""
    every = cases(op, dtypes=["float64"])
    held(is_as_high_together, every if sweep else every[-1:])


def is_as_high_together(case, batched=None):
    args, kwargs, dy = inputs(case)
    ours, twin = ops.named(case.op).pair
    names = arguments.argument_names(ours, args, kwargs, twin.facts.constant)
    reference = partial(evaluate.evaluate, twin, names)
    known = twin if (twin.facts.batched if batched is None else batched) else None
    together, alone = (
        Floor(reference, (args, kwargs, dy), np.dtype(case.dtype), together=key)
        for key in (known, None)
    )
    together.draw()
    while together.widen() | alone.widen():
        pass
    for name, high in alone.values.items():
        ratio = together.values[name] / high
        print(name, ratio.min(initial=1))
        assert np.all(ratio[np.isfinite(together.truth[name])] > 0.1)


def test_another_formula_of_many_draws_breaks_the_law(held):
    saturated = cases("binary_cross_entropy_with_logits", dtypes=["float64"])
    held(is_as_high_together, saturated)
    with pytest.raises(pytest.fail.Exception):
        held(partial(is_as_high_together, batched=True), saturated)


@law()
def test_is_silent(case):
    ours, _, args, kwargs, dy = drawn(case)
    with warnings.catch_warnings(), np.errstate(divide="warn", over="warn", invalid="warn"):
        warnings.simplefilter("error")
        _, pullback = ours(*args, **kwargs)
        pullback(dy)


def test_a_failure_names_every_case_where_the_law_does_not_hold(held):
    every = cases("relu", seeds=2)

    def holds(case):
        print("looked at", case.row)
        assert case is not every[0]
        with pytest.raises(ZeroDivisionError):
            1 / (case is every[-1])

    with pytest.raises(pytest.fail.Exception) as failure:
        held(holds, every)
    heading, first, last = str(failure.value).split("\n\n")
    assert heading == f"2 of {len(every)} cases: {every[0]}; {every[-1]}"
    assert first.startswith(f"{every[0]}\nlooked at {every[0].row}\nTraceback")
    assert "AssertionError" in first
    assert "DID NOT RAISE" in last
    with pytest.raises(pytest.fail.Exception, match="no case"):
        held(holds, cases("relu", kinds=[]))


@pytest.mark.parametrize("broken", [lambda dx: dx * (1 + 1e-9), lambda dx: dx / None])
def test_a_rule_that_is_wrong_in_one_row_is_named_with_it(broken, monkeypatch, held):
    right, row = manual.activations.leaky_relu, samples.activations.SAMPLES["leaky_relu"][2]

    def leaky_relu(x, negative_slope=0.01):
        y, pull = right(x, negative_slope)
        return y, lambda dy: broken(pull(dy)) if negative_slope == row.args[1] else pull(dy)

    monkeypatch.setattr(manual.activations, "leaky_relu", leaky_relu)
    with pytest.raises(pytest.fail.Exception) as failure:
        test_agrees_with_differences("leaky_relu", held, sweep=True)
    heading, *_ = str(failure.value).split("\n\n")
    assert heading.startswith("3 of 9 cases: ")
    assert heading.count(f"leaky_relu({row}), a sample, float64, seed ") == 3


@pytest.mark.parametrize("family", FAMILIES)
def test_every_rule_is_mirrored_and_sampled(family):
    module = getattr(manual, family)
    rules = {
        name
        for name, f in vars(module).items()
        if not name.startswith("_")
        and inspect.isfunction(f)
        and f.__module__.startswith(module.__name__)
    }
    mirrored = {n for n, f in vars(getattr(reference, family)).items() if hasattr(f, "facts")}
    assert rules == mirrored == {op for op in ops.names() if ops.named(op).family == family}


@pytest.mark.parametrize(
    "op", [op for op in ops.names() if ops.named(op).family in ("activations", "losses")]
)
def test_what_torch_differentiates_twice_is_a_rule_of_second_order(op):
    passes = {name.lstrip("_") for name in anatomy(op)[2] if "_backward" in name}
    missing = {name for name in passes if name not in ops.names()}
    print(passes, missing)
    if missing:
        args, kwargs, dy = evaluate.drawn(op, next(ops.named(op).rows())[1], "float64", 0)
        sources = []
        y = evaluate.by_torch(
            op, args, kwargs, lambda a: sources.append(tensor(a).requires_grad_()) or sources[-1]
        )
        cotangent = tensor(dy).requires_grad_()
        first = torch.autograd.grad(y, sources, cotangent, create_graph=True)
        with pytest.raises(RuntimeError, match="is not implemented"):
            torch.autograd.grad(first, [*sources, cotangent], [torch.ones_like(g) for g in first])


def test_a_rule_is_short_or_says_why_not():
    rules = [ops.named(op).rule for op in ops.names()]
    sources = [inspect.getsource(rule).replace(rule.__doc__, "") for rule in rules]
    lengths = [len(source.splitlines()) for source in sources]
    assert np.median(lengths) <= 12
    long = [r for r, lines in zip(rules, lengths, strict=True) if lines > 40]
    assert all("long because" in rule.__doc__ for rule in long), long


@pytest.mark.parametrize("op", ops.names())
def test_every_setting_matters(op):
    """Each argument with a default is sampled with a value that gives another value or gradient."""
    ours, _ = ops.named(op).pair

    def results(arguments):
        y, pullback = ours(**arguments)
        constant = [not is_floating(np.asarray(part)) for part in leaves(y)]
        return list(map(np.asarray, leaves((y, pullback(evaluate.cotangent(y, constant, 0))))))

    for name, parameter in inspect.signature(ours).parameters.items():
        if parameter.default is inspect.Parameter.empty or name in ops.named(op).facts.algorithm:
            continue
        refused = []  # whether it is no call without the setting
        for _, row in ops.named(op).rows():
            args, kwargs, _ = evaluate.drawn(op, row, "float32", 0)
            arguments = inspect.signature(ours).bind(*args, **kwargs).arguments
            if name in arguments:
                with_it = results(arguments)
                del arguments[name]
                try:
                    without = results(arguments)
                except (ValueError, IndexError):
                    refused.append(True)
                    continue
                except TypeError:  # a draw, which has no default in training
                    break
                refused.append(False)
                if len(with_it) != len(without) or not all(map(same_bits, with_it, without)):
                    break
        else:
            assert refused, f"{op}: {name} is in no sample"
            assert all(refused), f"{op}: {name} makes no difference in any sample"
