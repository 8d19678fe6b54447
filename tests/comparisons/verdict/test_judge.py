"""What is right is rounding; what is wrong is different, and found at the wrong element."""

import numpy as np
import pytest
from gradtwin.comparisons.verdict.classes import DIFFERENT, IDENTICAL
from gradtwin.comparisons.verdict.drift import RUNS, free_drift
from gradtwin.comparisons.verdict.floor import DRAWS, Floor
from gradtwin.comparisons.verdict.judge import judge, settle
from gradtwin.comparisons.verdict.noise import OneUlpNoise, moved
from gradtwin.comparisons.verdict.ulps import ulps

from gradtwin import reference

DTYPES = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def of_rule(rule):
    def results(inputs):
        x, dy = inputs
        y, pullback = rule(x)
        return {"value": np.asarray(y), "x": np.asarray(pullback(dy))}

    return results


def tanh_with(slope):
    return of_rule(lambda x: (np.tanh(x), lambda dy: dy * slope(x)))


def judged(subject, dtype, low=-12, high=12, seed=0):
    rng = np.random.default_rng(seed)
    inputs = (rng.uniform(low, high, 400).astype(dtype), rng.standard_normal(400).astype(dtype))
    return judge(subject, of_rule(reference.activations.tanh), inputs, np.dtype(dtype))["x"]


def accurate(x):
    h = np.exp(-abs(x))
    return (2 * h / (1 + h * h)) ** 2


def usual(x):
    return 1 - np.tanh(x) ** 2


@DTYPES
@pytest.mark.parametrize("slope", [accurate, usual])
@pytest.mark.parametrize("seed", range(5))
def test_both_ways_to_write_a_slope_are_rounding(slope, dtype, seed):
    assert judged(tanh_with(slope), dtype, seed=seed).kind == "rounding"


@pytest.mark.parametrize("size", [1e-9, 1e-6, 1e-3])
def test_a_scaled_gradient_is_different(size):
    found = judged(tanh_with(lambda x: usual(x) * x.dtype.type(1 + size)), np.float64)
    assert found.kind == "different"
    assert found.resolution < size


@DTYPES
def test_a_wrong_range_is_different_and_found_there(dtype):
    def slope(x):
        return usual(x) * np.where(abs(x) > 6, x.dtype.type(0.5), x.dtype.type(1))

    rng = np.random.default_rng(0)
    x = rng.uniform(-8, 8, 400).astype(dtype)
    dy = np.ones_like(x)
    found = judge(tanh_with(slope), of_rule(reference.activations.tanh), (x, dy), np.dtype(dtype))
    assert found["x"].kind == "different"
    assert abs(x[found["x"].index]) > 6
    assert found["value"].kind in ("identical", "rounding")


def test_a_tiny_gradient_with_the_wrong_sign_is_different():
    rule = of_rule(lambda x: (1e-9 * x, lambda dy: -1e-9 * dy))
    right = of_rule(lambda x: (1e-9 * x, lambda dy: 1e-9 * dy))
    inputs = (np.ones(3), np.ones(3))
    assert judge(rule, right, inputs, np.dtype(float))["x"].kind == "different"


def test_float32_inside_float64_is_different():
    def slope(x):
        return usual(x.astype(np.float32)).astype(x.dtype)

    assert judged(tanh_with(slope), np.float64, -2, 2).kind == "different"


def test_a_formula_that_loses_digits_is_imprecise():
    """(e²ˣ − 1) / (e²ˣ + 1) is tanh, and near 0 has lost what 1 − e²ˣ lost."""

    def subject(inputs):
        x, dy = inputs
        z = np.exp(2 * x)
        return {"value": (z - 1) / (z + 1), "x": dy * accurate(x)}

    rng = np.random.default_rng(0)
    inputs = (rng.uniform(1e-5, 1e-4, 50), rng.standard_normal(50))
    found = judge(subject, of_rule(reference.activations.tanh), inputs, np.dtype(float))
    assert found["value"].kind == "imprecise"


@pytest.mark.parametrize(("scale", "kind"), [(1, "imprecise"), (1 + 1e-3, "different")])
def test_where_all_is_measured_the_reference_is_asked_nothing(scale, kind):
    tanh = of_rule(reference.activations.tanh)
    rng = np.random.default_rng(0)
    x, dy = rng.uniform(1e-5, 1e-4, 50), rng.standard_normal(50)
    inputs = (x.astype(np.float32), dy.astype(np.float32))
    floor = Floor(tanh, inputs, np.dtype(np.float32))
    moves = floor.moves()

    def closed(given):
        if not np.array_equal(given[0], inputs[0]):
            raise LookupError
        return floor.truth

    def subject(given):
        x, dy = given
        z = np.exp(2 * x)
        return {"value": scale * (z - 1) / (z + 1), "x": dy * accurate(x)}

    again = Floor(closed, inputs, np.dtype(np.float32), (floor.truth, floor.native), moves=moves)
    assert all(np.array_equal(a, again.values[name]) for name, a in floor.values.items())
    found = settle(again, subject, inputs, subject(inputs))
    assert (found["value"].kind, found["x"].kind) == (kind, "identical")


@DTYPES
def test_the_wrong_side_of_a_kink_is_different(dtype):
    wrong = of_rule(lambda x: (np.maximum(x, 0), lambda dy: np.where(x >= 0, dy, 0)))
    inputs = (np.array([-1.0, 0.0, 1.0], dtype), np.array([0.3, 0.7, -0.2], dtype))
    found = judge(wrong, of_rule(reference.activations.relu), inputs, np.dtype(dtype))
    assert found["x"].kind == "different"
    assert found["x"].index == (1,)


@pytest.mark.parametrize("wrong", [lambda y: y[:-1], lambda y: y.astype(np.float32)])
def test_a_wrong_shape_or_dtype_is_different_and_said(wrong):
    def subject(inputs):
        return {name: wrong(y) for name, y in of_rule(reference.activations.tanh)(inputs).items()}

    found = judged(subject, np.float64)
    assert found.kind == "different"
    assert "instead of" in found.note


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_must_stand_where_torch_has_it(value):
    right = of_rule(reference.activations.relu)

    def subject(inputs):
        return {name: np.where([True, False], y, value) for name, y in right(inputs).items()}

    inputs = (np.ones(2), np.ones(2))
    found = judge(subject, right, inputs, np.dtype(float))
    assert {v.kind for v in found.values()} == {"different"}
    assert found["x"].index == (1,)


def test_missing_results_are_named():
    right = of_rule(reference.activations.tanh)
    with pytest.raises(ValueError, match="expected value, x, got value"):
        judge(lambda i: {"value": right(i)["value"]}, right, (np.ones(2),) * 2, np.dtype(float))


@pytest.mark.parametrize(("margins", "draws"), [(1.2, 2 * DRAWS), (5.0, DRAWS)])
def test_what_is_barely_outside_is_drawn_for_twice_as_often(margins, draws):
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 50))
    reference_ = of_rule(reference.activations.tanh)
    whole = Floor(reference_, (x, dy), np.dtype(np.float64))
    while whole.widen():
        pass
    off = {n: v + 8 * margins * whole.values[n] for n, v in whole.truth.items()}
    floor = Floor(reference_, (x, dy), np.dtype(np.float64))
    verdicts = settle(floor, lambda inputs: off, (x, dy), off)
    assert {v.kind for v in verdicts.values()} == {"different"}
    assert floor.draws == draws


@DTYPES
def test_a_jump_gives_no_slack(dtype):
    inputs = (np.array([0.0, 1e-30], dtype), np.ones(2, dtype))
    floor = Floor(of_rule(reference.activations.relu), inputs, np.dtype(dtype))
    for _ in range(DRAWS):
        floor.draw()
    assert np.all(floor.values["x"] <= 2 * np.finfo(dtype).eps)


def test_noise_reaches_what_is_computed_on_the_way():
    x = np.full(64, 8.0)
    y, pullback = reference.activations.tanh(x)
    with OneUlpNoise(2.0**-48, 0):
        noisy, noisy_pullback = reference.activations.tanh(x)
        slope = noisy_pullback(np.ones(64))
    assert np.max(abs(noisy - y)) <= 2.0**-46
    # 1 − y² has lost its digits, and the noise shows it
    assert np.max(abs(slope / pullback(np.ones(64)) - 1)) > 1e-9


def test_moving_keeps_probabilities_and_decay_rates_valid():
    rng = np.random.default_rng(0)
    tree = {"p": np.array([0.0, 0.5, 1.0]), "beta": 0.999, "n": np.array([1, 2]), "name": "sgd"}
    for _ in range(20):
        found = moved(tree, 2e-3, rng, zeros=True)
        assert np.all((found["p"] >= 0) & (found["p"] <= 1))
        assert found["beta"] < 1
        assert found["n"] is tree["n"]
    assert moved(tree, 1e-3, np.random.default_rng(1))["p"][1] != 0.5


@DTYPES
def test_ulps_count_the_numbers_between(dtype):
    x = np.array([1.0, -1.0, 0.0, 1e-300, np.inf, np.nan], dtype)
    up = np.nextafter(x, dtype(np.inf))
    assert ulps(x, x).tolist() == [0] * 6
    assert ulps(up[:3], x[:3]).tolist() == [1] * 3
    assert ulps(np.array([-0.0], dtype), np.array([0.0])).tolist() == [0]


def test_a_free_run_parts_where_it_leaves_its_floor():
    rng = np.random.default_rng(0)
    twin = np.ones(200)
    noisy = twin + 1e-15 * rng.standard_normal((RUNS, 200))
    calm = free_drift(twin + 1e-15 * rng.standard_normal(200), twin, noisy, 2.0**-53)
    assert calm.parted is None
    fault = np.where(np.arange(200) >= 50, 1e-13, 0)
    assert free_drift(twin + fault, twin, noisy, 2.0**-53).parted == 50


def test_runs_that_diverge_together_do_not_part():
    twin = np.array([1.0, 2.0, np.inf, np.nan])
    noisy = np.array([twin] * RUNS)
    assert free_drift(twin, twin, noisy, 2.0**-53).parted is None
    alive = np.array([1.0, 2.0, 3.0, 4.0])
    assert free_drift(alive, twin, noisy, 2.0**-53).parted == 2


def test_whole_numbers_are_the_same_or_different():
    def numbers(inputs):
        return {"value": np.array([-3, 2**53, 5])}

    def other(inputs):
        return {"value": np.array([-3, 2**53, 6])}

    assert judge(numbers, numbers, (), np.dtype(float))["value"].kind == "identical"
    found = judge(other, numbers, (), np.dtype(float))["value"]
    assert (found.kind, found.ulp, found.index) == ("different", 1, (2,))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, "bfloat16"])
@pytest.mark.parametrize("kind", [np.int64, bool])
def test_a_whole_result_is_equal_or_different(dtype, kind):
    x = np.linspace(-1, 1, 12, dtype=np.float32 if dtype == "bfloat16" else dtype)

    def results(off):
        def of(inputs):
            return {"value": inputs, "index": ((inputs > 0) ^ off).astype(kind)}

        return of

    right = judge(results(np.zeros(12, bool)), results(np.zeros(12, bool)), x, dtype)
    wrong = judge(results(np.arange(12) == 7), results(np.zeros(12, bool)), x, dtype)
    assert right["index"].kind == right["value"].kind == wrong["value"].kind == IDENTICAL
    assert (wrong["index"].kind, wrong["index"].index) == (DIFFERENT, (7,))
    assert wrong["index"].manual != wrong["index"].reference
