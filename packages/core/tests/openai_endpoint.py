"""An OpenAI-compatible ``/v1/embeddings`` server on loopback, told by the test how to behave.

It speaks real HTTP, so that the client under test is the real one. Its vectors carry no meaning:
`vector_of` gives each text a vector of its own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Request:
    """What a client sent."""

    path: str
    key: str
    """The API key, taken from the header ``Authorization: Bearer ...``."""
    body: dict[str, Any]
    arrived: float
    """Seconds of the monotonic clock."""

    @property
    def texts(self) -> list[str]:
        texts: list[str] = self.body["input"]
        return texts


class Reply(NamedTuple):
    status: int
    body: bytes
    headers: dict[str, str]


Behaviour = Callable[[Request], Reply]


def vector_of(text: str, dimensions: int) -> list[float]:
    """Return numbers from -1 to 1 that float32 holds exactly, so that they survive the wire."""
    digest = hashlib.shake_256(text.encode()).digest(dimensions)
    return [(byte - 127.5) / 128 for byte in digest]


def embeddings(dimensions: int = 8) -> Behaviour:
    """Answer properly; a request that asks for ``dimensions`` gets as many."""

    def reply(request: Request) -> Reply:
        size = request.body.get("dimensions") or dimensions
        return _vectors(request, [vector_of(text, size) for text in request.texts])

    return reply


def vectors(make: Callable[[Sequence[str]], list[list[float]]]) -> Behaviour:
    """Answer with whatever vectors ``make`` returns for the texts, right or wrong."""
    return lambda request: _vectors(request, make(request.texts))


def backwards(dimensions: int = 8) -> Behaviour:
    """Answer properly, the last text first: only ``index`` tells which vector is whose."""

    def reply(request: Request) -> Reply:
        answer = json.loads(embeddings(dimensions)(request).body)
        answer["data"].reverse()
        return _json(200, answer)

    return reply


def indexed(*indices: int, dimensions: int = 8) -> Behaviour:
    """Answer properly, but number the vectors like this."""

    def reply(request: Request) -> Reply:
        answer = json.loads(embeddings(dimensions)(request).body)
        for entry, index in zip(answer["data"], indices, strict=True):
            entry["index"] = index
        return _json(200, answer)

    return reply


def failure(status: int, message: str = "no", *, retry_after: str | None = None) -> Behaviour:
    """Refuse, in the words that OpenAI wraps its refusals in."""
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    body = {"error": {"message": message, "type": "error", "param": None, "code": None}}
    return lambda request: _json(status, body, headers)


def raw(body: bytes) -> Behaviour:
    """Answer 200 with this body, whatever it is."""
    return lambda request: Reply(200, body, {"Content-Type": "application/json"})


def hang_up(request: Request) -> Reply:
    """Close the connection without an answer."""
    raise ConnectionAbortedError


def slow(seconds: float, then: Behaviour | None = None) -> Behaviour:
    """Take a while."""

    def reply(request: Request) -> Reply:
        time.sleep(seconds)
        return (then or embeddings())(request)

    return reply


@dataclass
class Endpoint:
    """The running server: what it shall do, and what it saw."""

    url: str
    """The ``api_base`` for a client."""
    usual: Behaviour = field(default_factory=embeddings)
    """How requests are answered when ``upcoming`` is empty."""
    upcoming: list[Behaviour] = field(default_factory=list)
    """How the next requests are answered, one each."""
    requests: list[Request] = field(default_factory=list)
    most_at_once: int = 0
    """The largest number of requests that were being answered at the same time."""
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def _answer(self, request: Request) -> Reply:
        with self._lock:
            self.requests.append(request)
            behaviour = self.upcoming.pop(0) if self.upcoming else self.usual
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return behaviour(request)
        finally:
            with self._lock:
                self._at_once -= 1


@contextmanager
def serve() -> Iterator[Endpoint]:
    """Run an endpoint on a free port of loopback until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10
        disable_nagle_algorithm = True  # headers and body are two writes, 40 ms apart otherwise

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            key = self.headers.get("Authorization", "").removeprefix("Bearer ")
            try:
                reply = endpoint._answer(Request(self.path, key, body, time.monotonic()))
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)
            except ConnectionError:  # `hang_up`, or a client that gave up waiting
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Keep the output of the tests free of one line a request."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Handler) as server:
        endpoint = Endpoint(url=f"http://127.0.0.1:{server.server_port}/v1")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield endpoint
        finally:
            server.shutdown()
            thread.join()


def _vectors(request: Request, vectors: list[list[float]]) -> Reply:
    encoded = request.body.get("encoding_format") == "base64"
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(struct.pack(f"<{len(each)}f", *each)).decode()
            if encoded
            else each,
        }
        for index, each in enumerate(vectors)
    ]
    usage = {"prompt_tokens": len(vectors), "total_tokens": len(vectors)}
    body = {"object": "list", "data": data, "model": request.body["model"], "usage": usage}
    return _json(200, body)


def _json(status: int, body: Any, headers: dict[str, str] | None = None) -> Reply:
    return Reply(
        status, json.dumps(body).encode(), {"Content-Type": "application/json"} | (headers or {})
    )
