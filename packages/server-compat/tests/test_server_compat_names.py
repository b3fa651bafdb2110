"""The import paths of ``agent_memory_server`` give the objects of `agent_memory`."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import agent_memory
import agent_memory_server

PATHS = {
    "memory_vector_db": ["MemoryVectorDatabase"],
    "models": ["MemoryRecord", "MemoryRecordResult", "MemoryRecordResults", "MemoryTypeEnum"],
    "filters": [
        "CreatedAt",
        "DiscreteMemoryExtracted",
        "Entities",
        "EventDate",
        "ExtractedFrom",
        "ExtractionStrategy",
        "Id",
        "LastAccessed",
        "MemoryHash",
        "MemoryType",
        "Namespace",
        "PersistedAt",
        "SessionId",
        "Topics",
        "UpdatedAt",
        "UserId",
    ],
    "memory_vector_db_factory": ["create_memory_vector_db"],
}
RENAMED = {"SearchModeEnum": "SearchMode", "SearchScoreTypeEnum": "ScoreType"}
OWN = {"create_redis_memory_vector_db", "get_memory_vector_db"}
"""What has no counterpart in the core."""


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in PATHS.items() for name in names]
)
def test_a_name_is_the_object_of_the_core(module: str, name: str) -> None:
    found = getattr(import_module(f"agent_memory_server.{module}"), name)
    assert found is getattr(agent_memory, name)


@pytest.mark.parametrize(("there", "here"), RENAMED.items())
def test_a_renamed_name_is_the_object_of_the_core(there: str, here: str) -> None:
    models = import_module("agent_memory_server.models")
    assert getattr(models, there) is getattr(agent_memory, here)


@pytest.mark.parametrize("module", PATHS)
def test_a_module_exports_these_names_and_no_others(module: str) -> None:
    exported = set(import_module(f"agent_memory_server.{module}").__all__)
    assert exported - OWN - RENAMED.keys() == set(PATHS[module])


def test_every_field_has_its_filter() -> None:
    from agent_memory.filters import FILTERS

    assert {kind.__name__ for kind in FILTERS.values()} == set(PATHS["filters"])


def test_the_package_is_typed() -> None:
    assert Path(agent_memory_server.__file__).with_name("py.typed").is_file()


def test_the_core_does_not_load_it_and_it_loads_no_engine() -> None:
    code = (
        "import sys, agent_memory\n"
        "assert not [each for each in sys.modules if each.startswith('agent_memory_server')]\n"
        "import agent_memory_server.memory_vector_db_factory\n"
        "heavy = {'agent_memory_redis', 'redisvl', 'numpy', 'litellm'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
