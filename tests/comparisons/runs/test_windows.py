"""Long recordings: what is said of them does not depend on how many steps are held at a time, and
those are few."""

import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from gradtwin.comparisons.runs import traces
from gradtwin.comparisons.runs.comparison import compare
from gradtwin.comparisons.runs.judging import first_out, floors
from gradtwin.comparisons.runs.recording import Layout, Recorded, Step, read

from gradtwin import record_run

STEPS = 70


def train(path, perturb=0, rate_at=None, parts=1, steps=STEPS, stray=0.0):
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(5, 7), torch.nn.BatchNorm1d(7), torch.nn.Linear(7, 3)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x, y = torch.randn(8, 5), torch.randn(8, 3)
    spare = torch.nn.Parameter(torch.randn(64))
    with record_run(path, {"net": model, "spare": spare}, perturb=perturb) as run:
        for step in range(steps):
            optimizer.zero_grad()
            apart = (model(x) - y).square()
            loss = sum(part.mean() for part in apart.chunk(parts)) / parts
            loss.backward()
            run.step(loss)
            optimizer.step()
            if step == rate_at:
                optimizer.param_groups[0]["lr"] *= 1.01
            if step == 40:
                spare.data[0] += stray
    return path


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    path = tmp_path_factory.mktemp("old") / "old.parquet"
    for perturb in range(8):
        train(path, perturb)
    return read(path)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({}, "identical"),
        ({"parts": 2}, "rounding"),
        ({"rate_at": 15}, "different"),
        ({"rate_at": 40}, "different"),
        ({"stray": 1e-4}, "undecided"),
        ({"stray": 1e-4, "rate_at": 55}, "different"),
    ],
)
def test_a_verdict_does_not_depend_on_the_windows(old, tmp_path, monkeypatch, change, kind):
    new = read(train(tmp_path / "new.parquet", **change))
    whole = compare(old, new)
    assert len(list(traces.windows(old, [1], {traces.NEW: new}))) == 1
    monkeypatch.setattr(traces, "ROOM", 1)
    parted = compare(old, new)
    assert len(list(traces.windows(old, [1], {traces.NEW: new}))) == 5
    assert whole.row["class"] == kind
    assert repr(parted.row) == repr(whole.row)
    for name in ("drift", "floor", "ratio"):
        of_both = getattr(parted.drift, name), getattr(whole.drift, name)
        assert np.array_equal(*of_both, equal_nan=True)


def test_floors_do_not_depend_on_the_windows(old, tmp_path, monkeypatch):
    """Nor do those of the step before, of which a judgement may ask; no other step is judged."""
    new = read(train(tmp_path / "new.parquet", rate_at=2))
    noisy = [1, 2, 3]
    _, whole = floors(*traces.windows(old, noisy, {traces.NEW: new}), noisy, False)
    monkeypatch.setattr(traces, "ROOM", 1)
    for found in traces.windows(old, noisy, {traces.NEW: new}):
        wide, held = floors(found, noisy, False)
        own = np.flatnonzero(found.own)
        rows = own if found.own[0] else [own[0] - 1, *own]
        for name in ("floor", "ratio", "unseen"):
            of = getattr(whole, name)[found.steps[rows] - 1]
            assert np.array_equal(getattr(held, name)[rows], of, equal_nan=True)
        assert first_out(wide, held, True).kind == "different"
        assert first_out(replace(wide, own=~found.own & False), held, True).kind == "rounding"


def test_few_steps_are_in_the_memory(old, monkeypatch):
    """Of nine runs of 500 steps, of which the judged one is another from the half on."""
    monkeypatch.setattr(traces, "STRETCH", 4096)
    monkeypatch.setattr(traces, "ROOM", 1)
    layout, alive, most = Layout("float32", ()), 0, 0

    def gone():
        nonlocal alive
        alive -= 1

    def recorded(loss):
        def walk(run):
            nonlocal alive, most
            for number in range(1, 501):
                step = Step(number, loss(number), layout, bytes(100))
                weakref.finalize(step, gone)
                alive += 1
                most = max(most, alive)
                yield step

        runs = {run: {**about, "steps": 500} for run, about in old.runs.items()}
        return Recorded(old.path, runs, walk)

    row = compare(recorded(lambda n: 1.0), recorded(lambda n: 1.0 + (n > 250))).row
    assert (row["class"], row["outside_step"]) == ("different", 251)
    assert most < 200
