"""Two modules of the user's, for `gradtwin check`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from .check import AS_THEY_ARE
from .waiting import bar

if TYPE_CHECKING:
    from ..check.modules.report import ModulesReport

# Options of `gradtwin check` that say nothing about two modules, beside those that `check` refuses.
UNSAID = ("shape", "values", "dtype", "gradient", "probe")
OF_A_PORT = ("against", "names", "steps", "optimizer", "save", "budget", "out")  # not of one alone
BESIDE_INPUTS = ("record", "names", "steps", "optimizer", "save")


class Recorded(NamedTuple):
    """What is said of an original that was recorded."""

    path: Path
    passed: bool = True

    def __str__(self) -> str:
        return f"recorded in {self.path}; --against {self.path} holds a port to it"


def examined(given: Mapping[str, Any]) -> ModulesReport:
    """What `check` finds of the two modules that the command names. BadParameter for anything
    else."""
    from .subjects import loaded, named

    _refuse(given)
    against = given["against"]
    call: dict[str, Any] = {}
    if against and against.endswith(".npz"):
        if given["inputs"]:
            raise typer.BadParameter("--inputs: not beside a record, which holds what was given")
        original: Any = Path(against)
    else:
        _needs_inputs(given)
        if not against:
            raise typer.BadParameter("--inputs: expected --against beside it, the original")
        original = _module(named(against))
        call = _inputs(given)
    from ..check.verify import check
    from ..report import files

    if given["save"]:
        files.writable(given["save"])
    port = _module(loaded(given["subject"]))
    try:
        with bar(given["subject"], given["quiet"]) as told:
            found: ModulesReport = check(
                port,
                original,
                names=loaded(given["names"]) if given["names"] else None,
                steps=given["steps"],
                optimizer=loaded(given["optimizer"]) if given["optimizer"] else None,
                progress=told,
                **call,
                **{name: given[name] for name in AS_THEY_ARE},
            )
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error)) from None
    return found


def recorded(given: Mapping[str, Any]) -> Recorded:
    """The original that the command names, kept in a file. BadParameter for anything else."""
    from .subjects import loaded

    _refuse(given)
    for option in OF_A_PORT:
        if given[option]:
            raise typer.BadParameter(f"--{option}: not beside --record, which is of an original")
    _needs_inputs(given)
    from ..check.modules.record import record_module

    original, path = _module(loaded(given["subject"])), given["record"]
    try:
        with bar(given["subject"], given["quiet"]) as told:
            record_module(original, path, **_inputs(given), seed=given["seed"], progress=told)
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error)) from None
    return Recorded(path)


def _refuse(given: Mapping[str, Any]) -> None:
    for option in UNSAID:
        if given[option]:
            raise typer.BadParameter(f"--{option}: not beside --inputs, which is for two modules")


def _needs_inputs(given: Mapping[str, Any]) -> None:
    if not given["inputs"]:
        option = next(name for name in BESIDE_INPUTS if given[name])
        raise typer.BadParameter(f"--{option}: expected --inputs beside it, what both are given")


def _inputs(given: Mapping[str, Any]) -> dict[str, Any]:
    return dict(zip(("arrays", "settings"), call_of(given["inputs"]), strict=True))


def call_of(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and the keyword arguments that FILE:NAME holds, or makes without arguments: a
    tuple or list of the former, a dict of the latter, a tuple of such two, or one argument."""
    from .subjects import loaded

    inputs = made(loaded(text))
    if isinstance(inputs, dict):
        return (), inputs
    if not isinstance(inputs, (list, tuple)):
        return (inputs,), {}
    if tuple(map(type, inputs)) in ((tuple, dict), (list, dict)):
        return tuple(inputs[0]), inputs[1]
    return tuple(inputs), {}


def _module(thing: Any) -> Any:
    """A module, or what makes one without arguments."""
    import torch

    found = thing if isinstance(thing, torch.nn.Module) else made(thing)
    if not isinstance(found, torch.nn.Module):
        raise typer.BadParameter(
            f"expected a torch.nn.Module, or what makes one, got a {type(found).__name__}"
        )
    return found


def made(thing: Any) -> Any:
    """The object itself, or what it makes when it is called without arguments."""
    if not callable(thing):
        return thing
    try:
        return thing()
    except TypeError as error:
        raise typer.BadParameter(f"expected what is called without arguments: {error}") from None


def plain(found: ModulesReport) -> dict[str, Any]:
    from ..report.tables import SCHEMA

    rows = json.loads(found.table.to_json(orient="records", double_precision=15))
    return {
        "schema": SCHEMA,
        "passed": found.passed,
        "first": found.first,
        "cause": {"name": found.cause.name, "text": found.cause.text} if found.cause else None,
        "notes": list(found.notes),
        "warnings": list(found.warnings),
        "table": rows,
    }
