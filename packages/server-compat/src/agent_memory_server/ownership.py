"""Who owns the import name ``agent_memory_server`` here: this distribution, or the server's too.

Both install files into one folder, and the one that comes last overwrites those of the other. A
warning would leave a server that runs, half of it with classes of ours; so this is an error.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution

from agent_memory import AgentMemoryError

OURS = "agent-memory-server-compat"
THEIRS = "agent-memory-server"


class PackageConflictError(AgentMemoryError, ImportError):
    """The distribution ``agent-memory-server`` is installed too, under the same import name."""


def require_sole_owner() -> None:
    """Raise `PackageConflictError` if the server's own distribution is installed as well."""
    try:
        server = distribution(THEIRS)
    except PackageNotFoundError:
        return
    raise PackageConflictError(
        f"{THEIRS} {server.version} and {OURS} are both installed, and both own the import name "
        f"agent_memory_server: each has overwritten files of the other. Remove both, because "
        f"removing one leaves the other incomplete (pip uninstall {THEIRS} {OURS}), then install "
        f"{OURS} to run backends on agent-memory, or {THEIRS} to run the server; for both, use "
        f"two environments",
        name="agent_memory_server",
    )
