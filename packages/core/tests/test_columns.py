"""Records by column and rows of a write: what goes in one way comes out the other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_memory import MemoryRecord
from agent_memory.backend import Columns, Row, Rows, Vector
from agent_memory.columns import FIELDS
from agent_memory_testkit.strategies import records


def _vector(number: int) -> Vector:
    return memoryview(bytes([0, 0, 0, number])).cast("f")


@given(st.lists(records(), max_size=5), st.data())
def test_columns_hold_what_the_records_do(many: list[MemoryRecord], data: st.DataObject) -> None:
    columns = Columns.of(many)
    assert columns.records == len(many)
    assert len(columns) == len(FIELDS)
    for name in FIELDS:
        assert [*columns[name]] == [getattr(each, name) for each in many]
    assert columns.to_records() == many
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, 6)] * 2)))
    assert columns.part(start, stop).to_records() == many[start:stop]
    places = data.draw(st.lists(st.sampled_from(range(len(many))))) if many else []
    taken = columns.take(places)
    assert taken.records == len(places)
    assert taken.to_records() == [many[each] for each in places]


@given(st.lists(records(), max_size=5), st.data())
def test_rows_are_a_sequence_and_columns_at_once(
    many: list[MemoryRecord], data: st.DataObject
) -> None:
    vectors = [_vector(number) if number % 3 else None for number in range(len(many))]
    single = [*map(Row, many, vectors)]
    rows = Rows.of(single)
    assert rows.columns["id"] == tuple(each.id for each in many)
    assert [*rows.vectors] == vectors
    assert len(rows) == len(single)
    assert [*rows] == rows[:] == single
    for place, row in enumerate(single):
        assert rows[place] == row == rows[place - len(many)]
    places = data.draw(st.lists(st.sampled_from(range(len(many))))) if many else []
    assert [*rows.take(places)] == [single[each] for each in places]
    with pytest.raises(IndexError):
        rows[len(many)]


def test_a_record_that_a_row_was_asked_for_stays_the_same_object() -> None:
    rows = Rows.of([Row(MemoryRecord(id="a", text="a"), None)])
    assert rows[0].record is rows[0].record
    [row] = rows
    assert row.record is rows[0].record
