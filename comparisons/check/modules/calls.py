"""The calls of torch's functions that a forward makes, in order, and others in their place."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode

from ....reference.adapters import is_differentiable, leaves

OURS = tuple(f"{folder}/" for folder in (Path(torch.__file__).parent, Path(__file__).parent))
PLAIN = {"iadd": "add", "imul": "mul", "isub": "sub", "itruediv": "div", "truediv": "div"}
PLAIN |= {"rdiv": "rdiv", "rtruediv": "rdiv", "and": "bitwise_and", "or": "bitwise_or"}
PLAIN |= {"invert": "bitwise_not"}


class Called(NamedTuple):
    """A call of a function of torch's, or of a submodule.

    name      of the function, without underscores, or of the submodule's class
    site      the places in the source that it was made from: the innermost one outside of torch,
              and those in torch that lead from there to it
    module    the submodule
    held      its parameters, at that time
    """

    name: str
    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    y: Any
    site: tuple[Any, ...] = ()
    module: torch.nn.Module | None = None
    held: tuple[torch.Tensor, ...] = ()

    @property
    def in_place(self) -> bool:
        name = str(getattr(self.function, "__name__", ""))
        return (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")

    @property
    def number(self) -> float:
        """The number that a tensor is combined with, 0 if there is none."""
        numbers = [a for a in self.args if is_number(a)]
        return float(numbers[0]) if len(self.args) == 2 and len(numbers) == 1 else 0.0


# (function, args, kwargs, the calls before) → what is given in its place
Change = Callable[[Any, Any, Any, Sequence[Called]], Any]
Where = tuple[Any, ...]  # where an operand stands: the number of an argument, and that in a list


class Calls(TorchFunctionMode):
    """Notes the calls of torch's functions, in order, and those of some submodules, each as one; in
    the place of those which `changes` has, by their number and with their name, it makes others."""

    def __init__(
        self,
        whole: Sequence[torch.nn.Module] = (),
        changes: Mapping[int, tuple[str, Change]] | None = None,
    ) -> None:
        super().__init__()
        self.whole = list(dict.fromkeys(whole))  # one that is shared has several names
        self.changes = changes or {}
        self.seen: list[Called] = []
        self._within = False  # one of those submodules

    def __enter__(self) -> Calls:
        self._own = [(module, module.__dict__.get("forward")) for module in self.whole]
        for module in self.whole:
            module.forward = functools.partial(self._called, module, module.forward)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for module, own in self._own:
            del module.forward
            if own is not None:
                module.forward = own

    def _called(self, module: torch.nn.Module, forward: Any, *args: Any, **kwargs: Any) -> Any:
        if self._within:
            return forward(*args, **kwargs)
        self._within = True
        try:
            return self._noted(type(module).__name__, forward, args, kwargs, module)
        finally:
            self._within = False

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if self._within:
            return function(*args, **(kwargs or {}))
        return self._noted(name_of(function), function, args, kwargs or {})

    def _noted(self, name: str, function: Any, args: Any, kwargs: Any, module: Any = None) -> Any:
        expected, change = self.changes.get(len(self.seen), ("", None))
        if change and name == expected:  # and not what comes before it and gives no tensor
            y = change(function, args, kwargs, self.seen)
        else:
            y = function(*args, **kwargs)
        if y is None or any(isinstance(leaf, torch.Tensor) for leaf in leaves(y)):
            site = () if self.changes else _site()
            held = tuple(module.parameters()) if module is not None else ()
            self.seen.append(Called(name, function, args, kwargs, y, site, module, held))
        return y


def name_of(function: Any) -> str:
    """Of what reads an attribute, that of the attribute."""
    name = str(getattr(function, "__name__", "")).strip("_")
    if name == "get":
        name = str(getattr(function.__self__, "__name__", name))
    return PLAIN.get(name, name)


def _site() -> tuple[Any, ...]:
    frame: FrameType | None = sys._getframe(3)
    found = []
    while frame is not None:
        inside = frame.f_code.co_filename.startswith(OURS)
        if not inside or "torch" in frame.f_code.co_filename:
            found.append((frame.f_code, frame.f_lasti))
        if not inside:
            break
        frame = frame.f_back
    return tuple(found)


def is_number(leaf: Any) -> bool:
    return isinstance(leaf, (int, float)) and not isinstance(leaf, bool)


def operands(call: Called) -> Iterator[tuple[Where, torch.Tensor]]:
    """The tensors that a call is given by position, alone or in a list, and where they stand."""
    for i, argument in enumerate(call.args):
        if isinstance(argument, torch.Tensor):
            yield (i,), argument
        elif isinstance(argument, (list, tuple)):
            for j, inner in enumerate(argument):
                if isinstance(inner, torch.Tensor):
                    yield (i, j), inner


def at(args: Sequence[Any], path: Where) -> Any:
    """What stands at a place."""
    for part in path:
        args = args[part]
    return args


def with_at(args: Sequence[Any], path: Where, new: Any) -> Any:
    """The same with something else at a place."""
    if not path:
        return new
    first, *rest = path
    return tuple(with_at(a, tuple(rest), new) if i == first else a for i, a in enumerate(args))


class Trace:
    """The calls of a forward, and who makes and takes which tensor."""

    def __init__(self, seen: Sequence[Called]) -> None:
        self.seen = seen
        self.makers: dict[int, int] = {}
        self.users: dict[int, list[int]] = {}
        for k, call in enumerate(seen):
            for _, t in operands(call):
                self.users.setdefault(id(t), []).append(k)
            for t in leaves(call.y):
                if isinstance(t, torch.Tensor):
                    self.makers[id(t)] = k

    @functools.cached_property
    def has_angles(self) -> bool:
        """Whether what learns is multiplied by what is made of cosines and sines, or is complex."""
        return any(
            call.name in ("cos", "sin", "polar")
            or (call.name == "mul" and any(map(_is_like_angles, call.args)))
            for call in self.seen
        )

    def maker(self, t: Any, before: int) -> int | None:
        """The call before that has made a tensor, None for what comes from outside."""
        k = self.makers.get(id(t))
        return k if k is not None and k < before else None

    def taken_by(self, k: int) -> list[Called]:
        """The calls that take what a call gives."""
        users = {u for t in leaves(self.seen[k].y) for u in self.users.get(id(t), ()) if u > k}
        return [self.seen[u] for u in sorted(users)]

    def behind(self, k: int) -> Iterator[Called]:
        """All calls that depend on what a call gives, in order."""
        reached = {id(t) for t in leaves(self.seen[k].y)}
        for call in self.seen[k + 1 :]:
            if any(id(t) in reached for _, t in operands(call)):
                reached.update(id(t) for t in leaves(call.y))
                yield call


def _is_like_angles(leaf: Any) -> bool:
    """Whether it may be cosines or sines that were made before."""
    if not is_differentiable(leaf) or leaf.requires_grad or leaf.ndim < 2:
        return isinstance(leaf, torch.Tensor) and leaf.is_complex()
    return bool(leaf.abs().max() <= 1) and bool((leaf < 0).any())
