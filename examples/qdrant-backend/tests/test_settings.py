"""Options, environment variables and the names of collections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from agent_memory import Capability, InvalidArgumentError
from hypothesis import example, given
from hypothesis import strategies as st

from agent_memory_qdrant import create
from agent_memory_qdrant.settings import collection_name

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=300)
ALIKE = st.text(st.sampled_from("aA%.61=/é"), min_size=1, max_size=4)
"""Names of the characters that the encoding is about, so that they meet."""


@given(NAMES | ALIKE, NAMES | ALIKE)
@example("a", "A")
@example("/", "%2f.")
def test_no_two_spaces_share_a_collection(one: str, other: str) -> None:
    # Also where the file system does not tell capital letters from small ones.
    names = {collection_name(space).casefold() for space in (one, other)}
    assert len(names) == len({one, other})


@given(NAMES)
def test_qdrant_takes_every_name(space: str) -> None:
    name = collection_name(space)
    assert len(name) <= 255
    assert not set(name) & set('<>:"/\\|?*\x00\x1f')


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("url", "localhost"),
        ("url", "redis://localhost"),
        ("url", "http://user:secret@localhost:6333"),
        ("path", ""),
        ("prefer_grpc", "yes"),
        ("timeout", "5"),
        ("timeout", 0),
        ("timeout", float("nan")),
        ("retries", -1),
        ("retries", 1.5),
        ("grpc_port", 0),
        ("shard_number", 0),
        ("replication_factor", True),
        ("read_consistency", "most"),
        ("write_ordering", "any"),
        ("metric", "manhattan"),
    ],
)
def test_an_option_that_cannot_be_honoured_is_refused(
    embeddings: Any, option: str, value: Any
) -> None:
    with pytest.raises(InvalidArgumentError, match=option) as caught:
        create(embeddings, **{option: value})
    assert "secret" not in str(caught.value)


def test_a_space_is_in_one_place(embeddings: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="url and path"):
        create(embeddings, url=":memory:", path=str(tmp_path))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [("http://127.0.0.1:1", "http://127.0.0.1:1"), ("", "http://localhost:6333")],
)
def test_where_the_server_is_if_nothing_is_said(
    embeddings: Any, monkeypatch: pytest.MonkeyPatch, environment: str, expected: str
) -> None:
    monkeypatch.setenv("QDRANT_URL", environment)
    assert create(embeddings)._settings.place == expected


def test_the_key_comes_from_the_environment(
    embeddings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", "from-outside")
    assert create(embeddings, url="https://q.test")._settings.api_key == "from-outside"
    assert create(embeddings, url="https://q.test", api_key="k")._settings.api_key == "k"
    assert "from-outside" not in repr(create(embeddings, url="https://q.test")._settings)


def test_what_is_declared_depends_on_the_place(embeddings: Any, tmp_path: Path) -> None:
    assert create(embeddings, url=":memory:").capabilities == frozenset()
    assert create(embeddings, path=str(tmp_path)).capabilities == {Capability.PERSISTENT}
    assert create(embeddings, url="http://q.test").capabilities == {
        Capability.PERSISTENT,
        Capability.SHARED,
    }
