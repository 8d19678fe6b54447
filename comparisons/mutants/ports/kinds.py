from typing import NamedTuple


class Fault(NamedTuple):
    name: str
    old: str
    new: str
    first: str
    what: str
    cause: str


class Right(NamedTuple):
    name: str
    old: str
    new: str
    fused: bool = False
    names: dict = {}
