"""The state machine: sequences of all methods, with every answer compared with the model's.

It stands for no rule of its own: it finds what only a sequence of calls brings about.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agent_memory import (
    Capability,
    Expression,
    MemoryRecord,
    RecencyParams,
    ScopeError,
    UserId,
)
from agent_memory_testkit import strategies
from agent_memory_testkit.journal import ConformanceFailure
from agent_memory_testkit.model import page_of, score
from agent_memory_testkit.suite.base import (
    Case,
    SuiteBase,
    hypothesis_settings,
    in_time,
    seeded,
)
from agent_memory_testkit.suite.searching import check_ranking, check_recency, holds_keywords
from agent_memory_testkit.suite.shrinking import Budget, Step, smallest_failing

_EXAMPLES = 30
_STEPS = 20

# Fewer ids than elsewhere: most calls should meet what an earlier one left.
_IDS = strategies.FEW_IDS[:5]
_batches = st.lists(strategies.colliding_records(_IDS), max_size=4)
_ids = st.lists(st.sampled_from(_IDS), max_size=4)
_conditions = st.none() | strategies.expressions()
_limits = st.sampled_from([5, 20, 1, 3])
_offsets = st.sampled_from([0, 0, 1, 2, 6])
_tenants = st.sampled_from(strategies.FEW_TAGS[:4])


def _kept(body: Callable[..., None]) -> Callable[..., None]:
    """Let a rule of the machine write down that it was followed, and with which arguments."""

    @functools.wraps(body)
    def followed(self: _MemoryMachine, **arguments: Any) -> None:
        self.steps.append((body.__name__, arguments))
        body(self, **arguments)

    return followed


class _MemoryMachine(RuleBasedStateMachine):
    """One space under arbitrary calls, beside the model of it."""

    def __init__(self, suite: SuiteBase) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.case = Case(suite, "MODEL")
        self.model = self.case.model()
        self.steps: list[Step] = []
        """What was done so far, such that it can be done again."""

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return self.runner.run(in_time(self.case, work))
        except ConformanceFailure:
            raise
        except Exception as error:
            error.add_note(f"while {self.case.profile.name} was compared with the model")
            error.add_note(str(self.case.journal))
            raise

    @initialize(memories=st.lists(strategies.colliding_records(_IDS), max_size=6))
    @_kept
    def open(self, memories: list[MemoryRecord]) -> None:
        self.model.add(memories)
        self.db = self.run(self.case.filled(memories))

    def teardown(self) -> None:
        with self.runner:
            self.runner.run(self.case.close())
        super().teardown()

    # --- writing -----------------------------------------------------------------------------

    @rule(memories=_batches)
    @_kept
    def add(self, memories: list[MemoryRecord]) -> None:
        got = self.run(self.db.add_memories(memories))
        self.case.equal(got, self.model.add(memories), "add_memories")
        self.check_the_whole_space()

    @rule(memories=_batches)
    @_kept
    def update(self, memories: list[MemoryRecord]) -> None:
        got = self.run(self.db.update_memories(memories))
        self.case.equal(got, self.model.update(memories), "update_memories")
        self.check_the_whole_space()

    @rule(ids=_ids)
    @_kept
    def delete(self, ids: list[str]) -> None:
        got = self.run(self.db.delete_memories(ids))
        self.case.equal(got, self.model.delete(ids), "delete_memories")
        self.check_the_whole_space()

    def check_the_whole_space(self) -> None:
        page = self.run(self.db.list_memories())
        self.case.equal_records(page.memories, self.model.listed(), "list_memories after a write")
        ranked = self.model.ranked("<0>")
        found = self.run(self.db.search_memories("<0>", limit=50))
        check_ranking(self.case, found, ranked, limit=50, what="search_memories after a write")

    # --- reading -----------------------------------------------------------------------------

    @rule(ids=_ids)
    @_kept
    def get(self, ids: list[str]) -> None:
        got = self.run(self.db.get_memories(ids))
        self.case.equal_records(got, self.model.get(ids), "get_memories")

    @rule(where=_conditions)
    @_kept
    def count(self, where: Expression | None) -> None:
        got = self.run(self.db.count_memories(where=where))
        self.case.equal(got, len(self.model.matching(where)), f"count_memories(where={where!r})")

    @rule(where=_conditions, limit=_limits, offset=_offsets)
    @_kept
    def list_page(self, where: Expression | None, limit: int, offset: int) -> None:
        page = self.run(self.db.list_memories(where=where, limit=limit, offset=offset))
        wanted = page_of(self.model.listed(where), limit=limit, offset=offset)
        self.case.equal_records(page.memories, wanted.items, "list_memories")
        self.case.equal(page.total, wanted.total, "total of list_memories")
        self.case.equal(page.next_offset, wanted.next_offset, "next_offset of list_memories")

    @rule(where=_conditions)
    @_kept
    def iterate(self, where: Expression | None) -> None:
        got = self.run(_all_of(self.db.iter_memories(where=where)))
        self.case.equal_records(got, self.model.listed(where), "iter_memories")

    # --- searching ---------------------------------------------------------------------------

    @rule(
        query=strategies.queries(),
        where=_conditions,
        limit=_limits,
        offset=_offsets,
        threshold=st.none() | st.sampled_from([0.0, 0.3, 0.55, 1.0, 1.3]),
    )
    @_kept
    def search(
        self,
        query: str,
        where: Expression | None,
        limit: int,
        offset: int,
        threshold: float | None,
    ) -> None:
        results = self.run(
            self.db.search_memories(
                query, where=where, limit=limit, offset=offset, distance_threshold=threshold
            )
        )
        ranked = self.model.ranked(query, where, threshold)
        check_ranking(
            self.case, results, ranked, limit=limit, offset=offset, what="search_memories"
        )

    @rule(
        query=strategies.queries(),
        where=_conditions,
        limit=_limits,
        offset=_offsets,
        recency=strategies.recency_params(),
    )
    @_kept
    def search_by_recency(
        self,
        query: str,
        where: Expression | None,
        limit: int,
        offset: int,
        recency: RecencyParams,
    ) -> None:
        results = self.run(
            self.db.search_memories(query, where=where, limit=limit, offset=offset, recency=recency)
        )
        ranked = self.model.ranked(query, where)
        check_recency(self.case, results, ranked, recency, limit=limit, offset=offset)

    @precondition(lambda self: self.case.has(Capability.KEYWORD_SEARCH))
    @rule(query=strategies.keyword_queries(), where=_conditions)
    @_kept
    def search_by_words(self, query: str, where: Expression | None) -> None:
        results = self.run(
            self.db.search_memories(query, search_mode="keyword", where=where, limit=50)
        )
        wanted = {
            each.id: each for each in self.model.matching(where) if holds_keywords(each, query)
        }
        self.case.equal(
            sorted(each.id for each in results.memories),
            sorted(wanted),
            f"keyword search for {query!r}",
        )
        self.case.equal(results.total, len(wanted), f"total of keyword search for {query!r}")
        for each in results.memories:
            self.case.equal_records([each], [wanted[each.id]], "keyword search")

    @precondition(lambda self: self.case.has(Capability.HYBRID_SEARCH))
    @rule(query=strategies.queries(), where=_conditions, alpha=st.sampled_from([0.5, 1.0]))
    @_kept
    def search_by_both(self, query: str, where: Expression | None, alpha: float) -> None:
        results = self.run(
            self.db.search_memories(
                query, search_mode="hybrid", hybrid_alpha=alpha, where=where, limit=50
            )
        )
        wanted = {each.id: each for each in self.model.ranked(query, where)}
        self.case.equal(
            sorted(each.id for each in results.memories), sorted(wanted), "hybrid search: the ids"
        )
        for each in results.memories:
            found = wanted[each.id]
            self.case.close_to(each.dist, found.dist, f"dist of {each.id!r}")
            least = alpha * score(self.case.profile.metric, found.dist)
            words = 1 - alpha if holds_keywords(found.record, query) else 0.0
            self.case.check(
                each.score is not None and least - 1e-4 <= each.score <= least + words + 1e-4,
                f"score of {each.id!r}",
                got=each.score,
                should=f"{least:.6g} to {least + words:.6g}",
            )

    # --- scoped ------------------------------------------------------------------------------

    @rule(tenant=_tenants, memories=_batches)
    @_kept
    def scoped_add(self, tenant: str, memories: list[MemoryRecord]) -> None:
        mine = self.db.scoped(user_id=tenant)
        memories = [each.model_copy(update={"user_id": None}) for each in memories]
        held = self.model.get(each.id for each in memories)
        if any(each.user_id != tenant for each in held):
            self.run(self.case.raises(ScopeError, mine.add_memories(memories), "a scoped add"))
            return
        got = self.run(mine.add_memories(memories))
        wanted = self.model.add(each.model_copy(update={"user_id": tenant}) for each in memories)
        self.case.equal(got, wanted, "a scoped add")
        self.check_the_whole_space()

    @rule(tenant=_tenants, ids=_ids)
    @_kept
    def scoped_delete(self, tenant: str, ids: list[str]) -> None:
        got = self.run(self.db.scoped(user_id=tenant).delete_memories(ids))
        own = [each.id for each in self.model.get(ids) if each.user_id == tenant]
        self.case.equal(got, self.model.delete(own), "a scoped delete")
        self.check_the_whole_space()

    @rule(tenant=_tenants, where=_conditions, ids=_ids)
    @_kept
    def scoped_reads(self, tenant: str, where: Expression | None, ids: list[str]) -> None:
        mine = self.db.scoped(user_id=tenant)
        condition = UserId(eq=tenant) if where is None else where & UserId(eq=tenant)
        wanted = self.model.listed(condition)
        page = self.run(mine.list_memories(where=where))
        self.case.equal_records(page.memories, wanted, "a scoped list")
        self.case.equal(self.run(mine.count_memories(where=where)), len(wanted), "a scoped count")
        check_ranking(
            self.case,
            self.run(mine.search_memories("<0>", where=where)),
            self.model.ranked("<0>", condition),
            limit=10,
            what="a scoped search",
        )
        got = self.run(mine.get_memories(ids))
        own = [each for each in self.model.get(ids) if each.user_id == tenant]
        self.case.equal_records(got, own, "a scoped get")


async def _all_of(iterator: Any) -> list[MemoryRecord]:
    return [each async for each in iterator]


class ModelRules(SuiteBase):
    """Every method against the model, in any order."""

    def test_all_methods_agree_with_the_model(self) -> None:
        """Sequences of calls give what a plain dict of records would give.

        The failure names the call; its cause is that of the rule which the call belongs to, or
        something that an earlier call left behind.
        """
        __tracebackhide__ = True
        budget = Budget(_EXAMPLES)
        machine: _MemoryMachine | None = None

        def make() -> _MemoryMachine:
            nonlocal machine
            budget.count_example()
            machine = _MemoryMachine(self)
            return machine

        chosen = hypothesis_settings(_EXAMPLES)
        # Hypothesis finds a failure; what is small is found by leaving out calls, see below.
        phases = [each for each in chosen.phases if each is not Phase.shrink]
        try:
            machines: Any = seeded(make)
            run_state_machine_as_test(
                machines,
                settings=settings(chosen, phases=phases, stateful_step_count=_STEPS),
            )
        except Exception as failure:
            if machine is None or Phase.shrink not in chosen.phases:
                raise
            raise self._small_failure(machine.steps, budget) or failure from None

    def _small_failure(self, steps: Sequence[Step], budget: Budget) -> Exception | None:
        """Return what the fewest of ``steps`` raise; ``None`` if they do not fail once more."""
        first, *others = steps
        smallest: Exception | None = None

        def fails(candidate: Sequence[Step]) -> bool:
            nonlocal smallest
            failure = self._failure_of([first, *candidate])
            if failure is None or (smallest and type(failure) is not type(smallest)):
                return False
            smallest = failure
            return True

        if fails(others):
            smallest_failing(others, fails, budget)
        return smallest

    def _failure_of(self, steps: Sequence[Step]) -> Exception | None:
        machine = _MemoryMachine(self)
        try:
            for name, arguments in steps:
                getattr(machine, name)(**arguments)
        except Exception as failure:
            return failure
        finally:
            machine.teardown()
        return None
