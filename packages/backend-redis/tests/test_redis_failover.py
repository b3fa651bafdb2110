"""A primary dies, its replica is promoted by Sentinel, and the handle goes on.

Replication is asynchronous, so this is what the engine promises: what the replica had received is
there after the promotion, whole; what it had not is lost, acknowledged or not. Whoever cannot bear
that sets ``min-replicas-to-write``: then writes are refused while no replica keeps up, and what can
be lost is what was written within ``min-replicas-max-lag`` seconds.

So wherever a test wants nothing lost, it waits until the replica has all, and then kills.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar

import pytest
from redis_server import RedisServer

from agent_memory import (
    BackendUnavailableError,
    Capability,
    MemoryRecord,
    MemoryRecordResults,
    MemoryVectorDatabase,
)
from agent_memory_redis import create
from agent_memory_testkit import Profile
from agent_memory_testkit.embedders import ExactEmbeddings
from agent_memory_testkit.model import MemoryModel, stored
from agent_memory_testkit.suite.machine import ModelRules
from redis_support import DrawnEmbeddings, numbered

T = TypeVar("T")


class Pair:
    """A primary, its replica, and the Sentinel that watches both."""

    def __init__(self) -> None:
        self.primary = RedisServer()
        self.replica = RedisServer(replica_of=self.primary)
        self.sentinel = RedisServer(sentinel_of=self.primary)
        eventually(self._sentinel_knows_the_replica)

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.sentinel.port}/main"

    def wait_for_the_replica(self) -> None:
        """Wait until the replica has all that was written."""
        wanted = int(replication(self.primary)["master_repl_offset"])
        eventually(lambda: int(replication(self.replica)["slave_repl_offset"]) >= wanted)

    def cut_off_the_replica(self) -> None:
        """Let nothing more reach the replica."""
        self.primary.run("ACL", "SETUSER", "default", "-psync", "-sync")
        self.primary.run("CLIENT", "KILL", "TYPE", "replica")

    def kill_primary(self) -> None:
        """Kill the primary and wait until Sentinel has promoted the replica."""
        self.primary.kill()
        self.wait_for_the_promotion()

    def wait_for_the_promotion(self) -> None:
        eventually(lambda: self.named_primary() == self.replica.port)
        eventually(lambda: replication(self.replica)["role"] == "master")

    def bring_back(self) -> None:
        """Start the one that died as the replica of the one that was promoted.

        Started as what it was, it would for a moment be a primary without data, and whoever
        reached it then would write what is lost when Sentinel demotes it.
        """
        self.primary, self.replica = self.replica, self.primary
        self.replica.restart(replica_of=self.primary)
        # The old one would look at the replica in ten seconds only.
        self.sentinel.stop()
        self.sentinel = RedisServer(port=self.sentinel.port, sentinel_of=self.primary)
        eventually(self._sentinel_knows_the_replica)

    def _sentinel_knows_the_replica(self) -> bool:
        return "num-slaves\n1" in self.sentinel.run("SENTINEL", "MASTER", "main")

    def named_primary(self) -> int:
        return named_primary(self.sentinel)

    def stop(self) -> None:
        for each in (self.sentinel, self.replica, self.primary):
            each.stop()


def named_primary(sentinel: RedisServer) -> int:
    """Return the port of the server that a Sentinel sends clients to."""
    return int(sentinel.run("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main").split()[1])


def replication(server: RedisServer) -> dict[str, str]:
    lines = server.run("INFO", "replication").splitlines()
    return dict(each.split(":", 1) for each in lines if ":" in each)


def eventually(condition: Callable[[], bool]) -> None:
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


# --- any sequence of calls -----------------------------------------------------------------------


class Failovers:
    """Kills the primary before every so manyth call, when the replica has all; calls go on."""

    def __init__(self, pair: Pair, *, every: int) -> None:
        self.begun = 0
        self.refused = 0
        """Calls that met no server."""
        self._pair = pair
        self._every = every
        self._calls = 0
        self._thread = ThreadPoolExecutor(1)
        self._going_on: Future[None] | None = None

    def before_a_call(self) -> None:
        self._calls += 1
        if self._calls % self._every:
            return
        self.wait()
        self._pair.wait_for_the_replica()
        self._pair.primary.kill()
        self.begun += 1
        self._going_on = self._thread.submit(self._fail_over)

    def wait(self) -> None:
        """Wait until the last one is over, and the one that died is back as a replica."""
        going_on, self._going_on = self._going_on, None
        if going_on is not None:
            going_on.result()

    def _fail_over(self) -> None:
        self._pair.wait_for_the_promotion()
        self._pair.bring_back()


class Patient(MemoryVectorDatabase):
    """A handle whose calls are made until there is a server, by a caller that knows no better.

    No call is under way when a primary dies, so none is done twice.
    """

    def __init__(self, handle: MemoryVectorDatabase, failovers: Failovers) -> None:
        self._handle = handle
        self._failovers = failovers

    async def _until_done(self, call: Callable[[], Awaitable[T]]) -> T:
        self._failovers.before_a_call()
        while True:
            try:
                return await call()
            except BackendUnavailableError:
                self._failovers.refused += 1
                await asyncio.sleep(0.02)

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self._handle.capabilities

    async def add_memories(self, memories: list[MemoryRecord]) -> list[str]:
        return await self._until_done(lambda: self._handle.add_memories(memories))

    async def update_memories(self, memories: list[MemoryRecord]) -> int:
        return await self._until_done(lambda: self._handle.update_memories(memories))

    async def delete_memories(self, memory_ids: list[str]) -> int:
        return await self._until_done(lambda: self._handle.delete_memories(memory_ids))

    async def get_memories(self, memory_ids: list[str]) -> list[MemoryRecord]:
        return await self._until_done(lambda: self._handle.get_memories(memory_ids))

    async def count_memories(self, **arguments: Any) -> int:
        return await self._until_done(lambda: self._handle.count_memories(**arguments))

    async def list_memories(self, **arguments: Any) -> MemoryRecordResults:
        return await self._until_done(lambda: self._handle.list_memories(**arguments))

    async def search_memories(self, query: str, **arguments: Any) -> MemoryRecordResults:
        return await self._until_done(lambda: self._handle.search_memories(query, **arguments))

    async def iter_memories(self, **arguments: Any) -> AsyncIterator[MemoryRecord]:
        async def all_of_them() -> list[MemoryRecord]:
            return [each async for each in self._handle.iter_memories(**arguments)]

        for each in await self._until_done(all_of_them):
            yield each

    def scoped(self, **scope: str) -> Any:
        return Patient(self._handle.scoped(**scope), self._failovers)

    async def ping(self) -> None:
        await self._until_done(self._handle.ping)

    async def aclose(self) -> None:
        await self._handle.aclose()


class TestWhileReplicasArePromoted(ModelRules):
    """The conformance kit's state machine: whatever is called, each answer is the model's."""

    profile = Profile("redis over failovers", on=["approximate"])
    pair: ClassVar[Pair]
    failovers: ClassVar[Failovers]

    @classmethod
    def setup_class(cls) -> None:
        cls.pair = Pair()
        cls.failovers = Failovers(cls.pair, every=250)
        super().setup_class()

    @classmethod
    def teardown_class(cls) -> None:
        try:
            super().teardown_class()
            cls.failovers.wait()
        finally:
            cls.pair.stop()

    async def open(self, space: str, embeddings: Any) -> MemoryVectorDatabase:
        return Patient(create(embeddings, space=space, url=self.pair.url), self.failovers)

    def test_all_methods_agree_with_the_model(self) -> None:
        super().test_all_methods_agree_with_the_model()
        assert self.failovers.begun >= 2
        assert self.failovers.refused > 0


def some_records(randomly: random.Random) -> list[MemoryRecord]:
    return [
        MemoryRecord(
            id=f"r{number}",
            text=f"<{randomly.randrange(9)}> tea",
            user_id=randomly.choice(["ada", "Ada", "grace", None]),
            created_at=datetime(2024, 1, randomly.randint(1, 3), tzinfo=UTC),
        )
        for number in randomly.sample(range(12), randomly.randint(1, 4))
    ]


def test_one_handle_over_three_failovers_agrees_with_the_model(pair: Pair) -> None:
    failovers = Failovers(pair, every=61)
    randomly = random.Random(1)
    embeddings = ExactEmbeddings()
    model = MemoryModel(embeddings)

    async def one_step(db: MemoryVectorDatabase) -> None:
        records = some_records(randomly)
        ids = [each.id for each in records]
        what = randomly.choice(["add", "add", "update", "delete"])
        if what == "add":
            assert await db.add_memories(records) == model.add(records)
        elif what == "update":
            assert await db.update_memories(records) == model.update(records)
        else:
            assert await db.delete_memories(ids) == model.delete(ids)
        page = await db.list_memories()
        assert [as_stored(each) for each in page.memories] == [*map(stored, model.listed())]
        found = await db.search_memories("<0>", limit=20)
        assert [each.id for each in found.memories] == [each.id for each in model.ranked("<0>")]

    async def scenario() -> None:
        async with create(embeddings, space="sequence", url=pair.url) as handle:
            db = Patient(handle, failovers)
            while failovers.begun < 3:
                await one_step(db)
            for _ in range(20):
                await one_step(db)

    try:
        asyncio.run(scenario())
    finally:
        failovers.wait()


def as_stored(record: MemoryRecord) -> MemoryRecord:
    return MemoryRecord(**{name: getattr(record, name) for name in MemoryRecord.model_fields})


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


# --- who is the primary --------------------------------------------------------------------------


def _failover_begins(sentinel: RedisServer) -> bool:
    try:
        sentinel.run("SENTINEL", "FAILOVER", "main")
    except RuntimeError as error:
        if "NOGOODSLAVE" not in str(error):
            raise
        return False  # it has not yet heard enough of the replica that it has just met
    return True


def test_nobody_writes_to_the_old_primary_while_replicas_are_being_reconfigured() -> None:
    """The Sentinels' tables name the old one till the end, though it is about to be demoted."""

    async def scenario(primary: RedisServer, chosen: RedisServer, other: RedisServer) -> None:
        async with opened(url) as db:
            await db.add_memories(numbered(0, 3))
        assert primary.run("WAIT", "2", "10000") == "2"
        other.pause()  # so that it is not reconfigured, and the failover does not end
        eventually(lambda: _failover_begins(sentinel))
        eventually(lambda: named_primary(sentinel) == chosen.port)
        assert f"port\n{primary.port}\n" in sentinel.run("SENTINEL", "MASTER", "main")
        assert replication(primary)["role"] == "master"
        async with opened(url) as db:
            await db.add_memories(numbered(3, 6))
            assert await db.count_memories() == 6
        assert (primary.run("DBSIZE"), chosen.run("DBSIZE")) == ("4", "7")  # and the fingerprint

    with (
        RedisServer() as primary,
        RedisServer(replica_of=primary) as chosen,
        RedisServer(replica_of=primary, settings={"replica-priority": "0"}) as other,
        RedisServer(sentinel_of=primary) as sentinel,
    ):
        eventually(lambda: "num-slaves\n2" in sentinel.run("SENTINEL", "MASTER", "main"))
        for name in ("down-after-milliseconds", "failover-timeout"):
            sentinel.run("SENTINEL", "SET", "main", name, "60000")
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/main"
        asyncio.run(scenario(primary, chosen, other))


def test_a_connection_to_the_old_primary_is_not_used_once_there_is_a_new_one(pair: Pair) -> None:
    async def scenario() -> None:
        async with opened(pair.url) as db:
            await db.add_memories(numbered(0, 3))
            pair.wait_for_the_replica()
            pair.primary.pause()
            asking = asyncio.create_task(db.count_memories())
            await asyncio.to_thread(pair.wait_for_the_promotion)
            assert not asking.done()
            await until_available(db)  # by another connection, to the new one
            await db.add_memories(numbered(3, 6))
            pair.primary.resume()  # and for some seconds it goes on as a primary
            assert await asking in (3, 6)
            assert replication(pair.primary)["role"] == "master"
            for number in range(6, 12):
                await db.add_memories(numbered(number, number + 1))
                assert await db.count_memories() == number + 1

    asyncio.run(scenario())


def test_a_replica_that_sentinel_names_is_not_taken_for_the_primary() -> None:
    async def scenario(url: str) -> None:
        async with opened(url) as db:
            for call in (db.count_memories, lambda: db.search_memories("memory number 1")):
                with pytest.raises(BackendUnavailableError, match="the primary has just changed"):
                    await call()

    async def fill(url: str) -> None:
        async with opened(url) as db:
            await db.add_memories(numbered(0, 3))

    with RedisServer() as primary, RedisServer(replica_of=primary) as replica:
        asyncio.run(fill(primary.url))
        with RedisServer(sentinel_of=replica) as sentinel:
            asyncio.run(scenario(f"redis+sentinel://127.0.0.1:{sentinel.port}/main"))


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
