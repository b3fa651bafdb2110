"""The options of `create` and their environment variables; nothing here needs a server.

Those of the connection are tested in ``test_redis_settings.py``.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent_memory import (
    Capability,
    EmbeddingMismatchError,
    InvalidArgumentError,
    create_memory_vector_db,
)
from agent_memory.backend import Metric
from agent_memory_redis import RedisBackend, create
from agent_memory_testkit.embedders import ExactEmbeddings


def made(**options: Any) -> RedisBackend:
    return create(ExactEmbeddings(), **options)


def test_the_defaults() -> None:
    db = made()
    assert db.space == "memory"
    assert db.metric is Metric.COSINE
    assert db.capabilities == frozenset(Capability)
    assert (db._layout.index, db._layout.prefix) == ("memory", "memory/")
    assert db._settings.url == "redis://localhost:6379"


def test_it_is_the_backend_that_is_created_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEMORY_VECTOR_DB_FACTORY", raising=False)
    embeddings: Any = ExactEmbeddings()
    assert isinstance(create_memory_vector_db(embeddings=embeddings), RedisBackend)


def test_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "REDISVL_INDEX_NAME": "from_outside",
        "REDISVL_INDEX_PREFIX": "keys",
        "REDISVL_DISTANCE_METRIC": "L2",
        "REDISVL_INDEXING_ALGORITHM": "FLAT",
        "REDISVL_VECTOR_DIMENSIONS": "8",
    }.items():
        monkeypatch.setenv(name, value)
    db = made()
    assert (db._layout.index, db._layout.prefix) == ("from_outside", "keys/")
    assert db.metric is Metric.L2
    assert Capability.APPROXIMATE not in db.capabilities


def test_options_win_over_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INDEX_NAME", "INDEX_PREFIX", "DISTANCE_METRIC", "INDEXING_ALGORITHM"):
        monkeypatch.setenv(f"REDISVL_{name}", "neither this nor that")
    monkeypatch.setenv("REDISVL_VECTOR_DIMENSIONS", "none")
    db = made(index_name="i", prefix="p", metric="ip", algorithm="flat", dimensions=8)
    assert (db._layout.index, db._layout.prefix) == ("i", "p/")
    assert db.metric is Metric.IP
    assert made(space="s", metric="ip", algorithm="flat", dimensions=8)._layout.prefix == "s/"


def test_a_variable_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDISVL_INDEX_NAME", "")
    monkeypatch.setenv("REDISVL_VECTOR_DIMENSIONS", " ")
    assert made()._layout.index == "memory"


def test_the_prefix_is_by_default_the_name_of_the_index() -> None:
    assert made(index_name="agents")._layout.prefix == "agents/"


@pytest.mark.parametrize(
    ("option", "wrong", "says"),
    [
        ("space", "", "a name"),
        ("space", 7, "a name"),
        ("space", "\ud800", "lone surrogate"),
        ("index_name", "", r"index_name=''.*REDISVL_INDEX_NAME.*a name"),
        ("prefix", "", r"prefix=''.*REDISVL_INDEX_PREFIX.*a name"),
        ("metric", "manhattan", r"'manhattan'.*REDISVL_DISTANCE_METRIC.*cosine, l2, ip"),
        ("algorithm", "svs", r"'svs'.*REDISVL_INDEXING_ALGORITHM.*hnsw or flat"),
        ("algorithm", 1, "hnsw or flat"),
        ("dimensions", 0, r"dimensions=0.*REDISVL_VECTOR_DIMENSIONS.*from 1 to 32768"),
        ("dimensions", True, "a whole number"),
        ("dimensions", "8.0", "a whole number"),
        ("m", 1, "m=1: expected a whole number from 2 to 512"),
        ("m", "16", "a whole number"),
        ("ef_construction", 0, "from 1 to 4096"),
        ("ef_runtime", 5_000, "from 1 to 4096"),
        ("ef_runtime", 10.0, "a whole number"),
    ],
)
def test_what_an_option_cannot_be_is_refused(option: str, wrong: Any, says: str) -> None:
    with pytest.raises(InvalidArgumentError, match=says) as raised:
        made(**{option: wrong})
    assert option in str(raised.value)


@pytest.mark.parametrize(
    ("variable", "wrong"),
    [
        ("REDISVL_DISTANCE_METRIC", "manhattan"),
        ("REDISVL_INDEXING_ALGORITHM", "svs-vamana"),
        ("REDISVL_VECTOR_DIMENSIONS", "many"),
        ("REDISVL_VECTOR_DIMENSIONS", "-1"),
        ("REDISVL_VECTOR_DIMENSIONS", "²"),
    ],
)
def test_what_a_variable_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, wrong: str
) -> None:
    monkeypatch.setenv(variable, wrong)
    with pytest.raises(InvalidArgumentError, match=variable):
        made()


def test_what_contradicts_itself_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="either space, or index_name and prefix"):
        made(space="a", index_name="b")
    for option in ("m", "ef_construction", "ef_runtime"):
        with pytest.raises(InvalidArgumentError, match=f"{option}=16: belongs to algorithm='hnsw'"):
            made(algorithm="flat", **{option: 16})


def test_dimensions_are_checked_against_the_embeddings(unused_url: str) -> None:
    async def first_call() -> None:
        async with made(dimensions=1_536, url=unused_url) as db:
            with pytest.raises(EmbeddingMismatchError, match=r"dimensions=1536.*of 8 dimensions"):
                await db.ping()

    asyncio.run(first_call())
