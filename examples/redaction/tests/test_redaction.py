"""Redaction looked at where it counts: stored records, what is embedded, bytes on disk."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from stdnum import luhn

from agent_memory import (
    InvalidArgumentError,
    MemoryRecord,
    MemoryVectorDatabase,
    create_memory_vector_db,
)
from agent_memory.discovery import clear_cache
from agent_memory_redaction import Redaction, SensitiveIdentifierError, redacted
from agent_memory_redaction.patterns import CARD, EMAIL

# A busy machine is slow, not wrong.
patient = settings(deadline=None, suppress_health_check=list(HealthCheck))
# Each example is a database: to shrink one would take minutes, and all are small.
on_disk = settings(patient, max_examples=40, phases=[Phase.explicit, Phase.reuse, Phase.generate])

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


class Embedder:
    """Embeddings that keep what they were given."""

    model = "kept"
    dimensions = 2

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return [await self.aembed_query(each) for each in texts]

    async def aembed_query(self, text: str) -> list[float]:
        self.texts.append(text)
        return [1.0, float(len(text))]


# --- what looks like one -------------------------------------------------------------------------

issuers = st.sampled_from(["4", "5", "34", "37", "36", "6011", "62", "2221", "2720", "81", "9792"])
separators = st.sampled_from(["", " ", "-", ".", "\u00a0", " - ", "\u2011", "\n", "  ", "_"])


@st.composite
def numbers(draw: st.DrawFn) -> str:
    """Draw the digits of a card number; the last one is that which Luhn's check wants."""
    begin = draw(issuers)
    size = draw(st.integers(13, 19)) - 1 - len(begin)
    body = begin + draw(st.text("0123456789", min_size=size, max_size=size))
    number = body + luhn.calc_check_digit(body)
    assert luhn.is_valid(number)
    return number


@st.composite
def cards(draw: st.DrawFn) -> str:
    """Draw a card number as people write them: in groups, with something between."""
    number, between = draw(numbers()), draw(separators)
    edges = sorted(draw(st.sets(st.integers(1, len(number) - 1), max_size=5)))
    parts = [number[i:j] for i, j in zip([0, *edges], [*edges, len(number)], strict=True)]
    return between.join(parts)


names = st.text("abcXYZ019.!#$%&*+-_~é用ü", min_size=1, max_size=20)
labels = st.text("abcXYZ019é例ü", min_size=1, max_size=10)
hosts = st.builds(".".join, st.lists(labels, min_size=2, max_size=4))
emails = st.builds("{}@{}".format, names, hosts) | st.sampled_from(
    ['"ada lovelace"@example.com', "ada@[192.168.0.1]", "ada\uff20example.com", "a@b.c"]
)
# What stands around them neither belongs to a number nor to an address.
around = st.text("abc xyz,;()<>:'\n", max_size=10).map(lambda text: text + ", ")


@given(st.lists(around | cards() | emails, max_size=6), st.text("xyz", max_size=3))
@patient
def test_nothing_is_left_and_the_rest_stays(parts: list[str], rest: str) -> None:
    text = ", ".join([*parts, rest])
    shown = redacted(text)
    for each in parts:
        if any(sign.isdecimal() or sign in "@\uff20" for sign in each):
            assert each not in shown
    assert shown.endswith(rest)
    assert redacted(shown) == shown
    assert not (set("@\uff20") & set(shown))


@given(st.text("abc xyz,;()<>:'\n-._@\u00e9", max_size=50))
@patient
def test_text_without_digits_and_without_addresses_stays(text: str) -> None:
    if "@" not in text:
        assert redacted(text) == text


@given(st.text())
@patient
def test_any_text_is_redacted_once_and_for_all(text: str) -> None:
    shown = redacted(text)
    assert redacted(shown) == shown


@given(st.text("0123456789 -.", max_size=60))
@example("4 4111111111111111")
@example("4111111111111111 5500005555555559")
@patient
def test_digits_are_found_exactly_where_the_check_holds(text: str) -> None:
    # Another way to the same answer: every part that begins and ends with a group, by stdnum.
    def is_card(digits: str) -> bool:
        begins = digits.startswith(("3", "4", "5", "6", "81", "9792")) or (
            digits[:1] == "2" and digits[1:2] in "234567"
        )
        return 13 <= len(digits) <= 19 and begins and luhn.is_valid(digits)

    def has_card(text: str) -> bool:
        gaps = [i for i, sign in enumerate(text) if not sign.isdecimal()]
        starts = [i for i, sign in enumerate(text) if sign.isdecimal() and (i - 1 in gaps or not i)]
        ends = [
            i + 1
            for i, sign in enumerate(text)
            if sign.isdecimal() and (i + 1 in gaps or i + 1 == len(text))
        ]
        for start in starts:
            for end in ends:
                part = text[start:end]
                apart = max(
                    (
                        len(run)
                        for run in "".join("0" if sign.isdecimal() else "-" for sign in part).split(
                            "0"
                        )
                    ),
                    default=0,
                )
                if apart <= 3 and is_card("".join(filter(str.isdecimal, part))):
                    return True
        return False

    assert (redacted(text) != text) == has_card(text)
    assert not has_card(redacted(text))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("4111 1111 1111 1111", CARD),
        ("pay 4111-1111-1111-1111 now", f"pay {CARD} now"),
        ("4111111111111111 cvv 123", f"{CARD} cvv 123"),
        ("4111111111111111 123", f"{CARD} 123"),
        ("1 2 4111111111111111", f"1 2 {CARD}"),
        ("٤١١١ ١١١١ ١١١١ ١١١١", CARD),
        ("\uff14111 1111 1111 1111", CARD),
        ("4111 1111 1111 1112", "4111 1111 1111 1112"),
        ("411111111111111100000", "411111111111111100000"),
        ("1700000000000123", "1700000000000123"),
        ("call +44 20 7946 0958", "call +44 20 7946 0958"),
        ("2026-11-25T19:48:37.123456+00:00", "2026-11-25T19:48:37.123456+00:00"),
        ("ask ada@example.com!", f"ask {EMAIL}!"),
        ("<ada@example.com>,bob@x.org", f"<{EMAIL}>,{EMAIL}"),
        ("mailto:ada+x@mail.example.co.uk?", f"mailto:{EMAIL}?"),
        ("4111 1111 1111 1111@example.com", CARD),
        ("a4111111111111111b@example.com", EMAIL),
        ("अदा@उदाहरण.भारत", EMAIL),
        ("ada@exa\u0301mple.com", EMAIL),
        ("@ada and ada@ and a@b", "@ada and ada@ and a@b"),
    ],
)
def test_examples(text: str, shown: str) -> None:
    assert redacted(text) == shown


# --- a real database -----------------------------------------------------------------------------


def _free(text: str) -> dict[str, Any]:
    """Return the fields of a record that hold free text, all of them with ``text``."""
    return {
        "text": text,
        "topics": [text, "plain"],
        "entities": [text],
        "metadata": {text: [{"note": text, "deep": {text: 1}}], "kept": [1.5, True, None, 12]},
        "extraction_strategy_config": {"prompt": text},
    }


@on_disk
@given(cards() | emails, around, st.booleans())
def test_nothing_reaches_storage_embeddings_or_the_disk(
    sensitive: str, before: str, keyword: bool
) -> None:
    text = f"{before}{sensitive}, and so on"
    embedder = Embedder()

    async def use(folder: Path) -> None:
        async with create_memory_vector_db(
            "inmemory", embeddings=embedder, path=folder, hooks=[Redaction()]
        ) as db:
            await db.add_memories([MemoryRecord(id="1", **_free(text))])
            await db.add_memories([MemoryRecord(id="2", text="plain")])
            await db.update_memories([MemoryRecord(id="2", **_free(text))])
            ada = db.scoped(user_id="ada")
            await ada.add_memories([MemoryRecord(id="3", **_free(text))])
            await db.search_memories(text)
            await db.search_memories(text, search_mode="hybrid" if keyword else "semantic")
            backend: MemoryVectorDatabase = db.unhooked  # type: ignore[attr-defined]
            stored = [each async for each in backend.iter_memories()]
            assert len(stored) == 3
            for each in stored:
                dumped = each.model_dump()
                assert sensitive not in repr(dumped)
                assert not _holds(dumped, sensitive)
                assert each.metadata["kept"] == [1.5, True, None, 12]
                assert each.topics is not None
                assert each.topics[1] == "plain"

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(use(Path(folder)))
        files = [each for each in Path(folder).rglob("*") if each.is_file()]
        data = b"".join(each.read_bytes() for each in files)
        assert b"and so on" in data
        # As UTF-8, and as JSON with escapes.
        escaped = sensitive.encode("ascii", "backslashreplace")
        assert sensitive.encode() not in data
        assert escaped not in data
    assert any("and so on" in each for each in embedder.texts)
    assert not any(sensitive in each for each in embedder.texts)


def _holds(value: Any, text: str) -> bool:
    if isinstance(value, dict):
        return any(_holds(each, text) for pair in value.items() for each in pair)
    if isinstance(value, list):
        return any(_holds(each, text) for each in value)
    return isinstance(value, str) and text in value


@on_disk
@given(numbers().filter(lambda number: len(number) < 16), st.booleans(), st.booleans())
def test_whole_numbers_in_metadata_are_looked_at(number: str, real: bool, negative: bool) -> None:
    value = (float if real else int)(number) * (-1 if negative else 1)

    async def run() -> None:
        async with create_memory_vector_db(
            "inmemory", embeddings=Embedder(), hooks=[Redaction()]
        ) as db:
            await db.add_memories([MemoryRecord(id="1", text="x", metadata={"a": [value]})])
            (stored,) = await db.get_memories(["1"])
            assert stored.metadata == {"a": [CARD]}

    asyncio.run(run())


IDENTIFIERS = ["id", "session_id", "user_id", "namespace", "extraction_strategy", "extracted_from"]


@pytest.mark.parametrize("field", IDENTIFIERS)
@pytest.mark.parametrize("value", ["ada@example.com", "card 4111 1111 1111 1111"])
def test_identifiers_are_refused_unless_they_are_to_be_kept(field: str, value: str) -> None:
    fields: dict[str, Any] = {"id": "1", field: [value] if field == "extracted_from" else value}

    async def run() -> None:
        embedder = Embedder()
        async with create_memory_vector_db(
            "inmemory", embeddings=embedder, hooks=[Redaction()]
        ) as db:
            for method in (db.add_memories, db.update_memories):
                with pytest.raises(SensitiveIdentifierError, match=f"^{field} ") as refused:
                    await method([MemoryRecord(text="x", **fields)])
                assert value not in str(refused.value)
            assert await db.count_memories() == 0
        assert embedder.texts == []

        async with create_memory_vector_db(
            "inmemory", embeddings=embedder, hooks=[Redaction(identifiers="keep")]
        ) as db:
            await db.add_memories([MemoryRecord(text=value, **fields)])
            (stored,) = (await db.list_memories()).memories
            assert getattr(stored, field) == fields[field]
            assert value not in stored.text

    asyncio.run(run())


def test_two_addresses_as_keys_leave_two_keys() -> None:
    async def run() -> None:
        metadata: Any = {"a@b.co": 1, "c@d.co": 2, EMAIL: 3, "plain": 4}
        async with create_memory_vector_db(
            "inmemory", embeddings=Embedder(), hooks=[Redaction()]
        ) as db:
            await db.add_memories([MemoryRecord(id="1", text="x", metadata=metadata)])
            (stored,) = await db.get_memories(["1"])
            assert sorted(map(str, stored.metadata.values())) == ["1", "2", "3", "4"]
            assert stored.metadata[EMAIL] == 3
            assert "@" not in "".join(stored.metadata)

    asyncio.run(run())


def test_an_unchanged_text_is_not_embedded_again() -> None:
    async def run() -> None:
        embedder = Embedder()
        record = MemoryRecord(id="1", text="write to ada@example.com")
        async with create_memory_vector_db(
            "inmemory", embeddings=embedder, hooks=[Redaction()]
        ) as db:
            await db.add_memories([record])
            await db.update_memories([record])
        assert embedder.texts == [f"write to {EMAIL}"]
        assert record.text == "write to ada@example.com"

    asyncio.run(run())


def test_a_long_query_is_redacted_too() -> None:
    async def run() -> None:
        embedder = Embedder()
        async with create_memory_vector_db(
            "inmemory", embeddings=embedder, hooks=[Redaction()]
        ) as db:
            await db.search_memories("x " * 5000 + "ada@example.com")
        assert embedder.texts == ["x " * 5000 + EMAIL]

    asyncio.run(run())


@pytest.mark.parametrize(
    "part", ["@", "a@", "4 1 ", "1", "a.@", "x@a.", "5.", "4111111111111111 ", "ada@x.org "]
)
def test_ten_times_the_text_is_ten_times_the_work(part: str) -> None:
    def steps(size: int) -> int:
        count = 0

        def tick(*_: object) -> Any:
            nonlocal count
            count += 1
            return tick

        before = sys.gettrace()
        sys.settrace(tick)
        try:
            redacted(part * size)
        finally:
            sys.settrace(before)
        return count

    assert steps(1000) <= 11 * steps(100) + 100


def test_no_text_makes_a_pattern_slow() -> None:
    # The steps of patterns cannot be counted. Were one quadratic, this would take an hour; it takes
    # a second.
    program = (
        "from agent_memory_redaction import redacted\n"
        "for part in ('a', 'a.', 'a@', '.@', '\"', '\"a', 'x@a.', '\\u0300', '-'):\n"
        "    redacted(part * (2**19 // len(part)))\n"
        "    redacted(part * (2**10 // len(part)) + '@' + part * (2**18 // len(part)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT.parent / "src")}
    subprocess.run([sys.executable, "-c", program], env=environment, timeout=600, check=True)


def test_what_identifiers_may_be_is_checked() -> None:
    with pytest.raises(InvalidArgumentError, match="expected 'refuse' or 'keep'"):
        Redaction(identifiers="drop")  # type: ignore[arg-type]


def test_installed_it_runs_on_every_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tomllib.loads(PROJECT.read_text())["project"]
    installed = tmp_path / "agent_memory_redaction-0.1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    for group, entries in project["entry-points"].items():
        (installed / "entry_points.txt").write_text(
            f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in entries.items())
        )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("AGENT_MEMORY_HOOKS", raising=False)
    clear_cache()
    try:

        async def run() -> None:
            async with create_memory_vector_db("inmemory", embeddings=Embedder()) as db:
                await db.add_memories([MemoryRecord(id="1", text="ada@example.com")])
                assert [each.text for each in await db.get_memories(["1"])] == [EMAIL]

        asyncio.run(run())
    finally:
        monkeypatch.undo()
        clear_cache()
