"""A rate that changes, recognised from its values at every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..samples import written
from ..verdict.classes import LIMIT

UNKNOWN = "each step its own"
LONGEST = 8  # lengths of the record, so far ahead the end of a schedule is looked for
PIECES = 6  # of a rate that is constant in between, at most


def _cosine(t: np.ndarray, lr: float, T_max: Any, eta_min: float) -> np.ndarray:
    return eta_min + (lr - eta_min) * (1 + np.cos(math.pi * np.clip(t / T_max, 0, 1))) / 2


def _restarts(t: np.ndarray, lr: float, T_0: int, T_mult: int, eta_min: float) -> np.ndarray:
    """Cosines, each T_mult times as long as the one before."""
    if T_mult == 1:
        return _cosine(t % T_0, lr, T_0, eta_min)
    which = np.floor(np.log1p(t / T_0 * (T_mult - 1)) / math.log(T_mult) + 1e-9)
    length = T_0 * T_mult**which
    return _cosine(t - (length - T_0) / (T_mult - 1), lr, length, eta_min)


def _pieces(t: np.ndarray, lr: float, gamma: float, milestones: tuple[int, ...]) -> np.ndarray:
    return lr * gamma ** np.searchsorted(milestones, t, side="right")


def _values(t: np.ndarray, lr: float, values: tuple[float, ...], milestones: Any) -> np.ndarray:
    return np.array([lr, *values])[np.searchsorted(milestones, t, side="right")]


# The factor names are torch's where torch has such a schedule.
SHAPES: dict[str, Callable[..., np.ndarray]] = {
    "constant": lambda t, lr: np.full(len(t), lr),
    "step": lambda t, lr, gamma, step_size: lr * gamma ** (t // step_size),
    "multistep": _pieces,
    "exponential": lambda t, lr, gamma: lr * gamma**t,
    "linear": lambda t, lr, end, total_iters: lr + (end - lr) * np.clip(t / total_iters, 0, 1),
    "cosine": _cosine,
    "cosine with restarts": _restarts,
    "inverse time": lambda t, lr, decay: lr / (1 + decay * t),
    "inverse root": lambda t, lr, shift: lr * np.sqrt(shift / (t + shift)),
    "constant in between": _values,
    UNKNOWN: lambda t, values: np.asarray(values)[np.asarray(t, int)],
}


@dataclass(frozen=True)
class Rate:
    """The rate of every step t from 0: of a shape, and before it a warm-up, in `warmup` steps
    from `start` straight to lr, or without a start by (t + 1) / warmup of lr."""

    shape: str
    settings: Mapping[str, Any] = field(hash=False)
    warmup: int = 0
    start: float | None = None

    def at(self, t: np.ndarray) -> np.ndarray:
        lr = np.asarray(SHAPES[self.shape](np.maximum(t - self.warmup, 0), **self.settings), float)
        if not self.warmup:
            return lr
        top = self.settings["lr"]
        if self.start is None:
            rising = top * (t + 1) / self.warmup
        else:
            rising = self.start + (top - self.start) * t / self.warmup
        return np.where(t < self.warmup, rising, lr)

    def numbers(self) -> list[float]:
        """All that has to be said; nothing of one that is no schedule."""
        if not self.known:
            return []
        found = [*self.settings.values(), self.warmup, 0.0 if self.start is None else self.start]
        several = (v if isinstance(v, tuple) else (v,) for v in found)
        return [float(n) for values in several for n in values if n]

    @property
    def known(self) -> bool:
        """Whether it is a schedule."""
        return self.shape != UNKNOWN

    def said(self) -> str:
        """In words."""
        if self.shape == UNKNOWN:
            values = self.settings["values"]
            return f"of no known schedule, from {min(values):.6g} to {max(values):.6g}"
        before = ""
        if self.warmup:
            start = "" if self.start is None else f" from {self.start:g}"
            before = f"warm-up of {self.warmup} steps{start}, then "
        return f"{before}{self.shape}({written(dict(self.settings))})"


@dataclass(frozen=True)
class _Form:
    """A rate with open numbers: those settings, and the start of the warm-up where that is open."""

    rate: Rate
    free: tuple[str, ...]

    def moved(self, values: np.ndarray) -> Rate:
        numbers = dict(zip(self.free, values.tolist(), strict=True))
        start = numbers.pop("start", self.rate.start)
        return replace(self.rate, settings={**self.rate.settings, **numbers}, start=start)

    def values(self) -> np.ndarray:
        return np.array(
            [self.rate.start if n == "start" else self.rate.settings[n] for n in self.free], float
        )


def recognised(rates: np.ndarray, unsure: np.ndarray, begun: int = 0) -> Rate | None:
    """The plainest schedule within LIMIT times what is unsure of each rate, with its roundest
    settings; or None."""
    t = begun + np.arange(len(rates))
    for form in _forms(rates, unsure, t):
        fitted = _fitted(form, rates, unsure, t)
        if fitted is not None:
            found = _rounded(fitted, rates, unsure, t)
            if (found.at(t) >= 0).all():
                return found
    return None


def same(rates: np.ndarray, unsure: np.ndarray) -> bool:
    """Whether all are one."""
    mean = np.average(rates, weights=unsure**-2.0)
    return bool((abs(rates - mean) <= LIMIT * unsure).all())


def _forms(rates: np.ndarray, unsure: np.ndarray, t: np.ndarray) -> Iterator[_Form]:
    yield from _shapes(rates, unsure, t, 0)
    rising = np.flatnonzero(np.diff(rates) <= LIMIT * np.hypot(unsure[1:], unsure[:-1]))
    top = int(rising[0]) if rising.size else len(rates) - 1  # the last of those that rise
    if top:
        tails = [w for w in (top + 1, top, top - 1) if 0 < w < len(rates) - 2]
        for warmup in tails:
            for form in _shapes(rates[warmup:], unsure[warmup:], t[: len(t) - warmup], warmup):
                yield _Form(replace(form.rate, warmup=warmup), form.free)
                start = replace(form.rate, warmup=warmup, start=0.0)
                yield _Form(start, form.free)
                yield _Form(replace(start, start=float(rates[0])), (*form.free, "start"))


def _shapes(rates: np.ndarray, unsure: np.ndarray, t: np.ndarray, w: int) -> Iterator[_Form]:
    """The forms without their warm-up, plainest first."""
    first, last, n = float(rates[0]), float(rates[-1]), len(rates)

    def form(shape: str, free: str, **settings: Any) -> _Form:
        return _Form(Rate(shape, settings), tuple(free.split()))

    if w:
        yield form("constant", "lr", lr=first)
    steep = np.diff(rates)
    turns = np.flatnonzero(abs(steep) > LIMIT * np.hypot(unsure[1:], unsure[:-1])) + 1
    if 0 < len(turns) < min(PIECES, n / 3):
        gamma = float(rates[turns[0]] / first) if first else 1.0
        sizes = np.diff([0, *turns])
        if len(turns) > 1 and len(set(sizes)) == 1 and n - turns[-1] <= sizes[0]:
            yield form("step", "lr gamma", lr=first, gamma=gamma, step_size=int(sizes[0]))
        yield form("multistep", "lr gamma", lr=first, gamma=gamma, milestones=tuple(turns.tolist()))
        values = tuple(float(np.median(part)) for part in np.split(rates, turns)[1:])
        yield form(
            "constant in between", "lr", lr=first, values=values, milestones=tuple(turns.tolist())
        )
    if min(first, last) > 0 and first != last:
        gamma = (last / first) ** (1 / (n - 1))
        yield form("exponential", "lr gamma", lr=first, gamma=gamma)
    yield from _ending(form, rates, unsure, t)
    rises = np.flatnonzero(steep > LIMIT * np.hypot(unsure[1:], unsure[:-1])) + 1
    if rises.size:
        T_0 = int(rises[0])
        for free, low in (("lr", 0.0), ("lr eta_min", float(rates.min()))):
            for mult in (1, 2, 3):
                settings = {"lr": first, "T_0": T_0, "T_mult": mult, "eta_min": low}
                yield form("cosine with restarts", free, **settings)
    if 0 < last < first:
        yield form("inverse time", "lr decay", lr=first, decay=(first / last - 1) / (n - 1))
        shift = (n - 1) / ((first / last) ** 2 - 1)
        yield form("inverse root", "lr shift", lr=first, shift=shift)


def _ending(
    form: Callable[..., _Form], rates: np.ndarray, unsure: np.ndarray, t: np.ndarray
) -> Iterator[_Form]:
    """Those that end somewhere, at 0 or above, at the step that suits best."""
    first, n = float(rates[0]), len(rates)
    t = np.arange(n)
    lengths = np.arange(max(2, n - 2), LONGEST * n)
    for end, free in ((0.0, "lr"), (1.0, "lr {}")):
        if not end:
            slope = _slope(rates, unsure)
            to_zero = round(-first / slope) if slope * n < -1e-12 * abs(first) else 0
            if to_zero >= n - 1:
                yield form("linear", "lr", lr=first, end=0.0, total_iters=to_zero)
        waves = _cosine(t, 1, lengths[:, None], 0)
        T = int(lengths[int(np.argmin(_left(rates, unsure, waves, bool(end))))])
        numbers = _linear(rates, unsure, _cosine(t, 1, T, 0), bool(end))
        low = float(numbers[1]) if end else 0.0
        yield form(
            "cosine", free.format("eta_min"), lr=float(numbers[0]) + low, T_max=T, eta_min=low
        )
    last = float(rates[-1])
    yield form("linear", "lr end", lr=first, end=last, total_iters=n - 1)


def _slope(rates: np.ndarray, unsure: np.ndarray) -> float:
    return float(_linear(rates, unsure, np.arange(len(rates)), True)[0])


def _left(rates: np.ndarray, unsure: np.ndarray, bases: np.ndarray, shifted: bool) -> np.ndarray:
    """What is left of the rates beside each basis, and a constant."""
    w = unsure**-2.0
    y, b = rates, bases
    if shifted:
        total = w.sum()
        y = y - (w * y).sum() / total
        b = b - (b @ w)[:, None] / total
    shared = (b * y) @ w
    sizes = (b * b) @ w
    return (y * y) @ w - np.divide(shared**2, sizes, out=np.zeros_like(sizes), where=sizes > 0)


def _linear(rates: np.ndarray, unsure: np.ndarray, basis: np.ndarray, shifted: bool) -> np.ndarray:
    """The factor of the basis, and the constant beside it, that are nearest."""
    columns = np.stack([basis, np.ones(len(basis))][: 1 + shifted], 1) / unsure[:, None]
    return np.asarray(np.linalg.lstsq(columns, rates / unsure, rcond=None)[0])


def _fitted(form: _Form, rates: np.ndarray, unsure: np.ndarray, t: np.ndarray) -> _Form | None:
    """The form with the numbers that are nearest, if that is near enough."""
    x = form.values()

    def off(x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            found = np.nan_to_num((form.moved(x).at(t) - rates) / unsure, nan=1e15)
        return np.clip(found, -1e15, 1e15)

    for _ in range(8 if len(x) else 0):
        r = off(x)
        size = np.maximum(abs(x), 1e-12) * 1e-6
        slopes = np.stack([off(x + step) - r for step in np.diag(size)], 1) / size
        x = x - np.linalg.lstsq(slopes, r, rcond=None)[0]
    if not np.isfinite(x).all() or (abs(off(x)) > LIMIT).any():
        return None
    return _Form(form.moved(x), form.free)


def _rounded(form: _Form, rates: np.ndarray, unsure: np.ndarray, t: np.ndarray) -> Rate:
    """With the roundest numbers, one after another, that are near enough with the others."""
    for name in form.free:
        value = float(dict(zip(form.free, form.values(), strict=True))[name])
        for tried in dict.fromkeys(
            [0.0, 1.0] * (name != "lr") + [float(f"{value:.{d}e}") for d in range(12)]
        ):
            one = _Form(form.rate, (name,)).moved(np.array([tried]))
            rest = tuple(n for n in form.free if n != name)
            found = _fitted(_Form(one, rest), rates, unsure, t)
            if found is not None:
                form = found
                break
    return form.rate
