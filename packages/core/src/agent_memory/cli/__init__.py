"""`agent-memory` on the command line: memories in, questions answered, backends examined.

The console script exists without the extra that it needs, so this module imports none of it: what
``main`` finds is either the commands (`agent_memory.cli.commands`) or a line that says what to
install.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

__all__ = ["main"]


def main() -> None:
    """Run ``agent-memory``; what the console script calls. Ends with `SystemExit`."""
    missing = [name for name in ("click", "jinja2", "rich") if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"agent-memory on the command line needs {', '.join(missing)}. Install with:\n"
            '    pip install "agent-memory[cli]"\n'
        )
        raise SystemExit(1)
    from agent_memory.cli.commands import agent_memory

    agent_memory(prog_name="agent-memory")
