"""What a user names on the command line: something in a file of his own, which is run, or something
in an installed module."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import typer

from ...manual.names import unknown
from ..report.text import said


def loaded(text: str) -> Any:
    """What FILE:NAME names, or a tuple of what FILE:NAME,NAME names. BadParameter with the reason
    where there is nothing.

    The file is run as a module under a name that shadows none; what lies beside it can be imported,
    behind all that is installed.
    """
    file, colon, names = text.rpartition(":")
    if not colon or not names:
        raise typer.BadParameter(f"expected FILE:NAME, like rules.py:softmax, got {text!r}")
    module = _run(file)
    found = []
    for name in names.split(","):
        if not hasattr(module, name):
            raise typer.BadParameter(unknown(f"name in {file}", name, vars(module)))
        found.append(getattr(module, name))
    return found[0] if len(found) == 1 else tuple(found)


def named(text: str) -> Any:
    """A rule's name as it is, else the callable behind a dotted name, or in a file."""
    if ":" in text:
        return loaded(text)
    if "." not in text:
        from .. import ops

        if text not in ops.names():
            raise typer.BadParameter(
                f"{unknown('rule', text, ops.names())} A function of torch goes by its full name, "
                "like torch.nn.functional.gelu",
                param_hint="--against",
            )
        return text
    parts = text.split(".")
    if not all(part.isidentifier() for part in parts):
        raise typer.BadParameter(f"expected a name, got {text!r}", param_hint="--against")
    for cut in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:cut])
        try:
            found = importlib.import_module(module)
        except ImportError:
            continue
        for part in parts[cut:]:
            if not hasattr(found, part):
                raise typer.BadParameter(
                    unknown(f"name in {module}", part, dir(found)), param_hint="--against"
                )
            found = getattr(found, part)
        return found
    raise typer.BadParameter(f"there is no module {parts[0]!r}", param_hint="--against")


def _run(file: str) -> Any:
    path = Path(file)
    if not path.is_file():
        raise typer.BadParameter(f"there is no file {file}")
    name = f"gradtwin_subject_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise typer.BadParameter(f"expected a Python file, got {file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    beside = str(path.resolve().parent)
    if beside not in sys.path:
        sys.path.append(beside)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise typer.BadParameter(
            f"{file} cannot be run: {type(error).__name__}: {said(error)}"
        ) from None
    return module
