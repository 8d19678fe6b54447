"""What is right in 16 bits is within its floor; mistakes are found wherever they are larger."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gradtwin.comparisons.ops.evaluate import evaluate
from gradtwin.comparisons.verdict.classes import HALF_DTYPES, LIMIT
from gradtwin.comparisons.verdict.floor import DRAWS, Floor
from gradtwin.comparisons.verdict.halves import BITS, SMALLEST, is_half, rounded
from gradtwin.comparisons.verdict.judge import judge, screen, settle
from gradtwin.comparisons.verdict.noise import cast, unit_roundoff
from gradtwin.comparisons.verdict.ulps import ulps
from gradtwin.reference.adapters import rule

HALVES = pytest.mark.parametrize("half", HALF_DTYPES)
RIGHT = {"identical", "rounding"}


def in_torch(function, dtype, inputs):
    """Value and gradients of a torch function, computed in this dtype, in arrays of float32."""
    args, _, dy = inputs
    tensors = [torch.from_numpy(np.array(a)).to(dtype).requires_grad_() for a in args]
    y = function(*tensors)
    found = torch.autograd.grad(y, tensors, torch.from_numpy(np.array(dy)).to(dtype))
    results = {"value": y.detach()} | {f"x{i}": g for i, g in enumerate(found)}
    return {name: t.float().numpy() for name, t in results.items()}


class Sides:
    """A torch function in 16 bits, rounded at every step, and in float32; and its reference."""

    def __init__(self, function, half, *shapes, seed=0, scale=1.0):
        rng = np.random.default_rng(seed)
        args = [np.asarray(scale * rng.standard_normal(shape)) for shape in shapes]
        args = cast(args, half)
        y = function(*map(torch.from_numpy, args))
        self.inputs = args, {}, cast(rng.standard_normal(y.shape), half)
        self.half = half
        self.twin = rule(function)
        self.reference = partial(evaluate, self.twin, [f"x{i}" for i in range(len(args))])
        self.steps = partial(in_torch, function, getattr(torch, half))
        self.single = partial(in_torch, function, torch.float32)

    def once(self, inputs):
        return cast(self.single(inputs), self.half)

    def floor(self, once=False, together=True):
        together = self.twin if together else None
        found = Floor(self.reference, self.inputs, self.half, together=together, once=once)
        while found.widen(thorough=True):
            pass
        return found

    def judged(self, subject=None, finer=None, once=False):
        subject = subject or self.steps
        together = self.twin
        floor = Floor(self.reference, self.inputs, self.half, together=together, once=once)
        results = subject(self.inputs)
        return settle(floor, subject, self.inputs, results, finer=finer or self.single)


def network(x, *weights):
    for w in weights[:-1]:
        x = F.hardtanh(x @ w.T / 4)
    return x @ weights[-1].T


def attention(q, k, v):
    return F.softmax(q @ k.mT / 4, -1) @ v


FUNCTIONS = {
    "tanh": (torch.tanh, (200,)),
    "gelu": (F.gelu, (200,)),
    "log_softmax": (lambda x: F.log_softmax(x, -1), (8, 20)),
    "layer_norm": (lambda x: F.layer_norm(x, (20,)), (8, 20)),
    "by hand": (lambda x: (x - x.mean(-1, True)) / x.std(-1, correction=0)[:, None], (8, 20)),
    "cosine": (lambda x, y: F.cosine_similarity(x, y, -1), (20, 8), (20, 8)),
    "linear": (lambda x, w: x @ w.T, (20, 70), (5, 70)),
    "attention": (attention, (6, 16), (10, 16), (10, 4)),
    "variance": (lambda x: (x * x).mean(-1) - x.mean(-1) ** 2, (8, 20)),
    "relu": (lambda x: F.relu(x), (200,)),
    "product": (lambda x, y: torch.exp(x) * y / (1 + y * y), (200,), (200,)),
}
NAMES = pytest.mark.parametrize("name", FUNCTIONS)


def sides(name, half, seed=0):
    function, *shapes = FUNCTIONS[name]
    return Sides(function, half, *shapes, seed=seed)


def numbers(half):
    """All that are finite, from 0 on, in float64."""
    bits = np.arange(2**15, dtype=np.uint16).view(np.int16)
    all_of_them = torch.from_numpy(bits).view(getattr(torch, half)).double().numpy()
    return all_of_them[np.isfinite(all_of_them)]


@HALVES
def test_the_nearest_number_is_found_among_all(half):
    """The even one of two; from float64, where the way by float32 would round twice."""
    known = numbers(half)
    middle = (known[1:] + known[:-1]) / 2
    even = np.where(np.arange(len(middle)) % 2, known[1:], known[:-1])
    below, above = np.nextafter(middle, 0), np.nextafter(middle, np.inf)
    for sign in (1, -1):
        assert np.array_equal(rounded(sign * known, half), sign * known)
        assert np.array_equal(rounded(sign * middle, half), sign * even)
        assert np.array_equal(rounded(sign * below, half), sign * known[:-1])
        assert np.array_equal(rounded(sign * above, half), sign * known[1:])
    beyond = known[-1] + (known[-1] - known[-2]) / 2
    edge = [beyond * (1 - 1e-9), beyond * (1 + 1e-9), -beyond * 2, np.inf, np.nan, 1e300]
    expected = [known[-1], np.inf, -np.inf, np.inf, np.nan, np.inf]
    assert np.array_equal(rounded(np.array(edge), half), np.float32(expected), equal_nan=True)
    assert known[1] == SMALLEST[half]
    assert (
        unit_roundoff(half)
        == {"bfloat16": 2.0**-8, "float16": 2.0**-11}[half]
        == 2.0 ** -BITS[half]
    )


@HALVES
def test_units_in_the_last_place_are_those_of_the_type(half):
    known = numbers(half)[:: 2**7]
    carried = known.astype(np.float32)
    assert ulps(carried, known, half).tolist() == [0] * len(known)
    assert set(ulps(carried[1:], known[:-1], half).tolist()) == {2**7}
    assert ulps(-carried, known, half).tolist() == list(range(0, 2**8 * len(known), 2**8))


def test_float32_and_float64_are_not_taken_for_them():
    assert not any(map(is_half, ("float32", "float64", np.float16, np.dtype("float32"), None)))


@HALVES
@NAMES
def test_torch_in_16_bits_is_within_the_floor(name, half):
    both = sides(name, half)
    floor = both.floor()
    for how in (both.steps, both.once):
        for result, ours in how(both.inputs).items():
            distance = LIMIT * floor.margin(result, ours).max()
            print(name, result, distance)
            assert distance < 3


@HALVES
@pytest.mark.parametrize("name", ["gelu", "layer_norm", "linear", "product"])
@pytest.mark.parametrize("factor", [2, 0.5, -1])
def test_a_wrong_factor_is_different_in_16_bits_alone_and_everywhere(name, factor, half):
    both = sides(name, half)

    def wrong(of, inputs):
        return {name: np.float32(factor) * a for name, a in of(inputs).items()}

    subject, finer = partial(wrong, both.steps), partial(wrong, both.single)
    for found in (both.judged(subject), both.judged(subject, finer)):
        visible = {n for n, v in found.items() if abs(factor - 1) > 1.2 * v.resolution}
        assert visible
        assert {n for n, v in found.items() if v.kind == "different"} >= visible


@HALVES
def test_what_is_visible_is_found_at_one_element_and_a_missing_term_too(half):
    both = sides("log_softmax", half)

    def one(inputs):
        found = both.steps(inputs)
        i = np.unravel_index(np.argmax(abs(found["x0"])), found["x0"].shape)
        found["x0"][i] *= 1 + 40 * unit_roundoff(half)
        return cast(found, half)

    def without(inputs):
        return both.steps(inputs) | {"x0": inputs[-1]}

    for subject in (one, without):
        found = both.judged(subject)
        assert found["value"].kind in RIGHT
        assert found["x0"].kind == "different"
        i = found["x0"].index
        assert subject(both.inputs)["x0"][i] != both.steps(both.inputs)["x0"][i]


@HALVES
def test_the_resolution_is_some_30_u(half):
    seen = [sides(name, half).judged().values() for name in FUNCTIONS]
    found = [v.resolution / unit_roundoff(half) for verdicts in seen for v in verdicts]
    print(np.quantile(found, [0, 0.5, 1]))
    assert np.median(found) < 40


@HALVES
def test_without_noise_right_results_would_be_far_outside(half, monkeypatch):
    monkeypatch.setattr(Floor, "_move", lambda *given, **more: False)
    both = sides("variance", half)
    floor = both.floor()
    assert max(LIMIT * floor.margin(n, a).max() for n, a in both.steps(both.inputs).items()) > LIMIT


SHAPES = (16, 32), (32, 32), (32, 32), (32, 32)


@HALVES
def test_decisions_on_what_was_computed_may_fall_the_other_way(half):
    """In a net, at every depth; which is never a mistake."""
    for seed in range(3):
        both = Sides(network, half, *SHAPES, seed=seed)
        found = both.judged()
        print({name: v.margin * LIMIT for name, v in found.items()})
        assert {v.kind for v in found.values()} <= {*RIGHT, "imprecise"}


def test_most_of_them_are_within_the_floor_because_jumps_of_what_is_computed_count(monkeypatch):
    def outside():
        count = 0
        for seed in range(3):
            both = Sides(network, "bfloat16", *SHAPES, seed=seed)
            floor = both.floor()
            found = both.steps(both.inputs)
            count += sum(floor.margin(name, a).max() > 1 for name, a in found.items())
        return count

    move = Floor._move
    count = outside()
    monkeypatch.setattr(
        Floor,
        "_move",
        lambda s, seeds, sizes, *a, **k: len(sizes) > 1 and move(s, seeds, sizes, *a, **k),
    )
    assert count < outside() / 2


@HALVES
def test_a_decision_on_an_input_may_not(half):
    """A number in 16 bits is on one side of a kink, however near."""
    u = unit_roundoff(half)
    x = np.array([1 - u, 0.5, 1 + 2 * u], np.float32)
    both = Sides(F.hardtanh, half, (3,))
    both.inputs = [x], {}, np.ones(3, np.float32)

    def wrong(of, inputs):
        found = of(inputs)
        return found | {"x0": np.where(inputs[0][0] > 1 - 2 * u, 0, found["x0"]).astype(np.float32)}

    assert both.judged()["x0"].kind == "identical"
    found = both.judged(partial(wrong, both.steps), partial(wrong, both.single))["x0"]
    assert (found.kind, found.index) == ("different", (0,))


@HALVES
def test_small_gradients_count_down_to_the_smallest_subnormal(half):
    size = 64 * SMALLEST[half]

    def side(sign, inputs):
        return {"value": sign * rounded(size * inputs, half)}

    inputs = np.ones(3, np.float32)
    found = judge(partial(side, -1), partial(side, 1), inputs, half)["value"]
    assert found.kind == "different"
    assert judge(partial(side, 1), partial(side, 1), inputs, half)["value"].kind == "identical"
    below = {"value": np.full(3, SMALLEST[half], np.float32)}
    off = judge(lambda _: below, lambda _: {"value": np.zeros(3)}, inputs, half)["value"]
    assert (off.kind, off.ulp) == ("rounding", 1)


@pytest.mark.parametrize(
    ("truth", "ours", "kind"),
    [
        (65519.0, 65504.0, "identical"),
        (65521.0, np.inf, "identical"),
        (65500.0, np.inf, "rounding"),
        (-65500.0, -np.inf, "rounding"),
        (65500.0, -np.inf, "different"),
        (60000.0, np.inf, "different"),
        (1e6, 65504.0, "different"),
        (1e6, np.inf, "identical"),
        (1e6, -np.inf, "different"),
        (1e6, np.nan, "different"),
        (np.inf, np.inf, "identical"),
        (np.inf, 65504.0, "different"),
        (np.nan, np.nan, "identical"),
        (np.nan, 1.0, "different"),
    ],
)
def test_what_float16_cannot_hold_is_infinite_there(truth, ours, kind):
    def reference(inputs):
        return {"value": np.array([truth, 1.0])}

    def subject(inputs):
        return {"value": np.array([ours, 1.0], np.float32)}

    point = np.ones(1, np.float32)
    assert judge(subject, reference, point, "float16")["value"].kind == kind
    (seen,) = screen([(subject(point)["value"], reference(point)["value"])], [False], "float16")
    assert seen is None or seen.kind == kind


def test_what_overflows_in_16_bits_alone_is_different():
    both = Sides(lambda x: x * 2.0**12 / 2.0**12, "float16", (50,), scale=20)
    assert both.judged()["value"].kind == "different"


@HALVES
def test_lost_digits_are_imprecise_and_what_knows_16_bits_alone_has_no_such_excuse(half):
    both = Sides(torch.expm1, half, (50,), scale=1e-2)

    def naive(x):
        return torch.exp(x) - 1

    subject = partial(in_torch, naive, getattr(torch, half))
    finer = partial(in_torch, naive, torch.float32)
    assert both.judged(subject, finer)["value"].kind == "imprecise"
    floor = Floor(both.reference, both.inputs, half)
    results = subject(both.inputs)
    assert settle(floor, subject, both.inputs, results)["value"].kind == "different"

    def doubled(inputs):
        return {name: 2 * a for name, a in subject(inputs).items()}

    assert both.judged(doubled, finer)["x0"].kind == "different"


@HALVES
def test_who_rounds_once_is_within_one_rounding(half):
    for name in FUNCTIONS:
        both = sides(name, half)
        floor = both.floor(once=True)
        for result, ours in both.once(both.inputs).items():
            assert floor.margin(result, ours).max() <= 1
        found = both.judged(both.once, once=True)
        assert {v.kind for v in found.values()} <= RIGHT
        assert all(v.resolution < 3 * unit_roundoff(half) for v in found.values() if v.margin)


@HALVES
def test_so_a_mistake_of_two_units_is_seen_where_the_other_floor_sees_none(half):
    both = sides("gelu", half)
    factor = np.float32(1 + 3 * unit_roundoff(half))

    def wrong(inputs):
        return {name: factor * a for name, a in both.single(inputs).items()}

    def subject(inputs):
        return cast(wrong(inputs), half)

    assert {v.kind for v in both.judged(subject, wrong).values()} <= RIGHT
    assert {v.kind for v in both.judged(subject, wrong, once=True).values()} == {"different"}
    twice = {v.kind for v in both.judged(once=True).values()}
    assert twice <= {*RIGHT, "imprecise"}  # who rounds on the way, too, is not wrong


@HALVES
def test_shape_and_kind_are_held_and_the_carrying_dtype_is_not(half):
    both = sides("tanh", half)

    def changed(change):
        return both.judged(lambda i: {n: change(a) for n, a in both.steps(i).items()})["value"]

    assert changed(lambda a: a.astype(np.float64)).kind in RIGHT
    assert "shape" in changed(lambda a: a[:-1]).note
    assert "dtype" in changed(lambda a: a.astype(int)).note


@HALVES
def test_screening_agrees_with_the_floor(half):
    pairs, kinds = [], []
    for name in FUNCTIONS:
        both = sides(name, half)
        truth = both.floor().truth
        results = both.once(both.inputs)
        pairs += [(results[n], truth[n]) for n in results]
        kinds += both.judged(both.once).values()
    found = screen(pairs, [False] * len(pairs), half)
    assert sum(v is not None for v in found) > len(found) / 2
    for quick, thorough in zip(found, kinds, strict=True):
        assert quick is None or (quick.kind, quick.ulp) == (thorough.kind, thorough.ulp)
    assert not any(screen([(2 * a, t) for a, t in pairs], [False] * len(pairs), half))


@HALVES
def test_draws_together_and_one_by_one_are_alike(half, monkeypatch):
    monkeypatch.setattr(Floor, "_can", {})
    both = sides("by hand", half)
    together = both.floor()
    assert together.together
    assert together.draws == DRAWS
    alone = both.floor(together=False)
    for name, values in together.values.items():
        ratio = values / alone.values[name]
        assert 0.5 < np.median(ratio) < 2
