"""`agent-memory new-backend`: which names it takes, and that a project appears whole or not at all.

That the project passes the conformance kit and type checks, from wheels and in an environment of
its own, is tested by `nox -s wheels`.
"""

from __future__ import annotations

import ast
import asyncio
import keyword
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import importlib_metadata
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import agent_memory
from agent_memory import InvalidArgumentError, MemoryRecord, create_memory_vector_db
from agent_memory.cli import new_backend

if TYPE_CHECKING:
    from factory_site import Site

cli = runpy.run_path(str(Path(__file__).with_name("cli_support.py")))["cli"]

Cli = Callable[..., Any]

FILES = [
    ".github/workflows/ci.yml",
    ".gitignore",
    "README.md",
    "pyproject.toml",
    "src/agent_memory_my_store/__init__.py",
    "src/agent_memory_my_store/backend.py",
    "src/agent_memory_my_store/py.typed",
    "src/agent_memory_my_store/storage.py",
    "tests/test_conformance.py",
    "tests/test_registration.py",
]


def contents(folder: Path) -> list[str]:
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*"))


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "backend", "package", "class_name"),
    [
        ("quill", "quill", "agent_memory_quill", "QuillBackend"),
        ("My_Store.v2", "my-store-v2", "agent_memory_my_store_v2", "MyStoreV2Backend"),
        ("a--b", "a-b", "agent_memory_a_b", "ABBackend"),
        ("class", "class", "agent_memory_class", "ClassBackend"),
        ("4store", "4store", "agent_memory_4store", "Backend4store"),
        ("X", "x", "agent_memory_x", "XBackend"),
    ],
)
def test_all_names_follow_from_one(name: str, backend: str, package: str, class_name: str) -> None:
    assert new_backend.project_names(name) == new_backend.ProjectNames(
        backend, f"agent-memory-{backend}", package, class_name
    )


@pytest.mark.parametrize(
    "name",
    ["", " ", "-a", "a-", "_a", "a b", "a/b", "../a", "a\n", "ä", "ſ", "\u212a", "a:b", "a" * 33],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=re.escape(repr(name))):
        new_backend.project_names(name)


@pytest.mark.parametrize("name", ["agent-memory", "agent_memory_quill", "Agent.Memory-quill"])
def test_the_prefix_of_the_distribution_is_not_given(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="the name that users ask for"):
        new_backend.project_names(name)


@given(st.one_of(st.text(), st.from_regex(r"[A-Za-z0-9._-]{1,34}\n?", fullmatch=True)))
def test_any_text_gives_names_that_python_and_packaging_accept_or_is_refused(name: str) -> None:
    try:
        names = new_backend.project_names(name)
    except InvalidArgumentError:
        return
    assert Requirement(names.distribution).name == names.distribution
    assert canonicalize_name(names.distribution, validate=True) == names.distribution
    assert names.backend == canonicalize_name(name)
    assert not set(names.backend) & set(".:")  # it would be read as an import path
    for each in (names.package, names.class_name):
        assert each.isidentifier()
        assert each.isascii()
        assert not keyword.iskeyword(each)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("redis", "agent-memory-redis"),
        ("InMemory", "agent-memory-inmemory"),
        ("core", "part of agent-memory itself"),
        ("testkit", "part of agent-memory itself"),
        ("server", "part of agent-memory itself"),
        ("my-store", "registers the backend 'My.Store'"),
        ("idle", "agent-memory-idle 3.1 is installed"),
        ("loose", "the module agent_memory_loose exists"),
    ],
)
def test_a_name_that_is_taken_is_refused(cli: Cli, site: Site, name: str, reason: str) -> None:
    site.distribution("elsewhere", backends={"My.Store": "nowhere:create"})
    site.distribution("Agent_Memory.idle", "3.1")
    site.module("agent_memory_loose")
    refused = cli("new-backend", name)
    assert (refused.code, refused.out) == (2, "")
    assert reason in refused.err
    assert not list(Path.cwd().glob("*agent-memory-*"))


# --- the project ---------------------------------------------------------------------------------


def test_the_project_is_whole_and_says_what_to_do_next(cli: Cli, site: Site) -> None:
    written = cli("new-backend", "My_Store")
    assert (written.code, written.err) == (0, "")
    folder = Path("agent-memory-my-store")
    assert sorted(FILES) == [each for each in contents(folder) if (folder / each).is_file()]
    assert f"cd {folder}\n" in written.out
    assert "agent-memory-conformance my-store --strict" in written.out
    assert "src/agent_memory_my_store/storage.py" in written.out

    # As any other folder that the user makes.
    Path("plain").mkdir()
    assert folder.stat().st_mode == Path("plain").stat().st_mode


def test_the_project_can_be_written_elsewhere_and_described_as_json(
    cli: Cli, site: Site, tmp_path: Path
) -> None:
    (tmp_path / "projects").mkdir()
    written = cli("new-backend", "my-store", "--into", "projects", "--json")
    assert written.json == {
        "backend": "my-store",
        "distribution": "agent-memory-my-store",
        "package": "agent_memory_my_store",
        "class_name": "MyStoreBackend",
        "folder": str(tmp_path / "projects" / "agent-memory-my-store"),
        "files": FILES,
    }
    assert cli("new-backend", "other", "--into", "nowhere").code == 2


def test_the_metadata_are_valid_and_accept_the_running_core() -> None:
    files = new_backend.project_files(new_backend.project_names("my-store"))
    project = tomllib.loads(files["pyproject.toml"])["project"]
    core = importlib_metadata.metadata("agent-memory")
    assert core is not None
    assert project["name"] == "agent-memory-my-store"
    assert project["requires-python"] == core["Requires-Python"]
    assert "license" not in project  # the author's choice
    assert project["entry-points"] == {
        "agent_memory.backends": {"my-store": "agent_memory_my_store:create"}
    }
    [on_core] = map(Requirement, project["dependencies"])
    assert on_core.name == "agent-memory"
    assert on_core.specifier.contains(agent_memory.__version__, prereleases=True)
    on_tools = [Requirement(each) for each in project["optional-dependencies"]["dev"]]
    assert "agent-memory-testkit" in {each.name for each in on_tools}


def test_nothing_of_the_templates_is_left_and_the_code_is_python() -> None:
    for name in ("q", "a" * new_backend.MAX_LENGTH):
        for path, text in new_backend.project_files(new_backend.project_names(name)).items():
            assert "package/" not in path
            assert not re.search(r"(?<!\$)\{\{|\{%|\r", text), path
            if path.endswith(".py"):
                ast.parse(text)
                assert max(map(len, text.splitlines())) <= 100, path


@pytest.mark.parametrize(
    ("version", "inside", "outside"),
    [
        ("0.1.0", ["0.1.0", "0.1.7"], ["0.0.9", "0.2.0"]),
        ("0.2.0.dev1", ["0.2.0.dev1", "0.2.0", "0.2.3"], ["0.1.9", "0.3.0"]),
        ("0.3.1+local", ["0.3.1", "0.3.2"], ["0.3.0", "0.4.0"]),
        ("1.2.3", ["1.2.0", "1.9.0"], ["1.1.9", "2.0.0"]),
        ("2.0.0rc1", ["2.0.0rc1", "2.5.0"], ["1.9.0", "3.0.0"]),
    ],
)
def test_the_range_of_the_core(version: str, inside: list[str], outside: list[str]) -> None:
    allowed = SpecifierSet(new_backend.compatible_range(Version(version)))
    assert [each for each in inside if allowed.contains(each, prereleases=True)] == inside
    assert not [each for each in outside if allowed.contains(each, prereleases=True)]


async def remembered(text: str) -> list[str]:
    async with create_memory_vector_db("agent_memory_quill.create", embeddings="local") as db:
        await db.add_memories([MemoryRecord(id="1", text=text)])
    # A handle comes and goes, the space stays; another space is another one.
    async with create_memory_vector_db("agent_memory_quill.create", embeddings="local") as db:
        found = [each.text for each in (await db.search_memories("seats")).memories]
    async with create_memory_vector_db(
        "agent_memory_quill.create", embeddings="local", space="other"
    ) as db:
        return found + [each.text for each in (await db.search_memories("seats")).memories]


def test_the_project_works_as_it_is(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = new_backend.write_project(new_backend.project_names("quill"), tmp_path)
    monkeypatch.syspath_prepend(folder / "src")
    try:
        assert asyncio.run(remembered("Prefers window seats")) == ["Prefers window seats"]
    finally:
        for name in [each for each in sys.modules if each.startswith("agent_memory_quill")]:
            del sys.modules[name]


def test_other_commands_do_not_load_the_template_engine() -> None:
    code = "import sys, agent_memory.cli.commands; print('jinja2' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


# --- whole or not at all -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_exists_is_left_as_it_is(cli: Cli, site: Site, tmp_path: Path, kind: str) -> None:
    existing = tmp_path / "agent-memory-quill"
    if kind == "folder":
        existing.mkdir()
    elif kind == "file":
        existing.write_text("mine")
    else:
        existing.symlink_to("nowhere")
    before = contents(tmp_path)
    refused = cli("new-backend", "quill")
    assert refused.code == 2
    assert "exists already" in refused.err
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("method", "call", "raised", "code"),
    [
        ("write_text", 1, OSError("no space left"), 1),
        ("write_text", 7, OSError("no space left"), 1),
        ("write_text", 4, KeyboardInterrupt(), 130),
        ("rename", 1, KeyboardInterrupt(), 130),
        ("rename", 1, OSError("read-only"), 1),
    ],
)
def test_what_fails_or_is_interrupted_leaves_nothing(
    cli: Cli,
    site: Site,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    call: int,
    raised: BaseException,
    code: int,
) -> None:
    original = getattr(Path, method)
    calls = 0

    def failing(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise raised
        return original(*arguments, **options)

    before = contents(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, method, failing)
        assert cli("new-backend", "quill").code == code
    assert calls >= call
    assert contents(tmp_path) == before
    assert cli("new-backend", "quill").code == 0


def test_a_folder_that_appears_meanwhile_is_left_as_it_is(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "agent-memory-quill"
    original = Path.write_text

    def meanwhile(path: Path, *arguments: Any, **options: Any) -> int:
        theirs.mkdir(exist_ok=True)
        return original(path, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", meanwhile)
    with pytest.raises(InvalidArgumentError, match="exists already"):
        new_backend.write_project(new_backend.project_names("quill"), tmp_path)
    assert contents(theirs) == []
    assert not list(tmp_path.glob("*.part"))
