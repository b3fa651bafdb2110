"""Fixtures for the tests of the embedded backend."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

_SUPPORT = Path(__file__).with_name("inmemory_support.py")


def _loaded(path: Path) -> ModuleType:
    """Load a module by its path: tests are not importable modules here."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


_loaded(_SUPPORT)  # so that tests can import it


@pytest.fixture
def writer() -> list[str]:
    """The command of a process that writes until it is killed; its argument is a folder."""
    return [sys.executable, str(_SUPPORT)]


@pytest.fixture(autouse=True)
def _no_path_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENT_MEMORY_INMEMORY_PATH", raising=False)
