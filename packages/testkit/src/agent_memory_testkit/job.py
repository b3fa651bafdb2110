"""What the command tests: a backend by its name, with options and expectations.

It goes through the environment to the suite in `agent_memory_testkit.named`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from agent_memory import Capability, MemoryVectorDatabase, create_memory_vector_db
from agent_memory_testkit.profile import Network, Profile, Unsupported

JOB_VARIABLE = "AGENT_MEMORY_CONFORMANCE_JOB"


@dataclass(frozen=True, slots=True)
class Job:
    """What to test, as the command line says."""

    backend: str
    """A registered name, or an import path."""
    options: dict[str, Any]
    """For the factory."""
    on: list[str]
    off: dict[str, str]
    """Capabilities that are not expected, with the reasons."""
    metric: str
    network: dict[str, Any] | None
    """The fields of `Network`."""
    through: dict[str, Any]
    """For the factory, in place of some options, where ``{host}`` and ``{port}`` stand."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @property
    def profile(self) -> Profile:
        """What is expected of the backend."""
        return Profile(
            self.backend,
            on=self.on,
            off={name: Unsupported(reason) for name, reason in self.off.items()},
            metric=self.metric,
            network=None if self.network is None else Network(**self.network),
        )

    def create(self, embeddings: Any, **others: Any) -> MemoryVectorDatabase:
        """Return a handle; ``others`` are options beside those of the job, or in their place.

        It is the backend that is judged: plug-ins that happen to be installed do not run.
        """
        return create_memory_vector_db(
            self.backend, embeddings=embeddings, hooks=[], **{**self.options, **others}
        )


def with_address(template: Any, host: str, port: int) -> Any:
    """Return the value of an option with ``{host}`` and ``{port}`` filled in."""
    if not isinstance(template, str):
        return template
    filled = template.replace("{host}", host).replace("{port}", str(port))
    return int(filled) if template == "{port}" else filled


def declared(db: MemoryVectorDatabase) -> tuple[list[str], dict[str, str]]:
    """Return what a profile has on and off for exactly the capabilities that a handle declares."""
    on = [Capability.APPROXIMATE.value] if Capability.APPROXIMATE in db.capabilities else []
    expected = frozenset(Capability) - {Capability.APPROXIMATE}
    missing = sorted(each.value for each in expected - db.capabilities)
    return on, dict.fromkeys(missing, "the backend does not declare it")
