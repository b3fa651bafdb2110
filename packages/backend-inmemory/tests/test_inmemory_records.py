"""A record as a row and back: nothing is lost."""

from __future__ import annotations

import ast
import json
import sqlite3
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent_memory import MemoryRecord
from agent_memory_inmemory import engine
from agent_memory_inmemory.records import (
    COLUMNS,
    RARE_COLUMNS,
    RARE_DEFAULTS,
    USUAL_COLUMNS,
    all_columns,
    from_rows,
    is_usual,
    list_from_json,
    usual_columns,
)
from agent_memory_testkit.strategies import records


def _columns(record: MemoryRecord) -> tuple[Any, ...]:
    [values] = zip(*all_columns([record]), strict=True)
    return tuple(values)


@given(records())
def test_a_record_comes_back_equal_from_sqlite(record: MemoryRecord) -> None:
    connection = sqlite3.connect(":memory:")
    try:
        marks = ", ".join("?" * len(COLUMNS))
        values = connection.execute(f"SELECT {marks}", _columns(record)).fetchone()
    finally:
        connection.close()
    [back] = from_rows([values])
    assert back == record
    assert back.model_dump_json() == record.model_dump_json()  # which tells -0.0 from 0.0
    assert type(back.pinned) is bool
    assert all(each is None or each.tzinfo is UTC for each in (back.event_date, back.created_at))


@given(st.lists(records(), max_size=4))
def test_only_what_the_defaults_stand_for_is_left_out(many: list[MemoryRecord]) -> None:
    rows = list(zip(*all_columns(many), strict=True))
    for record, values in zip(many, rows, strict=True):
        assert is_usual(record) == (values[len(USUAL_COLUMNS) :] == RARE_DEFAULTS)
    assert [row[: len(USUAL_COLUMNS)] for row in rows] == list(
        zip(*usual_columns(many), strict=True)
    )


@settings(max_examples=25)
@given(records())
def test_a_record_is_one_value_for_each_column(record: MemoryRecord) -> None:
    values = dict(zip(COLUMNS, _columns(record), strict=True))
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
    values = dict(zip(COLUMNS, _columns(record), strict=True))
    assert values["created_at"] == -62_135_596_800_000_000
    assert values["updated_at"] == -1
    assert values["last_accessed"] == 253_402_300_799_999_999


def test_the_defaults_are_those_of_a_new_record_and_of_the_table() -> None:
    record = MemoryRecord(id="a", text="a")
    assert is_usual(record)
    [usual] = zip(*usual_columns([record]), strict=True)
    assert from_rows([(*usual, *RARE_DEFAULTS)]) == [record]
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript(engine._SCHEMA)
        defaults = {
            name: None if default is None else ast.literal_eval(default)
            for name, default in connection.execute(
                "SELECT name, dflt_value FROM pragma_table_info('records')"
            )
        }
    finally:
        connection.close()
    assert tuple(defaults[name] for name in RARE_COLUMNS) == RARE_DEFAULTS


def test_a_list_is_json_as_the_encoder_writes_it() -> None:
    topics = ["plain", 'quo"te', "back\\slash", "\n\x00\x1f\x7f", "é 😀 \u2028", "[1, 2]"]
    [text] = usual_columns([MemoryRecord(id="a", text="a", topics=topics)])[6]
    assert text == json.dumps(topics, ensure_ascii=False)
