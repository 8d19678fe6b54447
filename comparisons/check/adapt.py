"""What is checked, in whatever form it came, as one kind of subject."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ...reference.adapters import is_differentiable
from .. import ops
from ..ops.arguments import array_names, positional_names, signature_of
from ..verdict.classes import Results
from ..verdict.noise import cast, is_floating
from . import jax_subjects, keras_subjects, kinds, torch_subjects
from .kinds import Rule, is_answer
from .misuse import Misuse, described
from .surroundings import Surroundings
from .torch_subjects import as_tensor, sent
from .trees import items, mapped

WHOLE = "value.whole."  # what the names of whole results begin with

__all__ = [
    "Misuse",
    "Rule",
    "Subject",
    "as_tensor",
    "named_rule",
    "of_torch",
    "subject_of",
    "values",
]


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
    around: Surroundings | None = None  # what every call leaves as it was
    forks: bool = True  # whether it can be called in a fork: the threads of JAX are not there

    def __call__(self, inputs: Any) -> Results:
        """Value and gradients by name; inputs are (args, kwargs, dy). Raises Misuse."""
        args, kwargs, dy = inputs
        names = array_names(args, kwargs, self.signature)
        y, pullback = self.run(args, kwargs)
        return self.results(y, pullback(dy), names)

    def run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
        """y and pullback of one call: y is the floating result, or a tuple of several, however
        they were nested; those of whole numbers or truth values are `pullback.whole`. The subject
        gets the arrays themselves, in containers of its own."""
        args, kwargs = mapped(_as_array, (tuple(args), dict(kwargs)))
        with self._kept():
            answer = self.rule(*args, **kwargs)
        if not is_answer(answer):
            raise Misuse(
                f"{self.kind}: expected (y, pullback), got {described(answer)}{_hint(answer)}"
            )
        nested, pull = answer
        outputs, is_output, whole = _parted(nested)

        def pullback(dy: Any) -> Any:
            dys = iter(dy if isinstance(dy, (tuple, list)) else [dy])
            which = iter(is_output)
            nested_dy = mapped(lambda _: _as_array(next(dys)) if next(which) else None, nested)
            with self._kept():
                return pull(nested_dy)

        pullback.whole = whole  # type: ignore[attr-defined]
        return outputs[0] if len(outputs) == 1 else tuple(outputs), pullback

    def results(
        self, y: Any, gradients: Any, names: Sequence[str], whole: Sequence[np.ndarray] = ()
    ) -> dict[str, Any]:
        """Value and gradients by name, None where there is no gradient; the whole results are WHOLE
        with a number. Raises Misuse."""
        found: dict[str, Any] = dict(values(y))
        found |= {f"{WHOLE}{i}": part for i, part in enumerate(whole)}
        wanted = [name for name in names if name not in self.constant]
        own = self._named(gradients, list(names), wanted)
        for name, gradient in own.items():
            if name not in self.constant:
                found[name] = None if gradient is None else _array(f"gradient of {name}", gradient)
        return found

    def _named(self, gradients: Any, names: list[str], wanted: list[str]) -> dict[str, Any]:
        keys = {f"{n.partition('.')[0]}." for n in names if "." in n}
        if isinstance(gradients, Mapping) and (names or gradients):
            known = set(self.signature.parameters if self.signature else ()) | keys
            return dict.fromkeys(wanted) | kinds.by_name(gradients, names, known)
        answers = kinds.in_order(gradients, names)
        if len(answers) > len(names):  # None for what has no gradient: indices, settings
            answers = [g for g in answers if g is not None]
        if len(answers) == len(names):
            wanted = names
        if len(answers) != len(wanted):
            came = f"{len(answers)} gradient{'s' if len(answers) != 1 else ''}"
            hint = "; constant= names what has none" if 0 < len(answers) < len(wanted) else ""
            raise Misuse(
                f"pullback: expected {len(wanted)}, one for each floating array "
                f"({', '.join(wanted)}), got {came}{hint}"
            )
        return dict(zip(wanted, answers, strict=True))

    def _kept(self) -> contextlib.AbstractContextManager[None]:
        return self.around.kept() if self.around else contextlib.nullcontext()


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
    dtypes: Sequence[str] = ("float64",),
    around: Surroundings | None = None,
) -> Subject:
    """The subject that `thing` is. A plain function is called with the arguments, in the first of
    the dtypes, to see whether it takes arrays or tensors.

    Whatever is global is as it was `around` each call, this one and all others. Raises TypeError
    for what cannot be a subject, or be called with; what the subject raises is for later.
    """
    call = _Call(tuple(args), dict(kwargs), dtypes[0], constant, around or Surroundings())
    made = _made(thing, call)
    return replace(made, around=call.around)


@dataclass(frozen=True)
class _Call:
    """With what a subject is called, to see."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dtype: str
    constant: frozenset[str]
    around: Surroundings

    def copied(self) -> Any:
        """The arguments, as a subject may do with them what it likes."""
        args, kwargs = mapped(_copied, (self.args, self.kwargs))
        return cast_to(self.dtype, (args, kwargs))

    def refuse_complex(self, signature: inspect.Signature | None) -> None:
        names = positional_names(len(self.args), signature)
        for name, leaf in items(dict(zip(names, self.args, strict=True)) | self.kwargs):
            if isinstance(leaf, (np.ndarray, np.generic)) and leaf.dtype.kind == "c":
                raise TypeError(
                    f"{name}: expected a floating array, or one of integers or truth values, got "
                    f"{described(leaf)}: complex gradients are not judged"
                )


def _made(thing: Any, call: _Call) -> Subject:
    if isinstance(thing, str):
        rule = named_rule(thing)
        call.refuse_complex(signature_of(rule))
        return Subject(thing, "rule", rule, signature_of(rule), None, call.constant)
    if isinstance(thing, (tuple, list)):
        if len(thing) != 2 or not all(map(callable, thing)):
            raise TypeError(f"subject: expected a pair of functions, got {described(thing)}")
        forward, backward = thing
        name = f"({_name(forward)}, {_name(backward)})"
        if layer := kinds.as_layer(thing):
            return _plain(name, "layer", kinds.of_layer(layer[1]), layer[2], call)
        pair = kinds.paired(forward, backward)
        return _plain(name, "pair of functions", pair, forward, call)
    if keras_subjects.is_layer(thing):
        thing = keras_subjects.functional(thing, [])
    if isinstance(thing, type) and issubclass(thing, torch.autograd.Function):
        function, signature = torch_subjects.applied(thing)
        call.refuse_complex(signature)
        made = of_torch(function, signature, call.constant, device=_where(thing, function, call))
        return replace(made, name=thing.__name__, kind="torch.autograd.Function")
    if layer := kinds.as_layer(thing):
        return _plain(layer[0], "layer", kinds.of_layer(layer[1]), layer[2], call)
    if isinstance(thing, type) and all(hasattr(thing, n) for n in ("forward", "backward")):
        functions: Any = thing
        pair = kinds.paired(functions.forward, functions.backward)
        return _plain(_name(thing), "pair of functions", pair, functions.forward, call)
    if not callable(thing):
        raise TypeError(
            "subject: expected a rule, a pair (forward, backward), an object with both, a "
            "torch.autograd.Function, a torch callable or the name of a rule, got "
            f"{described(thing)}"
        )
    if torch_subjects.is_torch(thing):
        signature = _signature(thing)
        call.refuse_complex(signature)
        return of_torch(thing, signature, call.constant, device=_where(thing, thing, call))
    return _plain(_name(thing), "rule", thing, thing, call)


def named_rule(name: str) -> Rule:
    """The hand-written rule of this name; ValueError if there is none."""
    return ops.named(name).rule


def of_torch(
    function: Callable[..., Any],
    signature: inspect.Signature | None = None,
    constant: frozenset[str] = frozenset(),
    convert: Callable[[Any], Any] | None = None,
    *,
    device: torch.device | None = None,
) -> Subject:
    """A torch callable as a subject; `convert` makes the tensors, over the same memory by default,
    which are sent to the device, if there is one."""
    name = _name(function)
    signature = signature or _signature(function)
    if isinstance(function, torch.nn.Module):
        function = torch_subjects.any_dtype(function)
    rule = torch_subjects.rule_of(function, signature, constant, convert or as_tensor, device)
    return Subject(name, "torch callable", rule, signature, function, constant)


def _plain(name: str, kind: str, rule: Rule, called: Any, call: _Call) -> Subject:
    """A plain function, over arrays or over tensors: whichever it can be called with."""
    signature = signature_of(called)
    call.refuse_complex(signature)
    in_jax = "jax" in kinds.packages_of(called)
    found = Subject(name, kind, rule, signature, None, call.constant, forks=not in_jax)
    args, kwargs = call.copied()
    try:
        with call.around.kept():
            answer = rule(*args, **kwargs)
    except Exception as error:
        with_arrays = error
    else:
        if jax_subjects.is_answered(answer):
            return _of_jax(found, answer)
        if is_answer(answer) or kind != "rule":
            return found
        shapes = {leaf.shape for _, leaf in items((args, kwargs)) if is_floating(leaf)}
        if kinds.is_loss(answer, shapes):
            return replace(found, kind="loss with gradients", rule=kinds.of_loss(rule))
        with_arrays = Misuse(described(answer))
    device = torch_subjects.device_of(called)
    for there in (device,) if device else (None, torch_subjects.accelerator()):
        try:
            answer = _with_tensors(rule, there, call)
        except Exception as error:
            with_tensors = error
            if there or torch_subjects.accelerator() is None:
                break
            continue
        if is_answer(answer):
            return replace(found, rule=kinds.over_tensors(rule, there))
        if any(isinstance(leaf, torch.Tensor) for _, leaf in items(answer)):
            return of_torch(rule, signature, call.constant, device=there)
        return found
    answer = _with_jax(rule, call)
    if in_jax or jax_subjects.is_answered(answer):
        return _of_jax(found, answer)
    if not isinstance(with_arrays, Misuse) and kinds.fits_tensors(
        called, with_arrays, with_tensors
    ):
        return replace(found, rule=kinds.over_tensors(rule, device))
    return found


def _of_jax(found: Subject, answer: Any) -> Subject:
    """A subject that answers with arrays of JAX's: a rule over them, or what jax.vjp makes one."""
    if is_answer(answer) or found.kind != "rule":
        return replace(found, rule=jax_subjects.over_arrays(found.rule), forks=False)
    rule = jax_subjects.rule_of(found.rule)
    return replace(found, kind="JAX function", rule=rule, forks=False)


def _with_jax(rule: Rule, call: _Call) -> Any:
    """What it answers to arrays of JAX's; nothing, where it refuses these as well."""
    if "jax" in sys.modules:
        with contextlib.suppress(Exception), call.around.kept():
            return jax_subjects.tried(rule, *call.copied())
    return None


def _with_tensors(function: Any, device: torch.device | None, call: _Call) -> Any:
    def made(leaf: Any) -> Any:
        leaf = sent(as_tensor(leaf), device)
        return leaf.requires_grad_().clone() if is_differentiable(leaf) else leaf

    with call.around.kept(), torch.enable_grad(), torch_subjects.compiling():
        args, kwargs = mapped(made, call.copied())  # no leaves, into which one may not write
        return function(*args, **kwargs)


def _where(thing: Any, function: Any, call: _Call) -> torch.device | None:
    """The device of a subject that is torch's: where it says, or else where it can be called."""
    device = torch_subjects.device_of(thing)
    there = torch_subjects.accelerator()
    if device is not None or there is None:
        return device
    try:
        _with_tensors(function, None, call)
    except Exception:
        with contextlib.suppress(Exception):
            _with_tensors(function, there, call)
            return there
    return None


def _signature(function: Any) -> inspect.Signature | None:
    """Its signature; of a module, that of its forward."""
    if isinstance(function, torch.nn.Module):
        return signature_of(function.forward) or signature_of(function)
    return signature_of(function)


def cast_to(dtype: str, tree: Any) -> Any:
    """Every floating array in this dtype."""
    return mapped(lambda leaf: cast(leaf, np.dtype(dtype)), tree)


def _parted(y: Any) -> tuple[list[np.ndarray], list[bool], list[np.ndarray]]:
    """The floating results, for every leaf of y whether it is one, and the whole results beside
    them. Raises Misuse."""
    found, is_output, whole = [], [], []
    single = not [path for path, _ in items(y) if path]
    for path, leaf in items(y):
        what = f"y.{path}" if path else "y"
        kind = np.asarray(leaf).dtype.kind if isinstance(leaf, (np.ndarray, np.generic)) else ""
        beside = leaf is None or isinstance(leaf, (bool, int, str)) or (kind and kind in "iub")
        is_output.append(single or not beside)
        if is_output[-1]:
            found.append(_array(what, leaf))
        elif kind:
            whole.append(np.asarray(leaf))
    if not found:
        raise Misuse(f"y: expected a floating array, got {described(y)}")
    return found, is_output, whole


def _array(what: str, leaf: Any) -> np.ndarray:
    if isinstance(leaf, torch.Tensor):
        raise Misuse(f"{what}: expected a NumPy array, got a torch.Tensor")
    if not isinstance(leaf, (np.ndarray, np.generic, float)):
        raise Misuse(f"{what}: expected an array, got {described(leaf)}")
    result = np.asarray(leaf)
    if not is_floating(result):
        raise Misuse(f"{what}: expected a floating array, got dtype {result.dtype}")
    return result


def _as_array(leaf: Any) -> Any:
    """A NumPy number as an array without axes, into which can be written."""
    if isinstance(leaf, np.generic):
        return np.array(leaf)
    return set(leaf) if isinstance(leaf, set) else leaf


def _copied(leaf: Any) -> Any:
    return np.array(leaf) if isinstance(leaf, (np.ndarray, np.generic)) else leaf


def _hint(answer: Any) -> str:
    """What may be meant by that which is no (y, pullback)."""
    if not isinstance(answer, tuple):
        return "; a forward alone has no backward: (forward, backward) has"
    return (
        "; a forward that returns what it keeps is checked as (forward, backward), and of (loss, "
        "gradient, …) each gradient has the shape of an argument"
    )


def _name(function: Any) -> str:
    function = getattr(function, "func", function)
    return getattr(function, "__name__", None) or type(function).__name__
