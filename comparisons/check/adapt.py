"""What is checked, in whatever form it came, as one kind of subject."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ...reference.adapters import array, is_differentiable, leaves, listed, tree_map
from .. import ops
from ..ops.arguments import array_names, signature_of
from ..verdict.classes import Results

Rule = Callable[..., tuple[Any, Callable[[Any], Any]]]


class Misuse(Exception):
    """What a subject did that no rule does; the text says what came and what was expected."""


@dataclass(frozen=True)
class Subject:
    """A rule over arrays, `y, pullback = rule(*args, **kwargs)`, and what it was made of.

    The pullback hands on what the subject's own backward returned, before any engine summed, cast
    or filled it in.
    """

    name: str
    kind: str
    rule: Rule
    signature: inspect.Signature | None
    in_torch: Callable[..., Any] | None = None  # the torch callable, if it is one
    constant: frozenset[str] = frozenset()  # names of floating arrays that have no gradient

    def __call__(self, inputs: Any) -> Results:
        """Value and gradients by name; inputs are (args, kwargs, dy). Raises Misuse."""
        args, kwargs, dy = inputs
        y, pullback = self.run(args, kwargs)
        return self.results(y, pullback(dy), array_names(args, kwargs, self.signature))

    def run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
        """y and pullback of one call."""
        answer = self.rule(*args, **kwargs)
        if not _is_answer(answer):
            raise Misuse(f"{self.kind}: expected (y, pullback), got {_described(answer)}")
        return answer

    def results(self, y: Any, gradients: Any, names: Sequence[str]) -> dict[str, Any]:
        """Value and gradients by name, None where there is no gradient. Raises Misuse."""
        found: dict[str, Any] = dict(values(y))
        wanted = [name for name in names if name not in self.constant]
        answers = leaves(gradients)
        if len(answers) > len(names):  # None for what has no gradient: indices, settings
            answers = [g for g in answers if g is not None]
        if len(answers) == len(names):
            wanted = list(names)
        if len(answers) != len(wanted):
            came = f"{len(answers)} gradient{'s' if len(answers) != 1 else ''}"
            raise Misuse(
                f"pullback: expected {len(wanted)}, one for each floating array "
                f"({', '.join(wanted)}), got {came}"
            )
        for name, gradient in zip(wanted, answers, strict=True):
            if name not in self.constant:
                found[name] = None if gradient is None else _array(f"gradient of {name}", gradient)
        return found


def values(y: Any) -> dict[str, np.ndarray]:
    """The floating outputs by name: "value", or "value.0" … of several."""
    if not isinstance(y, (tuple, list)):
        return {"value": _array("y", y)}
    return {
        f"value.{i}": _array(f"y[{i}]", part)
        for i, part in enumerate(y)
        if not (isinstance(part, np.ndarray) and part.dtype.kind in "iub")
    }


def subject_of(
    thing: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    constant: frozenset[str] = frozenset(),
) -> Subject:
    """The subject that `thing` is. A plain function is called once with the arguments, to see.

    Raises TypeError for what cannot be a subject; what the subject raises comes through.
    """
    if isinstance(thing, str):
        rule = named_rule(thing)
        return Subject(thing, "rule", rule, signature_of(rule), None, constant)
    if isinstance(thing, (tuple, list)):
        if len(thing) != 2 or not all(map(callable, thing)):
            raise TypeError(f"subject: expected a pair of functions, got {_described(thing)}")
        forward, backward = thing
        return _plain(
            f"({_name(forward)}, {_name(backward)})",
            "pair of functions",
            _paired(forward, backward),
            signature_of(forward),
            args,
            kwargs,
            constant,
        )
    if isinstance(thing, type) and issubclass(thing, torch.autograd.Function):
        return _of_function(thing, constant)
    if not callable(thing):
        raise TypeError(
            "subject: expected a rule, a pair (forward, backward), a torch.autograd.Function, a "
            f"torch callable or the name of a rule, got {_described(thing)}"
        )
    if _is_torch(thing):
        return of_torch(thing, None, constant)
    return _plain(_name(thing), "rule", thing, signature_of(thing), args, kwargs, constant)


def named_rule(name: str) -> Rule:
    """The hand-written rule of this name; ValueError if there is none."""
    return ops.named(name).rule


def of_torch(
    function: Callable[..., Any],
    signature: inspect.Signature | None = None,
    constant: frozenset[str] = frozenset(),
    convert: Callable[[Any], Any] | None = None,
) -> Subject:
    """A torch callable as a subject; `convert` makes the tensors, over the same memory by default.

    Where a custom Function alone lies between the arguments and y, its backward is called itself;
    else torch.autograd.
    """
    convert = convert or as_tensor
    signature = signature or signature_of(function)

    def rule(*args: Any, **kwargs: Any) -> tuple[Any, Callable[[Any], Any]]:
        names = array_names(args, kwargs, signature) if constant else []
        sources = []

        def taken(leaf: Any) -> Any:
            made = convert(leaf)
            if is_differentiable(made):
                sources.append(made)
            return made

        args, kwargs = tree_map(taken, (args, kwargs))
        if constant:
            sources = [t for n, t in zip(names, sources, strict=True) if n not in constant]
        for t in sources:
            t.requires_grad_()
        y = function(*args, **kwargs)

        def pullback(dy: Any) -> list[Any]:
            pairs = [(o, d) for o, d in zip(listed(y), listed(dy), strict=True) if d is not None]
            found = _raw([o for o, _ in pairs], [convert(d) for _, d in pairs], sources)
            return [array(g) for g in found]

        return tree_map(array, y), pullback

    return Subject(_name(function), "torch callable", rule, signature, function, constant)


def _raw(outputs: Sequence[torch.Tensor], dys: Sequence[Any], sources: Sequence[Any]) -> list[Any]:
    """The gradients of the sources, from the one custom backward if there is no more."""
    node = outputs[0].grad_fn
    if isinstance(node, torch.autograd.function.BackwardCFunction) and len(outputs) == 1:
        edges = [edge for edge, _ in node.next_functions if edge is not None]
        variables = [getattr(edge, "variable", None) for edge in edges]
        if all(any(v is s for s in sources) for v in variables):
            with torch.no_grad():
                answer = node.apply(*dys)
            answer = answer if isinstance(answer, tuple) else (answer,)
            needed = node.needs_input_grad
            if len(answer) < len(needed):
                raise Misuse(
                    f"backward: expected {len(needed)} gradients, one for each argument of "
                    f"forward, got {len(answer)}"
                )
            gradients = [g for g, wanted in zip(answer, needed, strict=False) if wanted]
            for gradient in gradients:
                if not (gradient is None or isinstance(gradient, torch.Tensor)):
                    raise Misuse(f"backward: expected tensors, got {_described(gradient)}")
            own = dict(zip(map(id, variables), gradients, strict=True))
            return [own.get(id(source)) for source in sources]
    if not any(o.numel() for o in outputs):  # a sum over nothing; torch may divide by its size
        return [torch.zeros_like(source) for source in sources]
    attached = [(o, d) for o, d in zip(outputs, dys, strict=True) if o.requires_grad]
    if not attached:
        return [None] * len(sources)
    return list(
        torch.autograd.grad(
            [o for o, _ in attached],
            sources,
            [d for _, d in attached],
            retain_graph=True,
            allow_unused=True,
        )
    )


def _of_function(function: Any, constant: frozenset[str]) -> Subject:
    """A torch.autograd.Function: `apply` takes no keywords, so settings are put into their
    places."""
    signature = signature_of(function.forward)
    base = torch.autograd.Function
    if signature and function.setup_context is base.setup_context:
        signature = signature.replace(parameters=list(signature.parameters.values())[1:])  # ctx

    def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs and signature:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return function.apply(*bound.args)
        return function.apply(*args, **kwargs)

    made = of_torch(call, signature, constant)
    return replace(made, name=function.__name__, kind="torch.autograd.Function")


def _plain(
    name: str,
    kind: str,
    rule: Rule,
    signature: inspect.Signature | None,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    constant: frozenset[str],
) -> Subject:
    """A plain function, over arrays or over tensors: whichever it can be called with."""
    over_arrays = Subject(name, kind, rule, signature, None, constant)
    try:
        answer = rule(*tree_map(_copied, tuple(args)), **tree_map(_copied, dict(kwargs)))
        if _is_answer(answer):
            return over_arrays
    except Exception:  # it takes no arrays, or it is wrong: tensors will tell
        pass
    tensors = tree_map(as_tensor, tree_map(_copied, (tuple(args), dict(kwargs))))
    for t in filter(is_differentiable, leaves(tensors)):
        t.requires_grad_()
    try:
        answer = rule(*tensors[0], **tensors[1])
    except Exception:
        return over_arrays  # what it says to arrays is what its author expects to read
    if all(isinstance(part, torch.Tensor) for part in listed(answer)):
        return of_torch(rule, signature, constant)
    if _is_answer(answer):
        return Subject(name, kind, _over_tensors(rule), signature, None, constant)
    return over_arrays


def _paired(forward: Callable[..., Any], backward: Callable[..., Any]) -> Rule:
    def rule(*args: Any, **kwargs: Any) -> tuple[Any, Callable[[Any], Any]]:
        answer = forward(*args, **kwargs)
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise Misuse(f"forward: expected (y, saved), got {_described(answer)}")
        y, saved = answer

        def pullback(dy: Any) -> Any:
            return backward(saved, dy)

        return y, pullback

    return rule


def _over_tensors(rule: Rule) -> Rule:
    def over_arrays(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = tree_map(as_tensor, (args, kwargs))
        answer = rule(*args, **kwargs)
        if not _is_answer(answer):
            return answer
        y, pull = answer

        def pullback(dy: Any) -> Any:
            return tree_map(array, pull(tree_map(as_tensor, dy)))

        return tree_map(array, y), pullback

    return over_arrays


def as_tensor(leaf: Any) -> Any:
    """An array as a tensor over the same memory, strides and all, where torch can: so that what is
    done to the tensor is done to the array. Anything else as it is."""
    if not isinstance(leaf, (np.ndarray, np.generic)):
        return leaf
    leaf = np.asarray(leaf)
    if leaf.size and leaf.ndim and 0 in leaf.strides and max(leaf.shape) > 1:  # broadcast
        once = leaf[tuple(slice(None, 1 if s == 0 else None) for s in leaf.strides)]
        return torch.from_numpy(np.array(once)).expand(leaf.shape)
    if not leaf.flags.writeable or any(s < 0 or s % leaf.itemsize for s in leaf.strides):
        leaf = np.array(leaf)
    return torch.from_numpy(leaf)


def _is_torch(thing: Any) -> bool:
    """Whether it can only be called with tensors."""
    owner = getattr(thing, "__self__", None)
    return (
        isinstance(thing, torch.nn.Module)
        or (isinstance(owner, type) and issubclass(owner, torch.autograd.Function))
        or str(getattr(thing, "__module__", None) or "").split(".")[0] == "torch"
        or type(thing).__module__.split(".")[0] == "torch"
        or thing in vars(torch).values()
        or thing in vars(torch._C._nn).values()
    )


def _is_answer(answer: Any) -> bool:
    """Whether it is (y, pullback)."""
    return isinstance(answer, tuple) and len(answer) == 2 and callable(answer[1])


def _array(what: str, leaf: Any) -> np.ndarray:
    if isinstance(leaf, torch.Tensor):
        raise Misuse(f"{what}: expected a NumPy array, got a torch.Tensor")
    if not isinstance(leaf, (np.ndarray, np.generic, float)):
        raise Misuse(f"{what}: expected an array, got {_described(leaf)}")
    if (result := np.asarray(leaf)).dtype.kind != "f":
        raise Misuse(f"{what}: expected a floating array, got dtype {result.dtype}")
    return result


def _copied(leaf: Any) -> Any:
    return leaf.copy() if isinstance(leaf, np.ndarray) else leaf


def _name(function: Any) -> str:
    return getattr(function, "__name__", None) or type(function).__name__


def _described(thing: Any) -> str:
    if isinstance(thing, (tuple, list)):
        return f"{type(thing).__name__} of {len(thing)} ({', '.join(map(_described, thing))})"
    if isinstance(thing, np.ndarray):
        return f"an array of shape {thing.shape} and dtype {thing.dtype}"
    return "None" if thing is None else f"a {type(thing).__module__}.{type(thing).__name__}"
