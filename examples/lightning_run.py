"""Records a training by Lightning, between backward and the step of the optimizer.

with gradtwin.record_run("old.parquet", module) as run:
    lightning.Trainer(callbacks=[RecordSteps(run)]).fit(module, loader)

It is for automatic optimization. Gradients are recorded before they are clipped; where parts of a
batch accumulate, the loss is that of the whole, and under a GradScaler it is scaled.
"""

from lightning.pytorch.callbacks import Callback


class RecordSteps(Callback):
    def __init__(self, run):
        self.run, self.loss = run, 0.0

    def on_before_backward(self, trainer, module, loss):
        self.loss = self.loss + loss.detach()  # Lightning has divided it by the number of parts

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.run.step(self.loss)
        self.loss = 0.0
