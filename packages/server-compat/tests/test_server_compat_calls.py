"""What a call in the style of ``agent_memory_server`` means on a real backend."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_memory import (
    BackendClosedError,
    InvalidArgumentError,
    MemoryRecord,
    MemoryRecordResults,
    MemoryVectorDatabase,
    RecencyParams,
    SearchMode,
    create_memory_vector_db,
)
from agent_memory_server.filters import SessionId, Topics, UserId
from agent_memory_server.memory_vector_db_factory import get_memory_vector_db
from agent_memory_server.models import SearchModeEnum
from agent_memory_server.server_style import (
    ServerStyleDatabase,
    search_arguments,
    takes_server_style,
)

T = TypeVar("T")

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

TODAY = datetime.now(UTC)
RECORDS = [
    MemoryRecord(
        id=f"m{number}",
        text=text,
        user_id=user,
        session_id=session,
        created_at=TODAY - timedelta(days=days),
        last_accessed=TODAY - timedelta(days=days),
    )
    for number, (text, user, session, days) in enumerate(
        [
            ("Prefers window seats on trains", "ada", "s1", 90),
            ("Prefers aisle seats on planes", "ada", "s2", 0),
            ("Is allergic to peanuts", "ada", None, 30),
            ("Prefers window seats on trains", "bruno", "s1", 1),
        ]
    )
]
NO_FILTERS: dict[str, Any] = dict.fromkeys(
    [
        "session_id",
        "user_id",
        "namespace",
        "created_at",
        "last_accessed",
        "topics",
        "entities",
        "memory_type",
        "event_date",
        "memory_hash",
        "id",
        "discrete_memory_extracted",
    ]
)
"""The filters that the server passes with every call."""
NO_WISHES: dict[str, Any] = {
    "search_mode": SearchModeEnum.SEMANTIC,
    "hybrid_alpha": 0.7,
    "text_scorer": "BM25STD",
    "distance_threshold": None,
    "server_side_recency": None,
    "recency_params": None,
    "limit": 10,
    "offset": 0,
}
"""The other arguments that the server passes with every search."""


def on_memories(work: Callable[[ServerStyleDatabase], Awaitable[T]]) -> T:
    async def scenario() -> T:
        async with ServerStyleDatabase(
            create_memory_vector_db("inmemory", embeddings="local")
        ) as db:
            await db.add_memories(RECORDS)
            return await work(db)

    return asyncio.run(scenario())


def found(page: MemoryRecordResults) -> list[tuple[str, float | None]]:
    return [(each.id, each.score) for each in page.memories]


# --- accepted and mapped -------------------------------------------------------------------------


@pytest.mark.parametrize("mode", SearchModeEnum)
def test_a_search_with_every_argument_of_the_server(mode: SearchMode) -> None:
    async def work(db: ServerStyleDatabase) -> None:
        there = await db.search_memories(
            query="which seat?", **NO_FILTERS | NO_WISHES | {"search_mode": mode}
        )
        ours = await db.database.search_memories("which seat?", search_mode=mode)
        assert found(there) == found(ours)
        assert there.total == ours.total

    on_memories(work)


def test_a_filter_that_is_none_is_no_filter_and_others_count() -> None:
    async def work(db: ServerStyleDatabase) -> None:
        assert await db.count_memories(namespace=None, user_id=None, session_id=None) == 4
        assert await db.count_memories(namespace=None, user_id="ada", session_id=None) == 3
        listed = await db.list_memories(**NO_FILTERS | {"user_id": UserId(eq="ada")}, limit=10)
        assert {each.id for each in listed.memories} == {"m0", "m1", "m2"}
        page = await db.search_memories(
            "which seat?", **NO_FILTERS | NO_WISHES | {"session_id": SessionId(eq="s1")}
        )
        assert {each.id for each in page.memories} == {"m0", "m3"}

    on_memories(work)


def test_a_scope_takes_no_filter_that_is_none() -> None:
    async def work(db: ServerStyleDatabase) -> None:
        mine = db.scoped(user_id="ada")
        assert await mine.count_memories() == 3
        for field in ("user_id", "session_id"):
            with pytest.raises(InvalidArgumentError, match=f"{field}=None"):
                await mine.count_memories(**{field: None})

    on_memories(work)


def test_server_side_recency_ranks_by_recency() -> None:
    params = {"semantic_weight": 0.1, "recency_weight": 0.9, "half_life_created_days": 5}

    async def work(db: ServerStyleDatabase) -> None:
        there = await db.search_memories(
            "window seats",
            user_id=UserId(eq="ada"),
            server_side_recency=True,
            recency_params=params,
        )
        ours = await db.database.search_memories(
            "window seats", user_id="ada", recency=RecencyParams.model_validate(params)
        )
        assert found(there) == found(ours)
        assert there.memories[0].id == "m1"  # the newest, not the nearest

    on_memories(work)


@pytest.mark.parametrize("off", [None, False])
def test_without_server_side_recency_its_settings_have_no_effect(off: bool | None) -> None:
    params = {"semantic_weight": 0.0, "recency_weight": 1.0}

    async def work(db: ServerStyleDatabase) -> None:
        page = await db.search_memories(
            "window seats on trains",
            user_id=UserId(eq="ada"),
            server_side_recency=off,
            recency_params=params,
        )
        assert page.memories[0].id == "m0"

    on_memories(work)


def test_hybrid_alpha_weighs_a_hybrid_search() -> None:
    for mode, expected in (("hybrid", {"hybrid_alpha": 0.3}), ("keyword", {}), ("semantic", {})):
        asked = search_arguments({"search_mode": mode, "hybrid_alpha": 0.3})
        assert asked == {"search_mode": mode} | expected


WEIGHTS = st.floats(0, 10)
HALF_LIVES = st.floats(0.001, 1_000)


@patient
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "semantic_weight": WEIGHTS,
            "recency_weight": WEIGHTS,
            "freshness_weight": WEIGHTS,
            "novelty_weight": WEIGHTS,
            "half_life_last_access_days": HALF_LIVES,
            "half_life_created_days": HALF_LIVES,
        },
    )
)
def test_recency_params_become_those_of_the_core(params: dict[str, float]) -> None:
    asked = search_arguments({"server_side_recency": True, "recency_params": params})
    assert asked == {"recency": RecencyParams.model_validate(params)}


def test_arguments_of_the_core_pass_unchanged() -> None:
    arguments = {
        "where": Topics(any=["travel"]),
        "recency": RecencyParams(recency_weight=0.5),
        "with_total": False,
        "user_id": "ada",
        "search_mode": "hybrid",
        "hybrid_alpha": 0.5,
    }
    assert search_arguments(arguments) == arguments


# --- refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"text_scorer": "TFIDF"}, "text_scorer='TFIDF': words are ranked by BM25"),
        ({"server_side_recency": "yes"}, "server_side_recency='yes': expected True, False or None"),
        ({"recency_params": {"half_life": 3}}, "half_life: .*there are semantic_weight"),
        ({"recency_params": {"recency_weight": -1}}, "recency_params: recency_weight: "),
        ({"recency_params": [("recency_weight", 1)]}, "expected a mapping of settings, got list"),
        (
            {"server_side_recency": True, "recency": RecencyParams()},
            "recency and server_side_recency ask for the same",
        ),
        ({"server_side_recencyy": True}, "'server_side_recencyy' is no filter"),
        ({"distance_threshold": 0.5, "search_mode": "keyword"}, "belongs to semantic search"),
        ({"user_id": ""}, "an empty string"),
        ({"hybrid_alpha": 2, "search_mode": "hybrid"}, "expected a number from 0 to 1"),
    ],
)
def test_what_has_no_counterpart_is_refused(arguments: dict[str, Any], says: str) -> None:
    async def work(db: ServerStyleDatabase) -> None:
        with pytest.raises(InvalidArgumentError, match=says):
            await db.search_memories("which seat?", **arguments)

    on_memories(work)


@patient
@given(
    st.dictionaries(
        st.sampled_from([*RecencyParams.model_fields, "half_life", ""]) | st.integers(),
        st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.lists(st.integers()),
        max_size=3,
    )
)
def test_any_recency_params_are_mapped_or_refused_in_our_terms(params: dict[Any, Any]) -> None:
    try:
        asked = search_arguments({"server_side_recency": True, "recency_params": params})
    except InvalidArgumentError as error:
        says = str(error)
    else:
        says = "mapped" if isinstance(asked["recency"], RecencyParams) else "lost"
    assert says == "mapped" or says.startswith("recency_params: ")


# --- the rest of a database ----------------------------------------------------------------------


def test_it_is_a_whole_database() -> None:
    async def work(db: ServerStyleDatabase) -> None:
        assert db.capabilities == db.database.capabilities
        await db.ping()
        assert [each.id for each in await db.get_memories(["m2", "x", "m0"])] == ["m2", "m0"]
        assert [each.id async for each in db.iter_memories(user_id="bruno")] == ["m3"]
        changed = RECORDS[2].model_copy(update={"topics": ["health"]})
        assert await db.update_memories([changed]) == 1
        assert await db.count_memories(topics=Topics(any=["health"])) == 1
        assert await db.delete_memories(["m2", "m2", "x"]) == 1

    on_memories(work)


def test_closing_it_closes_the_database() -> None:
    async def scenario() -> None:
        inner = create_memory_vector_db("inmemory", embeddings="local")
        async with ServerStyleDatabase(inner):
            await inner.ping()
        with pytest.raises(BackendClosedError):
            await inner.ping()

    asyncio.run(scenario())


# --- whose arguments a backend knows -------------------------------------------------------------


class SeedStyle(MemoryVectorDatabase):
    """As the seed document writes a backend; it keeps what it receives."""

    def __init__(self, embeddings: Any) -> None:
        self.received: dict[str, Any] = {}

    async def add_memories(self, memories: list[MemoryRecord]) -> list[str]:
        return [each.id for each in memories]

    async def search_memories(self, query: str, **kwargs: Any) -> MemoryRecordResults:
        self.received = kwargs
        return MemoryRecordResults(memories=[], total=0)

    async def delete_memories(self, memory_ids: list[str]) -> int:
        return 0

    async def update_memories(self, memories: list[MemoryRecord]) -> int:
        return 0

    async def count_memories(self, **filters: Any) -> int:
        return 0

    async def list_memories(self, **filters: Any) -> MemoryRecordResults:
        return MemoryRecordResults(memories=[], total=0)


class ServerStyle(SeedStyle):
    """With arguments of the server by name."""

    async def search_memories(  # type: ignore[override]
        self, query: str, *, server_side_recency: bool | None = None, text_scorer: str = "BM25STD"
    ) -> MemoryRecordResults:
        self.received = {"server_side_recency": server_side_recency, "text_scorer": text_scorer}
        return MemoryRecordResults(memories=[], total=0)


def test_a_backend_that_does_not_know_our_arguments_reads_its_own() -> None:
    ours = create_memory_vector_db("inmemory", embeddings="local")
    assert takes_server_style(SeedStyle(None))
    assert takes_server_style(ServerStyle(None))
    assert not takes_server_style(ours)
    assert not takes_server_style(ours.scoped(user_id="ada"))


def test_hooks_around_a_backend_do_not_change_whose_arguments_it_reads() -> None:
    def hooked(factory: Any) -> MemoryVectorDatabase:
        return create_memory_vector_db(factory, embeddings="local", hooks=["otel"])

    assert takes_server_style(hooked(ServerStyle))
    assert not takes_server_style(hooked("inmemory"))


def test_the_configured_database_of_ours_takes_both_styles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORY_VECTOR_DB_FACTORY", "inmemory")
    monkeypatch.setenv("EMBEDDING_MODEL", "local")

    async def scenario() -> MemoryVectorDatabase:
        async with await get_memory_vector_db() as db:
            assert isinstance(db, ServerStyleDatabase)
            assert await get_memory_vector_db() is db
            await db.add_memories(RECORDS)
            assert (await db.search_memories("seats", **NO_FILTERS, **NO_WISHES)).total == 4
            assert (await db.search_memories("seats", recency=RecencyParams())).total == 4
            return db

    # Another event loop has another one: a handle belongs to one loop.
    assert asyncio.run(scenario()) is not asyncio.run(scenario())


def test_the_database_of_an_event_loop_that_ended_is_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MEMORY_VECTOR_DB_FACTORY", "inmemory")
    monkeypatch.setenv("EMBEDDING_MODEL", "local")
    first = weakref.ref(asyncio.run(get_memory_vector_db()))
    asyncio.run(get_memory_vector_db())
    gc.collect()
    assert first() is None


def test_a_configured_backend_of_that_server_receives_what_its_callers_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = ModuleType("seed_style_backends")
    module.SeedStyle = SeedStyle  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("MEMORY_VECTOR_DB_FACTORY", "seed_style_backends.SeedStyle")

    async def scenario() -> None:
        db = await get_memory_vector_db()
        assert isinstance(db, SeedStyle)
        await db.search_memories("seats", **NO_FILTERS, **NO_WISHES)
        assert db.received == NO_FILTERS | NO_WISHES

    asyncio.run(scenario())
