"""What of torch's is a subject: callables, custom Functions, modules, compiled ones."""

from __future__ import annotations

import contextlib
import copy
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ...reference.adapters import array, is_differentiable, listed, tensor
from ..ops.arguments import array_names, signature_of
from ..report.text import said
from .misuse import Misuse, described
from .trees import items, mapped

COMPILATIONS = 64  # of one compiled function: the probes have many shapes, and some dtypes

Convert = Callable[[Any], Any]


def rule_of(
    function: Callable[..., Any],
    signature: inspect.Signature | None,
    constant: frozenset[str],
    convert: Convert,
    device: torch.device | None,
) -> Callable[..., tuple[Any, Callable[[Any], Any]]]:
    """A torch callable as a rule over arrays. Where a custom Function alone lies between the
    arguments and y, what its backward returns is handed on; else what torch.autograd makes.

    y is the floating results in order, or the one that there is, and behind them those of whole
    numbers. Torch promises one backward for each forward: where a second one is refused, the
    forward is run again.
    """
    writes: bool | None = None  # whether it writes into its arguments, where torch wants no leaves

    def evaluated(args: Any, kwargs: Any) -> _Evaluation:
        nonlocal writes
        given = (args, kwargs, signature, constant, convert, device)
        if writes is not None:
            return _Evaluation(function, *given, copies=writes)
        before = [(a, a.copy()) for _, a in items((args, kwargs)) if isinstance(a, np.ndarray)]
        writes = False
        try:
            return _Evaluation(function, *given, copies=False)
        except RuntimeError as error:
            if "leaf Variable" not in said(error):
                raise
        writes = True
        for a, values in before:
            if a.flags.writeable:
                a[...] = values
        return _Evaluation(function, *given, copies=True)

    def rule(*args: Any, **kwargs: Any) -> tuple[Any, Callable[[Any], Any]]:
        first = evaluated(args, kwargs)
        pulled = False

        def pullback(dy: Any) -> list[Any]:
            nonlocal pulled
            given = listed(dy)[: len(first.outputs)]
            dys = [None if d is None else sent(convert(d), device) for d in given]
            try:
                found = first.gradients(dys, keep=True)
            except Misuse:
                raise
            except Exception as error:
                if not pulled and "donated" not in said(error):
                    raise
                found = evaluated(args, kwargs).gradients(dys, keep=False)
            pulled = True
            return [None if g is None else array(g) for g in found]

        outputs = [array(o) for o in (*first.outputs, *first.whole)]
        return outputs[0] if len(outputs) == 1 else tuple(outputs), pullback

    return rule


class _Evaluation:
    """One forward of a torch callable: its floating results, and the tensors they depend on."""

    def __init__(
        self,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        signature: inspect.Signature | None,
        constant: frozenset[str],
        convert: Convert,
        device: torch.device | None,
        *,
        copies: bool,
    ) -> None:
        names = array_names(args, kwargs, signature) if constant else []
        made: list[Any] = []

        def taken(leaf: Any) -> Any:
            new = sent(convert(leaf), device)
            if is_differentiable(new):
                made.append(new)
            return new

        tree = mapped(taken, (tuple(args), dict(kwargs)))
        if constant:
            made = [t for n, t in zip(names, made, strict=True) if n not in constant]
        self.sources = made
        with torch.enable_grad(), compiling():
            for t in self.sources:
                t.requires_grad_()
            seen = {id(t): t.clone() if copies else t for t in self.sources}
            # What leads to each copy, as the graph has it now: what is written to changes place.
            self._copied = [seen[id(t)].grad_fn for t in self.sources]
            args, kwargs = mapped(lambda leaf: seen.get(id(leaf), leaf), tree)
            y = function(*args, **kwargs)
        found = [t for _, t in items(y) if isinstance(t, torch.Tensor)]
        if any(t.is_complex() for t in found):
            raise Misuse("y: expected floating results, got complex ones")
        self.outputs = list(filter(is_differentiable, found))
        self.whole = [t for t in found if not is_differentiable(t)]
        if not self.outputs:
            raise Misuse(f"y: expected a floating tensor, got {described(y)}")

    def gradients(self, dys: Sequence[Any], *, keep: bool) -> list[Any]:
        """A gradient of each source, None where there is none; `keep` the graph for another."""
        pairs = [(o, d) for o, d in zip(self.outputs, dys, strict=True) if d is not None]
        attached = [(o, d) for o, d in pairs if o.requires_grad]
        if not attached or not self.sources:
            return [None] * len(self.sources)
        outputs, cotangents = map(list, zip(*attached, strict=True))
        nodes = [o.grad_fn for o in outputs]
        if self.sources and all(n is nodes[0] for n in nodes) and self._is_alone(nodes[0]):
            return self._own(nodes[0], outputs, cotangents, keep)
        if not any(o.numel() for o in outputs):  # a sum over nothing; torch may divide by its size
            return [torch.zeros_like(source) for source in self.sources]
        with compiling():
            return list(
                torch.autograd.grad(
                    outputs, self.sources, cotangents, retain_graph=keep, allow_unused=True
                )
            )

    def _is_alone(self, node: Any) -> bool:
        """Whether it is a custom backward, and nothing lies before it."""
        if not isinstance(node, torch.autograd.function.BackwardCFunction):
            return False
        edges = [edge for edge, _ in node.next_functions if edge is not None]
        return all(self._place(edge) is not None for edge in edges)

    def _place(self, edge: Any) -> int | None:
        """Which source an edge of the graph leads to, itself or by a copy."""
        variable = getattr(edge, "variable", None)
        for i, (source, copied) in enumerate(zip(self.sources, self._copied, strict=True)):
            if variable is source or (copied is not None and edge is copied):
                return i
        return None

    def _own(self, node: Any, outputs: list[Any], dys: list[Any], keep: bool) -> list[Any]:
        """What the custom backward returns. Torch calls it, with a gradient of each result of the
        forward, as the Function asked for; but gets to see nothing of what came."""
        answers: list[Any] = []
        needed = node.needs_input_grad

        def apply(*gradients: Any) -> Any:
            with torch.no_grad():
                answers.append(type(node).apply(node, *gradients))
            return (None,) * len(needed)

        node.apply = apply  # the engine looks here first
        try:
            with compiling():
                found = torch.autograd.grad(
                    outputs, self.sources, dys, retain_graph=keep, allow_unused=True
                )
        finally:
            del node.apply
        if not answers:  # a compiled one, which the engine calls in another way
            return list(found)
        answer = answers[0]
        answer = answer if isinstance(answer, tuple) else (answer,)
        beyond = [g for g in answer[len(needed) :] if g is not None]
        if len(answer) < len(needed) or beyond:
            raise Misuse(
                f"backward: expected {len(needed)} gradients, one for each argument of "
                f"forward, got {len(answer)}"
            )
        gradients = [g for g, wanted in zip(answer, needed, strict=False) if wanted]
        for gradient in gradients:
            if not (gradient is None or isinstance(gradient, torch.Tensor)):
                raise Misuse(f"backward: expected tensors, got {described(gradient)}")
        edges = [edge for edge, _ in node.next_functions if edge is not None]
        own: list[Any] = [None] * len(self.sources)
        for edge, gradient in zip(edges, gradients, strict=True):
            place = self._place(edge)
            assert place is not None
            if gradient is not None:  # one tensor may have been given twice
                own[place] = gradient if own[place] is None else own[place] + gradient
        return own


def steps_of(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """How many steps the backward of a torch callable takes, in float64."""
    first = _Evaluation(
        function, args, kwargs, None, frozenset(), tensor, device_of(function), copies=True
    )
    open_ = [o.grad_fn for o in first.outputs if o.grad_fn is not None]
    known = set(open_)
    while open_:
        more = {edge for edge, _ in open_.pop().next_functions if edge is not None} - known
        known |= more
        open_ += more
    return len(known)


def applied(function: Any) -> tuple[Callable[..., Any], inspect.Signature | None]:
    """What calls a torch.autograd.Function, and its signature. `apply` takes no keywords, so they
    are put into their places."""
    signature = signature_of(function.forward)
    base = torch.autograd.Function
    if signature and function.setup_context is base.setup_context:
        signature = signature.replace(parameters=list(signature.parameters.values())[1:])  # ctx

    def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs and signature:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return function.apply(*bound.args, *bound.kwargs.values())  # those after a *
        return function.apply(*args, **kwargs)

    return call, signature


def any_dtype(module: torch.nn.Module) -> Callable[..., Any]:
    """A module that takes every floating dtype: of one that has parameters, in a dtype that is not
    the argument's, a copy is called."""
    own = {t.dtype for t in (*module.parameters(), *module.buffers()) if t.dtype.is_floating_point}
    copies: dict[torch.dtype, Any] = {}
    if len(own) != 1:
        return module
    (dtype,) = own

    def call(*args: Any, **kwargs: Any) -> Any:
        given = next((t.dtype for _, t in items((args, kwargs)) if is_differentiable(t)), dtype)
        if given != dtype and given not in copies:
            try:
                copies[given] = copy.deepcopy(module).to(given)
            except Exception:  # what cannot be copied is called as it is
                copies[given] = module
        return copies.get(given, module)(*args, **kwargs)

    call.__name__ = type(module).__name__
    return call


def device_of(thing: Any) -> torch.device | None:
    """Where a subject wants its arguments: what it says in an attribute `device`, or where its
    parameters lie. None is where they are."""
    for one in (thing, getattr(thing, "func", None), getattr(thing, "__self__", None)):
        said = getattr(one, "device", None)
        if isinstance(said, (str, torch.device)):
            return _elsewhere(torch.device(said))
        if isinstance(one, torch.nn.Module):
            there = next(iter((*one.parameters(), *one.buffers())), None)
            return _elsewhere(there.device) if there is not None else None
    return None


def accelerator() -> torch.device | None:
    """The device besides the processor that a subject is tried on, which refuses tensors of it."""
    known = getattr(torch, "accelerator", None)
    return known.current_accelerator() if known and known.is_available() else None


def _elsewhere(device: torch.device) -> torch.device | None:
    return None if device.type in ("cpu", "meta") else device


def sent(leaf: Any, device: torch.device | None) -> Any:
    """A tensor on that device; anything else as it is."""
    return leaf.to(device) if device is not None and isinstance(leaf, torch.Tensor) else leaf


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Lets torch.compile compile anew for as many shapes and dtypes as the probes have: beyond its
    own limit it does not, or raises."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is None:
        yield
        return
    limit = "recompile_limit" if hasattr(dynamo.config, "recompile_limit") else "cache_size_limit"
    before = getattr(dynamo.config, limit)
    setattr(dynamo.config, limit, max(COMPILATIONS, before))
    try:
        yield
    finally:
        setattr(dynamo.config, limit, before)


def as_tensor(leaf: Any) -> Any:
    """An array as a tensor over the same memory, strides and all, where torch can: so that what is
    done to the tensor is done to the array. NumPy's dtype as torch's; anything else as it is."""
    if not isinstance(leaf, (np.ndarray, np.generic)):
        return tensor(leaf) if isinstance(leaf, np.dtype) else leaf
    leaf = np.asarray(leaf)
    if leaf.size and leaf.ndim and 0 in leaf.strides and max(leaf.shape) > 1:  # broadcast
        once = leaf[tuple(slice(None, 1 if s == 0 else None) for s in leaf.strides)]
        return _from_numpy(np.array(once)).expand(leaf.shape)
    if not leaf.flags.writeable or any(s < 0 or s % leaf.itemsize for s in leaf.strides):
        leaf = np.array(leaf)
    return _from_numpy(leaf)


def _from_numpy(a: np.ndarray) -> torch.Tensor:
    if a.dtype.name == "bfloat16":
        return torch.from_numpy(a.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(a)


def is_torch(thing: Any) -> bool:
    """Whether it can only be called with tensors."""
    owner = getattr(thing, "__self__", None)
    return (
        isinstance(thing, torch.nn.Module)
        or isinstance(owner, torch.nn.Module)
        or (isinstance(owner, type) and issubclass(owner, torch.autograd.Function))
        or str(getattr(thing, "__module__", None) or "").split(".")[0] == "torch"
        or type(thing).__module__.split(".")[0] == "torch"
        or hasattr(thing, "_torchdynamo_orig_callable")
        or any(thing is known for known in vars(torch).values())
        or any(thing is known for known in vars(torch._C._nn).values())
    )
