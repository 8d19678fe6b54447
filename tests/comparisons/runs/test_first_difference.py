"""What differs first was made of the same numbers: so it is seen however wide chaos is by then."""

import contextlib

import pytest
import torch
from gradtwin.comparisons.runs.comparison import compare
from gradtwin.comparisons.runs.figure import told
from gradtwin.comparisons.runs.recording import AGAIN, read
from torch import nn

from gradtwin import record_run

F = nn.functional


def orthogonal(gradient, order):
    """As Muon makes a step, in 16 bits; `order` is that in which three matrices are multiplied."""
    x = gradient.bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        x = 1.5 * x - 0.5 * ((x @ x.T) @ x if order == "left" else x @ (x.T @ x))
    return x.float()


def train(path, perturb=0, low=False, rate=1.0, after=1.0, swap=False, order="", steps=24):
    """A net at so large a rate that rounding grows to all of the loss."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 4)
    )
    buffers = [torch.zeros_like(p) for p in model.parameters()]
    rng = torch.Generator().manual_seed(1)
    autocast = torch.autocast("cpu", torch.bfloat16) if low else contextlib.nullcontext()
    with record_run(path, model, perturb=perturb) as run:
        for step in range(steps):
            x = 3 * torch.randn(16, 12, generator=rng)
            target = (x[:, 0] > 0).long() + 2 * (x[:, 1] * x[:, 2] > 0).long()
            target = 3 - target if swap and step == steps - 4 else target
            model.zero_grad()
            with autocast:
                loss = F.cross_entropy(model(x).float(), target)
            loss.backward()
            run.step(loss)
            lr = 2.0 * rate * (after if step >= steps - 4 else 1.0)
            with torch.no_grad():
                for p, buffer in zip(model.parameters(), buffers, strict=True):
                    buffer.mul_(0.9).add_(p.grad)
                    p.sub_(lr * (orthogonal(p.grad, order) if order and p.ndim > 1 else buffer))


def recorded(folder, **settings):
    for run in (0, AGAIN, *range(1, 7)):
        train(folder / "old.parquet", run, **settings)
    return read(folder / "old.parquet")


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    made = {low: recorded(tmp_path_factory.mktemp(f"{low}"), low=low) for low in (False, True)}
    return made.__getitem__


def judged(old, tmp_path, **change):
    train(tmp_path / "new.parquet", **change)
    row = compare(old, read(tmp_path / "new.parquet")).row
    print(told([row]))
    return row


@pytest.mark.parametrize(
    ("low", "change", "step", "kind"),
    [
        (True, {"rate": 1.01}, 2, "optimizer"),
        (True, {"after": 1.01}, 22, "optimizer"),
        (False, {"after": 1.01}, 22, "optimizer"),
        (False, {"swap": True}, 21, "forward"),  # targets are not known
    ],
)
def test_a_fault_is_seen_where_it_begins(old, tmp_path, low, change, step, kind):
    row = judged(old(low), tmp_path, low=low, **change)
    found = [row[key] for key in ("class", "outside_step", "kind")]
    assert found == ["different", step, kind]


@pytest.mark.parametrize("low", [False, pytest.param(True, marks=pytest.mark.sweep)])
def test_an_optimizer_of_16_bits_may_round_as_it_does(tmp_path, low):
    """What it rounds is more than FAR u of a step, and no fault."""
    settings = {"low": low, "rate": 0.02}
    old = recorded(tmp_path, order="left", **settings)
    row = judged(old, tmp_path, order="right", **settings)
    assert row["first_step"] == 2
    assert row["class"] == "rounding"
    settings["rate"] *= 1.1
    assert judged(old, tmp_path, order="left", **settings)["class"] == "different"


def test_gradients_are_themselves_where_no_gradient_goes(tmp_path):
    """What is read of a tensor of 16 bits, and written, is not a copy that was moved."""
    weight = torch.ones(64, dtype=torch.bfloat16, requires_grad=True)
    for perturb in (0, 1):
        with record_run(tmp_path / "run.parquet", {"w": weight}, perturb=perturb) as run:
            weight.grad = torch.ones_like(weight)
            run.step(torch.ones(()))
            with torch.no_grad():
                weight.grad.mul_(0.0)
                weight.view(8, 8)[3] = 2.0
                weight.detach()[:8].mul_(0.0)
            assert not weight.grad.any()
            assert (weight[24:32] == 2).all()
            assert not weight[:8].any()
