"""A path of the function left out, or taken times a factor."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...verdict.noise import cast, is_floating
from .case import Candidate, Case, Wrong
from .closeness import where_finite
from .factor import is_known, named_factor, of_a_part
from .missing_terms import left_out

Part = tuple[str, np.ndarray, float]  # a path, its part of the gradient, how much is missing of it


def without_a_path(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    parts = _parts(case, wrong)
    for path, part, share in parts:
        if abs(share - 1) < 1e-6:
            yield Candidate("missing term", f"without its part through {path}", wrong.truth - part)
    for path, part, share in parts:
        if abs(share - 2) < 1e-6:
            text = f"of the wrong sign in its part through {path}"
            yield Candidate("sign", text, wrong.truth - 2 * part)
    for path, part, _ in parts:
        for of, made in (
            ("its part through", part),
            ("all but its part through", wrong.truth - part),
        ):
            text = f"twice {of} {path} alone, in the place of both"
            yield Candidate("missing term", text, 2 * made)


def beside_dy(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    """Of a gradient that is dy itself and more, as of x + f(x): either of the two forgotten, of the
    wrong sign, or added once more; however the rest is computed."""
    dy, truth = wrong.inputs[2], wrong.truth
    if is_floating(dy) and dy.shape == truth.shape and dy.size > 1:
        yield Candidate("missing term", "without dy itself, which is a part of it", truth - dy)
        yield Candidate("extra term", "with dy itself once more", truth + dy)
        rest = "of the wrong sign in all that is added to dy itself"
        yield Candidate("sign", rest, 2 * dy - truth)


def with_a_path_times_a_number(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    """A number that is known."""
    for path, part, share in _parts(case, wrong):
        factor = named_factor(1 - share, wrong.inputs, case.done.settings)
        if is_known(factor):
            text = f"{factor} times what it should be in its part through {path}"
            yield Candidate(of_a_part(factor), text, wrong.truth - share * part)


def with_a_path_times_any_number(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    """The number that fits best."""
    for path, part, share in _parts(case, wrong):
        factor = named_factor(1 - share, wrong.inputs, case.done.settings)
        if not is_known(factor):
            text = f"{factor} times what it should be in its part through {path}"
            yield Candidate("factor", text, wrong.truth - share * part, 1 - share)


def _parts(case: Case, wrong: Wrong) -> list[Part]:
    """Every path of which a part may be missing, computed once: how much is missing is 1 of one
    left out, 2 of one with the wrong sign."""
    key = "parts", id(wrong)
    if key not in case.known:
        case.known[key] = []
        case.known[key] = list(_found(case, wrong))
    return case.known[key]


def _found(case: Case, wrong: Wrong) -> Iterator[Part]:
    function = case.done.reference.in_torch if case.done.reference else None
    if function is None or not is_floating(wrong.inputs[2]):
        return
    position = list(case.done.order).index(wrong.name)
    ours, truth = where_finite(wrong.ours, wrong.truth)
    for path, gradients in left_out(function, cast(wrong.inputs, np.float64), case.done.order):
        part = wrong.truth - gradients[position]
        missing = np.where(np.isfinite(part), part, 0)
        square = float(np.sum(missing * missing))
        if square and gradients[position].any():
            yield path, part, float(np.sum((truth - ours) * missing)) / square
