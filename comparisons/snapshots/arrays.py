"""Arrays that a test keeps in a file beside it: stored bit for bit, compared bit by bit."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..report import npz
from ..verdict import ulps
from . import MARK

ROWS_SHOWN = 10  # in a message
HEAD = ("array", "differ", "ULPs", "at", "stored", "now", "relative error", "/ allowed")

# What torch has and NumPy lacks is stored as whole numbers of the same bits.
FLOAT8 = ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu")
BITS = {"bfloat16": np.dtype("u2")} | {f"float8_{kind}": np.dtype("u1") for kind in FLOAT8}


# The margin of each element of an array, by its name, as it is now and as it was.
Margins = Callable[[str, "Array", "Array"], np.ndarray]


class Array(NamedTuple):
    """An array as it is stored."""

    dtype: str
    bits: np.ndarray  # the array itself, or whole numbers where the dtype is in BITS

    def values(self) -> np.ndarray:
        if self.dtype not in BITS:
            return self.bits
        return torch.from_numpy(self.bits).view(getattr(torch, self.dtype)).float().numpy()


class Difference(NamedTuple):
    """How one array differs from what is stored; the worst has the largest rank."""

    rank: tuple[float, ...]
    cells: tuple[str, ...]
    of_bits: bool  # and of nothing else: name, shape and dtype are as they were


def collect(tree: Any) -> dict[str, Array]:
    """The arrays of a tree of dicts, lists and tuples under names such as layer.0.weight."""
    found: dict[str, Array] = {}
    for name, leaf in _leaves(tree, ""):
        if name in found:
            raise ValueError(f"arrays: two are called {name!r}; expected different names")
        if not name.isprintable():  # a zip archive cuts a name at its first NUL
            raise ValueError(f"arrays: one is called {name!r}; expected a name that prints")
        found[name] = _array(name, leaf)
    if not found:
        raise ValueError(f"arrays: {tree!r} holds no array; expected one or more")
    return found


def _leaves(tree: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, (Mapping, list, tuple)):
        for key, branch in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
            yield from _leaves(branch, f"{name}.{key}" if name else str(key))
    else:
        yield name or "array", tree


def _array(name: str, leaf: Any) -> Array:
    was = f"{type(leaf).__name__} {getattr(leaf, 'dtype', '')}".strip()
    if isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided:
        dtype = str(leaf.dtype).removeprefix("torch.")
        if dtype in BITS:
            unsigned = getattr(torch, BITS[dtype].name)
            return Array(dtype, leaf.detach().cpu().contiguous().view(unsigned).numpy())
        if hasattr(np, dtype):
            leaf = leaf.numpy(force=True)
    if isinstance(leaf, (int, float)):
        leaf = np.asarray(leaf)
    plain = isinstance(leaf, (np.ndarray, np.generic)) and not np.ma.isMaskedArray(leaf)
    if plain and leaf.dtype.kind in "biuf" and leaf.itemsize <= 8:
        native = leaf.dtype.newbyteorder("=")
        return Array(native.name, np.asarray(leaf, native, order="C"))
    raise TypeError(
        f"arrays: {name!r} is {was}; expected a dense array, tensor or number: bool, int or float"
    )


def encoded(arrays: Mapping[str, Array], origin: str) -> bytes:
    """The content of a file; `origin` says in words where it comes from."""
    members: dict[str, Any] = {f"{name}:{a.dtype}": a.bits for name, a in arrays.items()}
    file = io.BytesIO()
    np.savez(file, **({MARK: np.array([origin, _digest(members, origin)])} | members))
    return file.getvalue()


def _digest(members: Mapping[str, np.ndarray], origin: str) -> str:
    """A digest of all that a file holds: the checksums of a zip archive miss a lost member."""
    found = hashlib.sha256(origin.encode())
    for name, array in members.items():
        found.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def load(path: Path) -> tuple[dict[str, Array], str]:
    """The arrays of a file and their origin; ValueError says why a file is refused."""
    try:
        members = npz.read(path)
        if MARK not in members:
            raise ValueError(f"it has no {MARK!r}: another program or version wrote it")
        origin, digest = members.pop(MARK).tolist()
        if digest != _digest(members, origin):
            raise ValueError("it was damaged, or changed by another program")
        return dict(_named(member, array) for member, array in members.items()), origin
    except (ValueError, TypeError, OSError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise ValueError(f"{path} is refused: {reason}") from None


def _named(member: str, array: np.ndarray) -> tuple[str, Array]:
    name, _, dtype = member.rpartition(":")
    array = np.asarray(array, array.dtype.newbyteorder("="))
    if array.dtype != BITS.get(dtype, dtype) or not hasattr(torch, dtype):
        raise ValueError(f"its member {member!r} is of {array.dtype}")
    return name, Array(dtype, array)


def differences(
    now: Mapping[str, Array], then: Mapping[str, Array], margins: Margins | None = None
) -> list[Difference]:
    """What is not the same, the worst first; a NaN equals any other. With `margins`, what has one
    above 1."""
    found = []
    for name in {**then, **now}:
        a, b = now.get(name), then.get(name)
        if a is None or b is None:
            text = "missing: stored, but not given" if a is None else "new: given, but not stored"
            found.append(Difference((3,), (name, text), False))
        elif (a.dtype, a.bits.shape) != (b.dtype, b.bits.shape):
            was, is_ = (f"{x.dtype} {x.bits.shape}" for x in (b, a))
            found.append(Difference((2,), (name, f"stored as {was}, now {is_}"), False))
        else:
            found += _of_bits(name, a, b, margins)
    return sorted(found, key=lambda d: d.rank, reverse=True)


def _of_bits(
    name: str, now: Array, then: Array, margins: Margins | None = None
) -> list[Difference]:
    a, b = now.values().ravel(), then.values().ravel()
    raw = [x.bits.ravel().view(f"u{x.bits.itemsize}") for x in (now, then)]
    at = np.flatnonzero((raw[0] != raw[1]) & ~(np.isnan(a) & np.isnan(b)))
    margin = None
    if at.size and margins:
        margin = margins(name, now, then).ravel()
        at = at[margin[at] > 1]
    if not at.size:
        return []
    a, b, whole = a[at], b[at], b
    lone = np.isnan(a) | np.isnan(b)
    far = distance(now.dtype, a, b)
    worst = int(np.argmax(far if margin is None else margin[at]))
    if lone.any():
        worst = int(np.argmax(lone))
    ulp = math.inf if lone[worst] else int(far[worst])
    index = tuple(map(int, np.unravel_index(at[worst], now.bits.shape)))
    error = _relative(a, b, whole)
    cells = [f"{at.size} of {whole.size}", ulp, index, b[worst], a[worst], f"{error:.2g}"]
    if margin is not None:
        cells.append(f"{margin[at][worst]:.3g}")
    return [Difference((1, error, ulp, at.size), (name, *map(str, cells)), True)]


def distance(dtype: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How many numbers of the dtype lie between."""
    if dtype in BITS:
        every = np.arange(256 ** BITS[dtype].itemsize).astype(BITS[dtype])
        numbers = np.unique(Array(dtype, every).values())
        return abs(np.searchsorted(numbers, a) - np.searchsorted(numbers, b))
    if a.dtype.kind == "f":
        return ulps.ulps(a, b)
    a, b = (x.view(np.uint8) if x.dtype == bool else x for x in (a, b))
    return (np.maximum(a, b) - np.minimum(a, b)).view(f"u{a.itemsize}")


def _relative(a: np.ndarray, b: np.ndarray, whole: np.ndarray) -> float:
    """‖a − b‖ / ‖whole‖, where b is the part of the whole that differs."""
    if not (np.isfinite(a) & np.isfinite(b)).all():
        return math.inf
    a, b, whole = (np.where(np.isfinite(x), x, 0).astype(np.float64) for x in (a, b, whole))
    scale = float(abs(whole).max()) or 1.0  # so that no square of what was stored overflows
    with np.errstate(over="ignore"):  # what is now may be infinitely far from it
        gap, norm = (float(np.linalg.norm(x)) for x in (a / scale - b / scale, whole / scale))
    return gap / norm if norm else (math.inf if gap else 0.0)


def table(found: Sequence[Difference]) -> str:
    """The differences for people, cut off at ROWS_SHOWN."""
    columns = max([len(d.cells) for d in found if d.of_bits], default=len(HEAD) - 1)
    head = HEAD[:columns]  # the last is there where something is allowed
    rows = [head, *(d.cells for d in found[:ROWS_SHOWN])]
    full = [row for row in rows if len(row) == len(head)]  # the others end in a sentence
    widths = [max(len(row[k]) for row in (full if k else rows)) for k in range(len(head))]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    more = len(found) - ROWS_SHOWN
    return "\n  ".join([*lines, f"… and {more} more"] if more > 0 else lines)
