"""The approximate index: what it finds, what its pages are, and its file beside the space's."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent_memory import BackendError, BackendUnavailableError, Capability, RecencyParams
from agent_memory_inmemory import InMemoryVectorDatabase, create
from agent_memory_inmemory.graph import REACH, WORTHWHILE
from inmemory_support import DrawnEmbeddings, numbered

SIZE = WORTHWHILE + 500
SMALLER = 3_000
DIMENSIONS = 8


def opened(path: Path | None = None, index: Any = "hnsw", **options: Any) -> InMemoryVectorDatabase:
    return create(DrawnEmbeddings(dimensions=DIMENSIONS), path=path, index=index, **options)


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


@pytest.fixture(scope="module")
def large() -> Iterator[InMemoryVectorDatabase]:
    """A space so large that searches use the graph."""
    db = opened()
    run(db.add_memories(numbered(0, SIZE, user_id="ada")))
    yield db
    run(db.aclose())


async def found(db: InMemoryVectorDatabase, query: str, **arguments: Any) -> list[str]:
    return [each.id for each in (await db.search_memories(query, **arguments)).memories]


def recall(db: InMemoryVectorDatabase, queries: int = 40) -> float:
    async def measure() -> float:
        hits = 0
        for number in range(queries):
            query = f"query {number}"
            # With a filter the search is exact; this one keeps everything.
            exact = await found(db, query, where=None, memory_type="message")
            hits += len(set(await found(db, query)) & set(exact))
        return hits / (10 * queries)

    return float(run(measure()))


def graph_of(db: InMemoryVectorDatabase) -> Any:
    graph = db._engine_open._graph
    assert graph is not None
    return graph._index


def test_recall_is_95_percent_or_more(large: InMemoryVectorDatabase) -> None:
    assert Capability.APPROXIMATE in large.capabilities
    assert recall(large) >= 0.95


def test_searches_without_filters_use_the_graph(
    large: InMemoryVectorDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All others are exact."""
    graph = large._engine_open._graph
    assert graph is not None
    asked = 0
    candidates = graph.candidates

    def counted(query: Any) -> Any:
        nonlocal asked
        asked += 1
        return candidates(query)

    monkeypatch.setattr(graph, "candidates", counted)
    run(found(large, "x"))
    assert asked == 1
    run(found(large, "x", user_id="ada"))
    run(found(large, "x", distance_threshold=0.5))
    assert asked == 1


def test_distances_are_exact_and_in_order(large: InMemoryVectorDatabase) -> None:
    async def check() -> None:
        page = await large.search_memories("text 77", limit=30)
        vector = DrawnEmbeddings(dimensions=DIMENSIONS).vector
        query = np.array(vector("text 77"), np.float32).astype(np.float64)
        assert page.memories[0].id == "m77"
        distances = [each.dist or 0.0 for each in page.memories]
        assert distances == sorted(distances)
        for each in page.memories:
            other = np.array(vector(each.text), np.float32).astype(np.float64)
            cosine = float((query * other).sum()) / (np.linalg.norm(query) * np.linalg.norm(other))
            assert each.dist == pytest.approx(1 - cosine, abs=1e-6)

    run(check())


@pytest.mark.parametrize("size", [50, REACH])
def test_pages_neither_overlap_nor_miss_beyond_the_graphs_reach(
    large: InMemoryVectorDatabase, size: int
) -> None:
    async def check() -> None:
        whole = await found(large, "x", limit=5 * REACH)
        assert len(whole) == len(set(whole)) == 5 * REACH
        pages: list[str] = []
        while len(pages) < 4 * REACH:
            page = await large.search_memories("x", limit=size, offset=len(pages))
            assert page.total == SIZE
            assert page.next_offset == len(pages) + size
            pages += [each.id for each in page.memories]
        assert pages == whole[: len(pages)]
        last = await large.search_memories("x", limit=20, offset=SIZE - 10)
        assert len({each.id for each in last.memories} - set(whole)) == 10
        assert last.next_offset is None

    run(check())


def test_what_the_graph_misses_follows_on_later_pages(
    large: InMemoryVectorDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = large._engine_open._graph
    assert graph is not None
    candidates = graph.candidates
    monkeypatch.setattr(graph, "candidates", lambda query: candidates(query)[::2])

    async def check() -> None:
        exact = await found(large, "x", limit=200, memory_type="message")
        pages = [await found(large, "x", limit=20, offset=20 * n) for n in range(10)]
        listed = [each for page in pages for each in page]
        assert len(listed) == len(set(listed)) == 200
        assert set(listed) == set(exact)
        assert listed[100:] == exact[100:]

    run(check())


def test_recency_ranks_the_candidates_of_the_graph_too(large: InMemoryVectorDatabase) -> None:
    async def check() -> None:
        recency = RecencyParams(candidates=100, recency_weight=0.0)
        page = await large.search_memories("x", limit=200, recency=recency)
        ids, plain = [each.id for each in page.memories], await found(large, "x", limit=200)
        assert set(ids[:100]) == set(plain[:100])
        assert ids[100:] == plain[100:]
        scores = [each.score or 0.0 for each in page.memories[:100]]
        assert scores == sorted(scores, reverse=True)

    run(check())


@pytest.fixture
def _worthwhile_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_memory_inmemory.engine.WORTHWHILE", 1_000)


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.usefixtures("_worthwhile_sooner")
def test_recall_by_the_other_metrics_and_after_much_change(metric: str) -> None:
    class OfLengthOne(DrawnEmbeddings):
        """As the inner product is meant for."""

        def vector(self, text: str) -> Any:
            vector = super().vector(text)
            return vector / np.linalg.norm(vector)

    db = create(OfLengthOne(dimensions=DIMENSIONS), index="hnsw", metric=metric)

    async def change() -> None:
        await db.add_memories(numbered(0, SMALLER))
        memories = numbered(0, 1_000)
        for each in memories:
            each.text += " changed"
        assert await db.update_memories(memories) == 1_000
        await db.delete_memories([f"m{n}" for n in range(600, 1_200)])
        await db.add_memories(numbered(SMALLER, SMALLER + 600))  # into the rows that became free
        assert "m1" in await found(db, "text 1 changed", limit=1)
        assert "m1" not in await found(db, "text 1", limit=3)
        assert f"m{SMALLER + 7}" in await found(db, f"text {SMALLER + 7}", limit=1)
        assert not {f"m{n}" for n in range(600, 1_200)} & set(await found(db, "x", limit=300))

    run(change())
    assert len(graph_of(db)) == SMALLER
    assert recall(db) >= 0.95
    run(db.aclose())


# --- the saved graph -----------------------------------------------------------------------------


def saved_graphs(path: Path) -> list[Path]:
    return sorted(path.glob("*.hnsw"))


async def _use(path: Path, index: Any = "hnsw", add: range | None = None) -> int:
    """Open the space, check that a graph holds all that the space holds, maybe add, close."""
    async with opened(path, index) as db:
        count = await db.count_memories()
        if index == "hnsw":
            assert len(graph_of(db)) == count
        if add is not None:
            await db.add_memories(numbered(add.start, add.stop))
            count = await db.count_memories()
        return count


def test_a_saved_graph_is_read_and_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(_use(tmp_path, add=range(200)))
    graphs = saved_graphs(tmp_path)
    assert len(graphs) == 1
    monkeypatch.setattr(
        "agent_memory_inmemory.graph.Graph.put", lambda *_: pytest.fail("linked again")
    )
    assert run(_use(tmp_path)) == 200
    assert saved_graphs(tmp_path) == graphs  # nothing changed, so nothing is written


def test_a_graph_is_saved_anew_after_each_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(_use(tmp_path, add=range(20)))
    run(_use(tmp_path, add=range(20, 40)))
    monkeypatch.setattr(
        "agent_memory_inmemory.graph.Graph.put", lambda *_: pytest.fail("linked again")
    )
    assert run(_use(tmp_path)) == 40


@pytest.mark.usefixtures("_worthwhile_sooner")
def test_a_reopened_graph_finds_and_changes_as_before(tmp_path: Path) -> None:
    async def fill() -> list[str]:
        async with opened(tmp_path) as db:
            await db.add_memories(numbered(0, SMALLER))
            return await found(db, "x", limit=40)

    async def again() -> list[str]:
        async with opened(tmp_path) as db:
            before = await found(db, "x", limit=40)
            await db.delete_memories(before[:20])
            after = await found(db, "x", limit=20)
            assert not set(before[:20]) & set(after)
            return before

    assert run(fill()) == run(again())
    db = opened(tmp_path)
    run(db.count_memories())
    assert recall(db, 20) >= 0.95
    run(db.aclose())


def test_a_change_without_closing_forgets_the_saved_graph(tmp_path: Path) -> None:
    run(_use(tmp_path, add=range(50)))

    async def change_and_crash() -> None:
        db = opened(tmp_path)
        await db.add_memories(numbered(50, 60))
        assert saved_graphs(tmp_path) == []
        db._engine_open._graph = None  # closing then saves none, as a crash would
        await db.aclose()

    run(change_and_crash())
    assert run(_use(tmp_path)) == 60
    assert len(saved_graphs(tmp_path)) == 1


def test_an_exact_handle_in_between_leaves_the_graph_complete(tmp_path: Path) -> None:
    run(_use(tmp_path, add=range(50)))
    assert run(_use(tmp_path, "exact")) == 50
    assert len(saved_graphs(tmp_path)) == 1  # it changed nothing
    assert run(_use(tmp_path, "exact", add=range(50, 70))) == 70
    assert saved_graphs(tmp_path) == []
    assert run(_use(tmp_path)) == 70


@pytest.mark.parametrize("between", ["exact", "hnsw"])
def test_the_graph_of_an_empty_space_is_not_taken_for_that_of_a_filled_one(
    tmp_path: Path, between: str
) -> None:
    run(_use(tmp_path))
    run(_use(tmp_path, between, add=range(30)))
    assert run(_use(tmp_path, add=range(30, 40))) == 40
    assert run(_use(tmp_path)) == 40
    assert len(saved_graphs(tmp_path)) == 1


def test_a_handle_with_other_embeddings_leaves_the_graph_complete(tmp_path: Path) -> None:
    run(_use(tmp_path, "exact", add=range(30)))
    other = create(DrawnEmbeddings("other", 4), path=tmp_path, index="hnsw")
    with pytest.raises(ValueError, match="holds vectors of"):
        run(other.count_memories())
    run(other.aclose())
    assert saved_graphs(tmp_path) == []
    assert run(_use(tmp_path)) == 30


def test_a_missing_graph_is_made_again_and_one_without_a_name_is_removed(tmp_path: Path) -> None:
    run(_use(tmp_path, add=range(30)))
    (graph,) = saved_graphs(tmp_path)
    content = graph.read_bytes()
    graph.unlink()
    (tmp_path / "memory.0123.hnsw").write_bytes(content)  # saved, but a crash came before its name
    (tmp_path / "memory2.0123.hnsw").write_bytes(content)  # that of another space
    assert run(_use(tmp_path)) == 30
    assert graph not in saved_graphs(tmp_path)
    names = [each.name for each in saved_graphs(tmp_path)]
    assert len(names) == 2
    assert "memory2.0123.hnsw" in names
    assert "memory.0123.hnsw" not in names


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.95])
def test_a_damaged_graph_says_which_file_to_delete(tmp_path: Path, kept: float) -> None:
    run(_use(tmp_path, add=range(200)))
    (graph,) = saved_graphs(tmp_path)
    content = graph.read_bytes()
    graph.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(BackendError, match=r"memory\.[0-9a-f]+\.hnsw is damaged .* delete"):
        run(_use(tmp_path))
    graph.unlink()
    assert run(_use(tmp_path)) == 200


def test_a_graph_that_cannot_be_deleted_fails_the_write_before_it_happens(tmp_path: Path) -> None:
    run(_use(tmp_path, add=range(30)))
    (graph,) = saved_graphs(tmp_path)

    async def check() -> None:
        async with opened(tmp_path, "exact") as db:
            assert await db.count_memories() == 30
            graph.unlink()
            graph.mkdir()
            with pytest.raises(BackendUnavailableError):
                await db.add_memories(numbered(30, 31))
            for count in (await db.count_memories(), (await db.list_memories()).total):
                assert count == 30
            assert (await db.search_memories("text 30", limit=99)).total == 30
            graph.rmdir()
            await db.add_memories(numbered(30, 31))
            assert (await db.list_memories()).total == await db.count_memories() == 31

    run(check())


def test_without_usearch_the_first_call_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    db = opened(tmp_path)
    with pytest.raises(
        BackendError, match=r"pip install 'agent-memory-inmemory\[hnsw\]'"
    ) as raised:
        run(db.count_memories())
    assert isinstance(raised.value.__cause__, ModuleNotFoundError)
    run(db.aclose())
