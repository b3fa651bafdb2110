"""Which database a command works on: the options that say so, and opening it."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from agent_memory.cli.framework import SectionOption
from agent_memory.database import Capability, MemoryVectorDatabase
from agent_memory.discovery import HOOKS_VARIABLE
from agent_memory.factory import create_memory_vector_db

R = TypeVar("R")

_OPTION = re.compile(r"(?P<key>[A-Za-z_]\w*)(?P<sign>:?=)(?P<value>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class DatabaseChoice:
    """What the command line says about the database; ``None`` leaves it to the environment."""

    backend: str | None
    embeddings: str | None
    options: dict[str, Any]

    def create(self) -> MemoryVectorDatabase:
        """Return the database, which may keep its data or lose it with this process."""
        return create_memory_vector_db(self.backend, embeddings=self.embeddings, **self.options)

    def create_durable(self) -> MemoryVectorDatabase:
        """Return the database.

        Raises:
            click.UsageError: what it stores ends with this process, so that nothing written before
                can be there and nothing written now would stay.
        """
        database = self.create()
        if not database.capabilities & {Capability.PERSISTENT, Capability.SHARED}:
            name = self.backend or os.environ.get("MEMORY_VECTOR_DB_FACTORY")
            raise click.UsageError(
                f"the backend {name!r} does not say that it keeps its data: what this command "
                f"stores would be gone when it ends, and nothing stored earlier can be there. For "
                f"the in-memory backend give --path DIRECTORY or set AGENT_MEMORY_INMEMORY_PATH; a "
                f"backend of your own declares Capability.PERSISTENT or Capability.SHARED."
            )
        return database


def database_options(command: Callable[..., R]) -> Callable[..., R]:
    """Add every option that chooses a database; the command receives a `DatabaseChoice`."""
    return click.option(
        "--backend",
        "-b",
        cls=SectionOption,
        section="Database",
        metavar="NAME",
        help="Backend: its name, or the import path of a factory. Else MEMORY_VECTOR_DB_FACTORY.",
    )(place_options(command))


def place_options(command: Callable[..., R]) -> Callable[..., R]:
    """Add the options of `database_options` except the one that names the backend."""

    @functools.wraps(command)
    def with_database(
        *arguments: Any,
        backend: str | None,
        embeddings: str | None,
        space: str | None,
        path: str | None,
        options: Sequence[str],
        **others: Any,
    ) -> R:
        named = {"space": space, "path": path}
        given: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
        for text in options:
            key, value = _read_option(text)
            if key in given:
                raise click.UsageError(f"--option {text}: {key} is given twice")
            given[key] = value
        choice = DatabaseChoice(backend, embeddings, given)
        return command(*arguments, database=choice, **others)

    option = functools.partial(click.option, cls=SectionOption, section="Database")
    decorated: Callable[..., R] = with_database
    for add in (
        option(
            "--option",
            "options",
            metavar="KEY=VALUE",
            multiple=True,
            help="Any other option of the backend, as text; KEY:=JSON for numbers and the like. "
            "Repeatable.",
        ),
        option("--path", help="Where the backend keeps its data, if it keeps it in files."),
        option("--space", metavar="NAME", help="Space to work in. Else the backend's own default."),
        option(
            "--embeddings",
            "-e",
            metavar="MODEL",
            help="Embedding model; 'local' needs no network. Else EMBEDDING_MODEL.",
        ),
    ):
        decorated = add(decorated)
    return decorated


def _read_option(text: str) -> tuple[str, Any]:
    match = _OPTION.fullmatch(text)
    if match is None:
        raise click.UsageError(f"--option {text}: expected KEY=VALUE or KEY:=JSON")
    key, sign, value = match["key"], match["sign"], match["value"]
    if key in ("factory", "embeddings"):
        raise click.UsageError(f"--option {text}: use --backend and --embeddings")
    if key == "hooks":
        raise click.UsageError(f"--option {text}: set {HOOKS_VARIABLE} in the environment")
    if sign == "=":
        return key, value
    try:
        return key, json.loads(value)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"--option {text}: the value is not JSON: {error}") from None
