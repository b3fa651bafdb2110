"""Rules ERR-1 to ERR-3: engines reached over a network, which refuse, hang, reset and cut.

A backend without a network keeps these rules by having nothing to lose: the suite then checks that
it connects to nothing. The faults themselves are in `agent_memory_testkit.faults`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from agent_memory import AgentMemoryError, BackendUnavailableError, MemoryRecord
from agent_memory import MemoryVectorDatabase as Database
from agent_memory_testkit.faults import FaultProxy, NetworkFault
from agent_memory_testkit.journal import Words, brief
from agent_memory_testkit.model import differing_fields, stored
from agent_memory_testkit.profile import Network
from agent_memory_testkit.samples import memory
from agent_memory_testkit.suite.base import Case, SuiteBase, checked
from agent_memory_testkit.suite.outside_world import CONNECTIONS, watched

_SLACK_SECONDS = 1.0
"""What a busy machine may add to a timeout."""
_MOST_ANSWERS = 40
"""More answers than that no single write of this module should need."""

Call = Callable[[], Awaitable[Any]]


class _Line(NamedTuple):
    """A handle of a case that reaches its engine through a proxy."""

    case: Case
    proxy: FaultProxy
    db: Database
    network: Network

    @property
    def allowed_seconds(self) -> float:
        """How long a call may take that the engine does not answer."""
        return 1.5 * self.network.timeout + _SLACK_SECONDS

    async def outcome(self, call: Call, what: str) -> Any:
        """Return what ``call`` gives or the exception that it raises, unless it takes too long."""
        [(_, outcome)] = await self.outcomes([(what, call)], "")
        return outcome

    async def outcomes(
        self, calls: Sequence[tuple[str, Call]], circumstance: str
    ) -> list[tuple[str, Any]]:
        """Make calls at once; return what each gives or raises, unless one takes too long."""
        __tracebackhide__ = True
        tasks = {asyncio.ensure_future(call()): what for what, call in calls}
        _, late = await asyncio.wait(tasks, timeout=self.allowed_seconds)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=self.allowed_seconds)
            self.case.fail(
                ", ".join(what for task, what in tasks.items() if task in late) + circumstance,
                got=Words(f"no answer in {self.allowed_seconds:g} s"),
                should=Words(
                    f"BackendUnavailableError is raised within {self.network.timeout:g} s, the "
                    f"timeout of the profile"
                ),
            )
        return [
            (what + circumstance, task.exception() or task.result()) for task, what in tasks.items()
        ]

    async def answers(self, call: Call, what: str) -> Any:
        """Return what ``call`` gives, once the engine is back.

        Connections that died meanwhile may cost a few calls, but no longer than the timeout.
        """
        end = time.monotonic() + self.allowed_seconds
        while True:
            outcome = await self.outcome(call, what)
            if isinstance(outcome, BackendUnavailableError) and time.monotonic() < end:
                await asyncio.sleep(0.02)
                continue
            if isinstance(outcome, Exception):
                self.case.fail(what, got=outcome, should=Words("the handle works again"))
            return outcome


@asynccontextmanager
async def _line(case: Case, network: Network) -> AsyncIterator[_Line]:
    """Give a new handle through a proxy; both are closed afterwards."""
    with FaultProxy(
        network.host, network.port, delay=2 * (1.5 * network.timeout + _SLACK_SECONDS)
    ) as proxy:
        db = await case.open_through(proxy.host, proxy.port)
        try:
            yield _Line(case, proxy, db, network)
        finally:
            proxy.lift()
            await db.aclose()


async def _holding(line: _Line, memories: Sequence[MemoryRecord]) -> None:
    """Write ``memories`` through the proxy."""
    await line.db.add_memories(list(memories))
    line.case.check(
        line.proxy.connections > 0,
        "the way to the engine after open_through(space, embeddings, host, port) and a write",
        got=Words("no connection came to this host and port"),
        should="the handle reaches its engine through them",
    )


async def _network_of(case: Case) -> Network | None:
    """Return the profile's network; without one, fail if the backend connects to anything."""
    if case.profile.network is not None:
        return case.profile.network
    with watched(CONNECTIONS) as seen:
        db = await case.filled([memory("m")])
        await db.search_memories("<0>")
    addresses = [args[1] for _, args in seen if isinstance(args[1], tuple)]
    case.equal(addresses, [], "connections of a backend whose Profile(network=...) names none")
    return None


def _kept() -> list[MemoryRecord]:
    return [memory(f"m{n}", f"<{n}> kept", user_id=f"u{n % 2}", topics=[f"t{n}"]) for n in range(8)]


_WRITTEN = memory("w", "<9> written while the engine fails", user_id="w")


def _calls_that_keep(db: Database) -> list[tuple[str, Call]]:
    """Return a call of every method; if one arrives, `_kept` is left, and `_WRITTEN` perhaps."""
    replaced = _kept()[0]
    return [
        ("add_memories", lambda: db.add_memories([_WRITTEN])),
        ("update_memories", lambda: db.update_memories([replaced])),
        ("delete_memories", lambda: db.delete_memories(["unknown"])),
        ("get_memories", lambda: db.get_memories(["m1"])),
        ("count_memories", lambda: db.count_memories()),
        ("count_memories with a filter", lambda: db.count_memories(user_id="u1")),
        ("list_memories", lambda: db.list_memories()),
        ("search_memories", lambda: db.search_memories("<0>")),
        ("iter_memories", lambda: exhausted(db.iter_memories())),
        ("ping", lambda: db.ping()),
    ]


class FaultRules(SuiteBase):
    """ERR-1 to ERR-3."""

    @checked
    async def test_err_1_no_answer_is_an_error_in_time(self, case: Case) -> None:
        """While the engine refuses, resets, hangs or cuts, every call raises within the timeout.

        Usual causes: an ``except`` that returns an empty page, 0 or ``None``; a connection without
        a timeout; retries without an end; half an answer taken for a whole one.
        """
        network = await _network_of(case)
        if network is None:
            return
        for fault in NetworkFault:
            async with _line(case, network) as line:
                await _holding(line, _kept())
                line.proxy.inject(fault)
                await _all_are_unavailable(line, fault)
                line.proxy.lift()
                # By a new handle: whether this one recovers is ERR-2.
                fresh = await case.open_through(line.proxy.host, line.proxy.port)
                await _holds_what_was_acknowledged(line._replace(db=fresh), f"after {fault}")
                await fresh.aclose()

    @checked
    async def test_err_1_no_answer_to_the_first_call(self, case: Case) -> None:
        """The same for the first call of a new handle, which connects and prepares the space.

        Usual causes: a timeout for answers and none for connecting; what the client library raises
        while connecting is another exception, which is let through.
        """
        network = await _network_of(case)
        if network is None:
            return
        async with _line(case, network) as line:
            await _holding(line, _kept())
            for fault in NetworkFault:
                line.proxy.inject(fault)
                fresh = await case.open_through(line.proxy.host, line.proxy.port)
                what = f"the first call, count_memories, while {fault}"
                _check_unavailable(line, what, await line.outcome(fresh.count_memories, what))
                line.proxy.lift()
                await fresh.aclose()

    @checked
    async def test_err_2_the_handle_works_again(self, case: Case) -> None:
        """When the engine is back, the handle that failed works, and nothing is lost.

        Usual causes: a dead connection that goes back to the pool; a half-read answer that the next
        call takes for its own; a handle that remembers that it failed.
        """
        network = await _network_of(case)
        if network is None:
            return
        for fault in NetworkFault:
            async with _line(case, network) as line:
                await _holding(line, _kept())
                line.proxy.inject(fault)
                fresh = await case.open_through(line.proxy.host, line.proxy.port)
                calls = [*_calls_that_keep(line.db), ("the first call", fresh.count_memories)]
                await line.outcomes(calls, f" while {fault}")
                line.proxy.lift()
                await _holds_what_was_acknowledged(line, f"after {fault}")
                await _works(line, f"after {fault}")
                await _works(line._replace(db=fresh), f"a handle first used while {fault}, after")
                await fresh.aclose()

    @checked
    async def test_err_2_a_restart_between_two_calls(self, case: Case) -> None:
        """The engine resets every connection while nobody calls: the handle goes on.

        Usual cause: connections of a pool that nobody looks at before using them again.
        """
        network = await _network_of(case)
        if network is None:
            return
        async with _line(case, network) as line:
            await _holding(line, _kept())
            await line.outcomes(_calls_that_keep(line.db), " before the restart")
            for fault in (NetworkFault.RESET, NetworkFault.REFUSE):
                line.proxy.inject(fault)
                line.proxy.lift()
                await _holds_what_was_acknowledged(line, "after a restart between two calls")
                await _works(line, "after a restart between two calls")

    @checked
    async def test_err_3_an_unacknowledged_write_can_be_repeated(self, case: Case) -> None:
        """A write whose answer is lost, at any point of it, leaves whole records and is repeatable.

        One answer of the engine is lost, or cut in half: the first, the second and so on, until the
        write does not meet the fault any more. Usual causes: delete and insert as two steps; tags
        or vectors written apart from the record; a delete that the backend itself repeats, and that
        then counts nothing; an insert that fails because the first attempt had succeeded.
        """
        network = await _network_of(case)
        if network is None:
            return
        async with _line(case, network) as line:
            for fault in (NetworkFault.LOSE, NetworkFault.CUT):
                for write in _writes(line.db):
                    for after in range(_MOST_ANSWERS):
                        if not await _loses_one_answer(line, write, fault, after):
                            break


# --- what the rules share --------------------------------------------------------------------


def every_call(db: Database) -> list[tuple[str, Call]]:
    """Return a call of every method."""
    record = memory("m", user_id="ada")
    return [
        ("add_memories", lambda: db.add_memories([record])),
        ("update_memories", lambda: db.update_memories([record])),
        ("delete_memories", lambda: db.delete_memories(["m"])),
        ("get_memories", lambda: db.get_memories(["m"])),
        ("count_memories", lambda: db.count_memories()),
        ("list_memories", lambda: db.list_memories()),
        ("search_memories", lambda: db.search_memories("<0>")),
        ("iter_memories", lambda: exhausted(db.iter_memories())),
        ("ping", lambda: db.ping()),
    ]


async def exhausted(iterator: Any) -> int:
    """Return how many items an asynchronous iterator gives."""
    count = 0
    async for _ in iterator:
        count += 1
    return count


async def errors_of_a_dead_engine(case: Case) -> list[AgentMemoryError]:
    """Return what is raised when the engine does not answer; nothing without a network.

    Fails (for ERR-5) if an error has no cause, or if it or a cause of it prints the password.
    """
    network = case.profile.network
    errors: list[AgentMemoryError] = []
    if network is None:
        return errors
    for fault in NetworkFault:
        async with _line(case, network) as line:
            await _holding(line, _kept())
            line.proxy.inject(fault)
            fresh = await case.open_through(line.proxy.host, line.proxy.port)
            calls: list[tuple[str, Call]] = [
                ("count_memories", line.db.count_memories),
                ("the first ping", fresh.ping),
            ]
            for what, error in await line.outcomes(calls, f" while {fault}"):
                _check_unavailable(line, what, error)
                case.check(
                    error.__cause__ is not None,
                    f"the __cause__ of the error of {what}",
                    got=error.__cause__,
                    should="what the engine's client raised",
                )
                for each in _with_causes(error):
                    case.check(
                        network.password is None or network.password not in f"{each} {each!r}",
                        f"the text of the error of {what}, and of its causes",
                        got=each,
                        should="without the password",
                    )
                errors.append(error)
            line.proxy.lift()
            await fresh.aclose()
    return errors


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _check_unavailable(line: _Line, what: str, outcome: Any) -> None:
    __tracebackhide__ = True
    if not isinstance(outcome, BackendUnavailableError):
        line.case.fail(what, got=outcome, should=Words("BackendUnavailableError is raised"))


async def _all_are_unavailable(line: _Line, fault: NetworkFault) -> None:
    __tracebackhide__ = True
    for what, outcome in await line.outcomes(_calls_that_keep(line.db), f" while {fault}"):
        _check_unavailable(line, what, outcome)


async def _holds_what_was_acknowledged(line: _Line, what: str) -> None:
    """Fail unless `_kept` is there, and nothing else but `_WRITTEN` perhaps, all of it whole."""
    page = await line.answers(lambda: line.db.list_memories(limit=50), f"list_memories {what}")
    written = [_WRITTEN] if any(each.id == _WRITTEN.id for each in page.memories) else []
    by_id = sorted(page.memories, key=lambda each: each.id)
    line.case.equal_records(by_id, [*_kept(), *written], f"what is there {what}")


async def _works(line: _Line, what: str) -> None:
    """Fail unless every method answers, and rightly."""
    case, db = line.case, line.db
    new = memory("new", "<10> new")
    ids = await line.answers(lambda: db.add_memories([new]), f"add_memories {what}")
    case.equal(ids, ["new"], f"add_memories {what}")
    found = await line.answers(
        lambda: db.search_memories("<10>", limit=1), f"search_memories {what}"
    )
    case.equal([each.id for each in found.memories], ["new"], f"search_memories {what}")
    changed = memory("new", "<11> changed")
    replaced = await line.answers(lambda: db.update_memories([changed]), f"update_memories {what}")
    case.equal(replaced, 1, f"update_memories {what}")
    got = await line.answers(lambda: db.get_memories(["new"]), f"get_memories {what}")
    case.equal_records(got, [changed], f"get_memories {what}")
    await line.answers(lambda: db.delete_memories(["new"]), f"delete_memories {what}")
    count = await line.answers(lambda: db.count_memories(id="new"), f"count_memories {what}")
    case.equal(count, 0, f"count_memories of what was deleted {what}")
    await line.answers(lambda: exhausted(db.iter_memories()), f"iter_memories {what}")
    await line.answers(lambda: db.ping(), f"ping {what}")


# --- writes whose acknowledgement is lost ----------------------------------------------------


class _Write(NamedTuple):
    """A write, with the space as it is before and after it."""

    said: str
    call: Call
    before: Sequence[MemoryRecord]
    after: Sequence[MemoryRecord]
    returns: Any
    again: Any
    """What it returns if it is made once more."""


_IDS = ("m0", "m1", "m2", "m3")


def _writes(db: Database) -> list[_Write]:
    old = [memory(each, f"<{n}> old", user_id="old") for n, each in enumerate(_IDS[:3])]
    new = [memory(each, f"<{n + 3}> new", topics=["new"]) for n, each in enumerate(_IDS)]
    kept = memory("kept", "<8> kept", user_id="old")
    ids = list(_IDS)
    before = [*old, kept]
    return [
        _Write("add_memories", lambda: db.add_memories(new), before, [*new, kept], ids, ids),
        _Write("update_memories", lambda: db.update_memories(new), before, [*new[:3], kept], 3, 3),
        _Write("delete_memories", lambda: db.delete_memories(ids), before, [kept], 3, 0),
    ]


async def _loses_one_answer(line: _Line, write: _Write, fault: NetworkFault, after: int) -> bool:
    """Make a write of which one answer is lost, and check what is left; ``False`` if it was not."""
    case, db = line.case, line.db
    known = [*_IDS, "kept"]
    await line.answers(lambda: db.delete_memories(known), "emptying the space")
    await line.answers(lambda: db.add_memories(list(write.before)), "filling the space")
    what = f"{write.said} while of answer {after + 1} of the engine "
    what += "nothing arrives" if fault is NetworkFault.LOSE else "one half arrives"
    line.proxy.inject(fault, after=after, times=1)
    outcome = await line.outcome(write.call, what)
    met = line.proxy.hits > 0
    line.proxy.lift()
    if isinstance(outcome, Exception):
        _check_unavailable(line, what, outcome)
        await _is_before_or_after(line, write, what)
        await line.answers(db.ping, f"ping after {what}")
        left = await line.answers(lambda: db.get_memories(known), f"get_memories after {what}")
        returned = await line.answers(write.call, f"{write.said} once more")
        if write.returns != write.again:  # a delete counts what it finds
            gone = {each.id for each in left} - {each.id for each in write.after}
            case.equal(returned, len(gone), f"{write.said} once more, after {what}")
        else:
            case.equal(returned, write.returns, f"{write.said} once more, after {what}")
    else:
        case.equal(outcome, write.returns, f"what {what} returned, without an error")
    await case.holds(db, write.after, f"after {what}")
    wanted = sorted(each.id for each in write.after)
    case.equal(await case.accepted(db), wanted, f"after {what}")
    return met


async def _is_before_or_after(line: _Line, write: _Write, what: str) -> None:
    """Fail unless each record is as before the write or as after it, with its text's vector."""
    case, db = line.case, line.db
    page = await line.answers(lambda: db.list_memories(limit=50), f"list_memories after {what}")
    before = {each.id: stored(each) for each in write.before}
    after = {each.id: stored(each) for each in write.after}
    for each in page.memories:
        case.check(
            any(
                each.id in states and not differing_fields(each, states[each.id])
                for states in (before, after)
            ),
            f"the record {each.id!r} after {what}",
            got=each,
            should=f"{brief(before.get(each.id))} or {brief(after.get(each.id))}",
        )
    present = {each.id for each in page.memories}
    lost = sorted((before.keys() & after.keys()) - present)
    case.equal(lost, [], f"records that are gone after {what}")
    model = case.model()
    model.add(page.memories)
    found = await line.answers(lambda: db.search_memories("<0>", limit=50), f"search after {what}")
    got = {each.id: each.dist for each in found.memories}
    case.equal(sorted(got), sorted(present), f"search_memories after {what}: the ids")
    for each in model.ranked("<0>"):
        case.close_to(got[each.id], each.dist, f"the distance of {each.id!r} after {what}")
