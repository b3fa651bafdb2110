"""What commands print: tables for people, JSON for programs, and text made safe for a terminal."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from agent_memory.models import MemoryRecord, MemoryRecordResult, MemoryRecordResults

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

PIPED_WIDTH = 100
"""Columns of a table that goes to a file or a pipe, unless COLUMNS says otherwise."""
SHOWN_CHARACTERS = 160
"""A table shows that much of a text; ``get`` shows all of it."""

# Control characters could move the cursor or colour what follows; the others change the direction
# in which a line is written.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def print_json(content: object) -> None:
    """Print ``content`` as one JSON value in UTF-8, whatever the encoding of the terminal."""
    write_bytes((json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode())


def write_bytes(content: bytes) -> None:
    """Write to stdout and flush."""
    click.echo(content, nl=False)


def memory_data(memory: MemoryRecord) -> dict[str, Any]:
    """Return a record or a result as JSON data, with every field."""
    return memory.model_dump(mode="json")


def page_data(page: MemoryRecordResults) -> dict[str, Any]:
    """Return one page of results as JSON data: memories, total, next_offset."""
    return {
        "memories": [memory_data(each) for each in page.memories],
        "total": page.total,
        "next_offset": page.next_offset,
    }


def print_page(page: MemoryRecordResults, *, offset: int) -> None:
    """Print one page as a table, and under it how many there are and where the next page starts."""
    if page.memories:
        print_table(memory_table(page.memories))
    click.echo(page_summary(page, offset=offset))


def page_summary(page: MemoryRecordResults, *, offset: int) -> str:
    """Return one line such as ``1 to 10 of 87 memories; next page: --offset 10``."""
    if not page.memories:
        if page.total:
            return f"No memories from offset {offset:,} on; there are {page.total:,}."
        return "No memories found."
    shown = f"{offset + 1:,} to {offset + len(page.memories):,}"
    total = "" if page.total is None else f" of {page.total:,}"
    following = "" if page.next_offset is None else f"; next page: --offset {page.next_offset}"
    return f"{shown}{total}{following}"


def memory_table(memories: Sequence[MemoryRecordResult]) -> Table:
    """Return a table of results, one memory a row; with scores if they have some."""
    scored = any(each.score is not None for each in memories)
    table = plain_table()
    if scored:
        table.add_column("score", justify="right", no_wrap=True)
    table.add_column("id", overflow="fold", min_width=8)
    table.add_column("user", overflow="fold", min_width=4)
    table.add_column("created", no_wrap=True)
    table.add_column("text", overflow="fold", ratio=1)
    for each in memories:
        score = [] if not scored else ["" if each.score is None else f"{each.score:.3f}"]
        cells = [
            *score,
            each.id,
            each.user_id or "",
            each.created_at.date().isoformat(),
            shortened(each.text, SHOWN_CHARACTERS),
        ]
        table.add_row(*map(cell, cells))
    return table


def print_records(records: Iterable[MemoryRecord]) -> None:
    """Print every field that has a value, one below the other."""
    for number, record in enumerate(records):
        if number:
            click.echo()
        table = plain_table(header=False)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold", ratio=1)
        for name, value in record.model_dump(mode="json").items():
            if value not in (None, [], {}):
                shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                table.add_row(name, cell(shown, keep="\n\t"))
        print_table(table)


def print_table(table: Table) -> None:
    """Print a table without the blanks that fill its last column."""
    out = console()
    with out.capture() as captured:
        out.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().rstrip().split("\n")))


def plain_table(*, header: bool = True) -> Table:
    """Return an empty table without vertical lines, as wide as its contents need."""
    from rich import box
    from rich.table import Table

    return Table(
        box=box.SIMPLE_HEAD,
        show_header=header,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )


def cell(text: str, *, keep: str = "") -> Text:
    """Return ``text`` for a cell of a table: shown as it is, never read as markup."""
    from rich.text import Text

    return Text(visible(text, keep=keep))


def console(*, stderr: bool = False) -> Console:
    """Return where tables are printed; to a file or a pipe they are 100 columns wide."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def shortened(text: str, length: int) -> str:
    """Return ``text`` in one line of at most ``length`` characters, safe to print."""
    line = visible(" ".join(text[: 4 * length].split()))
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def visible(text: str, *, keep: str = "") -> str:
    """Return ``text`` with every character that would act on a terminal written as an escape."""
    return _UNSAFE.sub(lambda match: match[0] if match[0] in keep else ascii(match[0])[1:-1], text)
