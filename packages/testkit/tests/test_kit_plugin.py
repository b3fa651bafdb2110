"""The pytest plugin: what it makes of runs that pass, fail, leave something out or never start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_memory_testkit.report import BackendReport, Report, RuleReport, read_report

HEAD = """
import pytest
from agent_memory_testkit import ConformanceSuite, Profile, Unsupported
from agent_memory_testkit.reference import ReferenceDatabase


class Forgetful(ReferenceDatabase):
    def _remove(self, memory_ids):
        return super()._remove(list(memory_ids)[:1])


class Suite:
    database = ReferenceDatabase

    async def open(self, space, embeddings):
        return self.database(embeddings, space=space, directory=self.directory)
"""
CORRECT = """
class TestCorrect(Suite, ConformanceSuite):
    profile = Profile("correct")
"""
FORGETFUL = """
class TestForgetful(Suite, ConformanceSuite):
    profile = Profile("forgetful")
    database = Forgetful
"""

Run = Callable[..., "Ran"]


class Ran:
    """One run of pytest in a folder."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.file = folder / "conformance.json"
        finished = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "--tb=no", "-p", "no:cacheprovider", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        self.code = finished.returncode
        self.said = finished.stdout + finished.stderr

    @property
    def report(self) -> Report:
        return read_report(self.file)

    @property
    def backend(self) -> BackendReport:
        [backend] = self.report.backends
        return backend

    def rule(self, rule: str) -> RuleReport:
        [found] = [each for each in self.backend.rules if each.id == rule]
        return found


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run_pytest(suites: str, *arguments: str, conftest: str = "", reported: bool = True) -> Ran:
        (tmp_path / "test_suites.py").write_text(HEAD + suites)
        (tmp_path / "conftest.py").write_text(conftest)
        (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
        report = ["--conformance-report=conformance.json"] if reported else []
        return Ran(tmp_path, *report, *arguments)

    return run_pytest


def marking(mark: str, *tests: str) -> str:
    """Return a conftest that marks tests whose names contain one of ``tests``."""
    return (
        "import pytest\n"
        "def pytest_collection_modifyitems(items):\n"
        "    for item in items:\n"
        f"        if any(each in item.name for each in {tests!r}):\n"
        f"            item.add_marker({mark})\n"
    )


# --- what runs ---------------------------------------------------------------------------------


def test_a_part_that_passes_is_partial_and_strict_fails_it(run: Run) -> None:
    ran = run(CORRECT, "-k", "test_cnt_2 or test_add_1_ids")
    assert ran.code == 0
    assert ran.report.result == "partial"
    assert ran.rule("CNT-2").status == "pass"
    assert (ran.rule("ADD-1").status, ran.rule("ADD-1").reason) == ("not run", "deselected")
    assert ran.rule("DEL-1").status == ran.rule("MODEL").status == "not run"
    assert "correct (test_suites.py::TestCorrect): partial: 1 of 63 rules pass" in ran.said
    assert "not run (deselected): REC-1" in ran.said

    strict = run(CORRECT, "-k", "test_cnt_2", "--conformance-strict")
    assert (strict.code, strict.report.result) == (1, "partial")


def test_tests_named_on_the_command_line_leave_the_others_uncollected(run: Run) -> None:
    test = "test_suites.py::TestCorrect::test_cnt_2_a_failure_is_not_a_zero"
    ran = run(CORRECT, test, "--conformance-strict")
    assert (ran.code, ran.report.result) == (1, "partial")
    assert ran.rule("CNT-2").status == "pass"
    assert ran.rule("ADD-1").reason == "not collected"


def test_a_failure_is_told_with_its_story_causes_and_repetition(run: Run) -> None:
    ran = run(FORGETFUL, "-k", "test_del_1_the or test_cnt_2", "--conformance-html=page.html")
    assert ran.code == 1
    assert ran.report.result == "fail"
    assert (ran.rule("DEL-1").status, ran.rule("CNT-2").status) == ("fail", "pass")
    [failure] = ran.backend.failures
    assert failure.rule == "DEL-1"
    assert failure.story.startswith("DEL-1 broken by forgetful")
    assert "calls (the last" in failure.story
    assert "Usual cause" in failure.causes
    # Where the variable CI is set, hypothesis draws the same examples in every run, without a seed.
    seed = "" if ran.report.seed is None else f" --hypothesis-seed={ran.report.seed}"
    assert failure.reproduce == f"pytest test_suites.py::TestForgetful::{failure.test}{seed}"
    page = (ran.file.parent / "page.html").read_text()
    assert "DEL-1 broken by forgetful" in page
    again = run(FORGETFUL, *failure.reproduce.split()[1:])
    assert again.code == 1
    assert again.report.seed == ran.report.seed
    assert again.backend.failures[0].story.startswith("DEL-1 broken by forgetful")


def test_classes_are_judged_one_by_one(run: Run) -> None:
    ran = run(CORRECT + FORGETFUL, "-k", "test_del_1_unknown")
    results = {each.name: each.result for each in ran.report.backends}
    assert results == {"correct": "partial", "forgetful": "fail"}
    assert ran.report.result == "fail"


# --- what is left out --------------------------------------------------------------------------


def test_a_skipped_test_makes_the_result_partial(run: Run) -> None:
    skipping = marking('pytest.mark.skip(reason="too slow here")', "test_cnt_2")
    ran = run(CORRECT, "-k", "test_cnt_2 or test_add_1", conftest=skipping)
    assert ran.code == 0
    assert (ran.rule("CNT-2").status, ran.rule("CNT-2").reason) == (
        "not run",
        "skipped: too slow here",
    )
    assert ran.rule("ADD-1").status == "pass"


def test_a_class_that_is_skipped_whole_fails(run: Run) -> None:
    ran = run('@pytest.mark.skip(reason="later")' + CORRECT, reported=False)
    assert ran.code == 1
    assert "partial: 0 of 63 rules pass, 63 not run" in ran.said


def test_an_expected_failure_makes_the_result_partial(run: Run) -> None:
    expecting = marking('pytest.mark.xfail(reason="disputed")', "test_del_1_unknown")
    ran = run(FORGETFUL, "-k", "test_del_1_unknown", conftest=expecting)
    assert (ran.code, ran.report.result) == (0, "partial")
    assert "expected failure: disputed" in (ran.rule("DEL-1").reason or "")


def test_an_expected_failure_that_passes_fails(run: Run) -> None:
    expecting = marking('pytest.mark.xfail(reason="disputed")', "test_cnt_2")
    ran = run(CORRECT, "-k", "test_cnt_2", conftest=expecting)
    assert (ran.code, ran.rule("CNT-2").status) == (1, "fail")
    assert "expected to fail (disputed), but it passes" in ran.backend.failures[0].story


@pytest.mark.parametrize("body", [" = None", "(self): pass"])
def test_a_test_that_is_overridden_counts_as_not_run(run: Run, body: str) -> None:
    name = "test_add_1_an_empty_list_embeds_nothing"
    override = f"    def {name}{body}\n" if body.startswith("(") else f"    {name}{body}\n"
    ran = run(CORRECT + override, "-k", "test_add_1")
    assert ran.rule("ADD-1").status == "not run"
    assert "TestCorrect overrides it" in (ran.rule("ADD-1").reason or "")


def test_nothing_collected_is_no_pass(run: Run) -> None:
    ran = run("def test_other(): pass", "--conformance-strict")
    assert ran.code == 1
    assert (ran.report.result, ran.report.backends) == ("partial", [])
    assert "nothing is proven" in ran.said


def test_other_tests_of_a_session_may_be_chosen_alone(run: Run) -> None:
    ran = run(CORRECT + "\ndef test_other(): pass", "-k", "test_other", reported=False)
    assert ran.code == 0
    assert "conformance" not in ran.said


# --- what goes wrong ---------------------------------------------------------------------------


def test_no_server_is_an_error_of_every_rule(run: Run) -> None:
    down = """
class TestDown(ConformanceSuite):
    profile = Profile("down")
    async def open(self, space, embeddings):
        raise ConnectionError("nobody listens at port 1")
"""
    ran = run(down)
    assert ran.code == 1
    assert {each.status for each in ran.backend.rules} == {"error"}
    assert all("nobody listens at port 1" in each.story for each in ran.backend.failures)
    assert ran.backend.handle is None


def test_an_engine_that_gives_no_sign_of_life_is_an_error_of_every_rule(run: Run) -> None:
    down = """
class Mute(ReferenceDatabase):
    async def ping(self):
        raise ConnectionError("no answer")
class TestMute(Suite, ConformanceSuite):
    profile = Profile("mute")
    database = Mute
"""
    ran = run(down, "-k", "test_cnt_2 or test_add_1")
    assert (ran.code, ran.rule("CNT-2").status) == (1, "error")


def test_records_left_behind_fail_the_run_and_are_named(run: Run) -> None:
    untidy = """
class TestUntidy(Suite, ConformanceSuite):
    profile = Profile("untidy")
    async def clean_up(self, space, embeddings):
        pass
"""
    ran = run(untidy, "-k", "test_cnt_2 or test_nothing_is_left_behind")
    assert (ran.code, ran.rule("CLEAN").status) == (1, "fail")
    [failure] = ran.backend.failures
    assert "records left in" in failure.story
    assert "'conf_" in failure.story


def test_what_closing_forgets_is_named(run: Run) -> None:
    leaky = """
import threading
class Leaky(ReferenceDatabase):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        threading.Thread(target=threading.Event().wait, daemon=True).start()
class TestLeaky(Suite, ConformanceSuite):
    profile = Profile("leaky")
    database = Leaky
"""
    ran = run(leaky, "-k", "test_life_2_closing_releases")
    assert (ran.code, ran.rule("LIFE-2").status) == (1, "fail")
    assert "threads" in ran.backend.failures[0].story


def test_an_unknown_rule_is_an_error_while_collecting(run: Run) -> None:
    ran = run(CORRECT + "    def test_add_9_ids(self): pass\n", "--tb=short", reported=False)
    assert ran.code == 2
    assert "there is no rule ADD-9" in ran.said


def test_open_must_return_a_database(run: Run) -> None:
    wrong = """
class TestWrong(ConformanceSuite):
    profile = Profile("wrong")
    async def open(self, space, embeddings):
        return None
"""
    ran = run(wrong, "-k", "test_cnt_2")
    assert (ran.code, ran.rule("CNT-2").status) == (1, "error")
    assert "TestWrong.open must return a MemoryVectorDatabase" in ran.backend.failures[0].story


# --- other plugins, other people's tests -------------------------------------------------------


def test_a_verdict_is_refused_where_tests_are_distributed(run: Run) -> None:
    ran = run(CORRECT, "-k", "test_cnt_2", "-n", "1")
    assert ran.code == 4
    assert "without -n" in ran.said
    silent = run(CORRECT, "-k", "test_cnt_2", "-n", "1", reported=False)
    assert silent.code == 0
    assert "conformance" not in silent.said


def test_a_session_without_suites_imports_nothing_of_the_kit(run: Run, tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(
        "import sys\n"
        "def test_other():\n"
        "    assert 'agent_memory_testkit.plugin' in sys.modules\n"
        "    heavy = {'agent_memory', 'agent_memory_testkit.suite', 'pydantic', 'rich', 'jinja2'}\n"
        "    assert not heavy & sys.modules.keys()\n"
    )
    ran = run("", "test_other.py", reported=False)
    assert ran.code == 0, ran.said
