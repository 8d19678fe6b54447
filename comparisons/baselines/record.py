"""Recording a baseline: side by side, going on where it was interrupted, written at the end."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import filelock
import numpy as np

from ..environment import fingerprint
from ..parallel import limited, side_by_side
from ..verdict.classes import CLASSES
from . import file
from .file import Baseline, NotComparable
from .measure import Quantity, Task, tasks

Progress = Callable[[int], None]  # is told, after every task, how many there are


def measured(
    names: Sequence[str] = (),
    *,
    seed: int = 0,
    repeats: int = 0,
    jobs: int = 1,
    threads: int = 1,
    parts: Path | None = None,
    done: Progress = lambda total: None,
) -> Baseline:
    """Measures what is named, in the order of `tasks`. Parts that lie in the folder are not
    measured again if they were made of the same code in the same environment."""
    with limited(threads):
        environment = fingerprint()
    chosen = tasks(names, seed)
    found: dict[int, list[Quantity]] = {}
    work = [(_measured, (task, repeats, parts, environment)) for task in chosen]
    for i, quantities in side_by_side(work, jobs, threads):
        found[i] = quantities
        done(len(chosen))
    about = {"environment": environment, "names": list(names), "seed": seed, "threads": threads}
    return Baseline({q.id: q for i in sorted(found) for q in found[i]}, about)


def _measured(
    task: Task, repeats: int, parts: Path | None, environment: Mapping[str, str]
) -> list[Quantity]:
    """What the task measures, or its part, if that is there and whole."""
    key = hashlib.sha256(json.dumps([repr(task), repeats, environment]).encode()).hexdigest()
    part = parts / f"{key[:32]}.parquet" if parts else None
    if part and part.exists():
        with contextlib.suppress(NotComparable):  # else it is measured again
            return list(file.read(part).quantities.values())
    quantities = task.measure(repeats)
    if part:
        file.write(part, quantities, {})
    return quantities


class Busy(ValueError):
    """Another recording to the same file is under way."""


@contextlib.contextmanager
def folder_of_parts(path: Path) -> Iterator[Path]:
    """Where the parts of a recording lie until it is whole; they stay when it is interrupted, and
    what is not ours stays always. Busy where a second recording to the same file is under way."""
    owner = f"{Path.home()} {path.resolve()}"
    name = f"gradtwin-{hashlib.sha256(owner.encode()).hexdigest()[:16]}.lock"
    lock = filelock.FileLock(Path(tempfile.gettempdir()) / name)  # a kill releases it
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise Busy(f"another recording to {path} is under way") from None
    with lock:
        parts = path.with_name(f".{path.name[:200]}.parts")
        parts.mkdir(exist_ok=True)
        yield parts
        for part in parts.iterdir():
            if re.fullmatch(r"[0-9a-f]{32}\.parquet|\.gradtwin-[0-9a-f]{16}", part.name):
                part.unlink()
        with contextlib.suppress(OSError):  # something else lies there
            parts.rmdir()


def updated(new: Baseline, old: Baseline | None, reason: str) -> Baseline:
    """The new baseline with the history of the old one, and why it takes its place.

    Raises ValueError, with the ids, where a number is not finite that torch's is.
    """
    broken = [q.id for q in new.quantities.values() if not _finite(q)]
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise ValueError(f"not finite where torch's is: {', '.join(broken[:3])}{more}")
    history = [*(old.about["history"] if old else ())]
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    kinds = [q.kind for q in new.quantities.values()]
    counts = {kind: kinds.count(kind) for kind in CLASSES if kind in kinds}
    revision = new.environment["revision"]
    history.append({"at": now, "reason": reason, "revision": revision, "classes": counts})
    return Baseline(new.quantities, {**new.about, "history": history})


def _finite(q: Quantity) -> bool:
    """Whether ours is finite where torch's is."""
    if q.manual.shape != q.reference.shape:
        return False
    return bool(np.all(np.isfinite(q.manual) | ~np.isfinite(q.reference)))


def identity(path: Path) -> tuple[int, int] | None:
    """Changes when the file is replaced; None if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns
