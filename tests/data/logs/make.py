"""Makes what is beside it, with the programs that write such logs: needs tensorboard, lightning,
transformers and accelerate (the extra `frameworks`).

    python tests/data/logs/make.py
"""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

HERE = Path(__file__).parent
STEPS = 12


def losses():
    """A loss that falls, with a NaN, in float64."""
    values = 2.302585092994046 * np.exp(-np.arange(STEPS) / 7) + 1e-3 * np.cos(np.arange(STEPS))
    values[9] = np.nan
    return values


def tensorboard(folder, new_style):
    writer = SummaryWriter(folder)
    for step, loss in enumerate(losses()):
        writer.add_scalar("loss/train", loss, step, new_style=new_style)
        if step % 4 == 0:
            writer.add_scalar("loss/val", 2 * loss, step, new_style=new_style)
    writer.add_histogram("weights", np.arange(9.0), 3)
    writer.add_text("note", "not a scalar", 5)
    writer.close()
    (written,) = Path(folder).iterdir()
    return written


def lightning(folder):
    from lightning.pytorch.loggers import CSVLogger

    logger = CSVLogger(folder, name="", version="")
    for step, loss in enumerate(losses()):
        logger.log_metrics({"train_loss": float(loss)}, step)
        if step % 4 == 3:
            logger.log_metrics({"val_loss": 2 * float(loss), "epoch": step // 4}, step)
    logger.save()
    return Path(folder) / "metrics.csv"


def trainer(folder):
    """The state that the Trainer of Hugging Face saves."""
    from transformers import Trainer, TrainingArguments

    class Line(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(3))

        def forward(self, x, labels):
            return {"loss": (x @ self.w - labels).square().mean()}

    torch.manual_seed(0)
    x = torch.randn(32, 3)
    rows = [{"x": row, "labels": row.sum()} for row in x]
    arguments = TrainingArguments(
        folder, max_steps=STEPS, logging_steps=1, per_device_train_batch_size=8, report_to=[],
        use_cpu=True, disable_tqdm=True, learning_rate=0.1,
    )  # fmt: skip
    engine = Trainer(Line(), arguments, train_dataset=rows)
    engine.train()
    engine.save_state()
    return Path(folder) / "trainer_state.json"


if __name__ == "__main__":
    (HERE / "losses.json").write_text(json.dumps(losses().tolist()) + "\n")
    for name, make, *more in (
        ("simple.tfevents", tensorboard, False),
        ("tensor.tfevents", tensorboard, True),
        ("lightning.csv", lightning),
        ("trainer.json", trainer),
    ):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copyfile(make(folder, *more), HERE / name)
