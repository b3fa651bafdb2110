"""Predicates in Qdrant's words, each exact for every record.

How deep the nesting may be is the engine's limit: JSON is parsed to 128 levels, gRPC messages to
100. `to_filter` refuses what is deeper; the caller then evaluates the predicate itself.
"""

from __future__ import annotations

from collections.abc import Sequence

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
from qdrant_client import models

MAX_DEPTH = 40
"""Filters within filters that are sent: 2 messages of gRPC and 2 levels of JSON each."""

# A condition that no point meets: every point has an id. An empty list of alternatives would
# not do, Qdrant reads it as no condition at all.
_NEVER = models.IsEmptyCondition(is_empty=models.PayloadField(key="id"))


class TooDeepError(ValueError):
    """The predicate is nested deeper than Qdrant reads."""


def to_filter(predicate: Predicate) -> models.Filter:
    """Return the filter that accepts exactly the points whose records meet ``predicate``.

    Raises:
        TooDeepError: it would be nested more than `MAX_DEPTH` deep.
    """
    condition = _condition(predicate, MAX_DEPTH)
    return condition if isinstance(condition, models.Filter) else models.Filter(must=[condition])


def both(first: models.Filter | None, *conditions: models.Condition) -> models.Filter:
    """Return a filter that asks for ``conditions``, the cheaper ones, and then for ``first``."""
    return models.Filter(must=[*conditions, *([first] if first is not None else [])])


def has_id(points: Sequence[str]) -> models.HasIdCondition:
    """Return the condition that a point is one of ``points``."""
    return models.HasIdCondition(has_id=list(points))


def one_of(key: str, values: Sequence[str]) -> models.FieldCondition:
    """Return the condition that the value under ``key`` is one of ``values``, not empty."""
    return models.FieldCondition(key=key, match=models.MatchAny(any=list(values)))


def _condition(predicate: Predicate, depth: int) -> models.Condition:
    if depth == 0:
        raise TooDeepError(f"filters are nested more than {MAX_DEPTH} deep")
    match predicate:
        case OneOf(field, values):
            return one_of(field, values) if values else _NEVER
        case HasPrefix(field, prefix):
            return models.FieldCondition(key=field, match=models.MatchPrefix(prefix=prefix))
        case IsPresent(field):
            return models.Filter(
                must_not=[models.IsEmptyCondition(is_empty=models.PayloadField(key=field))]
            )
        case InTimeRange(field, earliest, latest):
            bounds = models.DatetimeRange(gte=earliest, lte=latest)
            return models.FieldCondition(key=field, range=bounds)
        case NotThat(inner):
            return models.Filter(must_not=[_condition(inner, depth - 1)])
        case AllOf(predicates):
            return models.Filter(must=[_condition(each, depth - 1) for each in predicates])
        case AnyOf(()):
            return _NEVER
        case AnyOf(predicates):
            return models.Filter(should=[_condition(each, depth - 1) for each in predicates])
