"""Records on their way in: validated, whatever became of them, or equal to what would be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue, ValidationError

from agent_memory import InvalidArgumentError, MemoryRecord, MemoryRecordResult, MemoryTypeEnum
from agent_memory.columns import FIELDS, Columns
from agent_memory.intake import _PART, _copies_if_plain, latest, stored_columns


class _Text(str):
    pass


class _Time(datetime):
    pass


_MOMENT = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
_STRINGS = ["a", "", " ", "é", "\ud800", _Text("a"), None, 5, b"a"]
_TAG_LISTS = [None, [], ["a", "é"], ["a", ""], ["\udfff"], ["a", None], ("a",), [_Text("a")], "a"]
_TIMES = [
    None,
    _MOMENT,
    _MOMENT.replace(tzinfo=None),
    _MOMENT.astimezone(timezone(timedelta(hours=5))),
    _Time(2026, 1, 1, tzinfo=UTC),
    datetime.min.replace(tzinfo=timezone(timedelta(hours=5))),
    "2026-01-01T00:00:00Z",
    1_700_000_000,
]
_OBJECTS: list[Any] = [{}, {"a": [1, {"b": None}]}, {"a": float("nan")}, {1: 2}, None, [], "a"]
_CHANGES: dict[str, list[Any]] = {
    **dict.fromkeys(
        ("id", "text", "session_id", "user_id", "namespace", "extraction_strategy"), _STRINGS
    ),
    **dict.fromkeys(("topics", "entities", "extracted_from"), _TAG_LISTS),
    **dict.fromkeys(
        ("created_at", "last_accessed", "updated_at", "event_date", "persisted_at"), _TIMES
    ),
    **dict.fromkeys(("metadata", "extraction_strategy_config"), _OBJECTS),
    "memory_type": [MemoryTypeEnum.EPISODIC, "episodic", "other", None],
    "pinned": [True, 1, "yes", None],
    "access_count": [0, 2**63 - 1, 2**63, -1, True, 1.0, 1.5, None],
    "memory_hash": ["a", None, 5],
    "discrete_memory_extracted": ["t", "f", "x", _Text("t"), None],
}


def test_every_field_is_changed() -> None:
    assert _CHANGES.keys() == MemoryRecord.model_fields.keys()


@given(
    st.dictionaries(st.sampled_from(sorted(_CHANGES)), st.integers(0, 8), max_size=3).map(
        lambda chosen: {
            name: _CHANGES[name][index % len(_CHANGES[name])] for name, index in chosen.items()
        }
    )
)
def test_a_record_changed_behind_the_validators_is_stored_as_they_would_have_it(
    changes: dict[str, Any],
) -> None:
    # model_copy validates nothing.
    record = MemoryRecord(id="a", text="a", topics=["t"]).model_copy(update=changes)
    try:
        should = MemoryRecord.model_validate(record.__dict__)
    except ValidationError:
        with pytest.raises(InvalidArgumentError, match="became invalid"):
            stored_columns([record])
        return
    [got] = stored_columns([record]).to_records()
    assert got.memory_hash == should.compute_hash()
    assert got == should.model_copy(update={"memory_hash": got.memory_hash})
    for name, value in got.__dict__.items():
        if name != "memory_hash":
            assert type(value) is type(getattr(should, name)), name
    assert got.model_fields_set == set(MemoryRecord.model_fields)


def test_what_an_ordinary_record_holds_needs_no_validator() -> None:
    record = MemoryRecord(
        id="a",
        text="é",
        user_id="ada",
        topics=["a", "é"],
        event_date=_MOMENT,
        memory_type=MemoryTypeEnum.EPISODIC,
    )
    columns = _copies_if_plain([record])
    assert columns is not None
    [copy] = columns.to_records()
    assert copy == record
    for name in ("topics", "metadata", "extraction_strategy_config"):
        assert getattr(copy, name) is not getattr(record, name)


@pytest.mark.parametrize("missing", sorted(MemoryRecord.model_fields))
def test_a_record_without_one_of_its_fields_is_left_to_the_validators(missing: str) -> None:
    record = MemoryRecord(id="a", text="a")
    del record.__dict__[missing]
    assert _copies_if_plain([record]) is None
    record.__dict__["another"] = 1
    with pytest.raises(InvalidArgumentError, match="another"):
        stored_columns([record])


def test_a_result_is_stored_as_a_plain_record() -> None:
    found = MemoryRecordResult(id="a", text="a", dist=0.5, score=0.5)
    assert [type(each) for each in stored_columns([found]).to_records()] == [MemoryRecord]


def test_many_records_keep_their_order_whoever_validates_them() -> None:
    records = [MemoryRecord(id=str(number), text=f"text {number}") for number in range(3 * _PART)]
    odd = records[_PART + 1]
    odd.__dict__["created_at"] = "2026-01-01T00:00:00Z"  # for the validators, with its whole part
    columns = stored_columns(records)
    assert [*columns] == list(FIELDS)
    assert columns["id"] == [each.id for each in records]
    assert columns["memory_hash"] == [each.compute_hash() for each in records]
    assert columns["created_at"][_PART + 1] == datetime(2026, 1, 1, tzinfo=UTC)
    assert columns.count == len(records)


def test_what_the_caller_changes_later_is_not_stored() -> None:
    nested: list[JsonValue] = [1]
    record = MemoryRecord(id="a", text="a", topics=["t"], metadata={"k": nested})
    record.metadata["k"] = nested
    untouched = record.model_copy(deep=True)
    empty = MemoryRecord(id="b", text="b")
    columns = stored_columns([record, empty])
    assert record.topics is not None
    record.topics.append("later")
    nested.append(2)
    record.extraction_strategy_config["later"] = True
    empty.metadata["later"] = True
    stored = columns.to_records()
    assert [each.model_copy(update={"memory_hash": None}) for each in stored] == [
        untouched,
        empty.model_copy(update={"metadata": {}}),
    ]
    assert record.memory_hash is None


def test_records_made_of_columns_share_nothing_that_can_change() -> None:
    records = [MemoryRecord(id=each, text=each) for each in "ab"]
    one, other = stored_columns(records).to_records()
    one.metadata["only"] = "here"
    one.extraction_strategy_config["only"] = "here"
    assert other.metadata == other.extraction_strategy_config == {}
    later = MemoryRecord(id="c", text="c")
    assert stored_columns([later])["metadata"] == [{}]


def test_the_last_record_of_an_id_counts_in_the_place_of_the_first() -> None:
    records = [MemoryRecord(id=name, text=text) for name, text in ("a1", "b1", "a2", "c1", "b2")]
    columns = latest(Columns.of(records))
    assert list(zip(columns["id"], columns["text"], strict=True)) == [
        ("a", "2"),
        ("b", "2"),
        ("c", "1"),
    ]
