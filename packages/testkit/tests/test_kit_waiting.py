"""How long a call is said to have held the event loop: what a busy machine adds is not counted."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_memory_testkit.suite.waiting import Spent, blamed, longest_block

IDLE = Spent(running=0.0, ready=0.0)
LATE = 0.2

seconds = st.floats(0, 10)
spent = st.builds(Spent, seconds, seconds)


@pytest.mark.parametrize(
    ("loop", "other", "wanted"),
    [
        pytest.param(IDLE, IDLE, LATE, id="waits for a synchronous client"),
        pytest.param(Spent(LATE, 0.0), IDLE, LATE, id="computes"),
        pytest.param(Spent(0.01, 0.19), IDLE, 0.01, id="has no processor"),
        pytest.param(Spent(0.0, 0.1), Spent(LATE, 0.0), LATE, id="waits for the lock"),
        pytest.param(Spent(0.0, 0.0), Spent(0.02, 0.18), 0.02, id="the lock's owner has none"),
        pytest.param(Spent(0.15, 0.05), Spent(0.0, 0.2), 0.15, id="computes on a busy machine"),
    ],
)
def test_only_what_the_process_does_is_blamed(loop: Spent, other: Spent, wanted: float) -> None:
    found = blamed(LATE, "loop", {"loop": loop, "other": other, "third": IDLE})
    assert found == pytest.approx(wanted)


def test_where_the_system_does_not_tell_all_is_blamed() -> None:
    assert blamed(LATE, "loop", {}) == LATE


@given(late=seconds, loop=spent, others=st.dictionaries(st.text(max_size=2), spent))
def test_what_the_loop_computes_is_always_blamed(
    late: float, loop: Spent, others: dict[str, Spent]
) -> None:
    assert blamed(late, "loop", {**others, "loop": loop}) >= loop.running


async def _sleeps() -> None:
    time.sleep(0.1)  # noqa: ASYNC251 - this is what has to be noticed


async def _computes() -> None:
    hashlib.pbkdf2_hmac("sha256", b"", b"", 500_000)


async def _keeps_the_lock() -> None:
    await asyncio.to_thread(sum, range(10_000_000))


@pytest.mark.parametrize("call", [_sleeps, _computes, _keeps_the_lock])
def test_what_holds_the_loop_is_measured(call: Callable[[], Awaitable[Any]]) -> None:
    assert asyncio.run(longest_block(call())) > 0.05


def test_what_the_call_raises_is_raised() -> None:
    async def fails() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        asyncio.run(longest_block(fails()))
