"""Mistakes that a pooling is easily written with are found, and the right ones pass."""

import inspect
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gradtwin.comparisons import ops
from gradtwin.manual.second_order import pooling as second_order

from gradtwin import check, manual, reference

rng = np.random.default_rng(0)
X, ODD = rng.standard_normal((2, 3, 6, 6)), rng.standard_normal((1, 2, 5, 4))
TIES = rng.integers(0, 2, (1, 2, 5, 5)).astype(float)
SAMPLES = rng.random((2, 3, 2))
POOLS = [op for op in ops.names() if ops.named(op).family == "pooling"]


def max_pool2d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    k, p, d = kernel_size, padding, dilation
    s = stride or k
    N, C, H, W = x.shape
    beyond = s - 1 if ceil_mode else 0
    outs = [(n + 2 * p - d * (k - 1) - 1 + beyond) // s + 1 for n in (H, W)]
    outs = [o - ((o - 1) * s >= n + p) for o, n in zip(outs, (H, W), strict=True)]
    reach = p + s * max(outs) + d * k
    wide = np.full((N, C, H + reach, W + reach), -math.inf, x.dtype)
    wide[:, :, p : p + H, p : p + W] = x
    y = np.empty((N, C, *outs), x.dtype)
    winner = np.empty((N, C, *outs), int)
    for i in range(outs[0]):
        for j in range(outs[1]):
            window = wide[:, :, i * s : i * s + d * k : d, j * s : j * s + d * k : d]
            flat = window.reshape(N, C, k * k)
            winner[:, :, i, j] = flat.argmax(axis=-1)
            y[:, :, i, j] = flat.max(axis=-1)

    def pullback(dy):
        dwide = np.zeros(wide.shape, dy.dtype)
        for n, c, i, j in np.ndindex(*y.shape):
            row, column = divmod(winner[n, c, i, j], k)
            dwide[n, c, i * s + d * row, j * s + d * column] += dy[n, c, i, j]
        return dwide[:, :, p : p + H, p : p + W]

    return y, pullback


def avg_pool2d(
    x,
    kernel_size,
    stride=None,
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
):
    k, p = kernel_size, padding
    s = stride or k
    H, W = x.shape[-2:]
    beyond = s - 1 if ceil_mode else 0
    outs = [(n + 2 * p - k + beyond) // s + 1 for n in (H, W)]
    outs = [o - ((o - 1) * s >= n + p) for o, n in zip(outs, (H, W), strict=True)]

    def places():
        for i in range(outs[0]):
            for j in range(outs[1]):
                top, left = i * s - p, j * s - p
                bottom, right = min(top + k, H + p), min(left + k, W + p)
                size = (bottom - top) * (right - left)
                rows, columns = (
                    slice(max(top, 0), min(bottom, H)),
                    slice(max(left, 0), min(right, W)),
                )
                if not count_include_pad:
                    size = (rows.stop - rows.start) * (columns.stop - columns.start)
                yield i, j, rows, columns, divisor_override or size

    y = np.empty((*x.shape[:-2], *outs), x.dtype)
    for i, j, rows, columns, size in places():
        y[..., i, j] = x[..., rows, columns].sum((-2, -1)) / size

    def pullback(dy):
        dx = np.zeros(x.shape, dy.dtype)
        for i, j, rows, columns, size in places():
            dx[..., rows, columns] += dy[..., i, j, None, None] / size
        return dx

    return y, pullback


def adaptive_avg_pool2d(x, output_size):
    def windows(n, out):
        return [slice(i * n // out, -(-(i + 1) * n // out)) for i in range(out)]

    H, W = (windows(n, out) for n, out in zip(x.shape[-2:], output_size, strict=True))
    y = np.empty((*x.shape[:-2], *output_size), x.dtype)
    for i, rows in enumerate(H):
        for j, columns in enumerate(W):
            y[..., i, j] = x[..., rows, columns].mean((-2, -1))

    def pullback(dy):
        dx = np.zeros(x.shape, dy.dtype)
        for i, rows in enumerate(H):
            for j, columns in enumerate(W):
                part = dx[..., rows, columns]
                part += dy[..., i, j, None, None] / (part.shape[-2] * part.shape[-1])
        return dx

    return y, pullback


def lp_pool1d(x, norm_type, kernel_size, stride=None):
    p, k = norm_type, kernel_size
    s = stride or k
    out = (x.shape[-1] - k) // s + 1
    y = np.empty((*x.shape[:-1], out), x.dtype)
    for i in range(out):
        y[..., i] = (x[..., i * s : i * s + k] ** p).sum(-1) ** (1 / p)

    def pullback(dy):
        dx = np.zeros(x.shape, dy.dtype)
        for i in range(out):
            window, norm = x[..., i * s : i * s + k], y[..., i, None]
            slope = np.where(
                norm > 0, window ** (p - 1) * np.where(norm > 0, norm, 1) ** (1 - p), 0
            )
            dx[..., i * s : i * s + k] += dy[..., i, None] * slope
        return dx

    return y, pullback


def with_mistake(function, old, new):
    source = inspect.getsource(function)
    assert source.count(old) >= 1
    scope = dict(vars(inspect.getmodule(function)))
    exec(source.replace(old, new), scope)
    return scope[function.__name__]


MAX, PADDED, DILATED = (X, 2), (X, 3, 2, 1), (X, 2, 1, 1, 2)
CEILED, MEAN, INNER = (ODD, 3, 2, 1, True), (ODD, 3, 2, 1), (ODD, 3, 2, 1, False, False)
RIGHT = [
    *((max_pool2d, call) for call in (MAX, PADDED, DILATED, (TIES, 3, 1, 1))),
    *((max_pool2d, (X, 3, 2, 0, 1, True)), (avg_pool2d, MEAN), (avg_pool2d, INNER)),
    *((avg_pool2d, CEILED), (avg_pool2d, (X, 2, 1, 0, False, True, 3))),
    *((adaptive_avg_pool2d, (X, (4, 5))), (lp_pool1d, (X[0], 2, 3, 2))),
]


@pytest.mark.parametrize(("subject", "call"), RIGHT)
def test_what_is_right_passes(subject, call):
    report = check(subject, subject.__name__, call, probes=["ordinary"])
    assert report.passed, report


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    ("subject", "old", "new", "call"),
    [
        (max_pool2d, "-math.inf", "0", PADDED),
        (max_pool2d, "s = stride or k", "s = k", PADDED),
        (max_pool2d, "flat.argmax(axis=-1)", "k * k - 1 - flat[..., ::-1].argmax(axis=-1)",
         (TIES, 3, 1, 1)),
        (max_pool2d, "+= dy[n, c, i, j]", "= dy[n, c, i, j]", (X, 3, 1)),
        (max_pool2d, "i * s + d * row, j * s + d * column", "i * s + row, j * s + column", DILATED),
        (max_pool2d, "i * s + d * row, j * s + d * column", "i * s + d * column, j * s + d * row",
         MAX),
        (max_pool2d, "divmod(winner[n, c, i, j], k)",
         "divmod(min(winner[n, c, i, j] + 1, k * k - 1), k)", MAX),
        (max_pool2d, "return dwide[:, :, p : p + H, p : p + W]", "return dwide[:, :, :H, :W]",
         PADDED),
        (max_pool2d, "s - 1 if ceil_mode else 0", "0", (ODD, 2, 2, 0, 1, True)),
        (avg_pool2d, "if not count_include_pad:", "if True:", MEAN),
        (avg_pool2d, "if not count_include_pad:", "if False:", INNER),
        (avg_pool2d, "min(top + k, H + p), min(left + k, W + p)", "top + k, left + k",
         (X, 3, 2, 1, True)),
        (avg_pool2d, "divisor_override or size", "size", (X, 2, 1, 0, False, True, 3)),
        (avg_pool2d, "None, None] / size", "None, None]", MEAN),
        (avg_pool2d, "+= dy[..., i, j, None, None] / size", "= dy[..., i, j, None, None] / size",
         MEAN),
        (avg_pool2d, "s = stride or k", "s = k", MEAN),
        (avg_pool2d, "- ((o - 1) * s >= n + p)", "- 0", (ODD, 2, 4, 1, True)),
        (adaptive_avg_pool2d, "-(-(i + 1) * n // out)", "(i + 1) * n // out", (X, (4, 5))),
        (adaptive_avg_pool2d, "(part.shape[-2] * part.shape[-1])",
         "(x.shape[-2] / output_size[0] * x.shape[-1] / output_size[1])", (X, (4, 5))),
        (adaptive_avg_pool2d, "part += dy", "part[...] = dy", (X, (4, 5))),
        (lp_pool1d, "window ** (p - 1)", "abs(window) ** (p - 1)", (X[0], 2, 3, 2)),
        (lp_pool1d, "** (1 / p)\n", "** (1 / p) / k\n", (X[0], 2, 3, 2)),
        (lp_pool1d, "norm, 1) ** (1 - p)", "norm, 1) ** -p", (X[0], 2, 3, 2)),
        (lp_pool1d, "s = stride or k", "s = k", (X[0], 2, 3, 2)),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("no_cause")
def test_a_mistake_is_found(subject, old, new, call):
    report = check(with_mistake(subject, old, new), subject.__name__, call, probes=["ordinary"])
    print(report.table)
    assert not report.passed


def shared_by_ties(x, kernel_size, stride=None):
    """The maximum, whose gradient all that are as large share."""
    k = kernel_size
    y, _ = manual.pooling.max_pool2d(x, k)

    def pullback(dy):
        blocks = x.reshape(*x.shape[:2], x.shape[2] // k, k, x.shape[3] // k, k)
        first = blocks == y[:, :, :, None, :, None]
        share = first / first.sum((3, 5), keepdims=True)
        return (dy[:, :, :, None, :, None] * share).reshape(x.shape).astype(dy.dtype)

    return y, pullback


def test_a_maximum_that_is_shared_by_ties_is_seen_at_ties_alone():
    assert check(shared_by_ties, "max_pool2d", (X, 2), probes=["ordinary"]).passed
    tied = rng.integers(0, 2, (1, 2, 4, 4)).astype(float)
    report = check(shared_by_ties, "max_pool2d", (tied, 2), probes=["ordinary"])
    print(report)
    assert not report.passed


OF_SECOND = {
    "avg_pool2d_backward": (ODD[..., ::2, ::2], ODD[..., :4], 2, 2, [1, 0], False, False, None),
    "adaptive_max_pool2d_backward": (ODD[..., :1, :2], ODD, np.array([[[[3, 8]], [[8, 8]]]])),
}


@pytest.mark.parametrize(
    ("op", "name", "old", "new"),
    [
        ("avg_pool2d_backward", "_of_linear", "rule(dy, *settings)", "rule(dy, *settings[:3])"),
        ("avg_pool2d_backward", "_of_linear", "np.zeros_like(x)", "x"),
        ("avg_pool2d_backward", "_of_linear", "return back(g)", "return back(2 * g)"),
        ("adaptive_max_pool2d_backward", "_of_taken", "take(places)", "take(indices)"),
        ("adaptive_max_pool2d_backward", "_of_taken", "take(places)", "take(places - 1)"),
    ],
)
@pytest.mark.usefixtures("no_cause")
def test_a_mistake_in_second_order_is_found(monkeypatch, op, name, old, new):
    wrong = with_mistake(getattr(second_order, name), old, new)
    monkeypatch.setattr(second_order, name, wrong)
    report = check(op, op, OF_SECOND[op], probes=["ordinary"])
    print(report.table)
    assert not report.passed


@pytest.mark.parametrize("op", OF_SECOND)
def test_what_is_right_in_second_order_passes(op):
    assert check(op, op, OF_SECOND[op], probes=["ordinary"]).passed


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("op", POOLS)
def test_smaller_dtypes_are_kept_and_near_float64(op, dtype):
    for _, row in ops.named(op).rows():
        args, kwargs = row.draw(0, np.dtype("float64"))
        given = [a for a in (*args, *kwargs.values()) if isinstance(a, np.ndarray)]
        if not all(np.isfinite(a).all() and abs(a).max(initial=0) < 100 for a in given):
            continue

        def seen(a, dtype=dtype):
            is_floating = isinstance(a, np.ndarray) and a.dtype.kind == "f"
            return a.astype(dtype) if is_floating else a

        small = [seen(a) for a in args], {name: seen(a) for name, a in kwargs.items()}
        wide = [
            [seen(a, np.float64) for a in small[0]],
            {name: seen(a, np.float64) for name, a in small[1].items()},
        ]
        found, expected = (ops.named(op).rule(*call[0], **call[1]) for call in (small, wide))
        several = isinstance(found[0], tuple)
        y, truth = (side[0][0] if several else side[0] for side in (found, expected))
        dy = np.asarray(rng.standard_normal(y.shape), dtype)
        dx, slope = (
            side[1]((d, None) if several else d)
            for side, d in ((found, dy), (expected, dy.astype(float)))
        )
        assert y.dtype == dx.dtype == dtype
        bound = 200 * np.finfo(dtype).eps
        if not op.startswith("fractional"):  # whose windows follow from rounded numbers
            assert np.allclose(y, truth, bound, bound, equal_nan=True)
            assert np.allclose(dx, slope, bound, bound, equal_nan=True)


def test_of_several_nan_the_last_is_the_maximum():
    x = np.array([[[1, np.nan, 2, np.nan, 3]]])
    for side in (manual.pooling, reference.pooling):
        (_, indices), _ = side.max_pool1d(x, 5, return_indices=True)
        assert indices.item() == 3
        (_, indices), _ = side.adaptive_max_pool1d(x, 1, True)
        assert indices.item() == 3


def test_a_window_that_misses_the_input_is_refused():
    """Torch gives −∞ there, and in the backward pass writes behind the input."""
    x = np.ones((1, 1, 1))
    y = F.max_pool1d(torch.from_numpy(x), 2, 1, 1, 2)
    assert y.item() == -math.inf
    for side in (manual.pooling, reference.pooling):
        with pytest.raises(ValueError, match="element"):
            side.max_pool1d(x, 2, 1, 1, 2)


def test_torch_takes_kernels_without_elements():
    x = np.ones((1, 1, 4, 4))
    u = np.full((1, 1, 2), 0.5)
    F.fractional_max_pool2d(torch.from_numpy(x), 0, 2, _random_samples=torch.from_numpy(u))
    for side in (manual.pooling, reference.pooling):
        with pytest.raises(ValueError, match="kernel"):
            side.fractional_max_pool2d(x, 0, 2, _random_samples=u)


def test_torch_counts_what_an_unpooling_overwrites():
    """Through a maximum whose windows overlap and back the slope is 1, and torch says 2."""
    x = torch.tensor([[1.0, 5.0, 2.0]], requires_grad=True)
    y = F.max_unpool1d(*F.max_pool1d(x, 2, 1, return_indices=True), 2, 1)
    assert y.tolist() == [[0, 5, 0]]
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [[0, 2, 0]]
    (values, indices), pull = manual.pooling.max_pool1d(x.detach().numpy(), 2, 1, 0, 1, False, True)
    again, pull_again = manual.pooling.max_unpool1d(values, indices, 2, 1)
    assert again.tolist() == y.tolist()
    dvalues = pull_again(np.ones_like(again))
    assert pull((dvalues, None)).tolist() == [[0, 1, 0]]
