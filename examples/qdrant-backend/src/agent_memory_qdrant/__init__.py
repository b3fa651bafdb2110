"""Qdrant as a backend of agent-memory; the entry point ``qdrant`` names `create`."""

from agent_memory_qdrant.backend import QdrantBackend, create

__all__ = ["QdrantBackend", "create"]
