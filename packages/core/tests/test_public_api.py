"""What `import agent_memory` gives, what it costs, and that all of it is documented."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from importlib import import_module
from types import ModuleType

import pytest

import agent_memory
from agent_memory import AgentMemoryError

PUBLIC = [(name, getattr(agent_memory, name)) for name in agent_memory.__all__]
MODULES = [
    "backend",
    "database",
    "embeddings",
    "embeddings.protocol",
    "errors",
    "filters",
    "hooks",
    "hooks.database",
    "hooks.loading",
    "hooks.otel",
    "hooks.specification",
    "keywords",
    "models",
    "recency",
    "scope",
    "vectors",
]
BUILTIN = {
    "BackendAttributeError": AttributeError,
    "BackendClosedError": RuntimeError,
    "BackendCompatibilityError": ImportError,
    "BackendConflictError": LookupError,
    "BackendDependencyError": ModuleNotFoundError,
    "BackendImportError": ImportError,
    "BackendNotFoundError": LookupError,
    "BackendTypeError": TypeError,
    "BackendUnavailableError": ConnectionError,
    "EmbeddingError": RuntimeError,
    "EmbeddingMismatchError": ValueError,
    "HookCompatibilityError": ImportError,
    "HookConflictError": LookupError,
    "HookFailedError": RuntimeError,
    "HookImportError": ImportError,
    "HookNotFoundError": LookupError,
    "HookTypeError": TypeError,
    "InvalidArgumentError": ValueError,
    "ScopeError": PermissionError,
    "UnsupportedCapabilityError": NotImplementedError,
}


LATE = {"LiteLLMEmbeddings", "LocalEmbeddings"}
"""Imported when they are first asked for."""


def test_all_names_exactly_what_is_exported() -> None:
    exported = {
        name
        for name, value in vars(agent_memory).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert exported | LATE == set(agent_memory.__all__)
    assert all(getattr(agent_memory, name).__name__ == name for name in LATE)
    assert sorted(agent_memory.__all__) == agent_memory.__all__
    assert len(set(agent_memory.__all__)) == len(agent_memory.__all__)


def test_importing_it_loads_no_engine_no_model_and_no_numpy() -> None:
    program = "import sys, json, agent_memory; print(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in json.loads(ran.stdout)}
    assert "agent_memory" in loaded
    heavy = {"numpy", "litellm", "redis", "redisvl", "wordllama", "click", "rich", "httpx"}
    heavy |= {"pluggy", "opentelemetry"}
    heavy |= {"asyncio", "ssl"}  # as slow to import as the rest of the core
    assert not loaded & heavy
    assert not {name for name in loaded if name.startswith("agent_memory_")}


@pytest.mark.parametrize("module", MODULES)
def test_every_module_imports_on_its_own(module: str) -> None:
    program = f"import agent_memory.{module}"
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("module", ["", *MODULES])
def test_every_module_says_what_lives_there(module: str) -> None:
    assert inspect.getdoc(import_module(f"agent_memory.{module}".rstrip(".")))


@pytest.mark.parametrize(("name", "value"), PUBLIC, ids=[name for name, _ in PUBLIC])
def test_every_public_name_is_documented(name: str, value: object) -> None:
    # Its own words: not inherited ones, and not the signature that a dataclass writes.
    own = value.__dict__.get("__doc__") if isinstance(value, type) else value.__doc__
    assert own, name
    assert not own.startswith(f"{name}("), name
    if isinstance(value, type):
        for attribute, member in vars(value).items():
            if not attribute.startswith("_") and inspect.isfunction(member):
                assert inspect.getdoc(getattr(value, attribute)), f"{name}.{attribute}"


def test_every_error_is_ours_and_fits_a_builtin_one() -> None:
    errors = {name: value for name, value in PUBLIC if name.endswith("Error")}
    assert set(errors) == {*BUILTIN, "AgentMemoryError", "BackendError", "HookError"}
    for name, error in errors.items():
        assert issubclass(error, AgentMemoryError)
        assert issubclass(error, BUILTIN.get(name, Exception))
        assert str(error("what to do")) == "what to do"
        if name.startswith("Backend"):
            assert issubclass(error, agent_memory.BackendError)
        if name.startswith("Hook"):
            assert issubclass(error, agent_memory.HookError)


def test_the_version_is_a_version() -> None:
    assert [part.isdigit() for part in agent_memory.__version__.split(".")] == [True] * 3
