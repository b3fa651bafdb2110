"""The filter of each field; the same classes as in `agent_memory`."""

from agent_memory import (
    CreatedAt,
    DiscreteMemoryExtracted,
    Entities,
    EventDate,
    ExtractedFrom,
    ExtractionStrategy,
    Id,
    LastAccessed,
    MemoryHash,
    MemoryType,
    Namespace,
    PersistedAt,
    SessionId,
    Topics,
    UpdatedAt,
    UserId,
)

__all__ = [
    "CreatedAt",
    "DiscreteMemoryExtracted",
    "Entities",
    "EventDate",
    "ExtractedFrom",
    "ExtractionStrategy",
    "Id",
    "LastAccessed",
    "MemoryHash",
    "MemoryType",
    "Namespace",
    "PersistedAt",
    "SessionId",
    "Topics",
    "UpdatedAt",
    "UserId",
]
