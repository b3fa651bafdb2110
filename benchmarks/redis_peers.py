"""Other libraries' Redis stores, each as a `Store` used as its documentation says.

Both are synchronous and compare all vectors (their default index). They use the server at the URL
in `URL_VARIABLE`. `strangers` and `other_collections` show what they answer that was not asked for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from material import DIMENSIONS, NEAREST, NEWEST, USERS, Floats, Material, Memory, query_texts
from redis_stores import URL_VARIABLE, OursOnRedis
from store import KnownVectors, Store

TENANT = "Ada"
NEAR_TENANTS = ("Ada", "ada", "Ada|bob", "bob,Ada", " Ada")
"""Tenants, of which the first asks; the names of the others differ from it."""


def tenants() -> list[Memory]:
    """Return one memory of each of `NEAR_TENANTS`."""
    return [
        Memory(number, f"a secret of tenant {number}", user, "session", ["topic"], NEWEST)
        for number, user in enumerate(NEAR_TENANTS)
    ]


class LangChainRedis(Store):
    """RedisVectorStore of langchain-redis."""

    collection = "langchain"

    def __init__(self, material: Material) -> None:
        from langchain_redis import RedisConfig, RedisVectorStore
        from peers import GivenForLangChain

        super().__init__(material)
        self._texts = query_texts()
        self._embeddings: Any = GivenForLangChain(KnownVectors(self._texts, material.queries()))
        fields = [("number", "numeric"), ("user_id", "tag"), ("session_id", "tag")]
        config = RedisConfig(
            index_name=self.collection,
            redis_url=os.environ[URL_VARIABLE],
            embedding_dimensions=DIMENSIONS,
            metadata_schema=[{"name": name, "type": kind} for name, kind in fields],
        )
        self._store = RedisVectorStore(self._embeddings, config=config)

    def prepared(
        self, memories: Sequence[Memory], vectors: Floats
    ) -> tuple[list[str], list[dict[str, Any]], list[str], KnownVectors]:
        texts = [each.text for each in memories]
        fields = [
            {"number": each.number, "user_id": each.user_id, "session_id": each.session_id}
            for each in memories
        ]
        return texts, fields, [each.id for each in memories], KnownVectors(texts, vectors)

    def add(self, batch: tuple[list[str], list[dict[str, Any]], list[str], KnownVectors]) -> None:
        texts, fields, ids, self._embeddings.documents = batch
        self._store.add_texts(texts, fields, keys=ids)

    def search(self, query: int) -> list[int]:
        return self._nearest(query, None)

    def search_filtered(self, query: int) -> list[int]:
        return self._nearest(query, f"user-{query % USERS:02d}")

    def strangers(self, query: int) -> list[int]:
        return self._nearest(query, TENANT)

    def _nearest(self, query: int, user: str | None) -> list[int]:
        from redisvl.query.filter import Tag

        found = self._store.similarity_search_with_score(
            self._texts[query], k=NEAREST, filter=None if user is None else Tag("user_id") == user
        )
        return [int(document.metadata["number"]) for document, _ in found]


class Mem0Redis(Store):
    """The vector store "redis" of mem0."""

    collection = "mem0"

    def __init__(self, material: Material) -> None:
        from mem0.vector_stores import redis as mem0_redis
        from redisvl.index import SearchIndex

        class Index(SearchIndex):  # type: ignore[misc]
            def set_client(self, client: Any) -> None:
                """Do what RedisVL did when it had this method, which mem0 still calls."""
                SearchIndex.__init__(self, self.schema, redis_client=client)

        super().__init__(material)
        mem0_redis.SearchIndex = Index
        self._queries = material.queries()
        self._store: Any = mem0_redis.RedisDB(os.environ[URL_VARIABLE], self.collection, DIMENSIONS)

    def prepared(
        self, memories: Sequence[Memory], vectors: Floats
    ) -> tuple[list[Any], list[dict[str, Any]], list[str]]:
        payloads = [
            {
                "data": each.text,
                "hash": "",
                "user_id": each.user_id,
                "agent_id": "agent",
                "run_id": each.session_id,
                "created_at": each.created_at.isoformat(),
                "number": each.number,
            }
            for each in memories
        ]
        return list(vectors), payloads, [each.id for each in memories]

    def add(self, batch: tuple[list[Any], list[dict[str, Any]], list[str]]) -> None:
        self._store.insert(*batch)

    def search(self, query: int) -> list[int]:
        return self._nearest(query, None)

    def search_filtered(self, query: int) -> list[int]:
        return self._nearest(query, {"user_id": f"user-{query % USERS:02d}"})

    def strangers(self, query: int) -> list[int]:
        return self._nearest(query, {"user_id": TENANT})

    def _nearest(self, query: int, filters: dict[str, str] | None) -> list[int]:
        found = self._store.search("", self._queries[query], top_k=NEAREST, filters=filters)
        return [int(each.payload["number"]) for each in found]


class LangChainRedisOther(LangChainRedis):
    """Another collection, whose name begins like the first one's."""

    collection = "langchain2"


class Mem0RedisOther(Mem0Redis):
    """Another collection, whose name begins like the first one's."""

    collection = "mem02"


class OursAmongTenants(OursOnRedis):
    """The backend, asked what the others are asked."""

    def strangers(self, query: int) -> list[int]:
        return self._search(query, user_id=TENANT, with_total=False)


class OursOther(OursOnRedis):
    """Another space, whose name begins like the first one's."""

    space = "benchmark2"
