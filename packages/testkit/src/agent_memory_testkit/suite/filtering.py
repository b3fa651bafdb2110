"""Rules FLT-1 to FLT-9: which records a call is about."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from agent_memory import (
    CreatedAt,
    Entities,
    EventDate,
    Expression,
    InvalidArgumentError,
    MemoryRecord,
    MemoryTypeEnum,
    MemoryVectorDatabase,
    Namespace,
    Topics,
    UserId,
)
from agent_memory.filters import FILTERS
from agent_memory_testkit import strategies
from agent_memory_testkit.model import accepts
from agent_memory_testkit.samples import (
    DAY,
    LIST_TAGS,
    MICROSECOND,
    NOW,
    QUERY_SYNTAX,
    SCALAR_TAGS,
    TIMES,
    TROUBLE,
    memory,
)
from agent_memory_testkit.suite.base import Case, SuiteBase, checked, checked_with

OPTIONAL_TAGS = ("session_id", "user_id", "namespace")
_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)


def _condition(field: str, operators: dict[str, Any]) -> Any:
    """Return a filter, typed such that it can be any keyword argument."""
    return FILTERS[field](**operators)


async def _agrees(
    case: Case,
    db: MemoryVectorDatabase,
    memories: Sequence[MemoryRecord],
    field: str,
    **operators: Any,
) -> None:
    """Fail unless a filter accepts, in every method, what the oracle says."""
    condition = _condition(field, operators)
    got = await case.accepted(db, **{field: condition})
    wanted = condition.to_json_value()
    case.equal(
        got, sorted(each.id for each in memories if accepts(wanted, each)), f"{field}={condition!r}"
    )


class FilteringRules(SuiteBase):
    """FLT-1 to FLT-9."""

    @checked
    async def test_flt_1_operators_on_scalar_fields(self, case: Case) -> None:
        """eq, any and startswith on every field of one value.

        Usual causes: a field that is not indexed, a prefix that an engine wants to have two
        characters, wildcards in a prefix.
        """
        values = ["a", "ab", "abc", "b", "A", "a*", " a", "é", "*"]
        memories = [
            memory(each, session_id=each, user_id=each, namespace=each, extraction_strategy=each)
            for each in values
        ]
        memories.append(memory("without"))
        memories.append(memory("x", memory_type="episodic", discrete_memory_extracted="t"))
        db = await case.filled(memories)
        for field in ("id", *SCALAR_TAGS):
            for value in ("a", "ab", "A", "*", "unknown"):
                await _agrees(case, db, memories, field, eq=value)
                await _agrees(case, db, memories, field, startswith=value)
            await _agrees(case, db, memories, field, any=["a", "é", "unknown"])
            await _agrees(case, db, memories, field, any=["a"])
        for field, value in (("memory_type", "episodic"), ("discrete_memory_extracted", "t")):
            await _agrees(case, db, memories, field, eq=value)
            await _agrees(case, db, memories, field, any=[value, "message"])
            await _agrees(case, db, memories, field, startswith=value[0])
            case.equal(
                await case.accepted(db, **{field: _condition(field, {"eq": value})}),
                ["x"],
                f"{field}={value!r}",
            )
        await _agrees(case, db, memories, "memory_type", eq="no such type")

    @checked
    async def test_flt_1_operators_on_list_fields(self, case: Case) -> None:
        """eq, any, all and startswith on every field of many values.

        Usual causes: ``all`` done as ``any``, a list compared as one string, only its first
        element looked at.
        """
        lists = {
            "ab": ["a", "b"],
            "ba": ["b", "a"],
            "a": ["a"],
            "aa": ["a", "a"],
            "joined": ["a,b"],
            "piped": ["a|b"],
            "long": ["x", "y", "z", "abc"],
            "empty": [],
        }
        memories = [
            memory(name, topics=value, entities=value, extracted_from=value)
            for name, value in lists.items()
        ]
        memories.append(memory("none"))
        db = await case.filled(memories)
        for field in LIST_TAGS:
            for value in ("a", "b", "a,b", "a|b", "abc", "unknown", "A"):
                await _agrees(case, db, memories, field, eq=value)
            for values in (["a"], ["a", "b"], ["b", "z"], ["a", "a"], ["a", "unknown"]):
                await _agrees(case, db, memories, field, any=values)
                await _agrees(case, db, memories, field, all=values)
            for prefix in ("a", "ab", "a,", "z", "A"):
                await _agrees(case, db, memories, field, startswith=prefix)

    @checked
    async def test_flt_1_a_prefix_is_taken_literally(self, case: Case) -> None:
        """Prefixes of troublesome values, of one character and more.

        Usual cause: the prefix put before a wildcard without escaping.
        """
        memories = [memory(f"m{n}", user_id=each, topics=[each]) for n, each in enumerate(TROUBLE)]
        db = await case.filled(memories)
        for prefix in dict.fromkeys(each[: 1 + n % 3] for n, each in enumerate(TROUBLE)):
            for field in ("user_id", "topics"):
                condition = _condition(field, {"startswith": prefix})
                page = await db.list_memories(limit=500, **{field: condition})
                wanted = [m.id for m in memories if (m.user_id or "").startswith(prefix)]
                got = sorted(each.id for each in page.memories)
                case.equal(got, sorted(wanted), f"{field}={condition!r}")

    @checked
    async def test_flt_2_ne_and_none_accept_what_eq_and_any_refuse(self, case: Case) -> None:
        """Records without the field are accepted by ``ne`` and ``none``.

        Usual cause: SQL's NULL, or an index that holds only records with the field.
        """
        memories = [
            memory("a", user_id="a", topics=["a"], namespace="n", session_id="s"),
            memory("ab", user_id="b", topics=["a", "b"], entities=["a"]),
            memory("b", user_id="A", topics=["b"], extracted_from=["b"]),
            memory("empty", topics=[], entities=[], extracted_from=[]),
            memory("none"),
        ]
        memories[0].memory_type = MemoryTypeEnum.EPISODIC
        memories[0].discrete_memory_extracted = "t"
        db = await case.filled(memories)
        everything = sorted(each.id for each in memories)
        for field, value in (("memory_type", "episodic"), ("discrete_memory_extracted", "t")):
            await _agrees(case, db, memories, field, ne=value)
            await _agrees(case, db, memories, field, none=[value])
        for field in (*SCALAR_TAGS, *LIST_TAGS, "id"):
            for value in ("a", "b", "unknown"):
                await _agrees(case, db, memories, field, ne=value)
                equal = await case.accepted(db, **{field: _condition(field, {"eq": value})})
                other = await case.accepted(db, **{field: _condition(field, {"ne": value})})
                case.equal(sorted(equal + other), everything, f"{field}: eq and ne {value!r}")
            many = [*(f"other{n}" for n in range(40)), "a"]
            for values in (["a"], ["a", "b"], ["unknown", "A"], many):
                await _agrees(case, db, memories, field, none=values)
                one = await case.accepted(db, **{field: _condition(field, {"any": values})})
                none = await case.accepted(db, **{field: _condition(field, {"none": values})})
                case.equal(sorted(one + none), everything, f"{field}: any and none {values!r}")

    @checked
    async def test_flt_3_exists_tells_whether_there_is_a_value(self, case: Case) -> None:
        """``None`` and an empty list are no value; anything else is.

        Usual causes: an empty list that counts as a value, a marker for a missing value that is
        also an ordinary one.
        """
        markers = ("null", "None", "__missing__", "__none__", "NULL", "\x00", "[]", " ")
        memories = [
            memory("none"),
            memory("empty", topics=[], entities=[], extracted_from=[]),
            memory("full", topics=["a"], entities=["a"], extracted_from=["a"], event_date=NOW),
            memory("tags", user_id="a", session_id="a", namespace="a", persisted_at=NOW),
        ]
        memories += [
            memory(f"marker{n}", user_id=each, topics=[each], session_id=each, namespace=each)
            for n, each in enumerate(markers)
        ]
        db = await case.filled(memories)
        for field in FILTERS:
            await _agrees_stored(case, db, memories, field, exists=True)
            await _agrees_stored(case, db, memories, field, exists=False)

    @checked
    async def test_flt_4_times_are_exact_to_the_microsecond(self, case: Case) -> None:
        """Every operator, a microsecond to either side of the time, on every time field.

        Usual causes: seconds or milliseconds in the index, floating point that rounds large
        times, a missing time stored as 0.
        """
        moments = [
            NOW - DAY,
            NOW - MICROSECOND,
            NOW,
            NOW + MICROSECOND,
            NOW + DAY,
            datetime(1970, 1, 1, tzinfo=UTC),
            datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
            _FIRST,
            _LAST - MICROSECOND,
            _LAST,
        ]
        memories = [
            memory(f"m{n}", "<0>", **dict.fromkeys(TIMES, moment))
            for n, moment in enumerate(moments)
        ]
        memories.append(memory("none", "<0>", **dict.fromkeys(TIMES[:3], NOW - 2 * DAY)))
        db = await case.filled(memories)
        for field in TIMES:
            # Each method applies filters by one and the same way, so one of them is enough here.
            for bound in (NOW, NOW + MICROSECOND, moments[5], _FIRST, _LAST):
                for operator in ("eq", "ne", "gt", "gte", "lt", "lte"):
                    await _lists(case, db, memories, field, **{operator: bound})
            for start, end in (
                (NOW - MICROSECOND, NOW + MICROSECOND),
                (NOW, NOW),
                (NOW, NOW + MICROSECOND),
                (_FIRST, _LAST),
                (moments[6], moments[5]),
            ):
                await _lists(case, db, memories, field, between=(start, end))
                for inclusive in ("both", "neither", "left", "right"):
                    await _lists(
                        case, db, memories, field, between=(start, end), inclusive=inclusive
                    )
        await _agrees(case, db, memories, "event_date", gt=NOW, lte=NOW + DAY)
        await _agrees(case, db, memories, "event_date", ne=NOW)

    @checked
    async def test_flt_4_other_zones_name_the_same_moments(self, case: Case) -> None:
        """A time in another zone, as text, or naive (UTC) is the moment that it names.

        Usual cause: clock times compared instead of moments.
        """
        elsewhere = timezone(timedelta(hours=-11))
        memories = [
            memory("now", event_date=NOW.astimezone(elsewhere)),
            memory("later", event_date=NOW + MICROSECOND),
        ]
        db = await case.filled(memories)
        for same in (NOW, NOW.astimezone(elsewhere), NOW.replace(tzinfo=None), NOW.isoformat()):
            got = await case.accepted(db, event_date=EventDate(eq=same))
            case.equal(got, ["now"], f"event_date=EventDate(eq={same!r})")
            got = await case.accepted(db, event_date=EventDate(gt=same))
            case.equal(got, ["later"], f"event_date=EventDate(gt={same!r})")

    @checked
    async def test_flt_5_operators_and_filters_are_anded(self, case: Case) -> None:
        """Two operators of a filter, two filters, a filter and ``where``: all must hold.

        Usual causes: one bound of two used, ``where`` that replaces the filters.
        """
        memories = [
            memory(
                f"m{n}",
                user_id="ada" if n % 2 else "bob",
                topics=[f"t{n % 3}", "all"],
                created_at=NOW + n * DAY,
            )
            for n in range(12)
        ]
        db = await case.filled(memories)
        ids = await case.accepted(
            db, created_at=CreatedAt(gt=NOW + 2 * DAY, lt=NOW + 6 * DAY), user_id="ada"
        )
        case.equal(ids, ["m3", "m5"], "two bounds and a user")
        ids = await case.accepted(db, topics=Topics(eq="t1", none=["t2"], all=["all"]))
        case.equal(ids, ["m1", "m10", "m4", "m7"], "three operators")
        ids = await case.accepted(db, UserId(eq="bob") | Topics(eq="t1"), topics="t1")
        case.equal(ids, ["m1", "m10", "m4", "m7"], "a filter and where on one field")
        ids = await case.accepted(db, ~UserId(eq="bob"), topics=Topics(any=["t1", "t2"]))
        case.equal(ids, ["m1", "m11", "m5", "m7"], "a filter and where on another field")
        ids = await case.accepted(db, UserId(eq="ada"), user_id="bob")
        case.equal(ids, [], "a filter and where that contradict each other")

    @checked_with(
        examples=30,
        memories=st.lists(strategies.colliding_records(), max_size=8),
        where=strategies.expressions(),
    )
    async def test_flt_5_any_tree_of_filters(
        self, case: Case, memories: list[MemoryRecord], where: Expression
    ) -> None:
        """Any tree of and, or, not accepts what it says, in count, list and search.

        Usual causes: precedence without brackets, a negation that drops records without the field.
        """
        model = case.model()
        model.add(memories)
        db = await case.filled(memories)
        got = await case.accepted(db, where)
        case.equal(got, sorted(each.id for each in model.matching(where)), f"where={where!r}")

    @checked
    async def test_flt_5_wide_and_deep_trees(self, case: Case) -> None:
        """A hundred alternatives, 1,000 values, twenty levels.

        Usual causes: recursion in the engine's parser, a maximum of terms or parameters.
        """
        memories = [memory(f"m{n:03d}", user_id=f"u{n}", topics=[f"t{n}"]) for n in range(120)]
        db = await case.filled(memories)
        wide: Expression = UserId(eq="u0")
        for number in range(1, 100):
            wide = wide | UserId(eq=f"u{number}")
        case.equal(len(await case.accepted(db, wide)), 100, "100 alternatives")
        # What is there comes last: a list that is cut must be noticed.
        many = UserId(any=[f"u{n}" for n in range(1_049, 49, -1)])
        case.equal(len(await case.accepted(db, many)), 70, "any of 1,000 values")
        none = Topics(none=[f"t{n}" for n in range(1_049, 49, -1)])
        case.equal(len(await case.accepted(db, none)), 50, "none of 1,000 values")
        deep: Expression = UserId(eq="u7")
        for number in range(20):
            deep = ~(deep & Topics(ne=f"t{number + 20}")) & UserId(exists=True)
        case.equal(await case.accepted(db, deep), _by_oracle(memories, deep), "20 levels")

    @checked
    async def test_flt_6_plain_values_are_shorthand(self, case: Case) -> None:
        """A string is ``eq``, a list is ``any``, a datetime is ``eq``.

        Usual cause: filters read by the backend itself, which knows only objects.
        """
        memories = [
            memory("1", user_id="ada", topics=["a"], event_date=NOW),
            memory("2", user_id="bob", topics=["b", "c"], memory_type="semantic"),
            memory("3", topics=["a,b"]),
        ]
        db = await case.filled(memories)
        case.equal(await case.accepted(db, user_id="ada"), ["1"], "user_id='ada'")
        case.equal(await case.accepted(db, user_id=["ada", "bob"]), ["1", "2"], "a list of users")
        case.equal(await case.accepted(db, topics="c"), ["2"], "topics='c'")
        case.equal(await case.accepted(db, topics=["a", "b"]), ["1", "2"], "topics=['a', 'b']")
        case.equal(await case.accepted(db, event_date=NOW), ["1"], "event_date=NOW")
        case.equal(
            await case.accepted(db, memory_type=MemoryTypeEnum.SEMANTIC), ["2"], "memory_type"
        )
        ids = [each.id async for each in db.iter_memories(user_id=["ada", "bob"])]
        case.equal(ids, ["1", "2"], "iter_memories with a list of users")

    @checked
    async def test_flt_7_a_filter_that_cannot_be_honoured_is_an_error(self, case: Case) -> None:
        """Unknown names, empty values, wrong types: every method raises, none ignores.

        Usual causes: ``**kwargs`` that nobody looks at, ``if value:`` that skips an empty one.
        """
        db = await case.filled([memory("m", user_id="ada")])
        impossible: list[dict[str, Any]] = [
            {"usr_id": "ada"},
            {"text": "a memory"},
            {"metadata": {}},
            {"user_id": ""},
            {"user_id": []},
            {"user_id": None},
            {"user_id": 1},
            {"user_id": True},
            {"user_id": ["ada", ""]},
            {"user_id": ["ada", None]},
            {"user_id": {"eq": "ada"}},
            {"user_id": Topics(eq="a")},
            {"topics": ""},
            {"topics": []},
            {"created_at": "yesterday"},
            {"created_at": 0},
            {"created_at": [NOW, NOW]},
            {"where": {"user_id": "ada"}},
            {"where": "user_id"},
        ]
        anything: Any = db
        for filters in impossible:
            said = ", ".join(f"{name}={value!r}" for name, value in filters.items())
            for name in ("count_memories", "list_memories", "search_memories", "iter_memories"):
                query = ["<0>"] if name == "search_memories" else []
                call = getattr(anything, name)(*query, **filters)
                if name == "iter_memories":
                    call = _first_of(call)
                await case.raises(InvalidArgumentError, call, f"{name}({said})")
        unbuildable: list[tuple[Any, dict[str, Any]]] = [
            (UserId, {}),
            (UserId, {"eq": ""}),
            (UserId, {"like": "a"}),
            (UserId, {"all": ["a"]}),
            (UserId, {"startswith": ""}),
            (UserId, {"any": []}),
            (UserId, {"exists": "yes"}),
            (Topics, {"none": []}),
            (CreatedAt, {"between": (NOW + MICROSECOND, NOW)}),
            (CreatedAt, {"between": NOW}),
            (CreatedAt, {"startswith": "2024"}),
            (CreatedAt, {"between": (NOW, NOW), "inclusive": "some"}),
        ]
        for kind, operators in unbuildable:
            try:
                condition = kind(**operators)
            except InvalidArgumentError:
                continue
            case.fail(f"{kind.__name__}(**{operators})", got=condition, should="an error")

    @checked
    async def test_flt_8_values_are_never_read_as_a_query(self, case: Case) -> None:
        """Query syntax in a filter finds the record that has this very value, or nothing.

        Usual cause: a query built by joining strings.
        """
        db = await case.filled([memory("m", user_id="ada", topics=["ada"], namespace="n")])
        for value in QUERY_SYNTAX:
            for field in ("user_id", "topics", "namespace", "id", "memory_hash"):
                for operator, operand in (("eq", value), ("any", [value]), ("startswith", value)):
                    condition = _condition(field, {operator: operand})
                    count = await db.count_memories(**{field: condition})
                    case.equal(count, 0, f"count_memories({field}={condition!r})")
            condition = _condition("user_id", {"ne": value})
            case.equal(await case.accepted(db, user_id=condition), ["m"], f"{condition!r}")
        memories = [memory(f"v{n}", user_id=each) for n, each in enumerate(QUERY_SYNTAX)]
        await db.add_memories(memories)
        for each, value in zip(memories, QUERY_SYNTAX, strict=True):
            wanted = sorted(m.id for m in memories if m.user_id == value)
            got = await case.accepted(db, user_id=value, namespace=Namespace(exists=False))
            case.equal(got, wanted, f"user_id={value!r}, with {each.id!r} in the space")

    @checked
    async def test_flt_8_the_field_belongs_to_the_filter(self, case: Case) -> None:
        """A caller cannot make a filter speak of another field.

        Usual cause: the field's name taken from an attribute that callers can set.
        """
        db = await case.filled([memory("m", user_id="ada", namespace="n")])
        forged = UserId(eq="n")
        for value in ("namespace", "namespace OR 1=1"):
            try:
                forged.field = value  # type: ignore[misc]
            except (AttributeError, TypeError):
                continue
        case.equal(await db.count_memories(where=forged), 0, "a filter with a forged field")
        mismatched: Any = {"namespace": UserId(eq="ada")}
        await case.raises(
            InvalidArgumentError, db.count_memories(**mismatched), "namespace=UserId(eq='ada')"
        )

    @checked
    async def test_flt_9_alternatives_that_no_record_meets(self, case: Case) -> None:
        """What nobody meets takes nothing away from the alternatives beside it, in a search too.

        Usual cause: an engine that estimates how many records a filter leaves, and ranks none if
        the estimate is 0.
        """
        db = await case.filled(
            [memory("a", user_id="ada", namespace="n"), memory("b", user_id="bob")]
        )
        nobody, nowhere = (
            UserId(eq=f"nobody {number}") & Namespace(eq=f"nowhere {number}") for number in (1, 2)
        )
        ada, everybody = UserId(eq="ada"), UserId(exists=True)
        for where, wanted in (
            (nobody | ada, {"a"}),
            ((nobody | ada) & (nowhere | Namespace(eq="n")), {"a"}),
            ((nobody | everybody) & (nowhere | ~Namespace(eq="n")), {"b"}),
            ((nobody | everybody) & (nowhere | everybody), {"a", "b"}),
            ((nobody | nowhere) & (nowhere | nobody), set[str]()),
        ):
            case.equal(set(await case.accepted(db, where)), wanted, f"{where!r}")

    @checked
    async def test_flt_9_a_search_within_a_distance_agrees_after_records_were_replaced(
        self, case: Case
    ) -> None:
        """A filter accepts the same within any distance, also when records were written twice.

        Usual cause: an engine that joins distances and conditions, and loses some on the way.
        """
        memories = [memory(f"m{number}", topics=[f"t{number}"]) for number in range(300)]
        memories.append(memory("other"))
        db = await case.filled(memories)
        await db.delete_memories([each.id for each in memories])
        await db.add_memories(memories)
        where = ~Topics(startswith="t")
        for distance in (0.5, 5.0):
            page = await db.search_memories(
                memories[0].text, distance_threshold=distance, where=where
            )
            case.equal(
                [each.id for each in page.memories], ["other"], f"within {distance}: {where!r}"
            )

    @checked_with(
        examples=25,
        memories=st.lists(strategies.colliding_records(), max_size=8),
        left=strategies.expressions(),
        right=strategies.filters(),
        limit=st.integers(1, 5),
    )
    async def test_flt_9_the_laws_of_logic(
        self,
        case: Case,
        memories: list[MemoryRecord],
        left: Expression,
        right: Expression,
        limit: int,
    ) -> None:
        """And narrows, or widens, not complements; count, list total and pages agree.

        Usual causes: as for FLT-2 and FLT-5; a filter that one method ignores.
        """
        db = await case.filled(memories)
        everything = set(await case.accepted(db))
        a = set(await case.accepted(db, left))
        b = set(await case.accepted(db, right))
        case.equal(set(await case.accepted(db, left & right)), a & b, f"{left!r} & {right!r}")
        case.equal(set(await case.accepted(db, left | right)), a | b, f"{left!r} | {right!r}")
        case.equal(set(await case.accepted(db, ~left)), everything - a, f"not {left!r}")
        case.equal(set(await case.accepted(db, ~(~left))), a, f"not not {left!r}")
        field = getattr(right, "field", "")
        case.equal(
            set(await case.accepted(db, left, **{field: right})), a & b, "where and a keyword"
        )
        paged: list[str] = []
        offset: int | None = 0
        while offset is not None:
            page = await db.list_memories(limit=limit, offset=offset, where=left)
            case.equal(page.total, len(a), "total on every page")
            paged += [each.id for each in page.memories]
            offset = page.next_offset
        case.equal(sorted(paged), sorted(a), "all pages, one after the other")

    @checked
    async def test_flt_9_a_further_bound_never_adds(self, case: Case) -> None:
        """Adding an operator or a filter leaves the same records or fewer.

        Usual cause: a second operator on the same field that replaces the first.
        """
        memories = [
            memory(f"m{n}", entities=[f"e{n % 4}", f"e{n % 3}"], created_at=NOW + n * MICROSECOND)
            for n in range(12)
        ]
        db = await case.filled(memories)
        bounds: dict[str, Any] = {
            "any": ["e0", "e1"],
            "none": ["e3"],
            "all": ["e1"],
            "startswith": "e",
            "ne": "e2",
            "exists": True,
        }
        so_far: dict[str, Any] = {}
        before = set(await case.accepted(db))
        for name, bound in bounds.items():
            so_far[name] = bound
            condition = Entities(**so_far)
            now = set(await case.accepted(db, entities=condition))
            case.check(
                now <= before, f"with {name} added: {condition!r}", got=now, should=f"in {before}"
            )
            case.equal(sorted(now), _by_oracle(memories, condition), repr(condition))
            before = now


async def _agrees_stored(
    case: Case, db: MemoryVectorDatabase, memories: Sequence[MemoryRecord], field: str, **ops: Any
) -> None:
    """As `_agrees`, for fields that every stored record has (its hash)."""
    if field == "memory_hash":
        wanted = sorted(each.id for each in memories) if ops["exists"] else []
        case.equal(await case.accepted(db, **{field: _condition(field, ops)}), wanted, field)
    else:
        await _agrees(case, db, memories, field, **ops)


async def _lists(
    case: Case,
    db: MemoryVectorDatabase,
    memories: Sequence[MemoryRecord],
    field: str,
    **operators: Any,
) -> None:
    """Fail unless ``list_memories`` with a filter gives what the oracle says."""
    condition = _condition(field, operators)
    page = await db.list_memories(limit=100, **{field: condition})
    got = sorted(each.id for each in page.memories)
    case.equal(got, _by_oracle(memories, condition), f"list_memories({field}={condition!r})")


def _by_oracle(memories: Sequence[MemoryRecord], condition: Expression) -> list[str]:
    wanted = condition.to_json_value()
    return sorted(each.id for each in memories if accepts(wanted, each))


async def _first_of(iterator: Any) -> Any:
    async for each in iterator:
        return each
    return None
