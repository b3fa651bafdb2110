"""The pytest plugin: options, the verdict at the end of a run, and the files that hold it.

Every pytest run imports this module, so it imports nothing of the kit before a suite of the kit
has been collected.
"""

from __future__ import annotations

import functools
import os
import shlex
import sys
import time
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from agent_memory_testkit.report import BackendReport, Report
    from agent_memory_testkit.suite import ConformanceSuite
    from agent_memory_testkit.verdict import Observed, SuiteRun

WATCHER = "agent-memory-conformance-watcher"
"""The name of the `Watcher` among pytest's plugins."""

_SUITE_MODULE = "agent_memory_testkit.suite"
_LAST = "test_nothing_is_left_behind"
_EXPECTED_TO_FAIL = "it was expected to fail ({}), but it passes: take the mark away"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance", "conformance of memory vector databases")
    group.addoption("--conformance-report", metavar="FILE", help="write the report there, as JSON")
    group.addoption("--conformance-html", metavar="FILE", help="write the report there, as a page")
    group.addoption(
        "--conformance-strict",
        action="store_true",
        help="fail unless every rule of every conformance suite was executed",
    )


def pytest_configure(config: pytest.Config) -> None:
    distributed = getattr(config.option, "dist", "no") != "no"
    if distributed and _asked_for_a_verdict(config):
        raise pytest.UsageError(
            "a verdict on conformance needs all rules in one process: run pytest without -n, or "
            "leave the --conformance options out"
        )
    if not distributed:
        config.pluginmanager.register(Watcher(config), WATCHER)


def _asked_for_a_verdict(config: pytest.Config) -> bool:
    options = ("conformance_report", "conformance_html", "conformance_strict")
    return any(config.getoption(each) for each in options)


class Watcher:
    """Sees what becomes of every test of every suite, and judges when the run ends."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._sees_all = not hasattr(config, "workerinput")
        """A worker of pytest-xdist runs a part of the tests alone, so it judges nothing."""
        self._runs: dict[str, SuiteRun] = {}
        self._started = datetime.now(UTC)
        self._clock = time.perf_counter()
        self.seed: int | str | None = None
        """Where generated examples follow from; chosen when a suite has been collected."""
        self.again: Callable[[str, str, str], str] = self._again
        """Returns the command that repeats a test: of a class, of a rule, of a name."""
        self.report: Report | None = None
        """The verdict, when the run has ended and there was something to judge."""

    # --- what is collected -------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, items: list[pytest.Item]
    ) -> Generator[None, object, object]:
        collected = [(item, suite) for item in items if (suite := _suite_of(item))]
        for item, suite in collected:
            self._run_of(item, suite).deselected.add(_name_of(item))
        result = yield
        if collected:
            self._choose_seed()
        selected = set(items)
        for item, suite in collected:
            if item in selected:
                run = self._run_of(item, suite)
                run.deselected.discard(_name_of(item))
                self._observed(run, item)
        _put_leftovers_last(items)
        return result

    def _run_of(self, item: pytest.Item, suite: type[ConformanceSuite]) -> SuiteRun:
        from agent_memory_testkit.verdict import SuiteRun

        place = item.nodeid.rpartition("::")[0]
        return self._runs.setdefault(place, SuiteRun(suite, place))

    def _observed(self, run: SuiteRun, item: pytest.Item) -> Observed:
        from agent_memory_testkit.verdict import Observed

        return run.tests.setdefault(_name_of(item), Observed())

    def _choose_seed(self) -> None:
        """Make the examples of this run repeatable, if nobody else has done so."""
        import random

        from hypothesis import settings

        from agent_memory_testkit.suite.base import use_seed

        if settings().derandomize:
            return
        if self.seed is None:
            self.seed = self._config.getoption("hypothesis_seed", None)
        if self.seed is None:
            self.seed = random.getrandbits(32)
        use_seed(self.seed)

    # --- what becomes of it ------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        suite = _suite_of(item)
        if suite is None:
            return report
        seen = self._observed(self._run_of(item, suite), item)
        seen.seconds += report.duration
        expected = getattr(report, "wasxfail", None)
        if report.outcome == "passed" and expected is not None:
            # A rule that is kept after all must not stay marked, so this is no success.
            del report.wasxfail
            report.outcome = "failed"
            report.longrepr = _EXPECTED_TO_FAIL.format(expected or "no reason given")
        self._note(seen, report, call)
        return report

    def _note(self, seen: Observed, report: pytest.TestReport, call: pytest.CallInfo[None]) -> None:
        from agent_memory_testkit.journal import ConformanceFailure
        from agent_memory_testkit.verdict import story_of

        if report.outcome == "passed":
            if report.when == "call":
                seen.add("passed")
        elif report.outcome == "skipped" and hasattr(report, "wasxfail"):
            seen.add("expected failure", report.wasxfail or "no reason given")
        elif report.outcome == "skipped":
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            seen.add("skipped", str(reason).removeprefix("Skipped: "))
        elif call.excinfo is None:
            seen.add("failed", story=str(report.longrepr))
        elif isinstance(call.excinfo.value, ConformanceFailure):
            seen.add("failed", story=story_of(call.excinfo.value))
        else:
            seen.add("error", story=story_of(call.excinfo.value))

    # --- the verdict -------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        asked = _asked_for_a_verdict(self._config)
        runs = [each for each in self._runs.values() if asked or each.tests]
        if self._config.option.collectonly or not self._sees_all or not (asked or runs):
            return
        from agent_memory_testkit.verdict import report_of

        self.report = report_of(
            [each.judged(functools.partial(self.again, each.place)) for each in runs],
            started=self._started,
            seconds=time.perf_counter() - self._clock,
            seed=self.seed,
        )
        self._write(self.report)
        if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            strict = self._config.getoption("conformance_strict")
            nothing = not runs or not all(each.executed for each in runs)
            if nothing or self.report.result == "fail" or (strict and self.report.result != "pass"):
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _again(self, place: str, rule: str, name: str) -> str:
        seed = [] if self.seed is None else [f"--hypothesis-seed={self.seed}"]
        return shlex.join(["pytest", f"{place}::{name}", *seed])

    def _write(self, report: Report) -> None:
        json_file = self._config.getoption("conformance_report")
        html_file = self._config.getoption("conformance_html")
        if json_file:
            _written(json_file, report.to_json())
        if html_file:
            from agent_memory_testkit.page import page_of

            _written(html_file, page_of(report))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.report is None:
            return
        from agent_memory_testkit.verdict import as_lines

        terminalreporter.section("conformance")
        if not self.report.backends:
            terminalreporter.line("no conformance suite was collected: nothing is proven", red=True)
        for backend in self.report.backends:
            for number, line in enumerate(as_lines(backend)):
                terminalreporter.line(line, **_colour(backend, first=number == 0))
        for option in ("conformance_report", "conformance_html"):
            if file := self._config.getoption(option):
                terminalreporter.line(f"report: {file}")


def _suite_of(item: pytest.Item) -> type[ConformanceSuite] | None:
    """Return the suite that a test belongs to; ``None`` if it is none of the kit's."""
    module = sys.modules.get(_SUITE_MODULE)
    owner = getattr(item, "cls", None)
    if module is None or owner is None or not issubclass(owner, module.ConformanceSuite):
        return None
    suite: type[ConformanceSuite] = owner
    return suite


def _name_of(item: pytest.Item) -> str:
    name: str = getattr(item, "originalname", None) or item.name
    return name


def _put_leftovers_last(items: list[pytest.Item]) -> None:
    """Move the check of what is left to the end of its class, wherever others have put it."""
    places: dict[str, list[int]] = {}
    for position, item in enumerate(items):
        if _suite_of(item) is not None:
            places.setdefault(item.nodeid.rpartition("::")[0], []).append(position)
    for positions in places.values():
        ordered = sorted((items[each] for each in positions), key=lambda i: _name_of(i) == _LAST)
        for position, item in zip(positions, ordered, strict=True):
            items[position] = item


def _colour(backend: BackendReport, *, first: bool) -> dict[str, bool]:
    colours = {"pass": "green", "fail": "red", "partial": "yellow"}
    return {colours[backend.result]: True} if first else {}


def _written(file: str, text: str) -> None:
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n" if os.name != "nt" else None)
