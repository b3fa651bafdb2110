"""Rows that grow in place: nothing written is lost, whoever still looks at it."""

from __future__ import annotations

import errno
import mmap
import sys
from contextlib import suppress
from typing import cast

import numpy as np
import pytest

from agent_memory_inmemory.growing import _MADV_COLLAPSE, GrowingRows


def _filled(rooms: list[int]) -> GrowingRows:
    """Grow step by step, and write all the new room of each step."""
    growing = GrowingRows(4)
    for room in rooms:
        written = len(growing.rows)
        growing.grow(room)
        growing.rows[written:] = np.arange(written, room)[:, np.newaxis]
    return growing


@pytest.mark.parametrize("rooms", [[1], [1_024, 2_048], [3, 1_000_000, 1_200_000]])
def test_what_was_written_stays(rooms: list[int]) -> None:
    growing = _filled(rooms)
    assert growing.rows.shape == (rooms[-1], 4)
    assert (growing.rows == np.arange(rooms[-1])[:, np.newaxis]).all()


def test_a_view_that_is_still_held_keeps_its_memory() -> None:
    growing = _filled([1_000])
    held = growing.rows[10:20]
    growing.grow(500_000)
    growing.rows[:1_000] += 1
    assert (held == np.arange(10, 20)[:, np.newaxis]).all()
    assert (growing.rows[:1_000] == np.arange(1, 1_001)[:, np.newaxis]).all()


@pytest.mark.parametrize("written", [0, 1_000])
def test_no_room_changes_nothing(written: int) -> None:
    growing = _filled([written] if written else [])
    with pytest.raises(MemoryError):
        growing.grow(2**46)
    assert (growing.rows == np.arange(written)[:, np.newaxis]).all()
    growing.grow(2_000)
    assert (growing.rows[:written] == np.arange(written)[:, np.newaxis]).all()


_PAGE = 2 << 20
_ROWS = 3 * _PAGE // 16


class _Advised:
    """A mapping that tells what advice it was given, and gives it to the system, or refuses it."""

    def __init__(self, memory: mmap.mmap, refused: set[int]) -> None:
        self.memory = memory
        self.refused = refused
        self.given: list[tuple[int, ...]] = []

    def madvise(self, advice: int, *where: int) -> None:
        self.given.append((advice, *where))
        if advice in self.refused:
            raise OSError(errno.EINVAL, "Invalid argument")
        with suppress(OSError):  # a system need not have huge pages
            self.memory.madvise(advice, *where)


def _advised(growing: GrowingRows, refused: set[int]) -> _Advised:
    assert growing._memory is not None
    advised = _Advised(growing._memory, refused)
    growing._memory = cast(mmap.mmap, advised)
    return advised


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such pages")
def test_each_full_huge_page_is_made_once() -> None:
    growing = _filled([40 * _PAGE // 16])
    address = growing.rows.ctypes.data
    advised = _advised(growing, set())
    growing.collapse(_PAGE // 16 - 1)
    assert advised.given == []
    for used in (5, 5, 40, 40, 40):
        before = len(advised.given)
        growing.collapse(used * _PAGE // 16)
        assert len(advised.given) - before <= 16
    starts = [start for _, start, _ in advised.given]
    assert {(advice, length) for advice, _, length in advised.given} == {(_MADV_COLLAPSE, _PAGE)}
    assert all((address + start) % _PAGE == 0 for start in starts)
    assert starts == list(range(starts[0], 40 * _PAGE - _PAGE + 1, _PAGE))
    assert (growing.rows == np.arange(len(growing.rows))[:, np.newaxis]).all()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such pages")
def test_what_has_grown_is_made_anew() -> None:
    growing = _filled([_ROWS])
    growing.collapse(_ROWS)
    growing.grow(10 * _ROWS)
    advised = _advised(growing, set())
    growing.collapse(_ROWS)
    assert 2 <= len(advised.given) <= 3
    assert (growing.rows[:_ROWS] == np.arange(_ROWS)[:, np.newaxis]).all()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such pages")
def test_a_system_that_makes_none_now_is_asked_to_do_it_in_time() -> None:
    growing = _filled([_ROWS])
    advised = _advised(growing, {_MADV_COLLAPSE, mmap.MADV_HUGEPAGE})
    growing.collapse(_ROWS)
    assert (mmap.MADV_HUGEPAGE,) in advised.given
    before = len(advised.given)
    growing.collapse(_ROWS)
    assert len(advised.given) == before
    assert (growing.rows == np.arange(_ROWS)[:, np.newaxis]).all()
