"""What models share: the parameters of their parts, by name. What is expected of them and is not so
raises TypeError or ValueError."""

from ..arguments import array, floating, mapping
from .layers import entries


def part(parameters, prefix):
    """The parameters whose names begin so, by the rest of their names."""
    return {n.removeprefix(prefix): a for n, a in parameters.items() if n.startswith(prefix)}


def inside(prefix, gradients):
    """The gradients of a part, by the names that they have in the whole."""
    return {f"{prefix}{name}": gradient for name, gradient in gradients.items()}


def numbered(parameters, prefix):
    """The prefixes of parts that are numbered: layers.0., layers.1., … where the prefix is
    layers."""
    rests = (name.removeprefix(prefix) for name in parameters if name.startswith(prefix))
    return [f"{prefix}{i}." for i in range(len({rest.partition(".")[0] for rest in rests}))]


def expect(parameters, shapes):
    """Raises TypeError unless the parameters are floating arrays of one dtype, ValueError unless
    they have the names and the shapes that are given, in which None is any length."""
    entries(shapes, parameters=parameters)
    floating(**{f"parameters.{name}": a for name, a in parameters.items()})
    for name, shape in shapes.items():
        a = parameters[name]
        fits = a.ndim == len(shape)
        if not fits or any(n not in (None, m) for n, m in zip(shape, a.shape, strict=True)):
            text = ", ".join("…" if n is None else str(n) for n in shape)
            raise ValueError(f"parameters.{name}: expected shape ({text}), got {a.shape}")


def first_shape(parameters, name):
    """The shape (rows, features) of the parameter that all others follow from. Raises TypeError
    unless the parameters are a dict, ValueError where it is none of them, or no matrix."""
    mapping(parameters=parameters)
    if name not in parameters:
        raise ValueError(f"parameters: expected an entry {name}, got {sorted(parameters)!s:.80}")
    a = floating(**{f"parameters.{name}": parameters[name]})
    if a.ndim != 2:
        raise ValueError(f"parameters.{name}: expected a matrix, got shape {a.shape}")
    return a.shape


def sequences(tokens, most=None):
    """The tokens, sequences of at least one and at most so many. Raises TypeError unless they are
    an array, ValueError for others."""
    tokens = array(tokens=tokens)
    longest = tokens.shape[1] if most is None and tokens.ndim == 2 else most
    if tokens.ndim != 2 or not 1 <= tokens.shape[1] <= longest:
        limit = "" if most is None else f" to {most}"
        raise ValueError(f"tokens: expected (N, T), T from 1{limit}, got shape {tokens.shape}")
    return tokens
