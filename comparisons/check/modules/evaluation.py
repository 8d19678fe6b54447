"""A recorded call, evaluated again: outputs, gradients and buffers by name."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ...ops.arguments import signature_of
from ...verdict.classes import Function, Results
from ..trees import items, mapped
from .forms import Form, Partly
from .memory import Memory, remembered
from .objects import opened
from .outputs import Incomparable, matched
from .recording import Call, asked, is_asked, kept_generator, unleafed
from .state import (
    Slots,
    first_names,
    held_by,
    is_called,
    is_numeric,
    parameters_of,
    slots_of,
    swapped,
    tensors_of,
    with_hooks,
    zeros_for,
)
from .wide import NARROW, Wide

NO_FORWARD = "it has no forward"  # a list or a dict of submodules
LOW = {torch.bfloat16: "bfloat16", torch.float16: "float16"}
Arrange = Callable[[Mapping[str, torch.Tensor]], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Side:
    """A module in the place where a call was recorded.

    arrange   makes its state from that of the original's module
    wanted    its parameters of which a gradient is asked
    beside    those of which a gradient is made, and let go at once: some checkpoints pass on none
              where nothing that they are given has one
    made_of   the original's of which each of these is made
    around    what is entered for its forward
    memory    what it keeps from calls before
    hooked    whether its parameters have the hooks that were registered on them
    runs      whether its code is here
    form      how it is called, if not as the original was
    """

    module: torch.nn.Module
    arrange: Arrange
    wanted: Sequence[str]
    beside: Sequence[str] = ()
    made_of: Mapping[str, Sequence[str]] = field(default_factory=dict)
    around: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    runs: bool = True
    hooked: bool = True
    memory: Memory = field(default_factory=dict)
    form: Form | Partly | None = None

    @functools.cached_property
    def held(self) -> list[str]:
        """The names of its parameters and buffers."""
        return held_by(self.module)

    @functools.cached_property
    def tensors(self) -> dict[str, torch.Tensor]:
        return tensors_of(self.module)

    @functools.cached_property
    def first(self) -> dict[str, str]:
        return first_names(self.tensors)

    @functools.cached_property
    def slots(self) -> Slots:
        return slots_of(self.module)

    @functools.cached_property
    def shapes(self) -> dict[str, torch.Tensor]:
        """Zeros in the place of all that it holds."""
        return zeros_for(self.tensors)

    @functools.cached_property
    def buffers(self) -> list[str]:
        parameters = parameters_of(self.module)
        return [name for name in self.held if name not in parameters]

    def called(self, args: Any, kwargs: Any) -> Any:
        """What its forward gives. Raises Incomparable for a call that its signature does not allow,
        and if it has no forward, as a list of submodules."""
        if self.form:
            return self.form.called(self.module, args, kwargs)
        if not is_called(self.module):
            raise Incomparable(NO_FORWARD)
        args, kwargs = opened((args, kwargs))
        if signature := signature_of(self.module.forward):
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                raise Incomparable(f"it takes no such call: {error}") from None
        return self.module(*args, **kwargs)


class Inputs:
    """What a recorded call is evaluated with, as a tree of arrays, and back. The names are those of
    the arguments of which a gradient is asked; without, the module's signature tells them."""

    def __init__(
        self, call: Call, state: Mapping[str, torch.Tensor], names: Sequence[str] | None = None
    ) -> None:
        self.call = call
        self.tree = (dict(state), call.args, call.kwargs, call.dys)
        self.kinds = [leaf.dtype.to_real() for _, leaf in items(self.tree) if is_numeric(leaf)]
        self.arrays = _arrays(self.tree)
        if names is None:
            names = _names(signature_of(call.module.forward), call.args, call.kwargs)
        self.names = list(names)

    def without(self, lacking: Collection[int]) -> Inputs:
        """The same with no cotangent of these results."""
        dys = [None if i in lacking else dy for i, dy in enumerate(self.call.dys)]
        return Inputs(replace(self.call, dys=dys), self.tree[0], self.names)

    def tensors(self, arrays: Any, dtype: torch.dtype | None) -> Any:
        """The tree of tensors, of this dtype or of those that they had; what is no array of
        numbers is what was recorded."""
        given = iter(arrays)
        known: dict[int, torch.Tensor] = {}

        def made(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            if not is_numeric(leaf):
                return leaf.clone()
            if id(leaf) not in known:
                new, kind = as_tensor(next(given), leaf), dtype or leaf.dtype
                new = new.to(kind.to_complex() if leaf.is_complex() else kind)
                known[id(leaf)] = new.requires_grad_(leaf.requires_grad)
            return known[id(leaf)]

        return mapped(made, self.tree)

    def tied(self) -> Inputs:
        """The same, where arguments that are equal and have a gradient are one and the same."""
        known: list[torch.Tensor] = []

        def one(leaf: Any) -> Any:
            if not is_asked(leaf):
                return leaf
            same = next((t for t in known if torch.equal(t, leaf)), leaf)
            known.append(same)
            return same

        args, kwargs = mapped(one, (self.call.args, self.call.kwargs))
        return Inputs(replace(self.call, args=args, kwargs=kwargs), self.tree[0])


def judged_in(kinds: Collection[torch.dtype]) -> Any:
    """In which dtype that is judged which has numbers of these: the narrowest."""
    for kind, name in LOW.items():
        if kind in kinds:
            return name
    return np.float32 if torch.float32 in kinds else np.float64


def _arrays(tree: Any) -> list[np.ndarray]:
    """The floating tensors as arrays, each once, in order; those of 16 bits in float32."""
    each = {id(leaf): leaf for _, leaf in items(tree) if is_numeric(leaf)}
    return [as_array(leaf) for leaf in each.values()]


def as_array(t: torch.Tensor) -> np.ndarray:
    """A tensor as an array, of 16 bits in float32, of complex numbers as pairs of real ones."""
    t = t.detach()
    t = torch.view_as_real(t) if t.is_complex() else t
    t = t.to_dense() if t.layout is not torch.strided else t
    return (t.float() if t.dtype in LOW else t).numpy(force=True)


def as_tensor(a: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """A copy of an array as a tensor, complex if the other one is."""
    t = torch.from_numpy(np.array(a))
    return torch.view_as_complex(t) if like.is_complex() else t


def evaluated(
    side: Side,
    inputs: Inputs,
    arrays: Sequence[np.ndarray],
    dtype: torch.dtype | None = None,
    backward: bool = True,
) -> Results:
    """Outputs, gradients of arguments and wanted parameters, and buffers after the call. In
    float64, if the arrays are of that, whatever the module casts to on the way; without the
    `backward`, no gradients."""
    call, wide = inputs.call, arrays[0].dtype == np.float64
    native = next((k for k in inputs.kinds if k in NARROW), torch.float64)
    tensors = inputs.tensors(arrays, torch.float64 if wide else dtype)
    given, args, kwargs, dys = tensors
    widened = Wide(native) if wide and native != torch.float64 else None
    inside = widened or contextlib.nullcontext()
    with kept_generator(call.generator), torch.enable_grad(), inside:
        state = side.arrange(given)
        own = _of_their_own({n: state[n] for n in side.held})
        sources = {n: own[n].requires_grad_() for n in side.wanted}
        for name, t in sources.items():
            if side.hooked:
                with_hooks(t, side.tensors[name])
        for name in side.beside:
            own[name].requires_grad_().register_post_accumulate_grad_hook(_let_go)
        copies = mapped(unleafed, (args, kwargs))
        cast = torch.autocast("cpu", enabled=False) if wide else contextlib.nullcontext()
        with swapped(side.slots, own), remembered(side.module, side.memory), cast:
            with side.around():
                y = side.called(*copies)
            outputs = matched(y, call, dys)
            pairs = _pairs(outputs, dys)
            of = dict(zip(inputs.names, asked((args, kwargs)), strict=True)) | sources
            if pairs and of and backward:  # by `backward`, for some checkpoints refuse `grad`
                torch.autograd.backward([o for o, _ in pairs], [d for _, d in pairs])
            # Some write their buffers in place, and some put others there.
            after = {name: held[key] for held, key, name in side.slots}
    if widened:
        call.narrow |= widened.narrow
    found = {f"output {i}" if len(dys) > 1 else "output": o for i, o in outputs.items()}
    if backward and any(d is not None for d in dys):
        grads = {n: torch.zeros_like(t) if t.grad is None else t.grad for n, t in of.items()}
        found |= {f"gradient of {n}": g for n, g in grads.items()}
    found |= {f"buffer {n}": after[n] for n in side.buffers if after[n] is not None}
    return {n: as_array(t) for n, t in found.items()}


def _pairs(outputs: Mapping[int, torch.Tensor], dys: Sequence[Any]) -> list[tuple[Any, Any]]:
    """The outputs of which there is a cotangent, with it. Raises Incomparable for one of another
    shape."""
    pairs = [(o, dys[i]) for i, o in outputs.items() if dys[i] is not None]
    for o, d in pairs:
        if o.shape != d.shape:
            raise Incomparable(f"it gives shape {tuple(o.shape)}, not {tuple(d.shape)}")
    return [(o, d.detach().to(o.dtype)) for o, d in pairs if o.requires_grad]


def _names(signature: inspect.Signature | None, args: Any, kwargs: Any) -> list[str]:
    """How the arguments of which a gradient is asked are called where the call was recorded."""
    bound: Mapping[str, Any] = {f"argument {i}": a for i, a in enumerate(args)} | kwargs
    if signature:
        bound = signature.bind(*args, **kwargs).arguments
    names = {id(t): n for n, t in items(bound)}
    return [names[id(t)] for t in asked((args, kwargs))]


def _let_go(parameter: torch.Tensor) -> None:
    parameter.grad = None


def _of_their_own(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors, of which none has its memory in common with another."""
    used: set[int] = set()
    found = {}
    for name, t in state.items():
        storage = t.untyped_storage()
        alone = storage._cdata not in used and storage.nbytes() == t.numel() * t.element_size()
        used.add(storage._cdata)
        found[name] = t.detach() if alone else t.detach().clone()
    return found


def only(names: Sequence[str], function: Function) -> Function:
    """A function that gives some of its results."""
    return lambda arrays: some(function(arrays), names)


def some(results: Results, names: Sequence[str]) -> dict[str, np.ndarray]:
    return {n: results[n] for n in names}


def arranged(results: Results, subject: Side, reference: Side) -> Results:
    """Results of the original, its gradients of parameters and its buffers arranged as those of
    the port."""
    rest, grads = dict(results), {}
    for name in reference.wanted:
        if (gradient := rest.pop(f"gradient of {name}", None)) is not None:
            grads[name] = as_tensor(gradient, reference.shapes[name])
    grads |= {n: grads[first] for n, first in reference.first.items() if first in grads}
    shapes = reference.shapes
    after = {n: as_tensor(rest.pop(f"buffer {n}"), shapes[n]) for n in reference.buffers}
    # Else no more than the shape, and nothing that the module holds: noise moves what it meets.
    made = subject.arrange(shapes | after | grads)
    if grads:
        rest |= {f"gradient of {n}": as_array(made[n]) for n in subject.wanted}
    return rest | {f"buffer {n}": as_array(made[n]) for n in subject.buffers}
