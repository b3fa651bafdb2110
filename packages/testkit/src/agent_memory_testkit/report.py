"""The report of a run: what was tested with what, a status for every rule, and each failure.

`report.schema.json`, beside this module, is its JSON schema. How statuses come about is in
`agent_memory_testkit.verdict`; how a report is shown in `page` and `matrix`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from agent_memory import InvalidArgumentError
from agent_memory_testkit.rules import GROUPS

SCHEMA_VERSION = 1
"""Grows when a reader of the version before could misread a report."""

Status = Literal["pass", "fail", "error", "unsupported", "not run"]
Result = Literal["pass", "fail", "partial"]
Outcome = Literal["passed", "failed", "error", "skipped", "expected failure", "not run"]

STATUSES: tuple[Status, ...] = ("pass", "fail", "error", "unsupported", "not run")
WHOLE_GROUP = "The whole"

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s'\"]+@")


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_serialization_defaults_required=True
    )


class Distribution(_Part):
    """An installed distribution."""

    name: str
    version: str


class TestReport(_Part):
    """What became of one test of the suite."""

    __test__ = False  # no class of tests, whatever pytest thinks of its name

    name: str
    outcome: Outcome
    seconds: float = Field(ge=0)
    reason: str | None = Field(None, description="Why the test did not run, or was let off.")


class RuleReport(_Part):
    """What became of one rule."""

    id: str
    says: str = Field(description="The rule in one sentence.")
    level: Literal["core", "capability", "network"] = Field(
        description="Whom the rule binds: everybody, or backends with a capability or a network."
    )
    status: Status
    reason: str | None = Field(None, description="Why it is unsupported or was not run.")
    tests: list[TestReport]

    @property
    def group(self) -> str:
        """What the rule is about: the heading that it stands under."""
        return GROUPS.get(self.id.partition("-")[0], WHOLE_GROUP)


class FailureReport(_Part):
    """One test that failed, and how to see it again."""

    rule: str
    test: str
    status: Literal["fail", "error"]
    story: str = Field(description="What was checked, what came back, and the calls before.")
    causes: str = Field(description="What usually causes this failure: the docstring of the test.")
    reproduce: str = Field(description="A command that runs this test again.")


class CapabilityReport(_Part):
    """Whether a capability was expected of the backend."""

    expected: bool
    reason: str | None = Field(None, description="Why it was not.")


class BackendReport(_Part):
    """One backend, tested by one suite class."""

    name: str = Field(description="The name in the profile.")
    suite: str = Field(description="The class of tests, as pytest names it.")
    result: Result
    distribution: Distribution | None = Field(
        description="Where the class of the handles comes from; null if that is not installed."
    )
    handle: str | None = Field(description="That class; null if no handle could be opened.")
    engine_versions: dict[str, str]
    metric: str
    network: bool = Field(description="Whether the profile names a network.")
    capabilities: dict[str, CapabilityReport]
    seconds: float = Field(ge=0)
    rules: list[RuleReport]
    failures: list[FailureReport]

    def count(self, status: Status) -> int:
        """Return how many rules have this status."""
        return sum(each.status == status for each in self.rules)

    @property
    def versioned(self) -> str:
        """The name, and the version if it is known."""
        version = self.distribution and self.distribution.version
        return f"{self.name} {version}" if version else self.name

    @property
    def summary(self) -> str:
        """Such as ``pass: 56 of 58 rules pass, 2 unsupported``."""
        counts = Counter(each.status for each in self.rules)
        passing = f"{counts['pass']} of {len(self.rules)} rules pass"
        rest = [f"{counts[each]} {each}" for each in STATUSES[1:] if counts[each]]
        return f"{self.result}: {', '.join([passing, *rest])}"

    def by_group(self) -> dict[str, list[RuleReport]]:
        """Return the rules under their headings, both in the order of the contract."""
        groups: dict[str, list[RuleReport]] = {}
        for each in self.rules:
            groups.setdefault(each.group, []).append(each)
        return groups


class Report(_Part):
    """A run of the conformance kit."""

    schema_version: Literal[1] = 1
    kit: Distribution
    core: Distribution
    python: str
    platform: str
    started: AwareDatetime
    duration_seconds: float = Field(ge=0)
    effort: Literal["default", "thorough"]
    seed: int | str | None = Field(
        description="Where generated examples follow from; null if they are the same in every run."
    )
    result: Result = Field(description="The worst of the backends; partial if there is none.")
    backends: list[BackendReport]

    def to_json(self) -> str:
        """Return the report as JSON, indented."""
        return self.model_dump_json(indent=2) + "\n"


def worst(results: Sequence[Result]) -> Result:
    """Return the result of several: nothing at all is not a pass."""
    for each in ("fail", "partial"):
        if each in results:
            return "fail" if each == "fail" else "partial"
    return "pass" if results else "partial"


def read_report(file: Path) -> Report:
    """Return the report that a file holds.

    Raises:
        OSError: the file cannot be read.
        InvalidArgumentError: it holds no report of this schema version.
    """
    text = file.read_bytes()
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InvalidArgumentError(f"{file} is not JSON: {error}") from None
    found = content.get("schema_version") if isinstance(content, dict) else None
    if found != SCHEMA_VERSION:
        raise InvalidArgumentError(
            f"{file} has the schema version {found!r}; this kit reads {SCHEMA_VERSION}: make the "
            f"report again, or use the kit that made it"
        )
    try:
        return Report.model_validate_json(text)
    except ValidationError as error:
        raise InvalidArgumentError(f"{file} is no report of this kit: {error}") from None


def schema() -> dict[str, Any]:
    """Return the JSON schema of a report, as it is published with the kit."""
    published: dict[str, Any] = json.loads(
        files("agent_memory_testkit").joinpath("report.schema.json").read_text("utf-8")
    )
    return published


def without_credentials(text: str) -> str:
    """Return ``text`` with the user and the password of every URL left out."""
    return _CREDENTIALS.sub("***@", text)
