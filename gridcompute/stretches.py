"""How many members carry an `iterate`, and for how many steps at a time: decided from measured times alone.

Along a graph (`propagate`) a step is a cell.
"""

from __future__ import annotations

STRETCH_SECONDS = 0.5
"""Steps between two returns to Python, where a run can be interrupted and a state kept."""

FIRST_SECONDS = 0.1e-3
"""The first stretch, which is measured: estimates are rough."""

LONG_SECONDS = 10e-3
"""A step that is estimated to take longer isn't measured in one thread first."""

WORTH_SECONDS = 1e-3
"""What is left of less than this is done by one thread before others have started."""

TRIAL_SECONDS = 0.05e-3
"""What is done to see whether several members are faster than one."""

REST = 10.0
"""After a trial that was slower, so many times its duration goes by until the next."""

GROWTH = 4
"""Several members go on for at most so many times the steps of their last stretch: on a busy machine they may stall."""

CLEAR_SECONDS = 100e-6
"""A step that takes one thread longer is always worth several: they wait for each other for about a microsecond."""


class Stretches:
    """Chooses between one member and all of them.

    Attributes:
        apart: set where the members are known not to wait for each other.

    Args:
        members: that there may be.
        step_seconds: estimated time of a step in one thread.
        trial_seconds: what several do at first, in one thread's time.

    >>> some = Stretches(2, 20e-3)
    >>> some.choose(10**6)
    (2, 50)
    >>> some.took(2, 50, 0.6)
    >>> some.choose(10**6)
    (2, 42)
    >>> Stretches(2, 1e-6).choose(10**6), Stretches(1, 1.0).choose(3)
    ((1, 100), (1, 1))
    """

    def __init__(self, members: int, step_seconds: float, trial_seconds: float = TRIAL_SECONDS) -> None:
        self.members, self.apart, self._shortest = members, False, trial_seconds
        self._alone = max(step_seconds, 1e-9)
        self._several: float | None = None
        self._known = False
        self._most = 0
        self._trial = self._rest = 0.0

    @property
    def alone(self) -> float:
        """Seconds of a step in one thread, as last measured."""
        return self._alone

    def choose(self, left: int) -> tuple[int, int]:
        """Members, and steps of the next stretch, of so many that are left."""
        alone, several = self._alone, self._several
        if not self._known and alone < LONG_SECONDS:
            return 1, _steps(alone, FIRST_SECONDS, left)
        if self.members == 1 or alone * left < WORTH_SECONDS:
            return 1, _steps(alone, STRETCH_SECONDS, left)
        if alone >= CLEAR_SECONDS or self.apart:
            return self.members, _steps(several or alone / self.members, STRETCH_SECONDS, left)
        if several is not None and several <= alone:
            return self.members, min(_steps(several, STRETCH_SECONDS, left), self._most)
        wait = REST * self._trial - self._rest
        if several is None or wait <= 0:
            return self.members, _steps(alone, self._shortest, left)
        return 1, _steps(alone, min(STRETCH_SECONDS, wait), left)

    def took(self, members: int, steps: int, seconds: float) -> None:
        """So many steps took so long."""
        rate = max(seconds / steps, 1e-12)
        if members == 1:
            self._alone, self._known = rate, True
            self._rest += seconds
        else:
            self._several, self._most = rate, GROWTH * steps
            self._trial, self._rest = seconds, 0.0


def _steps(rate: float, seconds: float, left: int) -> int:
    """Steps of a rate that take so long: at least one, at most what is left."""
    return max(1, min(left, round(seconds / rate)))
