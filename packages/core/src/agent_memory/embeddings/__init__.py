"""Turning text into vectors: the protocol, and the two implementations that come with the core.

The implementations are imported when they are first asked for: they need asyncio and more, which
takes as long as all the rest of the core.
"""

from typing import TYPE_CHECKING, Any

from agent_memory.embeddings.protocol import Embeddings

if TYPE_CHECKING:
    from agent_memory.embeddings.litellm import LiteLLMEmbeddings
    from agent_memory.embeddings.local import LocalEmbeddings

__all__ = ["Embeddings", "LiteLLMEmbeddings", "LocalEmbeddings"]


def __getattr__(name: str) -> Any:
    if name == "LiteLLMEmbeddings":
        from agent_memory.embeddings.litellm import LiteLLMEmbeddings

        return LiteLLMEmbeddings
    if name == "LocalEmbeddings":
        from agent_memory.embeddings.local import LocalEmbeddings

        return LocalEmbeddings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
