"""The conformance suite on a real Redis: by each algorithm, by each metric."""

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from redis.asyncio import Redis

from agent_memory import MemoryVectorDatabase
from agent_memory_redis import create
from agent_memory_redis.schema import Layout
from agent_memory_testkit import ConformanceSuite, Profile
from agent_memory_testkit.profile import Network
from agent_memory_testkit.suite.base import SuiteBase
from agent_memory_testkit.suite.machine import ModelRules
from agent_memory_testkit.suite.searching import SearchingRules

_URL_VARIABLE = "AGENT_MEMORY_REDIS_SUITE_URL"
"""How the second process of a rule learns of the server."""


_GIVEN_UP_AFTER = 1.0
"""Seconds after which a handle on a line that fails gives a call up."""


@pytest.fixture(autouse=True, scope="module")
def _server(redis_url: str) -> Iterator[None]:
    place = urlsplit(redis_url)
    network = Network(place.hostname or "localhost", place.port or 6379, timeout=_GIVEN_UP_AFTER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(_URL_VARIABLE, redis_url)
        for suite in (TestHNSW, TestFlat):
            patch.setattr(suite, "profile", replace(suite.profile, network=network))
        yield


class OnRedis(SuiteBase):
    """How a space is opened, and dropped after each rule."""

    options: dict[str, Any]

    async def open(self, space: str, embeddings: Any) -> MemoryVectorDatabase:
        return create(embeddings, space=space, url=os.environ[_URL_VARIABLE], **self.options)

    async def open_through(
        self, space: str, embeddings: Any, host: str, port: int
    ) -> MemoryVectorDatabase:
        url = urlsplit(os.environ[_URL_VARIABLE])
        login = url.netloc.rpartition("@")
        return create(
            embeddings,
            space=space,
            url=urlunsplit(url._replace(netloc=f"{login[0]}{login[1]}{host}:{port}")),
            timeout=_GIVEN_UP_AFTER / 2,
            connect_timeout=_GIVEN_UP_AFTER / 3,
            **self.options,
        )

    async def clean_up(self, space: str, embeddings: Any) -> None:
        # Here, as this file is also imported by the kit's second process, which lacks the other.
        from redis_support import drop_space

        layout = Layout.of(space, space)
        client: Any  # redis-py's methods are not typed
        async with Redis.from_url(os.environ[_URL_VARIABLE], protocol=2) as client:
            await drop_space(client, layout)


class TestHNSW(OnRedis, ConformanceSuite):
    profile = Profile("redis with HNSW", on=["approximate"])
    options = {"algorithm": "hnsw"}


class TestFlat(OnRedis, ConformanceSuite):
    profile = Profile("redis with FLAT")
    options = {"algorithm": "flat"}


class BySearches(OnRedis, SearchingRules, ModelRules):
    """What depends on metric and algorithm."""

    # No rule of these needs more; those that do are tried above.
    _records_of_large_space = 12_000


class TestL2(BySearches):
    profile = Profile("redis by L2", on=["approximate"], metric="l2")
    options = {"metric": "l2"}


class TestIP(BySearches):
    profile = Profile("redis by IP", on=["approximate"], metric="ip")
    options = {"metric": "ip"}


class TestFlatL2(BySearches):
    profile = Profile("redis with FLAT by L2", metric="l2")
    options = {"algorithm": "flat", "metric": "l2"}


class TestFlatIP(BySearches):
    profile = Profile("redis with FLAT by IP", metric="ip")
    options = {"algorithm": "flat", "metric": "ip"}
