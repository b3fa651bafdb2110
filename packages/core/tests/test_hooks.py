"""Hooks around a real backend: order, what they may change, what their failures mean."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_memory import (
    AgentMemoryError,
    BackendClosedError,
    HookFailedError,
    HookTypeError,
    InvalidArgumentError,
    MemoryRecord,
    MemoryRecordResult,
    MemoryVectorDatabase,
    ScopeError,
    create_memory_vector_db,
)
from agent_memory.hooks import Call, HookSpecification, hookimpl
from agent_memory.hooks.database import HookedMemories
from agent_memory_inmemory.backend import InMemoryVectorDatabase

# A busy machine is slow, not wrong.
patient = settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=50)


class Embedder:
    """Embeddings that keep what they were given."""

    model = "kept"
    dimensions = 8

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return [await self.aembed_query(each) for each in texts]

    async def aembed_query(self, text: str) -> list[float]:
        self.texts.append(text)
        return [1.0 + (hash(text) >> shift) % 7 for shift in range(8)]


def database(*plugins: object, embedder: Embedder | None = None) -> MemoryVectorDatabase:
    return create_memory_vector_db(
        "inmemory", embeddings=embedder or Embedder(), hooks=list(plugins)
    )


def record(memory_id: str = "1", text: str = "window seat", **fields: Any) -> MemoryRecord:
    return MemoryRecord(id=memory_id, text=text, **fields)


def plugin(**hooks: Callable[..., Any]) -> object:
    """Return an object with these functions as its hooks."""
    marked = {name: staticmethod(hookimpl(function)) for name, function in hooks.items()}
    return type("Plugin", (), marked)()


class Witness:
    """Writes down every hook that runs, and changes nothing."""

    def __init__(self, name: str = "", events: list[str] | None = None) -> None:
        self.name = name
        self.events = [] if events is None else events
        self.calls: list[Call] = []

    def _saw(self, hook: str) -> None:
        self.events.append(f"{self.name}{hook}")

    @hookimpl
    @asynccontextmanager
    async def around_call(self, call: Call) -> AsyncIterator[None]:
        self.calls.append(call)
        self._saw("enter")
        try:
            yield
        except BaseException as error:
            self._saw(type(error).__name__)
            raise
        self._saw("leave")

    @hookimpl
    def before_add(self, call: Call, memories: list[MemoryRecord]) -> None:
        self._saw("before_add")

    @hookimpl
    async def after_add(self, call: Call, memories: list[MemoryRecord], ids: list[str]) -> None:
        await asyncio.sleep(0)
        self._saw("after_add")

    @hookimpl
    async def before_update(self, call: Call, memories: list[MemoryRecord]) -> None:
        self._saw("before_update")

    @hookimpl
    def after_update(self, call: Call, memories: list[MemoryRecord], updated: int) -> None:
        self._saw(f"after_update {updated}")

    @hookimpl
    def before_delete(self, call: Call, memory_ids: list[str]) -> None:
        self._saw(f"before_delete {','.join(memory_ids)}")
        memory_ids.clear()

    @hookimpl
    def after_delete(self, call: Call, memory_ids: list[str], deleted: int) -> None:
        self._saw(f"after_delete {','.join(memory_ids)} {deleted}")

    @hookimpl
    def before_search(self, call: Call, query: str) -> None:
        self._saw(f"before_search {query}")

    @hookimpl
    def after_search(self, call: Call, query: str, memories: list[MemoryRecordResult]) -> None:
        self._saw(f"after_search {','.join(each.id for each in memories)}")

    @hookimpl
    async def before_read(self, call: Call) -> None:
        self._saw("before_read")

    @hookimpl
    def after_read(self, call: Call, memories: list[MemoryRecord]) -> None:
        self._saw(f"after_read {','.join(each.id for each in memories)}")

    def answer(self) -> tuple[tuple[str, ...], int | None]:
        """Ids and count of the last call."""
        return self.calls[-1].ids, self.calls[-1].count

    def seen(self) -> list[str]:
        """What there is since the last time."""
        seen = self.events.copy()
        self.events.clear()
        return seen


# --- none, and the wrapper -----------------------------------------------------------------------


def test_without_hooks_the_backend_itself_is_returned() -> None:
    choices: list[list[object] | None] = [[], None]
    for hooks in choices:
        made = create_memory_vector_db("inmemory", embeddings=Embedder(), hooks=hooks)
        assert type(made) is InMemoryVectorDatabase


def test_without_hooks_pluggy_is_not_even_imported() -> None:
    program = (
        "import sys, agent_memory\n"
        "agent_memory.create_memory_vector_db('inmemory', embeddings='local')\n"
        "assert not {'pluggy', 'opentelemetry', 'agent_memory.hooks'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_the_wrapper_covers_the_whole_interface() -> None:
    of_the_interface = {
        name
        for name, value in vars(MemoryVectorDatabase).items()
        if inspect.isfunction(value) or isinstance(value, property)
    }
    uses_others = {"_ids_within"}  # which only the methods call that are overridden
    assert of_the_interface - uses_others <= vars(HookedMemories).keys()


def test_every_hook_has_a_specification_that_says_what_it_is() -> None:
    hooks = {name for name in vars(HookSpecification) if not name.startswith("_")}
    assert hooks == {name for name in vars(Witness) if name.startswith(("around", "before", "aft"))}
    assert all(inspect.getdoc(getattr(HookSpecification, name)) for name in hooks)


async def _life() -> None:
    witness = Witness()
    db = database(witness)
    assert isinstance(db, HookedMemories)
    assert isinstance(db.unhooked, InMemoryVectorDatabase)
    assert db.capabilities == db.unhooked.capabilities
    assert db.space == "memory"
    assert await db.engine_versions() == await db.unhooked.engine_versions()
    for missing in ("no_such_attribute", "_worker"):
        with pytest.raises(AttributeError, match=missing):
            getattr(db, missing)
    async with db as entered:
        assert entered is db
        await db.ping()
    assert witness.events == []
    with pytest.raises(BackendClosedError):
        await db.ping()
    with pytest.raises(BackendClosedError):
        await db.count_memories()
    await db.aclose()


def test_life_and_what_the_engine_offers_besides_go_through() -> None:
    asyncio.run(_life())


# --- order ---------------------------------------------------------------------------------------


async def _every_hook() -> None:
    witness = Witness()
    async with database(witness) as db:
        await db.add_memories([record("1"), record("2"), record("1")])
        assert witness.seen() == ["enter", "before_add", "after_add", "leave"]
        assert witness.answer() == (("1", "2", "1"), 2)

        assert await db.update_memories([record("1", "aisle"), record("none")]) == 1
        assert witness.seen() == ["enter", "before_update", "after_update 1", "leave"]
        assert witness.calls[-1].count == 1

        page = await db.search_memories("seat", limit=1, user_id="nobody")
        assert witness.seen() == ["enter", "before_search seat", "after_search ", "leave"]
        assert witness.calls[-1].arguments == {"limit": 1, "user_id": "nobody"}
        assert (witness.answer(), page.total) == (((), 0), 0)

        page = await db.search_memories("seat", limit=1)
        (found,) = page.memories
        assert witness.seen()[2] == f"after_search {found.id}"
        assert witness.answer() == ((found.id,), 1)
        assert (page.total, page.next_offset) == (2, 1)

        await db.get_memories(["2", "none", "1"])
        assert witness.seen() == ["enter", "before_read", "after_read 2,1", "leave"]
        await db.list_memories(id="2")
        assert witness.seen() == ["enter", "before_read", "after_read 2", "leave"]
        assert await db.count_memories() == 2
        assert witness.seen() == ["enter", "before_read", "leave"]
        assert witness.calls[-1].count == 2
        assert [each.id async for each in db.iter_memories(id="1")] == ["1"]
        assert witness.seen() == ["enter", "before_read", "after_read 1", "leave"]

        assert await db.delete_memories(["1", "none"]) == 1
        assert witness.seen() == [
            "enter",
            "before_delete 1,none",
            "after_delete 1,none 1",
            "leave",
        ]
        assert await db.count_memories() == 1
    assert {each.operation for each in witness.calls} == {
        f"{name}_memories"
        for name in ("add", "update", "search", "get", "list", "count", "iter", "delete")
    }
    assert {(each.backend, each.space) for each in witness.calls} == {("inmemory", "memory")}


def test_every_hook_runs_once_where_it_should() -> None:
    asyncio.run(_every_hook())


async def _nesting() -> None:
    events: list[str] = []
    early = type("Early", (Witness,), {"before_add": hookimpl(tryfirst=True)(_saw_before_add)})
    plugins = [Witness("a ", events), Witness("b ", events), early("c ", events)]
    async with database(*plugins) as db:
        await db.add_memories([record()])
    assert events == [
        *("a enter", "b enter", "c enter"),
        *("c before_add", "a before_add", "b before_add"),
        *("c after_add", "b after_add", "a after_add"),
        *("c leave", "b leave", "a leave"),
    ]


def _saw_before_add(self: Witness, memories: list[MemoryRecord]) -> None:
    self.events.append(f"{self.name}before_add")


def test_the_first_plugin_is_the_outermost() -> None:
    asyncio.run(_nesting())


# --- changing ------------------------------------------------------------------------------------


async def _changes() -> None:
    def in_place(memories: list[MemoryRecord]) -> None:
        for each in memories:
            each.text += " one"

    async def others(memories: list[MemoryRecord]) -> list[MemoryRecord]:
        return [each.model_copy(update={"text": each.text + " two"}) for each in memories]

    told: list[str] = []
    embedder = Embedder()
    changing = plugin(before_add=in_place, before_update=in_place)
    second = plugin(
        before_add=others,
        before_update=others,
        after_add=lambda memories: told.extend(each.text for each in memories),
        after_update=lambda memories: told.extend(each.text for each in memories),
    )
    async with database(changing, second, embedder=embedder) as db:
        mine = [record(text="zero")]
        assert await db.add_memories(mine) == ["1"]
        assert mine[0].text == "zero"
        (stored,) = await db.get_memories(["1"])
        assert stored.text == "zero one two"
        assert stored.memory_hash == stored.compute_hash()
        mine = [record(text="0")]
        assert await db.update_memories(mine) == 1
        assert mine[0].text == "0"
        assert (await db.get_memories(["1"]))[0].text == "0 one two"
    assert embedder.texts == told == ["zero one two", "0 one two"]


def test_what_hooks_make_of_records_is_embedded_and_stored() -> None:
    asyncio.run(_changes())


async def _query() -> None:
    embedder = Embedder()
    reword = plugin(before_search=lambda query: query.replace("my", "her"))
    heard: list[str] = []
    listen = plugin(before_search=lambda query: heard.append(query))
    async with database(reword, listen, embedder=embedder) as db:
        await db.search_memories("my seat")
        with pytest.raises(InvalidArgumentError, match="blank"):
            await db.search_memories(" ")
        with pytest.raises(InvalidArgumentError, match="expected a string"):
            await db.search_memories(7)  # type: ignore[arg-type]
    assert embedder.texts == heard == ["her seat"]
    async with database(plugin(before_search=lambda: "  ")) as db:
        with pytest.raises(HookTypeError, match="as the query"):
            await db.search_memories("my seat")


def test_a_hook_may_reword_the_query_which_is_what_gets_embedded() -> None:
    asyncio.run(_query())


async def _masking() -> None:
    def mask(memories: list[Any]) -> list[Any]:
        return [each.model_copy(update={"text": "***"}) for each in memories]

    async with database(plugin(after_search=mask, after_read=mask)) as db:
        await db.add_memories([record()])
        page = await db.search_memories("seat")
        assert [each.text for each in page.memories] == ["***"]
        assert page.memories[0].score is not None
        assert [each.text for each in (await db.list_memories()).memories] == ["***"]
        assert [each.text for each in await db.get_memories(["1"])] == ["***"]
        assert [each.text async for each in db.iter_memories()] == ["***"]
        (stored,) = await db.unhooked.get_memories(["1"])  # type: ignore[attr-defined]
        assert stored.text == "window seat"


def test_hooks_may_change_what_is_returned_of_every_method_that_reads() -> None:
    asyncio.run(_masking())


def _other_ids(ids: Sequence[str], draw: st.DataObject) -> list[str]:
    """Return ids that are not those: one changed, lost, added or moved."""
    other = list(ids)
    place = draw.draw(st.integers(0, len(other) - 1))
    how = draw.draw(st.sampled_from(["change", "lose", "add", "move"]))
    if how == "lose":
        del other[place]
    elif how == "add":
        other.insert(place, other[place])
    elif how == "change" or len(set(other)) == 1:
        other[place] += "x"
    else:
        while other == list(ids):
            other = draw.draw(st.permutations(other))
    return other


@patient
@given(
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=5),
    st.sampled_from(["add", "update"]),
    st.booleans(),
    st.data(),
)
def test_ids_can_neither_change_nor_get_lost_on_the_way_in(
    ids: list[str], operation: str, in_place: bool, data: st.DataObject
) -> None:
    embedder = Embedder()

    def wrong(memories: list[MemoryRecord]) -> list[MemoryRecord] | None:
        changed = [record(each) for each in _other_ids([each.id for each in memories], data)]
        if not in_place:
            return changed
        memories[:] = changed
        return None

    async def run() -> None:
        async with database(plugin(**{f"before_{operation}": wrong}), embedder=embedder) as db:
            method = getattr(db, f"{operation}_memories")
            with pytest.raises(HookTypeError, match=f"before_{operation} of plug-in 'Plugin'"):
                await method([record(each) for each in ids])
            assert await db.count_memories() == 0

    asyncio.run(run())
    assert embedder.texts == []


@pytest.mark.parametrize("answer", [(), [1], {}, "text", [None]], ids=repr)
def test_what_is_no_list_of_records_is_refused(answer: object) -> None:
    async def run() -> None:
        async with database(plugin(before_add=lambda: answer)) as db:
            with pytest.raises(HookTypeError, match="return a list of MemoryRecord, or None"):
                await db.add_memories([record()])
            assert await db.count_memories() == 0

    asyncio.run(run())


async def _wrong_answers_when_reading() -> None:
    for answer in ([], [record("2")], [record("1")], "text"):
        async with database(plugin(after_search=lambda: answer, after_read=lambda: answer)) as db:  # noqa: B023
            await db.add_memories([record()])
            with pytest.raises(HookFailedError) as failed:
                await db.search_memories("seat")
            assert isinstance(failed.value.__cause__, HookTypeError)
            with pytest.raises(HookFailedError):
                await db.list_memories()
            if not (isinstance(answer, list) and answer and answer[0].id == "1"):
                with pytest.raises(HookFailedError):  # where no score can get lost
                    await db.get_memories(["1"])


def test_memories_can_neither_be_hidden_nor_lose_their_score_on_the_way_out() -> None:
    asyncio.run(_wrong_answers_when_reading())


def test_a_record_that_a_hook_makes_invalid_is_not_stored() -> None:
    def spoil(memories: list[MemoryRecord]) -> list[MemoryRecord]:
        return [each.model_copy(update={"text": " "}) for each in memories]

    async def run() -> None:
        async with database(plugin(before_add=spoil)) as db:
            with pytest.raises(InvalidArgumentError, match="blank"):
                await db.add_memories([record()])
            assert await db.count_memories() == 0

    asyncio.run(run())


# --- failures ------------------------------------------------------------------------------------

CALLS: dict[str, tuple[str, Callable[[MemoryVectorDatabase], Any]]] = {
    "before_add": ("add_memories", lambda db: db.add_memories([record("2")])),
    "before_update": ("update_memories", lambda db: db.update_memories([record("1", "new")])),
    "before_delete": ("delete_memories", lambda db: db.delete_memories(["1"])),
    "before_search": ("search_memories", lambda db: db.search_memories("seat")),
    "before_read": ("get_memories", lambda db: db.get_memories(["1"])),
}


@pytest.mark.parametrize("hook", [*CALLS, "around_call"])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["plain", "awaited"])
def test_what_is_raised_before_a_call_refuses_it(hook: str, asynchronous: bool) -> None:
    refusal = PermissionError("not today")
    embedder = Embedder()

    def refuse() -> None:
        raise refusal

    async def refuse_later() -> None:
        await asyncio.sleep(0)
        raise refusal

    @asynccontextmanager
    async def refuse_within() -> AsyncIterator[None]:
        await refuse_later()
        yield

    later = refuse_within if hook == "around_call" else refuse_later
    chosen: Any = later if asynchronous else refuse
    outer = Witness()

    async def run() -> None:
        async with database(outer, plugin(**{hook: chosen}), embedder=embedder) as db:
            backend: MemoryVectorDatabase = db.unhooked  # type: ignore[attr-defined]
            await backend.add_memories([record()])
            embedder.texts.clear()
            for name, (_, call) in CALLS.items():
                if hook in ("around_call", name):
                    outer.seen()
                    with pytest.raises(PermissionError) as refused:
                        await call(db)
                    assert refused.value is refusal
                    assert any(hook in note for note in refusal.__notes__)
                    assert outer.seen()[-1] == "PermissionError"
            assert embedder.texts == []
            assert [each.text async for each in backend.iter_memories()] == ["window seat"]

    asyncio.run(run())


@pytest.mark.parametrize("name", ["list_memories", "count_memories", "iter_memories"])
def test_before_read_refuses_every_method_that_reads(name: str) -> None:
    def refuse(call: Call) -> None:
        raise PermissionError(call.operation)

    async def run() -> None:
        async with database(plugin(before_read=refuse)) as db:
            answer = getattr(db, name)()
            with pytest.raises(PermissionError, match=name):
                await (anext(answer) if name == "iter_memories" else answer)

    asyncio.run(run())


@pytest.mark.parametrize("hook", ["after_add", "after_update", "after_delete", "around_call"])
def test_what_is_raised_after_a_write_says_that_it_is_done(hook: str) -> None:
    failure = OSError("no space left")

    async def fail() -> None:
        raise failure

    @asynccontextmanager
    async def fail_leaving() -> AsyncIterator[None]:
        yield
        raise failure

    operation = "add" if hook == "around_call" else hook.removeprefix("after_")
    outer = Witness()
    failing = fail_leaving if hook == "around_call" else fail

    async def run() -> None:
        async with database(outer, plugin(**{hook: failing})) as db:
            backend: MemoryVectorDatabase = db.unhooked  # type: ignore[attr-defined]
            if operation != "add":
                await backend.add_memories([record("1"), record("2")])
            _, call = CALLS[f"before_{operation}"]
            with pytest.raises(HookFailedError, match=f"{hook} of plug-in.*no space left") as error:
                await call(db)
            assert error.value.__cause__ is failure
            assert f"{operation}_memories had been done: it wrote 1" in str(error.value)
            assert outer.events[-1] == "HookFailedError"
            stored = {each.id: each.text async for each in backend.iter_memories()}
            assert (
                stored
                == {
                    "add": {"2": "window seat"},
                    "update": {"1": "new", "2": "window seat"},
                    "delete": {"2": "window seat"},
                }[operation]
            )

    asyncio.run(run())


def test_a_context_cannot_turn_a_failure_into_an_answer() -> None:
    @asynccontextmanager
    async def suppress() -> AsyncIterator[None]:
        with contextlib.suppress(AgentMemoryError):
            yield

    async def run() -> None:
        async with database(plugin(around_call=suppress)) as db:
            with pytest.raises(InvalidArgumentError, match="limit"):
                await db.list_memories(limit=0)

    asyncio.run(run())


def test_a_hook_that_fails_after_a_failure_does_not_hide_it() -> None:
    @asynccontextmanager
    async def fail_too() -> AsyncIterator[None]:
        try:
            yield
        finally:
            raise OSError("no space left")

    async def run() -> None:
        async with database(plugin(around_call=fail_too)) as db:
            with pytest.raises(InvalidArgumentError, match="limit") as failed:
                await db.list_memories(limit=0)
            assert "no space left" in failed.value.__notes__[0]

    asyncio.run(run())


async def _cancelled() -> None:
    witness = Witness()
    embedder = Embedder()
    entered, never = asyncio.Event(), asyncio.Event()

    async def stall(text: str) -> list[float]:
        entered.set()
        await never.wait()
        raise AssertionError

    embed = embedder.aembed_query
    async with database(witness, embedder=embedder) as db:
        embedder.aembed_query = stall  # type: ignore[method-assign]
        adding = asyncio.create_task(db.add_memories([record()]))
        await entered.wait()
        adding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adding
        assert witness.seen() == ["enter", "before_add", "CancelledError"]
        embedder.aembed_query = embed  # type: ignore[method-assign]
        assert await db.count_memories() == 0
        assert await db.add_memories([record()]) == ["1"]


def test_contexts_see_a_cancelled_call_and_the_handle_stays_usable() -> None:
    asyncio.run(_cancelled())


async def _undecorated() -> AsyncIterator[None]:
    yield


async def _cancelled_while_leaving() -> None:
    leaving = asyncio.Event()
    outer = Witness()

    @asynccontextmanager
    async def leave_slowly() -> AsyncIterator[None]:
        yield
        leaving.set()
        await asyncio.Event().wait()

    async with database(outer, plugin(around_call=leave_slowly)) as db:
        adding = asyncio.create_task(db.add_memories([record()]))
        await leaving.wait()
        adding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adding
        assert outer.events[-1] == "CancelledError"


def test_a_call_that_is_cancelled_while_a_context_is_left_ends_as_cancelled() -> None:
    asyncio.run(_cancelled_while_leaving())


@pytest.mark.parametrize(
    ("around", "shown"),
    [
        (lambda: "text", "str"),
        (_undecorated, "async_generator"),
        (lambda: asyncio.sleep(0), "coroutine"),
    ],
    ids=["text", "undecorated", "coroutine"],
)
def test_around_call_must_return_a_context(around: Callable[..., Any], shown: str) -> None:
    async def run() -> None:
        async with database(plugin(around_call=around)) as db:
            with pytest.raises(HookTypeError, match=f"returned {shown}"):
                await db.count_memories()

    asyncio.run(run())


def test_around_call_may_leave_a_call_alone() -> None:
    async def run() -> None:
        async with database(plugin(around_call=lambda: None)) as db:
            assert await db.count_memories() == 0

    asyncio.run(run())


def test_invalid_arguments_are_seen_by_contexts_and_by_no_other_hook() -> None:
    wrong: list[Callable[[Any], Any]] = [
        lambda db: db.add_memories("text"),
        lambda db: db.add_memories([record(), 1]),
        lambda db: db.update_memories(None),
        lambda db: db.delete_memories("1"),
        lambda db: db.delete_memories([1]),
        lambda db: db.search_memories(None),
    ]

    async def run() -> None:
        witness = Witness()
        async with database(witness) as db:
            for call in wrong:
                with pytest.raises(InvalidArgumentError):
                    await call(db)
                assert witness.seen() == ["enter", "InvalidArgumentError"]
            with pytest.raises(InvalidArgumentError):
                await db.get_memories("1")  # type: ignore[arg-type]
            assert witness.seen() == ["enter", "before_read", "InvalidArgumentError"]

    asyncio.run(run())


# --- scopes --------------------------------------------------------------------------------------


async def _scoped() -> None:
    witness = Witness()
    texts: list[tuple[str, str | None]] = []
    reader = plugin(after_read=lambda memories: texts.extend((m.id, m.user_id) for m in memories))
    async with database(witness, reader) as db:
        await db.add_memories([record("bob's", user_id="bob")])
        witness.seen()
        ada = db.scoped(user_id="ada").scoped(namespace="work")
        await ada.add_memories([record("ada's")])
        assert witness.seen() == ["enter", "before_add", "after_add", "leave"]
        assert dict(witness.calls[-1].scope) == {"namespace": "work", "user_id": "ada"}

        assert [each.id for each in await ada.get_memories(["bob's", "ada's"])] == ["ada's"]
        assert witness.seen() == ["enter", "before_read", "after_read ada's", "leave"]
        assert witness.calls[-1].ids == ("ada's",)
        assert [each.id for each in (await ada.list_memories()).memories] == ["ada's"]
        assert [each.id async for each in ada.iter_memories()] == ["ada's"]
        assert await ada.count_memories() == 1
        assert [each.id for each in (await ada.search_memories("seat")).memories] == ["ada's"]
        assert texts == [("ada's", "ada")] * 3
        scopes = [dict(each.scope) for each in witness.calls[1:]]
        assert scopes == [{"namespace": "work", "user_id": "ada"}] * 6
        assert witness.seen().count("enter") == 4

        with pytest.raises(ScopeError):
            await ada.add_memories([record("bob's")])
        assert witness.seen() == ["enter", "before_add", "ScopeError"]
        assert await ada.update_memories([record("bob's", "taken")]) == 0
        assert await ada.delete_memories(["bob's"]) == 0
        assert [each.text for each in await db.get_memories(["bob's"])] == ["window seat"]
        assert await ada.delete_memories(["ada's"]) == 1
        await ada.aclose()
        assert await db.count_memories() == 1


def test_a_scoped_handle_runs_the_hooks_once_and_they_see_its_scope_alone() -> None:
    asyncio.run(_scoped())


@pytest.mark.parametrize("operation", ["add", "update"])
def test_a_hook_cannot_move_a_memory_out_of_the_scope(operation: str) -> None:
    def move(memories: list[MemoryRecord]) -> None:
        for each in memories:
            each.user_id = "bob"

    async def run() -> None:
        async with database(plugin(**{f"before_{operation}": move})) as db:
            if operation == "update":
                await db.add_memories([record(user_id="ada")])
            ada = db.scoped(user_id="ada")
            with pytest.raises(ScopeError, match=f"before_{operation} of plug-in 'Plugin'"):
                await getattr(ada, f"{operation}_memories")([record(text="moved")])
            assert await db.count_memories(user_id="bob") == 0

    asyncio.run(run())


async def _claims() -> None:
    def claim(memories: list[Any]) -> list[Any]:
        return [each.model_copy(update={"user_id": "bob"}) for each in memories]

    async with database(plugin(after_search=claim, after_read=claim)) as db:
        ada = db.scoped(user_id="ada")
        await ada.add_memories([record()])
        calls: list[Any] = [
            ada.search_memories("seat"),
            ada.list_memories(),
            ada.get_memories(["1"]),
            anext(ada.iter_memories()),
        ]
        for call in calls:
            with pytest.raises(HookFailedError) as failed:
                await call
            assert isinstance(failed.value.__cause__, ScopeError)


def test_a_hook_cannot_pass_a_memory_off_as_another_tenants() -> None:
    asyncio.run(_claims())


def test_a_call_cannot_be_changed_into_another() -> None:
    def meddle(call: Call) -> None:
        with pytest.raises(TypeError):
            call.arguments["user_id"] = "bob"  # type: ignore[index]
        with pytest.raises(TypeError):
            call.scope["user_id"] = "bob"  # type: ignore[index]
        call.ids = ("bob's",)

    async def run() -> None:
        async with database(plugin(before_read=meddle, before_delete=meddle)) as db:
            await db.add_memories([record("ada's", user_id="ada"), record("bob's", user_id="bob")])
            ada = db.scoped(user_id="ada")
            assert [each.id for each in (await ada.list_memories()).memories] == ["ada's"]
            assert await ada.get_memories(["bob's"]) == []
            assert await ada.delete_memories(["ada's"]) == 1
            assert await db.count_memories() == 1

    asyncio.run(run())


# --- iterating -----------------------------------------------------------------------------------

current: contextvars.ContextVar[str] = contextvars.ContextVar("current", default="outside")


async def _iterating() -> None:
    @asynccontextmanager
    async def mark() -> AsyncIterator[None]:
        token = current.set("inside")
        yield
        current.reset(token)

    witness = Witness()
    async with database(witness, plugin(around_call=mark)) as db:
        await db.add_memories([record(str(number)) for number in range(1001)])
        witness.seen()
        seen: list[str] = []
        async for each in db.iter_memories():
            assert current.get() == "outside"
            seen.append(each.id)
        assert sorted(map(int, seen)) == list(range(1001))
        assert [len(each.ids) for each in witness.calls[1:]] == [500, 500, 1]
        assert witness.seen().count("enter") == 3

        started = db.iter_memories()
        await anext(started)
        await started.aclose()  # type: ignore[attr-defined]
        assert witness.seen().count("enter") == 1


def test_an_iteration_is_a_call_for_each_batch_and_leaks_no_context() -> None:
    asyncio.run(_iterating())


def test_an_iteration_that_is_given_up_ends_the_backends_at_once() -> None:
    ended: list[bool] = []

    class Ending(InMemoryVectorDatabase):
        async def iter_memories(self, **arguments: Any) -> AsyncIterator[MemoryRecord]:
            try:
                for _ in range(1000):
                    yield record()
            finally:
                ended.append(True)

    async def run() -> None:
        async with create_memory_vector_db(Ending, embeddings=Embedder(), hooks=[Witness()]) as db:
            started = db.iter_memories()
            await anext(started)
            assert not ended
            await started.aclose()  # type: ignore[attr-defined]
            assert ended

    asyncio.run(run())


def test_many_calls_at_once_each_have_their_own_call() -> None:
    async def run() -> None:
        witness = Witness()
        async with database(witness) as db:
            await asyncio.gather(*(db.add_memories([record(str(n))]) for n in range(100)))
            assert len({id(each) for each in witness.calls}) == 100
            assert {each.ids for each in witness.calls} == {(str(n),) for n in range(100)}

    asyncio.run(run())


def test_hooks_of_one_call_can_leave_notes_for_one_another() -> None:
    def leave(call: Call) -> None:
        call.notes["key"] = call.operation

    def find(call: Call) -> None:
        assert call.notes == {"key": "add_memories"}

    async def run() -> None:
        async with database(plugin(before_add=leave, after_add=find)) as db:
            await db.add_memories([record()])

    asyncio.run(run())
