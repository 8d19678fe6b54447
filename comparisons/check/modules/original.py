"""What a port is held to: an original that is here, and evaluated whenever something is asked."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from ...report.text import raised
from ...verdict.classes import Results
from ...verdict.floor import LOOKS, Floor
from ...verdict.noise import cast
from ..trees import mapped
from .evaluation import Inputs, Side, arranged, evaluated, judged_in, only, some
from .memory import Moment
from .recording import Call, recorded
from .state import WRAPPED, refuse_empty, refuse_script, refuse_unmade, tensors_of


class Answers(NamedTuple):
    """What an original gives at a call, arranged as the port gives it."""

    truth: Results  # in float64
    native: Results  # in its own dtype
    floor: Callable[[Sequence[str]], Floor]  # of the results with these names


class Original(Protocol):
    """A module whose calls are known, and what it gives at each.

    module  with its parameters and buffers, by which a port is paired with it
    runs    whether its code is here, to be run once more
    note    where it comes from, if that is to be said
    """

    name: str
    module: torch.nn.Module
    calls: Sequence[Call]
    runs: bool
    note: str

    def inputs(self, call: Call) -> Inputs: ...

    def answers(self, subject: Side, reference: Side, inputs: Inputs) -> Answers: ...


class Here:
    """An original that is run, forward and backward, on these arguments; it is not changed. Arrays
    become tensors in its dtype. What of it is compiled runs as it is written: the reference is its
    code, and every noise would be compiled anew.

    Raises ValueError for one that has no values yet, TypeError for one that gives none."""

    runs = True

    def __init__(
        self,
        module: torch.nn.Module,
        arrays: Sequence[Any],
        settings: Mapping[str, Any],
        seed: int,
        kept: bool = False,
    ) -> None:
        self.name, self.module = type(module).__name__, module
        refuse_script(module, "the original")
        refuse_unmade(module, "the original")
        refuse_empty(tensors_of(module), "the original")
        args, kwargs = (mapped(_tensor(module), a) for a in (tuple(arrays), dict(settings)))
        self.note = "the original is compiled; its code was run as it is written" * _compiled(
            module
        )
        self.calls: Sequence[Call] = self._recorded(args, kwargs, seed, kept)

    def _recorded(self, args: Any, kwargs: Any, seed: int, kept: bool) -> list[Call]:
        run = partial(recorded, self.module, tensors_of(self.module), args, kwargs, seed, kept)
        before = Moment(self.module)
        with _eager():
            try:
                calls = run()
            except RuntimeError as error:
                before.changed()
                run = partial(run, asked=False)
                try:
                    calls = run()
                except RuntimeError:
                    before.changed()
                    raise error from None
                text = f"with gradients of all its arguments the original raises {raised(error)}"
                self.note = "; ".join(filter(None, [self.note, f"{text}: none is asked"]))
            memory = before.changed()
            return run(memory=memory) if memory else calls

    def inputs(self, call: Call) -> Inputs:
        held = tensors_of(call.module) | call.buffers
        return Inputs(call, {n: t.detach() for n, t in held.items()})

    def answers(self, subject: Side, reference: Side, inputs: Inputs) -> Answers:
        def truth(arrays: Any) -> Results:
            with _eager():
                return arranged(evaluated(reference, inputs, arrays), subject, reference)

        wide, native = truth(cast(inputs.arrays, np.float64)), truth(inputs.arrays)

        def floor(names: Sequence[str]) -> Floor:
            known = some(wide, names), some(native, names)
            dtype = judged_in(inputs.kinds)
            return Floor(only(names, truth), inputs.arrays, dtype, known, looks=LOOKS)

        return Answers(wide, native, floor)


def _compiled(module: torch.nn.Module) -> bool:
    """Whether it or a submodule is compiled, around its call or in the place of it."""
    return any(
        WRAPPED in m._modules
        or m._compiled_call_impl is not None
        or hasattr(m.forward, "_torchdynamo_orig_callable")
        for m in module.modules()
    )


def _eager() -> contextlib.AbstractContextManager[Any]:
    """In which nothing is compiled; without torch's compiler, which takes seconds to import, that
    is so anyway."""
    if "torch._dynamo" not in sys.modules:
        return contextlib.nullcontext()
    return torch.compiler.set_stance("force_eager")


def _tensor(original: torch.nn.Module) -> Callable[[Any], Any]:
    """Arrays as tensors in the dtype of the original; tensors stay."""
    dtype = next((p.dtype for p in original.parameters() if p.is_floating_point()), None)

    def made(leaf: Any) -> Any:
        if isinstance(leaf, np.ndarray):
            t = torch.from_numpy(np.array(leaf))
            return t.to(dtype) if dtype and t.is_floating_point() else t
        return leaf

    return made
