"""Rules LIFE-1 to LIFE-4, CONC-1 to CONC-3, ERR-4 and ERR-5: handles, concurrency and errors."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import subprocess
from collections.abc import Awaitable, Callable
from typing import Any

from agent_memory import (
    AgentMemoryError,
    BackendClosedError,
    Capability,
    EmbeddingError,
    EmbeddingMismatchError,
    InvalidArgumentError,
    MemoryRecord,
    MemoryVectorDatabase,
    ScopeError,
    UnsupportedCapabilityError,
)
from agent_memory_testkit.embedders import (
    EXACT_DIMENSIONS,
    POISON,
    EmbeddingServiceDown,
    ExactEmbeddings,
    Fault,
)
from agent_memory_testkit.journal import Words
from agent_memory_testkit.large import LargeSpace
from agent_memory_testkit.samples import DAY, NOW, memory
from agent_memory_testkit.second_process import ACKNOWLEDGED, Task
from agent_memory_testkit.suite.base import Case, SuiteBase, checked, checked_on_large_space
from agent_memory_testkit.suite.faults import errors_of_a_dead_engine, every_call, exhausted
from agent_memory_testkit.suite.outside_world import ANY_IO, watched
from agent_memory_testkit.suite.waiting import longest_block

_BLOCKED_SECONDS = 0.05
_ATTEMPTS = 8
_MANY = 1_000


class LifeRules(SuiteBase):
    """LIFE-1 to LIFE-4, CONC-1 to CONC-3, ERR-4, ERR-5."""

    # --- life --------------------------------------------------------------------------------

    @checked
    async def test_life_1_creating_a_handle_does_no_io(self, case: Case) -> None:
        """Making a handle and closing it unused connects to nothing and embeds nothing.

        Usual cause: a connection, or the creation of an index, in ``__init__``.
        """
        await (await case.open()).aclose()  # so that what is imported late is imported
        embeddings = ExactEmbeddings()
        with watched(ANY_IO) as seen:
            db = await case.open(f"{case.space}b", embeddings)
        case.equal(seen, [], "connections and processes while the handle was made")
        case.equal(
            (embeddings.query_calls, embeddings.document_batches), (0, []), "calls of embeddings"
        )
        case.equal(await db.count_memories(), 0, "the first call prepares the space")

    @checked
    async def test_life_1_many_first_calls_at_once(self, case: Case) -> None:
        """Fifty first calls of one handle, at once, all succeed, and nothing is lost.

        Usual cause: two tasks that create the same index or table, the second of which fails.
        """
        db = await case.open()
        memories = [memory(f"m{n}", f"<{n}>") for n in range(25)]
        calls: list[Awaitable[Any]] = [db.add_memories([each]) for each in memories]
        calls += [db.count_memories() for _ in range(10)]
        calls += [db.search_memories("<0>") for _ in range(10)]
        calls += [db.list_memories() for _ in range(5)]
        await _all_succeed(case, calls, "50 first calls at once")
        await case.holds(db, memories, "after 50 first calls at once")

    @checked
    async def test_life_1_many_processes_at_once(self, case: Case) -> None:
        """Three processes that open one new space at once and write to it lose nothing.

        Usual cause: each process creates the space, the last one empties it.
        """
        if not case.has(Capability.SHARED):
            # Without `shared` nothing is said of two processes; one alone must still do.
            await case.holds(await case.filled([memory("p0")]), [memory("p0")], "one process")
            return
        tasks = [Task(case.space, add=(f"p{n}", f"q{n}")) for n in range(3)]
        processes = [self.second_process(each) for each in tasks]
        try:
            for each in processes:
                await _acknowledged(case, each)
        finally:
            for each in processes:
                _finish(each)
        wanted = [memory(memory_id) for task in tasks for memory_id in task.add]
        await case.holds(await case.open(), wanted, "after three processes at once")

    @checked
    async def test_life_2_closing_twice_and_using_afterwards(self, case: Case) -> None:
        """``aclose`` may be repeated; afterwards every method raises `BackendClosedError`.

        Usual causes: the default ``aclose``, which does nothing; a call that opens again.
        """
        db = await case.filled([memory("m", user_id="ada")])
        scoped = db.scoped(user_id="ada")
        await db.aclose()
        await db.aclose()
        for name, handle in (("a closed handle", db), ("a scoped handle of it", scoped)):
            for method, call in every_call(handle):
                await case.raises(BackendClosedError, call(), f"{method} of {name}")
        unused = await case.open()
        await unused.aclose()
        await unused.aclose()
        await case.raises(BackendClosedError, unused.count_memories(), "a handle closed unused")

    @checked
    async def test_life_2_async_with_closes(self, case: Case) -> None:
        """Leaving ``async with`` closes the handle, also by an exception.

        Usual cause: ``__aexit__`` overridden without closing.
        """
        async with await case.open() as db:
            await db.add_memories([memory("m")])
            await db.ping()
        await case.raises(BackendClosedError, db.count_memories(), "after async with")
        other = await case.open()
        try:
            async with other as entered:
                await entered.count_memories()
                raise KeyError("the body fails")
        except KeyError:
            pass
        await case.raises(BackendClosedError, other.count_memories(), "after a failing body")

    @checked
    async def test_life_2_one_handle_closes_only_itself(self, case: Case) -> None:
        """Closing a handle leaves other handles, of the same or of other spaces, open.

        Usual cause: a connection or a client shared by all handles.
        """
        first = await case.filled([memory("m")])
        other = await case.open(f"{case.space}b")
        await other.add_memories([memory("n")])
        await first.aclose()
        await case.holds(other, [memory("n")], "another handle after the first was closed")

    @checked
    async def test_life_3_what_was_acknowledged_survives_reopening(self, case: Case) -> None:
        """After closing and opening again, every record, filter and vector is as it was.

        Usual causes: records kept without their vectors, an index that is not loaded, a deleted
        record that comes back.
        """
        memories = [
            memory(f"m{n}", f"<{n}> text", user_id=f"u{n % 2}", topics=[] if n else None)
            for n in range(20)
        ]
        db = await case.filled(memories)
        await db.delete_memories(["m3"])
        changed = memory("m4", "<12> changed", user_id="u1")
        await db.update_memories([changed])
        left = [each for each in memories if each.id not in ("m3", "m4")] + [changed]
        await db.aclose()
        reopened = await case.open()
        if not case.has(Capability.PERSISTENT):
            await _holds_nothing_else(case, reopened, left)
            return
        case.embeddings.forget_calls()
        await case.holds(reopened, left, "after reopening")
        case.equal(case.embeddings.texts_embedded, 0, "texts embedded again by reopening")
        model = case.model()
        model.add(left)
        for query in ("<0>", "<4>", "<12>"):
            found = await reopened.search_memories(query, limit=30)
            wanted = [each.id for each in model.ranked(query)]
            case.equal([each.id for each in found.memories], wanted, "search after reopening")
        await reopened.add_memories([memory("new")])
        await reopened.aclose()
        again = await case.open()
        await case.holds(again, [*left, memory("new")], "after reopening again")

    @checked
    async def test_life_3_what_was_acknowledged_survives_kill_9(self, case: Case) -> None:
        """A process writes, its call returns, it is killed with SIGKILL: the records are there.

        Usual cause: writes kept in a buffer until the handle is closed.
        """
        if not case.has(Capability.PERSISTENT):
            await _holds_nothing_else(case, await case.open(), [])
            return
        ids = tuple(f"k{n}" for n in range(50))
        process = self.second_process(Task(case.space, add=ids, then_hang=True))
        try:
            await _acknowledged(case, process)
        finally:
            process.kill()
            _finish(process)
        db = await case.open()
        await case.holds(db, [memory(each) for each in ids], "after kill -9")
        await db.add_memories([memory("after")])
        case.equal(len(await case.accepted(db)), 51, "records after writing again")

    @checked
    async def test_life_3_other_handles_and_processes_see_it(self, case: Case) -> None:
        """Two handles, and another process, see each other's writes at once.

        Usual cause: a cache in the handle that others' writes do not reach.
        """
        if not case.has(Capability.SHARED):
            await _holds_nothing_else(case, await case.open(), [])
            return
        one = await case.filled([memory("1", "<1>", user_id="ada")])
        two = await case.open()
        await case.holds(two, [memory("1", "<1>", user_id="ada")], "a second handle")
        await two.update_memories([memory("1", "<2>", user_id="bob")])
        case.equal(await case.accepted(one, user_id="bob"), ["1"], "the first, after an update")
        case.equal(await case.accepted(one, user_id="ada"), [], "the first, after an update")
        found = await one.search_memories("<2>", limit=1)
        model = case.model()
        model.add([memory("1", "<2>")])
        case.close_to(found.memories[0].dist, model.ranked("<2>")[0].dist, "the new vector")
        await one.delete_memories(["1"])
        case.equal(await case.accepted(two), [], "the second, after a delete")
        await two.add_memories([memory("2")])
        process = self.second_process(Task(case.space, add=("3",)))
        try:
            seen = await _acknowledged(case, process)
        finally:
            _finish(process)
        case.equal(seen, ["2", "3"], "what another process saw")
        await case.holds(one, [memory("2"), memory("3")], "after another process wrote")

    @checked
    async def test_life_4_a_space_refuses_other_embeddings(self, case: Case) -> None:
        """Vectors of another model or another size never meet those of the space.

        Usual cause: the model's name is not stored with the vectors.
        """
        kept = [memory("m", "<1>")]
        db = await case.filled(kept)
        await db.aclose()
        others = [
            ExactEmbeddings(model="testkit-other"),
            ExactEmbeddings(dimensions=EXACT_DIMENSIONS + 1),
        ]
        outlives = bool(case.profile.capabilities & {Capability.PERSISTENT, Capability.SHARED})
        for embeddings in others:
            for method in ("add_memories", "search_memories", "count_memories"):
                other = await case.open(embeddings=embeddings)
                arguments: Any = {
                    "add_memories": [[memory("new")]],
                    "search_memories": ["<1>"],
                    "count_memories": [],
                }[method]
                what = f"{method} with {embeddings.model}, {embeddings.dimensions} dimensions"
                if not outlives:
                    # The space may have ended with its handle: then this one must be empty.
                    with contextlib.suppress(EmbeddingMismatchError):
                        case.equal(await other.count_memories(), 0, f"count with {what}")
                    await other.aclose()
                    continue
                error = await case.raises(
                    EmbeddingMismatchError, getattr(other, method)(*arguments), what
                )
                both = {case.embeddings.model, embeddings.model}
                both |= {str(case.embeddings.dimensions), str(embeddings.dimensions)}
                case.check(
                    all(each in str(error) for each in both),
                    f"the message of {what}",
                    got=str(error),
                    should=f"both named: {', '.join(sorted(both))}",
                )
                await other.aclose()
        if outlives:
            await case.holds(await case.open(), kept, "the space after what was refused")

    # --- concurrency -------------------------------------------------------------------------

    @checked
    async def test_conc_1_searches_and_writes_at_once(self, case: Case) -> None:
        """1,000 searches and 1,000 writes at once all succeed, and every write is there.

        Usual causes: a pool or a lock that times out, a write lost to one that overlapped it.
        """
        db = await case.filled([memory("first")])
        calls: list[Awaitable[Any]] = []
        for number in range(_MANY):
            calls.append(db.add_memories([memory(f"m{number}", f"<{number}>")]))
            calls.append(db.search_memories(f"<{number % 16}>", limit=3))
        await _all_succeed(case, calls, "1,000 searches and 1,000 writes at once")
        wanted = [memory("first"), *(memory(f"m{n}", f"<{n}>") for n in range(_MANY))]
        await case.holds(db, wanted, "after 1,000 writes at once")
        calls = [db.delete_memories([f"m{n}", f"m{n + 1}"]) for n in range(_MANY)]
        counts = await _all_succeed(case, calls, "1,000 deletes at once")
        case.equal(sum(counts), _MANY, "the sum of what 1,000 overlapping deletes counted")
        await case.holds(db, [memory("first")], "after 1,000 deletes at once")

    @checked
    async def test_conc_2_one_version_is_left_whole(self, case: Case) -> None:
        """Of many writes to one id at once, one version is left, with its own tags and vector.

        Usual cause: record, tags and vector written one after the other without a transaction.
        """
        versions = [
            memory(
                "m",
                f"<{n % 16}> version {n}",
                user_id=f"v{n}",
                topics=[f"v{n}", "all"],
                metadata={"version": n},
                created_at=NOW + n * DAY,
            )
            for n in range(60)
        ]
        db = await case.open()
        calls: list[Awaitable[Any]] = [db.add_memories([each]) for each in versions[:30]]
        calls += [db.update_memories([each]) for each in versions[30:]]
        await _all_succeed(case, calls, "60 writes to one id at once")
        await self._one_is_whole(case, db, versions)
        calls = [db.update_memories([each]) for each in versions]
        counts = await _all_succeed(case, calls, "60 updates of one id at once")
        case.equal(counts, [1] * 60, "what the updates counted")
        await self._one_is_whole(case, db, versions)

    @checked
    async def test_conc_2_an_update_brings_back_nothing_that_was_deleted(self, case: Case) -> None:
        """Updates and deletes of one id at once: afterwards it is gone, whichever came first.

        Usual cause: an update that looks whether the record is there, and then writes without
        looking again.
        """
        ids = [f"m{n}" for n in range(20)]
        db = await case.open()
        for attempt in range(3):
            await db.add_memories([memory(each) for each in ids])
            calls: list[Awaitable[Any]] = []
            for number, each in enumerate(ids):
                updates = [db.update_memories([memory(each, f"<{n}> {attempt}")]) for n in range(3)]
                updates.insert(number % 4, db.delete_memories([each]))
                calls += updates
            await _all_succeed(case, calls, "updates and deletes of the same ids at once")
            await case.holds(db, [], "after each id was deleted, and updated at once")

    async def _one_is_whole(
        self, case: Case, db: MemoryVectorDatabase, versions: list[MemoryRecord]
    ) -> None:
        [left] = await db.get_memories(["m"])
        case.check(
            left.metadata.get("version") in range(len(versions)),
            "the version left",
            got=left,
            should="one of those written",
        )
        wanted = versions[left.metadata["version"]]  # type: ignore[index]
        await case.holds(db, [wanted], "the version left")
        for each in versions:
            ids = ["m"] if each is wanted else []
            count = await db.count_memories(user_id=each.user_id or "", topics=each.topics or [])
            case.equal(count, len(ids), f"count by the tags of {each.user_id!r}")
        model = case.model()
        model.add([wanted])
        for query in ("<0>", f"<{wanted.metadata['version']}>"):
            [found] = (await db.search_memories(query)).memories
            case.close_to(found.dist, model.ranked(query)[0].dist, "the distance of its vector")

    @checked
    async def test_conc_3_a_cancelled_call_leaves_the_handle_usable(self, case: Case) -> None:
        """Calls cancelled at any point leave the handle usable and every record whole.

        Usual causes: a lock that is not released, a connection given back in the middle of an
        answer, half a batch.
        """
        old = [memory(f"m{n}", f"<{n}> old", user_id="old", topics=["old"]) for n in range(20)]
        new = [memory(f"m{n}", f"<{n}> new", user_id="new", topics=["new"]) for n in range(20)]
        db = await case.open()
        for steps in range(24):
            for call in (
                lambda: db.add_memories(old),
                lambda: db.update_memories(new),
                lambda: db.search_memories("<0>"),
                lambda: db.list_memories(),
                lambda: db.delete_memories(["m0"]),
            ):
                task = asyncio.ensure_future(call())
                for _ in range(steps):
                    await asyncio.sleep(0)
                if steps % 3 == 2:
                    await asyncio.sleep(0.001)
                task.cancel()
                await asyncio.wait([task], timeout=10)
                case.check(
                    task.done(), "a call that was cancelled", got="it goes on", should="ended"
                )
                if not task.cancelled() and task.exception() is not None:
                    case.fail("a call cancelled too late", got=task.exception(), should="no error")
        try:
            async with asyncio.timeout(5):
                for each in (await db.list_memories(limit=50)).memories:
                    number = int(each.id[1:])
                    wanted = new[number] if each.user_id == "new" else old[number]
                    case.equal_records([each], [wanted], "a record after cancelled calls")
                await db.add_memories(new)
                await case.holds(db, new, "after cancelled calls")
        except TimeoutError:
            case.fail("a call after cancelled ones", got="no answer in 5 s", should="an answer")

    @checked_on_large_space
    async def test_conc_3_no_call_blocks_the_event_loop(
        self, case: Case, large: LargeSpace
    ) -> None:
        """With very many records, other tasks never wait longer than 50 ms for any call.

        Usual causes: work of the processor, or of a synchronous client, on the event loop; a thread
        that works for long in one call of C which keeps the interpreter's lock. (The best of a few
        times counts, less what other processes took: a busy machine fails nobody.)
        """
        db = case.watched(large.db)
        added = [memory(f"extra{n}", f"extra {n}", user_id="extra") for n in range(2_000)]
        ids = [each.id for each in added]
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "search_memories": lambda: db.search_memories("anything"),
            "search_memories with a filter": lambda: db.search_memories("else", topics="even"),
            "count_memories with a filter": lambda: db.count_memories(topics="odd"),
            "list_memories(limit=5000)": lambda: db.list_memories(limit=5_000),
            "list_memories far down": lambda: db.list_memories(limit=10, offset=50_000),
            "get_memories of 2,000": lambda: db.get_memories(
                [large.id_of(n) for n in range(2_000)]
            ),
            "iter_memories of 1 %": lambda: exhausted(db.iter_memories(user_id="user-1")),
            "add_memories of 2,000": lambda: db.add_memories(added),
            "update_memories of 2,000": lambda: db.update_memories(added),
        }
        if case.has(Capability.KEYWORD_SEARCH):
            calls["keyword search"] = lambda: db.search_memories("turn 7", search_mode="keyword")
        if case.has(Capability.HYBRID_SEARCH):
            calls["hybrid search"] = lambda: db.search_memories("turn 7", search_mode="hybrid")
        # Collecting the kit's own garbage would be taken for a block.
        gc.collect()
        gc.freeze()
        try:
            for name, call in calls.items():
                await self._does_not_block(case, name, call)
        finally:
            await db.delete_memories(ids)

    async def _does_not_block(
        self, case: Case, name: str, call: Callable[[], Awaitable[Any]]
    ) -> None:
        blocks = []
        for _ in range(_ATTEMPTS):
            blocks.append(await longest_block(call()))
            if blocks[-1] <= _BLOCKED_SECONDS:
                return
        case.fail(
            f"how long other tasks waited during {name}, the shortest of {_ATTEMPTS} times",
            got=Words(f"{min(blocks) * 1e3:.0f} ms"),
            should=Words("50 ms at most"),
        )

    # --- errors ------------------------------------------------------------------------------

    @checked
    async def test_err_4_capabilities_are_declared_honestly(self, case: Case) -> None:
        """The handle declares what the profile expects, and refuses by name what it lacks.

        Usual causes: a capability not declared (or declared and not there), a search mode that
        falls back to another one.
        """
        db = await case.filled([memory("m", "window seat")])
        case.equal(
            sorted(db.capabilities), sorted(case.profile.capabilities), "capabilities of the handle"
        )
        for mode in ("keyword", "hybrid"):
            capability = Capability(f"{mode}_search")
            call = db.search_memories("window", search_mode=mode)
            if case.has(capability):
                found = await call
                case.equal([each.id for each in found.memories], ["m"], f"{mode} search")
                continue
            error = await case.raises(UnsupportedCapabilityError, call, f"{mode} search")
            case.check(
                capability.value in str(error),
                "the message of the error",
                got=str(error),
                should=f"{capability.value} in it",
            )
        anything: Any = db
        for unknown in ("fuzzy", "", None, "semantic "):
            await case.raises(
                InvalidArgumentError,
                anything.search_memories("window", search_mode=unknown),
                f"search_mode={unknown!r}",
            )

    @checked
    async def test_err_5_errors_are_ours_with_their_cause(self, case: Case) -> None:
        """Every error is an `AgentMemoryError` that says something and keeps its cause.

        Usual causes: an exception of the engine or of the embeddings that is let through, an
        address printed with the password in it.
        """
        db = await case.filled([memory("m", user_id="bob")])
        anything: Any = db
        case.embeddings.fault = Fault.RAISES
        failed = await case.raises(
            EmbeddingError, db.add_memories([memory("p", POISON)]), "embeddings that raise"
        )
        searched = await case.raises(
            EmbeddingError, db.search_memories(POISON), "embeddings that raise for a query"
        )
        for error in (failed, searched):
            case.check(
                isinstance(error.__cause__, EmbeddingServiceDown),
                "the __cause__ of the EmbeddingError",
                got=error.__cause__,
                should="what the embeddings raised",
            )
        case.embeddings.fault = None
        errors: list[AgentMemoryError] = [failed, searched]
        calls: list[tuple[type[AgentMemoryError], Callable[[], Awaitable[Any]]]] = [
            (InvalidArgumentError, lambda: db.search_memories(" ")),
            (InvalidArgumentError, lambda: db.list_memories(limit=0)),
            (InvalidArgumentError, lambda: anything.count_memories(usr_id="ada")),
            (InvalidArgumentError, lambda: anything.add_memories(["not a record"])),
            (ScopeError, lambda: db.scoped(user_id="ada").add_memories([memory("m")])),
        ]
        for kind, call in calls:
            errors.append(await case.raises(kind, call(), f"a call that raises {kind.__name__}"))
        await db.aclose()
        errors.append(await case.raises(BackendClosedError, db.count_memories(), "a closed handle"))
        errors += await errors_of_a_dead_engine(case)
        for each in errors:
            case.check(
                len(str(each)) >= 10,
                f"the message of {type(each).__name__}",
                got=str(each),
                should="a sentence that says what is wrong and what to do",
            )


async def _all_succeed(case: Case, calls: list[Awaitable[Any]], what: str) -> list[Any]:
    results = await asyncio.gather(*calls, return_exceptions=True)
    failures = [each for each in results if isinstance(each, BaseException)]
    if failures:
        first = failures[0]
        case.check(
            False,
            what,
            got=f"{len(failures)} of {len(calls)} failed, the first with {first!r}",
            should="all succeed",
        )
    return results


async def _holds_nothing_else(
    case: Case, db: MemoryVectorDatabase, memories: list[MemoryRecord]
) -> None:
    """Without ``persistent`` a space may be empty or not, but what is there is whole."""
    wanted = {each.id: each for each in memories}
    for each in (await db.list_memories(limit=1_000)).memories:
        case.check(each.id in wanted, "a record after reopening", got=each, should="one written")
        case.equal_records([each], [wanted[each.id]], "a record after reopening")


async def _acknowledged(case: Case, process: subprocess.Popen[str]) -> list[str]:
    """Wait until another process says that its write has returned; return the ids it then saw."""
    assert process.stdout is not None
    line = await asyncio.to_thread(process.stdout.readline)
    case.check(
        ACKNOWLEDGED in line,
        "another process that opens the space and writes",
        got=line or f"it ended with {process.wait()} (see its messages above)",
        should="it writes and says so",
    )
    ids: list[str] = json.loads(line)["ids"]
    return ids


def _finish(process: subprocess.Popen[str]) -> None:
    """Let a process end and release its pipes."""
    with process:
        process.communicate(timeout=30)
