"""The data that goes in and comes out: one memory, one search result, one page of results.

Validation lives here, so that an invalid memory cannot be built. How memories are stored, filtered
or ranked does not.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    WrapValidator,
)

MAX_JSON_DEPTH = 100
_encoded = json.encoder.encode_basestring_ascii  # what json.dumps does to a string
_TOO_LONG = 10**4_000  # JSON readers, Python's among them, refuse integers not much longer


class MemoryTypeEnum(StrEnum):
    """What kind of memory a record is."""

    EPISODIC = "episodic"
    """Something that happened, usually with an ``event_date``."""
    SEMANTIC = "semantic"
    """A fact or a preference, true without a date."""
    MESSAGE = "message"
    """One message of a conversation, as it was said."""


class SearchMode(StrEnum):
    """How ``search_memories`` compares a query with the memories."""

    SEMANTIC = "semantic"
    """By the distance between embeddings."""
    KEYWORD = "keyword"
    """By the words that query and memory share."""
    HYBRID = "hybrid"
    """By both, weighed by ``hybrid_alpha``."""


class ScoreType(StrEnum):
    """What a result's ``score`` was computed from."""

    SEMANTIC = "semantic"
    KEYWORD = "keyword"
    HYBRID = "hybrid"


def ensure_encodable(value: str) -> str:
    """Return ``value`` if UTF-8 can hold it; a lone surrogate raises ``ValueError``."""
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"a lone surrogate at position {error.start} is not text: UTF-8 cannot hold it"
            ) from None
    return value


def ensure_utc(value: datetime) -> datetime:
    """Return ``value`` in UTC, a naive one read as UTC.

    Raises:
        ValueError: in UTC it lies outside the years 1 to 9999.
    """
    if value.tzinfo is UTC:
        return value
    if value.tzinfo is None or value.utcoffset() is None:
        return value.replace(tzinfo=UTC)
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("in UTC this time is outside the years 1 to 9999") from None


def _refuse_bare_number(value: Any) -> Any:
    # A number could be seconds or milliseconds; guessing is off by a factor of a thousand.
    if not isinstance(value, (date, str)) or (
        isinstance(value, str) and value.strip().lstrip("+-").replace(".", "", 1).isdigit()
    ):
        raise ValueError("give a datetime or an ISO 8601 string, not a bare number")
    return value


def _ensure_text(value: str) -> str:
    if not value or value.isspace():
        raise ValueError("the text is blank")
    return ensure_encodable(value)


def _utc_datetime(value: Any, validated: Callable[[Any], datetime]) -> datetime:
    if type(value) is datetime and value.tzinfo is UTC:
        return value
    return ensure_utc(validated(_refuse_bare_number(value)))


def _ensure_json(value: Any, depth: int = 0) -> None:
    if depth > MAX_JSON_DEPTH:
        raise ValueError(f"nested deeper than {MAX_JSON_DEPTH} levels")
    if isinstance(value, str):
        ensure_encodable(value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("JSON has no infinity and no NaN")
    elif isinstance(value, int):
        if abs(value) >= _TOO_LONG:
            raise ValueError("a whole number of more than 4,000 digits: store it as a string")
    elif isinstance(value, dict):
        for key, item in value.items():
            ensure_encodable(key)
            _ensure_json(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _ensure_json(item, depth + 1)


def _ensure_json_object(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    _ensure_json(value)
    return value


Text = Annotated[str, AfterValidator(_ensure_text)]
"""Text that is not blank and that UTF-8 can hold."""

# Measuring the length also refuses lone surrogates, faster than `ensure_encodable` would.
Tag = Annotated[str, StringConstraints(min_length=1)]
"""An exact value: never empty, otherwise any characters, never trimmed or folded."""

UtcDatetime = Annotated[datetime, WrapValidator(_utc_datetime)]
"""A moment, to the microsecond, in UTC. A naive datetime is read as UTC."""

JsonObject = Annotated[dict[str, JsonValue], AfterValidator(_ensure_json_object)]
"""A JSON object: nested values of JSON's own types, finite numbers of up to 4,000 digits, at
most 100 levels deep."""


def _now() -> datetime:
    return datetime.now(UTC)


class MemoryRecord(BaseModel):
    """One memory of an agent.

    Only ``id`` and ``text`` must be given. Unknown fields are refused, so that a misspelled
    ``user_id`` cannot put a memory where everybody sees it.

    Raises:
        pydantic.ValidationError: a ``ValueError`` that lists every invalid field.
    """

    # Building validators takes a third of importing this package; the first record does it.
    model_config = ConfigDict(extra="forbid", validate_assignment=True, defer_build=True)

    id: Tag
    """Chosen by the caller, unique within a space; adding it again replaces the record."""
    text: Text
    """What is remembered; this is what gets embedded."""
    session_id: Tag | None = None
    user_id: Tag | None = None
    namespace: Tag | None = None
    memory_type: MemoryTypeEnum = MemoryTypeEnum.MESSAGE
    topics: list[Tag] | None = None
    entities: list[Tag] | None = None
    extracted_from: list[Tag] | None = None
    """Ids of the messages that this memory was extracted from."""
    metadata: JsonObject = Field(default_factory=dict)
    """Anything else, as JSON; stored and returned, not filterable."""
    event_date: UtcDatetime | None = None
    """When it happened, for an episodic memory."""
    created_at: UtcDatetime = Field(default_factory=_now)
    last_accessed: UtcDatetime = Field(default_factory=_now)
    updated_at: UtcDatetime = Field(default_factory=_now)
    persisted_at: UtcDatetime | None = None
    pinned: bool = False
    access_count: int = Field(default=0, ge=0, lt=2**63)
    memory_hash: Tag | None = None
    """Derived by whoever stores the record, see `compute_hash`; what a caller sets is replaced."""
    discrete_memory_extracted: Literal["t", "f"] = "f"
    """``"t"`` once discrete memories have been extracted from this one."""
    extraction_strategy: Tag = "discrete"
    extraction_strategy_config: JsonObject = Field(default_factory=dict)

    def compute_hash(self) -> str:
        """Return the sha256, in hex, of the fields that make two memories the same (rule REC-4)."""
        return memory_hash(
            self.memory_type, self.namespace, self.session_id, self.text, self.user_id
        )

    @classmethod
    def from_trusted(cls, fields: dict[str, Any]) -> Self:
        """Return a record of ``fields``, all of them, which were valid when they were stored.

        For backends, on the way out: `model_construct` does the same at eight times the cost. The
        record takes ``fields`` over; do not change it afterwards.
        """
        return cls.all_from_trusted((fields,))[0]

    @classmethod
    def all_from_trusted(cls, many: Iterable[dict[str, Any]]) -> list[Self]:
        """Return a record for each of ``many``, as `from_trusted` does in half the time."""
        new, every_field = cls.__new__, _every_field(cls)
        records = []
        for fields in many:
            record = new(cls)
            _set_fields(record, fields)
            # One set for all: whatever is assigned later, every field is in it already.
            _set_fields_set(record, every_field)
            _set_extra(record, None)
            _set_private(record, None)
            records.append(record)
        return records


def memory_hash(
    memory_type: MemoryTypeEnum,
    namespace: str | None,
    session_id: str | None,
    text: str,
    user_id: str | None,
) -> str:
    """Return what `MemoryRecord.compute_hash` does, of a record's fields."""
    # As json.dumps(..., sort_keys=True) has it, written out: every record stored needs one.
    identity = (
        f'{{"memory_type": {_encoded(memory_type)}, '
        f'"namespace": {"null" if namespace is None else _encoded(namespace)}, '
        f'"session_id": {"null" if session_id is None else _encoded(session_id)}, '
        f'"text": {_encoded(text)}, '
        f'"user_id": {"null" if user_id is None else _encoded(user_id)}}}'
    )
    return hashlib.sha256(identity.encode()).hexdigest()


# What a model is made of, set without looking each up by its name.
_set_fields, _set_fields_set, _set_extra, _set_private = (
    BaseModel.__dict__[name].__set__
    for name in (
        "__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__",
    )
)  # fmt: skip


@cache
def _every_field(kind: type[MemoryRecord]) -> set[str]:
    return set(kind.model_fields)


class MemoryRecordResult(MemoryRecord):
    """A memory as it was found, with how well it fits the query."""

    dist: float | None = None
    """Distance to the query in the space's metric; ``None`` where no vector was compared."""
    score: float | None = None
    """How well it fits, 1.0 the best; ``None`` in a listing."""
    score_type: ScoreType | None = None
    """What ``score`` was computed from; ``None`` in a listing."""

    def to_record(self) -> MemoryRecord:
        """Return the memory alone, equal to what was stored; a copy that may be changed."""
        fields = {name: getattr(self, name) for name in MemoryRecord.model_fields}
        return MemoryRecord.model_validate(fields)


class MemoryRecordResults(BaseModel):
    """One page of memories."""

    model_config = ConfigDict(defer_build=True)

    memories: list[MemoryRecordResult]
    total: int | None
    """How many memories match in the whole space; ``None`` if the caller asked not to count."""
    next_offset: int | None = None
    """The ``offset`` of the next page; ``None`` on the last one."""

    @classmethod
    def from_trusted(
        cls, memories: list[MemoryRecordResult], total: int | None, next_offset: int | None
    ) -> Self:
        """Return a page of what is valid; as `MemoryRecord.from_trusted`, for backends."""
        page = cls.__new__(cls)
        _set_fields(page, {"memories": memories, "total": total, "next_offset": next_offset})
        _set_fields_set(page, {"memories", "total", "next_offset"})
        _set_extra(page, None)
        _set_private(page, None)
        return page
