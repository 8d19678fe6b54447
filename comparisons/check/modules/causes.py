"""Why a submodule of a port is not the original's: what ports get wrong, and what `check` knows."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from ...verdict.classes import LIMIT, Results
from ..causes.case import Cause
from ..trees import items, mapped
from ..verify import check
from .evaluation import Inputs, Side
from .exchanges import EPS, MOST, Calls, changes
from .recording import floating, kept_generator
from .state import swapped

BUDGET = 20.0  # seconds for the causes of `check`
SHARES = (0.01, 0.001, 0.1, 0.9, 0.99, 0.999)
Given = Callable[[Side, bool], Results]  # what a side gives, with its gradients or without
SIMPLE = (bool, int, float, str)
# What an attribute is about, where that is not its own name.
ABOUT = {
    **dict.fromkeys(("epsilon", "variance_epsilon", "norm_eps", "layer_norm_eps"), "eps"),
    **dict.fromkeys(("scaling", "softmax_scale", "scale_factor"), "scale"),
    **dict.fromkeys(("theta", "base", "rope_theta", "rope_base"), "rope"),
    **dict.fromkeys(("n_head", "num_heads", "n_heads", "heads", "nhead"), "heads"),
    **dict.fromkeys(("causal", "is_causal", "window"), "mask"),
    **dict.fromkeys(("p", "dropout"), "mode"),
    **dict.fromkeys(("padding_idx", "padding_mode"), "padding"),
    **dict.fromkeys(("negative_slope", "act", "activation", "hidden_act"), "activation"),
    "unbiased": "variance",
    "batch_first": "order",
    "dilation": "stride",
}


@dataclass(frozen=True)
class Failure:
    """A call at which the two part: both sides, what the port gave, the truth, and the floors; the
    names of what is wrong."""

    subject: Side
    reference: Side
    inputs: Inputs
    ours: Results
    truth: Results
    floors: Results
    wrong: tuple[str, ...]
    right: tuple[torch.nn.Module, ...]  # the submodules inside that are right, of the original
    right_here: tuple[torch.nn.Module, ...]  # and of the port

    @property
    def backward_alone(self) -> bool:
        """Whether what it gives is right, and a gradient is not."""
        return all(n.startswith("gradient") for n in self.wrong)

    def gives(self, found: Results, wanted: Results) -> bool:
        """Whether some of these results are what is wanted, within the floors."""
        return all(
            a.shape == wanted[n].shape
            and bool(np.all(abs(a.astype(float) - wanted[n]) <= LIMIT * self._floor(n)))
            for n, a in found.items()
            if n in wanted
        )

    def _floor(self, name: str) -> float:
        """Of a tensor as a whole: the largest of its elements, and as much more as it is larger
        than the truth."""
        size, ours = (
            float(np.max(abs(np.nan_to_num(of[name].astype(float))), initial=0))
            for of in (self.truth, self.ours)
        )
        largest = float(np.max(self.floors[name], initial=0))
        return largest * max(ours / size, 1.0) if size else largest


def cause_of(failure: Failure, given: Given) -> Cause | None:
    """The first change of the original that makes of it what the port is, or of the port that makes
    the original of it; else what `check` says of the two as functions, where a gradient is wrong
    and the value is not."""
    if untied := _untied(failure):
        return _named(untied)
    for side, wanted, how in (
        (failure.reference, failure.ours, ""),
        (failure.subject, failure.truth, ", with which the port would be right"),
    ):
        if not side.runs:
            continue
        for text, other in itertools.chain(
            _attributes(failure, side), _calls(failure, side, given)
        ):
            with contextlib.suppress(Exception):  # whatever a change is refused with, it is none
                if not failure.backward_alone and not failure.gives(given(other, False), wanted):
                    continue
                found = given(other, True)
                if wanted.keys() <= found.keys() and failure.gives(found, wanted):
                    return _named(text + how)
    if not (failure.backward_alone and failure.reference.runs):
        return None
    subject, reference = (
        as_function(side, failure.inputs) for side in (failure.subject, failure.reference)
    )
    arrays = arrays_of(failure.inputs)
    own = ["as given"]
    try:
        report = check(subject, reference, arrays, dtypes=["float64"], probes=own, budget=BUDGET)
    except (TypeError, ValueError):
        return None
    cause: Cause | None = report.cause
    return cause


def _named(text: str) -> Cause:
    name, _, rest = text.partition(": ")
    return Cause(name, rest)


def _untied(failure: Failure) -> str:
    """Whether what is wrong are gradients of what is one tensor in the original and several here,
    each of which has a part of it, or the other way round."""

    def groups(module: torch.nn.Module) -> set[frozenset[str]]:
        names: dict[int, set[str]] = {}
        for name, t in module.named_parameters(remove_duplicate=False):
            names.setdefault(id(t), set()).add(name)
        return {frozenset(group) for group in names.values() if len(group) > 1}

    ours, theirs = groups(failure.subject.module), groups(failure.reference.module)
    wrong = {n.removeprefix("gradient of ") for n in failure.wrong}
    for group in theirs ^ ours:
        if wrong <= group:
            other = "in the original, not in the port" if group in theirs else "in the port alone"
            return f"untied: {' and '.join(sorted(group))} are one tensor {other}"
    return ""


def _attributes(failure: Failure, side: Side) -> Iterator[tuple[str, Side]]:
    other = failure.subject if side is failure.reference else failure.reference
    for text, module in _changed(side.module, other.module, failure.right):
        yield text, replace(side, module=module)


def _calls(failure: Failure, side: Side, given: Given) -> Iterator[tuple[str, Side]]:
    """A side with one of its calls exchanged."""
    right = failure.right if side is failure.reference else failure.right_here
    seen = Calls(right)
    given(replace(side, around=lambda: seen), False)
    found = changes(seen.seen, failure.backward_alone)
    for text, at, change in itertools.islice(found, MOST):
        yield text, replace(side, around=partial(Calls, right, at, change))


def _changed(
    original: torch.nn.Module, port: torch.nn.Module, right: Sequence[torch.nn.Module]
) -> Iterator[tuple[str, torch.nn.Module]]:
    """A module with one simple attribute of one of its submodules changed: to what the other one
    has there, in the other mode, or to a value that is in use elsewhere."""
    ours = dict(port.named_modules())
    for name, module in original.named_modules():
        if module in right:
            continue
        other = ours.get(name)
        where = f" of {name}" if name else ""
        if other is not None and other.training != module.training:
            mode, own = (("eval", "train")[m.training] for m in (other, module))
            yield (
                f"mode: {mode} mode instead of {own} mode{where}",
                _with(original, name, "training", other.training),
            )
        for attribute, value in vars(module).items():
            if (
                attribute.startswith("_")
                or attribute == "training"
                or not isinstance(value, SIMPLE)
            ):
                continue
            values = [getattr(other, attribute, value)] if other is not None else []
            for new in (*values, *_others(attribute, value)):
                if isinstance(new, SIMPLE) and new != value:
                    about = ABOUT.get(attribute, attribute)
                    text = f"{about}: {attribute} = {new!r} instead of {value!r}{where}"
                    yield text, _with(original, name, attribute, new)


def _others(attribute: str, value: Any) -> Iterator[Any]:
    """Values that others have for an attribute of this name."""
    if isinstance(value, bool):
        yield not value
    elif attribute in ("eps", "epsilon", "variance_epsilon", "norm_eps"):
        yield from EPS
        yield 0.0
    elif attribute == "momentum":
        yield from (1 - value, *SHARES)
    elif attribute == "approximate":
        yield from ("none", "tanh")
    elif attribute == "p":
        yield 0.0
    elif attribute in ("scale", "scaling", "theta", "base", "rope_theta", "negative_slope"):
        yield from (
            value**0.5,
            value**2,
            1 / value if value else 1.0,
            1.0,
            1e4,
            1e6,
            5e5,
            0.01,
            0.2,
        )


def _with(module: torch.nn.Module, name: str, attribute: str, value: Any) -> torch.nn.Module:
    """A copy that shares its tensors, with another attribute."""
    memo = {id(t): t for t in (*module.parameters(), *module.buffers())}
    other = copy.deepcopy(module, memo)
    setattr(other.get_submodule(name), attribute, value)
    return other


def as_function(side: Side, inputs: Inputs) -> Callable[..., Any]:
    """A side as a torch callable of all tensors of which a gradient is asked, for `check`."""
    given, args, kwargs, _ = inputs.tree
    asked = [leaf for _, leaf in items((args, kwargs)) if getattr(leaf, "requires_grad", False)]
    own = [(n, t) for n, t in given.items() if t.is_floating_point()]

    def function(*tensors: torch.Tensor) -> Any:
        dtype = tensors[0].dtype
        new = {id(old): t for old, t in zip([*asked, *(t for _, t in own)], tensors, strict=True)}

        def made(leaf: Any) -> Any:
            if id(leaf) in new:
                return new[id(leaf)]
            narrow = isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
            return leaf.to(dtype) if narrow else leaf

        state = side.arrange({n: made(t) for n, t in given.items()})
        kept = {n: state[n] for n in side.held}
        kept = {n: t if t.requires_grad else t.clone() for n, t in kept.items()}
        with kept_generator(inputs.call.generator), swapped(side.slots, kept):
            y = side.module(*mapped(made, args), **mapped(made, kwargs))
        return tuple(floating(y))

    return function


def arrays_of(inputs: Inputs) -> list[np.ndarray]:
    """What such a function is called with."""
    given, args, kwargs, _ = inputs.tree
    own = [t for t in given.values() if t.is_floating_point()]
    asked = [leaf for _, leaf in items((args, kwargs)) if getattr(leaf, "requires_grad", False)]
    return [t.detach().double().numpy() for t in (*asked, *own)]
