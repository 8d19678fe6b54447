"""A rule and its mirror, evaluated on one call, and judged."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import numpy as np

from ...manual import binding
from ...reference.adapters import Draws, holding, leaves, tensor, tree_map
from ..samples import Call
from ..verdict.classes import Results, Verdict
from ..verdict.floor import Floor
from ..verdict.judge import settle
from ..verdict.noise import is_floating
from . import named
from .arguments import argument_names


def by_torch(op: str, args: Any, kwargs: dict[str, Any], made: Callable[[Any], Any]) -> Any:
    """What torch's function itself answers, as tensors; `made` makes one of each floating array
    that has a gradient."""
    with warnings.catch_warnings(action="ignore"):
        return torch_call(op, args, kwargs, made)()


def torch_call(
    op: str, args: Any, kwargs: dict[str, Any], made: Callable[[Any], Any]
) -> partial[Any]:
    """The call of torch's function that `by_torch` makes, with all its tensors."""
    ours, twin = named(op).pair
    bound = inspect.signature(ours).bind(*args, **kwargs).arguments

    def torchs(name: str, leaf: Any) -> Any:
        return made(leaf) if name not in twin.facts.constant and is_floating(leaf) else tensor(leaf)

    given = {name: tree_map(partial(torchs, name), argument) for name, argument in bound.items()}
    settings = {name: given.pop(name) for name in kwargs}
    return partial(twin.__wrapped__, *given.values(), **settings)


def evaluate(rule: Callable[..., Any], names: Sequence[str], inputs: Any) -> Results:
    """Value and gradients of a rule, by name, the values of several outputs "value.0" and so on;
    inputs are (args, kwargs, dy). A mirror that is given Draws answers with such."""
    args, kwargs, dy = inputs
    y, pullback = rule(*args, **kwargs)
    gradients = leaves(pullback(dy))
    if len(gradients) != len(names):
        raise ValueError(
            f"pullback: expected gradients of {', '.join(names)}, got {len(gradients)} arrays"
        )
    several = isinstance(y, tuple)
    outputs = {f"value.{i}" if several else "value": part for i, part in enumerate(leaves(y))}
    found: dict[str, Any] = outputs | dict(zip(names, gradients, strict=True))
    if any(isinstance(a, Draws) for a in found.values()):
        return found
    return {name: np.asarray(a) for name, a in found.items()}


def asking(
    op: str, names: Sequence[str], wanted: Collection[str]
) -> tuple[Callable[..., Any], list[str]]:
    """The mirror that asks torch for no gradient of the arguments of which none is wanted, and the
    names that are left. One without a signature knows them by their places."""
    ours, twin = named(op).pair
    arguments = {name: name.removeprefix("argument ").split(".")[0] for name in names}
    asked = {arguments[name] for name in wanted if name in arguments}
    held = set(arguments.values()) - asked
    places = (i for i, name in enumerate(binding.signature_of(ours).parameters) if name in held)
    return holding(twin, frozenset((*held, *places))), [n for n in names if arguments[n] in asked]


def cotangent(y: Any, constant: Sequence[bool], seed: int) -> Any:
    """A random dy in the structure, shapes and dtypes of y, None for outputs that are constant."""
    rng = np.random.default_rng([seed, 1])
    fixed = iter(constant)
    return tree_map(
        lambda a: None if next(fixed) else np.asarray(rng.standard_normal(a.shape), a.dtype), y
    )


def drawn(op: str, row: Call, dtype: str, seed: int) -> tuple[Any, Any, Any]:
    """What a call is evaluated with: its arguments, keywords and a random cotangent."""
    return completed(op, *row.draw(seed, np.dtype(dtype)), seed)


def completed(op: str, args: Any, kwargs: dict[str, Any], seed: int) -> tuple[Any, Any, Any]:
    """The arguments and keywords with what torch draws at random, and a random cotangent."""
    twin = named(op).mirror
    args, kwargs = named(op).held(args, kwargs)
    if hasattr(twin, "draw"):
        kwargs = kwargs | twin.draw(*args, **kwargs)
    y, pullback = twin(*args, **kwargs)
    return args, kwargs, cotangent(y, pullback.constant, seed)


def judge_inputs(op: str, inputs: Any, dtype: str, thorough: bool = False) -> dict[str, Verdict]:
    """The verdict on the value and on each gradient of one call; inputs are (args, kwargs, dy)."""
    return settled(op, inputs, dtype, thorough)[2]


def settled(
    op: str, inputs: Any, dtype: str, thorough: bool = False
) -> tuple[Floor, Results, dict[str, Verdict]]:
    """As `judge_inputs`, behind the floor and what the rule gave."""
    ours, twin = named(op).pair
    args, kwargs, _ = inputs
    names = argument_names(ours, args, kwargs, twin.facts.constant)
    subject = partial(evaluate, ours, names)
    results = subject(inputs)
    together = twin if twin.facts.batched else None
    floor = Floor(partial(evaluate, twin, names), inputs, np.dtype(dtype), together=together)
    oracle, sides = partial(named(op).oracle, kinks=False), named(op).sides(inputs)
    verdicts = settle(floor, subject, inputs, results, oracle, thorough=thorough, sides=sides)
    return floor, results, verdicts
