"""Verdicts, reports, the page and the matrix: made from outcomes without running a suite."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel

from agent_memory import InvalidArgumentError, MemoryVectorDatabase
from agent_memory_testkit import ConformanceSuite, Profile, Unsupported
from agent_memory_testkit.matrix import matrix_of
from agent_memory_testkit.page import page_of
from agent_memory_testkit.profile import Network
from agent_memory_testkit.reference import ReferenceDatabase
from agent_memory_testkit.report import (
    BackendReport,
    CapabilityReport,
    Distribution,
    FailureReport,
    Outcome,
    Report,
    RuleReport,
    TestReport,
    read_report,
    schema,
    without_credentials,
    worst,
)
from agent_memory_testkit.rules import RULES, WHOLE
from agent_memory_testkit.suite.base import Met
from agent_memory_testkit.verdict import (
    REQUIRED_TESTS,
    Observed,
    SuiteRun,
    distribution_of,
    report_of,
    story_of,
)

PLAIN = Profile("x")
WHOLE_TESTS = [name for name, rule in REQUIRED_TESTS.items() if rule == "MODEL"]
DEL_1 = [name for name, rule in REQUIRED_TESTS.items() if rule == "DEL-1"]
NASTY = "<script>alert('x')</script> | *bold* & \\ `code`"


def suite(profile: Profile) -> type[ConformanceSuite]:
    """Return a class of tests that has met its backend, but has run nothing."""

    class Suite(ConformanceSuite):
        async def open(self, space: str, embeddings: Any) -> MemoryVectorDatabase:
            raise AssertionError("nothing is run here")

    Suite.profile = profile
    Suite._met = Met(ReferenceDatabase, {"engine": "1.2"})
    return Suite


def judged(
    profile: Profile = PLAIN, outcomes: Mapping[str, Outcome] = MappingProxyType({})
) -> BackendReport:
    """Return the verdict on a suite all of whose tests passed, but for those named."""
    run = SuiteRun(suite(profile), "test_x.py::TestX")
    run.tests = {name: Observed("passed", None, 0.5) for name in REQUIRED_TESTS}
    for name, outcome in outcomes.items():
        run.tests[name] = Observed(outcome, "a reason", 0.5, f"story of {name}")
    return run.judged(lambda rule, name: f"repeat {rule} {name}")


def status(backend: BackendReport, rule: str) -> str:
    [found] = [each.status for each in backend.rules if each.id == rule]
    return found


def whole(*backends: BackendReport) -> Report:
    return report_of(
        list(backends), started=datetime(2026, 1, 2, 3, 4, tzinfo=UTC), seconds=1.5, seed=7
    )


NETWORK = Profile("x", network=Network("localhost", 6379, 1.0))
WITHOUT_WORDS = {
    "keyword_search": Unsupported("no words"),
    "hybrid_search": Unsupported("no words either"),
}


# --- verdicts ----------------------------------------------------------------------------------


def test_everything_that_passes_is_a_pass() -> None:
    backend = judged(NETWORK)
    assert backend.result == "pass"
    assert {each.status for each in backend.rules} == {"pass"}
    assert [each.id for each in backend.rules] == [*RULES, *WHOLE]
    assert backend.seconds == 0.5 * len(REQUIRED_TESTS)
    assert backend.engine_versions == {"engine": "1.2"}
    assert backend.handle == "agent_memory_testkit.reference.ReferenceDatabase"


def test_every_rule_and_every_test_of_the_suite_is_required() -> None:
    assert set(REQUIRED_TESTS.values()) == {*RULES, *WHOLE}
    assert set(REQUIRED_TESTS) == {n for n in dir(ConformanceSuite) if n.startswith("test_")}


def test_rules_that_do_not_bind_are_unsupported_with_the_reason() -> None:
    backend = judged(Profile("x", off=WITHOUT_WORDS))
    assert backend.result == "pass"
    unsupported = {each.id: each.reason for each in backend.rules if each.status == "unsupported"}
    assert unsupported == {
        "SRCH-7": "keyword_search: no words",
        "SRCH-8": "hybrid_search: no words either",
        "ERR-1": "the backend reaches its engine without a network",
        "ERR-2": "the backend reaches its engine without a network",
        "ERR-3": "the backend reaches its engine without a network",
    }
    assert backend.capabilities["keyword_search"] == CapabilityReport(
        expected=False, reason="no words"
    )
    assert backend.capabilities["approximate"].reason == "not named in the profile"


def test_one_capability_of_a_rule_that_names_two_is_enough() -> None:
    shared = {"shared": Unsupported("one owner")}
    both = {**shared, "persistent": Unsupported("in memory")}
    assert status(judged(Profile("x", off=shared)), "LIFE-3") == "pass"
    assert status(judged(Profile("x", off=both)), "LIFE-3") == "unsupported"
    assert status(judged(Profile("x", off=both)), "CLEAN") == "unsupported"


def test_an_unsupported_rule_must_be_refused_all_the_same() -> None:
    name = next(name for name, rule in REQUIRED_TESTS.items() if rule == "SRCH-7")
    backend = judged(Profile("x", off=WITHOUT_WORDS), {name: "failed"})
    assert (backend.result, status(backend, "SRCH-7")) == ("fail", "fail")


@pytest.mark.parametrize(
    ("outcomes", "expected", "result"),
    [
        (["passed", "failed"], "fail", "fail"),
        (["error", "passed"], "error", "fail"),
        (["error", "failed"], "fail", "fail"),
        (["skipped", "failed"], "fail", "fail"),
        (["skipped", "passed"], "not run", "partial"),
        (["passed", "expected failure"], "not run", "partial"),
        (["not run", "passed"], "not run", "partial"),
    ],
)
def test_a_rule_is_as_good_as_the_worst_of_its_tests(
    outcomes: list[Outcome], expected: str, result: str
) -> None:
    backend = judged(NETWORK, dict(zip(DEL_1, outcomes, strict=True)))
    assert (status(backend, "DEL-1"), backend.result) == (expected, result)


def test_of_a_test_that_ran_twice_the_worst_outcome_counts() -> None:
    seen = Observed()
    seen.add("failed", story="flaky")
    seen.add("passed")
    assert (seen.outcome, seen.story) == ("failed", "flaky")


def test_a_run_in_which_nothing_ended_was_not_executed() -> None:
    run = SuiteRun(suite(Profile("x")), "place")
    assert not run.executed
    run.tests[DEL_1[0]] = Observed("skipped", "later")
    assert not run.executed
    run.tests[DEL_1[0]] = Observed("passed")
    assert run.executed


def test_failures_come_in_the_order_of_the_contract() -> None:
    backend = judged(PLAIN, dict.fromkeys([*WHOLE_TESTS, *DEL_1], "failed"))
    assert [each.rule for each in backend.failures] == ["DEL-1", "DEL-1", "MODEL"]
    assert backend.failures[0].reproduce == f"repeat DEL-1 {DEL_1[0]}"


def test_the_worst_result_counts_and_nothing_is_partial() -> None:
    assert worst(["pass", "partial", "fail"]) == "fail"
    assert worst(["pass", "partial"]) == "partial"
    assert worst(["pass", "pass"]) == "pass"
    assert worst([]) == whole().result == "partial"


# --- JSON --------------------------------------------------------------------------------------


def example() -> Report:
    failing = judged(Profile(NASTY, off=WITHOUT_WORDS), {DEL_1[0]: "failed", DEL_1[1]: "error"})
    return whole(judged(NETWORK), failing, judged(PLAIN, {DEL_1[0]: "skipped"}))


def test_reports_are_valid_by_the_published_schema(tmp_path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    for report in (example(), whole()):
        jsonschema.validate(json.loads(report.to_json()), schema())
        (tmp_path / "report.json").write_text(report.to_json())
        assert read_report(tmp_path / "report.json") == report


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (["schema_version"], 2),
        (["result"], "passed"),
        (["backends", 0, "rules", 0, "status"], "skipped"),
        (["backends", 0, "rules", 0, "level"], "optional"),
        (["backends", 1, "failures", 0, "story"], None),
        (["backends", 0, "unknown"], 1),
    ],
)
def test_the_schema_refuses_what_is_no_report(
    path: list[str | int], wrong: Any, tmp_path: Path
) -> None:
    content = json.loads(example().to_json())
    *above, last = path
    part = content
    for step in above:
        part = part[step]
    part[last] = wrong
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, schema())
    (tmp_path / "report.json").write_text(json.dumps(content))
    with pytest.raises(InvalidArgumentError):
        read_report(tmp_path / "report.json")


def test_the_schema_names_the_fields_that_reports_have() -> None:
    published = {**schema()["$defs"], "Report": schema()}
    models: tuple[type[BaseModel], ...] = (
        Report,
        BackendReport,
        RuleReport,
        TestReport,
        FailureReport,
        CapabilityReport,
        Distribution,
    )
    for model in models:
        assert set(published[model.__name__]["properties"]) == set(model.model_fields)
        assert set(published[model.__name__]["required"]) == set(model.model_fields)


def test_distributions_are_found_by_module() -> None:
    found = distribution_of("agent_memory_inmemory.backend")
    assert found is not None
    assert found.name == "agent-memory-inmemory"
    assert distribution_of("json.decoder") is None
    assert distribution_of("no_such_module_anywhere") is None


def test_stories_tell_where_an_exception_came_from() -> None:
    try:
        try:
            raise OSError("disk full")
        except OSError as error:
            raise ValueError("not stored") from error
    except ValueError as error:
        error.add_note("Failing test case: x=1\nExplanation:\n    kit.py:1")
        told = story_of(error)
    assert told.startswith("ValueError: not stored\n  at ")
    assert "caused by OSError: disk full" in told
    assert told.endswith("Failing test case: x=1")


def test_credentials_are_left_out() -> None:
    said = without_credentials("at redis://ada:secret@localhost:6379/0 and 'https://t0ken@x.org'")
    assert said == "at redis://***@localhost:6379/0 and 'https://***@x.org'"


# --- for people --------------------------------------------------------------------------------


class _Page(HTMLParser):
    """Checks that tags are closed in order, and keeps what a reader would need."""

    EMPTY = ("meta", "col", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        if "id" in given:
            self.ids.append(given["id"] or "")
        self.links += [each for each in (given.get("href"), given.get("src")) if each]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_complete_in_itself_and_well_formed() -> None:
    page = _Page(page_of(example()))
    assert page.open == []
    assert "script" not in page.tags
    assert all(each.startswith("#") and each[1:] in page.ids for each in page.links)
    assert len(page.ids) == len(set(page.ids))
    assert all(each.says in page.text for each in RULES.values())
    assert NASTY in page.text
    assert f"story of {DEL_1[0]}" in page.text
    assert "no words" in page.text


def test_the_page_of_nothing_says_so() -> None:
    assert "nothing is proven" in _Page(page_of(whole())).text


def test_the_matrix_has_a_row_for_each_rule_and_a_column_for_each_backend() -> None:
    reports = {"first": example(), "by-file": whole(judged(Profile("last")))}
    lines = matrix_of(reports).splitlines()
    assert lines[2].endswith(" | by-file |")
    rows = {line.split()[1]: line for line in lines if line.startswith("| ")}
    assert set(RULES) | set(WHOLE) <= rows.keys()
    assert rows["DEL-1"].endswith("| pass | **FAIL** | *not run* | pass |")
    assert rows["SRCH-7"].endswith("| pass | unsupported | pass | pass |")
    assert rows["**result**"].endswith("| **pass** | **fail** | **partial** | **pass** |")
    cells = {line.replace("\\|", "").count("|") for line in lines if line.startswith("| ")}
    assert cells == {6}
    assert "SRCH-7 unsupported: keyword\\_search: no words" in "\n".join(lines)
