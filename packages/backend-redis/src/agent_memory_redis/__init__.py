"""The Redis backend of agent-memory: memories as hashes, found by Redis 8's query engine.

`create` is the factory behind the name ``redis``, the default of the ecosystem. Many handles and
processes may share one space.
"""

from agent_memory_redis.backend import RedisBackend, create

__version__ = "0.1.0"

__all__ = ["RedisBackend", "create"]
