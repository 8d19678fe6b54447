"""The callbacks of examples/, with Lightning and with the Trainer of Hugging Face: what they record
is what a loop of one's own records."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from gradtwin.comparisons.runs.comparison import compare
from gradtwin.comparisons.runs.recording import read
from torch import nn

from gradtwin import record_run

EXAMPLES = Path(__file__).parents[3] / "examples"
WHY = "needs {}, of the extra frameworks"
STEPS, BATCH = 12, 8

# What these packages warn of is theirs: the number of workers, a folder that is not empty.
pytestmark = pytest.mark.filterwarnings("ignore")


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))


def data():
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(STEPS * BATCH, 6, generator=rng)
    return x, x.sum(1, keepdim=True).sin()


def mean_square(model, x, y, parts=1):
    """In as many parts added up."""
    apart = (model(x) - y).square()
    return sum(part.sum() for part in apart.split(-(-len(x) // parts))) / len(x)


def by_hand(path, lr=0.1, parts=1, clip=1e9, **recorded):
    x, y = data()
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    with record_run(path, model, **recorded) as run:
        for rows in torch.arange(len(x)).split(BATCH):
            optimizer.zero_grad()
            loss = mean_square(model, x[rows], y[rows], parts)
            loss.backward()
            run.step(loss)
            nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()


def by_lightning(path, lr=0.1, parts=1, accumulate=1, wrong_at=None, **recorded):
    lightning = pytest.importorskip("lightning.pytorch", reason=WHY.format("lightning"))
    steps = runpy.run_path(str(EXAMPLES / "lightning_run.py"))["RecordSteps"]

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net()

        def training_step(self, batch, at):
            if at == wrong_at:
                raise ZeroDivisionError("planted")
            return mean_square(self.net, *batch, parts)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=lr, momentum=0.9)

    rows = torch.utils.data.TensorDataset(*data())
    loader = torch.utils.data.DataLoader(rows, batch_size=BATCH // accumulate)
    module = Module()
    with record_run(path, module.net, **recorded) as run:
        lightning.Trainer(
            max_epochs=1, accelerator="cpu", devices=1, logger=False, callbacks=[steps(run)],
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            accumulate_grad_batches=accumulate, default_root_dir=path.parent,
        ).fit(module, loader)  # fmt: skip


def by_trainer(path, lr=0.1, parts=1, accumulate=1, wrong_at=None, **recorded):
    transformers = pytest.importorskip("transformers", reason=WHY.format("transformers"))
    pytest.importorskip("accelerate", reason=WHY.format("accelerate"))
    steps = runpy.run_path(str(EXAMPLES / "trainer_run.py"))["RecordSteps"]

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.calls = net(), 0

        def forward(self, x, labels):
            self.calls += 1
            if self.calls - 1 == wrong_at:
                raise ZeroDivisionError("planted")
            return {"loss": mean_square(self.net, x, labels, parts)}

    class InOrder(transformers.Trainer):
        def _get_train_sampler(self, *args):
            return torch.utils.data.SequentialSampler(rows)

    rows = [{"x": x, "labels": y} for x, y in zip(*data(), strict=True)]
    arguments = transformers.TrainingArguments(
        str(path.parent / "trainer"), num_train_epochs=1, learning_rate=lr, max_grad_norm=0,
        per_device_train_batch_size=BATCH // accumulate, gradient_accumulation_steps=accumulate,
        optim="sgd", optim_args="momentum=0.9", lr_scheduler_type="constant", report_to=[],
        use_cpu=True, disable_tqdm=True, save_strategy="no", logging_strategy="no",
    )  # fmt: skip
    trainer = InOrder(Model(), arguments, train_dataset=rows)
    with record_run(path, trainer.model.net, **recorded) as run:
        trainer.add_callback(steps(run, trainer))
        trainer.train()


FRAMEWORKS = pytest.mark.parametrize("train", [by_lightning, by_trainer])
ALL = {"gradients": True, "parameters": True}


def judged(old, new):
    row = compare(read(old), read(new)).row
    print({k: row[k] for k in ("class", "max_ratio", "first_step", "first_quantity")})
    return row["class"]


@FRAMEWORKS
def test_it_records_what_a_loop_records(tmp_path, train):
    old, new = tmp_path / "old.parquet", tmp_path / "new.parquet"
    by_hand(old, **ALL)
    train(new, **ALL)
    assert read(new).steps == STEPS
    assert judged(old, new) == "identical"


@FRAMEWORKS
def test_a_floor_tells_a_rewrite_from_a_fault(tmp_path, train):
    old, new = tmp_path / "old.parquet", tmp_path / "new.parquet"
    for k in range(7):
        train(old, perturb=k)
    train(new, parts=3)
    assert judged(old, new) == "rounding"
    train(new, lr=0.101)
    assert judged(old, new) in ("parted", "different")


@FRAMEWORKS
def test_of_a_batch_in_parts_the_whole_loss_is_recorded(tmp_path, train):
    old, new = tmp_path / "old.parquet", tmp_path / "new.parquet"
    by_hand(old)
    train(new, accumulate=2)
    assert np.allclose(read(new).losses(), read(old).losses(), rtol=1e-5, atol=0)


@FRAMEWORKS
def test_a_training_that_raises_is_marked_as_cut_short(tmp_path, train):
    path = tmp_path / "run.parquet"
    with pytest.raises(ZeroDivisionError, match="planted"):
        train(path, wrong_at=4)
    assert read(path).steps == 4
    with pytest.raises(ValueError, match="cut short after 4 steps"):
        read(path).complete()
