"""The scalars of TensorBoard's event files, read by hand.

A file is a sequence of records, as TensorFlow's `tf.io.TFRecordWriter` documents them: the length
of the data in 8 bytes, its checksum, the data, its checksum; numbers begin with their lowest byte,
and a checksum is the CRC-32C of Castagnoli, turned and shifted. The data is an `Event` of
tensorboard/compat/proto/event.proto, in the wire format of protocol buffers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..report import files
from ..report.parquet import Damaged

HEAD = struct.Struct("<QI")
TAIL = struct.Struct("<I")
POLYNOMIAL = 0x82F63B78  # Castagnoli's, bits turned round
VARINT, EIGHT, BYTES, FOUR = 0, 1, 2, 5  # how a field is written

# The fields by their numbers in the .proto files of TensorBoard.
STEP, SUMMARY, SESSION = 2, 5, 7  # of Event
STATUS, START = 1, 1  # of SessionLog, and its value
VALUE = 1  # of Summary
TAG, SIMPLE_VALUE, TENSOR = 1, 2, 8  # of Summary.Value
DTYPE, CONTENT, FLOATS, DOUBLES = 1, 4, 5, 6  # of TensorProto
FLOAT, DOUBLE = 1, 2  # of DataType


class Scalar(NamedTuple):
    step: int
    tag: str
    value: float


class Restart(NamedTuple):
    """From this step on, what was logged until now is void."""

    step: int


def read(path: Path) -> tuple[list[Scalar | Restart], bool]:
    """What a file says, in its order, and whether it ends within a record, as it does where its
    writer was killed. OSError where nothing can be read, Damaged for what is damaged."""
    found: list[Scalar | Restart] = []
    content = files.read(path)
    at, number = 0, 0
    while at < len(content):
        number += 1
        where = f"{path}: record {number}"
        if len(content) - at < HEAD.size:
            break
        length, checksum = HEAD.unpack_from(content, at)
        if _masked(content[at : at + 8]) != checksum:
            raise Damaged(f"{where}: expected an event file of TensorBoard, or it is damaged")
        end = at + HEAD.size + length
        if end + TAIL.size > len(content):
            break
        data = content[at + HEAD.size : end]
        if _masked(data) != TAIL.unpack_from(content, end)[0]:
            raise Damaged(f"{where}: expected its data to fit its checksum: it is damaged")
        try:
            found += _said(data)
        except (ValueError, struct.error, UnicodeDecodeError) as error:
            raise Damaged(f"{where}: expected an Event of TensorBoard: {error}") from None
        at = end + TAIL.size
    if not at:
        raise Damaged(f"{path}: expected an event file of TensorBoard, got less than one record")
    return found, at < len(content)


def _said(data: bytes) -> Iterator[Scalar | Restart]:
    """What one Event says."""
    event = list(_fields(data))
    step = next((value for number, value in event if number == STEP), 0)
    step -= (step >> 63) << 64  # it is signed
    for number, message in event:
        if number == SESSION and dict(_fields(message)).get(STATUS) == START:
            yield Restart(step)
        if number == SUMMARY:
            for inner, value in _fields(message):
                if inner == VALUE:
                    yield from _scalar(step, dict(_fields(value)))


def _scalar(step: int, value: dict[int, Any]) -> Iterator[Scalar]:
    tag = value.get(TAG, b"").decode()
    if SIMPLE_VALUE in value:
        yield Scalar(step, tag, struct.unpack("<f", value[SIMPLE_VALUE])[0])
    elif TENSOR in value:
        tensor = dict(_fields(value[TENSOR]))
        double = tensor.get(DTYPE) == DOUBLE
        written = tensor.get(CONTENT) or tensor.get(DOUBLES if double else FLOATS, b"")
        if double or tensor.get(DTYPE) == FLOAT:
            numbers = np.frombuffer(written, "<f8" if double else "<f4")
            if numbers.size == 1:  # others are no scalars
                yield Scalar(step, tag, float(numbers[0]))


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a message: numbers as such, all others as bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == VARINT:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == BYTES:
            length, at = _varint(data, at)
        elif kind in (EIGHT, FOUR):
            length = 8 if kind == EIGHT else 4
        else:
            raise ValueError(f"a field of kind {kind}")
        if at + length > len(data):
            raise ValueError("a field beyond the end")
        yield key >> 3, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number in pieces of 7 bits, and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("a number beyond the end")
        number |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return number & (2**64 - 1), at
    raise ValueError("a number of more than 64 bits")


def _masked(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (POLYNOMIAL if byte & 1 else 0)
    return byte


TABLE = [_entry(byte) for byte in range(256)]
