"""A space on disk: what was acknowledged stays, one owner at a time, errors that say what to do."""

from __future__ import annotations

import asyncio
import re
import resource
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from agent_memory import (
    AgentMemoryError,
    BackendError,
    BackendUnavailableError,
    Capability,
    EmbeddingMismatchError,
    InvalidArgumentError,
    MemoryRecord,
    ScopeError,
)
from agent_memory_inmemory import create
from inmemory_support import DrawnEmbeddings, numbered

SPACE = "memory.sqlite3"


def opened(path: Path, **options: Any) -> Any:
    return create(DrawnEmbeddings(), path=path, **options)


@pytest.mark.parametrize("pause", [0.0, 0.05, 0.15])
def test_every_acknowledged_write_survives_kill_9(
    tmp_path: Path, writer: list[str], pause: float
) -> None:
    process = subprocess.Popen([*writer, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        heard = process.stdout.readline()  # at least one write was acknowledged
        time.sleep(pause)
    finally:
        process.kill()
        rest, _ = process.communicate()
    lines = (heard + rest).decode().splitlines(keepends=True)
    acknowledged = [line.split() for line in lines if line.endswith("\n")]
    assert acknowledged
    asyncio.run(_check_survivors(tmp_path, [(verb, int(start)) for verb, start in acknowledged]))


async def _check_survivors(path: Path, acknowledged: list[tuple[str, int]]) -> None:
    """Compare the space with what was acknowledged, and with the one step that may be more."""
    async with opened(path) as db:
        records = {each.id: each async for each in db.iter_memories()}
        state: dict[str, str] = {}
        steps = [*acknowledged, _following(*acknowledged[-1])]
        states = []
        for verb, start in steps:
            if verb == "added":
                state.update({f"m{n}": "fresh" for n in range(start, start + 20)})
            elif verb == "changed":
                state.update({f"m{n}": "changed" for n in range(start, start + 5)})
            else:
                for n in range(start + 5, start + 10):
                    del state[f"m{n}"]
            states.append(dict(state))
        found = {memory_id: (each.topics or [""])[0] for memory_id, each in records.items()}
        assert found in states[-2:]  # each step as a whole or not at all
        assert await db.count_memories() == len(found)
        assert await db.count_memories(topics="changed") == list(found.values()).count("changed")
        for memory_id in list(found)[:3] + list(found)[-3:]:
            text = records[memory_id].text
            nearest = (await db.search_memories(text, limit=1)).memories[0]
            assert (nearest.id, nearest.dist) == (memory_id, 0.0)
            words = await db.search_memories(f'"{text}"', search_mode="keyword")
            assert [each.id for each in words.memories] == [memory_id]
        total = (await db.search_memories("text", limit=len(found) + 1)).total
        assert total == len(found)


def _following(verb: str, start: int) -> tuple[str, int]:
    match verb:
        case "added":
            return "changed", start
        case "changed":
            return "deleted", start
        case _:
            return "added", start + 20


def test_numbers_of_deleted_rows_are_used_again_without_mixing_records_up(tmp_path: Path) -> None:
    async def run() -> None:
        for _ in range(3):  # reopened in between, which reads the free numbers from the file
            async with opened(tmp_path) as db:
                await db.delete_memories([f"m{n}" for n in range(0, 40, 3)])
                await db.add_memories(numbered(0, 40))
                await db.delete_memories([f"m{n}" for n in range(1, 40, 5)])
                await db.add_memories(numbered(36, 60, topics=["new"]))
                for each in await db.get_memories([f"m{n}" for n in range(60)]):
                    nearest = (await db.search_memories(each.text, limit=1)).memories[0]
                    assert nearest.id == each.id
                    assert nearest.topics == each.topics
                assert db._engine_open._matrix._count == await db.count_memories()
                assert await db.count_memories(topics="new") == 24

    asyncio.run(run())


def test_a_second_owner_waits_two_seconds_and_is_told_why(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(tmp_path) as first:
            await first.add_memories(numbered(0, 1))
            second = opened(tmp_path)
            started = time.monotonic()
            with pytest.raises(BackendUnavailableError, match="one owner at a time"):
                await second.count_memories()
            assert time.monotonic() - started < 15
            assert await first.count_memories() == 1
        assert await second.count_memories() == 1  # the same handle works once the space is free
        await second.aclose()

    asyncio.run(run())


def test_a_space_in_another_process_is_refused_until_that_one_is_gone(
    tmp_path: Path, writer: list[str]
) -> None:
    process = subprocess.Popen([*writer, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        process.stdout.readline()

        async def run() -> None:
            async with opened(tmp_path) as db:
                refused = db.count_memories()
                with pytest.raises(BackendUnavailableError, match="another handle or process"):
                    await refused
                process.kill()
                process.wait()
                assert await db.count_memories() > 0

        asyncio.run(run())
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("index", ["exact", "hnsw"])
@pytest.mark.parametrize(
    ("model", "dimensions", "metric"),
    [("other", 8, "cosine"), ("drawn", 9, "cosine"), ("drawn", 8, "l2")],
)
def test_a_space_of_other_vectors_is_refused_and_left_as_it_is(
    tmp_path: Path, index: Any, model: str, dimensions: int, metric: str
) -> None:
    async def run() -> None:
        async with opened(tmp_path) as db:
            await db.add_memories(numbered(0, 3))
        before = _contents(tmp_path)
        other = create(
            DrawnEmbeddings(model, dimensions), path=tmp_path, metric=metric, index=index
        )
        for call in (other.count_memories, lambda: other.add_memories(numbered(3, 4))):
            with pytest.raises(EmbeddingMismatchError, match=f"'{model}', {dimensions} dim"):
                await call()
        await other.aclose()
        assert _contents(tmp_path) == before
        async with opened(tmp_path) as db:
            assert await db.count_memories() == 3

    asyncio.run(run())


def test_spaces_lie_side_by_side_in_one_folder(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(tmp_path / "a/b", space="x") as x, opened(tmp_path / "a/b") as other:
            await x.add_memories(numbered(0, 2))
            assert (await x.count_memories(), await other.count_memories()) == (2, 0)

    asyncio.run(run())
    assert _contents(tmp_path / "a/b").keys() == {"x.sqlite3", SPACE}


def test_the_environment_gives_the_path_and_an_option_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def count(**options: Any) -> int:
        async with create(DrawnEmbeddings(), **options) as db:
            await db.add_memories(numbered(0, 1))
            assert (Capability.PERSISTENT in db.capabilities) == _has_a_space(tmp_path)
            return int(await db.count_memories())

    assert asyncio.run(count()) == 1
    monkeypatch.setenv("AGENT_MEMORY_INMEMORY_PATH", "")
    assert asyncio.run(count()) == 1
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("AGENT_MEMORY_INMEMORY_PATH", str(tmp_path / "environment"))
    assert asyncio.run(count()) == 1
    assert (tmp_path / "environment" / SPACE).exists()
    assert asyncio.run(count(path=str(tmp_path / "option"))) == 1
    assert (tmp_path / "option" / SPACE).exists()


@pytest.mark.parametrize("path", ["", b"folder", 5, "a\0b"])
def test_a_path_that_is_none_is_refused(path: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="path="):
        create(DrawnEmbeddings(), path=path)


def test_an_index_that_is_none_is_refused() -> None:
    wrong: Any = "flat"
    with pytest.raises(InvalidArgumentError, match="'exact' or 'hnsw'"):
        create(DrawnEmbeddings(), index=wrong)


def _has_a_space(folder: Path) -> bool:
    return any(folder.rglob(SPACE))


def _contents(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


def failure(path: Path) -> AgentMemoryError:
    """Return what the first call on ``path`` raises."""

    async def run() -> AgentMemoryError:
        async with opened(path) as db:
            with pytest.raises(AgentMemoryError) as caught:
                await db.count_memories()
            return caught.value

    return asyncio.run(run())


def test_a_path_that_is_a_file_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        error = failure(path)
        assert isinstance(error, BackendUnavailableError)
        assert "check the path" in str(error)
        assert error.__cause__ is not None


def test_a_space_that_is_a_folder_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / SPACE).mkdir()
    assert isinstance(failure(tmp_path), BackendUnavailableError)


def test_a_file_that_is_no_database_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / SPACE).write_bytes(b"a letter to a friend " * 1_000)
    error = failure(tmp_path)
    assert type(error) is BackendError
    assert "choose another path" in str(error)
    assert (tmp_path / SPACE).read_bytes() == b"a letter to a friend " * 1_000


def test_the_database_of_something_else_is_not_touched(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / SPACE)
    connection.execute("CREATE TABLE letters (text)")
    connection.close()
    before = (tmp_path / SPACE).read_bytes()
    assert "something else" in str(failure(tmp_path))
    assert (tmp_path / SPACE).read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [SPACE]


def _fill(path: Path) -> None:
    async def run() -> None:
        async with opened(path) as db:
            await db.add_memories(numbered(0, 500))

    asyncio.run(run())


def test_another_schema_version_names_both(tmp_path: Path) -> None:
    _fill(tmp_path)
    connection = sqlite3.connect(tmp_path / SPACE)
    connection.execute("PRAGMA user_version = 7")
    connection.close()
    assert re.search(r"schema version 7, .* reads 1", str(failure(tmp_path)))


def test_a_damaged_file_is_reported_as_damaged(tmp_path: Path) -> None:
    _fill(tmp_path)
    file = tmp_path / SPACE
    content = bytearray(file.read_bytes())
    content[4_096:] = b"\xff" * (len(content) - 4_096)
    file.write_bytes(content)
    error = failure(tmp_path)
    assert type(error) is BackendError
    assert "damaged" in str(error)
    assert "backup" in str(error)


UNPRIVILEGED = """
    import asyncio, os, sys
    sys.path.insert(0, {tests!r})
    from inmemory_support import DrawnEmbeddings, numbered
    from agent_memory import BackendUnavailableError
    from agent_memory_inmemory import create

    async def main():
        async with create(DrawnEmbeddings(), path={path!r}) as db:
            try:
                await db.count_memories()
            except BackendUnavailableError as error:
                print(error)

    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)  # nothing is read-only to root
    asyncio.run(main())
"""


def test_a_read_only_folder_is_unavailable(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    for each in (tmp_path, *tmp_path.parents[:2]):
        if each.owner() == Path(tmp_path).owner():
            each.chmod(0o755)
    tests = str(Path(__file__).parent)
    script = textwrap.dedent(UNPRIVILEGED.format(tests=tests, path=str(folder)))
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stderr == ""
    assert "check the path, its permissions" in result.stdout


def test_a_full_disk_fails_the_write_and_the_handle_recovers(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: to SQLite it is the same kind of error."""

    async def run() -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        async with opened(tmp_path) as db:
            await db.add_memories(numbered(0, 50))
            await db.search_memories("text", search_mode="keyword")
            resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
            try:
                with pytest.raises(BackendUnavailableError, match="free space"):
                    await db.add_memories(
                        [*numbered(40, 60), MemoryRecord(id="large", text="word " * 200_000)]
                    )
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            for _ in range(2):
                assert await db.count_memories() == 50
                assert (await db.search_memories("x", limit=99)).total == 50
                assert await db.get_memories(["m50", "large"]) == []
                await db.ping()
            assert await db.add_memories(numbered(50, 60)) == [f"m{n}" for n in range(50, 60)]
        async with opened(tmp_path) as db:
            assert (await db.list_memories(limit=99)).total == 60

    asyncio.run(run())


def test_a_scoped_write_happens_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(tmp_path) as db:
            await db.add_memories(numbered(0, 3, user_id="bob"))
            ada = db.scoped(user_id="ada")
            with pytest.raises(ScopeError):
                await ada.add_memories(numbered(2, 9))
            assert await db.count_memories() == 3
            assert (await db.search_memories("text 5", limit=9)).total == 3
            await ada.add_memories(numbered(3, 6))
            assert await ada.update_memories(numbered(0, 5, topics=["mine"])) == 2
            assert await ada.delete_memories([f"m{n}" for n in range(4)]) == 1
            left = {each.id: each.user_id async for each in db.iter_memories()}
            assert left == {"m0": "bob", "m1": "bob", "m2": "bob", "m4": "ada", "m5": "ada"}

    asyncio.run(run())


def test_a_cancelled_write_is_whole_or_absent_and_the_handle_goes_on(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(tmp_path) as db:
            for number in range(12):
                ids = range(number * 100, number * 100 + 100)
                writing = asyncio.create_task(db.add_memories(numbered(ids[0], ids[-1] + 1)))
                await asyncio.sleep(number * 0.002)
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)
                assert len(await db.get_memories([f"m{n}" for n in ids])) in (0, 100)
            count = await db.count_memories()
            assert (await db.search_memories("x", limit=2_000)).total == count
        async with opened(tmp_path) as db:
            assert await db.count_memories() == count

    asyncio.run(run())


def test_closing_amid_calls_loses_nothing_acknowledged(tmp_path: Path) -> None:
    async def run() -> None:
        db = opened(tmp_path)
        writing = [db.add_memories(numbered(n, n + 1)) for n in range(30)]
        tasks = [asyncio.create_task(each) for each in writing]
        await asyncio.sleep(0.02)
        await db.aclose()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, (list, AgentMemoryError)) for each in done)
        acknowledged = {each[0] for each in done if isinstance(each, list)}
        async with opened(tmp_path) as again:
            assert acknowledged <= {each.id async for each in again.iter_memories()}

    asyncio.run(run())
