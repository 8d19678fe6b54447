"""Training runs of one's own: recorded to the bit, perturbed, and held against each other."""

import json
import os

import numpy as np
import pandas as pd
import pytest
import torch
from gradtwin.comparisons.cli.app import app
from gradtwin.comparisons.runs.comparison import compare, distances
from gradtwin.comparisons.runs.recording import AGAIN, BITS, LOSS, bits, read, values
from gradtwin.comparisons.training.datasets import load
from torch import nn
from typer.testing import CliRunner

from gradtwin import record_run

F = nn.functional
STEPS = 40


class Halves(nn.Linear):
    """A linear layer that adds up two halves of its inputs."""

    def forward(self, x):
        n = self.in_features // 2
        left, right = x[:, :n] @ self.weight[:, :n].T, x[:, n:] @ self.weight[:, n:].T
        return left + right + self.bias


def mean_of_parts(losses):
    return sum(part.sum() for part in losses.split(8)) / len(losses)


def train(
    path,
    dtype=torch.float64,
    linear=nn.Linear,
    mean=torch.mean,
    optimizer=torch.optim.SGD,
    lr=0.1,
    zero_grad=True,
    order=0,
    steps=STEPS,
    at=lambda step, model: None,
    named=lambda model: model,
    recorded=None,
    **settings,
):
    """A network that reads digits, 32 at a time; gives its parameters at the end."""
    torch.manual_seed(0)
    data = load("digits")
    x, target = torch.tensor(data.x, dtype=dtype), torch.tensor(data.target)
    model = nn.Sequential(linear(64, 12), nn.Tanh(), linear(12, 10)).to(dtype)
    machine = optimizer(model.parameters(), lr=lr, **settings)
    rng = np.random.default_rng(order)
    with record_run(path, named(model), **recorded or {}) as run:
        for step in range(1, steps + 1):
            rows = rng.permutation(len(x))[:32]
            if zero_grad:
                machine.zero_grad()
            loss = mean(F.cross_entropy(model(x[rows]), target[rows], reduction="none"))
            loss.backward()
            at(step, model)
            run.step(loss)
            machine.step()
    return model.state_dict()


def fit(path, steps=60, lr=0.1, mean=torch.mean, **recorded):
    """A line through the diabetes data, all of it at once."""
    data = load("diabetes")
    x, target = (torch.tensor(a, dtype=torch.float32) for a in (data.x, data.target))
    weight = torch.zeros(x.shape[1], 1, requires_grad=True)
    with record_run(path, {"weight": weight}, **recorded) as run:
        for _ in range(steps):
            weight.grad = None
            loss = mean((x @ weight - target).square())
            loss.backward()
            run.step(loss)
            with torch.no_grad():
                weight -= lr * weight.grad


ALL = {"gradients": True, "parameters": True}


def with_floor(path, training=train, **settings):
    for k in (0, AGAIN, *range(1, 7)):
        training(path, recorded={**ALL, "perturb": k}, **settings)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def old(folder):
    return {
        (dtype, optimizer): with_floor(
            folder / f"{dtype}-{optimizer.__name__}.parquet",
            dtype=dtype,
            optimizer=optimizer,
            lr={torch.optim.SGD: 0.1, torch.optim.Adam: 0.01}[optimizer],
        )
        for dtype, optimizer in (
            (torch.float64, torch.optim.SGD),
            (torch.float32, torch.optim.SGD),
            (torch.float64, torch.optim.Adam),
        )
    }


def judged(old, new):
    row = compare(read(old), read(new)).row
    print({k: row[k] for k in ("class", "kind", "max_ratio", "outside_step", "outside_tensor")})
    return row


def kept(path, run=0):
    """What is kept to the bit, by step and quantity."""
    found = {}
    for step in read(path).walk(run):
        for name, (quantity, data) in step.others().items():
            if quantity.form == BITS and not name.startswith("input"):
                found[step.number, name] = (quantity.dtype, quantity.shape, data)
    return found


SGD, ADAM = torch.optim.SGD, torch.optim.Adam


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_rerun_is_identical(old, tmp_path, dtype):
    train(tmp_path / "new.parquet", dtype=dtype, recorded=ALL)
    row = judged(old[dtype, SGD], tmp_path / "new.parquet")
    assert (row["class"], row["max_drift"], row["first_step"], row["note"]) == (
        "identical", 0, None, "",
    )  # fmt: skip


@pytest.mark.thinned(2)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "change",
    [
        {"mean": lambda losses: losses.flip(0).mean()},
        {"mean": mean_of_parts},
        {"mean": lambda losses: sum(losses) / len(losses)},
        {"linear": Halves},
    ],
    ids=["flipped", "in parts", "one by one", "halves"],
)
def test_another_order_of_computing_is_rounding(old, tmp_path, dtype, change):
    train(tmp_path / "new.parquet", dtype=dtype, recorded=ALL, **change)
    row = judged(old[dtype, SGD], tmp_path / "new.parquet")
    assert row["class"] in ("identical", "rounding")  # kernels may add in the same order
    assert row["max_ratio"] <= 4


def test_a_fused_optimizer_is_rounding(old, tmp_path):
    train(tmp_path / "new.parquet", optimizer=ADAM, lr=0.01, fused=True, recorded=ALL)
    row = judged(old[torch.float64, ADAM], tmp_path / "new.parquet")
    assert row["class"] in ("identical", "rounding")
    if row["class"] == "rounding":
        assert row["first_quantity"].startswith("parameter")  # all gradients before were the same


@pytest.mark.parametrize(
    ("fault", "step", "kind", "telling", "first"),
    [
        ({"lr": 0.1 * (1 + 1e-4)}, 2, "optimizer", "parameter 2.bias", "parameter 0.weight"),
        ({"weight_decay": 1e-4}, 2, "optimizer", "parameter 2.weight", "parameter 0.weight"),
        # the second gradient is the first that has one before it
        ({"zero_grad": False}, 2, "backward", "gradient of 2.bias", "gradient of 2.bias"),
        ({"order": 1}, 1, "data", LOSS, LOSS),
    ],
    ids=["rate", "decay", "zero_grad", "order"],
)
def test_a_fault_is_different(old, tmp_path, fault, step, kind, telling, first):
    train(tmp_path / "new.parquet", recorded=ALL, **fault)
    row = judged(old[torch.float64, SGD], tmp_path / "new.parquet")
    found = [row[name] for name in ("class", "outside_step", "kind", "outside_tensor")]
    assert found == ["different", step, kind, telling]
    assert (row["first_step"], row["first_quantity"]) == (step, first)


def test_a_single_gradient_is_named_with_its_element(old, tmp_path):
    def at(step, model):
        if step == 5:
            model[2].weight.grad[3, 4] *= 1 + 2**-50

    train(tmp_path / "new.parquet", at=at, recorded=ALL)
    row = judged(old[torch.float64, SGD], tmp_path / "new.parquet")
    first = [row[f"first_{name}"] for name in ("step", "quantity", "index")]
    assert first == [5, "gradient of 2.weight", "3, 4"]
    assert 4 <= row["first_ulp"] <= 8
    assert row["first_new"] / row["first_old"] == pytest.approx(1 + 2**-50, abs=2**-52)


def test_perturbed_runs_repeat_bit_for_bit_and_differ_from_each_other(old, tmp_path):
    again = read(with_floor(tmp_path / "again.parquet"))
    before = read(old[torch.float64, SGD])
    assert sorted(before.runs) == list("01234567")
    for run in range(8):
        assert list(before.walk(run)) == list(again.walk(run))
    losses = np.array([before.losses(k) for k in range(8)])
    assert (losses[AGAIN] == losses[0]).all()
    assert len(np.unique(losses[:7], axis=0)) == 7
    assert abs(losses - losses[0]).max() < 1e-13


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_one_ulp_is_that_of_the_dtype(tmp_path, dtype):
    start = torch.tensor([1.5, -300.0, 0.0, 0.01], dtype=dtype)
    weight, eps = start.clone().requires_grad_(), torch.finfo(dtype).eps
    for k in (0, 1):
        with record_run(tmp_path / "run.parquet", {"weight": weight}, perturb=k) as run:
            before = weight.detach().clone()  # in a perturbed run it has moved at the start
            weight.grad = start.clone().flip(0)
            run.step(torch.ones((), dtype=dtype))
            if not k:
                assert torch.equal(weight, start)
    pairs = ((before, start), (weight.detach(), before), (weight.grad, start.flip(0)))
    for now, was in pairs:
        moved = (now.double() - was.double()).abs()
        if dtype.itemsize > 2:  # of 16 bits gradients alone, one in two
            assert torch.equal(moved > 0, was != 0)  # Adam would make whole steps of a moved zero
        assert not moved[was == 0].any()
        assert (moved <= 2 * eps * was.double().abs()).all()  # 1 ± eps, rounded


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_in_a_run_that_diverges_the_largest_number_may_become_infinite(tmp_path, dtype):
    for perturb in (0, 1):
        weight = torch.full((64,), 0.75, dtype=dtype, requires_grad=True)
        weight.grad = torch.full_like(weight, torch.finfo(dtype).max)
        with record_run(tmp_path / "run.parquet", [("w", weight)], perturb=perturb) as run:
            run.step(weight[0])
        assert {*weight.grad.isinf().tolist()} == ({False, True} if perturb else {False})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_values_are_kept_to_the_bit(tmp_path, dtype):
    torch.manual_seed(0)
    numbers = [-0.0, torch.inf, torch.nan, torch.finfo(dtype).smallest_normal / 2, 1 / 3]
    weight = torch.cat([torch.randn(7), torch.tensor(numbers)]).to(dtype).reshape(3, 4)
    weight.requires_grad_().grad = torch.randn(4, 3).to(dtype).T  # not contiguous
    path = tmp_path / "run.parquet"
    with record_run(path, [("weight", weight)], **ALL) as run:
        run.step(weight[0, 0])
    found = kept(path)
    assert list(found) == [(1, "parameter weight"), (1, "gradient of weight")]
    for one, tensor in zip(found.values(), (weight, weight.grad), strict=True):
        assert one == bits("", tensor)
        assert one[0] == str(tensor.dtype)[6:]
        assert values(one).dtype == one[0].replace("bfloat16", "float32")
        there = torch.from_numpy(values(one).copy()).to(dtype)
        assert torch.equal(there.nan_to_num(5.0), tensor.detach().nan_to_num(5.0))
    about = read(path).runs["0"]
    assert about["dtype"] == str(dtype)[6:]
    assert (about["torch"], about["numpy"]) == (torch.__version__, np.__version__)
    assert (about["ended"], about["steps"]) == (True, 1)
    assert pd.read_parquet(path)["loss"].item() == weight[0, 0].item()


def test_recording_changes_nothing_and_other_forms_of_a_model_record_the_same(old, tmp_path):
    alone = train(tmp_path / "loss.parquet", named=lambda model: None)
    for name, form in (
        ("dict", lambda model: dict(model.named_parameters())),
        ("pairs", lambda model: model.named_parameters()),
    ):
        path = tmp_path / f"{name}.parquet"
        found = train(path, named=form, recorded=ALL)
        assert all(torch.equal(found[name], alone[name]) for name in alone)
        assert kept(path) == kept(old[torch.float64, SGD])
    row = judged(old[torch.float64, SGD], tmp_path / "loss.parquet")
    assert row["class"] == "identical"
    assert row["note"] == "8 quantities in one run only, as gradient of 0.bias"
    result = call(tmp_path, old[torch.float64, SGD], tmp_path / "loss.parquet")
    assert row["note"] in " ".join(result.output.split())


def test_bfloat16_ulps():
    a = torch.tensor([1.0, -1.0, 2**-133, 3.0], dtype=torch.bfloat16)
    b = torch.tensor([1 + 2**-7, -1 - 2**-6, -(2**-133), 3.0], dtype=torch.bfloat16)
    assert distances("bfloat16", *(values(bits("", t)) for t in (a, b))).tolist() == [1, 2, 2, 0]


def test_runs_that_diverge_keep_their_class(tmp_path):
    old, new = tmp_path / "old.parquet", tmp_path / "new.parquet"
    for k in range(8):
        fit(old, lr=20.0, perturb=k)
    assert np.isnan(read(old).losses()[-1])
    fit(new, lr=20.0)
    assert judged(old, new)["class"] == "identical"
    fit(new, lr=20.0, mean=mean_of_parts)
    row = judged(old, new)
    assert row["class"] == "rounding"
    assert row["first_differing_step"] < 20
    for k in range(8):
        fit(new, perturb=k)
    assert judged(old, new)["class"] == "different"  # only one of them diverges
    row = judged(new, old)
    assert (row["class"], row["outside_step"], row["kind"]) == ("different", 2, "optimizer")
    found = call(tmp_path, new, old)
    assert found.exit_code == 1, found.output


def call(out, *arguments):
    return CliRunner().invoke(
        app, ["curves", "--compare", *map(str, arguments), "--out", str(out / "out")]
    )


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({}, 0, "identical: 40 steps, bit for bit."),
        ({"linear": Halves}, 0, "rounding: at most "),
        ({"weight_decay": 1e-4}, 1, "different from step 2, parameter "),
    ],
    ids=["identical", "rounding", "different"],
)
def test_the_command(old, tmp_path, change, code, text):
    new = tmp_path / "new.parquet"
    train(new, recorded=ALL, **change)
    result = call(tmp_path, old[torch.float64, SGD], new)
    assert result.exit_code == code, result.output
    assert text in " ".join(result.output.split())
    assert "gradtwin show" not in result.output  # has nothing to do with recorded runs
    (row,) = pd.read_csv(tmp_path / "out/compare.csv").to_dict("records")
    assert row["class"] == text.split()[0].rstrip(":")
    assert (tmp_path / "out/compare.png").read_bytes().startswith(b"\x89PNG")


def test_json_is_all_there_is_on_standard_output(old, tmp_path):
    path = old[torch.float32, SGD]
    found = json.loads(call(tmp_path, path, path, "--json").stdout)
    (row,) = found["tables"]["compare"]
    assert (row["class"], row["perturbed_runs"], row["steps"]) == ("identical", 6, STEPS)
    assert found["explained"] is True


def test_without_perturbed_runs_there_is_no_floor(tmp_path):
    old, new = tmp_path / "old.parquet", tmp_path / "new.parquet"
    for k in (0, 1, 2, 3, 5):
        train(old, recorded={"perturb": k})
    train(new)
    assert call(tmp_path, old, new).exit_code == 0  # the same needs no floor
    train(new, linear=Halves)
    result = call(tmp_path, old, new)
    assert result.exit_code == 2
    output = " ".join(result.output.split())
    assert "no floor: old.parquet lacks runs with perturb=4, 6" in output
    assert "Largest drift of the loss: " in output
    assert "First difference: step " in output
    row = judged(old, new)
    assert row["class"] == "undecided"
    assert row["first_differing_step"] >= row["first_step"]
    assert np.isnan(row["max_ratio"])


def test_what_cannot_be_compared(old, tmp_path):
    good = old[torch.float64, SGD]
    data = good.read_bytes()
    damaged = bytearray(data)
    damaged[len(data) // 20] ^= 1  # in the run itself
    for name, content in (("half", data[: len(data) // 2]), ("tail", data[-len(data) // 2 :]),
                          ("bit", damaged), ("empty", b""), ("text", b"loss,1\n")):  # fmt: skip
        (tmp_path / f"{name}.parquet").write_bytes(content)
    pd.DataFrame({"loss": [1.0]}).to_parquet(tmp_path / "foreign.parquet")
    train(tmp_path / "short.parquet", steps=STEPS - 1, recorded=ALL)
    train(tmp_path / "other.parquet", dtype=torch.float32)
    with record_run(tmp_path / "wide.parquet", {"w": torch.ones(2)}, parameters=True) as run:
        run.step(torch.ones(()))
    with record_run(tmp_path / "long.parquet", {"w": torch.ones(3)}, parameters=True) as run:
        run.step(torch.ones(()))
    with pytest.raises(ValueError, match=r"shape of parameter w: expected \(2,\) .*, got \(3,\)"):
        judged(tmp_path / "wide.parquet", tmp_path / "long.parquet")
    with record_run(tmp_path / "long.parquet", {"w": torch.zeros(2)}, parameters=True) as run:
        run.step(torch.ones((), dtype=torch.bfloat16))
    with pytest.raises(ValueError, match=r"dtype of loss: expected float32 .*, got bfloat16"):
        judged(tmp_path / "wide.parquet", tmp_path / "long.parquet")
    for name, text in {
        "half": "no Parquet file, or damaged",
        "tail": "damaged",
        "bit": "damaged",
        "empty": "no Parquet file, or damaged",
        "text": "no Parquet file, or damaged",
        "foreign": "got another Parquet file",
        "nowhere": "No such file",
        "short": "expected the 40 of",
        "other": "dtype of loss: expected float64",
    }.items():
        result = call(tmp_path, good, tmp_path / f"{name}.parquet")
        assert result.exit_code == 2, name
        output = "".join(result.output.replace("│", "").split())
        assert "".join(text.split()) in output, name
    assert "(thosethatbothhaveareidentical)" in "".join(
        call(tmp_path, good, tmp_path / "short.parquet").output.replace("│", "").split()
    )
    assert not (tmp_path / "out").exists()
    result = CliRunner().invoke(app, ["curves", "--compare", "a", "b", "--lr", "1"])
    assert (result.exit_code, "without the options of a grid" in result.output) == (2, True)


def test_a_run_cut_short_replaces_nothing_and_is_marked(old, tmp_path):
    def at(step, model):
        if step == 8:
            raise ZeroDivisionError("planted")

    new = tmp_path / "new.parquet"
    with pytest.raises(ZeroDivisionError) as error:
        train(new, at=at)
    assert "marked as cut short" in error.value.__notes__[0]
    whole = new.read_bytes()
    assert (read(new).steps, len(read(new).losses())) == (7, 7)
    result = call(tmp_path, old[torch.float64, SGD], new)
    assert result.exit_code == 2
    assert "cutshortafter7steps(ZeroDivisionError:planted)" in "".join(
        result.output.replace("│", "").split()
    )
    with pytest.raises(ZeroDivisionError) as error:
        train(new, at=at, steps=20)
    assert "kept as it was" in error.value.__notes__[0]
    assert new.read_bytes() == whole
    with pytest.raises(ValueError, match="cut short after 7 steps"):
        train(new, recorded={"perturb": 1})
    train(new)
    assert judged(old[torch.float64, SGD], new)["class"] == "identical"
    with pytest.raises(ZeroDivisionError):
        train(new, at=at, recorded={"perturb": 1})
    assert list(read(new).runs) == ["0"]
    assert {p.name for p in tmp_path.iterdir()} == {"new.parquet"}


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "run.parquet"
    fit(path, steps=3)
    whole = path.read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for k in (0, 1):
        with pytest.raises(OSError, match="No space") as error:
            fit(path, steps=3, lr=0.2, perturb=k)
        assert any("is kept in" in note for note in error.value.__notes__)
    assert path.read_bytes() == whole
    assert {p.name for p in tmp_path.iterdir()} == {"run.parquet", "run.parquet.parts"}


def test_a_perturbed_run_has_to_be_of_the_same_training(tmp_path):
    path = tmp_path / "run.parquet"
    with pytest.raises(FileNotFoundError, match="the run itself in"):
        train(path, recorded={"perturb": 1})
    train(path)
    whole = path.read_bytes()
    with pytest.raises(ValueError, match="seed all that it draws"):
        train(path, order=1, recorded={"perturb": 1})
    with pytest.raises(ValueError, match=r"steps: expected the 40 of .*, got 39"):
        train(path, steps=39, recorded={"perturb": 1})
    with pytest.raises(ValueError, match="comes after backward"):
        train(path, at=lambda step, model: model.zero_grad(), recorded={"perturb": 1})
    assert path.read_bytes() == whole
    train(path, recorded={"perturb": 2})
    train(path, recorded={"perturb": 2})
    assert list(read(path).runs) == ["0", "2"]
    assert len(read(path).losses(2)) == STEPS


def test_wrong_arguments(tmp_path):
    net, path = nn.Linear(2, 1), tmp_path / "run.parquet"
    for settings, error, text in (
        ({"perturb": 8}, ValueError, "perturb: expected 0 .* 1 to 6, .*, got 8"),
        ({"perturb": "a"}, ValueError, "perturb: expected 0 .* got 'a'"),
        ({"gradients": True}, ValueError, "model: expected .*, got None"),
        ({"model": net.parameters()}, TypeError, "model: expected .*, got generator"),
        ({"model": 3}, TypeError, "model: expected .*, got int"),
        ({"path": tmp_path / "train.py"}, ValueError, "ends in .parquet, got .*train.py"),
    ):
        with pytest.raises(error, match=text):
            record_run(**{"path": path, **settings})
    mine = tmp_path / "mine.parquet"
    pd.DataFrame({"loss": [1.0]}).to_parquet(mine)
    with pytest.raises(ValueError, match="expected a recording"):
        record_run(mine)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="expected a folder, got a file"):
        record_run(tmp_path / "file/run.parquet")
    for loss, error, text in (
        (1.5, TypeError, "loss: expected the tensor, .*, got float"),
        (torch.ones(3), ValueError, r"loss: expected one number, got shape \(3,\)"),
        (torch.tensor(1), TypeError, "loss: expected float64, .*, got int64"),
    ):
        with pytest.raises(error, match=text), record_run(path) as run:
            run.step(loss)
    with pytest.raises(ValueError, match="at least one call"), record_run(path):
        pass
    assert not path.exists()


def test_sparse_gradients(tmp_path):
    for k in (0, 1):
        torch.manual_seed(0)
        table = nn.Embedding(5, 3, sparse=True)
        path = tmp_path / f"{k}.parquet"
        if k:
            path.write_bytes((tmp_path / "0.parquet").read_bytes())
        with record_run(path, table, perturb=k, **ALL) as run:
            loss = table(torch.tensor([1, 1, 4])).square().sum()
            loss.backward()
            before = table.weight.grad.to_dense()
            run.step(loss)
            after = table.weight.grad.to_dense()
        assert torch.equal(before, after) == (k == 0)
        assert torch.equal(before == 0, after == 0)
        found = kept(path, k)[1, "gradient of weight"]
        assert np.array_equal(values(found), before.numpy())
