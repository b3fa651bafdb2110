"""What an engine reads: the same condition as an expression, in seven shapes.

Each of them is true or false for every record, also for one without the field. Callers never see
a predicate; what they write is in `agent_memory.filters`. No record is read here except by
`matches`, for engines that have no filters of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from agent_memory.filters import TIME_FIELDS, And, Expression, Filter, Not, Or
from agent_memory.models import MemoryRecord

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class OneOf:
    """True if the field, or one element of it, equals one of ``values``."""

    field: str
    values: tuple[str, ...]
    value_set: frozenset[str] = dataclasses.field(init=False, repr=False, compare=False)
    """The same values, for looking one up: there may be many thousands."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "value_set", frozenset(self.values))


@dataclass(frozen=True, slots=True)
class HasPrefix:
    """True if the field, or one element of it, starts with ``prefix`` (one character or more)."""

    field: str
    prefix: str


@dataclass(frozen=True, slots=True)
class IsPresent:
    """True if the field has a value; an empty list has none."""

    field: str


@dataclass(frozen=True, slots=True)
class InTimeRange:
    """True if the field has a time from ``earliest`` to ``latest``, both included.

    ``None`` is no bound. Times have whole microseconds, so an excluded bound is the included one
    a microsecond further in.
    """

    field: str
    earliest: datetime | None
    latest: datetime | None


@dataclass(frozen=True, slots=True)
class AllOf:
    """True if every one of ``predicates`` is; with none of them it is true."""

    predicates: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """True if at least one of ``predicates`` is; with none of them it is false."""

    predicates: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class NotThat:
    """True if ``predicate`` is false."""

    predicate: Predicate


Predicate = OneOf | HasPrefix | IsPresent | InTimeRange | AllOf | AnyOf | NotThat

NOTHING = AnyOf(())
"""The predicate that no record meets."""


def predicate_of(expression: Expression) -> Predicate:
    """Return what an expression means, in the shapes that an engine reads."""
    match expression:
        case And(operands):
            return AllOf(tuple(predicate_of(each) for each in operands))
        case Or(operands):
            return AnyOf(tuple(predicate_of(each) for each in operands))
        case Not(operand):
            return NotThat(predicate_of(operand))
        case Filter():
            parts = tuple(_meanings(expression.field, expression.given()))
            return parts[0] if len(parts) == 1 else AllOf(parts)
    raise TypeError(f"{type(expression).__name__} is no expression of filters")


def _meanings(field: str, operators: Mapping[str, Any]) -> Iterator[Predicate]:
    is_time = field in TIME_FIELDS
    for name, value in operators.items():
        match name:
            case "eq":
                yield _moment(field, value) if is_time else OneOf(field, (value,))
            case "ne":
                yield NotThat(_moment(field, value) if is_time else OneOf(field, (value,)))
            case "any":
                yield OneOf(field, tuple(dict.fromkeys(value)))
            case "none":
                yield NotThat(OneOf(field, tuple(dict.fromkeys(value))))
            case "all":
                yield from (OneOf(field, (each,)) for each in dict.fromkeys(value))
            case "startswith":
                yield HasPrefix(field, value)
            case "exists":
                yield IsPresent(field) if value else NotThat(IsPresent(field))
            case "gt":
                yield _time_range(field, after=value)
            case "gte":
                yield _time_range(field, at_least=value)
            case "lt":
                yield _time_range(field, before=value)
            case "lte":
                yield _time_range(field, at_most=value)
            case "between":
                ends = operators.get("inclusive", "both")
                lower = "at_least" if ends in ("both", "left") else "after"
                upper = "at_most" if ends in ("both", "right") else "before"
                yield _time_range(field, **{lower: value[0], upper: value[1]})


def _moment(field: str, moment: datetime) -> Predicate:
    return _time_range(field, at_least=moment, at_most=moment)


def _time_range(field: str, **bounds: datetime) -> Predicate:
    earliest, latest = bounds.get("at_least"), bounds.get("at_most")
    try:
        if "after" in bounds:
            earliest = bounds["after"] + _MICROSECOND
        if "before" in bounds:
            latest = bounds["before"] - _MICROSECOND
    except OverflowError:  # after the last moment there is, or before the first
        return NOTHING
    if earliest is not None and latest is not None and earliest > latest:
        return NOTHING
    return InTimeRange(field, earliest, latest)


def matches(predicate: Predicate, record: MemoryRecord) -> bool:
    """Tell whether ``record`` meets ``predicate``; for engines without filters of their own."""
    match predicate:
        case AllOf(predicates):
            return all(matches(each, record) for each in predicates)
        case AnyOf(predicates):
            return any(matches(each, record) for each in predicates)
        case NotThat(inner):
            return not matches(inner, record)
        case OneOf(field):
            return any(value in predicate.value_set for value in _elements(record, field))
        case HasPrefix(field, prefix):
            return any(value.startswith(prefix) for value in _elements(record, field))
        case IsPresent(field):
            value = getattr(record, field)
            return value is not None and value != []
        case InTimeRange(field, earliest, latest):
            moment = getattr(record, field)
            return (
                moment is not None
                and (earliest is None or moment >= earliest)
                and (latest is None or moment <= latest)
            )


def _elements(record: MemoryRecord, field: str) -> Sequence[str]:
    value = getattr(record, field)
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else value
