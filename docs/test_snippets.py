"""Every snippet of the documentation runs: Python blocks in order, commands in a shell."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tools"))
from redis_server import RedisServer, given_url  # noqa: E402

PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "packages").glob("*/README.md")),
    *sorted((ROOT / "examples").glob("*.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """A server for the snippets that are about Redis."""
    if given := given_url():
        yield given
        return
    with RedisServer() as server:
        yield server.url


def _blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in _BLOCK.findall(page.read_text()) if kind == language]


def _pages_with(language: str) -> list[Path]:
    return [page for page in PAGES if _blocks(page, language)]


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_the_pages_have_snippets() -> None:
    names = {_name(page) for page in _pages_with("python")}
    assert {"README.md", "docs/guide.md"} <= names


@pytest.mark.parametrize("page", _pages_with("python"), ids=_name)
def test_python_snippets(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    if page.parent.name == "backend-redis":
        monkeypatch.setenv("REDIS_URL", request.getfixturevalue("redis_url"))

    names: dict[str, object] = {"__name__": "snippet"}
    with asyncio.Runner() as runner:
        for block in _blocks(page, "python"):
            code = compile(
                block, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
            )
            result = eval(code, names)
            if inspect.iscoroutine(result):  # the block awaits something
                runner.run(result)


@pytest.mark.parametrize("page", _pages_with("console"), ids=_name)
def test_console_snippets(page: Path, tmp_path: Path) -> None:
    commands = [
        line.removeprefix("$ ")
        for block in _blocks(page, "console")
        for line in block.splitlines()
        if line.startswith("$ ")
    ]
    scripts = sysconfig.get_path("scripts")
    finished = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(commands)],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
