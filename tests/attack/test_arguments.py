"""Every rule, optimizer and schedule, and the tape, before strange arguments: where torch refuses a
call, so do we, by name, and nothing else is ever raised."""

import datetime
import decimal
import fractions
import inspect
import warnings

import numpy as np
import pytest
from gradtwin.comparisons import ops
from gradtwin.comparisons.gradients.bad_calls import bases
from gradtwin.comparisons.ops import evaluate, optimizers
from gradtwin.comparisons.ops.bad_calls import outcome
from gradtwin.comparisons.optimizers import bad_calls as stepping
from gradtwin.comparisons.samples.schedules import SAMPLES
from gradtwin.comparisons.schedules import table
from gradtwin.manual.tape import Tensor

from gradtwin import manual, reference

RULES = [name for name in ops.names() if ops.named(name).mirror]
STEPPING = [optimizer.name for optimizer in optimizers.every() if optimizer.mirror]
# Of what torch's own constructors make no tensor and no number.
THINGS = (
    *(None, "wrong", "", b"wrong", bytearray(b"x"), object(), 1j, 2**70, -(2**70)),
    *([], {}, set(), [None], ["a"], ("a", 1), {"a": 1}, iter([1.0]), range(0, 3, 2)),
    *(decimal.Decimal("0.5"), fractions.Fraction(1, 2), datetime.date(2020, 1, 1), Ellipsis),
    *(np.array("a"), np.array(b"a"), np.array(None), np.array([None, 1.0])),
    *(np.zeros(3, "M8[s]"), np.zeros(3, ">f8"), np.zeros(3, np.longdouble), np.zeros(2, "f8,i4")),
    *(Tensor(np.ones(3)), np.zeros((2, 3), ">i8"), [1.0, 2.0], [[1.0], [2.0]]),
)
# The mirror makes a tensor of every array, also of one for a setting at which torch does not look.
UNLOOKED = ("can't convert np.ndarray", "given numpy array has byte order")


def strange(rule, args, kwargs, rng):
    """The call with one to three of its arguments exchanged for strange things, and whether an
    array came in place of something else."""
    bound, beside = inspect.signature(rule).bind(*args, **kwargs), False
    names = [
        name
        for name, parameter in bound.signature.parameters.items()
        if name in bound.arguments or parameter.default is not parameter.empty
    ]
    for name in rng.choice(names, min(int(rng.integers(1, 4)), len(names)), replace=False):
        thing = THINGS[rng.integers(len(THINGS))]
        parameter = bound.signature.parameters[name]
        was = bound.arguments.get(name, parameter.default)
        beside |= isinstance(thing, np.ndarray) and not isinstance(was, np.ndarray)
        several = parameter.kind is parameter.VAR_POSITIONAL
        bound.arguments[name] = (*was[:-1], thing) if several else thing
    return bound.args, bound.kwargs, beside


def check(ours, theirs, names, beside, told):
    """Where torch refuses, we do; and what we raise, names an argument."""
    said, refuses = outcome(ours, names)
    assert refuses or said == "computes", (told, said)
    if refuses:
        return
    try:
        with warnings.catch_warnings(action="ignore"):
            theirs()
    except Exception as error:
        if not (beside and str(error).startswith(UNLOOKED)):
            pytest.fail(f"{told}: accepted, and torch says {type(error).__name__}: {error}")


@pytest.fixture
def calls(sweep):
    """How many are made of each."""
    return 100 if sweep else 10


@pytest.mark.parametrize("op", RULES)
def test_a_rule_refuses_what_torch_refuses(op, calls):
    ours, twin = ops.named(op).pair
    rng, every = np.random.default_rng(list(op.encode())), list(bases(op))
    for _ in range(calls):
        args, kwargs = every[rng.integers(len(every))]
        if hasattr(twin, "draw"):
            kwargs = kwargs | twin.draw(*args, **kwargs)
        args, kwargs, beside = strange(ours, args, kwargs, rng)

        def theirs(args=args, kwargs=kwargs):
            y, pullback = twin(*args, **kwargs)
            pullback(evaluate.cotangent(y, pullback.constant, 0))

        names = list(inspect.signature(ours).parameters)
        check(lambda a=args, k=kwargs: ours(*a, **k), theirs, names, beside, (op, args, kwargs))


@pytest.mark.parametrize("name", STEPPING)
def test_an_optimizer_refuses_what_torch_refuses(name, calls):
    optimizer = optimizers.named(name)
    ours, twin = optimizer.rule, optimizer.mirror
    rng, base = np.random.default_rng(list(name.encode())), stepping.base(optimizer.facts.takes)
    names = [*inspect.signature(ours).parameters, "values", "indices"]
    for _ in range(calls):
        args, kwargs, beside = strange(ours, base, {}, rng)
        check(
            lambda a=args, k=kwargs: ours(*a, **k),
            lambda a=args, k=kwargs: twin(*a, **k),
            names,
            beside,
            (name, args, kwargs),
        )


@pytest.mark.parametrize("name", SAMPLES)
def test_a_schedule_refuses_what_torch_refuses(name, calls):
    ours, twin = getattr(manual.schedules, name), getattr(reference.schedules, name)
    rng = np.random.default_rng(list(name.encode()))
    for _ in range(calls):
        settings = {"lr": table.LR} | SAMPLES[name][rng.integers(len(SAMPLES[name]))]
        args, kwargs, beside = strange(ours, (table.inputs(name),), settings, rng)
        check(
            lambda a=args, k=kwargs: ours(*a, **k),
            lambda a=args, k=kwargs: twin(*a, **k),
            list(inspect.signature(ours).parameters),
            beside,
            (name, args, kwargs),
        )
