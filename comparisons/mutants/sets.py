"""Sets of mistakes that were written blind: what `check` found at first sight, and now."""

from __future__ import annotations

import inspect
import operator
import time
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

import torch

from ..check.verify import check
from .judges import Count, objections
from .mistakes import Mistake, Subject
from .table import objects, warned

SETS = ("third", "fourth", "fifth", "sixth")
# What was found when a set was tried for the first time, which is but once: the third by the code
# of the commit that added it, the others by that of the commit before the one that added their row.
FIRST_SIGHT = {
    "third": {
        "mistakes": 419,
        "found": 415,
        "named rightly": 175,
        "named wrongly": 66,
        "right functions": 89,
        "alarms": 6,
    },
    "fourth": {
        "mistakes": 264,
        "found": 258,
        "named rightly": 187,
        "named wrongly": 34,
        "right functions": 83,
        "alarms": 2,
    },
    "fifth": {
        "mistakes": 65,
        "found": 65,
        "named rightly": 55,
        "named wrongly": 5,
        "right functions": 38,
        "alarms": 2,
    },
    "sixth": {
        "mistakes": 52,
        "found": 52,
        "named rightly": 45,
        "named wrongly": 4,
        "right functions": 28,
        "alarms": 1,
    },
}


def modules(name: str) -> dict[str, ModuleType]:
    """The modules of a set, by subject."""
    from . import fifth, fourth, sixth, third

    chosen = {"third": third, "fourth": fourth, "fifth": fifth, "sixth": sixth}[name]
    return {module.__name__.rpartition(".")[2]: module for module in chosen.MODULES}


def subjects(name: str) -> Iterator[tuple[str, str]]:
    """Each right function of a set: its module, and its own name."""
    for module, content in modules(name).items():
        for subject in content.SUBJECTS:
            yield module, subject


def mistakes(name: str) -> Iterator[tuple[str, int]]:
    """Each mistake of a set: its module, and its number there."""
    for module, content in modules(name).items():
        for number in range(len(content.MISTAKES)):
            yield module, number


def planted(content: ModuleType, mistake: Mistake) -> Any:
    """The function with the mistake in it. Raises ValueError unless its text is found once."""
    thing = getattr(content, mistake.of)
    parts = thing if isinstance(thing, tuple) else (thing,)
    sources = list(map(inspect.getsource, parts))
    found = sum(source.count(mistake.old) for source in sources)
    if found != 1:
        raise ValueError(
            f"{content.__name__}: expected {mistake.old!r} once in {mistake.of}, found it {found} "
            "times"
        )
    scope = dict(vars(content))
    for source in sources:
        exec(source.replace(mistake.old, mistake.new), scope)
    made = tuple(scope[part.__name__] for part in parts)
    return made if isinstance(thing, tuple) else made[0]


def mistake_row(name: str, module: str, number: int, seed: int, **effort: Any) -> dict[str, Any]:
    """One mistake at all calls of its function, till it is objected to."""
    content = modules(name)[module]
    mistake = content.MISTAKES[number]
    row = _tried(planted(content, mistake), content.SUBJECTS[mistake.of], seed, effort)
    causes = mistake.cause.split(" / ")
    return {
        "id": f"{name}/{module}/{number}/{seed}",
        "set": name,
        "kind": "mistake",
        "op": f"{module}.{mistake.of}",
        "planted": mistake.cause,
        "old": mistake.old,
        "new": mistake.new,
        **row,
        "rightly": row["named"] in causes,
    }


def right_row(name: str, module: str, subject: str, seed: int) -> dict[str, Any]:
    """A right function at all its calls."""
    content = modules(name)[module]
    row = _tried(getattr(content, subject), content.SUBJECTS[subject], seed, {})
    row["class"] = {"caught": "alarm", "missed": "quiet"}.get(row["class"], row["class"])
    return {
        "id": f"{name}/{module}/{subject}/{seed}",
        "set": name,
        "kind": "right",
        "op": f"{module}.{subject}",
        "planted": "",
        "old": "",
        "new": "",
        **row,
        "rightly": False,
    }


def counted(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """The same counts as those of the first sight."""
    mistakes = [r for r in rows if r["kind"] == "mistake"]
    right = [r for r in rows if r["kind"] == "right"]
    rightly = sum(bool(r["rightly"]) for r in mistakes)
    return {
        "mistakes": len(mistakes),
        "found": sum(r["class"] == "caught" for r in mistakes),
        "named rightly": rightly,
        "named wrongly": sum(bool(r["named"]) for r in mistakes) - rightly,
        "right functions": len(right),
        "alarms": sum(r["class"] == "alarm" for r in right),
    }


def _tried(thing: Any, subject: Subject, seed: int, effort: dict[str, Any]) -> dict[str, Any]:
    against: Any = subject.against
    if isinstance(against, str):
        against = operator.attrgetter(against.removeprefix("torch."))(torch)
    kind, named, says, page = "missed", "", "", ""
    calls = [call.draw(seed) for call in subject.calls]
    count, started = Count(), time.perf_counter()
    counted = count.of(thing)
    for arrays, settings in calls:
        try:
            report = check(counted, against, arrays, settings, seed=seed, **effort)
        except (TypeError, ValueError) as refusal:
            kind, page = "n/a", f"{type(refusal).__name__}: {refusal}"
            continue
        if objects(report):
            kind, page = "caught", str(report)
            if report.cause:
                named, says = report.cause.name, report.cause.text
            elif warned(report):
                named = "dtype"
            break
    took = time.perf_counter() - started
    return {
        **{"class": kind, "named": named, "says": says, "page": page},
        **objections(thing, against, calls, seed),
        **{"calls": count.number, "seconds": took},
    }
