"""An original in a file: all that a port is held to, for another torch, machine or day."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import msgspec
import numpy as np
import torch

from ...environment import fingerprint
from ...report import files
from ...report.parquet import Damaged
from ...report.text import line
from ...verdict.classes import Results
from ...verdict.floor import Floor
from ...verdict.noise import cast
from ..pace import Pace, Told
from .evaluation import Inputs, Side, arranged, judged_in, some
from .original import Answers, Here
from .recording import Call
from .state import loaded_by, modules_of, parameters_of, tensors_of
from .stored import VERSION, Reader, Writer

ABOUT = ("torch", "numpy", "system", "processor", "torch kernels")  # of the environment
ATTRIBUTES = (bool, int, float, str)  # of a module, which a cause may be found by
# What a file that was not written here may be read as.
BROKEN = (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError)


class KeptModule(TypedDict):
    """A submodule, with all names that lead to it."""

    names: list[str]
    kind: str  # the name of its class
    training: bool
    attributes: dict[str, bool | int | float | str]


class KeptTensor(TypedDict):
    """A parameter or buffer, with all its names."""

    names: list[str]
    tensor: Any
    parameter: bool
    loaded: bool  # by a state dict


class Given(TypedDict):
    """What a call was given, as `Call` says; the trees as `stored` keeps them."""

    place: str
    number: int
    args: Any
    kwargs: Any
    buffers: Any
    dys: Any
    generator: Any
    differentiable: bool
    attached: bool
    written: list[str]
    memory: NotRequired[Any]  # of the second call on, which go on from it
    unseen: NotRequired[str]
    paths: NotRequired[list[str]]
    empty: NotRequired[list[str]]


class KeptCall(Given):
    """… and what it gave: of each result the arrays of its truth, of what it is in the original's
    own dtype, and of how far rounding moves it."""

    asked: list[str]  # names of the arguments that have a gradient
    results: dict[str, tuple[str, str, str]]


class Header(TypedDict):
    """All that a record holds, beside its arrays."""

    format: int
    name: str
    made: dict[str, str]  # with what, and where
    modules: list[KeptModule]
    tensors: list[KeptTensor]
    calls: list[KeptCall]
    unkept: NotRequired[list[str]]  # of calls that are not there, why


def record_module(
    original: torch.nn.Module,
    path: str | Path,
    arrays: Sequence[Any],
    settings: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    progress: Told | None = None,
) -> Path:
    """Keeps an original in a file, for `check(port, against=path)` wherever that is: what each of
    its submodules was given, what it gave, and the floors, which are measured whole.

    arrays    the positional arguments of one call
    settings  the keyword arguments of the call
    progress  a function that is called with the number of calls done, and of those known of

    The file has no code and is not pickled. A call of a submodule that is given what cannot be
    kept, as a cache, is left out and named. Raises TypeError where the whole is given such a thing,
    ValueError for a name that does not end in .npz, OSError where no file can be written.
    """
    if not isinstance(original, torch.nn.Module):
        raise TypeError(f"original: expected a torch.nn.Module, got a {type(original).__name__}")
    path, pace = Path(path), Pace(None, progress)
    if path.suffix != ".npz":
        raise ValueError(f"path: expected a name that ends in .npz, got {path}")
    files.writable(path)
    here, writer = Here(original, arrays, settings or {}, seed), Writer()
    pace.expect(len(here.calls))
    given, unkept = _kept(here.calls, writer)
    about = fingerprint()
    header: Header = {
        "format": VERSION,
        "name": here.name,
        "made": {name: about[name] for name in ABOUT},
        "modules": _modules(original),
        "tensors": _tensors(original, writer),
        "calls": [],
        "unkept": unkept,
    }
    for call in here.calls:
        if call in given:
            header["calls"].append(_gives(here, call, given[call], writer))
        pace.step()
    writer.write(path, header)
    return path


def _kept(calls: Sequence[Call], writer: Writer) -> tuple[dict[Call, Given], list[str]]:
    """What each call was given, and why that of some is not kept. Raises TypeError for that of the
    whole."""
    given, unkept = {}, []
    for call in calls:
        try:
            given[call] = _given(call, writer)
        except TypeError as error:
            if not call.place:
                raise
            unkept.append(str(error).partition(";")[0])
    return given, unkept


def _modules(original: torch.nn.Module) -> list[KeptModule]:
    every = modules_of(original)
    return [
        {
            "names": names,
            "kind": type(every[names[0]]).__name__,
            "training": every[names[0]].training,
            "attributes": {
                name: value
                for name, value in vars(every[names[0]]).items()
                if type(value) in ATTRIBUTES and not name.startswith("_") and name != "training"
            },
        }
        for names in _alike(every)
    ]


def _tensors(original: torch.nn.Module, writer: Writer) -> list[KeptTensor]:
    every, loaded = tensors_of(original), loaded_by(original)
    return [
        {
            "names": names,
            "tensor": writer.tree(every[names[0]], names[0]),
            "parameter": isinstance(every[names[0]], torch.nn.Parameter),
            "loaded": names[0] in loaded,
        }
        for names in _alike(every)
    ]


def _alike(every: Mapping[str, Any]) -> list[list[str]]:
    """The names of each thing."""
    names: dict[int, list[str]] = {}
    for name, thing in every.items():
        names.setdefault(id(thing), []).append(name)
    return list(names.values())


def _given(call: Call, writer: Writer) -> Given:
    where = call.place or type(call.module).__name__
    return {
        "place": call.place,
        "number": call.number,
        "args": writer.tree(call.args, f"argument of {where}"),
        "kwargs": writer.tree(call.kwargs, f"argument of {where}"),
        "buffers": writer.tree(call.buffers, f"buffer of {where}"),
        "dys": writer.tree(call.dys, f"cotangent of {where}"),
        "generator": writer.tree(call.generator, "generator"),
        "differentiable": call.differentiable,
        "attached": call.attached,
        "written": sorted(call.written),
        "memory": writer.tree(dict(call.memory) if call.number else {}, f"memory of {where}"),
        "unseen": call.unseen,
        "paths": call.paths,
        "empty": sorted(call.empty),
    }


def _gives(here: Here, call: Call, given: Given, writer: Writer) -> KeptCall:
    """… with the gradient of every parameter, for a port may have any submodules."""
    kept: KeptCall = {**given, "asked": [], "results": {}}
    if not call.dys:
        return kept
    inputs = here.inputs(call)
    kept["asked"] = inputs.names
    if not inputs.arrays:
        return kept
    held = parameters_of(call.module).items()
    asked = [n for n, p in held if p.requires_grad]
    side = Side(call.module, dict, asked, memory=call.memory)
    answers = here.answers(side, side, inputs)
    moves = answers.floor(list(answers.truth)).moves()
    for name, truth in answers.truth.items():
        of = truth, answers.native[name], moves[name]
        kept["results"][name] = writer.array(of[0]), writer.array(of[1]), writer.array(of[2])
    return kept


class Kept(torch.nn.Module):
    """What a record keeps of a module: tensors, simple attributes and the name of its class, and no
    code."""


class Record:
    """An original as its file tells it. OSError where nothing can be read, Damaged, a ValueError,
    for what is no such file, whole."""

    runs = False

    def __init__(self, path: Path) -> None:
        reader = Reader(path)
        try:
            header: Header = msgspec.convert(reader.header, Header)
            self.name, made = header["name"], header["made"]
            self.module: torch.nn.Module = _module(header, reader)
            inside = modules_of(self.module)
            self.gave: dict[Call, tuple[list[str], tuple[Results, ...]]] = {}
            for kept in header["calls"]:
                call = _call(kept, inside[kept["place"]], reader)
                self.gave[call] = kept["asked"], _results(kept["results"], reader)
            where = f"torch {made['torch']} and numpy {made['numpy']} on {made['system']}"
        except BROKEN as error:
            text = line(str(error))
            raise Damaged(f"{path}: expected a record of a module: {text}") from None
        self.calls: Sequence[Call] = list(self.gave)
        self.note = f"judged by a record, without the original's code, made by {where}"
        if unkept := header.get("unkept"):
            self.note += f"; without {len(unkept)} calls that could not be kept, as {unkept[0]}"

    def inputs(self, call: Call) -> Inputs:
        held = tensors_of(call.module) | call.buffers
        return Inputs(call, {n: t.detach() for n, t in held.items()}, self.gave[call][0])

    def answers(self, subject: Side, reference: Side, inputs: Inputs) -> Answers:
        kept = self.gave[inputs.call][1]
        unasked = {f"gradient of {n}" for n in parameters_of(reference.module)}
        unasked -= {f"gradient of {n}" for n in reference.wanted}

        def of(results: Results) -> Results:
            asked = {n: a for n, a in results.items() if n not in unasked}
            return arranged(asked, subject, reference)

        truth, native, moves = of(kept[0]), of(kept[1]), _slack(of, kept[2])
        here = cast(inputs.arrays, np.float64)

        def known(arrays: Sequence[np.ndarray]) -> Results:
            same = zip(arrays, here, strict=True)
            if not all(np.array_equal(a, b, equal_nan=True) for a, b in same):
                raise LookupError("a record knows what was given, and nothing nearby")
            return truth

        def floor(names: Sequence[str]) -> Floor:
            pair, slack = (some(truth, names), some(native, names)), some(moves, names)
            return Floor(
                lambda a: some(known(a), names), here, judged_in(inputs.kinds), pair, moves=slack
            )

        return Answers(truth, native, floor)


def _slack(of: Callable[[Results], Results], moves: Results) -> Results:
    """How far rounding moves what is arranged. What the port has alone does not move, and a sign
    that an arrangement gives has no meaning."""
    nothing = of({n: np.zeros_like(a) for n, a in moves.items()})
    return {n: abs(a - nothing[n]) for n, a in of(moves).items()}


def _module(header: Header, reader: Reader) -> Kept:
    """A module of the same structure, which cannot be run."""
    made: dict[str, Kept] = {}
    for kept in header["modules"]:
        module = type(kept["kind"], (Kept,), {})()
        module.training = kept["training"]
        vars(module).update(kept["attributes"])
        made |= dict.fromkeys(kept["names"], module)
    for name, module in made.items():
        parent, _, own = name.rpartition(".")
        if name:
            made[parent].add_module(own, module)
    for held in header["tensors"]:
        tensor = reader.tree(held["tensor"])
        if held["parameter"]:
            tensor = torch.nn.Parameter(tensor, tensor.requires_grad)
        for name in held["names"]:
            parent, _, own = name.rpartition(".")
            if held["parameter"]:
                made[parent].register_parameter(own, tensor)
            else:
                made[parent].register_buffer(own, tensor, persistent=held["loaded"])
    return made[""]


def _call(kept: Given, module: torch.nn.Module, reader: Reader) -> Call:
    return Call(
        kept["place"],
        kept["number"],
        module,
        reader.tree(kept["args"]),
        reader.tree(kept["kwargs"]),
        reader.tree(kept["buffers"]),
        reader.tree(kept["generator"]),
        reader.tree(kept["dys"]),
        kept.get("paths", []),
        set(kept.get("empty", ())),
        kept["differentiable"],
        kept["attached"],
        set(kept["written"]),
        memory=reader.tree(kept["memory"]) if "memory" in kept else {},
        unseen=kept.get("unseen", ""),
    )


def _results(kept: Mapping[str, Sequence[str]], reader: Reader) -> tuple[Results, ...]:
    """Truth, native, and how far rounding moves it."""
    found: list[dict[str, np.ndarray]] = [{}, {}, {}]
    for name, arrays in kept.items():
        of = [reader.array(a) for a in arrays]
        if len({a.shape for a in of}) != 1:
            raise ValueError(f"{name} has several shapes")
        for results, a in zip(found, of, strict=True):
            results[name] = a
    return tuple(found)
