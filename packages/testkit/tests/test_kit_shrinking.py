"""Failing tests end soon, and with a small failure."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_memory_testkit.suite.shrinking import (
    Budget,
    Example,
    Search,
    Step,
    TimeIsUp,
    smallest_failing,
)


def test_a_failing_test_ends_soon_with_a_small_failure() -> None:
    def fails(example: Example) -> None:
        time.sleep(0.002)
        if sum(number > 100 for number in example.values["numbers"]) > 3:
            raise AssertionError(f"{len(example.values['numbers'])} numbers")

    search = Search(fails, 50)
    examples = st.builds(
        Example, st.fixed_dictionaries({"numbers": st.lists(st.integers(), min_size=20)})
    )
    looking = settings(max_examples=50, deadline=None, database=None)(
        given(example=examples)(search.tried)
    )
    started = time.monotonic()
    with pytest.raises((TimeIsUp, AssertionError)):
        looking()
    assert str(search.smallest_failure(shrink=True)) == "4 numbers"
    assert time.monotonic() - started < 5


def test_when_the_time_is_up_nothing_more_is_tried() -> None:
    def fails(example: Example) -> None:
        raise AssertionError(example.values["text"])

    search = Search(fails, 0)  # a budget that is spent at once
    with pytest.raises(AssertionError, match="the first"):
        search.tried(Example({"text": "the first"}))
    time.sleep(0.001)
    with pytest.raises(TimeIsUp):
        search.tried(Example({"text": "the second"}))
    assert str(search.smallest_failure(shrink=True)) == "the first"


def test_without_a_failure_there_is_none() -> None:
    assert Search(lambda example: None, 10).smallest_failure(shrink=True) is None


@given(
    steps=st.lists(st.tuples(st.sampled_from("abc"), st.lists(st.integers(0, 5)))),
    wanted=st.integers(0, 5),
)
def test_what_is_not_needed_is_left_out(steps: list[tuple[str, list[int]]], wanted: int) -> None:
    def fails(candidate: Sequence[Step]) -> bool:
        return any(name == "a" and wanted in each["items"] for name, each in candidate)

    given_steps: list[Step] = [(name, {"items": items, "limit": 3}) for name, items in steps]
    if fails(given_steps):
        smallest = smallest_failing(given_steps, fails, Budget(1_000_000))
        assert smallest == [("a", {"items": [wanted], "limit": 3})]


def test_an_example_is_shown_in_brief() -> None:
    shown = repr(Example({"text": "x" * 10_000, "limit": 3}))
    assert len(shown) < 200
    assert shown.endswith("limit: 3")
