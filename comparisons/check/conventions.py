"""Another slope at a kink is told from a wrong gradient."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from ...reference.adapters import tree_map
from ..verdict.noise import is_floating
from .arguments import double, private
from .trials import Trial, Trials

STEP = 2.0**-20  # how far beside a kink is looked, of the size of each element
SLACK = 1e-4  # how far a slope changes over such a step where there is no kink
SIDES = 10  # points around it


def is_convention(t: Trials, trial: Trial, name: str, outside: np.ndarray) -> bool:
    """Whether the subject has torch's slopes all around, and here, where those jump, one between
    them: a subgradient of Clarke, "Optimization and Nonsmooth Analysis", 1983."""
    inputs, here = double(trial.inputs), trial.results[name]
    slopes = []
    for seed in range(SIDES):
        beside = _beside(inputs, t.order.index(name), here, seed)
        try:
            theirs = t.truth(beside)[name]
            ours = t.call(private(beside))[name]
        except Exception:  # beyond the domain
            return False
        scale = float(np.max(abs(theirs), initial=0))
        if ours is None or not np.all(abs(ours - theirs) <= SLACK * scale):
            return False
        slopes.append(theirs)
    low, high = np.min(slopes, axis=0), np.max(slopes, axis=0)
    slack = SLACK * float(np.max(abs(np.array(slopes)), initial=0))
    between = (low - slack <= here) & (here <= high + slack)
    jumps = abs(here - trial.truth[name]) > 10 * slack  # by more than slopes change nearby
    taken = np.any(np.array(slopes) == here, axis=0)  # of so many ties that each has a tiny share
    return bool(np.all((between & (jumps | taken))[outside]) and jumps[outside].any())


def _beside(inputs: Any, position: int, slope: np.ndarray, seed: int) -> Any:
    """The inputs a step away. The first points move every element to one side; the next the
    elements of this array that have a slope to one side and those that have none to the other, for
    of a tie that is the one which was taken; all others to random sides."""
    rng = np.random.default_rng([seed, 9])
    count = itertools.count()
    args, kwargs, dy = inputs

    def moved(leaf: Any) -> Any:
        if not is_floating(leaf):
            return leaf
        size = np.where(leaf == 0, np.mean(abs(leaf)) or 1.0, abs(leaf))
        sides: Any = rng.choice([-1, 1], leaf.shape)
        here = next(count) == position
        if seed < 2:
            sides = 2 * seed - 1
        elif seed < 4 and here and leaf.shape == slope.shape:
            sides = np.where(slope != 0, 1, -1) * (2 * seed - 5)
        beside = leaf + STEP * size * sides * rng.uniform(0.5, 1, leaf.shape)
        return abs(beside) if leaf.size and np.all(leaf >= 0) and leaf.any() else beside

    return (*tree_map(moved, (args, kwargs)), dy)
