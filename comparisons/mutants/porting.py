"""Ports of modules that were written blind, before `check`: their faults, and what is right."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from ..check.findings import NOT_APPLICABLE
from ..check.modules.report import ModulesReport
from ..check.verify import check

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


def architectures() -> list[str]:
    """The names of all."""
    folder = Path(__file__).with_name("ports")
    return sorted(p.stem for p in folder.glob("*.py") if p.stem not in ("__init__", "kinds"))


def made(architecture: str, old: str = "", new: str = "") -> ModuleType:
    """The module of an architecture, with one text exchanged in its port. Raises ValueError for one
    that does not stand there once."""
    name = f"{__package__}.ports.{architecture}"
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ValueError(f"architecture: expected one of {', '.join(architectures())}")
    text = Path(spec.origin).read_text(encoding="utf-8")
    original, line, port = text.partition(PORT)
    if old:
        above, names, below = port.partition("\nNAMES")
        if above.count(old) != 1:
            raise ValueError(f"{architecture}: {old!r} stands there {above.count(old)} times")
        port = above.replace(old, new) + names + below
    module = ModuleType(name)
    module.__package__ = f"{__package__}.ports"
    exec(compile(original + line + port, spec.origin, "exec"), module.__dict__)
    return module


def _checked(module: ModuleType, names: Mapping[str, str], dtype: torch.dtype) -> ModulesReport:
    torch.manual_seed(0)
    original = module.Original().to(dtype)
    port = module.Port().to(dtype)
    arrays = [
        t.to(dtype) if isinstance(t, torch.Tensor) and t.is_floating_point() else t
        for t in module.inputs()
    ]
    found: ModulesReport = check(port, original, arrays, names=dict(names))
    return found


def faults(architecture: str, dtype: torch.dtype = torch.float32) -> Iterator[dict[str, Any]]:
    """A row for each fault: whether it was found, where it was said to be first, and why."""
    whole = made(architecture)
    for fault in whole.FAULTS:
        start = time.process_time()
        report = _checked(made(architecture, fault.old, fault.new), whole.NAMES, dtype)
        bad = report.failed
        first = "" if bad.empty else bad.iloc[0]["place"]
        cause = report.cause.name if report.cause else ""
        found = not report.passed
        yield {
            "id": f"{architecture}/{fault.name}/{str(dtype).removeprefix('torch.')}",
            "found": found,
            "first": first,
            "expected": fault.first,
            "there": found and first == fault.first,
            "cause": str(report.cause or ""),
            "planted": fault.cause,
            "named": cause == fault.cause or cause in SAME.get(fault.cause, ()),
            "seconds": time.process_time() - start,
        }


def rights(architecture: str, dtype: torch.dtype = torch.float32) -> Iterator[dict[str, Any]]:
    """A row for each right way to write it, the port as it stands among them. An alarm is also a
    submodule of the same name on both sides that was not judged."""
    whole = made(architecture)
    plain = [("as it stands", "", "", False, whole.NAMES)]
    others = [(r.name, r.old, r.new, r.fused, r.names or whole.NAMES) for r in whole.RIGHT]
    for name, old, new, fused, names in plain + others:
        start = time.process_time()
        module = made(architecture, old, new)
        report = _checked(module, names, dtype)
        skipped = report.table[report.table["class"] == NOT_APPLICABLE]
        own = {n for n, _ in module.Port().named_modules()}
        unjudged = [p for p in skipped["place"] if p in own]
        yield {
            "id": f"{architecture}/{name}/{str(dtype).removeprefix('torch.')}",
            "fused": fused,
            "right": report.passed,
            "first": report.first,
            "cause": str(report.cause or ""),
            "not judged": ", ".join(unjudged),
            "seconds": time.process_time() - start,
        }
