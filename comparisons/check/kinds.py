"""The forms in which people write a gradient by hand, each made a rule."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import torch

from ...reference.adapters import array
from ..ops.arguments import signature_of
from ..report.text import raised, said
from .misuse import Misuse, described
from .torch_subjects import as_tensor, sent
from .trees import items, mapped

Rule = Callable[..., tuple[Any, Callable[[Any], Any]]]

# What a backward calls what the forward kept, and what came from above.
SAVED = {"cache", "saved", "ctx", "context", "residuals", "residual", "res", "memory", "stash"}
COTANGENT = {"dy", "gy", "dout", "d_out", "gout", "grad", "grad_output", "grad_out", "upstream"}
COTANGENT |= {"dz", "g", "delta"}


def is_answer(answer: Any) -> bool:
    """Whether it is (y, pullback)."""
    return isinstance(answer, tuple) and len(answer) == 2 and callable(answer[1])


def paired(forward: Callable[..., Any], backward: Callable[..., Any]) -> Rule:
    """A pair (forward, backward): backward(saved, dy), or the other way round where its arguments
    are called so, or where they say nothing and it raises."""
    turned = _is_turned(backward)

    def rule(*args: Any, **kwargs: Any) -> tuple[Any, Callable[[Any], Any]]:
        answer = forward(*args, **kwargs)
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise Misuse(f"forward: expected (y, saved), got {described(answer)}")
        y, saved = answer

        def pullback(dy: Any) -> Any:
            nonlocal turned
            if turned is not None:
                return backward(dy, saved) if turned else backward(saved, dy)
            try:
                found, turned = backward(saved, dy), False
            except Exception as error:
                try:
                    found, turned = backward(dy, saved), True
                except Exception as other:
                    raise Misuse(
                        f"backward: expected one that takes (saved, dy) or (dy, saved), got "
                        f"{raised(error)}; and turned, {raised(other)}"
                    ) from error
            return found

        return y, pullback

    return rule


def _is_turned(backward: Callable[..., Any]) -> bool | None:
    """Whether backward takes (dy, saved), as its arguments are called; None where they do not
    say."""
    signature = signature_of(backward)
    first, second = [*(signature.parameters if signature else ()), "", ""][:2]
    if first in SAVED or second in COTANGENT:
        return False
    return True if second in SAVED or first in COTANGENT else None


def as_layer(thing: Any) -> tuple[str, Callable[[], Any], Callable[..., Any]] | None:
    """The name, the maker and the forward of a layer: an object, or a class, whose forward keeps
    for its own backward what that needs. None for anything else.

    A layer is made for one forward and one backward after it, so each call has one of its own.
    """
    if isinstance(thing, (tuple, list)):  # two methods of one object
        owners = [getattr(part, "__self__", None) for part in thing]
        if owners[0] is None or isinstance(owners[0], (type, ModuleType)):
            return None
        if owners[0] is not owners[1] or _required(thing[1]) != 1:
            return None
        thing, names = owners[0], tuple(part.__name__ for part in thing)
    else:
        called = not hasattr(thing, "forward") and not isinstance(thing, type)
        names = "__call__" if called else "forward", "backward"
    if isinstance(thing, (torch.nn.Module, torch.Tensor)):
        return None
    if not all(callable(getattr(thing, name, None)) for name in names):
        return None
    if isinstance(thing, type):
        return _of_class(thing)
    forward, backward = names

    def made() -> Any:
        try:
            own = copy.deepcopy(thing)
        except Exception:  # what holds a lock or a file
            own = copy.copy(thing)
        called = callable(own) and forward in (
            "forward",
            "__call__",
        )  # which may keep something beside
        return own if called else getattr(own, forward), getattr(own, backward)

    return type(thing).__name__, made, getattr(thing, forward)


class Context:
    """What small libraries, and torch, hand to a forward and a backward that are functions."""

    def __init__(self) -> None:
        self.saved_tensors: tuple[Any, ...] = ()

    def save_for_backward(self, *saved: Any) -> None:
        self.saved_tensors = saved

    @property
    def saved_values(self) -> tuple[Any, ...]:
        return self.saved_tensors


def _of_class(kind: type) -> tuple[str, Callable[[], Any], Callable[..., Any]] | None:
    static = isinstance(inspect.getattr_static(kind, "forward"), (staticmethod, classmethod))
    forward, backward = (getattr(kind, name) for name in ("forward", "backward"))
    signature = signature_of(forward)
    if static and not (signature and next(iter(signature.parameters), "") in ("ctx", "context")):
        return None
    if static:

        def with_context() -> Any:
            ctx = Context()
            return (
                lambda *args, **kwargs: forward(ctx, *args, **kwargs),
                lambda dy: backward(ctx, *dy) if isinstance(dy, tuple) else backward(ctx, dy),
            )

        def called(*args: Any, **kwargs: Any) -> Any:
            return forward(None, *args, **kwargs)

        assert signature
        rest = list(signature.parameters.values())[1:]
        called.__signature__ = signature.replace(parameters=rest)  # type: ignore[attr-defined]
        return kind.__name__, with_context, called
    try:
        own = kind()
    except TypeError as error:
        raise TypeError(
            f"subject: {kind.__name__} cannot be made without arguments ({said(error)}); expected "
            "an object of it"
        ) from None

    def made() -> Any:
        new = kind()
        return new if callable(new) else new.forward, new.backward

    return kind.__name__, made, own.forward


def of_layer(made: Callable[[], Any]) -> Rule:
    """A rule of which each call has a layer of its own."""

    def rule(*args: Any, **kwargs: Any) -> tuple[Any, Callable[[Any], Any]]:
        forward, backward = made()
        y = forward(*args, **kwargs)
        if is_answer(y):
            return y
        if _required(backward) == 2:
            return paired(lambda: y, backward)()
        return y, backward

    return rule


def _required(function: Any) -> int:
    """How many positional arguments it must be given."""
    signature = signature_of(function)
    return sum(
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        for p in (signature.parameters.values() if signature else ())
    )


def is_loss(answer: Any, shapes: set[tuple[int, ...]]) -> bool:
    """Whether it is a number with its gradients: (loss, gradient), (loss, {"w": …}), or in a row
    (loss, dw, db); each in one of these shapes, of the arguments."""
    if type(answer) is not tuple or len(answer) < 2:
        return False
    loss, *gradients = answer
    if isinstance(loss, (bool, int)) or np.size(loss) != 1 or not isinstance(loss, _NUMBERS):
        return False
    found = [leaf for _, leaf in items(gradients) if leaf is not None]
    return any(isinstance(g, np.ndarray) for g in found) and all(
        isinstance(g, (*_NUMBERS, int)) and np.shape(g) in shapes for g in found
    )


_NUMBERS = (np.ndarray, np.generic, float)


def of_loss(function: Callable[..., Any]) -> Rule:
    """A function that returns a number and its gradients, as a rule: they are linear in dy."""

    def rule(*args: Any, **kwargs: Any) -> tuple[Any, Callable[[Any], Any]]:
        answer = function(*args, **kwargs)
        if not isinstance(answer, tuple) or len(answer) < 2:
            raise Misuse(f"expected (loss, gradients), got {described(answer)}")
        loss, *gradients = answer
        if np.size(loss) != 1:
            raise Misuse(f"loss: expected one number, got {described(loss)}")
        found = gradients[0] if len(gradients) == 1 else gradients

        def pullback(dy: Any) -> Any:
            def times(g: Any) -> Any:
                if not isinstance(g, (np.ndarray, np.generic, float)):
                    return g
                g = np.asarray(g)
                return np.asarray(g * np.asarray(dy, g.dtype).reshape(()))

            return mapped(times, found)

        return loss, pullback

    return rule


def over_tensors(rule: Rule, device: torch.device | None) -> Rule:
    """A rule over tensors as one over arrays."""

    def tensors(tree: Any) -> Any:
        return mapped(lambda leaf: sent(as_tensor(leaf), device), tree)

    def over_arrays(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = tensors((args, kwargs))
        answer = rule(*args, **kwargs)
        if not is_answer(answer):
            return answer
        y, pull = answer

        def pullback(dy: Any) -> Any:
            return mapped(array, pull(tensors(dy)))

        return mapped(array, y), pullback

    return over_arrays


def fits_tensors(function: Any, with_arrays: Exception, with_tensors: Exception) -> bool:
    """Whether a function that refuses arrays and tensors was written for tensors: by what it names,
    else by how far it got, else by what it says."""
    words = packages_of(function)
    of_torch, of_numpy = ("torch" in words, "numpy" in words)
    if of_torch != of_numpy:
        return of_torch
    further = _reached(function, with_tensors) - _reached(function, with_arrays)
    return further > 0 if further else "ndarray" in said(with_arrays)


def _own(function: Any) -> Any:
    """The function that was written, beneath partials, methods and objects that are called."""
    function = getattr(function, "func", function)
    function = getattr(function, "__func__", function)
    if not hasattr(function, "__code__") and not isinstance(function, type):
        function = getattr(type(function).__call__, "__func__", type(function).__call__)
    return inspect.unwrap(function)


def packages_of(function: Any) -> set[str]:
    """The packages of what a function names in its code and its annotations."""
    function = _own(function)
    code, known = getattr(function, "__code__", None), getattr(function, "__globals__", {})
    if code is None:
        return set()
    names, codes = set(), [code]
    while codes:
        code = codes.pop()
        names |= set(code.co_names)
        codes += [c for c in code.co_consts if inspect.iscode(c)]
    found = [known[name] for name in names if name in known]
    found += getattr(function, "__annotations__", {}).values()
    return {_package(thing) for thing in found}


def _package(thing: Any) -> str:
    if isinstance(thing, str):  # an annotation that is not evaluated
        return "torch" if "Tensor" in thing else "numpy" if "ndarray" in thing else ""
    name = getattr(thing, "__name__" if isinstance(thing, ModuleType) else "__module__", None)
    return str(name or "").split(".")[0]


def _reached(function: Any, error: Exception) -> int:
    """The last line of the function that was run, before it raised."""
    code = getattr(_own(function), "__code__", None)
    trace, line = error.__traceback__, 0
    while trace:
        if trace.tb_frame.f_code is code:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def by_name(gradients: Mapping[Any, Any], names: list[str], known: set[str]) -> dict[str, Any]:
    """Gradients that came in a dict, by the names of the arrays: as they are called, or after dx,
    d_x, grad_x, x_grad. `known` are names of arguments that may stand there as well. Misuse."""
    found: dict[str, Any] = {}
    came = dict(items(gradients))
    ends: dict[str, list[str]] = {}
    for name in names:
        _, dot, end = name.partition(".")
        ends.setdefault(end if dot else name, []).append(name)
    unknown = []
    for key, gradient in came.items():
        spelled = [key, *(key.removeprefix(p) for p in ("d_", "grad_", "d") if key.startswith(p))]
        spelled += [key.removesuffix(s) for s in ("_grad", ".grad") if key.endswith(s)]
        target = next((s for s in spelled if s in names), None)
        if target is None:  # of one argument that is a dict, its keys alone
            target = next((ends[s][0] for s in spelled if len(ends.get(s, ())) == 1), None)
        if target is not None:
            found[target] = gradient
        elif gradient is not None and not any(s.partition(".")[0] in known for s in spelled):
            unknown.append(key)
    if unknown:
        raise Misuse(
            f"pullback: expected gradients of {', '.join(names)}, got one of {', '.join(unknown)}"
        )
    return found


def in_order(gradients: Any, names: list[str]) -> list[Any]:
    """The gradients in a row; those in a dict that has the keys of an argument, in its order."""
    if isinstance(gradients, Mapping):
        keys = list(map(str, gradients))
        of = dict(zip(keys, gradients.values(), strict=True))
        for first in {name.partition(".")[0] for name in names}:
            own = [n.partition(".")[2] for n in names if n.startswith(f"{first}.")]
            if sorted(own) == sorted(keys):
                return [of[key] for key in own]
    if isinstance(gradients, (list, tuple)):
        return [g for part in gradients for g in in_order(part, names)]
    return [leaf for _, leaf in items(gradients)]
