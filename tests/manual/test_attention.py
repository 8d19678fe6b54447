"""Attention in blocks, and what is too large for the machine."""

import tracemalloc

import numpy as np
import pytest
from gradtwin.comparisons.ops.evaluate import drawn, judge_inputs
from gradtwin.comparisons.samples.attention import SAMPLES
from gradtwin.comparisons.verdict.classes import DTYPES, IDENTICAL, ROUNDING
from gradtwin.manual.attention import (
    multi_head_attention_forward,
    scaled,
    scaled_dot_product_attention,
)

LONG = 400_000
ONE = np.ones((1, 1))


def test_weights_that_cannot_fit_are_refused_before_they_are_made():
    x = np.zeros((LONG, 1))
    tracemalloc.start()
    with pytest.raises(MemoryError, match=r"attn_output_weights: shape .* GiB, and there are"):
        multi_head_attention_forward(
            *(x, x, x, 1, 1, np.ones((3, 1)), None, None, None, False, 0.0, ONE, None)
        )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * x.nbytes


def test_a_mask_whose_gradient_cannot_fit_is_refused():
    x = np.zeros((LONG, 1))
    with pytest.raises(MemoryError, match="attn_mask: shape"):
        scaled_dot_product_attention(x, x, x, np.zeros((1, 1)))


@pytest.mark.parametrize("block", [1, 7, 12, 40])
@pytest.mark.parametrize("row", SAMPLES["scaled_dot_product_attention"], ids=str)
def test_blocks_of_any_size_agree_with_torch(row, block, monkeypatch):
    monkeypatch.setattr(scaled, "BLOCK", block)
    op = "scaled_dot_product_attention"
    for dtype in DTYPES:
        verdicts = judge_inputs(op, drawn(op, row, dtype, 0), dtype)
        assert {v.kind for v in verdicts.values()} <= {IDENTICAL, ROUNDING}, verdicts


def test_scores_are_never_all_there():
    q = np.random.default_rng(0).standard_normal((2048, 8))
    tracemalloc.start()
    y, pullback = scaled_dot_product_attention(q, q, q, is_causal=True)
    pullback(y)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < len(q) ** 2 * q.itemsize / 2
