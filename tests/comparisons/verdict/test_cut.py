"""A call is cut only where the cut gives back what the whole gave, and then judged by little."""

import numpy as np
import pytest
from gradtwin.comparisons.ops import evaluate
from gradtwin.comparisons.verdict.cut import BLOCK, cut
from gradtwin.comparisons.verdict.floor import MANY, Floor
from gradtwin.comparisons.verdict.judge import judge, settle
from gradtwin.reference.adapters import leaves

from gradtwin import reference

DTYPES = pytest.mark.parametrize("dtype", [np.float64, np.float32])
SHAPE = (300, 100)


def results(rule, **settings):
    def of(inputs):
        *args, dy = inputs
        y, pullback = rule(*args, **settings)
        gradients = leaves(pullback(dy))
        return {"value": y, **{f"d{i}": g for i, g in enumerate(gradients)}}

    return of


def drawn(*shapes, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal(shape).astype(dtype) for shape in shapes)


def mask(*places, shape=SHAPE):
    found = np.zeros(shape, bool)
    for place in places:
        found[place] = True
    return found


ELEMENTWISE = results(reference.activations.gelu)
BY_ROWS = results(reference.activations.softmax, dim=1)
LINEAR = results(reference.linear.linear)


def test_what_treats_every_element_alike_is_cut_to_elements():
    inputs = drawn(SHAPE, SHAPE)
    truth = ELEMENTWISE(inputs)
    wanted = {"value": mask((7, 3)), "d0": mask((7, 3), (299, 99))}
    found = cut(ELEMENTWISE, inputs, truth, wanted)
    assert [a.shape for a in found.of(inputs)] == [(BLOCK,)] * 2
    for name, place in found.places.items():
        assert mask(place).sum() == BLOCK
        assert np.all(mask(place)[wanted[name]])
        assert np.array_equal(ELEMENTWISE(found.of(inputs))[name], truth[name][place])


def test_what_treats_every_row_alike_is_cut_to_rows():
    inputs = drawn(SHAPE, SHAPE)
    truth = BY_ROWS(inputs)
    found = cut(BY_ROWS, inputs, truth, {"d0": mask((250, 0))})
    assert [a.shape for a in found.of(inputs)] == [(BLOCK, SHAPE[1])] * 2
    assert 250 in found.places["d0"]


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (results(reference.activations.softmax, dim=0), "d0"),
        (results(lambda x: reference.pointwise.sub(x, np.full((), x.mean()))), "d0"),
    ],
)
def test_what_hangs_together_is_not_cut(function, name):
    inputs = drawn(SHAPE, SHAPE)
    truth = function(inputs)
    wanted = {"value": mask((7, 3))}
    assert cut(function, inputs, truth, wanted) is None


def test_a_sum_over_rows_is_not_cut():
    inputs = drawn((300, 40), (100, 40), (100,), (300, 100))
    truth = LINEAR(inputs)
    assert cut(LINEAR, inputs, truth, {"d1": mask((0, 0), shape=(100, 40))}) is None
    found = cut(LINEAR, inputs, truth, {"d0": mask((0, 0), shape=(300, 40))})
    assert [a.shape for a in found.of(inputs)] == [(BLOCK, 40), (100, 40), (100,), (BLOCK, 100)]


def test_half_of_all_is_no_cut():
    inputs = drawn(SHAPE, SHAPE)
    truth = ELEMENTWISE(inputs)
    assert cut(ELEMENTWISE, inputs, truth, {"d0": np.indices(SHAPE)[1] % 2 == 0}) is None


def test_a_call_that_the_reference_refuses_when_it_is_cut_stays_whole():
    def refusing(inputs):
        if inputs[0].shape != SHAPE:
            raise TypeError
        return ELEMENTWISE(inputs)

    inputs = drawn(SHAPE, SHAPE)
    assert cut(refusing, inputs, refusing(inputs), {"d0": mask((0, 0))}) is None


@DTYPES
def test_one_wrong_element_of_many_is_found_where_it_is(dtype):
    inputs = drawn(SHAPE, SHAPE, dtype=dtype)

    def subject(given):
        found = ELEMENTWISE(given)
        if given[0].shape == SHAPE:
            found["d0"] = found["d0"].copy()
            found["d0"][211, 13] *= 1 + 1e-3
        return found

    verdicts = judge(subject, ELEMENTWISE, inputs, np.dtype(dtype))
    assert verdicts["d0"].kind == "different"
    assert verdicts["d0"].index == (211, 13)
    assert verdicts["value"].kind in ("identical", "rounding")  # float32 beside a rounded float64


@DTYPES
def test_the_floor_of_a_cut_is_that_of_the_whole(dtype):
    """Beyond them nothing grows."""
    inputs = drawn(SHAPE, SHAPE, dtype=dtype)
    whole, part = (Floor(ELEMENTWISE, inputs, np.dtype(dtype)) for _ in range(2))
    before = part.values["d0"].copy()
    outside = np.random.default_rng(1).random(SHAPE) < 0.05
    part.narrow({"d0": outside})
    while whole.widen() | part.widen():
        pass
    grown = part.values["d0"] != before
    assert np.all(grown[outside])
    assert not np.any(grown & (np.cumsum(~outside).reshape(SHAPE) > BLOCK) & ~outside)
    ratio = part.values["d0"][outside] / whole.values["d0"][outside]
    assert 0.5 < np.median(ratio) < 2


@DTYPES
@pytest.mark.parametrize("floors", [2, 100, 1e7])  # settled by noise; by digits; by none
def test_settling_a_larger_call_asks_for_no_more_elements(floors, dtype):
    """Beside the reference and what torch loses, which are known of all of it."""
    asked = {}
    for rows in (300, 3000):
        counted = asked[rows] = []

        def counting(inputs, counted=counted):
            counted.append(inputs[0].size)
            return ELEMENTWISE(inputs)

        x, dy = drawn((rows, 100), (rows, 100), dtype=dtype)
        x[0] = x[-1] = np.linspace(0.5, 1, 100)

        def subject(inputs):
            found = counting(inputs)
            move = np.where(inputs[0] == 0.5, 1 + 8 * floors * np.finfo(found["d0"].dtype).eps, 1)
            return {**found, "d0": (found["d0"] * move).astype(found["d0"].dtype)}

        known = ELEMENTWISE((x.astype(float), dy.astype(float))), ELEMENTWISE((x, dy))
        floor = Floor(counting, (x, dy), np.dtype(dtype), known)
        settle(floor, subject, (x, dy), subject((x, dy)))
    print({rows: (len(counted), sum(counted)) for rows, counted in asked.items()})
    assert MANY < 300 * 100
    assert [counted.pop(0) for counted in asked.values()] == [300 * 100, 3000 * 100]  # the subject
    assert asked[300] == asked[3000]
    assert set(asked[300]) <= {BLOCK}


def test_results_that_are_settled_are_not_asked_again():
    """Where no cut is possible, as of a sum over rows."""
    inputs = drawn((300, 40), (300, 40), (300,), (300, 300))
    asked = []

    def some(names):
        def of(given):
            asked.append(tuple(names))
            return {name: LINEAR(given)[name] for name in names}

        return of

    whole, part = (Floor(LINEAR, inputs, np.dtype(float), some=s) for s in (None, some))
    part.narrow({"d1": np.ones((300, 40), bool)})
    before = part.values
    while whole.widen() | part.widen():
        pass
    assert set(asked) == {("d1",)}
    assert np.array_equal(part.values["d1"], whole.values["d1"])
    assert np.array_equal(part.values["d0"], before["d0"])


@pytest.mark.parametrize("wanted", [["weight"], ["x", "bias"]])
def test_a_mirror_is_asked_for_some_gradients(wanted):
    x, weight, bias, dy = drawn((30, 4), (10, 4), (10,), (30, 10))
    names = ["x", "weight", "bias"]
    mirror, left = evaluate.asking("linear", names, wanted)
    given = (x, weight, bias), {}, dy
    whole = evaluate.evaluate(reference.linear.linear, names, given)
    found = evaluate.evaluate(mirror, left, given)
    assert left == wanted
    assert set(found) == {"value", *wanted}
    assert all(np.array_equal(found[name], whole[name]) for name in found)
