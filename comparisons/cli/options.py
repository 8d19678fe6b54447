"""Options that commands share, and the refusal of what is not known.

What stands in here, and at the top of the file of a command, is imported at every start: it is
light. What a command needs for its work it imports when it works.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from ...manual.names import unknown

Out = Annotated[Path, typer.Option(help="Folder for the tables and pictures.")]
Json = Annotated[bool, typer.Option("--json", help="Print the tables as JSON, and nothing else.")]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print the last line alone, with the outcome."),
]
Jobs = Annotated[int, typer.Option(help="Processes; 0 for one per core.", min=0)]
Seed = Annotated[int, typer.Option(help="Seed of all that is drawn.", min=0)]
Strict = Annotated[bool, typer.Option("--strict", help="Fail on imprecise and parted as well.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--settings",
        "--setting",
        metavar="NAME=VALUE",
        help="A keyword argument: a number, true, false, a tuple, or a word. Repeatable.",
    ),
]
RESULTS = Path("results")


def use(device: str) -> str:
    """Lets torch's side run there, in this process and in those that it starts. BadParameter where
    that cannot be."""
    kind = device.partition(":")[0]
    if kind not in ("cpu", "cuda", "mps"):
        raise typer.BadParameter(f"expected cpu, cuda or mps, got {device!r}")
    if kind == "mps":
        raise typer.BadParameter("mps has no float64, which the reference is computed in")
    if kind == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise typer.BadParameter(f"torch {torch.__version__} sees no cuda device here")
    os.environ["GRADTWIN_DEVICE"] = device
    return device


Device = Annotated[str, typer.Option(help="Where torch's side runs: cpu or cuda.", callback=use)]


def known(what: str, names: str | Iterable[str] | None, allowed: Collection[str]) -> None:
    """BadParameter, with what may have been meant, unless each name is one of those allowed."""
    for name in [names] if isinstance(names, str) else names or ():
        if name not in allowed:
            raise typer.BadParameter(unknown(what, name, allowed))


def settings_of(texts: Iterable[str] | None) -> dict[str, Any]:
    """NAME=VALUE as keyword arguments. BadParameter for any other text."""
    found: dict[str, Any] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise typer.BadParameter(f"expected NAME=VALUE, got {text!r}", param_hint="--settings")
        if name in found:
            raise typer.BadParameter(f"{name} is given twice", param_hint="--settings")
        try:
            words = {"true": "True", "false": "False", "none": "None"}
            found[name] = ast.literal_eval(words.get(value, value))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            found[name] = value  # a word, like approximate=tanh
    return found
