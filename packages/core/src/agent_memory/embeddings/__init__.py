"""Turning text into vectors: the protocol, and the two implementations that come with the core."""

from agent_memory.embeddings.litellm import LiteLLMEmbeddings
from agent_memory.embeddings.local import LocalEmbeddings
from agent_memory.embeddings.protocol import Embeddings

__all__ = ["Embeddings", "LiteLLMEmbeddings", "LocalEmbeddings"]
