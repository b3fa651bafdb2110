"""Every check of this workspace by name; `nox -l` is the menu.

Plain `nox` runs what continuous integration runs. Everything that a session needs it installs
itself, from the package index, into an environment of its own.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import nox

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_external_run = True
nox.options.sessions = ["lint", "types", "tests", "wheels", "demo", "docs"]

ROOT = Path(__file__).parent
sys.path.append(str(ROOT / "tools"))
from redis_server import RedisServer  # noqa: E402

# The tests start hundreds of processes: without it each would compile all that it imports anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

PYTHON_FILES = ["packages", "examples", "benchmarks", "docs", "tools", "conftest.py", "noxfile.py"]
PACKAGES = {
    "core": "agent-memory",
    "backend-inmemory": "agent-memory-inmemory",
    "backend-redis": "agent-memory-redis",
    "server-compat": "agent-memory-server-compat",
    "testkit": "agent-memory-testkit",
}
EXAMPLES = {"audit-log": "agent-memory-audit-log", "redaction": "agent-memory-redaction"}
"""Plug-ins with hooks: built and tried like packages, but not installed where tests run."""
EVERYTHING = [
    "-e", "packages/core[all]",
    "-e", "packages/backend-inmemory[hnsw]",
    "-e", "packages/backend-redis",
    "-e", "packages/server-compat",
    "-e", "packages/testkit",
]  # fmt: skip


class User(NamedTuple):
    """Somebody who installs wheels, and what must work for them then."""

    name: str
    wheels: list[str]
    script: str
    """Python that runs in their environment, in a folder outside the source tree."""
    options: list[str] = []
    """Of the installer."""
    redis: bool = False
    """Whether they have a server."""


USERS = [
    User(
        "core-alone",
        ["agent-memory"],
        """
import subprocess, sys
import agent_memory
heavy = {"numpy", "litellm", "redis", "redisvl", "wordllama", "pluggy"} & sys.modules.keys()
assert not heavy, heavy
try:
    agent_memory.create_memory_vector_db("inmemory", embeddings="local")
except agent_memory.BackendNotFoundError as error:
    assert "pip install agent-memory-inmemory" in str(error), error
else:
    raise AssertionError("found a backend that is not installed")
command = subprocess.run(["agent-memory"], capture_output=True, text=True)
assert command.returncode == 1 and "agent-memory[cli]" in command.stderr, command
""",
    ),
    User(
        "in-memory",
        ["agent-memory", "agent-memory-inmemory"],
        """
import asyncio
import agent_memory
class Lengths:
    model, dimensions = "lengths", 2
    async def aembed_documents(self, texts): return [[len(each), 1.0] for each in texts]
    async def aembed_query(self, text): return [len(text), 1.0]
async def main():
    async with agent_memory.create_memory_vector_db("inmemory", embeddings=Lengths()) as db:
        await db.add_memories([agent_memory.MemoryRecord(id="seat", text="window seats")])
        page = await db.search_memories("where to sit?")
        assert [each.id for each in page.memories] == ["seat"], page
asyncio.run(main())
""",
    ),
    User(
        "operator",
        ["agent-memory[cli,local]", "agent-memory-inmemory"],
        """
import json, subprocess
listed = subprocess.run(
    ["agent-memory", "backends", "list", "--json"], capture_output=True, text=True, check=True
)
assert "agent-memory-inmemory" in listed.stdout, listed
json.loads(listed.stdout)
common = ["-b", "inmemory", "-e", "local", "--path", "memories"]
subprocess.run(["agent-memory", "backends", "doctor", "inmemory", "-e", "local"], check=True)
subprocess.run(["agent-memory", "add", "Prefers window seats", "--id", "seat", *common], check=True)
found = subprocess.run(
    ["agent-memory", "search", "where to sit?", "--json", *common],
    capture_output=True, text=True, check=True,
)
assert json.loads(found.stdout)["memories"][0]["id"] == "seat", found
subprocess.run(["agent-memory", "demo"], check=True, stdout=subprocess.DEVNULL)
""",
    ),
    User(
        "redis",
        ["agent-memory[cli,local]", "agent-memory-redis"],
        """
import json, subprocess
common = ["-b", "redis", "-e", "local"]
subprocess.run(["agent-memory", "backends", "doctor", "redis", "-e", "local"], check=True)
subprocess.run(["agent-memory", "add", "Prefers window seats", "--id", "seat", *common], check=True)
found = subprocess.run(
    ["agent-memory", "search", "where to sit?", "--json", *common],
    capture_output=True, text=True, check=True,
)
assert json.loads(found.stdout)["memories"][0]["id"] == "seat", found
""",
        redis=True,
    ),
    User(
        "server-compat",
        ["agent-memory[local,server-compat]", "agent-memory-inmemory"],
        """
import asyncio, os
os.environ |= {"MEMORY_VECTOR_DB_FACTORY": "inmemory", "EMBEDDING_MODEL": "local"}
import agent_memory
from agent_memory_server.memory_vector_db_factory import get_memory_vector_db
from agent_memory_server.models import MemoryRecord
assert MemoryRecord is agent_memory.MemoryRecord
async def main():
    async with await get_memory_vector_db() as db:
        await db.add_memories([MemoryRecord(id="1", text="window seats")])
        page = await db.search_memories(
            "seats", user_id=None, text_scorer="BM25STD", server_side_recency=True
        )
        assert page.total == 1, page
asyncio.run(main())
""",
    ),
    User(
        "hooks",
        ["agent-memory[cli,local,otel]", "agent-memory-inmemory", *EXAMPLES.values()],
        """
import json, os, pathlib, subprocess
os.environ["AGENT_MEMORY_AUDIT_LOG"] = "audit.jsonl"
listed = subprocess.run(
    ["agent-memory", "hooks", "list", "--json"], capture_output=True, text=True, check=True
)
assert [each["name"] for each in json.loads(listed.stdout)["hooks"]] == ["audit-log", "redaction"]
os.environ["AGENT_MEMORY_HOOKS"] = "otel,audit-log,redaction"
common = ["-b", "inmemory", "-e", "local", "--path", "memories"]
subprocess.run(["agent-memory", "backends", "doctor", "inmemory", "-e", "local"], check=True)
subprocess.run(["agent-memory", "add", "mail ada@example.com", "--id", "1", *common], check=True)
got = subprocess.run(
    ["agent-memory", "get", "1", "--json", *common], capture_output=True, text=True, check=True
)
assert json.loads(got.stdout)["memories"][0]["text"] == "mail [e-mail address]", got
lines = pathlib.Path("audit.jsonl").read_text().splitlines()
events = [json.loads(line)["event"] for line in lines]
assert events == ["started", "ended", "ended"], events
""",
    ),
    User(
        "author",
        ["agent-memory-testkit", "agent-memory-inmemory"],
        """
import pathlib, subprocess, sys
pathlib.Path("test_mine.py").write_text(
    "from agent_memory_inmemory import create\\n"
    "from agent_memory_testkit import ConformanceSuite, Profile, Unsupported\\n"
    "class TestMine(ConformanceSuite):\\n"
    "    off = {name: Unsupported('in memory') for name in ('persistent', 'shared')}\\n"
    "    profile = Profile('mine', off=off)\\n"
    "    async def open(self, space, embeddings):\\n"
    "        return create(embeddings, space=space)\\n"
)
chosen = ["-k", "add_ or iso_", "test_mine.py"]
subprocess.run([sys.executable, "-m", "pytest", "-q", *chosen], check=True)
""",
    ),
    User(
        "oldest dependencies",
        ["agent-memory[cli,local]", "agent-memory-inmemory", "agent-memory-testkit"],
        """
import subprocess
subprocess.run(["agent-memory", "demo"], check=True, stdout=subprocess.DEVNULL)
subprocess.run(["agent-memory", "new-backend", "quill"], check=True)
subprocess.run(
    ["agent-memory-conformance", "inmemory", "--rules", "ADD-1,DEL-1", "--html", "page.html"],
    check=True,
)
""",
        # Whose dependencies are meant: those that a requirements file names count as direct.
        [
            *("--resolution=lowest-direct", "--extra=cli", "--extra=local"),
            "--requirements=packages/core/pyproject.toml",
            "--requirements=packages/backend-inmemory/pyproject.toml",
            "--requirements=packages/testkit/pyproject.toml",
        ],
    ),
]
TEST_TOOLS = [
    "jsonschema>=4.18",
    "opentelemetry-sdk>=1.30",
    "pip>=23.1",
    "pytest>=8.2",
    "pytest-xdist>=3.6",
    "python-stdnum>=1.20",
]
TYPE_TOOLS = ["mypy>=1.13", "nox", "psutil", "types-jsonschema", "types-psutil"]
ALONE = "test_redis_failover"
"""Tests of how long something takes that need the machine for themselves."""


@nox.session
def lint(session: nox.Session) -> None:
    """Style and likely mistakes: ruff's rules, ruff's format."""
    session.install("ruff>=0.9")
    session.run("ruff", "check", *PYTHON_FILES)
    session.run("ruff", "format", "--check", *PYTHON_FILES)


@nox.session
def types(session: nox.Session) -> None:
    """Strict mypy over every package, the examples and the benchmarks."""
    session.install(*TYPE_TOOLS, *TEST_TOOLS, *EVERYTHING)
    for folder in PACKAGES:
        session.run("mypy", f"packages/{folder}/src")
        session.run("mypy", f"packages/{folder}/tests")
    session.run("mypy", "conftest.py", "noxfile.py", "docs", "examples", "benchmarks", "tools")


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, the conformance suite on real backends included."""
    session.install(*TEST_TOOLS, *EVERYTHING)
    _test(session)


@nox.session
def coverage(session: nox.Session) -> None:
    """The tests of the packages once more, slower, with a report of the lines that none runs."""
    session.install(*TEST_TOOLS, "pytest-cov>=5.0", *EVERYTHING)
    session.run("pytest", "--cov", "--cov-report=term", *session.posargs)


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def compat(session: nox.Session) -> None:
    """All tests on one Python, for each that is installed here: `nox -s compat-3.13`."""
    session.install(*TEST_TOOLS, *EVERYTHING)
    _test(session)


@nox.session
def conformance(session: nox.Session) -> None:
    """Prove every backend by its name, and write the reports that the docs show."""
    session.install(*TEST_TOOLS, *EVERYTHING)
    folder = ROOT / "docs" / "conformance"

    def prove(name: str, *arguments: str, beside: tuple[str, ...] = ()) -> None:
        session.run(
            *beside, "agent-memory-conformance", *arguments, "--strict", "--seed", "1",
            "--report", str(folder / f"{name}.json"), "--html", str(folder / f"{name}.html"),
        )  # fmt: skip

    prove("inmemory", "inmemory")
    with RedisServer() as server:
        for algorithm in ("hnsw", "flat"):
            prove(
                f"redis-{algorithm}",
                "redis", "--option", f"url={server.url}", "--option", f"algorithm={algorithm}",
                "--network", f"127.0.0.1:{server.port}",
                "--through", "url=redis://{host}:{port}", "--through", "timeout:=0.5",
                "--through", "connect_timeout:=0.3",
            )  # fmt: skip
    session.install("-e", "examples/qdrant-backend", "qdrant-edge-py>=0.9,<0.10")
    words = "Qdrant filters by words, but does not rank by them as the contract asks"
    common = (
        "--off", f"keyword_search={words}", "--off", f"hybrid_search={words}",
        "--patience", "600",
    )  # fmt: skip
    memory = "a space in memory ends with its handle"
    prove(
        "qdrant",
        "qdrant", "--option", "url=:memory:", *common,
        "--off", f"persistent={memory}", "--off", f"shared={memory}",
    )  # fmt: skip
    prove(
        "qdrant-stand-in",
        "qdrant", "--option", "url=@URL@", "--option", "timeout:=60", *common,
        "--network", "127.0.0.1:@PORT@", "--through", "url=http://{host}:{port}",
        "--through", "timeout:=2", "--through", "retries:=1", "--timeout", "3",
        beside=("python", "examples/qdrant-backend/tests/stand_in.py"),
    )  # fmt: skip
    with (folder / "matrix.md").open("w") as matrix:
        session.run(
            "agent-memory-conformance", "matrix", *map(str, sorted(folder.glob("*.json"))),
            stdout=matrix,
        )  # fmt: skip


@nox.session(name="kill-score")
def kill_score(session: nox.Session) -> None:
    """Try each wrong backend on the rule that must find it; see the script for `-- --first`."""
    session.install(*TEST_TOOLS, *EVERYTHING)
    how = session.posargs or ["--planted"]
    session.run("python", "packages/testkit/tests/kill_score.py", *how)


@nox.session
def minimums(session: nox.Session) -> None:
    """All tests with the oldest release of every dependency that the packages allow."""
    session.install("--resolution", "lowest-direct", *TEST_TOOLS, *EVERYTHING)
    _test(session)


def _test(session: nox.Session) -> None:
    """Run all tests, or those that the arguments of the command choose."""
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    session.run("pytest", "-n", "auto", "--dist", "loadscope", "-k", f"not {ALONE}")
    session.run("pytest", "-k", ALONE)


@nox.session
def wheels(session: nox.Session) -> None:
    """Build every distribution, check it, and use the wheels in clean environments."""
    dist = Path(session.create_tmp()).resolve() / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.install(
        "check-jsonschema", "check-wheel-contents", "hatchling", "mypy>=1.13", "packaging>=24.0",
        "ruff>=0.9", "twine",
    )  # fmt: skip
    for folder in (
        *(f"packages/{each}" for each in PACKAGES),
        *(f"examples/{each}" for each in EXAMPLES),
    ):
        _build(session, Path(folder), dist)
    session.run("twine", "check", "--strict", *map(str, dist.glob("agent_memory*")))
    session.run("check-wheel-contents", *map(str, dist.glob("*.whl")))
    session.run("python", "tools/check_distributions.py", str(dist))
    for user in USERS:
        environment = _environment(session, dist, user.name, *user.options, *user.wheels)
        with RedisServer() if user.redis else nullcontext() as server:
            variables = {} if server is None else {"REDIS_URL": server.url}
            _run_there(session, environment, "python", "-I", "-c", user.script, env=variables)
    _prove_generated_backend(session, dist)


def _prove_generated_backend(session: nox.Session, dist: Path) -> None:
    """What `agent-memory new-backend` writes, from its wheel: both ways into the kit, and types."""
    writer = _environment(session, dist, "writer", "agent-memory[cli]")
    _run_there(session, writer, "agent-memory", "new-backend", "quill")
    project = writer / "agent-memory-quill"
    _build(session, project, project / "dist")
    [sdist] = (project / "dist").glob("*.tar.gz")
    [wheel] = (project / "dist").glob("*.whl")
    session.run("twine", "check", "--strict", str(sdist), str(wheel))
    session.run("check-wheel-contents", str(wheel))
    workflow = str(project / ".github" / "workflows" / "ci.yml")
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", workflow)

    author = _environment(session, dist, "author-of-quill", str(wheel), "agent-memory-testkit")
    _run_there(session, author, "agent-memory-conformance", "quill", "--strict", folder=author)
    chosen = "add_ or iso_ or life_ or registration"  # the command has tried all
    _run_there(session, author, "python", "-m", "pytest", "-q", "-k", chosen, folder=project)
    with session.chdir(project):
        session.run("mypy", "--python-executable", str(_bin(author) / "python"))
    # Lines have other lengths with other names.
    for name in ("q", "q" * 32):
        _run_there(session, writer, "agent-memory", "new-backend", name)
    for each in sorted(writer.glob("agent-memory-*")):
        # Nothing here is to be passed over for lying in a folder that git ignores.
        everything = ["--no-respect-gitignore", "--config", "exclude=[]", str(each)]
        session.run("ruff", "check", *everything)
        session.run("ruff", "format", "--check", *everything)


def _build(session: nox.Session, folder: Path, dist: Path) -> None:
    """Build a wheel by way of the source distribution, so that this is proven to be complete."""
    session.run(
        "uv", "build", "--quiet", "--no-build-isolation", "--python", f"{session.bin}/python",
        "--out-dir", str(dist), str(folder), external=True,
    )  # fmt: skip


def _environment(session: nox.Session, dist: Path, name: str, *wheels_: str) -> Path:
    """Make an environment that holds these wheels and what they need, and return its folder.

    Wheels just built are used, never others of the same version from the installer's cache.
    """
    environment = dist.parent / f"user-{name.replace(' ', '-')}"
    shutil.rmtree(environment, ignore_errors=True)
    session.run("uv", "venv", "--quiet", "--python", f"{session.bin}/python", str(environment),
                external=True)  # fmt: skip
    refreshed = [f"--refresh-package={each}" for each in (PACKAGES | EXAMPLES).values()]
    session.run(
        "uv", "pip", "install", "--quiet", "--python", str(_bin(environment) / "python"),
        "--find-links", str(dist), *refreshed, *wheels_, external=True,
    )  # fmt: skip
    return environment


def _bin(environment: Path) -> Path:
    return environment / ("Scripts" if os.name == "nt" else "bin")


def _run_there(
    session: nox.Session,
    environment: Path,
    program: str,
    *arguments: str,
    folder: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Run a program of an environment, in its folder or another outside the source tree."""
    with session.chdir(folder or environment):
        session.run(
            str(_bin(environment) / program), *arguments,
            env={"PATH": f"{_bin(environment)}{os.pathsep}{os.environ['PATH']}", **(env or {})},
            external=True,
        )  # fmt: skip


@nox.session
def qdrant(session: nox.Session) -> None:
    """Check and prove the third-party backend in examples/, as its author does: from wheels."""
    source = ROOT / "examples" / "qdrant-backend"
    dist = Path(session.create_tmp()).resolve() / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.install("hatchling")
    for folder in (Path("packages", "core"), Path("packages", "testkit"), source):
        _build(session, folder, dist)
    name = "agent-memory-qdrant"
    author = _environment(session, dist, "author", f"--refresh-package={name}", f"{name}[test]")
    python = _bin(author) / "python"
    with session.chdir(source):
        for command in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy", "src", "tests"]):
            session.run(str(python), "-m", *command, external=True)
        how = session.posargs or ["--conformance-strict"]
        session.run(
            str(python), "-m", "pytest", *how, external=True,
            env={"AGENT_MEMORY_CONFORMANCE_PATIENCE": "600"},
        )  # fmt: skip


@nox.session
def demo(session: nox.Session) -> None:
    """The main job, as the README's first command runs it."""
    session.install("packages/core[cli,local]", "packages/backend-inmemory")
    session.run("agent-memory", "demo", env={"MEMORY_VECTOR_DB_FACTORY": "", "NO_COLOR": "1"})


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site of the documentation into site/; any broken link or reference fails it."""
    session.install(
        # MkDocs 2 has no plugins, and Material is made for MkDocs 1.
        "mkdocs>=1.6.1,<2", "mkdocs-material>=9.7", "mkdocstrings[python]>=1.0.8", "ruff>=0.9",
    )  # fmt: skip
    session.run("mkdocs", "build", "--strict", *session.posargs, env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def behaviour(session: nox.Session) -> None:
    """Ask other stores the questions of the page that compares them, and print what they answer."""
    session.install("-r", "benchmarks/behaviour-requirements.txt", *EVERYTHING)
    with RedisServer() as server:
        session.run(
            "python", "benchmarks/behaviour.py", *session.posargs, env={"REDIS_URL": server.url}
        )


@nox.session
def redis(session: nox.Session) -> None:
    """Run a Redis 8 with the query engine until Ctrl-C, to develop against."""
    session.run("python", "tools/redis_server.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Print the table of ratios against peers, and write it as JSON into benchmarks/results."""
    session.install("-r", "benchmarks/requirements.txt", *EVERYTHING)
    session.run("python", "benchmarks/run.py", *session.posargs)


@nox.session
def dev(session: nox.Session) -> None:
    """Make .venv, an environment to work in with everything installed for editing."""
    session.run("uv", "venv", "--allow-existing", ".venv", external=True)
    python = ".venv/Scripts/python" if os.name == "nt" else ".venv/bin/python"
    session.run("uv", "pip", "install", "--python", python, "ruff>=0.9", *TYPE_TOOLS,
                *TEST_TOOLS, *EVERYTHING, external=True)  # fmt: skip
