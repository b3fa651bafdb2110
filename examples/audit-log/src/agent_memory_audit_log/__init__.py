"""An audit log: one JSON line for each call on a memory database, on disk before the call returns.

A call that writes has a line before it as well, so that nothing is changed without a trace, even if
the process is killed meanwhile. Texts and queries are logged only if asked for.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent_memory import InvalidArgumentError, MemoryRecord
from agent_memory.hooks import Call, hookimpl

__all__ = ["AuditLog", "from_environment"]

FILE_VARIABLE = "AGENT_MEMORY_AUDIT_LOG"
TEXTS_VARIABLE = "AGENT_MEMORY_AUDIT_LOG_TEXTS"

_WRITING = ("add_memories", "update_memories", "delete_memories")


class AuditLog:
    """A plug-in that appends what is done, by whom and how it ended, to a file of JSON lines.

    Args:
        file: the file; it and its folder are created if they are missing, readable by their owner
            alone. Several processes may append to one file.
        actor: who is behind the calls: a name, or a function that says so of the call that is being
            made, such as the ``get`` of a context variable. ``None``: the user of the process.
        texts: log the texts of records that are stored, and the queries, as the hooks further out
            have left them.
    """

    def __init__(
        self,
        file: str | os.PathLike[str],
        *,
        actor: str | Callable[[], str] | None = None,
        texts: bool = False,
    ) -> None:
        self.file = Path(file)
        self._actor = actor if actor is not None else _user()
        self._texts = texts

    # Outermost of all: what another plug-in refuses is logged, too.

    @hookimpl(tryfirst=True)
    @asynccontextmanager
    async def around_call(self, call: Call) -> AsyncIterator[None]:
        """Log the call: before it if it writes, and how it ended."""
        about = {
            "call": str(uuid.uuid4()),
            "actor": self._actor if isinstance(self._actor, str) else self._actor(),
            "operation": call.operation,
            "backend": call.backend,
            "space": call.space,
            "scope": dict(call.scope),
        }
        if call.operation in _WRITING:
            await self._append({"event": "started", **about, "ids": call.ids})
        try:
            yield
        except BaseException as error:
            cancelled = isinstance(error, asyncio.CancelledError)
            outcome = "cancelled" if cancelled else "failed"
            # Its type alone: messages quote what was given.
            await self._append(self._ended(call, about, outcome, type(error).__qualname__))
            raise
        await self._append(self._ended(call, about, "done", None))

    # Innermost of all: what is logged has been through the hooks that change it.

    @hookimpl(trylast=True)
    def before_add(self, call: Call, memories: list[MemoryRecord]) -> None:
        """Keep the texts for the line at the end."""
        self._keep_texts(call, memories)

    @hookimpl(trylast=True)
    def before_update(self, call: Call, memories: list[MemoryRecord]) -> None:
        """Keep the texts for the line at the end."""
        self._keep_texts(call, memories)

    @hookimpl(trylast=True)
    def before_search(self, call: Call, query: str) -> None:
        """Keep the query for the line at the end."""
        if self._texts:
            call.notes[self] = {"query": query}

    def _keep_texts(self, call: Call, memories: Sequence[MemoryRecord]) -> None:
        if self._texts:
            call.notes[self] = {"texts": [each.text for each in memories]}

    def _ended(
        self, call: Call, about: Mapping[str, Any], outcome: str, error: str | None
    ) -> dict[str, Any]:
        return {
            "event": "ended",
            **about,
            "ids": call.ids,
            "count": call.count,
            "outcome": outcome,
            "error": error,
            **call.notes.get(self, {}),
        }

    async def _append(self, event: Mapping[str, Any]) -> None:
        line = json.dumps({"time": datetime.now(UTC).isoformat(), **event}).encode() + b"\n"
        writing = asyncio.ensure_future(asyncio.to_thread(self._write, line))
        cancelled: asyncio.CancelledError | None = None
        while not writing.done():
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError as error:  # of the caller, who waits for the line first
                cancelled = error
        if cancelled is not None:
            raise cancelled
        writing.result()

    def _write(self, line: bytes) -> None:
        folder = self.file.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_new = not self.file.exists()
        # Opened for each line, so that the file may be moved away by whoever rotates logs. One
        # write to a file opened for appending is one piece, whichever process it comes from.
        descriptor = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            written = os.write(descriptor, line)
            if written != len(line):
                raise OSError(f"the disk took {written} of {len(line)} bytes for {self.file}")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new and os.name == "posix":  # the name of a new file is durable with its folder
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number that has no name
        return f"user {os.getuid()}" if hasattr(os, "getuid") else "unknown"


def from_environment() -> AuditLog:
    """Return the audit log that the environment describes; what an installed plug-in runs as.

    ``AGENT_MEMORY_AUDIT_LOG`` names the file, ``AGENT_MEMORY_AUDIT_LOG_TEXTS=1`` logs texts too.

    Raises:
        InvalidArgumentError: no file is named, or the other variable is neither 0 nor 1.
    """
    file = os.environ.get(FILE_VARIABLE, "").strip()
    if not file:
        raise InvalidArgumentError(
            f"set {FILE_VARIABLE} to the file that the audit log is appended to, or leave "
            f"audit-log out of AGENT_MEMORY_HOOKS"
        )
    texts = os.environ.get(TEXTS_VARIABLE, "").strip() or "0"
    if texts not in ("0", "1"):
        raise InvalidArgumentError(f"{TEXTS_VARIABLE}={texts!r}: expected 0 or 1")
    return AuditLog(file, texts=texts == "1")
