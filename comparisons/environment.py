"""What a result depends on beside its inputs: code, packages, the text that models are trained on,
BLAS, processor, threads."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_info

from ..reference.adapters import device
from . import english

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "mpmath")
# The folders that a result depends on; each has a digest.
SOURCES = ("manual", "reference", "comparisons")

# The variables that choose the kernels of torch and BLAS, and what a processor must have for them.
KERNELS = (
    ({"ATEN_CPU_CAPABILITY": "default", "OPENBLAS_CORETYPE": "Prescott"}, "pni"),
    ({"ATEN_CPU_CAPABILITY": "avx2", "OPENBLAS_CORETYPE": "Haswell"}, "avx2"),
    ({"ATEN_CPU_CAPABILITY": "avx512", "OPENBLAS_CORETYPE": "SkylakeX"}, "avx512f"),
)


def fingerprint() -> dict[str, str]:
    """Names and values, of this process."""
    pools = threadpool_info()
    threads = {f"threads {p['internal_api']}": str(p["num_threads"]) for p in pools}
    blas = [
        f"{p['internal_api']} {p['version']} {p.get('architecture', '')}".strip()
        for p in pools
        if p["user_api"] == "blas"
    ]
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "numpy kernels": " ".join(_features()),
        "torch kernels": torch.backends.cpu.get_cpu_capability(),
        "torch build": _build(),
        "blas": ", ".join(sorted(set(blas))),
        **threads,
        "threads torch": str(torch.get_num_threads()),
        "device": _device(),
        "text": english.digest(),
        "revision": _revision(),
        **{f"source {name}": _digest(ROOT / name) for name in SOURCES},
    }


def changes(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """What differs: name → (before, now), "none" where one lacks it."""
    names = dict.fromkeys([*old, *new])
    pairs = {name: (old.get(name, "none"), new.get(name, "none")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def kernels() -> list[dict[str, str]]:
    """The environments that choose each of the kernels which this processor can run, with one
    thread and with two; where it does not say what it can, its own alone."""
    able = _cpuinfo("flags").split()
    chosen = [variables for variables, needed in KERNELS if needed in able] or [{}]
    return [{**each, "OMP_NUM_THREADS": threads} for each in chosen for threads in ("1", "2")]


def _cpuinfo(name: str) -> str:
    """What Linux says about the first processor, or "" if it says nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    found = (line.partition(":")[2].strip() for line in lines if line.startswith(name))
    return next(found, "")


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor()


def _features() -> list[str]:
    """The instruction sets that NumPy chooses its kernels by."""
    found = np.show_config(mode="dicts")["SIMD Extensions"]
    return [*found.get("baseline", ()), *found.get("found", ())]


def _device() -> str:
    """Where torch's side runs."""
    chosen = device()
    return torch.cuda.get_device_name(chosen) if chosen.startswith("cuda") else chosen


def _build() -> str:
    """Torch's revision and build flags, which are a page long, as a digest; without the kernels,
    which it also names."""
    lines = torch.__config__.show().splitlines()
    text = "\n".join(line for line in lines if "CPU capability" not in line)
    return f"{torch.version.git_version[:12]} {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _revision() -> str:
    """The revision of the checkout that the package is run from, if it is run from one."""
    command = ["git", "-C", os.fspath(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    inside = (ROOT / ".git").exists() and found.returncode == 0
    return found.stdout.strip() if inside else ""


def _digest(folder: Path) -> str:
    """A digest of all source files in a folder, whatever their order on disk."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        total.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        total.update(path.read_bytes())
    return total.hexdigest()[:12]
