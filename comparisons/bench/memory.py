"""The memory that forward and backward take at most, by hand and in torch."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...reference.adapters import leaves
from .. import ops
from ..ops import evaluate
from .costs import Row, row

SHAPES = {  # of the arguments
    "scaled_dot_product_attention": [(4, 8, 512, 64)] * 3,
    "conv2d": [(8, 64, 128, 128), (64, 64, 3, 3)],
}
LINUX = Path("/proc/self/status")
UNIT = 2**20 if sys.platform == "darwin" else 2**10  # a MiB, in what the system counts in


def rows() -> list[Row]:
    """One row for each op: the most that both passes take beside their arguments, in MiB, each side
    in a process of its own; and by hand as a multiple of torch's."""
    found = []
    for op in SHAPES:
        manual, torchs = (
            in_a_process(__name__, f"taken({side}, {op!r})") for side in ("by_hand", "by_torch")
        )
        found.append({**row("memory", op, [manual], [torchs]), "manual": manual, "torch": torchs})
    return found


def in_a_process(module: str, call: str) -> float:
    """The number that a call of functions of that module gives in a new process. RuntimeError, with
    its last line, if it fails."""
    code = f"from {module} import *; print({call})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{call}: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout)


def taken(side: Any, op: str) -> float:
    """MiB by which a call raises the most that this process has had; a small one of the same op,
    before it, has loaded what it needs. Both are drawn without anything larger on the way."""
    rng = np.random.default_rng(0)
    small, large = (
        [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
        for shapes in ([[*(1 for _ in s[:-1]), s[-1]] for s in SHAPES[op]], SHAPES[op])
    )
    side(op, small)
    before = most()
    side(op, large)
    return most() - before


def by_hand(op: str, args: Any) -> Any:
    y, pullback = ops.named(op).rule(*args)
    return pullback(np.ones_like(y))


def by_torch(op: str, args: Any) -> Any:
    sources: list[torch.Tensor] = []

    def source(leaf: np.ndarray) -> torch.Tensor:
        sources.append(torch.from_numpy(leaf).requires_grad_())  # which copies nothing
        return sources[-1]

    y = leaves(evaluate.torch_call(op, args, {}, source)())
    return torch.autograd.grad(y, sources, [torch.ones_like(part) for part in y])


def most() -> float:
    """MiB, the most so far. Linux passes on to a new process what its parent had, but in its own
    list."""
    if LINUX.exists():
        _, _, found = LINUX.read_text().partition("VmHWM:")
        return int(found.split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / UNIT
