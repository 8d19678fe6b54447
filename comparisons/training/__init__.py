"""Training runs: what is trained, on what, and the loop."""

from ..moved import moved

__getattr__ = moved(
    __name__,
    cells="Arrays MODELS OPTIMIZERS REGIMES Cell start",
    loop="Side Step train by_hand by_torch",
)
