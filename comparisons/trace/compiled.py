"""What runs without Python: put aside, or refused by name."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_pre_hook

COMPILED = (
    "{} is compiled, and was traced as what it was compiled from; "
    "check(compiled, original, …) holds the two to each other"
)
HOOKS = r"Using `torch.compile\(module\)` when there are global hooks"


def _compiled(thing: Any) -> Any:
    """What it was compiled from; None if it was not."""
    if isinstance(thing, torch.nn.Module) and thing._compiled_call_impl is not None:
        return thing  # in its place
    given = getattr(thing, "_orig_mod", None)
    return getattr(thing, "_torchdynamo_orig_callable", None) if given is None else given


@contextlib.contextmanager
def uncompiled(module: Any) -> Iterator[list[str]]:
    """Lets torch.compile compile nothing, and gives the notes that say of what. Raises TypeError
    for what torch.jit made."""
    notes: list[str] = []

    def seen(thing: Any, _: Any = ()) -> None:
        if isinstance(thing, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
            name = getattr(thing, "original_name", None) or getattr(thing, "name", "")
            raise TypeError(
                f"module: expected what Python runs, got {name!r} made by torch.jit, which calls "
                "its functions by itself; trace what it was made from"
            )
        if (original := _compiled(thing)) is not None:
            name = getattr(original, "__name__", type(original).__name__)
            if (note := COMPILED.format(name)) not in notes:
                notes.append(note)

    seen(module)
    hook = register_module_forward_pre_hook(seen)
    try:
        with warnings.catch_warnings(), _eager():
            warnings.filterwarnings("ignore", message=HOOKS)  # which is this one
            yield notes
    finally:
        hook.remove()


@contextlib.contextmanager
def _eager() -> Iterator[None]:
    """What is compiled already, or is in here, runs as what it was compiled from. The compiler is
    not imported for that, which takes a second: it was, if anything is compiled."""
    compiler = torch.compile
    with contextlib.ExitStack() as stances:

        def late(*args: Any, **settings: Any) -> Any:
            stances.enter_context(torch.compiler.set_stance("force_eager"))
            return compiler(*args, **settings)

        if "torch._dynamo" in sys.modules:
            stances.enter_context(torch.compiler.set_stance("force_eager"))
            yield
            return
        torch.compile = late
        try:
            yield
        finally:
            torch.compile = compiler
