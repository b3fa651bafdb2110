"""Pluggable long-term memory for AI agents: one interface, any engine.

Start with `create_memory_vector_db`. Importing this package loads no engine, no embedding model
and no NumPy; each name loads its module when it is first asked for.
"""

import typing as _typing
from importlib import import_module as _import_module

if _typing.TYPE_CHECKING:
    from agent_memory.database import Capability, MemoryVectorDatabase
    from agent_memory.embeddings import Embeddings, LiteLLMEmbeddings, LocalEmbeddings
    from agent_memory.errors import (
        AgentMemoryError,
        BackendAttributeError,
        BackendClosedError,
        BackendCompatibilityError,
        BackendConflictError,
        BackendDependencyError,
        BackendError,
        BackendImportError,
        BackendNotFoundError,
        BackendTypeError,
        BackendUnavailableError,
        EmbeddingError,
        EmbeddingMismatchError,
        HookCompatibilityError,
        HookConflictError,
        HookError,
        HookFailedError,
        HookImportError,
        HookNotFoundError,
        HookTypeError,
        InvalidArgumentError,
        ScopeError,
        UnsupportedCapabilityError,
    )
    from agent_memory.factory import create_memory_vector_db
    from agent_memory.filters import (
        And,
        CreatedAt,
        DiscreteMemoryExtracted,
        Entities,
        EventDate,
        Expression,
        ExtractedFrom,
        ExtractionStrategy,
        Id,
        LastAccessed,
        MemoryHash,
        MemoryType,
        Namespace,
        Not,
        Or,
        PersistedAt,
        SessionId,
        Topics,
        UpdatedAt,
        UserId,
        expression_from_json,
    )
    from agent_memory.models import (
        MemoryRecord,
        MemoryRecordResult,
        MemoryRecordResults,
        MemoryTypeEnum,
        ScoreType,
        SearchMode,
    )
    from agent_memory.recency import RecencyParams

__version__ = "0.1.0"

_HOMES = ("errors", "models", "recency", "filters", "database", "embeddings", "factory")
"""The modules with public names, each after those that it imports."""

__all__ = [
    "AgentMemoryError",
    "And",
    "BackendAttributeError",
    "BackendClosedError",
    "BackendCompatibilityError",
    "BackendConflictError",
    "BackendDependencyError",
    "BackendError",
    "BackendImportError",
    "BackendNotFoundError",
    "BackendTypeError",
    "BackendUnavailableError",
    "Capability",
    "CreatedAt",
    "DiscreteMemoryExtracted",
    "EmbeddingError",
    "EmbeddingMismatchError",
    "Embeddings",
    "Entities",
    "EventDate",
    "Expression",
    "ExtractedFrom",
    "ExtractionStrategy",
    "HookCompatibilityError",
    "HookConflictError",
    "HookError",
    "HookFailedError",
    "HookImportError",
    "HookNotFoundError",
    "HookTypeError",
    "Id",
    "InvalidArgumentError",
    "LastAccessed",
    "LiteLLMEmbeddings",
    "LocalEmbeddings",
    "MemoryHash",
    "MemoryRecord",
    "MemoryRecordResult",
    "MemoryRecordResults",
    "MemoryType",
    "MemoryTypeEnum",
    "MemoryVectorDatabase",
    "Namespace",
    "Not",
    "Or",
    "PersistedAt",
    "RecencyParams",
    "ScopeError",
    "ScoreType",
    "SearchMode",
    "SessionId",
    "Topics",
    "UnsupportedCapabilityError",
    "UpdatedAt",
    "UserId",
    "create_memory_vector_db",
    "expression_from_json",
]


if not _typing.TYPE_CHECKING:  # type checkers know the names, and are to refuse all others

    def __getattr__(name: str) -> object:
        if name in __all__:
            for home in _HOMES:
                module = _import_module(f"{__name__}.{home}")
                if hasattr(module, name):
                    # From now on it is found without asking here.
                    return globals().setdefault(name, getattr(module, name))
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
