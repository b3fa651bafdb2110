"""A primary dies, its replica is promoted by Sentinel, and the handle goes on.

Replication is asynchronous, so this is what the engine promises: what the replica had received is
there after the promotion, whole; what it had not is lost, acknowledged or not. Whoever cannot bear
that sets ``min-replicas-to-write``: then writes are refused while no replica keeps up, and what can
be lost is what was written within ``min-replicas-max-lag`` seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from redis_server import RedisServer

from agent_memory import BackendUnavailableError, MemoryVectorDatabase
from agent_memory_redis import create
from redis_support import DrawnEmbeddings, numbered


class Pair:
    """A primary, its replica, and the Sentinel that watches both."""

    def __init__(self) -> None:
        self.primary = RedisServer()
        self.replica = RedisServer(replica_of=self.primary)
        self.sentinel = RedisServer(sentinel_of=self.primary)
        self._await(self._sentinel_knows_the_replica)

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.sentinel.port}/main"

    def wait_for_the_replica(self) -> None:
        """Wait until the replica has all that was written."""
        offset = self.primary.run("INFO", "replication").partition("master_repl_offset:")[2]
        wanted = int(offset.split()[0])

        def received() -> bool:
            seen = self.replica.run("INFO", "replication").partition("slave_repl_offset:")[2]
            return int(seen.split()[0]) >= wanted

        self._await(received)

    def cut_off_the_replica(self) -> None:
        """Let nothing more reach the replica."""
        self.primary.run("ACL", "SETUSER", "default", "-psync", "-sync")
        self.primary.run("CLIENT", "KILL", "TYPE", "replica")

    def kill_primary(self) -> None:
        """Kill the primary and wait until Sentinel has promoted the replica."""
        self.primary.kill()
        self._await(lambda: self.named_primary() == self.replica.port)
        self._await(lambda: "role:master" in self.replica.run("INFO", "replication"))

    def _sentinel_knows_the_replica(self) -> bool:
        return "num-slaves\n1" in self.sentinel.run("SENTINEL", "MASTER", "main")

    def named_primary(self) -> int:
        answer = self.sentinel.run("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")
        return int(answer.split()[1])

    def stop(self) -> None:
        for each in (self.sentinel, self.replica, self.primary):
            each.stop()

    @staticmethod
    def _await(condition: Any) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, "Sentinel or replica did not follow"
            time.sleep(0.02)


@pytest.fixture
def pair() -> Iterator[Pair]:
    running = Pair()
    try:
        yield running
    finally:
        running.stop()


def opened(url: str, space: str = "failover") -> MemoryVectorDatabase:
    return create(DrawnEmbeddings(), space=space, url=url)


async def until_available(db: MemoryVectorDatabase) -> None:
    for _ in range(200):
        try:
            await db.ping()
        except BackendUnavailableError:
            await asyncio.sleep(0.05)
        else:
            return
    raise AssertionError("the handle does not follow the promotion")


# --- while many calls run ------------------------------------------------------------------------


def test_calls_during_a_failover_succeed_or_say_unavailable(pair: Pair) -> None:
    stored: list[str] = []
    failed_over: list[int] = []
    """How many were stored when the failover was over."""
    raised: list[Exception] = []

    async def write(db: MemoryVectorDatabase, first: int, done: asyncio.Event) -> None:
        number = first
        while not done.is_set():
            try:
                await db.add_memories(numbered(number, number + 1))
            except BackendUnavailableError as error:
                raised.append(error)
                await asyncio.sleep(0.05)
            else:
                stored.append(f"m{number}")
                number += 1
                if failed_over and len(stored) > failed_over[0] + 20:
                    done.set()

    async def read(db: MemoryVectorDatabase, done: asyncio.Event) -> None:
        while not done.is_set():
            try:
                found = await db.search_memories("memory number 1", limit=1)
            except BackendUnavailableError as error:
                raised.append(error)
                await asyncio.sleep(0.05)
            else:
                assert found.memories[0].id == "m1"  # never an empty page

    async def scenario() -> None:
        async with opened(pair.url) as db:
            await db.add_memories(numbered(0, 10))
            pair.wait_for_the_replica()
            done = asyncio.Event()
            tasks = [asyncio.create_task(write(db, 1_000 * n, done)) for n in range(1, 6)]
            tasks += [asyncio.create_task(read(db, done)) for _ in range(5)]
            await asyncio.sleep(0.3)
            await asyncio.to_thread(pair.kill_primary)
            failed_over.append(len(stored))
            await asyncio.gather(*tasks)  # until writing went on, on the new primary
            assert raised
            held = {each.id async for each in db.iter_memories()}
            assert {*stored[failed_over[0] :]} <= held
            assert held <= {*stored, *(f"m{n}" for n in range(10))} | {
                f"m{n}" for n in range(1_000, 6_000)
            }

    asyncio.run(scenario())


# --- what is not promised, and what helps --------------------------------------------------------


def test_what_the_replica_had_not_received_is_lost(pair: Pair) -> None:
    async def scenario() -> None:
        async with opened(pair.url) as db:
            await db.add_memories(numbered(0, 5))
            pair.wait_for_the_replica()
            pair.cut_off_the_replica()
            assert len(await db.add_memories(numbered(5, 10))) == 5  # acknowledged all the same
            await asyncio.to_thread(pair.kill_primary)
            await until_available(db)
            assert sorted([each.id async for each in db.iter_memories()]) == [
                f"m{n}" for n in range(5)
            ]
            await db.add_memories(numbered(5, 10))
            assert await db.count_memories() == 10

    asyncio.run(scenario())


def test_a_primary_that_must_have_a_replica_refuses_writes_without() -> None:
    async def scenario(primary: RedisServer, replica: RedisServer) -> None:
        async with opened(primary.url) as db:
            await db.add_memories(numbered(0, 5))
            replica.kill()
            for _ in range(1_000):
                if "connected_slaves:0" in primary.run("INFO", "replication"):
                    break
                await asyncio.sleep(0.01)
            with pytest.raises(BackendUnavailableError, match="too few replicas that keep up"):
                await db.add_memories(numbered(5, 10))
            assert await db.count_memories() == 5
            replica.restart()
            for _ in range(1_000):
                if "min_slaves_good_slaves:1" in primary.run("INFO", "replication"):
                    break
                await asyncio.sleep(0.01)
            await db.add_memories(numbered(5, 10))
            assert await db.count_memories() == 10

    settings = {"min-replicas-to-write": "1", "min-replicas-max-lag": "5"}
    with (
        RedisServer(settings=settings) as primary,
        RedisServer(replica_of=primary) as replica,
    ):
        asyncio.run(scenario(primary, replica))
