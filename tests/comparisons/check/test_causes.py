"""A cause is found in what was found wrong, whoever found it, and whatever it raises on the way."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from gradtwin.comparisons.check import causes
from gradtwin.comparisons.check.adapt import Misuse, of_torch, subject_of
from gradtwin.comparisons.check.causes import Cause, diagnose, transposed
from gradtwin.comparisons.check.findings import (
    MUTATED,
    NO_GRADIENT,
    NOT_FINITE,
    OUTSIDE,
    RAISED,
    WRONG_DTYPE,
    WRONG_SHAPE,
    Finding,
    error_of,
)
from gradtwin.comparisons.check.probes import (
    CALLS,
    FAR,
    KINK,
    LAYOUT,
    ORDINARY,
    OWN,
    Probe,
)
from gradtwin.comparisons.check.votes import Vote
from gradtwin.comparisons.ops.arguments import array_names
from gradtwin.reference.adapters import tensor

rng = np.random.default_rng(0)
X, Z, V, WIDE = (rng.standard_normal(shape) for shape in ((3, 4), (3, 4), 4, 64))
W = rng.standard_normal((4, 2))
S = rng.standard_normal((3, 3))


# What was tried, and what was found -------------------------------------------------------------


@dataclass(frozen=True)
class Evaluation:
    inputs: tuple


@dataclass
class Tried:
    """A call, with the findings that a test makes of it."""

    subject: object
    right: object
    reference: object
    order: list
    settings: tuple = ()
    base: Evaluation | None = None
    random: bool = False
    votes: tuple = ()
    findings: list = field(default_factory=list)

    def truth(self, inputs):
        return self.reference(inputs)  # by the names of the reference's own arguments

    def found(self, name, traits, arrays, dtype="float64", lay=None):
        """Notes all that is wrong at one probe; `lay` is done to dy before the subject has it."""
        args = tuple(np.asarray(a, dtype) for a in arrays)
        y, pullback = self.right.run([a.astype(float) for a in args], {})
        dy = np.random.default_rng(len(name)).standard_normal(y.shape).astype(dtype)
        truths = self.right.results(y, pullback(dy.astype(float)), self.order)
        self.base = self.base or Evaluation((args, {}, dy))
        probe = Probe(name, args, {}, frozenset(traits))

        def note(kind, result="", **more):
            self.findings.append(Finding(kind, probe, result, dtype, (args, {}, dy), **more))

        passed = [a.copy() for a in (*args, dy)]
        try:
            y, pullback = self.subject.run(passed[:-1], {})
            gradients = pullback(lay(passed[-1]) if lay else passed[-1])
            results = self.subject.results(y, gradients, self.order)
        except Exception as error:
            note(RAISED, error=error_of(error))
            return
        for n, before, after in zip([*self.order, "dy"], [*args, dy], passed, strict=True):
            if before.tobytes() != after.tobytes():
                note(MUTATED, n)
        for n, ours in results.items():
            x, truth = dict(zip(self.order, args, strict=True)).get(n), truths[n]
            more = {"argument": x, "ours": ours, "truth": truth if self.reference else None}
            if ours is None:
                note(NO_GRADIENT, n, argument=x)
            elif ours.shape != truth.shape:
                note(WRONG_SHAPE, n, **more)
            elif ours.dtype != dtype:
                note(WRONG_DTYPE, n, **more)
            else:
                outside = ~np.isclose(ours, truth, 1e-11 if dtype == "float64" else 1e-5, 1e-13)
                kind = OUTSIDE if np.isfinite(ours).all() else NOT_FINITE
                if outside.any():
                    note(kind, n, **more, outside=outside)


def tried(rule, against, arrays, alone=False, **more):
    """A call that was not tried anywhere yet. One that is `alone` has no reference."""
    subject, right = subject_of(rule, arrays, {}), of_torch(against, None, convert=tensor)
    order = array_names(arrays, {}, subject.signature)
    return Tried(subject, right, None if alone else right, order, **more)


def ordinary(rule, against, arrays, dtype="float64", **more):
    """A call that was tried at three ordinary points, all of which a cause has to reproduce."""
    call = tried(rule, against, arrays, **more)
    call.found("as given", {OWN, ORDINARY}, arrays, dtype)
    call.found("another dy", {ORDINARY}, arrays, dtype)
    call.found("mixed", {ORDINARY}, [0.7 * a[::-1] + 0.1 for a in arrays], dtype)
    return call


def renamed(call):
    """The same with probes of which the names say nothing."""
    probes = {id(f.probe): replace(f.probe, name="p") for f in call.findings}
    return replace(call, findings=[replace(f, probe=probes[id(f.probe)]) for f in call.findings])


def name_of(call):
    """The name of the cause, which hangs on no name of a probe."""
    cause = diagnose([call])
    named = cause and cause.name
    assert (other := diagnose([renamed(call)])) is None or other.name == named
    assert bool(other) == bool(cause)
    return named


# Causes ----------------------------------------------------------------------------------------


def tanh_with(slope, named=True):
    def tanh(x):
        y = np.tanh(x)
        return y, lambda dy: slope(x, y, dy)

    def anonymous(*arrays):
        return tanh(*arrays)

    return tanh if named else anonymous


def half(a):
    return a.astype(np.float16).astype(a.dtype)


SLOPES = [
    ("factor", lambda x, y, dy: 1.0005 * dy * (1 - y * y)),
    ("factor", lambda x, y, dy: dy * (1 - y * y) / dy.size),
    ("factor", lambda x, y, dy: dy * dy.size * (1 - y * y)),
    ("sign", lambda x, y, dy: -dy * (1 - y * y)),
    ("missing term", lambda x, y, dy: np.zeros_like(x)),
    ("cotangent", lambda x, y, dy: 1 - y * y),
    ("cotangent", lambda x, y, dy: dy * dy * (1 - y * y)),
    ("cotangent", lambda x, y, dy: abs(dy) * (1 - y * y)),
    ("cotangent", lambda x, y, dy: np.broadcast_to(dy.mean(0), dy.shape) * (1 - y * y)),
    ("misplaced", lambda x, y, dy: (dy * (1 - y * y))[..., ::-1]),
    ("precision", lambda x, y, dy: dy * (1 - np.tanh(x.astype(np.float32)) ** 2)),
    ("precision", lambda x, y, dy: dy * half(1 - y * y)),
    ("range", lambda x, y, dy: np.where(x > 0.3, 0.9, 1) * dy * (1 - y * y) * (x <= 0.3)),
    ("factor", lambda x, y, dy: np.where(x < 0, 0.7, 1) * dy * (1 - y * y)),
]


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    ("named", "alone"),
    [
        pytest.param(True, False, id="x-torch"),
        pytest.param(False, True, id="*arrays-nothing"),
        pytest.param(True, True, id="x-nothing", marks=pytest.mark.sweep),
        pytest.param(False, False, id="*arrays-torch", marks=pytest.mark.sweep),
    ],
)
@pytest.mark.parametrize(("cause", "slope"), SLOPES)
def test_a_wrong_slope(cause, slope, named, alone):
    if alone and cause == "factor" and slope is SLOPES[-1][1]:
        cause = "range"  # differences show that elements differ, not that all do alike
    assert name_of(ordinary(tanh_with(slope, named), torch.tanh, [X], alone=alone)) == cause


TWO = [
    ("swapped", lambda a, b, dy: (dy * a, dy * b), torch.mul, [X, Z]),
    ("swapped", lambda a, b, dy: (-dy * a, -dy * b), torch.mul, [X, Z]),
    ("elementwise factor", lambda a, b, dy: (dy * b * b, dy * a), torch.mul, [X, Z]),
    ("elementwise factor", lambda a, b, dy: (dy, dy * a), torch.mul, [X, Z]),
    ("broadcast", lambda a, b, dy: (dy, dy), torch.add, [X, V]),
    ("factor", lambda a, b, dy: (dy, dy.mean(0)), torch.add, [X, V]),
    ("broadcast", lambda a, b, dy: (dy, dy[-1]), torch.add, [X, V]),
    ("transpose", lambda a, b, dy: (dy @ b.T, dy.T @ a), torch.matmul, [X, W]),
    ("transpose", lambda a, b, dy: (dy @ b, a.T @ dy), torch.matmul, [X, S]),
    ("swapped", lambda a, b, dy: (a.T @ dy, dy @ b.T), torch.matmul, [X, W]),
    ("transpose", lambda a, b, dy: (dy @ b, a.T @ dy), torch.matmul, [S, S + 1]),
]


@pytest.mark.parametrize(
    "named",
    [pytest.param(True, id="a, b", marks=pytest.mark.sweep), pytest.param(False, id="*arrays")],
)
@pytest.mark.parametrize(("cause", "pull", "against", "arrays"), TWO)
def test_a_wrong_gradient_of_two(cause, pull, against, arrays, named):
    def both(a, b):
        value = against(torch.tensor(a), torch.tensor(b)).numpy()
        return value, lambda dy: pull(a, b, dy)

    def anonymous(*arrays):
        return both(*arrays)

    if against is torch.matmul and arrays[1] is S:
        arrays = [X.T, S]
    assert name_of(ordinary(both if named else anonymous, against, arrays)) == cause


@pytest.mark.parametrize("named", [True, False], ids=["x", "*arrays"])
def test_a_forgotten_path(named):
    def gated(x):
        return x * np.tanh(x), lambda dy: dy * np.tanh(x)

    def anonymous(*arrays):
        return gated(*arrays)

    call = ordinary(gated if named else anonymous, lambda x: x * torch.tanh(x), [X])
    assert name_of(call) == "missing term"
    assert "without its part through" in diagnose([call]).text


def test_the_factor_of_a_path_is_a_setting():
    def leaky(x):
        return x * np.tanh(x), lambda dy: dy * (np.tanh(x) + 0.3 * x * (1 - np.tanh(x) ** 2))

    call = ordinary(leaky, lambda x: x * torch.tanh(x), [X], settings=(0.3,))
    assert "the setting 0.3 times what it should be in its part" in str(diagnose([call]))


@pytest.mark.parametrize("keep", ["first", "last"])
def test_overwritten_contributions(keep):
    rows = [0, 1, 0, 2]

    def taken(x):
        def pullback(dy):
            dx = np.zeros_like(x)
            for k in range(4)[:: 1 if keep == "last" else -1]:
                dx[rows[k]] = dy[k]
            return dx

        return x[rows], pullback

    assert name_of(ordinary(taken, lambda x: x[rows], [X])) == "overwritten"


@pytest.mark.parametrize("alone", [False, True], ids=["torch", "nothing"])
def test_a_kink(alone):
    def relu(x):
        return np.where(x > 0, x, 0), lambda dy: np.where(x >= 0, dy, 0)

    call = tried(relu, torch.relu, [X], alone)
    call.found("some zeros", {KINK}, [np.where(X > 0.3, 0.0, X)])
    assert name_of(call) == "kink"


@pytest.mark.parametrize("alone", [False, True], ids=["torch", "nothing"])
def test_a_layout(alone):
    slope = tanh_with(lambda x, y, dy: dy.ravel(order="K").reshape(dy.shape) * (1 - y * y))
    call = tried(slope, torch.tanh, [X], alone)
    call.found("Fortran order dy", {LAYOUT}, [X], lay=np.asfortranarray)
    assert name_of(call) == "layout"


def test_an_earlier_call():
    cache = {}

    def tanh(x):
        y = cache.setdefault(x.shape, np.tanh(x))
        return np.tanh(x), lambda dy: dy * (1 - y**2)

    call = ordinary(tanh, torch.tanh, [X])
    assert name_of(call) == "state"
    assert "that of an earlier call (mixed)" in diagnose([call]).text


def test_other_calls_around():
    call = tried(tanh_with(lambda x, y, dy: dy), torch.tanh, [X])
    call.found("after later calls", {CALLS}, [X])
    assert name_of(call) == "state"


def test_chance():
    call = ordinary(tanh_with(lambda x, y, dy: dy), torch.tanh, [X], random=True)
    assert name_of(call) == "state"


def test_what_only_float32_has():
    slope = tanh_with(lambda x, y, dy: (2 if x.dtype == np.float32 else 1) * dy * (1 - y * y))
    assert name_of(ordinary(slope, torch.tanh, [X], "float32")) == "factor"


def test_odd_points_alone():
    call = tried(tanh_with(lambda x, y, dy: dy * (1 - y * y) + 0.1 * x * dy), torch.tanh, [X])
    call.found("× 32", {FAR}, [X])
    assert str(diagnose([call])) == "range: right at ordinary points, wrong at: × 32"


def test_the_value_itself():
    def tanh(x):
        y = np.tanh(x)
        return y + 0.1 * np.sin(5 * x), lambda dy: dy * (1 - y * y)

    assert name_of(ordinary(tanh, torch.tanh, [X])) == "forward"

    def fitting(x):
        y = np.tanh(x)
        return y + np.sin(5 * x), lambda dy: dy * (1 - y * y + 5 * np.cos(5 * x))

    vote = Vote("x", 1.0, 2.0, 1.0, 0.0, "reference")
    assert "its gradients fit it" in str(
        diagnose([ordinary(fitting, torch.tanh, [X], votes=(vote,))])
    )


def test_what_overflows():
    def softmax(x):
        y = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
        return y, lambda dy: y * (dy - (dy * y).sum(-1, keepdims=True))

    call = tried(softmax, lambda x: torch.softmax(x, -1), [X])
    with np.errstate(all="ignore"):
        call.found("× 2²⁰", {FAR}, [X * 2.0**20])
        assert {f.kind for f in call.findings} == {NOT_FINITE}
        assert name_of(call) == "range"


# What needs no search --------------------------------------------------------------------------


def refuse(x, y, dy):
    raise RuntimeError("the buffer was changed in place by someone else: shape None instead")


def misuse(x, y, dy):
    raise Misuse("raises shape dtype None instead, changed in place")


def write(x, y, dy):
    dy *= 1 - y * y
    return dy


@pytest.mark.parametrize(
    ("cause", "slope"),
    [
        ("raises", refuse),
        ("contract", misuse),
        ("contract", lambda x, y, dy: (dy, dy)),
        ("contract", lambda x, y, dy: "gradient"),
        ("mutation", write),
        ("missing gradient", lambda x, y, dy: None),
        ("shape", lambda x, y, dy: dy.ravel()),
        ("broadcast", lambda x, y, dy: dy[None] + np.zeros((2, 3, 4))),
        ("transpose", lambda x, y, dy: dy.T),
        ("dtype", lambda x, y, dy: (dy * (1 - y * y)).astype(np.float64)),
    ],
)
def test_what_no_rule_does(cause, slope):
    dtype = "float32" if cause == "dtype" else "float64"
    assert name_of(ordinary(tanh_with(slope), torch.tanh, [X], dtype)) == cause


def test_what_is_not_finite_in_half_precision_comes_last():
    call = ordinary(tanh_with(lambda x, y, dy: 2 * dy * (1 - y * y)), torch.tanh, [X])
    lost = Finding(NOT_FINITE, call.findings[0].probe, "x", "float16", call.findings[0].inputs)
    both, only = replace(call, findings=[lost, *call.findings]), replace(call, findings=[lost])
    assert name_of(both) == "factor"
    assert name_of(only) == "range"
    assert diagnose([replace(call, findings=[])]) is None


def test_the_first_call_that_has_a_cause():
    right = tried(tanh_with(lambda x, y, dy: dy), torch.tanh, [X])
    wrong = ordinary(tanh_with(lambda x, y, dy: -dy * (1 - y * y)), torch.tanh, [X])
    assert diagnose([right, wrong]).name == "sign"
    assert diagnose([]) is None


# The net ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "named",
    [pytest.param(True, id="x", marks=pytest.mark.sweep), pytest.param(False, id="*arrays")],
)
@pytest.mark.thinned(2)
@pytest.mark.parametrize(("cause", "slope"), [SLOPES[i] for i in (0, 3, 5, 10, 11)])
def test_more_elements_than_get_a_derivative_each(cause, slope, named):
    call = ordinary(tanh_with(slope, named), torch.tanh, [WIDE], alone=True)
    assert name_of(call) == cause


def test_a_call_whose_rows_hang_together():
    """36 elements are cut to 5 rows of 6, which have no inverse."""

    def inverse(x):
        y = np.linalg.inv(x)
        return y, lambda dy: -y.T @ dy @ y.T + 0.01 * np.roll(dy, 1)

    for _ in range(3):
        call = ordinary(inverse, torch.linalg.inv, [np.eye(6) + rng.random((6, 6))], alone=True)
        assert call.findings
        assert diagnose([call]) is None


def test_what_a_search_raises_ends_that_search_alone(monkeypatch):
    def broken(*args):
        raise np.linalg.LinAlgError("singular")
        yield

    sign = ordinary(tanh_with(lambda x, y, dy: -dy * (1 - y * y)), torch.tanh, [X])
    monkeypatch.setattr(causes, "PLAIN", (broken, *causes.PLAIN))
    monkeypatch.setattr(causes, "SEARCHED", (broken, *causes.SEARCHED))
    monkeypatch.setattr(causes, "CANDIDATES", (broken, *causes.CANDIDATES))
    assert diagnose([sign]).name == "sign"
    monkeypatch.setattr(transposed, "np", None)
    monkeypatch.setattr(causes, "CANDIDATES", (transposed.rearranged, *causes.CANDIDATES))
    assert diagnose([sign]).name == "sign"


def test_nobody_is_kept_from_ending_it(monkeypatch):
    def ended(*args):
        raise KeyboardInterrupt
        yield

    sign = ordinary(tanh_with(lambda x, y, dy: -dy * (1 - y * y)), torch.tanh, [X])
    monkeypatch.setattr(causes, "SEARCHED", (ended,))
    with pytest.raises(KeyboardInterrupt):
        diagnose([sign])


def test_a_subject_that_answers_no_more():
    def once(x):
        if once.spent:
            raise RuntimeError("no more")
        return np.tanh(x), lambda dy: dy

    once.spent = False
    call = ordinary(once, torch.tanh, [X])
    once.spent = True
    assert diagnose([call]) is None


def test_a_cause_is_a_name_and_a_sentence():
    assert str(Cause("sign", "of the wrong sign")) == "sign: of the wrong sign"
