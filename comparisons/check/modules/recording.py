"""One forward and backward of the reference, call by call of its submodules."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch

from ..trees import items, mapped
from .memory import Memory, below, memory_now, remembered
from .objects import boxed, opened, settled
from .outputs import empty_in, outputs_of
from .state import (
    State,
    held_by,
    is_numeric,
    modules_of,
    parameters_of,
    plain,
    slots_of,
    swapped,
    with_hooks,
)

VMAP = "it is called inside of a transformation of torch.func"


@dataclass(eq=False)
class Call:
    """One call of a submodule: what it was given, and which cotangents arrived at its results.

    place       its name, "" for the whole
    number      which of its calls it is, from 0
    buffers     before the call
    args        and kwargs, with a Box for an object that holds tensors or that the call changes
    dys         of the floating results in order, None where none arrived
    paths       and empty: the keys that lead to these results, and those that lead to nothing
    generator   the state of torch's before the call, if that draws
    attached    whether gradients were recorded in the forward
    written     the buffers that the call has changed
    memory      what the module kept from calls before, of what changes
    unseen      why nothing of it is known
    narrow      the operators that it calls and that know no float64
    gradients   of the whole, if they are kept: those of its parameters, None where there is none
    after       of the whole, if they are kept: its buffers after the call
    left        of the whole, if it is kept: its memory after the call
    """

    place: str
    number: int
    module: torch.nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    buffers: dict[str, torch.Tensor]
    generator: torch.Tensor | None = None
    dys: list[torch.Tensor | None] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    empty: set[str] = field(default_factory=set)
    differentiable: bool = False  # whether a gradient is asked of any of its arguments
    attached: bool = True
    written: set[str] = field(default_factory=set)
    memory: Memory = field(default_factory=dict)
    left: Memory = field(default_factory=dict)
    narrow: set[str] = field(default_factory=set)
    unseen: str = ""
    gradients: dict[str, torch.Tensor | None] = field(default_factory=dict)
    after: dict[str, torch.Tensor] = field(default_factory=dict)


def recorded(
    module: torch.nn.Module,
    state: State,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    seed: int,
    kept: bool = False,
    asked: bool = True,
    memory: Memory = MappingProxyType({}),
) -> list[Call]:
    """The calls in the order in which they end, the whole last. The state, parameters and buffers,
    takes the place of the module's own, which stay as they are; so does torch's generator. What the
    run leaves is kept with the whole if that is wanted. A gradient is asked of every floating
    argument, or of those alone of which it is asked anyway. It goes on from this
    memory, and each call has what was there of it before."""
    calls: list[Call] = []
    recorder = _Recorder(module, calls, memory)
    with kept_generator(seed), torch.enable_grad():
        own = {n: state[n].detach().clone() for n in held_by(module)}
        for name, parameter in parameters_of(module).items():
            if is_numeric(own[name]) and parameter.requires_grad:
                with_hooks(own[name].requires_grad_(), parameter)
        copies = copied((tuple(args), dict(kwargs)), _fresh if asked else taken)
        args, kwargs = opened(mapped(unleafed, copies))
        with swapped(slots_of(module), own), remembered(module, memory), recorder:
            y = module(*args, **kwargs)
            recorder.over = True
            if not calls[-1].dys:
                kind = type(y).__name__
                raise TypeError(
                    f"{type(module).__name__} gives a {kind}, without a floating tensor"
                )
            outputs = [o for _, o in outputs_of(y) if o.requires_grad]
            generator = torch.Generator().manual_seed(seed)
            dys = [_drawn(o, generator) for o in outputs]
            if outputs:
                torch.autograd.backward(outputs, dys)
            if kept:
                calls[-1].left = memory_now(module, memory)
        if kept:
            parameters = parameters_of(module)
            calls[-1].gradients = {name: own[name].grad for name in parameters}
            calls[-1].after = {n: t.detach() for n, t in own.items() if n not in parameters}
    return calls


class _Recorder:
    """Hooks on every submodule, as long as it is entered."""

    def __init__(self, module: torch.nn.Module, calls: list[Call], memory: Memory) -> None:
        self.module, self.calls, self.memory = module, calls, memory
        self.over = False  # with the forward, of which checkpoints repeat parts in the backward
        self.open: list[Call] = []
        self.count: Counter[str] = Counter()
        self.known: dict[str, torch.Tensor] = {}  # the last copy of each buffer

    def __enter__(self) -> None:
        names = {module: name for name, module in reversed(modules_of(self.module).items())}
        self.hooks = [
            hook
            for module, name in names.items()  # of one with several names, the first
            for hook in (
                module.register_forward_pre_hook(
                    self._before(name), with_kwargs=True, prepend=True
                ),
                module.register_forward_hook(self._after(name), with_kwargs=True),
            )
        ]

    def __exit__(self, *error: Any) -> None:
        for hook in self.hooks:
            hook.remove()

    def _before(self, place: str) -> Any:
        def hook(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
            if self.over and not self._lost(place):
                return
            if _is_transformed():
                self.calls.append(Call(place, self.count[place], module, (), {}, {}, unseen=VMAP))
                self.count[place] += 1
                return
            given, settings = copied((tuple(args), dict(kwargs)), taken)
            buffers = self._buffers(place, module)
            call = Call(place, self.count[place], module, given, settings, buffers)
            if first := below(self.memory, place):
                call.memory = memory_now(module, first)
            call.generator = torch.get_rng_state()
            call.differentiable = any(t.requires_grad for t in floating((given, settings)))
            self.count[place] += 1
            self.open.append(call)

        return hook

    def _buffers(self, place: str, module: torch.nn.Module) -> dict[str, torch.Tensor]:
        """A copy of each, which calls share between which it does not change."""
        found = {}
        for name, buffer in module.named_buffers():
            key = f"{place}.{plain(name)}".strip(".")
            if key not in self.known or not torch.equal(self.known[key], buffer):
                self.known[key] = buffer.detach().clone()
            found[plain(name)] = self.known[key]
        return found

    def _after(self, place: str) -> Any:
        def hook(module: torch.nn.Module, args: Any, kwargs: Any, y: Any) -> None:
            if _is_transformed():
                return
            while self.open and self.open[-1].place != place:  # whose forward raised
                self.open.pop()
            if not self.open:
                return
            call = self.open.pop()
            call.args, call.kwargs = settled((call.args, call.kwargs))
            if call.generator is not None and torch.equal(call.generator, torch.get_rng_state()):
                call.generator = None  # it draws nothing
            call.attached = torch.is_grad_enabled()
            after = {plain(name): b for name, b in module.named_buffers()}
            call.written = {n for n, b in call.buffers.items() if not torch.equal(b, after[n])}
            outputs = outputs_of(y)
            call.dys, call.empty = [None] * len(outputs), empty_in(y)
            call.paths = [path for path, _ in outputs]
            for i, (_, output) in enumerate(outputs):
                if output.requires_grad:
                    output.register_hook(_Arrival(call, i))
            if lost := self._lost(place):
                call.number = lost[0].number
                self.calls[self.calls.index(lost[0])] = call
            else:
                self.calls.append(call)

        return hook

    def _lost(self, place: str) -> list[Call]:
        """Of a submodule whose calls are being repeated by a checkpoint, those of which nothing is
        known but the forward."""
        return [c for c in self.calls if c.place == place and not c.attached] if self.over else []


@dataclass
class _Arrival:
    """Keeps the cotangent that arrives at a result."""

    call: Call
    index: int

    def __call__(self, dy: torch.Tensor) -> None:
        self.call.dys[self.index] = dy.detach().clone()


def floating(tree: Any) -> list[torch.Tensor]:
    """The floating tensors of a tree, in order, complex ones included."""
    return [t for _, t in items(tree) if is_numeric(t)]


def is_asked(leaf: Any) -> bool:
    """Whether a gradient is asked of it."""
    return is_numeric(leaf) and leaf.requires_grad


def asked(tree: Any) -> list[torch.Tensor]:
    """The tensors of which a gradient is asked, each once, in order."""
    return list({id(t): t for _, t in items(tree) if is_asked(t)}.values())


@contextlib.contextmanager
def kept_generator(state: int | torch.Tensor | None = None) -> Iterator[None]:
    """Sets the state of torch's generator, or its seed, and puts it back at the end."""
    with torch.random.fork_rng(devices=[]):
        if isinstance(state, int):
            torch.manual_seed(state)
        elif state is not None:
            torch.set_rng_state(state)
        yield


def _is_transformed() -> bool:
    """Whether tensors here are those of a transformation, of which nothing can be kept."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def copied(call: Any, copy: Callable[[Any], Any]) -> Any:
    """A call with copies of its tensors, its objects boxed. Of what these hold beside tensors of
    which a gradient is asked, none is."""
    outside = mapped(copy, call)
    asked = any(t.requires_grad for t in floating(outside))
    return boxed(outside, (lambda t: copy(t).detach()) if asked else copy)


def _drawn(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Random numbers in its place."""
    dtype = torch.complex64 if like.is_complex() else None
    return torch.randn(like.shape, generator=generator, dtype=dtype).to(like)


def _fresh(leaf: Any) -> Any:
    """A copy of a tensor, of which a gradient is asked if it is floating."""
    if not isinstance(leaf, torch.Tensor):
        return leaf
    return leaf.detach().clone().requires_grad_(is_numeric(leaf))


def unleafed(leaf: Any) -> Any:
    """What a module may write to, though a gradient is asked of it."""
    asked = isinstance(leaf, torch.Tensor) and leaf.requires_grad
    return leaf.clone() if asked else leaf


def taken(leaf: Any) -> Any:
    """A copy of a tensor, of which a gradient is asked if it is of that."""
    if not isinstance(leaf, torch.Tensor):
        return leaf
    return leaf.detach().clone().requires_grad_(leaf.requires_grad)
