"""A stand-in for a Qdrant server: the REST requests of this backend, answered by Qdrant's engine.

Qdrant publishes its engine for Python (``qdrant-edge-py``), but no server that pip can install.
This puts the one behind HTTP, so that the tests meet the engine's own filters, orders and
conditional writes through the client that a server is reached by. It is no Qdrant server: there is
no gRPC, no cluster, no limit of sizes, and one lock instead of real concurrency.

``python stand_in.py`` prints its port, and serves until its standard input ends. ``python
stand_in.py COMMAND...`` runs a command beside it, with ``@URL@`` and ``@PORT@`` filled in.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import qdrant_edge as edge

VERSION = f"1.20.0+stand.in.edge.{version('qdrant-edge-py')}"
_MOST_OPEN = 30
"""Collections: each has threads of its own, and the kit makes hundreds of them."""
_DISTANCES = {"Dot": edge.Distance.Dot, "Euclid": edge.Distance.Euclid}
_MODES = {"upsert": edge.UpdateMode.Upsert, "update_only": edge.UpdateMode.UpdateOnly}
_DIRECTIONS = {"asc": edge.Direction.Asc, "desc": edge.Direction.Desc}


class Collection:
    """A collection in a folder of its own."""

    def __init__(self, folder: Path, body: dict[str, Any]) -> None:
        self.metadata = body.get("metadata")
        self.vectors = body["vectors"]
        self.schema: dict[str, Any] = {}
        self._folder = folder
        self._open: edge.EdgeShard | None = None

    @property
    def _shard(self) -> edge.EdgeShard:
        if self._open is None:
            self._open = self._loaded() if self._folder.exists() else self._created()
        return self._open

    def _created(self) -> edge.EdgeShard:
        distance = _DISTANCES[self.vectors["distance"]]
        vectors = edge.EdgeVectorParams(self.vectors["size"], distance)
        self._folder.mkdir()
        shard = edge.EdgeShard.create(
            str(self._folder), edge.EdgeConfig(vectors, max_search_threads=1, wal_enabled=False)
        )
        for key, schema in self.schema.items():
            _index(shard, key, schema)
        return shard

    def _loaded(self) -> edge.EdgeShard:
        return edge.EdgeShard.load(str(self._folder))

    def rest(self) -> None:
        """Give back threads and memory until the next request, and the files if nothing is left."""
        if self._open is not None:
            empty = self._open.count(edge.CountRequest()) == 0
            self._open.close()
            self._open = None
            if empty:
                shutil.rmtree(self._folder)

    def info(self) -> dict[str, Any]:
        return {
            "status": "green",
            "optimizer_status": "ok",
            "segments_count": 1,
            "config": {
                "params": {"vectors": self.vectors},
                "hnsw_config": {"m": 0, "ef_construct": 100, "full_scan_threshold": 10_000},
                "optimizer_config": {
                    "deleted_threshold": 0.2,
                    "vacuum_min_vector_number": 1000,
                    "default_segment_number": 0,
                    "flush_interval_sec": 5,
                },
                "metadata": self.metadata,
            },
            "payload_schema": {
                key: {"data_type": _data_type(schema), "points": 0}
                for key, schema in self.schema.items()
            },
        }

    def index(self, body: dict[str, Any]) -> dict[str, Any]:
        key, schema = body["field_name"], body["field_schema"]
        _index(self._shard, key, schema)
        self.schema[key] = schema
        return _DONE

    def upsert(self, body: dict[str, Any]) -> dict[str, Any]:
        new = [edge.Point(each["id"], each["vector"], each["payload"]) for each in body["points"]]
        self._shard.update(
            edge.UpdateOperation.upsert_points(
                new,
                condition=_filter(body["update_filter"]),
                update_mode=_MODES[body["update_mode"]],
            )
        )
        return _DONE

    def delete(self, body: dict[str, Any]) -> dict[str, Any]:
        if "points" in body:
            operation = edge.UpdateOperation.delete_points(body["points"])
        else:
            chosen = _filter(body["filter"])
            assert chosen is not None
            operation = edge.UpdateOperation.delete_points_by_filter(chosen)
        self._shard.update(operation)
        return _DONE

    def retrieve(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        found = self._shard.retrieve(body["ids"], body["with_payload"], body["with_vector"])
        return [_point(each) for each in found]

    def count(self, body: dict[str, Any]) -> dict[str, int]:
        wanted = edge.CountRequest(exact=body["exact"], filter=_filter(body.get("filter")))
        return {"count": self._shard.count(wanted)}

    def query(self, body: dict[str, Any]) -> dict[str, Any]:
        query = body["query"]
        ordered: Any
        if isinstance(query, dict) and "order_by" in query:
            order = query["order_by"]
            ordered = edge.OrderBy(order["key"], _DIRECTIONS[order["direction"]])
        else:
            vector = query["nearest"] if isinstance(query, dict) else query
            ordered = edge.Query.Nearest(vector)
        request = edge.QueryRequest(
            limit=body["limit"],
            offset=body.get("offset") or 0,
            query=ordered,
            with_payload=body["with_payload"],
            with_vector=False,
            filter=_filter(body.get("filter")),
            score_threshold=body.get("score_threshold"),
            params=edge.SearchParams(exact=True),
        )
        return {"points": [_point(each) for each in self._shard.query(request)]}

    def scroll(self, body: dict[str, Any]) -> dict[str, Any]:
        request = edge.ScrollRequest(
            offset=body.get("offset"),
            limit=body["limit"],
            filter=_filter(body.get("filter")),
            with_payload=body["with_payload"],
            with_vector=False,
        )
        found, after = self._shard.scroll(request)
        return {
            "points": [_point(each) for each in found],
            "next_page_offset": None if after is None else str(after),
        }


_DONE = {"operation_id": 0, "status": "completed"}
_REQUESTS: dict[tuple[str, str], Callable[[Collection, dict[str, Any]], Any]] = {
    ("PUT", "index"): Collection.index,
    ("PUT", "points"): Collection.upsert,
    ("POST", "points"): Collection.retrieve,
    ("POST", "points/count"): Collection.count,
    ("POST", "points/delete"): Collection.delete,
    ("POST", "points/query"): Collection.query,
    ("POST", "points/scroll"): Collection.scroll,
}


def _index(shard: edge.EdgeShard, key: str, schema: Any) -> None:
    if isinstance(schema, dict):
        params: Any = edge.KeywordIndexParams(prefix=schema["prefix"])
    else:
        params = getattr(edge.PayloadSchemaType, schema.capitalize())
    shard.update(edge.UpdateOperation.create_field_index(key, params))


def _data_type(schema: Any) -> str:
    return str(schema["type"] if isinstance(schema, dict) else schema)


def _point(found: Any) -> dict[str, Any]:
    point = {"id": str(found.id), "payload": found.payload, "vector": found.vector}
    if isinstance(found, edge.ScoredPoint):
        point |= {"score": found.score, "version": found.version}
    return point


def _filter(body: dict[str, Any] | None) -> edge.Filter | None:
    if body is None:
        return None
    clauses: dict[str, Any] = {
        clause: [_condition(each) for each in conditions]
        for clause, conditions in body.items()
        if conditions is not None
    }
    return edge.Filter(**clauses)


def _condition(body: dict[str, Any]) -> Any:
    if "is_empty" in body and "key" not in body:
        return edge.IsEmptyCondition(body["is_empty"]["key"])
    if "has_id" in body:
        return edge.HasIdCondition(set(body["has_id"]))
    if "key" not in body:
        return _filter(body)
    if body.get("match") is not None:
        match body["match"]:
            case {"any": values}:
                return edge.FieldCondition(body["key"], match=edge.MatchAny(values))
            case {"prefix": prefix}:
                return edge.FieldCondition(body["key"], match=edge.MatchPrefix(prefix))
        raise ValueError(f"match {body['match']}")
    bounds = {name: bound for name, bound in body["range"].items() if bound is not None}
    kind: Any = edge.RangeDateTime if _is_text(bounds) else edge.RangeFloat
    return edge.FieldCondition(body["key"], range=kind(**bounds))


def _is_text(bounds: dict[str, Any]) -> bool:
    return any(isinstance(bound, str) for bound in bounds.values())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    collections: dict[str, Collection] = {}  # noqa: RUF012 - of the process
    lock = threading.Lock()
    folder: Path

    def answer(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, result = self._result(json.loads(text) if text else {})
        key = "result" if status == 200 else "status"
        body = json.dumps({"time": 0.0, "status": "ok", key: result}).encode()
        if urlsplit(self.path).path == "/":
            body = json.dumps(result).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = answer  # noqa: N815 - names of the library

    def _result(self, body: dict[str, Any]) -> tuple[int, Any]:
        path = urlsplit(self.path).path
        if path == "/":
            return 200, {"title": "stand-in", "version": VERSION}
        found = re.fullmatch(r"/collections/([^/]+)(?:/(.+))?", path)
        if not found:
            return 404, {"error": f"no such path: {path}"}
        name, request = unquote(found[1]), found[2]
        with self.lock:
            return self._of_collection(name, request, body)

    def _of_collection(self, name: str, request: str | None, body: Any) -> tuple[int, Any]:
        collection = self.collections.get(name)
        if request == "exists":
            return 200, {"exists": collection is not None}
        if request is None and self.command == "PUT":
            if collection is not None:
                return 409, {"error": f"Collection `{name}` already exists!"}
            folder = self.folder / str(len(self.collections))
            self.collections[name] = Collection(folder, body)
            return 200, True
        if collection is None:
            return 404, {"error": f"Collection `{name}` doesn't exist!"}
        if request is None:
            return 200, collection.info()
        self.collections[name] = self.collections.pop(name)  # the last one used is the last
        for unused in list(self.collections.values())[:-_MOST_OPEN]:
            unused.rest()
        try:
            return 200, _REQUESTS[self.command, request](collection, body)
        except Exception as error:  # as a server would say what it does not take
            return 400, {"error": repr(error)}

    def log_message(self, *_: Any) -> None:
        """Be silent."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, *_: Any) -> None:
        """A client that went away in the middle is what the tests of failures are about."""


@contextmanager
def running() -> Iterator[str]:
    """Run a stand-in in a process of its own, and give its URL."""
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()


def main() -> None:
    # In memory where that is possible: the engine waits for the disk whenever an index is made.
    shared = Path("/dev/shm")
    where = str(shared) if shared.is_dir() else None
    with (
        tempfile.TemporaryDirectory(dir=where) as folder,
        _Server(("127.0.0.1", 0), _Handler) as server,
    ):
        _Handler.folder = Path(folder)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.server_port, flush=True)  # noqa: T201 - for `running`
        sys.stdin.read()
        server.shutdown()


def beside(command: Sequence[str]) -> int:
    """Run ``command`` beside a stand-in, and return its exit code."""
    with running() as url:
        port = url.rpartition(":")[2]
        words = [word.replace("@URL@", url).replace("@PORT@", port) for word in command]
        return subprocess.run(words, check=False).returncode


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit(beside(sys.argv[1:]))
    main()
