"""Which gradient belongs to which argument of a call: by name.

by_name raises RuntimeError for a pullback that returns other gradients than its rule has arrays.
"""

import inspect
import weakref

import numpy as np

from .arguments import Constant, expect
from .trees import leaves

# Of functions, because to find one takes long.
_signatures: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def named(tree, name=""):
    """{name: leaf} of a tree: "x", "parameters.0.weight" in a dict, "tensors.1" in a list."""
    if not isinstance(tree, (dict, list, tuple)):
        return {name: tree}
    found = {}
    for key, branch in tree.items() if isinstance(tree, dict) else enumerate(tree):
        found |= named(branch, f"{name}.{key}" if name else f"{key}")
    return found


def arguments(rule, args, settings):
    """{name: argument} of a call, in the order of the signature, without those that are Constant.
    Each of *args is one argument, "args.0", and so is each of **settings. Raises TypeError for a
    call that the signature does not allow."""
    signature, found = signature_of(rule), {}
    for name, argument in signature.bind(*args, **settings).arguments.items():
        parameter = signature.parameters[name]
        if parameter.annotation in (Constant, "Constant"):
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            found |= argument
        elif parameter.kind is parameter.VAR_POSITIONAL:
            found |= {f"{name}.{i}": a for i, a in enumerate(argument)}
        else:
            found[name] = argument
    return found


def signature_of(rule):
    """Its inspect.signature, which of a function is looked for once."""
    if not inspect.isfunction(rule):
        return inspect.signature(rule)
    if rule not in _signatures:
        _signatures[rule] = inspect.signature(rule)
    return _signatures[rule]


def arrays_of(rule, args, settings):
    """The floating arrays of a call that have a gradient: their names, {argument: names}, and the
    arrays themselves. Raises TypeError for a call that the signature does not allow."""
    names, found = {}, []
    for argument, tree in arguments(rule, args, settings).items():
        inside = {n: a for n, a in named(tree, argument).items() if _is_floating(a)}
        if inside:
            names[argument] = list(inside)
            found += inside.values()
    return names, found


def _is_floating(a):
    """Whether it is a floating array, or tensor; a NumPy scalar counts as a number."""
    kind = getattr(getattr(a, "dtype", None), "kind", "")
    return kind == "f" and not isinstance(a, np.generic)


def as_number(a):
    """A NumPy scalar as a Python number, which fits any dtype; anything else as it is."""
    return a.item() if isinstance(a, np.generic) else a


def by_name(rule, names, found):
    """The gradients that the pullback of a rule returned, in the order of `names`, {argument: names
    of its arrays}. Expects one for each argument, with its structure; if there is only one
    argument, no tuple is around it.

    Raises RuntimeError where the pullback returned others.
    """
    expected = [name for inside in names.values() for name in inside]
    if expected == list(names):  # no trees
        parts = leaves(found)
    else:
        parts = found if len(names) > 1 and isinstance(found, (list, tuple)) else [found]
    given = named(dict(zip([*names, *range(len(names), len(parts))], parts, strict=False)))
    given = {n: a for n, a in given.items() if np.asarray(a).dtype.kind == "f"}
    if set(given) != set(expected):
        several = "s" * (len(expected) != 1)
        others = f", of {_listed(given)}" if len(given) == len(expected) else ""
        wanted = f"{len(expected)} gradient{several}, of {_listed(expected)}"
        expect(False, f"{rule}: pullback: expected {wanted}, got {len(given)}{others}")
    return [given[name] for name in expected]


def _listed(names):
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
