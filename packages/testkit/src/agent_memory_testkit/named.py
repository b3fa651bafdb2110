"""The suite of the command: any backend that the factory of the core makes.

pytest collects it from this file, and another process loads it again: both find what to test in
the environment, where the command has put it. Nothing else imports this module.
"""

from __future__ import annotations

import json
import os
from typing import Any

from agent_memory import MemoryVectorDatabase
from agent_memory_testkit.job import JOB_VARIABLE, Job, with_address
from agent_memory_testkit.suite import ConformanceSuite

JOB = Job(**json.loads(os.environ[JOB_VARIABLE]))


class TestBackend(ConformanceSuite):
    """The conformance suite on the backend of the job."""

    profile = JOB.profile

    async def open(self, space: str, embeddings: Any) -> MemoryVectorDatabase:
        return JOB.create(embeddings, space=space)

    async def open_through(
        self, space: str, embeddings: Any, host: str, port: int
    ) -> MemoryVectorDatabase:
        through = {name: with_address(value, host, port) for name, value in JOB.through.items()}
        return JOB.create(embeddings, space=space, **through)
