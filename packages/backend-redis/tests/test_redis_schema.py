"""Where a space lies: names, keys, hashes, and an index that has to be made anew."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from agent_memory import (
    BackendError,
    BackendUnavailableError,
    EmbeddingMismatchError,
    MemoryRecord,
)
from agent_memory.filters import TIME_FIELDS
from agent_memory.models import MAX_JSON_DEPTH
from agent_memory_redis import RedisBackend, create
from agent_memory_redis.opening import Opener
from agent_memory_redis.records import from_payloads, to_payload
from agent_memory_redis.schema import (
    Layout,
    Stamp,
    VectorIndex,
    create_command,
    create_counting_command,
)
from agent_memory_testkit import strategies
from agent_memory_testkit.embedders import ExactEmbeddings
from agent_memory_testkit.model import differing_fields
from agent_memory_testkit.samples import TROUBLE, memory
from redis_support import drop_space

SIMILAR_NAMES = ("a", "a:b", "a/b", "a/", "a!", "a%2F", "a*", "{a}", "a b", "é", "e\u0301")
NAMES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12),
    st.sampled_from([*SIMILAR_NAMES, *TROUBLE]),
)
Client = Any  # redis-py's: its methods are not typed
Scenario = Callable[[RedisBackend, Client], Awaitable[None]]


@pytest.fixture
def with_space(redis_url: str) -> Callable[[Scenario], None]:
    """Runs a scenario with a handle of an empty space and a client; the space is dropped then."""
    layout = Layout.of("schema tests", "schema tests")

    def run(scenario: Scenario) -> None:
        async def whole() -> None:
            client: Client
            async with Redis.from_url(redis_url, protocol=2) as client:
                try:
                    async with create(ExactEmbeddings(), space="schema tests", url=redis_url) as db:
                        await scenario(db, client)
                finally:
                    await drop_space(client, layout)

        asyncio.run(whole())

    return run


# --- names and keys ----------------------------------------------------------------------------


def test_no_key_of_a_space_begins_like_those_of_one_with_a_similar_name() -> None:
    for one, other in itertools.permutations(SIMILAR_NAMES, 2):
        nothing_is_shared(one, other)


@given(one=NAMES, other=NAMES)
def test_no_key_of_a_space_begins_like_those_of_another(one: str, other: str) -> None:
    nothing_is_shared(one, other)


def nothing_is_shared(one: str, other: str) -> None:
    first, second = Layout.of(one, one), Layout.of(other, other)
    if one == other:
        assert first == second
        return
    assert not first.prefix.startswith(second.prefix)
    assert first.fingerprint_key != second.fingerprint_key
    assert first.index != second.index
    for layout in (first, second):
        assert not first.fingerprint_key.startswith(layout.prefix)
        # Nothing that the server would read as a pattern, or a cluster as the name of a slot.
        assert not set("*?[]^{}\\ ").intersection(layout.prefix)


@given(ids=st.lists(strategies.tag_values(), min_size=2, max_size=2, unique=True))
def test_every_id_has_a_key_of_its_own_and_comes_back_from_it(ids: list[str]) -> None:
    layout = Layout.of("space", "space")
    keys = [layout.key(each) for each in ids]
    assert keys[0] != keys[1]
    for memory_id, key in zip(ids, keys, strict=True):
        assert layout.memory_id(key.encode()) == memory_id
        assert "{" not in key
        assert "\0" not in key


def test_keys_are_readable() -> None:
    layout = Layout.of("app:memory", "app:memory")
    assert layout.key("user-1:turn/7") == "app:memory/user-1:turn/7"
    assert layout.fingerprint_key == "app:memory!fingerprint"


# --- hashes ------------------------------------------------------------------------------------


@given(record=strategies.records())
def test_a_payload_holds_the_whole_record(record: MemoryRecord) -> None:
    [back] = from_payloads([to_payload(record).encode()], MemoryRecord)
    assert differing_fields(back, record) == {}
    assert list(back.__dict__) == list(MemoryRecord.model_fields)


def test_a_payload_holds_the_largest_and_deepest_metadata() -> None:
    deep: JsonValue = []
    for _ in range(MAX_JSON_DEPTH - 1):
        deep = [deep]
    numbers = [
        10**4_000 - 1,
        1 - 10**4_000,
        2**63,
        2**53 + 1,
        5e-324,
        sys.float_info.max,
        0.1,
        -0.0,
    ]
    record = memory("m", metadata={"deep": deep, "numbers": numbers})
    [back] = from_payloads([to_payload(record).encode()], MemoryRecord)
    assert repr(back.metadata) == repr(record.metadata)


def test_records_from_payloads_share_nothing() -> None:
    payload = to_payload(memory("m")).encode()
    one, other = from_payloads([payload, payload], MemoryRecord)
    one.metadata["changed"] = True
    one.extraction_strategy_config["changed"] = True
    assert (other.metadata, other.extraction_strategy_config) == ({}, {})


def test_a_record_is_one_hash_that_always_has_the_same_fields(
    with_space: Callable[[Scenario], None],
) -> None:
    async def scenario(db: RedisBackend, client: Client) -> None:
        full: dict[str, Any] = dict.fromkeys(TIME_FIELDS, memory("m").created_at)
        await db.add_memories([memory("m", user_id="ada", topics=["t"], **full)])
        before = await client.hkeys(db._layout.key("m"))
        await db.add_memories([memory("m")])
        await db.update_memories([memory("m", "another text")])
        await db.scoped(user_id="ada").add_memories([memory("other")])
        assert await client.hkeys(db._layout.key("m")) == before
        assert sorted(await client.hkeys(db._layout.key("other"))) == sorted(before)
        keys = await client.keys("schema%20tests*")
        assert sorted(keys) == [b"schema%20tests!fingerprint", *(
            db._layout.key(each).encode() for each in ("m", "other")
        )]  # fmt: skip

    with_space(scenario)


# --- an index that has to be made anew -----------------------------------------------------------


def test_a_dropped_index_is_made_again_by_the_next_query(
    with_space: Callable[[Scenario], None],
) -> None:
    async def scenario(db: RedisBackend, client: Client) -> None:
        await db.add_memories([memory(f"m{n}", f"<{n}>") for n in range(50)])
        queries: list[Callable[[], Awaitable[Any]]] = [
            lambda: db.search_memories("<0>", limit=50),
            lambda: db.list_memories(),
            lambda: db.search_memories("<0>", search_mode="keyword", limit=1),
            lambda: db.search_memories("<0>", search_mode="hybrid"),
            lambda: _exhausted(db),
        ]
        for query in queries:
            await client.execute_command("FT.DROPINDEX", db._layout.index)
            await query()
            assert await db.count_memories() == 50
        await client.execute_command("FT.DROPINDEX", db._layout.index)
        await db.add_memories([memory("new")])  # writing needs no index
        pages = await asyncio.gather(*(db.list_memories(limit=1) for _ in range(20)))
        assert [each.total for each in pages] == [51] * 20

    with_space(scenario)


def test_a_dropped_counting_index_is_made_again_by_the_next_count(
    with_space: Callable[[Scenario], None],
) -> None:
    async def scenario(db: RedisBackend, client: Client) -> None:
        await db.add_memories([memory(f"m{n}", f"<{n}>") for n in range(50)])
        totals: list[Callable[[], Awaitable[int | None]]] = [db.count_memories, lambda: _total(db)]
        for total in totals:
            await client.execute_command("FT.DROPINDEX", db._layout.counting_index)
            assert await total() == 50
            assert db._layout.counting_index.encode() in await client.execute_command("FT._LIST")

    with_space(scenario)


async def _total(db: RedisBackend) -> int | None:
    return (await db.search_memories("<0>", limit=1)).total


def test_a_space_without_the_counting_index_gets_one(
    with_space: Callable[[Scenario], None], redis_url: str
) -> None:
    async def scenario(db: RedisBackend, client: Client) -> None:
        await db.add_memories([memory(f"m{n}") for n in range(50)])
        await client.execute_command("FT.DROPINDEX", db._layout.counting_index)
        async with create(ExactEmbeddings(), space="schema tests", url=redis_url) as other:
            await other.add_memories([memory("new")])
            assert await other.count_memories() == 51

    with_space(scenario)


def test_totals_follow_what_happens_to_the_hashes(with_space: Callable[[Scenario], None]) -> None:
    async def scenario(db: RedisBackend, client: Client) -> None:
        await db.add_memories([memory(f"m{n}") for n in range(10)])
        await client.execute_command("DEL", *map(db._layout.key, ("m0", "m1")))  # by somebody else
        assert await db.count_memories() == await _total(db) == 8
        await client.execute_command("PEXPIRE", db._layout.key("m2"), 1)
        await asyncio.sleep(0.01)
        assert not await client.exists(db._layout.key("m2"))  # to look makes it expire, if need be
        assert await db.count_memories() == await _total(db) == 7
        assert (await db.list_memories()).total == 7

    with_space(scenario)


def test_a_counting_index_of_somebody_else_is_left_alone(
    with_space: Callable[[Scenario], None], redis_url: str
) -> None:
    async def scenario(db: RedisBackend, client: Client) -> None:
        await db.add_memories([memory("m")])
        name = db._layout.counting_index
        await client.execute_command("FT.DROPINDEX", name)
        await client.execute_command("FT.CREATE", name, "PREFIX", 1, "shop:", "SCHEMA", "x", "TAG")
        async with create(ExactEmbeddings(), space="schema tests", url=redis_url) as other:
            with pytest.raises(BackendError, match=r"!count.*it indexes other keys"):
                await other.count_memories()

    with_space(scenario)


def test_a_handle_with_the_index_of_another_space_makes_nothing(
    with_space: Callable[[Scenario], None], redis_url: str
) -> None:
    async def scenario(db: RedisBackend, client: Client) -> None:
        await db.add_memories([memory("m")])
        theirs = create(
            ExactEmbeddings(), index_name="schema tests", prefix="not theirs", url=redis_url
        )
        await client.execute_command("FT.DROPINDEX", db._layout.counting_index)
        await client.execute_command(
            "COPY", db._layout.fingerprint_key, theirs._layout.fingerprint_key
        )
        async with theirs:
            with pytest.raises(BackendError, match="it indexes other keys"):
                await theirs.count_memories()
        await client.execute_command("DEL", theirs._layout.fingerprint_key)
        assert db._layout.counting_index.encode() not in await client.execute_command("FT._LIST")
        assert await db.count_memories() == 1

    with_space(scenario)


def test_records_written_while_all_else_was_gone_are_found(
    with_space: Callable[[Scenario], None],
) -> None:
    async def scenario(db: RedisBackend, client: Client) -> None:
        await db.add_memories([memory("m")])
        await drop_space(client, db._layout)
        await db.add_memories([memory("n")])
        assert [each.id async for each in db.iter_memories()] == ["n"]
        assert await db.count_memories() == await _total(db) == 1

    with_space(scenario)


def test_an_emptied_server_is_an_empty_space(with_space: Callable[[Scenario], None]) -> None:
    async def scenario(db: RedisBackend, client: Client) -> None:
        await db.add_memories([memory("m")])
        await client.execute_command("FT.DROPINDEX", db._layout.index, "DD")
        await client.delete(db._layout.fingerprint_key)
        assert await db.count_memories() == 0
        await db.add_memories([memory("n")])
        assert [each.id async for each in db.iter_memories()] == ["n"]

    with_space(scenario)


def test_a_space_that_others_made_anew_is_not_mixed_with_theirs(
    with_space: Callable[[Scenario], None], redis_url: str
) -> None:
    async def scenario(db: RedisBackend, client: Client) -> None:
        await db.add_memories([memory("m")])
        await client.execute_command("FT.DROPINDEX", db._layout.index, "DD")
        await client.set(
            db._layout.fingerprint_key,
            '{"schema": 1, "model": "other", "dimensions": 8, "metric": "cosine"}',
        )
        for _ in range(2):
            with pytest.raises(EmbeddingMismatchError, match="'other'"):
                await db.search_memories("<0>")
            with pytest.raises(EmbeddingMismatchError, match="'other'"):
                await db.add_memories([memory("n")])

    with_space(scenario)


def test_an_index_whose_fingerprint_is_lost_is_not_guessed_at(
    with_space: Callable[[Scenario], None], redis_url: str
) -> None:
    async def scenario(db: RedisBackend, client: Client) -> None:
        await db.add_memories([memory("m")])
        await client.delete(db._layout.fingerprint_key)
        async with create(ExactEmbeddings(), space="schema tests", url=redis_url) as other:
            with pytest.raises(BackendError, match=r"fingerprint.* is missing"):
                await other.count_memories()

    with_space(scenario)


def test_neither_is_that_of_an_index_that_only_counts(
    with_space: Callable[[Scenario], None], redis_url: str
) -> None:
    async def scenario(db: RedisBackend, client: Client) -> None:
        await db.add_memories([memory("m")])
        await client.execute_command("FT.DROPINDEX", db._layout.index)
        await client.delete(db._layout.fingerprint_key)
        async with create(ExactEmbeddings(), space="schema tests", url=redis_url) as other:
            with pytest.raises(BackendError, match=r"!count.* is missing"):
                await other.count_memories()

    with_space(scenario)


def test_a_fingerprint_that_is_lost_under_a_handle_is_put_back(
    with_space: Callable[[Scenario], None], redis_url: str
) -> None:
    async def scenario(db: RedisBackend, client: Client) -> None:
        await db.add_memories([memory("m")])
        before = Stamp.read((await client.getdel(db._layout.fingerprint_key)).decode())
        await db.add_memories([memory("n")])
        after = Stamp.read((await client.get(db._layout.fingerprint_key)).decode())
        assert after.is_finished
        assert after.fingerprint == before.fingerprint
        assert await db.count_memories() == await _total(db) == 2

    with_space(scenario)


@pytest.mark.parametrize("write", ["add", "add within a scope", "update"])
def test_what_is_written_to_an_emptied_server_is_found_by_who_opens_the_space_then(
    write: str, with_space: Callable[[Scenario], None], redis_url: str
) -> None:
    async def scenario(db: RedisBackend, client: Client) -> None:
        await db.add_memories([memory("n")])
        fields = await client.hgetall(db._layout.key("n"))
        await drop_space(client, db._layout)
        if write == "add":
            await db.add_memories([memory("n")])
        elif write == "update":
            await client.hset(db._layout.key("n"), mapping=fields)
            assert await db.update_memories([memory("n")]) == 1
        else:
            await db.scoped(user_id="ada").add_memories([memory("n")])
        async with create(ExactEmbeddings(), space="schema tests", url=redis_url) as other:
            assert await other.count_memories() == await _total(other) == 1
            assert [each.id async for each in other.iter_memories()] == ["n"]

    with_space(scenario)


def test_what_is_written_while_others_make_the_space_anew_is_found(
    with_space: Callable[[Scenario], None], redis_url: str
) -> None:
    async def scenario(db: RedisBackend, client: Client) -> None:
        async def opened_anew() -> None:
            async with create(ExactEmbeddings(), space="schema tests", url=redis_url) as other:
                await other.count_memories()

        written = 0
        for number in range(40):
            await drop_space(client, db._layout)
            await asyncio.gather(
                *(db.add_memories([memory(f"{number}-{each}")]) for each in range(number % 5)),
                *(opened_anew() for _ in range(number % 3)),
            )
            there = {
                db._layout.memory_id(key) async for key in client.scan_iter(f"{db._layout.prefix}*")
            }
            written += len(there)
            assert {each.id async for each in db.iter_memories()} == there
            assert await db.count_memories() == await _total(db) == len(there)
        assert written > 40

    with_space(scenario)


def test_what_is_written_just_before_others_make_the_space_anew_is_found(
    with_space: Callable[[Scenario], None], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(db: RedisBackend, client: Client) -> None:
        await db.add_memories([memory("m")])
        await drop_space(client, db._layout)
        restore = db._commands.restore

        async def after_others(made: int) -> None:
            async with create(ExactEmbeddings(), space="schema tests", url=redis_url) as other:
                assert await other.count_memories() == 0  # the server skipped what is there
            await restore(made)

        monkeypatch.setattr(db._commands, "restore", after_others)
        await db.add_memories([memory("n")])
        assert [each.id async for each in db.iter_memories()] == ["n"]
        assert await db.count_memories() == await _total(db) == 1

    with_space(scenario)


def test_what_is_written_just_before_others_make_the_space_anew_is_found_whoever_notices_first(
    with_space: Callable[[Scenario], None], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(db: RedisBackend, client: Client) -> None:
        await db.add_memories([memory("m")])
        await drop_space(client, db._layout)
        keyed = db._commands.keyed

        async def interrupted(commands: Any) -> Any:
            """Send what writes; others open the space; another call notices; send what looks."""
            monkeypatch.setattr(db._commands, "keyed", keyed)
            replies = await keyed(commands[:-1])
            async with create(ExactEmbeddings(), space="schema tests", url=redis_url) as other:
                assert await other.count_memories() == 0  # the server skipped what is there
            await db.add_memories([memory("o")])
            return [*replies, *await keyed(commands[-1:])]

        monkeypatch.setattr(db._commands, "keyed", interrupted)
        await db.add_memories([memory("n")])
        assert [each.id async for each in db.iter_memories()] == ["n", "o"]
        assert await db.count_memories() == await _total(db) == 2

    with_space(scenario)


@pytest.mark.parametrize("seen", ["before", "after"])
def test_a_space_that_is_emptied_while_it_is_opened_is_whole_all_the_same(
    seen: str,
    with_space: Callable[[Scenario], None],
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(db: RedisBackend, client: Client) -> None:
        await db.add_memories([memory("m")])
        stamp = Stamp.read((await client.get(db._layout.fingerprint_key)).decode())
        stored = Opener._stored

        async def emptied(self: Opener) -> Stamp | None:
            """The server is emptied, and others begin to make the space anew."""
            monkeypatch.setattr(Opener, "_stored", stored)
            found = await stored(self) if seen == "before" else None
            await drop_space(client, db._layout)
            await client.set(db._layout.fingerprint_key, Stamp.new(stamp.fingerprint).text)
            return found or await stored(self)

        monkeypatch.setattr(Opener, "_stored", emptied)
        async with create(ExactEmbeddings(), space="schema tests", url=redis_url) as other:
            await other.add_memories([memory("n")])
            for command in (
                create_command(db._layout, stamp.fingerprint, VectorIndex(), scan=False),
                create_counting_command(db._layout, scan=False),
            ):
                with pytest.raises(ResponseError, match="already exists"):  # what others do next
                    await client.execute_command(*command)
            assert await other.count_memories() == await _total(other) == 1

    with_space(scenario)


def test_a_space_that_is_emptied_again_and_again_is_not_opened(
    with_space: Callable[[Scenario], None], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(db: RedisBackend, client: Client) -> None:
        finished = Opener._finished

        async def emptied(self: Opener, stamp: Stamp) -> bool:
            await drop_space(client, db._layout)
            return await finished(self, stamp)

        monkeypatch.setattr(Opener, "_finished", emptied)
        async with create(ExactEmbeddings(), space="schema tests", url=redis_url) as other:
            with pytest.raises(BackendUnavailableError, match="is gone again"):
                await other.count_memories()

    with_space(scenario)


def test_records_are_found_again_by_a_handle_that_knew_them(
    with_space: Callable[[Scenario], None],
) -> None:
    async def scenario(db: RedisBackend, client: Client) -> None:
        await db.add_memories([memory("m")])
        await client.execute_command("FT.DROPINDEX", db._layout.index)
        await client.execute_command("FT.DROPINDEX", db._layout.counting_index)
        await client.delete(db._layout.fingerprint_key)
        assert [each.id async for each in db.iter_memories()] == ["m"]
        assert await db.count_memories() == await _total(db) == 1

    with_space(scenario)


def test_a_space_whose_making_broke_off_is_finished(
    with_space: Callable[[Scenario], None], redis_url: str
) -> None:
    async def scenario(db: RedisBackend, client: Client) -> None:
        await db.add_memories([memory("m")])
        finished = await client.get(db._layout.fingerprint_key)
        stamp = Stamp.new(Stamp.read(finished.decode()).fingerprint)
        await drop_space(client, db._layout)
        await client.set(db._layout.fingerprint_key, stamp.text)
        async with create(ExactEmbeddings(), space="schema tests", url=redis_url) as other:
            await other.add_memories([memory("n")])
            assert await other.count_memories() == await _total(other) == 1
        stored = await client.get(db._layout.fingerprint_key)
        assert stored.decode() == stamp.finished().text

    with_space(scenario)


async def _exhausted(db: RedisBackend) -> int:
    return len([each async for each in db.iter_memories()])
