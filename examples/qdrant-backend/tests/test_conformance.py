"""The whole kit, on each kind of Qdrant that runs without being installed as a service."""

from __future__ import annotations

import atexit
import os
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

from agent_memory import MemoryVectorDatabase
from agent_memory_testkit import ConformanceSuite, Network, Profile, Unsupported

import stand_in
from agent_memory_qdrant import create

NO_WORDS = Unsupported("Qdrant filters by words, but does not rank by them as the contract asks")
ONE_OWNER = Unsupported("local mode allows a folder one owner")
WITH_THE_HANDLE = Unsupported("a space in memory ends with its handle")
WORDS = {"keyword_search": NO_WORDS, "hybrid_search": NO_WORDS}


class TestInMemory(ConformanceSuite):
    profile = Profile(
        "qdrant, local mode in memory",
        off={**WORDS, "persistent": WITH_THE_HANDLE, "shared": WITH_THE_HANDLE},
    )

    async def open(self, space: str, embeddings: Any) -> MemoryVectorDatabase:
        return create(embeddings, space=space, url=":memory:")


class TestInFolder(ConformanceSuite):
    profile = Profile("qdrant, local mode in a folder", off={**WORDS, "shared": ONE_OWNER})

    async def open(self, space: str, embeddings: Any) -> MemoryVectorDatabase:
        return create(embeddings, space=space, path=str(self.directory))


def _stand_in() -> str:
    """Return the URL of a stand-in: the one of the process that started this one, or a new one."""
    if "AGENT_MEMORY_QDRANT_STAND_IN" not in os.environ:
        stack = ExitStack()
        os.environ["AGENT_MEMORY_QDRANT_STAND_IN"] = stack.enter_context(stand_in.running())
        atexit.register(stack.close)
    return os.environ["AGENT_MEMORY_QDRANT_STAND_IN"]


URL = _stand_in()


class TestOverTheNetwork(ConformanceSuite):
    """Qdrant's engine behind a stand-in for its server; see there what that is and is not."""

    profile = Profile(
        "qdrant, its engine behind a stand-in",
        off=WORDS,
        network=Network("127.0.0.1", urlsplit(URL).port or 0, timeout=3.0),
    )

    async def open(self, space: str, embeddings: Any) -> MemoryVectorDatabase:
        return create(embeddings, space=space, url=URL, timeout=60.0)

    async def open_through(
        self, space: str, embeddings: Any, host: str, port: int
    ) -> MemoryVectorDatabase:
        return create(embeddings, space=space, url=f"http://{host}:{port}", timeout=2.0, retries=1)
