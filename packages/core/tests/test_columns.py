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
    assert columns.count == len(many)
    assert len(columns) == len(FIELDS)
    for name in FIELDS:
        assert [*columns[name]] == [getattr(each, name) for each in many]
    assert columns.to_records() == many
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, 6)] * 2)))
    assert columns.part(start, stop).to_records() == many[start:stop]
    places = data.draw(st.lists(st.sampled_from(range(len(many))))) if many else []
    taken = columns.take(places)
    assert taken.count == len(places)
    assert taken.to_records() == [many[each] for each in places]


@given(st.lists(records(), max_size=5), st.data())
def test_rows_are_a_sequence_and_columns_at_once(
    many: list[MemoryRecord], data: st.DataObject
) -> None:
    vectors = [_vector(number) if number % 3 else None for number in range(len(many))]
    single = [*map(Row, many, vectors)]
    rows = Rows(Columns.of(many), vectors)
    assert rows.columns["id"] == tuple(each.id for each in many)
    assert [*rows.vectors] == vectors
    assert len(rows) == len(single)
    assert [*rows] == [*rows[:]] == single
    part = data.draw(st.slices(5))
    assert [*rows[part]] == single[part]
    assert [row for part in rows.parts(2) for row in part] == single
    assert all(len(part) <= 2 for part in rows.parts(2))
    for place, row in enumerate(single):
        assert rows[place] == row == rows[place - len(many)]
    places = data.draw(st.lists(st.sampled_from(range(len(many))))) if many else []
    assert [*rows.take(places)] == [single[each] for each in places]
    with pytest.raises(IndexError):
        rows[len(many)]


def test_a_record_that_a_row_was_asked_for_stays_the_same_object() -> None:
    rows = Rows(Columns.of([MemoryRecord(id="a", text="a")]), [None])
    assert rows[0].record is rows[0].record
    [row] = rows
    assert row.record is rows[0].record


def test_columns_may_come_in_any_order() -> None:
    columns = Columns.of([MemoryRecord(id="a", text="b")])
    assert Columns(dict(reversed([*columns.items()]))).to_records() == columns.to_records()


def test_there_is_a_vector_or_none_for_each_record() -> None:
    columns = Columns.of([MemoryRecord(id="a", text="a")])
    with pytest.raises(ValueError, match="2 vectors for 1 records"):
        Rows(columns, [None, None])
