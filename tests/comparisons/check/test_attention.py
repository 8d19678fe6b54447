"""Attention that looks right: each mistake is found, and the right rule passes in the same call."""

import inspect

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gradtwin.comparisons import ops
from gradtwin.comparisons.samples.attention import AHEAD, SEEN, heads
from gradtwin.manual.attention import multihead, scaled
from gradtwin.manual.second_order import attention
from torch.nn.attention import SDPBackend, sdpa_kernel

from gradtwin import check

SCALED, HEADS = "scaled_dot_product_attention", "multi_head_attention_forward"
rng = np.random.default_rng(0)


def drawn(*shapes):
    return [rng.standard_normal(shape) for shape in shapes]


def rows(L, S, *front, E=4):
    return drawn((*front, L, E), (*front, S, E), (*front, S, E))


def of_heads(**settings):
    return heads(**settings).draw(0, np.dtype(float))


PLAIN = rows(3, 5, 2), {}
MASKED = [*rows(3, 5, 2), np.array(SEEN)], {}
ADDED = [*rows(3, 5, 2), *drawn((3, 5))], {}
CAUSAL = rows(3, 5, 2), {"is_causal": True}
GROUPED = drawn((4, 3, 4), (2, 5, 4), (2, 5, 4)), {"enable_gqa": True}
LONG = rows(300, 250, E=2), {}
QUICK = {"probes": ["permuted"], "dtypes": ["float64"]}
MASK = "scores = where(mask, scores, -math.inf) if mask.dtype == bool else scores + mask"
SHARES = "soft /= where(total == 0, lost, total)"
SPLIT = "y.reshape(len(y), N, heads, len(weight) // heads).transpose(1, 2, 0, 3)"
# what is wrong: (the rule, its module, what stands instead of what, the call)
MISTAKES = {
    "d for √d": (
        *(SCALED, scaled),
        {"math.sqrt(max(query.shape[-1], 1))": "query.shape[-1]"},
        PLAIN,
    ),
    "mask after the softmax": (
        *(SCALED, scaled),
        {MASK: "pass", SHARES: f"{SHARES}; soft = soft if mask is None else where(mask, soft, 0)"},
        MASKED,
    ),
    "no scale in dQ": (SCALED, scaled, {"dqueries *= scale": "pass"}, PLAIN),
    "no Σ P dP": (SCALED, scaled, {"dsoft -= np.vecdot(soft, dsoft)[..., np.newaxis]": ""}, PLAIN),
    "dM as dQ": (SCALED, scaled, {"] = dscores": "] = scale * dscores"}, ADDED),
    "one key too many": (SCALED, scaled, {"ahead.stop, rows.start": "ahead.stop, 1"}, CAUSAL),
    "another head's key": (
        *(SCALED, scaled),
        {"np.repeat(a, heads // a.shape[-3], axis=-3)": "np.concatenate([a] * 2, axis=-3)[:heads]"},
        GROUPED,
    ),
    "the last block alone": (SCALED, scaled, {"dkeys[heads, ahead] += ": "dkeys[heads] = "}, LONG),
    "a head's axes transposed": (
        *(HEADS, multihead),
        {
            SPLIT: SPLIT.replace("heads, len(weight) // heads", "-1, heads").replace(
                "2, 0, 3", "3, 0, 2"
            )
        },
        of_heads(),
    ),
    "weights without a slope": (HEADS, multihead, {"pull(*dy)": "pull(dy[0])"}, of_heads()),
    "a mean as a sum": (HEADS, multihead, {"/ P.shape[1], P.shape": ", P.shape"}, of_heads()),
    "the first for the last": (HEADS, multihead, {"dy[-1]": "dy[0]"}, of_heads(more=True)),
    "seen for unseen": (
        *(HEADS, multihead),
        {"where(term, -math.inf, 0)": "where(~term, -math.inf, 0)"},
        of_heads(attn_mask=np.array(AHEAD)),
    ),
}


def with_mistake(name, module, swaps):
    source = inspect.getsource(module)
    for old, new in swaps.items():
        assert source.count(old) == 1
        source = source.replace(old, new)
    scope = {"__name__": module.__name__, "__package__": module.__package__}
    exec(source, scope)
    return scope[name]


def checked(rule, name, call):
    args, kwargs = call
    return check(rule, getattr(F, name), list(args), kwargs, **QUICK)


@pytest.mark.thinned(2)
@pytest.mark.parametrize("what", MISTAKES)
@pytest.mark.usefixtures("no_cause")
def test_a_mistake_is_found_and_the_right_rule_passes(what):
    name, module, swaps, call = MISTAKES[what]
    right = checked(getattr(module, name), name, call)
    assert right.passed, str(right)
    wrong = checked(with_mistake(name, module, swaps), name, call)
    print(wrong.table)
    assert not wrong.passed


SECOND = "scaled_dot_product_attention_backward"
COMPOSED = ops.named(SECOND).mirror.__wrapped__  # without exact values, which take long
OF_SECOND = drawn(*[(2, 3, 4)] * 4), {"is_causal": True}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (" - dP * total(H)", ""),
        (" + g @ turned(c)", ""),
        ("H * rest", "H * dP"),
        ("P * (H - total(H))", "P * H"),
        ("dZ @ b + Z @ k", "Z @ k"),
        ("turned(dZ) @ a", "dZ @ a"),
        ("through @ v + P @ c", "through @ v"),
    ],
)
@pytest.mark.usefixtures("no_cause")
def test_a_mistake_in_second_order_is_found(old, new):
    source = inspect.getsource(getattr(attention, SECOND))
    assert source.count(old) == 1
    scope = dict(vars(attention))
    exec(source.replace(old, new), scope)
    report = check(scope[SECOND], COMPOSED, *OF_SECOND, **QUICK)
    print(report.table)
    assert not report.passed


def test_what_is_right_in_second_order_passes():
    assert check(SECOND, COMPOSED, *OF_SECOND, **QUICK).passed


def of_query(backend, q, k, v, dy):
    tensors = [torch.from_numpy(a).requires_grad_() for a in (q, k, v)]
    with sdpa_kernel(backend):
        y = F.scaled_dot_product_attention(*tensors)
    return torch.autograd.grad(y, tensors, torch.from_numpy(dy))[0].numpy()


def test_where_scores_reach_hundreds_both_of_torchs_kernels_are_off():
    """The largest errors of dQ in units of roundoff, of six draws: a weight e^score cannot be
    nearer than its score is, and the rule always is as near. Where one weight is nearly 1 and the
    gradient small, the composition is off by a thousand and the fused kernel by ten thousand."""
    off = {"math": 0.0, "flash": 0.0}  # as multiples of the largest score
    for seed in range(6):
        draw = np.random.default_rng(seed).standard_normal
        q, k, v, dy = (draw((1, 2, 6, 8)) * size for size in (6, 6, 1, 1))
        score = np.max(abs(q @ k.swapaxes(-1, -2))) / np.sqrt(8)
        oracle = ops.named(SCALED).oracle(((q, k, v), {}, dy))
        exact = np.reshape([oracle("query", i) for i in np.ndindex(q.shape)], q.shape)
        found = {
            "rule": scaled.scaled_dot_product_attention(q, k, v)[1](dy)[0],
            "math": of_query(SDPBackend.MATH, q, k, v, dy),
            "flash": of_query(SDPBackend.FLASH_ATTENTION, q, k, v, dy),
        }
        largest = np.max(abs(exact)) * 2.0**-53
        errors = {name: np.max(abs(dq - exact)) / largest for name, dq in found.items()}
        print(seed, score, errors)
        assert errors["rule"] < score
        off = {name: max(errors[name] / score, worst) for name, worst in off.items()}
    assert min(off.values()) > 8
