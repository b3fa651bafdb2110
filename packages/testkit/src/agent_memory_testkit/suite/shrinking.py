"""How long a failing test may look for a smaller failure: not much longer than it takes to pass.

Hypothesis shrinks for up to five minutes. Here an example that fails starts a clock; when it has
run down, the smallest failure found so far is what the test reports.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from hypothesis import Phase, settings

from agent_memory_testkit.journal import brief

_MOST_SECONDS = 15.0

Step = tuple[str, Mapping[str, Any]]
T = TypeVar("T")


class Budget:
    """How much time there is for shrinking: as much as the test takes when it passes.

    Args:
        examples: how many examples a passing test runs.
    """

    def __init__(self, examples: int) -> None:
        self._examples = examples
        self._started = time.monotonic()
        self._runs = 0
        self._seconds = 0.0
        self._end: float | None = None

    def count_example(self) -> None:
        self._runs += 1

    def start_shrinking(self) -> None:
        """Start the clock, if it does not run yet."""
        if self._end is None:
            now = time.monotonic()
            passing = (now - self._started) / max(self._runs, 1) * self._examples
            self._seconds = min(passing, _MOST_SECONDS)
            self._end = now + self._seconds

    def start_again(self) -> None:
        """Give the same time once more, to another way of shrinking."""
        if self._end is not None:
            self._end = time.monotonic() + self._seconds

    @property
    def is_spent(self) -> bool:
        return self._end is not None and time.monotonic() > self._end


class Example:
    """The values of one example; its repr stays short however large they are."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def __repr__(self) -> str:
        return ", ".join(f"{name}: {brief(value)}" for name, value in self.values.items())


class TimeIsUp(BaseException):
    """Ends hypothesis at once: after any `Exception` it would go on."""


class Search:
    """A test of hypothesis that looks for a failing example, and for a small one not too long.

    Args:
        test: what fails with some examples.
        examples: how many examples a passing test runs.
    """

    def __init__(self, test: Callable[[Example], None], examples: int) -> None:
        self._test = test
        self._budget = Budget(examples)
        self._size = 0
        self._values: Mapping[str, Any] = {}
        self._failure: Exception | None = None
        """The smallest so far, and the example that it came from."""

        def tried(example: Example) -> None:
            self._try(example)

        tried.__name__ = tried.__qualname__ = test.__name__
        self.tried = tried
        """What to give to hypothesis; raises `TimeIsUp` some time after an example has failed."""

    def _try(self, example: Example) -> None:
        if self._failure is not None and self._budget.is_spent:
            raise TimeIsUp
        self._budget.count_example()
        size = len(repr(example.values))  # now: a wrong backend may change the values
        try:
            self._test(example)
        except Exception as failure:
            if self._failure is None or size <= self._size:
                self._size, self._values, self._failure = size, example.values, failure
            self._budget.start_shrinking()
            raise

    def smallest_failure(self, *, shrink: bool) -> Exception | None:
        """Return what the smallest failing example raises; ``None`` if none has failed.

        With ``shrink`` it is made smaller before. Hypothesis shrinks well and slowly; leaving out
        what is in lists is quick, so it comes last.
        """

        def fails(steps: Sequence[Step]) -> bool:
            try:
                for _, values in steps:
                    self._test(Example(values))
            except Exception as failure:
                if type(failure) is not type(self._failure):
                    return False  # values that the test was not made for
                self._failure = failure
                return True
            return False

        if self._failure is not None and shrink:
            self._budget.start_again()
            smallest_failing([("test", self._values)], fails, self._budget)
        return self._failure


def without_explaining(chosen: settings) -> settings:
    """Return settings without the phase that runs a failing test under a tracer, to explain it."""
    phases = [each for each in chosen.phases if each is not Phase.explain]
    return settings(chosen, phases=phases)


# --- sequences of calls --------------------------------------------------------------------------


def smallest_failing(
    steps: Sequence[Step], fails: Callable[[Sequence[Step]], bool], budget: Budget
) -> list[Step]:
    """Return a part of ``steps`` that still fails, as small as the budget allows.

    Leaves out steps, many at once and then single ones, and then what is in their arguments.
    """
    budget.start_shrinking()

    def try_it(candidate: Sequence[Step]) -> bool:
        return not budget.is_spent and fails(candidate)

    left = _without_parts(list(steps), try_it)
    for at, (_, arguments) in enumerate(left):
        for key, value in arguments.items():
            if isinstance(value, list):
                left = _with_shorter_argument(left, at, key, try_it)
            elif key == "where" and value is not None:
                everything = _with_argument(left, at, key, None)
                left = everything if try_it(everything) else left
    return left


def _with_shorter_argument(
    steps: Sequence[Step], at: int, key: str, fails: Callable[[Sequence[Step]], bool]
) -> list[Step]:
    def still_fails(part: list[Any]) -> bool:
        return fails(_with_argument(steps, at, key, part))

    return _with_argument(steps, at, key, _without_parts(steps[at][1][key], still_fails))


def _with_argument(steps: Sequence[Step], at: int, key: str, value: Any) -> list[Step]:
    name, arguments = steps[at]
    return [*steps[:at], (name, {**arguments, key: value}), *steps[at + 1 :]]


def _without_parts(items: list[T], fails: Callable[[list[T]], bool]) -> list[T]:
    """Leave out as many items as can be while ``fails`` holds: halves first, single ones last."""
    size = max(len(items) // 2, 1)
    while items:
        at, before = 0, len(items)
        while at < len(items):
            candidate = items[:at] + items[at + size :]
            if fails(candidate):
                items = candidate
            else:
                at += size
        if size == 1 and len(items) == before:
            break
        size = max(size // 2, 1)
    return items
