"""The engine: records, filters and words in SQLite, vectors in a `Matrix`, kept in step.

Synchronous, and used by one thread alone. SQLite holds the truth; the matrix is what of it has to
be fast. A write commits to SQLite first and reaches the matrix then, with everything that could
fail done before. Row numbers tie the two together.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, compress, islice
from pathlib import Path
from typing import Any, NamedTuple
from unicodedata import unidata_version
from uuid import uuid4

import numpy as np

from agent_memory import BackendError, MemoryRecord, RecencyParams
from agent_memory.backend import (
    Columns,
    Fingerprint,
    Hit,
    HybridQuery,
    KeywordQuery,
    Listing,
    Metric,
    PackedVectors,
    Ranking,
    Replaced,
    Rows,
    SemanticQuery,
    Vector,
    Window,
)
from agent_memory.filters import TIME_FIELDS
from agent_memory.keywords import Keywords, terms_of
from agent_memory.predicates import OneOf, Predicate
from agent_memory.scope import Scope
from agent_memory_inmemory.graph import WORTHWHILE, Graph
from agent_memory_inmemory.matrix import Doubles, Floats, Matrix, Neighbours, RowNumbers
from agent_memory_inmemory.predicates import ELEMENT_FIELDS, condition_for
from agent_memory_inmemory.records import (
    COLUMNS,
    from_rows,
    list_from_json,
    to_columns,
    to_datetime,
)

SCHEMA_VERSION = 1
_APPLICATION_ID = 0x41474D4D  # "AGMM", in the header of every file of ours
_LOCK_SECONDS = 2.0
_PART_ROWS = 1_024
_BATCH = 500

_SCHEMA = """
CREATE TABLE fingerprint (model TEXT NOT NULL, dimensions INTEGER NOT NULL, metric TEXT NOT NULL);
CREATE TABLE records (
    row INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    text TEXT NOT NULL,
    session_id TEXT,
    user_id TEXT,
    namespace TEXT,
    memory_type TEXT NOT NULL,
    topics TEXT,
    entities TEXT,
    extracted_from TEXT,
    metadata TEXT,
    event_date INTEGER,
    created_at INTEGER NOT NULL,
    last_accessed INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    persisted_at INTEGER,
    pinned INTEGER NOT NULL DEFAULT 0,
    access_count INTEGER NOT NULL DEFAULT 0,
    memory_hash TEXT NOT NULL,
    discrete_memory_extracted TEXT NOT NULL DEFAULT 'f',
    extraction_strategy TEXT NOT NULL DEFAULT 'discrete',
    extraction_strategy_config TEXT
);
"""
_ELEMENTS = """
CREATE TABLE elements (
    field INTEGER, value TEXT, row INTEGER, PRIMARY KEY (field, value, row)
) WITHOUT ROWID
"""
_DURABLE_SCHEMA = """
CREATE TABLE vectors (row INTEGER PRIMARY KEY, vector BLOB NOT NULL);
CREATE TABLE saved_graph (name TEXT NOT NULL);
"""

_WORDS_COLUMN = f"unicode_{unidata_version.replace('.', '_')}"
_WORDS = (
    f"CREATE VIRTUAL TABLE words USING fts5 ({_WORDS_COLUMN}, content = '', tokenize = 'ascii')"
)
"""FTS5 knows the Unicode of 2012, to which a newer emoji is a letter. So it gets terms found here,
blanks between them, to compare as they are. A text must leave with the terms that it came with, so
the column is named after the Unicode that they were found by; see `Engine._load`."""
_INSERT_WORDS = f"INSERT INTO words (rowid, {_WORDS_COLUMN}) VALUES (?, ?)"
_DELETE_WORDS = f"INSERT INTO words (words, rowid, {_WORDS_COLUMN}) VALUES ('delete', ?, ?)"

_INDEXES = {
    name: f"CREATE INDEX by_{name} ON records ({name}) WHERE {name} IS NOT NULL"
    for name in ("session_id", "user_id", "namespace", "memory_hash", *TIME_FIELDS)
}
_INDEXES["listing"] = "CREATE INDEX by_listing ON records (created_at DESC, id)"
"""What makes reading fast, made when it is first of use: bulk loads are several times as fast."""

_SELECT = f"SELECT {', '.join(COLUMNS)} FROM records"
_LISTED = "ORDER BY created_at DESC, id"
_ROWS_AT_ONCE = 50
"""So many rows in one statement take a tenth to a fifth less time than in as many statements."""
_INSERT_ELEMENT = "INSERT OR IGNORE INTO elements (field, value, row) VALUES (?, ?, ?)"


class _IdTakenError(Exception):
    """A record that was taken for new has an id that exists."""


class _Held(NamedTuple):
    """What has to be known of a stored record to replace or delete it."""

    row: int
    text: str
    topics: str | None
    entities: str | None
    extracted_from: str | None
    namespace: str | None
    user_id: str | None
    session_id: str | None

    def within(self, scope: Scope) -> bool:
        return all(getattr(self, name) == value for name, value in scope.fields.items())


class Engine:
    """One open space. Make it with `Engine.open`."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        fingerprint: Fingerprint,
        *,
        file: Path | None,
        graph: Graph | None,
    ) -> None:
        self.fingerprint = fingerprint
        """What the space remembers of its vectors."""
        self._connection = connection
        self._file = file
        self._matrix = Matrix(fingerprint.dimensions, fingerprint.metric)
        self._graph = graph
        self._saved_graph: Path | None = None
        """The file of the graph as it is, if it was saved since the last change."""
        self._next_row = 1
        self._free_rows: list[int] = []
        """Row numbers below ``_next_row`` that deleted records have left."""
        self._indexes = {
            name.removeprefix("by_")
            for (name,) in connection.execute("SELECT name FROM sqlite_schema")
        }
        """The indexes made so far, ``words`` among them."""
        self._analyzed_at = 0
        """How many records there were when SQLite last counted what its indexes are worth."""

    @classmethod
    def open(cls, file: Path | None, fingerprint: Fingerprint, *, approximate: bool) -> Engine:
        """Open the space in ``file``, or a new one in memory; a new one gets ``fingerprint``."""
        graph = Graph(fingerprint.dimensions, fingerprint.metric) if approximate else None
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            file or ":memory:", isolation_level=None, timeout=_LOCK_SECONDS
        )
        try:
            stored = _prepared_file(connection, fingerprint, durable=file is not None)
            fits = stored == fingerprint  # if not, the space is only asked for its fingerprint
            engine = cls(connection, stored, file=file, graph=graph if fits else None)
            if file is not None and fits:
                engine._load()
        except BaseException:
            connection.close()
            raise
        return engine

    def close(self) -> None:
        """Save the graph and close the file."""
        try:
            self._save_graph()
        finally:
            self._connection.close()

    # --- writing -----------------------------------------------------------------------------

    def put(self, rows: Rows, scope: Scope | None) -> Sequence[str]:
        """Insert or replace; with a scope, return the ids that records outside it hold."""
        try:
            # Most are new, and to ask first costs half as much again as to insert them.
            self._store(rows, {})
        except _IdTakenError:
            return self._put_over(rows, scope)
        return ()

    def _put_over(self, rows: Rows, scope: Scope | None) -> Sequence[str]:
        held = self._held(rows.columns["id"])
        if scope is not None:
            outside = [memory_id for memory_id, old in held.items() if not old.within(scope)]
            if outside:
                return outside
        self._store(rows, held)
        return ()

    def replace(self, rows: Rows, scope: Scope | None) -> Replaced:
        """Replace what exists (in the scope)."""
        ids, texts = rows.columns["id"], rows.columns["text"]
        held = self._held(ids)
        fresh, stale = [], []
        for position, memory_id in enumerate(ids):
            old = held.get(memory_id)
            if old is None or (scope is not None and not old.within(scope)):
                continue
            if rows.vectors[position] is None and old.text != texts[position]:
                stale.append(memory_id)
            else:
                fresh.append(position)
        if fresh:
            self._store(rows.take(fresh), held)
        return Replaced(len(fresh), stale)

    def remove(self, ids: Sequence[str], scope: Scope | None) -> int:
        """Delete what exists (in the scope) and return how many records that was."""
        held = [each for each in self._held(ids).values() if scope is None or each.within(scope)]
        if not held:
            return 0
        numbers = [each.row for each in held]
        with self._change():
            self._forget_words_and_elements(held)
            for table in ("records", "vectors") if self._file else ("records",):
                self._connection.executemany(
                    f"DELETE FROM {table} WHERE row = ?",
                    zip(numbers),
                )
        self._matrix.remove(np.array(numbers, np.int64))
        if self._graph is not None:
            self._graph.remove(np.array(numbers, np.int64))
        self._free_rows.extend(numbers)
        return len(held)

    def _store(self, rows: Rows, held: Mapping[str, _Held]) -> None:
        """Write ``rows``, all or nothing; ``held`` are the records that they replace."""
        columns = rows.columns
        replaced = [held[each] for each in columns["id"] if each in held] if held else []
        numbers, free_rows, next_row = self._numbers_for(columns["id"], held)
        embedded, vectors = _embedded(numbers, rows.vectors)
        self._matrix.reserve(next_row, len(numbers) - len(replaced))
        with self._change():
            self._forget_words_and_elements(replaced)
            # In parts, so that what is needed on the way stays small, and in the cache.
            for start in range(0, len(numbers), _PART_ROWS):
                stop = start + _PART_ROWS
                self._insert(numbers[start:stop], columns.part(start, stop), over=bool(replaced))
            if self._file:
                self._connection.executemany(
                    "INSERT OR REPLACE INTO vectors (row, vector) VALUES (?, ?)",
                    zip(embedded, vectors, strict=True),
                )
        self._free_rows, self._next_row = free_rows, next_row
        for start in range(0, len(embedded), _PART_ROWS):
            part = slice(start, start + _PART_ROWS)
            self._learn(embedded[part], vectors[part])
        self._analyze_if_grown()

    def _insert(self, numbers: Sequence[int], records: Columns, *, over: bool) -> None:
        """Write records into the tables, with ``over`` in place of those of the same numbers."""
        columns = to_columns(records)
        verb = "INSERT OR REPLACE" if over else "INSERT"
        try:
            self._insert_columns(
                f"{verb} INTO records (row, {', '.join(columns)})", [numbers, *columns.values()]
            )
        except sqlite3.IntegrityError as error:
            raise _IdTakenError from error
        if "words" in self._indexes:
            self._connection.executemany(
                _INSERT_WORDS, zip(numbers, map(_words, records["text"]), strict=True)
            )
        if "elements" in self._indexes:
            self._connection.executemany(
                _INSERT_ELEMENT,
                (
                    (field, value, number)
                    for name, field in ELEMENT_FIELDS.items()
                    for number, values in zip(numbers, records[name], strict=True)
                    for value in values or ()
                ),
            )

    def _insert_columns(self, insert: str, columns: Sequence[Sequence[Any]]) -> None:
        """Insert what stands side by side in ``columns``."""
        # Row by row out of one iterator, as objects that stay till the end make the garbage
        # collector look at everything the more often.
        values = chain.from_iterable(zip(*columns, strict=True))
        groups, others = divmod(len(columns[0]), _ROWS_AT_ONCE)
        one = f"(?{', ?' * (len(columns) - 1)})"
        for rows, times in ((_ROWS_AT_ONCE, groups), (1, others)):
            self._connection.executemany(
                f"{insert} VALUES {', '.join([one] * rows)}",
                (tuple(islice(values, rows * len(columns))) for _ in range(times)),
            )

    def _learn(
        self, numbers: Sequence[int], packed: Sequence[Vector | bytes], *, linked: bool = False
    ) -> None:
        """Take vectors in, each with its row number; ``linked`` if the graph has them already."""
        rows = np.array(numbers, np.int64)
        if isinstance(packed, PackedVectors):
            vectors = _as_array(packed.buffer)
        else:
            vectors = np.frombuffer(b"".join(packed), np.float32)
        vectors = vectors.reshape(len(rows), self.fingerprint.dimensions)
        self._matrix.put(rows, vectors)
        if self._graph is not None and not linked:
            self._graph.put(rows, vectors)

    def _numbers_for(
        self, ids: Sequence[str], held: Mapping[str, _Held]
    ) -> tuple[list[int], list[int], int]:
        """Return a row number for each id, and what the free ones and the next one are then."""
        free_rows, next_row = self._free_rows.copy(), self._next_row
        if not held and not free_rows:  # as while loading
            return [*range(next_row, next_row + len(ids))], free_rows, next_row + len(ids)
        numbers = []
        for each in ids:
            old = held.get(each)
            if old is not None:
                numbers.append(old.row)
            elif free_rows:
                numbers.append(free_rows.pop())
            else:
                numbers.append(next_row)
                next_row += 1
        return numbers, free_rows, next_row

    def _held(self, ids: Sequence[str]) -> dict[str, _Held]:
        with self._where(OneOf("id", tuple(ids))) as (condition, parameters):
            found = self._connection.execute(
                f"SELECT id, {', '.join(_Held._fields)} FROM records WHERE {condition}",
                parameters,
            ).fetchall()
        return {memory_id: _Held(*values) for memory_id, *values in found}

    def _forget_words_and_elements(self, held: Sequence[_Held]) -> None:
        """Take records out of the indexes that must be told what was in them."""
        if "words" in self._indexes:
            self._connection.executemany(
                _DELETE_WORDS,
                ((each.row, _words(each.text)) for each in held),
            )
        if "elements" in self._indexes:
            self._connection.executemany(
                "DELETE FROM elements WHERE field = ? AND value = ? AND row = ?",
                (
                    (field, value, each.row)
                    for each in held
                    for name, field in ELEMENT_FIELDS.items()
                    for value in list_from_json(getattr(each, name))
                ),
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _analyze_if_grown(self) -> None:
        """Let SQLite count again what its indexes are worth once there is twice as much."""
        count = len(self._matrix)
        if count >= max(1_000, 2 * self._analyzed_at):
            self._connection.execute("ANALYZE")
            self._analyzed_at = count

    # --- reading -----------------------------------------------------------------------------

    def fetch(self, ids: Sequence[str]) -> list[MemoryRecord]:
        """Return the records with these ids."""
        with self._where(OneOf("id", tuple(ids))) as (condition, parameters):
            rows = self._connection.execute(f"{_SELECT} WHERE {condition}", parameters)
            return from_rows(rows)

    def count(self, where: Predicate | None) -> int:
        """Return how many records match."""
        if where is None:
            return len(self._matrix)
        with self._where(where) as (condition, parameters):
            (count,) = self._connection.execute(
                f"SELECT count(*) FROM records WHERE {condition}",
                parameters,
            ).fetchone()
        return int(count)

    def page(self, where: Predicate | None, *, offset: int, limit: int) -> Listing:
        """Return one page in the order of LST-1."""
        total = self.count(where)
        if offset >= total:
            return Listing([], total)
        self._ensure_index("listing")
        with self._where(where) as (condition, parameters):
            rows = self._connection.execute(
                f"{_SELECT} WHERE {condition} {_LISTED} LIMIT ? OFFSET ?",
                [*parameters, limit, offset],
            )
            return Listing(from_rows(rows), total)

    def list_ids(self, where: Predicate | None) -> Sequence[str]:
        """Return the ids of all that match, in the order of LST-1."""
        self._ensure_index("listing")
        with self._where(where) as (condition, parameters):
            rows = self._connection.execute(
                f"SELECT id FROM records WHERE {condition} {_LISTED}",
                parameters,
            )
            return [memory_id for (memory_id,) in rows]

    def rank_semantic(self, query: SemanticQuery) -> Ranking:
        """Return the nearest."""
        window = query.window
        nearest = self._nearest(query, window)
        return self._ranking(nearest, np.arange(len(nearest.rows)), window)

    def rank_recent(self, query: SemanticQuery, recency: RecencyParams) -> Ranking:
        """Return the nearest, the first of them ranked by recency as well."""
        window = query.window
        reach = Window(0, max(window.offset + window.limit, recency.candidates), window.with_total)
        nearest = self._nearest(query, reach)
        candidates = nearest.rows[: recency.candidates]
        distances = nearest.distances[: recency.candidates].tolist()
        ages = self._columns(("last_accessed", "created_at"), candidates)
        now = recency.reference_time()
        boosted = [
            recency.boosted(
                self.fingerprint.metric.score(dist),
                last_accessed=to_datetime(last_accessed),
                created_at=to_datetime(created_at),
                now=now,
            )
            for dist, (last_accessed, created_at) in zip(distances, ages, strict=True)
        ]
        # Sorting is stable, so equal ones stay in the order of distance and id.
        first = np.argsort(-np.array(boosted), kind="stable")
        order = np.concatenate((first, np.arange(len(candidates), len(nearest.rows))))
        page = order[window.offset : window.offset + window.limit].astype(np.int64)
        return self._ranking(nearest, page, window)

    def rank_keyword(self, query: KeywordQuery) -> Ranking:
        """Return those that hold the keywords, by BM25."""
        window = query.window
        rows, scores = self._keyword_scores(query.keywords, query.where)
        places = self._places(rows, [-scores], window)
        hits = [
            Hit(record, None, score)
            for record, score in zip(
                self._records(rows[places]), scores[places].tolist(), strict=True
            )
        ]
        return Ranking(hits, len(rows) if window.with_total else None)

    def rank_hybrid(self, query: HybridQuery) -> Ranking:
        """Return all that match, by both scores."""
        window, vector = query.window, _as_array(query.vector)
        matching = self._rows(query.where)
        lexical = np.zeros(len(matching))
        held, scores = self._keyword_scores(query.keywords, query.where)
        lexical[np.searchsorted(matching, held)] = scores
        likely = self._likely_best(query, vector, matching, lexical)
        rows = matching[likely]
        distances = self._matrix.distances(vector, rows)
        combined = (
            query.alpha * self._matrix.scores(distances) + (1 - query.alpha) * lexical[likely]
        )
        places = self._places(rows, [-combined, distances], window)
        hits = [
            Hit(*each)
            for each in zip(
                self._records(rows[places]),
                distances[places].tolist(),
                combined[places].tolist(),
                strict=True,
            )
        ]
        return Ranking(hits, len(matching) if window.with_total else None)

    def _nearest(self, query: SemanticQuery, window: Window) -> Neighbours:
        """Return the neighbours that fall into ``window``, in order."""
        vector = _as_array(query.vector)
        if (
            self._graph is not None
            and query.where is None
            and query.max_distance is None
            and len(self._matrix) >= WORTHWHILE
        ):
            return self._nearest_by_graph(self._graph, vector, window)
        rows, distances, within = self._matrix.nearest(
            vector,
            window.offset + window.limit,
            rows=None if query.where is None else self._rows(query.where),
            max_distance=query.max_distance,
        )
        places = self._places(rows, [distances], window)
        return Neighbours(rows[places], distances[places], within)

    def _nearest_by_graph(self, graph: Graph, vector: Floats, window: Window) -> Neighbours:
        """Return what falls into ``window`` of: the graph's candidates, then all others exactly.

        The candidates are the same for every page of a query, so pages neither overlap nor miss.
        """
        candidates = graph.candidates(vector)
        end = window.offset + window.limit
        first = Window(0, min(end, len(candidates)), with_total=False)
        rows, distances = self._in_order(vector, candidates, first)
        if end > len(candidates):
            others, farther = self._in_order(vector, None, Window(0, end, with_total=False))
            new = ~np.isin(others, candidates)
            rows = np.concatenate((rows, others[new]))
            distances = np.concatenate((distances, farther[new]))
        part = slice(window.offset, end)
        return Neighbours(rows[part], distances[part], len(self._matrix))

    def _in_order(
        self, vector: Floats, rows: RowNumbers | None, window: Window
    ) -> tuple[RowNumbers, Doubles]:
        """Return the nearest of ``rows``, or of all, that fall into ``window``, with distances."""
        end = window.offset + window.limit
        found = self._matrix.nearest(vector, end, rows=rows, max_distance=None)
        places = self._places(found.rows, [found.distances], window)
        return found.rows[places], found.distances[places]

    def _ranking(self, nearest: Neighbours, places: RowNumbers, window: Window) -> Ranking:
        records = self._records(nearest.rows[places])
        distances = nearest.distances[places].tolist()
        hits = [Hit(*pair) for pair in zip(records, distances, strict=True)]
        return Ranking(hits, nearest.within if window.with_total else None)

    def _likely_best(
        self, query: HybridQuery, vector: Floats, rows: RowNumbers, lexical: Doubles
    ) -> RowNumbers:
        """Return the positions in ``rows`` of all that can be within the window of a hybrid query.

        From estimated distances follow the least and the greatest score that each can have. The
        window ends at the count-th greatest of the least scores; of those that certainly tie with
        it (no score by meaning, the same words) only the near ones matter.
        """
        count = query.window.offset + query.window.limit
        if count >= len(rows):
            return np.arange(len(rows))
        estimates, error = self._matrix.estimates(vector, rows)
        worst, best = (
            query.alpha * self._matrix.scores(estimates + sign * error)
            + (1 - query.alpha) * lexical
            for sign in (1, -1)
        )
        end = np.lexsort((estimates, -worst))[count - 1]
        ties = (best == worst[end]) & (worst == best)
        farther = estimates > estimates[end] + 2 * error
        return np.flatnonzero((best >= worst[end]) & ~(ties & farther))

    def _keyword_scores(
        self, keywords: Keywords, where: Predicate | None
    ) -> tuple[RowNumbers, Doubles]:
        """Return the rows that hold the keywords, and their scores: BM25, the greatest made 1.0."""
        if not keywords.terms:
            return np.empty(0, np.int64), np.empty(0)
        self._ensure_words()
        # The + keeps SQLite from looking the words up again for each of the rows.
        filtered = "" if where is None else "AND +rowid IN (SELECT row FROM records WHERE {})"
        with self._where(where) as (condition, parameters):
            found = self._connection.execute(
                "SELECT rowid, bm25(words) FROM words WHERE words MATCH ? "
                + filtered.format(condition),
                [_match_expression(keywords), *parameters],
            ).fetchall()
        if not found:
            return np.empty(0, np.int64), np.empty(0)
        rows, ranks = zip(*found, strict=True)
        scores = -np.array(ranks)  # SQLite's bm25() is less the better, and never positive
        return np.array(rows, np.int64), scores / scores.max()

    def _places(self, rows: RowNumbers, keys: Sequence[Doubles], window: Window) -> RowNumbers:
        """Return the positions of ``rows`` that fall into ``window``: by ``keys``, ties by id."""
        end = window.offset + window.limit
        first = keys[0]
        if (first[1:] > first[:-1]).all():  # in order already, and nothing ties
            return np.arange(window.offset, min(end, len(rows)))
        order = np.lexsort(keys[::-1])
        changes = np.zeros(max(len(order) - 1, 0), bool)
        for key in keys:
            changes |= key[order[1:]] != key[order[:-1]]
        # Runs of equal keys, of which only those that reach into the window need their ids.
        starts = np.concatenate(([0], np.flatnonzero(changes) + 1, [len(order)]))
        for start, stop in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            if start >= end:
                break
            if stop - start > 1 and stop > window.offset:
                tied = order[start:stop]
                order[start:stop] = tied[_order_of(self._ids(rows[tied]))]
        return order[window.offset : end]

    def _ids(self, rows: RowNumbers) -> list[str]:
        """Return the ids of ``rows``, in their order."""
        return [memory_id for (memory_id,) in self._columns(("id",), rows)]

    def _records(self, rows: RowNumbers) -> list[MemoryRecord]:
        """Return the records of ``rows``, in their order."""
        return from_rows(self._columns(COLUMNS, rows))

    def _columns(self, names: Sequence[str], rows: RowNumbers) -> list[Sequence[Any]]:
        """Return the named columns of each of ``rows``, in their order."""
        numbers = rows.tolist()
        found: dict[int, Sequence[Any]] = {}
        for start in range(0, len(numbers), _BATCH):
            batch = numbers[start : start + _BATCH]
            # Bound, so that the statement is the same for each page and not parsed again.
            for row, *values in self._connection.execute(
                f"SELECT row, {', '.join(names)} FROM records "
                f"WHERE row IN ({', '.join('?' * len(batch))})",
                batch,
            ):
                found[row] = values
        return [found[number] for number in numbers]

    def _rows(self, where: Predicate | None) -> RowNumbers:
        """Return the rows that match, ascending."""
        with self._where(where) as (condition, parameters):
            found = self._connection.execute(
                f"SELECT row FROM records WHERE {condition}",
                parameters,
            ).fetchall()
        return np.sort(np.fromiter((row for (row,) in found), np.int64, len(found)))

    def _ensure_index(self, name: str) -> None:
        if name not in self._indexes:
            with self._transaction():
                self._connection.execute(_INDEXES[name])
                self._connection.execute("ANALYZE")
            self._indexes.add(name)

    def _ensure_elements(self) -> None:
        if "elements" not in self._indexes:
            with self._transaction():
                self._connection.execute(_ELEMENTS)
                lists = self._connection.execute(
                    f"SELECT row, {', '.join(ELEMENT_FIELDS)} FROM records"
                )
                self._connection.executemany(
                    _INSERT_ELEMENT,
                    (
                        (field, value, row)
                        for row, *texts in lists
                        for field, text in zip(ELEMENT_FIELDS.values(), texts, strict=True)
                        for value in list_from_json(text)
                    ),
                )
                self._connection.execute("ANALYZE")
            self._indexes.add("elements")

    def _ensure_words(self) -> None:
        if "words" not in self._indexes:
            with self._transaction():
                self._connection.execute(_WORDS)
                texts = self._connection.execute("SELECT row, text FROM records")
                self._connection.executemany(
                    _INSERT_WORDS, ((row, _words(text)) for row, text in texts)
                )
            self._indexes.add("words")

    @contextmanager
    def _where(self, predicate: Predicate | None) -> Iterator[tuple[str, list[Any]]]:
        """Give a condition and the values that it binds; its long lists are there meanwhile."""
        condition = condition_for(predicate)
        if condition.columns & ELEMENT_FIELDS.keys():
            self._ensure_elements()
        for column in condition.columns & _INDEXES.keys():
            self._ensure_index(column)
        try:
            for number, values in enumerate(condition.value_lists):
                self._connection.executemany(
                    "INSERT OR IGNORE INTO temp.value_lists (list, value) VALUES (?, ?)",
                    ((number, value) for value in values),
                )
            yield condition.sql, condition.parameters
        finally:
            if condition.value_lists:
                self._connection.execute("DELETE FROM temp.value_lists")

    # --- opening -----------------------------------------------------------------------------

    def _load(self) -> None:
        """Fill the matrix from the file."""
        self._drop_outdated_words()
        rows = [row for (row,) in self._connection.execute("SELECT row FROM records")]
        self._next_row = max(rows, default=0) + 1
        self._free_rows = sorted(set(range(1, self._next_row)).difference(rows), reverse=True)
        self._matrix.reserve(self._next_row, len(rows))
        linked = self._load_graph()
        vectors = self._connection.execute("SELECT row, vector FROM vectors")
        while part := vectors.fetchmany(_PART_ROWS):
            self._learn(*zip(*part, strict=True), linked=linked)
        self._analyzed_at = len(rows)

    def _drop_outdated_words(self) -> None:
        """Drop words that a Python of another Unicode found; the next keyword search finds them."""
        if "words" in self._indexes:
            columns = self._connection.execute("SELECT name FROM pragma_table_info('words')")
            if columns.fetchall() != [(_WORDS_COLUMN,)]:
                self._connection.execute("DROP TABLE words")
                self._indexes.remove("words")

    # --- the graph's file --------------------------------------------------------------------
    # Linking 100,000 vectors takes a minute, reading the links back a second. The database names
    # the file that fits it, and forgets the name in the transaction of the first change.

    def _load_graph(self) -> bool:
        """Read the saved graph and return whether there was one that fits the records."""
        assert self._file is not None
        saved = self._connection.execute("SELECT name FROM saved_graph").fetchone()
        file = None if saved is None else self._graph_file(saved[0])
        for each in self._file.parent.glob(self._graph_file("*").name):
            if each != file:  # a crash came between saving it and naming it
                each.unlink()
        if file is None:
            return False
        if not file.exists():  # the space was copied without it
            self._connection.execute("DELETE FROM saved_graph")
            return False
        self._saved_graph = file
        if self._graph is not None:
            self._graph.load(file)
        return True

    def _save_graph(self) -> None:
        if self._graph is None or self._file is None or self._saved_graph is not None:
            return
        name = uuid4().hex
        self._graph.save(self._graph_file(name))
        with self._transaction():
            self._connection.execute("INSERT INTO saved_graph (name) VALUES (?)", (name,))

    def _graph_file(self, name: str) -> Path:
        assert self._file is not None
        return self._file.with_suffix(f".{name}.hnsw")

    @contextmanager
    def _change(self) -> Iterator[None]:
        """A transaction after which a saved graph no longer fits."""
        if self._saved_graph is not None:
            # First, as after the commit nothing may fail; without its file the name does no harm.
            self._saved_graph.unlink(missing_ok=True)
        with self._transaction():
            if self._saved_graph is not None:
                self._connection.execute("DELETE FROM saved_graph")
            yield
        self._saved_graph = None


def _order_of(ids: Sequence[str]) -> list[int]:
    """Return the positions of ``ids`` in ascending order."""
    # Merged from parts, as one long sort would keep the other threads waiting.
    parts = (
        sorted(range(start, min(start + _PART_ROWS, len(ids))), key=ids.__getitem__)
        for start in range(0, len(ids), _PART_ROWS)
    )
    return list(heapq.merge(*parts, key=ids.__getitem__))


def _embedded(
    numbers: Sequence[int], vectors: Sequence[Vector | None]
) -> tuple[Sequence[int], Sequence[Vector]]:
    """Return the row numbers of those rows that come with a vector, and the vectors."""
    if isinstance(vectors, PackedVectors):
        return numbers, vectors
    present = [each is not None for each in vectors]
    return [*compress(numbers, present)], [each for each in vectors if each is not None]


def _as_array(vector: Vector) -> Floats:
    return np.asarray(vector, np.float32)


def _words(text: str) -> str:
    return " ".join(terms_of(text))


def _match_expression(keywords: Keywords) -> str:
    """Return the keywords in FTS5's language: every phrase, and at least one of the terms."""
    # Terms are letters and digits alone, so that nothing has to be escaped inside the quotes.
    any_term = " OR ".join(f'"{term}"' for term in keywords.terms)
    phrases = [f'"{" ".join(phrase)}"' for phrase in keywords.phrases]
    return " AND ".join([*phrases, f"({any_term})"])


def _prepared_file(
    connection: sqlite3.Connection, fingerprint: Fingerprint, *, durable: bool
) -> Fingerprint:
    """Make the connection ready, create what a new file lacks, and return the fingerprint."""
    # One owner at a time: the matrix would not see what another connection writes.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA analysis_limit = 1000")
    connection.execute("BEGIN EXCLUSIVE")
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if application == 0 and tables == 0:
            for statement in (_SCHEMA + (_DURABLE_SCHEMA if durable else "")).split(";"):
                connection.execute(statement)
            connection.execute(
                "INSERT INTO fingerprint (model, dimensions, metric) VALUES (?, ?, ?)",
                (fingerprint.model, fingerprint.dimensions, fingerprint.metric.value),
            )
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        elif application != _APPLICATION_ID:
            raise BackendError("the file is a database of something else; choose another path")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != SCHEMA_VERSION:
            raise BackendError(
                f"the file has schema version {version}, this release reads {SCHEMA_VERSION}; "
                f"use the release of agent-memory-inmemory that wrote it"
            )
        model, dimensions, metric = connection.execute(
            "SELECT model, dimensions, metric FROM fingerprint"
        ).fetchone()
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    if durable:
        # Acknowledged means on disk, through a crash of the process and of the machine.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    connection.execute(
        "CREATE TEMP TABLE value_lists (list INTEGER, value TEXT, PRIMARY KEY (list, value)) "
        "WITHOUT ROWID"
    )
    return Fingerprint(model, dimensions, Metric(metric))
