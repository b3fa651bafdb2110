"""The import paths of ``agent_memory_server``, on agent-memory: what backends for it need.

The modules `memory_vector_db`, `models`, `filters` and `memory_vector_db_factory` give the objects
of agent-memory under their names there. What calls in the style of that server mean is in
`server_style`. The server itself is not here: it is the distribution ``agent-memory-server``, which
owns this import name. Where that is installed too, importing this package raises
`agent_memory_server.ownership.PackageConflictError`.
"""

from agent_memory_server.ownership import require_sole_owner

__version__ = "0.1.0"

require_sole_owner()
