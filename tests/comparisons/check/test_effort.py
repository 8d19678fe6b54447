"""How much a check tries, and that the little it tries finds what is wrong."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gradtwin.comparisons.check.targets import Target
from gradtwin.comparisons.mutants.judges import Count

from gradtwin import check

rng = np.random.default_rng(0)


def softmax(x, dim):
    e = np.exp(x - x.max(dim, keepdims=True))
    y = e / e.sum(dim, keepdims=True)
    return y, lambda dy: y * (dy - (y * dy).sum(dim, keepdims=True))


def linear(x, weight, bias):
    def pullback(dy):
        return dy @ weight, dy.T @ x, dy.sum(0)

    return x @ weight.T + bias, pullback


def tries(report):
    return set(zip(report.table["probe"], report.table["dtype"], strict=True))


SUBJECTS = [
    (softmax, F.softmax, [(6, 5)], {"dim": -1}),
    (linear, F.linear, [(4, 3), (5, 3), (5,)], {}),
    ("layer_norm", F.layer_norm, [(3, 4, 6)], {"normalized_shape": (6,)}),
    (torch.mul, torch.mul, [(3, 4), (3, 4)], {}),
]


@pytest.mark.parametrize(
    ("subject", "against", "shapes", "settings"), SUBJECTS, ids=lambda x: getattr(x, "__name__", "")
)
def test_quick_is_a_part_of_what_is_usual_and_that_of_what_is_thorough(
    subject, against, shapes, settings
):
    arrays = [rng.standard_normal(shape) for shape in shapes]
    quick, usual, thorough = (
        check(subject, against, arrays, settings, **effort)
        for effort in ({"quick": True}, {}, {"thorough": True})
    )
    assert all(report.passed for report in (quick, usual, thorough))
    assert len(tries(quick)) <= 14
    assert tries(quick) < tries(usual) < tries(thorough)


@pytest.mark.parametrize("n", [30, 300])
def test_the_number_of_calls_does_not_grow_with_the_arrays(n):
    count = Count()
    x = rng.standard_normal((n, n)).astype(np.float32)
    assert check(count.of(softmax), F.softmax, [x], {"dim": -1}).passed
    assert count.number <= 60


def test_a_probe_that_is_named_is_tried_however_seldom_it_is():
    report = check(torch.tanh, torch.tanh, [rng.standard_normal(5)], probes=["× 32", "permuted"])
    assert {"× 32", "permuted"} <= set(report.table["probe"])


def test_of_two_efforts_one_is_meant():
    with pytest.raises(ValueError, match="quick, thorough: expected one of them at most"):
        check(torch.tanh, torch.tanh, [np.ones(3)], quick=True, thorough=True)


# Large calls -----------------------------------------------------------------------------------

LARGE = rng.standard_normal((50, 40))


def tanh_with(slope):
    def tanh(x):
        y = np.tanh(x)
        return y, lambda dy: slope(y, dy)

    return tanh


def last_row_left_out(y, dy):
    dx = dy * (1 - y * y)
    dx[40:] = 0
    return dx


def by_memory(y, dy):
    """Right where dy lies in memory as y does."""
    return np.ravel(dy, "K").reshape(dy.shape) * (1 - y * y)


def fewer_of(report):
    return report.table[report.table["probe"] == "the first rows"]


def test_a_large_call_is_judged_whole_and_probed_at_its_first_rows():
    right = check(tanh_with(lambda y, dy: dy * (1 - y * y)), torch.tanh, [LARGE])
    assert right.passed
    assert set(fewer_of(right)["dtype"]) == {"float64", "float32"}
    behind = check(tanh_with(last_row_left_out), torch.tanh, [LARGE])
    wrong = behind.table[behind.table["class"] == "different"]
    assert set(wrong["probe"]) == {"as given"}
    beside = check(tanh_with(by_memory), torch.tanh, [LARGE])
    assert beside.cause.name == "layout"


@pytest.mark.parametrize("stubborn", ["subject", "reference"])
def test_rows_that_hang_together_are_not_parted(stubborn):
    def tanh(x):
        assert len(x) == len(LARGE)
        y = np.tanh(x)
        return y, lambda dy: dy * (1 - y * y)

    def whole(x):
        assert len(x) == len(LARGE)
        return torch.tanh(x)

    subject, against = (tanh, torch.tanh) if stubborn == "subject" else (torch.tanh, whole)
    report = check(subject, against, [LARGE], probes=["-shape", "-far"])
    assert report.passed, str(report)
    assert not len(fewer_of(report))


def test_what_is_wrong_already_is_not_asked_about_again(monkeypatch):
    """The exact value is, for a few results; each costs."""
    asked, real = [], Target.exact
    monkeypatch.setattr(Target, "exact", lambda t, i: asked.append(i) or real(t, i))
    negative = tanh_with(lambda y, dy: -dy * (1 - y * y))
    report = check(negative, torch.tanh, [LARGE[:3]], probes=["-shape", "-far"])
    assert report.cause.name == "sign"
    assert 0 < len(asked) <= 6


# Long references --------------------------------------------------------------------------------


def decayed_sum(slope):
    """200 rounds of h ← ½ h + sin x, of which the slope is as given."""

    def rule(x):
        h = np.zeros_like(x)
        for _ in range(200):
            h = 0.5 * h + np.sin(x)
        share = sum(0.5**k for k in range(200))
        return h, lambda dy: dy * share * slope(x)

    return rule


def decayed_sum_torch(x):
    h = torch.zeros_like(x)
    for _ in range(200):
        h = 0.5 * h + torch.sin(x)
    return h


def test_beside_a_long_loop_few_probes_are_tried_and_the_report_says_so():
    x = [rng.standard_normal((3, 4))]
    usual = check(decayed_sum(np.cos), decayed_sum_torch, x)
    assert usual.passed
    assert "more than 500 steps" in " ".join(usual.warnings)
    assert len(tries(usual)) <= 14
    assert not check(decayed_sum(lambda x: np.cos(x) * 1.000001), decayed_sum_torch, x).passed
    wanted = check(decayed_sum(np.cos), decayed_sum_torch, x, probes=["× 32"])
    assert "× 32" in set(wanted.table["probe"])


def test_all_that_is_asked_for_is_tried_beside_a_long_loop():
    report = check(decayed_sum(np.cos), decayed_sum_torch, [np.ones(2)], thorough=True)
    assert report.passed
    assert not report.warnings
    assert {"mixed", "× 2⁻¹⁰"} <= set(report.table["probe"])


def test_a_loop_over_rows_is_probed_with_no_more_of_them():
    def sums(x):
        y = np.cumsum(x, 0)
        return y, lambda dy: np.flip(np.cumsum(np.flip(dy, 0), 0), 0) * (1 + (len(x) > 20))

    def looped(x):
        rows = [x[0]]
        for row in x[1:]:
            rows.append(rows[-1] + row)
        return torch.stack(rows)

    x = rng.standard_normal((5, 4))
    assert check(sums, looped, [x], probes=["wide"]).passed
    assert not check(sums, lambda x: x.cumsum(0), [x], probes=["wide"]).passed
