"""What models are put together from. A layer is a function x → (y, pullback), and its pullback
dy → (dx, {name of a parameter: its gradient}).

The checks raise TypeError or ValueError with a message that names the argument.
"""

import numpy as np

from .. import normalization
from ..arguments import mapping

# What a batch norm keeps beside its parameters.
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def parted(state):
    """The parameters and the buffers of a `state_dict`."""
    names = [name for name in state if name.rpartition(".")[2] in STATISTICS]
    return {n: a for n, a in state.items() if n not in names}, {n: state[n] for n in names}


def entries(expected, optional=(), **given):
    """Raises TypeError unless the named argument is a dict, ValueError unless it has the expected
    entries, and beside them only optional ones."""
    ((name, tree),) = given.items()
    mapping(**given)
    missing = sorted({*expected} - {*tree})
    more = sorted({*tree} - {*expected, *optional})
    wrong = [f"{what} {_listed(n)}" for what, n in (("no", missing), ("also", more)) if n]
    if wrong:
        raise ValueError(f"{name}: expected {len(expected)} entries, got {'; '.join(wrong)}")


def _listed(names):
    return ", ".join(names[:3]) + ", …" * (len(names) > 3)


def plain(rule, **settings):
    """The layer of a rule of x alone."""

    def layer(x):
        y, pull = rule(x, **settings)

        def pullback(dy):
            return pull(dy), {}

        return y, pullback

    return layer


def weighted(rule, parameters, name, **settings):
    """The layer of a rule of x, of name.weight, and of name.bias where there is one. It raises the
    TypeError or ValueError of the rule, with the name of the layer in front."""
    parts = [part for part in ("weight", "bias") if f"{name}.{part}" in parameters]
    given = {part: parameters[f"{name}.{part}"] for part in parts}

    def layer(x):
        try:
            y, pull = rule(x, **given, **settings)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        except TypeError as error:
            raise TypeError(f"{name}: {error}") from None

        def pullback(dy):
            dx, *found = pull(dy)
            return dx, {f"{name}.{part}": d for part, d in zip(parts, found, strict=True)}

        return y, pullback

    return layer


def batch_norm(parameters, buffers, name, training, moved):
    """The layer of a batch norm; in training the buffers of that name, as it moves them, are put
    into `moved`."""
    keys = [f"{name}.{part}" for part in STATISTICS]
    mean, var, seen = (buffers[key] for key in keys)

    def normed(x, **given):
        y, pull = normalization.batch_norm(x, mean, var, training=training, **given)
        if not training:
            return y, pull
        y, *statistics = y
        moved.update(zip(keys, [*statistics, np.asarray(seen + 1)], strict=True))

        def pullback(dy):
            return pull((dy, None, None))

        return y, pullback

    return weighted(normed, parameters, name)


def in_sequence(*layers):
    """The layer of layers one after another."""

    def layer(x):
        pulls = []
        for each in layers:
            x, pull = each(x)
            pulls.append(pull)

        def pullback(dy):
            gradients = {}
            for pull in reversed(pulls):
                dy, found = pull(dy)
                gradients |= found
            return dy, gradients

        return x, pullback

    return layer


def added(first, second):
    """The layer of the sum of two. Of the identity, it is what He et al., 2016, call residual."""

    def layer(x):
        (y, pull), (z, pull_second) = first(x), second(x)

        def pullback(dy):
            (dx, gradients), (d, others) = pull(dy), pull_second(dy)
            return dx + d, gradients | others

        return y + z, pullback

    return layer
