"""The one net below every command: whatever it meets becomes one line on standard error and exit
status 2, for 1 means that something is wrong with a gradient."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from ...manual.names import unknown
from ..report.text import line, said

INTERRUPTED, REFUSED = 130, 2
ALL = "GRADTWIN_TRACEBACK"  # if this variable is set, tracebacks are let through
ROOT = Path(__file__).resolve().parents[2]


class Command(TyperCommand):
    """One command, whose flags look like flags."""

    def get_params(self, ctx: Any) -> Any:
        return _without_types(super().get_params(ctx))


class Net(TyperGroup):
    """The group of all commands, in a net."""

    def get_params(self, ctx: Any) -> Any:
        return _without_types(super().get_params(ctx))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        def run() -> Any:
            chosen = (args, prog_name, complete_var, False, windows_expand_args)
            return TyperGroup.main(self, *chosen, **extra)

        return sys.exit(caught(run)) if standalone_mode else run()

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            raise typer.BadParameter(unknown("command", args[0], self.list_commands(ctx)), ctx=ctx)
        return super().resolve_command(ctx, args)


def _without_types(params: Any) -> Any:
    """The parameters; no type stands behind a flag in the help."""
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return params


def caught(run: Callable[[], Any]) -> int:
    """The exit status of what is run."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # letters that a terminal lacks
    try:
        status = run()
        sys.stdout.flush()
        if status == INTERRUPTED:
            raise KeyboardInterrupt
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted; no file was written")
        return INTERRUPTED
    except BrokenPipeError:  # who read has gone
        _drop(sys.stdout)
        return REFUSED
    except (Exception, SystemExit) as error:
        if isinstance(error.__context__, BrokenPipeError):
            _drop(sys.stdout)
            return REFUSED
        if os.environ.get(ALL):
            raise
        _drop(sys.stdout)
        say(told(error))
        return REFUSED
    return status if isinstance(status, int) else 0


def told(error: BaseException) -> str:
    """What a person must know of it, in one line."""
    if hasattr(error, "format_message"):  # of a wrong usage
        command = getattr(getattr(error, "ctx", None), "command_path", "gradtwin")
        text = re.sub(r"^Invalid value(?: for |: )", "", line(error.format_message()))
        return f"{command}: {text}"
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"gradtwin: {line(f'{where}{error.strerror}')}"
    if isinstance(error, SystemExit):
        return f"gradtwin: what was called ends the process, with {error.code!r}"
    if isinstance(error, MemoryError):
        return "gradtwin: there is not enough memory for this"
    place = _place(error)
    return (
        f"gradtwin: {type(error).__name__} at {place}: {line(said(error))}; this is an error of "
        f"gradtwin, and {ALL}=1 shows all of it"
    )


def say(text: str) -> None:
    """A line on standard error, if anybody can be told."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError, AttributeError):
        _drop(sys.stderr)


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if Path(f.filename).is_relative_to(ROOT)] or frames
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "its start"


def _drop(stream: Any) -> None:
    """Discards all that is written there from now on, also at the end of the process."""
    try:
        handle = os.open(os.devnull, os.O_WRONLY)
        os.dup2(handle, stream.fileno())
        os.close(handle)
    except (OSError, ValueError, AttributeError):
        pass
