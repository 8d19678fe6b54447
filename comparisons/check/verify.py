"""Is a gradient right, and if not, what is wrong with it?"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...reference.adapters import is_differentiable, leaves
from ..ops.arguments import gradient_name
from ..report import tables
from ..verdict.classes import DTYPES, HALF_DTYPES
from ..verdict.differences import EDGE, JUMP, KINK
from ..verdict.noise import is_floating
from .again import line
from .calls import calls_of
from .causes import diagnose
from .causes.facts import facts
from .derived import Backward, ForwardMode, derived_from
from .findings import UNSUPPORTED
from .pace import InTime, Pace, Told
from .probes import SHAPE, Wanted
from .report import Report, note, row
from .smallest import smallest
from .stages import STEPS, Asked, Judged, judging, tried
from .targets import Target, target_of
from .trials import Trials

KINKS_OF = ("torch", "any")


def check(
    subject: Any,
    against: Any = None,
    arrays: Sequence[Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    dtypes: Sequence[str] = DTYPES,
    strict: bool = False,
    *,
    constant: str = "",
    seed: int = 0,
    domain: Callable[[np.ndarray], Any] | None = None,
    probes: Sequence[str] = (),
    kinks: str = "torch",
    gradient: Any = None,
    allow: float = 0.0,
    order: int = 1,
    forward_mode: bool = False,
    rounds_once: bool = False,
    quick: bool = False,
    thorough: bool = False,
    budget: float | None = None,
    progress: Told | None = None,
    names: Any = None,
    steps: int = 0,
    optimizer: Any = None,
) -> Any:
    """Examines a backward pass, and names what is wrong with it, in a Report; of two modules
    of torch, a ModulesReport says whether the one is the other (below).

    subject   a rule `f(*arrays, **settings) → (y, pullback)`; a pair `forward(*arrays, **settings)
              → (y, saved)`, `backward(saved, dy) → gradients`, or (dy, saved); a function that
              returns (loss, gradient, …); an object with forward and backward (with its parameters:
              `functional`); a torch.autograd.Function; a torch callable whose backward somebody
              wrote; a function of JAX; a layer of Keras; or the name of one of our rules
    against   a torch callable, or the name of one of our rules; with nothing, the subject is held
              to differences of its own forward, with their own error estimate
    arrays    the positional arguments of one call, arrays of any floating dtype; without them our
              samples of the op are taken, or torch's own
    settings  the keyword arguments of the call
    dtypes    that are judged, of float64, float32, bfloat16 and float16; a torch callable is in
              the last two as well, at its own point
    strict    whether a rule that is right but loses digits fails, or one that is wrong for what
              the call does not show to be meant: other shapes, a wider dtype than it was given
    constant  names of floating arguments that have no gradient on purpose
    domain    a function that brings any array into the domain of the subject (projects,
              symmetrises, normalises), or raises: it is applied to every floating array that is
              not the caller's own
    probes    of the points and layouts that are tried beside the call itself, the names or traits
              (ordinary, layout, kink, shape, foreign, far) of those wanted; with a minus before
              it, of one that is not
    kinks     "torch": at a kink the gradient must be that of torch; "any": any between the slopes
              around it is accepted
    gradient  a torch callable, or the name of one of our rules, whose gradient is meant where that
              is not the derivative of `against`: a straight-through estimator, a reversal
    allow     a relative deviation of a result (norm of the difference over norm) that is accepted
              and reported
    order     2: of a subject of torch, the second derivatives are judged as well, which torch makes
              from its backward; at all points but kinks
    rounds_once   whether it is known of a kernel of 16 bits that it computes in float32 and rounds
              once, to which it is held then: one rounding, in the place of some thirty
    quick     whether only the few probes are tried that find most mistakes
    thorough  whether those are tried as well that found nothing which others do not find too
    forward_mode  whether its forward mode (a Function's `jvp`) is judged as well
    budget    seconds after which nothing more is begun: the verdict is on what was judged till
              then, and what was not is n/a; the first evaluation of all is always judged
    progress  a function that is called with the number of steps done, and of those known of

    names     of two modules, what is called otherwise in the subject: a mapping from the name of a
              parameter, buffer or submodule of the subject to that of the other's, which may be
              cut, turned or joined ("attn.qkv.weight[:64]", "fc.weight.T", "cat(q.weight,
              k.weight)"); or a function that makes the state of the subject from that of the other
    steps     of two modules, how many steps both are trained on, each from the other's own state
    optimizer   makes the optimizer of either from the list of its parameters, or from the module;
              or a pair of such functions, for the subject and for the other; with the optimizer,
              in a tuple, it may give a scheduler

    A torch.nn.Module that is held to another one is given copies of its parameters and buffers,
    and is judged at every submodule that both have, innermost first, from what the other's was
    given there: outputs, gradients of inputs and parameters, buffers; then the parameters and the
    optimizer's state after each step. Of the arguments above, arrays, settings, seed, budget,
    progress, names, steps and optimizer say something about that. Instead of the other one,
    `against` may be the file that `record_module` has made of it, a path or a name that ends in
    .npz, which holds the arrays, settings and seed as well; then there are no steps.

    The number of calls does not grow with the arrays. What goes beyond the shapes and sizes of the
    call is tried in a process of its own, because kernels may end theirs. Raises TypeError or
    ValueError for a wrong argument of `check` itself; what is wrong with the subject is in the
    report.
    """
    given = dict(locals())
    _refuse(given)
    pace = Pace(budget, progress)
    two = isinstance(subject, torch.nn.Module) and isinstance(against, torch.nn.Module)
    if is_record(against) or (two and subject is not against):
        with _silenced():  # held to itself, a module is a function like any other
            return _two_modules(given, pace)
    for name in ("names", "steps", "optimizer"):
        if given[name] not in (None, 0):
            raise TypeError(f"{name}: expected two modules of torch beside them")
    target = target_of(against, gradient)
    named = [*target.constant, *constant.replace(",", " ").split()]
    frozen = frozenset(map(gradient_name, named))
    calls = calls_of(subject, target, arrays, dict(settings or {}), frozen)
    chosen = Wanted(probes, thorough, quick)
    asked = Asked(
        tuple(dtypes),
        arrays is None,
        seed,
        chosen,
        domain,
        kinks == "any",
        allow,
        pace,
        rounds_once,
    )
    with _silenced():
        judged = judging(subject, target, asked)
        done = [(t, judged) for t in tried(subject, target, calls, asked, judged)]
        first = tuple(t for t, _ in done if t.base)
        for kind in (Backward,) * (order - 1) + (ForwardMode,) * forward_mode:
            if first:  # else it could not be called
                derived, held, further = derived_from(kind, first, target)
                of_it = asked.of_derived(derived.further)
                judged = judging(derived, held, of_it)
                done += [(t, judged) for t in tried(derived, held, further, of_it, judged)]
        if not pace.over:  # else no probe may have been asked for
            chosen.look_back()
        return _reported(done, given, target, pace)


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """What a subject warns of, at points that nobody may have meant it for, was not asked."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def _refuse(given: Mapping[str, Any]) -> None:
    """Raises TypeError or ValueError for a wrong argument of `check`, by name."""
    every, dtypes, settings = (*DTYPES, *HALF_DTYPES), given["dtypes"], given["settings"]
    if isinstance(dtypes, str) or not dtypes or not set(dtypes) <= set(every):
        raise ValueError(f"dtypes: expected some of {', '.join(every)}, got {dtypes!r}")
    if not isinstance(settings or {}, Mapping):
        raise TypeError(f"settings: expected a mapping, got a {type(settings).__name__}")
    if (kinks := given["kinks"]) not in KINKS_OF:
        raise ValueError(f"kinks: expected {' or '.join(KINKS_OF)}, got {kinks!r}")
    if (domain := given["domain"]) is not None and not callable(domain):
        raise TypeError(f"domain: expected a function of an array, got a {type(domain).__name__}")
    if not 0 <= (allow := given["allow"]) < 1:
        raise ValueError(f"allow: expected a relative deviation from 0 to below 1, got {allow!r}")
    if (order := given["order"]) not in (1, 2):
        raise ValueError(f"order: expected 1 or 2, got {order!r}")
    if given["quick"] and given["thorough"]:
        raise ValueError("quick, thorough: expected one of them at most, got both")


OF_RECORD = ("subject", "against", "budget", "progress", "names")
OF_MODULES = (*OF_RECORD, "arrays", "settings", "seed", "steps", "optimizer")


def is_record(against: Any) -> bool:
    """Whether this is the file of a module that was recorded."""
    return isinstance(against, Path) or (isinstance(against, str) and against.endswith(".npz"))


def _two_modules(given: Mapping[str, Any], pace: Pace) -> Any:
    """Whether a module is another one, which is here or was recorded."""
    from .modules.original import Here
    from .modules.record import Record
    from .modules.stepping import training_of
    from .modules.verify import check_modules  # which looks for causes by `check`

    subject, against, names = (given[name] for name in ("subject", "against", "names"))
    if not is_record(against):
        _refuse_beside(given, OF_MODULES, "two modules of torch")
        training = training_of(given["steps"], given["optimizer"], given["seed"])
        call = given["arrays"] or (), given["settings"] or {}
        here = Here(against, *call, given["seed"], kept=training is not None)
        return check_modules(subject, here, names, pace, training)
    if not isinstance(subject, torch.nn.Module):
        kind = type(subject).__name__
        raise TypeError(f"subject: expected a torch.nn.Module beside a record, got a {kind}")
    _refuse_beside(given, OF_RECORD, "a record, which holds what was given")
    return check_modules(subject, Record(Path(against)), names, pace)


def _refuse_beside(given: Mapping[str, Any], meant: Sequence[str], what: str) -> None:
    """Raises TypeError for what is said and has no meaning there."""
    for name, parameter in inspect.signature(check).parameters.items():
        if name not in meant and given[name] != parameter.default:
            raise TypeError(f"{name}: expected no such argument beside {what}")


def _reported(
    done: Sequence[tuple[Trials, Judged]], given: Mapping[str, Any], target: Target, pace: Pace
) -> Report:
    """What is wrong with it looked into."""
    every = [t for t, _ in done]
    outcomes = [(t, judged, o) for t, judged in done for o in t.outcomes]
    cause, warned = None, tuple(_lints(every, given["arrays"], given["dtypes"]))
    if any(t.findings for t in every):
        cause = diagnose([InTime(t, pace) for t in every])
        if pace.refused:  # what did not answer may have been taken for what is wrong
            cause = None
            warned = (*warned, f"no time was left within {pace.seconds:g} seconds to find a cause")
    report = Report(
        every[0].subject.name,
        target.name,
        given["strict"],
        tables.table(row(t.subject.name, t.sample.text, o) for t, _, o in outcomes),
        cause,
        warned,
        tuple(found for t in every for found in t.votes),
    )
    if (first := report.first) is None:
        return report
    t, judged, outcome = outcomes[int(str(first.name))]
    return replace(
        report,
        facts=() if cause else facts(t),
        again=line(check, given, outcome.probe.name, outcome.dtype),
        search=partial(smallest, t, judged, outcome, pace.left),
    )


def _lints(
    done: Sequence[Trials], arrays: Sequence[Any] | None, dtypes: Sequence[str]
) -> Iterator[str]:
    """What makes a check say less than it seems to."""
    if arrays is not None and all(
        a.dtype in (np.float32, torch.float32)
        for a in leaves(arrays)
        if is_floating(a) or is_differentiable(a)
    ):
        yield "every array came in float32, where only errors 2²⁹ times larger can be seen"
    if "float64" not in dtypes and "float32" in dtypes:
        yield "judged in float32 only, where only errors 2²⁹ times larger can be seen"
    if any(t.spared for t in done):
        yield (
            f"the reference takes more than {STEPS} steps, so that only those probes were tried "
            "that find most; thorough=True tries all"
        )
    if any(t.random for t in done):
        yield "the subject differs from itself when it is called again: unseeded randomness?"
    if arrays is not None:
        yield from _at_an_unfortunate_point(done[0])
    if changed := done[0].subject.around and sorted(done[0].subject.around.changed):
        yield f"the subject changes {', '.join(changed)}, which is put back after every call"
    odd = [o for t in done for o in t.outcomes if o.kind == UNSUPPORTED]
    yield from dict.fromkeys(f"{o.name} {note(o)}" for o in odd if SHAPE not in o.probe.traits)
    wrong = [o for o in odd if SHAPE in o.probe.traits]
    if wrong and not any(t.findings for t in done):
        yield (
            "wrong for other shapes, which the call does not show to be meant: "
            f"{wrong[0].name}, {note(wrong[0]) or 'its values'} ({wrong[0].probe.name})"
        )


def _at_an_unfortunate_point(t: Trials) -> Iterator[str]:
    for name, gradient in t.base.truth.items() if t.base else ():
        small = abs(gradient) < 1e-9
        if name.startswith("value") or not gradient.size:
            continue
        if small.all():
            yield f"every gradient of {name} is near zero: a wrong one might be as well"
        elif small.mean() > 0.5:
            yield f"{small.mean():.0%} of the gradients of {name} are near zero: saturated?"
    for found in t.votes:
        if found.why in (KINK, JUMP, EDGE):
            yield f"{found.name} lies on a kink, or at the edge of the domain"
