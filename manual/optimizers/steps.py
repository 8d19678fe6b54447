"""What the optimizers share: blocks of a parameter, the state's count of steps, moving means."""

import numpy as np

BLOCK = 2**16  # elements of a parameter that are updated at a time: they stay in the cache


def elementwise(update, param, grad, state, **start):
    """The new parameter, and the arrays of the new state by name, where every element is treated
    alike: update(p, g, *arrays) gives the new p and arrays.

    It is done block by block, so that what an update makes on the way stays in the cache, and
    nothing but the results is as large as the parameter. `start` has what the arrays are before
    the first step.
    """
    given = [param, grad]
    for name, value in start.items():
        array = np.asarray(state.get(name, value), None if name in state else param.dtype)
        if name in state and (array.shape, array.dtype) != (param.shape, param.dtype):
            raise ValueError(
                f"state[{name!r}]: expected shape {param.shape} and dtype {param.dtype}, got "
                f"{array.shape} and {array.dtype}"
            )
        given.append(array)
    made = [np.empty(param.shape, param.dtype) for _ in given[1:]]
    sources, targets = ([a.reshape(-1) for a in arrays] for arrays in (given, made))
    for i in range(0, param.size, BLOCK):
        block = slice(i, i + BLOCK)
        new = update(*(a[block] if a.size == param.size else a for a in sources))
        for target, values in zip(targets, new, strict=True):
            target[block] = values
    return made[0], dict(zip(start, made[1:], strict=True))


def checked_betas(betas):
    for i, beta in enumerate(betas):
        if not 0 <= beta < 1:
            raise ValueError(f"betas[{i}]: expected at least 0 and below 1, got {beta}")
    return betas


def direction(param, grad, weight_decay, maximize):
    """The gradient to descend: its sign turned to maximize, λ p added for an L2 penalty."""
    g = -grad if maximize else grad
    return g + weight_decay * param if weight_decay else g


def toward(mean, new, share):
    """The mean moved by a share of its way to the new value."""
    return mean + share * (new - mean)


def next_step(state):
    """The step count, which torch keeps as a float32 number, and the same as a Python number."""
    step = np.asarray(state.get("step", 0) + 1, np.float32)
    return step, float(step)
