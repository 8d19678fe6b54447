"""The dear tests on all rows, under every kernel that this processor has: python tests/sweep.py.

More arguments are pytest's, as in `python tests/sweep.py -k relu`.

Torch takes the kernels that ATEN_CPU_CAPABILITY names, NumPy's OpenBLAS those of OPENBLAS_CORETYPE.
A kernel that the processor lacks would end the process, so the flags of /proc/cpuinfo choose.
"""

import os
import subprocess
import sys
from pathlib import Path

TESTS = [Path(__file__).with_name(f"test_{name}.py") for name in ("curves", "laws", "check")]
AVX2, AVX512 = {"avx2", "fma"}, {"avx2", "fma", "avx512f", "avx512dq", "avx512bw", "avx512vl"}
TORCH = {"default": set(), "avx2": AVX2, "avx512": AVX512}
OPENBLAS = {"Prescott": {"pni"}, "Haswell": AVX2, "SkylakeX": AVX512}


def flags():
    """What the processor says it has; nothing if it is not of Intel's kind."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    return {flag for line in lines if line.startswith("flags") for flag in line.split()}


def combinations(has):
    """(torch's kernels, OpenBLAS's, threads), half of them all: each pair of two is among them."""
    torchs, blas = ([k for k in table if table[k] <= has] for table in (TORCH, OPENBLAS))
    return [
        (a, b, threads)
        for i, a in enumerate(torchs)
        for j, b in enumerate(blas or [""])
        for threads in (1, 2)
        if (i + j + threads) % 2 or not blas
    ]


def passes(torchs, blas, threads):
    chosen = {"ATEN_CPU_CAPABILITY": torchs, "OPENBLAS_CORETYPE": blas}
    chosen["GRADTWIN_TEST_THREADS"] = str(threads)
    name = " ".join(f"{variable}={value}" for variable, value in chosen.items() if value)
    print(f"\n{name}", flush=True)
    workers = ["-n", str(max(1, os.cpu_count() // threads)), "--dist", "worksteal"]
    command = [sys.executable, "-m", "pytest", "-q", "--sweep", *workers, *TESTS, *sys.argv[1:]]
    environment = {k: v for k, v in os.environ.items() if k not in chosen}
    environment |= {k: v for k, v in chosen.items() if v}
    passed = subprocess.run(command, env=environment).returncode == 0
    return f"{'passed' if passed else 'FAILED'}  {name}"


if __name__ == "__main__":
    results = [passes(*combination) for combination in combinations(flags())]
    print("", *results, sep="\n")
    sys.exit(any(result.startswith("FAILED") for result in results))
