"""Results of one release of a package beside those of the next: what is asked for, what moved."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from .. import environment
from . import diff
from .diff import CLASSES, NEW, REMOVED, Diff
from .file import Baseline, NotComparable

COLUMNS = ("id", "group", "name", "class", "side", "size")  # what `summary` reads of a diff
Say = Callable[[str], None]


class Failed(Exception):
    """A step that went wrong, with the last lines that it printed."""


@dataclass(frozen=True)
class Subject:
    """A SPEC: what it pins, and where its environment and its baseline lie."""

    pins: tuple[str, ...]
    environment: Path
    baseline: Path

    @property
    def title(self) -> str:
        return ", ".join(self.pins)

    @property
    def python(self) -> Path:
        scripts = Path("Scripts", "python.exe") if os.name == "nt" else Path("bin", "python")
        return self.environment / scripts

    @property
    def marker(self) -> Path:
        """Is there when the installation is whole, and says of what it was made."""
        return self.environment / "gradtwin-installed"


def pins(spec: str) -> tuple[str, ...]:
    """The requirements that a SPEC consists of; a bare version is one of torch.

    Raises ValueError for what is neither, and where a package is named twice.
    """
    parts: list[str] = []
    for part in map(str.strip, spec.split(",")):
        if parts and part.startswith(("<", ">", "=", "!", "~")):  # "numpy>=2,<2.3" is one
            parts[-1] += f",{part}"
        else:
            parts.append(part)
    found = [_requirement(part) for part in parts]
    names = [canonicalize_name(requirement.name) for requirement in found]
    if len(set(names)) < len(names):
        raise ValueError(f"expected each package once, got {spec!r}")
    return tuple(map(str, found))


def _requirement(text: str) -> Requirement:
    """The requirement that the text is. It must name a version: a bare name is rather one that
    was meant for --only than a package to be fetched."""
    try:
        return Requirement(f"torch=={Version(text)}")
    except InvalidVersion:
        pass
    try:
        found = Requirement(text)
        if found.specifier or found.url:
            return found
    except InvalidRequirement:
        pass
    raise ValueError(
        f"expected a version of torch like 2.12.0 or a requirement like numpy==2.3.5, got {text!r}"
    )


def subjects(specs: Sequence[str], folder: Path) -> list[Subject]:
    """The SPECs, each with its place in the folder. Raises ValueError for what is none."""
    asked = [pins(spec) for spec in specs]
    if len(asked) < 2:
        raise ValueError(f"expected two or more, got {len(asked)}")
    if len(set(asked)) < len(asked):
        raise ValueError(f"expected each once, got {' '.join(specs)}")
    found = [
        Subject(p, environments(folder) / f"{_slug(p)}-{sys.implementation.cache_tag}",
                folder / f"{_slug(p)}.parquet") for p in asked
    ]  # fmt: skip
    for subject in found:
        made = (subject.environment / "pyvenv.cfg").exists()
        if subject.environment.exists() and not made:
            raise ValueError(f"{subject.environment} is there, and no virtual environment")
    return found


def environments(folder: Path) -> Path:
    return folder / "environments"


def _slug(requirements: Sequence[str]) -> str:
    """The name of a file; what had to be replaced in it is told apart by a digest."""
    plain = "_".join(requirements).replace("==", "-")
    safe = re.sub(r"[^\w.+-]+", "-", plain)
    return safe if safe == plain else f"{safe}-{digest([plain])}"


def digest(parts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def held(old: Baseline, new: Baseline) -> Diff:
    """The new baseline against the old one, also if nothing is in both: a release may lack all the
    functions that were asked for."""
    try:
        return diff.compare(old, new)
    except NotComparable:
        pass
    rows = [
        (q.id, q.table, q.name, kind, "", 0.0)
        for kind, side in ((REMOVED, old), (NEW, new))
        for q in side.quantities.values()
    ]
    changed = environment.changes(old.environment, new.environment)
    return Diff(pd.DataFrame(rows, columns=COLUMNS), changed, [])


def summary(found: Diff) -> pd.DataFrame:
    """One row for each name of which something moved, the worst first: its classes, the side that
    moved, and how far and where it moved most."""
    totals = found.table["name"].value_counts()
    rows = []
    for name, group in found.moved.groupby("name", sort=False):  # it is sorted already
        counts = group["class"].value_counts()
        top = group.iloc[int(group["size"].argmax())]
        rows.append(
            {
                "name": name,
                "class": group["class"].iloc[0],
                "classes": ", ".join(f"{counts[k]} {k}" for k in CLASSES[::-1] if k in counts),
                "of": int(totals[name]),
                "side": ", ".join(dict.fromkeys(side for side in group["side"] if side)),
                "moved": float(top["size"]),
                "at": top["id"],
            }
        )
    columns = ["name", "class", "classes", "of", "side", "moved", "at"]
    return pd.DataFrame(rows, columns=columns)
