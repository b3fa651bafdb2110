"""What `import agent_memory` gives, what it costs, and that all of it is documented."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from importlib import import_module

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


def test_all_names_what_is_exported_and_where_it_lives() -> None:
    tree = ast.parse(inspect.getsource(agent_memory))
    imported = {
        alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("agent_memory.")
        for alias in node.names
    }
    assert set(imported) == set(agent_memory.__all__)
    for name, value in PUBLIC:
        module, _, attribute = imported[name].rpartition(".")
        assert getattr(import_module(module), attribute) is value
        assert vars(agent_memory)[name] is value  # found at once from the second time on
    assert sorted(agent_memory.__all__) == agent_memory.__all__
    assert len(set(agent_memory.__all__)) == len(agent_memory.__all__)
    assert set(agent_memory.__all__) <= set(dir(agent_memory))


def test_other_names_do_not_exist() -> None:
    for name in ("nothing", "Any", "pydantic"):  # the latter two stand in modules that are searched
        with pytest.raises(AttributeError, match=f"'agent_memory' has no attribute '{name}'"):
            getattr(agent_memory, name)


def test_importing_it_loads_no_engine_no_model_and_no_numpy() -> None:
    # With every name but those of the embeddings, which bring what they need.
    names = ", ".join(set(agent_memory.__all__) - {"LiteLLMEmbeddings", "LocalEmbeddings"})
    program = (
        f"import sys, json; from agent_memory import {names}; print(json.dumps([*sys.modules]))"
    )
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
