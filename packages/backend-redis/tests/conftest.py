"""Fixtures for the tests of the Redis backend, all of which run against a real server.

The tests import `redis_server` (in the workspace's folder ``tools``), which starts a server of
one's own with any setting, and `redis_support`. `redis_url` is a server for all tests that need
nothing special.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

_TOOLS = Path(__file__).parents[3] / "tools"


def _loaded(path: Path) -> ModuleType:
    """Load a module by its path: neither tests nor tools are importable modules here."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


_tool = _loaded(_TOOLS / "redis_server.py")
_SUPPORT = Path(__file__).with_name("redis_support.py")
_loaded(_SUPPORT)


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of a server with the query engine; it may hold other people's data."""
    given = _tool.given_url()
    if given is not None:
        yield given
        return
    with _tool.RedisServer() as server:
        yield server.url


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("REDIS_", "REDISVL_")):
            monkeypatch.delenv(name)


@pytest.fixture
def unused_url() -> str:
    """A URL at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"redis://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def writer() -> list[str]:
    """The command of a process that adds memories one by one: see `redis_support`."""
    return [sys.executable, str(_SUPPORT)]
