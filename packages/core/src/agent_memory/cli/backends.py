"""``agent-memory backends``: which are installed, and where one of them fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass

import click

import agent_memory as library
from agent_memory.cli import output
from agent_memory.cli.database import DatabaseChoice, place_options
from agent_memory.cli.framework import EXIT_FAILED, Command, described, json_option
from agent_memory.database import MemoryVectorDatabase
from agent_memory.discovery import installed_backends, unreadable_distributions
from agent_memory.factory import (
    BackendChoice,
    apply_hooks,
    call_factory,
    check_compatibility,
    choose_backend,
    import_factory,
    resolve_embeddings,
    resolve_hooks,
)


@click.group()
def backends() -> None:
    """See which backends are installed, and examine one."""


@backends.command(
    "list",
    cls=Command,
    examples=["agent-memory backends list", "agent-memory backends list --json"],
)
@json_option
def list_backends(as_json: bool) -> None:
    """List the installed backends; none of them is imported."""
    found = installed_backends()
    unreadable = unreadable_distributions()
    if as_json:
        output.print_json(
            {
                "backends": [asdict(each) for each in found],
                "unreadable": [asdict(each) for each in unreadable],
            }
        )
        return
    if found:
        table = output.plain_table()
        for heading in ("name", "distribution", "version", "target", "compatible"):
            table.add_column(heading, overflow="fold")
        for each in found:
            compatible = each.problem or ("yes" if each.compatible else f"no: {each.requirement}")
            cells = (each.name, each.distribution, each.version, each.target, compatible)
            table.add_row(*(output.cell(value) for value in cells))
        output.print_table(table)
    else:
        click.echo("No backend is installed. Try: pip install agent-memory-inmemory")
    for broken in unreadable:
        click.echo(f"Unreadable: {broken.location}: {broken.reason}", err=True)


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of the way from a name to a working database."""

    step: str
    ok: bool
    detail: str
    """What was found, or the error's message."""


@backends.command(
    cls=Command,
    examples=[
        "agent-memory backends doctor inmemory -e local --path ./memories",
        "agent-memory backends doctor my_package.my_backend.create --json",
    ],
)
@click.argument("backend", metavar="[NAME]", required=False)
@json_option
@place_options
def doctor(database: DatabaseChoice, as_json: bool) -> None:
    """Go from NAME to a working database, step by step: what holds, and what fails first.

    The steps: metadata, compatibility, import, create, hooks, connect, close. NAME is a registered
    name or the import path of a factory; without it, MEMORY_VECTOR_DB_FACTORY. The exit code is 1
    if a step fails.
    """

    async def examine_all() -> list[Step]:
        steps = []
        async for step in examine(database):
            steps.append(step)
            if not as_json:
                _print_step(step)
        return steps

    steps = asyncio.run(examine_all())
    ok = all(each.ok for each in steps)
    if as_json:
        output.print_json({"ok": ok, "steps": [asdict(each) for each in steps]})
    if not ok:
        click.get_current_context().exit(EXIT_FAILED)


def _print_step(step: Step) -> None:
    first, *others = output.visible(step.detail, keep="\n").splitlines() or [""]
    click.echo(f"{step.step:<14} {'ok' if step.ok else 'FAILED':<7} {first}".rstrip())
    for line in others:
        click.echo(f"{'':22} {line}")


async def examine(database: DatabaseChoice) -> AsyncIterator[Step]:
    """Yield each step as it ends, up to the first that fails."""
    step = "metadata"
    opened: MemoryVectorDatabase | None = None
    try:
        choice = choose_backend(database.backend, source="the command line")
        yield Step(step, True, str(choice))

        step = "compatibility"
        check_compatibility(choice)
        yield Step(step, True, _compatibility(choice))

        step = "import"
        factory = import_factory(choice)
        yield Step(step, True, choice.target)

        step = "create"
        embeddings = resolve_embeddings(database.embeddings)
        opened = call_factory(choice, factory, embeddings, **database.options)
        able = ", ".join(sorted(opened.capabilities)) or "no capability beyond the core"
        yield Step(step, True, f"{type(opened).__name__} with {embeddings.model!r}: {able}")

        step = "hooks"
        hooks = resolve_hooks()
        opened = apply_hooks(choice, opened, hooks)
        yield Step(step, True, "none" if hooks is None else ", ".join(map(str, hooks.plugins)))

        step = "connect"
        started = time.perf_counter()
        await opened.ping()
        yield Step(step, True, f"answered in {time.perf_counter() - started:.3f} s")

        step = "close"
        closing, opened = opened, None
        await closing.aclose()
        yield Step(step, True, "")
    except Exception as error:
        yield Step(step, False, described(error))
    finally:
        if opened is not None:
            await opened.aclose()


def _compatibility(choice: BackendChoice) -> str:
    installed = f"agent-memory {library.__version__} is installed"
    if choice.description is None:
        return f"a path demands no version; {installed}"
    return f"demands {choice.description.requirement or 'no version'}; {installed}"
