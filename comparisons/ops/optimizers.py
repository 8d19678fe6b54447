"""An optimizer: one name for a rule, its mirror and its settings."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ... import manual, reference
from ...manual.names import unknown
from ...reference.adapters import OptimizerFacts
from ..samples.optimizers import SAMPLES


@dataclass(frozen=True)
class Optimizer:
    """All that is known of one optimizer, looked up whenever it is asked for, so that one may be
    exchanged for another."""

    name: str

    @property
    def rule(self) -> Callable[..., Any]:
        """By hand: (param, grad, state) → (param, state)."""
        found: Callable[..., Any] = getattr(manual.optimizers, self.name)
        return found

    @property
    def mirror(self) -> Any:
        """The same, obtained from torch; None where this torch lacks it."""
        return getattr(reference.optimizers, self.name)

    @property
    def facts(self) -> OptimizerFacts:
        """What is peculiar about it, as the line of its mirror says."""
        return getattr(self.mirror, "facts", OptimizerFacts())

    @property
    def paths(self) -> list[dict[str, bool]]:
        """The settings for torch's other implementations than its loop, which is what it does on a
        CPU."""
        accepted = inspect.signature(self.mirror).parameters
        return [{path: True} for path in ("foreach", "fused") if path in accepted]

    @property
    def defaults(self) -> dict[str, Any]:
        """Those of its settings that may be looked for, as numbers."""
        accepted = inspect.signature(self.rule).parameters
        return {name: accepted[name].default for name in self.facts.free} | self.facts.start


def named(name: str) -> Optimizer:
    """The optimizer of this name. Raises ValueError if there is none."""
    if name not in SAMPLES:
        raise ValueError(unknown("optimizer", name, SAMPLES))
    return Optimizer(name)


def every() -> list[Optimizer]:
    """All that there are by hand."""
    return list(map(Optimizer, SAMPLES))


@functools.cache
def configurations(name: str) -> list[dict[str, Any]]:
    """Every configuration that torch's own tests have for this optimizer, and ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_optimizers import optim_db
    twin = named(name).mirror
    if twin is None:  # newer than this torch
        return []
    found: list[dict[str, Any]] = []
    for info in optim_db:
        if info.optim_cls is twin.__wrapped__:
            for made in info.optim_inputs_func(device="cpu"):
                settings = {
                    k: v.item() if isinstance(v, torch.Tensor) else v
                    for k, v in made.kwargs.items()
                }
                found += [settings] if settings not in found else []
    return found + [s for s in SAMPLES[name] if s not in found]
