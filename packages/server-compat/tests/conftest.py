"""Fixtures for the tests of the compatibility package: a real Redis, real embeddings over HTTP."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

_ROOT = Path(__file__).parents[3]


def _loaded(path: Path) -> ModuleType:
    """Load a module by its path: neither tests nor tools are importable modules here."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("MEMORY_VECTOR_DB", "EMBEDDING_", "REDIS", "OPENAI_")):
            monkeypatch.delenv(name)


@pytest.fixture
def own_redis_url() -> Iterator[str]:
    """The URL of a server of the test's own, so that it may write to the default index."""
    with _loaded(_ROOT / "tools" / "redis_server.py").RedisServer() as server:
        yield server.url


@pytest.fixture
def openai_url() -> Iterator[str]:
    """The address of an OpenAI-compatible server on loopback; its vectors have 1,536 numbers."""
    endpoint = _loaded(_ROOT / "packages" / "core" / "tests" / "openai_endpoint.py")
    with endpoint.serve() as running:
        running.usual = endpoint.embeddings(1536)
        yield running.url
