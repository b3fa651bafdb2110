"""The arguments of a call, checked: each function returns what it was given, or raises.

All raise `InvalidArgumentError`, which says what was expected, before anything is read or written
(`checked_dimensions`, which asks embeddings and not a caller, raises `EmbeddingError`). Records
are checked where they are prepared, in `agent_memory.backend`; filters check themselves.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping

from agent_memory.errors import EmbeddingError, InvalidArgumentError
from agent_memory.filters import combined
from agent_memory.models import SearchMode, ensure_encodable
from agent_memory.predicates import Predicate, predicate_of
from agent_memory.primitives import Window

DEFAULT_HYBRID_ALPHA = 0.7
_LARGEST = 2**53
"""Offsets and limits beyond this are cut down to it: no space holds as many records."""


def checked_space(space: object) -> str:
    """Return the name of a space: any text that is not empty and that UTF-8 can hold."""
    if not isinstance(space, str) or not space:
        raise InvalidArgumentError(f"space={space!r}: expected a name, a string that is not empty")
    try:
        return ensure_encodable(space)
    except ValueError as error:
        raise InvalidArgumentError(f"space={space!r}: {error}") from None


def checked_dimensions(dimensions: object, model: str) -> int:
    """Return the number of dimensions that embeddings report, if it is one."""
    if not isinstance(dimensions, int) or isinstance(dimensions, bool) or dimensions < 1:
        raise EmbeddingError(
            f"the embeddings {model!r} say that their vectors have {dimensions!r} dimensions; "
            f"expected a whole number of 1 or more"
        )
    return dimensions


def checked_query(query: object) -> str:
    """Return the text of a query: not blank, and text that UTF-8 can hold."""
    if not isinstance(query, str):
        raise InvalidArgumentError(f"query: expected a string, got {type(query).__name__}")
    if not query.strip():
        raise InvalidArgumentError("query: it is blank; to read without a query use list_memories")
    try:
        return ensure_encodable(query)
    except ValueError as error:
        raise InvalidArgumentError(f"query: {error}") from None


def checked_mode(mode: object) -> SearchMode:
    """Return the search mode of this name."""
    if type(mode) is SearchMode:
        return mode
    try:
        return SearchMode(mode)  # type: ignore[arg-type]
    except ValueError:
        close = difflib.get_close_matches(str(mode), list(SearchMode), n=1)
        hint = f"did you mean {str(close[0])!r}?" if close else f"one of {', '.join(SearchMode)}"
        raise InvalidArgumentError(f"search_mode={mode!r}: {hint}") from None


def checked_window(limit: object, offset: object, *, with_total: object) -> Window:
    """Return which part of a ranking is asked for; what no space holds is cut down."""
    if (  # as nearly always
        type(limit) is int
        and type(offset) is int
        and type(with_total) is bool
        and 1 <= limit <= _LARGEST
        and 0 <= offset <= _LARGEST
    ):
        return Window(offset, limit, with_total)
    for name, value, least in (("limit", limit, 1), ("offset", offset, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InvalidArgumentError(
                f"{name}={value!r}: expected a whole number of {least} or more"
            )
    if not isinstance(with_total, bool):
        raise InvalidArgumentError(f"with_total={with_total!r}: expected True or False")
    assert isinstance(limit, int)
    assert isinstance(offset, int)
    return Window(min(offset, _LARGEST), min(limit, _LARGEST), with_total)


def checked_threshold(threshold: object, mode: SearchMode) -> float | None:
    """Return the largest distance asked for, which semantic search alone has."""
    if threshold is None:
        return None
    value = _checked_number("distance_threshold", threshold)
    if mode is not SearchMode.SEMANTIC:
        raise InvalidArgumentError(
            f"distance_threshold belongs to semantic search; a {mode.value} search has no limit "
            f"of distance"
        )
    return value


def checked_alpha(alpha: object, mode: SearchMode) -> float:
    """Return the weight of meaning, which hybrid search alone has."""
    if alpha is None:
        return DEFAULT_HYBRID_ALPHA
    value = _checked_number("hybrid_alpha", alpha)
    if not 0 <= value <= 1:
        raise InvalidArgumentError(f"hybrid_alpha={alpha!r}: expected a number from 0 to 1")
    if mode is not SearchMode.HYBRID:
        raise InvalidArgumentError(f"hybrid_alpha belongs to hybrid search, this is {mode.value}")
    return value


def _checked_number(name: str, value: object) -> float:
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:  # an integer beyond what a float can hold
        raise InvalidArgumentError(f"{name}: expected a finite number, this is too large") from None
    raise InvalidArgumentError(f"{name}={value!r}: expected a finite number")


def checked_ids(ids: object) -> list[str]:
    """Return a list of ids, each of them text."""
    if isinstance(ids, str) or not isinstance(ids, (list, tuple, set, frozenset)):
        raise InvalidArgumentError(f"expected a list of ids, got {type(ids).__name__}")
    for each in ids:
        if not isinstance(each, str):
            raise InvalidArgumentError(f"an id is a string, got {each!r} ({type(each).__name__})")
        try:
            ensure_encodable(each)
        except ValueError as error:
            raise InvalidArgumentError(f"the id {each!r}: {error}") from None
    return list(ids)


def as_predicate(where: object, filters: Mapping[str, object]) -> Predicate | None:
    """Return what all filters of a call mean to an engine; `None` if there are none."""
    expression = combined(where, filters)
    return None if expression is None else predicate_of(expression)
