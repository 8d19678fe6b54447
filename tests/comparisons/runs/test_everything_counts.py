"""Everything recorded is judged: gradients, parameters and buffers as well as the loss.

The changes are those that a comparison of losses takes for rounding.
"""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from gradtwin.comparisons.runs.comparison import compare
from gradtwin.comparisons.runs.figure import told
from gradtwin.comparisons.runs.perturbing import Buffers
from gradtwin.comparisons.runs.recording import AGAIN, read
from gradtwin.comparisons.runs.resolution import Resolution
from gradtwin.comparisons.runs.sketches import dense_sketch, distance
from torch import nn

from gradtwin import record_run

F = nn.functional
RUNS = (0, AGAIN, *range(1, 7))


class Block(nn.Module):
    """A residual block of a transformer, without attention."""

    def __init__(self, width, eps, gelu):
        super().__init__()
        self.norm, self.gelu = nn.LayerNorm(width, eps=eps), gelu
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        return x + self.down(F.gelu(self.up(self.norm(x)), approximate=self.gelu))


def text(path, perturb=0, lr=1e-3, eps=1e-5, gelu="none", scale=1.0, steps=6, **kept):
    """Embeddings as small as those of GPT-2, two blocks, Adam."""
    torch.manual_seed(0)
    blocks = [Block(24, eps, gelu) for _ in range(2)]
    model = nn.Sequential(nn.Embedding(30, 24), *blocks, nn.Linear(24, 30))
    nn.init.normal_(model[0].weight, std=0.02)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    rng = np.random.default_rng(0)
    with record_run(path, model, perturb=perturb, **kept) as run:
        for _ in range(steps):
            ids = torch.tensor(rng.integers(0, 30, (4, 9)))
            optimizer.zero_grad()
            loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
            (loss * scale).backward()
            run.step(loss)
            optimizer.step()


def image(path, perturb=0, momentum=0.1, lr=0.05, noise=None, shift=0.0, steps=6):
    """Batch norm; `noise` is a generator that draws an augmentation from the second step on."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(12, 16), nn.BatchNorm1d(16, momentum=momentum), nn.Linear(16, 3)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    rng = np.random.default_rng(0)
    with record_run(path, model, perturb=perturb) as run:
        for step in range(steps):
            x = torch.tensor(rng.standard_normal((16, 12)), dtype=torch.float32)
            target = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
            if noise is not None and step:
                x = x + torch.tensor(noise.standard_normal(x.shape), dtype=torch.float32)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x + shift), target)
            loss.backward()
            run.step(loss)
            optimizer.step()


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    folder = tmp_path_factory.mktemp("everything")
    made = {"calm": (text, {}), "chaotic": (text, {"lr": 0.1}), "image": (image, {})}
    for name, (train, settings) in made.items():
        for run in RUNS:
            train(folder / f"{name}.parquet", run, **settings)
    return lambda name: read(folder / f"{name}.parquet")


def judged(old, tmp_path, train, **change):
    train(tmp_path / "new.parquet", **change)
    row = compare(old, read(tmp_path / "new.parquet")).row
    print(told([row]))
    return row


@pytest.mark.parametrize(
    ("name", "change", "step", "kind"),
    [
        ("calm", {"scale": 32.0}, 1, "backward"),
        ("calm", {"gelu": "tanh"}, 1, "forward"),
        ("calm", {"eps": 1e-6}, 1, "forward"),
        ("calm", {"lr": 1.05e-3}, 2, "optimizer"),
        ("chaotic", {"lr": 0.1, "eps": 1e-6}, 1, "forward"),
        ("chaotic", {"lr": 0.1, "gelu": "tanh"}, 1, "forward"),
        ("image", {"momentum": 0.001}, 1, "statistics"),
        ("image", {"lr": 0.0501}, 2, "optimizer"),
    ],
    ids=lambda value: "-".join(map(str, value.items())) if isinstance(value, dict) else None,
)
def test_what_the_loss_forgives(old, tmp_path, name, change, step, kind):
    row = judged(old(name), tmp_path, image if name == "image" else text, **change)
    assert [row[key] for key in ("class", "outside_step", "kind")] == ["different", step, kind]


def test_gradients_that_share_a_factor_are_said_to(old, tmp_path):
    row = judged(old("calm"), tmp_path, text, scale=32.0)
    assert row["outside_tensor"] == "gradient of 3.bias"  # the first of the backward pass
    assert row["factor"] == pytest.approx(32)
    assert "every gradient is 32 times the old" in told([row])


def test_nothing_but_the_same_is_identical(old, tmp_path):
    assert judged(old("image"), tmp_path, image)["class"] == "identical"


def test_a_run_that_does_not_repeat_itself_shows_nothing(tmp_path):
    rng = np.random.default_rng(1)
    for run in RUNS:
        image(tmp_path / "old.parquet", run, noise=rng)
    row = judged(read(tmp_path / "old.parquet"), tmp_path, image, noise=rng, lr=0.05 * 1.05)
    assert row["class"] == "undecided"
    assert row["note"].startswith("old.parquet does not repeat itself: from step 2, ")


def test_without_being_repeated_it_sees_too_little(tmp_path):
    """As a script for version 0.1 records it."""
    rng = np.random.default_rng(1)
    for run in range(7):
        image(tmp_path / "old.parquet", run, noise=rng)
    row = judged(read(tmp_path / "old.parquet"), tmp_path, image, noise=rng, lr=0.05 * 1.05)
    assert row["class"] == "undecided"
    assert "too little is seen" in told([row])
    assert "not shown to repeat itself" in row["note"]


def constant(path, target, first=False, **settings):
    """One step, whose loss is the square of what is wanted."""
    torch.manual_seed(0)
    model = nn.Linear(4, 1)

    def begin():
        return (model(torch.ones(8, 4)) - target).square().mean()

    with record_run(path, model, first=begin if first else None, **settings) as run:
        for _ in range(2):
            model.zero_grad()
            loss = begin()
            loss.backward()
            run.step(loss)


@pytest.mark.parametrize("first", [False, True])
def test_the_first_step_decides_without_perturbed_runs(tmp_path, first):
    """A loss of 18.27 instead of 4.57, from the same parameters."""
    old = tmp_path / "old.parquet"
    constant(old, 2.0, first)
    row = judged(read(old), tmp_path, constant, target=4.3)
    assert [row[key] for key in ("class", "outside_step", "outside_tensor")] == [
        "different", 1, "loss",
    ]  # fmt: skip
    # What is off by a few roundings is seen only with a floor, and what may be one is undecided.
    row = judged(read(old), tmp_path, constant, target=2.0 * (1 + 1e-4))
    assert row["class"] == ("different" if first else "undecided")
    row = judged(read(old), tmp_path, constant, target=2.0 * (1 + 2e-7))
    assert row["class"] == "undecided"
    assert "no floor" in row["note"]


def test_first_draws_nothing_and_changes_nothing(tmp_path):
    def train(first):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 1))

        def begin():
            return model(torch.ones(8, 4).cumsum(0)).square().mean()

        with record_run(tmp_path / "run.parquet", model, first=begin if first else None) as run:
            loss = begin()
            loss.backward()
            run.step(loss)
        return [*model.state_dict().values(), torch.rand(3)]

    assert all(map(torch.equal, train(False), train(True)))
    assert list(map(int, read(tmp_path / "run.parquet").runs)) == [0, *range(10, 17)]


def test_the_data_is_told_from_the_forward_pass(old, tmp_path):
    row = judged(old("image"), tmp_path, image, shift=1e-2)
    assert (row["class"], row["kind"]) == ("different", "data")


def test_a_weight_of_many_that_differs_at_the_start_is_seen(old, tmp_path, monkeypatch):
    real = nn.init.normal_

    def near(weight, **settings):
        real(weight, **settings)
        with torch.no_grad():
            weight[3, 4] *= 1 + 1e-6

    monkeypatch.setattr(nn.init, "normal_", near)
    row = judged(old("calm"), tmp_path, text)
    assert [row[key] for key in ("class", "outside_step", "kind", "outside_tensor")] == [
        "different", 1, "start", "parameter 0.weight",
    ]  # fmt: skip


def test_a_gradient_that_is_missing_is_different(old, tmp_path, monkeypatch):
    plain = F.gelu
    monkeypatch.setattr(F, "gelu", lambda *a, **settings: plain(*a, **settings).detach())
    row = judged(old("calm"), tmp_path, text)
    assert (row["class"], row["kind"]) == ("different", "backward")


@pytest.mark.parametrize(("off", "found"), [(2**-23, "rounding"), (1e-4, "different")])
def test_other_last_digits_at_the_start_are_rounding(tmp_path, monkeypatch, off, found):
    """As another processor draws them, where all numbers are known."""
    for run in RUNS:
        text(tmp_path / "old.parquet", run, full=True)
    real = nn.init.normal_

    def moved(weight, **settings):
        real(weight, **settings)
        with torch.no_grad():
            weight *= 1 + off

    monkeypatch.setattr(nn.init, "normal_", moved)
    row = judged(read(tmp_path / "old.parquet"), tmp_path, text, full=True)
    assert row["class"] == found
    assert found == "rounding" or (row["kind"], row["outside_step"]) == ("start", 1)


def drawn(path, perturb=0, change="", full=False):
    """A step of a net, whose parameters are what another processor draws, or are changed."""
    rng = torch.Generator().manual_seed(3)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 150), nn.Tanh(), nn.Linear(150, 2))
    ulp = torch.finfo(torch.float32).eps
    with torch.no_grad():
        for p in model.parameters():
            if change == "digits":
                p *= 1 + ulp * torch.randint(-2, 3, p.shape, generator=rng)
            elif change == "orthogonal":
                p += 20 * ulp * p.std() * torch.randn(p.shape, generator=rng)
            elif change == "all" and p.ndim > 1:
                p *= 1.0001
        if change in ("one", "one, digits"):
            model[0].weight.view(-1)[model[0].weight.argmax()] *= 1.0001
        if change == "one, digits":
            for p in model.parameters():
                p *= 1 + ulp * torch.randint(-2, 3, p.shape, generator=rng)
    with record_run(path, model, perturb=perturb, full=full) as run:
        for _ in range(3):
            model.zero_grad()
            loss = model(torch.ones(4, 40).cumsum(0)).square().mean()
            loss.backward()
            run.step(loss)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("floor", [True, False])
def test_a_start_is_told_from_what_another_processor_draws(tmp_path, full, floor):
    old = tmp_path / "old.parquet"
    for run in RUNS if floor else (0,):
        drawn(old, run, full=full)
    expected = {
        "digits": "rounding" if floor else "undecided",
        "orthogonal": "undecided",
        "all": "different",
        "one": "different",
        "one, digits": "different",
    }
    for change, kind in expected.items():
        row = judged(read(old), tmp_path, drawn, change=change, full=full)
        assert row["class"] == kind, change
        assert kind != "different" or (row["kind"], row["outside_step"]) == ("start", 1)


KERNELS = """
import torch
from gradtwin import record_run
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(40, 150), torch.nn.Tanh(), torch.nn.Linear(150, 2))
for layer in model[::2]:
    torch.nn.init.normal_(layer.weight, std=0.02)
x = torch.linspace(-1, 1, 160).reshape(4, 40)
with record_run(path, model, perturb=run) as recorder:
    for _ in range(3):
        model.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        recorder.step(loss)
"""


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "NO AVX"), reason="needs two kernels"
)
def test_a_start_drawn_by_other_kernels_is_rounding(tmp_path):
    """The same script under another set of kernels."""
    for run in RUNS:
        exec(compile(KERNELS, "train.py", "exec"), {"path": tmp_path / "old.parquet", "run": run})
    code = f"path, run = {str(tmp_path / 'new.parquet')!r}, 0\n" + KERNELS
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    row = compare(read(tmp_path / "old.parquet"), read(tmp_path / "new.parquet")).row
    print(told([row]))
    assert (row["class"], row["first_step"]) == ("rounding", 1)
    assert row["first_quantity"].startswith("parameter ")


def test_dense_sums(tmp_path):
    for run in RUNS:
        text(tmp_path / "old.parquet", run, sketch="dense")
    old = read(tmp_path / "old.parquet")
    for change, kind in (
        ({"scale": 32.0}, "backward"),
        ({"eps": 1e-6}, "forward"),
        ({"lr": 1.001e-3}, "optimizer"),
    ):
        row = judged(old, tmp_path, text, sketch="dense", **change)
        assert (row["class"], row["kind"]) == ("different", kind)
        assert row["limit"] == 8
    assert judged(old, tmp_path, text, full=True)["class"] == "identical"  # all numbers are known
    with pytest.raises(ValueError, match=r"sketch of parameter 0.weight: expected dense .* sketch"):
        judged(old, tmp_path, text)
    with pytest.raises(ValueError, match="sketch: expected sketch or dense, got 'sparse'"):
        record_run(tmp_path / "new.parquet", sketch="sparse")


@pytest.mark.parametrize("n", [1, 100, 509, 20_000])
def test_dense_sums_know_the_distance_of_few_elements(n):
    """As of many: that of parts is as large, and of one part alone."""
    ratios = []
    for seed in range(20):
        rng = torch.Generator().manual_seed(seed)
        old = torch.randn(n, generator=rng).double()
        new = old.clone()
        new[torch.randint(n, (3,), generator=rng)] += torch.randn(3, generator=rng).double()
        ratios.append(distance(*dense_sketch([old, new])) / float((new - old).norm()))
    assert np.median(ratios) == pytest.approx(1, abs=0.15)
    assert 0.3 < min(ratios) <= max(ratios) < 2


def test_too_little_is_seen_where_the_movement_or_the_gradients_show_little():
    """Of all tensors; half of them, by themselves, would do as well."""
    seen = Resolution()
    seen.judged, seen.scales = np.ones(4, bool), np.array([False, False, True, True])
    for least, enough in (
        ([2, 3, 0.07, 0.05], True),
        ([2, 3, 0.07, 0.2], False),
        ([2, 3, 0.2, 0.07], False),
        ([0.06, 0.09, 0.2, 0.2], True),
    ):
        seen.least = np.array(least)
        assert (seen.too_coarse(halves=True) == "") == enough
    assert "no change of less than 0.075 of what" in seen.too_coarse(halves=False)


def test_buffers_that_a_step_has_moved_are_moved_on():
    """By an ulp; constants, counts and zeros stay."""
    was = {
        "mean": torch.tensor([0.3, 0.0, 2.0]),
        "table": torch.tensor([0.3]),
        "count": torch.tensor(3),
    }
    now = {name: tensor.clone() for name, tensor in was.items()}
    buffers, rng = Buffers(now), np.random.default_rng(0)
    buffers.move(now, rng)
    assert all(torch.equal(now[name], was[name]) for name in now)
    now["mean"][0] = 0.6
    now["count"] += 1
    buffers.move(now, rng)
    moved = now["mean"].clone()
    assert 0 < abs(moved[0] - 0.6) < 3e-7
    buffers.move(now, rng)  # which no step has moved since
    assert torch.equal(now["mean"], moved)
    assert now["mean"][1:].tolist() == [0, 2]
    assert (now["table"], now["count"]) == (was["table"], 4)


def test_a_perturbed_run_moves_buffers(tmp_path):
    def train(perturb):
        model = torch.nn.BatchNorm1d(3, momentum=0.5, affine=True)
        model.register_buffer("seen", torch.zeros(3))
        with record_run(tmp_path / "run.parquet", model, perturb=perturb, full=True) as run:
            for x in torch.arange(24.0).view(2, 4, 3):
                loss = model(x).square().sum()
                loss.backward()
                model.seen.lerp_(x.mean(0), 0.1)  # beside the model
                run.step(loss)

    train(0)
    train(1)
    found = read(tmp_path / "run.parquet")
    seen = [[step.others()["buffer seen"][1] for step in found.walk(run)] for run in (0, 1)]
    assert seen[0][0] == seen[1][0]
    assert seen[0][1] != seen[1][1]
