"""Rules REC-1 to REC-4: what a record is, and that it comes back as it went in."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st
from pydantic import ValidationError

from agent_memory import InvalidArgumentError, MemoryRecord, MemoryTypeEnum, MemoryVectorDatabase
from agent_memory_testkit import strategies
from agent_memory_testkit.samples import LIST_TAGS, MICROSECOND, NOW, SCALAR_TAGS, TROUBLE, memory
from agent_memory_testkit.suite.base import Case, SuiteBase, checked, checked_with

MEBIBYTE = 2**20


class RecordRules(SuiteBase):
    """REC-1 to REC-4."""

    @checked_with(
        examples=30,
        memories=st.lists(strategies.records(), min_size=1, max_size=4, unique_by=lambda m: m.id),
    )
    async def test_rec_1_any_record_reads_back_equal(
        self, case: Case, memories: list[MemoryRecord]
    ) -> None:
        """Every field comes back equal through get, list and search.

        Usual causes: a field that is not stored, text that an engine normalises or cuts at NUL,
        numbers that went through floating point, ``None`` stored as an empty list or string.
        """
        db = await case.filled(memories)
        await case.holds(db, memories, "any record")
        found = await db.search_memories("<0>", limit=len(memories))
        by_id = sorted(found.memories, key=lambda each: each.id)
        case.equal_records(by_id, sorted(memories, key=lambda each: each.id), "search_memories")

    @checked
    async def test_rec_1_times_keep_their_microseconds_in_utc(self, case: Case) -> None:
        """Times come back to the microsecond, in UTC, from the first to the last there is.

        Usual causes: seconds stored as a float, milliseconds, a time zone that was dropped.
        """
        last = datetime.max.replace(tzinfo=UTC)
        moments = [
            NOW,
            NOW + MICROSECOND,
            NOW - MICROSECOND,
            datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
            datetime(2262, 4, 12, 1, 2, 3, 4, tzinfo=UTC),  # beyond nanoseconds in 64 bits
            datetime.min.replace(tzinfo=UTC),
            last,
            last - MICROSECOND,
            datetime(2024, 5, 17, 1, 0, 0, 1, tzinfo=timezone(timedelta(hours=5, minutes=45))),
        ]
        memories = [
            memory(
                f"m{number}",
                created_at=moment,
                last_accessed=moment,
                updated_at=moment,
                persisted_at=moment,
                event_date=moment,
            )
            for number, moment in enumerate(moments)
        ]
        await case.holds(await case.filled(memories), memories, "times")

    @checked
    async def test_rec_1_none_stays_apart_from_an_empty_list(self, case: Case) -> None:
        """``None`` comes back as ``None`` and ``[]`` as ``[]``; lists keep order and repeats.

        Usual causes: a list joined into one string, a set, a missing value read as an empty one.
        """
        memories = [
            memory("none", topics=None, entities=None, extracted_from=None),
            memory("empty", topics=[], entities=[], extracted_from=[]),
            memory("repeats", topics=["b", "a", "b", "B"], entities=["a,b", "a", "b"]),
            memory("nested", metadata={"a": {"b": [None, {}, [], "", 0, False, 1.5]}, "": None}),
        ]
        await case.holds(await case.filled(memories), memories, "None, [] and lists")

    @checked
    async def test_rec_1_texts_and_metadata_are_not_normalised(self, case: Case) -> None:
        """Similar letters, composed or not, and query syntax come back as they went in.

        Usual causes: Unicode normalisation, text put into a query or a format without escaping.
        """
        memories = [
            memory(f"m{n}", f"{value} <1>", metadata={value: [value], "value": value})
            for n, value in enumerate(TROUBLE)
        ]
        await case.holds(await case.filled(memories), memories, "troublesome texts")

    @checked
    async def test_rec_1_a_text_of_one_mebibyte(self, case: Case) -> None:
        """A text of 1 MiB comes back whole.

        Usual causes: a column or a message with a maximum length, a text cut for embedding and
        stored as cut.
        """
        text = "<1> " + "café \x00\n" * (MEBIBYTE // 9)
        text += "x" * (MEBIBYTE - len(text.encode()))
        memories = [memory("long", text)]
        await case.holds(await case.filled(memories), memories, "a text of 1 MiB")

    @checked
    async def test_rec_2_tag_values_are_exact(self, case: Case) -> None:
        """One record for each of many similar values; each value finds its own record alone.

        Usual causes: an index that folds case, trims, splits at commas or normalises Unicode;
        values put into a query without escaping.
        """
        fields = (*SCALAR_TAGS, *LIST_TAGS)
        memories = []
        for number, value in enumerate(TROUBLE):
            tags: dict[str, Any] = dict.fromkeys(SCALAR_TAGS, value)
            tags |= {name: ["common", value] for name in LIST_TAGS}
            memories.append(memory(f"m{number} of {value!a}", **tags))
        db = await case.filled(memories)
        for each, value in zip(memories, TROUBLE, strict=True):
            for name in fields:
                page = await db.list_memories(limit=10, **{name: value})  # type: ignore[arg-type]
                case.equal([m.id for m in page.memories], [each.id], f"{name}={value!r}")
                case.equal(page.total, 1, f"total for {name}={value!r}")

    @checked
    async def test_rec_2_ids_are_exact(self, case: Case) -> None:
        """Records with similar ids are different records.

        Usual causes: keys built without escaping, a case-insensitive or trimming primary key.
        """
        memories = [memory(value, f"<{number}>") for number, value in enumerate(TROUBLE)]
        db = await case.filled(memories)
        await case.holds(db, memories, "similar ids")
        for each in memories:
            case.equal(await case.accepted(db, id=each.id), [each.id], f"id={each.id!r}")

    @checked
    async def test_rec_3_invalid_records_cannot_be_built(self, case: Case) -> None:
        """Empty ids and tags, blank texts, lone surrogates and negative counts are refused.

        Usual cause: a `MemoryRecord` of the backend's own, looser than the core's.
        """
        db = await case.open()
        invalid: list[dict[str, Any]] = [
            {"id": ""},
            {"text": ""},
            {"text": " \n\t\u3000"},
            {"id": "\ud800"},
            {"text": "half \udc00 a pair"},
            {"metadata": {"\ud800": 1}},
            {"access_count": -1},
            {"memory_type": "unheard of"},
            {"discrete_memory_extracted": "yes"},
            {"usr_id": "a field that there is not"},
        ]
        invalid += [{name: ""} for name in SCALAR_TAGS]
        invalid += [{name: ["a", ""]} for name in LIST_TAGS]
        for fields in invalid:
            try:
                record = MemoryRecord(**{"id": "invalid", "text": "a text", **fields})
            except ValidationError:
                continue
            case.fail(f"MemoryRecord({fields})", got=record, should="a ValidationError")
        nothing: Any = {"id": "a", "text": "not a record"}
        await case.raises(
            InvalidArgumentError, db.add_memories([nothing]), "add_memories of a dict"
        )
        case.equal(await db.count_memories(), 0, "count after what was refused")

    @checked
    async def test_rec_3_what_became_invalid_is_not_written(self, case: Case) -> None:
        """A record that was changed after it was built is looked at again when it is written.

        Usual cause: records stored without validation, since "they are valid already".
        """
        kept = memory("kept", topics=["a"])
        db = await case.filled([kept])
        spoilt = memory("kept", topics=["a"])
        assert spoilt.topics is not None
        spoilt.topics.append("")
        nested = memory("new", metadata={"number": 1})
        nested.metadata["number"] = float("nan")
        for record in (spoilt, nested):
            for call, name in ((db.add_memories, "add"), (db.update_memories, "update")):
                what = f"{name}_memories of a record made invalid"
                await case.raises(InvalidArgumentError, call([record]), what)
        await case.holds(db, [kept], "after what was refused")

    @checked
    async def test_rec_3_a_naive_time_is_read_as_utc(self, case: Case) -> None:
        """A datetime without a zone means UTC, wherever the process runs.

        Usual cause: ``timestamp()`` of a naive datetime, which assumes the local zone.
        """
        naive = datetime(2024, 5, 17, 12, 0, 0, 7)
        db = await case.filled([memory("naive", created_at=naive)])
        [record] = await db.get_memories(["naive"])
        case.equal(record.created_at, naive.replace(tzinfo=UTC), "created_at")

    @checked
    async def test_rec_4_the_hash_is_right_after_every_write(self, case: Case) -> None:
        """memory_hash follows text, user, session, namespace and type; what was given is replaced.

        Usual causes: the caller's hash stored as it is, the hash not renewed by an update.
        """
        first = memory("m", "one", user_id="ada", memory_hash="wrong")
        second = memory(
            "m", "zwei é", session_id="s", namespace="n", memory_type=MemoryTypeEnum.SEMANTIC
        )
        third = second.model_copy(update={"memory_hash": expected_hash(first)})
        db = await case.filled([first])
        await self._has_hash(case, db, first)
        await db.update_memories([second])
        await self._has_hash(case, db, second)
        await db.add_memories([first])
        await self._has_hash(case, db, first)
        await db.update_memories([third])
        await self._has_hash(case, db, second)

    async def _has_hash(self, case: Case, db: MemoryVectorDatabase, record: MemoryRecord) -> None:
        wanted = expected_hash(record)
        [got] = await db.get_memories([record.id])
        case.equal(got.memory_hash, wanted, "memory_hash of get_memories")
        case.equal(await case.accepted(db, memory_hash=wanted), [record.id], "filter by hash")


def expected_hash(record: MemoryRecord) -> str:
    """Return the hash as the contract spells it."""
    return hashlib.sha256(
        json.dumps(
            {
                "text": record.text,
                "user_id": record.user_id,
                "session_id": record.session_id,
                "namespace": record.namespace,
                "memory_type": record.memory_type.value,
            },
            sort_keys=True,
        ).encode()
    ).hexdigest()
