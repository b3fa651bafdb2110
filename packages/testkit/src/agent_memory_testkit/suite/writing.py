"""Rules ADD-1 to ADD-8, UPD-1 to UPD-3 and DEL-1 to DEL-3: what writing does."""

from __future__ import annotations

from hypothesis import strategies as st

from agent_memory import EmbeddingError, MemoryRecord, MemoryVectorDatabase
from agent_memory_testkit import strategies
from agent_memory_testkit.embedders import NUMPY_IS_INSTALLED, POISON, Container, Fault
from agent_memory_testkit.samples import DAY, NOW, TROUBLE, memory
from agent_memory_testkit.suite.base import Case, SuiteBase, checked, checked_with

MANY = 10_000


class WritingRules(SuiteBase):
    """ADD-1 to ADD-8, UPD-1 to UPD-3, DEL-1 to DEL-3."""

    # --- add_memories ------------------------------------------------------------------------

    @checked
    async def test_add_1_ids_are_returned_in_the_order_given(self, case: Case) -> None:
        """The ids come back as given, one for each record.

        Usual causes: ids of the engine returned instead, a set or a dict between call and answer.
        """
        db = await case.open()
        ids = ["c", "a", "b", "B", "a "]
        case.equal(await db.add_memories([memory(each) for each in ids]), ids, "ids of new records")
        again = ["b", "d", "b", "a"]
        case.equal(
            await db.add_memories([memory(each) for each in again]), again, "ids, some repeated"
        )

    @checked
    async def test_add_1_an_empty_list_embeds_nothing(self, case: Case) -> None:
        """Adding nothing returns ``[]`` and does not call the embeddings.

        Usual cause: no early return, so the embedding service is asked for nothing (and refuses).
        """
        db = await case.open()
        case.equal(await db.add_memories([]), [], "add_memories([])")
        case.equal(case.embeddings.document_batches, [], "calls of the embeddings")
        case.equal(await db.count_memories(), 0, "count after adding nothing")

    @checked
    async def test_add_2_an_existing_id_is_replaced_as_a_whole(self, case: Case) -> None:
        """Nothing of the earlier record is left: no field, no tag, no meaning.

        Usual causes: fields merged into the stored ones, ``None`` not written, an index entry of
        the earlier value left behind.
        """
        full = memory(
            "m",
            "<1> before",
            user_id="ada",
            session_id="s",
            namespace="n",
            topics=["old"],
            entities=["old"],
            metadata={"old": 1},
            event_date=NOW,
            persisted_at=NOW,
            pinned=True,
            access_count=3,
        )
        bare = memory("m", "<2> after")
        db = await case.filled([full, memory("other", user_id="ada")])
        await db.add_memories([bare])
        await case.holds(db, [bare, memory("other", user_id="ada")], "after replacing")
        case.equal(await case.accepted(db, user_id="ada"), ["other"], "the old user_id")
        case.equal(await case.accepted(db, topics="old"), [], "the old topic")
        found = await db.search_memories("<2>", limit=1)
        case.equal(found.memories[0].id, "m", "nearest to the new text")
        case.close_to(found.memories[0].dist, _self_distance(case), "its distance")

    @checked
    async def test_add_3_the_last_wins_with_its_own_vector(self, case: Case) -> None:
        """The last record of a repeated id is there, with its tags and its meaning.

        Usual causes: one insert that keeps the first, a vector that belongs to another record.
        """
        batch = [
            memory("a", "<1> first", user_id="ada"),
            memory("b", "<2> other"),
            memory("a", "<3> second", user_id="bob"),
            memory("a", "<4> last", topics=["t"]),
        ]
        db = await case.filled(batch)
        await case.holds(db, [batch[3], batch[1]], "after adding 'a' three times in one call")
        case.equal(await case.accepted(db, user_id=["ada", "bob"]), [], "by the tags of the others")
        for query, nearest in (("<4>", "a"), ("<2>", "b")):
            found = await db.search_memories(query, limit=1)
            case.equal([each.id for each in found.memories], [nearest], f"nearest to {query!r}")
            case.close_to(found.memories[0].dist, _self_distance(case), "its distance")

    @checked_with(examples=15, memories=st.lists(strategies.colliding_records(), max_size=6))
    async def test_add_3_the_last_of_a_repeated_id_is_stored_once(
        self, case: Case, memories: list[MemoryRecord]
    ) -> None:
        """Of an id twice in one call, the last record is stored, and once.

        Usual causes: one insert for all rows that keeps the first, two rows with one id, vectors
        that belong to the other record.
        """
        model = case.model()
        db = await case.open()
        case.equal(await db.add_memories(memories), model.add(memories), "the ids returned")
        await case.holds(db, model.listed(), "after adding repeated ids")
        await _vectors_follow_texts(case, db, model.listed())

    @checked_with(examples=15, memories=st.lists(strategies.records(), min_size=1, max_size=3))
    async def test_add_4_the_callers_records_are_not_changed(
        self, case: Case, memories: list[MemoryRecord]
    ) -> None:
        """What is handed in stays as it is: no hash, no time, no list is set on it.

        Usual cause: the hash or ``persisted_at`` is written on the caller's object.
        """
        before = [each.model_dump() for each in memories]
        db = await case.filled(memories)
        await db.update_memories(memories)
        case.equal([each.model_dump() for each in memories], before, "the records handed in")

    @checked
    async def test_add_4_stored_records_are_copies(self, case: Case) -> None:
        """What callers do with their objects afterwards does not reach what is stored.

        Usual cause: a backend in memory that stores, or hands out, the very objects.
        """
        original = memory("m", topics=["a"], metadata={"list": [1]})
        wanted = original.model_copy(deep=True)
        db = await case.filled([original])
        listed = (await db.list_memories()).memories
        found = (await db.search_memories("<0>")).memories
        got = await db.get_memories(["m"])
        iterated = [each async for each in db.iter_memories()]
        for each in (original, *listed, *found, *got, *iterated):
            assert each.topics is not None
            each.topics.append("changed")
            each.metadata["changed"] = True
            each.text = "changed"
            await case.holds(db, [wanted], "after a caller changed its own object")

    @checked
    async def test_add_5_texts_are_embedded_in_batches(self, case: Case) -> None:
        """500 texts need a few calls of the embeddings, not 500.

        Usual cause: embedding inside the loop over the records.
        """
        db = await case.filled([memory(f"m{n}", f"text number {n}") for n in range(500)])
        calls = len(case.embeddings.document_batches)
        case.check(
            calls <= 10, "calls of the embeddings for 500 records", got=calls, should="10 or fewer"
        )
        case.equal(case.embeddings.query_calls, 0, "calls of aembed_query by add_memories")
        case.embeddings.forget_calls()
        await db.update_memories([memory(f"m{n}", f"another text {n}") for n in range(500)])
        calls = len(case.embeddings.document_batches)
        case.check(
            calls <= 10, "calls of the embeddings for 500 updates", got=calls, should="10 or fewer"
        )

    @checked
    async def test_add_6_failed_embedding_stores_nothing(self, case: Case) -> None:
        """If one text cannot be embedded, the call raises and the space is as it was.

        Usual causes: records written before or while others are embedded, vectors zipped with
        texts without counting them, NaN accepted.
        """
        kept = memory("kept", "<1> as it was")
        db = await case.filled([kept])
        faults = [
            each
            for each in Fault
            if each is not Fault.NO_DIRECTION or case.profile.metric == "cosine"
        ]
        for fault in faults:
            case.embeddings.fault = fault
            batch = [memory(f"new{n}", f"text {n}") for n in range(300)]
            batch += [memory("poisoned", f"{POISON} for {fault}"), memory("kept", "<2> replaced")]
            await case.raises(
                EmbeddingError, db.add_memories(batch), f"add_memories when embedding {fault.name}"
            )
            await case.holds(db, [kept], f"after add_memories when embedding {fault.name}")
            await case.raises(
                EmbeddingError,
                db.update_memories([memory("kept", f"{POISON} for {fault}", user_id="changed")]),
                f"update_memories when embedding {fault.name}",
            )
            await case.holds(db, [kept], f"after update_memories when embedding {fault.name}")
        case.embeddings.fault = None
        await db.add_memories([memory("after", "all is well again")])
        case.equal(await db.count_memories(), 2, "count after the embeddings work again")

    @checked
    async def test_add_6_vectors_may_be_of_any_kind_of_sequence(self, case: Case) -> None:
        """Vectors come as lists, as tuples, or as NumPy arrays where NumPy is installed.

        Usual cause: ``vector.tolist()``, or a truth test of an array.
        """
        db = await case.open()
        kinds: list[Container] = ["lists", "tuples"]
        if NUMPY_IS_INSTALLED:
            kinds.append("arrays")
        for number, kind in enumerate(kinds):
            case.embeddings.container = kind
            await db.add_memories([memory(kind, f"<{number}> given as {kind}")])
            found = await db.search_memories(f"<{number}>", limit=1)
            case.equal([each.id for each in found.memories], [kind], f"search with {kind}")

    @checked
    async def test_add_7_a_write_is_seen_by_the_next_call(self, case: Case) -> None:
        """Every method sees at once what was added, updated and deleted before.

        Usual cause: an index that refreshes later, a cache that is not told.
        """
        db = await case.open()
        for number in range(10):
            memory_id = f"m{number}"
            await db.add_memories([memory(memory_id, "<1>", user_id="before")])
            await self._is_seen_everywhere(case, db, memory_id, "before")
            await db.update_memories([memory(memory_id, "<1>", user_id="after")])
            await self._is_seen_everywhere(case, db, memory_id, "after")
            await db.delete_memories([memory_id])
            case.equal(await case.accepted(db), [], "the ids right after a delete")

    async def _is_seen_everywhere(
        self, case: Case, db: MemoryVectorDatabase, memory_id: str, user: str
    ) -> None:
        case.equal(await case.accepted(db), [memory_id], "without a filter, right after a write")
        case.equal(await case.accepted(db, user_id=user), [memory_id], "right after a write")
        [got] = await db.get_memories([memory_id])
        case.equal(got.user_id, user, "get_memories right after a write")
        ids = [each.id async for each in db.iter_memories(user_id=user)]
        case.equal(ids, [memory_id], "iter_memories right after a write")

    @checked
    async def test_add_8_ten_thousand_records_in_one_call(self, case: Case) -> None:
        """10,000 records go in by one call.

        Usual causes: a maximum of parameters in one statement, a maximum size of a message.
        """
        db = await case.open()
        ids = [f"m{n}" for n in range(MANY)]
        returned = await db.add_memories(
            [memory(each, f"<{n % 97}>") for n, each in enumerate(ids)]
        )
        case.equal(returned, ids, "the ids returned")
        case.equal(await db.count_memories(), MANY, "count_memories")
        got = await db.get_memories(ids)
        case.equal({each.id for each in got}, set(ids), "get_memories of 10,000 ids")

    # --- update_memories ---------------------------------------------------------------------

    @checked
    async def test_upd_1_nothing_of_the_earlier_record_is_left(self, case: Case) -> None:
        """The stored record is the one given, in every field and every index.

        Usual causes: only fields that are set are written, an index entry left behind.
        """
        full = memory(
            "m", "<1>", user_id="ada", topics=["old"], metadata={"old": 1}, event_date=NOW
        )
        other = memory("other", "<5>", user_id="ada")
        bare = memory("m", "<1>", created_at=NOW - DAY)
        db = await case.filled([full, other])
        case.equal(await db.update_memories([bare]), 1, "the number returned")
        await case.holds(db, [bare, other], "after the update")
        case.equal(await case.accepted(db, user_id="ada"), ["other"], "by the old user_id")
        case.equal(await case.accepted(db, topics="old"), [], "by the old topic")
        case.equal(await db.update_memories([full, other]), 2, "the number returned for two")
        await case.holds(db, [full, other], "after updating back")

    @checked_with(
        examples=15,
        pairs=st.lists(
            st.tuples(strategies.colliding_records(), strategies.colliding_records()),
            max_size=5,
            unique_by=lambda pair: pair[0].id,
        ),
    )
    async def test_upd_1_existing_records_are_replaced_and_counted(
        self, case: Case, pairs: list[tuple[MemoryRecord, MemoryRecord]]
    ) -> None:
        """What exists is replaced as a whole, and the number of those is returned.

        Usual causes: fields merged, the number of changed rows that an engine gives.
        """
        before = [first for first, _ in pairs]
        changes = [second.model_copy(update={"id": first.id}) for first, second in pairs]
        db = await case.filled(before)
        case.equal(await db.update_memories(changes), len(changes), "the number returned")
        await case.holds(db, changes, "after update_memories")

    @checked
    async def test_upd_1_what_was_found_can_be_changed_and_written_back(self, case: Case) -> None:
        """A result of a search is a record: changed, it can be handed to ``update_memories``.

        Usual cause: ``dist`` and ``score`` stored as fields of the record.
        """
        db = await case.filled([memory("m", "<1>", user_id="ada")])
        [found] = (await db.search_memories("<1>")).memories
        found.access_count += 1
        case.equal(await db.update_memories([found]), 1, "the number returned")
        await case.holds(db, [memory("m", "<1>", user_id="ada", access_count=1)], "written back")

    @checked
    async def test_upd_2_unknown_ids_are_neither_created_nor_counted(self, case: Case) -> None:
        """An update of what is not there does nothing; an id given twice counts once.

        Usual cause: update implemented as add (an upsert).
        """
        db = await case.filled([memory("a"), memory("b")])
        case.equal(await db.update_memories([]), 0, "update_memories([])")
        unknown = [memory("A", "ghost"), memory("a ", "ghost"), memory("c", "ghost")]
        case.equal(await db.update_memories(unknown), 0, "unknown ids: the number returned")
        changes = [memory("a", "first"), memory("x", "ghost"), memory("a", "last")]
        case.equal(await db.update_memories(changes), 1, "a repeated id: the number returned")
        await case.holds(db, [memory("a", "last"), memory("b")], "after the updates")

    @checked_with(
        examples=20,
        before=st.lists(strategies.colliding_records(), max_size=5),
        changes=st.lists(strategies.colliding_records(), max_size=5),
    )
    async def test_upd_2_any_records_known_and_unknown(
        self, case: Case, before: list[MemoryRecord], changes: list[MemoryRecord]
    ) -> None:
        """Only what exists is replaced and counted; of an id twice the last record is left.

        Usual causes: an upsert, the length of the list returned.
        """
        model = case.model()
        model.add(before)
        db = await case.filled(before)
        case.equal(await db.update_memories(changes), model.update(changes), "the number returned")
        await case.holds(db, model.listed(), "after update_memories")

    @checked
    async def test_upd_3_a_changed_text_is_found_by_its_new_meaning_alone(self, case: Case) -> None:
        """The vector follows the text.

        Usual cause: the fields are updated and the vector is left as it was.
        """
        db = await case.filled([memory("m", "<1> old"), memory("twin", "<2> new")])
        await db.update_memories([memory("m", "<2> new")])
        near_new = await db.search_memories("<2>", limit=1)
        case.equal(near_new.memories[0].id, "m", "nearest to the new meaning")
        case.close_to(
            near_new.memories[0].dist, _self_distance(case), "distance to the new meaning"
        )
        by_id = {each.id: each.dist for each in (await db.search_memories("<1>")).memories}
        assert by_id["twin"] is not None
        case.close_to(
            by_id["m"], by_id["twin"], "distance to the old meaning, as of a record with that text"
        )

    @checked_with(
        examples=10,
        before=st.lists(strategies.colliding_records(), max_size=5),
        changes=st.lists(strategies.colliding_records(), max_size=5),
    )
    async def test_upd_3_every_vector_follows_its_text(
        self, case: Case, before: list[MemoryRecord], changes: list[MemoryRecord]
    ) -> None:
        """After any update, records are as far from a query as if they were added as they are.

        Usual causes: the vector written only when a record is added; vectors that belong to
        another record of the same call.
        """
        model = case.model()
        model.add(before)
        model.update(changes)
        db = await case.filled(before)
        await db.update_memories(changes)
        await _vectors_follow_texts(case, db, model.listed())

    @checked
    async def test_upd_3_an_unchanged_text_is_not_embedded_again(self, case: Case) -> None:
        """Only texts that changed are embedded; the others keep their vector.

        Usual cause: update implemented as delete and add.
        """
        before = [memory(f"m{n}", f"<{n}> text") for n in range(5)]
        db = await case.filled(before)
        case.embeddings.forget_calls()
        changes = [each.model_copy(update={"user_id": "ada"}) for each in before]
        changes[3] = memory("m3", "<12> another text", user_id="ada")
        changes.append(memory("unknown", "<13> never stored"))
        await db.update_memories(changes)
        case.equal(case.embeddings.texts_embedded, 1, "texts embedded by update_memories")
        await case.holds(db, changes[:-1], "after update_memories")
        for number in (0, 1, 2, 4):
            found = await db.search_memories(f"<{number}>", limit=1)
            case.equal(found.memories[0].id, f"m{number}", "found by the vector it kept")

    # --- delete_memories ---------------------------------------------------------------------

    @checked
    async def test_del_1_unknown_and_repeated_ids_count_nothing(self, case: Case) -> None:
        """The number is that of the records that are gone.

        Usual cause: the length of the list returned.
        """
        db = await case.filled([memory(each) for each in "abcd"])
        case.equal(await db.delete_memories([]), 0, "delete_memories([])")
        case.equal(await db.delete_memories(["x", "b", "y", "b", "d"]), 2, "the number returned")
        await case.holds(db, [memory("a"), memory("c")], "after the delete")
        case.equal(await db.delete_memories(["b", "d"]), 0, "the same ids again")

    @checked_with(
        examples=15,
        stored=st.sets(st.sampled_from("abcdef")),
        ids=st.lists(st.sampled_from("abcdefgh"), max_size=8),
    )
    async def test_del_1_the_number_of_records_gone_is_returned(
        self, case: Case, stored: set[str], ids: list[str]
    ) -> None:
        """Counts what existed; unknown and repeated ids count nothing.

        Usual cause: the length of the list returned.
        """
        db = await case.filled([memory(each) for each in sorted(stored)])
        case.equal(await db.delete_memories(ids), len(stored & set(ids)), "the number returned")
        case.equal(await db.delete_memories(ids), 0, "deleting the same ids again")

    @checked_with(
        examples=20,
        memories=st.lists(strategies.colliding_records(), max_size=6),
        ids=st.lists(st.sampled_from(strategies.FEW_IDS), max_size=6),
    )
    async def test_del_2_all_others_stay(
        self, case: Case, memories: list[MemoryRecord], ids: list[str]
    ) -> None:
        """Of any records, those with the ids are gone and all others are as they were.

        Usual causes: an id taken for a similar one, a pattern or a prefix.
        """
        model = case.model()
        model.add(memories)
        db = await case.filled(memories)
        case.equal(await db.delete_memories(ids), model.delete(ids), "the number returned")
        await case.holds(db, model.listed(), "after delete_memories")

    @checked
    async def test_del_2_deleted_records_are_gone_everywhere(self, case: Case) -> None:
        """No method shows a deleted record.

        Usual causes: the vector stays in the index, only the first id is deleted.
        """
        memories = [memory(f"m{n}", f"<{n}>", user_id="ada") for n in range(6)]
        db = await case.filled(memories)
        case.equal(await db.delete_memories(["m1", "m3", "m5"]), 3, "the number returned")
        left = [memories[0], memories[2], memories[4]]
        await case.holds(db, left, "after delete_memories")
        case.equal(await case.accepted(db, user_id="ada"), ["m0", "m2", "m4"], "by filter")
        case.equal(await db.get_memories(["m1", "m3", "m5"]), [], "get_memories of deleted ids")
        ids = [each.id async for each in db.iter_memories()]
        case.equal(ids, ["m0", "m2", "m4"], "iter_memories")

    @checked
    async def test_del_2_similar_ids_stay(self, case: Case) -> None:
        """Deleting an id leaves those that it is a prefix, a suffix, a pattern or a case of.

        Usual causes: delete by pattern or prefix, an id put into a query without escaping.
        """
        remaining = {value: memory(value, "<0>") for value in TROUBLE}
        db = await case.filled(list(remaining.values()))
        for value in TROUBLE:
            gone = remaining.pop(value)
            case.equal(await db.delete_memories([value]), 1, f"delete_memories([{value!r}])")
            case.equal(await db.count_memories(), len(remaining), f"count after deleting {value!r}")
            case.equal(await db.get_memories([value]), [], f"get_memories([{value!r}])")
            await db.add_memories([gone])
            case.equal(
                await db.count_memories(), len(remaining) + 1, f"count after adding {value!r} again"
            )
            remaining[value] = gone
        await case.holds(db, list(remaining.values()), "after deleting and adding each")

    @checked
    async def test_del_3_ten_thousand_ids_in_one_call(self, case: Case) -> None:
        """10,000 ids go by one call, and can be added again.

        Usual causes: a maximum of parameters in one statement, tombstones that hide what is added.
        """
        memories = [memory(f"m{n}", f"<{n % 97}>") for n in range(MANY)]
        db = await case.filled([*memories, memory("other")])
        ids = [each.id for each in memories]
        case.equal(await db.delete_memories([*ids, "unknown"]), MANY, "the number returned")
        await case.holds(db, [memory("other")], "after deleting 10,000")
        case.equal(await db.delete_memories(ids), 0, "deleting them again")
        again = memory("m7", "<3> back again", created_at=NOW + DAY)
        await db.add_memories([again])
        await case.holds(db, [memory("other"), again], "after adding a deleted id again")
        found = await db.search_memories("<3>", limit=1)
        case.equal(found.memories[0].id, "m7", "nearest after adding a deleted id again")


async def _vectors_follow_texts(
    case: Case, db: MemoryVectorDatabase, memories: list[MemoryRecord]
) -> None:
    """Fail unless records are as far from queries as in a space that they are added to anew."""
    anew = await case.open(f"{case.space}n")
    await anew.add_memories(memories)
    for query in ("<0>", "<1>"):
        got = (await db.search_memories(query, limit=20)).memories
        wanted = {
            each.id: each.dist for each in (await anew.search_memories(query, limit=20)).memories
        }
        case.equal(sorted(each.id for each in got), sorted(wanted), f"ids found by {query!r}")
        for each in got:
            dist = wanted[each.id]
            assert dist is not None
            what = f"distance of {each.id!r} from {query!r}, as in a space that it is added to anew"
            case.close_to(each.dist, dist, what)


def _self_distance(case: Case) -> float:
    """Return the distance of a vector of length one to itself."""
    model = case.model()
    model.add([memory("m", "<2>")])
    return model.ranked("<2>")[0].dist
