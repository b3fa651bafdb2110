"""``agent-memory hooks``: which plug-ins are installed, and which of them run."""

from __future__ import annotations

from dataclasses import asdict

import click

from agent_memory.cli import output
from agent_memory.cli.framework import Command, json_option
from agent_memory.discovery import HookDescription, installed_hooks, unreadable_distributions
from agent_memory.hooks.loading import chosen_hooks


@click.group()
def hooks() -> None:
    """See which plug-ins with hooks are installed, and which of them run."""


@hooks.command(
    "list",
    cls=Command,
    examples=["agent-memory hooks list", "AGENT_MEMORY_HOOKS=otel,* agent-memory hooks list"],
)
@json_option
def list_hooks(as_json: bool) -> None:
    """List the plug-ins that run, outermost first, then those that do not; none is imported.

    AGENT_MEMORY_HOOKS says which run and in which order: names with commas between them, * for
    every installed one that is not named, or none. Without it, all run.
    """
    chosen = [each for each in chosen_hooks() if isinstance(each, HookDescription)]
    idle = [each for each in installed_hooks() if each not in chosen]
    unreadable = unreadable_distributions()
    if as_json:
        output.print_json(
            {
                "hooks": [
                    {**asdict(each), "runs": number}
                    for number, each in [*enumerate(chosen, 1), *((None, each) for each in idle)]
                ],
                "unreadable": [asdict(each) for each in unreadable],
            }
        )
        return
    if chosen or idle:
        table = output.plain_table()
        for heading in ("runs", "name", "distribution", "version", "target", "compatible"):
            table.add_column(heading, overflow="fold")
        rows = [*enumerate(chosen, 1), *(("no", each) for each in idle)]
        for number, each in rows:
            compatible = each.problem or ("yes" if each.compatible else f"no: {each.requirement}")
            cells = (str(number), each.name, each.distribution, each.version, each.target)
            table.add_row(*(output.cell(value) for value in (*cells, compatible)))
        output.print_table(table)
    else:
        click.echo("No plug-in runs and none is installed: calls go straight to the backend.")
    for broken in unreadable:
        click.echo(f"Unreadable: {broken.location}: {broken.reason}", err=True)
