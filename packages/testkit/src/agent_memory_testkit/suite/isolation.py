"""Rules ISO-1 to ISO-4: spaces and tenants."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import strategies as st

from agent_memory import (
    Id,
    InvalidArgumentError,
    MemoryRecord,
    Namespace,
    ScopeError,
    SessionId,
    UserId,
)
from agent_memory_testkit import strategies
from agent_memory_testkit.samples import SIMILAR_TENANTS, memory
from agent_memory_testkit.suite.base import Case, SuiteBase, checked, checked_with

SCOPE_FIELDS = ("namespace", "user_id", "session_id")


class IsolationRules(SuiteBase):
    """ISO-1 to ISO-4."""

    @checked
    async def test_iso_1_spaces_do_not_see_each_other(self, case: Case) -> None:
        """Spaces with similar names hold their own records, also under one id.

        Usual causes: a key prefix that another space's name begins with, a table for all spaces
        whose queries do not name the space.
        """
        names = [
            case.space,
            f"{case.space}x",
            f"{case.space}:x",
            f"{case.space}_x",
            f"{case.space}-x",
            case.space.upper(),
        ]
        held = {
            name: [memory("same", f"<{n}>", user_id="ada"), memory(f"own{n}", "<0>", topics=["t"])]
            for n, name in enumerate(names)
        }
        handles = {name: await case.open(name) for name in names}
        for name, db in handles.items():
            await db.add_memories(held[name])
        for name, db in handles.items():
            await case.holds(db, held[name], f"space {name!r}")
            wanted = sorted(each.id for each in held[name])
            case.equal(await case.accepted(db), wanted, f"space {name!r}")
            case.equal(await case.accepted(db, user_id="ada"), ["same"], f"space {name!r}")
            ids = sorted([each.id async for each in db.iter_memories()])
            case.equal(ids, wanted, f"iter_memories of space {name!r}")
        first = handles[names[0]]
        case.equal(
            await first.delete_memories(["same", "own1", "own2"]), 1, "deleting ids of all spaces"
        )
        case.equal(
            await first.update_memories([memory("own1", "changed")]), 0, "updating another's id"
        )
        for name, db in list(handles.items())[1:]:
            await case.holds(db, held[name], f"space {name!r} after another one's delete")

    @checked
    async def test_iso_2_similar_tenants_do_not_see_each_other(self, case: Case) -> None:
        """Each of many similar users, namespaces and sessions sees its own record alone.

        Usual causes: folding, trimming or splitting in an index, a filter that falls back to no
        filter when it finds nothing.
        """
        memories = [memory("nobody's", "<0>")]
        for number, tenant in enumerate(SIMILAR_TENANTS):
            tenants = dict.fromkeys(SCOPE_FIELDS, tenant)
            memories.append(memory(f"m{number} of {tenant!a}", "<0>", **tenants))
        db = await case.filled(memories)
        for each, tenant in zip(memories[1:], SIMILAR_TENANTS, strict=True):
            for field in SCOPE_FIELDS:
                only: Any = {field: tenant}
                case.equal(await case.accepted(db, **only), [each.id], f"{field}={tenant!r}")
                ids = [one.id async for one in db.iter_memories(**only)]
                case.equal(ids, [each.id], f"iter_memories({field}={tenant!r})")
            for mode in ("keyword", "hybrid"):
                if f"{mode}_search" in self.profile.capabilities:
                    found = await db.search_memories(
                        "memory 0",
                        search_mode=mode,
                        user_id=tenant,
                        limit=1_000,
                    )
                    ids = [one.id for one in found.memories]
                    case.equal(ids, [each.id], f"{mode} search, user_id={tenant!r}")
        for stranger in ("ada!", "AdA", "b", "nobody"):
            case.equal(await case.accepted(db, user_id=stranger), [], f"user_id={stranger!r}")

    @checked
    async def test_iso_2_similar_tenants_do_not_change_each_other(self, case: Case) -> None:
        """Through a scoped handle, a tenant deletes and updates its own record alone.

        Usual causes: folding, trimming or splitting in an index; a scope that is applied to reads
        but not to writes.
        """
        memories = [
            memory(f"m{number} of {tenant!a}", "<0>", user_id=tenant)
            for number, tenant in enumerate(SIMILAR_TENANTS)
        ]
        everybody = [each.id for each in memories]
        db = await case.filled(memories)
        for each, tenant in zip(memories, SIMILAR_TENANTS, strict=True):
            mine = db.scoped(user_id=tenant)
            got = [one.id for one in await mine.get_memories(everybody)]
            case.equal(got, [each.id], f"scoped({tenant!r}).get_memories of all ids")
            case.equal(await mine.count_memories(), 1, f"scoped({tenant!r}).count_memories")
            changes = [memory(memory_id, f"<1> of {tenant!r}") for memory_id in everybody]
            case.equal(await mine.update_memories(changes), 1, f"scoped({tenant!r}).update")
            case.equal(await mine.delete_memories(everybody), 1, f"scoped({tenant!r}).delete")
            case.equal(
                await db.count_memories(), len(memories) - 1, f"after scoped({tenant!r}).delete"
            )
            await db.add_memories([each])
        await case.holds(db, memories, "after every tenant had a go")

    @checked
    async def test_iso_3_a_scope_stamps_what_it_adds(self, case: Case) -> None:
        """What a scoped handle adds belongs to the scope; a record that names another is refused.

        Usual cause: the scope added to filters alone.
        """
        db = await case.open()
        mine = db.scoped(namespace="n", user_id="ada")
        records = [memory("1"), memory("2", user_id="ada"), memory("3", session_id="s")]
        before = [each.model_dump() for each in records]
        case.equal(await mine.add_memories(records), ["1", "2", "3"], "the ids returned")
        case.equal([each.model_dump() for each in records], before, "the records handed in")
        stamped = [each.model_copy(update={"namespace": "n", "user_id": "ada"}) for each in records]
        await case.holds(db, stamped, "what the scoped handle added")
        for other in (memory("4", user_id="Ada"), memory("5", namespace="m")):
            await case.raises(
                ScopeError, mine.add_memories([memory("6"), other]), "adding another's record"
            )
            await case.raises(
                ScopeError,
                mine.update_memories([other.model_copy(update={"id": "1"})]),
                "updating to another's record",
            )
        await case.holds(db, stamped, "after what was refused")

    @checked
    async def test_iso_3_a_scope_acts_only_inside_itself(self, case: Case) -> None:
        """Every method of a scoped handle sees and changes the scope's records alone.

        Usual causes: a filter of the caller that replaces the scope's, an ``or`` that widens it,
        delete and get by id alone.
        """
        inside = [
            memory("1", "<1> window", namespace="n", user_id="ada", topics=["t"]),
            memory("2", "<2> window", namespace="n", user_id="ada"),
        ]
        outside = [
            memory("3", "<0> window", namespace="n", user_id="bob", topics=["t"]),
            memory("4", "<0> window", namespace="m", user_id="ada"),
            memory("5", "<0> window", user_id="ada"),
            memory("6", "<0> window"),
        ]
        everybody = [*inside, *outside]
        ids = [each.id for each in everybody]
        db = await case.filled(everybody)
        mine = db.scoped(namespace="n", user_id="ada")
        await case.holds(mine, inside, "the scoped handle")
        case.equal(await case.accepted(mine), ["1", "2"], "no filter")
        case.equal(await case.accepted(mine, topics="t"), ["1"], "a filter")
        case.equal(await case.accepted(mine, user_id="bob"), [], "a filter of another user")
        case.equal(
            await case.accepted(mine, user_id=["ada", "bob"]), ["1", "2"], "a filter of both users"
        )
        wide = UserId(eq="bob") | Namespace(eq="m") | Id(exists=True) | SessionId(exists=False)
        case.equal(await case.accepted(mine, wide), ["1", "2"], "an or of everything")
        case.equal([each.id async for each in mine.iter_memories()], ["1", "2"], "iter_memories")
        for mode in ("keyword", "hybrid"):
            if f"{mode}_search" in self.profile.capabilities:
                found = await mine.search_memories("window", search_mode=mode)
                got = sorted(each.id for each in found.memories)
                case.equal(got, ["1", "2"], f"{mode} search")
        changes = [memory(each, f"<3> {each}") for each in ids]
        case.equal(await mine.update_memories(changes), 2, "update_memories of all ids")
        case.equal(await mine.delete_memories([*ids, "unknown"]), 2, "delete_memories of all ids")
        await case.holds(db, outside, "what lies outside the scope")

    @checked
    async def test_iso_3_scopes_narrow_and_close_apart(self, case: Case) -> None:
        """A scope of a scope is narrower; closing a scoped handle leaves the database open.

        Usual cause: the inner scope replaces the outer.
        """
        db = await case.filled(
            [
                memory("1", namespace="n", user_id="ada"),
                memory("2", namespace="n", user_id="bob"),
                memory("3", namespace="m", user_id="ada"),
            ]
        )
        outer = db.scoped(namespace="n")
        inner = outer.scoped(user_id="ada")
        case.equal(await case.accepted(inner), ["1"], "a scope of a scope")
        for contradiction in ("m", "N"):
            try:
                widened = outer.scoped(namespace=contradiction)
            except ScopeError:
                continue
            case.fail(f"scoped(namespace={contradiction!r})", got=widened, should="a ScopeError")
        for nothing in ({}, {"user_id": ""}, {"usr_id": "ada"}, {"user_id": None}):
            anything: Any = db
            try:
                widened = anything.scoped(**nothing)
            except InvalidArgumentError:
                continue
            case.fail(f"scoped(**{nothing})", got=widened, should="an InvalidArgumentError")
        await inner.aclose()
        case.equal(await case.accepted(outer), ["1", "2"], "after closing the inner scope")
        await outer.aclose()
        case.equal(await case.accepted(db), ["1", "2", "3"], "after closing the outer scope")

    @checked_with(
        examples=25,
        held=st.lists(strategies.colliding_records(), max_size=6),
        tenant=st.sampled_from(strategies.FEW_TAGS),
        ids=st.lists(st.sampled_from(strategies.FEW_IDS), max_size=6),
    )
    async def test_iso_3_any_records_and_tenants(
        self, case: Case, held: list[MemoryRecord], tenant: str, ids: list[str]
    ) -> None:
        """A scope acts only inside itself, whatever records there are.

        Usual causes: delete and update by id alone, a filter of the caller that replaces the
        scope's.
        """
        model = case.model()
        model.add(held)
        db = await case.filled(held)
        mine = db.scoped(user_id=tenant)
        inside = [each for each in model.listed() if each.user_id == tenant]
        outside = [each for each in model.listed() if each.user_id != tenant]
        await case.holds(mine, inside, f"scoped(user_id={tenant!r})")
        own = {each.id for each in inside}
        case.equal(
            await mine.update_memories([memory(each, "<5> changed") for each in ids]),
            len(own & set(ids)),
            "the number that a scoped update returned",
        )
        case.equal(
            await mine.delete_memories(ids), len(own & set(ids)), "the number that were deleted"
        )
        left = [each for each in inside if each.id not in ids]
        await case.holds(db, [*outside, *left], "after a scoped update and delete")

    @checked
    async def test_iso_4_an_id_of_another_tenant_is_refused(self, case: Case) -> None:
        """A scoped add of an id held outside raises and changes nothing, own records included.

        Usual causes: add replaces by id wherever the record lies; part of the batch is stored.
        """
        other = memory("taken", "<1> of bob", user_id="bob")
        nobody = memory("free for all", "<2> nobody's")
        own = memory("own", "<3> of ada", user_id="ada")
        everybody = [other, nobody, own]
        db = await case.filled(everybody)
        mine = db.scoped(user_id="ada")
        for taken in ("taken", "free for all"):
            batch = [memory("new", "<4>"), memory("own", "<5> changed"), memory(taken, "<6>")]
            error = await case.raises(
                ScopeError, mine.add_memories(batch), f"a scoped add of {taken!r}"
            )
            case.check(taken in str(error), "its message", got=str(error), should="the id in it")
            await case.holds(db, everybody, "after the refused add")
        changed = memory("own", "<5> changed")
        case.equal(await mine.add_memories([changed]), ["own"], "a scoped add of an own id")
        wanted = changed.model_copy(update={"user_id": "ada"})
        await case.holds(db, [other, nobody, wanted], "after an add of an own id")

    @checked
    async def test_iso_4_of_two_tenants_at_once_one_gets_the_id(self, case: Case) -> None:
        """Two tenants add one new id at once: one stores its record, the other is refused.

        Usual cause: a look at who holds the id, and a write that does not look again.
        """
        db = await case.open()
        tenants = ("ada", "bob")
        for number in range(20):
            shared = f"shared{number}"
            calls = [
                db.scoped(user_id=each).add_memories(
                    [memory(f"{each}'s own {number}"), memory(shared, f"<1> of {each}")]
                )
                for each in tenants
            ]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            refused = [isinstance(each, ScopeError) for each in outcomes]
            case.check(
                sorted(refused) == [False, True],
                f"two scoped adds of {shared!r} at once",
                got=outcomes,
                should="the ids, and a ScopeError for the other tenant",
            )
            winner = tenants[refused.index(False)]
            [left] = await db.get_memories([shared])
            case.equal((left.user_id, left.text), (winner, f"<1> of {winner}"), "what is stored")
            counts = [await db.count_memories(user_id=each) for each in tenants]
            mine = await db.get_memories([f"{each}'s own {number}" for each in tenants])
            case.equal([each.user_id for each in mine], [winner], "the rest of both batches")
            case.equal(sum(counts), 2 * (number + 1), "records of both tenants")
