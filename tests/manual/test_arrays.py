"""What rules share."""

import inspect
from fractions import Fraction

import numpy as np
import pytest
from gradtwin.manual import activations, arrays, losses, pointwise

SIZES = (1, arrays.LARGE - 1, arrays.LARGE, 3 * arrays.LARGE)
IN_BLOCKS = [
    (family, name)
    for family in (activations, pointwise)
    for name, rule in vars(family).items()
    if inspect.isfunction(rule) and f"in_blocks({name}, x" in inspect.getsource(rule)
]
SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-310, 65504.0)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("size", SIZES)
def test_where_is_that_of_numpy_to_the_bit(size, dtype):
    rng = np.random.default_rng(size)
    with np.errstate(over="ignore"):
        x, y = (
            np.where(rng.random(size) < 0.3, rng.choice(SPECIAL, size), rng.random(size)).astype(
                dtype
            )
            for _ in range(2)
        )
    condition = rng.random(size) < 0.5
    rows = np.asfortranarray(np.broadcast_to(x, (2, size)))
    for c, a, b in (
        *((condition, x, y), (condition, x, 0), (condition, 0, y), (condition, x, -0.0)),
        *((condition, np.nan, y), (condition[::-1], x[::-1], y), (condition, 1, 0.5)),
        *((condition, x, y[:1]), (condition, rows, y), (np.array(True), x, y), (True, x, 0)),
        *((condition, x, y.astype(np.float64)), (condition, np.arange(size), 7)),
        *((np.asfortranarray([condition, ~condition]), rows, rows[::-1]), (condition, x, x > 1)),
    ):
        found, expected = arrays.where(c, a, b), np.where(c, a, b)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("layout", ["C", "F", "every other"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("family", "name"), IN_BLOCKS)
def test_a_rule_in_blocks_is_the_rule_to_the_bit(family, name, dtype, layout, monkeypatch):
    """Three blocks of an array, and a dy that is broadcast as well."""
    shape = (5, arrays.BLOCK // 2 + 3)
    rng = np.random.default_rng(0)
    x, dy = 3 * rng.standard_normal((2, *shape)).astype(dtype)
    x[0, :3] = np.nan, np.inf, -np.inf
    if layout == "F":
        x = np.asfortranarray(x)
    if layout == "every other":
        x, dy = np.repeat(x, 2, axis=0)[::2], np.broadcast_to(dy[:1], shape)
    settings = (0.7, 1.1, 1.0) if name == "_exponential" else ()
    rule, before = getattr(family, name), x.copy()
    with np.errstate(all="ignore"):
        y, pullback = rule(x, *settings)
        dx, again = pullback(dy), pullback(dy)
        monkeypatch.setattr(family, "BLOCK", np.inf)
        whole, pullback = rule(x, *settings)
        expected = pullback(dy)
    assert y.tobytes() == whole.tobytes()
    assert dx.tobytes() == again.tobytes() == expected.tobytes()
    assert (dx.shape, dx.dtype) == (shape, np.dtype(dtype))
    assert x.tobytes() == before.tobytes()


def test_many_rules_work_in_blocks():
    assert len(IN_BLOCKS) > 12


@pytest.mark.parametrize("kind", ["classes", "probabilities"])
@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 3), (5,)])
def test_cross_entropy_in_blocks_of_rows_is_that_of_all_to_the_bit(shape, kind, monkeypatch):
    """Blocks of two samples, the last of one; a vector is one row."""
    rng = np.random.default_rng(0)
    C, rest = shape[min(1, len(shape) - 1)], shape[:1] + shape[2:] if len(shape) > 1 else ()
    x, t, w = rng.standard_normal(shape), rng.random(shape), rng.random(C)
    target = np.asarray(rng.integers(C, size=rest)) if kind == "classes" else t
    dy, found = rng.standard_normal(rest), []
    for block in (2 * x[0].size, np.inf):
        monkeypatch.setattr(arrays, "BLOCK", block)
        y, pullback = losses.cross_entropy(x, target, w, reduction="none", label_smoothing=0.1)
        dx = pullback(dy)
        found.append([y, *(dx if isinstance(dx, tuple) else (dx,))])
    for blocks, whole in zip(*found, strict=True):
        assert blocks.tobytes() == whole.tobytes()


def test_an_exponent_of_numpy_has_a_slope_and_a_number_none():
    x = np.array([2.0, 3.0])
    assert len(pointwise.pow(x, np.float64(3))[1](x)) == 2
    assert pointwise.pow(x, 3.0)[1](x).shape == (2,)


@pytest.mark.parametrize("exponent", [2, 3, 2.0, np.array(3.0)])
def test_squares_and_cubes_are_powers(exponent):
    """The exact value, but for the rounding of each product."""
    x, n = np.array([-1.7, 0.0, 0.3, 1e3]), int(exponent)
    bound = (1 + Fraction(1, 2**53)) ** (n - 1) - 1
    for found, given in zip(pointwise.pow(x, exponent)[0], x, strict=True):
        exact = Fraction(given) ** n
        assert abs(Fraction(found) - exact) <= bound * abs(exact)
