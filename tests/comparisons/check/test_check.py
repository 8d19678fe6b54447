"""A wrong gradient is caught and its cause named; a right one is left in peace."""

import numpy as np
import pytest
import torch
from gradtwin.comparisons import ops
from gradtwin.comparisons.mutants import table
from gradtwin.comparisons.mutants.corpus import AGAINST, MUTANTS, SAMPLES
from gradtwin.comparisons.ops import evaluate
from gradtwin.comparisons.verdict.classes import (
    DIFFERENT,
    IMPRECISE,
    REFERENCE_IMPRECISE,
    UNDECIDED,
)
from scipy.special import expit

from gradtwin import check, manual

F = torch.nn.functional
rng = np.random.default_rng(0)
X, V = rng.standard_normal((3, 4)), rng.standard_normal(4)


def tanh_with(slope):
    def tanh(x):
        y = np.tanh(x)

        def pullback(dy):
            return slope(x, y, dy)

        return y, pullback

    return tanh


def right_slope(x, y, dy):
    return dy * (1 - y * y)


def first_of_each():
    """The first mutant of every cause, and with --sweep of every fourth op: `gradtwin mutants` has
    them all."""
    chosen, causes = [], set()
    for i, (op, mutants) in enumerate(MUTANTS.items()):
        for number, mutant in enumerate(mutants):
            if mutant.cause not in causes:
                chosen.append((op, number))
                causes.add(mutant.cause)
            elif not number and i % 4 == 1:
                chosen.append(pytest.param(op, number, marks=pytest.mark.sweep))
    return chosen


# The corpus ------------------------------------------------------------------------------------


@pytest.mark.thinned(3)
@pytest.mark.parametrize(("op", "number"), first_of_each())
def test_a_planted_mistake_is_caught(op, number):
    subject = table.planted(op, MUTANTS[op][number])
    calls = [call.draw(0, np.dtype(float)) for call in SAMPLES[op]]
    assert any(table.objects(check(subject, table.against(op), *call)) for call in calls)


@pytest.mark.thinned(5)
@pytest.mark.parametrize("op", AGAINST)
def test_a_right_rule_causes_no_alarm(op, sweep):
    """On the first call of its corpus, or with --sweep on all."""
    for row in SAMPLES[op] if sweep else SAMPLES[op][:1]:
        args, kwargs = row.draw(0, np.dtype(float))
        check(table.right(op), table.against(op), args, kwargs).raise_for_failure()


WITH_GRADIENTS = [op for op in ops.names() if ops.named(op).has_gradient]


@pytest.mark.thinned(12)
@pytest.mark.parametrize("op", WITH_GRADIENTS)
def test_a_hand_written_rule_causes_no_alarm(op):
    check(op, op).raise_for_failure()


def test_what_torch_draws_is_given_to_the_rule_in_every_call():
    def forgetful(x, p=0.5, training=True, *, mask=None):
        y = np.where(mask, x / (1 - p), 0)

        def pullback(dy):
            return np.where(mask, dy, 0)

        return y, pullback

    assert check("dropout", F.dropout, [X], {"p": 0.3}).passed
    report = check(forgetful, F.dropout, [X], {"p": 0.2})
    assert not report.passed
    assert report.cause.name == "factor"
    assert not check(lambda x, p=0.5: (x, lambda dy: dy), F.dropout, [X]).passed


def test_a_torch_that_is_wrong_causes_no_alarm():
    """It divides by the count of another index."""
    weight, bag = np.arange(12.0).reshape(4, 3), np.array([[1, 1, 3]])
    settings = {"mode": "sum", "scale_grad_by_freq": True}
    report = check("embedding_bag", F.embedding_bag, [bag, weight], settings)
    assert report.passed
    whole = torch.tensor(weight, requires_grad=True)
    F.embedding_bag(torch.tensor(bag), whole, **settings).sum().backward()
    wrong = whole.grad[3, 0] != 1  # the count of 3; mended in torch 2.14
    assert (REFERENCE_IMPRECISE in set(report.table["class"])) == wrong


def test_the_mean_of_both_sides_is_no_excuse_at_a_kink(monkeypatch):
    def relu(x):
        y = np.maximum(x, 0)

        def pullback(dy):
            return dy * np.where(x == 0, 0.5, x > 0).astype(x.dtype)

        return y, pullback

    x = np.array([-1.0, 0.0, 2.0])
    assert not check(relu, "relu", [x]).passed
    monkeypatch.setattr(manual.activations, "relu", relu)
    found = evaluate.judge_inputs("relu", ((x,), {}, np.ones(3)), "float64")
    assert found["x"].kind == DIFFERENT


def test_as_many_outputs_as_the_reference_has():
    report = check(lambda x: ((np.exp(x), x), lambda dy: dy), torch.exp, [X])
    assert not report.passed
    assert report.cause.name == "contract"
    assert "1, got 2" in str(report)


@pytest.mark.parametrize(
    "name",
    [
        *("add", "cumprod", "view", "as_strided_copy", "linalg.det", "max.reduction_with_dim"),
        *("nn.functional.conv2d", "nn.functional.batch_norm", "nn.functional.pdist"),
        "half",  # its results are in 16 bits
    ],
)
@pytest.mark.parametrize("one", [False, True])
def test_a_function_of_torch_causes_no_alarm(name, one):
    row = table.torch_row(name, 1, one, timed=False)
    assert row["class"] == "quiet", row["says"]


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("lu", 10),  # of numbers that are equal in float32 another is the pivot
        ("nn.functional.fractional_max_pool2d", 10),  # the same of a maximum, also in 16 bits
        ("nn.functional.instance_norm", 3),  # statistics with momentum 0 move by rounding alone
    ],
)
def test_what_torch_chooses_in_fewer_bits_causes_no_alarm(name, seed):
    row = table.torch_row(name, seed, True, timed=False)
    assert row["class"] == "quiet", row["says"]


@pytest.mark.parametrize("one", [False, True])
def test_a_function_of_torch_without_samples_is_not_judged(one):
    assert table.torch_row("sparse.sampled_addmm", 1, one, timed=False)["class"] == "n/a"


def test_an_element_that_the_first_draws_of_noise_leave_alone_causes_no_alarm():
    """y(1 − y) is 0 in torch where y rounds to 1; only noise in y tells, and a small draw of it may
    round away."""
    for seed in (4, 7, 15):
        row = table.right_row("sigmoid", seed)
        assert row["class"] == "quiet", row["says"]


def test_the_corpus_is_what_it_says():
    mutants = [m for ms in MUTANTS.values() for m in ms]
    assert len(mutants) >= 100
    assert len(MUTANTS) >= 25
    assert max(map(len, MUTANTS.values())) <= 6
    causes = [m.cause for m in mutants]
    assert min(causes.count(c) for c in set(causes)) >= 4
    assert sum(m.frozen for m in mutants) * 3 >= len(mutants) - 2


# What can be a subject -------------------------------------------------------------------------


class Right(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, scale):
        ctx.save_for_backward(x, w)
        ctx.scale = scale
        return scale * x * w

    @staticmethod
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        return (
            (ctx.scale * dy * w).sum_to_size(x.shape),
            (ctx.scale * dy * x).sum_to_size(w.shape),
            None,
        )


class Unsummed(Right):
    @staticmethod
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        return ctx.scale * dy * w, ctx.scale * dy * x, None


class Separate(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return torch.tanh(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx, dy):
        (y,) = ctx.saved_tensors
        return dy * (1 - y * y)


def product(x, w, scale):
    return scale * x * w


def forward(x):
    y = np.tanh(x)
    return y, y


def backward(y, dy):
    return dy * (1 - y * y)


def tensor_rule(x):
    y = torch.tanh(x)
    return y, lambda dy: dy * (1 - y * y)


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    "subject",
    [
        tanh_with(right_slope),
        (forward, backward),
        tensor_rule,
        Separate,
        Separate.apply,
        lambda x: Separate.apply(x),
        torch.tanh,
        torch.nn.Tanh(),
        "tanh",
    ],
    ids=["rule", "pair", "tensors", "Function", "apply", "callable", "torch", "module", "name"],
)
@pytest.mark.parametrize("against", [torch.tanh, "tanh", None], ids=["torch", "name", "nothing"])
def test_every_kind_of_subject(subject, against):
    report = check(subject, against, [X])
    assert report.passed, str(report)
    assert report.cause is None
    report.raise_for_failure()


@pytest.mark.parametrize(
    "subject",
    [
        tanh_with(lambda x, y, dy: dy * (1 - y)),
        (forward, lambda y, dy: dy * (1 - y)),
        lambda x: (torch.tanh(x), lambda dy: dy * (1 - torch.tanh(x))),
        type(
            "Wrong",
            (Separate,),
            {"backward": staticmethod(lambda ctx, dy: dy * (1 - ctx.saved_tensors[0]))},
        ),
    ],
    ids=["rule", "pair", "tensors", "Function"],
)
@pytest.mark.parametrize("against", [torch.tanh, None], ids=["torch", "nothing"])
def test_every_kind_of_subject_can_be_wrong(subject, against):
    report = check(subject, against, [X], probes=["ordinary"])
    assert not report.passed
    with pytest.raises(AssertionError, match="WRONG"):
        report.raise_for_failure()


def test_settings_of_a_function_are_put_into_their_places():
    check(Right, product, [X, V], {"scale": 3.0}).raise_for_failure()


def test_the_own_gradient_is_judged_not_what_the_engine_makes_of_it():
    """torch sums what was broadcast before anyone can see that the backward forgot to."""
    x, w = (torch.tensor(a, requires_grad=True) for a in (X, V))
    assert torch.autograd.gradcheck(lambda x, w: Unsummed.apply(x, w, 3.0), (x, w))
    report = check(Unsummed, product, [X, V], {"scale": 3.0})
    assert report.cause.name == "broadcast"


def test_a_function_is_tried_in_half_precision():
    report = check(torch.tanh, torch.tanh, [X])
    assert {"float16", "bfloat16"} <= set(report.table["dtype"])


def test_what_overflows_in_half_precision_alone_is_wrong():
    def there_and_back(x):
        return x * 2.0**12 / 2.0**12

    report = check(there_and_back, torch.clone, [20 * X])
    wrong = report.failed
    assert set(wrong["dtype"]) == {"float16"}, str(report)


# Causes ----------------------------------------------------------------------------------------


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    ("cause", "slope"),
    [
        ("factor", lambda x, y, dy: 1.0005 * dy * (1 - y * y)),
        ("factor", lambda x, y, dy: dy * (1 - y * y) / dy.size),
        ("sign", lambda x, y, dy: -dy * (1 - y * y)),
        ("cotangent", lambda x, y, dy: 1 - y * y),
        ("cotangent", lambda x, y, dy: dy * dy * (1 - y * y)),
        ("cotangent", lambda x, y, dy: abs(dy) * (1 - y * y)),
        ("misplaced", lambda x, y, dy: (dy * (1 - y * y))[..., ::-1] if dy.ndim else dy),
        ("range", lambda x, y, dy: np.where(x > 3, 0, dy * (1 - y * y))),
        ("precision", lambda x, y, dy: dy * (1 - np.tanh(x.astype(np.float32)) ** 2)),
        ("dtype", lambda x, y, dy: (dy * (1 - y * y)).astype(np.float32)),
        ("shape", lambda x, y, dy: (dy * (1 - y * y))[..., :1]),
        ("missing gradient", lambda x, y, dy: None),
        ("raises", lambda x, y, dy: dy / np.zeros(0)),
        ("contract", lambda x, y, dy: (dy, dy)),
        ("contract", lambda x, y, dy: np.ones(x.shape, int)),
        ("contract", lambda x, y, dy: torch.from_numpy(np.array(dy * (1 - y * y)))),
        ("contract", lambda x, y, dy: "gradient"),
    ],
)
def test_the_cause_is_named(cause, slope):
    report = check(tanh_with(slope), torch.tanh, [X])
    assert not report.passed
    assert report.cause.name == cause, str(report)
    assert str(report.cause) in str(report)


def test_the_element_is_named():
    def slope(x, y, dy):
        dx = dy * (1 - y * y)
        if dx.shape == (3, 4):
            dx[1, 2] *= 1 + 1e-9
        return dx

    first = check(tanh_with(slope), torch.tanh, [X]).failed.iloc[0]
    assert (first["argument"], first["index"], first["dtype"]) == ("x", "[1, 2]", "float64")


def test_a_kink_is_named():
    def relu(x):
        return np.where(x > 0, x, 0), lambda dy: np.where(x >= 0, dy, 0)

    assert check(relu, torch.relu, [X]).cause.name == "kink"


def test_a_layout_is_named():
    slope = tanh_with(lambda x, y, dy: dy.ravel(order="K").reshape(dy.shape) * (1 - y * y))
    assert check(slope, torch.tanh, [X]).cause.name == "layout"


def test_a_change_of_dy_is_named():
    def slope(x, y, dy):
        dy *= 1 - y * y
        return dy

    assert check(tanh_with(slope), torch.tanh, [X]).cause.name == "mutation"


def test_what_depends_on_earlier_calls_is_named():
    cache = {}

    def tanh(x):
        y = cache.setdefault(x.shape, np.tanh(x))
        return np.tanh(x), lambda dy: dy * (1 - y.astype(dy.dtype) ** 2)

    assert check(tanh, torch.tanh, [X]).cause.name == "state"


def test_swapped_gradients_are_named():
    def multiply(a, b):
        return a * b, lambda dy: (dy * a, dy * b)

    assert check(multiply, torch.mul, [X, X[::-1] + 1]).cause.name == "swapped"


def test_a_tiny_wrong_gradient_is_caught():
    def tiny(x):
        return 1e-7 * x, lambda dy: -1e-7 * dy

    assert check(tiny, lambda x: 1e-7 * x, [X]).cause.name == "sign"


# Oracles ---------------------------------------------------------------------------------------


def test_the_report_says_who_stands_alone():
    wrong = check(tanh_with(lambda x, y, dy: dy), torch.tanh, [X])
    assert {v.alone for v in wrong.votes} == {"subject"}
    assert "the subject stands alone" in str(wrong)


def test_a_straight_through_estimator_leaves_the_differences_alone():
    def rounded(x):
        return x + (torch.round(x) - x).detach()

    def rule(x):
        return np.round(x), lambda dy: 1.0 * dy

    report = check(rule, rounded, [0.3 * X])
    assert report.passed
    assert {v.alone for v in report.votes} == {"derivative"}


def test_when_torch_stands_alone_the_subject_is_right():
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return torch.tanh(x)

        @staticmethod
        def backward(ctx, dy):
            return dy

    report = check(tanh_with(right_slope), Wrong.apply, [X], dtypes=["float64"])
    assert {v.alone for v in report.votes} == {"reference"}
    assert (report.table["class"] == REFERENCE_IMPRECISE).any()


def test_another_function_is_told_from_a_wrong_gradient():
    def rule(x):
        y = expit(x)
        return y, lambda dy: dy * y * (1 - y)

    report = check(rule, torch.tanh, [X])
    assert not report.passed
    assert "value" in set(report.failed["argument"])


def test_without_torch_the_wrong_element_is_found():
    def slope(x, y, dy):
        dx = dy * (1 - y * y)
        if dx.shape == (3, 4):
            dx[2, 1] *= 1 + 1e-5
        return dx

    report = check(tanh_with(slope), None, [X])
    assert report.failed.iloc[0]["index"] == "[2, 1]"


# Cost ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("against", [torch.tanh, None], ids=["torch", "nothing"])
def test_the_number_of_calls_does_not_grow_with_the_input(against):
    counts = []
    for rows in (3, 300):
        calls = [0, 0]

        def tanh(x, calls=calls):
            calls[0] += 1
            y = np.tanh(x)

            def pullback(dy):
                calls[1] += 1
                return dy * (1 - y * y)

            return y, pullback

        check(tanh, against, [rng.standard_normal((rows, 40))]).raise_for_failure()
        counts.append(calls)
    small, large = np.array(counts)
    assert (large <= 1.2 * small).all(), counts


# Verdicts --------------------------------------------------------------------------------------


def test_lost_digits_pass_unless_strict():
    def logsigmoid(x):
        y = np.minimum(x, 0) - np.log1p(np.exp(-abs(x)))
        return y, lambda dy: dy * (1 - np.exp(y))

    report = check(logsigmoid, F.logsigmoid, [X])
    assert report.passed
    lost = report.table[report.table["class"] == IMPRECISE]
    assert lost["note"].str.contains("digits lost").all()
    assert not check(logsigmoid, F.logsigmoid, [X], strict=True).passed


def test_what_overflows_where_torch_does_not_is_wrong():
    def softmax(x):
        y = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
        return y, lambda dy: y * (dy - (dy * y).sum(-1, keepdims=True))

    report = check(softmax, lambda x: F.softmax(x, -1), [X])
    assert report.cause.name == "range", str(report)


def test_a_probe_that_torch_refuses_is_no_failure():
    report = check(table.right("matmul"), torch.matmul, [X, X.T])
    refused = report.table[report.table["note"].str.contains("refuses")]
    assert len(refused)
    assert (refused["class"] == "n/a").all()


def test_a_constant_may_have_no_gradient():
    def loss(x, target):
        if x.shape != target.shape:
            raise ValueError("expected one shape")
        e = x - target
        return np.mean(e * e), lambda dy: (dy * 2 * e / e.size, None)

    assert check(loss, F.mse_loss, [X, X + V]).cause.name == "missing gradient"
    assert check(loss, F.mse_loss, [X, X + V], constant="target").passed


@pytest.mark.parametrize("factor", [1, 1.001])
def test_a_dict_may_have_no_gradient(factor):
    """The buffers of a network."""

    def scaled(parameters, x, buffers):
        y = x * parameters["w"] + buffers["mean"]
        return y, lambda dy: ({"w": factor * (dy * x).sum(0)}, dy * parameters["w"])

    def truth(parameters, x, buffers):
        return x * parameters["w"] + buffers["mean"]

    call, few = [{"w": V}, X, {"mean": 2 * V}], {"dtypes": ["float64"], "probes": ["as given"]}
    assert check(scaled, truth, call, constant="buffers", **few).passed == (factor == 1)


def test_lints_come_before_the_verdict():
    def rule(x):
        return np.tanh(x), lambda dy: dy * (1 - np.tanh(x) ** 2)

    saturated = check(rule, torch.tanh, [40 + abs(X)])
    assert any("near zero" in w for w in saturated.warnings)
    single = check(rule, torch.tanh, [X.astype(np.float32)])
    assert any("float32" in w for w in single.warnings)
    kink = check(table.named_rule("relu"), torch.relu, [np.zeros(3)])
    assert any("kink" in w for w in kink.warnings)
    noise = np.random.default_rng(0)
    drawn = check(
        tanh_with(lambda x, y, dy: dy * (1 - y * y) * (1 + 1e-17 * noise.random())), torch.tanh, [X]
    )
    assert drawn.passed


def test_randomness_is_named():
    noise = np.random.default_rng(0)
    random = tanh_with(lambda x, y, dy: dy * (1 - y * y) * noise.random())
    report = check(random, torch.tanh, [X])
    assert report.cause.name == "state"
    assert any("unseeded" in w for w in report.warnings)


def test_a_random_reference_is_refused():
    with pytest.raises(ValueError, match="different results"):
        check(lambda x: (x, lambda dy: dy), lambda x: F.dropout(x), [X])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"arrays": X}, TypeError),
        ({"arrays": [np.arange(3)]}, TypeError),
        ({"arrays": [X], "dtypes": ["float8"]}, ValueError),
        ({"arrays": [X], "settings": 3}, TypeError),
        ({"arrays": [X], "against": "no_such_rule"}, ValueError),
        ({"arrays": [X], "against": 3}, TypeError),
        ({"arrays": None, "against": lambda x: x}, ValueError),
        ({"arrays": [X], "settings": {"no": 1}}, ValueError),
        ({"arrays": [X], "subject": 3}, TypeError),
        ({"arrays": [X], "subject": (forward,)}, TypeError),
    ],
)
def test_wrong_use_is_answered_in_words(arguments, error):
    given = {"subject": tanh_with(right_slope), "against": torch.tanh, **arguments}
    with pytest.raises(error, match=r"(?s)expected|refuses|needed"):
        check(**given)


def test_a_report_can_be_shown():
    report = check(tanh_with(lambda x, y, dy: dy), torch.tanh, [X])
    assert "<table" in report._repr_html_()
    columns = {"id", "sample", "probe", "argument", "dtype", "class", "margin", "resolution"}
    assert columns <= set(report.table.columns)
    assert report.table["id"].is_unique


def test_a_wrong_gradient_is_not_excused_by_raising_nearby():
    def tanh(x):
        if x.dtype == np.float32 or not np.isin(abs(x), abs(X)).all():
            raise ValueError("only these numbers")
        return np.tanh(x), lambda dy: dy * (1 + np.tanh(x))

    report = check(tanh, torch.tanh, [X], dtypes=["float64"])
    own = report.failed[report.failed["probe"] == "as given"]
    assert set(own["class"]) == {UNDECIDED}
    assert not report.passed


def test_a_subject_that_stops_answering_fails_also_where_its_own_loss_is_measured():
    """Without a reference it is asked again in float32: that it raises then is its own fault."""
    asked = []

    def rule(x):
        asked.append(x.dtype)
        if asked.count(np.dtype(np.float32)) > 2:
            raise RuntimeError("no more")
        slope = np.exp(x) - 1  # loses digits, so that more than the first term is needed

        def pullback(dy):
            return dy * slope

        return slope - x, pullback

    table = check(rule, None, [X * 1e-3]).table
    own = table[(table["probe"] == "as given") & (table["dtype"] == "float32")]
    assert list(own["class"]) == ["different"]
    assert "the subject raises RuntimeError: no more" in own["note"].iloc[0]
