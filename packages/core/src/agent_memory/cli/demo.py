"""``agent-memory demo``: the sample memories, and four searches that each teach one thing.

Imported by the command alone: the others start faster without `rich`.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import click
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from agent_memory.cli import output
from agent_memory.cli.database import DatabaseChoice
from agent_memory.database import Capability, MemoryVectorDatabase
from agent_memory.models import MemoryRecord, MemoryRecordResults, SearchMode
from agent_memory.recency import RecencyParams


@dataclass(frozen=True, slots=True)
class Lesson:
    """A search worth seeing."""

    title: str
    teaches: str
    query: str
    arguments: dict[str, Any]
    """Keywords for ``search_memories`` that the lesson is about."""
    command: str
    """The same search on the command line."""
    call: str
    """The same search in Python."""
    contrast: dict[str, Any] | None = None
    """Keywords of the search that it is compared with; `None` compares with none."""
    contrast_label: str = ""


LESSONS = (
    Lesson(
        title="Meaning",
        teaches="Memories are found by what they mean. None of these says 'instrument'.",
        query="learning to play an instrument",
        arguments={},
        command='agent-memory search "learning to play an instrument" --limit 3',
        call='await db.search_memories("learning to play an instrument", limit=3)',
    ),
    Lesson(
        title="Filter",
        teaches="A filter selects first, then the search ranks what is left: one user's memories "
        "stay that user's.",
        query="window or aisle seat?",
        arguments={"user_id": "dev"},
        command='agent-memory search "window or aisle seat?" --user-id dev --limit 3',
        call='await db.search_memories("window or aisle seat?", user_id="dev", limit=3)',
        contrast={},
        contrast_label="Without the filter, first is",
    ),
    Lesson(
        title="Words",
        teaches="Numbers and names have little meaning: two invoices are as good as the same. "
        "Search by words, and quote what must be there as it is.",
        query='"INV-2026-014"',
        arguments={"search_mode": SearchMode.KEYWORD},
        command="agent-memory search '\"INV-2026-014\"' --mode keyword --limit 3",
        call='await db.search_memories(\'"INV-2026-014"\', search_mode="keyword", limit=3)',
        contrast={},
        contrast_label="By meaning, first is",
    ),
    Lesson(
        title="Recency",
        teaches="Facts change. Ranking by recency prefers what was learnt or used lately; "
        "here, as of July 2026. The score remains that of the meaning.",
        query="how much does she charge a day?",
        arguments={
            "user_id": "emi",
            "recency": RecencyParams.model_validate({"now": "2026-07-01"}),
        },
        command='agent-memory search "how much does she charge a day?" --user-id emi \\\n'
        "    --recency-param now=2026-07-01 --limit 3",
        call='await db.search_memories("how much does she charge a day?", user_id="emi", limit=3,\n'
        "    recency=RecencyParams(now=datetime(2026, 7, 1)))",
        contrast={"user_id": "emi"},
        contrast_label="Without recency, first is",
    ),
)


def run(database: DatabaseChoice) -> None:
    """Show the demonstration, in a temporary folder unless a backend or a path was chosen."""
    with tempfile.TemporaryDirectory(prefix="agent-memory-demo-") as folder:
        options = dict(database.options)
        if database.backend is None:
            options.setdefault("path", folder)
        choice = DatabaseChoice(
            database.backend or "inmemory", database.embeddings or "local", options
        )
        asyncio.run(_show(choice, kept=options.get("path") != folder))


async def _show(choice: DatabaseChoice, *, kept: bool) -> None:
    out = output.console()
    records = sample_memories()
    async with choice.create() as db:
        await _ensure_only_samples(db, records)
        await db.add_memories(records)
        users = {each.user_id for each in records}
        first, last = (
            f"{limit(each.created_at for each in records):%B %Y}" for limit in (min, max)
        )
        out.print(
            f"{len(records)} sample memories of {len(users)} people, from {first} to {last}, are "
            f"in the backend {choice.backend!r} with the embeddings {choice.embeddings!r}."
        )
        for number, lesson in enumerate(LESSONS, start=1):
            await _teach(out, db, number, lesson)
    _show_what_next(out, kept=kept)


def sample_memories() -> list[MemoryRecord]:
    """Return the sample memories that come with this package."""
    lines = files("agent_memory.cli").joinpath("sample_memories.jsonl").read_text("utf-8")
    return [MemoryRecord.model_validate_json(line) for line in lines.splitlines()]


async def _ensure_only_samples(db: MemoryVectorDatabase, samples: list[MemoryRecord]) -> None:
    others = await db.count_memories() - len(await db.get_memories([each.id for each in samples]))
    if others:
        raise click.ClickException(
            f"the space already holds {others:,} memories that are not samples; choose an empty "
            f"one, such as --space demo"
        )


async def _teach(out: Console, db: MemoryVectorDatabase, number: int, lesson: Lesson) -> None:
    out.print()
    out.rule(Text(f"{number}. {lesson.title}", "bold"), align="left")
    out.print(lesson.teaches)
    out.print()
    _print_code(out, f"$ {lesson.command}", f">>> {lesson.call}")
    out.print()
    needed = lesson.arguments.get("search_mode", SearchMode.SEMANTIC)
    if needed is SearchMode.KEYWORD and Capability.KEYWORD_SEARCH not in db.capabilities:
        out.print("This backend does not declare keyword_search.")
        return
    page = await db.search_memories(lesson.query, **lesson.arguments, limit=3)
    output.print_table(output.memory_table(page.memories))
    if lesson.contrast is not None:
        other = await db.search_memories(lesson.query, **lesson.contrast, limit=1)
        out.print()
        out.print(_contrast(lesson.contrast_label, other))


def _contrast(label: str, page: MemoryRecordResults) -> Text:
    best = page.memories[0]
    return Text(f"{label} {best.id} (user {best.user_id}): {json.dumps(best.text)}", "italic")


def _show_what_next(out: Console, *, kept: bool) -> None:
    out.print()
    out.rule(Text("What next", "bold"), align="left")
    if kept:
        out.print(
            "The memories stay where you put them: give the same options to the commands above."
        )
        return
    out.print("These memories are gone now. To keep them and try the commands yourself:")
    out.print()
    _print_code(
        out,
        "$ agent-memory demo --path ./demo-memories",
        "$ agent-memory search 'who bakes?' -b inmemory -e local --path ./demo-memories",
    )


def _print_code(out: Console, *lines: str) -> None:
    for line in lines:
        out.print(Padding(Text(line, "cyan"), (0, 0, 0, 2), expand=False))
