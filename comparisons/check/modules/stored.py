"""Trees of tensors in one file: arrays beside a header of JSON, nothing that runs when it is read.

An array is called by a digest of itself, so that it is kept once, however often it is met, and a
changed one is seen; the header has one of its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections import namedtuple
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...report import files, npz
from ...report.parquet import Damaged
from .objects import Box

MARK = "gradtwin modules"  # the member that holds the header
VERSION = 1  # it rises when a file of the version before is no longer read like one of this
SIMPLE = (bool, int, float, str, type(None))
HALF = ("bfloat16",)  # what NumPy lacks: kept as whole numbers of the same bits
EXPECTED = "tensors, numbers, text, and tuples, lists, mappings and dataclasses of them"


class Keyed(dict[str, Any]):
    """A mapping of another class, whose keys are attributes as well."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Writer:
    """Collects arrays, and writes them with a header that names them."""

    def __init__(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}

    def array(self, a: np.ndarray) -> str:
        """Keeps an array; the name that it has in the file."""
        a = np.asarray(a, order="C")
        name = _digest(a)
        self._arrays[name] = a
        return name

    def tree(self, tree: Any, what: str) -> Any:
        """What JSON can hold of it. Raises TypeError, which says `what` it is, for anything but
        tensors, simple values, and what they are nested in."""
        if isinstance(tree, torch.Tensor):
            return {"tensor": self._tensor(tree, what), "grad": tree.requires_grad}
        if type(tree) in SIMPLE:
            return tree
        if isinstance(tree, torch.dtype):
            return {"dtype": str(tree).removeprefix("torch.")}
        if type(tree) is dict and all(type(key) in SIMPLE for key in tree):
            return {"dict": [[k, self.tree(v, f"{what}.{k}")] for k, v in tree.items()]}
        if type(tree) in (list, tuple, torch.Size):
            name = "list" if isinstance(tree, list) else "tuple"
            return {name: [self.tree(v, f"{what}.{i}") for i, v in enumerate(tree)]}
        if isinstance(tree, tuple) and hasattr(tree, "_fields"):
            return {"named": self._fields(tree, tree._fields, what)}
        if dataclasses.is_dataclass(tree) and not isinstance(tree, (type, Mapping)):
            names = [f.name for f in dataclasses.fields(tree)]
            return {"dataclass": self._fields(tree, names, what)}
        if isinstance(tree, Mapping) and not isinstance(tree, Box) and all(map(_is_text, tree)):
            kept = [[k, self.tree(v, f"{what}.{k}")] for k, v in tree.items()]
            return {"keyed": [type(tree).__name__, kept]}
        kind = tree.ref.kind if isinstance(tree, Box) else type(tree)
        raise TypeError(f"{what}: a {kind.__name__} cannot be kept; expected {EXPECTED}")

    def _fields(self, tree: Any, names: Sequence[str], what: str) -> list[Any]:
        fields = [[n, self.tree(getattr(tree, n), f"{what}.{n}")] for n in names]
        return [type(tree).__name__, fields]

    def _tensor(self, t: torch.Tensor, what: str) -> list[str]:
        """Its dtype, and the name of its array."""
        dtype = str(t.dtype).removeprefix("torch.")
        if t.layout is not torch.strided or not (dtype in HALF or hasattr(np, dtype)):
            raise TypeError(f"{what}: a tensor of {t.layout} {dtype} cannot be kept")
        plain = t.detach().cpu().contiguous()
        bits = plain.view(torch.int16) if dtype in HALF else plain.resolve_conj().resolve_neg()
        return [dtype, self.array(bits.numpy())]

    def write(self, path: Path, header: Mapping[str, Any]) -> None:
        """Writes the file in one go. OSError."""
        text = json.dumps(header).encode()
        mark = np.frombuffer(text, np.uint8)
        members: dict[str, Any] = {f"{MARK} {_digest(mark)}": mark, **self._arrays}
        buffer = io.BytesIO()
        np.savez(buffer, **members)
        files.write(path, buffer.getvalue())


class Reader:
    """A file that was written so. OSError where nothing can be read, Damaged for any other file."""

    def __init__(self, path: Path) -> None:
        self.arrays = npz.read(path)
        marks = [name for name in self.arrays if name.startswith(f"{MARK} ")]
        if len(marks) != 1:
            raise Damaged(f"{path}: expected a record of two modules, by `gradtwin check --record`")
        changed = [n for n, a in self.arrays.items() if n.split()[-1] != _digest(a)]
        if changed:
            raise Damaged(f"{path}: array {changed[0]!r} was changed, or damaged")
        try:
            self.header: dict[str, Any] = json.loads(self.arrays.pop(marks[0]).tobytes())
            version = self.header["format"]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise Damaged(f"{path}: expected a header of JSON with its format") from None
        if version != VERSION:
            raise Damaged(f"{path}: expected format {VERSION}, got {version!r} of another gradtwin")

    def array(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            raise ValueError(f"array {name!r} is missing")
        return self.arrays[name]

    def tree(self, kept: Any) -> Any:
        """The tree again; named tuples, dataclasses and other mappings as others with the same
        names and fields."""
        if not isinstance(kept, dict):
            return kept
        if "tensor" in kept:
            return self._tensor(*kept["tensor"]).requires_grad_(kept["grad"])
        ((kind, inside),) = kept.items()
        if kind == "dtype":
            return getattr(torch, inside)
        if kind == "dict":
            return {key: self.tree(v) for key, v in inside}
        if kind in ("list", "tuple"):
            return {"list": list, "tuple": tuple}[kind](map(self.tree, inside))
        name, fields = inside
        if kind == "keyed":
            return type(name, (Keyed,), {})((key, self.tree(v)) for key, v in fields)
        if name == "PackedSequence":  # torch's own, which its layers know by its class
            return torch.nn.utils.rnn.PackedSequence(*(self.tree(v) for _, v in fields))
        make: Any = {"named": namedtuple, "dataclass": dataclasses.make_dataclass}[kind]
        return make(name, [n for n, _ in fields])(*(self.tree(v) for _, v in fields))

    def _tensor(self, dtype: str, name: str) -> torch.Tensor:
        t = torch.from_numpy(self.array(name))
        return t.view(getattr(torch, dtype)) if dtype in HALF else t


def _is_text(key: Any) -> bool:
    return isinstance(key, str)


def _digest(a: np.ndarray) -> str:
    """Of an array as it is, bit for bit."""
    found = hashlib.sha256(f"{a.dtype.str} {a.shape}\n".encode())
    found.update(np.ascontiguousarray(a).tobytes())
    return found.hexdigest()[:32]
