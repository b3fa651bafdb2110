"""What every group of rules builds on: the hooks of a suite, one run of a rule, the decorators.

The kit owns its event loop: a test is an ordinary method that runs its coroutine itself, so an
author needs no asyncio plugin. No rule is tested here.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import math
import os
import secrets
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Concatenate, NamedTuple, NoReturn, ParamSpec, TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from agent_memory import (
    Capability,
    Expression,
    InvalidArgumentError,
    MemoryRecord,
    MemoryVectorDatabase,
)
from agent_memory_testkit.embedders import CountingEmbeddings, ExactEmbeddings
from agent_memory_testkit.journal import (
    ConformanceFailure,
    Journal,
    Words,
    brief,
    recorded,
    story_of_failure,
)
from agent_memory_testkit.large import LargeSpace
from agent_memory_testkit.model import MemoryModel, differing_fields, same, stored
from agent_memory_testkit.profile import Profile
from agent_memory_testkit.rules import GROUPS, RULES, rule_of_test
from agent_memory_testkit.second_process import Task, started
from agent_memory_testkit.suite.shrinking import (
    Example,
    Search,
    TimeIsUp,
    without_explaining,
)

S = TypeVar("S", bound="SuiteBase")
P = ParamSpec("P")
E = TypeVar("E", bound=Exception)
T = TypeVar("T", bound=Callable[..., Any])
R = TypeVar("R")

EFFORT_VARIABLE = "AGENT_MEMORY_CONFORMANCE"
"""Set to ``thorough``, it makes the suite try ten times as many examples and larger spaces."""
PATIENCE_VARIABLE = "AGENT_MEMORY_CONFORMANCE_PATIENCE"
"""Seconds that a test may take; more for a slow engine or a busy machine."""
_PATIENCE_SECONDS = 120.0
_AFTER_A_HANG = 1 / 12
"""The part of that for other rules once one has hung: a broken backend hangs in many."""
_SPACE_PREFIX = f"conf_{secrets.token_hex(4)}"
_space_numbers = itertools.count()


def is_thorough() -> bool:
    """Tell whether the environment asks for a thorough run.

    Raises:
        InvalidArgumentError: the variable has a value other than ``default`` and ``thorough``.
    """
    effort = os.environ.get(EFFORT_VARIABLE, "default")
    if effort not in ("default", "thorough"):
        raise InvalidArgumentError(f"{EFFORT_VARIABLE}={effort!r}: expected default or thorough")
    return effort == "thorough"


def patience() -> float:
    """Return how many seconds a test may take before it counts as hanging.

    Raises:
        InvalidArgumentError: the variable is no number of seconds, more than 0.
    """
    given = os.environ.get(PATIENCE_VARIABLE)
    if given is None:
        return _PATIENCE_SECONDS
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InvalidArgumentError(f"{PATIENCE_VARIABLE}={given!r}: expected seconds, more than 0")
    return seconds


class SuiteBase:
    """The hooks of a conformance suite: what an author overrides."""

    profile: ClassVar[Profile]
    """What is expected of the backend."""
    directory: ClassVar[Path]
    """An empty directory that lives as long as the test class, for backends that need one."""

    _records_of_large_space: ClassVar[int] = 51_000
    """More than the offset of LST-3."""
    _large: ClassVar[LargeSpace | None]
    _opened: ClassVar[dict[str, CountingEmbeddings]]
    """Every space that was opened, with the embeddings that it was made with."""
    _met: ClassVar[Met]
    _hung: ClassVar[bool]
    """Whether a rule has taken more time than there is."""
    _temporary: ClassVar[AbstractContextManager[str]]

    async def open(self, space: str, embeddings: Any) -> MemoryVectorDatabase:
        """Return a new handle on the space of this name. Called several times for one space.

        Must be overridden. All that it needs must be reachable from the class (also in another
        process, which imports the class's module again), or from ``self.directory``.
        """
        raise NotImplementedError(
            f"{type(self).__name__} needs: async def open(self, space, embeddings)"
        )

    async def open_through(
        self, space: str, embeddings: Any, host: str, port: int
    ) -> MemoryVectorDatabase:
        """As `open`, but the handle reaches its engine at this address: the suite's faulty proxy.

        Must be overridden where the profile names a network. The handle must give a call up after
        the profile's timeout; make it a short one here.
        """
        raise NotImplementedError("a suite whose profile names no network opens nothing through it")

    async def clean_up(self, space: str, embeddings: Any) -> None:
        """Remove what a run left in a space. Called with every handle of the space closed.

        The default deletes all records, if the backend keeps any without a handle. Override it
        where the engine can drop a space at once.
        """
        if not self.profile.capabilities & {Capability.PERSISTENT, Capability.SHARED}:
            return
        async with await self.open(space, embeddings) as db:
            deleted: set[str] = set()
            while ids := [each.id for each in (await db.list_memories(limit=10_000)).memories]:
                if not deleted.isdisjoint(ids):
                    return  # what was deleted is still there: LeftoverRules will tell
                await db.delete_memories(ids)
                deleted.update(ids)

    async def engine_versions(self, db: MemoryVectorDatabase) -> Mapping[str, str]:
        """Return names and versions of what the backend stands on, for reports.

        The default asks the handle, if it has a coroutine method of this name.
        """
        asked = getattr(db, "engine_versions", None)
        return {} if asked is None else await asked()

    def second_process(self, task: Task) -> subprocess.Popen[str]:
        """Start another process that opens a space as this class does and does ``task`` there.

        The default imports the module of this class anew. Override it where that is not possible.
        """
        return started(task, suite=type(self), directory=self.directory)

    # --- the kit's own -----------------------------------------------------------------------

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        for name in cls.__dict__:
            rule = rule_of_test(name)
            if rule is not None and rule not in RULES and rule.partition("-")[0] in GROUPS:
                raise InvalidArgumentError(f"{cls.__name__}.{name}: there is no rule {rule}")
        if "profile" in cls.__dict__ and not isinstance(cls.profile, Profile):
            raise InvalidArgumentError(
                f"{cls.__name__}.profile: expected Profile('name', ...), got {cls.profile!r}"
            )

    @classmethod
    def setup_class(cls) -> None:
        if not hasattr(cls, "profile"):
            raise InvalidArgumentError(f"{cls.__name__} needs: profile = Profile('its name')")
        if cls.profile.network is not None and cls.open_through is SuiteBase.open_through:
            raise InvalidArgumentError(
                f"{cls.__name__} needs: async def open_through(self, space, embeddings, host, "
                f"port), because its profile names a network"
            )
        cls._temporary = tempfile.TemporaryDirectory(prefix="agent-memory-testkit-")
        cls.directory = Path(cls._temporary.__enter__())
        cls._large = None
        cls._hung = False
        cls._opened = {}
        try:
            cls._met = asyncio.run(cls()._meet())
        except BaseException:
            cls._temporary.__exit__(None, None, None)
            raise

    @classmethod
    def teardown_class(cls) -> None:
        try:
            cls.close_large_space()
        finally:
            cls._temporary.__exit__(None, None, None)

    async def _meet(self) -> Met:
        """Open a space and wait for a sign of life: what raises here is an error of every rule."""
        space, embeddings = new_space_name(), ExactEmbeddings()
        async with asyncio.timeout(patience()):
            db = await self.open(space, embeddings)
            if not isinstance(db, MemoryVectorDatabase):
                raise InvalidArgumentError(
                    f"{type(self).__name__}.open must return a MemoryVectorDatabase, got {db!r}"
                )
            try:
                await db.ping()
                met = Met(type(db), await self.engine_versions(db))
            finally:
                await db.aclose()
            await self.clean_up(space, embeddings)
        return met

    def large_space(self) -> LargeSpace:
        """Return the space of many records that several rules read, filling it at first."""
        cls = type(self)
        if cls._large is None:
            size = 100_000 if is_thorough() else self._records_of_large_space
            cls._large = LargeSpace(self.open, self.clean_up, new_space_name(), size)
            cls._opened[cls._large.name] = cls._large.embeddings
        return cls._large

    @classmethod
    def close_large_space(cls) -> None:
        """Close that space, if it was filled, and clean it up."""
        large, cls._large = cls._large, None
        if large is not None:
            large.close()


class Met(NamedTuple):
    """What the suite learnt of the backend when it opened a space for the first time."""

    handle: type[MemoryVectorDatabase]
    engine_versions: Mapping[str, str]


def new_space_name() -> str:
    """Return the name of a space that nobody has used."""
    return f"{_SPACE_PREFIX}_{next(_space_numbers)}"


class Case:
    """One run of a rule: a fresh space, handles on it, and the checks."""

    def __init__(self, suite: SuiteBase, rule: str | None) -> None:
        self.suite = suite
        self.profile = suite.profile
        self.rule = rule
        self.space = new_space_name()
        self.embeddings = ExactEmbeddings()
        self.journal = Journal()
        self._handles: list[MemoryVectorDatabase] = []
        self._spaces: dict[str, CountingEmbeddings] = {}

    # --- handles -----------------------------------------------------------------------------

    async def open(
        self, space: str | None = None, embeddings: CountingEmbeddings | None = None
    ) -> MemoryVectorDatabase:
        """Return a new handle, on the case's own space if none is named."""
        name = self.space if space is None else space
        chosen = self.embeddings if embeddings is None else embeddings
        return self._kept(await self.suite.open(name, chosen), name, chosen)

    async def open_through(self, host: str, port: int) -> MemoryVectorDatabase:
        """Return a new handle on the case's own space that reaches its engine at this address."""
        handle = await self.suite.open_through(self.space, self.embeddings, host, port)
        return self._kept(handle, self.space, self.embeddings)

    def _kept(
        self, handle: MemoryVectorDatabase, space: str, embeddings: CountingEmbeddings
    ) -> MemoryVectorDatabase:
        """Return ``handle`` such that its calls are recorded; it is closed with the case."""
        self._spaces.setdefault(space, embeddings)
        self.suite._opened.setdefault(space, embeddings)
        self._handles.append(handle)
        number = len(self._handles)
        return recorded(handle, self.journal, "db" if number == 1 else f"db{number}")

    def watched(self, handle: MemoryVectorDatabase) -> MemoryVectorDatabase:
        """Return a handle that the case did not open such that its calls are recorded."""
        return recorded(handle, self.journal, "db")

    async def filled(self, memories: Sequence[MemoryRecord]) -> MemoryVectorDatabase:
        """Return a new handle on the case's space, after adding ``memories``."""
        db = await self.open()
        await db.add_memories(list(memories))
        return db

    def model(self) -> MemoryModel:
        """Return an empty model of the case's space."""
        return MemoryModel(self.embeddings, self.profile.metric)

    async def close(self) -> None:
        """Close every handle and clean up every space."""
        for handle in self._handles:
            await handle.aclose()
        for space, embeddings in self._spaces.items():
            embeddings.fault = None
            await self.suite.clean_up(space, embeddings)

    def has(self, capability: Capability) -> bool:
        """Tell whether the profile expects a capability."""
        return capability in self.profile.capabilities

    # --- checks ------------------------------------------------------------------------------

    def fail(self, what: str, *, got: Any, should: Any) -> NoReturn:
        __tracebackhide__ = True
        raise ConformanceFailure(
            story_of_failure(
                self.rule,
                what,
                got=got,
                should=should,
                profile=self.profile.name,
                journal=self.journal,
            )
        )

    def check(self, condition: bool, what: str, *, got: Any, should: str) -> None:
        """Fail unless ``condition``; ``should`` says in words what is right."""
        __tracebackhide__ = True
        if not condition:
            self.fail(what, got=got, should=Words(should))

    def equal(self, got: Any, should: Any, what: str) -> None:
        """Fail unless two values are the same."""
        __tracebackhide__ = True
        if not same(got, should):
            self.fail(what, got=got, should=should)

    def close_to(self, got: Any, should: float, what: str, *, within: float = 1e-4) -> None:
        """Fail unless ``got`` is a number near ``should``."""
        __tracebackhide__ = True
        if not isinstance(got, (int, float)) or not abs(got - should) <= within:
            self.fail(what, got=got, should=Words(f"{should:.7g}, to {within:g}"))

    def equal_records(
        self, got: Sequence[MemoryRecord], should: Sequence[MemoryRecord], what: str
    ) -> None:
        """Fail unless two sequences hold the same records, every field equal, in the same order.

        ``should`` holds records as they were given to the backend.
        """
        __tracebackhide__ = True
        wanted = [stored(each) for each in should]
        if [each.id for each in got] != [each.id for each in wanted]:
            self.equal([each.id for each in got], [each.id for each in wanted], f"{what}: the ids")
        for one, other in zip(got, wanted, strict=True):
            if differing_fields(one, other):
                self.fail(f"{what}: the record {other.id!r}", got=one, should=other)

    async def holds(
        self, db: MemoryVectorDatabase, should: Sequence[MemoryRecord], what: str
    ) -> None:
        """Fail unless the handle shows exactly these records through list, count and get."""
        __tracebackhide__ = True
        page = await db.list_memories(limit=len(should) + 10)
        by_id = sorted(page.memories, key=lambda each: each.id)
        wanted = sorted(should, key=lambda each: each.id)
        self.equal_records(by_id, wanted, f"{what}: list_memories")
        self.equal(page.total, len(wanted), f"{what}: total of list_memories")
        self.equal(await db.count_memories(), len(wanted), f"{what}: count_memories")
        got = await db.get_memories([each.id for each in wanted])
        self.equal_records(got, wanted, f"{what}: get_memories")

    async def accepted(
        self,
        db: MemoryVectorDatabase,
        where: Expression | None = None,
        **filters: Any,
    ) -> list[str]:
        """Return the sorted ids that filters accept, which count, list and search must agree on."""
        __tracebackhide__ = True
        arguments = {**filters} if where is None else {**filters, "where": where}
        said = ", ".join(f"{name}={brief(value)}" for name, value in arguments.items())
        page = await db.list_memories(limit=1_000, **arguments)
        ids = sorted(each.id for each in page.memories)
        self.equal(page.total, len(ids), f"total of list_memories({said})")
        count = await db.count_memories(**arguments)
        self.equal(count, len(ids), f"count_memories({said}) as list_memories")
        found = await db.search_memories("<0>", limit=1_000, **arguments)
        self.equal(
            sorted(each.id for each in found.memories),
            ids,
            f"search_memories('<0>', {said}) as list_memories",
        )
        self.equal(found.total, len(ids), f"total of search_memories('<0>', {said})")
        return ids

    async def raises(self, kind: type[E], call: Awaitable[Any], what: str) -> E:
        """Await ``call``, which must raise ``kind``; return the error."""
        __tracebackhide__ = True
        got: Any
        try:
            got = await call
        except Exception as error:
            got = error
        if not isinstance(got, kind):
            self.fail(what, got=got, should=Words(f"{kind.__name__} is raised"))
        return got


# --- decorators ------------------------------------------------------------------------------


def _as_test(
    body: Callable[..., Any], run: Callable[[Any, str | None], None]
) -> Callable[[Any], None]:
    """Return a method that pytest collects under the name and the place of ``body``."""
    rule = rule_of_test(body.__name__)

    @functools.wraps(body)
    def test(self: SuiteBase) -> None:
        __tracebackhide__ = True
        run(self, rule)

    # Otherwise pytest reads the arguments of the body as fixtures.
    test.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    )
    return test


def _run_case(
    suite: SuiteBase, rule: str | None, body: Callable[[Case], Coroutine[Any, Any, None]]
) -> None:
    __tracebackhide__ = True
    asyncio.run(_case(suite, rule, body))


async def _case(
    suite: SuiteBase, rule: str | None, body: Callable[[Case], Coroutine[Any, Any, None]]
) -> None:
    __tracebackhide__ = True
    case = Case(suite, rule)
    try:
        await in_time(case, body(case))
    except ConformanceFailure:
        raise
    except Exception as error:
        error.add_note(f"while {rule} was tested on {suite.profile.name}\n{case.journal}")
        raise
    finally:
        await case.close()


async def in_time(case: Case, work: Coroutine[Any, Any, R]) -> R:
    """Return what ``work`` gives; fail if that takes far too long."""
    suite = type(case.suite)
    limit = patience() * (_AFTER_A_HANG if suite._hung else 1)
    try:
        async with asyncio.timeout(limit) as scope:
            return await work
    except TimeoutError:
        if not scope.expired():
            raise  # the backend's own
        less = f" (less than {patience():g} s, because a test before hung)" if suite._hung else ""
        suite._hung = True
        case.fail(
            "how long the calls take, all in all",
            got=Words(f"more than {limit:g} s{less}"),
            should=Words(
                f"they return; if they do and are slow, give them longer: {PATIENCE_VARIABLE}, "
                "or --patience of the command"
            ),
        )


def checked(
    body: Callable[[S, Case], Coroutine[Any, Any, None]],
) -> Callable[[S], None]:
    """Make a test of a coroutine that takes a `Case`."""
    return _as_test(
        body, lambda suite, rule: _run_case(suite, rule, functools.partial(body, suite))
    )


def checked_with(
    examples: int, **strategies: st.SearchStrategy[Any]
) -> Callable[[Callable[Concatenate[S, Case, P], Coroutine[Any, Any, None]]], Callable[[S], None]]:
    """Make a test of a coroutine that takes a `Case` and examples, each in a fresh space.

    Args:
        examples: how many to try; ten times as many in a thorough run.
        strategies: one for each further argument of the coroutine.
    """

    def decorate(
        body: Callable[Concatenate[S, Case, P], Coroutine[Any, Any, None]],
    ) -> Callable[[S], None]:
        def run(suite: Any, rule: str | None) -> None:
            __tracebackhide__ = True

            def test(example: Example) -> None:
                _run_case(suite, rule, functools.partial(body, suite, **example.values))

            test.__name__ = test.__qualname__ = body.__name__
            chosen = hypothesis_settings(examples)
            search = Search(test, chosen.max_examples)
            all_values = st.fixed_dictionaries(strategies).map(Example)
            try:
                given(example=all_values)(chosen(seeded(search.tried)))()
            except (Exception, TimeIsUp):
                failure = search.smallest_failure(shrink=Phase.shrink in chosen.phases)
                if failure is None:
                    raise  # hypothesis itself has something to say
                raise failure from None

        return _as_test(body, run)

    return decorate


_seed: int | str | None = None


def use_seed(number: int | str | None) -> None:
    """Let all generated examples follow from ``number``; ``None`` leaves them to hypothesis."""
    global _seed
    _seed = number


def seeded(test: T) -> T:
    """Return a test of hypothesis with the seed of `use_seed`, unless examples are derandomised."""
    if _seed is None or settings().derandomize:
        return test
    return seed(_seed)(test)


def hypothesis_settings(examples: int) -> settings:
    """Return the settings for ``examples`` examples, or ten times as many in a thorough run.

    Whatever is not set here is that of the hypothesis profile that is loaded.
    """
    return without_explaining(
        settings(
            max_examples=examples * (10 if is_thorough() else 1),
            deadline=None,  # engines are as fast as they are
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )
    )


def checked_on_large_space(
    body: Callable[[S, Case, LargeSpace], Coroutine[Any, Any, None]],
) -> Callable[[S], None]:
    """Make a test of a coroutine that reads the large space, which all such tests share."""

    def run(suite: Any, rule: str | None) -> None:
        __tracebackhide__ = True
        large = suite.large_space()
        large.run(_case(suite, rule, lambda case: body(suite, case, large)))

    return _as_test(body, run)
