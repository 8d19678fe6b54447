"""Which of its runs a script makes when `gradtwin record-run` runs it: the environment says it."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import NamedTuple

TURN = "GRADTWIN_TURN"


class Turn(NamedTuple):
    """The number of a run, and the recording that it belongs to."""

    run: int
    path: Path


_taken: list[str] = []


def take() -> Turn | None:
    """The turn of this process, if it has one. ValueError for the second call, since a turn is one
    training."""
    text = os.environ.get(TURN)
    if not text:
        return None
    if text in _taken:
        raise ValueError(
            "record_run: expected one call in a script under gradtwin record-run, got a second"
        )
    _taken.append(text)
    run, path, parent = json.loads(text)
    if parent != os.getpid():
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    return Turn(int(run), Path(path))


def given(run: int, path: Path) -> dict[str, str]:
    """The environment of a process that has this turn, and ends with this one."""
    return {TURN: json.dumps([run, str(path), os.getpid()])}


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
