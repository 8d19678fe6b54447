"""What a subject may change around itself, put back after every call."""

from __future__ import annotations

import ctypes
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch

MT19937 = 624 * 4 + 4  # bytes of NumPy's state: as many numbers, and the place among them


class Exited(Exception):
    """A subject that wanted to end the process."""


class _Part(NamedTuple):
    """One thing that is global: how it is read and set, and whether two readings are one."""

    state: Callable[[], Any]
    set: Callable[[Any], Any]
    same: Callable[[Any, Any], bool] = lambda a, b: bool(a == b)


def _numbers() -> bytes:
    """NumPy's generator, where it lies: its `state` takes longer to read than most rules to run."""
    return ctypes.string_at(_address(), MT19937)


def _set_numbers(state: bytes) -> None:
    ctypes.memmove(_address(), state, MT19937)


def _address() -> int:
    bits: Any = np.random.get_bit_generator()  # type: ignore[attr-defined]
    if not isinstance(bits, np.random.MT19937):  # what somebody has put there is left alone
        bits = _SPARE
    return int(bits.ctypes.state_address)


_SPARE = np.random.MT19937(0)

PARTS = {
    "torch's default dtype": _Part(torch.get_default_dtype, torch.set_default_dtype),
    "torch's grad mode": _Part(torch.is_grad_enabled, torch.set_grad_enabled),
    "torch's number of threads": _Part(torch.get_num_threads, torch.set_num_threads),
    "torch's deterministic mode": _Part(
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms
    ),
    "torch's random generator": _Part(torch.get_rng_state, torch.set_rng_state, torch.equal),
    "NumPy's random generator": _Part(_numbers, _set_numbers),
    "Python's random generator": _Part(random.getstate, random.setstate),
    "NumPy's errstate": _Part(np.geterr, lambda state: np.seterr(**state)),
    "the working directory": _Part(os.getcwd, os.chdir),
}


class Surroundings:
    """All that is global, as it was when this was made, or last looked at."""

    def __init__(self) -> None:
        self.changed: set[str] = set()  # what was ever found changed
        self.look()

    def look(self) -> None:
        """From now on all is to be as it is now."""
        self._before = {name: part.state() for name, part in PARTS.items()}

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Around one call. SystemExit becomes an exception."""
        try:
            yield
        except SystemExit as end:
            raise Exited(f"sys.exit({end.code!r})") from end
        finally:
            for name, part in PARTS.items():
                if not part.same(part.state(), before := self._before[name]):
                    part.set(before)
                    self.changed.add(name)
