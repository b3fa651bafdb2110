"""What the pages say is complete: rules and their reasons, errors, public names, links."""

from __future__ import annotations

import builtins
import importlib
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

import agent_memory
import agent_memory.errors
import agent_memory_redis.errors
from agent_memory import AgentMemoryError
from agent_memory_server.ownership import PackageConflictError
from agent_memory_testkit import RULES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(DOCS.rglob("*.md")),
    *sorted(ROOT.glob("packages/*/README.md")),
    *sorted(ROOT.glob("examples/**/*.md")),
    *sorted(ROOT.glob("benchmarks/*.md")),
]
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _errors_of(module: object) -> dict[str, type[AgentMemoryError]]:
    return {
        name: each
        for name, each in vars(module).items()
        if isinstance(each, type) and issubclass(each, AgentMemoryError) and each.__name__ == name
    }


OURS = _errors_of(agent_memory.errors)
OTHERS: dict[str, type[Exception]] = {
    "AccessDeniedError": agent_memory_redis.errors.AccessDeniedError,
    "UnsuitableServerError": agent_memory_redis.errors.UnsuitableServerError,
    "PackageConflictError": PackageConflictError,
}


def test_every_rule_is_in_the_contract_with_its_reason() -> None:
    text = (DOCS / "contract.md").read_text()
    _, *rules = re.split(r"^- \*\*(?=[A-Z]+-\d+\*\* )", text, flags=re.MULTILINE)
    assert [each.partition("*")[0] for each in rules] == list(RULES)
    assert [each.partition("*")[0] for each in rules if each.count("\n    *Why:* ") != 1] == []


def test_every_error_has_a_cause_and_a_cure() -> None:
    text = (DOCS / "errors.md").read_text()
    explained = set(re.findall(r"^### (\w+)$", text, re.MULTILINE))
    bases = {"AgentMemoryError", "BackendError", "HookError"}  # explained together
    assert explained | bases == OURS.keys()
    assert all(f"`{name}`" in text for name in OURS | OTHERS)
    elsewhere = set(_errors_of(agent_memory_redis.errors)) - OURS.keys()
    assert elsewhere <= OTHERS.keys(), "a backend has an error of its own that the page lacks"


def test_no_error_is_explained_that_does_not_exist() -> None:
    text = _FENCED.sub("", (DOCS / "errors.md").read_text())
    known = OURS.keys() | OTHERS.keys() | vars(builtins).keys() | {ValidationError.__name__}
    assert set(re.findall(r"\b[A-Z]\w*Error\b", text)) <= known


def test_the_table_of_errors_names_their_bases() -> None:
    text = (DOCS / "errors.md").read_text()
    rows = re.findall(r"^\| \[`(\w+)`\]\(#[\w-]+\) \| `(\w+)` \|", text, re.MULTILINE)
    assert [name for name, _ in rows] == list(OURS)
    for name, base in rows:
        bases = [each.__name__ for each in OURS[name].__bases__]
        assert base in bases, f"{name} derives from {bases}"


@pytest.mark.parametrize(
    "module",
    [
        "agent_memory",
        "agent_memory.backend",
        "agent_memory.hooks",
        "agent_memory_inmemory",
        "agent_memory_redis",
        "agent_memory_testkit",
    ],
)
def test_every_public_name_is_in_the_reference(module: str) -> None:
    shown = {
        name
        for page in (DOCS / "reference").glob("*.md")
        for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)
    }
    public = set(importlib.import_module(module).__all__)
    if module == "agent_memory":
        public -= OURS.keys()  # under agent_memory.errors
    assert {f"{module}.{name}" for name in public} <= shown


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere_in_the_repository(page: Path) -> None:
    text = _FENCED.sub("", page.read_text())
    lost = []
    for link in _LINK.findall(text):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = (page.parent / path) if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            lost.append(link)
    assert lost == []


def _anchors(page: Path) -> set[str]:
    """Return the anchors of headings, as both the site and browsers of repositories make them."""
    headings = re.findall(r"^#+ (.*)$", _FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each).strip().lower().replace(" ", "-") for each in headings}
