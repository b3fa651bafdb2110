"""Sees what code under test does outside its process, as the interpreter's audit events tell it."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

CONNECTIONS = ("socket.connect",)
ANY_IO = (*CONNECTIONS, "socket.bind", "sqlite3.connect", "subprocess.Popen")

Event = tuple[str, tuple[Any, ...]]


class _Watch:
    """What has been reported while somebody watched."""

    def __init__(self) -> None:
        self.events: Collection[str] = ()
        self.seen: list[Event] = []
        sys.addaudithook(self._saw)

    def _saw(self, event: str, args: tuple[Any, ...]) -> None:
        if event in self.events:
            self.seen.append((event, args))


_the_watch: _Watch | None = None


@contextmanager
def watched(events: Collection[str]) -> Iterator[list[Event]]:
    """Fill the list with the audit events of these names that any thread causes meanwhile."""
    # A hook stays until the process ends, so there is one for all tests.
    global _the_watch
    if _the_watch is None:
        _the_watch = _Watch()
    _the_watch.seen = []
    _the_watch.events = events
    try:
        yield _the_watch.seen
    finally:
        _the_watch.events = ()
