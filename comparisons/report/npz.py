"""The arrays of an .npz file, read without running anything and without taking memory that the file
does not fill."""

from __future__ import annotations

import io
import lzma
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from . import files
from .parquet import Damaged, memory
from .text import line

# What zipfile and NumPy raise for damaged files.
BROKEN = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError),
    *(OSError, ValueError, TypeError, LookupError, AttributeError, SyntaxError),
    *(OverflowError, MemoryError),
    RuntimeError,  # of a member that is encrypted, or compressed in another way
)


def read(path: Path) -> dict[str, np.ndarray]:
    """Every array by its name. OSError where nothing can be read, Damaged, naming the file and the
    member, for what is no whole file of arrays of numbers or text."""
    content = files.read(path)
    found: dict[str, np.ndarray] = {}
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        members = archive.infolist()
    except BROKEN as error:
        raise Damaged(f"{path}: expected an .npz file of arrays: {_text(error)}") from None
    needed, there = sum(m.file_size for m in members), memory()
    if needed > there:
        raise Damaged(f"{path}: needs {needed:,} bytes of memory, and there are {there:,}")
    for member in members:
        name = member.filename.removesuffix(".npy")
        if name in found:
            raise Damaged(f"{path}: two arrays are called {name!r}; expected one")
        try:
            with archive.open(member) as stream:
                found[name] = _array(stream, member.file_size)
        except BROKEN as error:
            raise Damaged(f"{path}: array {name!r} cannot be read: {_text(error)}") from None
    return found


def _array(stream: IO[bytes], size: int) -> np.ndarray:
    version = np.lib.format.read_magic(stream)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"expected version 1.0 or 2.0 of NumPy's format, got {version}")
    shape, turned, dtype = readers[version](stream)
    if dtype.hasobject or dtype.names or dtype.subdtype:
        raise ValueError(f"expected numbers or text, got {dtype}")
    length, left = dtype.itemsize * math.prod(shape), size - stream.tell()
    if length != left:
        raise ValueError(f"expected the {length} bytes of {dtype} {shape}, got {left}")
    data = stream.read()
    if len(data) != length:
        raise ValueError(f"expected {length} bytes, got {len(data)}")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if turned else "C").copy()


def _text(error: BaseException) -> str:
    return line(str(error)) or type(error).__name__
