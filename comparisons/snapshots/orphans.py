"""Baselines that no test has asked for any more.

Without torch, for pytest looks here at the end of every run.
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import MARK


@dataclass
class Seen:
    """What a session, or a worker of it, has seen."""

    tests: dict[str, list[str]] = field(default_factory=dict)  # node ids by the module's file
    parts: set[str] = field(default_factory=set)  # the modules of which tests were left out
    asked: set[str] = field(default_factory=set)  # the files that a test has checked, no suffix

    def packed(self) -> dict[str, Any]:
        """For another process."""
        return {"tests": self.tests, "parts": sorted(self.parts), "asked": sorted(self.asked)}

    def add(self, packed: Mapping[str, Any]) -> None:
        """What another process has seen."""
        self.tests.update(packed["tests"])
        self.parts.update(packed["parts"])
        self.asked.update(packed["asked"])


def orphans(seen: Seen, passed: Collection[str]) -> Iterator[Path]:
    """The baselines that no test has asked for, beside modules of which every test was collected
    and has passed: what did not come to its end may have asked for more."""
    for module, tests in sorted(seen.tests.items()):
        if module not in seen.parts and all(test in passed for test in tests):
            folder = Path(module).with_suffix("")
            yield from (
                path
                for path in sorted(folder.glob("*.npz"))
                if not _asked(path, seen.asked) and _is_baseline(path)
            )


def _asked(path: Path, asked: Collection[str]) -> bool:
    """Whether a test has asked for it, or for the common one of which it may be that of another
    platform."""
    common, _, tag = path.stem.rpartition(".")
    return str(path.with_suffix("")) in asked or (
        "-" in tag and str(path.with_name(common)) in asked
    )


def _is_baseline(path: Path) -> bool:
    """Other programs keep files of this kind there too."""
    try:
        with zipfile.ZipFile(path) as archive:
            return f"{MARK}.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False
