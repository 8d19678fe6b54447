"""What version 0.1 wrote is read, and means what it meant."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from gradtwin.comparisons.baselines import diff, file, record
from gradtwin.comparisons.runs import comparison, recording
from gradtwin.comparisons.snapshots import arrays
from gradtwin.comparisons.verdict.classes import IDENTICAL, ROUNDING

DATA = Path(__file__).parent / "data" / "0.1"
NAMES = ["relu", "softmax", "embedding", "matmul", "sum", "step_lr"]  # what is measured again


def stored():
    """The arrays that are in arrays.npz."""
    return {
        "weight": np.array([[1.0, 2.0, -0.0], [5e-324, np.inf, np.nan]]),
        "single": np.float32(1) / np.arange(1, 6, dtype=np.float32),
        "halves": [torch.tensor([1.0, -2.5, 3e38]).bfloat16(), torch.tensor([0.1, 65504.0]).half()],
        "counts": np.array([[1, -2], [3, 2**62]]),
        "flags": np.array([True, False]),
    }


def test_a_baseline_of_every_table():
    then = file.read(DATA / "baseline.parquet")
    tables = {q.table for q in then.quantities.values()}
    assert tables == {"gradients", "optimizers", "schedules", "curves"}
    now = record.measured(NAMES)
    again = {i: q for i, q in then.quantities.items() if q.name in NAMES}
    assert now.quantities.keys() == again.keys()
    found = diff.compare(file.Baseline(again, then.about), now)
    print(found.counts)
    assert not found.counts[diff.DIFFERENT]


def test_a_training_with_six_perturbed_runs(tmp_path):
    then = recording.read(DATA / "training.parquet")
    assert sorted(then.runs) == [str(k) for k in range(7)]
    assert not then.missing
    assert comparison.compare(then, then).row["class"] == IDENTICAL
    path = tmp_path / "again.parquet"
    runpy.run_path(str(DATA / "training.py"))["train"](path)
    row = comparison.compare(then, recording.read(path)).row
    print({k: row[k] for k in ("class", "max_ratio", "first_step")})
    assert row["class"] in (IDENTICAL, ROUNDING)


def test_the_arrays_of_a_test():
    then, origin = arrays.load(DATA / "arrays.npz")
    assert "torch 2.13.0" in origin
    assert arrays.differences(arrays.collect(stored()), then) == []
    changed = stored()
    changed["single"][2] = np.nextafter(changed["single"][2], np.float32(1))
    (found,) = arrays.differences(arrays.collect(changed), then)
    assert found.cells[:3] == ("single", "1 of 5", "1")


@pytest.mark.parametrize("name", ["baseline.parquet", "training.parquet", "arrays.npz"])
def test_the_data_is_small(name):
    assert 0 < (DATA / name).stat().st_size < 300_000
