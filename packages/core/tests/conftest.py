"""Fixtures for the tests of the core."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from agent_memory import discovery

if TYPE_CHECKING:
    from factory_site import Site
    from openai_endpoint import Endpoint


def _helper(name: str) -> ModuleType:
    """Load a module of this folder by its path: tests are not importable modules here."""
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def behaviours() -> ModuleType:
    """The module ``openai_endpoint``: the ways in which its endpoint can behave."""
    return _helper("openai_endpoint")


@pytest.fixture
def endpoint(behaviours: ModuleType) -> Iterator[Endpoint]:
    """An OpenAI-compatible embeddings server on loopback that behaves as the test tells it."""
    with behaviours.serve() as running:
        yield running


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An empty folder on ``sys.path`` to install into; no plugin is registered outside it.

    Its modules leave ``sys.modules`` with the test, and no variable of the factory is set.
    """
    for name in (
        "AGENT_MEMORY_HOOKS",
        "MEMORY_VECTOR_DB_FACTORY",
        "EMBEDDING_MODEL",
        "EMBEDDING_DIMENSIONS",
    ):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    site: Site = _helper("factory_site").Site(folder)
    installed = [*discovery.installed_backends(), *discovery.installed_hooks()]
    for each in {each.distribution for each in installed}:
        site.distribution(each, "0")  # which registers nothing and shadows the one outside
    before = set(sys.modules)
    yield site
    for name in set(sys.modules) - before:
        if str(folder) in str(sys.modules[name].__spec__):
            del sys.modules[name]
    discovery.clear_cache()
