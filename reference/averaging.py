"""Averages of a parameter along its training."""

from torch.optim import swa_utils

from .adapters import array, tensor


def swa_update(averaged_param, current_param, num_averaged):
    average = swa_utils.get_swa_avg_fn()
    return array(average(tensor(averaged_param), tensor(current_param), num_averaged))


def ema_update(ema_param, current_param, decay=0.999):
    average = swa_utils.get_ema_avg_fn(decay)
    return array(average(tensor(ema_param), tensor(current_param), None))
