"""What the in-memory backend is compared with, each as a `Store` used as its documentation says.

Each library is given vectors in the form that its own interface asks for, and returns texts and
fields with what it finds (NumPy and FAISS have none).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from material import DIMENSIONS, NEAREST, USERS, Floats, Material, Memory, query_texts
from store import KnownVectors, Store


class BareNumPy(Store):
    """The least that an exact search can do: one product, one selection, no records at all."""

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self._queries = material.queries()
        self._matrix = np.empty((material.records, DIMENSIONS), np.float32)
        self._count = 0

    def prepared(self, memories: Sequence[Memory], vectors: Floats) -> Floats:
        return vectors

    def add(self, batch: Floats) -> None:
        self._matrix[self._count : self._count + len(batch)] = batch
        self._count += len(batch)

    def search(self, query: int) -> list[int]:
        similarities = self._matrix @ self._queries[query]
        found: list[int] = np.argpartition(similarities, -NEAREST)[-NEAREST:].tolist()
        return found


class FaissFlat(Store):
    """FAISS's exact index of inner products; it keeps vectors alone."""

    def __init__(self, material: Material) -> None:
        import faiss

        super().__init__(material)
        self._queries = material.queries()
        self._index = faiss.IndexFlatIP(DIMENSIONS)

    def prepared(self, memories: Sequence[Memory], vectors: Floats) -> Floats:
        return vectors

    def add(self, batch: Floats) -> None:
        self._index.add(batch)

    def search(self, query: int) -> list[int]:
        found: list[int] = self._index.search(self._queries[query : query + 1], NEAREST)[1][
            0
        ].tolist()
        return found


class GivenForLangChain:
    """LangChain's embeddings interface: lists of floats, made on the spot unless they exist."""

    def __init__(self, queries: KnownVectors) -> None:
        self._queries = queries
        self.documents = queries

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        vectors = self.documents.of(texts)
        return vectors if isinstance(vectors, list) else _lists(vectors)

    def embed_query(self, text: str) -> list[float]:
        vector: list[float] = self._queries.one(text).tolist()
        return vector


class LangChain(Store):
    """LangChain's InMemoryVectorStore; the embeddings make lists of arrays, as real ones do."""

    def __init__(self, material: Material) -> None:
        from langchain_core.vectorstores import InMemoryVectorStore

        super().__init__(material)
        self._texts = query_texts()
        self._embeddings: Any = GivenForLangChain(KnownVectors(self._texts, material.queries()))
        self._store = InMemoryVectorStore(self._embeddings)

    def prepared(
        self, memories: Sequence[Memory], vectors: Floats
    ) -> tuple[list[Any], list[str], KnownVectors]:
        from langchain_core.documents import Document

        documents = [
            Document(id=each.id, page_content=each.text, metadata=_fields(each))
            for each in memories
        ]
        known = KnownVectors([each.text for each in memories], self.given(vectors))
        return documents, [each.id for each in memories], known

    def given(self, vectors: Floats) -> Floats | list[list[float]]:
        """Return vectors in the form that the embeddings keep them in."""
        return vectors

    def add(self, batch: tuple[list[Any], list[str], KnownVectors]) -> None:
        documents, ids, self._embeddings.documents = batch
        self._store.add_documents(documents, ids=ids)

    def search(self, query: int) -> list[int]:
        found = self._store.similarity_search_with_score(self._texts[query], k=NEAREST)
        return [document.metadata["number"] for document, _ in found]

    def search_filtered(self, query: int) -> list[int]:
        user = _user(query)
        found = self._store.similarity_search_with_score(
            self._texts[query], k=NEAREST, filter=lambda each: each.metadata["user_id"] == user
        )
        return [document.metadata["number"] for document, _ in found]


class LangChainFromLists(LangChain):
    """The same, with embeddings whose lists of floats exist beforehand."""

    def given(self, vectors: Floats) -> Floats | list[list[float]]:
        return _lists(vectors)


class QdrantLocal(Store):
    """Qdrant's client in its local mode, in memory."""

    def __init__(self, material: Material) -> None:
        from qdrant_client import QdrantClient, models

        super().__init__(material)
        self._queries = material.queries()
        self._models = models
        self._client = QdrantClient(":memory:")
        self._client.create_collection(
            "memories",
            vectors_config=models.VectorParams(size=DIMENSIONS, distance=models.Distance.COSINE),
        )

    def prepared(
        self, memories: Sequence[Memory], vectors: Floats
    ) -> tuple[list[int], list[dict[str, Any]], Floats]:
        payload = [{"id": each.id, "text": each.text, **_fields(each)} for each in memories]
        return [each.number for each in memories], payload, vectors

    def add(self, batch: tuple[list[int], list[dict[str, Any]], Floats]) -> None:
        numbers, payload, vectors = batch
        self._client.upload_collection("memories", vectors=vectors, payload=payload, ids=numbers)

    def search(self, query: int) -> list[int]:
        return self._nearest(query, None)

    def search_filtered(self, query: int) -> list[int]:
        wanted = self._models.FieldCondition(
            key="user_id", match=self._models.MatchValue(value=_user(query))
        )
        return self._nearest(query, self._models.Filter(must=[wanted]))

    def _nearest(self, query: int, query_filter: Any) -> list[int]:
        found = self._client.query_points(
            "memories",
            query=self._queries[query],
            query_filter=query_filter,
            limit=NEAREST,
            with_payload=True,
        )
        return [int(point.id) for point in found.points]


class Chroma(Store):
    """Chroma in the process, in memory; its index is an approximate one, as it comes."""

    def __init__(self, material: Material) -> None:
        import chromadb
        from chromadb.config import Settings

        super().__init__(material)
        self._queries = material.queries()
        client = chromadb.EphemeralClient(Settings(anonymized_telemetry=False))
        # Without an embedding function, which would be downloaded: vectors are given.
        self._collection = client.create_collection(
            "memories", configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
        )

    def prepared(self, memories: Sequence[Memory], vectors: Floats) -> dict[str, Any]:
        return {
            "ids": [each.id for each in memories],
            "embeddings": vectors,
            "documents": [each.text for each in memories],
            # Not every release takes lists as metadata.
            "metadatas": [{**_fields(each), "topics": ",".join(each.topics)} for each in memories],
        }

    def add(self, batch: dict[str, Any]) -> None:
        self._collection.add(**batch)

    def search(self, query: int) -> list[int]:
        return self._nearest(query, None)

    def search_filtered(self, query: int) -> list[int]:
        return self._nearest(query, {"user_id": _user(query)})

    def _nearest(self, query: int, where: Any) -> list[int]:
        found: Any = self._collection.query(
            query_embeddings=self._queries[query : query + 1], n_results=NEAREST, where=where
        )
        return [int(fields["number"]) for fields in found["metadatas"][0]]


def _fields(memory: Memory) -> dict[str, Any]:
    return {
        "number": memory.number,
        "user_id": memory.user_id,
        "session_id": memory.session_id,
        "topics": memory.topics,
        "memory_type": "semantic",
        "created_at": memory.created_at.timestamp(),
    }


def _user(query: int) -> str:
    return f"user-{query % USERS:02d}"


def _lists(vectors: Floats) -> list[list[float]]:
    lists: list[list[float]] = vectors.tolist()
    return lists
