"""A module with one of its simple attributes changed, as ports have them otherwise."""

from __future__ import annotations

import copy
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from .exchanges.norms import EPS

SIMPLE = (bool, int, float, str)
# Those which users register, and the dicts of a module that others must not share.
HOOKS = {
    "forward": "_forward_hooks",
    "forward pre": "_forward_pre_hooks",
    "backward": "_backward_hooks",
    "backward pre": "_backward_pre_hooks",
}
STORES = ("_parameters", "_buffers", *HOOKS.values())
SHARES = (0.01, 0.001, 0.1, 0.9, 0.99, 0.999)
# What an attribute is about, where that is not its own name.
ABOUT = {
    **dict.fromkeys(("epsilon", "variance_epsilon", "norm_eps", "layer_norm_eps"), "eps"),
    **dict.fromkeys(("scaling", "softmax_scale", "scale_factor"), "scale"),
    **dict.fromkeys(("theta", "base", "rope_theta", "rope_base"), "rope"),
    **dict.fromkeys(("n_head", "num_heads", "n_heads", "heads", "nhead"), "heads"),
    **dict.fromkeys(("causal", "is_causal", "window"), "mask"),
    **dict.fromkeys(("p", "dropout"), "mode"),
    **dict.fromkeys(("padding_idx", "padding_mode"), "padding"),
    **dict.fromkeys(("negative_slope", "act", "activation", "hidden_act"), "activation"),
    **dict.fromkeys(("unbiased", "correction"), "variance"),
    **dict.fromkeys(("track_running_stats", "dropout_p", "drop_prob"), "mode"),
    **dict.fromkeys(("count_include_pad", "num_groups", "groups", "reduction"), "count"),
    **dict.fromkeys(("batch_first", "norm_first"), "order"),
    "dilation": "stride",
}


def changed(
    original: torch.nn.Module, port: torch.nn.Module, right: Sequence[torch.nn.Module]
) -> Iterator[tuple[str, torch.nn.Module]]:
    """A module with one simple attribute of one of its submodules changed: to what the other one
    has there, in the other mode, or to a value that is in use elsewhere."""
    if any(isinstance(m, torch.jit.ScriptModule) for m in original.modules()):
        return  # whose attributes are compiled
    other_mode = _twin(original).train(not original.training)
    if any(m.training != original.training for m in original.modules()):
        yield "mode: in train mode throughout", _twin(original).train()
    yield f"mode: as in {'eval' if original.training else 'train'} mode", other_mode
    ours = dict(port.named_modules())
    for name, module in original.named_modules():
        if module in right:
            continue
        other = ours.get(name)
        where = f" of {name}" if name else ""
        for kind, hooks in HOOKS.items():
            if getattr(module, hooks):
                yield f"hook: without the {kind} hooks{where}", _with(original, name, hooks, {})
        if other is not None and other.training != module.training:
            mode, own = (("eval", "train")[m.training] for m in (other, module))
            yield (
                f"mode: {mode} mode instead of {own} mode{where}",
                _with(original, name, "training", other.training),
            )
        for attribute, value in vars(module).items():
            if (
                attribute.startswith("_")
                or attribute == "training"
                or not isinstance(value, SIMPLE)
            ):
                continue
            values = [getattr(other, attribute, value)] if other is not None else []
            for new in (*values, *_others(attribute, value)):
                if isinstance(new, SIMPLE) and new != value:
                    about = ABOUT.get(attribute, attribute)
                    text = f"{about}: {attribute} = {new!r} instead of {value!r}{where}"
                    yield text, _with(original, name, attribute, new)


def _others(attribute: str, value: Any) -> Iterator[Any]:
    """Values that others have for an attribute of this name."""
    if isinstance(value, bool):
        yield not value
    elif attribute in ("eps", "epsilon", "variance_epsilon", "norm_eps"):
        yield from EPS
        yield 0.0
    elif attribute == "momentum":
        yield from (1 - value, *SHARES)
    elif attribute == "approximate":
        yield from ("none", "tanh")
    elif attribute == "p":
        yield 0.0
    elif attribute in ("scale", "scaling", "theta", "base", "rope_theta", "negative_slope"):
        yield from (
            value**0.5,
            value**2,
            1 / value if value else 1.0,
            1.0,
            1e4,
            1e6,
            5e5,
            0.01,
            0.2,
        )


def _with(module: torch.nn.Module, name: str, attribute: str, value: Any) -> torch.nn.Module:
    """A copy that shares its tensors, with another attribute."""
    other = _twin(module)
    setattr(other.get_submodule(name), attribute, value)
    return other


def _twin(module: torch.nn.Module) -> torch.nn.Module:
    """Other modules that hold the same things: a copy of these need not be possible, as of what a
    module keeps of its last call."""
    twins: dict[int, Any] = {id(m): object.__new__(type(m)) for m in module.modules()}
    for m in module.modules():
        held = {name: _own(value, twins) for name, value in vars(m).items()}
        held |= {n: copy.copy(value) for n, value in held.items() if n in STORES}
        held["_modules"] = {n: twins.get(id(inner), inner) for n, inner in m._modules.items()}
        vars(twins[id(m)]).update(held)
    twin: torch.nn.Module = twins[id(module)]
    return twin


def _own(value: Any, twins: Mapping[int, Any]) -> Any:
    """What a module holds, for its twin: the twin of another one, and its own methods."""
    if isinstance(value, types.MethodType) and id(value.__self__) in twins:
        return types.MethodType(value.__func__, twins[id(value.__self__)])
    return twins.get(id(value), value)
