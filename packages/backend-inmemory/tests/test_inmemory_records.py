"""A record as a row and back: nothing is lost."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent_memory import MemoryRecord
from agent_memory.backend import Columns
from agent_memory_inmemory import engine
from agent_memory_inmemory.records import (
    COLUMNS,
    DEFAULTS,
    from_rows,
    list_from_json,
    to_columns,
)
from agent_memory_testkit.strategies import records


def _table() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.executescript(engine._SCHEMA)
    return connection


def _stored(many: list[MemoryRecord]) -> list[tuple[Any, ...]]:
    """Return what a table has of them, in the order of `COLUMNS`."""
    columns = to_columns(Columns.of(many))
    marks = ", ".join("?" * len(columns))
    with closing(_table()) as connection:
        connection.executemany(
            f"INSERT INTO records ({', '.join(columns)}) VALUES ({marks})",
            zip(*columns.values(), strict=True),
        )
        return connection.execute(
            f"SELECT {', '.join(COLUMNS)} FROM records ORDER BY row"
        ).fetchall()


def _hashed(record: MemoryRecord) -> MemoryRecord:
    return record.model_copy(update={"memory_hash": record.compute_hash()})


@given(st.lists(records().map(_hashed), max_size=4, unique_by=lambda each: each.id))
def test_records_come_back_equal_from_sqlite(many: list[MemoryRecord]) -> None:
    back = from_rows(_stored(many))
    assert back == many
    for each, record in zip(back, many, strict=True):
        assert each.model_dump_json() == record.model_dump_json()  # which tells -0.0 from 0.0
        assert type(each.pinned) is bool
        assert all(
            moment is None or moment.tzinfo is UTC for moment in (each.event_date, each.created_at)
        )


@given(st.lists(records(), min_size=1, max_size=4))
def test_only_what_the_defaults_stand_for_is_left_out(many: list[MemoryRecord]) -> None:
    columns = to_columns(Columns.of(many))
    assert [*columns] == [
        name
        for name in COLUMNS
        if name not in DEFAULTS or any(getattr(each, name) != DEFAULTS[name] for each in many)
    ]
    assert {len(values) for values in columns.values()} == {len(many)}


@settings(max_examples=25)
@given(records().map(_hashed))
def test_a_record_is_one_value_for_each_column(record: MemoryRecord) -> None:
    [row] = _stored([record])
    values = dict(zip(COLUMNS, row, strict=True))
    assert set(COLUMNS) == set(MemoryRecord.model_fields)
    assert list_from_json(values["topics"]) == (record.topics or [])
    assert (values["topics"] is None) == (record.topics is None)


def test_times_are_microseconds_since_1970() -> None:
    moments = [datetime.min, datetime(1969, 12, 31, 23, 59, 59, 999_999), datetime.max]
    record = MemoryRecord(
        id="a",
        text="a",
        created_at=moments[0],
        updated_at=moments[1],
        last_accessed=moments[2],
    )
    values = {name: each for name, [each] in to_columns(Columns.of([record])).items()}
    assert values["created_at"] == -62_135_596_800_000_000
    assert values["updated_at"] == -1
    assert values["last_accessed"] == 253_402_300_799_999_999


def test_the_defaults_are_those_of_a_new_record_and_of_the_table() -> None:
    record = _hashed(MemoryRecord(id="a", text="a"))
    assert not DEFAULTS.keys() & to_columns(Columns.of([record])).keys()
    assert from_rows(_stored([record])) == [record]
    assert {name: getattr(record, name) for name in DEFAULTS} == DEFAULTS


def test_a_list_is_json_as_the_encoder_writes_it() -> None:
    topics = ["plain", 'quo"te', "back\\slash", "\n\x00\x1f\x7f", "é 😀 \u2028", "[1, 2]"]
    record = MemoryRecord(id="a", text="a", topics=topics)
    [text] = to_columns(Columns.of([record]))["topics"]
    assert text == json.dumps(topics, ensure_ascii=False)
