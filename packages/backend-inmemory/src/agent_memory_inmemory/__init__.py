"""The embedded backend of agent-memory: exact search in the process itself, no server.

`create` is the factory behind the name ``inmemory``. Without a path the memories live as long as
the handle; with one they are kept in a file and survive a crash of the process.
"""

from agent_memory_inmemory.backend import InMemoryVectorDatabase, create

__version__ = "0.1.0"

__all__ = ["InMemoryVectorDatabase", "create"]
