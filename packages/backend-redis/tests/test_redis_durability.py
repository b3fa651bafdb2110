"""What was acknowledged is there after a crash of the server, with AOF and fsync always."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis_server import RedisServer

from agent_memory import BackendUnavailableError, MemoryVectorDatabase
from agent_memory_redis import create
from redis_support import DrawnEmbeddings, numbered

SPACE = "durable"


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer(appendonly=True) as running:
        yield running


def opened(server: RedisServer) -> MemoryVectorDatabase:
    return create(DrawnEmbeddings(), space=SPACE, url=server.url, retries=0)


async def ids_in(db: MemoryVectorDatabase) -> set[str]:
    listed = [each.id async for each in db.iter_memories()]
    assert len(listed) == len(set(listed)) == await db.count_memories()
    return set(listed)


@pytest.mark.parametrize("after", [1, 20, 200])
def test_kill_loses_nothing_that_another_process_was_told_is_stored(
    server: RedisServer, writer: list[str], after: int
) -> None:
    command = [*writer, server.url, SPACE, "0", "100000"]
    acknowledged = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            acknowledged.append(line.strip())
            if len(acknowledged) == after:
                server.kill()
        assert "BackendUnavailableError" in process.stderr.read()
    assert after <= len(acknowledged) < 100_000
    server.restart()

    async def scenario() -> None:
        async with opened(server) as db:
            stored = await ids_in(db)
            # The one in flight may have arrived before its acknowledgement was lost.
            assert set(acknowledged) <= stored
            assert len(stored) <= len(acknowledged) + 1
            last = acknowledged[-1]
            found = await db.search_memories(f"memory number {last[1:]}", limit=1)
            assert found.memories[0].id == last

    asyncio.run(scenario())


def test_many_kills_while_many_write(server: RedisServer) -> None:
    acknowledged: set[str] = set()
    attempted: set[str] = set()

    async def write(db: MemoryVectorDatabase, first: int, enough: asyncio.Event) -> None:
        for record in numbered(first, first + 10_000):
            attempted.add(record.id)
            await db.add_memories([record])
            acknowledged.add(record.id)
            if len(acknowledged) % 50 == 0:
                enough.set()

    async def scenario() -> None:
        async with opened(server) as db:
            for round_ in range(3):
                enough = asyncio.Event()
                firsts = [(10 * round_ + n) * 10_000 for n in range(10)]
                writers = [asyncio.create_task(write(db, first, enough)) for first in firsts]
                await enough.wait()
                await asyncio.to_thread(server.kill)
                answers = await asyncio.gather(*writers, return_exceptions=True)
                assert {type(each) for each in answers} == {BackendUnavailableError}
                server.restart()
                assert acknowledged <= await ids_in(db) <= attempted

    asyncio.run(scenario())


def test_an_interrupted_import_is_repeated_without_duplicates(server: RedisServer) -> None:
    memories = numbered(0, 5_000)

    async def scenario() -> None:
        async with opened(server) as db:
            await db.add_memories(memories[:10])
            adding = asyncio.create_task(db.add_memories(memories))
            while await db.count_memories() < 500:  # each count lets the adding go on
                assert not adding.done()
            await asyncio.to_thread(server.kill)
            with pytest.raises(BackendUnavailableError, match=r"127\.0\.0\.1"):
                await adding
            server.restart()
            assert 500 <= await db.count_memories() < 5_000
            assert len(await db.add_memories(memories)) == 5_000
            assert await ids_in(db) == {each.id for each in memories}

    asyncio.run(scenario())


def test_an_import_on_the_command_line_tells_its_place_and_can_be_repeated(
    server: RedisServer, tmp_path: Path
) -> None:
    file = tmp_path / "memories.jsonl"
    file.write_text("".join(each.model_dump_json() + "\n" for each in numbered(0, 2_000)))
    script = "from agent_memory.cli import main; main()"
    options = ["-b", "agent_memory_redis:create", "-e", "local", "--batch-size", "100"]
    command = [sys.executable, "-c", script, "import", str(file), *options]
    environment = {**os.environ, "REDIS_URL": server.url, "REDIS_RETRIES": "0"}

    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while int(server.run("DBSIZE")) < 500:
            assert process.poll() is None
            time.sleep(0.01)
        server.kill()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cannot reach Redis at 127.0.0.1" in said
    [(first, last)] = re.findall(r"stopped the import at the lines ([\d,]+) to ([\d,]+)", said)
    imported = int(first.replace(",", "")) - 1
    assert int(last.replace(",", "")) == imported + 100

    server.restart()
    assert imported <= int(server.run("DBSIZE")) - 1 <= imported + 100  # one key is the space's own
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert int(server.run("DBSIZE")) == 2_001


def test_deletes_and_updates_that_were_acknowledged_stay_done(server: RedisServer) -> None:
    async def scenario() -> None:
        async with opened(server) as db:
            await db.add_memories(numbered(0, 100))
            assert await db.delete_memories([f"m{n}" for n in range(50)]) == 50
            changed = [
                each.model_copy(update={"text": f"new {each.id}"}) for each in numbered(50, 60)
            ]
            assert await db.update_memories(changed) == 10
            await asyncio.to_thread(server.kill)
            server.restart()
            assert await ids_in(db) == {f"m{n}" for n in range(50, 100)}
            texts = [each.text for each in await db.get_memories([f"m{n}" for n in range(50, 60)])]
            assert texts == [each.text for each in changed]
            assert (await db.search_memories("new m55", limit=1)).memories[0].id == "m55"

    asyncio.run(scenario())
