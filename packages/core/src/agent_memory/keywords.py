"""What the words of a query are: the same terms and phrases for every backend.

A term is a longest run of letters, digits and the marks that combine with them (Unicode's
categories L, N and M, and private use); everything else separates. Case does not count. Words in
straight double quotes are a phrase; a quote without a partner separates like any other sign.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

_PHRASE = re.compile(r'"([^"]*)"')
_ASCII_TERM = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Keywords:
    """What a keyword query asks for.

    A memory matches if it holds every phrase and at least one of all terms, those inside phrases
    included. With no terms at all, nothing matches.
    """

    terms: tuple[str, ...]
    """Every term of the query, in order, lower-cased, each once."""
    phrases: tuple[tuple[str, ...], ...]
    """The terms of each quoted phrase, in order; one term may be a phrase."""


NO_KEYWORDS = Keywords((), ())


def parse_keywords(query: str) -> Keywords:
    """Read the terms and phrases of ``query``."""
    phrases = dict.fromkeys(tuple(terms_of(quoted)) for quoted in _PHRASE.findall(query))
    return Keywords(
        terms=tuple(dict.fromkeys(terms_of(query))),
        phrases=tuple(phrase for phrase in phrases if phrase),
    )


def terms_of(text: str) -> list[str]:
    """Return the terms of ``text``, in order, with repeats, lower-cased."""
    lowered = text.lower()
    if lowered.isascii():
        return _ASCII_TERM.findall(lowered)
    return "".join(each if _belongs_to_a_term(each) else " " for each in lowered).split()


def _belongs_to_a_term(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] in "LNM" or category == "Co"
