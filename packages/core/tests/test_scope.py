"""A handle confined to one tenant: what a scope is, and what it does to each call."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_memory import (
    BackendClosedError,
    Capability,
    InvalidArgumentError,
    MemoryRecord,
    MemoryRecordResult,
    MemoryRecordResults,
    MemoryVectorDatabase,
    Namespace,
    ScopeError,
    Topics,
    UserId,
)
from agent_memory.filters import combined
from agent_memory.predicates import matches, predicate_of
from agent_memory.scope import Scope

# A busy machine is slow, not wrong.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

tags = st.text(min_size=1, max_size=5)
near = st.sampled_from(["a", "A", "a ", " a", "a,b", "a|b", "a*", "*", "{a}", "é", "e\u0301", "ab"])
scopes = st.dictionaries(
    st.sampled_from(["namespace", "user_id", "session_id"]), near | tags, min_size=1
)


class Store(MemoryVectorDatabase):
    """Holds records in a dict, and remembers what it was asked."""

    def __init__(self) -> None:
        self.records: dict[str, MemoryRecord] = {}
        self.asked: list[dict[str, Any]] = []
        self.closed = False

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset({Capability.SHARED})

    async def add_memories(self, memories: list[MemoryRecord]) -> list[str]:
        self.records.update((each.id, each.model_copy(deep=True)) for each in memories)
        return [each.id for each in memories]

    async def update_memories(self, memories: list[MemoryRecord]) -> int:
        return len(await self.add_memories([each for each in memories if each.id in self.records]))

    async def delete_memories(self, memory_ids: list[str]) -> int:
        return sum(self.records.pop(each, None) is not None for each in memory_ids)

    async def search_memories(self, query: str, **kwargs: Any) -> MemoryRecordResults:
        return self._page(kwargs)

    async def list_memories(self, **kwargs: Any) -> MemoryRecordResults:
        return self._page(kwargs)

    async def count_memories(self, **kwargs: Any) -> int:
        return len(self._page(kwargs).memories)

    async def aclose(self) -> None:
        self.closed = True

    def _page(self, given: dict[str, Any]) -> MemoryRecordResults:
        self.asked.append(dict(given))
        filters = {name: given[name] for name in given if name not in ("limit", "offset", "where")}
        wanted = combined(given.get("where"), filters)
        assert wanted is not None
        predicate = predicate_of(wanted)
        found = [each for each in self.records.values() if matches(predicate, each)]
        return MemoryRecordResults(
            memories=[MemoryRecordResult(**each.model_dump()) for each in found], total=len(found)
        )


def record(name: str = "1", **fields: Any) -> MemoryRecord:
    return MemoryRecord.model_validate({"id": name, "text": "text", **fields})


# --- what a scope is -------------------------------------------------------------------------


@patient
@given(scopes, scopes)
def test_a_record_is_inside_only_if_every_field_is_equal(
    of: dict[str, str], has: dict[str, str]
) -> None:
    scope = Scope.of(**of)
    assert scope.contains(record(**has)) == all(has.get(name) == of[name] for name in of)
    assert scope.contains(record(**of))
    assert not scope.contains(record())


@patient
@given(scopes, scopes)
def test_stamping_adds_the_scope_and_never_overrules_the_record(
    of: dict[str, str], has: dict[str, str]
) -> None:
    scope = Scope.of(**of)
    original = record(**has)
    before = original.model_copy(deep=True)
    if all(has.get(name, of[name]) == of[name] for name in of):
        stamped = scope.stamped(original)
        assert scope.contains(stamped)
        assert stamped == record(
            **{**before.model_dump(), **of},
        )
    else:
        with pytest.raises(ScopeError, match="this handle is confined to"):
            scope.stamped(original)
    assert original == before


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "a scope needs at least one of namespace, user_id, session_id"),
        ({"topics": "tea"}, "a scope has no field 'topics': there are namespace, user_id"),
        ({"user_id": ""}, "scoped(user_id=''): String should have at least 1 character"),
        ({"user_id": None}, "scoped(user_id=None): Input should be a valid string"),
        ({"user_id": 5}, "scoped(user_id=5): Input should be a valid string"),
        ({"user_id": b"ada"}, "scoped(user_id=b'ada'): Input should be a valid string"),
        ({"user_id": ["ada"]}, "scoped(user_id=['ada']): Input should be a valid string"),
        ({"user_id": UserId(ne="ada")}, "Input should be a valid string"),
        ({"user_id": "\ud800"}, "scoped(user_id='\\ud800'): "),
        ({"user_id": "ada", "namespace": ""}, "scoped(namespace=''): "),
    ],
)
def test_a_scope_that_no_record_can_have_is_refused(fields: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        Store().scoped(**fields)
    assert message in str(caught.value)


def test_a_scope_shows_its_fields_in_one_order() -> None:
    assert str(Scope.of(user_id="ada", namespace="n")) == "namespace='n', user_id='ada'"
    assert Scope.of(user_id="a", namespace="n") == Scope.of(namespace="n", user_id="a")
    assert pickle.loads(pickle.dumps(Scope.of(user_id="a"))) == Scope.of(user_id="a")


@pytest.mark.parametrize(
    "other", ["Ada", "ADA", " ada", "ada ", "ad", "adaa", "a\u0301da", "*", "ada,bob", "None"]
)
def test_iso_2_a_record_of_a_near_colliding_tenant_is_not_taken_over(other: str) -> None:
    for ours, theirs in (("ada", other), (other, "ada")):
        with pytest.raises(ScopeError, match="this handle is confined to"):
            Scope.of(user_id=ours).stamped(record(user_id=theirs))


def test_a_blank_tenant_is_a_tenant() -> None:
    assert Scope.of(user_id=" ").contains(record(user_id=" "))
    assert not Scope.of(user_id=" ").contains(record())


# --- what it does to each call ---------------------------------------------------------------


@patient
@given(near, near, near)
def test_iso_2_near_colliding_tenants_never_meet(ours: str, theirs: str, asked: str) -> None:
    db = Store()

    async def main() -> None:
        await db.add_memories([record("1", user_id=ours), record("2", user_id=theirs), record("3")])
        expected = {"1", "2"} if ours == theirs else {"1"}
        handle = db.scoped(user_id=ours)
        for page in (await handle.list_memories(), await handle.search_memories("text")):
            assert {each.id for each in page.memories} == expected
        assert {each.id for each in await handle.get_memories(["1", "2", "3"])} == expected
        assert {each.id async for each in handle.iter_memories()} == expected
        assert await handle.count_memories() == len(expected)
        overlap = expected if asked == ours else set()
        page = await handle.list_memories(user_id=asked)
        assert {each.id for each in page.memories} == overlap
        assert await handle.count_memories(where=UserId(eq=asked)) == len(overlap)
        assert await handle.delete_memories(["1", "2", "3"]) == len(expected)
        assert set(db.records) == {"1", "2", "3"} - expected

    asyncio.run(main())


def test_a_filter_of_the_scope_s_own_field_only_narrows() -> None:
    db = Store()

    async def main() -> None:
        await db.scoped(user_id="ada").count_memories(user_id=UserId(startswith="a"))
        await db.scoped(user_id="ada").count_memories(user_id="bob", where=Topics(eq="tea"))

    asyncio.run(main())
    assert db.asked == [
        {"user_id": UserId(eq="ada"), "where": UserId(startswith="a")},
        {"user_id": UserId(eq="ada"), "where": UserId(eq="bob") & Topics(eq="tea")},
    ]


@pytest.mark.parametrize("wrong", [{"user_id": None}, {"user_id": ""}, {"where": "user_id"}])
def test_a_wrong_filter_is_refused_and_never_widens(wrong: dict[str, Any]) -> None:
    handle = Store().scoped(user_id="ada")

    async def main() -> None:
        with pytest.raises(InvalidArgumentError):
            await handle.list_memories(**wrong)
        with pytest.raises(InvalidArgumentError):
            await handle.count_memories(**wrong)
        with pytest.raises(InvalidArgumentError):
            await handle.search_memories("text", **wrong)
        with pytest.raises(InvalidArgumentError):
            await anext(handle.iter_memories(**wrong))

    asyncio.run(main())


def test_iso_3_a_record_that_names_another_tenant_is_refused_with_all_the_others() -> None:
    db = Store()
    handle = db.scoped(user_id="ada", namespace="home")

    async def main() -> None:
        for write in (handle.add_memories, handle.update_memories):
            with pytest.raises(ScopeError, match="the record '2' has user_id='bob'"):
                await write([record("1"), record("2", user_id="bob")])
        assert db.records == {}
        await handle.add_memories([record("1"), record("2", user_id="ada")])

    asyncio.run(main())
    assert {(each.user_id, each.namespace) for each in db.records.values()} == {("ada", "home")}


def test_iso_4_an_id_that_another_tenant_holds_is_refused_and_nothing_is_written() -> None:
    db = Store()

    async def main() -> None:
        await db.add_memories([record(f"{n}", user_id="bob") for n in range(5)])
        before = dict(db.records)
        with pytest.raises(ScopeError) as caught:
            await db.scoped(user_id="ada").add_memories(
                [record("new"), *(record(f"{n}") for n in range(5))]
            )
        assert db.records == before
        assert str(caught.value) == (
            "5 id(s) belong to memories outside this scope (user_id='ada'): '0', '1', '2', ...; "
            "nothing was stored, choose other ids"
        )

    asyncio.run(main())


@pytest.mark.parametrize("wrong", [None, "1", 5, record(), [{"id": "1"}], [None]])
def test_only_records_can_be_written(wrong: Any) -> None:
    handle = Store().scoped(user_id="ada")
    for write in (handle.add_memories, handle.update_memories):
        with pytest.raises(
            InvalidArgumentError, match=r"expected a (list of records|MemoryRecord)"
        ):
            asyncio.run(write(wrong))


def test_a_scope_within_a_scope() -> None:
    db = Store()
    handle = db.scoped(namespace="home").scoped(user_id="ada").scoped(user_id="ada")
    assert str(handle.scope) == "namespace='home', user_id='ada'"
    with pytest.raises(ScopeError, match="user_id='bob' lies outside this scope"):
        handle.scoped(user_id="bob")
    asyncio.run(handle.count_memories())
    assert db.asked == [{"namespace": Namespace(eq="home"), "user_id": UserId(eq="ada")}]


def test_closing_a_scoped_handle_leaves_the_database_open() -> None:
    db = Store()

    async def main() -> None:
        async with db.scoped(user_id="ada") as handle:
            assert handle.capabilities == {Capability.SHARED}
            await handle.count_memories()
        await handle.aclose()
        assert not db.closed
        for call in (
            handle.add_memories([record()]),
            handle.update_memories([record()]),
            handle.delete_memories(["1"]),
            handle.get_memories(["1"]),
            handle.list_memories(),
            handle.search_memories("text"),
            handle.count_memories(),
            anext(handle.iter_memories()),
        ):
            with pytest.raises(BackendClosedError, match=r"\(user_id='ada'\) is closed"):
                await call
        with pytest.raises(BackendClosedError):
            handle.scoped(session_id="s")
        with pytest.raises(BackendClosedError):
            await handle.ping()

    asyncio.run(main())
