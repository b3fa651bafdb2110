"""From the outcomes of tests to a verdict: what was executed is compared with the manifest.

Every test of `ConformanceSuite` is required. A rule passes only if all its tests were executed as
the kit wrote them and passed; a test that is deselected, skipped, expected to fail, overridden or
never collected leaves its rule *not run*. How outcomes are observed is in `plugin`.
"""

from __future__ import annotations

import inspect
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib import metadata

import agent_memory
import agent_memory_testkit
from agent_memory import Capability
from agent_memory.discovery import installed_backends
from agent_memory_testkit.journal import ConformanceFailure
from agent_memory_testkit.profile import Profile
from agent_memory_testkit.report import (
    BackendReport,
    CapabilityReport,
    Distribution,
    FailureReport,
    Outcome,
    Report,
    Result,
    RuleReport,
    Status,
    TestReport,
    without_credentials,
    worst,
)
from agent_memory_testkit.rules import RULES, WHOLE, Rule, checked_by
from agent_memory_testkit.suite import ConformanceSuite
from agent_memory_testkit.suite.base import is_thorough

_CHECKS = (*RULES.values(), *WHOLE.values())

REQUIRED_TESTS: Mapping[str, str] = {
    name: rule.id
    for rule in _CHECKS
    for name in dir(ConformanceSuite)
    if name.startswith("test_") and checked_by(name) == rule.id
}
"""Every test that a backend has to pass, with the id of its rule."""

_SEVERITY: tuple[Outcome, ...] = (
    "failed",
    "error",
    "not run",
    "expected failure",
    "skipped",
    "passed",
)


@dataclass
class Observed:
    """What was seen of one test."""

    outcome: Outcome = "not run"
    reason: str | None = "the run ended before it"
    seconds: float = 0.0
    story: str = ""

    def add(self, outcome: Outcome, reason: str | None = None, story: str = "") -> None:
        """Take note of one more outcome: of a test that ran more than once the worst counts."""
        first = self.outcome == "not run"
        if first or _SEVERITY.index(outcome) < _SEVERITY.index(self.outcome):
            self.outcome, self.reason, self.story = outcome, reason, story


@dataclass
class SuiteRun:
    """One class of tests in one run of pytest."""

    suite: type[ConformanceSuite]
    place: str
    """The node id of the class."""
    tests: dict[str, Observed] = field(default_factory=dict)
    """Those selected, by name."""
    deselected: set[str] = field(default_factory=set)

    @property
    def executed(self) -> bool:
        """Whether any test of the kit was run to its end."""
        ended = ("passed", "failed", "error", "expected failure")
        return any(each.outcome in ended for each in self.tests.values())

    def judged(self, reproduce: Callable[[str, str], str]) -> BackendReport:
        """Return the report on this class.

        Args:
            reproduce: returns the command that repeats a test, given the rule's id and its name.
        """
        tests = {name: self._test(name) for name in REQUIRED_TESTS}
        rules = [
            self._rule(rule, [tests[name] for name, of in REQUIRED_TESTS.items() if of == rule.id])
            for rule in _CHECKS
        ]
        profile = self.suite.profile
        met = getattr(self.suite, "_met", None)
        return BackendReport(
            name=profile.name,
            suite=self.place,
            result=_result(rules),
            distribution=None if met is None else distribution_of(met.handle.__module__),
            handle=met and f"{met.handle.__module__}.{met.handle.__qualname__}",
            engine_versions={} if met is None else dict(met.engine_versions),
            metric=profile.metric,
            network=profile.network is not None,
            capabilities={each.value: _expected(profile, each) for each in Capability},
            seconds=round(sum(each.seconds for each in tests.values()), 3),
            rules=rules,
            failures=[self._failure(name, reproduce) for name in tests if self._failed(name)],
        )

    def _test(self, name: str) -> TestReport:
        outcome: Outcome = "not run"
        reason: str | None
        seconds = 0.0
        kits = inspect.getattr_static(ConformanceSuite, name)
        if inspect.getattr_static(self.suite, name, None) is not kits:
            reason = f"{self.suite.__name__} overrides it"
        elif name in self.tests:
            seen = self.tests[name]
            outcome, reason, seconds = seen.outcome, seen.reason, seen.seconds
        elif name in self.deselected:
            reason = "deselected"
        else:
            reason = "not collected"
        return TestReport(name=name, outcome=outcome, seconds=round(seconds, 3), reason=reason)

    def _rule(self, rule: Rule, tests: list[TestReport]) -> RuleReport:
        status, reason = self._status(rule, tests)
        return RuleReport(
            id=rule.id, says=rule.says, level=rule.level, status=status, reason=reason, tests=tests
        )

    def _status(self, rule: Rule, tests: list[TestReport]) -> tuple[Status, str | None]:
        outcomes = {each.outcome for each in tests}
        if "failed" in outcomes:
            return "fail", None
        if "error" in outcomes:
            return "error", None
        left_out = [each for each in tests if each.outcome != "passed"]
        if left_out or not tests:
            reasons = dict.fromkeys(_why_not(each) for each in left_out)
            return "not run", "; ".join(reasons) or "the kit has no test of it"
        reason = _unsupported(rule, self.suite.profile)
        return ("pass", None) if reason is None else ("unsupported", reason)

    def _failed(self, name: str) -> bool:
        return name in self.tests and self.tests[name].outcome in ("failed", "error")

    def _failure(self, name: str, reproduce: Callable[[str, str], str]) -> FailureReport:
        rule = REQUIRED_TESTS[name]
        return FailureReport(
            rule=rule,
            test=name,
            status="fail" if self.tests[name].outcome == "failed" else "error",
            story=without_credentials(self.tests[name].story),
            causes=inspect.getdoc(getattr(ConformanceSuite, name)) or "",
            reproduce=reproduce(rule, name),
        )


def _why_not(test: TestReport) -> str:
    said = test.reason or test.outcome
    return said if test.outcome == "not run" else f"{test.outcome}: {said}"


def _result(rules: list[RuleReport]) -> Result:
    statuses = {each.status for each in rules}
    if statuses & {"fail", "error"}:
        return "fail"
    return "partial" if "not run" in statuses else "pass"


def _unsupported(rule: Rule, profile: Profile) -> str | None:
    """Return why a rule does not bind the backend; ``None`` if it does."""
    if rule.network:
        return None if profile.network else "the backend reaches its engine without a network"
    if not rule.capabilities or profile.capabilities & set(rule.capabilities):
        return None
    return "; ".join(f"{each}: {_reason(profile, each)}" for each in rule.capabilities)


def _expected(profile: Profile, capability: Capability) -> CapabilityReport:
    expected = capability in profile.capabilities
    return CapabilityReport(
        expected=expected, reason=None if expected else _reason(profile, capability)
    )


def _reason(profile: Profile, capability: Capability) -> str:
    off = profile.off.get(capability.value)
    return "not named in the profile" if off is None else off.reason


# --- stories -----------------------------------------------------------------------------------


def story_of(error: BaseException) -> str:
    """Return what a failed test has to say: the story of the check, or the exception."""
    # What hypothesis explains beside its example are lines of the kit's own code.
    notes = [str(each).partition("\nExplanation:")[0] for each in getattr(error, "__notes__", ())]
    if isinstance(error, ConformanceFailure):
        return "\n".join([str(error), *notes])
    return "\n".join([f"{type(error).__name__}: {error}", *_places(error), *notes])


def _places(error: BaseException) -> list[str]:
    """Return where an exception was raised, and by which others it was caused."""
    lines = []
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    if step is not None:
        lines.append(f"  at {step.tb_frame.f_code.co_filename}, line {step.tb_lineno}")
    if error.__cause__ is not None:
        lines.append(f"  caused by {type(error.__cause__).__name__}: {error.__cause__}")
    return lines


# --- the whole report --------------------------------------------------------------------------


def report_of(
    backends: list[BackendReport], *, started: datetime, seconds: float, seed: int | str | None
) -> Report:
    """Return the report of a run."""
    return Report(
        kit=Distribution(name="agent-memory-testkit", version=agent_memory_testkit.__version__),
        core=Distribution(name="agent-memory", version=agent_memory.__version__),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        platform=f"{platform.system()} {platform.machine()}",
        started=started,
        duration_seconds=round(seconds, 3),
        effort="thorough" if is_thorough() else "default",
        seed=seed,
        result=worst([each.result for each in backends]),
        backends=backends,
    )


def distribution_of(module: str) -> Distribution | None:
    """Return the distribution that a module comes from; ``None`` if it is not installed."""
    package = module.partition(".")[0]
    for backend in installed_backends():
        if backend.target.partition(":")[0].partition(".")[0] == package:
            return Distribution(name=backend.distribution, version=backend.version)
    if package in sys.stdlib_module_names:
        return None
    for name in metadata.packages_distributions().get(package, ()):
        return Distribution(name=name, version=metadata.version(name))
    return None


def as_lines(report: BackendReport) -> list[str]:
    """Return a backend's result in a few lines, for the end of a run."""
    lines = [f"{report.versioned} ({report.suite}): {report.summary}"]
    reasons: dict[str, list[str]] = {}
    for each in report.rules:
        if each.status == "not run":
            reasons.setdefault(each.reason or "", []).append(each.id)
    lines += [f"  not run ({reason}): {_some(ids)}" for reason, ids in reasons.items()]
    return lines


def _some(ids: list[str]) -> str:
    shown = ", ".join(ids[:12])
    return shown if len(ids) <= 12 else f"{shown} and {len(ids) - 12} more"
