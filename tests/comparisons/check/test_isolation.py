"""What ends its process costs nothing but itself."""

import ctypes
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from gradtwin.comparisons.check import isolation
from gradtwin.comparisons.check.isolation import Died, apart


def segfaults():
    ctypes.string_at(0)


ENDS = {
    "SIGSEGV": segfaults,
    "SIGABRT": os.abort,
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit status 0": lambda: os._exit(0),
    "exit status 3": lambda: os._exit(3),
}


@pytest.mark.parametrize("how", ENDS)
def test_one_that_dies_leaves_the_others(how):
    def run(task):
        if task in (2, 5):
            ENDS[how]()
        return {"square": np.array(task) ** 2}

    found = apart(run, range(7))
    assert [isinstance(f, Died) for f in found] == [i in (2, 5) for i in range(7)]
    assert found[2].how == f"it ends the process: {how}"
    assert found[6]["square"] == 36


def test_who_breaks_what_dies_later_is_found():
    """The third writes where it must not, and the fourth stumbles over it."""
    broken = []

    def run(task):
        if task == 3 and broken:
            segfaults()
        if task == 2:
            broken.append(task)
            if len(broken) > 1 or os.getpid() % 2:  # alone it dies, but not every time
                segfaults()
        return task

    found = apart(run, range(6))
    assert [f for f in found if not isinstance(f, Died)] in ([0, 1, 3, 4, 5], [0, 1, 2, 3, 4, 5])
    assert found[3] == 3


def test_one_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(isolation, "PATIENCE", 0.5)
    found = apart(lambda task: time.sleep(1000 * task), [0, 1, 0])
    assert found[0] is found[2] is None
    assert "not done" in found[1].how


def test_parallel_regions_of_torch_do_not_hang():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    big = torch.rand(400_000)
    try:
        big.add(1).sum()
        assert apart(lambda _: float(big.mul(0).sum()), [0]) == [0.0]
    finally:
        torch.set_num_threads(threads)


def test_an_error_of_ours_comes_through():
    with pytest.raises(RuntimeError, match=r"own: ZeroDivisionError"):
        apart(lambda task: 1 / task, [1, 0])


def test_nothing_is_left(capfd):
    files = Path("/proc/self/fd")
    before = len(list(files.iterdir()))
    apart(lambda task: print("shown twice?") if task else os.abort(), [1, 0, 1])
    assert len(list(files.iterdir())) == before
    assert not capfd.readouterr().err
