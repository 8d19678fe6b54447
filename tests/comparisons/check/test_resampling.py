"""Mistakes in resampling that look right: `check` finds each, and passes what is right. And where
torch is wrong itself."""

import inspect
import itertools
import math

import numpy as np
import pytest
import torch
from gradtwin.comparisons.ops import evaluate
from gradtwin.comparisons.samples import array, call
from gradtwin.comparisons.verdict.classes import (
    DTYPES,
    IDENTICAL,
    LIMIT,
    REFERENCE_IMPRECISE,
    ROUNDING,
)
from gradtwin.manual import taps

from gradtwin import check, manual, reference

rng = np.random.default_rng(0)
IMAGE = rng.standard_normal((2, 2, 4, 5))


def cubic(t, a=-0.75):
    t = abs(t)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0


def interpolate(x, size, mode="nearest", align_corners=False):
    def matrix(n, m):
        A = np.zeros((m, n))
        for i in range(m):
            at = (i + 0.5) * n / m - 0.5
            if align_corners:
                at = i * (n - 1) / (m - 1)
            if mode == "nearest":
                A[i, int(np.floor(i * n / m))] = 1
            elif mode == "nearest-exact":
                A[i, int(np.floor((i + 0.5) * n / m))] = 1
            elif mode == "area":
                first, last = i * n // m, -(-(i + 1) * n // m)
                A[i, first:last] = 1 / (last - first)
            elif mode == "bicubic":
                low = int(np.floor(at))
                for j in range(low - 1, low + 3):
                    A[i, min(max(j, 0), n - 1)] += cubic(at - j)
            else:
                at = max(at, 0)
                low = int(np.floor(at))
                A[i, low] += 1 - (at - low)
                A[i, min(low + 1, n - 1)] += at - low
        return A

    A, B = (matrix(n, m) for n, m in zip(x.shape[2:], size, strict=True))
    y = A @ x @ B.T

    def pullback(dy):
        return A.T @ dy @ B

    return y, pullback


def grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False):
    N, C, *space = x.shape

    def located(g, n):
        at = (g + 1) * (n - 1) / 2 if align_corners else ((g + 1) * n - 1) / 2
        slope = (n - 1) / 2 if align_corners else n / 2
        if padding_mode == "reflection":
            low, high = (0, n - 1) if align_corners else (-0.5, n - 0.5)
            while not low <= at <= high:
                at, slope = 2 * (low if at < low else high) - at, -slope
        if padding_mode != "zeros":
            slope = slope if 0 < at < n - 1 else 0.0
            at = min(max(at, 0), n - 1)
        return at, slope

    def corners(place):
        """index, weight and slopes along both axes"""
        (h, dh), (w, dw) = (located(g, n) for g, n in zip(place[::-1], space, strict=True))
        if mode == "nearest":
            yield round(h), round(w), 1.0, 0.0, 0.0
            return
        top, left = int(np.floor(h)), int(np.floor(w))
        for i, j in itertools.product((0, 1), (0, 1)):
            a = h - top if i else 1 - (h - top)
            b = w - left if j else 1 - (w - left)
            yield top + i, left + j, a * b, (2 * i - 1) * b * dh, (2 * j - 1) * a * dw

    y = np.zeros((N, C, *grid.shape[1:3]))
    for n, p, q in np.ndindex(grid.shape[:3]):
        for i, j, weight, _, _ in corners(grid[n, p, q]):
            if 0 <= i < space[0] and 0 <= j < space[1]:
                y[n, :, p, q] += weight * x[n, :, i, j]

    def pullback(dy):
        dx, dgrid = np.zeros_like(x), np.zeros_like(grid)
        for n, p, q in np.ndindex(grid.shape[:3]):
            for i, j, weight, along_h, along_w in corners(grid[n, p, q]):
                if 0 <= i < space[0] and 0 <= j < space[1]:
                    dx[n, :, i, j] += weight * dy[n, :, p, q]
                    read = (dy[n, :, p, q] * x[n, :, i, j]).sum()
                    dgrid[n, p, q] += np.array([along_w, along_h]) * read
        return dx, dgrid

    return y, pullback


def affine_grid(theta, size, align_corners=False):
    N, _, H, W = size
    h, w = (np.linspace(-1, 1, n) * (1 if align_corners else (n - 1) / n) for n in (H, W))
    places = np.stack([*np.meshgrid(w, h), np.ones((H, W))], axis=-1)
    y = places.reshape(1, H * W, 3) @ theta.swapaxes(1, 2)

    def pullback(dy):
        return dy.reshape(N, H * W, 2).swapaxes(1, 2) @ places.reshape(1, H * W, 3)

    return y.reshape(N, H, W, 2), pullback


def pixel_shuffle(x, upscale_factor):
    r, (N, C, H, W) = upscale_factor, x.shape
    squares = x.reshape(N, C // r**2, r, r, H, W)
    y = squares.transpose(0, 1, 4, 2, 5, 3).reshape(N, C // r**2, H * r, W * r)

    def pullback(dy):
        squares = dy.reshape(N, C // r**2, H, r, W, r)
        return squares.transpose(0, 1, 3, 5, 2, 4).reshape(x.shape)

    return y, pullback


def pixel_unshuffle(x, downscale_factor):
    r, (N, C, H, W) = downscale_factor, x.shape
    squares = x.reshape(N, C, H // r, r, W // r, r)
    y = squares.transpose(0, 1, 3, 5, 2, 4).reshape(N, C * r**2, H // r, W // r)

    def pullback(dy):
        squares = dy.reshape(N, C, r, r, H // r, W // r)
        return squares.transpose(0, 1, 4, 2, 5, 3).reshape(x.shape)

    return y, pullback


def channel_shuffle(x, groups):
    N, C, *space = x.shape
    y = x.reshape(N, groups, C // groups, *space).swapaxes(1, 2).reshape(x.shape)

    def pullback(dy):
        dealt = dy.reshape(N, C // groups, groups, *space)
        return dealt.swapaxes(1, 2).reshape(x.shape)

    return y, pullback


RIGHT = {f.__name__: f for f in (interpolate, grid_sample, affine_grid, pixel_shuffle,
                                 pixel_unshuffle, channel_shuffle)}  # fmt: skip
GRID = 0.8 * rng.standard_normal((2, 3, 4, 2))
THETA = rng.standard_normal((2, 2, 3))


def up(mode, **settings):
    return (IMAGE, (6, 7)), {"mode": mode, **settings}


def at(mode, padding_mode="zeros", align_corners=False):
    settings = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    return (IMAGE, GRID), settings


CALLS = [
    *(("interpolate", up(mode)) for mode in ("nearest", "nearest-exact", "bilinear", "area")),
    ("interpolate", up("bicubic")),
    ("interpolate", up("bilinear", align_corners=True)),
    *(("grid_sample", at("bilinear", p, a)) for p in ("zeros", "border", "reflection")
      for a in (False, True)),
    ("grid_sample", at("nearest", "reflection")),
    ("affine_grid", ((THETA, (2, 1, 3, 4)), {"align_corners": False})),
    ("affine_grid", ((THETA, (2, 1, 3, 4)), {"align_corners": True})),
    ("pixel_shuffle", ((rng.standard_normal((2, 8, 3, 2)), 2), {})),
    ("pixel_unshuffle", ((rng.standard_normal((2, 2, 4, 6)), 2), {})),
    ("channel_shuffle", ((rng.standard_normal((2, 6, 3)), 2), {})),
]  # fmt: skip


@pytest.mark.parametrize(("op", "arguments"), CALLS)
def test_the_right_ones_pass(op, arguments):
    report = check(RIGHT[op], op, *arguments, probes=["ordinary"])
    assert report.passed, report


def with_mistake(function, old, new):
    source = inspect.getsource(function)
    assert source.count(old) == 1
    scope = dict(vars(inspect.getmodule(function)))
    exec(source.replace(old, new), scope)
    return scope[function.__name__]


SHUFFLES = {op: arguments for op, arguments in CALLS if op.endswith("shuffle")}
GRIDS = [arguments for op, arguments in CALLS if op == "affine_grid"]


@pytest.mark.thinned(8)
@pytest.mark.parametrize(
    ("op", "old", "new", "arguments"),
    [
        ("interpolate", "i * (n - 1) / (m - 1)", "i * n / m", up("bilinear", align_corners=True)),
        ("interpolate", "if align_corners:", "if not align_corners:", up("bilinear")),
        ("interpolate", "(i + 0.5) * n / m - 0.5", "i * n / m", up("bilinear")),
        ("interpolate", "(i + 0.5) * n / m - 0.5", "(i + 0.5) * n / m", up("bicubic")),
        ("interpolate", "(i + 0.5) * n / m - 0.5", "(i + 0.5) * m / n - 0.5", up("bicubic")),
        ("interpolate", "np.floor((i + 0.5) * n / m)", "np.floor(i * n / m)", up("nearest-exact")),
        ("interpolate", "np.floor(i * n / m)", "np.rint(i * (n - 1) / (m - 1))", up("nearest")),
        ("interpolate", "cubic(at - j)", "cubic(at - j, -0.5)", up("bicubic")),
        ("interpolate", "cubic(at - j)", "cubic(at - j, -0.7501)", up("bicubic")),
        ("interpolate", "A[i, min(max(j, 0), n - 1)] +=", "A[i, min(max(j, 0), n - 1)] =",
         up("bicubic")),
        ("interpolate", "A[i, min(max(j, 0), n - 1)] +=", "A[i, j % n] +=", up("bicubic")),
        ("interpolate", "range(low - 1, low + 3)", "range(low - 1, low + 2)", up("bicubic")),
        ("interpolate", "at = max(at, 0)", "pass", up("bilinear")),
        ("interpolate", "min(low + 1, n - 1)", "max(low - 1, 0)", up("bilinear")),
        ("interpolate", "A[i, low] += 1 - (at - low)", "A[i, low] += at - low", up("bilinear")),
        ("interpolate", "-(-(i + 1) * n // m)", "max((i + 1) * n // m, first + 1)", up("area")),
        ("interpolate", "1 / (last - first)", "m / n", up("area")),
        ("interpolate", "A.T @ dy @ B", "A.T @ dy @ B * (B.shape[1] / B.shape[0])", up("bilinear")),
        ("interpolate", "A.T @ dy @ B", "matrix(*A.shape) @ dy @ matrix(*B.shape).T",
         up("bilinear")),
        ("grid_sample", "(g + 1) * (n - 1) / 2", "(g + 1) * n / 2", at("bilinear", "zeros", True)),
        ("grid_sample", "((g + 1) * n - 1) / 2", "(g + 1) * n / 2", at("bilinear")),
        ("grid_sample", "place[::-1]", "place", at("bilinear")),
        ("grid_sample", "[along_w, along_h]", "[along_h, along_w]", at("bilinear")),
        ("grid_sample", "slope = (n - 1) / 2 if align_corners else n / 2", "slope = n / 2",
         at("bilinear", "zeros", True)),
        ("grid_sample", "slope = (n - 1) / 2 if align_corners else n / 2", "slope = 1.0",
         at("bilinear")),
        ("grid_sample", "else (-0.5, n - 0.5)", "else (0, n - 1)", at("bilinear", "reflection")),
        ("grid_sample", "(0, n - 1) if", "(0, n) if", at("bilinear", "reflection", True)),
        ("grid_sample", "- at, -slope", "- at, slope", at("bilinear", "reflection")),
        ("grid_sample", "slope if 0 < at < n - 1 else 0.0", "slope", at("bilinear", "border")),
        ("grid_sample", "min(max(at, 0), n - 1)", "min(max(at, 0), n - 2)",
         at("bilinear", "border")),
        ("grid_sample", "round(h), round(w)", "int(h), int(w)", at("nearest", "border")),
        ("grid_sample", "(2 * i - 1) * b * dh", "b * dh", at("bilinear")),
        ("grid_sample", "dx[n, :, i, j] +=", "dx[n, :, i, j] =", at("bilinear")),
        ("grid_sample", "dgrid[n, p, q] +=", "dgrid[n, p, q] =", at("bilinear")),
        ("affine_grid", "(1 if align_corners else (n - 1) / n)", "1", GRIDS[0]),
        ("affine_grid", "(1 if align_corners else (n - 1) / n)", "(n - 1) / n", GRIDS[1]),
        ("affine_grid", "np.meshgrid(w, h)", "np.meshgrid(w, h)[::-1]", GRIDS[0]),
        ("affine_grid", "dy.reshape(N, H * W, 2).swapaxes(1, 2)",
         "dy.reshape(N, 2, H * W)", GRIDS[0]),
        ("pixel_shuffle", "squares.transpose(0, 1, 4, 2, 5, 3)",
         "squares.transpose(0, 1, 4, 3, 5, 2)", SHUFFLES["pixel_shuffle"]),
        ("pixel_shuffle", "squares.transpose(0, 1, 3, 5, 2, 4)",
         "squares.transpose(0, 1, 5, 3, 2, 4)", SHUFFLES["pixel_shuffle"]),
        ("pixel_shuffle", "x.reshape(N, C // r**2, r, r, H, W)",
         "x.reshape(N, r, r, C // r**2, H, W).transpose(0, 3, 1, 2, 4, 5)",
         SHUFFLES["pixel_shuffle"]),
        ("pixel_unshuffle", "squares.transpose(0, 1, 3, 5, 2, 4)",
         "squares.transpose(0, 3, 5, 1, 2, 4)", SHUFFLES["pixel_unshuffle"]),
        ("pixel_unshuffle", "squares.transpose(0, 1, 4, 2, 5, 3)",
         "squares.transpose(0, 1, 4, 3, 5, 2)", SHUFFLES["pixel_unshuffle"]),
        ("channel_shuffle", "x.reshape(N, groups, C // groups, *space)",
         "x.reshape(N, C // groups, groups, *space)", SHUFFLES["channel_shuffle"]),
        ("channel_shuffle", "dy.reshape(N, C // groups, groups, *space)",
         "dy.reshape(N, groups, C // groups, *space)", SHUFFLES["channel_shuffle"]),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("no_cause")
def test_a_mistake_is_found(op, old, new, arguments):
    wrong = with_mistake(RIGHT[op], old, new)
    report = check(wrong, op, *arguments, probes=["ordinary"])
    print(report.table)
    assert not report.passed


ALONE = np.arange(4.0).reshape(1, 1, 4)


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        (call(array(1, 1, 2), 82), "x"),  # its backward looks for the nearest in float32
        (call(array(1, 1, 16), scale_factor=4.6), "x"),
        (call(array(1, 1, 5), scale_factor=2.15), "x"),  # and as if the factor were 2
        (call(array(1, 1, 4), scale_factor=1.2), "value"),  # as long as before
        (call(array(1, 1, 4, 3), (5, 1), mode="bilinear", antialias=True), "value"),
        (call(array(1, 1, 4, 3), scale_factor=(1.2, 2.0), mode="bilinear", antialias=True), "x"),
    ],
)
def test_where_torch_is_wrong_the_exact_value_says_so(row, wrong):
    for dtype in DTYPES:
        inputs = evaluate.drawn("interpolate", row, dtype, 0)
        kinds = {n: v.kind for n, v in evaluate.judge_inputs("interpolate", inputs, dtype).items()}
        assert kinds.pop(wrong) == REFERENCE_IMPRECISE
        assert set(kinds.values()) <= {IDENTICAL, ROUNDING}


def test_torchs_nearest_has_a_slope_that_is_another_functions():
    """In one axis, of a length that stays; in two it copies the axis, as its backward has it."""
    y, pullback = reference.resampling.interpolate(ALONE, scale_factor=1.2)
    assert y.ravel().tolist() == [0, 0, 1, 2]
    assert pullback(np.ones_like(y)).ravel().tolist() == [1, 1, 1, 1]
    y, _ = reference.resampling.interpolate(ALONE[np.newaxis], scale_factor=(1.0, 1.2))
    assert y.ravel().tolist() == [0, 1, 2, 3]


def test_torchs_filter_repeats_the_first_row_where_the_last_axis_has_one_element():
    column = ALONE.reshape(1, 1, 4, 1) * np.ones(3)
    y, _ = reference.resampling.interpolate(column, (4, 1), mode="bilinear", antialias=True)
    taller, _ = reference.resampling.interpolate(column, (5, 1), mode="bilinear", antialias=True)
    wider, _ = reference.resampling.interpolate(column, (5, 2), mode="bilinear", antialias=True)
    assert y.ravel().tolist() == [0, 1, 2, 3]
    assert taller.ravel().tolist() == [0] * 5
    assert wider[..., 0].ravel() == pytest.approx([0, 0.7, 1.5, 2.3, 3])
    ours, _ = manual.resampling.interpolate(column, (5, 1), mode="bilinear", antialias=True)
    assert ours.ravel() == pytest.approx([0, 0.7, 1.5, 2.3, 3])


@pytest.mark.parametrize("place", [np.nan, np.inf])
@pytest.mark.parametrize("side", [manual.resampling, reference.resampling])
def test_no_place_is_refused_because_torchs_backward_crashes_on_it(side, place):
    grid = np.full((2, 1, 9, 2), place)
    with pytest.raises(ValueError, match="grid: expected finite places"):
        side.grid_sample(IMAGE, grid, padding_mode="reflection")


def test_torch_keeps_the_shape_of_an_empty_image():
    empty = np.zeros((0, 1, 4, 4))
    assert torch.pixel_unshuffle(torch.from_numpy(empty), 2).shape == (0, 1, 4, 4)
    y, pullback = manual.resampling.pixel_unshuffle(empty, 2)
    assert y.shape == (0, 4, 2, 2)
    assert pullback(y).shape == empty.shape


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_a_long_axis_goes_as_a_short_one_does(mode, monkeypatch):
    """By sparse matrices, as an infinite element does; up to rounding of sums of what is not below
    0, which their size bounds."""

    def both(x, dy):
        y, pullback = manual.resampling.interpolate(x, (500, 4), mode=mode)
        return y, pullback(dy)

    x = rng.standard_normal((2, 1, 300, 3))
    dy = rng.standard_normal((2, 1, 500, 4))
    sparse, sizes = both(x, dy), both(abs(x), abs(dy))
    monkeypatch.setattr(taps, "SMALL", math.inf)
    for a, b, size in zip(sparse, both(x, dy), sizes, strict=True):
        assert np.all(abs(a - b) <= LIMIT * np.finfo(float).eps / 2 * size)


@pytest.mark.skipif(
    not hasattr(torch._C._nn, "_upsample_lanczos2d_aa"), reason="this torch has no such filter"
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_filter_of_lanczos_is_right(dtype):
    row = call(array(1, 2, 7, 5), (3, 8), mode="lanczos", antialias=True)
    inputs = evaluate.drawn("interpolate", row, dtype, 0)
    kinds = {v.kind for v in evaluate.judge_inputs("interpolate", inputs, dtype).values()}
    assert kinds <= {IDENTICAL, ROUNDING, REFERENCE_IMPRECISE}
