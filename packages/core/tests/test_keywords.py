"""What counts as a word of a query, and what as a phrase."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_memory.keywords import Keywords, parse_keywords, terms_of

# A busy machine is slow, not wrong.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", []),
        (" \n\t", []),
        ("!?-_*", []),
        ("Window SEATS, please", ["window", "seats", "please"]),
        ("tea tea", ["tea", "tea"]),
        ("don't", ["don", "t"]),
        ("snake_case a-b", ["snake", "case", "a", "b"]),
        ("B2B 3.5", ["b2b", "3", "5"]),
        ("Ärger ÉCOLE", ["ärger", "école"]),
        ("E\u0301cole", ["e\u0301cole"]),  # a combining mark belongs to its letter
        ("हिन्दी", ["हिन्दी"]),
        ("日本語 テスト", ["日本語", "テスト"]),
        ("½ ٣", ["½", "٣"]),
        ("tea🍵time", ["tea", "time"]),
        ("a\x00b\u200bc", ["a", "b", "c"]),
        ("\ue000x", ["\ue000x"]),  # private use
        ('say "no"', ["say", "no"]),
    ],
)
def test_terms(text: str, terms: list[str]) -> None:
    assert terms_of(text) == terms


@patient
@given(st.text())
def test_terms_are_the_longest_runs_of_what_belongs_to_a_word(text: str) -> None:
    terms = terms_of(text)
    lowered = text.lower()
    position = 0
    gaps = []
    for term in terms:
        found = lowered.index(term, position)
        gaps.append(lowered[position:found])
        position = found + len(term)
        assert all(_in_a_word(each) for each in term)
    gaps.append(lowered[position:])
    assert not any(_in_a_word(each) for gap in gaps for each in gap)
    assert all(gaps[1:-1])


def _in_a_word(character: str) -> bool:
    category = unicodedata.category(character)
    return category.startswith(("L", "N", "M")) or category == "Co"


@patient
@given(st.text())
def test_case_does_not_count_and_terms_are_stable(text: str) -> None:
    assert terms_of(" ".join(terms_of(text))) == terms_of(text)


@pytest.mark.parametrize(
    ("query", "terms", "phrases"),
    [
        ("window seats", ("window", "seats"), ()),
        ("tea Tea TEA", ("tea",), ()),
        ('the "window seat" please', ("the", "window", "seat", "please"), (("window", "seat"),)),
        ('"Tea"', ("tea",), (("tea",),)),
        ('"a b" "a b"', ("a", "b"), (("a", "b"),)),
        ('"a a"', ("a",), (("a", "a"),)),
        ('""', (), ()),
        ('"!" tea', ("tea",), ()),
        ('an "open quote', ("an", "open", "quote"), ()),
        ('"a b" and "open', ("a", "b", "and", "open"), (("a", "b"),)),
        ('x"y"z', ("x", "y", "z"), (("y",),)),
        ("“curly quotes”", ("curly", "quotes"), ()),
        ('"two\nlines"', ("two", "lines"), (("two", "lines"),)),
    ],
)
def test_phrases(query: str, terms: tuple[str, ...], phrases: tuple[tuple[str, ...], ...]) -> None:
    assert parse_keywords(query) == Keywords(terms, phrases)


@patient
@given(st.text(st.sampled_from('ab" ,'), max_size=20) | st.text())
def test_every_query_can_be_read(query: str) -> None:
    keywords = parse_keywords(query)
    assert len(set(keywords.terms)) == len(keywords.terms)
    assert len(set(keywords.phrases)) == len(keywords.phrases)
    assert set(keywords.terms) == set(terms_of(query))
    for phrase in keywords.phrases:
        assert phrase
        assert set(phrase) <= set(keywords.terms)
    assert len(keywords.phrases) <= query.count('"') // 2
