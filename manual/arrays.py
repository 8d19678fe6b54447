"""What the rules share: checks at the boundary, and the two adjoints of summing."""

import inspect
import math
import numbers
import weakref

import numpy as np

_signatures = weakref.WeakKeyDictionary()  # of functions; to find one takes long


class Constant:
    """Annotates an argument that has no gradient, as the weights of classes."""


def floating(**arrays):
    """The named arguments as arrays, None left alone; a lone one comes bare.

    Raises TypeError unless all are real floating arrays of one dtype.
    """
    converted = {name: None if a is None else np.asarray(a) for name, a in arrays.items()}
    present = {name: a for name, a in converted.items() if a is not None}
    for name, a in present.items():
        if a.dtype.kind != "f":
            raise TypeError(f"{name}: expected a floating array, got dtype {a.dtype}")
    first, *others = present.items()
    for name, a in others:
        if a.dtype != first[1].dtype:
            raise TypeError(
                f"{name}: expected the dtype of {first[0]}, {first[1].dtype}, got {a.dtype}"
            )
    return converted.popitem()[1] if len(converted) == 1 else tuple(converted.values())


def same_shape(**arrays):
    """Raises ValueError unless both named arrays have one shape."""
    (first, a), (second, b) = arrays.items()
    if a.shape != b.shape:
        raise ValueError(f"{second}: expected the shape of {first}, {a.shape}, got {b.shape}")


def alike(**arrays):
    """The two named arrays. Raises TypeError unless both are floating of one dtype, ValueError
    unless they have one shape."""
    found = floating(**arrays)
    same_shape(**dict(zip(arrays, found, strict=True)))
    return found


def broadcast(**arrays):
    """The shape that the named arrays broadcast to, None left out. Raises ValueError for one that
    does not fit those before it."""
    shape, seen = (), []
    for name, a in arrays.items():
        if a is None:
            continue
        try:
            shape = np.broadcast_shapes(shape, a.shape)
        except ValueError:
            raise ValueError(
                f"{name}: expected a shape that broadcasts with {' and '.join(seen)}, {shape}, got "
                f"{a.shape}"
            ) from None
        seen.append(name)
    return shape


def broadcastable(shape, **arrays):
    """Raises ValueError unless each named array, where there is one, broadcasts to `shape`."""
    for name, a in arrays.items():
        if a is not None:
            try:
                fits = np.broadcast_shapes(a.shape, shape) == shape
            except ValueError:
                fits = False
            if not fits:
                raise ValueError(
                    f"{name}: expected a shape that broadcasts to {shape}, got {a.shape}"
                )


def real(**settings):
    """Raises TypeError unless each named setting is a real number."""
    for name, value in settings.items():
        if not isinstance(value, numbers.Real):
            raise TypeError(f"{name}: expected a number, got {value!r}")


def whole(**settings):
    """Raises TypeError unless each named setting is a whole number."""
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise TypeError(f"{name}: expected a whole number, got {value!r}")


def flag(**settings):
    """Raises TypeError unless each named setting is True or False."""
    for name, value in settings.items():
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{name}: expected True or False, got {value!r}")


def floated(x, weight):
    """A weight of whole numbers as a floating one like x; anything else as it is."""
    is_whole = weight is not None and np.asarray(weight).dtype.kind in "iu"
    return np.asarray(weight, x.dtype) if is_whole else weight


def weights(x, **given):
    """The named weights of the elements of x, None left alone, a lone one bare. They have no
    gradient: whole numbers will do, and become floating like x."""
    _, *found = floating(x=x, **{name: floated(x, a) for name, a in given.items()})
    broadcastable(x.shape, **dict(zip(given, found, strict=True)))
    return found[0] if len(found) == 1 else found


def axis_of(ndim, **setting):
    """The named axis of an array with so many, counted from 0.

    Raises TypeError unless it is a whole number, IndexError where there is no such axis.
    """
    ((name, value),) = setting.items()
    whole(**setting)
    most = max(ndim, 1)
    if not -most <= value < most:
        raise IndexError(f"{name}: expected an axis from {-most} to {most - 1}, got {value}")
    return value % most


def one_of(allowed, **setting):
    """Raises TypeError unless the named setting is a string, ValueError unless it is allowed."""
    ((name, value),) = setting.items()
    *others, last = map(repr, allowed)
    text = f"{', '.join(others)} or {last}"
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected {text}, got {value!r}")
    if value not in allowed:
        raise ValueError(f"{name}: expected {text}, got {value!r}")


def as_dtype(dtype, name="dtype"):
    """A floating dtype, or None. Raises TypeError, with that name, for anything else."""
    if dtype is None:
        return None
    if not (isinstance(dtype, (np.dtype, type)) and np.dtype(dtype).kind == "f"):
        raise TypeError(f"{name}: expected None or a floating dtype, got {dtype!r}")
    return np.dtype(dtype)


def exponentials(rows):
    """What a softmax over the last axis is made of: d = x − max x, z = eᵈ, where d is first 0, and
    the sum of all other z.

    The winner is left out of the sum because log Σ z = log1p(others) and 1 − p = others / (1 +
    others) keep their digits where the others are small.
    """
    if not rows.shape[-1]:
        return rows, rows, rows.astype(bool), rows.sum(axis=-1, keepdims=True)
    d = rows - rows.max(axis=-1, keepdims=True)
    z = np.exp(d)
    winner = np.arange(rows.shape[-1]) == rows.argmax(axis=-1)[..., np.newaxis]
    return d, z, winner, np.where(winner, 0, z).sum(axis=-1, keepdims=True)


def within(low, high=math.inf, **settings):
    """Raises TypeError unless each named setting is a number, ValueError unless low ≤ setting ≤
    high; NaN is never within."""
    real(**settings)
    for name, value in settings.items():
        if not low <= value <= high:
            bounds = f"from {low} to {high}"
            if math.inf in (-low, high):
                bounds = f"at least {low}" if high == math.inf else f"at most {high}"
            raise ValueError(f"{name}: expected {bounds}, got {value}")


def pairwise_sum(x, axes):
    """The sum over `axes`, pairwise, so that its error grows with log n (Higham, 1993).

    NumPy adds pairwise along the last axis of contiguous memory only; over the first axis it adds
    row after row.
    """
    kept = np.moveaxis(x, axes, range(-len(axes), 0))
    shape = kept.shape[: kept.ndim - len(axes)]
    rows = kept.reshape(*shape, math.prod(kept.shape[len(shape) :]))
    return np.ascontiguousarray(rows).sum(axis=-1)


def sum_to(dy, shape):
    """The adjoint of broadcasting from `shape`: sums dy over every axis that was stretched or put
    in front."""
    if dy.shape == shape:
        return dy
    ahead = dy.ndim - len(shape)
    stretched = (ahead + i for i, n in enumerate(shape) if n == 1)
    return pairwise_sum(dy, (*range(ahead), *stretched)).reshape(shape)


def reduce(x, reduction, total=None):
    """The last step of a loss, as a rule: "none" keeps x, "sum" adds it up, "mean" divides the sum
    by `total`.

    `total` is the number of elements where none is given. A mean over nothing is NaN and has no
    gradient.
    """
    one_of(("none", "mean", "sum"), reduction=reduction)
    y = x if reduction == "none" else pairwise_sum(x, tuple(range(x.ndim)))
    share = 1
    if reduction == "mean":
        total = x.size if total is None else total
        y, share = (y / total, total) if total else (y * math.nan, math.inf)

    def pullback(dy):
        return np.broadcast_to(dy / share, x.shape)

    return y, pullback


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
    Each of *args is one, "args.0", and so is each of **settings."""
    signature, found = _signature(rule), {}
    for name, argument in signature.bind(*args, **settings).arguments.items():
        parameter = signature.parameters[name]
        if parameter.annotation in (Constant, Constant.__name__):
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            found |= argument
        elif parameter.kind is parameter.VAR_POSITIONAL:
            found |= {f"{name}.{i}": a for i, a in enumerate(argument)}
        else:
            found[name] = argument
    return found


def _signature(rule):
    if not inspect.isfunction(rule):
        return inspect.signature(rule)
    if rule not in _signatures:
        _signatures[rule] = inspect.signature(rule)
    return _signatures[rule]


def arrays_of(rule, args, settings):
    """The floating arrays of a call that have a gradient: their names, {argument: names}, and
    they."""
    names, found = {}, []
    for argument, tree in arguments(rule, args, settings).items():
        inside = {n: a for n, a in named(tree, argument).items() if _is_floating(a)}
        if inside:
            names[argument] = list(inside)
            found += inside.values()
    return names, found


def _is_floating(a):
    """Whether it is an array, or a tensor, of that kind; a NumPy scalar counts as a number."""
    kind = getattr(getattr(a, "dtype", None), "kind", "")
    return kind == "f" and not isinstance(a, np.generic)


def as_number(a):
    """A NumPy scalar as Python's number, which fits any dtype; anything else as it is."""
    return a.item() if isinstance(a, np.generic) else a


def by_name(rule, names, found):
    """The gradients that the pullback of a rule returned, in the order of `names`, which are
    {argument: names of its arrays}: one for each argument, in its structure, a lone one bare.

    Raises RuntimeError where they are others.
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


def kept(function):
    """The arrays that a function holds on to: those in its closure, and in closures and containers
    there."""
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


def expect(holds, text):
    """Raises RuntimeError with the text unless it holds."""
    if not holds:
        raise RuntimeError(text)
