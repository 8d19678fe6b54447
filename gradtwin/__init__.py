"""Every gradient twice: by hand in NumPy (`gradtwin.manual`), by PyTorch (`gradtwin.reference`),
and compared.

`check` examines a backward pass and gives a `Report`, which names the `Cause` of what is wrong;
`assert_gradient` raises if something is; `functional` makes a layer a function of its parameters.
`record_module` keeps a module in a file that `check` holds ports to. `trace` goes through the
backward pass of a torch module and gives a `Trace`. `record_run` records a training loop,
`record_optimizer` what an optimizer does; `compare_curves` trains a `Cell` by hand and by torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .assertion import assert_gradient
    from .comparisons.check.causes import Cause
    from .comparisons.check.functional import functional
    from .comparisons.check.modules.record import record_module
    from .comparisons.check.report import Report
    from .comparisons.check.verify import check
    from .comparisons.curves.divergence import compare as compare_curves
    from .comparisons.dialects.recorder import record_optimizer
    from .comparisons.runs.record_run import record_run
    from .comparisons.trace.recorder import trace
    from .comparisons.trace.steps import Trace
    from .comparisons.training.cells import Cell

__version__ = "0.2.0"
__all__ = [
    "Cause",
    "Cell",
    "Report",
    "Trace",
    "assert_gradient",
    "check",
    "compare_curves",
    "functional",
    "record_module",
    "record_optimizer",
    "record_run",
    "trace",
]

# Where each stands. It is imported only when it is asked for, since importing torch takes long.
PLACES = {
    "Cause": ("comparisons.check.causes", "Cause"),
    "Cell": ("comparisons.training.cells", "Cell"),
    "Report": ("comparisons.check.report", "Report"),
    "Trace": ("comparisons.trace.steps", "Trace"),
    "assert_gradient": ("assertion", "assert_gradient"),
    "check": ("comparisons.check.verify", "check"),
    "compare_curves": ("comparisons.curves.divergence", "compare"),
    "functional": ("comparisons.check.functional", "functional"),
    "record_module": ("comparisons.check.modules.record", "record_module"),
    "record_optimizer": ("comparisons.dialects.recorder", "record_optimizer"),
    "record_run": ("comparisons.runs.record_run", "record_run"),
    "trace": ("comparisons.trace.recorder", "trace"),
}


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    file, own = PLACES[name]
    return getattr(import_module(f".{file}", __name__), own)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
