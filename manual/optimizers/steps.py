"""What the optimizers share: blocks of a parameter, the state's count of steps, moving means.

Their checks raise TypeError or ValueError with a message that names the argument.
"""

import numpy as np

from ..arguments import alike, array, floating, mapping, pair

BLOCK = 2**16  # elements updated at a time, few enough to stay in the cache


def given(param, grad, state):
    """The parameter and its gradient as arrays of one shape and floating dtype.

    Raises TypeError or ValueError where they are not, and TypeError for a state that is no dict.
    """
    mapping(state=state)
    return alike(param=param, grad=grad)


def elementwise(update, param, grad, state, **start):
    """The new parameter, and the arrays of the new state by name, where every element is treated
    alike: update(p, g, *arrays) gives the new p and arrays.

    What is large goes block by block, so that what an update makes on the way stays in the cache,
    and nothing but the results is as large as the parameter. `start` has what the arrays are before
    the first step.
    """
    sources = [param, grad]
    for name, value in start.items():
        # Until then one number stands for the whole array.
        sources.append(stored(state, name, param) if state else np.asarray(value, param.dtype))
    if param.size <= BLOCK:
        made = [np.array(a, param.dtype, order="C") for a in update(*sources)]
        return made[0], dict(zip(start, made[1:], strict=True))
    made = [np.empty(param.shape, param.dtype) for _ in sources[1:]]
    sources, targets = ([a.reshape(-1) for a in arrays] for arrays in (sources, made))
    for i in range(0, param.size, BLOCK):
        block = slice(i, i + BLOCK)
        new = update(*(a[block] if a.size == param.size else a for a in sources))
        for target, values in zip(targets, new, strict=True):
            target[block] = values
    return made[0], dict(zip(start, made[1:], strict=True))


def checked_betas(betas):
    """The two betas. Raises TypeError unless they are numbers, a pair of them, ValueError for one
    outside [0, 1)."""
    pair(betas=betas)
    for i, beta in enumerate(betas):
        if not 0 <= beta < 1:
            raise ValueError(f"betas[{i}]: expected at least 0 and below 1, got {beta}")
    return betas


def stored(state, name, like, start=0.0):
    """The array of that name in a state, of the shape and dtype of `like`; before the first step it
    is `start` everywhere.

    Raises TypeError or ValueError for another one, or for none.
    """
    if not state:
        return np.full_like(like, start)
    found = array(**{f"state[{name!r}]": _entry(state, name)})
    if (found.shape, found.dtype) != (like.shape, like.dtype):
        raise ValueError(
            f"state[{name!r}]: expected shape {like.shape} and dtype {like.dtype}, got "
            f"{found.shape} and {found.dtype}"
        )
    return found


def direction(param, grad, weight_decay, maximize):
    """The gradient to descend: its sign turned to maximize, λ p added for an L2 penalty."""
    g = -grad if maximize else grad
    return g + weight_decay * param if weight_decay else g


def toward(mean, new, share):
    """The mean moved by a share of its way to the new value."""
    return mean + share * (new - mean)


def next_step(state):
    """The step count plus 1, which torch keeps as a float32 number, and the same as a Python
    number."""
    step = np.asarray(number(state, "step", 0) + 1, np.float32)
    return step, float(step)


def number(state, name, start):
    """The number of that name in a state, in float32, as torch keeps it; before the first step it
    is `start`.

    Raises TypeError for anything but a floating array without axes, ValueError for none.
    """
    if not state:
        return np.float32(start)
    key = f"state[{name!r}]"
    found = floating(**{key: _entry(state, name)})
    if found.ndim:
        raise TypeError(f"{key}: expected an array without axes, got shape {found.shape}")
    return found.astype(np.float32)


def _entry(state, name):
    if name not in state:
        raise ValueError(f"state: expected the entry {name!r}, got {', '.join(map(repr, state))}")
    return state[name]
