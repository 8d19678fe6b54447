"""Modules of folders that were written blind, each with a text changed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType


def names(folder: str) -> list[str]:
    """Of what a folder beside this file holds."""
    there = Path(__file__).with_name(folder)
    return sorted(p.stem for p in there.glob("*.py") if p.stem not in ("__init__", "kinds"))


def made(folder: str, name: str, changed: Callable[[str], str]) -> ModuleType:
    """The module of this name in a folder, from its text as it is changed."""
    full = f"{__package__}.{folder}.{name}"
    spec = find_spec(full)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(full)
    module = module_from_spec(spec)
    text = changed(Path(spec.origin).read_text(encoding="utf-8"))
    sys.modules[full] = module  # where dataclasses look
    exec(compile(text, spec.origin, "exec"), module.__dict__)
    return module
