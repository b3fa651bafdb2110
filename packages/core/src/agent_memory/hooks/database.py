"""`HookedMemories`: a database whose every call runs the hooks of plug-ins around it.

What hooks are and may do is in `agent_memory.hooks.specification`. Nothing here knows where a
plug-in came from.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Any, Self, TypeVar, Unpack, cast

from pluggy import HookImpl, PluginManager, PluginValidationError

from agent_memory.arguments import checked_ids, checked_query
from agent_memory.database import Capability, MemoryVectorDatabase
from agent_memory.errors import HookFailedError, HookTypeError, ScopeError
from agent_memory.hooks.specification import PROJECT, Call, HookSpecification
from agent_memory.intake import stored_copies
from agent_memory.models import MemoryRecord, MemoryRecordResult, MemoryRecordResults
from agent_memory.scope import Scope, ScopeArguments, ScopedMemories

_T = TypeVar("_T")
_R = TypeVar("_R", bound=MemoryRecord)

_BATCH = 500
"""How many memories of an iteration make one call to the hooks."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """An object or module that implements hooks, and where it came from."""

    name: str
    hooks: object
    origin: str
    """The distribution, its version and the target; or the argument that it was given in."""

    def __str__(self) -> str:
        return f"plug-in {self.name!r} ({self.origin})"


@dataclass(frozen=True, slots=True)
class Implementation:
    """One hook of one plug-in."""

    hook: str
    plugin: Plugin
    function: Callable[..., Any]
    parameters: tuple[str, ...]

    def start(self, **values: Any) -> Any:
        """Call it with those of the values that it takes."""
        return self.function(*[values[name] for name in self.parameters])

    async def run(self, **values: Any) -> Any:
        """Call it, and await what it returns if that can be awaited."""
        result = self.start(**values)
        return await result if inspect.isawaitable(result) else result

    def __str__(self) -> str:
        return f"{self.hook} of {self.plugin}"


class Hooks:
    """The implementations of every hook, outermost first.

    Args:
        plugins: outermost first, each with a name of its own. An implementation marked ``tryfirst``
            comes before all others, one marked ``trylast`` after them.

    Raises:
        HookTypeError: a plug-in implements no hook, or one that does not fit its specification.
    """

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        self._manager = PluginManager(PROJECT)
        self._manager.add_hookspecs(HookSpecification)
        self.plugins = tuple(plugins)
        """Outermost first."""
        self._plugins: dict[str, Plugin] = {}
        # Pluggy calls what was registered last first.
        for plugin in reversed(plugins):
            self._register(plugin)
        self.around_call = self._implementations("around_call")
        self.before_add = self._implementations("before_add")
        self.after_add = self._implementations("after_add")[::-1]
        self.before_update = self._implementations("before_update")
        self.after_update = self._implementations("after_update")[::-1]
        self.before_delete = self._implementations("before_delete")
        self.after_delete = self._implementations("after_delete")[::-1]
        self.before_search = self._implementations("before_search")
        self.after_search = self._implementations("after_search")[::-1]
        self.before_read = self._implementations("before_read")
        self.after_read = self._implementations("after_read")[::-1]

    def _register(self, plugin: Plugin) -> None:
        if isinstance(plugin.hooks, type):
            raise HookTypeError(
                f"{plugin} is the class {plugin.hooks.__qualname__}: give an object of it"
            )
        self._plugins[plugin.name] = plugin
        try:
            self._manager.register(plugin.hooks, name=plugin.name)
            self._manager.check_pending()
        except PluginValidationError as error:
            raise HookTypeError(
                f"{plugin} does not fit the hook specifications: {error}; the hooks and their "
                f"parameters are those of agent_memory.hooks.HookSpecification"
            ) from error
        except ValueError as error:  # pluggy's word for an object that it has already
            raise HookTypeError(f"{plugin} is given twice: give each object once") from error
        found = self._manager.get_hookcallers(plugin.hooks) or []
        if not found:
            raise HookTypeError(
                f"{plugin} implements no hook: mark its functions with "
                f"@agent_memory.hooks.hookimpl and name them after those of HookSpecification"
            )
        for caller in found:
            for each in caller.get_hookimpls():
                if each.plugin_name == plugin.name and (each.wrapper or each.hookwrapper):
                    raise HookTypeError(
                        f"{plugin}: {caller.name} is a wrapper of pluggy, which cannot wait for "
                        f"anything: implement around_call"
                    )

    def _implementations(self, hook: str) -> tuple[Implementation, ...]:
        found: list[HookImpl] = getattr(self._manager.hook, hook).get_hookimpls()
        return tuple(
            Implementation(
                hook, self._plugins[each.plugin_name], each.function, tuple(each.argnames)
            )
            for each in reversed(found)
        )


class HookedMemories(MemoryVectorDatabase):
    """A database with hooks around its calls; anything else that it has is that of the backend.

    Args:
        database: what the calls end at. Closing this closes it.
        hooks: what runs around them.
        backend: what to call the backend.
        scope: what the handle is confined to that this one is behind, for the hooks to know.
    """

    def __init__(
        self,
        database: MemoryVectorDatabase,
        hooks: Hooks,
        *,
        backend: str,
        scope: Scope | None = None,
    ) -> None:
        self.unhooked = database
        """The backend itself: calls on it run no hook."""
        self._hooks = hooks
        self._backend = backend
        self._scope = scope

    def __getattr__(self, name: str) -> Any:
        # What an engine offers besides the interface; what is private stays its own.
        if name.startswith("_") or name == "unhooked":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.unhooked, name)

    # --- writing ------------------------------------------------------------------------------

    async def add_memories(self, memories: list[MemoryRecord]) -> list[str]:
        return await self._add(memories, None)

    async def _add_within(self, memories: list[MemoryRecord], scope: Scope) -> list[str]:
        return await self._add(memories, scope)

    async def _add(self, memories: list[MemoryRecord], scope: Scope | None) -> list[str]:
        hooks = self._hooks
        call = self._call("add_memories", scope, ids=_ids_of(memories))

        async def add() -> list[str]:
            records = memories
            if hooks.before_add or hooks.after_add:
                records = await _changed_before(
                    hooks.before_add, call, await stored_copies(memories), scope
                )
            if scope is None:
                ids = await self.unhooked.add_memories(records)
            else:
                ids = await self.unhooked._add_within(records, scope)
            call.count = len(set(ids))
            await _told(hooks.after_add, call=call, memories=records, ids=ids)
            return ids

        return await self._surrounded(call, add)

    async def update_memories(self, memories: list[MemoryRecord]) -> int:
        return await self._update(memories, None)

    async def _update_within(self, memories: list[MemoryRecord], scope: Scope) -> int:
        return await self._update(memories, scope)

    async def _update(self, memories: list[MemoryRecord], scope: Scope | None) -> int:
        hooks = self._hooks
        call = self._call("update_memories", scope, ids=_ids_of(memories))

        async def update() -> int:
            records = memories
            if hooks.before_update or hooks.after_update:
                records = await _changed_before(
                    hooks.before_update, call, await stored_copies(memories), scope
                )
            if scope is None:
                updated = await self.unhooked.update_memories(records)
            else:
                updated = await self.unhooked._update_within(records, scope)
            call.count = updated
            await _told(hooks.after_update, call=call, memories=records, updated=updated)
            return updated

        return await self._surrounded(call, update)

    async def delete_memories(self, memory_ids: list[str]) -> int:
        return await self._delete(memory_ids, None)

    async def _delete_within(self, memory_ids: Sequence[str], scope: Scope) -> int:
        return await self._delete(memory_ids, scope)

    async def _delete(self, memory_ids: Sequence[str], scope: Scope | None) -> int:
        hooks = self._hooks
        call = self._call("delete_memories", scope, ids=_known_ids(memory_ids))

        async def delete() -> int:
            ids = checked_ids(memory_ids)
            await _asked(hooks.before_delete, lambda: {"call": call, "memory_ids": ids.copy()})
            if scope is None:
                deleted = await self.unhooked.delete_memories(ids)
            else:
                deleted = await self.unhooked._delete_within(ids, scope)
            call.count = deleted
            await _told(hooks.after_delete, call=call, memory_ids=ids, deleted=deleted)
            return deleted

        return await self._surrounded(call, delete)

    # --- reading ------------------------------------------------------------------------------

    async def search_memories(self, query: str, **arguments: Any) -> MemoryRecordResults:
        hooks = self._hooks
        call = self._call("search_memories", self._scope, arguments)

        async def search() -> MemoryRecordResults:
            asked = checked_query(query) if hooks.before_search else query
            for each in hooks.before_search:
                asked = await _query_before(each, call, asked)
            page = await self.unhooked.search_memories(asked, **arguments)
            page.memories = await _changed_after(
                hooks.after_search, call, page.memories, self._scope, query=asked
            )
            return page

        return await self._surrounded(call, search)

    async def list_memories(self, **arguments: Any) -> MemoryRecordResults:
        call = self._call("list_memories", self._scope, arguments)

        async def list_() -> MemoryRecordResults:
            await _asked(self._hooks.before_read, lambda: {"call": call})
            page = await self.unhooked.list_memories(**arguments)
            page.memories = await _changed_after(
                self._hooks.after_read, call, page.memories, self._scope
            )
            return page

        return await self._surrounded(call, list_)

    async def count_memories(self, **arguments: Any) -> int:
        call = self._call("count_memories", self._scope, arguments)

        async def count() -> int:
            await _asked(self._hooks.before_read, lambda: {"call": call})
            call.count = await self.unhooked.count_memories(**arguments)
            return call.count

        return await self._surrounded(call, count)

    async def get_memories(self, memory_ids: list[str]) -> list[MemoryRecord]:
        call = self._call("get_memories", self._scope, ids=_known_ids(memory_ids))

        async def get() -> list[MemoryRecord]:
            await _asked(self._hooks.before_read, lambda: {"call": call})
            found = await self.unhooked.get_memories(memory_ids)
            if self._scope is not None:  # hooks see no memory of others either
                found = [each for each in found if self._scope.contains(each)]
            return await _changed_after(self._hooks.after_read, call, found, self._scope)

        return await self._surrounded(call, get)

    async def iter_memories(self, **arguments: Any) -> AsyncIterator[MemoryRecord]:
        """Yield every matching memory once; each batch that is read is a call to the hooks.

        One call for the whole would keep contexts open while the caller works, in its context.
        """
        memories = self.unhooked.iter_memories(**arguments)
        reached_end = False
        try:
            while not reached_end:
                batch = await self._next_batch(memories, arguments)
                reached_end = len(batch) < _BATCH
                for each in batch:
                    yield each
        finally:
            close = getattr(memories, "aclose", None)
            if close is not None:
                await close()

    async def _next_batch(
        self, memories: AsyncIterator[MemoryRecord], arguments: Mapping[str, Any]
    ) -> list[MemoryRecord]:
        call = self._call("iter_memories", self._scope, arguments)

        async def read() -> list[MemoryRecord]:
            await _asked(self._hooks.before_read, lambda: {"call": call})
            batch: list[MemoryRecord] = []
            async for each in memories:
                batch.append(each)
                if len(batch) == _BATCH:
                    break
            return await _changed_after(self._hooks.after_read, call, batch, self._scope)

        return await self._surrounded(call, read)

    # --- what no hook is about ----------------------------------------------------------------

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self.unhooked.capabilities

    def scoped(self, **fields: Unpack[ScopeArguments]) -> ScopedMemories:
        """Return a handle confined to one tenant; its calls run the hooks too."""
        scope = Scope.of(**fields)
        behind = HookedMemories(self.unhooked, self._hooks, backend=self._backend, scope=scope)
        return ScopedMemories(behind, scope)

    async def ping(self) -> None:
        await self.unhooked.ping()

    async def aclose(self) -> None:
        await self.unhooked.aclose()

    async def __aenter__(self) -> Self:
        await self.unhooked.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.unhooked.__aexit__(exc_type, exc, traceback)

    # --- running hooks ------------------------------------------------------------------------

    def _call(
        self,
        operation: str,
        scope: Scope | None,
        arguments: Mapping[str, Any] | None = None,
        ids: tuple[str, ...] = (),
    ) -> Call:
        space = getattr(self.unhooked, "space", None)
        return Call(
            operation=operation,
            backend=self._backend,
            space=space if isinstance(space, str) else None,
            scope=MappingProxyType(dict(scope.fields) if scope else {}),
            arguments=MappingProxyType(dict(arguments or {})),
            ids=ids,
        )

    async def _surrounded(self, call: Call, work: Callable[[], Awaitable[_T]]) -> _T:
        """Do the work inside every context of `around_call`; they see how it ends."""
        if not self._hooks.around_call:
            return await work()
        entered: list[tuple[Implementation, AbstractAsyncContextManager[object]]] = []
        failure: BaseException | None = None
        try:
            for each in self._hooks.around_call:
                context = await _entered(each, call)
                if context is not None:
                    entered.append((each, context))
            result = await work()
        except BaseException as error:
            failure = error
        for each, context in reversed(entered):
            failure = await _left(each, context, call, failure)
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # or its traceback, which holds this frame, would hold it for ever
        return result


async def _entered(
    implementation: Implementation, call: Call
) -> AbstractAsyncContextManager[object] | None:
    try:
        context = implementation.start(call=call)
        if context is None:
            return None
        if not isinstance(context, AbstractAsyncContextManager):
            if inspect.iscoroutine(context):
                context.close()  # or Python would warn that it was never awaited
            raise HookTypeError(
                f"{implementation} returned {type(context).__name__} and no asynchronous context "
                f"manager: decorate it with contextlib.asynccontextmanager, below @hookimpl"
            )
        await context.__aenter__()
    except Exception as error:
        _note_refusal(implementation, error)
        raise
    return cast("AbstractAsyncContextManager[object]", context)


async def _left(
    implementation: Implementation,
    context: AbstractAsyncContextManager[object],
    call: Call,
    failure: BaseException | None,
) -> BaseException | None:
    """Leave a context and return the exception that the call ends with by now, if any."""
    try:
        # What it returns does not count: a failure would become an answer that is none.
        await context.__aexit__(
            None if failure is None else type(failure),
            failure,
            None if failure is None else failure.__traceback__,
        )
    except Exception as error:
        if failure is None:
            return _failed(implementation, error, call)
        if error is not failure:
            failure.add_note(f"besides, {implementation} failed: {type(error).__name__}: {error}")
    except BaseException as error:  # cancelled while leaving
        return error
    return failure


async def _asked(
    implementations: Sequence[Implementation], values: Callable[[], dict[str, Any]]
) -> None:
    """Run hooks that may only refuse."""
    for each in implementations:
        try:
            await each.run(**values())
        except Exception as error:
            _note_refusal(each, error)
            raise


async def _told(implementations: Sequence[Implementation], **values: Any) -> None:
    """Run hooks that learn what has been done."""
    for each in implementations:
        try:
            await each.run(**values)
        except Exception as error:
            raise _failed(each, error, values["call"]) from error


async def _query_before(implementation: Implementation, call: Call, query: str) -> str:
    try:
        changed = await implementation.run(call=call, query=query)
    except Exception as error:
        _note_refusal(implementation, error)
        raise
    if changed is None:
        return query
    if not isinstance(changed, str) or not changed.strip():
        raise HookTypeError(
            f"{implementation} returned {_described(changed)} as the query: return text that is "
            f"not blank, or None to leave the query as it is"
        )
    return changed


async def _changed_before(
    implementations: Sequence[Implementation],
    call: Call,
    memories: list[MemoryRecord],
    scope: Scope | None,
) -> list[MemoryRecord]:
    """Return the records as hooks have changed them on their way in."""
    ids = [each.id for each in memories]
    for each in implementations:
        given = memories.copy()
        try:
            changed = await each.run(call=call, memories=given)
        except Exception as error:
            _note_refusal(each, error)
            raise
        memories = _checked(each, given if changed is None else changed, ids, MemoryRecord, scope)
    return memories


async def _changed_after(
    implementations: Sequence[Implementation],
    call: Call,
    memories: list[_R],
    scope: Scope | None,
    **values: Any,
) -> list[_R]:
    """Note what a call has read, and return it as hooks have changed it on its way out."""
    ids = [each.id for each in memories]
    call.ids, call.count = tuple(ids), len(ids)
    scored = bool(memories) and isinstance(memories[0], MemoryRecordResult)
    kind = MemoryRecordResult if scored else MemoryRecord
    for each in implementations:
        given = memories.copy()
        try:
            changed = await each.run(call=call, memories=given, **values)
            kept = given if changed is None else changed
            memories = cast("list[_R]", _checked(each, kept, ids, kind, scope))
        except Exception as error:
            raise _failed(each, error, call) from error
    return memories


def _checked(
    implementation: Implementation,
    memories: object,
    ids: list[str],
    kind: type[MemoryRecord],
    scope: Scope | None,
) -> list[MemoryRecord]:
    """Return what a hook made of memories, if it is what a hook may make of them."""
    if not isinstance(memories, list) or not all(isinstance(each, kind) for each in memories):
        raise HookTypeError(
            f"{implementation} returned {_described(memories)}: return a list of {kind.__name__}, "
            f"or None"
        )
    if [each.id for each in memories] != ids:
        raise HookTypeError(
            f"{implementation} changed which memories the call is about: their ids may not change, "
            f"be lost, be added or change places; to refuse a memory raise an exception"
        )
    for each in memories if scope else ():
        assert scope is not None
        if not scope.contains(each):
            raise ScopeError(
                f"{implementation} moved the memory {each.id!r} out of this scope ({scope})"
            )
    return memories


def _note_refusal(implementation: Implementation, error: Exception) -> None:
    error.add_note(f"the call was refused by {implementation}; nothing was done")


def _failed(implementation: Implementation, error: Exception, call: Call) -> HookFailedError:
    failure = HookFailedError(
        f"{implementation} failed: {type(error).__name__}: {error}. By then {call.operation} had "
        f"been done: {_outcome(call)}"
    )
    failure.__cause__ = error
    return failure


def _outcome(call: Call) -> str:
    if call.operation in ("add_memories", "update_memories", "delete_memories"):
        return f"it wrote {call.count} of the memories, and repeating it is safe"
    return "nothing was changed, and what it read is not returned"


def _described(value: object) -> str:
    if inspect.isasyncgen(value) or inspect.isgenerator(value):
        return f"a generator ({type(value).__name__})"
    if isinstance(value, list):
        return f"a list of {', '.join(sorted({type(each).__name__ for each in value}))}"
    return f"a value of type {type(value).__name__}"


def _ids_of(memories: object) -> tuple[str, ...]:
    """Return the ids of what may be records: whether they are is checked inside the call."""
    if not isinstance(memories, (list, tuple)):
        return ()
    return tuple(each.id for each in memories if isinstance(each, MemoryRecord))


def _known_ids(ids: object) -> tuple[str, ...]:
    """Return the ids among what may be ids."""
    if isinstance(ids, str) or not isinstance(ids, (list, tuple, set, frozenset)):
        return ()
    return tuple(each for each in ids if isinstance(each, str))
