"""What a backend subclasses; the same class as in `agent_memory`."""

from agent_memory import MemoryVectorDatabase

__all__ = ["MemoryVectorDatabase"]
