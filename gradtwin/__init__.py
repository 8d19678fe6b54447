"""Every gradient twice: by hand in NumPy (`gradtwin.manual`), by PyTorch (`gradtwin.reference`),
and compared.

`check` examines a backward pass, `assert_gradient` raises if it is wrong, `trace` goes
through that of a torch module, `record_run` records a training loop.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["assert_gradient", "check", "record_run", "trace"]


def __getattr__(name: str) -> Any:
    """They are imported when they are needed, for torch takes its time."""
    if name == "check":
        from .comparisons.check.verify import check

        return check
    if name == "trace":
        from .comparisons.trace.recorder import trace

        return trace
    if name == "record_run":
        from .comparisons.runs.record_run import record_run

        return record_run
    if name == "assert_gradient":
        from .pytest_plugin import assert_gradient

        return assert_gradient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
