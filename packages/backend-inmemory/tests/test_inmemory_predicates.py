"""Filters in SQL accept what `agent_memory.filters.matches` accepts, and nothing else."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_memory import InvalidArgumentError, MemoryRecord, Not, Topics, UserId
from agent_memory.filters import And, Expression, Or
from agent_memory.predicates import HasPrefix, OneOf, Predicate, matches, predicate_of
from agent_memory_inmemory import create
from agent_memory_inmemory.predicates import _first_string_after, condition_for
from agent_memory_testkit.strategies import colliding_records, expressions
from inmemory_support import DrawnEmbeddings, numbered

ENDS = ("\x00", "a", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff")
"""Characters where an order by something else than code points goes wrong, and the last one."""


def accepted(memories: Sequence[MemoryRecord], condition: Expression) -> set[str]:
    async def ask() -> set[str]:
        async with create(DrawnEmbeddings()) as db:
            await db.add_memories(memories)
            page = await db.list_memories(limit=1_000, where=condition)
            ids = {each.id for each in page.memories}
            assert page.total == await db.count_memories(where=condition) == len(ids)
            found = await db.search_memories("x", limit=1_000, where=condition)
            assert {each.id for each in found.memories} == ids
            return ids

    return asyncio.run(ask())


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(colliding_records(), max_size=8), expressions())
def test_sql_and_python_accept_the_same_records(
    memories: list[MemoryRecord], condition: Expression
) -> None:
    stored = {each.id: each for each in memories}
    for each in stored.values():
        each.memory_hash = each.compute_hash()
    predicate = predicate_of(condition)
    expected = {each.id for each in stored.values() if matches(predicate, each)}
    assert accepted(memories, condition) == expected


@given(st.text(ENDS, min_size=1, max_size=3), st.text(ENDS, max_size=4))
def test_the_bound_of_a_prefix_parts_those_that_start_with_it(prefix: str, value: str) -> None:
    end = _first_string_after(prefix)
    inside = value >= prefix and (end is None or value < end)
    assert inside == value.startswith(prefix)


@given(st.text(min_size=1, max_size=4), st.text(max_size=4))
def test_what_starts_with_a_prefix_lies_below_its_bound(prefix: str, rest: str) -> None:
    end = _first_string_after(prefix)
    assert end is None or prefix + rest < end


@settings(deadline=None, max_examples=30)
@given(st.lists(st.text(ENDS, min_size=1, max_size=3), min_size=1, max_size=6, unique=True))
def test_sqlite_finds_prefixes_of_any_characters(values: list[str]) -> None:
    memories = [MemoryRecord(id=each, text="x", topics=[each]) for each in values]
    for prefix in {value[:length] for value in values for length in (1, 2)}:
        expected = {each for each in values if each.startswith(prefix)}
        assert accepted(memories, Topics(startswith=prefix)) == expected


@pytest.mark.parametrize("count", [1, 2, 200, 201, 5_000])
def test_a_list_of_values_may_have_any_length(count: int) -> None:
    values = [f"u{n}\x00'\"" for n in range(count)]
    memories = [
        MemoryRecord(id="first", text="x", user_id=values[0], topics=["other", values[0]]),
        MemoryRecord(id="last", text="x", user_id=values[-1], topics=[values[-1]]),
        MemoryRecord(id="other", text="x", user_id="u", topics=["u"]),
        MemoryRecord(id="none", text="x"),
    ]
    assert accepted(memories, UserId(any=values)) == {"first", "last"}
    assert accepted(memories, UserId(none=values)) == {"other", "none"}
    two_lists = UserId(any=values) & Topics(any=[*values[:-1], "u", "v"])
    assert accepted(memories, two_lists) == ({"first"} if count > 1 else set())


def _nested(levels: int) -> Expression:
    condition: Expression = UserId(eq="ada")
    while condition.depth + 3 <= levels:
        condition = Not(And((Or((Topics(eq="tea"), condition)), UserId(exists=True))))
    return condition


@pytest.mark.parametrize("levels", [1, 9, 30, 60, 99])
def test_nesting_as_deep_as_filters_allow_works(levels: int) -> None:
    memories = [
        MemoryRecord(id="ada", text="x", user_id="ada"),
        MemoryRecord(id="bob", text="x", user_id="bob", topics=["tea"]),
        MemoryRecord(id="carol", text="x", user_id="carol", topics=["milk"]),
        MemoryRecord(id="none", text="x", topics=["tea"]),
    ]
    for condition in (_nested(levels), ~_nested(levels)):
        predicate = predicate_of(condition)
        expected = {each.id for each in memories if matches(predicate, each)}
        assert accepted(memories, condition) == expected


def test_nesting_that_is_deep_and_wide_binds_every_value_at_its_place() -> None:
    memories = numbered(0, 50)
    for number, each in enumerate(memories):
        each.user_id = f"u{number}"
    condition: Expression = UserId(eq="u1")
    for number in range(2, 45):  # adds and takes away in turn
        if number % 3:
            condition = condition | UserId(eq=f"u{number}")
        else:
            condition = ~(condition & UserId(ne=f"u{number - 1}"))
    predicate = predicate_of(condition)
    expected = {each.id for each in memories if matches(predicate, each)}
    assert 0 < len(expected) < 50
    assert accepted(memories, condition) == expected


def test_two_thousand_conditions_side_by_side() -> None:
    memories = numbered(0, 3, user_id="u1999")
    assert accepted(memories, Or(tuple(UserId(eq=f"u{n}") for n in range(2_000)))) == {
        "m0",
        "m1",
        "m2",
    }


def test_more_conditions_than_sqlite_takes_are_refused_with_advice() -> None:
    many = predicate_of(Or(tuple(UserId(eq=f"u{n}") for n in range(31_000))))
    with pytest.raises(InvalidArgumentError, match="as one list"):
        condition_for(many)


@pytest.mark.parametrize(
    "predicate",
    [OneOf("user_id", ("'; DROP TABLE records; --",)), HasPrefix("topics", "{0}' OR 1 --")],
)
def test_values_are_bound_never_written_into_the_sql(predicate: Predicate) -> None:
    condition = condition_for(predicate)
    values: tuple[Any, ...] = (
        predicate.values if isinstance(predicate, OneOf) else ("{0}' OR 1 --",)
    )
    assert values[0] not in condition.sql
    assert values[0] in condition.parameters


def test_the_last_character_has_no_string_after_it() -> None:
    assert _first_string_after(chr(sys.maxunicode)) is None
    assert _first_string_after("a" + chr(sys.maxunicode)) == "b"
    assert _first_string_after("\ud7ff") == "\ue000"
