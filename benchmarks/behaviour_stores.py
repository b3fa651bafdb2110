"""The stores that `behaviour` asks its questions, each through the calls that its users make.

An adapter adds nothing: where a store has no call for a question, it says so by `AbsentError`.
Vectors come from one function, so that all stores rank the same.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import random
import uuid
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

os.environ |= {"ANONYMIZED_TELEMETRY": "False", "MEM0_TELEMETRY": "False"}
os.environ.setdefault("OPENAI_API_KEY", "unused")  # mem0 makes a client that is never called

DIMENSIONS = 64
REDIS_URL = os.environ["REDIS_URL"]

_T = TypeVar("_T")


class AbsentError(Exception):
    """The store has no call for that."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What every store can hold: a text of somebody, and anything else."""

    id: str
    text: str
    user: str | None = "ada"
    metadata: dict[str, Any] | None = None


def vector_of(text: str) -> list[float]:
    """Return the direction of the first word, turned a little by the whole text."""
    about, exact = random.Random(text.split()[0]), random.Random(text)
    return [about.gauss() + 0.05 * exact.gauss() for _ in range(DIMENSIONS)]


class Store:
    """One fresh, empty store. Ids are those of `Memory`, whatever the store calls them itself."""

    distributions: tuple[str, ...]

    def add(self, memories: Sequence[Memory]) -> None:
        """Store memories."""
        raise NotImplementedError

    def search(self, query: str, *, limit: int, offset: int = 0, **fields: str | None) -> list[str]:
        """Return ids, nearest first, of memories whose ``fields`` have these values."""
        raise NotImplementedError

    def count(self, user: str) -> int:
        """Return how many memories somebody has."""
        raise AbsentError("no call")

    def total(self, query: str, user: str) -> int | None:
        """Return the number of matches that a search of one result tells."""
        raise AbsentError("a search returns a list")

    def update(self, memory: Memory) -> object:
        """Replace a memory only if it exists; return what the store does."""
        raise AbsentError("its call to replace creates as well")

    def change(self, memory: Memory) -> None:
        """Replace a memory that exists."""
        self.add([memory])

    def delete(self, ids: Sequence[str]) -> object:
        """Delete memories; return what the store does."""
        raise NotImplementedError

    def metadata(self, memory_id: str) -> dict[str, Any]:
        """Return the metadata of a memory."""
        raise NotImplementedError

    def reopen_with_other_model(self) -> None:
        """Open the same space with embeddings of another name and the same size."""
        raise AbsentError("is not told which model made a vector")

    def close(self) -> None:
        """Release what the store holds."""


# --- ours ----------------------------------------------------------------------------------------


class _Given:
    dimensions = DIMENSIONS

    def __init__(self, model: str = "one") -> None:
        self.model = model

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return [vector_of(text) for text in texts]

    async def aembed_query(self, text: str) -> list[float]:
        return vector_of(text)


class Ours(Store):
    """agent-memory, with the backend that is named."""

    def __init__(self, backend: str) -> None:
        from tempfile import TemporaryDirectory

        self._folder = TemporaryDirectory()
        self._backend = backend
        self._options: dict[str, Any] = {"space": uuid.uuid4().hex}
        if backend == "inmemory":
            self._options["path"] = self._folder.name
        self._runner = asyncio.Runner()
        self._db = self._open("one")
        self.distributions = ("agent-memory", f"agent-memory-{backend}")

    def _open(self, model: str) -> Any:
        from agent_memory import create_memory_vector_db

        return create_memory_vector_db(self._backend, embeddings=_Given(model), **self._options)

    def _run(self, call: Coroutine[Any, Any, _T]) -> _T:
        return self._runner.run(call)

    def add(self, memories: Sequence[Memory]) -> None:
        self._run(self._db.add_memories([self._record(each) for each in memories]))

    @staticmethod
    def _record(memory: Memory) -> Any:
        from agent_memory import MemoryRecord

        return MemoryRecord(
            id=memory.id, text=memory.text, user_id=memory.user, metadata=memory.metadata or {}
        )

    def search(self, query: str, *, limit: int, offset: int = 0, **fields: str | None) -> list[str]:
        fields = {"user_id" if name == "user" else name: value for name, value in fields.items()}
        page = self._run(self._db.search_memories(query, limit=limit, offset=offset, **fields))
        return [each.id for each in page.memories]

    def count(self, user: str) -> int:
        return int(self._run(self._db.count_memories(user_id=user)))

    def total(self, query: str, user: str) -> int | None:
        page = self._run(self._db.search_memories(query, limit=1, user_id=user))
        total: int | None = page.total
        return total

    def update(self, memory: Memory) -> object:
        return self._run(self._db.update_memories([self._record(memory)]))

    def change(self, memory: Memory) -> None:
        self.update(memory)

    def delete(self, ids: Sequence[str]) -> object:
        return self._run(self._db.delete_memories(list(ids)))

    def metadata(self, memory_id: str) -> dict[str, Any]:
        [found] = self._run(self._db.get_memories([memory_id]))
        metadata: dict[str, Any] = found.metadata
        return metadata

    def reopen_with_other_model(self) -> None:
        self._run(self._db.aclose())
        self._db = self._open("two")
        self._run(self._db.count_memories())

    def close(self) -> None:
        self._run(self._db.aclose())
        self._runner.close()
        self._folder.cleanup()


# --- LangChain -----------------------------------------------------------------------------------


def _langchain_embeddings() -> Any:
    from langchain_core.embeddings import Embeddings

    class Given(Embeddings):  # type: ignore[misc]
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [vector_of(text) for text in texts]

        def embed_query(self, text: str) -> list[float]:
            return vector_of(text)

    return Given()


class LangChain(Store):
    """`InMemoryVectorStore`; its filter is a function, here one that compares."""

    distributions: tuple[str, ...] = ("langchain-core",)

    def __init__(self) -> None:
        from langchain_core.vectorstores import InMemoryVectorStore

        self._store: Any = InMemoryVectorStore(_langchain_embeddings())

    def add(self, memories: Sequence[Memory]) -> None:
        from langchain_core.documents import Document

        self._store.add_documents(
            [
                Document(
                    id=each.id,
                    page_content=each.text,
                    metadata={"user": each.user, **(each.metadata or {})},
                )
                for each in memories
            ]
        )

    def search(self, query: str, *, limit: int, offset: int = 0, **fields: str | None) -> list[str]:
        if offset:
            raise AbsentError("no offset")

        def wanted(document: Any) -> bool:
            return all(document.metadata.get(name) == value for name, value in fields.items())

        found = self._store.similarity_search(query, k=limit, filter=wanted if fields else None)
        return [each.id for each in found]

    def delete(self, ids: Sequence[str]) -> object:
        return self._store.delete(list(ids))

    def metadata(self, memory_id: str) -> dict[str, Any]:
        [found] = self._store.get_by_ids([memory_id])
        return {name: value for name, value in found.metadata.items() if name != "user"}


class LangChainRedis(LangChain):
    """`RedisVectorStore` with a tag field, as its documentation filters."""

    distributions = ("langchain-redis", "redisvl")

    def __init__(self) -> None:
        from langchain_redis import RedisConfig, RedisVectorStore

        config = RedisConfig(
            index_name=f"b{uuid.uuid4().hex}",
            redis_url=REDIS_URL,
            metadata_schema=[{"name": "user", "type": "tag"}],
        )
        self._store = RedisVectorStore(_langchain_embeddings(), config=config)

    def add(self, memories: Sequence[Memory]) -> None:
        self._store.add_texts(
            [each.text for each in memories],
            [{"user": each.user, "memory": each.id, **(each.metadata or {})} for each in memories],
            keys=[each.id for each in memories],
        )

    def search(self, query: str, *, limit: int, offset: int = 0, **fields: str | None) -> list[str]:
        from redisvl.query.filter import Tag

        if offset:
            raise AbsentError("no offset")
        only = None
        for name, value in fields.items():
            only = Tag(name) == value
        found = self._store.similarity_search(query, k=limit, filter=only, return_all=True)
        return [each.metadata["memory"] for each in found]

    def metadata(self, memory_id: str) -> dict[str, Any]:
        [found] = self._store.get_by_ids([memory_id])
        return {
            name: value for name, value in found.metadata.items() if name not in ("user", "memory")
        }

    def close(self) -> None:
        self._store.index.delete(drop=True)


# --- Qdrant, Chroma, LangGraph, mem0 -------------------------------------------------------------


class Qdrant(Store):
    """qdrant-client in local mode."""

    distributions = ("qdrant-client",)

    def __init__(self) -> None:
        from qdrant_client import QdrantClient, models

        self._models = models
        self._client = QdrantClient(":memory:")
        self._client.create_collection(
            "m", vectors_config=models.VectorParams(size=DIMENSIONS, distance="Cosine")
        )

    def _key(self, memory_id: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, memory_id))

    def add(self, memories: Sequence[Memory]) -> None:
        self._client.upsert(
            "m",
            [
                self._models.PointStruct(
                    id=self._key(each.id),
                    vector=vector_of(each.text),
                    payload={
                        "id": each.id,
                        "text": each.text,
                        "user": each.user,
                        "metadata": each.metadata,
                    },
                )
                for each in memories
            ],
        )

    def _filter(self, fields: dict[str, str | None]) -> Any:
        return self._models.Filter(
            must=[
                self._models.FieldCondition(key=name, match=self._models.MatchValue(value=value))
                for name, value in fields.items()
            ]
        )

    def search(self, query: str, *, limit: int, offset: int = 0, **fields: str | None) -> list[str]:
        found = self._client.query_points(
            "m",
            query=vector_of(query),
            query_filter=self._filter(fields) if fields else None,
            limit=limit,
            offset=offset,
        )
        return [each.payload["id"] for each in found.points]

    def count(self, user: str) -> int:
        return int(self._client.count("m", count_filter=self._filter({"user": user})).count)

    def delete(self, ids: Sequence[str]) -> object:
        return self._client.delete("m", [self._key(each) for each in ids]).status.value

    def metadata(self, memory_id: str) -> dict[str, Any]:
        [found] = self._client.retrieve("m", [self._key(memory_id)])
        metadata: dict[str, Any] = found.payload["metadata"]
        return metadata

    def close(self) -> None:
        self._client.close()


class Chroma(Store):
    """Chroma in the process."""

    distributions = ("chromadb",)

    def __init__(self) -> None:
        import chromadb

        class Given(chromadb.EmbeddingFunction):  # type: ignore[misc]
            def __init__(self) -> None:
                """Take no settings; Chroma asks for a constructor."""

            def __call__(self, input: list[str]) -> list[list[float]]:  # noqa: A002
                return [vector_of(text) for text in input]

            @staticmethod
            def name() -> str:
                return "one"

        class Other(Given):
            @staticmethod
            def name() -> str:
                return "two"

        self._other = Other
        self._client = chromadb.EphemeralClient()
        self._name = f"b{uuid.uuid4().hex}"
        self._collection = self._client.create_collection(self._name, embedding_function=Given())

    def add(self, memories: Sequence[Memory]) -> None:
        self._collection.upsert(
            ids=[each.id for each in memories],
            documents=[each.text for each in memories],
            metadatas=[{"user": each.user, **(each.metadata or {})} for each in memories],
        )

    def search(self, query: str, *, limit: int, offset: int = 0, **fields: str | None) -> list[str]:
        if offset:
            raise AbsentError("no offset")
        found = self._collection.query(
            query_texts=[query], n_results=limit, where=dict(fields) or None
        )
        ids: list[str] = found["ids"][0]
        return ids

    def count(self, user: str) -> int:
        # count() knows no filter; this transfers the ids.
        return len(self._collection.get(where={"user": user}, include=[])["ids"])

    def update(self, memory: Memory) -> object:
        return self._collection.update(ids=[memory.id], documents=[memory.text])

    def change(self, memory: Memory) -> None:
        self.update(memory)

    def delete(self, ids: Sequence[str]) -> object:
        return self._collection.delete(ids=list(ids))

    def metadata(self, memory_id: str) -> dict[str, Any]:
        found = dict(self._collection.get(ids=[memory_id])["metadatas"][0])
        found.pop("user")
        return found

    def reopen_with_other_model(self) -> None:
        collection = self._client.get_collection(self._name, embedding_function=self._other())
        collection.query(query_texts=["coffee"], n_results=1)


class LangGraph(Store):
    """LangGraph's `InMemoryStore`; one namespace, users as a field."""

    distributions = ("langgraph", "langgraph-checkpoint")

    def __init__(self) -> None:
        from langgraph.store.memory import InMemoryStore

        def embed(texts: Sequence[str]) -> list[list[float]]:
            return [vector_of(text) for text in texts]

        self._store: Any = InMemoryStore(
            index={"dims": DIMENSIONS, "embed": embed, "fields": ["text"]}
        )

    def add(self, memories: Sequence[Memory]) -> None:
        for each in memories:
            value = {"text": each.text, "user": each.user, "metadata": each.metadata}
            self._store.put(("m",), each.id, value)

    def search(self, query: str, *, limit: int, offset: int = 0, **fields: str | None) -> list[str]:
        found = self._store.search(
            ("m",), query=query, filter=fields or None, limit=limit, offset=offset
        )
        return [each.key for each in found]

    def delete(self, ids: Sequence[str]) -> object:
        return [self._store.delete(("m",), each) for each in ids]

    def metadata(self, memory_id: str) -> dict[str, Any]:
        metadata: dict[str, Any] = self._store.get(("m",), memory_id).value["metadata"]
        return metadata


class Mem0(Store):
    """mem0's `Memory` without a language model (``infer=False``), on its default store, Qdrant."""

    distributions = ("mem0ai", "qdrant-client")

    def __init__(self) -> None:
        from tempfile import TemporaryDirectory

        self._folder = TemporaryDirectory()
        os.environ["MEM0_DIR"] = self._folder.name
        from mem0 import Memory as Mem0Memory
        from mem0.embeddings.base import EmbeddingBase

        class Given(EmbeddingBase):  # type: ignore[misc]
            def embed(self, text: str, memory_action: str | None = None) -> list[float]:
                return vector_of(text)

            def embed_batch(
                self, texts: list[str], memory_action: str | None = None
            ) -> list[list[float]]:
                return [vector_of(text) for text in texts]

        self._memory: Any = Mem0Memory.from_config(
            {
                "vector_store": {
                    "provider": "qdrant",
                    "config": {
                        "collection_name": f"b{uuid.uuid4().hex}",
                        "embedding_model_dims": DIMENSIONS,
                        "path": f"{self._folder.name}/qdrant",
                    },
                },
                "history_db_path": f"{self._folder.name}/history.db",
            }
        )
        self._memory.embedding_model = Given()
        self._theirs: dict[str, str] = {}

    def add(self, memories: Sequence[Memory]) -> None:
        for each in memories:
            added = self._memory.add(
                each.text, user_id=each.user, metadata=each.metadata, infer=False
            )
            self._theirs[each.id] = added["results"][0]["id"]

    def search(self, query: str, *, limit: int, offset: int = 0, **fields: str | None) -> list[str]:
        if offset:
            raise AbsentError("no offset")
        filters = {"user_id" if name == "user" else name: each for name, each in fields.items()}
        if "user_id" not in filters:
            filters["user_id"] = "ada"  # one of its identifiers is demanded
        found = self._memory.search(query, top_k=limit, filters=filters, threshold=0.0)
        ours = {theirs: key for key, theirs in self._theirs.items()}
        return [ours[each["id"]] for each in found["results"]]

    def update(self, memory: Memory) -> object:
        return self._memory.update(self._theirs.get(memory.id, str(uuid.uuid4())), text=memory.text)

    def change(self, memory: Memory) -> None:
        self.update(memory)

    def delete(self, ids: Sequence[str]) -> object:
        return [self._memory.delete(self._theirs.get(each, str(uuid.uuid4()))) for each in ids]

    def metadata(self, memory_id: str) -> dict[str, Any]:
        metadata: dict[str, Any] = self._memory.get(self._theirs[memory_id])["metadata"]
        return metadata

    def close(self) -> None:
        self._memory.close()
        self._folder.cleanup()


STORES: dict[str, Callable[[], Store]] = {
    "agent-memory-inmemory": lambda: Ours("inmemory"),
    "agent-memory-redis": lambda: Ours("redis"),
    "LangChain in-memory": LangChain,
    "langchain-redis": LangChainRedis,
    "mem0": Mem0,
    "Qdrant local": Qdrant,
    "Chroma": Chroma,
    "LangGraph store": LangGraph,
}

MOMENT = datetime.datetime(2026, 5, 16, 12, 30, 15, 123456, tzinfo=datetime.UTC)
