"""The plug-in: where in a record and a query `redacted` is applied, and where it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Literal

from agent_memory import InvalidArgumentError, MemoryRecord
from agent_memory.hooks import hookimpl
from agent_memory_redaction.patterns import redacted

_IDENTIFIERS = ("id", "session_id", "user_id", "namespace", "extraction_strategy")
_FREE = ("text", "topics", "entities", "metadata", "extraction_strategy_config")
_SHORT = 4096
"""Characters of a query that are redacted on the event loop."""


class SensitiveIdentifierError(InvalidArgumentError):
    """An identifier holds a card number or an e-mail address. Nothing was stored."""


class Redaction:
    """A plug-in that keeps card numbers and e-mail addresses out of a memory database.

    Replaced are those in ``text``, ``topics``, ``entities``, the keys, strings and numbers of
    ``metadata`` and of ``extraction_strategy_config``, and in queries. Not replaced, but refused
    are those in ``id``, ``session_id``, ``user_id``, ``namespace``, ``extracted_from`` and
    ``extraction_strategy``, which would stop to be what they identify.

    Args:
        identifiers: ``"keep"`` stores identifiers as they are, for applications whose users are
            named by their addresses.
    """

    def __init__(self, *, identifiers: Literal["refuse", "keep"] = "refuse") -> None:
        if identifiers not in ("refuse", "keep"):
            raise InvalidArgumentError(f"identifiers={identifiers!r}: expected 'refuse' or 'keep'")
        self._identifiers = identifiers

    @hookimpl
    async def before_add(self, memories: list[MemoryRecord]) -> list[MemoryRecord]:
        """Redact what is added."""
        # In a thread: a batch may be long, and the event loop must not wait for it.
        return await asyncio.to_thread(self._redacted, memories)

    @hookimpl
    async def before_update(self, memories: list[MemoryRecord]) -> list[MemoryRecord]:
        """Redact what replaces."""
        return await asyncio.to_thread(self._redacted, memories)

    @hookimpl
    async def before_search(self, query: str) -> str:
        """Redact what is embedded, and looked for among words."""
        if len(query) <= _SHORT:
            return redacted(query)
        return await asyncio.to_thread(redacted, query)

    def _redacted(self, memories: list[MemoryRecord]) -> list[MemoryRecord]:
        if self._identifiers == "refuse":
            for each in memories:
                self._require_plain_identifiers(each)
        return [_without_sensitive(each) for each in memories]

    def _require_plain_identifiers(self, record: MemoryRecord) -> None:
        for field, value in _identifiers(record):
            if redacted(value) != value:
                # The value is not quoted: messages end up in logs.
                raise SensitiveIdentifierError(
                    f"{field} of a memory holds what looks like a card number or an e-mail "
                    f"address: use another identifier, or Redaction(identifiers='keep')"
                )


def _identifiers(record: MemoryRecord) -> Iterator[tuple[str, str]]:
    for field in _IDENTIFIERS:
        value = getattr(record, field)
        if value is not None:
            yield field, value
    for value in record.extracted_from or ():
        yield "extracted_from", value


def _without_sensitive(record: MemoryRecord) -> MemoryRecord:
    return record.model_copy(
        update={name: _without_sensitive_json(getattr(record, name)) for name in _FREE}
    )


def _without_sensitive_json(value: Any) -> Any:
    """Return a JSON value without them; a whole number that is one becomes the placeholder."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, list):
        return [_without_sensitive_json(each) for each in value]
    if isinstance(value, dict):
        return _without_sensitive_keys(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    # The digits behind a decimal point are no card number: one in ten numbers would pass for one.
    if isinstance(value, float) and not value.is_integer():
        return value
    digits = str(abs(int(value)))
    shown = redacted(digits)
    return value if shown == digits else shown


def _without_sensitive_keys(value: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, each in value.items():
        shown, number = redacted(key), 1
        while shown != key and (shown in kept or shown in value):
            number += 1  # two addresses leave the same key
            shown = f"{redacted(key)} {number}"
        kept[shown] = _without_sensitive_json(each)
    return kept
