"""Predicates as SQL conditions on the table ``records``.

Each condition is 0 or 1 for every record, never NULL, so that NOT means what it says. Strings are
bound, never written into the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from agent_memory import InvalidArgumentError
from agent_memory.filters import (
    LIST_TAG_FIELDS,
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
_MICROSECOND = timedelta(microseconds=1)

ELEMENT_FIELDS = {name: number for number, name in enumerate(LIST_TAG_FIELDS)}
"""The number of each list field in the table ``elements``."""

_MOST_PARAMETERS = 30_000
_LONGEST_SQL = 900_000
"""Both a little below what SQLite takes as it is usually built."""

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
    return (moment - EPOCH) // _MICROSECOND


@dataclass(slots=True)
class Condition:
    """A condition in SQL, the values it binds, and the long lists it expects to find."""

    sql: str = ""
    parameters: list[str | int] = field(default_factory=list)
    value_lists: list[Sequence[str]] = field(default_factory=list)
    """List ``n`` is looked for in ``value_lists`` under the number ``n``."""
    columns: set[str] = field(default_factory=set)
    """The columns that the condition compares with values."""


def condition_for(predicate: Predicate | None) -> Condition:
    """Return the condition that tells which records meet ``predicate``."""
    condition = Condition()
    condition.sql = "1" if predicate is None else _sql(predicate, condition)
    if len(condition.parameters) > _MOST_PARAMETERS or len(condition.sql) > _LONGEST_SQL:
        raise InvalidArgumentError(
            "the filter expression has too many parts for this backend; give many values of one "
            "field as one list, such as UserId(any=[...]), which may be of any length"
        )
    return condition


def _sql(predicate: Predicate, condition: Condition) -> str:
    match predicate:
        case AllOf(predicates):
            return _balanced([_sql(each, condition) for each in predicates], "AND", empty="1")
        case AnyOf(predicates):
            return _balanced([_sql(each, condition) for each in predicates], "OR", empty="0")
        case NotThat(inner):
            return f"(NOT {_sql(inner, condition)})"
        case OneOf(name, values):
            if name in ELEMENT_FIELDS:
                condition.parameters.append(ELEMENT_FIELDS[name])
                return _with_element(_is_one_of("value", values, condition))
            condition.columns.add(name)
            return _known(name, _is_one_of(name, values, condition))
        case HasPrefix(name, prefix):
            if name in ELEMENT_FIELDS:
                condition.parameters.append(ELEMENT_FIELDS[name])
                return _with_element(_has_prefix("value", prefix, condition))
            condition.columns.add(name)
            return _known(name, _has_prefix(name, prefix, condition))
        case IsPresent(name):
            if name in ELEMENT_FIELDS:
                return f"({name} IS NOT NULL AND {name} <> '[]')"
            return f"({name} IS NOT NULL)"
        case InTimeRange(name, earliest, latest):
            condition.columns.add(name)
            bounds = [f"{name} IS NOT NULL"]
            if earliest is not None:
                bounds.append(f"{name} >= {microseconds(earliest)}")
            if latest is not None:
                bounds.append(f"{name} <= {microseconds(latest)}")
            return f"({' AND '.join(bounds)})"


def _known(name: str, sql: str) -> str:
    """Return ``sql`` as 0 where the column is NULL."""
    return f"({sql})" if name in _NEVER_NULL else f"({name} IS NOT NULL AND {sql})"


def _with_element(sql: str) -> str:
    return f"(row IN (SELECT row FROM elements WHERE field = ? AND {sql}))"


def _is_one_of(column: str, values: Sequence[str], condition: Condition) -> str:
    if len(values) == 1:
        condition.parameters.append(values[0])
        return f"{column} = ?"
    if len(values) <= MOST_BOUND_VALUES:
        condition.parameters.extend(values)
        return f"{column} IN ({', '.join('?' * len(values))})"
    condition.parameters.append(len(condition.value_lists))
    condition.value_lists.append(values)
    return f"{column} IN (SELECT value FROM temp.value_lists WHERE list = ?)"


def _has_prefix(column: str, prefix: str, condition: Condition) -> str:
    # SQLite compares text byte by byte in UTF-8, whose order is that of the code points.
    condition.parameters.append(prefix)
    end = _first_string_after(prefix)
    if end is None:
        return f"{column} >= ?"
    condition.parameters.append(end)
    return f"{column} >= ? AND {column} < ?"


def _first_string_after(prefix: str) -> str | None:
    """Return the least string greater than all that start with ``prefix``; ``None`` if none is."""
    kept = prefix.rstrip("\U0010ffff")
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    if following == 0xD800:  # surrogates are no characters
        following = 0xE000
    return kept[:-1] + chr(following)


def _balanced(parts: Sequence[str], operator: str, *, empty: str) -> str:
    """Join ``parts`` as a tree of logarithmic depth: SQLite limits the depth of an expression."""
    if not parts:
        return empty
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    left = _balanced(parts[:middle], operator, empty=empty)
    right = _balanced(parts[middle:], operator, empty=empty)
    return f"({left} {operator} {right})"
