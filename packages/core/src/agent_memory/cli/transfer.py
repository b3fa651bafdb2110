"""Memories in bulk, as lines of JSON: reading them into a database, writing them out of one."""

from __future__ import annotations

import os
import shutil
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import BinaryIO, NamedTuple

from pydantic import ValidationError

from agent_memory.cli.framework import describe_invalid
from agent_memory.database import MemoryVectorDatabase
from agent_memory.models import MemoryRecord

KEPT_REASONS = 100
"""That many bad lines are reported with their reasons; further ones are counted."""

_BOM = b"\xef\xbb\xbf"  # some editors begin a UTF-8 file with it


class BadLine(NamedTuple):
    """A line that holds no valid memory."""

    line: int
    """Its number, from 1."""
    reason: str


class GoodLine(NamedTuple):
    """A line that holds a memory."""

    line: int
    record: MemoryRecord


@dataclass(slots=True)
class ImportReport:
    """What an import has done so far."""

    imported: int = 0
    """Lines whose memory the database has acknowledged."""
    repeated: int = 0
    """Those of them whose id an earlier line had: the later line replaced it."""
    failed: int = 0
    """Lines that hold no valid memory."""
    bad_lines: list[BadLine] = field(default_factory=list)
    """The first 100 of them."""

    def add_bad_line(self, line: BadLine) -> bool:
        """Count a bad line; tell whether it is one of the first 100."""
        self.failed += 1
        kept = self.failed <= KEPT_REASONS
        if kept:
            self.bad_lines.append(line)
        return kept

    def to_json_value(self, *, interrupted: bool) -> dict[str, object]:
        """Return the report as JSON data."""
        return {
            "imported": self.imported,
            "repeated": self.repeated,
            "failed": self.failed,
            "bad_lines": [each._asdict() for each in self.bad_lines],
            "interrupted": interrupted,
        }


def read_lines(lines: Iterable[bytes]) -> Iterator[GoodLine | BadLine]:
    """Yield what each line holds; blank ones are left out but counted."""
    for number, line in enumerate(lines, start=1):
        content = (line.removeprefix(_BOM) if number == 1 else line).strip()
        if not content:
            continue
        try:
            yield GoodLine(number, MemoryRecord.model_validate_json(content))
        except ValidationError as error:
            yield BadLine(number, describe_invalid(error))


class Interruption:
    """Ctrl-C that lets a batch be finished: between batches it stops at once, else after the batch.

    A second Ctrl-C stops at once in any case.
    """

    def __init__(self, on_wait: Callable[[], None]) -> None:
        self.requested = False
        self.writing = False
        self._on_wait = on_wait

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Take over Ctrl-C for the time of the context."""
        previous = signal.signal(signal.SIGINT, self._on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Mark the time in which Ctrl-C has to wait."""
        self.writing = True
        try:
            yield
        finally:
            self.writing = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested or not self.writing:
            self.requested = True
            raise KeyboardInterrupt
        self.requested = True
        self._on_wait()


async def import_lines(
    database: MemoryVectorDatabase,
    lines: Iterable[GoodLine | BadLine],
    *,
    batch_size: int,
    report: ImportReport,
    interruption: Interruption,
    on_bad_line: Callable[[BadLine], None],
    on_batch: Callable[[], None],
) -> None:
    """Store the good lines in batches and keep ``report`` true at every moment.

    Raises:
        Exception: whatever the database raised, with a note about the lines that it was given.
    """
    seen: set[str] = set()
    batch: list[GoodLine] = []

    async def store() -> None:
        first, last = batch[0].line, batch[-1].line
        try:
            with interruption.batch():
                await database.add_memories([each.record for each in batch])
        except Exception as error:
            error.add_note(
                f"This stopped the import at the lines {first:,} to {last:,}; a smaller "
                f"--batch-size narrows it down."
            )
            raise
        report.imported += len(batch)
        for each in batch:
            report.repeated += each.record.id in seen
            seen.add(each.record.id)
        batch.clear()

    for each in lines:
        if isinstance(each, BadLine):
            on_bad_line(each)
            continue
        batch.append(each)
        if len(batch) == batch_size:
            await store()
            on_batch()
            if interruption.requested:
                return
    if batch:
        await store()
        on_batch()


async def export_lines(
    records: AsyncIterator[MemoryRecord], write: Callable[[bytes], object]
) -> int:
    """Write each record as a line of JSON, every field in the model's order; return how many."""
    count = 0
    async for record in records:
        write(record.model_dump_json().encode() + b"\n")
        count += 1
    return count


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of ``path`` when the context ends without an error.

    Until then, and after an error, what ``path`` held stays as it was. What is no regular file
    (a pipe, a device) is written to directly.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        with target.open("wb") as stream:
            yield stream
        return
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        with draft.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if target.exists():
            shutil.copymode(target, draft)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
