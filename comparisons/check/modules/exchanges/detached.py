"""Results and operands that no gradient goes through."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from .....reference.adapters import leaves, tree_map
from ..calls import Change, Trace
from ..calls import operands as operands_of
from ..recording import is_asked
from .make import with_operand

Changes = Iterator[tuple[str, Change]]


def undone(trace: Trace, k: int) -> Changes:
    """What is detached, attached again."""
    call = trace.seen[k]
    if call.name in ("detach", "data") and is_asked(call.args[0]):
        what = "untied" if _is_tied(trace, k, call.args[0]) else "detached"
        text = f"{what}: by a call of {call.name} that the other has not"
        yield text, lambda function, args, kwargs, seen: args[0]
    if call.name == "set_grad_enabled" and call.args == (False,):
        yield "detached: under no_grad", lambda function, args, kwargs, seen: function(True)


def results(trace: Trace, k: int) -> Changes:
    call = trace.seen[k]
    if any(map(is_asked, leaves(call.y))) and not call.in_place:
        yield f"detached: the result of {call.name}", _result


def operands(trace: Trace, k: int) -> Changes:
    """Of a tensor that several calls take as it is, the gradient of one of which is missing, it is
    as if it were untied."""
    call = trace.seen[k]
    for path, operand in operands_of(call):
        if is_asked(operand) and not call.in_place:
            what = "untied" if _is_tied(trace, k, operand) else "detached"
            text = f"{what}: what {call.name} is given, detached"
            yield text, with_operand(path, torch.Tensor.detach)


def _is_tied(trace: Trace, k: int, operand: torch.Tensor) -> bool:
    """Whether it is a parameter that another function, or a submodule, has as well."""
    if trace.maker(operand, k) is not None or not operand.is_leaf:
        return False
    others = (c for j, c in enumerate(trace.seen) if j != k)
    if any(p is operand for c in others for p in c.held):
        return True
    return any(trace.seen[u].name == "embedding" for u in trace.users[id(operand)])


def _result(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
    return tree_map(
        lambda leaf: leaf.detach() if isinstance(leaf, torch.Tensor) else leaf,
        function(*args, **kwargs),
    )
