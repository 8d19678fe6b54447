"""Which parameter, buffer and submodule of a port is which of the original."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from .state import State, loaded_by, modules_of, tensors_of, zeros_for

Names = Mapping[str, str] | Callable[[State], State] | None
# What an expression may do to a tensor, all of which only moves its elements.
METHODS = frozenset(
    (
        *("T", "mT", "t", "transpose", "permute", "movedim", "flip", "contiguous"),
        *("reshape", "view", "flatten", "unflatten", "squeeze", "unsqueeze"),
    )
)


@dataclass(frozen=True)
class Pairing:
    """What of the port is made of what of the original.

    made     (state or gradients of the original, names) → these tensors of the port
    sources  the names of the original's tensors that each of the port's is made of
    modules  the name of a submodule of the original for one of the port
    notes    what has no partner, or was paired by order and shape
    """

    made: Callable[[State, Iterable[str]], dict[str, torch.Tensor]]
    sources: Mapping[str, tuple[str, ...]]
    modules: Mapping[str, str]
    notes: tuple[str, ...] = ()


def paired(port: torch.nn.Module, original: torch.nn.Module, names: Names) -> Pairing:
    """By name; by `names`, where those of the port stand there; what is left by order and shape,
    where that is unique. Raises TypeError or ValueError for names that say something else."""
    ours, theirs = loaded_by(port), tensors_of(original)
    brought = loaded_by(original)
    mine, others = modules_of(port), modules_of(original)
    if callable(names):
        same = {name: name for name in mine if name in others}
        return _by_function(ours, theirs, names, same)
    if not isinstance(names or {}, Mapping):
        raise TypeError(f"names: expected a mapping or a function, got a {type(names).__name__}")
    chosen: dict[str, _Expression] = {}
    modules = {name: name for name in mine}
    for left, right in (names or {}).items():
        if left in ours:
            chosen[left] = _Expression(right, theirs)
        elif left in mine:
            if right not in others:
                raise ValueError(f"names: the original has no {right!r}, to which {left!r} is said")
            for name in ours:
                if name.startswith(f"{left}."):
                    other = right + name[len(left) :]
                    if other in theirs:
                        chosen.setdefault(name, _Expression(other, theirs))
            for name in mine:
                if name == left or name.startswith(f"{left}."):
                    modules[name] = right + name[len(left) :]
        else:
            raise ValueError(f"names: the port has neither a tensor nor a submodule {left!r}")
    used = {source for e in chosen.values() for source in e.sources}
    for name in ours:
        if name not in chosen and name in theirs and theirs[name].shape == ours[name].shape:
            chosen[name] = _Expression(name, theirs)
            used.add(name)
    notes = list(_by_shape(ours, theirs, brought, chosen, used))
    for name, expression in chosen.items():
        found = expression(theirs).shape
        if found != ours[name].shape:
            raise ValueError(
                f"names: {name} of the port has shape {tuple(ours[name].shape)}, {expression.text} "
                f"of the original {tuple(found)}"
            )
    for name in ours:
        if name not in chosen:
            notes.append(f"{name} of the port has no partner in the original")
    for name in brought:
        if name not in used and not _twin(name, used, theirs):
            notes.append(f"{name} of the original has no partner in the port")
    modules = {left: right for left, right in modules.items() if right in others}
    sources = {name: e.sources for name, e in chosen.items()}

    def made(state: State, wanted: Iterable[str]) -> dict[str, torch.Tensor]:
        return {name: chosen[name](state) for name in wanted}

    return Pairing(made, sources, modules, tuple(notes))


def _twin(name: str, used: set[str], theirs: State) -> bool:
    """Whether a tensor is another one that has a partner."""
    return any(theirs[other] is theirs[name] for other in used)


def _by_shape(
    ours: State, theirs: State, brought: State, chosen: dict[str, Any], used: set[str]
) -> Iterator[str]:
    """Pairs what is left in order, of each shape of which there are as many on both sides."""
    left = [n for n in ours if n not in chosen]
    right = [n for n in brought if n not in used and not _twin(n, used, theirs)]
    for shape in dict.fromkeys(ours[n].shape for n in left):
        mine = [n for n in left if ours[n].shape == shape]
        other = [n for n in right if theirs[n].shape == shape]
        if len(mine) == len(other):
            for a, b in zip(mine, other, strict=True):
                chosen[a] = _Expression(b, theirs)
                used.add(b)
                yield f"{a} is paired with {b} by order and shape"


def _by_function(
    ours: State,
    theirs: State,
    names: Callable[[State], State],
    modules: Mapping[str, str],
) -> Pairing:
    try:
        made = names(dict(theirs))
    except (TypeError, KeyError) as error:
        raise TypeError(f"names: expected a function of the original's state: {error}") from None
    if not isinstance(made, Mapping) or (unknown := sorted(set(made) - set(ours))):
        what = f"a state with {unknown[0]!r}" if isinstance(made, Mapping) else type(made).__name__
        raise ValueError(f"names: expected the state of the port from the function, got {what}")
    wrong = [n for n, t in made.items() if t.shape != ours[n].shape]
    if wrong:
        raise ValueError(
            f"names: {wrong[0]} of the port has shape {tuple(ours[wrong[0]].shape)}, the function "
            f"makes {tuple(made[wrong[0]].shape)}"
        )
    notes = tuple(f"{n} of the port has no partner in the original" for n in ours if n not in made)
    empty = zeros_for(theirs)

    def given(state: State, wanted: Iterable[str]) -> dict[str, torch.Tensor]:
        found = names({**empty, **state})
        return {name: found[name] for name in wanted}

    return Pairing(given, _sources(names, theirs, made), modules, notes)


def _sources(
    names: Callable[[State], State], theirs: State, made: State
) -> dict[str, tuple[str, ...]]:
    """Of what each tensor, which the names have made, is made: what changes with it."""
    plain = {n: t.detach() for n, t in theirs.items()}
    found: dict[str, list[str]] = {name: [] for name in made}
    for source, tensor in plain.items():
        other = names({**plain, source: tensor + 1})
        for name in made:
            if not torch.equal(other[name], made[name]):
                found[name].append(source)
    return {name: tuple(sources) for name, sources in found.items()}


@dataclass(frozen=True)
class _Expression:
    """A tensor of the original, or several one behind the other, and what is done to it:
    "attn.qkv.weight[:64]", "fc.weight.T", "cat(q.weight, k.weight)"."""

    text: str
    known: State = field(repr=False)

    @functools.cached_property
    def parts(self) -> list[tuple[str, str]]:
        """Each tensor, and what is done to it."""
        return list(map(self._split, self._listed()))

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.parts)

    def __call__(self, state: State) -> torch.Tensor:
        made = [_applied(state[name], rest, self.text) for name, rest in self.parts]
        return torch.cat(made) if self._joined else made[0]

    @property
    def _joined(self) -> bool:
        return self.text.strip().startswith("cat(")

    def _listed(self) -> list[str]:
        text = self.text.strip()
        if not self._joined:
            return [text]
        inside, depth, parts = text.removeprefix("cat(").removesuffix(")"), 0, [""]
        for letter in inside:
            depth += (letter in "([") - (letter in ")]")
            if letter == "," and not depth:
                parts.append("")
            else:
                parts[-1] += letter
        return [part.strip() for part in parts]

    def _split(self, part: str) -> tuple[str, str]:
        """The name of a tensor, the longest that fits, and what is done to it."""
        fits = [
            name
            for name in self.known
            if part.startswith(name) and re.match(r"$|\[|\.(?=[A-Za-z])", part[len(name) :])
        ]
        if not fits:
            raise ValueError(f"names: the original has no tensor {part!r}")
        name = max(fits, key=len)
        return name, part[len(name) :]


def _applied(tensor: torch.Tensor, rest: str, text: str) -> torch.Tensor:
    """The tensor, after slices and methods. Raises ValueError for anything else."""
    if not rest:
        return tensor
    try:
        found = _value(ast.parse(f"x{rest}", mode="eval").body, tensor)
    except SyntaxError:
        found = None
    if not isinstance(found, torch.Tensor):
        raise ValueError(f"names: expected a tensor, slices of it and moves, got {text!r}")
    return found


def _value(node: ast.expr, x: torch.Tensor) -> Any:
    """What an expression of x is; None for one that does more."""
    if isinstance(node, ast.Name) and node.id == "x":
        return x
    if isinstance(node, ast.Subscript) and (of := _value(node.value, x)) is not None:
        return of[_index(node.slice)]
    if isinstance(node, ast.Attribute) and node.attr in METHODS:
        return getattr(_value(node.value, x), node.attr, None)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        method = _value(node.func, x)
        return method(*map(ast.literal_eval, node.args)) if method else None
    return None


def _index(node: ast.expr) -> Any:
    if isinstance(node, ast.Tuple):
        return tuple(map(_index, node.elts))
    if isinstance(node, ast.Slice):
        ends = (node.lower, node.upper, node.step)
        return slice(*(None if n is None else ast.literal_eval(n) for n in ends))
    return ast.literal_eval(node)
