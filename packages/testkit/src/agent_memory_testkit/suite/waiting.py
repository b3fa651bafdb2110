"""How long a call keeps the other tasks of its event loop waiting, on a busy machine too."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

_TURN_SECONDS = 0.002
_THREADS = Path("/proc/self/task")


class Spent(NamedTuple):
    """What a thread has spent its life with, in seconds."""

    running: float
    ready: float
    """Ready to run, while other threads or processes had the processors."""


async def longest_block(call: Awaitable[Any]) -> float:
    """Await ``call``; return the longest time in seconds for which it held the event loop.

    Another task takes turns meanwhile; what counts is the time from one turn to the next, without
    what a busy machine adds to it, see `blamed`.
    """
    here = str(threading.get_native_id())
    longest = 0.0

    async def take_turns() -> None:
        nonlocal longest
        moment, before = time.perf_counter(), _spent()
        while True:
            await asyncio.sleep(_TURN_SECONDS)
            late = time.perf_counter() - moment - _TURN_SECONDS
            now = _spent()
            if late > longest:
                longest = max(longest, blamed(late, here, _differences(before, now)))
            moment, before = time.perf_counter(), now

    turns = asyncio.create_task(take_turns())
    await asyncio.sleep(0)
    try:
        await call
        await asyncio.sleep(2 * _TURN_SECONDS)
    finally:
        turns.cancel()
    return longest


def blamed(late: float, here: str, spent: Mapping[str, Spent]) -> float:
    """Return how many of the seconds that a turn came too late are due to the process itself.

    Args:
        late: the seconds from the moment when the turn was due until it came.
        here: the thread of the event loop.
        spent: what each thread spent meanwhile; empty where the system (other than Linux) does not
            tell: then all is the process's own doing.
    """
    if here not in spent:
        return late
    others = [each for thread, each in spent.items() if thread != here]
    # A thread that keeps the interpreter's lock may be kept from running itself.
    ready = spent[here].ready + max((each.ready for each in others), default=0.0)
    # While it does run, this thread is awake now and then to ask for the lock, and counts as ready.
    running = max((each.running for each in others), default=0.0)
    return max(spent[here].running, min(late, running), late - ready)


def _differences(before: Mapping[str, Spent], now: Mapping[str, Spent]) -> dict[str, Spent]:
    nothing = Spent(0.0, 0.0)
    found = {}
    for thread, each in now.items():
        old = before.get(thread, nothing)
        found[thread] = Spent(each.running - old.running, each.ready - old.ready)
    return found


def _spent() -> dict[str, Spent]:
    """Return what each thread of the process has spent, as far as the system tells."""
    found: dict[str, Spent] = {}
    try:
        threads = list(_THREADS.iterdir())
    except OSError:
        return found
    for each in threads:
        try:
            running, ready, _ = (each / "schedstat").read_text().split()
        except (OSError, ValueError):
            continue  # the thread has just ended, or the kernel does not count
        found[each.name] = Spent(int(running) / 1e9, int(ready) / 1e9)
    return found
