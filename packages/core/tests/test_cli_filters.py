"""Every filter of the contract is reachable from the command line and means the same there."""

from __future__ import annotations

import asyncio
import json
import runpy
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_memory import (
    And,
    CreatedAt,
    Expression,
    MemoryRecord,
    MemoryTypeEnum,
    Topics,
    UserId,
    create_memory_vector_db,
)
from agent_memory.cli.selection import option_name, read_selection
from agent_memory.filters import FILTERS, LIST_TAG_FIELDS, TIME_FIELDS

cli = runpy.run_path(str(Path(__file__).with_name("cli_support.py")))["cli"]

Cli = Callable[..., Any]

START = datetime(2026, 1, 1, tzinfo=UTC)
OPTIONAL = (
    *("session_id", "user_id", "namespace", "topics", "entities", "extracted_from"),
    *("persisted_at", "event_date"),
)
"""Fields that a record may lack."""


def record(number: int) -> MemoryRecord:
    """Return one of eight records that differ in every field; the last has only what it must."""
    moments = dict.fromkeys(TIME_FIELDS, START + timedelta(days=number, microseconds=number))
    fields: dict[str, Any] = {
        "id": f"{number}-m",
        "text": f"number {number}",
        "session_id": f"{number % 3}-session",
        "user_id": f"{number % 3}, user",
        "namespace": f"{number % 3}=namespace",
        "memory_type": list(MemoryTypeEnum)[number % 3],
        "topics": [f"{number % 3}-topic", f"{(number + 1) % 3}-topic"],
        "entities": [f"{number % 3}.entity", f"{(number + 1) % 3}.entity"],
        "extracted_from": [f"{number % 3}|m", f"{(number + 1) % 3}|m"],
        "discrete_memory_extracted": "tf"[number % 2],
        "extraction_strategy": f"{number % 3} strategy",
        **moments,
    }
    if number == 7:
        for name in OPTIONAL:
            del fields[name]
    stored = MemoryRecord(**fields)
    stored.memory_hash = stored.compute_hash()
    return stored


RECORDS = [record(number) for number in range(8)]


def add_records() -> None:
    async def add() -> None:
        async with create_memory_vector_db() as db:
            await db.add_memories(RECORDS)

    asyncio.run(add())


def ids_by_api(**filters: Any) -> list[str]:
    async def list_ids() -> list[str]:
        async with create_memory_vector_db() as db:
            return [each.id for each in (await db.list_memories(**filters)).memories]

    return asyncio.run(list_ids())


def ids_by_cli(cli: Cli, *arguments: str) -> list[str]:
    listed = cli("list", "--json", *arguments)
    assert (listed.code, listed.err) == (0, "")
    return [each["id"] for each in listed.json["memories"]]


def values_for(field: str, operator: str) -> Any:
    """Return a value for the operator that some of the records meet and some do not."""
    if operator == "exists":
        return True
    first, second = (getattr(RECORDS[number], field) for number in (3, 4))
    if field in TIME_FIELDS:
        return (first, first + timedelta(days=2)) if operator == "between" else first
    if field in LIST_TAG_FIELDS:
        first, second = first[0], first[1]
    if operator in ("any", "none", "all"):
        return (str(first), str(second))
    return str(first)


def as_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, datetime) else value


CASES = [
    (field, operator)
    for field, kind in FILTERS.items()
    for operator in kind.operators()
    if operator != "inclusive"  # tested with between
]


@pytest.mark.parametrize(("field", "operator"), CASES, ids=[".".join(case) for case in CASES])
def test_every_operator_of_every_field_selects_what_the_api_selects(
    cli: Cli, field: str, operator: str
) -> None:
    add_records()
    value = values_for(field, operator)
    if operator == "between":
        texts = ["..".join(map(as_text, value))]
    elif isinstance(value, tuple):
        texts = list(value)
    else:
        texts = [as_text(value)]
    expected = ids_by_api(**{field: FILTERS[field](**{operator: value})})
    all_or_none = (operator == "exists" and field not in OPTIONAL) or (
        # It has two values only, and a list of two names them both.
        field == "discrete_memory_extracted" and operator in ("any", "none")
    )
    assert all_or_none or 0 < len(expected) < len(RECORDS)

    arguments = [part for text in texts for part in ("--filter", f"{field}.{operator}={text}")]
    assert ids_by_cli(cli, *arguments) == expected


@pytest.mark.parametrize("field", TIME_FIELDS)
@pytest.mark.parametrize("inclusive", ["both", "neither", "left", "right"])
def test_inclusive_says_which_ends_of_between_count(cli: Cli, field: str, inclusive: str) -> None:
    add_records()
    start, end = (getattr(RECORDS[number], field) for number in (2, 5))
    kind: Any = FILTERS[field]
    expected = ids_by_api(**{field: kind(between=(start, end), inclusive=inclusive)})
    assert len(expected) == {"both": 4, "neither": 2}.get(inclusive, 3)
    assert expected == ids_by_cli(
        cli,
        *("--filter", f"{field}.inclusive={inclusive}"),
        *("--filter", f"{field}.between={start.isoformat()}..{end.isoformat()}"),
    )


@pytest.mark.parametrize("field", FILTERS)
def test_an_option_named_after_a_field_means_equal_and_repeated_one_of(
    cli: Cli, field: str
) -> None:
    add_records()
    option, value = option_name(field), values_for(field, "eq")
    assert ids_by_cli(cli, option, as_text(value)) == ids_by_api(**{field: value})
    if field not in TIME_FIELDS:
        values = values_for(field, "any")
        given = [part for each in values for part in (option, each)]
        assert ids_by_cli(cli, *given) == ids_by_api(**{field: list(values)})


@pytest.mark.parametrize("command", ["list", "search", "count", "export"])
def test_every_command_with_filters_takes_all_three_kinds_and_all_must_hold(
    cli: Cli, command: str
) -> None:
    add_records()
    filters = ["--user-id", "0, user", "--filter", "topics.any=0-topic"]
    tree = UserId(eq="0, user") & ~CreatedAt(lt=RECORDS[1].created_at)
    arguments = [*filters, "--where", tree.to_json()]
    if command == "search":
        arguments.append("number")
    if command != "export":
        arguments.append("--json")
    done = cli(command, *arguments)
    assert done.code == 0
    if command == "count":
        assert done.json == {"count": 2}
    elif command == "export":
        assert [json.loads(each)["id"] for each in done.out.splitlines()] == ["6-m", "3-m"]
    else:
        assert {each["id"] for each in done.json["memories"]} == {"6-m", "3-m"}
        assert done.json["total"] == 2


tags = st.text(min_size=1)


@given(tags)
def test_any_characters_are_a_value_and_never_a_command(value: str) -> None:
    expected = UserId(eq=value)
    assert read_selection({"user_id": [value]}, [], None) == {"user_id": expected}
    assert read_selection({}, [f"user_id.eq={value}"], None) == {"user_id": expected}
    assert read_selection({}, [], expected.to_json()) == {"where": expected}


@given(st.lists(tags, min_size=2))
def test_repeated_list_operators_are_one_list_and_other_repeats_must_all_hold(
    values: list[str],
) -> None:
    listed = read_selection({}, [f"topics.all={each}" for each in values], None)
    assert listed == {"topics": Topics(all=values)}

    first, *others = [Topics(startswith=each) for each in values]
    where: Expression = others[0] if len(others) == 1 else And(tuple(others))
    repeated = read_selection({}, [f"topics.startswith={each}" for each in values], None)
    assert repeated == {"topics": first, "where": where}


def test_values_that_look_like_options_and_lines_reach_the_filter_whole(cli: Cli) -> None:
    for number, value in enumerate(("-x", "--json", "a=b.c", 'say "hi"\n', "{}", " blank ")):
        cli("add", "x", "--id", str(number), f"--user-id={value}")
        assert ids_by_cli(cli, f"--user-id={value}") == [str(number)]
        assert ids_by_cli(cli, "--user-id", value) == [str(number)]
        assert ids_by_cli(cli, "--filter", f"user_id.eq={value}") == [str(number)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--user-id", ""], "UserId(eq=...): an empty string"),
        (["--created-at", "5"], "not a bare number"),
        (["--created-at", "2026-01-01", "--created-at", "2026-01-02"], "got ['2026-01-01'"),
        (["--filter", "user_id"], "expected FIELD.OPERATOR=VALUE"),
        (["--filter", "user_id=ada"], "expected FIELD.OPERATOR=VALUE"),
        (["--filter", "user.eq=ada"], "did you mean user_id?"),
        (["--filter", "not.user_id=ada"], "no such field"),
        (["--filter", "user_id.equals=ada"], "'equals' is no operator of UserId"),
        (["--filter", "user_id.exists=maybe"], "expected True or False"),
        (["--filter", "created_at.between=2026-01-01"], "expected START..END"),
        (["--filter", "created_at.between=2026-02-01..2026-01-01"], "reversed"),
        (["--filter", "created_at.inclusive=left"], "belongs to between"),
        (["--filter", "created_at.gte=soon"], "'soon' is not a time"),
        (["--filter", "topics.any="], "an empty string"),
        (
            ["--filter", "created_at.between=1..2", "--filter", "created_at.between=3..4"],
            "given 2 times",
        ),
        (["--where", "{"], "the filter is not JSON"),
        (["--where", '{"user": "ada"}'], "did you mean 'user_id'?"),
        (["--where", "{}"], "expected one filter such as"),
    ],
)
def test_a_filter_that_cannot_be_honoured_is_a_wrong_command_line(
    cli: Cli, arguments: list[str], message: str
) -> None:
    refused = cli("count", *arguments)
    assert (refused.code, refused.out) == (2, "")
    assert message in refused.err


def test_help_shows_every_field_and_every_operator(cli: Cli) -> None:
    shown = cli("list", "--help").out
    for field, kind in FILTERS.items():
        assert option_name(field) in shown
        assert " ".join(kind.operators()) in shown
