"""Causal scores that are computed tile by tile, and recurrences that are computed by chunks."""

import numpy as np
import pytest
import torch

from gradtwin import check

TILE = 3
rng = np.random.default_rng(0)


def named(rule, against, arrays):
    report = check(rule, against, arrays, dtypes=["float64"], quick=True)
    assert not report.passed, str(report)
    return report.cause.name if report.cause else ""


# Scores ---------------------------------------------------------------------------------------


def linear_attention(wrong):
    """Causal attention without a softmax, whose pullback weighs tile by tile."""

    def rule(q, k, v):
        n = q.shape[-2]
        tile = np.arange(n) // TILE
        own = tile[:, None] == tile
        kept = np.tri(n, dtype=bool)
        mask = {
            "strict": np.tri(n, k=-1, dtype=bool),
            "skipped": kept & ~own,
            "unmasked": kept | own,
        }[wrong]

        def pullback(dy):
            within = dy @ v.mT * mask
            return within @ k, within.mT @ q, (q @ k.mT * kept).mT @ dy

        return q @ k.mT * kept @ v, pullback

    return rule


@pytest.mark.parametrize(
    ("wrong", "cause"),
    [("strict", "misplaced"), ("skipped", "misplaced"), ("unmasked", "elementwise factor")],
)
def test_tiles_of_causal_scores(wrong, cause):
    arrays = tuple(rng.standard_normal((7, 2)) for _ in range(3))
    assert named(linear_attention(wrong), lambda q, k, v: (q @ k.mT).tril() @ v, arrays) == cause


def softmax(among):
    """Whose pullback sums along a row among these alone."""

    def rule(x):
        y = np.exp(x - x.max(-1, keepdims=True))
        y /= y.sum(-1, keepdims=True)
        tile = np.arange(x.shape[-1]) // TILE
        return y, lambda dy: y * (dy - (y * dy) @ among(tile[:, None], tile))

    return rule


@pytest.mark.parametrize(
    ("among", "cause"),
    [(np.equal, "missing term"), (lambda a, b: np.cos(a * b), "")],
)
def test_sums_of_a_tile_alone(among, cause):
    arrays = (rng.standard_normal((2, 7)),)
    assert named(softmax(among), lambda x: torch.softmax(x, -1), arrays) == cause


# Sums from the end, by chunks ------------------------------------------------------------------


def running_sum(wrong):
    def rule(x):
        def pullback(dy):
            dx, after = np.empty_like(x), np.zeros((*x.shape[:1], 1), x.dtype)
            for start in reversed(range(0, x.shape[1], TILE)):
                part = dy[:, start : start + TILE]
                dx[:, start : start + TILE] = np.cumsum(part[:, ::-1], 1)[:, ::-1] + after
                own = part.sum(1, keepdims=True)
                after = own if wrong == "=" else after + own
                if wrong == "decayed":
                    after = after * np.cos(x[:, :1])
            return dx

        return np.cumsum(x, 1), pullback

    return rule


@pytest.mark.parametrize(("wrong", "cause"), [("=", "overwritten"), ("decayed", "")])
def test_what_chunks_hand_on(wrong, cause):
    arrays = (rng.standard_normal((2, 10)),)
    assert named(running_sum(wrong), lambda x: torch.cumsum(x, 1), arrays) == cause
