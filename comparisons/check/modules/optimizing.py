"""One step of an optimizer of the user's, made anew around copies, as a function of all it sees."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ...report.text import raised
from .state import parameters_of, slots_of, swapped

# Makes an optimizer of a list of parameters or of a module; with it, in a tuple, a scheduler.
Maker = Callable[[Any], Any]
OfEach = Mapping[str, Any]  # something of each parameter, by name
Change = Callable[[torch.optim.Optimizer, OfEach], None]


@functools.cache
def _of_any() -> frozenset[str]:
    """Attributes of any optimizer that say nothing about its next step; to make one takes seconds,
    once in a process."""
    return frozenset(vars(torch.optim.SGD([torch.zeros(1)], lr=0.0)))


class Refused(Exception):
    """An optimizer of which no step can be judged."""


@dataclass(frozen=True)
class Before:
    """What a step sees.

    parameters   by name
    gradients    of each, None where there is none
    state        what the optimizer keeps of each
    kept         what else it goes on with: the settings of its groups, the state of its scheduler,
                 and the numbers among its own attributes
    """

    parameters: OfEach
    gradients: OfEach
    state: Mapping[str, OfEach]
    kept: Mapping[str, Any]


@dataclass(frozen=True)
class After:
    """What a step leaves, or what stands before the first one.

    used   the settings with which each parameter was moved, once for each time that it stands in a
           group; nothing where it does not, or is frozen
    kind   the class of the optimizer
    """

    parameters: OfEach
    state: Mapping[str, OfEach]
    kept: Mapping[str, Any]
    used: Mapping[str, list[dict[str, Any]]]
    kind: str


@dataclass(frozen=True)
class Machine:
    """A module and what makes its optimizer.

    change   of the optimizer and the parameters, made before each step
    """

    module: torch.nn.Module
    maker: Maker
    change: Change = field(default=lambda optimizer, own: None)

    def __call__(self, before: Before) -> After:
        """One step from there; what is given stays as it is, and so do the module's parameters.
        Raises TypeError or ValueError for a maker that makes something else."""
        like = parameters_of(self.module)
        own: dict[str, Any] = {n: _copied(before.parameters[n], p) for n, p in like.items()}
        with swapped(slots_of(self.module), own):
            optimizer, scheduler = _made(self.maker, self.module)
            names = {id(p): n for n, p in own.items()}
            _go_on(optimizer, scheduler, copy.deepcopy(dict(before.kept)))
            for name, p in own.items():
                gradient = before.gradients.get(name)
                p.grad = None if gradient is None or not p.requires_grad else _own(gradient)
                if name in before.state:
                    optimizer.state[p] = {k: _own(v) for k, v in before.state[name].items()}
            groups = list(optimizer.param_groups)
            self.change(optimizer, own)
            used: dict[str, list[dict[str, Any]]] = {n: [] for n in own}
            for p, settings in _grouped(optimizer):
                if p.requires_grad:
                    used[names[id(p)]].append(settings)
            optimizer.step()
            optimizer.param_groups[:] = groups
            if scheduler:
                scheduler.step()
        return After(
            {n: p.detach() for n, p in own.items()},
            {names[id(p)]: dict(kept) for p, kept in optimizer.state.items() if id(p) in names},
            _kept(optimizer, scheduler),
            used,
            type(optimizer).__name__,
        )

    def begun(self) -> After:
        """What stands before the first step. Raises as a step does, and Refused."""
        own = {n: _copied(p.detach(), p) for n, p in parameters_of(self.module).items()}
        with swapped(slots_of(self.module), own):
            optimizer, scheduler = _made(self.maker, self.module)
        for thing in filter(None, (optimizer, scheduler)):
            _, *taken = inspect.signature(type(thing).step).parameters.values()
            for parameter in taken:
                asked = parameter.default is parameter.empty
                if asked and parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
                    raise Refused(f"a step of {type(thing).__name__} asks for its {parameter.name}")
        return After({}, {}, _kept(optimizer, scheduler), {}, type(optimizer).__name__)


def regrouped(changes: Mapping[str, list[dict[str, Any]]]) -> Change:
    """Puts each parameter into as many groups as changes of its settings stand here; those in a row
    that have the same settings are one group."""

    def change(optimizer: torch.optim.Optimizer, own: OfEach) -> None:
        known = {id(p): settings for p, settings in _grouped(optimizer)}
        groups: list[dict[str, Any]] = []
        for name, every in changes.items():
            for new in every:
                settings = {**optimizer.defaults, **known.get(id(own[name]), {}), **new}
                if not groups or _settings(groups[-1]) != settings:
                    groups.append({**settings, "params": []})
                groups[-1]["params"].append(own[name])
        optimizer.param_groups[:] = groups

    return change


def reached(zero: Collection[str], none: Collection[str]) -> Change:
    """Gives these parameters a gradient that is 0, and those none."""

    def change(optimizer: torch.optim.Optimizer, own: OfEach) -> None:
        for name in zero:
            own[name].grad = torch.zeros_like(own[name])
        for name in none:
            own[name].grad = None

    return change


def _copied(t: torch.Tensor, like: torch.Tensor) -> torch.nn.Parameter:
    """A parameter of its own memory, with what the other one is marked with."""
    made = torch.nn.Parameter(_own(t), requires_grad=like.requires_grad)
    vars(made).update(vars(like))
    return made


def _own(value: Any) -> Any:
    """A copy, of a tensor in the one layout that a parameter has beside its gradient and state:
    fused kernels go through their memory side by side."""
    if isinstance(value, torch.Tensor) and value.layout is torch.strided:
        return value.detach().clone(memory_format=torch.contiguous_format)
    return copy.deepcopy(value)


def _made(maker: Maker, module: torch.nn.Module) -> tuple[torch.optim.Optimizer, Any]:
    """The optimizer, and the scheduler or None."""
    try:
        try:
            made = maker(list(module.parameters()))
        except AttributeError:  # of a list is asked what a module has
            made = maker(module)
    except (AttributeError, TypeError, ValueError) as error:
        what = "a function of the parameters, or of the module"
        raise TypeError(f"optimizer: expected {what}, but it raises {raised(error)}") from error
    optimizer, scheduler = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(optimizer, torch.optim.Optimizer):
        kind = type(optimizer).__name__
        raise TypeError(f"optimizer: expected it to give a torch.optim.Optimizer, got a {kind}")
    if not isinstance(scheduler, (torch.optim.lr_scheduler.LRScheduler, type(None))):
        kind = type(scheduler).__name__
        raise TypeError(f"optimizer: expected a scheduler beside the optimizer, got a {kind}")
    own = {id(p) for p in module.parameters()}
    if not all(id(p) in own for p, _ in _grouped(optimizer)):
        raise ValueError("optimizer: expected it of the parameters given, got it of others")
    return optimizer, scheduler


def _grouped(optimizer: torch.optim.Optimizer) -> Iterator[tuple[torch.Tensor, dict[str, Any]]]:
    """Each parameter of each group, with the settings of that."""
    for group in optimizer.param_groups:
        yield from ((p, _settings(group)) for p in group["params"])


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name not in ("params", "param_names")}


def _kept(optimizer: torch.optim.Optimizer, scheduler: Any) -> dict[str, Any]:
    return {
        "settings": [_settings(group) for group in optimizer.param_groups],
        "schedule": dict(scheduler.state_dict()) if scheduler else {},
        "rest": {n: v for n, v in vars(optimizer).items() if n not in _of_any() and _plain(v)},
    }


def _go_on(optimizer: torch.optim.Optimizer, scheduler: Any, kept: Mapping[str, Any]) -> None:
    """As if it had come to this; or another one, with other groups, which is tried in its place."""
    for group, settings in zip(optimizer.param_groups, kept["settings"], strict=False):
        group.update(settings)
    if scheduler:
        scheduler.load_state_dict(kept["schedule"])
    vars(optimizer).update(kept["rest"])


def _plain(value: Any) -> bool:
    """Whether it is a number, a tensor that is no parameter, or a container of such."""
    if isinstance(value, (list, tuple, dict)):
        every = value.values() if isinstance(value, dict) else value
        named = not isinstance(value, dict) or all(isinstance(n, (str, int)) for n in value)
        return named and all(map(_plain, every))
    tensor = isinstance(value, torch.Tensor) and not isinstance(value, torch.nn.Parameter)
    return tensor or isinstance(value, (int, float))
