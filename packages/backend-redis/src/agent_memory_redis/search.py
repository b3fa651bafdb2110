"""Ranking: queries to the index, and what of their answers belongs to a page, in which order.

The engine cuts among equal distances as it likes, so more is asked for until the cut lies between
two distances, and equal ones are ordered here, by id. Distances are float32; they are rounded to
six decimals, below which equal texts may differ by how their distance was summed up.

An HNSW index finds most of the nearest and not always all. So:

- Small spaces are compared one by one (the engine calls it ADHOC_BF): exact, and as fast.
- Otherwise the ranking of a query is: what the graph finds with the effort ``ef_runtime``, in
  order; then what more it finds with eight times as much, and again; then all others, compared
  one by one. Every page is a part of that one sequence, so pages neither overlap nor miss.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

from agent_memory import MemoryRecord, MemoryRecordResult, RecencyParams
from agent_memory.backend import (
    Hit,
    HybridQuery,
    KeywordQuery,
    Metric,
    Ranking,
    SemanticQuery,
)
from agent_memory.keywords import Keywords, terms_of
from agent_memory.predicates import AllOf, OneOf, Predicate, matches
from agent_memory_redis.commands import Command, Commands
from agent_memory_redis.queries import (
    EVERYTHING,
    condition,
    is_phrase_of,
    keyword_query,
    thought_to_be_met,
    whole_query,
)
from agent_memory_redis.records import (
    ORDER,
    PAYLOAD,
    TIME_DIGITS,
    VECTOR,
    Kind,
    from_payloads,
    id_of_order,
    times_of_order,
)
from agent_memory_redis.schema import Layout, indexed_records

_T = TypeVar("_T")

EXACT_BELOW = 2_000
"""Up to this many memories, comparing all is at least as fast as the graph."""
_DECIMALS = 1e6
_INLINE = 64
"""Work on up to this many records is done on the event loop; more leaves it for a thread."""
_INLINE_BYTES = 256 << 10
"""Payloads of so much together are decoded on the loop, in 2 to 3 ms: a thread takes longer."""
_BATCH = 500
_PART = 50
"""How many records an iteration makes at once."""
_TURN = 5 * _PART
"""After how many of them others have their turn."""
_FIRST_READ, _LARGEST_READ = 100, 1_000
"""How many records it asks for, at first and at most."""
_READ_BYTES = 1 << 20
"""How much it asks for at once; then as much again waits on the way."""
_DEEP = 1_000
"""From this offset on, a page is worth a count that tells whether it is nearer to the end."""
_MOST_ROWS = 1_000
"""More rows than this are read by a cursor; some servers refuse longer pages than 10,000."""
_DEEPEST = 10_000
"""Up to here a page is asked for by its offset: some servers allow no more."""
_WITH_RECORDS = 100
"""Up to this many rows bring their records along; else only those of the page are fetched."""
_EFFORTS = 3
"""How often the effort is raised before all others are compared."""
_EPSILON = 0.5
"""How far beyond the threshold a graph is searched; with the engine's 0.01 one in 100 is missed."""
_UNLIMITED = 10**9
_SLACK = 1_000
_NO_TIMEOUT = ("TIMEOUT", 0)
"""At its timeout, the engine would return what it has so far as if it were all."""
_DISTANCE = "distance"


class Found(NamedTuple):
    """One row of a search by vector. Sorts nearest first, ties by id."""

    dist: float
    memory_id: str
    extra: bytes
    """The field that was asked for beside the distance."""


@dataclass(slots=True)
class _Size:
    """How many memories the space had when it was last counted."""

    count: int
    counted_at: float

    @property
    def is_recent(self) -> bool:
        return time.monotonic() - self.counted_at < (1 if self.count <= EXACT_BELOW else 10)


class Searches:
    """Reads the index of one space."""

    def __init__(
        self,
        commands: Commands,
        layout: Layout,
        metric: Metric,
        *,
        ef_runtime: int | None,
    ) -> None:
        self._commands = commands
        self._layout = layout
        self._metric = metric
        self._ef = ef_runtime
        """The effort of HNSW; ``None`` for an index that compares all."""
        self._size: _Size | None = None

    # --- without a vector --------------------------------------------------------------------

    async def count(self, where: Predicate | None) -> int:
        """Return how many records match."""
        [reply] = await self._commands.queries([self._total_command(where)])
        total = self._total_of(reply, where)
        if total is None:
            [reply] = await self._commands.queries([self._count_command("*")])
            total = int(reply[0])
            self._size = _Size(total, time.monotonic())
        return total

    async def page(
        self, where: Predicate | None, *, offset: int, limit: int
    ) -> tuple[list[MemoryRecord], int]:
        """Return one page in the order of LST-1, and how many records match."""
        if offset >= _DEEP and (found := await self._page_from_the_end(where, offset, limit)):
            return found
        if offset + limit > _DEEPEST:
            total = await self.count(where)
            if offset >= total:
                return [], total
            ids = (await self.listed_ids(where))[offset : offset + limit]
            return await self.fetch(ids), total
        payloads, total = await self._listed(where, "ASC", offset, limit)
        return await _decoded(payloads, MemoryRecordResult), total

    async def _page_from_the_end(
        self, where: Predicate | None, offset: int, limit: int
    ) -> tuple[list[MemoryRecord], int] | None:
        """Return what `page` does, by way of the reversed order; ``None`` if that is no shorter.

        The engine keeps a heap of all rows before a page, so the last pages would cost the most.
        """
        total = await self.count(where)
        behind = max(total - offset - limit, 0)
        if not behind < offset < total or behind + limit > _DEEPEST:
            return None
        payloads, seen = await self._listed(where, "DESC", behind, min(limit, total - offset))
        if seen != total:  # others have written meanwhile, and the page lies elsewhere
            return None
        return await _decoded(payloads[::-1], MemoryRecordResult), total

    async def _listed(
        self, where: Predicate | None, direction: str, offset: int, limit: int
    ) -> tuple[list[bytes], int]:
        """Return the payloads of some rows of the list, and how many rows it has."""
        [reply] = await self._commands.queries(
            [
                self._search_command(
                    whole_query(where),
                    *("SORTBY", ORDER, direction, "LIMIT", offset, limit, "RETURN", 1, PAYLOAD),
                )
            ]
        )
        return [fields[1] for fields in reply[2::2] if fields], int(reply[0])

    async def listed_ids(self, where: Predicate | None) -> list[str]:
        """Return the ids of all that match, in the order of LST-1."""
        # Sorting makes the engine look at all matches before it answers: a snapshot.
        count = await self.count(where)
        if count <= _DEEPEST:
            limit = min(count + _SLACK, _DEEPEST)
            [reply] = await self._commands.queries(
                [
                    self._search_command(
                        whole_query(where),
                        *("NOCONTENT", "SORTBY", ORDER, "ASC", "LIMIT", 0, limit),
                    )
                ]
            )
            if int(reply[0]) <= limit:
                memory_id = self._layout.memory_id
                return await offload(len(reply), lambda: [*map(memory_id, reply[1:])])
        # It sets memory aside for as many rows as it is told that there may be.
        most = count + _SLACK
        while True:
            ids = await self._commands.all_rows(
                self._layout.index,
                whole_query(where),
                *("SORTBY", 2, f"@{ORDER}", "ASC", "MAX", most),
                *("DIALECT", 2, *_NO_TIMEOUT),
                made=_id_of_row,
            )
            if len(ids) < most:
                return ids
            most *= 2  # as many were added meanwhile

    async def fetch(self, ids: Sequence[str]) -> list[MemoryRecord]:
        """Return the records with these ids, in their order, without the missing ones."""
        records: list[MemoryRecord] = []
        for start in range(0, len(ids), _BATCH):
            payloads = [each for each in await self._payloads(ids[start : start + _BATCH]) if each]
            records += await _decoded(payloads, MemoryRecord)
        return records

    async def fetch_in_parts(
        self, ids: Sequence[str]
    ) -> AsyncGenerator[Sequence[MemoryRecord], None]:
        """Yield the records with these ids, in their order, without the missing ones.

        While the caller is busy with some, the server is asked for the next. Parts are small, as
        the garbage collector looks the more often at records the more of them are new and in use.
        """
        start, end = 0, _FIRST_READ
        reading: asyncio.Task[Sequence[bytes | None]] | None = None
        try:
            while start < len(ids):
                reading = reading or asyncio.create_task(self._payloads(ids[start:end]))
                payloads = [each for each in await reading if each]
                start, end = end, end + _next_read(payloads)
                reading = (
                    asyncio.create_task(self._payloads(ids[start:end])) if ids[start:end] else None
                )
                for first in range(0, len(payloads), _PART):
                    if first % _TURN == 0:  # for that to be sent, and for others to have their turn
                        await asyncio.sleep(0)
                    yield await _decoded(payloads[first : first + _PART], MemoryRecord)
        except asyncio.CancelledError:
            if reading is not None:
                reading.cancel()
            raise
        finally:
            if reading is not None:  # to break it off would cost the connection
                await asyncio.gather(reading, return_exceptions=True)

    async def _payloads(self, ids: Sequence[str]) -> Sequence[bytes | None]:
        return await self._commands.read([*map(self._layout.key, ids)], PAYLOAD)

    # --- by meaning --------------------------------------------------------------------------

    async def semantic(self, query: SemanticQuery) -> Ranking:
        """Return the nearest."""
        window = query.window
        end = window.offset + window.limit
        extra = PAYLOAD if end <= _WITH_RECORDS else ORDER
        found, total = await self._ranked(query, end - window.probes, extra)
        more = window.probes and len(found) >= end
        page = found[window.offset : end - more]
        return Ranking(await self._hits(query, page, extra), total, more)

    async def recent(self, query: SemanticQuery, recency: RecencyParams) -> Ranking:
        """Return the nearest, the first of them ranked by recency as well."""
        window = query.window
        end = window.offset + window.limit
        found, total = await self._ranked(query, max(end, recency.candidates), ORDER)
        candidates = found[: recency.candidates]
        now = recency.reference_time()

        def boosted(each: Found) -> float:
            created_at, last_accessed = times_of_order(each.extra)
            return recency.boosted(
                self._metric.score(each.dist),
                last_accessed=last_accessed,
                created_at=created_at,
                now=now,
            )

        # Sorting is stable, so equal ones stay in the order of distance and id.
        ordered = await offload(
            len(candidates), lambda: sorted(candidates, key=boosted, reverse=True)
        )
        ordered += found[recency.candidates :]
        return Ranking(await self._hits(query, ordered[window.offset : end], ORDER), total)

    async def _hits(self, query: SemanticQuery, page: Sequence[Found], extra: str) -> list[Hit]:
        if extra == PAYLOAD:
            records = await _decoded([each.extra for each in page], MemoryRecordResult)
            dists = [each.dist for each in page]
            return [*map(Hit, records, dists)]
        by_id = await self._fetched(query.where, [each.memory_id for each in page])
        return [Hit(by_id[each.memory_id], each.dist) for each in page if each.memory_id in by_id]

    async def _fetched(
        self, where: Predicate | None, ids: Sequence[str]
    ) -> dict[str, MemoryRecord]:
        """Return records by id. Asked again: meanwhile an id may be another tenant's memory."""
        return {
            each.id: each for each in await self.fetch(ids) if where is None or matches(where, each)
        }

    async def _ranked(
        self, query: SemanticQuery, end: int, extra: str
    ) -> tuple[list[Found], int | None]:
        """Return what comes before ``end`` in the whole ranking, and the total if it is wanted.

        If the window probes, then one more, if there is one, that comes after those.
        """
        if query.max_distance is not None:
            found, within = await self._within(query, query.max_distance, end, extra)
            return found, within if query.window.with_total else None
        if end > _MOST_ROWS:
            matching = await self.count(query.where)
            if query.window.offset >= matching:
                return [], matching if query.window.with_total else None
            end = min(end, matching)
        total: int | None
        if self._ef is None or await self._is_small():
            found, total = await self._compared(query, end, extra, query.window.with_total)
        else:
            found, total = await self._by_graph(query, self._ef, end, extra)
        if total is None and query.window.with_total:
            total = await self.count(query.where)
        return found, total

    async def _is_small(self) -> bool:
        if self._size is None or not self._size.is_recent:
            await self.count(None)
        assert self._size is not None
        return self._size.count <= EXACT_BELOW

    async def _compared(
        self, query: SemanticQuery, end: int, extra: str, with_total: bool = False
    ) -> tuple[list[Found], int | None]:
        """Return the nearest by comparing all, and the total if it came along."""
        count, total = end + 1, None
        shown = end + query.window.probes
        while True:
            light = ORDER if count > _MOST_ROWS else extra
            found, counted = await self._knn(query, count, light, with_total=with_total)
            total, with_total = total or counted, False
            if len(found) < count or found[end - 1].dist < found[-1].dist:
                return await self._with_extra(found[:shown], light, extra), total
            count *= 4

    async def _by_graph(
        self, query: SemanticQuery, ef: int, end: int, extra: str
    ) -> tuple[list[Found], int | None]:
        """Return what the graph finds, with growing effort, then what comparing all adds."""
        total = None
        if end < ef:
            # With a filter, what is found may depend on how much is asked for.
            asked = end + 1 if query.where is None else ef
            first, total = await self._knn(
                query, asked, extra, effort=ef, limit=end + 1, with_total=query.window.with_total
            )
            if len(first) > end and first[end - 1].dist < first[end].dist:
                return first[: end + query.window.probes], total
        end += query.window.probes
        found: list[Found] = []
        seen: set[str] = set()
        effort = ef
        for _ in range(_EFFORTS):
            more, _ = await self._knn(query, effort, ORDER, effort=effort)
            found += [each for each in more if each.memory_id not in seen]
            if len(found) >= end:
                break
            if len(more) < effort:  # all there are, or all that the graph leads to
                break
            seen.update(each.memory_id for each in more)
            effort *= 8
        if len(found) < end and len(found) < await self.count(query.where):
            seen.update(each.memory_id for each in found)
            others, _ = await self._compared(query, end + len(seen), ORDER)
            found += [each for each in others if each.memory_id not in seen]
        return await self._with_extra(found[:end], ORDER, extra), total

    async def _within(
        self, query: SemanticQuery, max_distance: float, end: int, extra: str
    ) -> tuple[list[Found], int]:
        """Return what lies within a distance, nearest first, up to ``end``, and how much does."""
        limit = _limit(max_distance)
        shown = end + query.window.probes
        if limit < 0 and self._metric is not Metric.IP:
            return [], 0
        if limit < 0 or (self._ef is not None and await self._is_small()):
            found = await self._compared_within(query, limit)
            return await self._with_extra(found[:shown], ORDER, extra), len(found)
        if end > _MOST_ROWS:
            end = min(end, await self.count(query.where))
        if query.where is not None:
            return await self._chosen_within(query, limit, end, extra)
        count = end + 1
        while True:
            light = ORDER if count > _MOST_ROWS else extra
            found, total = await self._range(query, limit, count, light)
            if len(found) < count or found[end - 1].dist < found[-1].dist:
                return await self._with_extra(found[:shown], light, extra), total
            count *= 4

    async def _chosen_within(
        self, query: SemanticQuery, limit: float, end: int, extra: str
    ) -> tuple[list[Found], int]:
        """Do the same where there is a filter: with some, the engine forgets distances of a range.

        How many lie in it, it knows.
        """
        nearest, _ = await self._compared(query, end, extra)
        found = [each for each in nearest if each.dist < limit]
        total = len(found)
        if total == end + query.window.probes and query.window.with_total:
            text, parameters = self._range_text(query, limit)
            [reply] = await self._commands.queries(
                [self._search_command(text, "LIMIT", 0, 0, *parameters)]
            )
            total = max(total, int(reply[0]))  # a graph may not find all that are in the range
        return found, total

    async def _compared_within(self, query: SemanticQuery, limit: float) -> list[Found]:
        """Return all within a distance by comparing all, in parts that grow."""
        count = _MOST_ROWS
        while True:
            found, _ = await self._knn(query, count, ORDER)
            if len(found) < count or found[-1].dist > limit:
                return [each for each in found if each.dist < limit]
            count *= 4

    async def _with_extra(self, found: list[Found], have: str, want: str) -> list[Found]:
        if have == want or want == ORDER:
            return found
        payloads = await self._payloads([each.memory_id for each in found]) if found else []
        return [
            each._replace(extra=payload)
            for each, payload in zip(found, payloads, strict=True)
            if payload
        ]

    # --- queries by vector -------------------------------------------------------------------

    async def _knn(
        self,
        query: SemanticQuery,
        count: int,
        extra: str,
        *,
        effort: int | None = None,
        limit: int | None = None,
        with_total: bool = False,
    ) -> tuple[list[Found], int | None]:
        """Return the ``count`` nearest, sorted, or the first ``limit`` of them; perhaps the total.

        Without an ``effort``, all are compared.
        """
        ask = partial(self._knn_of, query, count, extra, effort=effort, limit=limit)
        found, total = await ask(whole_query(query.where), with_total=with_total)
        if query.where is not None and not found:
            matching = await self.count(query.where) if total is None else total
            if matching:
                found, _ = await ask(thought_to_be_met(query.where), with_total=False)
        return found, total

    async def _knn_of(
        self,
        query: SemanticQuery,
        count: int,
        extra: str,
        chosen: str,
        *,
        effort: int | None,
        limit: int | None,
        with_total: bool,
    ) -> tuple[list[Found], int | None]:
        if self._ef is None:
            tuning = ""
        elif effort is None:
            chosen = EVERYTHING if query.where is None else chosen  # it has no policy for ``*``
            tuning = "HYBRID_POLICY ADHOC_BF"
        else:
            tuning = f"EF_RUNTIME {effort}"
        text = f"{chosen}=>[KNN {count} @{VECTOR} $vector {tuning} AS {_DISTANCE}]"
        parameters = ("PARAMS", 2, "vector", query.vector.tobytes())
        limit = count if limit is None else min(limit, count)
        if limit > _MOST_ROWS:
            return await self._all_found(text, parameters, extra), None
        commands = [
            self._search_command(
                text,
                *(("SORTBY", _DISTANCE) if limit < count else ()),
                *("LIMIT", 0, limit, "RETURN", 2, _DISTANCE, extra, *parameters),
            )
        ]
        if with_total:
            commands.append(self._total_command(query.where))
        replies = await self._commands.queries(commands)
        total = self._total_of(replies[1], query.where) if with_total else None
        return self._found_of(replies[0]), total

    async def _range(
        self, query: SemanticQuery, limit: float, count: int, extra: str
    ) -> tuple[list[Found], int]:
        text, parameters = self._range_text(query, limit)
        if count > _MOST_ROWS:
            found = await self._all_found(text, parameters, extra)
            return found, len(found)
        [reply] = await self._commands.queries(
            [
                self._search_command(
                    text,
                    *("SORTBY", _DISTANCE, "LIMIT", 0, count),
                    *("RETURN", 2, _DISTANCE, extra, *parameters),
                )
            ]
        )
        return self._found_of(reply), int(reply[0])

    def _range_text(self, query: SemanticQuery, limit: float) -> tuple[str, Command]:
        """Return the query for what lies within ``limit``, and its parameters."""
        radius = limit * limit if self._metric is Metric.L2 else limit
        tuning = "" if self._ef is None else f"; $EPSILON: {_EPSILON}"
        text = (
            f"(@{VECTOR}:[VECTOR_RANGE $radius $vector]=>"
            f"{{$YIELD_DISTANCE_AS: {_DISTANCE}{tuning}}}"
        )
        text += ")" if query.where is None else f" {condition(query.where)})"
        return text, ("PARAMS", 4, "vector", query.vector.tobytes(), "radius", repr(radius))

    async def _all_found(self, text: str, parameters: Command, extra: str) -> list[Found]:
        rows = await self._commands.all_rows(
            self._layout.index,
            text,
            *("LOAD", 3, "@__key", f"@{_DISTANCE}", f"@{extra}"),
            *("LIMIT", 0, _UNLIMITED, *parameters, "DIALECT", 2, *_NO_TIMEOUT),
            made=_as_mapping,
        )

        return await offload(len(rows), lambda: self._sorted(rows, extra))

    def _found_of(self, reply: Sequence[Any]) -> list[Found]:
        # What `_dist` and `Layout.memory_id` do is written out for the usual case, and so is what
        # `Found` does: every search waits for this.
        squared, rounded_down, new = self._metric is Metric.L2, math.floor, tuple.__new__
        name_of_distance, decimals = _DISTANCE_NAME, _DECIMALS
        start, memory_id = self._layout.prefix_bytes, self._layout.memory_id
        found = []
        for key, fields in zip(reply[1::2], reply[2::2], strict=True):
            if not fields or len(fields) < 4:  # deleted while the engine answered
                continue
            name, said, _, extra = fields
            if name != name_of_distance:  # which of the two comes first is the engine's choice
                said, extra = extra, said
            dist = (
                self._dist(said)
                if squared
                else rounded_down(float(said) * decimals + 0.5) / decimals + 0.0
            )
            given = memory_id(key) if b"%" in key else key[start:].decode()
            found.append(new(Found, (dist, given, extra)))
        found.sort()
        return found

    def _sorted(self, rows: Iterable[Mapping[bytes, bytes]], extra: str) -> list[Found]:
        name, memory_id = extra.encode(), self._layout.memory_id
        return sorted(
            Found(self._dist(each[_DISTANCE_NAME]), memory_id(each[b"__key"]), each[name])
            for each in rows
            if name in each
        )

    def _dist(self, said: bytes) -> float:
        """Return a distance of the engine as the metric's, rounded."""
        value = float(said)
        if self._metric is Metric.L2:  # the engine's is the square
            value = math.sqrt(max(value, 0.0))
        return math.floor(value * _DECIMALS + 0.5) / _DECIMALS + 0.0

    # --- by words ----------------------------------------------------------------------------

    async def keyword(self, query: KeywordQuery) -> Ranking:
        """Return those that hold the keywords, by BM25."""
        window = query.window
        if not query.keywords.terms:
            return Ranking([], 0 if window.with_total else None)
        text = keyword_query(query.keywords, await self._resolved(query.keywords, query.where))
        limit = window.limit
        if window.offset + limit > _MOST_ROWS:
            [reply] = await self._commands.queries([self._count_command(text)])
            limit = min(limit, int(reply[0]) - window.offset)
            if limit <= 0:
                return Ranking([], int(reply[0]) if window.with_total else None)
        commands = [self._words_command(text, window.offset, limit)]
        if window.offset:
            commands.append(self._words_command(text, 0, 1))
        if window.with_total:
            commands.append(self._count_command(text))
        replies = await self._commands.queries(commands)
        total = int(replies[-1][0]) if window.with_total else None
        rows = [_as_mapping(row) for row in replies[0][1:]]
        best = replies[1 if window.offset else 0][1:]
        most = float(_as_mapping(best[0])[_SCORE]) if best else 1.0
        scores = {id_of_order(each[_ORDER]): float(each[_SCORE]) / most for each in rows}
        records = await self._fetched(query.where, list(scores))
        return Ranking(
            [
                Hit(records[memory_id], None, score)
                for memory_id, score in scores.items()
                if memory_id in records
            ],
            total,
        )

    async def _resolved(self, keywords: Keywords, where: Predicate | None) -> Predicate | None:
        """Return ``where``, narrowed to the records that hold what the engine cannot look for.

        A phrase in which a term comes twice ("the more the better") it also finds where that term
        stands once. So the texts that it finds are read, and the right ones named by their ids.
        """
        repeating = [each for each in keywords.phrases if len(set(each)) < len(each)]
        if not repeating:
            return where
        ids = await self._commands.all_rows(
            self._layout.index,
            keyword_query(keywords, where),
            *("VERBATIM", "LOAD", 1, f"@{ORDER}", "LIMIT", 0, _UNLIMITED),
            *("DIALECT", 2, *_NO_TIMEOUT),
            made=_id_of_row,
        )
        holding: list[str] = []
        for start in range(0, len(ids), _BATCH):
            records = await self.fetch(ids[start : start + _BATCH])
            holding += await offload(len(records), partial(_ids_holding, records, repeating))
        named = OneOf("id", tuple(holding))
        return named if where is None else AllOf((where, named))

    # --- by both -----------------------------------------------------------------------------

    async def hybrid(self, query: HybridQuery) -> Ranking:
        """Return all that match, by both scores.

        The first of them are among the best of those that hold the keywords, which the engine ranks
        by both scores, and the nearest of all.
        """
        window = query.window
        end = window.offset + window.limit
        by_vector = SemanticQuery(query.vector, query.where, None, window)
        nearest, total = await self._ranked(by_vector, end, ORDER)
        if not nearest:
            return Ranking([], total)
        end = min(end, len(nearest))
        held = await self._by_both(query, end)
        for each in nearest:
            held.setdefault(
                each.memory_id,
                (query.alpha * self._metric.score(each.dist), each.dist),
            )
        order = await offload(
            len(held), lambda: sorted(held, key=lambda each: (-held[each][0], held[each][1], each))
        )
        page = order[window.offset : end]
        records = await self._fetched(query.where, page)
        return Ranking(
            [Hit(records[each], held[each][1], held[each][0]) for each in page if each in records],
            total,
        )

    async def _by_both(self, query: HybridQuery, end: int) -> dict[str, tuple[float, float]]:
        """Return both scores together, and the distance, of the best that hold the keywords."""
        if not query.keywords.terms:
            return {}
        text = keyword_query(query.keywords, await self._resolved(query.keywords, query.where))
        best, counted = await self._commands.queries(
            [self._words_command(text, 0, 1), self._count_command(text)]
        )
        holding = int(counted[0])
        if not holding:
            return {}
        most = float(_as_mapping(best[1])[_SCORE])
        distance, score = _ENGINE_SCORES[self._metric]
        both = f"{query.alpha!r}*@score+{1 - query.alpha!r}*@__score/{most!r}"
        rows = await self._commands.all_rows(
            self._layout.index,
            f"({text})=>[KNN {holding} @{VECTOR} $vector HYBRID_POLICY ADHOC_BF AS {_DISTANCE}]",
            *_SCORED,
            *("LOAD", 2, f"@{_DISTANCE}", f"@{ORDER}"),
            *("APPLY", f"floor({distance}*1000000+0.5)/1000000", "AS", "dist"),
            *("APPLY", score, "AS", "score"),
            *("APPLY", _ID, "AS", "id"),
            *("APPLY", both, "AS", "both"),
            *("SORTBY", 6, "@both", "DESC", "@dist", "ASC", "@id", "ASC", "MAX", end),
            *("PARAMS", 2, "vector", query.vector.tobytes(), "DIALECT", 2, *_NO_TIMEOUT),
            made=_as_mapping,
        )

        def scores() -> dict[str, tuple[float, float]]:
            found = {}
            for values in rows:
                dist = self._dist(values[_DISTANCE_NAME])
                both = (
                    query.alpha * self._metric.score(dist)
                    + (1 - query.alpha) * float(values[_SCORE]) / most
                )
                found[id_of_order(values[_ORDER])] = (both, dist)
            return found

        return await offload(len(rows), scores)

    # --- commands ----------------------------------------------------------------------------

    def _search_command(self, text: str, *arguments: Any) -> Command:
        # Without VERBATIM the engine looks for stems as well, whatever the index says.
        given = ("VERBATIM", *arguments, "DIALECT", 2, *_NO_TIMEOUT)
        return ("FT.SEARCH", self._layout.index, text, *given)

    def _total_command(self, where: Predicate | None) -> Command:
        if where is None and not self._commands.is_cluster:
            return ("FT.INFO", self._layout.counting_index)  # a search would walk over all
        return self._count_command(whole_query(where))

    def _total_of(self, reply: Sequence[Any], where: Predicate | None) -> int | None:
        """Return the total; ``None`` if the index that counts was just made and has not all yet."""
        if where is not None:
            return int(reply[0])
        total = int(reply[0]) if self._commands.is_cluster else indexed_records(reply)
        if total is not None:
            self._size = _Size(total, time.monotonic())
        return total

    def _count_command(self, text: str) -> Command:
        return self._search_command(text, "LIMIT", 0, 0)

    def _words_command(self, text: str, offset: int, limit: int) -> Command:
        return (
            *("FT.AGGREGATE", self._layout.index, text, *_SCORED, "LOAD", 1, f"@{ORDER}"),
            *("APPLY", _ID, "AS", "id"),
            *("SORTBY", 4, "@__score", "DESC", "@id", "ASC"),
            *("LIMIT", offset, limit, "DIALECT", 2, *_NO_TIMEOUT),
        )


_SCORED = ("VERBATIM", "SCORER", "BM25STD", "ADDSCORES")
_DISTANCE_NAME, _ORDER, _SCORE = _DISTANCE.encode(), ORDER.encode(), b"__score"
_ID = f"substr(@{ORDER},{TIME_DIGITS},{_UNLIMITED})"
"""Sorts as ids do."""
_SIMILARITY = "((1-@dist)>0)*((1-@dist)<1)*(1-@dist)+((1-@dist)>=1)"
_ENGINE_SCORES = {
    Metric.COSINE: (f"@{_DISTANCE}", _SIMILARITY),
    Metric.IP: (f"@{_DISTANCE}", _SIMILARITY),
    Metric.L2: (f"sqrt(@{_DISTANCE})", "1/(1+@dist)"),
}
"""For each metric, how the engine computes the distance and the score that the contract means."""


def _as_mapping(fields: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(fields[::2], fields[1::2], strict=True))


def _id_of_row(fields: Sequence[bytes]) -> str:
    return id_of_order(fields[1])


def _ids_holding(records: Iterable[MemoryRecord], phrases: Sequence[Sequence[str]]) -> list[str]:
    return [
        each.id
        for each in records
        if all(is_phrase_of(terms_of(each.text), phrase) for phrase in phrases)
    ]


def _limit(max_distance: float) -> float:
    """Return what a distance must be below to be ``max_distance`` or less once it is rounded."""
    capped = max(-1e12, min(max_distance, 1e12))
    return (math.floor(capped * _DECIMALS + 1e-4) + 0.5) / _DECIMALS


def _next_read(payloads: Sequence[bytes]) -> int:
    """Return how many records to ask for next, after those of ``payloads``."""
    mean = sum(map(len, payloads)) / len(payloads) if payloads else 0
    return min(_LARGEST_READ, max(_PART, int(_READ_BYTES / max(mean, 1))))


async def _decoded(payloads: Sequence[bytes], kind: type[Kind]) -> list[Kind]:
    if sum(map(len, payloads)) <= _INLINE_BYTES:
        return from_payloads(payloads, kind)
    return await asyncio.to_thread(from_payloads, payloads, kind)


async def offload(size: int, work: Callable[[], _T]) -> _T:
    """Run ``work`` here if it is small, else in a thread, off the event loop."""
    return work() if size <= _INLINE else await asyncio.to_thread(work)
