"""Predicates as SQL conditions on the table ``records``.

Each condition is 0 or 1 for every record, never NULL, so that NOT means what it says. Strings are
bound, never written into the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from agent_memory import InvalidArgumentError
from agent_memory.filters import LIST_TAG_FIELDS
from agent_memory.predicates import (
    AllOf,
    AnyOf,
    HasPrefix,
    InTimeRange,
    IsPresent,
    NotThat,
    OneOf,
    Predicate,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

ELEMENT_FIELDS = {name: number for number, name in enumerate(LIST_TAG_FIELDS)}
"""The number of each list field in the table ``elements``."""

_MOST_PARAMETERS = 30_000
_LONGEST_SQL = 900_000
"""Both a little below what SQLite takes as it is usually built."""
_DEEPEST = 20
"""SQLite's parser, before 3.46, gives up at about 30 open parentheses."""

MOST_BOUND_VALUES = 200
"""Longer lists of values go into the temporary table ``value_lists``."""

_NEVER_NULL = {
    "id",
    "memory_type",
    "memory_hash",
    "discrete_memory_extracted",
    "extraction_strategy",
}


def microseconds(moment: datetime) -> int:
    """Return whole microseconds since 1970, which SQLite compares exactly."""
    since = moment - EPOCH  # written out, as // of two timedeltas takes twice as long
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


@dataclass(slots=True)
class Condition:
    """A condition in SQL, the values it binds, and the long lists it expects to find."""

    sql: str = "1"
    parameters: list[str | int] = field(default_factory=list)
    value_lists: list[Sequence[str]] = field(default_factory=list)
    """List ``n`` is looked for in ``value_lists`` under the number ``n``."""
    columns: set[str] = field(default_factory=set)
    """The columns that the condition compares with values."""
    inner: list[_Part] = field(default_factory=list)
    """What was nested too deep, by its number; each one needs only those before it."""


class _Part(NamedTuple):
    sql: str
    parameters: list[str | int]
    depth: int
    """How many parentheses are open at most."""


def condition_for(predicate: Predicate | None) -> Condition:
    """Return the condition that tells which records meet ``predicate``."""
    condition = Condition()
    if predicate is None:
        return condition
    outer = _part(predicate, condition)
    condition.sql = outer.sql
    if condition.inner:
        tables = ", ".join(
            f"inner_{number} AS (SELECT row FROM records WHERE {each.sql})"
            for number, each in enumerate(condition.inner)
        )
        condition.sql = f"(row IN (WITH {tables} SELECT row FROM records WHERE {outer.sql}))"
    for each in (*condition.inner, outer):
        condition.parameters.extend(each.parameters)
    if len(condition.parameters) > _MOST_PARAMETERS or len(condition.sql) > _LONGEST_SQL:
        raise InvalidArgumentError(
            "the filter expression has too many parts for this backend; give many values of one "
            "field as one list, such as UserId(any=[...]), which may be of any length"
        )
    return condition


def _part(predicate: Predicate, condition: Condition) -> _Part:
    match predicate:
        case AllOf(predicates):
            return _joined([_part(each, condition) for each in predicates], "AND", "1", condition)
        case AnyOf(predicates):
            return _joined([_part(each, condition) for each in predicates], "OR", "0", condition)
        case NotThat(negated):
            sql, parameters, depth = _part(negated, condition)
            return _shallow(_Part(f"(NOT {sql})", parameters, depth + 1), condition)
        case OneOf(name, values):
            return _comparison(name, *_one_of(values, condition), condition)
        case HasPrefix(name, prefix):
            return _comparison(name, *_prefixed(prefix), condition)
        case IsPresent(name):
            if name in ELEMENT_FIELDS:
                return _Part(f"({name} IS NOT NULL AND {name} <> '[]')", [], 1)
            return _Part(f"({name} IS NOT NULL)", [], 1)
        case InTimeRange(name, earliest, latest):
            condition.columns.add(name)
            bounds = [f"{name} IS NOT NULL"]
            if earliest is not None:
                bounds.append(f"{name} >= {microseconds(earliest)}")
            if latest is not None:
                bounds.append(f"{name} <= {microseconds(latest)}")
            return _Part(f"({' AND '.join(bounds)})", [], 1)


def _comparison(
    name: str, template: str, parameters: list[str | int], condition: Condition
) -> _Part:
    """Return a comparison of a field, or of one of its elements; 0 where the field is NULL."""
    condition.columns.add(name)
    if name in ELEMENT_FIELDS:
        sql = template.format("value")
        return _Part(
            f"(row IN (SELECT row FROM elements WHERE field = ? AND {sql}))",
            [ELEMENT_FIELDS[name], *parameters],
            3,
        )
    known = "" if name in _NEVER_NULL else f"{name} IS NOT NULL AND "
    return _Part(f"({known}{template.format(name)})", parameters, 2)


def _one_of(values: Sequence[str], condition: Condition) -> tuple[str, list[str | int]]:
    if len(values) == 1:
        return "{0} = ?", [values[0]]
    if len(values) <= MOST_BOUND_VALUES:
        return f"{{0}} IN ({', '.join('?' * len(values))})", [*values]
    condition.value_lists.append(values)
    return (
        "{0} IN (SELECT value FROM temp.value_lists WHERE list = ?)",
        [len(condition.value_lists) - 1],
    )


def _prefixed(prefix: str) -> tuple[str, list[str | int]]:
    # SQLite compares text byte by byte in UTF-8, whose order is that of the code points.
    end = _first_string_after(prefix)
    if end is None:
        return "{0} >= ?", [prefix]
    return "{0} >= ? AND {0} < ?", [prefix, end]


def _first_string_after(prefix: str) -> str | None:
    """Return the least string greater than all that start with ``prefix``; ``None`` if none is."""
    kept = prefix.rstrip("\U0010ffff")
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    if following == 0xD800:  # surrogates are no characters
        following = 0xE000
    return kept[:-1] + chr(following)


def _joined(parts: Sequence[_Part], operator: str, empty: str, condition: Condition) -> _Part:
    """Join ``parts`` as a tree of logarithmic depth: SQLite limits the depth of an expression."""
    if not parts:
        return _Part(empty, [], 0)
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    left = _joined(parts[:middle], operator, empty, condition)
    right = _joined(parts[middle:], operator, empty, condition)
    return _shallow(
        _Part(
            f"({left.sql} {operator} {right.sql})",
            left.parameters + right.parameters,
            1 + max(left.depth, right.depth),
        ),
        condition,
    )


def _shallow(part: _Part, condition: Condition) -> _Part:
    """Return ``part``, or, if it is nested deep, the name of a table that stands for it."""
    if part.depth <= _DEEPEST:
        return part
    condition.inner.append(part)
    return _Part(f"(row IN inner_{len(condition.inner) - 1})", [], 1)
