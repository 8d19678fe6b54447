"""Pooling, padding, upsampling, pixel shuffle: right functions, and the mistakes that are made in them."""

import numpy as np
import torch
import torch.nn.functional as F

from ..mistakes import Mistake, Subject, booleans, call, integers, normal, uniform


def max_pool_forward(x, kernel_size=2, stride=2):
    n, c, h, w = x.shape
    oh, ow = (h - kernel_size) // stride + 1, (w - kernel_size) // stride + 1
    x = np.ascontiguousarray(x)
    sn, sc, sh, sw = x.strides
    windows = np.lib.stride_tricks.as_strided(
        x, (n, c, oh, ow, kernel_size, kernel_size), (sn, sc, sh * stride, sw * stride, sh, sw)
    ).reshape(n, c, oh, ow, -1)
    arg = windows.argmax(axis=-1)
    y = np.take_along_axis(windows, arg[..., None], -1)[..., 0]
    return y, (x.shape, arg, kernel_size, stride)


def max_pool_backward(cache, dout):
    shape, arg, kernel_size, stride = cache
    dx = np.zeros(shape, dout.dtype)
    oh, ow = arg.shape[2:]
    for di in range(kernel_size):
        for dj in range(kernel_size):
            won = arg == di * kernel_size + dj
            dx[:, :, di : di + stride * oh : stride, dj : dj + stride * ow : stride] += dout * won
    return dx


max_pool = (max_pool_forward, max_pool_backward)


def max_pool_torch(x, kernel_size=2, stride=2):
    return F.max_pool2d(x, kernel_size, stride)


class MaxPoolLayer:
    """Of a course: windows that do not overlap, by one reshape; the first of equal ones gets it all."""

    def forward(self, x, size=2):
        n, c, h, w = x.shape
        self.shape, self.size = x.shape, size
        cut = x[:, :, : h // size * size, : w // size * size]
        tiles = cut.reshape(n, c, h // size, size, w // size, size).transpose(0, 1, 2, 4, 3, 5)
        self.tiles = tiles.reshape(n, c, h // size, w // size, size * size)
        return self.tiles.max(axis=-1)

    def backward(self, dout):
        n, c, h, w = self.shape
        s = self.size
        mask = np.arange(s * s) == self.tiles.argmax(axis=-1)[..., None]
        d = (dout[..., None] * mask).reshape(n, c, h // s, w // s, s, s)
        dx = np.zeros(self.shape, dout.dtype)
        dx[:, :, : h // s * s, : w // s * s] = d.transpose(0, 1, 2, 4, 3, 5).reshape(n, c, h // s * s, w // s * s)
        return dx


def max_pool_layer_torch(x, size=2):
    return F.max_pool2d(x, size)


def avg_pool2d(x, kernel_size=3, stride=2, padding=1, count_include_pad=True):
    n, c, h, w = x.shape
    xp = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    oh, ow = (h + 2 * padding - kernel_size) // stride + 1, (w + 2 * padding - kernel_size) // stride + 1
    places = [(slice(i, i + stride * oh, stride), slice(j, j + stride * ow, stride)) for i in range(kernel_size) for j in range(kernel_size)]
    ones = np.pad(np.ones((h, w), x.dtype), padding)
    inside = sum(ones[a, b][:oh, :ow] for a, b in places)
    divisor = kernel_size**2 if count_include_pad else inside
    y = sum(xp[:, :, a, b][:, :, :oh, :ow] for a, b in places) / divisor

    def pullback(dy):
        share = dy / divisor
        dxp = np.zeros(xp.shape, dy.dtype)
        for a, b in places:
            dxp[:, :, a, b][:, :, :oh, :ow] += share
        return (dxp[:, :, padding : padding + h, padding : padding + w],)

    return y, pullback


def avg_pool2d_torch(x, kernel_size=3, stride=2, padding=1, count_include_pad=True):
    return F.avg_pool2d(x, kernel_size, stride, padding, count_include_pad=count_include_pad)


def adaptive_avg_pool1d(x, output_size=3):
    """Bins from floor(i n / m) to ceil((i + 1) n / m): of unequal lengths, overlapping."""
    length = x.shape[-1]
    starts = np.arange(output_size) * length // output_size
    stops = -(-(np.arange(output_size) + 1) * length // output_size)
    y = np.stack([x[..., a:b].mean(axis=-1) for a, b in zip(starts, stops)], axis=-1)

    def pullback(dy):
        dx = np.zeros(x.shape, dy.dtype)
        for i, (a, b) in enumerate(zip(starts, stops)):
            dx[..., a:b] += dy[..., i : i + 1] / (b - a)
        return (dx,)

    return y, pullback


def reflect_pad2d(x, pad=(1, 2, 2, 1)):
    """pad = (left, right, top, bottom), as torch has it; the edge itself is not repeated."""
    left, right, top, bottom = pad
    h, w = x.shape[-2:]
    rows = np.arange(-top, h + bottom)
    cols = np.arange(-left, w + right)
    rows = (h - 1) - np.abs((h - 1) - np.abs(rows))
    cols = (w - 1) - np.abs((w - 1) - np.abs(cols))
    y = x[..., rows[:, None], cols]

    def pullback(dy):
        half = np.zeros(x.shape[:-2] + (h, w + left + right), dy.dtype)
        for place, row in enumerate(rows):
            half[..., row, :] += dy[..., place, :]
        dx = half[..., left : left + w].copy()
        if left:
            dx[..., 1 : left + 1] += half[..., :left][..., ::-1]
        if right:
            dx[..., w - 1 - right : w - 1] += half[..., left + w :][..., ::-1]
        return (dx,)

    return y, pullback


def reflect_pad2d_torch(x, pad=(1, 2, 2, 1)):
    return F.pad(x, pad, mode="reflect")


class UpsampleNearest:
    """A layer: every pixel becomes a block of scale x scale."""

    def forward(self, x, scale=2):
        self.shape, self.scale = x.shape, scale
        return x.repeat(scale, axis=2).repeat(scale, axis=3)

    def backward(self, dout):
        n, c, h, w = self.shape
        blocks = dout.reshape(n, c, h, self.scale, w, self.scale)
        return blocks.sum(axis=(3, 5))


def upsample_nearest_torch(x, scale=2):
    return F.interpolate(x, scale_factor=scale, mode="nearest")


def upsample_linear1d(x, size=7, align_corners=False):
    """(n, c, length) -> (n, c, size), by two neighbours and their weights."""
    length = x.shape[-1]
    out = np.arange(size)
    if align_corners:
        at = out * (length - 1) / max(size - 1, 1)
    else:
        at = np.maximum((out + 0.5) * length / size - 0.5, 0)
    low = np.minimum(at.astype(int), length - 1)
    high = np.minimum(low + 1, length - 1)
    t = (at - low).astype(x.dtype)
    y = x[..., low] * (1 - t) + x[..., high] * t

    def pullback(dy):
        dx = np.zeros(x.shape, dy.dtype)
        np.add.at(dx, (..., low), dy * (1 - t))
        np.add.at(dx, (..., high), dy * t)
        return (dx,)

    return y, pullback


def upsample_linear1d_torch(x, size=7, align_corners=False):
    return F.interpolate(x, size=size, mode="linear", align_corners=align_corners)


def pixel_shuffle(x, r=2):
    n, crr, h, w = x.shape
    c = crr // (r * r)
    y = x.reshape(n, c, r, r, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c, h * r, w * r)

    def pullback(dy):
        d = dy.reshape(n, c, h, r, w, r)
        return (d.transpose(0, 1, 3, 5, 2, 4).reshape(x.shape),)

    return y, pullback


def pixel_shuffle_torch(x, r=2):
    return F.pixel_shuffle(x, r)


SUBJECTS = {
    "max_pool": Subject(against=max_pool_torch, calls=[
        call(normal(2, 2, 7, 6), kernel_size=3, stride=2), call(normal(1, 3, 4, 6))]),
    "MaxPoolLayer": Subject(against=max_pool_layer_torch, calls=[call(normal(2, 2, 6, 4)), call(normal(1, 3, 7, 9), size=3)]),
    "avg_pool2d": Subject(against=avg_pool2d_torch, calls=[
        call(normal(2, 2, 6, 7)), call(normal(1, 2, 5, 6), kernel_size=3, stride=1, padding=1, count_include_pad=False)]),
    "adaptive_avg_pool1d": Subject(against="torch.nn.functional.adaptive_avg_pool1d", calls=[
        call(normal(2, 3, 8), output_size=3), call(normal(2, 2, 10), output_size=4)]),
    "reflect_pad2d": Subject(against=reflect_pad2d_torch, calls=[call(normal(2, 2, 5, 4)), call(normal(1, 2, 4, 6), pad=(3, 0, 1, 2))]),
    "UpsampleNearest": Subject(against=upsample_nearest_torch, calls=[call(normal(2, 3, 3, 4)), call(normal(1, 2, 2, 3), scale=3)]),
    "upsample_linear1d": Subject(against=upsample_linear1d_torch, calls=[
        call(normal(2, 3, 4)), call(normal(2, 2, 5), size=8, align_corners=True), call(normal(1, 2, 9), size=4)]),
    "pixel_shuffle": Subject(against=pixel_shuffle_torch, calls=[call(normal(2, 8, 3, 2)), call(normal(1, 9, 2, 4), r=3)]),
}
MISTAKES = [
    # windows overlap at kernel 3, stride 2 (first call)
    Mistake("max_pool", "overwritten", "dj : dj + stride * ow : stride] += dout", "dj : dj + stride * ow : stride] = dout"),
    # row and column of the winner
    Mistake("max_pool", "misplaced / transpose", "arg == di * kernel_size + dj", "arg == dj * kernel_size + di"),
    # strides as if x were contiguous; in the forward, so its value goes wrong with it: on a transposed x
    Mistake("max_pool", "layout", "    x = np.ascontiguousarray(x)\n    sn, sc, sh, sw = x.strides\n", "    sw = x.itemsize\n    sn, sc, sh = c * h * w * sw, h * w * sw, w * sw\n"),
    # every one of the equal maxima gets it: at ties only
    Mistake("MaxPoolLayer", "kink", "np.arange(s * s) == self.tiles.argmax(axis=-1)[..., None]", "self.tiles == self.tiles.max(axis=-1)[..., None]"),
    # back without the transposition that the forward made
    Mistake("MaxPoolLayer", "misplaced / transpose", "d.transpose(0, 1, 2, 4, 3, 5).reshape", "d.reshape"),
    # the default of torch, whatever was asked for (second call)
    Mistake("avg_pool2d", "variant / counts", "share = dy / divisor", "share = dy / kernel_size**2"),
    Mistake("avg_pool2d", "misplaced", "dxp[:, :, padding : padding + h, padding : padding + w]", "dxp[:, :, :h, :w]"),
    # all bins taken for equally long
    Mistake("adaptive_avg_pool1d", "counts", "/ (b - a)", "/ (length / output_size)"),
    Mistake("adaptive_avg_pool1d", "overwritten", "dx[..., a:b] += dy", "dx[..., a:b] = dy"),
    # the fold of "symmetric", which repeats the edge
    Mistake("reflect_pad2d", "variant / misplaced", "dx[..., 1 : left + 1] +=", "dx[..., :left] +="),
    Mistake("reflect_pad2d", "misplaced / transpose", "half[..., left + w :][..., ::-1]", "half[..., left + w :]"),
    Mistake("reflect_pad2d", "overwritten", "half[..., row, :] += dy", "half[..., row, :] = dy"),
    # "the mean of the block": right for a downsampling
    Mistake("UpsampleNearest", "factor / cotangent", "blocks.sum(axis=(3, 5))", "blocks.mean(axis=(3, 5))"),
    # torch's repeat is numpy's tile
    Mistake("UpsampleNearest", "misplaced", "dout.reshape(n, c, h, self.scale, w, self.scale)\n        return blocks.sum(axis=(3, 5))", "dout.reshape(n, c, self.scale, h, self.scale, w)\n        return blocks.sum(axis=(2, 4))"),
    # fancy indexing adds once
    Mistake("upsample_linear1d", "overwritten", "np.add.at(dx, (..., low), dy * (1 - t))", "dx[..., low] += dy * (1 - t)"),
    # the right neighbour's share forgotten where it is the same as the left one, at the edge
    Mistake("upsample_linear1d", "missing term / misplaced", "np.add.at(dx, (..., high), dy * t)", "np.add.at(dx, (..., high), dy * t * (high > low))"),
    # channels outermost, as tensorflow's depth_to_space has them
    Mistake("pixel_shuffle", "variant / misplaced", "return (d.transpose(0, 1, 3, 5, 2, 4).reshape(x.shape),)", "return (d.transpose(0, 3, 5, 1, 2, 4).reshape(x.shape),)"),
    Mistake("pixel_shuffle", "misplaced / transpose", "transpose(0, 1, 3, 5, 2, 4)", "transpose(0, 1, 5, 3, 2, 4)"),
]
