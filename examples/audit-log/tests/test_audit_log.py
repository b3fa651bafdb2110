"""The audit log of a real database: what it says of every call, and that it is on disk in time."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent_memory import (
    HookFailedError,
    InvalidArgumentError,
    MemoryRecord,
    MemoryVectorDatabase,
    create_memory_vector_db,
)
from agent_memory.discovery import clear_cache
from agent_memory.hooks import hookimpl
from agent_memory_audit_log import AuditLog, from_environment

SECRET = "zebra"
HERE = Path(__file__).parent


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "audit" / "memory.jsonl"


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def database(*hooks: object, **options: Any) -> MemoryVectorDatabase:
    return create_memory_vector_db("inmemory", embeddings="local", hooks=list(hooks), **options)


def record(memory_id: str = "1") -> MemoryRecord:
    return MemoryRecord(id=memory_id, text=f"a {SECRET}")


def test_every_call_has_its_lines(file: Path) -> None:
    async def run() -> None:
        async with database(AuditLog(file, actor="booking-service")) as db:
            ada = db.scoped(user_id="ada")
            await ada.add_memories([record("1"), record("2")])
            await ada.update_memories([record("2"), record("3")])
            await ada.search_memories(SECRET, limit=1)
            await db.get_memories(["2", "none"])
            await db.list_memories()
            assert len([each async for each in db.iter_memories()]) == 2
            await db.count_memories()
            await db.delete_memories(["1", "none"])

    before = datetime.now(UTC)
    asyncio.run(run())
    log = lines(file)
    assert [(each["event"], each["operation"], each["ids"], each.get("count")) for each in log] == [
        ("started", "add_memories", ["1", "2"], None),
        ("ended", "add_memories", ["1", "2"], 2),
        ("started", "update_memories", ["2", "3"], None),
        ("ended", "update_memories", ["2", "3"], 1),
        ("ended", "search_memories", [log[4]["ids"][0]], 1),
        ("ended", "get_memories", ["2"], 1),
        ("ended", "list_memories", ["2", "1"], 2),
        ("ended", "iter_memories", ["2", "1"], 2),
        ("ended", "count_memories", [], 2),
        ("started", "delete_memories", ["1", "none"], None),
        ("ended", "delete_memories", ["1", "none"], 1),
    ]
    assert [each["scope"] for each in log] == [{"user_id": "ada"}] * 5 + [{}] * 6
    assert {(each["actor"], each["backend"], each["space"]) for each in log} == {
        ("booking-service", "inmemory", "memory")
    }
    assert all(each["outcome"] == "done" for each in log if each["event"] == "ended")
    assert len({each["call"] for each in log}) == 8
    times = [datetime.fromisoformat(each["time"]) for each in log]
    assert before <= times[0]
    assert times == sorted(times)
    assert SECRET not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


def test_failures_and_refusals_are_logged_without_what_they_quote(file: Path) -> None:
    class Refusing:
        @hookimpl
        def before_delete(self, memory_ids: list[str]) -> None:
            raise PermissionError(SECRET)

        @hookimpl
        @asynccontextmanager
        async def around_call(self, call: Any) -> AsyncIterator[None]:
            if call.operation == "count_memories":
                raise PermissionError(SECRET)
            yield

    async def run() -> None:
        # The log runs outermost, wherever it stands in the list.
        async with database(Refusing(), AuditLog(file)) as db:
            with pytest.raises(PermissionError):
                await db.delete_memories(["1"])
            with pytest.raises(PermissionError):
                await db.count_memories()
            with pytest.raises(InvalidArgumentError):
                await db.add_memories(SECRET)  # type: ignore[arg-type]

    asyncio.run(run())
    ended = [each for each in lines(file) if each["event"] == "ended"]
    assert [(each["operation"], each["outcome"], each["error"]) for each in ended] == [
        ("delete_memories", "failed", "PermissionError"),
        ("count_memories", "failed", "PermissionError"),
        ("add_memories", "failed", "InvalidArgumentError"),
    ]
    assert SECRET not in file.read_text()


def test_texts_and_queries_are_logged_if_asked_for_as_other_hooks_leave_them(file: Path) -> None:
    class Shouting:
        @hookimpl
        def before_add(self, memories: list[MemoryRecord]) -> None:
            for each in memories:
                each.text = each.text.upper()

        before_update = before_add

        @hookimpl
        def before_search(self, query: str) -> str:
            return query.upper()

    async def run() -> None:
        async with database(AuditLog(file, texts=True), Shouting()) as db:
            await db.add_memories([record()])
            await db.update_memories([record()])
            await db.search_memories(SECRET)

    asyncio.run(run())
    added, updated, searched = (each for each in lines(file) if each["event"] == "ended")
    assert added["texts"] == updated["texts"] == [f"A {SECRET.upper()}"]
    assert searched["query"] == SECRET.upper()
    assert SECRET not in file.read_text()


def test_the_actor_can_be_that_of_the_request(file: Path) -> None:
    user: ContextVar[str] = ContextVar("user")

    async def request(db: MemoryVectorDatabase, name: str) -> None:
        user.set(name)
        await db.add_memories([record(name)])

    async def run() -> None:
        async with database(AuditLog(file, actor=user.get)) as db:
            await asyncio.gather(*(request(db, name) for name in ("ada", "bob")))

    asyncio.run(run())
    assert {(each["actor"], *each["ids"]) for each in lines(file)} == {
        ("ada", "ada"),
        ("bob", "bob"),
    }


def test_a_call_that_cannot_be_logged_is_refused_or_said_to_be_done(file: Path) -> None:
    folder = file / "in the way"

    async def run() -> None:
        async with database(AuditLog(file)) as db:
            with pytest.raises(IsADirectoryError) as refused:
                await db.add_memories([record()])
            assert "refused by around_call" in refused.value.__notes__[0]
            assert await db.unhooked.count_memories() == 0  # type: ignore[attr-defined]
            with pytest.raises(HookFailedError, match="IsADirectoryError"):
                await db.count_memories()

    folder.mkdir(parents=True)
    asyncio.run(run())


def test_a_cancelled_call_has_its_line_before_the_caller_goes_on(file: Path) -> None:
    class Waiting:
        model, dimensions = "waiting", 1

        def __init__(self) -> None:
            self.entered = asyncio.Event()

        async def aembed_query(self, text: str) -> list[float]:
            return [1.0]

        async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
            self.entered.set()
            await asyncio.Event().wait()
            raise AssertionError

    async def run() -> None:
        embeddings = Waiting()
        async with create_memory_vector_db(
            "inmemory", embeddings=embeddings, hooks=[AuditLog(file)]
        ) as db:
            adding = asyncio.create_task(db.add_memories([record()]))
            await embeddings.entered.wait()
            adding.cancel()
            await asyncio.sleep(0)
            adding.cancel()  # again, while the line is being written
            with pytest.raises(asyncio.CancelledError):
                await adding
            assert lines(file)[-1]["outcome"] == "cancelled"

    asyncio.run(run())


def test_many_calls_of_two_processes_leave_whole_lines(file: Path, tmp_path: Path) -> None:
    program = f"""
import asyncio
from agent_memory import MemoryRecord, create_memory_vector_db
from agent_memory_audit_log import AuditLog

async def main():
    hooks = [AuditLog({str(file)!r}, texts=True)]
    async with create_memory_vector_db("inmemory", embeddings="local", hooks=hooks) as db:
        texts = ["x" * 5000] * 25
        await asyncio.gather(*(
            db.add_memories([MemoryRecord(id=str(n), text=text)]) for n, text in enumerate(texts)
        ))

asyncio.run(main())
"""
    running = [subprocess.Popen([sys.executable, "-c", program], env=_environment()) for _ in "12"]
    assert [each.wait() for each in running] == [0, 0]
    log = lines(file)
    assert len(log) == 100
    assert {each["event"] for each in log} == {"started", "ended"}


def test_a_killed_process_leaves_a_line_for_what_it_wrote(file: Path) -> None:
    program = f"""
import asyncio, os, signal
from agent_memory import MemoryRecord, create_memory_vector_db
from agent_memory.hooks import hookimpl
from agent_memory_audit_log import AuditLog

class Killing:
    @hookimpl
    def after_add(self):
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    hooks = [AuditLog({str(file)!r}), Killing()]
    async with create_memory_vector_db("inmemory", embeddings="local", hooks=hooks) as db:
        await db.add_memories([MemoryRecord(id="1", text="stored")])

asyncio.run(main())
"""
    killed = subprocess.run([sys.executable, "-c", program], env=_environment(), check=False)
    assert killed.returncode == -signal.SIGKILL
    (line,) = lines(file)
    assert (line["event"], line["operation"], line["ids"]) == ("started", "add_memories", ["1"])


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(HERE.parent / "src")}


def test_installed_it_runs_as_the_environment_says(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    installed = tmp_path / "agent_memory_audit_log-0.1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    for group, entries in project["entry-points"].items():
        (installed / "entry_points.txt").write_text(
            f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in entries.items())
        )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("AGENT_MEMORY_AUDIT_LOG", str(file))
    clear_cache()
    try:

        async def run() -> None:
            async with create_memory_vector_db("inmemory", embeddings="local") as db:
                await db.count_memories()

        asyncio.run(run())
    finally:
        monkeypatch.undo()
        clear_cache()
    assert [each["operation"] for each in lines(file)] == ["count_memories"]


def test_the_environment_is_checked(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENT_MEMORY_AUDIT_LOG", raising=False)
    monkeypatch.delenv("AGENT_MEMORY_AUDIT_LOG_TEXTS", raising=False)
    with pytest.raises(InvalidArgumentError, match="set AGENT_MEMORY_AUDIT_LOG"):
        from_environment()
    monkeypatch.setenv("AGENT_MEMORY_AUDIT_LOG", str(file))
    monkeypatch.setenv("AGENT_MEMORY_AUDIT_LOG_TEXTS", "yes")
    with pytest.raises(InvalidArgumentError, match="expected 0 or 1"):
        from_environment()
    monkeypatch.setenv("AGENT_MEMORY_AUDIT_LOG_TEXTS", "1")

    async def run() -> None:
        async with database(from_environment()) as db:
            await db.search_memories(SECRET)

    asyncio.run(run())
    assert lines(file)[-1]["query"] == SECRET
    assert lines(file)[-1]["actor"]
