"""Another variant of the function: one of its settings, or a constant in it, of another value."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ....reference.adapters import array
from ...ops.arguments import signature_of
from ..traced import BothWays, Place, literals, operation
from .case import Candidate, Case, Wrong
from .closeness import broadcasts
from .graphs import Gradients, both_ways_of, candidates, forward_of

SETTINGS = 60  # the most values of settings that are tried
CONSTANTS = 120  # the most values of constants, in the whole function
PULLED = 240  # and in its pullback alone
TAKERS = 4  # operations of the pullback that take one value, of which one sees another number
TINY = 1e-3  # what is below is an eps and nothing else
SMALL = 0.1  # what is below may be an eps, for which powers of ten stand
POWERS = [10.0**-k for k in (5, 6, 8, 12, 3, 4, 7, 10, 9, 11, 16)]

# Numbers that stand in a function for more than one reason; one in the place of another, in one
# step of the pullback alone, is a factor.
PLAIN = {0, 0.5, 1, 2, 3}

AXES = ("dim", "axis")  # 1 and −1 may be one of these
# Settings that are words: those that stand for one another.
WORDS = (
    ("none", "tanh"),
    ("mean", "sum", "none", "batchmean"),
    ("constant", "reflect", "replicate", "circular"),
    ("zeros", "border", "reflection"),
    ("nearest", "nearest-exact", "bilinear", "bicubic", "linear", "trilinear", "area"),
)


def of_another_setting(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    yield from candidates(case, wrong, "variant", _with_other_settings)


def _with_other_settings(case: Case, wrong: Wrong) -> Iterator[tuple[str, Gradients]]:
    found = []
    for name, old, new, inputs in itertools.islice(_resettings(case, wrong), SETTINGS):
        with contextlib.suppress(Exception):  # a value that the reference does not take
            results = case.truth(inputs)
            text = f"that with {name} = {written(new)} in the place of {written(old)}"
            gradients = [results.get(n, np.empty(0)) for n in case.done.order]
            where = (name, new) if name in AXES else name
            found.append(Found(where, new, text, gradients))
    yield from told_apart(found)


def of_another_constant(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    """A number that the reference computes with exchanged wherever it is used."""
    yield from candidates(case, wrong, "variant", _with_other_constants)


def of_another_constant_in_the_pullback(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    """A number exchanged in the pullback alone, or in what this one has of the forward."""
    for text, changed in _changed(case, wrong):
        for ratio in changed:
            if broadcasts(ratio.shape, wrong.truth.shape):
                yield Candidate("variant", text, wrong.truth * ratio)
                yield Candidate("variant", text, wrong.truth / ratio)
    yield from candidates(case, wrong, "variant", _with_others_in_the_pullback)


def _with_other_constants(case: Case, wrong: Wrong) -> Iterator[tuple[str, Gradients]]:
    if (trace := forward_of(case, wrong)) is None:
        return
    nodes = literals(list(trace.graph.nodes))
    places = [(place, c) for place, c in nodes if not place[0].startswith("pow")]
    found = []
    for where, old, new in _exchanged(places, case.done.settings, CONSTANTS):
        with contextlib.suppress(Exception):  # an operation that does not take it
            _, gradients = trace.evaluated(numbers=dict.fromkeys(where, new))
            found.append(Found(tuple(where), new, _text(where, old, new), gradients))
    yield from told_apart(found)


def _with_others_in_the_pullback(case: Case, wrong: Wrong) -> Iterator[tuple[str, Gradients]]:
    if (both := both_ways_of(case, wrong)) is None:
        return
    used = {n.name for node in both.backward for n in node.all_input_nodes}
    found = []
    for where, new, text, changed in _others(both, case, both.forward_calls):
        kept = {n: v for n, v in changed.items() if n in used}
        for way in [kept, *({n: v} for n, v in kept.items() if len(kept) > 1)]:
            key = (tuple(where), tuple(way))
            found.append(Found(key, new, text, both.gradients(way)))
        for name, value in kept.items():  # at one of the operations that take it alone
            takers = [n for n in both.backward if both.nodes[name] in n.all_input_nodes]
            for taker in takers if 1 < len(takers) <= TAKERS else ():
                way = {taker.name: both.at(taker, {name: value})}
                key = (tuple(where), tuple(way))
                found.append(Found(key, new, text, both.gradients(way)))
    for where, new, text, changed in _others(both, case, both.backward):
        found.append(Found(tuple(where), new, text, both.gradients(changed)))
    yield from told_apart(found)


@dataclass(frozen=True)
class Found:
    """What another value gives."""

    where: Any
    value: Any
    text: str
    gradients: Gradients


def told_apart(found: Sequence[Found]) -> Iterator[tuple[str, Gradients]]:
    """Without those that others do not differ from: a threshold that is far off, which nothing
    reaches, is none that was put there."""
    groups: dict[Any, list[Found]] = {}
    for one in found:
        groups.setdefault(one.where, []).append(one)
    for one in found:
        others = [o for o in groups[one.where] if o is not one and _apart(o.value, one.value)]
        if not any(all(map(np.array_equal, o.gradients, one.gradients)) for o in others):
            yield one.text, one.gradients


def _apart(a: Any, b: Any) -> bool:
    """Whether two values are numbers that differ by more than one eps does from another."""
    return _is_number(a) and _is_number(b) and abs(a - b) > 1e-6


def _changed(case: Case, wrong: Wrong) -> list[tuple[str, list[np.ndarray]]]:
    """How many times as large other numbers make the values on the way to y."""
    key = _changed, id(wrong.inputs)
    if key not in case.known:
        case.known[key] = []
        if both := both_ways_of(case, wrong):
            for _, _, text, changed in _others(both, case, both.forward_calls):
                ratios = [_ratio(new, both.values[name]) for name, new in changed.items()]
                case.known[key].append((text, [r for r in ratios if r is not None]))
    return case.known[key]


def _others(
    both: BothWays, case: Case, nodes: Sequence[Any]
) -> Iterator[tuple[list[Place], float, str, dict[str, Any]]]:
    """The values that follow in the forward from each number exchanged, or at that place alone in
    the pullback."""
    settings = case.done.settings
    places = [
        (place, c)
        for place, c in literals(nodes)
        if not place[0].startswith("pow") and (abs(c) not in PLAIN or c in settings)
    ]
    for where, old, new in _exchanged(places, settings, PULLED):
        with contextlib.suppress(Exception):  # an operation that does not take it
            changed = both.with_numbers(dict.fromkeys(where, new))
            text = f"{_text(where, old, new)}, in the pullback alone"
            yield where, new, text, both.again(changed, forward=True)
    for where, changed, text in _over_one_less(both, nodes):
        text = f"that with {text}, in the pullback alone"
        yield where, math.nan, text, both.again(changed, forward=True)


def _over_one_less(
    both: BothWays, nodes: Sequence[Any]
) -> Iterator[tuple[list[Place], dict[str, Any], str]]:
    """Each mean of the forward over n − 1, as torch's own variances are, or a variance over n; as
    it is, and without the numbers that are added to it to keep it from 0."""
    added = {
        node.name: (lambda known, node=node: both.applied(node, known, {1: lambda _: 0.0}))
        for (name, key), c in literals(nodes)
        if key == 1 and 0 < abs(c) < TINY and operation(node := both.nodes[name]) == "add"
    }
    for node in nodes:
        if (name := operation(node)) not in ("mean", "var") or node.name not in both.forward:
            continue
        value = both.values[node.name]
        n = both.values[node.args[0].name].numel() // max(value.numel(), 1)
        less = node.kwargs.get("correction") if name == "var" else 0
        over = n - (1 if less is None else less)
        other = n - 1 if over == n else n
        if min(over, other) > 0:
            changed = {node.name: value * over / other}
            text = f"a mean over {other} in the place of {over} in {name}"
            yield [(node.name, "over")], changed, text
            if added:
                text = f"{text} and without what is added to it"
                yield [(node.name, "alone")], {**changed, **added}, text


def _ratio(new: Any, old: Any) -> np.ndarray | None:
    if not isinstance(new, torch.Tensor) or new.numel() < 2 or not new.is_floating_point():
        return None
    if not (new.all() and old.all()):
        return None
    ratio = np.asarray(array(new / old))
    return ratio if np.isfinite(ratio).all() and np.ptp(ratio) > 1e-9 else None


def _resettings(case: Case, wrong: Wrong) -> Iterator[tuple[str, Any, Any, Any]]:
    """(name, value, another value, the inputs with that) of each setting of the reference."""
    args, kwargs, dy = wrong.inputs
    reference = case.done.reference
    if reference is None:
        return
    if (function := reference.in_torch) is None:
        return
    names, defaults = named_arguments(function)
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    settings = {n: v for n, v in {**defaults, **given}.items() if is_setting(v)}
    numbers = [v for v in settings.values() if _is_number(v)]
    turns = [
        (name, old, iter(other_values(name, old, defaults.get(name), numbers)))
        for name, old in settings.items()
    ]
    while turns:  # the likeliest of each first
        for turn in list(turns):
            name, old, values = turn
            if (new := next(values, None)) is None:
                turns.remove(turn)
            elif name in names[: len(args)]:
                k = names.index(name)
                yield name, old, new, ((*args[:k], new, *args[k + 1 :]), kwargs, dy)
            else:
                yield name, old, new, (args, {**kwargs, name: new}, dy)


def named_arguments(function: Any) -> tuple[list[str], dict[str, Any]]:
    """The names of a function's arguments, and the defaults of those that have one."""
    own = signature_of(function)
    name = getattr(function, "__name__", "")
    builtin = getattr(getattr(torch.ops.aten, name, None), "default", None)
    if own is None and builtin:  # one that Python sees no signature of
        declared = builtin._schema.arguments
        known = {a.name: a.default_value for a in declared if a.has_default_value()}
        return [a.name for a in declared], known
    parameters = dict(own.parameters if own else {})
    defaults = {n: p.default for n, p in parameters.items() if p.default is not p.empty}
    return list(parameters), defaults


def other_values(name: str, old: Any, default: Any, numbers: Sequence[float]) -> Iterator[Any]:
    if isinstance(old, bool):
        yield not old
    elif isinstance(old, str):
        for word in dict.fromkeys(w for words in WORDS if old in words for w in words):
            if word != old:
                yield word
    elif isinstance(old, int):
        axis = name in AXES
        known = {0, 1, -1, -2, old - 1, old + 1} if axis else {old + 1, old - 1, 0, 1, default}
        for new in known - {old}:
            if isinstance(new, int) and not isinstance(new, bool) and (axis or new >= 0):
                yield new
    elif isinstance(old, float):
        first = [default] if _is_number(default) else []
        yield from (n for n in _nearby(old, [*first, *numbers]) if n != old)
    elif isinstance(old, tuple) and all(isinstance(n, int) for n in old):
        moved = (tuple(n + d for n in old) for d in (1, -1))
        yield from (t for t in dict.fromkeys((old[::-1], *moved)) if t != old)


def _exchanged(
    places: Sequence[tuple[Place, float]], settings: Sequence[float], most: int
) -> Iterator[tuple[list[Place], float, float]]:
    """(where, the number, another one): first wherever it stands, then at one place alone."""
    together: dict[float, list[Place]] = {}
    for place, number in places:
        if math.isfinite(number):
            together.setdefault(number, []).append(place)
    groups = [
        (where, number)
        for number, where in together.items()
        if len(where) == 1 or abs(number) not in PLAIN or number in settings
    ]
    groups += [([w], number) for number, where in together.items() if len(where) > 1 for w in where]
    turns = [(where, number, iter(_nearby(number, settings))) for where, number in groups]
    while turns:  # the likeliest of each first
        for turn in list(turns):
            where, number, values = turn
            if (new := next(values, None)) is None:
                turns.remove(turn)
            elif most > 0:
                most -= 1
                yield where, number, new
            else:
                return


def _nearby(c: float, settings: Sequence[float]) -> Iterator[float]:
    """What may stand in the place of a number: what is near to it, or well known."""
    found = [*POWERS[:4], 0.0, *POWERS[4:]] if 0 < abs(c) < SMALL else []
    found += [s for s in settings if s in (0, 1)]
    found += [0.0, 2 * c, c / 2]
    if abs(c) > TINY or not c:  # nothing far off stands in the place of an eps
        found += [1.0, c + 1, c - 1, -c, c * c, 1 - c]
        found += [1 / c] if c else []
        found += [math.sqrt(c)] if c > 0 else []
        found += [100 * c, -10 * c]  # which show whether the others are told from one another
    found += [10 * c, c / 10]
    found += [s for s in settings if abs(c) > TINY or abs(s) < SMALL]
    for new in dict.fromkeys(found):
        if new != c and math.isfinite(new):
            yield int(new) if isinstance(c, int) and new == int(new) else new


def _text(where: Sequence[Place], old: float, new: float) -> str:
    operations = dict.fromkeys(name.rstrip("_0123456789") for name, _ in where)
    there = " and ".join(operations)
    return f"that with {written(new)} in the place of {written(old)} in {there}"


def written(value: Any) -> str:
    return f"{value:.9g}" if isinstance(value, float) else repr(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_setting(value: Any) -> bool:
    return value is not None and not isinstance(value, (np.ndarray, np.generic, torch.Tensor))
