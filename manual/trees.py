"""Trees of dicts, lists and tuples, and the arrays that a function holds on to."""

import inspect

import numpy as np


def tree_map(function, tree):
    """The tree, of dicts, lists and tuples, with the function applied to every leaf in order."""
    if isinstance(tree, dict):
        return {key: tree_map(function, branch) for key, branch in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)([tree_map(function, branch) for branch in tree])
    return function(tree)


def leaves(tree):
    """The leaves of a tree, in order."""
    found = []
    tree_map(found.append, tree)
    return found


def kept(function):
    """The arrays that a function holds on to: those in its closure, and in the closures and
    containers there."""
    found, todo, seen = [], [function], set()
    while todo:
        thing = todo.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, np.ndarray):
            found.append(thing)
        elif isinstance(thing, (dict, list, tuple)):
            todo += thing.values() if isinstance(thing, dict) else thing
        elif inspect.isfunction(thing):
            todo += map(_contents, thing.__closure__ or ())
    return found


def _contents(cell):
    try:
        return cell.cell_contents
    except ValueError:  # a name that got no value
        return None


def overlaps(array, others):
    """Whether the array may share memory with one of the others."""
    return any(np.may_share_memory(array, other) for other in others)
