"""What a forward pass computes on the way, on both sides: what each function gives that a rule is
named after, in order."""

from __future__ import annotations

import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from difflib import SequenceMatcher
from types import CodeType, FrameType
from typing import Any, NamedTuple

import numpy as np
from torch.overrides import TorchFunctionMode

from ... import manual
from ...reference.adapters import array, is_differentiable, leaves, watched
from .. import ops
from ..verdict.classes import Function, Results
from ..verdict.lockstep import Pair
from ..verdict.noise import is_floating

# Of functions of tensors, each side calls those that its language needs.
FAMILIES = (
    *("activations", "linear", "embedding", "dropout", "normalization", "attention", "recurrent"),
    *("convolution", "pooling", "resampling", "padding"),
)
PRIVATE = ("_rotated",)  # a part of a model that both sides have, and no function of torch


class Activation(NamedTuple):
    """What a function gave."""

    function: str  # by the name of its rule
    value: np.ndarray
    parameter: str = ""  # the first that it was given; known of torch's side alone


def on_the_way(subject: Function, reference: Function, inputs: Any, dtype: Any) -> Pair:
    """What the subject, made of rules by hand, and the reference, of torch, compute on the way to
    their results. Only what both compute is there, side by side in the order of torch's."""
    ours, theirs = by_hand(subject, inputs), by_torch(reference, inputs)
    names, places = _names(theirs), list(_alike(ours, theirs))

    def at(activations: list[Activation], side: int) -> Results:
        return {names[place[1]]: activations[place[side]].value for place in places}

    return Pair(
        lambda i: at(by_hand(subject, i), 0),
        lambda i: at(by_torch(reference, i), 1),
        inputs,
        at(theirs, 1),
        dtype=dtype,
    )


def _alike(ours: list[Activation], theirs: list[Activation]) -> Iterator[tuple[int, int]]:
    """Where each stands on both sides. Of what lies between functions that are the same on both,
    as many may have been exchanged for others."""
    here, there = ([a.function for a in side] for side in (ours, theirs))
    for _, i, i_end, j, j_end in SequenceMatcher(None, here, there, autojunk=False).get_opcodes():
        if i_end - i == j_end - j:
            yield from zip(range(i, i_end), range(j, j_end), strict=True)


def _names(activations: list[Activation]) -> list[str]:
    """Each by its function and the parameter that it takes, or the last that was taken before."""
    names, times, before = list[str](), Counter[str](), ""
    for function, _, parameter in activations:
        before = parameter or before
        of = f" ({'' if parameter else 'behind '}{before})" if before else ""
        name = f"activation {function.strip('_')}{of}"
        times[name] += 1
        names.append(f"{name}, call {times[name]}" if times[name] > 1 else name)
    return names


@functools.cache
def _functions() -> frozenset[str]:
    every = (name for name in ops.names() if ops.named(name).family in FAMILIES)
    return frozenset([*every, *PRIVATE])


def by_torch(reference: Function, inputs: Any) -> list[Activation]:
    """What the functions of torch give that the reference calls."""
    with _Forward() as seen, watched(seen.whole):
        reference(inputs)
    return seen.found


class _Forward(TorchFunctionMode):
    """Keeps what functions give, and what an objective calls its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Activation] = []
        self._names: dict[int, str] = {}
        self._inside = False  # of a function that is written out

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return self._called(getattr(function, "__name__", ""), function, args, kwargs or {})

    def whole(self, name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """The call of a function that is made of others, which are left out."""
        if name == "objective":
            self._names = {id(p): name for name, p in args[0].items()}
            return function(*args, **kwargs)
        if self._inside:
            return function(*args, **kwargs)
        self._inside = True
        y = function(*args, **kwargs)
        self._inside = False
        return self._called(name, lambda *args, **kwargs: y, args, kwargs)

    def _called(self, name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        y = function(*args, **kwargs)
        op = ops.called(name)
        rule = op.name if op else name
        if rule in _functions() and not self._inside:
            given = (self._names.get(id(leaf), "") for leaf in leaves((args, kwargs)))
            parameter = next(filter(None, given), "")
            value = next(filter(is_differentiable, leaves(y)), None)
            if value is not None:
                self.found.append(Activation(rule, array(value), parameter))
        return y


def by_hand(subject: Function, inputs: Any) -> list[Activation]:
    """What the rules by hand give that the subject calls, without those that are called by another
    or in a backward pass. Nothing is exchanged to see them: Python tells what functions return."""
    seen, before = _Returned(), sys.getprofile()
    sys.setprofile(seen)
    try:
        subject(inputs)
    finally:
        sys.setprofile(before if callable(before) else None)  # one of C's is not given back
    return seen.found


class _Returned:
    """Keeps what rules return."""

    def __init__(self) -> None:
        self.found: list[Activation] = []

    def __call__(self, frame: FrameType, event: str, returned: Any) -> None:
        if event != "return" or type(returned) is not tuple or len(returned) != 2:
            return
        y, pullback = returned
        name = self._rule_of(frame.f_code) if callable(pullback) else ""
        value = next(filter(is_floating, map(np.asarray, leaves(y))), None) if name else None
        if value is not None and not any(map(self._holds, _callers(frame))):
            self.found.append(Activation(name, value.copy()))

    def _holds(self, frame: FrameType) -> bool:
        """Whether what is called there is no part of the model's forward pass."""
        return frame.f_code.co_name == "pullback" or bool(self._rule_of(frame.f_code))

    def _rule_of(self, code: CodeType) -> str:
        """The rule as which the package knows this code: its own, or what has been exchanged for
        it. "" for any other."""
        names = self._rules.get(code, ())
        return code.co_name if code.co_name in names else next(iter(names), "")

    @functools.cached_property
    def _rules(self) -> dict[CodeType | None, list[str]]:
        """Looked up when the first rule has returned, because an exchange may last as long as the
        call alone."""
        rules: dict[CodeType | None, list[str]] = {}
        for module in [m for n, m in sys.modules.items() if n.startswith(manual.__name__)]:
            for name in _functions() & vars(module).keys():
                rules.setdefault(_code(getattr(module, name)), []).append(name)
        return rules


def _code(function: Any) -> CodeType | None:
    while isinstance(function, functools.partial):
        function = function.func
    code: CodeType | None = getattr(function, "__code__", None)
    return code


def _callers(frame: FrameType) -> Iterator[FrameType]:
    while caller := frame.f_back:
        yield caller
        frame = caller
