"""Ports of modules that were written blind, before `check`: their faults, and what is right."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

import torch

from ..check.findings import NOT_APPLICABLE
from ..check.modules.evaluation import NO_FORWARD
from ..check.modules.recording import Call
from ..check.modules.report import ModulesReport, Place
from ..check.modules.verify import NO_NUMBERS, NO_PARTNER, UNCALLED
from ..check.verify import check
from ..verdict.halves import is_half
from . import written

# What was found when all was tried for the first time, by the code of the commit that added it.
# Every alarm, and most of the places, were one mistake: the gradient of an argument that has
# another name in the port was looked for under that of the original.
FIRST_SIGHT: dict[str, dict[str, int]] = {
    "ports": {
        "faults": 257,
        "found": 257,
        "first place": 141,
        "named": 75,
        "wrongly": 20,
        "right": 140,
        "alarms": 76,
    },
    # All alarms are one network's, in which a Sequential was written as a ModuleList.
    "ports_second": {
        "faults": 178,
        "found": 178,
        "first place": 170,
        "named": 126,
        "wrongly": 26,
        "right": 94,
        "alarms": 11,
    },
    # The first run died: attention with a mask was not computed in float64, and what a submodule
    # raised on inputs of another form was an alarm. These are of the run after that was mended. All
    # alarms are submodules that take another form in the port, and so are judged with their parent.
    "ports_third": {
        "faults": 131,
        "found": 131,
        "first place": 108,
        "named": 94,
        "wrongly": 17,
        "right": 79,
        "alarms": 35,
    },
    # All alarms are submodules that both have and that were not judged: of one network because the
    # original passes one tensor twice, of another because its port pads inside.
    "ports_fourth": {
        "faults": 203,
        "found": 203,
        "first place": 160,
        "named": 125,
        "wrongly": 29,
        "right": 87,
        "alarms": 24,
    },
    # All alarms but one are submodules of three networks that take or give other tensors in the
    # port: indices for one-hot rows, one sequence for all, a term that is left to the parent. Those
    # are most of the wrong places as well. What is not found is below the roundoff of float32, but
    # for one buffer that the port replaces, which was not looked at.
    "ports_fifth": {
        "faults": 230,
        "found": 226,
        "first place": 176,
        "named": 149,
        "wrongly": 39,
        "right": 79,
        "alarms": 33,
    },
    "ports_sixth": {
        "faults": 228,
        "found": 228,
        "first place": 221,
        "named": 134,
        "wrongly": 41,
        "right": 75,
        "alarms": 0,
    },
}
SINGLE = "float32"
BELOW = NOT_APPLICABLE  # of a fault that is smaller than what 16 bits show
APART = (NO_PARTNER, NO_FORWARD, UNCALLED, NO_NUMBERS)  # what is no submodule of both
PORT = "# The port"  # behind this line stands what faults are planted in
# Names of causes that say the same.
SAME = {
    "detached": {"no gradient", "missing term"},
    "scale": {"factor"},
    "missing": {"residual", "missing term", "operand"},
    "residual": {"missing", "operand", "missing term"},
    "operand": {"residual"},
    "order": {"transposed", "misplaced", "transpose"},
    "transposed": {"order", "transpose"},
    "count": {"factor"},
    "heads": {"misplaced"},
    "mode": {"dropout"},
}


def architectures(of: str = "") -> list[str]:
    """The names of those of a set, or of all."""
    if not of:
        return [name for each in FIRST_SIGHT for name in architectures(each)]
    return written.names(of)


def made(architecture: str, old: str = "", new: str = "") -> ModuleType:
    """The module of an architecture, with one text exchanged in its port. Raises ValueError for one
    that does not stand there once."""
    sets = [each for each in FIRST_SIGHT if architecture in architectures(each)]
    if not sets:
        raise ValueError(f"architecture: expected one of {', '.join(architectures())}")

    def planted(text: str) -> str:
        original, line, port = text.partition(PORT)
        above, names, below = port.partition("\nNAMES")
        if not old:
            return text
        if above.count(old) != 1:
            raise ValueError(f"{architecture}: {old!r} stands there {above.count(old)} times")
        return original + line + above.replace(old, new) + names + below

    return written.made(sets[0], architecture, planted)


def _checked(module: ModuleType, names: Mapping[str, str], kind: str) -> ModulesReport:
    torch.manual_seed(0)
    dtype = getattr(torch, kind)
    original = module.Original().to(dtype)
    port = module.Port().to(dtype)
    arrays = [
        t.to(dtype) if isinstance(t, torch.Tensor) and t.is_floating_point() else t
        for t in module.inputs()
    ]
    found: ModulesReport = check(port, original, arrays, names=dict(names))
    return found


def faults(architecture: str) -> range:
    """The numbers of those of an architecture."""
    return range(len(made(architecture).FAULTS))


def rights(architecture: str) -> range:
    """The numbers of the right ways to write it, of which 0 is the port as it stands."""
    return range(1 + len(made(architecture).RIGHT))


def fault_row(architecture: str, number: int, dtype: str = SINGLE) -> dict[str, Any]:
    """Whether a fault was found, where it was said to be first, and why."""
    whole = made(architecture)
    fault = whole.FAULTS[number]
    start = time.process_time()
    wrong = made(architecture, fault.old, fault.new)
    report = _checked(wrong, whole.NAMES, dtype)
    caught = not report.passed
    small = not caught and is_half(dtype) and _below(_checked(wrong, whole.NAMES, SINGLE), report)
    first = "" if report.passed else report.failed.iloc[0]["place"]
    cause = report.cause.name if report.cause else ""
    return {
        "id": f"{architecture}/{fault.name}/{dtype}",
        "kind": "fault",
        "architecture": architecture,
        "class": "caught" if caught else BELOW if small else "missed",
        "planted": fault.cause,
        "named": cause,
        "rightly": cause == fault.cause or cause in SAME.get(fault.cause, ()),
        "first": report.first,
        "expected": f"{fault.what} in {fault.first or 'the whole'}",
        "there": not report.passed and first == fault.first,
        "says": report.cause.text if report.cause else "",
        "skipped": "",
        "seconds": time.process_time() - start,
    }


def _below(fine: ModulesReport, coarse: ModulesReport) -> bool:
    """Whether no result that is wrong is so by more than an element must be to be seen in 16
    bits."""
    seen = coarse.table.set_index("id")["resolution"]
    wrong = fine.failed.set_index("id")["error"]
    return not any(error > seen.get(name, math.nan) for name, error in wrong.items())


def right_row(architecture: str, number: int, dtype: str = SINGLE) -> dict[str, Any]:
    """Whether a right way to write it is quiet. An alarm is also a submodule that both have and
    call, and that was not judged."""
    whole = made(architecture)
    right = whole.RIGHT[number - 1] if number else None
    start = time.process_time()
    module = made(architecture, right.old, right.new) if right else whole
    report = _checked(module, (right and right.names) or whole.NAMES, dtype)
    unjudged = _unjudged(report)
    return {
        "id": f"{architecture}/{right.name if right else 'as it stands'}/{dtype}",
        "kind": "right",
        "architecture": architecture,
        "class": "quiet" if report.passed and not unjudged else "alarm",
        "planted": "fused" if right and right.fused else "",
        "named": "",
        "rightly": False,
        "first": report.first,
        "expected": "",
        "there": False,
        "says": str(report.cause or ""),
        "skipped": ", ".join(unjudged),
        "seconds": time.process_time() - start,
    }


def _unjudged(report: ModulesReport) -> list[str]:
    """The submodules that both have, and call, and of a call of which no result was judged."""
    calls: dict[Call, list[Place]] = {}
    for place in report.places:
        calls.setdefault(place.call, []).append(place)
    found = [
        call.place
        for call, places in calls.items()
        if not any(p.verdict for p in places) and not any(p.note in APART for p in places)
    ]
    return list(dict.fromkeys(found))


def counted(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """What the table says in a line, without the faults that 16 bits are too coarse for."""
    rows = list(rows)
    wrong = [r for r in rows if r["kind"] == "fault" and r["class"] != BELOW]
    right = [r for r in rows if r["kind"] == "right"]
    return {
        "faults": len(wrong),
        "found": sum(r["class"] == "caught" for r in wrong),
        "first place": sum(bool(r["there"]) for r in wrong),
        "named": sum(bool(r["rightly"]) for r in wrong),
        "wrongly": sum(bool(r["named"]) and not r["rightly"] for r in wrong),
        "right": len(right),
        "alarms": sum(r["class"] == "alarm" for r in right),
    }
