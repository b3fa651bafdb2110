"""Rows of float32 that grow in place: a large matrix is moved by the system, not copied."""

from __future__ import annotations

import mmap
import os
import re
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_HUGE_PAGE = 2 << 20
_MADV_COLLAPSE = 25  # `mmap` has no name for it
_COLLAPSED_AT_ONCE = 16
"""Huge pages made in one call: some 10 ms, and ten times as long where memory comes slowly."""


class GrowingRows:
    """A matrix to which room for more rows is added.

    Attributes:
        rows: (room, columns), the matrix; look it up again after each `grow`. What was never
            written is undefined, and takes no memory until it is.
    """

    def __init__(self, columns: int) -> None:
        self.rows: NDArray[np.float32] = np.empty((0, columns), np.float32)
        self._memory: mmap.mmap | None = None
        """What ``rows`` is a view of, where the system can move memory."""
        self._collapsed = 0
        """How many huge pages were asked for, from the beginning on."""

    def grow(self, room: int) -> None:
        """Make room for ``room`` rows, more than there are; those written so far stay.

        Raises:
            MemoryError: there is no room; nothing has changed.
        """
        columns = self.rows.shape[1]
        if sys.platform == "linux":
            size = room * columns * self.rows.itemsize
            if self._memory is None or not self._moved(self._memory, size, columns):
                old = self.rows
                self._memory = _mapped(size)
                self._view(columns)
                self.rows[: len(old)] = old
            self._collapsed = 0  # what has moved may be in small pages again
            if size >= _HUGE_PAGE and not _system_collapses():
                with suppress(OSError):  # a kernel without huge pages refuses it
                    self._memory.madvise(mmap.MADV_HUGEPAGE)
        else:
            grown = np.empty((room, columns), np.float32)
            grown[: len(self.rows)] = self.rows
            self.rows = grown

    def collapse(self, used: int) -> None:
        """Put the first ``used`` rows into huge pages, or as many more of them as one call may.

        To read all of them is then up to a fifth faster. They are written to small pages first:
        huge ones are slow to come by where the machine is a virtual one or its memory in pieces.
        """
        if sys.platform == "linux" and self._memory is not None and _system_collapses():
            first = -self.rows.__array_interface__["data"][0] % _HUGE_PAGE
            full = (used * self.rows.strides[0] - first) // _HUGE_PAGE
            # One by one, as each keeps the interpreter's lock.
            for page in range(self._collapsed, min(full, self._collapsed + _COLLAPSED_AT_ONCE)):
                self._collapsed = page + 1
                with suppress(OSError):  # there may be no room for a huge page
                    self._memory.madvise(_MADV_COLLAPSE, first + page * _HUGE_PAGE, _HUGE_PAGE)

    if sys.platform == "linux":

        def _moved(self, memory: mmap.mmap, size: int, columns: int) -> bool:
            """Tell whether ``memory`` could be made larger where it is, or moved."""
            self.rows = np.empty((0, columns), np.float32)  # with a view on it, it must not move
            try:
                memory.resize(size)
            except BufferError:  # somebody still has one: an exception that holds its frames
                return False
            except OSError as error:
                raise _no_room(size) from error
            finally:
                self._view(columns)
            return True

        def _view(self, columns: int) -> None:
            assert self._memory is not None
            self.rows = np.frombuffer(self._memory, np.float32).reshape(-1, columns)


if sys.platform == "linux":

    @cache
    def _system_collapses() -> bool:
        """Tell whether the kernel makes huge pages of small ones when it is asked to, and may."""
        try:
            allowed = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
        except OSError:  # it has none
            return False
        # It would even if none are allowed.
        return "[never]" not in allowed and _version(os.uname().release) >= (6, 1)

    def _version(release: str) -> tuple[int, ...]:
        found = re.match(r"(\d+)\.(\d+)", release)
        return tuple(map(int, found.groups())) if found else ()

    def _mapped(size: int) -> mmap.mmap:
        try:
            return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise _no_room(size) from error

    def _no_room(size: int) -> MemoryError:
        return MemoryError(f"the system has no room for vectors of {size:,} bytes")
