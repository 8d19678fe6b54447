"""Schedules of the learning rate."""

from torch.optim import lr_scheduler, swa_utils

from .adapters import rate

lambda_lr = rate(lr_scheduler.LambdaLR)
multiplicative_lr = rate(lr_scheduler.MultiplicativeLR)
step_lr = rate(lr_scheduler.StepLR)
multi_step_lr = rate(lr_scheduler.MultiStepLR)
constant_lr = rate(lr_scheduler.ConstantLR)
linear_lr = rate(lr_scheduler.LinearLR)
exponential_lr = rate(lr_scheduler.ExponentialLR)
polynomial_lr = rate(lr_scheduler.PolynomialLR)
cosine_annealing_lr = rate(lr_scheduler.CosineAnnealingLR)
cosine_annealing_warm_restarts = rate(lr_scheduler.CosineAnnealingWarmRestarts)
cyclic_lr = rate(lr_scheduler.CyclicLR)
one_cycle_lr = rate(lr_scheduler.OneCycleLR)
swa_lr = rate(swa_utils.SWALR)
reduce_lr_on_plateau = rate(lr_scheduler.ReduceLROnPlateau)


def _parts(optimizer, schedules):
    """Torch's schedulers of (name, settings), all on one optimizer."""
    return [globals()[name].__wrapped__(optimizer, **settings) for name, settings in schedules]


@rate
def sequential_lr(optimizer, schedules, milestones):
    return lr_scheduler.SequentialLR(optimizer, _parts(optimizer, schedules), milestones)


@rate
def chained_scheduler(optimizer, schedules):
    return lr_scheduler.ChainedScheduler(_parts(optimizer, schedules), optimizer)
