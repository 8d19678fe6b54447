"""How long a check may take, and how far it is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

Told = Callable[[int, int], None]  # steps that are done, steps that are known of


class Pace:
    """The seconds that a check may take, and who is told how far it is.

    What is begun is ended; what is not begun when the seconds are over is not begun any more, save
    the first evaluation of all, without which there is no verdict. Raises ValueError for what is no
    time.
    """

    def __init__(self, seconds: float | None = None, told: Told | None = None) -> None:
        number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if seconds is not None and not (number and seconds > 0):
            raise ValueError(f"budget: expected seconds, more than 0, got {seconds!r}")
        if told is not None and not callable(told):
            raise TypeError(
                f"progress: expected a function of two numbers, got a {type(told).__name__}"
            )
        self.seconds = math.inf if seconds is None else float(seconds)
        self.until = time.monotonic() + self.seconds
        self.refused = False  # whether a call was wanted when nothing was begun any more
        self.first: Any = None  # the first evaluation of all, which is judged whatever it costs
        self._told, self._done, self._known = told, 0, 0

    @property
    def over(self) -> bool:
        """Whether nothing more is to be begun."""
        return self.first is not None and time.monotonic() > self.until

    @property
    def left(self) -> float:
        """Seconds until then."""
        return max(self.until - time.monotonic(), 0.0)

    def expect(self, steps: int) -> None:
        """So many more steps are known of."""
        self._known += steps

    def step(self) -> None:
        """One is done."""
        self._done += 1
        if self._told:
            self._told(self._done, max(self._done, self._known))


class OutOfTime(Exception):
    """A call for which no time is left."""


class InTime:
    """What was tried on a call, for whoever looks for its cause: when the seconds are over, both
    sides refuse further calls."""

    def __init__(self, tried: Any, pace: Pace) -> None:
        self._tried, self._pace = tried, pace
        self.subject = replace(tried.subject, rule=self._held(tried.subject.rule))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tried, name)

    def truth(self, inputs: Any) -> Any:
        return self._held(self._tried.truth)(inputs)

    def _held(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def held(*args: Any, **kwargs: Any) -> Any:
            if self._pace.over:
                self._pace.refused = True
                raise OutOfTime
            return function(*args, **kwargs)

        return held
