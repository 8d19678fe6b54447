"""What runs without Python: put aside, or refused by name."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_pre_hook

COMPILED = (
    "{} is compiled, and was traced as what it was compiled from; "
    "check(compiled, original, …) holds the two to each other"
)


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
        original = getattr(thing, "_orig_mod", None) or getattr(
            thing, "_torchdynamo_orig_callable", None
        )
        if original is not None:
            name = getattr(original, "__name__", type(original).__name__)
            if (note := COMPILED.format(name)) not in notes:
                notes.append(note)

    seen(module)
    hook = register_module_forward_pre_hook(seen)
    # Nothing was compiled where it was not imported, and that takes a second.
    known = "torch._dynamo" in sys.modules
    stance: Any = torch.compiler.set_stance("force_eager") if known else contextlib.nullcontext()
    try:
        with stance:
            yield notes
    finally:
        hook.remove()
