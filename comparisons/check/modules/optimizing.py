"""One step of an optimizer of the user's, made anew around copies, as a function of all it sees."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ...report.text import raised
from .state import parameters_of, swapped

# Makes an optimizer of a list of parameters or of a module; with it, in a tuple, a scheduler.
Maker = Callable[[Any], Any]
OfEach = Mapping[str, Any]  # something of each parameter, by name


class Refused(Exception):
    """An optimizer of which no step can be judged."""


@dataclass(frozen=True)
class Before:
    """What a step sees: of each parameter its value, its gradient (None where there is none) and
    what the optimizer keeps of it; the settings of each group; the state of the scheduler."""

    parameters: OfEach
    gradients: OfEach
    state: Mapping[str, OfEach]
    settings: Sequence[Mapping[str, Any]]
    schedule: Mapping[str, Any]


@dataclass(frozen=True)
class After:
    """What a step leaves, or what stands before the first one, as Before.

    used    the settings with which each parameter was moved, once for each time that it stands in
            a group; nothing where it does not, or is frozen
    kind    the class of the optimizer
    """

    parameters: OfEach
    state: Mapping[str, OfEach]
    settings: list[dict[str, Any]]
    schedule: dict[str, Any]
    used: Mapping[str, list[dict[str, Any]]]
    kind: str = ""


@dataclass(frozen=True)
class Machine:
    """A module and what makes its optimizer.

    group   is asked before the step for other groups, with the optimizer and the parameters
    """

    module: torch.nn.Module
    maker: Maker
    group: Callable[[torch.optim.Optimizer, OfEach], None] = field(default=lambda *_: None)

    def __call__(self, before: Before) -> After:
        """One step from there; what is given stays as it is, and so do the module's parameters.
        Raises TypeError or ValueError for a maker that makes something else."""
        own = {n: _copied(before.parameters[n], p) for n, p in parameters_of(self.module).items()}
        with swapped(self.module, own):
            optimizer, scheduler = _made(self.maker, self.module)
            names = {id(p): n for n, p in own.items()}
            for group, settings in zip(optimizer.param_groups, before.settings, strict=True):
                group.update(copy.deepcopy(dict(settings)))
            if scheduler and before.schedule:
                scheduler.load_state_dict(copy.deepcopy(dict(before.schedule)))
            groups = list(optimizer.param_groups)
            self.group(optimizer, own)
            used: dict[str, list[dict[str, Any]]] = {n: [] for n in own}
            for p, settings in _grouped(optimizer):
                if p.requires_grad:
                    used[names[id(p)]].append(settings)
            for name, p in own.items():
                gradient = before.gradients.get(name)
                p.grad = None if gradient is None or not p.requires_grad else gradient.clone()
                if name in before.state:
                    optimizer.state[p] = copy.deepcopy(dict(before.state[name]))
            optimizer.step()
            optimizer.param_groups[:] = groups
            if scheduler:
                scheduler.step()
        return After(
            {n: p.detach() for n, p in own.items()},
            {names[id(p)]: dict(kept) for p, kept in optimizer.state.items() if id(p) in names},
            [_settings(group) for group in optimizer.param_groups],
            dict(scheduler.state_dict()) if scheduler else {},
            used,
            type(optimizer).__name__,
        )

    def begun(self) -> After:
        """What stands before the first step. Raises as a step does, and Refused."""
        own = {n: _copied(p.detach(), p) for n, p in parameters_of(self.module).items()}
        with swapped(self.module, own):
            optimizer, scheduler = _made(self.maker, self.module)
        for thing in filter(None, (optimizer, scheduler)):
            _, *taken = inspect.signature(type(thing).step).parameters.values()
            for parameter in taken:
                asked = parameter.default is parameter.empty
                if asked and parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
                    raise Refused(f"a step of {type(thing).__name__} asks for its {parameter.name}")
        settings = [_settings(group) for group in optimizer.param_groups]
        return After({}, {}, settings, dict(scheduler.state_dict()) if scheduler else {}, {})


def regrouped(changes: Mapping[str, list[dict[str, Any]]]) -> Callable[..., None]:
    """A `group` of a Machine that puts each parameter into groups of its own, as often as changes
    of its settings stand here."""

    def group(optimizer: torch.optim.Optimizer, own: OfEach) -> None:
        known = {id(p): settings for p, settings in _grouped(optimizer)}
        optimizer.param_groups[:] = [
            {**optimizer.defaults, **known.get(id(own[name]), {}), **change, "params": [own[name]]}
            for name, every in changes.items()
            for change in every
        ]

    return group


def _copied(t: torch.Tensor, like: torch.Tensor) -> torch.nn.Parameter:
    """A parameter of its own memory, with what the other one is marked with."""
    own = t.clone(memory_format=torch.contiguous_format)
    made = torch.nn.Parameter(own, requires_grad=like.requires_grad)
    vars(made).update(vars(like))
    return made


def _made(maker: Maker, module: torch.nn.Module) -> tuple[torch.optim.Optimizer, Any]:
    """The optimizer, and the scheduler or None."""
    try:
        made = maker(list(module.parameters()))
    except AttributeError:  # of a list is asked what a module has
        try:
            made = maker(module)
        except AttributeError as error:
            raise TypeError(
                "optimizer: expected a function of the parameters, or of the module: it "
                f"raises {raised(error)}"
            ) from None
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
