"""Convolutions by textbook loops, and the mistakes that are made in them."""

import inspect
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gradtwin.manual import convolution, second_order

from gradtwin import check

rng = np.random.default_rng(0)


def two(setting):
    return setting if isinstance(setting, tuple) else (setting, setting)


def around(x, before, after=None):
    """Zeros around the last two axes."""
    after = before if after is None else after
    return np.pad(x, [(0, 0), (0, 0), *zip(before, after, strict=True)])


def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    s, d, (N, _, H, W), (M, part, K, L) = two(stride), two(dilation), x.shape, weight.shape
    if padding == "same":
        zeros = d[0] * (K - 1), d[1] * (L - 1)
        p = zeros[0] // 2, zeros[1] // 2
        end = zeros[0] - p[0], zeros[1] - p[1]
    else:
        p = end = two(padding)
    padded = around(x, p, end)
    P = (padded.shape[2] - d[0] * (K - 1) - 1) // s[0] + 1
    Q = (padded.shape[3] - d[1] * (L - 1) - 1) // s[1] + 1
    y = np.zeros((N, M, P, Q), x.dtype)
    each = list(product(range(groups), range(K), range(L)))

    def out(g):
        return slice(g * M // groups, (g + 1) * M // groups)

    def taken(g):
        return slice(g * part, (g + 1) * part)

    def seen(a, k, j):
        rows = slice(k * d[0], k * d[0] + (P - 1) * s[0] + 1, s[0])
        return a[:, :, rows, j * d[1] : j * d[1] + (Q - 1) * s[1] + 1 : s[1]]

    for g, k, j in each:
        window = seen(padded, k, j)[:, taken(g)]
        y[:, out(g)] += np.einsum("oc,ncpq->nopq", weight[out(g), :, k, j], window)
    if bias is not None:
        y += bias.reshape(-1, 1, 1)

    def seen_back(a, k, j):
        rows = slice(k * d[0], k * d[0] + (P - 1) * s[0] + 1, s[0])
        return a[:, :, rows, j * d[1] : j * d[1] + (Q - 1) * s[1] + 1 : s[1]]

    def pullback(dy):
        dpadded, dweight = np.zeros_like(padded), np.zeros_like(weight)
        for g, k, j in each:
            w, d_out = weight[out(g), :, k, j], dy[:, out(g)]
            seen_back(dpadded, k, j)[:, taken(g)] += np.einsum("oc,nopq->ncpq", w, d_out)
            window = seen_back(padded, k, j)[:, taken(g)]
            dweight[out(g), :, k, j] += np.einsum("nopq,ncpq->oc", d_out, window)
        dx = dpadded[:, :, p[0] : p[0] + H, p[1] : p[1] + W]
        return (dx, dweight) if bias is None else (dx, dweight, dy.sum((0, 2, 3)))

    return y, pullback


def conv_transpose2d(
    x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
):
    (s, t), p, more, d = map(two, (stride, padding, output_padding, dilation))
    (N, C, P, Q), (_, part, K, L) = x.shape, weight.shape
    H = (P - 1) * s - 2 * p[0] + d[0] * (K - 1) + more[0] + 1
    W = (Q - 1) * t - 2 * p[1] + d[1] * (L - 1) + more[1] + 1
    full = np.zeros((N, part * groups, H + 2 * p[0], W + 2 * p[1]), x.dtype)
    each = list(product(range(groups), range(K), range(L)))
    inside = np.s_[:, :, p[0] : p[0] + H, p[1] : p[1] + W]

    def taken(g):
        return slice(g * C // groups, (g + 1) * C // groups)

    def seen(a, g, k, j):
        here = a[:, g * part : (g + 1) * part]
        k, j = k * d[0], j * d[1]
        return here[:, :, k : k + (P - 1) * s + 1 : s, j : j + (Q - 1) * t + 1 : t]

    for g, k, j in each:
        w = weight[taken(g), :, k, j]
        seen(full, g, k, j)[...] += np.einsum("co,ncpq->nopq", w, x[:, taken(g)])
    y = full[inside]
    y = y if bias is None else y + bias.reshape(-1, 1, 1)

    def pullback(dy):
        dfull = np.zeros_like(full)
        dfull[inside] = dy
        dx, dweight = np.zeros_like(x), np.zeros_like(weight)
        for g, k, j in each:
            window = seen(dfull, g, k, j)
            w = weight[taken(g), :, k, j]
            dx[:, taken(g)] += np.einsum("co,nopq->ncpq", w, window)
            dweight[taken(g), :, k, j] = np.einsum("ncpq,nopq->co", x[:, taken(g)], window)
        return (dx, dweight) if bias is None else (dx, dweight, dy.sum((0, 2, 3)))

    return y, pullback


def unfold(x, kernel_size, dilation=1, padding=0, stride=1):
    (K, L), (d, e), p, (s, t) = map(two, (kernel_size, dilation, padding, stride))
    N, C, H, W = x.shape
    padded = around(x, p)
    P, Q = (H + 2 * p[0] - d * (K - 1) - 1) // s + 1, (W + 2 * p[1] - e * (L - 1) - 1) // t + 1
    columns = np.empty((N, C, K, L, P, Q), x.dtype)

    def seen(a, k, j):
        return a[:, :, k * d : k * d + (P - 1) * s + 1 : s, j * e : j * e + (Q - 1) * t + 1 : t]

    for k, j in product(range(K), range(L)):
        columns[:, :, k, j] = seen(padded, k, j)
    y = columns.reshape(N, C * K * L, P * Q)

    def pullback(dy):
        dcolumns, dpadded = dy.reshape(N, C, K, L, P, Q), np.zeros_like(padded)
        for k, j in product(range(K), range(L)):
            seen(dpadded, k, j)[...] += dcolumns[:, :, k, j]
        return dpadded[:, :, p[0] : p[0] + H, p[1] : p[1] + W]

    return y, pullback


def fold(x, output_size, kernel_size, dilation=1, padding=0, stride=1):
    (H, W), (K, L), p, (s, t) = map(two, (output_size, kernel_size, padding, stride))
    d, e = two(dilation)
    P, Q = (H + 2 * p[0] - d * (K - 1) - 1) // s + 1, (W + 2 * p[1] - e * (L - 1) - 1) // t + 1
    N, C = len(x), x.shape[1] // (K * L)
    columns = x.reshape(N, C, K, L, P, Q)
    padded = np.zeros((N, C, H + 2 * p[0], W + 2 * p[1]), x.dtype)

    def seen(a, k, j):
        return a[:, :, k * d : k * d + (P - 1) * s + 1 : s, j * e : j * e + (Q - 1) * t + 1 : t]

    for k, j in product(range(K), range(L)):
        seen(padded, k, j)[...] += columns[:, :, k, j]
    y = padded[:, :, p[0] : p[0] + H, p[1] : p[1] + W]

    def pullback(dy):
        dpadded, dcolumns = around(dy, p), np.empty_like(columns)
        for k, j in product(range(K), range(L)):
            dcolumns[:, :, k, j] = seen(dpadded, k, j)
        return dcolumns.reshape(x.shape)

    return y, pullback


def with_mistake(function, old, new):
    source = inspect.getsource(function)
    assert source.count(old) == 1
    scope = dict(vars(inspect.getmodule(function)))
    exec(source.replace(old, new), scope)
    return scope[function.__name__]


def arrays(*shapes):
    return tuple(rng.standard_normal(shape) for shape in shapes)


PLAIN = arrays((2, 2, 4, 5), (2, 2, 3, 2), (2,)), {"padding": (1, 2)}
STRIDED = arrays((2, 2, 5, 7), (2, 2, 3, 2), (2,)), {"stride": (2, 3), "padding": 1}
DILATED = arrays((2, 2, 5, 6), (2, 2, 3, 2), (2,)), {"dilation": (2, 3), "padding": 1}
GROUPED = arrays((2, 4, 4, 5), (4, 2, 3, 2), (4,)), {"groups": 2}
SAME = arrays((2, 2, 4, 5), (2, 2, 4, 2)), {"padding": "same"}
BACK = arrays((2, 2, 2, 3), (2, 2, 3, 2), (2,)), {"stride": 2, "padding": 1, "output_padding": 1}
BACK_GROUPED = arrays((2, 4, 2, 3), (4, 2, 3, 2), (4,)), {"groups": 2, "dilation": (1, 2)}
OPEN = (*arrays((2, 2, 6, 5)), (3, 2)), {"stride": (2, 1), "padding": (0, 1)}
CLOSED = (*arrays((2, 12, 18)), (6, 5), (3, 2)), {"stride": (1, 2), "padding": (1, 1)}
CALLS = {
    "conv2d": (conv2d, [PLAIN, STRIDED, DILATED, GROUPED, SAME]),
    "conv_transpose2d": (conv_transpose2d, [BACK, BACK_GROUPED]),
    "unfold": (unfold, [OPEN]),
    "fold": (fold, [CLOSED]),
}
QUICK = {"probes": ["ordinary"]}


@pytest.mark.parametrize("op", CALLS)
def test_what_is_right_passes(op):
    function, calls = CALLS[op]
    for call in calls:
        report = check(function, op, *call, **QUICK)
        assert report.passed, report


BACKWARD = """        return a[:, :, rows, j * d[1] : j * d[1] + (Q - 1) * s[1] + 1 : s[1]]

    def pullback"""
MISTAKES = [
    # the stride forgotten in the backward
    (STRIDED, BACKWARD, BACKWARD.replace("+ (Q - 1) * s[1] + 1 : s[1]", "+ Q")),
    # the kernel flipped in one direction alone, or its gradient
    (PLAIN, "w, d_out = weight[out(g), :, k, j]", "w, d_out = weight[out(g), :, K - 1 - k, j]"),
    (PLAIN, 'nopq", weight[out(g), :, k, j]', 'nopq", weight[out(g), :, K - 1 - k, L - 1 - j]'),
    (PLAIN, "dweight[out(g), :, k, j] +=", "dweight[out(g), :, K - 1 - k, L - 1 - j] +="),
    (PLAIN, "dweight[out(g), :, k, j] +=", "dweight[out(g), :, k, L - 1 - j] +="),
    # the weights of other channels
    (PLAIN, '"oc,nopq->ncpq"', '"co,nopq->ncpq"'),
    (PLAIN, '"nopq,ncpq->oc"', '"ncpq,nopq->oc"'),
    # groups mixed
    (GROUPED, "slice(g * part, (g + 1) * part)", "slice(g, None, groups)"),
    (GROUPED, "slice(g * M // groups, (g + 1) * M // groups)", "slice(g, None, groups)"),
    (GROUPED, "seen_back(padded, k, j)[:, taken(g)]", "seen_back(padded, k, j)[:, taken(0)]"),
    (GROUPED, "seen_back(dpadded, k, j)[:, taken(g)]", "seen_back(dpadded, k, j)[:, taken(1 - g)]"),
    # the dilation forgotten in the backward, or that of the other axis
    (DILATED, BACKWARD, BACKWARD.replace("j * d[1]", "j")),
    (DILATED, BACKWARD, BACKWARD.replace("j * d[1]", "j * d[0]")),
    # the padding not cut off, that of the other axis, and what is odd of it at the wrong end
    (PLAIN, "dpadded[:, :, p[0] : p[0] + H, p[1] : p[1] + W]", "dpadded[:, :, :H, :W]"),
    (PLAIN, "p[1] : p[1] + W]", "p[0] : p[0] + W]"),
    (SAME, "p = zeros[0] // 2, zeros[1] // 2", "p = (zeros[0] + 1) // 2, (zeros[1] + 1) // 2"),
    # sums
    (PLAIN, "dy.sum((0, 2, 3))", "dy.mean((0, 2, 3))"),
    (PLAIN, "dy.sum((0, 2, 3))", "dy[0].sum((1, 2))"),
    (PLAIN, '"nopq,ncpq->oc", d_out, window', '"nopq,ncpq->oc", d_out[:1], window[:1]'),
    (PLAIN, '"nopq,ncpq->oc", d_out, window)', '"nopq,ncpq->oc", d_out, window) / N'),
    # overwritten instead of added up
    (PLAIN, "(dpadded, k, j)[:, taken(g)] +=", "(dpadded, k, j)[:, taken(g)] ="),
    # the last place of each row lost
    (STRIDED, "pullback(dy):", "pullback(dy):\n        dy = dy * (np.arange(Q) < Q - 1)"),
]


@pytest.mark.thinned(2)
@pytest.mark.parametrize(("call", "old", "new"), MISTAKES)
@pytest.mark.usefixtures("no_cause")
def test_a_mistake_in_conv2d_is_found(call, old, new):
    report = check(with_mistake(conv2d, old, new), "conv2d", *call, **QUICK)
    print(report.table)
    assert not report.passed


WINDOW = "window = seen(dfull, g, k, j)"
IN_FOLD = "dcolumns.reshape(x.shape)"
IN_UNFOLD = "dy.reshape(N, C, K, L, P, Q)"
OF_OTHERS = [
    # an output padding at the wrong end
    (conv_transpose2d, BACK, "inside = np.s_[:, :, p[0] : p[0] + H",
     "inside = np.s_[:, :, p[0] - 1 : p[0] - 1 + H"),
    # the kernel flipped in one direction, or its channels swapped
    (conv_transpose2d, BACK, "w = weight[taken(g), :, k, j]\n        seen",
     "w = weight[taken(g), :, K - 1 - k, L - 1 - j]\n        seen"),
    (conv_transpose2d, BACK, "g), :, k, j] = np", "g), :, K - 1 - k, j] = np"),
    (conv_transpose2d, BACK, '"co,nopq->ncpq"', '"oc,nopq->ncpq"'),
    # the padding forgotten in the backward, or the stride
    (conv_transpose2d, BACK, "dfull[inside] = dy", "dfull[:, :, :H, :W] = dy"),
    (conv_transpose2d, BACK, WINDOW, "window = dfull[:, :, k : k + P, j : j + Q]"),
    # groups and dilations mixed
    (conv_transpose2d, BACK_GROUPED, "a[:, g * part : (g + 1) * part]", "a[:, g::groups]"),
    (conv_transpose2d, BACK_GROUPED, WINDOW, "window = seen(dfull, 0, k, j)"),
    (conv_transpose2d, BACK_GROUPED, WINDOW, WINDOW.replace(", j)", ", j // d[1])")),
    (conv_transpose2d, BACK_GROUPED, "dy.sum((0, 2, 3))", "dy[:, :, 1:].sum((0, 2, 3))"),
    # columns in another order, what overlaps overwritten or averaged, paddings swapped
    (unfold, OPEN, IN_UNFOLD, "dy.reshape(N, K, L, C, P, Q).transpose(0, 3, 1, 2, 4, 5)"),
    (unfold, OPEN, IN_UNFOLD, "dy.reshape(N, C, L, K, P, Q).swapaxes(2, 3)"),
    (unfold, OPEN, IN_UNFOLD, "dy.reshape(N, C, K, L, Q, P).swapaxes(4, 5)"),
    (unfold, OPEN, "seen(dpadded, k, j)[...] +=", "seen(dpadded, k, j)[...] ="),
    (unfold, OPEN, "p[0] : p[0] + H, p[1] : p[1] + W]", "p[1] : p[1] + H, p[0] : p[0] + W]"),
    (fold, CLOSED, "seen(padded, k, j)[...] +=", "seen(padded, k, j)[...] ="),
    (fold, CLOSED, IN_FOLD, "dcolumns.swapaxes(2, 3).reshape(x.shape)"),
    (fold, CLOSED, IN_FOLD, "dcolumns.swapaxes(4, 5).reshape(x.shape)"),
    (fold, CLOSED, "around(dy, p)", "around(dy, (0, 0), (2 * p[0], 2 * p[1]))"),
    (fold, CLOSED, IN_FOLD, "dcolumns.reshape(x.shape) / (K * L)"),
]  # fmt: skip


@pytest.mark.thinned(2)
@pytest.mark.parametrize(("function", "call", "old", "new"), OF_OTHERS)
@pytest.mark.usefixtures("no_cause")
def test_a_mistake_in_another_is_found(function, call, old, new):
    report = check(with_mistake(function, old, new), function.__name__, *call, **QUICK)
    print(report.table)
    assert not report.passed


SECOND = "convolution_backward"
SETTINGS = ((3,), (2,), (1,), (1,), False, (0,), 1, (True, True, True))
OF_SECOND = (*arrays((2, 3, 3), (2, 2, 5), (3, 2, 3)), *SETTINGS), {}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("dg + value(p, w)", "dg"),
        ("dg + value(x, q)", "dg"),
        ("dg + r.reshape(-1, *(1 for _ in range(n)))", "dg"),
        ("to_x(g, q)", "to_x(g, w)"),
        ("to_w(p, g)", "to_w(x, g)"),
        ("value(x, q)", "value(x, w)"),
        ("value(p, w)", "value(x, w)"),
    ],
)
@pytest.mark.usefixtures("no_cause")
def test_a_mistake_in_second_order_is_found(old, new):
    wrong = with_mistake(second_order.convolution_backward, old, new)
    report = check(wrong, SECOND, *OF_SECOND, **QUICK)
    print(report.table)
    assert not report.passed


def test_what_is_right_in_second_order_passes():
    assert check(SECOND, SECOND, *OF_SECOND, **QUICK).passed


def test_of_no_channels_torch_makes_none():
    """Whatever the weight has, which is in no documentation; so we refuse it."""
    x, weight, bias = np.ones((1, 0, 5, 5)), np.ones((3, 0, 2, 2)), np.ones(3)
    assert F.conv2d(*map(torch.tensor, (x, weight, bias))).shape == (1, 0, 4, 4)
    with pytest.raises(ValueError, match="x: expected"):
        convolution.conv2d(x, weight, bias)


def test_of_fewer_images_in_a_gradient_torch_reads_on():
    """The slope of the second image is what lies behind the first in memory."""
    whole, x, weight = (torch.tensor(a) for a in arrays((2, 3, 3), (2, 2, 5), (3, 2, 3)))
    settings = [3], [1], [0], [1], False, [0], 1, [True, False, False]
    both, first = (
        torch.ops.aten.convolution_backward(g, x, weight, *settings)[0] for g in (whole, whole[:1])
    )
    assert torch.equal(first, both)  # it has read what is not its own
    with pytest.raises(ValueError, match="grad_output: expected shape"):
        second_order.convolution_backward(whole[:1].numpy(), x.numpy(), weight.numpy(), *settings)
