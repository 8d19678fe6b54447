"""Schedules of the learning rate, each a closed form over all steps at once:

    lr = cosine_annealing_lr(steps, lr=0.1, T_max=50)

steps are whole numbers from 0 on, in an array of any shape, which is that of the result; lr, at
least 0, is the rate that the optimizer began with. What also cycles the momentum gives (lr,
momentum).

All of them raise TypeError for a setting of the wrong type, ValueError for one out of range; the
message names the argument.

Two cannot be written so: reduce_lr_on_plateau goes through the metrics one after another, and a
composition takes its parts as (name, settings).
"""

import math

import numpy as np

from .arguments import flag, one_of, real, whole, within


def lambda_lr(steps, *, lr, lr_lambda):
    """lr λ(t), for any function λ of the step, lr_lambda. Raises ValueError for steps that are not
    whole numbers from 0 on, TypeError for a λ that is no function."""
    within(0, lr=lr)
    _function(lr_lambda=lr_lambda)
    return lr * np.vectorize(lr_lambda, otypes=[float])(_whole(steps))


def multiplicative_lr(steps, *, lr, lr_lambda):
    """lr λ(1) λ(2) … λ(t), for any function λ of the step, lr_lambda. Raises ValueError for steps
    that are not whole numbers from 0 on, TypeError for a λ that is no function."""
    within(0, lr=lr)
    _function(lr_lambda=lr_lambda)
    steps = _whole(steps)
    factors = [1.0, *(lr_lambda(t) for t in range(1, steps.max(initial=0) + 1))]
    return lr * np.cumprod(factors)[steps]


def step_lr(steps, *, lr, step_size, gamma=0.1):
    """lr γ^⌊t / size⌋, where size is step_size. Raises ValueError for steps that are not whole
    numbers from 0 on and for a size that is not above 0."""
    within(0, lr=lr)
    real(gamma=gamma)
    _positive(step_size=step_size)
    return lr * float(gamma) ** (_whole(steps) // step_size)


def multi_step_lr(steps, *, lr, milestones, gamma=0.1):
    """lr γⁿ, where n counts the milestones up to t, t itself included. Raises ValueError for steps
    that are not whole numbers from 0 on, TypeError unless the milestones are a list of whole
    numbers."""
    within(0, lr=lr)
    real(gamma=gamma)
    _milestones(milestones)
    return lr * float(gamma) ** np.searchsorted(sorted(milestones), _whole(steps), side="right")


def constant_lr(steps, *, lr, factor=1 / 3, total_iters=5):
    """lr times the factor, from 0 to 1, before step total_iters, and lr from then on. Raises
    ValueError for steps that are not whole numbers from 0 on."""
    within(0, lr=lr)
    real(total_iters=total_iters)
    within(0, 1, factor=factor)
    return np.where(_whole(steps) < total_iters, lr * factor, lr)


def linear_lr(steps, *, lr, start_factor=1 / 3, end_factor=1.0, total_iters=5):
    """lr times a factor that goes straight from start_factor to end_factor within total_iters
    steps; both are at most 1. Raises ValueError for steps that are not whole numbers from 0 on, and
    for a total_iters or a start_factor that is not above 0."""
    within(0, lr=lr)
    within(0, 1, start_factor=start_factor, end_factor=end_factor)
    _positive(total_iters=total_iters)
    if not start_factor > 0:
        raise ValueError(f"start_factor: expected above 0, got {start_factor}")
    share = np.minimum(_whole(steps), total_iters) / total_iters
    return lr * (start_factor + (end_factor - start_factor) * share)


def exponential_lr(steps, *, lr, gamma):
    """lr γᵗ. Raises ValueError for steps that are not whole numbers from 0 on."""
    within(0, lr=lr)
    real(gamma=gamma)
    return lr * gamma ** _whole(steps).astype(float)


def polynomial_lr(steps, *, lr, total_iters=5, power=1.0):
    """lr (1 − t / T)^power with T = total_iters, and 0 from T on. Raises ValueError for steps that
    are not whole numbers from 0 on and for a T that is not above 0."""
    within(0, lr=lr)
    within(0, power=power)
    _positive(total_iters=total_iters)
    return lr * (1 - np.minimum(_whole(steps), total_iters) / total_iters) ** power


def cosine_annealing_lr(steps, *, lr, T_max, eta_min=0.0):
    """η + (lr − η) (1 + cos(π t / T)) / 2: down to η = eta_min at T = T_max, and up again by 2 T.

    Raises ValueError for steps that are not whole numbers from 0 on and for a T that is not above
    0.

    Loshchilov & Hutter, 2017, arXiv:1608.03983
    """
    within(0, lr=lr)
    real(eta_min=eta_min)
    _positive(T_max=T_max)
    return _cosine(lr, eta_min, _whole(steps) / T_max)


def cosine_annealing_warm_restarts(steps, *, lr, T_0, T_mult=1, eta_min=0.0):
    """Down a cosine from lr to η = eta_min within T_0 steps; then from lr again, each time over
    T_mult times as many steps.

    Raises ValueError for steps that are not whole numbers from 0 on, and for a T_0 or T_mult that
    is not a whole number from 1 on.

    Loshchilov & Hutter, 2017, arXiv:1608.03983
    """
    within(0, lr=lr)
    real(eta_min=eta_min, T_0=T_0, T_mult=T_mult)
    steps = _whole(steps)
    for name, value in (("T_0", T_0), ("T_mult", T_mult)):
        if value < 1 or value != int(value):
            raise ValueError(f"{name}: expected a whole number from 1 on, got {value}")
    lengths, starts = [T_0], [0]
    while starts[-1] + lengths[-1] <= steps.max(initial=0):
        starts.append(starts[-1] + lengths[-1])
        lengths.append(lengths[-1] * T_mult)
    period = np.searchsorted(starts, steps, side="right") - 1
    return _cosine(lr, eta_min, (steps - np.take(starts, period)) / np.take(lengths, period))


def cyclic_lr(
    steps,
    *,
    base_lr,
    max_lr,
    step_size_up=2000,
    step_size_down=None,
    mode="triangular",
    gamma=1.0,
    scale_fn=None,
    scale_mode="cycle",
    cycle_momentum=True,
    base_momentum=0.8,
    max_momentum=0.9,
    lr=None,
):
    """base + (max − base) s h: h goes straight up from 0 to 1 and down again, and s scales it.

    h rises over step_size_up steps and falls over step_size_down, or as many. s is 1
    ("triangular"), halved with every cycle ("triangular2") or γᵗ ("exp_range"), or scale_fn of the
    number of the cycle, from 1, or of the step, as scale_mode says: "cycle" or "iterations". The
    momentum mirrors it, from max down to base and up again. lr is not used: the rate begins at
    base_lr.

    Raises ValueError for steps that are not whole numbers from 0 on and for a step size that is not
    above 0, TypeError for a scale_fn that is no function and a mode that is no string.

    Smith, 2017, arXiv:1506.01186
    """
    _unused(lr)
    real(base_lr=base_lr, max_lr=max_lr, gamma=gamma)
    real(base_momentum=base_momentum, max_momentum=max_momentum)
    flag(cycle_momentum=cycle_momentum)
    _positive(step_size_up=step_size_up)
    if step_size_down is not None:
        _positive(step_size_down=step_size_down)
    one_of(("cycle", "iterations"), scale_mode=scale_mode)
    if scale_fn is None:
        one_of(("triangular", "triangular2", "exp_range"), mode=mode)
    else:
        _function(scale_fn=scale_fn)
        if not isinstance(mode, str):
            raise TypeError(f"mode: expected a string, got {mode!r:.80}")
    steps = _whole(steps)
    down = step_size_up if step_size_down is None else step_size_down
    length = step_size_up + down
    cycle = steps // length
    place, top = (steps - cycle * length) / length, step_size_up / length
    height = np.where(place <= top, place / top, (place - 1) / (top - 1))
    if scale_fn:
        at = cycle + 1 if scale_mode == "cycle" else steps
        scale = np.vectorize(scale_fn, otypes=[float])(at)
    else:
        rates = {"triangular": (1.0, 0), "triangular2": (0.5, cycle), "exp_range": (gamma, steps)}
        base, power = rates[mode]
        scale = base ** np.asarray(power, float)
    rate = base_lr + (max_lr - base_lr) * scale * height
    if not cycle_momentum:
        return rate
    return rate, max_momentum - (max_momentum - base_momentum) * scale * height


def one_cycle_lr(
    steps,
    *,
    max_lr,
    total_steps=None,
    epochs=None,
    steps_per_epoch=None,
    pct_start=0.3,
    anneal_strategy="cos",
    cycle_momentum=True,
    base_momentum=0.85,
    max_momentum=0.95,
    div_factor=25.0,
    final_div_factor=1e4,
    three_phase=False,
    lr=None,
):
    """From max / div_factor up to max within the share pct_start of all steps, then down to the
    start / final_div_factor.

    The number of all steps is total_steps, or else epochs times steps_per_epoch. With three phases
    the rate first comes back down to the start, as fast as it rose. Each phase is a cosine ("cos")
    or a line ("linear"). The momentum goes the other way. lr is not used.

    Raises ValueError for steps that are not whole numbers from 0 to below total_steps, for a number
    of steps that is missing or not above 0, and for a factor that is not above 0.

    Smith & Topin, 2018, arXiv:1708.07120
    """
    _unused(lr)
    real(max_lr=max_lr, base_momentum=base_momentum, max_momentum=max_momentum)
    flag(cycle_momentum=cycle_momentum, three_phase=three_phase)
    _positive(div_factor=div_factor, final_div_factor=final_div_factor)
    one_of(("cos", "linear"), anneal_strategy=anneal_strategy)
    steps = _whole(steps)
    if total_steps is None and (epochs is None or steps_per_epoch is None):
        raise ValueError("total_steps: expected a number, or epochs and steps_per_epoch, got None")
    if total_steps is None:
        whole(epochs=epochs, steps_per_epoch=steps_per_epoch)
        _positive(epochs=epochs, steps_per_epoch=steps_per_epoch)
    else:
        whole(total_steps=total_steps)
    total = epochs * steps_per_epoch if total_steps is None else total_steps
    _positive(total_steps=total)
    within(0, 1, pct_start=pct_start)
    if steps.max(initial=0) >= total:
        raise ValueError(f"steps: expected below total_steps, {total}, got {steps.max()}")
    start, peak = max_lr / div_factor, pct_start * total - 1
    least = start / final_div_factor
    rates, momenta = [start, max_lr, least], [max_momentum, base_momentum, max_momentum]
    ends = [0, peak, total - 1]
    if three_phase:
        rates, momenta = [start, max_lr, start, least], [*momenta, max_momentum]
        ends = [0, peak, 2 * peak, total - 1]

    def along(values):
        found = np.full(steps.shape, float(values[-1]))
        for i in reversed(range(len(ends) - 1)):
            share = (steps - ends[i]) / (ends[i + 1] - ends[i])
            if anneal_strategy == "cos":
                part = _cosine(values[i], values[i + 1], share)
            else:
                part = values[i] + (values[i + 1] - values[i]) * share
            found = np.where(steps <= ends[i + 1], part, found)
        return found

    return (along(rates), along(momenta)) if cycle_momentum else along(rates)


def swa_lr(steps, *, lr, swa_lr, anneal_epochs=10, anneal_strategy="cos"):
    """From lr to swa_lr within anneal_epochs steps, along a cosine ("cos") or a line ("linear"),
    and there it stays. Raises ValueError for steps that are not whole numbers from 0 on.

    Izmailov, Podoprikhin, Garipov, Vetrov & Wilson, 2018, arXiv:1803.05407
    """
    within(0, lr=lr)
    real(swa_lr=swa_lr)
    one_of(("cos", "linear"), anneal_strategy=anneal_strategy)
    whole(anneal_epochs=anneal_epochs)
    within(0, anneal_epochs=anneal_epochs)
    share = np.minimum(1, _whole(steps) / max(1, anneal_epochs))
    if anneal_epochs == 0:
        share = np.ones_like(share)
    if anneal_strategy == "cos":
        return _cosine(lr, swa_lr, share)
    return lr + (swa_lr - lr) * share


def reduce_lr_on_plateau(
    metrics,
    *,
    lr,
    mode="min",
    factor=0.1,
    patience=10,
    threshold=1e-4,
    threshold_mode="rel",
    cooldown=0,
    min_lr=0.0,
    eps=1e-8,
):
    """The rate after each of the metrics, an array of one axis: it is multiplied by the factor once
    more than `patience` of them in a row were not better than the best.

    Better means below best (1 − threshold), or below best − threshold ("abs"); with mode "max"
    above best (1 + threshold), or best + threshold. After a reduction, the next `cooldown` metrics
    are not counted. The rate never falls below min_lr, and a reduction of at most eps is not made.
    Raises ValueError for a factor that is not below 1, TypeError for other metrics.
    """
    within(0, lr=lr)
    real(factor=factor, patience=patience, threshold=threshold, cooldown=cooldown)
    real(min_lr=min_lr, eps=eps)
    one_of(("min", "max"), mode=mode)
    one_of(("rel", "abs"), threshold_mode=threshold_mode)
    if not factor < 1:
        raise ValueError(f"factor: expected below 1, got {factor}")
    sign = 1 if mode == "min" else -1
    best, bad, cooling = sign * math.inf, 0, 0
    found = []
    for metric in _numbers(metrics).tolist():
        edge = best - sign * threshold
        if threshold_mode == "rel":
            edge = best * (1 - sign * threshold)
        if sign * metric < sign * edge:
            best, bad = metric, 0
        else:
            bad += 1
        if cooling:
            cooling, bad = cooling - 1, 0
        if bad > patience:
            lower = max(lr * factor, min_lr)
            lr = lower if lr - lower > eps else lr
            cooling, bad = cooldown, 0
        found.append(lr)
    return np.array(found)


def sequential_lr(steps, *, lr, schedules, milestones):
    """One schedule after another, each from its own step 0 at its milestone; a schedule is (name,
    settings), without lr, and there is one milestone fewer. Raises TypeError for schedules or
    milestones that are no such list, ValueError for a name that is not known, another number of
    milestones and steps that are not whole numbers from 0 on."""
    within(0, lr=lr)
    _parts(schedules)
    _milestones(milestones)
    if len(milestones) != len(schedules) - 1:
        raise ValueError(
            f"milestones: expected one fewer than the {len(schedules)} schedules, got "
            f"{len(milestones)}"
        )
    steps = _whole(steps)
    starts = [0, *milestones]
    which = np.searchsorted(milestones, steps, side="right")
    local = steps - np.take(starts, which)
    found = np.empty(steps.shape)
    for i, (name, settings) in enumerate(schedules):
        found[which == i] = _schedules()[name](local[which == i], lr=lr, **settings)
    return found


def chained_scheduler(steps, *, lr, schedules):
    """lr times the factor of each schedule, which is what it makes of a rate of 1; a schedule is
    (name, settings), without lr. Raises TypeError for schedules that are no such list, ValueError
    for a name that is not known."""
    within(0, lr=lr)
    _parts(schedules)
    factors = [_schedules()[name](steps, lr=1.0, **settings) for name, settings in schedules]
    return lr * np.prod(factors, axis=0)


def _cosine(high, low, share):
    """From high at 0 to low at 1, along half a cosine."""
    return low + (high - low) * (1 + np.cos(np.pi * share)) / 2


def _whole(steps):
    steps = np.asarray(steps)
    if steps.dtype.kind not in "iu" or steps.min(initial=0) < 0:
        raise ValueError(f"steps: expected whole numbers from 0 on, got {steps!r:.80}")
    return steps


def _schedules():
    found = globals().items()
    return {n: f for n, f in found if getattr(f, "__module__", "") == __name__ and n[0] != "_"}


def _function(**settings):
    for name, value in settings.items():
        if not callable(value):
            raise TypeError(f"{name}: expected a function of the step, got {value!r}")


def _unused(lr):
    if lr is not None:
        within(0, lr=lr)


def _milestones(milestones):
    if not isinstance(milestones, (list, tuple)):
        raise TypeError(f"milestones: expected a list of steps, got {milestones!r}")
    whole(**{f"milestones[{i}]": step for i, step in enumerate(milestones)})


def _parts(schedules):
    if not isinstance(schedules, (list, tuple)) or not schedules:
        raise TypeError(f"schedules: expected a list of (name, settings), got {schedules!r:.80}")
    for i, part in enumerate(schedules):
        if not (isinstance(part, (list, tuple)) and len(part) == 2 and isinstance(part[1], dict)):
            raise TypeError(f"schedules[{i}]: expected (name, settings), got {part!r:.80}")
        one_of(_schedules(), **{f"schedules[{i}]": part[0]})


def _numbers(metrics):
    metrics = np.asarray(metrics)
    if metrics.dtype.kind not in "iuf" or metrics.ndim != 1:
        raise TypeError(f"metrics: expected one axis of numbers, got {metrics!r:.80}")
    return metrics


def _positive(**settings):
    real(**settings)
    for name, value in settings.items():
        if not value > 0:
            raise ValueError(f"{name}: expected above 0, got {value}")
