"""Where an op, an optimizer or a schedule is written, on both sides, and what it is tried on."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from ... import manual, reference
from ...manual.optimizers import elsewhere
from .. import ops, samples
from ..environment import ROOT
from ..ops.optimizers import configurations, named
from ..samples.optimizers import SAMPLES as OPTIMIZERS
from ..samples.schedules import SAMPLES as SCHEDULES


def sources(name: str) -> list[tuple[str, str]]:
    """(file, text) of the rule and of its mirror, this with the helpers that it names."""
    module: ModuleType
    if name in elsewhere.__all__:
        rule = getattr(elsewhere, name)
        return [(_place(rule), inspect.getsource(rule).rstrip())]
    if name in OPTIMIZERS:
        rule, module = named(name).rule, reference.optimizers
    elif name in SCHEDULES:
        rule, module = getattr(manual.schedules, name), reference.schedules
    else:
        rule, module = ops.named(name).rule, getattr(reference, ops.named(name).family)
    folder = [m for m in vars(module).values() if inspect.ismodule(m)]
    files = [m for m in folder if m.__name__.startswith(f"{module.__name__}.")]
    module, parts = next((m, p) for m in (module, *files) if name in (p := _parts(m)))
    helpers = [parts[own] for own in re.findall(r"\b_\w+", parts[name]) if own in parts]
    mirror = "\n\n".join([*dict.fromkeys(helpers), parts[name]])
    return [
        (_place(rule), inspect.getsource(rule).rstrip()),
        (f"\n{_place(module)}", mirror.rstrip()),
    ]


def _parts(module: ModuleType) -> dict[str, str]:
    """What stands in a module, by the name that each has."""
    source = inspect.getsource(module)
    parts = {}
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [node]
        for target in targets:
            own = getattr(target, "id", getattr(target, "name", ""))
            first = min([node, *getattr(node, "decorator_list", [])], key=lambda n: n.lineno)
            parts[own] = "\n".join(source.splitlines()[first.lineno - 1 : node.end_lineno])
    return parts


def tried_on(name: str) -> list[tuple[str, str]]:
    """("samples", "corners" or "settings", what stands between the brackets) of each row."""
    if name in elsewhere.__all__:  # which nothing of torch can be tried on
        return []
    if name in OPTIMIZERS or name in SCHEDULES:
        every = configurations(name) if name in OPTIMIZERS else SCHEDULES[name]
        return [("settings", samples.written(settings) or "defaults") for settings in every]
    return [(f"{kind}s", repr(row)) for kind, row in ops.named(name).rows()]


def _place(thing: Any) -> str:
    """The file of a rule or of mirrors, as it is called in the source tree."""
    return Path(inspect.getfile(thing)).resolve().relative_to(ROOT).as_posix()
