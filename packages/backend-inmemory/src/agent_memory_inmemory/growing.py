"""Rows of float32 that grow in place: a large matrix is moved by the system, not copied."""

from __future__ import annotations

import mmap
import sys
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

_HUGE_FROM = 4 << 20
"""Bytes from which memory in huge pages is asked for, as NumPy does for its own arrays."""


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
            if size >= _HUGE_FROM:
                with suppress(OSError):  # a wish: a kernel without huge pages refuses it
                    self._memory.madvise(mmap.MADV_HUGEPAGE)
        else:
            grown = np.empty((room, columns), np.float32)
            grown[: len(self.rows)] = self.rows
            self.rows = grown

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

    def _mapped(size: int) -> mmap.mmap:
        try:
            return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise _no_room(size) from error

    def _no_room(size: int) -> MemoryError:
        return MemoryError(f"the system has no room for vectors of {size:,} bytes")
