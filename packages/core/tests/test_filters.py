"""Filters and expressions: what they accept, what they refuse, how they travel as JSON.

The oracle below evaluates a filter by reading its operators off the contract (FLT-1 to FLT-4); it
never looks at a predicate.
"""

from __future__ import annotations

import copy
import functools
import json
import operator
import pickle
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_memory import (
    And,
    CreatedAt,
    Entities,
    EventDate,
    Expression,
    Id,
    InvalidArgumentError,
    MemoryRecord,
    MemoryType,
    MemoryTypeEnum,
    Not,
    Or,
    PersistedAt,
    SessionId,
    Topics,
    UserId,
    expression_from_json,
)
from agent_memory.filters import (
    FILTERS,
    LIST_TAG_FIELDS,
    MAX_DEPTH,
    SCALAR_TAG_FIELDS,
    TIME_FIELDS,
    Filter,
    FilterArguments,
    ListTagFilter,
    TagFilter,
    TimeFilter,
    as_filter,
    combined,
)
from agent_memory.predicates import matches, predicate_of

# A busy machine is slow, not wrong.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

NOON = datetime(2024, 5, 17, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)

# Few values, so that filters and records meet; near-collisions, so that sloppy comparing shows.
VALUES = ["a", "A", "ab", "a,b", "a|b", " a", "a ", "*", "{a}", "é", "e\u0301", "\x00", "\\", '"']
tags = st.sampled_from(VALUES)
moments = st.integers(-3, 3).map(lambda each: NOON + each * TICK) | st.sampled_from(
    [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
)
some_tags = st.lists(tags, min_size=1, max_size=3)

records = st.builds(
    MemoryRecord,
    id=tags,
    text=st.just("text"),
    session_id=st.none() | tags,
    user_id=st.none() | tags,
    namespace=st.none() | tags,
    memory_type=st.sampled_from(MemoryTypeEnum),
    memory_hash=st.none() | tags,
    extraction_strategy=tags,
    discrete_memory_extracted=st.sampled_from("tf"),
    topics=st.none() | st.lists(tags, max_size=3),
    entities=st.none() | st.lists(tags, max_size=3),
    extracted_from=st.none() | st.lists(tags, max_size=3),
    created_at=moments,
    last_accessed=moments,
    updated_at=moments,
    persisted_at=st.none() | moments,
    event_date=st.none() | moments,
)


def _values_of(field: str) -> st.SearchStrategy[str]:
    special = {"memory_type": [*MemoryTypeEnum, "m"], "discrete_memory_extracted": ["t", "f"]}
    return st.sampled_from([str(each) for each in special.get(field, VALUES)])


@st.composite
def tag_filters(draw: st.DrawFn) -> Filter:
    field = draw(st.sampled_from(SCALAR_TAG_FIELDS + LIST_TAG_FIELDS))
    one = _values_of(field)
    many = st.lists(one, min_size=1, max_size=3)
    operators: dict[str, st.SearchStrategy[Any]] = {
        "eq": one,
        "ne": one,
        "any": many,
        "none": many,
        "startswith": one,
        "exists": st.booleans(),
    }
    if field in LIST_TAG_FIELDS:
        operators["all"] = many
    return draw(_with_some(FILTERS[field], operators))


@st.composite
def time_filters(draw: st.DrawFn) -> Filter:
    kind = FILTERS[draw(st.sampled_from(TIME_FIELDS))]
    operators: dict[str, st.SearchStrategy[Any]] = dict.fromkeys(
        ("eq", "ne", "gt", "gte", "lt", "lte"), moments
    )
    operators["exists"] = st.booleans()
    operators["between"] = st.tuples(moments, moments).map(sorted)
    each = draw(_with_some(kind, operators))
    make: Callable[..., Filter] = kind
    if "between" in each.given():
        sides = st.sampled_from([None, "both", "neither", "left", "right"])
        if side := draw(sides):
            return make(**each.given(), inclusive=side)
    return each


def _with_some(
    kind: Callable[..., Filter], operators: dict[str, st.SearchStrategy[Any]]
) -> st.SearchStrategy[Filter]:
    names = st.lists(st.sampled_from(sorted(operators)), min_size=1, max_size=3, unique=True)
    return names.flatmap(
        lambda chosen: st.fixed_dictionaries({name: operators[name] for name in chosen})
    ).map(lambda given: kind(**given))


filters = tag_filters() | time_filters()
expressions: st.SearchStrategy[Expression] = st.recursive(
    filters,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(lambda each: And(tuple(each)))
        | st.lists(inner, min_size=1, max_size=3).map(lambda each: Or(tuple(each)))
        | inner.map(Not)
    ),
    max_leaves=6,
)


def accepts(expression: Expression, record: MemoryRecord) -> bool:
    return matches(predicate_of(expression), record)


# --- the oracle ------------------------------------------------------------------------------


def expected(expression: Expression, record: MemoryRecord) -> bool:
    if isinstance(expression, And):
        return all(expected(each, record) for each in expression.operands)
    if isinstance(expression, Or):
        return any(expected(each, record) for each in expression.operands)
    if isinstance(expression, Not):
        return not expected(expression.operand, record)
    assert isinstance(expression, Filter)
    value = getattr(record, expression.field)
    given = expression.given()
    side = given.pop("inclusive", "both")
    if isinstance(expression, TimeFilter):
        return all(_time_holds(name, wanted, side, value) for name, wanted in given.items())
    held = [] if value is None else value if isinstance(value, list) else [str(value)]
    return all(_tag_holds(name, wanted, held) for name, wanted in given.items())


def _tag_holds(name: str, wanted: Any, held: list[str]) -> bool:
    holds: dict[str, Callable[[], object]] = {
        "eq": lambda: wanted in held,
        "ne": lambda: wanted not in held,
        "any": lambda: set(wanted) & set(held),
        "none": lambda: not set(wanted) & set(held),
        "all": lambda: set(wanted) <= set(held),
        "startswith": lambda: [each for each in held if each[: len(wanted)] == wanted],
        "exists": lambda: wanted == (len(held) > 0),
    }
    return bool(holds[name]())


def _time_holds(name: str, wanted: Any, side: str, moment: datetime | None) -> bool:
    if name == "exists":
        return bool(wanted == (moment is not None))
    if name == "ne":
        return bool(moment != wanted)
    if moment is None:
        return False
    if name == "between":
        start, end = wanted
        after = moment >= start if side in ("both", "left") else moment > start
        return bool(after and (moment <= end if side in ("both", "right") else moment < end))
    symbols = {"eq": "eq", "gt": "gt", "gte": "ge", "lt": "lt", "lte": "le"}
    return bool(getattr(operator, symbols[name])(moment, wanted))


@patient
@given(filters, st.lists(records, max_size=8))
def test_a_filter_accepts_what_the_contract_says(each: Filter, some: list[MemoryRecord]) -> None:
    for record in some:
        assert accepts(each, record) == expected(each, record)


@patient
@given(expressions, st.lists(records, max_size=8))
def test_a_tree_accepts_what_the_contract_says(tree: Expression, some: list[MemoryRecord]) -> None:
    for record in some:
        assert accepts(tree, record) == expected(tree, record)


@pytest.mark.parametrize("field", SCALAR_TAG_FIELDS + LIST_TAG_FIELDS)
@patient
@given(st.data())
def test_every_tag_field_is_read_by_its_own_filter(field: str, data: st.DataObject) -> None:
    record = data.draw(records)
    one = data.draw(_values_of(field))
    operators: dict[str, Any] = {
        "eq": one, "ne": one, "any": [one], "none": [one], "startswith": one, "exists": True,
    }  # fmt: skip
    if field in LIST_TAG_FIELDS:
        operators["all"] = [one]
    assert set(operators) == set(FILTERS[field].operators())
    for name, value in operators.items():
        each: Filter = FILTERS[field](**{name: value})
        assert accepts(each, record) == expected(each, record), name


@pytest.mark.parametrize("field", TIME_FIELDS)
@patient
@given(records, moments, moments)
def test_every_time_field_is_read_by_its_own_filter(
    field: str, record: MemoryRecord, start: datetime, end: datetime
) -> None:
    kind: Callable[..., Filter] = FILTERS[field]
    for name in ("eq", "ne", "gt", "gte", "lt", "lte"):
        each = kind(**{name: start})
        assert accepts(each, record) == expected(each, record), name
    for side in ("both", "neither", "left", "right"):
        each = kind(between=sorted([start, end]), inclusive=side)
        assert accepts(each, record) == expected(each, record), side


def test_every_field_that_can_be_filtered_has_exactly_one_filter() -> None:
    assert set(FILTERS) == {*SCALAR_TAG_FIELDS, *LIST_TAG_FIELDS, *TIME_FIELDS}
    assert all(kind.field == field for field, kind in FILTERS.items())
    assert set(FilterArguments.__annotations__) == set(FILTERS)
    assert set(FILTERS) <= set(MemoryRecord.model_fields)


# --- single rules, by example ----------------------------------------------------------------


def record(**fields: Any) -> MemoryRecord:
    return MemoryRecord.model_validate({"id": "1", "text": "text", **fields})


def test_flt_1_one_element_of_a_list_is_enough_but_for_all() -> None:
    both = record(topics=["tea", "travel"])
    assert accepts(Topics(eq="tea"), both)
    assert accepts(Topics(any=["tea", "sport"]), both)
    assert accepts(Topics(all=["travel", "tea"]), both)
    assert not accepts(Topics(all=["tea", "sport"]), both)
    assert accepts(Topics(startswith="t"), both)
    assert not accepts(Topics(eq="t"), both)


def test_flt_2_ne_and_none_accept_records_without_the_field() -> None:
    assert accepts(UserId(ne="ada"), record())
    assert accepts(UserId(none=["ada"]), record())
    assert accepts(Topics(ne="tea"), record(topics=[]))
    assert not accepts(Topics(ne="tea"), record(topics=["tea", "sport"]))


@patient
@given(filters, records)
def test_flt_2_negative_operators_refuse_exactly_what_positive_ones_accept(
    each: Filter, some: MemoryRecord
) -> None:
    opposite = {"eq": "ne", "any": "none"}
    kind: Callable[..., Filter] = type(each)
    for name, value in each.given().items():
        if name in opposite:
            assert accepts(kind(**{name: value}), some) != accepts(
                kind(**{opposite[name]: value}), some
            )


def test_flt_3_an_empty_list_has_no_value() -> None:
    assert accepts(Topics(exists=False), record(topics=[]))
    assert accepts(Topics(exists=False), record())
    assert accepts(Topics(exists=True), record(topics=["a"]))
    assert accepts(Id(exists=True), record())


def test_flt_4_bounds_are_exact_to_the_microsecond() -> None:
    at_noon = record(event_date=NOON)
    assert accepts(EventDate(gt=NOON - TICK, lt=NOON + TICK), at_noon)
    assert not accepts(EventDate(gt=NOON), at_noon)
    assert not accepts(EventDate(lt=NOON), at_noon)
    assert accepts(EventDate(gte=NOON, lte=NOON), at_noon)
    for side, holds in (("both", True), ("neither", False), ("left", False), ("right", False)):
        assert accepts(EventDate(between=(NOON, NOON), inclusive=side), at_noon) is holds  # type: ignore[arg-type]


_persisted_at: Callable[..., Filter] = PersistedAt


def test_flt_4_without_a_time_only_ne_and_exists_false_match() -> None:
    without = record()
    for name in ("eq", "gt", "gte", "lt", "lte"):
        assert not accepts(_persisted_at(**{name: NOON}), without)
    assert not accepts(PersistedAt(between=(NOON, NOON)), without)
    assert accepts(PersistedAt(ne=NOON), without)
    assert accepts(PersistedAt(exists=False), without)


def test_flt_4_nothing_is_beyond_the_first_and_the_last_moment() -> None:
    first, last = (each.replace(tzinfo=UTC) for each in (datetime.min, datetime.max))
    for moment in (first, last):
        some = record(event_date=moment)
        assert not accepts(EventDate(gt=last), some)
        assert not accepts(EventDate(lt=first), some)
        assert accepts(EventDate(between=(first, last)), some)
        assert not accepts(EventDate(between=(first, last), inclusive="neither"), some)


@pytest.mark.parametrize(
    "same",
    [
        NOON,
        NOON.replace(tzinfo=None),
        NOON.astimezone(timezone(timedelta(hours=-7))),
        "2024-05-17T12:00:00",
        "2024-05-17T12:00Z",
        "2024-05-17 14:00:00+02:00",
    ],
)
def test_a_time_may_be_given_in_any_zone_naive_or_as_a_string(same: datetime | str) -> None:
    assert CreatedAt(eq=same) == CreatedAt(eq=NOON)
    assert CreatedAt(between=[same, same]) == CreatedAt(between=(NOON, NOON))


def test_a_date_is_its_midnight() -> None:
    assert as_filter("created_at", date(2024, 5, 17)) == CreatedAt(eq="2024-05-17T00:00:00Z")


def test_flt_5_operators_and_filters_are_anded() -> None:
    ada = record(user_id="ada", topics=["tea"])
    assert accepts(UserId(eq="ada", startswith="a"), ada)
    assert not accepts(UserId(eq="ada", startswith="b"), ada)
    both = combined(~Topics(eq="sport"), {"user_id": "ada", "topics": ["tea"]})
    assert both is not None
    assert accepts(both, ada)
    assert not accepts(both, record(user_id="bob", topics=["tea"]))
    assert not accepts(both, record(user_id="ada", topics=["tea", "sport"]))
    assert combined(None, {}) is None
    assert combined(None, {"user_id": "ada"}) == UserId(eq="ada")


@pytest.mark.parametrize(
    ("field", "plain", "same"),
    [
        ("user_id", "ada", UserId(eq="ada")),
        ("user_id", ["a", "b"], UserId(any=["a", "b"])),
        ("topics", "tea", Topics(eq="tea")),
        ("topics", ("a", "b"), Topics(any=["a", "b"])),
        ("topics", {"b", "a"}, Topics(any=["a", "b"])),
        ("memory_type", MemoryTypeEnum.SEMANTIC, MemoryType(eq="semantic")),
        ("created_at", NOON, CreatedAt(eq=NOON)),
        ("created_at", "2024-05-17T12:00Z", CreatedAt(eq=NOON)),
        ("user_id", UserId(ne="ada"), UserId(ne="ada")),
    ],
)
def test_flt_6_plain_values_are_shorthand(field: str, plain: object, same: Filter) -> None:
    assert as_filter(field, plain) == same


# --- laws (FLT-9) ----------------------------------------------------------------------------


@patient
@given(expressions, expressions, st.lists(records, max_size=8))
def test_flt_9_laws_of_logic(a: Expression, b: Expression, some: list[MemoryRecord]) -> None:
    def chosen(tree: Expression) -> set[int]:
        return {index for index, each in enumerate(some) if accepts(tree, each)}

    everything = set(range(len(some)))
    assert chosen(a & b) == chosen(a) & chosen(b)
    assert chosen(a | b) == chosen(a) | chosen(b)
    assert chosen(~a) == everything - chosen(a)
    assert chosen(~~a) == chosen(Not(Not(a))) == chosen(a)
    assert chosen(~(a & b)) == chosen(~a | ~b)


@patient
@given(filters, filters, records)
def test_flt_9_a_further_operator_never_adds_a_record(
    a: Filter, b: Filter, some: MemoryRecord
) -> None:
    if type(a) is type(b):
        merged: Filter = type(a)(**{**b.given(), **a.given()})
        assert not accepts(merged, some) or accepts(a, some)


# --- JSON, copies, equality ------------------------------------------------------------------


@patient
@given(expressions)
def test_an_expression_round_trips_through_json(tree: Expression) -> None:
    assert expression_from_json(tree.to_json()) == tree
    assert expression_from_json(tree.to_json().encode()) == tree
    assert expression_from_json(tree.to_json_value()) == tree
    assert json.loads(tree.to_json()) == tree.to_json_value()


@patient
@given(st.text(min_size=1), st.lists(st.text(min_size=1), min_size=1))
def test_any_text_round_trips_through_json(one: str, many: list[str]) -> None:
    tree = UserId(eq=one) & ~Topics(any=many) | Entities(all=many)
    assert expression_from_json(tree.to_json()) == tree


@patient
@given(expressions)
def test_copies_and_pickles_are_equal_and_hash_alike(tree: Expression) -> None:
    for same in (copy.copy(tree), copy.deepcopy(tree), pickle.loads(pickle.dumps(tree))):
        assert same == tree
        assert hash(same) == hash(tree)
        assert predicate_of(same) == predicate_of(tree)
        assert repr(same) == repr(tree)


def test_filters_of_different_fields_or_values_are_unequal() -> None:
    different = [UserId(eq="a"), UserId(ne="a"), UserId(eq="b"), Id(eq="a"), SessionId(eq="a")]
    assert len(set(different)) == len(different)
    assert UserId(any=["a", "b"]) == UserId(any=("a", "b"))
    conjunction: Expression = UserId(eq="a") & Id(eq="b")
    assert conjunction != UserId(eq="a") | Id(eq="b")
    assert conjunction != Id(eq="b") & UserId(eq="a")


def test_json_of_known_expressions() -> None:
    tree = (UserId(eq="ada") | ~Topics(all=["a"])) & CreatedAt(between=(NOON, NOON + TICK))
    assert tree.to_json_value() == {
        "and": [
            {"or": [{"user_id": {"eq": "ada"}}, {"not": {"topics": {"all": ["a"]}}}]},
            {
                "created_at": {
                    "between": ["2024-05-17T12:00:00Z", "2024-05-17T12:00:00.000001Z"],
                }
            },
        ]
    }


def test_json_takes_the_plain_values_too() -> None:
    assert expression_from_json('{"user_id": "ada"}') == UserId(eq="ada")
    assert expression_from_json('{"topics": ["a", "b"]}') == Topics(any=["a", "b"])


def test_a_filter_shows_what_it_asks() -> None:
    assert repr(UserId(eq="ada", exists=True)) == "UserId(eq='ada', exists=True)"
    assert UserId(eq="ada", exists=True).given() == {"eq": "ada", "exists": True}


def test_a_filter_cannot_be_changed() -> None:
    each = UserId(eq="ada")
    with pytest.raises(AttributeError):
        each.eq = "bob"  # type: ignore[misc]
    values = ["a"]
    chosen = UserId(any=values)
    values.append("b")
    assert chosen == UserId(any=["a"])


# --- trees -----------------------------------------------------------------------------------


def test_an_expression_has_no_truth_value() -> None:
    for tree in (UserId(eq="a"), UserId(eq="a") & Id(eq="b"), ~UserId(eq="a")):
        for misuse in (lambda t=tree: t and t, lambda t=tree: t or t, lambda t=tree: not t):
            with pytest.raises(InvalidArgumentError, match="no truth value: combine with &"):
                misuse()


def test_only_expressions_can_be_combined() -> None:
    for wrong in (True, None, "user_id", {"user_id": "ada"}):
        for combine in (operator.and_, operator.or_):
            with pytest.raises(InvalidArgumentError, match="expected a filter such as UserId"):
                combine(UserId(eq="a"), wrong)
        with pytest.raises(InvalidArgumentError, match="expected a filter such as UserId"):
            And((UserId(eq="a"), wrong))  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentError, match="expected a filter such as UserId"):
            Not(wrong)  # type: ignore[arg-type]
    for kind in (And, Or):
        with pytest.raises(InvalidArgumentError, match=f"{kind.__name__} of nothing"):
            kind(())


def test_double_negation_is_the_expression_itself() -> None:
    each = UserId(eq="a")
    assert ~~each is each


def _stair(levels: int) -> Expression:
    tree: Expression = UserId(eq="a")
    for level in range(levels):
        tree = tree & Id(eq="1") if level % 2 else tree | Id(eq="1")
    return tree


def test_a_tree_may_be_as_deep_as_the_limit_and_no_deeper() -> None:
    deepest = _stair(MAX_DEPTH)
    assert deepest.depth == MAX_DEPTH
    assert accepts(deepest, record(id="1"))
    assert not accepts(deepest, record(id="2"))
    assert expression_from_json(deepest.to_json()) == deepest
    too_deep: list[Callable[[], Expression]] = [
        lambda: deepest & UserId(eq="a") | UserId(eq="a"),
        lambda: Not(deepest),
        lambda: And((deepest,)),
        lambda: expression_from_json({"not": deepest.to_json_value()}),
    ]
    for build in too_deep:
        with pytest.raises(InvalidArgumentError, match="nested 100 levels deep"):
            build()


def test_a_wide_tree_is_shallow() -> None:
    wide = functools.reduce(operator.or_, (Id(eq=str(each)) for each in range(1_000)))
    assert wide.depth == 1
    assert accepts(wide, record(id="999"))
    assert not accepts(wide, record(id="1000"))
    assert expression_from_json(wide.to_json()) == wide
    huge = And(tuple(Id(ne=str(each)) for each in range(50_000)))
    assert huge.depth == 1
    assert not accepts(huge, record(id="49999"))


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"not":' * 100_000, '{"not":' * 500 + '{"user_id":"a"}' + "}" * 500]
    + [f'{{"user_id":{"[" * depth + "]" * depth}}}' for depth in range(900, 1000, 3)],
    ids=lambda text: f"{text[:9]} {len(text)}",
)
def test_json_nested_without_end_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        expression_from_json(text)


# --- what is refused (FLT-7) -----------------------------------------------------------------

user_id: Callable[..., Filter] = UserId

REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: as_filter("usr_id", "a"), "'usr_id' is no filter: did you mean 'user_id'?"),
    (lambda: as_filter("text", "a"), "'text' is no filter: there are id, session_id, user_id"),
    (lambda: as_filter("metadata", {}), "'metadata' is no filter: there are id"),
    (lambda: as_filter("user_id", None), "leave user_id out to accept every value, or use UserId("),
    (lambda: as_filter("user_id", ""), "UserId(eq=...): an empty string is the value of no record"),
    (lambda: as_filter("user_id", []), "UserId(any=...): an empty list; leave the filter out"),
    (lambda: as_filter("user_id", 5), "UserId(eq=...): expected a string, got 5 (int)"),
    (lambda: as_filter("user_id", Id(eq="a")), "filters by id: use UserId(...)"),
    (lambda: as_filter("user_id", Id(eq="a") & Id(eq="b")), "pass it as where="),
    (lambda: as_filter("created_at", 5), "CreatedAt(eq=...): expected a datetime or an ISO 8601"),
    (
        lambda: as_filter("created_at", []),
        "expected a datetime or an ISO 8601 string, got [] (list)",
    ),
    (lambda: combined({"user_id": "a"}, {}), "expected a filter such as UserId(eq='ada')"),
    (lambda: UserId(), "UserId() filters nothing: give one of eq, ne, any, none, startswith"),
    (lambda: CreatedAt(), "CreatedAt() filters nothing: give one of eq, ne, gt, gte"),
    (lambda: UserId("ada"), "name the operator: UserId(eq=...)"),  # type: ignore[call-arg]
    (lambda: UserId(eqq="a"), "'eqq' is no operator of UserId: did you mean 'eq'?"),  # type: ignore[call-arg]
    (lambda: UserId(all=["a"]), "'all' is no operator of UserId: there are eq"),  # type: ignore[call-arg]
    (lambda: UserId(gt="a"), "'gt' is no operator of UserId"),  # type: ignore[call-arg]
    (lambda: user_id(cls="a"), "'cls' is no operator of UserId"),
    (lambda: user_id(self="a"), "'self' is no operator of UserId"),
    (lambda: user_id(field="id", eq="a"), "'field' is no operator of UserId"),
    (lambda: Topics(_depth=1), "'_depth' is no operator of Topics"),  # type: ignore[call-arg]
    (lambda: UserId(eq=None), "UserId(eq=...): expected a string, got None (NoneType)"),  # type: ignore[arg-type]
    (lambda: UserId(eq="", ne="a"), "UserId(eq=...): an empty string"),
    (lambda: UserId(startswith=""), "UserId(startswith=...): an empty string"),
    (lambda: UserId(eq=["a"]), "UserId(eq=...): expected a string, got ['a'] (list)"),  # type: ignore[arg-type]
    (lambda: UserId(eq=b"a"), "expected a string, got b'a' (bytes)"),  # type: ignore[arg-type]
    (lambda: UserId(eq="\ud800"), "UserId(eq=...): a lone surrogate at position 0"),
    (lambda: UserId(any="ada"), "UserId(any=...): expected a list of strings, got 'ada' (str)"),
    (lambda: UserId(none=[]), "UserId(none=...): an empty list"),
    (lambda: UserId(any=["a", ""]), "UserId(any=...): an empty string"),
    (lambda: UserId(any=["a", None]), "UserId(any=...): expected a string, got None"),  # type: ignore[list-item]
    (lambda: Topics(all=[]), "Topics(all=...): an empty list"),
    (lambda: UserId(exists=1), "UserId(exists=...): expected True or False, got 1 (int)"),  # type: ignore[arg-type]
    (lambda: UserId(exists=None), "expected True or False, got None"),  # type: ignore[arg-type]
    (lambda: CreatedAt(exists="no"), "CreatedAt(exists=...): expected True or False"),  # type: ignore[arg-type]
    (lambda: CreatedAt(eq="yesterday"), "CreatedAt(eq=...): 'yesterday' is not a time"),
    (
        lambda: CreatedAt(eq="1700000000"),
        "give a datetime or an ISO 8601 string, not a bare number",
    ),
    (lambda: CreatedAt(gt=1.5), "CreatedAt(gt=...): expected a datetime or an ISO 8601 string"),  # type: ignore[arg-type]
    (lambda: CreatedAt(lt=True), "got True (bool)"),  # type: ignore[arg-type]
    (lambda: CreatedAt(eq=None), "got None (NoneType)"),  # type: ignore[arg-type]
    (
        lambda: CreatedAt(lt=datetime.max.replace(tzinfo=timezone(-timedelta(hours=1)))),
        "CreatedAt(lt=...): in UTC this time is outside the years 1 to 9999",
    ),
    (lambda: CreatedAt(between=NOON), "CreatedAt(between=...): expected (start, end)"),  # type: ignore[arg-type]
    (lambda: CreatedAt(between=[NOON]), "CreatedAt(between=...): expected (start, end)"),
    (lambda: CreatedAt(between=(NOON, None)), "CreatedAt(between=...): expected a datetime"),  # type: ignore[arg-type]
    (
        lambda: CreatedAt(between=(NOON + TICK, NOON)),
        "CreatedAt(between=...): reversed: 2024-05-17T12:00:00.000001+00:00 is after",
    ),
    (
        lambda: CreatedAt(between=(NOON, NOON), inclusive="all"),  # type: ignore[arg-type]
        "CreatedAt(inclusive=...): expected 'both', 'neither', 'left' or 'right'",
    ),
    (lambda: CreatedAt(inclusive="both"), "belongs to between=(start, end), which is missing"),
    (lambda: CreatedAt(any=[NOON]), "'any' is no operator of CreatedAt"),  # type: ignore[call-arg]
    (lambda: expression_from_json("{"), "the filter is not JSON"),
    (lambda: expression_from_json(b"\xff"), "the filter is not JSON"),
    (lambda: expression_from_json("[]"), 'expected one filter such as {"user_id": {"eq": "ada"}}'),
    (lambda: expression_from_json("{}"), "expected one filter such as"),
    (lambda: expression_from_json("null"), "expected one filter such as"),
    (lambda: expression_from_json('{"user_id": "a", "id": "b"}'), "expected one filter such as"),
    (lambda: expression_from_json('{"user_id": "a", "user_id": "b"}'), "'user_id' is given twice"),
    (lambda: expression_from_json('{"id": {"eq": "a", "eq": "b"}}'), "'eq' is given twice"),
    (lambda: expression_from_json('{"and": []}'), "And of nothing"),
    (lambda: expression_from_json('{"and": {"user_id": "a"}}'), '"and" takes a list, got'),
    (lambda: expression_from_json('{"nand": []}'), "'nand' is no filter: did you mean 'and'?"),
    (lambda: expression_from_json('{"user_id": {}}'), "UserId() filters nothing"),
    (lambda: expression_from_json('{"user_id": null}'), "user_id=None: leave user_id out"),
    (lambda: expression_from_json('{"user_id": {"eq": null}}'), "expected a string, got None"),
    (lambda: expression_from_json('{"user_id": {"cls": "a"}}'), "'cls' is no operator of UserId"),
    (lambda: expression_from_json('{"user_id": {"eq": "\\ud800"}}'), "a lone surrogate"),
    (lambda: expression_from_json({"user_id": {1: "a"}}), "1 is no operator of UserId"),
    (lambda: expression_from_json({1: "a"}), "1 is no filter"),
    (lambda: expression_from_json('{"created_at": {"gt": 5}}'), "CreatedAt(gt=...): expected a"),
]


@pytest.mark.parametrize(
    ("build", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED]
)
def test_flt_7_what_cannot_be_honoured_is_refused_with_a_reason(
    build: Callable[[], object], message: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        build()
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("value", ["x" * 10_000_000, ["x"] * 100_000], ids=["long", "many"])
def test_a_message_does_not_repeat_a_huge_value(value: Any) -> None:
    refused: list[Callable[[], Expression]] = [
        lambda: CreatedAt(eq=value),
        lambda: UserId(exists=value),
        lambda: expression_from_json([value]),
        lambda: expression_from_json({"user_id": {"eq": [value]}}),
        lambda: as_filter("x" * 10_000, "a"),
    ]
    for build in refused:
        with pytest.raises(InvalidArgumentError) as caught:
            build()
        assert len(str(caught.value)) < 500


json_keys = st.sampled_from([*FILTERS, "and", "or", "not", "eq", "any", "cls"]) | st.text()


@patient
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("user_id"),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(json_keys, inner, min_size=1, max_size=2)
        ),
        max_leaves=8,
    )
)
def test_any_json_is_an_expression_or_refused_in_our_terms(value: object) -> None:
    for given_ in (value, json.dumps(value)):
        try:
            tree = expression_from_json(given_)
        except InvalidArgumentError:
            continue
        assert expression_from_json(tree.to_json()) == tree


# --- FLT-8 -----------------------------------------------------------------------------------


def test_flt_8_a_caller_cannot_choose_the_field() -> None:
    each = UserId(eq="ada")
    for change in (setattr, object.__setattr__):
        with pytest.raises((AttributeError, TypeError)):
            change(each, "field", "id")
    assert each.field == "user_id"
    for base in (TagFilter, ListTagFilter, TimeFilter):
        with pytest.raises(InvalidArgumentError, match="has no field: use the filter of one"):
            base(exists=True)


@patient
@given(st.text(min_size=1), st.text(min_size=1))
def test_flt_8_a_value_is_only_ever_compared(value: str, other: str) -> None:
    some = record(user_id=value, topics=[value])
    assert accepts(UserId(eq=value) & Topics(eq=value), some)
    assert accepts(UserId(eq=other), some) == (value == other)
    assert accepts(UserId(startswith=other), some) == value.startswith(other)
    assert accepts(UserId(any=[other, other + value]), some) == (value == other)


@pytest.mark.parametrize("kind", [UserId, Topics, CreatedAt])
def test_an_operator_that_was_not_given_reads_as_none(kind: type[TagFilter | TimeFilter]) -> None:
    some = kind(exists=False)
    others = {name: getattr(some, name) for name in some.operators() if name != "exists"}
    assert set(others.values()) == {None}
    assert some.exists is False
