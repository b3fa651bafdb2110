"""Keyword search follows the texts: what is a word, and no word outlives its text."""

from __future__ import annotations

import asyncio
import math
import sqlite3
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_memory import MemoryRecord
from agent_memory.keywords import parse_keywords, terms_of
from agent_memory_inmemory import InMemoryVectorDatabase, create
from inmemory_support import DrawnEmbeddings, numbered

WORDS = (
    "tea",
    "Tea",
    "tee",
    "seat",
    "É",
    "é",
    "E\u0301",
    "İ",
    "ς",
    "🥰",
    "₿",
    "ſ",
    "s",
    "\U0001e900",
)
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).flatmap(
    lambda words: st.sampled_from([" ", "-", "🥰", "\x00", ""]).map(lambda sign: sign.join(words))
)


async def held(db: InMemoryVectorDatabase, query: str, **arguments: Any) -> list[str]:
    page = await db.search_memories(query, search_mode="keyword", limit=1_000, **arguments)
    assert page.total == len(page.memories)
    return [each.id for each in page.memories]


def expected(query: str, stored: dict[str, str]) -> set[str]:
    keywords = parse_keywords(query)

    def holds(text: str) -> bool:
        terms = terms_of(text)
        spots = range(len(terms))
        return bool(set(terms) & set(keywords.terms)) and all(
            any(tuple(terms[spot : spot + len(phrase)]) == phrase for spot in spots)
            for phrase in keywords.phrases
        )

    return {memory_id for memory_id, text in stored.items() if holds(text)}


changes = st.lists(st.tuples(st.sampled_from("abc"), st.none() | texts), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(changes, changes, st.lists(texts, min_size=1, max_size=2))
def test_words_are_those_of_the_texts_after_any_change(
    before: Sequence[tuple[str, str | None]],
    after: Sequence[tuple[str, str | None]],
    queries: Sequence[str],
) -> None:
    async def run() -> None:
        stored: dict[str, str] = {}
        async with create(DrawnEmbeddings()) as db:

            async def apply(changes: Sequence[tuple[str, str | None]]) -> None:
                for memory_id, text in changes:
                    if text is None or not text.strip():
                        await db.delete_memories([memory_id])
                        stored.pop(memory_id, None)
                    else:
                        await db.add_memories([MemoryRecord(id=memory_id, text=text)])
                        stored[memory_id] = text

            async def check() -> None:
                for query in (*queries, *(f'"{each}"' for each in queries), *stored.values()):
                    if query.strip():
                        assert set(await held(db, query)) == expected(query, stored), query

            await apply(before)
            await check()  # makes the words of what is there
            await apply(after)  # and now they have to be kept
            await check()

    asyncio.run(run())


def test_signs_of_any_unicode_part_words_and_letters_of_any_do_not() -> None:
    """SQLite's own tables end with the Unicode of 2012."""

    async def run() -> None:
        async with create(DrawnEmbeddings()) as db:
            await db.add_memories(
                [
                    MemoryRecord(id="emoji", text="lovely pizza🥰tonight 👍🏽great"),
                    MemoryRecord(id="adlam", text="\U0001e900\U0001e901"),
                    MemoryRecord(id="dotted", text="İstanbul"),
                ]
            )
            assert await held(db, "pizza") == ["emoji"]
            assert await held(db, '"pizza tonight"') == ["emoji"]
            assert await held(db, "great") == ["emoji"]
            assert await held(db, "🥰") == []
            assert await held(db, "\U0001e922\U0001e923") == ["adlam"]  # its small letters
            assert await held(db, "İSTANBUL") == ["dotted"]
            assert await held(db, "istanbul") == []

    asyncio.run(run())


@pytest.mark.parametrize(
    "query",
    [
        " ".join(f"w{n}" for n in range(5_000)) + " text",
        "text " * 20_000,
        'text " NEAR(a b) * ^ : - + {x} AND OR NOT \\ \x00 \U0010ffff',
        "text AND OR NOT NEAR",
        "\x00text\x00",
        " ".join(f'"text {n}"' for n in [3] * 500),
    ],
)
def test_any_query_is_words_never_syntax(query: str) -> None:
    async def run() -> None:
        async with create(DrawnEmbeddings()) as db:
            await db.add_memories(numbered(3, 4))
            assert await held(db, query) == ["m3"]

    asyncio.run(run())


def test_a_phrase_of_a_thousand_words_is_found() -> None:
    async def run() -> None:
        words = " ".join(f"w{n}" for n in range(1_000))
        async with create(DrawnEmbeddings()) as db:
            await db.add_memories(
                [
                    MemoryRecord(id="whole", text=f"so {words} it is"),
                    MemoryRecord(id="torn", text=words.replace("w500", "w500 and")),
                ]
            )
            assert await held(db, f'"{words}"') == ["whole"]

    asyncio.run(run())


def test_indexes_made_late_give_what_indexes_made_early_give(tmp_path: Path) -> None:
    """They are made at first use: before the first record here, after the last one there."""

    async def answers(db: InMemoryVectorDatabase) -> list[Any]:
        found = [
            await db.search_memories(
                "text 5 7", search_mode=mode, limit=500, offset=offset, user_id=["u1", "u2"]
            )
            for mode in ("keyword", "hybrid")
            for offset in (0, 40)
        ]
        listed = await db.list_memories(limit=50, offset=10, user_id="u1", created_at="2024-01-01")
        return [[(each.id, each.score) for each in page.memories] for page in (*found, listed)]

    async def run() -> None:
        memories = [
            MemoryRecord(
                id=f"m{n}",
                text=f"text {n % 11} {n}",
                user_id=f"u{n % 4}",
                created_at=datetime(2024, 1, 1, tzinfo=UTC),
            )
            for n in range(1_200)
        ]
        async with (
            create(DrawnEmbeddings()) as early,
            create(DrawnEmbeddings(), path=tmp_path) as late,
        ):
            await answers(early)
            for start in range(0, len(memories), 100):
                await early.add_memories(memories[start : start + 100])
            await late.add_memories(memories)
            expected = await answers(early)
            assert all(expected)
            assert await answers(late) == expected
        async with create(DrawnEmbeddings(), path=tmp_path) as reopened:
            assert await answers(reopened) == expected

    asyncio.run(run())


def test_a_filter_does_not_look_the_words_up_for_each_record() -> None:
    async def run() -> None:
        async with create(DrawnEmbeddings(dimensions=1)) as db:
            await db.add_memories(numbered(0, 5_000, topics=["tea"]))

            async def seconds(**filters: Any) -> float:
                fastest = math.inf
                for _ in range(3):
                    started = time.perf_counter()
                    page = await db.search_memories("text", search_mode="keyword", **filters)
                    fastest = min(fastest, time.perf_counter() - started)
                    assert page.total == 5_000
                return fastest

            plain = await seconds()
            assert await seconds(topics="tea") < 10 * plain  # looked up 5,000 times: 60 and more

    asyncio.run(run())


def test_words_found_by_another_unicode_are_found_again(tmp_path: Path) -> None:
    async def open_and_search() -> list[str]:
        async with create(DrawnEmbeddings(), path=tmp_path) as db:
            return await held(db, "text")

    async def fill() -> None:
        async with create(DrawnEmbeddings(), path=tmp_path) as db:
            await db.add_memories(numbered(0, 3))
            assert await held(db, "text") == ["m0", "m1", "m2"]

    asyncio.run(fill())
    connection = sqlite3.connect(tmp_path / "memory.sqlite3")
    try:
        connection.execute("DROP TABLE words")
        connection.execute(
            "CREATE VIRTUAL TABLE words "
            "USING fts5 (unicode_1_0_0, content = '', tokenize = 'ascii')"
        )
        connection.execute("INSERT INTO words (rowid, unicode_1_0_0) VALUES (1, 'ghost')")
        connection.commit()
    finally:
        connection.close()
    assert asyncio.run(open_and_search()) == ["m0", "m1", "m2"]
