"""Every snippet of the documentation runs, and gives what the page shows.

Python blocks run in order; a block of kind ``text`` right below one is what it prints. Console
blocks run in one shell; what stands below a command is what it prints, if anything does. ``...``
stands for any text. Blocks of TOML are well-formed. Blocks of no kind are not run: they
install from the package index, or name what the reader has to put in.
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import inspect
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tools"))
from redis_server import RedisServer, given_url  # noqa: E402

PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "packages").glob("*/README.md")),
    *sorted((ROOT / "examples").glob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*.md")),
    *(ROOT / "examples" / each / "README.md" for each in ("audit-log", "redaction")),
]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n?(?=(\n*```text\n)?)", re.MULTILINE | re.DOTALL)
_END_OF_OUTPUT = "--- end of output ---"


@dataclass(frozen=True, slots=True)
class Snippet:
    """Something to run, and what it prints; ``None`` if the page does not show that."""

    code: str
    shown: str | None = None

    def check(self, printed: str) -> None:
        """Fail unless the page shows what was printed, apart from white space and ``...``."""
        if self.shown is None:
            return
        how = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        if not doctest.OutputChecker().check_output(self.shown, printed, how):
            pytest.fail(f"{self.code}\nshould print\n{self.shown}\nand printed\n{printed}")


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """A server for the snippets that are about Redis."""
    if given := given_url():
        yield given
        return
    with RedisServer() as server:
        yield server.url


def _blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text, _ in _BLOCK.findall(page.read_text()) if kind == language]


def _python(page: Path) -> list[Snippet]:
    found = _BLOCK.findall(page.read_text())
    snippets = []
    for (kind, text, followed), (_, below, _) in pairwise([*found, ("", "", "")]):
        if kind == "python":
            snippets.append(Snippet(text, below if followed else None))
    return snippets


def _commands(page: Path) -> list[Snippet]:
    snippets = []
    for block in _blocks(page, "console"):
        for each in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = each.splitlines(keepends=True)
            length = next((i for i, line in enumerate(lines) if i and line[:2] != "> "), len(lines))
            code = lines[0] + "".join(line[2:] for line in lines[1:length])
            snippets.append(Snippet(code, "".join(lines[length:]) or None))
    return snippets


def _pages_with(language: str) -> list[Path]:
    return [page for page in PAGES if _blocks(page, language)]


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _set_up(
    snippets: list[Snippet],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.chdir(folder)
    for name in ("MEMORY_VECTOR_DB_FACTORY", "EMBEDDING_MODEL", "AGENT_MEMORY_INMEMORY_PATH"):
        monkeypatch.delenv(name, raising=False)  # a page says itself what it needs
    if any("redis" in each.code for each in snippets):
        monkeypatch.setenv("REDIS_URL", request.getfixturevalue("redis_url"))


def test_the_pages_have_snippets() -> None:
    names = {_name(page) for page in _pages_with("python")}
    assert {"README.md", "docs/guide.md", "docs/tutorial.md"} <= names
    assert any(each.shown for each in _python(ROOT / "docs" / "tutorial.md"))
    assert any(each.shown for each in _commands(ROOT / "docs" / "operators.md"))


@pytest.mark.parametrize("page", _pages_with("python"), ids=_name)
def test_python_snippets(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    snippets = _python(page)
    _set_up(snippets, tmp_path, monkeypatch, request)
    names: dict[str, object] = {"__name__": "snippet"}
    with asyncio.Runner() as runner:
        for snippet in snippets:
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            code = compile(snippet.code, str(page), "exec", flags=flags, dont_inherit=True)
            result = eval(code, names)
            if inspect.iscoroutine(result):  # the block awaits something
                runner.run(result)
            snippet.check(capsys.readouterr().out)


@pytest.mark.parametrize("page", _pages_with("console"), ids=_name)
def test_console_snippets(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    snippets = _commands(page)
    _set_up(snippets, tmp_path, monkeypatch, request)
    scripts = sysconfig.get_path("scripts")
    script = "".join(f"{each.code}\necho '{_END_OF_OUTPUT}'\n" for each in snippets)
    finished = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env={
            **os.environ,
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
            "COLUMNS": "100",
            "NO_COLOR": "1",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,  # a machine that does much else at the same time is no failure
        check=False,
    )
    assert finished.returncode == 0, finished.stdout
    printed = finished.stdout.split(_END_OF_OUTPUT + "\n")
    for snippet, output in zip(snippets, printed[:-1], strict=True):
        snippet.check(output)


@pytest.mark.parametrize("page", _pages_with("toml"), ids=_name)
def test_toml_snippets(page: Path) -> None:
    for block in _blocks(page, "toml"):
        tomllib.loads(block)
