"""Predicates and keywords in the query engine's language.

What is written into a query are names of ours, whole numbers and tokens of letters and digits, so
no value can change what a query means. Each text is true for exactly the records that meet the
predicate; see `agent_memory_redis.records` for the tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from agent_memory import MemoryTypeEnum
from agent_memory.filters import LIST_TAG_FIELDS, TIME_FIELDS
from agent_memory.keywords import Keywords
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
from agent_memory_redis.records import (
    COARSE,
    FIRST,
    HASH_START,
    LAST,
    NOWHERE,
    ORDINALS,
    START_DIGITS,
    TAGS,
    WORDS,
    cut,
    far_token,
    hash_start,
    memory_hash_token,
    microseconds,
    missing_token,
    prefix_tokens,
    tag_token,
    whole_prefix_token,
    word_token,
)

NOTHING = f"@{TAGS}:{{{NOWHERE}}}"
EVERYTHING = f"(-{NOTHING})"
"""All records, as a condition among others; alone it is ``*``."""

_NEVER = f"(@{HASH_START}:[0 +inf] (-@{HASH_START}:[0 +inf]))"
"""What no record meets, though all meet that by which it is estimated."""

_VOCABULARY = {
    "memory_type": tuple(each.value for each in MemoryTypeEnum),
    "discrete_memory_extracted": ("t", "f"),
}


def condition(predicate: Predicate | None) -> str:
    """Return the condition that exactly the records which meet ``predicate`` fulfil."""
    return EVERYTHING if predicate is None else _written(predicate, negated=False).text


def whole_query(predicate: Predicate | None) -> str:
    """Return `condition` as a query of its own."""
    return "*" if predicate is None else condition(predicate)


def thought_to_be_met(predicate: Predicate) -> str:
    """Return `condition` such that the engine never thinks that no record meets it.

    Before it ranks by vector what meets a condition (``=>[KNN ...]``), the engine estimates how
    many do, and ranks none if that comes out as 0. It does where all of several hold that have an
    alternative which no record meets, as in ``((a b)|c) ((d e)|f)``. So there is one alternative
    more. To find that no record meets it, the engine looks at all.
    """
    return f"({_NEVER}|{condition(predicate)})"


def keyword_query(keywords: Keywords, predicate: Predicate | None) -> str:
    """Return the query for the records that hold the keywords; the terms alone count as score."""
    terms = "|".join(map(word_token, keywords.terms))
    parts = [f"@{WORDS}:({terms})"]
    parts += (_unscored(f"@{WORDS}:({_phrase(each)})") for each in keywords.phrases)
    if predicate is not None:
        parts.append(_unscored(condition(predicate)))
    return f"({' '.join(parts)})"


def _unscored(text: str) -> str:
    # The engine counts tags as score, too. A weight of 0 it heeds only where conditions are joined.
    return f"({text} {text})=>{{$weight: 0}}"


def _phrase(terms: Sequence[str]) -> str:
    tokens = " ".join(map(word_token, terms))
    return f'"{tokens}"' if len(terms) > 1 else tokens


def is_phrase_of(terms: Sequence[str], phrase: Sequence[str]) -> bool:
    """Tell whether ``phrase`` stands in ``terms``."""
    size = len(phrase)
    return any(
        tuple(terms[start : start + size]) == tuple(phrase)
        for start in range(len(terms) - size + 1)
    )


# --- predicates --------------------------------------------------------------------------------
# What the engine gets wrong, seen with version 2.10.5, shapes the text that is written here:
#
# - A "not" inside a "not" loses records. So negations are moved inwards to single conditions.
# - Of more than twenty alternatives, it merges the answers in a way that is wrong, and may never
#   end, if there is a "not" in them. So many alternatives are written as a tree of few each. A
#   group that comes first would be taken apart again, so one that no record meets comes first.
# - Its parser's stack overflows at about a hundred levels of parentheses that are opened one after
#   the other to the right. So what is nested deepest comes first.


@dataclass(frozen=True, slots=True)
class _Single:
    """One condition of the engine's."""

    text: str


@dataclass(frozen=True, slots=True)
class _Joined:
    """Conditions of which all hold (a blank between them), or at least one (``|``)."""

    sign: Literal[" ", "|"]
    parts: Sequence[_Tree]


_Tree = Predicate | _Single | _Joined


class _Text(NamedTuple):
    text: str
    depth: int


def _written(tree: _Tree, *, negated: bool) -> _Text:
    match tree:
        case NotThat(inner):
            return _written(inner, negated=not negated)
        case AllOf(predicates):
            return _written_joined(" ", predicates, negated=negated)
        case AnyOf(predicates):
            return _written_joined("|", predicates, negated=negated)
        case _Joined(sign, parts):
            return _written_joined(sign, parts, negated=negated)
        case _Single(text):
            return _Text(f"(-{text})" if negated else text, 1)
        case OneOf(field, values):
            return _written(_one_of(tag_token(field, each) for each in values), negated=negated)
        case HasPrefix(field, prefix):
            return _written(_has_prefix(field, prefix), negated=negated)
        case IsPresent(field) if field in TIME_FIELDS:
            return _written(_Single(f"@{field}:[{FIRST} +inf]"), negated=negated)
        case IsPresent(field):
            return _written(_one_of([missing_token(field)]), negated=not negated)
        case InTimeRange(field, earliest, latest):
            return _written(_in_time_range(field, earliest, latest), negated=negated)


def _written_joined(sign: str, parts: Sequence[_Tree], *, negated: bool) -> _Text:
    if negated:  # not (a and b) is (not a) or (not b)
        sign = "|" if sign == " " else " "
    if not parts:
        return _Text(EVERYTHING if sign == " " else NOTHING, 1)
    if len(parts) == 1:
        return _written(parts[0], negated=negated)
    texts = [_written(each, negated=negated) for each in parts]
    texts.sort(key=lambda each: each.depth, reverse=True)
    depth = 1 + texts[0].depth
    alternatives = [each.text for each in texts]
    if sign == " ":
        return _Text(f"({' '.join(alternatives)})", depth)
    while len(alternatives) >= _MOST_ALTERNATIVES:
        groups = range(0, len(alternatives), _MOST_ALTERNATIVES - 1)
        alternatives = [
            _any_of(alternatives[start : start + _MOST_ALTERNATIVES - 1]) for start in groups
        ]
        depth += 1
    return _Text(_any_of(alternatives), depth)


_MOST_ALTERNATIVES = 20


def _any_of(alternatives: Sequence[str]) -> str:
    return f"({NOTHING}|{'|'.join(alternatives)})"


def _one_of(tokens: Iterable[str]) -> _Single:
    return _Single(f"@{TAGS}:{{{'|'.join(tokens) or NOWHERE}}}")


def _has_prefix(field: str, prefix: str) -> _Tree:
    if field in _VOCABULARY:
        values = [each for each in _VOCABULARY[field] if each.startswith(prefix)]
        return _one_of(tag_token(field, each) for each in values)
    if field == "memory_hash":
        return _hash_has_prefix(prefix)
    if field not in LIST_TAG_FIELDS:
        return _all_of(prefix_tokens(field, 0, prefix))
    elements: list[_Tree] = [
        _all_of(prefix_tokens(field, each, prefix)) for each in range(ORDINALS)
    ]
    return _Joined("|", [*elements, _one_of([whole_prefix_token(field, prefix)])])


def _all_of(tokens: Iterable[str]) -> _Single:
    return _Single(f"({' '.join(f'@{TAGS}:{{{each}}}' for each in tokens)})")


def _hash_has_prefix(prefix: str) -> _Tree:
    if not re.fullmatch(r"[0-9a-f]{1,64}", prefix):
        return _one_of([])
    least = hash_start(prefix.ljust(START_DIGITS, "0"))
    most = hash_start(prefix.ljust(START_DIGITS, "f"))
    start = _Single(f"@{HASH_START}:[{least} {most}]")
    if len(prefix) <= START_DIGITS:
        return start
    # The engine's prefixes find 200 values at most: hashes that share 52 bits are fewer.
    return _Joined(" ", [start, _one_of([f"{memory_hash_token(prefix)}*"])])


def _in_time_range(field: str, earliest: datetime | None, latest: datetime | None) -> _Tree:
    low, low_rest = (FIRST, None) if earliest is None else _cut(earliest)
    high, high_rest = (LAST, None) if latest is None else _cut(latest)
    if not low_rest and high_rest in (None, COARSE - 1):
        return _Single(f"@{field}:[{low} {high}]")
    after: _Tree = _Single(f"@{field}:[{low} +inf]")
    before: _Tree = _Single(f"@{field}:[{FIRST} {high}]")
    if low_rest:
        at_least = _cut_off(field, low, range(low_rest, COARSE))
        after = _Joined("|", [_Single(f"@{field}:[({low} +inf]"), at_least])
    if high_rest is not None:
        at_most = _cut_off(field, high, range(high_rest + 1))
        before = _Joined("|", [_Single(f"@{field}:[{FIRST} ({high}]"), at_most])
    return _Joined(" ", [after, before])


def _cut(moment: datetime) -> tuple[int, int | None]:
    return cut(microseconds(moment))


def _cut_off(field: str, value: int, rests: Iterable[int]) -> _Tree:
    """Return what is true of times stored as ``value`` of which one of ``rests`` was cut off."""
    tokens = _one_of(far_token(field, rest) for rest in rests)
    return _Joined(" ", [_Single(f"@{field}:[{value} {value}]"), tokens])
