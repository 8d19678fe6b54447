"""Attention; a row of multi-head attention is written by `heads`."""

from __future__ import annotations

import math
from typing import Any

from . import Array, Call, array, call, values

CAUSAL = [[0.0, -math.inf, -math.inf], [0.0, 0.0, -math.inf], [0.0, 0.0, 0.0]]
AHEAD = [[False, True, True], [False, False, True], [False, False, False]]
PADDED = [[False, False, True], [False, True, True]]
SEEN = [[True, False, True, True, False], [False, True, True, False, True], [True] * 5]

# The second query sees nothing.
BLIND = [[False, True, False], [True, True, True], [False, False, False]]
DARK = [[True, False, True, True, False], [False] * 5, [True] * 5]
DEEP = [[0.0, -1.0, 2.0, 0.5, -0.5], [-math.inf] * 5, [0.0, -math.inf, 0.0, 1.0, 0.0]]


def heads(
    *,
    L: int = 3,
    S: int = 3,
    N: int | None = 2,
    E: int = 4,
    H: int = 2,
    scale: float = 1.0,
    bias: bool = True,
    more: bool = False,
    zero: bool = False,
    p: float = 0.0,
    separate: tuple[int, int] | None = None,
    static: str = "",
    out: int | None = None,
    **settings: Any,
) -> Call:
    """Query (L, N, E), key and value (S, N, E), or of the `separate` numbers of features; with no N
    they have two axes."""
    batch = () if N is None else (N,)
    of_key, of_value = separate or (E, E)
    if separate:
        settings |= {
            "use_separate_proj_weight": True,
            "q_proj_weight": array(E, E),
            "k_proj_weight": array(E, of_key),
            "v_proj_weight": array(E, of_value),
        }
    for name in static.split():
        settings[name] = array((N or 1) * H, S, E // H)
    return call(
        *(array(L, *batch, E, scale=scale), array(S, *batch, of_key, scale=scale)),
        *(array(S, *batch, of_value), E, H),
        None if separate else array(3 * E, E),
        array(3 * E) if bias else None,
        *([array(1, 1, E)] * 2 if more else [None, None]),
        *(zero, p, array(out or E, E), array(out or E) if bias else None),
        **settings,
    )


def _three(*rest: int, **settings: Any) -> list[Array]:
    """Query, key and value of 3, 5 and 5 rows."""
    return [array(*rest, n, 4, **settings) for n in (3, 5, 5)]


SAMPLES = {
    "scaled_dot_product_attention": [
        call(*_three(2)),
        call(*_three()),
        call(array(2, 2, 3, 4), array(2, 2, 5, 4), array(2, 2, 5, 6)),
        call(*_three(1, 2), is_causal=True),
        call(array(2, 5, 4), array(2, 3, 4), array(2, 3, 4), is_causal=True),
        call(*_three(1, 2), values(SEEN)),
        call(*_three(2), array(2, 3, 5)),
        call(*_three(1, 2), array(1, 5)),
        call(*_three(2), None, 0.3),
        call(*_three(2, 2), array(3, 5), 0.5),
        call(*_three(1, 2), scale=0.9),
        call(array(1, 4, 3, 4), array(1, 2, 5, 4), array(1, 2, 5, 4), enable_gqa=True),
        call(array(4, 3, 4), array(1, 5, 4), array(2, 5, 3), enable_gqa=True),
        call(array(3, 4), array(2, 1, 5, 4), array(2, 3, 5, 4)),  # axes in front that broadcast
    ],
    "multi_head_attention_forward": [
        heads(),
        heads(S=5),
        heads(N=None),
        heads(H=1),
        heads(H=4),
        heads(bias=False),
        heads(out=3),
        heads(need_weights=False),
        heads(N=None, need_weights=False),
        heads(average_attn_weights=False),
        heads(N=None, average_attn_weights=False),
        heads(attn_mask=array(3, 3)),
        heads(attn_mask=array(4, 3, 3)),
        heads(attn_mask=values(AHEAD)),
        heads(attn_mask=array(4, 3, 3), need_weights=False),
        heads(attn_mask=values(AHEAD), need_weights=False),
        heads(attn_mask=values(AHEAD), is_causal=True, need_weights=False),
        heads(attn_mask=array(3, 3), is_causal=True),
        heads(attn_mask=array(3, 3), is_causal=True, key_padding_mask=values(PADDED)),
        heads(key_padding_mask=values(PADDED)),
        heads(key_padding_mask=array(2, 3)),
        heads(key_padding_mask=array(2, 3), attn_mask=array(3, 3), need_weights=False),
        heads(key_padding_mask=values(PADDED), attn_mask=values(AHEAD), need_weights=False),
        heads(N=None, key_padding_mask=values(PADDED[0]), attn_mask=array(2, 3, 3)),
        heads(more=True),
        heads(zero=True),
        heads(more=True, zero=True, attn_mask=array(3, 3), key_padding_mask=values(PADDED)),
        heads(more=True, zero=True, attn_mask=array(3, 3), need_weights=False),
        heads(separate=(3, 5)),
        heads(separate=(4, 4), bias=False, need_weights=False),
        heads(separate=(3, 5), more=True, zero=True, N=None),
        heads(static="static_k static_v"),
        heads(static="static_k", need_weights=False),
        heads(static="static_v", attn_mask=array(3, 3)),
        heads(p=0.4),
        heads(p=0.4, need_weights=False),
        heads(p=0.4, training=False),
        heads(p=0.3, average_attn_weights=False, attn_mask=array(3, 3), more=True),
    ],
}
CORNERS = {
    "scaled_dot_product_attention": [
        call(*_three(2), values(DARK)),
        call(*_three(1, 2), values(DARK)),
        call(*_three(1, 2), values(DEEP)),
        call(*_three(1, 2, scale=30.0)),  # scores of thousands
        call(*_three(2, scale=30.0), is_causal=True),
        call(
            array(1, 3, 2), values([[[1.0, 2.0], [1.0, 2.0], [0.0, -1.0]]]), array(1, 3, 4)
        ),  # a tie
        call(*_three(1, 2), None, 1.0),
        call(*_three(1, 2), scale=-0.5),
        call(*_three(2), scale=0.0),
        call(array(2, 3, 4), array(2, 0, 4), array(2, 0, 4)),
        call(array(0, 3, 4), array(0, 5, 4), array(0, 5, 4)),
        call(array(2, 3, 0), array(2, 5, 0), array(2, 5, 3)),
    ],
    "multi_head_attention_forward": [
        heads(attn_mask=values(BLIND)),  # the second sees nothing
        heads(attn_mask=values(BLIND), need_weights=False),
        heads(attn_mask=values(CAUSAL), is_causal=True, need_weights=False),
        heads(attn_mask=values(CAUSAL)),
        heads(p=1.0),
        heads(scale=30.0),
        heads(scale=30.0, need_weights=False),
        heads(N=0),
        heads(L=1, S=1, N=1, E=1, H=1),
    ],
}
