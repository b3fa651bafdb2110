"""The command line run in this process, for tests of commands that need no process of their own.

Test modules load this file by its path: they are no package.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agent_memory.cli.commands import agent_memory


class Result(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What was printed on stdout, all of which must be one JSON value."""
        return json.loads(self.out)


Cli = Callable[..., Result]


@pytest.fixture
def cli(
    capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Cli:
    """Run a command on the in-memory backend in a folder of the test, with offline embeddings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("AGENT_MEMORY_DEBUG", raising=False)
    monkeypatch.setenv("MEMORY_VECTOR_DB_FACTORY", "inmemory")
    monkeypatch.setenv("EMBEDDING_MODEL", "local")
    monkeypatch.setenv("AGENT_MEMORY_INMEMORY_PATH", str(tmp_path / "memories"))

    def run(*arguments: str, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
        with pytest.raises(SystemExit) as ended:
            agent_memory(arguments, prog_name="agent-memory")
        captured = capsysbinary.readouterr()
        code = ended.value.code or 0
        assert isinstance(code, int)
        return Result(code, captured.out.decode(), captured.err.decode())

    return run
