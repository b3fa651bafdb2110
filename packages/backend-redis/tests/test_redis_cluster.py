"""A handle on a real cluster of three primaries: all that goes by id.

The query engine that can be had for these tests has no coordinator, so each node would answer a
query for itself alone, and a handle refuses it. Here it is let in all the same, and no query is
asked: what is tested is how keys, pipelines, scripts and deletions find their nodes.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from redis_server import RedisServer

from agent_memory import (
    BackendUnavailableError,
    MemoryRecord,
    MemoryVectorDatabase,
    ScopeError,
)
from agent_memory_redis import connection, create
from agent_memory_redis.schema import Layout
from redis_support import DrawnEmbeddings, numbered

SLOTS = 16_384


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the cluster did not come to agree"
        time.sleep(0.02)


class Cluster:
    """Three primaries with a third of the slots each, and a replica of the last one."""

    def __init__(self) -> None:
        self.nodes: list[RedisServer] = []
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        buses = []
        for _ in range(4):
            buses.append(str(free_port()))
            settings = {
                "cluster-enabled": "yes",
                "cluster-port": buses[-1],
                "cluster-node-timeout": "10000",
            }
            self.nodes.append(RedisServer(settings=settings))
        first, *others = self.nodes
        for number, node in enumerate(self.nodes[:3]):
            bounds = (SLOTS * number // 3, SLOTS * (number + 1) // 3 - 1)
            node.run("CLUSTER", "ADDSLOTSRANGE", *map(str, bounds))
        for node, bus in zip(others, buses[1:], strict=True):
            first.run("CLUSTER", "MEET", "127.0.0.1", str(node.port), bus)
        third, spare = self.nodes[2:]
        eventually(lambda: self.id_of(third) in spare.run("CLUSTER", "NODES"))
        spare.run("CLUSTER", "REPLICATE", self.id_of(third))
        for each in self.nodes:
            eventually(lambda each=each: "cluster_state:ok" in each.run("CLUSTER", "INFO"))  # type: ignore[misc]
            eventually(lambda each=each: each.run("CLUSTER", "NODES").count("slave ") == 1)  # type: ignore[misc]
        eventually(lambda: "master_link_status:up" in spare.run("INFO", "replication"))

    @staticmethod
    def id_of(node: RedisServer) -> str:
        return node.run("CLUSTER", "MYID")

    def stop(self) -> None:
        for each in self.nodes:
            each.stop()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    running = Cluster()
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def _let_the_old_engine_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "OLDEST_ENGINE_OF_A_CLUSTER", connection.OLDEST_ENGINE)


def opened(cluster: Cluster, space: str) -> MemoryVectorDatabase:
    # One node is named; the client learns of the others.
    url = f"redis+cluster://127.0.0.1:{cluster.nodes[0].port}"
    return create(DrawnEmbeddings(), space=space, url=url, timeout=5)


def keys_on(node: RedisServer, space: str) -> int:
    return len([each for each in node.run("KEYS", f"{space}/*").splitlines() if each])


def test_all_that_goes_by_id_finds_its_node(cluster: Cluster) -> None:
    async def scenario() -> None:
        memories = numbered(0, 600)
        async with opened(cluster, "by-id") as db:
            assert await db.add_memories(memories) == [each.id for each in memories]
            spread = [keys_on(node, "by-id") for node in cluster.nodes[:3]]
            assert sum(spread) == 600
            assert min(spread) > 100

            ids = [each.id for each in memories] + ["missing"]
            random.Random(1).shuffle(ids)
            got = await db.get_memories(ids)
            assert [each.id for each in got] == [each for each in ids if each != "missing"]
            assert {each.id: each.text for each in got} == {each.id: each.text for each in memories}

            changed = [
                each.model_copy(update={"text": f"new {each.id}"}) for each in memories[:300]
            ]
            unknown = [MemoryRecord(id="unknown", text="nobody")]
            assert await db.update_memories([*changed, *unknown]) == 300
            texts = [each.text for each in await db.get_memories(["m0", "m299", "m300", "unknown"])]
            assert texts == ["new m0", "new m299", "memory number 300"]

            mine = db.scoped(user_id="ada")
            own = [MemoryRecord(id=f"own {n}", text=f"mine {n}") for n in range(50)]
            await mine.add_memories(own)
            with pytest.raises(ScopeError):
                await mine.add_memories([MemoryRecord(id="m7", text="not mine")])
            assert await mine.update_memories([*own, MemoryRecord(id="m5", text="no")]) == 50
            assert await mine.delete_memories(["own 1", "own 1", "own 2", "m3"]) == 2
            assert len(await mine.get_memories([each.id for each in own])) == 48

            gone = [f"m{n}" for n in range(450)]
            assert await db.delete_memories([*gone, *gone, "missing"]) == 450
            assert sum(keys_on(node, "by-id") for node in cluster.nodes[:3]) == 150 + 48
            assert len(await db.get_memories([each.id for each in memories])) == 150

    asyncio.run(scenario())


def test_slots_that_move_are_followed(cluster: Cluster) -> None:
    """The client is redirected by ASK while a slot is on its way, and by MOVED afterwards."""
    source, target = cluster.nodes[1], cluster.nodes[0]
    key = Layout.of("moving", "moving").key

    async def write_and_read(db: MemoryVectorDatabase, memory_id: str, text: str) -> None:
        record = MemoryRecord(id=memory_id, text=text)
        await db.add_memories([record])
        assert await db.update_memories([record.model_copy(update={"text": f"{text}!"})]) == 1
        assert [each.text for each in await db.get_memories([memory_id])] == [f"{text}!"]

    async def scenario() -> None:
        async with opened(cluster, "moving") as db:
            await db.add_memories(numbered(0, 100))
            held = source.run("KEYS", "moving/*").splitlines()
            ids = [f"m{n}" for n in range(100) if key(f"m{n}") in held]
            slot = source.run("CLUSTER", "KEYSLOT", key(ids[0]))
            target.run("CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.id_of(source))
            source.run("CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.id_of(target))
            await write_and_read(db, ids[0], "still here")
            source.run("MIGRATE", "127.0.0.1", str(target.port), key(ids[0]), "0", "5000")
            await write_and_read(db, ids[0], "asked for")
            for node in (target, source, cluster.nodes[2]):
                node.run("CLUSTER", "SETSLOT", slot, "NODE", cluster.id_of(target))
            await write_and_read(db, ids[0], "moved")
            assert target.run("EXISTS", key(ids[0])) == "1"
            assert len(await db.get_memories([f"m{n}" for n in range(100)])) == 100
            assert await db.delete_memories([f"m{n}" for n in range(100)]) == 100

    asyncio.run(scenario())


def test_a_replica_that_takes_over_a_shard_is_followed(cluster: Cluster) -> None:
    third, spare = cluster.nodes[2:]

    async def scenario() -> None:
        async with opened(cluster, "shard") as db:
            await db.add_memories(numbered(0, 200))
            assert third.run("WAIT", "1", "10000") == "1"
            third.kill()
            with pytest.raises(BackendUnavailableError):
                await db.get_memories([f"m{n}" for n in range(200)])
            spare.run("CLUSTER", "FAILOVER", "TAKEOVER")
            for node in cluster.nodes[:2]:
                eventually(lambda node=node: has_slots(cluster, node, spare))  # type: ignore[misc]
            for _ in range(500):
                try:
                    await db.add_memories(numbered(200, 400))
                except BackendUnavailableError:
                    await asyncio.sleep(0.02)
                else:
                    break
            assert len(await db.get_memories([f"m{n}" for n in range(400)])) == 400
            assert keys_on(spare, "shard") > 50
            assert await db.delete_memories([f"m{n}" for n in range(400)]) == 400

    asyncio.run(scenario())


def has_slots(cluster: Cluster, asked: RedisServer, node: RedisServer) -> bool:
    """Tell whether one node knows that another serves slots, and is not cut off itself."""
    lines = asked.run("CLUSTER", "NODES").splitlines()
    [line] = [each for each in lines if each.startswith(cluster.id_of(node))]
    served = " master " in line and len(line.split()) > 8
    return served and "cluster_state:ok" in asked.run("CLUSTER", "INFO")
