"""Averages of a parameter over its training, one step each: the mean of n, updated with one more.

All of them take two arrays of one shape and dtype: float16, float32 or float64. They raise
TypeError for any other array and for a setting that is no number, ValueError for two shapes and for
a setting out of range; the message names the argument.
"""

from .arguments import alike, within


def swa_update(averaged_param, current_param, num_averaged):
    """The mean of all, the newest included: a ← a + (p − a) / (n + 1), where n, at least 0, is
    num_averaged.

    Izmailov, Podoprikhin, Garipov, Vetrov & Wilson, 2018, arXiv:1803.05407
    """
    averaged_param, current_param = alike(
        averaged_param=averaged_param, current_param=current_param
    )
    within(0, num_averaged=num_averaged)
    return averaged_param + (current_param - averaged_param) / (num_averaged + 1)


def ema_update(ema_param, current_param, decay=0.999):
    """The mean in which everything fades: a ← β a + (1 − β) p, where the decay β is from 0 to 1.

    Polyak & Juditsky, 1992; Tarvainen & Valpola, 2017, arXiv:1703.01780 (of a network's weights)
    """
    ema_param, current_param = alike(ema_param=ema_param, current_param=current_param)
    within(0, 1, decay=decay)
    return decay * ema_param + (1 - decay) * current_param
