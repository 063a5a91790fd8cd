"""How many members carry an `iterate`, and for how many steps at a time: decided from measured times alone."""

from __future__ import annotations

STRETCH_SECONDS = 0.5
"""Steps between two returns to Python, where a run can be interrupted and a state kept."""

WORTH_SECONDS = 1e-3
"""Work below this is done by one thread before others have started."""

TRIAL_SECONDS = 2e-3
TRIALS = 3
"""What is done to see whether several members are faster than one. The best counts: others only ever disturb."""

CLEAR_SECONDS = 100e-6
"""A step that takes one thread longer is always worth several: they wait for each other for about a microsecond."""

LONG_SECONDS = 10e-3
"""A step that takes one thread less is measured in one thread first: estimates of short ones are rough."""

AGAIN = 20
"""Stretches after which the other number of members is tried again."""


class Stretches:
    """Chooses between one member and all of them.

    Args:
        members: that there may be.
        step_seconds: estimated time of a step in one thread.

    >>> some = Stretches(2, 20e-3)
    >>> some.choose(10**6)
    (2, 50)
    >>> some.took(2, 50, 0.6)
    >>> some.choose(10**6)
    (2, 42)
    >>> Stretches(2, 1e-9).choose(1000), Stretches(1, 1.0).choose(3)
    ((1, 1000), (1, 1))
    """

    def __init__(self, members: int, step_seconds: float) -> None:
        self.members = members
        self.rates = {1: max(step_seconds, 1e-9)}
        self._measured = {1: 0, members: 0}
        self._since = 0

    def choose(self, left: int) -> tuple[int, int]:
        """Members, and steps of the next stretch, of so many that are left."""
        alone = self.rates[1]
        if self.members == 1 or alone * left < WORTH_SECONDS:
            return 1, self._steps(alone, STRETCH_SECONDS, left)
        if not self._measured[1] and alone < LONG_SECONDS:
            return 1, self._steps(alone, WORTH_SECONDS, left)
        if alone >= CLEAR_SECONDS:
            return self.members, self._steps(self.rates.get(self.members, alone / self.members), STRETCH_SECONDS, left)
        if self._measured[self.members] < TRIALS:
            return self.members, self._steps(alone, TRIAL_SECONDS, left)
        best = min(self.rates, key=lambda members: self.rates[members])
        if self._since >= AGAIN:
            self._since = 0
            other = self.members if best == 1 else 1
            return other, self._steps(self.rates[best], TRIAL_SECONDS, left)
        return best, self._steps(self.rates[best], STRETCH_SECONDS, left)

    @staticmethod
    def _steps(rate: float, seconds: float, left: int) -> int:
        return max(1, min(left, round(seconds / rate)))

    def took(self, members: int, steps: int, seconds: float) -> None:
        """So many steps took so long."""
        rate, tried = max(seconds / steps, 1e-12), self._measured[members]
        self.rates[members] = min(rate, self.rates[members]) if members > 1 and 0 < tried < TRIALS else rate
        self._measured[members] += 1
        self._since += 1
