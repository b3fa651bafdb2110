"""Pluggable long-term memory for AI agents: one interface, any engine.

Start with `create_memory_vector_db`. Importing this package loads no engine, no embedding model
and no NumPy.
"""

import typing as _typing

from agent_memory.database import Capability, MemoryVectorDatabase
from agent_memory.embeddings import Embeddings
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

if _typing.TYPE_CHECKING:
    from agent_memory.embeddings import LiteLLMEmbeddings, LocalEmbeddings

__version__ = "0.1.0"

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


def __getattr__(name: str) -> _typing.Any:
    if name in ("LiteLLMEmbeddings", "LocalEmbeddings"):
        from agent_memory import embeddings  # late, see there

        return getattr(embeddings, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
