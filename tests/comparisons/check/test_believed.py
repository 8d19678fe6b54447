"""What is right is not called wrong, whatever it looks like; and what is wrong is."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gradtwin.comparisons.check.findings import NOT_APPLICABLE, UNSUPPORTED
from gradtwin.comparisons.verdict.classes import (
    CONVENTION,
    DIFFERENT,
    IMPRECISE,
    REFERENCE_IMPRECISE,
    UNDECIDED,
)
from gradtwin.comparisons.verdict.noise import unit_roundoff

from gradtwin import check

F = torch.nn.functional
rng = np.random.default_rng(0)
X, V = rng.standard_normal((3, 4)), rng.standard_normal(4)


def of(forward, backward):
    """A rule of one array."""
    return lambda x: (forward(x), lambda dy: backward(x, dy))


# Another dtype ---------------------------------------------------------------------------------


def test_a_wider_dtype_is_a_warning_and_fails_when_strict():
    def rule(factor):
        two = np.float64(2)
        return of(lambda x: two * x, lambda x, dy: factor * two * dy)

    report = check(rule(1), lambda x: 2 * x, [X])
    assert report.passed, str(report)
    assert any("returns float64 for float32" in w for w in report.warnings)
    assert not check(rule(1), lambda x: 2 * x, [X], strict=True).passed
    assert check(rule(-1), lambda x: 2 * x, [X]).cause.name == "sign"


def test_a_shorter_dtype_is_wrong():
    rule = of(lambda x: 2 * x, lambda x, dy: (2 * dy).astype(np.float32))
    assert check(rule, lambda x: 2 * x, [X]).cause.name == "dtype"


# Shapes ----------------------------------------------------------------------------------------


def over_rows(x, w):
    return x * w, lambda dy: (dy * w, (dy * x).sum(0))


@pytest.mark.parametrize("against", [torch.mul, None], ids=["torch", "nothing"])
def test_other_shapes_are_not_held_against_a_rule(against):
    report = check(over_rows, against, [X, V])
    assert report.passed, str(report)
    assert UNSUPPORTED in set(report.table["class"])
    assert any("other shapes" in w for w in report.warnings)
    assert not check(over_rows, against, [X, V[None]]).passed  # the caller's own


def test_a_rule_for_rows_may_raise_or_be_wrong_without_axes():
    def row_sums(x):
        return x.sum(1), lambda dy: np.repeat(dy[:, None], x.shape[1], 1)

    assert check(row_sums, lambda x: x.sum(1), [X]).passed

    def first(x):
        return x[:1] * 1.0, lambda dy: np.concatenate([dy, np.zeros_like(x[1:])])

    assert check(first, lambda x: x[:1] * 1.0, [X]).passed


@pytest.mark.parametrize("columns", [64, 128])
@pytest.mark.parametrize("against", [torch.tanh, None], ids=["torch", "nothing"])
def test_a_block_that_is_not_full_is_tried(columns, against):
    def slope(x, dy):
        dx = dy * (1 - np.tanh(x) ** 2)
        full = x.shape[-1] // 64 * 64 if x.ndim else 0
        if full:
            dx[..., full:] = 0
        return dx

    report = check(of(np.tanh, slope), against, [rng.standard_normal((2, columns))])
    if against:
        assert not report.passed
    else:  # other shapes are no fault where there is nothing that knows them
        assert any("other shapes" in w for w in report.warnings)


def test_zeros_are_tried_in_float32_for_each_argument():
    table = check(torch.mul, torch.mul, [X, X + 1]).table
    zeros = table[table["probe"].str.startswith(("zeros", "some zeros"))]
    assert set(zeros["dtype"]) == {"float64", "float32"}


# The domain ------------------------------------------------------------------------------------


def log_det(a):
    low = np.linalg.cholesky(a)
    return 2 * np.log(np.diagonal(low)).sum(), lambda dy: dy * np.linalg.inv(a)


def positive(a):
    return a @ a.T + np.eye(len(a)) if a.ndim == 2 else abs(a)


def test_probes_can_be_kept_in_the_domain():
    a = positive(rng.standard_normal((3, 3)))
    inside = check(log_det, torch.logdet, [a], domain=positive, probes=["-shape"])
    assert inside.passed, str(inside)
    assert {"mixed", "× 2²⁰"} <= set(inside.table["probe"])
    assert check(log_det, torch.logdet, [a]).passed  # NaN where the determinant is negative
    assert not check(log_det, lambda a: torch.linalg.slogdet(a)[1], [a]).passed
    named = check(log_det, torch.logdet, [a], probes=["dy of zeros", "layout"])
    assert named.passed
    assert "dy of zeros" in set(named.table["probe"])
    assert "mixed" not in set(named.table["probe"])

    assert not check(wrong(log_det), torch.logdet, [a], domain=positive).passed


def test_held_to_nothing_a_forward_says_where_it_is_defined():
    def segments(x, starts):
        if np.any(np.diff(starts) <= 0) or starts[0]:
            raise ValueError("starts: expected 0, then rising")
        rows = np.repeat(np.arange(len(starts)), np.diff([*starts, len(x)]))
        return np.add.reduceat(x, starts), lambda dy: dy[rows]

    def by_interval(x):  # of a falling interval the length has no meaning
        if x[0] > x[1]:
            raise ValueError("x: expected an interval")
        return x[1] - x[0], lambda dy: dy * np.array([-1.0, 1.0])

    starts = np.array([0, 2, 5, 6])
    for rule, args in ((segments, [rng.standard_normal(9), starts]), (by_interval, [X[0, :2]])):
        given = [np.sort(args[0]), *args[1:]]
        report = check(rule, None, given)
        assert report.passed, str(report)
        assert not check(wrong(rule), None, given).passed
        refused = report.table["note"].str.contains("expected")
        assert set(report.table["class"][refused]) == {NOT_APPLICABLE}

    def broken(x):  # at the caller's own point, called again
        broken.calls += 1
        if broken.calls > 3:
            raise ValueError("no more")
        return np.tanh(x), lambda dy: dy / np.cosh(x) ** 2

    broken.calls = 0
    assert not check(broken, None, [X]).passed


def wrong(rule):
    """The rule, with twice the gradient."""

    def doubled(*args):
        y, pullback = rule(*args)
        return y, lambda dy: 2 * pullback(dy)

    return doubled


def test_a_point_that_the_domain_does_not_have_is_not_judged():
    def never(a):
        raise ValueError("nothing but what is given")

    table = check(torch.tanh, torch.tanh, [X], domain=never).table
    mixed = table[table["probe"] == "mixed"]
    assert set(mixed["class"]) == {NOT_APPLICABLE}
    assert mixed["note"].str.contains("nothing but what is given").all()


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"probes": "permuted"}, TypeError),
        ({"probes": [1]}, TypeError),
        ({"probes": ["pemuted"]}, ValueError),
        ({"kinks": "all"}, ValueError),
        ({"allow": 2}, ValueError),
        ({"allow": -1e-9}, ValueError),
        ({"gradient": 3}, TypeError),
        ({"domain": 3}, TypeError),
    ],
)
def test_what_is_asked_is_answered_in_words(wrong, error):
    with pytest.raises(error, match=f"{next(iter(wrong))}: expected"):
        check(torch.tanh, torch.tanh, [X], **wrong)


# Kinks -----------------------------------------------------------------------------------------


def amax(x):
    y = x.max(-1, keepdims=True)
    first = np.zeros_like(x)
    np.put_along_axis(first, x.argmax(-1)[..., None], 1, -1)
    return y, lambda dy: dy * first


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    ("rule", "torchs"),
    [
        (of(lambda x: np.maximum(x, 0), lambda x, dy: dy * (x >= 0)), torch.relu),
        (of(lambda x: np.maximum(x, 0), lambda x, dy: dy * (np.sign(x) + 1) / 2), torch.relu),
        (of(abs, lambda x, dy: np.where(x >= 0, dy, -dy)), torch.abs),
        (amax, lambda x: torch.amax(x, -1, keepdim=True)),
    ],
    ids=["relu", "relu between", "abs", "the first tie"],
)
def test_another_slope_at_a_kink_is_a_convention(rule, torchs):
    report = check(rule, torchs, [X])
    at_kinks = report.table[report.table["class"] == CONVENTION]
    assert len(at_kinks)
    assert not at_kinks["accepted"].any() or report.passed
    assert DIFFERENT not in set(report.table["class"]), str(report)
    accepted = check(rule, torchs, [X], kinks="any")
    assert accepted.passed, str(accepted)
    assert accepted.table["accepted"].any()


def test_where_torch_documents_its_slope_another_fails():
    rule = of(lambda x: np.maximum(x, 0), lambda x, dy: dy * (x >= 0))
    assert check(rule, torch.relu, [X]).cause.name == "kink"
    assert check(rule, lambda x: torch.relu(x), [X]).passed


def test_what_lies_beyond_both_sides_is_no_convention():
    rule = of(lambda x: np.maximum(x, 0), lambda x, dy: dy * np.where(x == 0, 1.5, x > 0))
    assert not check(rule, torch.relu, [X], kinks="any").passed
    off = of(lambda x: np.maximum(x, 0), lambda x, dy: dy * np.where(x < 1e-9, 0.5, x > 0))
    assert not check(off, torch.relu, [X], kinks="any").passed


# Meant to differ -------------------------------------------------------------------------------


def test_a_gradient_may_be_meant_to_be_that_of_another_function():
    through = of(np.round, lambda x, dy: 1.0 * dy)
    assert not check(through, torch.round, [3 * X]).passed
    report = check(through, torch.round, [3 * X], gradient=torch.clone)
    assert report.passed, str(report)
    scaled = of(np.round, lambda x, dy: 1.01 * dy)
    assert not check(scaled, torch.round, [3 * X], gradient=torch.clone).passed
    reversal = of(lambda x: 1.0 * x, lambda x, dy: -2 * dy)
    assert check(reversal, gradient=lambda x: -2 * x, arrays=[X]).passed
    assert not check(reversal, gradient=lambda x: -x, arrays=[X]).passed


def test_a_deviation_may_be_allowed_and_is_reported():
    def rule(factor):
        return of(np.tanh, lambda x, dy: factor * dy * (1 - np.tanh(x) ** 2))

    assert not check(rule(1 + 5e-5), torch.tanh, [X]).passed
    report = check(rule(1 + 5e-5), torch.tanh, [X], allow=1e-4)
    assert report.passed, str(report)
    assert report.table["accepted"].any()
    assert "accepted" in str(report)
    assert not check(rule(1 + 5e-4), torch.tanh, [X], allow=1e-4).passed


# Fused references ------------------------------------------------------------------------------


def softmax(s):
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention(query, key, value, factor=1.0):
    scale = query.dtype.type(1 / np.sqrt(query.shape[-1]))
    p = softmax(query @ key.swapaxes(-1, -2) * scale)

    def pullback(dy):
        dp = dy @ value.swapaxes(-1, -2)
        ds = p * (dp - (dp * p).sum(-1, keepdims=True)) * scale
        return ds @ key, ds.swapaxes(-1, -2) @ query, factor * (p.swapaxes(-1, -2) @ dy)

    return p @ value, pullback


@pytest.mark.thinned(2)  # where a kernel dies, a large process is forked many times
@pytest.mark.parametrize("seed", [0, 1])
def test_a_right_attention_is_right_beside_a_fused_one(seed):
    r = np.random.default_rng(seed)
    arrays = [r.standard_normal(s) for s in ((2, 3, 5, 8), (2, 3, 6, 8), (2, 3, 6, 8))]
    report = check(attention, F.scaled_dot_product_attention, arrays, seed=seed)
    assert report.passed, str(report)


def test_a_wrong_attention_is_wrong_beside_a_fused_one():
    arrays = [rng.standard_normal(s) for s in ((2, 3, 5, 8), (2, 3, 6, 8), (2, 3, 6, 8))]

    def scaled(query, key, value):
        return attention(query, key, value, 1.001)

    report = check(scaled, F.scaled_dot_product_attention, arrays, probes=["ordinary"])
    assert report.cause.name == "factor"
    assert "argument value" in str(report)


def test_what_torch_computes_otherwise_than_its_kernel_is_right(monkeypatch):
    """A kernel that is off, beside its decomposition: the subject is within the floor of that. At
    which numbers it is off depends on the processor, and so does whether differences can tell: they
    are not asked, nor is what it loses at other points, which may be as much."""
    monkeypatch.setattr("gradtwin.comparisons.check.verdicts.LOOKS", 0)
    monkeypatch.setattr("gradtwin.comparisons.check.verdicts.Direction.vote", lambda *_: None)

    def said(seed):
        x = np.random.default_rng(seed).standard_normal((2, 3, 6, 8)) * 40
        report = check(attention, F.scaled_dot_product_attention, [x, x, x])
        assert report.passed, str(report)
        found = report.table[report.table["class"] == REFERENCE_IMPRECISE]
        return found["note"].str.contains("torch's own").any()

    assert any(said(seed) for seed in (2, 1, 0, 3, 4, 5))


CRASH = """
import numpy as np, torch
from gradtwin import check
from test_believed import attention
q, k, v = (np.random.default_rng(i).standard_normal((1, 2, 8, 4)) for i in range(3))
report = check(attention, torch.nn.functional.scaled_dot_product_attention, [q, k, v])
table = report.table
died = table[table["note"].str.contains("ends the process")]
print(report.passed, sorted(set(died["class"])), sorted(died["probe"]))
"""


def test_a_kernel_that_ends_the_process_is_one_row():
    """Cut to length 1 beside a value of length 8, a key makes torch's attention on the CPU write
    where it must not."""
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", CRASH], env=here, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("True"), done.stdout


# Surroundings and endings ----------------------------------------------------------------------


def changing(x):
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    np.random.seed(0)  # noqa: NPY002
    np.seterr(all="raise")
    y = np.tanh(x)
    return y, lambda dy: dy * (1 - y * y)


def test_what_a_subject_changes_around_itself_is_put_back():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    try:
        report = check(changing, torch.tanh, [X])
        assert report.passed, str(report)
        (told,) = [w for w in report.warnings if "changes" in w]
        assert "torch's grad mode" in told
        assert torch.is_grad_enabled()
        assert torch.get_default_dtype() == torch.float32
        assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    finally:
        torch.set_grad_enabled(True)
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("where", ["rule", "pullback"])
def test_a_subject_that_exits_is_wrong(where):
    def rule(x):
        if where == "rule":
            sys.exit(0)
        return np.tanh(x), lambda dy: sys.exit(0)

    report = check(rule, torch.tanh, [X])
    assert not report.passed
    assert report.cause.name == "raises"
    assert "sys.exit" in str(report)


# Causes ----------------------------------------------------------------------------------------


def test_a_text_that_looks_like_a_mutation_is_none():
    def rule(x):
        raise ValueError("the buffer was changed in place by someone else")

    assert check(rule, torch.tanh, [X]).cause.name == "raises"


@pytest.mark.thinned(2)
@pytest.mark.parametrize("against", [torch.tanh, None], ids=["torch", "nothing"])
@pytest.mark.parametrize("shape", [(3, 4), (8, 9)])
def test_the_cause_is_found_for_arguments_without_names(against, shape):
    def rule(*arrays):
        y = np.tanh(arrays[0])
        return y, lambda dy: (-dy * (1 - y * y),)

    report = check(rule, against, [rng.standard_normal(shape)])
    assert not report.passed
    assert report.cause.name == "sign"


# Who is imprecise ------------------------------------------------------------------------------


@pytest.mark.parametrize("against", [F.softplus, "softplus"], ids=["torch", "name"])
def test_beyond_the_cut_off_of_torch_the_reference_is_imprecise(against):
    x = np.array([-3.0, -0.5, 0.3, 2.0, 19.9, 25.0, 40.0, 60.0])
    exact = of(lambda x: np.logaddexp(0, x), lambda x, dy: dy / (1 + np.exp(-x)))
    report = check(exact, against, [x])
    assert report.passed, str(report)
    imprecise = report.table[report.table["class"] == REFERENCE_IMPRECISE]
    assert {"value", "x"} <= set(imprecise["argument"])

    off = of(lambda x: np.logaddexp(0, x) * (1 + 1e-12), lambda x, dy: dy / (1 + np.exp(-x)))
    assert not check(off, against, [x], probes=["ordinary"]).passed


@pytest.mark.thinned(2)
@pytest.mark.parametrize("size", [1e-3, 1e-10])
def test_a_formula_that_cancels_is_imprecise_however_small_its_argument(size):
    def elu(one):
        return of(
            lambda x: np.where(x > 0, x, np.exp(x) - one),
            lambda x, dy: dy * np.exp(np.minimum(x, 0)),
        )

    report = check(elu(1), F.elu, [size * X])
    assert report.passed, str(report)
    assert IMPRECISE in set(report.table["class"])
    assert not check(elu(1 + 1e-12), F.elu, [size * X], probes=["ordinary"]).passed


# 16 bits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", ["bfloat16", "float16"])
def test_who_is_known_to_round_once_is_held_to_that(half):
    def kernel(factor):
        def rule(x):
            wide = np.float32(x)
            y = np.tanh(wide)
            slope = np.float32(factor) * (1 - y * y)
            return y.astype(x.dtype), lambda dy: (np.float32(dy) * slope).astype(x.dtype)

        return rule

    two = 1 + 4 * unit_roundoff(half)  # two ulps
    for factor, once, passes in [(1, True, True), (two, False, True), (two, True, False)]:
        report = check(
            kernel(factor),
            torch.tanh,
            [X],
            dtypes=[half],
            probes=["ordinary"],
            rounds_once=once,
        )
        assert report.passed == passes, str(report)


# Long axes -------------------------------------------------------------------------------------


def shared(axis, count):
    """The largest along an axis, its gradient shared among ties that are counted in these bits."""

    def rule(x):
        y = x.max(axis, keepdims=True)
        ties = x == y

        def pullback(dy):
            return np.where(ties, dy / ties.sum(axis, keepdims=True).astype(count), 0)

        return y, lambda dy: pullback(dy).astype(x.dtype)

    return rule


@pytest.mark.parametrize("axis", [0, 1])
def test_a_count_in_few_bits_is_found_by_a_long_axis(axis):
    def largest(x):
        return x.amax(axis, keepdim=True)

    right = check(shared(axis, np.int64), largest, [X])
    assert right.passed, str(right)
    wrong = check(shared(axis, np.float16), largest, [X])
    assert set(wrong.failed["probe"]) == {f"axis {axis} of 70,000 ties"}


class HalfCount(torch.autograd.Function):
    """Right but for ties that are counted in the dtype of the argument."""

    @staticmethod
    def forward(ctx, x):
        y = x.amax(-1)
        ctx.save_for_backward(x == y[..., None])
        return y

    @staticmethod
    def backward(ctx, dy):
        (ties,) = ctx.saved_tensors
        return ties * (dy / ties.sum(-1, dtype=dy.dtype))[..., None]


def test_a_count_in_16_bits_is_found_though_nobody_asked_for_them():
    report = check(HalfCount, lambda x: x.amax(-1), [X])
    assert set(report.failed["dtype"]) == {"float16"}
    assert set(report.failed["probe"]) == {"axis 1 of 70,000 ties"}


def test_a_wrong_gradient_is_not_excused_by_raising_beside_a_long_axis():
    def tanh(x):
        if x.size > 1000 and np.ptp(x):
            raise ValueError("only constants")
        wrong = x.size > 1000
        return np.tanh(x), lambda dy: dy * (1 - np.tanh(x) ** (1 if wrong else 2))

    report = check(tanh, torch.tanh, [X], dtypes=["float64"], probes=["long"])
    assert set(report.failed["class"]) == {UNDECIDED}
    assert not report.passed


def test_without_a_reference_a_long_axis_is_said_not_to_be_tried():
    report = check(of(np.tanh, lambda x, dy: dy / np.cosh(x) ** 2), None, [X], probes=["long"])
    notes = report.table.loc[report.table["probe"].str.contains("70,000"), "note"]
    assert notes.str.contains("dear").all()
    assert len(notes) == 2


def test_a_product_that_grows_too_large_is_one_row():
    table = check(lambda x: x.mT @ x, lambda x: x.mT @ x, [X]).table
    notes = table.loc[table["probe"] == "axis 1 of 70,000 ties", "note"]
    assert notes.str.contains("memory").all()


def test_what_torch_itself_gives_in_16_bits_is_no_fault():
    """A sum of 70,000 exponentials is infinite in float16, for torch as well."""
    report = check(torch.logsumexp, torch.logsumexp, [X], {"dim": -1})
    assert report.passed, str(report)
    assert report.table["note"].eq("torch itself gives this in float16").any()

    def wrong(x):
        return torch.logsumexp(x, -1).clamp(max=2.0)

    assert not check(wrong, lambda x: torch.logsumexp(x, -1), [X + 1]).passed


@pytest.mark.parametrize("softly", [F.softplus, lambda x: (1 + x.exp()).log()])
def test_what_torch_cuts_off_is_imprecise_in_a_subject_and_what_overflows_is_wrong(softly):
    class Gate(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * F.softplus(-x)

        @staticmethod
        def backward(ctx, dy):
            (x,) = ctx.saved_tensors
            return dy * (softly(-x) - x * torch.sigmoid(-x))

    report = check(Gate, lambda x: -x * F.logsigmoid(x), [X])
    assert report.passed == (softly is F.softplus), str(report)


def test_a_value_that_is_not_defined_has_no_gradient():
    """The mean over no targets is 0/0; torch's gradient of it is 0, and NaN is no other."""

    def loss(logits, targets):
        z = logits - logits.max(1, keepdims=True)
        logp, kept = z - np.log(np.exp(z).sum(1, keepdims=True)), targets != 1
        p, count = np.exp(logp), np.asarray(kept.sum(), logits.dtype)
        rows = np.arange(len(logits))[kept]
        y = -logp[rows, targets[kept]].sum() / count

        def pullback(dy):
            d = np.where(kept[:, None], p, 0)
            d[rows, targets[kept]] -= 1
            return (d * (dy / count),)

        return y, pullback

    def reference(logits, targets):
        return torch.nn.functional.cross_entropy(logits, targets, ignore_index=1)

    logits, targets = np.random.default_rng(0).standard_normal((4, 3)), np.array([1, 0, 2, 1])
    report = check(loss, reference, [logits, targets])
    assert report.passed, str(report)
    first = report.table[report.table["probe"] == "first row"]
    assert set(first["class"]) == {"n/a"}
