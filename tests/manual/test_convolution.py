"""Convolutions in pieces, and what is added up of many."""

import numpy as np
import pytest
from gradtwin.comparisons import ops
from gradtwin.manual import correlation
from gradtwin.manual.arrays import cascade
from gradtwin.reference.adapters import leaves

CONVOLUTIONS = [op for op in ops.names() if op.startswith("conv")]


@pytest.mark.parametrize("op", CONVOLUTIONS)
@pytest.mark.parametrize("block", [1, 20, 60])
def test_it_does_not_matter_how_many_windows_are_made_at_a_time(op, block, monkeypatch):
    def results(args, kwargs):
        y, pullback = ops.named(op).rule(*args, **kwargs)
        parts = [np.random.default_rng(1).standard_normal(part.shape) for part in leaves(y)]
        return [*leaves(y), *leaves(pullback(tuple(parts) if isinstance(y, tuple) else parts[0]))]

    for _, row in ops.named(op).rows():
        call = row.draw(0, np.dtype(float))
        whole = results(*call)
        with monkeypatch.context() as patch:
            patch.setattr(correlation, "BLOCK", block)
            pieces = results(*call)
        for a, b in zip(whole, pieces, strict=True):
            size = np.max(abs(a), initial=0)
            assert np.all(abs(a - b) <= 1e-14 * size), row


@pytest.mark.parametrize("n", range(9))
def test_a_cascade_is_the_sum(n):
    terms = [np.full(2, 10.0**i) for i in range(n)]
    total = cascade(iter(terms))
    assert total is None if n == 0 else np.array_equal(total, sum(terms))


def test_the_error_of_a_cascade_does_not_grow_with_the_number_of_terms():
    n, tenth = 2**14, np.float32(0.1)
    exact = n * float(tenth)
    found = cascade(np.array([tenth]) for _ in range(n))
    assert found[0] == exact
    assert abs(np.cumsum(np.full(n, tenth))[-1] - exact) > 1e-5 * exact
