"""Creating the configured database: the factories that settings and callers name.

`create_memory_vector_db` is the function of `agent_memory`, errors included. The other two have no
counterpart there.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from agent_memory import Embeddings, MemoryVectorDatabase, create_memory_vector_db
from agent_memory_server.server_style import ServerStyleDatabase, takes_server_style

__all__ = ["create_memory_vector_db", "create_redis_memory_vector_db", "get_memory_vector_db"]

_databases: dict[asyncio.AbstractEventLoop, MemoryVectorDatabase] = {}
_creating = threading.Lock()


def create_redis_memory_vector_db(embeddings: Embeddings, **options: Any) -> MemoryVectorDatabase:
    """Create a handle of the Redis backend; no I/O until the first call.

    The backend is a distribution of its own: ``pip install agent-memory-redis``.

    Args:
        embeddings: turns text into vectors.
        **options: those of that backend; what is not given comes from its variables
            (``REDIS_URL``, ``REDISVL_INDEX_NAME``, ...).

    Raises:
        BackendNotFoundError: agent-memory-redis is not installed.
        InvalidArgumentError: an option or a variable cannot be used.
    """
    return create_memory_vector_db("redis", embeddings=embeddings, **options)


async def get_memory_vector_db() -> MemoryVectorDatabase:
    """Return the database that the environment configures, the same one on every call.

    There is one for each running event loop, because a handle belongs to one. A backend that knows
    the arguments of agent-memory is given with a `ServerStyleDatabase` around it, so that calls in
    both styles work; any other is given as it is, and receives what its callers pass.

    Raises:
        AgentMemoryError: as `create_memory_vector_db`.
    """
    loop = asyncio.get_running_loop()
    with _creating:
        for ended in [each for each in _databases if each.is_closed()]:
            del _databases[ended]
        if loop not in _databases:
            created = create_memory_vector_db()
            _databases[loop] = (
                created if takes_server_style(created) else ServerStyleDatabase(created)
            )
        return _databases[loop]
