"""Interleaved measurements and the ratios taken from them.

The subjects take turns within each round, so that whatever else the machine does hits all of them
alike. A ratio is taken within each round; the median of these is the claim.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

from material import QUERIES
from process import StoreProcess

_REPEATS = 10
_TURN_SECONDS = 0.3

Rounds = list[list[float]]
"""For each round the times in it, in seconds."""


def take_turns(
    subjects: Mapping[str, tuple[StoreProcess, str]], *, rounds: int
) -> dict[str, Rounds]:
    """Measure each subject, a process and one of its operations, in every round."""
    times: dict[str, Rounds] = {name: [] for name in subjects}
    names = list(subjects)
    for number in range(rounds):
        query = number * _REPEATS % (QUERIES - _REPEATS)
        # Another one begins in each round, so that none always follows the same.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            process, operation = subjects[name]
            turn = process.turn(operation, query, repeats=_REPEATS, seconds=_TURN_SECONDS)
            times[name].append(turn.others)
    return times


def ratio(times: Rounds, base: Rounds) -> float:
    """Return the median over the rounds of how many times as long as ``base`` it took."""
    return median(median(a) / median(b) for a, b in zip(times, base, strict=True))


def undisturbed_ratio(times: Rounds, base: Rounds) -> float:
    """Return the same of each round's fastest calls; far from `ratio`, the machine was busy."""
    return median(min(a) / min(b) for a, b in zip(times, base, strict=True))


def typical(times: Rounds) -> float:
    """Return the median of all times, in seconds."""
    return median(each for some in times for each in some)


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Return b of the best fit of seconds = a * size**b: the slope of log against log."""
    x, y = [math.log(each) for each in sizes], [math.log(each) for each in seconds]
    x_mean, y_mean = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - x_mean) ** 2 for a in x)
