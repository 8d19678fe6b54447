"""Options that commands share, and the refusal of what is not known."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from ...reference import adapters

Out = Annotated[Path, typer.Option(help="Folder for the tables and pictures.")]
Json = Annotated[bool, typer.Option("--json", help="Print the tables as JSON, and nothing else.")]
Jobs = Annotated[int, typer.Option(help="Processes; 0 for one per core.", min=0)]
Seed = Annotated[int, typer.Option(help="Seed of all that is drawn.", min=0)]
Strict = Annotated[bool, typer.Option("--strict", help="Fail on imprecise and parted as well.")]
RESULTS = Path("results")


def use(device: str) -> str:
    """Lets torch's side run there, in this process and in those that it starts. BadParameter where
    that cannot be."""
    kind = device.partition(":")[0]
    if kind not in ("cpu", "cuda", "mps"):
        raise typer.BadParameter(f"expected cpu, cuda or mps, got {device!r}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise typer.BadParameter(f"torch {torch.__version__} sees no cuda device here")
    if kind == "mps":
        raise typer.BadParameter("mps has no float64, which the reference is computed in")
    adapters.DEVICE = os.environ["GRADTWIN_DEVICE"] = device
    return device


Device = Annotated[str, typer.Option(help="Where torch's side runs: cpu or cuda.", callback=use)]


def known(what: str, name: Any, allowed: Any) -> None:
    """BadParameter, with what may have been meant, unless the name is one of those allowed."""
    if name not in allowed:
        near = difflib.get_close_matches(name, allowed)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise typer.BadParameter(f"unknown {what} {name!r}: {hint}Choices: {', '.join(allowed)}")
