"""Every check of this workspace by name; `nox -l` is the menu.

Plain `nox` runs what continuous integration runs. Everything that a session needs it installs
itself, from the package index, into an environment of its own.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_external_run = True
nox.options.sessions = ["lint", "types", "tests", "wheels", "demo"]

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
EVERYTHING = [
    "-e", "packages/core[all]",
    "-e", "packages/backend-inmemory[hnsw]",
    "-e", "packages/backend-redis",
    "-e", "packages/server-compat",
    "-e", "packages/testkit",
]  # fmt: skip
USERS = [
    (
        "core-alone",
        ["agent-memory"],
        """
import subprocess, sys
import agent_memory
heavy = {"numpy", "litellm", "redis", "redisvl", "wordllama"} & sys.modules.keys()
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
    (
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
    (
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
    ),
    (
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
    (
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
]
"""Who installs which wheels, and what must work for them then."""
TEST_TOOLS = ["jsonschema>=4.18", "pip", "pytest>=8.1", "pytest-xdist>=3.6"]
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
    session.install(
        "mypy>=1.13", "nox", "psutil", "types-jsonschema", "types-psutil", *TEST_TOOLS, *EVERYTHING
    )
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

    def prove(name: str, *arguments: str) -> None:
        session.run(
            "agent-memory-conformance", *arguments, "--strict", "--seed", "1",
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


def _just_built() -> list[str]:
    """Options that keep uv from taking ours from its cache, where an earlier build may lie."""
    return [f"--refresh-package={name}" for name in PACKAGES.values()]


@nox.session
def wheels(session: nox.Session) -> None:
    """Build every distribution, check it, and use the wheels in clean environments."""
    dist = Path(session.create_tmp()).resolve() / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.install("build", "hatchling", "twine", "check-wheel-contents")
    for folder in PACKAGES:
        # By way of the source distribution, so that it is proven to be complete.
        session.run("python", "-m", "build", "--no-isolation", "--outdir", str(dist),
                    f"packages/{folder}", silent=True)  # fmt: skip
    built = sorted(dist.glob("*.whl"))
    session.run("twine", "check", "--strict", *map(str, dist.iterdir()))
    session.run("check-wheel-contents", *map(str, built))
    for name, wheels_, script in USERS:
        environment = dist.parent / f"user-{name}"
        shutil.rmtree(environment, ignore_errors=True)
        session.run("python", "-m", "venv", "--without-pip", str(environment))
        bin_folder = environment / ("Scripts" if os.name == "nt" else "bin")
        session.run(
            "uv", "pip", "install", "--quiet", "--python", str(bin_folder / "python"),
            "--find-links", str(dist), *_just_built(), *wheels_, external=True,
        )  # fmt: skip
        with RedisServer() as server, session.chdir(environment):  # outside the source tree
            session.run(
                str(bin_folder / "python"), "-I", "-c", script,
                env={
                    "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
                    "REDIS_URL": server.url,
                },
                external=True,
            )  # fmt: skip


@nox.session
def demo(session: nox.Session) -> None:
    """The main job, as the README's first command runs it."""
    session.install("packages/core[cli,local]", "packages/backend-inmemory")
    session.run("agent-memory", "demo", env={"MEMORY_VECTOR_DB_FACTORY": "", "NO_COLOR": "1"})


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
    session.run("uv", "pip", "install", "--python", python, "ruff", "mypy", "nox", *TEST_TOOLS,
                *EVERYTHING, external=True)  # fmt: skip
