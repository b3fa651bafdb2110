"""A `MemoryRecord` as the fields of one hash, and back.

The payload holds the whole record as JSON and is all that reading needs. The other fields exist to
be found by, in forms in which the query engine compares exactly:

- ``tags``: one token for each value of a tag field, made of letters and digits alone, so that the
  engine neither folds, trims nor splits it; tokens for missing values; tokens for prefixes.
- five times, as whole microseconds since 1970; those too far away for a double to hold are cut to
  64 microseconds, and a token among the tags tells the rest.
- ``hash_start``: the first digits of the memory's hash as a number, for prefixes of it.
- ``words``: the terms of the text.
- ``order``: sorts as rule LST-1 of the contract does, and holds creation, id and last access.

Every hash has every field, so that writing one replaces all of the one before.
"""

from __future__ import annotations

import hashlib
import json
import re
from binascii import unhexlify
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, TypeVar

from pydantic_core import from_json

from agent_memory import MemoryRecord, MemoryRecordResult, MemoryTypeEnum
from agent_memory.backend import Vector
from agent_memory.filters import LIST_TAG_FIELDS, SCALAR_TAG_FIELDS, TIME_FIELDS
from agent_memory.keywords import terms_of

Kind = TypeVar("Kind", bound=MemoryRecord)

PAYLOAD, VECTOR, DIGEST = "payload", "vector", "digest"
TAGS, WORDS, ORDER, HASH_START = "tags", "words", "order", "hash_start"

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_encoded = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_MEMORY_TYPES = {each.value: each for each in MemoryTypeEnum}

# --- times -------------------------------------------------------------------------------------

EXACT_BELOW = 2**53
"""Whole numbers of this size and more are not all doubles."""
COARSE = 64
"""What far times are cut to: the doubles there lie at most 32 apart."""


def microseconds(moment: datetime) -> int:
    """Return whole microseconds since 1970, negative before."""
    passed = moment - EPOCH
    return (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds


FIRST = microseconds(datetime.min.replace(tzinfo=UTC))
LAST = microseconds(datetime.max.replace(tzinfo=UTC))
MISSING_TIME = -(10**18)
"""Stands for no time; before all that there are."""


def cut(value: int) -> tuple[int, int | None]:
    """Return a time as a number that a double holds, and what was cut off if it is far away."""
    if -EXACT_BELOW < value < EXACT_BELOW:
        return value, None
    rest = value % COARSE
    return value - rest, rest


def far_token(field: str, rest: int) -> str:
    """Return the token of what was cut off a far time."""
    return f"t{TIME_FIELDS.index(field)}x{rest:x}"


# --- tags --------------------------------------------------------------------------------------

_CODES = dict(zip((*SCALAR_TAG_FIELDS, *LIST_TAG_FIELDS), "isunmkdxoef", strict=True))
"""The letter that begins all tokens of a field; upper-case, those of its prefixes."""
_LONGEST = 64
"""Bytes of a value that are written out; the engine silently cuts tags of more than 4 KiB."""
ORDINALS = 8
"""How many elements of a list have positions of their own."""
NOWHERE = "0"
"""A token that no record has."""
WITHOUT_PREFIXES = ("memory_type", "memory_hash", "discrete_memory_extracted")
"""Their prefixes are looked up otherwise: few values, or ``hash_start``."""
_HASH = re.compile(r"[0-9a-f]{64}")


@lru_cache(4_096)
def tag_token(field: str, value: str) -> str:
    """Return the token of one value: hexadecimal if it is short, a digest if it is long."""
    code = _CODES[field]
    if field == "memory_hash":
        return memory_hash_token(value) if _HASH.fullmatch(value) else NOWHERE
    raw = value.encode()
    return f"{code}{raw.hex()}" if len(raw) <= _LONGEST else f"{code}h{_digest(raw)}"


def memory_hash_token(digits: str) -> str:
    """Return the token of a memory's hash, or how the tokens of those begin that begin so."""
    return f"{_CODES['memory_hash']}{digits}"


def missing_token(field: str) -> str:
    """Return the token of a field without a value."""
    return f"{_CODES[field]}n"


def prefix_tokens(field: str, ordinal: int, value: str) -> Iterator[str]:
    """Yield a token for each character: a value has a prefix if it has all tokens of that prefix.

    The engine's own prefixes find the first 200 values alone, and say nothing of the others.
    """
    start = f"{_CODES[field].upper()}{ordinal}"
    return (f"{start}{place:x}x{ord(sign):x}" for place, sign in enumerate(value))


def whole_prefix_token(field: str, prefix: str) -> str:
    """Return the token that elements of a list beyond the first `ORDINALS` have for a prefix."""
    return f"{_CODES[field].upper()}h{_digest(prefix.encode())}"


@lru_cache(4_096)
def _tokens_of_value(field: str, ordinal: int, value: str) -> str:
    return ",".join((tag_token(field, value), *_prefix_tokens_of_value(field, ordinal, value)))


def _prefix_tokens_of_value(field: str, ordinal: int, value: str) -> Iterator[str]:
    if ordinal < ORDINALS:
        return prefix_tokens(field, ordinal, value)
    return (whole_prefix_token(field, value[:end]) for end in range(1, len(value) + 1))


def _tags(record: MemoryRecord) -> list[str]:
    tokens = []
    fields = record.__dict__
    for field in SCALAR_TAG_FIELDS:
        value = fields[field]
        if value is None:
            tokens.append(missing_token(field))
        elif field in WITHOUT_PREFIXES:
            tokens.append(tag_token(field, value))
        elif field == "id":  # nearly every one is new: nothing to remember
            tokens.append(_tokens_of_value.__wrapped__(field, 0, value))
        else:
            tokens.append(_tokens_of_value(field, 0, value))
    for field in LIST_TAG_FIELDS:
        values = fields[field]
        if not values:
            tokens.append(missing_token(field))
            continue
        for ordinal, value in enumerate(dict.fromkeys(values)):
            tokens.append(_tokens_of_value(field, min(ordinal, ORDINALS), value))
    return tokens


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


# --- words -------------------------------------------------------------------------------------


@lru_cache(16_384)
def word_token(term: str) -> str:
    """Return a term in letters and digits that the engine takes as they are."""
    if len(term) <= _LONGEST and term.isascii():
        return f"w{term}"
    raw = term.encode()
    return f"x{raw.hex()}" if len(raw) <= _LONGEST else f"h{_digest(raw)}"


# --- order -------------------------------------------------------------------------------------

TIME_DIGITS = 15
"""Hexadecimal digits of a time in ``order``: enough for the years 1 to 9999."""


def _order(record: MemoryRecord) -> str:
    newest_first = LAST - microseconds(record.created_at)
    accessed = microseconds(record.last_accessed) - FIRST
    # The point sorts before all digits, so an id comes before those that it begins.
    return f"{newest_first:0{TIME_DIGITS}x}{record.id.encode().hex()}.{accessed:0{TIME_DIGITS}x}"


def id_of_order(order: bytes) -> str:
    """Return the id in a value of ``order``."""
    return unhexlify(order[TIME_DIGITS : -TIME_DIGITS - 1]).decode()


def times_of_order(order: bytes) -> tuple[datetime, datetime]:
    """Return when the record was created, and when it was last accessed."""
    created = LAST - int(order[:TIME_DIGITS], 16)
    accessed = FIRST + int(order[-TIME_DIGITS:], 16)
    return EPOCH + timedelta(microseconds=created), EPOCH + timedelta(microseconds=accessed)


# --- hashes ------------------------------------------------------------------------------------


def text_digest(text: str) -> bytes:
    """Return what tells, without comparing the texts, whether a vector belongs to a text."""
    return hashlib.sha256(text.encode()).digest()


def to_fields(record: MemoryRecord, vector: Vector | None) -> list[str | int | bytes]:
    """Return names and values of a record's hash, flat; without the vector if there is none."""
    tags = _tags(record)
    fields: list[str | int | bytes] = [
        PAYLOAD, to_payload(record),
        DIGEST, text_digest(record.text),
        ORDER, _order(record),
        WORDS, " ".join(map(word_token, terms_of(record.text))),
        HASH_START, hash_start(record.memory_hash or ""),
    ]  # fmt: skip
    for name in TIME_FIELDS:
        moment = record.__dict__[name]
        if moment is None:
            fields += (name, MISSING_TIME)
            continue
        value, rest = cut(microseconds(moment))
        fields += (name, value)
        if rest is not None:
            tags.append(far_token(name, rest))
    fields += (TAGS, ",".join(tags))
    if vector is not None:
        fields += (VECTOR, vector.tobytes())
    return fields


START_DIGITS = 12


def hash_start(memory_hash: str) -> int:
    """Return the first twelve digits of a hash as a number."""
    return int(memory_hash[:START_DIGITS], 16)


_TIMES = frozenset(TIME_FIELDS)
_USUAL: dict[str, Any] = {
    "memory_type": MemoryTypeEnum.MESSAGE,
    "pinned": False,
    "access_count": 0,
    "metadata": {},
    "discrete_memory_extracted": "f",
    "extraction_strategy": "discrete",
    "extraction_strategy_config": {},
}
_ABSENT_OF: dict[type[MemoryRecord], dict[str, Any]] = {
    kind: {name: _USUAL.get(name) for name in kind.model_fields}
    for kind in (MemoryRecord, MemoryRecordResult)
}
"""What a payload leaves out, in the order that fields have in a record."""
_ABSENT = _ABSENT_OF[MemoryRecord]


def to_payload(record: MemoryRecord) -> str:
    """Return a record as JSON, without what is as it is in most records."""
    values = {name: value for name, value in record.__dict__.items() if value != _ABSENT[name]}
    for name in TIME_FIELDS:
        if name in values:
            values[name] = values[name].isoformat()
    return _encoded(values)


def from_payloads(payloads: Sequence[bytes], kind: type[Kind]) -> list[Kind]:
    """Return the records of several payloads; they were validated when they were stored."""
    # Few values come again soon enough to be worth remembering; the names of fields do.
    all_given = from_json(b"[%b]" % b",".join(payloads), cache_strings="keys")
    absent = _ABSENT_OF[kind]
    return kind.all_from_trusted([_fields(given, absent) for given in all_given])


_moment = datetime.fromisoformat


def _fields(given: dict[str, Any], absent: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {
        **absent, "metadata": {}, "extraction_strategy_config": {}, **given,
    }  # fmt: skip
    fields["created_at"] = _moment(fields["created_at"])
    fields["last_accessed"] = _moment(fields["last_accessed"])
    fields["updated_at"] = _moment(fields["updated_at"])
    if fields["persisted_at"] is not None:
        fields["persisted_at"] = _moment(fields["persisted_at"])
    if fields["event_date"] is not None:
        fields["event_date"] = _moment(fields["event_date"])
    fields["memory_type"] = _MEMORY_TYPES[fields["memory_type"]]
    return fields
