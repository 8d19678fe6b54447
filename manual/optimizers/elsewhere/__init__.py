"""Optimizers that torch does not have, as the others: one pure step for one parameter.

They take and raise what those do. Each is tried beside trajectories that its library recorded,
since there is no mirror.
"""

from .bounded import adabelief, adabound, yogi
from .cautious import cautious_adamw, cautious_lion
from .interpolated import qhadam, qhm, schedule_free_adamw, schedule_free_sgd
from .layers import lamb, lars, stable_adamw
from .leader import ftrl
from .sign import lion

__all__ = [
    "adabelief",
    "adabound",
    "cautious_adamw",
    "cautious_lion",
    "ftrl",
    "lamb",
    "lars",
    "lion",
    "qhadam",
    "qhm",
    "schedule_free_adamw",
    "schedule_free_sgd",
    "stable_adamw",
    "yogi",
]
