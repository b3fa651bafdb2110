"""The commands of ``agent-memory``, each a thin layer over one method of the database."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import click
from pydantic import ValidationError

import agent_memory as library
from agent_memory.cli import backends, hooks, output, transfer
from agent_memory.cli.database import DatabaseChoice, database_options
from agent_memory.cli.framework import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    Command,
    SectionOption,
    describe_invalid,
    json_option,
)
from agent_memory.cli.record_options import record_options
from agent_memory.cli.selection import FilteredCommand, filter_options
from agent_memory.models import MemoryRecord, SearchMode
from agent_memory.recency import RecencyParams


class _InOrder(click.Group):
    """A group that lists its commands in the order in which they are added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_InOrder,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done; 1 failed, wholly or in part; 2 the command line is wrong; "
    "130 stopped by Ctrl-C.",
)
@click.version_option(library.__version__, prog_name="agent-memory")
def agent_memory() -> None:
    """Long-term memory of agents: store it, search it, move it, on any backend.

    The backend, the embedding model and their settings come from options or from the environment
    (MEMORY_VECTOR_DB_FACTORY, EMBEDDING_MODEL and what the backend reads). To look around without
    setting up anything: agent-memory demo
    """


@agent_memory.command(
    cls=Command,
    examples=[
        'agent-memory add "Prefers window seats" --user-id ada --topics travel',
        "agent-memory add - --user-id ada --memory-type semantic < note.txt",
    ],
)
@click.argument("text")
@record_options
@json_option
@database_options
def add(text: str, fields: dict[str, Any], as_json: bool, database: DatabaseChoice) -> None:
    """Store one memory and print its id.

    TEXT is what is remembered; - reads it from stdin.
    """
    try:
        record = MemoryRecord(
            **{"id": str(uuid.uuid4()), "text": _read_stdin() if text == "-" else text, **fields}
        )
    except ValidationError as error:
        raise click.UsageError(describe_invalid(error)) from error

    async def store() -> None:
        async with database.create_durable() as db:
            await db.add_memories([record])

    asyncio.run(store())
    if as_json:
        output.print_json({"id": record.id})
    else:
        click.echo(record.id)


def _read_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode().rstrip("\n")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"the text on stdin is not UTF-8: {error}") from None


@agent_memory.command(
    "import",
    cls=Command,
    examples=[
        "agent-memory import memories.jsonl",
        "agent-memory export --user-id ada | agent-memory import - --space ada",
    ],
)
@click.argument("file", type=click.File("rb"))
@click.option(
    "--strict",
    is_flag=True,
    cls=SectionOption,
    help="Read the whole file first; write nothing if a line is bad.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    metavar="N",
    default=500,
    show_default=True,
    cls=SectionOption,
    help="Memories stored in one call.",
)
@json_option
@database_options
def import_(
    file: BinaryIO, strict: bool, batch_size: int, as_json: bool, database: DatabaseChoice
) -> None:
    """Store the memories of a JSON lines file.

    FILE holds one memory a line, as export writes it; - reads stdin. A line needs "id" and "text".
    An id that exists is replaced, so an import may be repeated; of an id that comes twice in the
    file, the last counts.

    A bad line is reported with its number and left out, the rest goes in, and the exit code is 1.
    Ctrl-C stops after the batch that is being written.
    """
    db = database.create_durable()
    report = transfer.ImportReport()

    def report_bad_line(line: transfer.BadLine) -> None:
        if report.add_bad_line(line) and not as_json:
            click.echo(output.visible(f"line {line.line}: {line.reason}"), err=True)

    if strict:
        file = _rereadable(file)
        for each in transfer.read_lines(file):
            if isinstance(each, transfer.BadLine):
                report_bad_line(each)
        file.seek(0)
    refused = strict and report.failed > 0
    interruption = transfer.Interruption(
        lambda: click.echo("Stopping after this batch; Ctrl-C again stops at once.", err=True)
    )

    async def store(on_batch: Callable[[], None]) -> None:
        async with db:
            await transfer.import_lines(
                db,
                transfer.read_lines(file),
                batch_size=batch_size,
                report=report,
                interruption=interruption,
                on_bad_line=report_bad_line,
                on_batch=on_batch,
            )

    try:
        if not refused:
            with _progress(file, report, shown=not as_json) as on_batch, interruption.handled():
                asyncio.run(store(on_batch))
    except KeyboardInterrupt:
        pass  # said below, from interruption.requested
    finally:
        if as_json:
            output.print_json(report.to_json_value(interrupted=interruption.requested))
        else:
            click.echo(_import_summary(report, refused, interruption.requested), err=True)
    if interruption.requested:
        click.get_current_context().exit(EXIT_INTERRUPTED)
    if report.failed:
        click.get_current_context().exit(EXIT_FAILED)


def _rereadable(file: BinaryIO) -> BinaryIO:
    if file.seekable():
        return file
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the command's context
    click.get_current_context().call_on_close(copy.close)
    shutil.copyfileobj(file, copy)
    copy.seek(0)
    return copy


@contextmanager
def _progress(
    file: BinaryIO, report: transfer.ImportReport, *, shown: bool
) -> Iterator[Callable[[], None]]:
    """Show a bar on stderr, if that is a terminal; what it yields moves the bar."""
    if not (shown and sys.stderr.isatty()):
        yield lambda: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    size = os.fstat(file.fileno()).st_size if file.seekable() else None
    with Progress(
        TextColumn("Importing"),
        BarColumn(),
        TextColumn("{task.fields[imported]:,} memories"),
        TimeElapsedColumn(),
        console=output.console(stderr=True),
    ) as progress:
        task = progress.add_task("", total=size, imported=0)

        def on_batch() -> None:
            done = file.tell() if size is not None else None
            progress.update(task, completed=done, imported=report.imported)

        yield on_batch


def _import_summary(report: transfer.ImportReport, refused: bool, interrupted: bool) -> str:
    lines = "line" if report.failed == 1 else "lines"
    if refused:
        return f"Nothing was written: {report.failed:,} bad {lines}."
    parts = [f"{report.imported:,} imported"]
    if report.repeated:
        parts.append(f"{report.repeated:,} of them replaced an earlier line with the same id")
    if report.failed:
        parts.append(f"{report.failed:,} bad {lines} left out")
    summary = ("Interrupted: " if interrupted else "") + ", ".join(parts) + "."
    if interrupted:
        summary += " Repeat the import to complete it; what is in is replaced, not doubled."
    return summary


@agent_memory.command(
    cls=FilteredCommand,
    examples=[
        "agent-memory export backup.jsonl",
        "agent-memory export --user-id ada --filter created_at.gte=2026-01-01 | wc -l",
    ],
)
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True), default="-")
@filter_options
@database_options
def export(file: str, selection: dict[str, Any], database: DatabaseChoice) -> None:
    """Write memories to a JSON lines file.

    FILE (stdout if left out) gets one memory a line, newest first, with all fields, so that import
    gives the same memories back. It is replaced only when everything has been written.
    """
    db = database.create_durable()

    async def write(stream: BinaryIO) -> int:
        async with db:
            return await transfer.export_lines(db.iter_memories(**selection), stream.write)

    if file == "-":
        stdout = sys.stdout.buffer
        asyncio.run(write(stdout))
        stdout.flush()
        return
    with transfer.replacing(Path(file)) as stream:
        count = asyncio.run(write(stream))
    click.echo(f"{count:,} exported to {file}.", err=True)


_RECENCY_NAMES = ", ".join(RecencyParams.model_fields)


@agent_memory.command(
    cls=FilteredCommand,
    examples=[
        'agent-memory search "where does she like to sit?" --user-id ada --limit 3',
        "agent-memory search '\"window seat\" train' --mode keyword",
        "agent-memory search 'plans for the summer' --recency --filter event_date.gte=2026-06-01",
        "agent-memory search coffee --recency-param half_life_created_days=3 --json",
    ],
)
@click.argument("query")
@click.option(
    "--mode",
    "search_mode",
    type=click.Choice([mode.value for mode in SearchMode]),
    cls=SectionOption,
    help="By meaning (semantic, the default), by words (keyword) or by both (hybrid).",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    cls=SectionOption,
    help="How many to show; 10 if left out.",
)
@click.option(
    "--offset", type=click.IntRange(min=0), metavar="N", cls=SectionOption, help="How many to skip."
)
@click.option(
    "--threshold",
    "distance_threshold",
    type=float,
    cls=SectionOption,
    help="Only memories at this distance or nearer (semantic).",
)
@click.option(
    "--alpha",
    "hybrid_alpha",
    type=float,
    cls=SectionOption,
    help="Weight of meaning against words, 0 to 1 (hybrid).",
)
@click.option("--recency", is_flag=True, cls=SectionOption, help="Rank recent memories higher.")
@click.option(
    "--recency-param",
    "recency_texts",
    metavar="NAME=VALUE",
    multiple=True,
    cls=SectionOption,
    help=f"Rank by recency with other settings; repeatable. NAME is one of {_RECENCY_NAMES}.",
)
@click.option(
    "--no-total", is_flag=True, cls=SectionOption, help="Do not count the matches; may be faster."
)
@filter_options
@json_option
@database_options
def search(
    query: str,
    recency: bool,
    recency_texts: Sequence[str],
    no_total: bool,
    selection: dict[str, Any],
    as_json: bool,
    database: DatabaseChoice,
    **ranking: Any,
) -> None:
    """Find the memories that fit QUERY best.

    QUERY is a question or a few words; only memories that meet the filters are ranked. With --mode
    keyword, a memory holds at least one of the words, and every "quoted phrase".
    """
    arguments = {name: value for name, value in ranking.items() if value is not None}
    if recency or recency_texts:
        arguments["recency"] = _read_recency(recency_texts)
    if no_total:
        arguments["with_total"] = False

    async def find() -> library.MemoryRecordResults:
        async with database.create_durable() as db:
            return await db.search_memories(query, **arguments, **selection)

    _print_page(asyncio.run(find()), offset=ranking["offset"] or 0, as_json=as_json)


def _read_recency(texts: Sequence[str]) -> RecencyParams:
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"--recency-param {text}: expected NAME=VALUE")
        values[name] = value
    try:
        return RecencyParams.model_validate(values)
    except ValidationError as error:
        raise click.UsageError(f"--recency-param {describe_invalid(error)}") from error


def _print_page(page: library.MemoryRecordResults, *, offset: int, as_json: bool) -> None:
    if as_json:
        output.print_json(output.page_data(page))
    else:
        output.print_page(page, offset=offset)


@agent_memory.command(
    "list",
    cls=FilteredCommand,
    examples=[
        "agent-memory list --user-id ada --topics travel",
        "agent-memory list --filter created_at.between=2026-01-01..2026-01-31 --limit 50",
        'agent-memory list --where \'{"not": {"topics": {"any": ["work"]}}}\'',
    ],
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    default=20,
    show_default=True,
    cls=SectionOption,
    help="How many to show.",
)
@click.option(
    "--offset",
    type=click.IntRange(min=0),
    metavar="N",
    default=0,
    cls=SectionOption,
    help="How many to skip.",
)
@filter_options
@json_option
@database_options
def list_(
    limit: int, offset: int, selection: dict[str, Any], as_json: bool, database: DatabaseChoice
) -> None:
    """Show the memories that meet the filters, newest first."""

    async def find() -> library.MemoryRecordResults:
        async with database.create_durable() as db:
            return await db.list_memories(limit=limit, offset=offset, **selection)

    _print_page(asyncio.run(find()), offset=offset, as_json=as_json)


@agent_memory.command(
    cls=Command, examples=["agent-memory get 42 43", "agent-memory get 42 --json"]
)
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@json_option
@database_options
def get(ids: Sequence[str], as_json: bool, database: DatabaseChoice) -> None:
    """Show all fields of some memories.

    The exit code is 1 if there is no memory with one of the ids.
    """

    async def fetch() -> list[MemoryRecord]:
        async with database.create_durable() as db:
            return await db.get_memories(list(ids))

    records = asyncio.run(fetch())
    found = {each.id for each in records}
    missing = [each for each in dict.fromkeys(ids) if each not in found]
    if as_json:
        output.print_json(
            {"memories": [output.memory_data(each) for each in records], "missing": missing}
        )
    else:
        output.print_records(records)
        for each in missing:
            click.echo(f"Error: no memory has the id {each!r}", err=True)
    if missing:
        click.get_current_context().exit(EXIT_FAILED)


@agent_memory.command(
    cls=FilteredCommand,
    examples=[
        "agent-memory count",
        "agent-memory count --user-id ada --filter topics.exists=false",
    ],
)
@filter_options
@json_option
@database_options
def count(selection: dict[str, Any], as_json: bool, database: DatabaseChoice) -> None:
    """Print how many memories meet the filters."""

    async def count_them() -> int:
        async with database.create_durable() as db:
            return await db.count_memories(**selection)

    total = asyncio.run(count_them())
    if as_json:
        output.print_json({"count": total})
    else:
        click.echo(total)


@agent_memory.command(
    cls=Command,
    examples=["agent-memory delete 42 43"],
)
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@json_option
@database_options
def delete(ids: Sequence[str], as_json: bool, database: DatabaseChoice) -> None:
    """Delete memories by id.

    Prints how many there were; an id without a memory is no error.
    """

    async def remove() -> int:
        async with database.create_durable() as db:
            return await db.delete_memories(list(ids))

    deleted = asyncio.run(remove())
    if as_json:
        output.print_json({"deleted": deleted})
    else:
        click.echo(f"{deleted:,} deleted.")


@agent_memory.command(
    cls=Command, examples=["agent-memory demo", "agent-memory demo --path ./demo-memories"]
)
@database_options
def demo(database: DatabaseChoice) -> None:
    """Import 300 sample memories and show four searches.

    They show meaning, filter, words and recency. Works offline: unless told otherwise, with the
    in-memory backend, local embeddings and a temporary folder.
    """
    from agent_memory.cli import demo as demonstration

    demonstration.run(database)


agent_memory.add_command(backends.backends)
agent_memory.add_command(hooks.hooks)


@agent_memory.command(
    "new-backend",
    cls=Command,
    examples=[
        "agent-memory new-backend quill",
        "agent-memory new-backend my-store --into .. --json",
    ],
)
@click.argument("name")
@click.option(
    "--into",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    default=".",
    cls=SectionOption,
    help="Folder in which the project's folder is made. Else the current one.",
)
@json_option
def new_backend(name: str, into: Path, as_json: bool) -> None:
    """Write the project of a backend of your own: complete, tested, ready to be changed.

    NAME is what users will ask for, such as quill: the project is the distribution
    agent-memory-quill in a new folder of that name. It keeps memories in dicts and passes the
    conformance kit as it is; the places to put your engine are marked REPLACE.

    Nothing that exists is overwritten.
    """
    from agent_memory.cli import new_backend as project

    names = project.project_names(name)
    project.require_free(names)
    folder, files = project.write_project(names, into)
    if as_json:
        output.print_json({**asdict(names), "folder": str(folder), "files": files})
        return
    shown = shlex.quote(output.visible(os.path.relpath(folder)))
    click.echo(
        f"Backend {names.backend!r}, distribution {names.distribution}, is in {shown} "
        f"({len(files)} files).\n"
        f"Prove it as it is:\n\n"
        f"    cd {shown}\n"
        f"    python -m venv .venv && . .venv/bin/activate\n"
        f'    pip install --editable ".[dev]"\n'
        f"    agent-memory-conformance {names.backend} --strict\n\n"
        f"Then put your engine where it says REPLACE, first in\n"
        f"src/{names.package}/storage.py. README.md tells the rest."
    )
