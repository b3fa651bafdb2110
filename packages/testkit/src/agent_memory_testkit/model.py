"""The oracle: what a correct backend answers, worked out naively in plain Python.

It is written from the contract and shares no helper with the core or with any backend: filters
are evaluated from their JSON form, hashes, distances and recency are computed here. Distances are
compared as fractions, so that order is exact. Slow on purpose.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from functools import lru_cache
from typing import Any, Generic, TypeVar

from agent_memory import Expression, MemoryRecord, RecencyParams
from agent_memory_testkit.embedders import CountingEmbeddings, Numbers

T = TypeVar("T")

FIELDS = tuple(MemoryRecord.model_fields)


@dataclass(frozen=True, slots=True)
class Found:
    """A record in the order of a search."""

    record: MemoryRecord
    key: Fraction
    """Orders by distance exactly: the greater the further."""
    dist: float

    @property
    def id(self) -> str:
        return self.record.id


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """What a page of some sequence holds."""

    items: Sequence[T]
    total: int
    next_offset: int | None


class MemoryModel:
    """A space as the contract describes it: records by id, and nothing else."""

    def __init__(self, embeddings: CountingEmbeddings, metric: str = "cosine") -> None:
        self.embeddings = embeddings
        self.metric = metric
        self.records: dict[str, MemoryRecord] = {}

    # --- writing -----------------------------------------------------------------------------

    def add(self, memories: Iterable[MemoryRecord]) -> list[str]:
        ids = []
        for each in memories:
            self.records[each.id] = stored(each)
            ids.append(each.id)
        return ids

    def update(self, memories: Iterable[MemoryRecord]) -> int:
        known = [each for each in memories if each.id in self.records]
        self.add(known)
        return len({each.id for each in known})

    def delete(self, memory_ids: Iterable[str]) -> int:
        gone = set(memory_ids) & set(self.records)
        for memory_id in gone:
            del self.records[memory_id]
        return len(gone)

    # --- reading -----------------------------------------------------------------------------

    def get(self, memory_ids: Iterable[str]) -> list[MemoryRecord]:
        return [self.records[each] for each in memory_ids if each in self.records]

    def matching(self, condition: Expression | None = None) -> list[MemoryRecord]:
        if condition is None:
            return list(self.records.values())
        wanted = condition.to_json_value()
        return [each for each in self.records.values() if accepts(wanted, each)]

    def listed(self, condition: Expression | None = None) -> list[MemoryRecord]:
        by_id = sorted(self.matching(condition), key=lambda each: each.id)
        return sorted(by_id, key=lambda each: each.created_at, reverse=True)

    def ranked(
        self,
        query: str,
        condition: Expression | None = None,
        threshold: float | None = None,
    ) -> list[Found]:
        """Return all matches, nearest first, ties by id."""
        vector = self.embeddings.query_vector(query)
        found = []
        for record in self.matching(condition):
            key, dist = distance(self.metric, vector, self.embeddings.document_vector(record.text))
            if threshold is None or dist <= threshold:
                found.append(Found(record, key, dist))
        return sorted(found, key=lambda each: (each.key, each.id))


def page_of(sequence: Sequence[T], *, limit: int, offset: int = 0) -> Page[T]:
    """Cut one page out of ``sequence``."""
    items = sequence[offset : offset + limit]
    end = offset + len(items)
    more = len(items) > 0 and end < len(sequence)
    return Page(items, len(sequence), end if more else None)


# --- records ---------------------------------------------------------------------------------


def stored(record: MemoryRecord) -> MemoryRecord:
    """Return what reading ``record`` back must give: the same, with the right hash."""
    fields = {name: getattr(record, name) for name in FIELDS}
    fields["memory_hash"] = memory_hash(record)
    return MemoryRecord(**json_copy(fields))


def memory_hash(record: MemoryRecord) -> str:
    """Return the sha256 that rule REC-4 prescribes."""
    kind = record.memory_type
    identity = {
        "memory_type": str(kind.value),
        "namespace": record.namespace,
        "session_id": record.session_id,
        "text": record.text,
        "user_id": record.user_id,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode("ascii")).hexdigest()


def json_copy(value: Any) -> Any:
    """Copy lists and dicts all the way down; everything else in a record cannot change."""
    if isinstance(value, dict):
        return {key: json_copy(each) for key, each in value.items()}
    if isinstance(value, list):
        return [json_copy(each) for each in value]
    return value


def differing_fields(got: MemoryRecord, wanted: MemoryRecord) -> dict[str, tuple[Any, Any]]:
    """Return the fields of two records that are not the same, with both values."""
    pairs = {name: (getattr(got, name, "<missing>"), getattr(wanted, name)) for name in FIELDS}
    return {name: pair for name, pair in pairs.items() if not same(*pair)}


def same(got: Any, wanted: Any) -> bool:
    """Tell whether two values are equal, also in what Python's ``==`` does not look at.

    ``True`` is not 1, and a time must be in UTC. Whether a JSON number is written 1 or 1.0 does
    not count.
    """
    if isinstance(wanted, bool) or isinstance(got, bool):
        return got is wanted
    if isinstance(wanted, datetime):
        return (
            isinstance(got, datetime) and got == wanted and got.utcoffset() == UTC.utcoffset(None)
        )
    if isinstance(wanted, dict):
        return (
            isinstance(got, dict)
            and got.keys() == wanted.keys()
            and all(same(got[key], wanted[key]) for key in wanted)
        )
    if isinstance(wanted, list):
        return (
            isinstance(got, list)
            and len(got) == len(wanted)
            and all(same(*pair) for pair in zip(got, wanted, strict=True))
        )
    return bool(got == wanted)


# --- filters ---------------------------------------------------------------------------------


def accepts(condition: Mapping[str, Any], record: MemoryRecord) -> bool:
    """Tell whether the JSON form of an expression accepts ``record``."""
    ((key, inner),) = condition.items()
    if key == "and":
        return all(accepts(each, record) for each in inner)
    if key == "or":
        return any(accepts(each, record) for each in inner)
    if key == "not":
        return not accepts(inner, record)
    value = getattr(record, key)
    if key in ("created_at", "last_accessed", "updated_at", "persisted_at", "event_date"):
        return _time_is_accepted(inner, value)
    if value is None:
        values = []
    elif isinstance(value, list):
        values = value
    else:
        values = [str(value)]
    return all(_TAG_OPERATORS[name](values, operand) for name, operand in inner.items())


_TAG_OPERATORS: Mapping[str, Callable[[list[str], Any], bool]] = {
    "eq": lambda values, one: one in values,
    "ne": lambda values, one: one not in values,
    "any": lambda values, several: any(each in several for each in values),
    "none": lambda values, several: not any(each in several for each in values),
    "all": lambda values, several: all(each in values for each in several),
    "startswith": lambda values, start: any(each[: len(start)] == start for each in values),
    "exists": lambda values, wanted: (len(values) > 0) == wanted,
}


def _time_is_accepted(operators: Mapping[str, Any], moment: datetime | None) -> bool:
    inclusive = operators.get("inclusive", "both")
    for name, operand in operators.items():
        if name == "inclusive":
            continue
        if name == "exists":
            accepted = (moment is not None) == operand
        elif moment is None:
            accepted = name == "ne"
        elif name == "between":
            accepted = _lies_between(moment, *map(_moment, operand), inclusive=inclusive)
        else:
            accepted = _compares(name, moment, _moment(operand))
        if not accepted:
            return False
    return True


def _compares(operator: str, moment: datetime, bound: datetime) -> bool:
    return {
        "eq": moment == bound,
        "ne": moment != bound,
        "gt": moment > bound,
        "gte": moment >= bound,
        "lt": moment < bound,
        "lte": moment <= bound,
    }[operator]


def _lies_between(moment: datetime, start: datetime, end: datetime, *, inclusive: str) -> bool:
    after_start = moment > start or (moment == start and inclusive in ("both", "left"))
    before_end = moment < end or (moment == end and inclusive in ("both", "right"))
    return after_start and before_end


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


# --- distances -------------------------------------------------------------------------------


@lru_cache(maxsize=100_000)
def distance(metric: str, left: Numbers, right: Numbers) -> tuple[Fraction, float]:
    """Return what orders by distance exactly, and the distance in floating point.

    cosine: 1 - cos; l2: the Euclidean distance; ip: 1 - inner product.
    """
    a = [Fraction(number) for number in left]
    b = [Fraction(number) for number in right]
    inner = sum((x * y for x, y in zip(a, b, strict=True)), Fraction())
    if metric == "cosine":
        lengths = sum(x * x for x in a) * sum(y * y for y in b)
        # The square of a cosine is rational; with the sign it orders as the cosine does.
        squared = inner * abs(inner) / lengths
        return -squared, 1.0 - math.copysign(math.sqrt(abs(squared)), inner)
    if metric == "l2":
        apart = sum(((x - y) ** 2 for x, y in zip(a, b, strict=True)), Fraction())
        return apart, math.sqrt(apart)
    return -inner, float(1 - inner)


def score(metric: str, dist: float) -> float:
    """Return the score of a distance: 0 to 1, 1 the best."""
    if metric == "l2":
        return 1.0 / (1.0 + dist)
    return min(1.0, max(0.0, 1.0 - dist))


# --- recency ---------------------------------------------------------------------------------


def boosted(found: Found, metric: str, recency: RecencyParams, now: datetime) -> float:
    """Return what rule RCY-1 ranks a record by."""

    def halved(moment: datetime, half_life_days: float) -> float:
        days = (now - moment).total_seconds() / 86_400
        return float(0.5 ** (max(days, 0.0) / half_life_days))

    fresh = halved(found.record.last_accessed, recency.half_life_last_access_days)
    new = halved(found.record.created_at, recency.half_life_created_days)
    recent = recency.freshness_weight * fresh + recency.novelty_weight * new
    recent = min(max(recent, 0.0), 1.0)
    return recency.semantic_weight * score(metric, found.dist) + recency.recency_weight * recent


def ranked_by_recency(
    ranked: Sequence[Found], metric: str, recency: RecencyParams, now: datetime
) -> list[Found]:
    """Return a ranking with its nearest candidates by recency, the rest as they were (RCY-2)."""
    near, beyond = ranked[: recency.candidates], ranked[recency.candidates :]
    best_first = sorted(near, key=lambda each: -boosted(each, metric, recency, now))
    return [*best_first, *beyond]
