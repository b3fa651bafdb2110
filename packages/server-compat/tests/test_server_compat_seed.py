"""Every example of the seed document runs, unchanged: see `seed_examples.md`."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_memory import (
    BackendAttributeError,
    BackendDependencyError,
    BackendImportError,
    BackendTypeError,
    LiteLLMEmbeddings,
)
from agent_memory_server.memory_vector_db_factory import (
    create_memory_vector_db,
    get_memory_vector_db,
)

PAGE = Path(__file__).with_name("seed_examples.md").read_text()
EXAMPLES = {
    section.partition("\n")[0]: section.partition("```")[2].partition("\n")[2].partition("```")[0]
    for section in PAGE.split("\n## ")[1:]
}
REMAINING = "    # ... implement remaining abstract methods\n"
METHODS = [
    "add_memories",
    "search_memories",
    "delete_memories",
    "update_memories",
    "count_memories",
    "list_memories",
]
PROGRAM = """
import asyncio, json, sys
from agent_memory_server.filters import UserId
from agent_memory_server.memory_vector_db_factory import get_memory_vector_db
from agent_memory_server.models import MemoryRecord

async def main():
    async with await get_memory_vector_db() as db:
        ids = await db.add_memories([
            MemoryRecord(id="1", text="Prefers window seats", user_id="ada"),
            MemoryRecord(id="2", text="Prefers aisle seats", user_id="bruno"),
        ])
        page = await db.search_memories(
            "Prefers window seats", user_id=UserId(eq="ada"), session_id=None, limit=5
        )
        found = [[each.id, each.text] for each in page.memories]
        counts = await db.count_memories(user_id=None), await db.count_memories(user_id="ada")
        deleted = await db.delete_memories(["1", "2"])
        kind = type(getattr(db, "database", db)).__module__.partition(".")[0]
    print(json.dumps([kind, ids, found, counts, deleted]))

asyncio.run(main())
"""
"""An application that does not know which backend it has."""


def completed_module() -> str:
    """Return `my_backends.py` with the remaining methods, which the interface's example has."""
    _, marker, methods = EXAMPLES["Interface"].partition("    async def delete_memories")
    basic = EXAMPLES["Basic example"]
    assert basic.count(REMAINING) == 1
    return basic.replace(REMAINING, marker + methods)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on ``sys.path``; what is imported from it is forgotten with the test."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(sys.modules[name].__spec__):
            del sys.modules[name]


def settings(block: str) -> dict[str, str]:
    """Return the variables that a block sets, as a shell understands it."""
    shown = subprocess.run(
        ["bash", "-euc", f"set -a\n{block}\nenv -0"],
        env={},
        capture_output=True,
        text=True,
        check=True,
    )
    pairs = (each.split("=", 1) for each in shown.stdout.split("\0") if each)
    shells_own = {"PWD", "SHLVL", "_", "PATH"}
    return {name: value for name, value in pairs if name not in shells_own}


def run_program(**variables: str) -> Any:
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def found_by(backend: str) -> list[Any]:
    """Return what the application prints if ``backend`` did as it was told."""
    return [backend, ["1", "2"], [["1", "Prefers window seats"]], [2, 1], 2]


def test_no_example_is_left_out() -> None:
    assert list(EXAMPLES) == ["Settings", "Factory", "Interface", "Basic example", "Redis"]


# --- the interface -------------------------------------------------------------------------------


def test_the_interface_names_all_that_is_abstract() -> None:
    names: dict[str, Any] = {}
    exec(EXAMPLES["Interface"], names)
    backend = names["MyCustomBackend"]()

    async def scenario() -> list[Any]:
        return [
            await backend.add_memories([]),
            await backend.search_memories("seats", 5),
            await backend.delete_memories([]),
            await backend.update_memories([]),
            await backend.count_memories(user_id="ada"),
            await backend.list_memories(0, 100, user_id="ada"),
        ]

    assert asyncio.run(scenario()) == [None] * 6  # the bodies are dots


def test_the_basic_example_lacks_what_it_says_it_lacks(
    modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (modules / "my_backends.py").write_text(EXAMPLES["Basic example"])
    for name, value in settings(EXAMPLES["Settings"]).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TypeError, match="abstract methods") as caught:
        create_memory_vector_db()
    for method in METHODS[2:]:
        assert method in str(caught.value)
    assert "via my_backends.create_my_backend" in caught.value.__notes__[0]


# --- the settings --------------------------------------------------------------------------------


def test_the_setting_that_names_ones_own_factory(
    modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (modules / "my_backends.py").write_text(completed_module())
    variables = settings(EXAMPLES["Settings"])
    assert variables == {"MEMORY_VECTOR_DB_FACTORY": "my_backends.create_my_backend"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    db: Any = create_memory_vector_db()
    mine = importlib.import_module("my_backends").MyCustomMemoryVectorDatabase
    assert type(db) is mine
    assert isinstance(db.embeddings, LiteLLMEmbeddings)
    assert type(asyncio.run(get_memory_vector_db())) is mine


def test_the_factory_alone_makes_a_backend(modules: Path) -> None:
    names: dict[str, Any] = {}
    exec(completed_module().partition("def create_my_backend")[0] + EXAMPLES["Factory"], names)
    db = create_memory_vector_db(names["create_my_backend"], embeddings="local")
    assert type(db) is names["MyCustomMemoryVectorDatabase"]


def test_the_default_setting_and_the_redis_settings(own_redis_url: str, openai_url: str) -> None:
    default = re.search(r"^# (MEMORY_VECTOR_DB_FACTORY=.*)$", EXAMPLES["Settings"], re.MULTILINE)
    assert default is not None
    dotted_path = settings(default[1])
    redis = settings(EXAMPLES["Redis"])
    assert redis.keys() == {
        "REDIS_URL",
        "REDISVL_DISTANCE_METRIC",
        "REDISVL_VECTOR_DIMENSIONS",
        "REDISVL_INDEX_NAME",
    }
    # Of all that the document sets, the address alone is another: that of the test's server.
    redis["REDIS_URL"] = own_redis_url
    service = {"OPENAI_BASE_URL": openai_url, "OPENAI_API_KEY": "sk-test-0123456789"}
    assert run_program(**dotted_path, **redis, **service) == found_by("agent_memory_redis")

    offline = {"EMBEDDING_MODEL": "local", "REDISVL_INDEX_NAME": "offline"}
    registered = {"MEMORY_VECTOR_DB_FACTORY": "redis"}
    nothing: dict[str, str] = {}
    for setting in (registered, nothing):
        variables = {"REDIS_URL": own_redis_url, **offline, **setting}
        assert run_program(**variables) == found_by("agent_memory_redis")


def test_another_registered_name() -> None:
    variables = {"MEMORY_VECTOR_DB_FACTORY": "inmemory", "EMBEDDING_MODEL": "local"}
    assert run_program(**variables) == found_by("agent_memory_inmemory")


# --- what goes wrong: the document's four kinds of errors ----------------------------------------


@pytest.mark.parametrize(
    ("setting", "error", "says"),
    [
        ("no_backends.create_my_backend", BackendImportError, "no module 'no_backends'"),
        ("needy_backends.create", BackendDependencyError, "'a_missing_engine'"),
        ("my_backends.create_my_bakend", BackendAttributeError, "mean 'create_my_backend'"),
        ("odd_backends.create", BackendTypeError, "returned an object of type dict"),
        ("failing_backends.create", RuntimeError, "the engine refused"),
    ],
)
def test_an_error_says_what_is_wrong(
    setting: str,
    error: type[Exception],
    says: str,
    modules: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (modules / "my_backends.py").write_text(completed_module())
    (modules / "needy_backends.py").write_text("import a_missing_engine\n")
    (modules / "odd_backends.py").write_text("def create(embeddings): return {}\n")
    (modules / "failing_backends.py").write_text(
        "def create(embeddings): raise RuntimeError('the engine refused')\n"
    )
    monkeypatch.setenv("MEMORY_VECTOR_DB_FACTORY", setting)
    with pytest.raises(error, match=says):
        create_memory_vector_db()
    with pytest.raises(error, match=says):
        asyncio.run(get_memory_vector_db())
