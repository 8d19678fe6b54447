"""What is written, as the run goes, and what of it is read again."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from gradtwin.comparisons.runs import parts
from gradtwin.comparisons.runs.comparison import compare
from gradtwin.comparisons.runs.names import Named, unwrapped
from gradtwin.comparisons.runs.recording import AGAIN, LOSS, read
from gradtwin.comparisons.runs.sketches import SMALL, distance, sketch
from torch import nn

from gradtwin import record_run

F = nn.functional
RUNS = (0, AGAIN, *range(1, 7))


def train(path, steps=8, start=1, wrap=lambda model: model, autocast=False, **settings):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    rng = np.random.default_rng(0)
    change = settings.pop("change", lambda step, model: None)
    with record_run(path, wrap(model), start=start, **settings) as run:
        for step in range(1, steps + 1):
            x = torch.tensor(rng.standard_normal((7, 6)), dtype=torch.float32)
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = F.cross_entropy(model(x), (x[:, 0] > 0).long())
            loss.backward()
            change(step, model)
            if step >= start:
                run.step(loss)
            optimizer.step()


def test_by_default_everything_is_kept_as_sketches(tmp_path):
    train(tmp_path / "run.parquet")
    first, *later = read(tmp_path / "run.parquet").walk(0)
    names = [q.name for q in first.layout.quantities if q.form == "sketch"]
    assert names[:2] == ["parameter 0.weight", "parameter 0.bias"]
    assert names[4:] == [f"gradient of {n}" for n in ("2.bias", "2.weight", "0.bias", "0.weight")]
    assert sum(q.form == "digest" for q in first.layout.quantities) == 4
    assert not any(q.form == "digest" for step in later for q in step.layout.quantities)
    for settings, kept in (({"gradients": False}, 4), ({"parameters": False, "full": True}, 4)):
        train(tmp_path / "run.parquet", **settings)
        (step, *_) = read(tmp_path / "run.parquet").walk(0)
        forms = [q.form for q in step.layout.quantities if not q.name.startswith("input")]
        assert len([form for form in forms if form not in ("digest", "sums")]) == kept
        assert ("bits" in forms) == ("full" in settings)


@pytest.mark.parametrize("n", [1, 15, 16, 100, SMALL, SMALL + 1, 100_003])
def test_a_sketch_knows_the_distance_of_two_tensors(n):
    ratios = []
    for seed in range(40):
        rng = torch.Generator().manual_seed(seed)
        old = torch.randn(n, generator=rng)
        new = old + 1e-3 * torch.randn(n, generator=rng)
        found = sketch([old.double(), new.double()])
        ratios.append(distance(*found) / float((new.double() - old.double()).norm()))
        assert found[0, 0] == pytest.approx(float(old.double().norm()))
    assert 0.4 < min(ratios) <= max(ratios) < 2
    assert np.median(ratios) == pytest.approx(1, abs=0.12)
    if n <= 16:
        assert ratios == pytest.approx([1] * 40)


def test_sketches_do_not_depend_on_what_stands_beside(tmp_path):
    tensors = [torch.randn(n) for n in (3, 50, 20_000, 9, 30_000)]
    together = sketch(tensors)
    assert np.array_equal(together, np.concatenate([sketch([t]) for t in tensors]))
    strange = torch.tensor([1.0, torch.inf, 2.0])
    assert np.isinf(sketch([strange])[0, 0])
    assert abs(sketch([strange])[0, 1:]).sum() == 3
    assert distance(*sketch([strange, torch.ones(3)])) == np.inf
    assert sketch([torch.ones(4, dtype=torch.int64)])[0, 0] == 2


def test_memory_does_not_grow_and_many_steps_are_recorded(tmp_path, monkeypatch):
    """With pieces of 4 kB there are many; the rows held are those of one piece."""
    monkeypatch.setattr(parts, "PIECE", 4096)
    held = []
    with record_run(tmp_path / "run.parquet", {"w": torch.ones(3)}) as run:
        for step in range(3000):
            run.step(torch.tensor(float(step)))
            held.append(len(run.stream.rows))
    assert max(held) < 100
    assert np.array_equal(read(tmp_path / "run.parquet").losses(), np.arange(3000.0))


SLOW = """
import sys, time, torch, gradtwin
from gradtwin.comparisons.runs import parts
parts.SECONDS = 0.05
with gradtwin.record_run(sys.argv[1], {"w": torch.ones(3)}) as run:
    for step in range(10_000):
        run.step(torch.tensor(float(step)))
        print(step, flush=True)
        time.sleep(0.01)
"""


def test_a_killed_run_leaves_all_but_the_last_piece(tmp_path):
    path = tmp_path / "run.parquet"
    with subprocess.Popen([sys.executable, "-c", SLOW, path], stdout=subprocess.PIPE) as process:
        for _ in range(60):
            last = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
    found = read(path)
    assert last - 30 < found.steps <= last + 30
    assert np.array_equal(found.losses(), np.arange(float(found.steps)))
    with pytest.raises(ValueError, match=r"cut short after \d+ steps \(it was killed\)"):
        found.complete()
    train(path)  # it is recorded anew
    assert not parts.folder(path).exists()
    assert read(path).steps == 8


def test_a_damaged_rest_of_a_killed_run_is_refused(tmp_path):
    place = parts.folder(tmp_path / "run.parquet")
    place.mkdir()
    (place / "0.arrows").write_bytes(b"no stream")
    with pytest.raises(ValueError, match="expected what a run has left"):
        read(tmp_path / "run.parquet")


def test_a_run_that_goes_on_is_held_to_its_part(tmp_path):
    for run in RUNS:
        train(tmp_path / "old.parquet", perturb=run)
    old = read(tmp_path / "old.parquet")
    train(tmp_path / "new.parquet", start=4)
    new = read(tmp_path / "new.parquet")
    row = compare(old, new).row
    assert (new.start, new.steps, row["from_step"], row["steps"]) == (4, 5, 4, 5)
    assert (row["class"], row["note"]) == ("identical", "")

    def decayed(step, model):
        with torch.no_grad():
            model[0].weight.mul_(1 - 1e-4 * (step == 5))

    train(tmp_path / "new.parquet", start=4, change=decayed)
    row = compare(old, read(tmp_path / "new.parquet")).row
    assert [row[key] for key in ("class", "outside_step", "kind")] == ["different", 5, "optimizer"]


class Wrapped(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module


def test_names_are_paired_through_wrappers(tmp_path):
    train(tmp_path / "old.parquet")
    train(tmp_path / "new.parquet", wrap=Wrapped)
    row = compare(read(tmp_path / "old.parquet"), read(tmp_path / "new.parquet")).row
    assert (row["class"], row["note"]) == ("identical", "")
    for name in ("module._orig_mod.0.weight", "_orig_mod.0.weight", "0.module.weight"):
        assert unwrapped(f"gradient of {name}") == "gradient of 0.weight"
    assert unwrapped(LOSS) == LOSS


def test_names_that_stand_twice_are_an_error():
    g, d = nn.Linear(2, 3), nn.Linear(3, 1)
    both = [*g.named_parameters(), *d.named_parameters()]
    with pytest.raises(ValueError, match=r"got 'bias' twice: give prefixes, as in \{"):
        Named(both)
    with pytest.raises(TypeError, match=r'of several modules a dict, as \{"generator": g'):
        Named([g, d])
    assert list(Named({"g": g, "d": d}).parameters()) == [
        "g.weight", "g.bias", "d.weight", "d.bias",
    ]  # fmt: skip


def test_another_precision_is_not_comparable_unless_its_floor_was_measured(tmp_path):
    old, new = tmp_path / "old.parquet", tmp_path / "new.parquet"
    for run in RUNS:
        train(old, perturb=run)
    train(new, autocast=True)
    row = compare(read(old), read(new)).row
    assert row["class"] == "undecided"
    assert "not comparable: old.parquet computes in float32, new.parquet in bfloat16" in row["note"]
    for run in RUNS:
        train(new, autocast=True, perturb=run)
    row = compare(read(old), read(new)).row
    print({key: row[key] for key in ("class", "max_ratio", "note", "resolution_of_all")})
    assert row["class"] == "rounding"
    assert row["start_old"] == read(old).losses()[0]

    def wrong(step, model):
        model[0].weight.grad *= 2

    train(old, change=wrong)
    row = compare(read(old), read(new)).row
    assert (row["class"], row["outside_tensor"]) == ("different", "gradient of 0.weight")


def test_the_precision_is_known_of_a_loss_without_a_graph(tmp_path):
    """As of the mean of micro-batches."""

    def train_detached(path, autocast):
        model = nn.Linear(3, 2)
        with record_run(path, model) as run:
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = model(torch.ones(4, 3)).float().square().mean()
            loss.backward()
            run.step(loss.detach())
        return read(path).precision

    assert "bfloat16" in train_detached(tmp_path / "run.parquet", True)
    assert train_detached(tmp_path / "run.parquet", False) == []


def test_the_file_states_its_version(tmp_path):
    import pyarrow.parquet as pq

    train(tmp_path / "run.parquet")
    (text,) = [
        value
        for key, value in pq.read_metadata(tmp_path / "run.parquet").metadata.items()
        if key == b"gradtwin.run"
    ]
    assert json.loads(text)["version"] == 2


def test_the_loss_alone_of_a_script_of_before(tmp_path):
    """Without a model; and the overhead is that of a few calls."""
    began = time.thread_time()
    with record_run(tmp_path / "run.parquet") as run:
        for step in range(1000):
            run.step(torch.tensor(1.0 / (1 + step)))
    each = (time.thread_time() - began) / 1000
    print(f"{each * 1e6:.0f} µs a step")
    assert each < 1e-3
    assert read(tmp_path / "run.parquet").steps == 1000
