"""The backward pass of convolutions.

It raises TypeError, ValueError or MemoryError, as the package says.
"""

import numpy as np

from ..arguments import flag, floating, whole
from ..correlation import channel_sums, correlation
from ..windows import images, per_axis
from .promoted import or_false


def convolution_backward(
    grad_output,
    input,
    weight,
    bias_sizes,
    stride,
    padding,
    dilation,
    transposed,
    output_padding,
    groups,
    output_mask,
):
    """dx, dw and db of a convolution or a transposed one: those that output_mask asks for. A
    convolution y(x, w) is linear in both, and so are its gradients dx(g, w) and dw(x, g) in g. With
    directions p, q and r of the three the slopes are

        y(p, w) + y(x, q) + r        dx(g, q)        dw(p, g)

    in g, x and w. Settings are tuples of a number for each axis of space; bias_sizes changes no
    number. It is long because of its many arguments. Raises TypeError for an output_mask
    that is not three times True or False, ValueError for shapes that do not fit.
    """
    g, x, w = floating(grad_output=grad_output, input=input, weight=weight)
    n = max(x.ndim - 2, 1)
    images(n, True, input=x)
    flag(transposed=or_false(transposed))
    _mask_of_three(output_mask)
    _lengths(bias_sizes)
    settings = stride, per_axis(n, 0, padding=padding), dilation, groups
    more = per_axis(n, 0, output_padding=output_padding)
    if any(more) and not transposed:
        raise ValueError(f"output_padding: expected 0 unless transposed, got {more}")
    form = correlation(x, w, None, *settings, transposed, more, "input")
    if g.shape != form.shape(x, w):
        raise ValueError(f"grad_output: expected shape {form.shape(x, w)}, got {g.shape}")
    value, to_x, to_w = form.roles()
    first = (to_x, (g, w)), (to_w, (x, g)), (channel_sums, (g,))
    y = tuple(f(*args) for (f, args), asked in zip(first, output_mask, strict=True) if asked)

    def pullback(dy):
        directions = iter(dy if len(y) > 1 else (dy,))
        p, q, r = (next(directions) if asked else None for asked in output_mask)
        dg, dx, dw = np.zeros_like(g), np.zeros_like(x), np.zeros_like(w)
        if p is not None:
            dg, dw = dg + value(p, w), to_w(p, g)
        if q is not None:
            dg, dx = dg + value(x, q), to_x(g, q)
        if r is not None:
            dg = dg + r.reshape(-1, *(1 for _ in range(n)))
        return dg, dx, dw

    return (y if len(y) > 1 else y[0]), pullback


def _mask_of_three(output_mask):
    """Raises TypeError unless it is three times True or False, ValueError for three times False."""
    if not isinstance(output_mask, (tuple, list)) or len(output_mask) != 3:
        raise TypeError(f"output_mask: expected three times True or False, got {output_mask!r}")
    flag(**{f"output_mask[{i}]": asked for i, asked in enumerate(output_mask)})
    if not any(output_mask):
        raise ValueError(f"output_mask: expected True for one of the three, got {output_mask!r}")


def _lengths(bias_sizes):
    """Raises TypeError unless it is None or a tuple or list of whole numbers."""
    if not isinstance(bias_sizes, (tuple, list, type(None))):
        raise TypeError(f"bias_sizes: expected None or some lengths, got {bias_sizes!r}")
    whole(**{f"bias_sizes[{i}]": length for i, length in enumerate(bias_sizes or ())})
