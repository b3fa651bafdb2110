"""Rows that grow in place: nothing written is lost, whoever still looks at it."""

from __future__ import annotations

import numpy as np
import pytest

from agent_memory_inmemory.growing import GrowingRows


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
