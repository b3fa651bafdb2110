"""The records: what is refused, what reads back equal, how the hash is derived."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from agent_memory import (
    MemoryRecord,
    MemoryRecordResult,
    MemoryRecordResults,
    MemoryTypeEnum,
    ScoreType,
)

TAG_FIELDS = ("id", "session_id", "user_id", "namespace", "memory_hash", "extraction_strategy")
LIST_FIELDS = ("topics", "entities", "extracted_from")
TIME_FIELDS = ("created_at", "last_accessed", "updated_at", "persisted_at", "event_date")
JSON_FIELDS = ("metadata", "extraction_strategy_config")

# A busy machine is slow, not wrong.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

tags = st.text(min_size=1, max_size=20)
texts = st.text(min_size=1).filter(str.strip)
offsets = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)
zones: st.SearchStrategy[Any] = st.none() | st.just(UTC) | offsets | st.timezones()
moments = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=zones)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**3999), 10**3999)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
json_objects = st.dictionaries(st.text(), json_values, max_size=4)
records = st.builds(
    MemoryRecord,
    id=tags,
    text=texts,
    session_id=st.none() | tags,
    user_id=st.none() | tags,
    namespace=st.none() | tags,
    memory_type=st.sampled_from(MemoryTypeEnum),
    topics=st.none() | st.lists(tags, max_size=4),
    entities=st.none() | st.lists(tags, max_size=4),
    extracted_from=st.none() | st.lists(tags, max_size=4),
    metadata=json_objects,
    event_date=st.none() | moments,
    created_at=moments,
    last_accessed=moments,
    updated_at=moments,
    persisted_at=st.none() | moments,
    pinned=st.booleans(),
    access_count=st.integers(0, 2**63 - 1),
    memory_hash=st.none() | tags,
    discrete_memory_extracted=st.sampled_from(["t", "f"]),
    extraction_strategy=tags,
    extraction_strategy_config=json_objects,
)


def record(**fields: Any) -> MemoryRecord:
    return MemoryRecord.model_validate({"id": "1", "text": "Prefers tea", **fields})


def problem(**fields: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        record(**fields)
    (error,) = caught.value.errors(include_url=False)
    return str(error["msg"])


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"in": value}
    return value


# --- what reads back equal -------------------------------------------------------------------


def test_the_fields_are_those_of_the_architecture() -> None:
    assert set(MemoryRecord.model_fields) == {
        *TAG_FIELDS,
        *LIST_FIELDS,
        *TIME_FIELDS,
        *JSON_FIELDS,
        "text",
        "memory_type",
        "pinned",
        "access_count",
        "discrete_memory_extracted",
    }
    assert set(MemoryRecordResult.model_fields) - set(MemoryRecord.model_fields) == {
        "dist",
        "score",
        "score_type",
    }


@patient
@given(records)
def test_a_record_round_trips_through_json(each: MemoryRecord) -> None:
    assert MemoryRecord.model_validate_json(each.model_dump_json()) == each


@patient
@given(records)
def test_a_record_round_trips_through_plain_data_and_the_standard_json_module(
    each: MemoryRecord,
) -> None:
    assert MemoryRecord.model_validate(each.model_dump()) == each
    assert MemoryRecord.model_validate(json.loads(json.dumps(each.model_dump(mode="json")))) == each


@patient
@given(
    records,
    st.none() | st.floats(0, 2),
    st.none() | st.floats(0, 1),
    st.none() | st.sampled_from(ScoreType),
)
def test_a_page_of_results_round_trips_and_gives_the_record_back(
    each: MemoryRecord, dist: float | None, score: float | None, kind: ScoreType | None
) -> None:
    result = MemoryRecordResult(**each.model_dump(), dist=dist, score=score, score_type=kind)
    page = MemoryRecordResults(memories=[result], total=1, next_offset=None)
    assert MemoryRecordResults.model_validate_json(page.model_dump_json()) == page
    assert result.to_record() == each
    assert type(result.to_record()) is MemoryRecord


@pytest.mark.parametrize(
    "text",
    [
        "x" * 2**20,
        "é" * 2**19,
        "".join(map(chr, range(32))) + "x\x7f\x85\u2028\ufeff\uffff",
        "e\u0301 \u00e9",
        "\U0010ffff \U0001f9e0",
        ' "quoted", | {braces} \\ ',
    ],
    ids=["1 MiB", "1 MiB of UTF-8", "control", "NFD and NFC", "astral", "syntax"],
)
def test_text_is_kept_as_it_is(text: str) -> None:
    each = record(text=text, user_id=text, topics=[text, text], metadata={text: [text]})
    back = MemoryRecord.model_validate_json(each.model_dump_json())
    assert back.text == text
    assert back.user_id == text
    assert back.topics == [text, text]
    assert back.metadata == {text: [text]}


def test_none_and_an_empty_list_stay_apart() -> None:
    for name in LIST_FIELDS:
        assert getattr(record(), name) is None
        assert getattr(record(**{name: []}), name) == []


def test_only_id_and_text_must_be_given() -> None:
    before = datetime.now(UTC)
    each = MemoryRecord(id="1", text="x")
    assert each.memory_type is MemoryTypeEnum.MESSAGE
    assert (each.pinned, each.access_count, each.metadata) == (False, 0, {})
    assert (each.discrete_memory_extracted, each.extraction_strategy) == ("f", "discrete")
    assert before <= each.created_at <= each.last_accessed <= each.updated_at <= datetime.now(UTC)
    assert (each.event_date, each.persisted_at, each.memory_hash) == (None, None, None)
    with pytest.raises(ValidationError, match="id\n  Field required"):
        MemoryRecord.model_validate({"text": "x"})
    with pytest.raises(ValidationError, match="text\n  Field required"):
        MemoryRecord.model_validate({"id": "1"})


def test_a_record_shares_nothing_with_what_it_was_built_from() -> None:
    topics, metadata = ["tea"], {"a": [{"b": [1]}]}
    each = record(topics=topics, metadata=metadata)
    topics.append("coffee")
    metadata["a"][0]["b"].append(2)
    assert each.topics == ["tea"]
    assert each.metadata == {"a": [{"b": [1]}]}

    result = MemoryRecordResult(**each.model_dump())
    taken = result.to_record()
    taken.metadata["a"] = 0
    assert result.metadata == {"a": [{"b": [1]}]}


@patient
@given(records)
def test_a_trusted_record_is_like_a_validated_one(each: MemoryRecord) -> None:
    trusted = MemoryRecord.from_trusted(dict(each.__dict__))
    assert trusted == each
    assert repr(trusted) == repr(each)
    assert trusted.model_dump_json() == each.model_dump_json()
    assert pickle.loads(pickle.dumps(trusted)) == copy.deepcopy(trusted) == each
    assert trusted.model_copy(update={"user_id": "eve"}).user_id == "eve"
    with pytest.raises(ValidationError):
        trusted.text = " "
    trusted.text = "new"
    assert trusted.text == "new"


def test_members_of_an_enumeration_become_plain_strings() -> None:
    class User(StrEnum):
        ADA = "ada"

    each = record(user_id=User.ADA, topics=[User.ADA])
    assert type(each.user_id) is str
    assert each.topics is not None
    assert type(each.topics[0]) is str


# --- times -----------------------------------------------------------------------------------


@patient
@given(moments)
def test_every_time_is_kept_in_utc_to_the_microsecond(moment: datetime) -> None:
    expected = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    each = record(**dict.fromkeys(TIME_FIELDS, moment))
    for name in TIME_FIELDS:
        kept = getattr(each, name)
        assert kept == expected
        assert kept.tzinfo is UTC


@patient
@given(moments)
def test_a_time_may_be_an_iso_8601_string(moment: datetime) -> None:
    offset = moment.utcoffset() or timedelta()
    if offset % timedelta(minutes=1):
        moment = moment.replace(tzinfo=UTC)  # ISO 8601 has no seconds in an offset
    as_string = record(event_date=moment.isoformat()).event_date
    assert as_string == record(event_date=moment).event_date


def test_a_date_is_its_midnight_in_utc() -> None:
    assert record(event_date=date(2024, 2, 29)).event_date == datetime(2024, 2, 29, tzinfo=UTC)
    assert record(event_date="2024-02-29").event_date == datetime(2024, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize("moment", [datetime.min, datetime.max])
def test_the_first_and_the_last_moment_are_kept(moment: datetime) -> None:
    each = record(event_date=moment)
    assert each.event_date == moment.replace(tzinfo=UTC)
    assert MemoryRecord.model_validate_json(each.model_dump_json()) == each


@pytest.mark.parametrize(
    "moment",
    [
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
        datetime.min.replace(tzinfo=ZoneInfo("Asia/Tokyo")),
        datetime.max.replace(tzinfo=ZoneInfo("America/New_York")),
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-01:00",
    ],
)
def test_a_time_that_utc_cannot_hold_is_refused(moment: datetime | str) -> None:
    assert "in UTC this time is outside the years 1 to 9999" in problem(event_date=moment)


@pytest.mark.parametrize(
    "number",
    [1_700_000_000, 1.7e9, True, "1700000000", " -17.5 ", Decimal("1700000000"), b"1700000000"],
)
@pytest.mark.parametrize("name", TIME_FIELDS)
def test_a_bare_number_is_not_a_time(name: str, number: object) -> None:
    assert "give a datetime or an ISO 8601 string" in problem(**{name: number})


# --- what is refused (REC-3) -----------------------------------------------------------------


@pytest.mark.parametrize("name", TAG_FIELDS)
def test_an_empty_tag_is_refused(name: str) -> None:
    assert "at least 1 character" in problem(**{name: ""})


@pytest.mark.parametrize("name", LIST_FIELDS)
def test_an_empty_tag_in_a_list_is_refused(name: str) -> None:
    assert "at least 1 character" in problem(**{name: ["a", ""]})


@pytest.mark.parametrize("name", LIST_FIELDS)
def test_a_string_is_not_a_list_of_tags(name: str) -> None:
    assert "valid list" in problem(**{name: "tea"})


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u2003\u00a0"])
def test_blank_text_is_refused(text: str) -> None:
    assert "the text is blank" in problem(text=text)


def test_a_blank_tag_is_a_value_like_any_other() -> None:
    assert record(user_id=" ", topics=["\n"]).user_id == " "


@pytest.mark.parametrize("surrogate", ["\ud800", "a\udfffb", "\udc00\ud800"])
@pytest.mark.parametrize(
    "place",
    [
        *TAG_FIELDS,
        *LIST_FIELDS,
        *JSON_FIELDS,
        "text",
        "metadata key",
        "nested key",
        "nested value",
    ],
)
def test_a_lone_surrogate_is_refused_everywhere(place: str, surrogate: str) -> None:
    fields: dict[str, Any]
    if place in LIST_FIELDS:
        fields = {place: ["a", surrogate]}
    elif place in JSON_FIELDS:
        fields = {place: {"a": surrogate}}
    elif place == "metadata key":
        fields = {"metadata": {surrogate: 1}}
    elif place == "nested key":
        fields = {"metadata": {"a": [{"b": {surrogate: 1}}]}}
    elif place == "nested value":
        fields = {"metadata": {"a": [{"b": ["c", surrogate]}]}}
    else:
        fields = {place: surrogate}
    message = problem(**fields)
    assert "surrogate" in message or "unicode" in message


@pytest.mark.parametrize("count", [-1, 2**63, 1.5, None])
def test_an_access_count_is_a_whole_number_from_0_that_64_bits_hold(count: object) -> None:
    problem(access_count=count)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", JSON_FIELDS)
def test_a_number_that_json_does_not_have_is_refused(name: str, number: float) -> None:
    assert "no infinity and no NaN" in problem(**{name: {"a": [{"b": number}]}})


@pytest.mark.parametrize(
    "number", [10**4000, -(10**4000), 10**9999], ids=["longer by 1", "negative", "longer"]
)
def test_a_number_too_long_for_json_readers_is_refused(number: int) -> None:
    assert "4,000 digits" in problem(metadata={"a": [number]})


def test_the_longest_number_that_is_accepted_can_be_read_back() -> None:
    for number in (10**4000 - 1, 1 - 10**4000):
        each = record(metadata={"a": number})
        assert MemoryRecord.model_validate_json(each.model_dump_json()) == each
        assert json.loads(each.model_dump_json())["metadata"] == {"a": number}


def test_nesting_has_a_limit_that_json_readers_can_take() -> None:
    deepest = record(metadata=nested(101))  # the object itself and 100 levels inside it
    assert MemoryRecord.model_validate_json(deepest.model_dump_json()) == deepest
    assert "deeper than 100 levels" in problem(metadata=nested(102))
    with pytest.raises(ValidationError):
        record(metadata=nested(50_000))


def test_metadata_that_holds_itself_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    with pytest.raises(ValidationError):
        record(metadata=loop)


@pytest.mark.parametrize("value", [(1, 2), {1}, b"x", datetime(2024, 1, 1), object()])
def test_metadata_holds_only_the_types_of_json(value: object) -> None:
    with pytest.raises(ValidationError):
        record(metadata={"a": value})
    with pytest.raises(ValidationError):
        record(metadata={1: "a"})


def test_unknown_fields_are_refused() -> None:
    assert "Extra inputs are not permitted" in problem(usr_id="ada")
    with pytest.raises(ValidationError):
        MemoryRecord.model_validate_json('{"id": "1", "text": "x", "score": 1}')


@pytest.mark.parametrize(
    ("name", "value"),
    [("memory_type", "semantik"), ("discrete_memory_extracted", "yes"), ("pinned", "perhaps")],
)
def test_a_value_outside_the_choices_is_refused(name: str, value: str) -> None:
    problem(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", ""),
        ("text", " "),
        ("topics", [""]),
        ("metadata", {"a": float("nan")}),
        ("created_at", 5),
        ("access_count", -1),
        ("memory_type", "x"),
        ("unknown", 1),
    ],
)
def test_an_assigned_value_is_checked_and_refused_without_effect(name: str, value: object) -> None:
    each = record()
    before = each.model_copy(deep=True)
    with pytest.raises(ValidationError):
        setattr(each, name, value)
    assert each == before


def test_an_assigned_time_is_read_like_a_given_one() -> None:
    each = record()
    each.event_date = datetime(2024, 1, 1)
    assert each.event_date == datetime(2024, 1, 1, tzinfo=UTC)


# --- the hash (REC-4) ------------------------------------------------------------------------


@patient
@given(records)
def test_the_hash_follows_the_formula_of_the_contract(each: MemoryRecord) -> None:
    identity = {
        "text": each.text,
        "user_id": each.user_id,
        "session_id": each.session_id,
        "namespace": each.namespace,
        "memory_type": str(each.memory_type),
    }
    text = json.dumps(identity, sort_keys=True)
    assert each.compute_hash() == hashlib.sha256(text.encode()).hexdigest()


def test_the_hash_of_a_known_record_never_changes() -> None:
    each = MemoryRecord(id="1", text="Prefers thé", user_id="ada", memory_type="semantic")  # type: ignore[arg-type]
    canonical = (
        b'{"memory_type": "semantic", "namespace": null, "session_id": null, '
        b'"text": "Prefers th\\u00e9", "user_id": "ada"}'
    )
    assert each.compute_hash() == hashlib.sha256(canonical).hexdigest()


def test_the_hash_tells_none_from_the_word() -> None:
    assert record(user_id="None").compute_hash() != record().compute_hash()
    assert record(user_id="null").compute_hash() != record().compute_hash()
