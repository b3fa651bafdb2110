"""Hypothesis strategies for records, filters and expressions that aim at trouble."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from agent_memory import Expression, MemoryRecord, MemoryTypeEnum, RecencyParams
from agent_memory.filters import FILTERS
from agent_memory_testkit.samples import (
    DAY,
    LIST_TAGS,
    MICROSECOND,
    NOW,
    SCALAR_TAGS,
    TIMES,
    TROUBLE,
    memory,
)

_CHARACTERS = st.characters(exclude_categories=["Cs"])
_NEIGHBOURS = [
    NOW + days * DAY + ticks * MICROSECOND for days in (0, 1, -1) for ticks in (0, 1, -1, 2)
]
_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)

FEW_IDS = ("a", "A", "a ", "ab", "a*", "a,b", "\u00e9", "e\u0301", "a\x00", "*")
"""Ids that meet each other again and again."""
FEW_TAGS = ("x", "X", " x", "xy", "x,y", "x|y", "*", "x\\", "\u00e9", "e\u0301", '"x"', "null")
"""Tag values that meet each other again and again, in records and in filters."""
WORDS = ("window", "seat", "windows", "Oslo", "tea", "the", "not")
"""Words of texts and of keyword queries."""
_MARKED_TEXTS = [
    f"<{number}> {said}"
    for number in (0, 1, 2, 8, 16, 17, 24, 25, 31, 32, 80, 87, 136, 248, 472)
    for said in ("tea", "window seat", "the seat by the Window", "not Oslo windows", "")
]


def tag_values() -> st.SearchStrategy[str]:
    """Any value of a tag field: now and then a very long one, often a troublesome one."""
    return st.one_of(
        st.sampled_from(TROUBLE),
        st.text(_CHARACTERS, min_size=1, max_size=20),
        st.builds(lambda value, times: value * times, st.sampled_from("xé,"), st.just(5_000)),
    )


def texts() -> st.SearchStrategy[str]:
    """Any text that is not blank."""
    return st.one_of(
        st.text(_CHARACTERS, min_size=1, max_size=60), st.sampled_from(TROUBLE)
    ).filter(lambda text: bool(text.strip()))


def moments() -> st.SearchStrategy[datetime]:
    """Times around `NOW` by a microsecond, far away, at the ends of time, in other zones, naive."""
    zones: Any = st.sampled_from(
        [UTC, timezone(timedelta(hours=5, minutes=45)), timezone(timedelta(hours=-11)), None]
    )
    return st.one_of(
        neighbouring_moments(),
        st.sampled_from([_FIRST, _FIRST + MICROSECOND, _LAST, _LAST - MICROSECOND]),
        st.datetimes(
            min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29), timezones=zones
        ),
    )


def neighbouring_moments() -> st.SearchStrategy[datetime]:
    """Times that differ by a microsecond or two, or by a day."""
    return st.sampled_from(_NEIGHBOURS)


def json_objects() -> st.SearchStrategy[dict[str, Any]]:
    """Nested metadata with every type that JSON has."""
    scalars = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(_CHARACTERS, max_size=10),
    )
    keys = st.one_of(st.text(_CHARACTERS, max_size=8), st.sampled_from(["id", "text", "a.b", "$"]))
    nested: st.SearchStrategy[Any] = st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=6,
    )
    return st.dictionaries(keys, nested, max_size=3)


def records() -> st.SearchStrategy[MemoryRecord]:
    """Records with any value in any field."""
    tags, times = tag_values(), moments()
    optional: dict[str, st.SearchStrategy[Any]] = {
        "memory_type": st.sampled_from(MemoryTypeEnum),
        "metadata": json_objects(),
        "extraction_strategy_config": json_objects(),
        "pinned": st.booleans(),
        "access_count": st.sampled_from([0, 1, 2**31, 2**53 + 1, 2**63 - 1]),
        "discrete_memory_extracted": st.sampled_from(["t", "f"]),
        "extraction_strategy": tags,
        "memory_hash": tags,
    }
    optional |= {name: st.none() | tags for name in ("session_id", "user_id", "namespace")}
    optional |= {name: st.none() | st.lists(tags, max_size=4) for name in LIST_TAGS}
    optional |= {name: st.none() | times for name in ("persisted_at", "event_date")}
    required: dict[str, st.SearchStrategy[Any]] = {"id": tags, "text": texts()}
    required |= dict.fromkeys(("created_at", "last_accessed", "updated_at"), times)
    return st.fixed_dictionaries(required, optional=optional).map(
        lambda fields: MemoryRecord(**fields)
    )


def colliding_records(ids: Sequence[str] = FEW_IDS) -> st.SearchStrategy[MemoryRecord]:
    """Records of few ids, tags, times and vectors, so that much is equal and much is close."""
    tags, times = st.sampled_from(FEW_TAGS), neighbouring_moments()
    optional: dict[str, st.SearchStrategy[Any]] = {
        "memory_type": st.sampled_from(MemoryTypeEnum),
        "last_accessed": times,
        "updated_at": times,
        "persisted_at": times,
        "event_date": times,
    }
    optional |= dict.fromkeys(SCALAR_TAGS, tags)
    optional |= dict.fromkeys(LIST_TAGS, st.lists(tags, max_size=3))
    required: dict[str, st.SearchStrategy[Any]] = {
        "memory_id": st.sampled_from(ids),
        "text": marked_texts(),
        "created_at": times,
    }
    return st.fixed_dictionaries(required, optional=optional).map(lambda fields: memory(**fields))


def marked_texts() -> st.SearchStrategy[str]:
    """Texts that choose their vector, many of them as far from a query as others are."""
    return st.sampled_from(_MARKED_TEXTS)


def queries() -> st.SearchStrategy[str]:
    """Queries for `marked_texts`."""
    return st.sampled_from(["<0>", "<1>", "<2> tea", "<8> window seat", "no mark"])


def keyword_queries() -> st.SearchStrategy[str]:
    """Words, some of them in quotes."""
    phrase = st.lists(st.sampled_from(WORDS), min_size=1, max_size=2).map(
        lambda words: '"' + " ".join(words) + '"'
    )
    return st.lists(st.one_of(st.sampled_from(WORDS), phrase), min_size=1, max_size=3).map(" ".join)


def filters() -> st.SearchStrategy[Expression]:
    """One filter of one field, with one operator or several, for `colliding_records`."""
    return st.one_of(_tag_filters(), _tag_filters(), _time_filters())


def expressions() -> st.SearchStrategy[Expression]:
    """Trees of filters."""
    return st.recursive(
        filters(),
        lambda inner: st.one_of(
            st.builds(lambda left, right: left & right, inner, inner),
            st.builds(lambda left, right: left | right, inner, inner),
            st.builds(lambda operand: ~operand, inner),
        ),
        max_leaves=5,
    )


def _tag_filters() -> st.SearchStrategy[Expression]:
    fields = [*((name, st.sampled_from(FEW_TAGS)) for name in (*SCALAR_TAGS, *LIST_TAGS))]
    fields.append(("id", st.sampled_from(FEW_IDS)))
    fields.append(("memory_type", st.sampled_from(["episodic", "semantic", "message", "other"])))
    return st.one_of(*(_filters_of(name, _tag_operators(name, values)) for name, values in fields))


def _tag_operators(field: str, values: st.SearchStrategy[str]) -> dict[str, Any]:
    several = st.lists(values, min_size=1, max_size=3)
    operators: dict[str, Any] = {
        "eq": values,
        "ne": values,
        "any": several,
        "none": several,
        "startswith": values.map(lambda value: value[:1]) | values,
        "exists": st.booleans(),
    }
    return {**operators, "all": several} if field in LIST_TAGS else operators


def _time_filters() -> st.SearchStrategy[Expression]:
    times = neighbouring_moments()
    operators: dict[str, Any] = dict.fromkeys(("eq", "ne", "gt", "gte", "lt", "lte"), times)
    operators["between"] = st.tuples(times, times).map(lambda pair: tuple(sorted(pair)))
    operators["exists"] = st.booleans()
    return st.one_of(*(_filters_of(name, operators) for name in TIMES))


@st.composite
def _filters_of(
    draw: st.DrawFn, field: str, operators: dict[str, st.SearchStrategy[Any]]
) -> Expression:
    names = draw(st.lists(st.sampled_from(list(operators)), min_size=1, max_size=2, unique=True))
    given = {name: draw(operators[name]) for name in names}
    if "between" in given:
        given["inclusive"] = draw(st.sampled_from(["both", "neither", "left", "right"]))
    return FILTERS[field](**given)


def recency_params() -> st.SearchStrategy[RecencyParams]:
    """Ways to rank by recency, with few candidates so that their edge lies inside the space."""
    return st.builds(
        RecencyParams,
        semantic_weight=st.sampled_from([0.0, 0.5, 0.8]),
        recency_weight=st.sampled_from([0.0, 0.2, 1.0]),
        candidates=st.sampled_from([1, 3, 1_000]),
        now=st.just(NOW),
    )
