"""The dear tests on all rows, under every kernel that this processor has: python tests/sweep.py.

More arguments are pytest's, as in `python tests/sweep.py -k relu`.
"""

import os
import subprocess
import sys
from pathlib import Path

from gradtwin.comparisons.environment import kernels

HERE = Path(__file__).parent
FOLDERS = ("curves", "check", "optimizers", "gradients", "runs")
TESTS = [
    HERE / "test_laws.py",
    HERE / "examples",
    *(HERE / "comparisons" / name for name in FOLDERS),
]
THREADS = "OMP_NUM_THREADS"


def passes(chosen):
    """Whether the tests pass with these variables."""
    name = " ".join(f"{variable}={value}" for variable, value in chosen.items())
    print(f"\n{name}", flush=True)
    workers = max(1, (os.cpu_count() or 1) // int(chosen[THREADS]))
    command = [sys.executable, "-m", "pytest", "-q", "--sweep", "-n", str(workers)]
    command += ["--dist", "worksteal", *map(str, TESTS), *sys.argv[1:]]
    done = subprocess.run(command, env={**os.environ, **chosen}, check=False)
    return f"{'passed' if done.returncode == 0 else 'FAILED'}  {name}"


if __name__ == "__main__":
    results = [passes(chosen) for chosen in kernels()]
    print("", *results, sep="\n")
    sys.exit(any(result.startswith("FAILED") for result in results))
