"""Rows that grow in place: nothing written is lost, whoever still looks at it."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from agent_memory_inmemory import growing as module
from agent_memory_inmemory.growing import _MADV_COLLAPSE, GrowingRows, _system_collapses


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


if sys.platform == "linux":
    _PAGE = 2 << 20
    _ROWS = 3 * _PAGE // 16

    class _Advised:
        """A mapping that keeps the advice it was given, and gives it to the system."""

        def __init__(self, memory: mmap.mmap) -> None:
            self.memory = memory
            self.given: list[tuple[int, ...]] = []

        def madvise(self, advice: int, *where: int) -> None:
            self.given.append((advice, *where))
            self.memory.madvise(advice, *where)

    def _advised(growing: GrowingRows) -> _Advised:
        assert growing._memory is not None
        advised = _Advised(growing._memory)
        growing._memory = cast(mmap.mmap, advised)
        return advised

    @pytest.fixture
    def collapses(monkeypatch: pytest.MonkeyPatch) -> None:
        # Whatever system this is: one that does not refuses the advice.
        monkeypatch.setattr(module, "_system_collapses", lambda: True)

    @pytest.mark.usefixtures("collapses")
    def test_each_full_huge_page_is_made_once() -> None:
        growing = _filled([40 * _PAGE // 16])
        address = growing.rows.ctypes.data
        advised = _advised(growing)
        growing.collapse(_PAGE // 16 - 1)
        assert advised.given == []
        for used in (5, 5, 40, 40, 40):
            before = len(advised.given)
            growing.collapse(used * _PAGE // 16)
            assert len(advised.given) - before <= 16
        starts = [start for _, start, _ in advised.given]
        assert {(advice, size) for advice, _, size in advised.given} == {(_MADV_COLLAPSE, _PAGE)}
        assert all((address + start) % _PAGE == 0 for start in starts)
        assert starts == list(range(starts[0], 40 * _PAGE - _PAGE + 1, _PAGE))
        assert (growing.rows == np.arange(len(growing.rows))[:, np.newaxis]).all()

    @pytest.mark.usefixtures("collapses")
    def test_what_has_grown_is_made_anew() -> None:
        growing = _filled([_ROWS])
        growing.collapse(_ROWS)
        growing.grow(10 * _ROWS)
        advised = _advised(growing)
        growing.collapse(_ROWS)
        assert 2 <= len(advised.given) <= 3
        assert (growing.rows[:_ROWS] == np.arange(_ROWS)[:, np.newaxis]).all()

    def test_a_system_that_cannot_is_told_before(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_system_collapses", lambda: False)
        given: list[int] = []
        mapped = module._mapped
        monkeypatch.setattr(module, "_mapped", lambda size: _noting(mapped(size), given))
        growing = GrowingRows(4)
        growing.grow(1_000)
        assert given == []
        growing = GrowingRows(4)
        growing.grow(_ROWS)
        assert given == [mmap.MADV_HUGEPAGE]
        growing.collapse(_ROWS)
        assert given == [mmap.MADV_HUGEPAGE]

    def _noting(memory: mmap.mmap, given: list[int]) -> mmap.mmap:
        class Noting(mmap.mmap):
            def madvise(self, option: int, start: int = 0, length: int = 0) -> None:
                given.append(option)

        noting = Noting(-1, len(memory), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.close()
        return noting

    @pytest.mark.parametrize(
        ("enabled", "release", "should"),
        [
            ("always [madvise] never", "6.1.0-13-amd64", True),
            ("[always] madvise never", "7.0", True),
            ("always madvise [never]", "6.1.0", False),
            ("always [madvise] never", "5.15.0-91-generic", False),
            ("always [madvise] never", "unknown", False),
            (None, "6.1.0", False),
        ],
    )
    def test_it_is_asked_where_it_can_and_may(
        enabled: str | None, release: str, should: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def read_text(path: Path) -> str:
            assert path == Path("/sys/kernel/mm/transparent_hugepage/enabled")
            if enabled is None:
                raise FileNotFoundError(path)
            return enabled

        monkeypatch.setattr(Path, "read_text", read_text)
        monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
        assert _system_collapses.__wrapped__() is should
