"""What a wrong gradient was made of: the few mistakes that reproduce it, tried in turn.

A cause is a generator, a function of a case: what it yields first is the diagnosis.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from . import (
    called,
    contributions,
    cotangent,
    counts,
    factor,
    forgotten,
    forward,
    in_range,
    inside,
    kinks,
    layout,
    misplaced,
    operand,
    operations,
    other_dy,
    overwritten,
    plain,
    precision,
    rotation,
    state,
    steps,
    swapped,
    targets,
    tiles,
    transposed,
    variant,
)
from .case import Candidate, Case, Cause, Tried, Wrong

__all__ = ["Cause", "Tried", "diagnose"]

T = TypeVar("T")

# What the subject did that no rule does, of the findings of all calls: at ordinary points this goes
# before everything else, at others behind it.
PLAIN = (
    plain.mutated,
    plain.of_another,
    plain.not_summed,
    plain.turned,
    plain.misshapen,
    plain.of_another_dtype,
    plain.raised,
    plain.no_gradient,
    plain.not_finite,
    plain.misused,
)

# What may have been computed in the place of a gradient.
CANDIDATES = (
    swapped.of_another_argument,
    factor.times_a_number,
    transposed.rearranged,
    misplaced.rearranged,
    other_dy.of_another_dy,
    overwritten.of_one_slice,
    transposed.of_a_turned_dy,
    overwritten.of_some_slices,
    misplaced.of_a_rearranged_dy,
    overwritten.not_added_up,
    misplaced.of_a_part_of_dy,
    transposed.at_a_turned_argument,
    misplaced.at_a_rearranged_argument,
    forgotten.without_a_path,
    forgotten.beside_dy,
    operand.without_an_argument,
    operand.of_another_operand,
    variant.of_another_setting,
    forgotten.with_a_path_times_a_number,
    factor.times_an_array,
    operations.of_one_operation,
    inside.of_one_step,
    tiles.of_a_triangle,
    tiles.of_parts_of_a_sum,
    steps.of_one_step,
    targets.elsewhere,
    called.of_another_function,
    variant.of_another_constant,
    variant.of_another_constant_in_the_pullback,
    factor.times_an_array_inside,
    counts.of_other_counts,
    forgotten.with_a_path_times_any_number,
)


def made(case: Case) -> Iterator[Cause]:
    """The first candidate that makes the wrong values of one gradient, and has its like in the
    others of that argument."""
    for first, *others in case.wrong:
        for found in _candidates(case, first):
            if not first.is_made(found.values) or _fits_anything(found, others):
                continue
            if all(_has_like(case, wrong, found) for wrong in others):
                yield Cause(found.cause, f"the gradient of {first.name} is {found.text}")


# Of one call: by where it is wrong, then by its values, from the plainest on.
SEARCHED = (
    state.differs_from_itself,
    state.of_other_calls,
    state.of_an_earlier_call,
    layout.of_a_layout,
    kinks.at_kinks,
    cotangent.not_linear,
    misplaced.left_out,
    rotation.of_pairs,
    made,
    misplaced.in_another_order,
    contributions.one_by_one,
    precision.of_a_shorter_type,
    in_range.beyond_a_value,
    in_range.at_odd_points,
    forward.of_the_value,
)


def diagnose(done: Sequence[Tried]) -> Cause | None:
    """The first cause that accounts for what was found; None if there is none."""
    findings = [f for tried in done for f in tried.findings]
    first = [f for f in findings if plain.comes_first(f)]
    cases = [
        Case(tried, own)
        for tried in done
        if (own := [f for f in tried.findings if f.outside is not None])
    ]
    found = itertools.chain(
        _each(PLAIN, first),
        *(_each(SEARCHED, case) for case in cases if case.findings),
        _each(PLAIN, findings),
    )
    return next(found, None)


def _candidates(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    return _each(CANDIDATES, case, wrong)


def _has_like(case: Case, wrong: Wrong, like: Candidate) -> bool:
    """Whether the same makes another wrong gradient too; a number that was fitted is the same."""
    return any(
        c.cause == like.cause
        and (like.fitted is None or (c.fitted and abs(c.fitted / like.fitted - 1) < 1e-6))
        and wrong.is_made(c.values)
        for c in _candidates(case, wrong)
    )


def _fits_anything(found: Candidate, others: Sequence[Wrong]) -> bool:
    """Whether a number was fitted to a single one, which each number is a multiple of, or at a
    single point, where each path has a share."""
    return found.fitted is not None and (found.values.size == 1 or not others)


def _each(searches: Iterable[Callable[..., Iterator[T]]], *args: Any) -> Iterator[T]:
    """All that is found, one search after another. Each is held by a net: it calls code of others
    at inputs that they were not made for, and where that raises, or we do, nothing more is found
    there; the verdict stands."""
    for search in searches:
        try:
            yield from search(*args)
        except Exception:
            continue
