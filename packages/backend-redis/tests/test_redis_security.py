"""TLS, users with an ACL, and that neither tells more than it should."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from redis_server import RedisServer

from agent_memory import MemoryRecord, MemoryVectorDatabase, RecencyParams
from agent_memory_redis import create
from agent_memory_redis.connection import AccessDeniedError, UnsuitableServerError
from redis_support import DrawnEmbeddings, numbered

SPACE = "memory"
COMMANDS = (
    "+ping +get +set +eval +hset +hget +exists +unlink "
    "+ft.info +ft.create +ft.search +ft.aggregate +ft.cursor"
)
"""All that a user needs to be allowed to do; as the operators' page says it."""
KEYS = f"~{SPACE} ~{SPACE}!count ~{SPACE}!fingerprint ~{SPACE}/*"
"""The indexes by their names, the memories, and the key that tells whose vectors they have."""


def opened(url: str, space: str = SPACE) -> MemoryVectorDatabase:
    return create(DrawnEmbeddings(), space=space, url=url)


async def use_everything(db: MemoryVectorDatabase) -> None:
    await db.ping()
    await db.add_memories(numbered(0, 1_200))
    assert await db.update_memories([MemoryRecord(id="m2", text="another text")]) == 1
    assert await db.update_memories(numbered(3, 4)) == 1
    assert len(await db.get_memories(["m1", "m2"])) == 2
    assert await db.count_memories(user_id="user 3") == 1
    assert len((await db.list_memories(offset=1_100)).memories) == 100
    assert len([each async for each in db.iter_memories()]) == 1_200
    for mode in ("semantic", "keyword", "hybrid"):
        for options in ({}, {"offset": 20}, {"recency": RecencyParams()}, {"user_id": "user 3"}):
            found = await db.search_memories("memory number 3", search_mode=mode, **options)
            assert found.memories
    assert (await db.search_memories("memory number 3", distance_threshold=0.01)).total == 1
    mine = db.scoped(user_id="me")
    await mine.add_memories([MemoryRecord(id="mine", text="a text")])
    assert await mine.update_memories([MemoryRecord(id="mine", text="a new text")]) == 1
    assert await mine.delete_memories(["mine", "m1"]) == 1
    assert await db.delete_memories(["m1", "m2"]) == 2


# --- TLS -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls() -> Iterator[RedisServer]:
    users = {"app": f">secret {KEYS} -@all {COMMANDS}"}
    with RedisServer(tls=True, password="root/pass", users=users) as server:
        yield server


def test_everything_works_over_tls_as_a_user(tls: RedisServer) -> None:
    async def scenario() -> None:
        async with opened(tls.url_of("app", "secret")) as db:
            await use_everything(db)
            assert await asyncio.gather(*(db.count_memories() for _ in range(100)))

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("trust", "says"),
    [
        ("", "certificate that is not trusted here.*ssl_ca_certs"),
        ("?ssl_cert_reqs=none", None),
        ("?ssl_cert_reqs=none&ssl_check_hostname=false", None),
    ],
)
def test_the_certificate_is_checked_unless_told_otherwise(
    tls: RedisServer, trust: str, says: str | None
) -> None:
    async def scenario() -> None:
        async with opened(f"rediss://app:secret@127.0.0.1:{tls.port}/0{trust}") as db:
            if says is None:
                await db.ping()
                return
            with pytest.raises(UnsuitableServerError, match=says) as raised:
                await db.ping()
            assert "secret" not in str(raised.value)

    asyncio.run(scenario())


def test_a_certificate_for_another_host_is_refused(tls: RedisServer) -> None:
    async def scenario() -> None:
        url = tls.url_of("app", "secret").replace("127.0.0.1", "127.1")  # the same place
        async with opened(url) as db:
            with pytest.raises(UnsuitableServerError, match=r"certificate .*127\.1"):
                await db.ping()

    asyncio.run(scenario())


# --- users ---------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


def allow(server: RedisServer, *rules: str) -> str:
    """Define the user app anew and return its URL."""
    words = [word for rule in rules for word in rule.split()]
    server.run("ACL", "SETUSER", "app", "reset", "on", ">secret", "-@all", *words)
    return server.url_of("app", "secret")


def test_the_documented_acl_suffices(server: RedisServer) -> None:
    async def scenario() -> None:
        async with opened(allow(server, KEYS, COMMANDS)) as db:
            await use_everything(db)

    asyncio.run(scenario())


@pytest.mark.parametrize("command", COMMANDS.split())
def test_each_command_of_the_documented_acl_is_needed(server: RedisServer, command: str) -> None:
    async def scenario() -> None:
        others = COMMANDS.replace(command, "")
        async with opened(allow(server, KEYS, others)) as db:
            with pytest.raises(AccessDeniedError, match="does not permit this to the user") as said:
                await use_everything(db)
            assert f"'{command[1:]}' command" in str(said.value).lower()
            assert "secret" not in str(said.value)

    asyncio.run(scenario())


@pytest.mark.parametrize("key", KEYS.split())
def test_each_key_of_the_documented_acl_is_needed(server: RedisServer, key: str) -> None:
    async def scenario() -> None:
        others = " ".join(each for each in KEYS.split() if each != key)
        async with opened(allow(server, others, COMMANDS)) as db:
            with pytest.raises(AccessDeniedError, match="does not permit this to the user"):
                await use_everything(db)

    asyncio.run(scenario())


def test_a_user_of_one_space_reaches_no_other(server: RedisServer) -> None:
    async def scenario() -> None:
        async with opened(server.url, "other") as theirs:
            await theirs.add_memories(numbered(0, 3))
        url = allow(server, KEYS, COMMANDS)
        async with opened(url) as mine, opened(url, "other") as other:
            await mine.add_memories(numbered(0, 3))
            calls: list[Any] = [
                lambda: other.count_memories(),
                lambda: other.get_memories(["m1"]),
                lambda: other.delete_memories(["m1"]),
                lambda: other.add_memories(numbered(0, 1)),
                lambda: other.search_memories("memory"),
            ]
            for call in calls:
                with pytest.raises(AccessDeniedError):
                    await call()
        async with opened(server.url, "other") as theirs:
            assert await theirs.count_memories() == 3

    asyncio.run(scenario())


def test_a_user_that_is_switched_off_is_refused_and_let_in_again(server: RedisServer) -> None:
    async def scenario() -> None:
        async with opened(allow(server, KEYS, COMMANDS)) as db:
            await db.add_memories(numbered(0, 3))
            server.run("ACL", "SETUSER", "app", "off")
            server.run("CLIENT", "KILL", "USER", "app")
            await asyncio.sleep(0.05)
            with pytest.raises(AccessDeniedError, match="refuses the user or the password"):
                await db.count_memories()
            server.run("ACL", "SETUSER", "app", "on")
            assert await db.count_memories() == 3

    asyncio.run(scenario())
