"""Whether rules are recorded on the tape. torch/autograd/grad_mode.py; GradMode in torch/csrc"""

import contextlib
import functools

_modes = [True]


@contextlib.contextmanager
def set_grad_enabled(mode):
    """Whether rules are recorded inside."""
    _modes.append(mode)
    try:
        yield
    finally:
        _modes.pop()


no_grad = functools.partial(set_grad_enabled, False)
enable_grad = functools.partial(set_grad_enabled, True)


def is_grad_enabled():
    """Whether rules are recorded here."""
    return _modes[-1]
