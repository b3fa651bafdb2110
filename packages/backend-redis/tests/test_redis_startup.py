"""What a first call meets: servers that do not fit, spaces of others, many that begin at once."""

from __future__ import annotations

import asyncio
import logging
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from redis_server import RedisServer, old_query_engine

from agent_memory import (
    BackendError,
    BackendUnavailableError,
    EmbeddingMismatchError,
    MemoryVectorDatabase,
)
from agent_memory_redis import create
from agent_memory_redis.connection import (
    AccessDeniedError,
    ConnectionSettings,
    UnsuitableServerError,
    connect,
    eviction_policy,
)
from agent_memory_redis.schema import Layout
from redis_support import DrawnEmbeddings, numbered

SPACE = "startup"
LAYOUT = Layout.of(SPACE, SPACE)


def opened(url: str, embeddings: Any = None, **options: Any) -> MemoryVectorDatabase:
    return create(embeddings or DrawnEmbeddings(), space=SPACE, url=url, **options)


def every_first_call_raises(error: type[Exception], match: str, url: str, **options: Any) -> str:
    """Check that whatever is called first, it raises; the text of the last error is returned."""

    calls: list[Callable[[MemoryVectorDatabase], Awaitable[Any]]] = [
        lambda db: db.add_memories(numbered(0, 1)),
        lambda db: db.search_memories("anything"),
        lambda db: db.count_memories(),
        lambda db: db.list_memories(),
        lambda db: db.ping(),
    ]

    async def scenario() -> str:
        said = ""
        for call in calls:
            async with opened(url, **options) as db:
                with pytest.raises(error, match=match) as raised:
                    await call(db)
                assert type(raised.value) is error
                assert raised.value.__cause__ is not None or error is EmbeddingMismatchError
                said = str(raised.value)
        return said

    return asyncio.run(scenario())


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


# --- servers that do not fit ---------------------------------------------------------------------


def test_a_server_without_the_query_engine() -> None:
    with RedisServer(query_engine=False) as server:
        said = every_first_call_raises(UnsuitableServerError, "has no query engine", server.url)
    assert "Use Redis 8" in said


def test_a_server_whose_query_engine_is_too_old() -> None:
    async def scenario(url: str) -> None:
        async with opened(url) as db:
            with pytest.raises(UnsuitableServerError, match=r"query engine 2\.8\.12.* 2\.10\.5"):
                await db.add_memories(numbered(0, 1))

    with RedisServer(query_engine=old_query_engine()) as server:
        asyncio.run(scenario(server.url))
        assert server.run("DBSIZE") == "0"


def test_a_server_that_is_not_reachable(unused_url: str) -> None:
    said = every_first_call_raises(
        BackendUnavailableError, "cannot reach Redis at 127.0.0.1:", unused_url, retries=1
    )
    assert "REDIS_URL" in said


def test_a_server_that_does_not_answer(server: RedisServer) -> None:
    server.pause()
    every_first_call_raises(
        BackendUnavailableError, "did not answer in time", server.url, timeout=0.2
    )


@pytest.mark.parametrize("password", ["wrong%2Fword", None])
def test_a_server_that_refuses_the_password(password: str | None) -> None:
    with RedisServer(password="right/word") as server:
        said = every_first_call_raises(
            AccessDeniedError, "refuses the user or the password", server.url_of(None, password)
        )
    assert "word" not in said.replace("password", "")


def test_a_replica_refuses_a_new_space(server: RedisServer) -> None:
    with RedisServer(replica_of=server) as replica:
        every_first_call_raises(BackendUnavailableError, "read-only replica", replica.url)


def test_a_replica_serves_reads_of_a_space_and_refuses_writes(server: RedisServer) -> None:
    async def scenario(replica: RedisServer) -> None:
        async with opened(server.url) as primary, opened(replica.url) as copy:
            await primary.add_memories(numbered(0, 10))
            assert server.run("WAIT", "1", "5000") == "1"
            assert await copy.count_memories() == 10
            assert (await copy.search_memories("memory number 3", limit=1)).memories[0].id == "m3"
            for write in (
                lambda: copy.add_memories(numbered(10, 11)),
                lambda: copy.update_memories(numbered(3, 4)),
                lambda: copy.delete_memories(["m3"]),
                lambda: copy.scoped(user_id="user 3").delete_memories(["m3"]),
                lambda: copy.scoped(user_id="user 3").update_memories(numbered(3, 4)),
            ):
                with pytest.raises(BackendUnavailableError, match="read-only replica"):
                    await write()
            assert await copy.count_memories() == 10

    with RedisServer(replica_of=server) as replica:
        asyncio.run(scenario(replica))


def test_a_full_server_refuses_a_new_space() -> None:
    with RedisServer(settings={"maxmemory": "1"}) as server:
        every_first_call_raises(BackendUnavailableError, "maxmemory", server.url)


def test_a_full_server_serves_reads_and_deletes_and_refuses_writes(server: RedisServer) -> None:
    async def scenario() -> None:
        async with opened(server.url) as db:
            await db.add_memories(numbered(0, 10))
            server.run("CONFIG", "SET", "maxmemory", "1")
            for write in (
                lambda: db.add_memories(numbered(10, 300)),
                lambda: db.update_memories(numbered(3, 4)),
                lambda: db.scoped(user_id="user 3").update_memories(numbered(3, 4)),
                lambda: db.scoped(user_id="user 11").add_memories(numbered(11, 12)),
            ):
                with pytest.raises(BackendUnavailableError, match="maxmemory and refuses writes"):
                    await write()
            assert await db.count_memories() == 10
            assert (await db.search_memories("memory number 3", limit=1)).memories[0].id == "m3"
            assert await db.delete_memories(["m0", "m1"]) == 2
            server.run("CONFIG", "SET", "maxmemory", "0")
            assert len(await db.add_memories(numbered(10, 300))) == 290
            assert await db.count_memories() == 298

    asyncio.run(scenario())


def test_the_handle_works_as_soon_as_the_server_does() -> None:
    async def scenario(server: RedisServer) -> None:
        async with opened(server.url, retries=0) as db:
            server.kill()
            with pytest.raises(BackendUnavailableError):
                await db.count_memories()
            server.restart()
            await db.add_memories(numbered(0, 5))
            assert await db.count_memories() == 5
            server.kill()
            with pytest.raises(BackendUnavailableError):
                await db.count_memories()
            server.restart()
            assert await db.count_memories() == 5
            assert (await db.search_memories("memory number 3", limit=1)).memories[0].id == "m3"

    with RedisServer(appendonly=True) as server:
        asyncio.run(scenario(server))


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random", "noeviction"])
def test_a_server_that_may_evict_is_warned_of(
    policy: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(url: str) -> None:
        async with opened(url) as db:
            await db.ping()

    with RedisServer(settings={"maxmemory": "200mb", "maxmemory-policy": policy}) as server:
        asyncio.run(scenario(server.url))
    warned = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert [policy in each.getMessage() for each in warned] == [True] * (policy != "noeviction")


def test_a_cluster_and_a_user_are_asked_about_eviction_as_well() -> None:
    async def policy_at(url: str) -> str | None:
        client = connect(ConnectionSettings(url=url))
        try:
            return await eviction_policy(client)
        finally:
            await client.aclose()

    settings = {"maxmemory-policy": "volatile-ttl"}
    users = {"asks": ">secret +config|get", "may-not": ">secret ~* +@all -config"}
    with RedisServer(cluster=True, settings=settings, users=users) as server:
        assert asyncio.run(policy_at(f"{server.url}?cluster=true")) == "volatile-ttl"
        assert asyncio.run(policy_at(server.url_of("asks", "secret"))) == "volatile-ttl"
        assert asyncio.run(policy_at(server.url_of("may-not", "secret"))) is None


def test_a_cluster_whose_query_engine_does_not_ask_all_nodes() -> None:
    async def scenario(url: str) -> None:
        async with opened(url) as db:
            needs = r"query engine 2\.8\.12; on a cluster, this backend needs 8\.0\.0"
            with pytest.raises(UnsuitableServerError, match=needs):
                await db.add_memories(numbered(0, 1))

    with RedisServer(cluster=True, query_engine=old_query_engine()) as server:
        asyncio.run(scenario(f"{server.url}?cluster=true"))
        assert server.run("DBSIZE") == "0"


# --- spaces that are there already ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("embeddings", "options", "ours"),
    [
        (DrawnEmbeddings(dimensions=16), {}, "16 dimensions"),
        (DrawnEmbeddings(model="other"), {}, "'other'"),
        (DrawnEmbeddings(), {"metric": "l2"}, "l2"),
    ],
    ids=["dimensions", "model", "metric"],
)
def test_a_space_of_other_vectors(
    server: RedisServer, embeddings: DrawnEmbeddings, options: dict[str, Any], ours: str
) -> None:
    async def scenario() -> None:
        async with opened(server.url) as db:
            await db.add_memories(numbered(0, 3))

    asyncio.run(scenario())
    said = every_first_call_raises(
        EmbeddingMismatchError, SPACE, server.url, embeddings=embeddings, **options
    )
    assert "'drawn', 8 dimensions, cosine" in said
    assert ours in said

    async def afterwards() -> None:
        async with opened(server.url) as db:
            assert await db.count_memories() == 3

    asyncio.run(afterwards())


@pytest.mark.parametrize(
    ("made", "wanted", "difference"),
    [
        ({"algorithm": "flat"}, {"algorithm": "hnsw"}, "algorithm=flat, this handle wants hnsw"),
        ({"algorithm": "hnsw"}, {"algorithm": "flat"}, "algorithm=hnsw, this handle wants flat"),
        ({"m": 8}, {"m": 32}, "m=8, this handle wants 32"),
        ({}, {"ef_construction": 99}, "ef_construction=200, this handle wants 99"),
    ],
)
def test_an_index_of_another_kind(
    server: RedisServer, made: dict[str, Any], wanted: dict[str, Any], difference: str
) -> None:
    async def scenario() -> None:
        async with opened(server.url, **made) as db:
            await db.add_memories(numbered(0, 3))
        async with opened(server.url, **wanted) as other:
            with pytest.raises(BackendError, match=difference) as raised:
                await other.count_memories()
            assert "FT.DROPINDEX" in str(raised.value)
        server.run("FT.DROPINDEX", LAYOUT.index)  # as the error says
        async with opened(server.url, **wanted) as other:
            assert await other.count_memories() == 3
            found = await other.search_memories("memory number 1", limit=1)
            assert found.memories[0].id == "m1"

    asyncio.run(scenario())


def test_an_index_of_somebody_else_is_left_alone(server: RedisServer) -> None:
    server.run("FT.CREATE", LAYOUT.index, "PREFIX", "1", "shop:", "SCHEMA", "price", "NUMERIC")
    server.run("HSET", "shop:1", "price", "3")

    async def scenario() -> None:
        async with opened(server.url) as db:
            with pytest.raises(BackendError, match="choose another index_name or space"):
                await db.add_memories(numbered(0, 1))

    asyncio.run(scenario())
    assert server.run("FT.SEARCH", LAYOUT.index, "@price:[3 3]").startswith("1\nshop:1")
    assert server.run("DBSIZE") == "1"


def test_a_space_of_a_later_version_is_left_alone(server: RedisServer) -> None:
    async def scenario() -> None:
        async with opened(server.url) as db:
            await db.add_memories(numbered(0, 1))
        stored = server.run("GET", LAYOUT.fingerprint_key)
        server.run("SET", LAYOUT.fingerprint_key, stored.replace('"schema": 1', '"schema": 99'))
        async with opened(server.url) as db:
            with pytest.raises(BackendError, match=r"schema version 99.*install a newer one"):
                await db.add_memories(numbered(0, 1))

    asyncio.run(scenario())


def test_an_index_that_is_still_being_built_is_waited_for(server: RedisServer) -> None:
    async def scenario() -> None:
        async with opened(server.url) as db:
            await db.add_memories(numbered(0, 10_000))
        server.run("FT.DROPINDEX", LAYOUT.index)
        async with opened(server.url) as db:
            assert await db.count_memories() == 10_000
        server.run("FT.DROPINDEX", LAYOUT.index)
        async with opened(server.url, timeout=0.05) as db:
            with pytest.raises(BackendUnavailableError, match=r"still being built \(\d+%\)"):
                await db.count_memories()
        async with opened(server.url) as db:
            assert await db.count_memories() == 10_000

    asyncio.run(scenario())


# --- many at once --------------------------------------------------------------------------------


def test_many_handles_that_open_a_new_space_at_once(server: RedisServer) -> None:
    async def scenario() -> None:
        handles = [opened(server.url) for _ in range(20)]
        await asyncio.gather(*(db.add_memories(numbered(n, n + 1)) for n, db in enumerate(handles)))
        assert [await db.count_memories() for db in handles] == [20] * 20
        await asyncio.gather(*(db.aclose() for db in handles))

    asyncio.run(scenario())
    assert server.run("FT._LIST").split() == [LAYOUT.index, LAYOUT.counting_index]


def test_many_processes_that_open_a_new_space_at_once(
    server: RedisServer, writer: list[str]
) -> None:
    processes = [
        subprocess.Popen(
            [*writer, server.url, SPACE, str(10 * n), str(10 * n + 10)], stdout=subprocess.PIPE
        )
        for n in range(4)
    ]
    for each in processes:
        output, _ = each.communicate(timeout=60)
        assert each.returncode == 0, output

    async def scenario() -> None:
        async with opened(server.url) as db:
            assert await db.count_memories() == 40

    asyncio.run(scenario())
    assert server.run("FT._LIST").split() == [LAYOUT.index, LAYOUT.counting_index]


def test_handles_of_two_models_that_open_a_new_space_at_once(server: RedisServer) -> None:
    async def scenario() -> None:
        handles = [opened(server.url, DrawnEmbeddings(model=f"model {n % 2}")) for n in range(10)]
        answers = await asyncio.gather(
            *(db.add_memories(numbered(n, n + 1)) for n, db in enumerate(handles)),
            return_exceptions=True,
        )
        refused = [n % 2 for n, each in enumerate(answers) if isinstance(each, Exception)]
        assert len(refused) == 5
        assert len(set(refused)) == 1
        assert all(isinstance(answers[n], EmbeddingMismatchError) for n in range(10)
                   if n % 2 == refused[0])  # fmt: skip
        await asyncio.gather(*(db.aclose() for db in handles))

    asyncio.run(scenario())


def test_creating_a_handle_connects_to_nothing(unused_url: str) -> None:
    opened(unused_url)
