"""Options and environment variables, checked, and the connection that they describe."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from agent_memory import InvalidArgumentError

from agent_memory_qdrant.connection import Connection, LocalConnection, ServerConnection

MEMORY: Final = ":memory:"
_DEFAULT_URL: Final = "http://localhost:6333"
_CONSISTENCY: Final = ("majority", "quorum", "all")
_ORDERING: Final = ("weak", "medium", "strong")
_LONGEST_NAME: Final = 200


def url_from_environment() -> str:
    """Return the server that is meant if nothing is said."""
    return os.environ.get("QDRANT_URL") or _DEFAULT_URL


def key_from_environment() -> str | None:
    """Return the key of the server, if there is one."""
    return os.environ.get("QDRANT_API_KEY") or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `agent_memory_qdrant.create` was asked for; its docstring tells what each means.

    Raises:
        InvalidArgumentError: an option cannot be honoured.
    """

    url: str | None
    api_key: str | None = field(repr=False)
    path: str | None
    prefer_grpc: bool
    grpc_port: int
    timeout: float
    retries: int
    shard_number: int | None
    replication_factor: int | None
    write_consistency_factor: int | None
    read_consistency: int | str | None
    write_ordering: str | None

    def __post_init__(self) -> None:
        if self.url is not None and self.path is not None:
            raise InvalidArgumentError("url and path are both given: a space is in one place")
        if self.url is not None and self.url != MEMORY:
            parts = urlsplit(self.url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise InvalidArgumentError(
                    f"url: expected http://HOST:PORT, https://HOST:PORT or {MEMORY}"
                )
            if parts.username or parts.password:
                raise InvalidArgumentError(
                    "url: Qdrant knows no users and passwords; give the key as api_key"
                )
        if self.path is not None and not self.path:
            raise InvalidArgumentError("path: expected the name of a folder")
        if type(self.prefer_grpc) is not bool:
            raise InvalidArgumentError(f"prefer_grpc={self.prefer_grpc!r}: expected true or false")
        if type(self.timeout) not in (int, float) or not 0 < self.timeout < float("inf"):
            raise InvalidArgumentError(f"timeout={self.timeout!r}: expected seconds, more than 0")
        _check_whole("grpc_port", self.grpc_port, least=1)
        _check_whole("retries", self.retries, least=0)
        for name in ("shard_number", "replication_factor", "write_consistency_factor"):
            if getattr(self, name) is not None:
                _check_whole(name, getattr(self, name), least=1)
        if self.read_consistency is not None and self.read_consistency not in _CONSISTENCY:
            _check_whole("read_consistency", self.read_consistency, least=1, or_else=_CONSISTENCY)
        if self.write_ordering is not None and self.write_ordering not in _ORDERING:
            raise InvalidArgumentError(
                f"write_ordering={self.write_ordering!r}: expected one of {', '.join(_ORDERING)}"
            )

    @property
    def place(self) -> str:
        """Where the data is, for messages."""
        return self.path if self.path is not None else str(self.url)

    def connection(self, space: str) -> Connection:
        """Return a connection that is not open yet."""
        if self.path is not None:
            # A folder for each space: local mode locks a whole folder for one owner.
            return LocalConnection(Path(self.path).absolute() / collection_name(space))
        if self.url == MEMORY:
            return LocalConnection(None)
        return ServerConnection(
            timeout=self.timeout,
            retries=self.retries,
            url=self.url,
            api_key=self.api_key,
            prefer_grpc=self.prefer_grpc,
            grpc_port=self.grpc_port,
        )


def collection_name(space: str) -> str:
    """Return the name of the collection that holds a space; no two spaces share one.

    Capital letters are written as numbers, because file systems may not tell them from small ones.
    """
    plain = re.sub(r"[^a-z0-9_-]", lambda found: f"%{ord(found[0]):x}.", space)
    if len(plain) > _LONGEST_NAME:
        plain = "sha256=" + hashlib.sha256(space.encode()).hexdigest()
    return f"agent-memory={plain}"


def _check_whole(name: str, value: object, *, least: int, or_else: tuple[str, ...] = ()) -> None:
    if type(value) is not int or value < least:
        others = f", or one of {', '.join(or_else)}" if or_else else ""
        raise InvalidArgumentError(
            f"{name}={value!r}: expected a whole number, {least} or more{others}"
        )
