"""Fixed times, short ways to write records, and values that are easily taken for each other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from agent_memory import MemoryRecord

NOW = datetime(2024, 5, 17, 12, 30, 45, 123456, tzinfo=UTC)
"""The moment that examples are about."""
MICROSECOND = timedelta(microseconds=1)
DAY = timedelta(days=1)

SCALAR_TAGS = ("session_id", "user_id", "namespace", "extraction_strategy")
"""Scalar tag fields that take any value."""
LIST_TAGS = ("topics", "entities", "extracted_from")
TIMES = ("created_at", "last_accessed", "updated_at", "persisted_at", "event_date")


def memory(memory_id: str, text: str = "<0> a memory", **fields: Any) -> MemoryRecord:
    """Return a record with fixed times where none are given."""
    times = {"created_at": NOW, "last_accessed": NOW, "updated_at": NOW}
    return MemoryRecord(**{"id": memory_id, "text": text, **times, **fields})


def near_collisions(base: str) -> list[str]:
    """Return values that careless handling takes for ``base`` or for each other."""
    return [
        base,
        base.upper(),
        base.capitalize(),
        f" {base}",
        f"{base} ",
        f"{base}\n",
        f"{base}\t",
        f"{base}\x00",
        f"{base}\u200b",
        f"{base}\u00a0",
        base[:1],
        base[:-1],
        f"{base}{base}",
        f"{base},bob",
        f"bob,{base}",
        f"{base}|bob",
        f"{base};bob",
        f"{base}*",
        f"{base[:1]}*",
        f"{base[:-1]}?",
        f"{base[:1]}%",
        f"{base[:-1]}_",
        f"{base}\\",
        f"\\{base}",
        f"{{{base}}}",
        f"[{base}]",
        f'"{base}"',
        f"'{base}'",
        f"{base}:1",
        f"{base}-1",
        f"{base}.1",
        f"@{base}",
        f"${base}",
        f"-{base}",
        f"~{base}",
    ]


SIMILAR_LETTERS = (
    "caf\u00e9",  # composed
    "cafe\u0301",  # decomposed
    "cafe",
    "CAF\u00c9",
    "stra\u00dfe",
    "strasse",
    "STRASSE",
    "\u0130",  # Turkish dotted capital
    "i\u0307",
    "i",
    "I",
    "\u0131",
    "\ufb01",  # the ligature fi
    "fi",
    "\u212b",  # the Angstrom sign, which NFC makes the next one
    "\u00c5",
    "\uff41\uff44\uff41",  # full-width ada
    "\u0430da",  # a Cyrillic a
)
"""Letters that case folding or Unicode normalisation makes equal."""

QUERY_SYNTAX = (
    "*",
    "**",
    "?",
    "%",
    "_",
    "-",
    "|",
    ",",
    "\\",
    '"',
    "'",
    "''",
    '""',
    "()",
    "{}",
    "[]",
    "$",
    "@user_id:{ada}",
    "@user_id:{*}",
    "{ada|bob}",
    "ada} @namespace:{x",
    "(@user_id:{ada})=>[KNN 10 @vector $v]",
    "' OR '1'='1",
    "ada'; DROP TABLE memories; --",
    '" OR 1=1 --',
    "user_id == 'ada' or True",
    '{"$ne": null}',
    '{"match_all": {}}',
    "NOT ada",
    "ada AND bob",
    "ada OR bob",
    "ada NEAR bob",
    "^ada",
    "/.*/",
    "[a TO z]",
    "ada~2",
    "null",
    "None",
    "NULL",
    "nil",
    "true",
    "0",
    "[]",
    "__missing__",
    "__none__",
    "\x1f",
    "\x1e",
    "\x00",
    "\x0b",
    "\x7f",
    "\x85",
    "\u2028",
    "\u3000",
    "\ufeff",
    "\uffff",
    "\U0010ffff",
    "\U0001f600",
    " ",
    "\n",
    "\r",
    "\r\n",
    "\t",
)
"""Query syntax, markers for a missing value and separators of engines, as ordinary values."""

TROUBLE = tuple(dict.fromkeys((*near_collisions("ada"), *SIMILAR_LETTERS, *QUERY_SYNTAX)))
"""All of the above: different values which no backend may confuse."""

SIMILAR_TENANTS = tuple(dict.fromkeys((*near_collisions("ada"), *SIMILAR_LETTERS, "*", "%", "?")))
