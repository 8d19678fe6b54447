"""Records a training by Hugging Face's Trainer, between backward and the step of the optimizer.

with gradtwin.record_run("old.parquet", trainer.model) as run:
    trainer.add_callback(RecordSteps(run, trainer))
    trainer.train()

Gradients are recorded after they are clipped; where parts of a batch accumulate, the loss is that
of the whole. Callbacks are not told the loss, so it is taken from what `training_step` returns.
"""

from transformers import TrainerCallback


class RecordSteps(TrainerCallback):
    def __init__(self, run, trainer):
        self.run, self.loss = run, 0.0
        self.step, trainer.training_step = trainer.training_step, self.training_step

    def training_step(self, *args, **kwargs):
        loss = self.step(*args, **kwargs)
        self.loss = self.loss + loss  # the Trainer has divided it by the number of parts
        return loss

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.run.step(self.loss)
        self.loss = 0.0
