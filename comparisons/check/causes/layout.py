"""Wrong for a layout, right for the same numbers in another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ....reference.adapters import tree_map
from ...verdict.noise import cast
from ..probes import LAYOUT, OWN
from .case import Case, Cause, at
from .closeness import better


def of_a_layout(case: Case) -> Iterator[Cause]:
    # Without a truth the subject is held to itself, if nothing is wrong with it as it is called.
    wrong = {f.name for f in case.findings if OWN in f.probe.traits}
    for f in case.findings:
        if LAYOUT not in f.probe.traits:
            continue
        plain = tree_map(_plain, f.inputs)
        again, truth = at(case.ours, plain, f.name), f.truth
        if truth is None and f.name not in wrong:
            truth = at(case.ours, cast(plain, np.float64), f.name)
        if truth is not None and again is not None and better(again, truth, f.ours):
            yield Cause("layout", f"{f.name} is wrong only for {f.probe.name}")


def _plain(leaf: Any) -> Any:
    return np.array(leaf, order="C") if isinstance(leaf, np.ndarray) else leaf
