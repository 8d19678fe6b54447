import contextlib
import gc
import io
import os
import traceback
from collections import Counter

import numpy as np
import pytest

# Of the processes that tests start too: where each takes all processors, they wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from threadpoolctl import threadpool_limits


def pytest_addoption(parser):
    parser.addoption("--sweep", action="store_true", help="try on every row what is dear")


def pytest_collection_modifyitems(config, items):
    """Without --sweep, what is marked `sweep` is deselected, and counted as such; and of a test
    that is marked `thinned(n)` all but every n-th case."""
    if config.getoption("sweep"):
        return
    kept, dear, before = [], [], Counter()
    for item in items:
        thinned = item.get_closest_marker("thinned")
        test = item.nodeid.partition("[")[0]
        left_out = thinned and before[test] % thinned.args[0]
        before[test] += 1
        (dear if left_out or item.get_closest_marker("sweep") else kept).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=dear)


def pytest_collection_finish(session):
    """What is there now stays, so the collector need not go through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def threads():
    """One, or as many as the variable OMP_NUM_THREADS says."""
    number = int(os.environ["OMP_NUM_THREADS"])
    torch.set_num_threads(number)
    with threadpool_limits(number):
        yield


@pytest.fixture(autouse=True)
def numbers(request, monkeypatch):
    """What a test draws from the `rng` of its module does not depend on those before it."""
    if hasattr(request.module, "rng"):
        monkeypatch.setattr(request.module, "rng", np.random.default_rng(1))


@pytest.fixture
def sweep(pytestconfig):
    """Whether to try on every row what is dear."""
    return pytestconfig.getoption("sweep")


@pytest.fixture
def held():
    """A function of a law and its cases: tries them all, and fails with the names of those at which
    the law does not hold, what it printed there and where it stopped."""

    def tried(law, cases):
        wrong = {}
        for case in cases:
            printed = io.StringIO()
            try:
                with contextlib.redirect_stdout(printed):
                    law(case)
            except (Exception, pytest.fail.Exception):
                wrong[str(case)] = printed.getvalue() + traceback.format_exc()
            print(case, printed.getvalue(), sep="\n")
        if not cases:
            pytest.fail("there is no case to try")
        if wrong:
            heading = f"{len(wrong)} of {len(cases)} cases: {'; '.join(wrong)}"
            pages = [f"{case}\n{page}" for case, page in wrong.items()]
            pytest.fail("\n\n".join([heading, *pages]), pytrace=False)

    return tried
