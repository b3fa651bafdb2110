"""The fields of one memory as options, for ``agent-memory add``."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

from agent_memory.cli.framework import SectionOption
from agent_memory.cli.selection import option_name
from agent_memory.filters import LIST_TAG_FIELDS

T = TypeVar("T")

_FIELD_HELP = {
    "id": "Id; an id that exists is replaced. A random UUID if left out.",
    "session_id": "Conversation that it comes from.",
    "user_id": "User whom it is about.",
    "namespace": "Application or area that it belongs to.",
    "memory_type": "episodic, semantic or message (the default).",
    "topics": "Topic; repeatable.",
    "entities": "Person, place or thing that it mentions; repeatable.",
    "extracted_from": "Id of a message that it was extracted from; repeatable.",
    "metadata": "Anything else, as a JSON object.",
    "event_date": "When it happened, for an episodic memory (ISO 8601).",
    "created_at": "When it was first remembered; now if left out.",
    "last_accessed": "When it was last used; now if left out.",
    "updated_at": "When it was last changed; now if left out.",
    "persisted_at": "When it was moved to long-term memory.",
    "pinned": "Keep it when old memories are forgotten.",
    "access_count": "How often it was used.",
    "discrete_memory_extracted": "t once discrete memories have been extracted from it, else f.",
    "extraction_strategy": "How memories are extracted from it.",
    "extraction_strategy_config": "Settings of that strategy, as a JSON object.",
}
_JSON_FIELDS = ("metadata", "extraction_strategy_config")


def record_options(command: Callable[..., T]) -> Callable[..., T]:
    """Add an option for each field of a record; the command receives those given, ``fields``."""

    @functools.wraps(command)
    def with_fields(*arguments: Any, **others: Any) -> T:
        values = {field: others.pop(field) for field in _FIELD_HELP}
        fields = {
            # Tuples are what click makes of repeatable options.
            field: list(value) if isinstance(value, tuple) else value
            for field, value in values.items()
            if value not in (None, ())
        }
        for field in _JSON_FIELDS:
            if field in fields:
                fields[field] = _read_json(option_name(field), fields[field])
        return command(*arguments, fields=fields, **others)

    decorated: Callable[..., T] = with_fields
    for field, text in reversed(_FIELD_HELP.items()):
        settings: dict[str, Any] = {"metavar": "JSON"} if field in _JSON_FIELDS else {}
        if field == "pinned":
            settings = {"is_flag": True, "default": None}
        if field in LIST_TAG_FIELDS:
            settings = {"multiple": True}
        decorated = click.option(
            option_name(field), field, cls=SectionOption, help=text, **settings
        )(decorated)
    return decorated


def _read_json(option: str, text: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{option}: not JSON: {error}") from None
