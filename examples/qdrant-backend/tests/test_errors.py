"""What a caller is told when Qdrant is not there, refuses, or is not what it should be."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from agent_memory import BackendError, BackendUnavailableError, MemoryRecord
from qdrant_client import QdrantClient, models

from agent_memory_qdrant import create
from agent_memory_qdrant.connection import ServerConnection
from agent_memory_qdrant.settings import collection_name


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def answering(*statuses: int, result: Any = None) -> Iterator[str]:
    """Run a server that gives these statuses, then the last one for ever."""
    left = list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = left.pop(0) if len(left) > 1 else left[0]
            body = json.dumps(result or {"status": {"error": "because"}}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Be silent."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


async def _error_of(embeddings: Any, **options: Any) -> BackendError:
    async with create(embeddings, **options) as db:
        with pytest.raises(BackendError) as caught:
            await db.count_memories()
    return caught.value


@pytest.mark.parametrize("prefer_grpc", [False, True])
def test_nobody_listens(embeddings: Any, prefer_grpc: bool) -> None:
    port = _closed_port()
    url = f"http://127.0.0.1:{port}"
    error = asyncio.run(
        _error_of(embeddings, url=url, grpc_port=port, prefer_grpc=prefer_grpc, timeout=20.0)
    )
    assert isinstance(error, BackendUnavailableError)
    assert url in str(error)
    assert error.__cause__ is not None


def test_a_server_that_does_not_answer(embeddings: Any) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        error = asyncio.run(_error_of(embeddings, url=url, timeout=0.2))
    assert isinstance(error, BackendUnavailableError)
    assert "timeout" in str(error)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_failure_that_may_pass(embeddings: Any, status: int) -> None:
    with answering(status) as url:
        error = asyncio.run(_error_of(embeddings, url=url, timeout=20.0))
    assert isinstance(error, BackendUnavailableError)
    assert "because" in str(error)


@pytest.mark.parametrize(
    ("status", "advice"), [(401, "QDRANT_API_KEY"), (403, "QDRANT_API_KEY"), (400, "because")]
)
def test_a_failure_that_stays(embeddings: Any, status: int, advice: str) -> None:
    with answering(status) as url:
        error = asyncio.run(_error_of(embeddings, url=url, timeout=20.0))
    assert not isinstance(error, BackendUnavailableError)
    assert advice in str(error)


def test_a_request_is_repeated(embeddings: Any) -> None:
    # The third answer is the first without a failure: its version is read, and found too old.
    with answering(503, 503, 200, result={"title": "qdrant", "version": "1.18.2"}) as url:
        error = asyncio.run(_error_of(embeddings, url=url, timeout=20.0, retries=2))
        assert "1.18.2" in str(error)
    with answering(503, 503, 200, result={"title": "qdrant", "version": "1.18.2"}) as url:
        error = asyncio.run(_error_of(embeddings, url=url, timeout=20.0, retries=1))
        assert isinstance(error, BackendUnavailableError)


def test_a_folder_has_one_owner(embeddings: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with create(embeddings, path=str(tmp_path)) as first:
            await first.add_memories([MemoryRecord(id="1", text="window seats")])
            async with create(embeddings, path=str(tmp_path)) as second:
                with pytest.raises(BackendUnavailableError, match="one owner"):
                    await second.count_memories()
                async with create(embeddings, space="other", path=str(tmp_path)) as third:
                    assert await third.count_memories() == 0
                await first.aclose()
                assert await second.count_memories() == 1

    asyncio.run(main())


def test_a_folder_that_cannot_be_made(embeddings: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    error = asyncio.run(_error_of(embeddings, path=str(tmp_path / "file")))
    assert str(tmp_path) in str(error)


@pytest.mark.parametrize("metadata", [None, {"agent_memory": {"schema": 2}}])
def test_a_collection_of_somebody_else(embeddings: Any, tmp_path: Path, metadata: Any) -> None:
    name = collection_name("memory")
    theirs = QdrantClient(path=str(tmp_path / name))
    theirs.create_collection(
        name, models.VectorParams(size=8, distance=models.Distance.DOT), metadata=metadata
    )
    theirs.close()
    error = asyncio.run(_error_of(embeddings, path=str(tmp_path)))
    assert name in str(error)


def test_a_call_while_closing_says_so(embeddings: Any) -> None:
    async def main() -> None:
        db = create(embeddings, url=":memory:")
        records = [MemoryRecord(id=str(n), text=str(n)) for n in range(200)]
        await db.add_memories(records)
        calls = [asyncio.create_task(db.search_memories("1")) for _ in range(20)]
        await asyncio.sleep(0)
        await db.aclose()
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            assert type(outcome).__name__ in ("BackendClosedError", "MemoryRecordResults")

    asyncio.run(main())


def test_writes_that_waited_for_one_that_failed_do_not_wait_as_long_again() -> None:
    attempts = 0

    async def hanging() -> None:
        nonlocal attempts
        attempts += 1
        await asyncio.sleep(0.05)
        raise TimeoutError

    async def scenario() -> None:
        connection = ServerConnection(timeout=5.0, retries=0)
        ends = await asyncio.gather(
            *(connection.write(hanging) for _ in range(20)), return_exceptions=True
        )
        assert {type(each) for each in ends} == {TimeoutError}
        assert attempts == 1
        with pytest.raises(TimeoutError):
            await connection.write(hanging)  # one that comes later tries for itself
        assert attempts == 2

    asyncio.run(scenario())
