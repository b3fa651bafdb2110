"""The parts of the kit by themselves: manifest, profile, oracle, geometry, messages."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_memory import (
    Capability,
    CreatedAt,
    EventDate,
    Expression,
    InvalidArgumentError,
    MemoryRecord,
    MemoryVectorDatabase,
    RecencyParams,
    Topics,
    UserId,
)
from agent_memory.embeddings import Embeddings
from agent_memory.predicates import matches, predicate_of
from agent_memory_testkit import (
    RULES,
    ConformanceFailure,
    ConformanceSuite,
    ExactEmbeddings,
    Profile,
    ScatteredEmbeddings,
    Task,
    Unsupported,
    strategies,
)
from agent_memory_testkit.embedders import AXES, VECTORS, exact_vector
from agent_memory_testkit.journal import Journal, brief
from agent_memory_testkit.model import (
    MemoryModel,
    accepts,
    boosted,
    differing_fields,
    distance,
    memory_hash,
    page_of,
    ranked_by_recency,
    same,
)
from agent_memory_testkit.reference import ReferenceDatabase
from agent_memory_testkit.rules import GROUPS, WHOLE, checked_by, rule_of_test
from agent_memory_testkit.samples import DAY, MICROSECOND, NOW, TROUBLE, memory
from agent_memory_testkit.suite.base import (
    EFFORT_VARIABLE,
    PATIENCE_VARIABLE,
    hypothesis_settings,
    is_thorough,
    patience,
)

TESTS = [name for name in dir(ConformanceSuite) if name.startswith("test_")]


# --- the manifest ------------------------------------------------------------------------------


def test_every_rule_has_a_test() -> None:
    tested = {rule_of_test(name) for name in TESTS}
    assert [each for each in RULES if each not in tested] == []


def test_every_test_names_a_rule_of_the_manifest() -> None:
    nameless = [name for name in TESTS if rule_of_test(name) not in RULES]
    assert nameless == ["test_all_methods_agree_with_the_model", "test_nothing_is_left_behind"]
    assert [checked_by(name) for name in nameless] == list(WHOLE)


def test_every_rule_has_a_level_and_a_group() -> None:
    levels = {each.id: each.level for each in RULES.values()}
    assert {rule for rule, level in levels.items() if level == "network"} == {
        "ERR-1",
        "ERR-2",
        "ERR-3",
    }
    assert {rule for rule, level in levels.items() if level == "capability"} == {
        "SRCH-7",
        "SRCH-8",
        "LIFE-3",
    }
    assert [each.group for each in RULES.values()] == [
        group for group in GROUPS for each in RULES.values() if each.id.startswith(f"{group}-")
    ]


def test_the_names_of_the_package_are_where_it_says() -> None:
    import agent_memory_testkit

    for name in agent_memory_testkit.__all__:
        assert getattr(agent_memory_testkit, name) is not None
    assert set(agent_memory_testkit.__all__) <= set(dir(agent_memory_testkit))
    with pytest.raises(AttributeError, match="no attribute 'Suite'"):
        _ = agent_memory_testkit.Suite  # type: ignore[attr-defined]


def test_every_test_tells_what_usually_causes_its_failure() -> None:
    for name in TESTS:
        said = getattr(ConformanceSuite, name).__doc__ or ""
        assert "Usual cause" in said or "its cause is" in said, name
        assert "as above" not in said.lower(), f"{name}: a report shows its docstring alone"


def test_the_rules_are_those_of_the_contract() -> None:
    counts = {"REC": 4, "ADD": 8, "UPD": 3, "DEL": 3, "GET": 1, "CNT": 2, "LST": 5, "SRCH": 8}
    counts |= {"RCY": 2, "FLT": 9, "ISO": 4, "LIFE": 4, "CONC": 3, "ERR": 5}
    expected = [f"{group}-{n}" for group, count in counts.items() for n in range(1, count + 1)]
    assert list(RULES) == expected


# --- the profile -------------------------------------------------------------------------------


def test_a_profile_expects_every_promise_that_is_not_off() -> None:
    assert Profile("x").capabilities == frozenset(Capability) - {Capability.APPROXIMATE}
    reduced = Profile("x", on=["approximate"], off={"shared": Unsupported("one handle only")})
    assert reduced.capabilities == frozenset(Capability) - {Capability.SHARED}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"off": {"hybrid": Unsupported("no")}}, "did you mean 'hybrid_search'"),
        ({"on": ["aproximate"]}, "did you mean 'approximate'"),
        ({"off": {"shared": "because"}}, "say why"),
        ({"on": ["shared"], "off": {"shared": Unsupported("no")}}, "both on and off"),
        ({"metric": "euclid"}, "no metric"),
    ],
)
def test_a_wrong_profile_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        Profile("x", **arguments)


def test_a_reason_must_say_something() -> None:
    with pytest.raises(InvalidArgumentError, match="say why"):
        Unsupported("  ")


def test_a_suite_without_a_profile_is_refused() -> None:
    class Nameless(ConformanceSuite):
        pass

    with pytest.raises(InvalidArgumentError, match="needs: profile"):
        Nameless.setup_class()
    with pytest.raises(InvalidArgumentError, match="expected Profile"):
        type("Wrong", (ConformanceSuite,), {"profile": "redis"})


# --- the oracle --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "accepted"),
    [
        (UserId(eq="ada"), "1"),
        (UserId(ne="ada"), "23"),
        (UserId(any=["ada", "bob"]), "12"),
        (UserId(none=["ada", "bob"]), "3"),
        (UserId(startswith="b"), "2"),
        (UserId(exists=False), "3"),
        (UserId(exists=True, ne="bob"), "1"),
        (Topics(eq="a"), "1"),
        (Topics(all=["a", "b"]), "1"),
        (Topics(any=["b", "c"]), "1"),
        (Topics(exists=True), "1"),
        (Topics(none=["a"]), "23"),
        (EventDate(eq=NOW), "1"),
        (EventDate(ne=NOW), "23"),
        (EventDate(gt=NOW - MICROSECOND), "12"),
        (EventDate(gt=NOW), "2"),
        (EventDate(between=(NOW, NOW + MICROSECOND), inclusive="left"), "1"),
        (EventDate(between=(NOW, NOW + MICROSECOND), inclusive="right"), "2"),
        (EventDate(between=(NOW, NOW + MICROSECOND), inclusive="neither"), ""),
        (EventDate(between=(NOW, NOW + MICROSECOND)), "12"),
        (EventDate(exists=False), "3"),
        (~CreatedAt(lt=NOW) & (UserId(eq="ada") | Topics(exists=False)), "123"),
    ],
)
def test_the_oracle_filters_as_the_contract_says(condition: Expression, accepted: str) -> None:
    memories = [
        memory("1", user_id="ada", topics=["a", "b"], event_date=NOW),
        memory("2", user_id="bob", topics=[], event_date=NOW + MICROSECOND),
        memory("3"),
    ]
    wanted = condition.to_json_value()
    assert "".join(each.id for each in memories if accepts(wanted, each)) == accepted


def test_the_oracle_orders_by_distance_time_and_id() -> None:
    model = MemoryModel(ExactEmbeddings())
    model.add(
        [
            memory("b", "<24>", created_at=NOW),
            memory("a", "<24>", created_at=NOW),
            memory("far", "<8>", created_at=NOW + DAY),
            memory("near", "<0>", created_at=NOW - DAY),
        ]
    )
    assert [each.id for each in model.ranked("<0>")] == ["near", "a", "b", "far"]
    assert [each.id for each in model.listed()] == ["far", "a", "b", "near"]
    assert [each.dist for each in model.ranked("<0>")] == pytest.approx([0.0, 0.4, 0.4, 2.0])


def test_the_oracle_weighs_recency_as_the_formula_says() -> None:
    model = MemoryModel(ExactEmbeddings())
    model.add([memory("m", "<24>", last_accessed=NOW - 7 * DAY, created_at=NOW - 60 * DAY)])
    [found] = model.ranked("<0>")
    assert boosted(found, "cosine", RecencyParams(), NOW) == pytest.approx(
        0.8 * 0.6 + 0.2 * (0.6 / 2 + 0.4 / 4)
    )
    old = memory("old", "<0>", last_accessed=NOW - 999 * DAY, created_at=NOW - 999 * DAY)
    model.add([old, memory("new", "<16>")])
    ranked = model.ranked("<0>")
    by_age = RecencyParams(semantic_weight=0, recency_weight=1, candidates=2, now=NOW)
    ids = [each.id for each in ranked_by_recency(ranked, "cosine", by_age, NOW)]
    assert ids == ["m", "old", "new"]


def test_the_oracle_hashes_as_the_core_does() -> None:
    for text in TROUBLE:
        if text.strip():
            record = memory("m", text, user_id=text, namespace=None)
            assert memory_hash(record) == record.compute_hash()


def test_pages_of_the_oracle() -> None:
    letters = "abcde"
    assert [
        (page.items, page.total, page.next_offset)
        for page in (page_of(letters, limit=2, offset=offset) for offset in (0, 2, 3, 4, 5, 9))
    ] == [("ab", 5, 2), ("cd", 5, 4), ("de", 5, None), ("e", 5, None), ("", 5, None), ("", 5, None)]


def test_sameness_is_stricter_than_equality() -> None:
    assert same({"a": [1, None]}, {"a": [1.0, None]})
    assert not same(True, 1)
    assert not same({"a": 0}, {"a": False})
    assert not same([], None)
    assert not same(NOW.replace(tzinfo=None), NOW)
    fields = differing_fields(memory("a", topics=[]), memory("a"))
    assert fields == {"topics": ([], None)}


# --- the geometry ------------------------------------------------------------------------------


def test_the_vectors_are_different_and_of_rational_length() -> None:
    vectors = [exact_vector(number) for number in range(VECTORS)]
    assert len(set(vectors)) == VECTORS
    assert all((sum(x * x for x in each) ** 0.5 * 2).is_integer() for each in vectors)


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_distances_from_an_axis_are_equal_or_well_apart(metric: str) -> None:
    found = {distance(metric, exact_vector(0), exact_vector(n)) for n in range(VECTORS)}
    assert len({key for key, _ in found}) == len(found)
    in_order = sorted(found)
    assert all(far - near > 1e-3 for (_, near), (_, far) in itertools.pairwise(in_order))


@given(number=st.integers(0, VECTORS - 1), query=st.integers(0, AXES - 1))
def test_embeddings_put_marked_texts_where_they_say(number: int, query: int) -> None:
    embeddings = ExactEmbeddings(container="tuples")
    [vector] = asyncio.run(embeddings.aembed_documents([f"<{number}> said"]))
    assert vector == exact_vector(number)
    assert asyncio.run(embeddings.aembed_query(f"<{query}>")) == exact_vector(query)
    assert (embeddings.document_batches, embeddings.query_calls) == ([1], 1)


def test_the_embedders_follow_the_protocol() -> None:
    assert isinstance(ExactEmbeddings(), Embeddings)
    assert isinstance(ScatteredEmbeddings(), Embeddings)


# --- the strategies ----------------------------------------------------------------------------


@given(record=strategies.records() | strategies.colliding_records())
def test_generated_records_are_valid_and_do_not_depend_on_the_time_of_day(
    record: MemoryRecord,
) -> None:
    assert MemoryRecord.model_validate(record.model_dump()) == record
    assert len(brief(record)) < 5_000


@settings(max_examples=300)
@given(
    memories=st.lists(strategies.colliding_records(), max_size=4), where=strategies.expressions()
)
def test_generated_expressions_mean_the_same_to_oracle_and_core(
    memories: list[MemoryRecord], where: Expression
) -> None:
    for each in memories:
        assert accepts(where.to_json_value(), each) == matches(predicate_of(where), each)


def test_troublesome_values_are_different() -> None:
    assert len(set(TROUBLE)) == len(TROUBLE) > 80


# --- the suite ---------------------------------------------------------------------------------


def test_calls_that_are_the_same_are_told_once() -> None:
    journal = Journal()
    for arguments in ((1,), (2,), (2,), (2,), (1,)):
        journal.begin("db.get", arguments, {}).outcome = "same"
    assert str(journal).splitlines()[1:] == [
        "    db.get(1) -> 'same'",
        "    db.get(2) -> 'same' (3 times)",
        "    db.get(1) -> 'same'",
    ]


def test_the_effort_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(EFFORT_VARIABLE, raising=False)
    assert not is_thorough()
    assert hypothesis_settings(7).max_examples == 7
    monkeypatch.setenv(EFFORT_VARIABLE, "thorough")
    assert hypothesis_settings(7).max_examples == 70
    monkeypatch.setenv(EFFORT_VARIABLE, "thorogh")
    with pytest.raises(InvalidArgumentError, match="thorogh"):
        is_thorough()


@pytest.mark.parametrize("wrong", ["", "long", "0", "-1", "nan", "inf"])
def test_the_patience_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.delenv(PATIENCE_VARIABLE, raising=False)
    assert patience() == 120
    monkeypatch.setenv(PATIENCE_VARIABLE, "0.5")
    assert patience() == 0.5
    monkeypatch.setenv(PATIENCE_VARIABLE, wrong)
    with pytest.raises(InvalidArgumentError, match=PATIENCE_VARIABLE):
        patience()


def test_after_a_hang_the_others_have_less_time_and_are_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Hangs(ReferenceDatabase):
        async def add_memories(self, memories: Any) -> list[str]:
            await asyncio.sleep(60)
            raise AssertionError("the kit has waited")

    class Hanging(ConformanceSuite):
        profile = Profile("hanging")

        async def open(self, space: str, embeddings: Any) -> MemoryVectorDatabase:
            return Hangs(embeddings, space=space, directory=self.directory)

        async def clean_up(self, space: str, embeddings: Any) -> None:
            """Nothing was added."""

    Hanging.setup_class()
    monkeypatch.setenv(PATIENCE_VARIABLE, "0.12")
    try:
        with pytest.raises(ConformanceFailure, match=r"more than 0\.12 s\n.*--patience"):
            Hanging().test_add_1_ids_are_returned_in_the_order_given()
        with pytest.raises(ConformanceFailure, match=r"more than 0\.01 s \(less than 0\.12 s"):
            Hanging().test_add_1_ids_are_returned_in_the_order_given()
    finally:
        Hanging.teardown_class()


def test_another_process_imports_what_this_one_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside_the_tests.py").write_text(
        "from agent_memory_testkit.reference import ReferenceDatabase\n"
    )
    (tmp_path / "test_of_another.py").write_text(
        "from beside_the_tests import ReferenceDatabase\n"
        "from agent_memory_testkit import ConformanceSuite, Profile\n"
        "class TestOther(ConformanceSuite):\n"
        "    profile = Profile('other')\n"
        "    async def open(self, space, embeddings):\n"
        "        return ReferenceDatabase(embeddings, space=space, directory=self.directory)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)  # as pytest's option pythonpath does
    suite = importlib.import_module("test_of_another").TestOther
    suite.directory = tmp_path
    with suite().second_process(Task("space", add=("1", "2"))) as process:
        output, _ = process.communicate()
    assert json.loads(output) == {"said": "acknowledged", "ids": ["1", "2"]}


def test_a_class_that_another_process_cannot_import_is_refused() -> None:
    class Local(ConformanceSuite):
        profile = Profile("local")

        async def open(self, space: str, embeddings: Any) -> MemoryVectorDatabase:
            return ReferenceDatabase(embeddings, space=space, directory=self.directory)

    Local.setup_class()
    try:
        with pytest.raises(InvalidArgumentError, match="override second_process"):
            Local().second_process(Task("space"))
    finally:
        Local.teardown_class()


AUTHORS_MODULE = """
from agent_memory_testkit import ConformanceSuite, Profile, Unsupported
from agent_memory_testkit.reference import ReferenceDatabase


class Forgetful(ReferenceDatabase):
    def _remove(self, memory_ids):
        return super()._remove(list(memory_ids)[:1])


class TestForgetful(ConformanceSuite):
    profile = Profile("forgetful"{options})

    async def open(self, space, embeddings):
        return Forgetful(embeddings, space=space, directory=self.directory)
"""


def run_pytest(directory: Path, options: str, *arguments: str) -> tuple[int, str]:
    module = directory / "test_author.py"
    module.write_text(AUTHORS_MODULE.replace("{options}", options))
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, str(module)],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return ran.returncode, ran.stdout


def test_pytest_tells_the_rule_the_calls_and_the_difference(tmp_path: Path) -> None:
    code, said = run_pytest(tmp_path, "", "-k", "test_del_2_deleted or test_get_1 or test_rec_4")
    assert code == 1
    assert "1 failed, 4 passed" in said
    assert "FAILED test_author.py::TestForgetful::test_del_2_deleted_records_are_gone" in said
    assert re.search(
        r"DEL-2 broken by forgetful: .*\n.* checked:   the number returned\n"
        r".* came back: 1\n.* should be: 3\n.* calls .*:\n.*db.add_memories",
        said,
    )
    assert "db.delete_memories(['m1', 'm3', 'm5']) -> 1" in said


def test_pytest_refuses_an_unknown_capability_while_collecting(tmp_path: Path) -> None:
    code, said = run_pytest(tmp_path, ', off={"hybrid": Unsupported("no")}')
    assert code == 2
    assert "'hybrid' is no capability: did you mean 'hybrid_search'?" in said
