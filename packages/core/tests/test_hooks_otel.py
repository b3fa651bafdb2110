"""Spans and measurements of a real backend, as the SDK's in-memory exporters receive them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from agent_memory import (
    InvalidArgumentError,
    MemoryRecord,
    MemoryVectorDatabase,
    create_memory_vector_db,
)
from agent_memory.hooks import hookimpl
from agent_memory.hooks.otel import OpenTelemetry

SECRET = "zebra"
"""In every text, query, id and filter: nothing that is exported may hold it."""


class Embedder:
    """Embeddings that a test can make fail or wait."""

    model = "two"
    dimensions = 2

    def __init__(self) -> None:
        self.first: Callable[[], Any] | None = None

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return [await self.aembed_query(each) for each in texts]

    async def aembed_query(self, text: str) -> list[float]:
        if self.first is not None:
            await self.first()
        return [1.0, float(len(text))]


class Telemetry:
    """The SDK with exporters in memory, and a database whose calls it sees."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._metrics = InMemoryMetricReader()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.tracer = provider.get_tracer("test")
        self.embedder = Embedder()
        self.plugin = OpenTelemetry(
            provider, MeterProvider([self._metrics], shutdown_on_exit=False)
        )

    def database(self, *others: object, **options: Any) -> MemoryVectorDatabase:
        return create_memory_vector_db(
            "inmemory", embeddings=self.embedder, hooks=[self.plugin, *others], **options
        )

    def spans(self) -> list[ReadableSpan]:
        """The spans that have ended since the last time, in that order."""
        ended = list(self._spans.get_finished_spans())
        self._spans.clear()
        assert not any(SECRET in each.to_json() for each in ended)
        return ended

    def points(self, metric: str) -> list[HistogramDataPoint]:
        """What has been measured so far."""
        data = self._metrics.get_metrics_data()
        if data is None:
            return []
        assert SECRET not in data.to_json()
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for each in scope.metrics
            if each.name == metric
            for point in each.data.data_points
            if isinstance(point, HistogramDataPoint)
        ]


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


def record(memory_id: str = SECRET, **fields: Any) -> MemoryRecord:
    return MemoryRecord(id=memory_id, text=f"a {SECRET}", **fields)


def test_each_operation_is_a_span_by_the_conventions(telemetry: Telemetry) -> None:
    async def run() -> None:
        async with telemetry.database(space="stable") as db:
            await db.add_memories([record(), record(SECRET + "2", user_id=SECRET)])
            await db.update_memories([record()])
            await db.search_memories(SECRET, user_id=SECRET)
            await db.list_memories()
            await db.get_memories([SECRET, "none"])
            await db.count_memories()
            assert len([each async for each in db.iter_memories()]) == 2
            await db.delete_memories([SECRET])
            await db.ping()

    asyncio.run(run())
    spans = telemetry.spans()
    common = {"db.system.name": "inmemory", "db.collection.name": "stable"}
    assert [(each.name, dict(each.attributes or {})) for each in spans] == [
        (f"{operation} stable", {**common, "db.operation.name": operation, **more})
        for operation, more in (
            ("add_memories", {"db.operation.batch.size": 2}),
            ("update_memories", {}),
            ("search_memories", {"db.response.returned_rows": 1}),
            ("list_memories", {"db.response.returned_rows": 2}),
            ("get_memories", {"db.operation.batch.size": 2, "db.response.returned_rows": 1}),
            ("count_memories", {}),
            ("iter_memories", {"db.response.returned_rows": 2}),
            ("delete_memories", {}),
        )
    ]
    assert {each.kind for each in spans} == {SpanKind.CLIENT}
    assert {each.status.status_code for each in spans} == {StatusCode.UNSET}
    assert not any(each.events for each in spans)
    assert spans[0].instrumentation_scope is not None
    assert spans[0].instrumentation_scope.name == "agent_memory"


def test_durations_are_those_of_the_spans_in_the_recommended_buckets(telemetry: Telemetry) -> None:
    async def run() -> None:
        async with telemetry.database() as db:
            await db.add_memories([record()])
            for _ in range(3):
                await db.search_memories(SECRET)

    asyncio.run(run())
    durations: dict[str, list[float]] = {}
    for each in telemetry.spans():
        assert each.end_time is not None
        assert each.start_time is not None
        seconds = (each.end_time - each.start_time) / 1e9
        durations.setdefault(each.name.split()[0], []).append(seconds)
    points = telemetry.points("db.client.operation.duration")
    assert {
        each.attributes["db.operation.name"]: each.count for each in points if each.attributes
    } == {
        "add_memories": 1,
        "search_memories": 3,
    }
    for point in points:
        assert point.attributes is not None
        assert dict(point.attributes) == {
            "db.system.name": "inmemory",
            "db.collection.name": "memory",
            "db.operation.name": point.attributes["db.operation.name"],
        }
        assert tuple(point.explicit_bounds) == (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
        of_spans = durations[str(point.attributes["db.operation.name"])]
        assert point.sum == pytest.approx(sum(of_spans), abs=1e-9)
        assert (point.min, point.max) == pytest.approx((min(of_spans), max(of_spans)), abs=1e-9)
    (rows,) = telemetry.points("db.client.response.returned_rows")
    assert (rows.count, rows.sum, rows.explicit_bounds[0], rows.explicit_bounds[-1]) == (
        *(3, 3, 1, 10000),
    )


def test_a_failure_has_its_type_and_no_message(telemetry: Telemetry) -> None:
    async def run() -> None:
        async with telemetry.database() as db:
            unknown: Any = {SECRET: 1}
            with pytest.raises(InvalidArgumentError, match=SECRET):
                await db.list_memories(**unknown)

    asyncio.run(run())
    (span,) = telemetry.spans()
    assert span.attributes is not None
    kind = "agent_memory.errors.InvalidArgumentError"
    assert span.attributes["error.type"] == kind
    assert "db.response.returned_rows" not in span.attributes
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    (point,) = telemetry.points("db.client.operation.duration")
    assert point.attributes is not None
    assert point.attributes["error.type"] == kind
    assert telemetry.points("db.client.response.returned_rows") == []


def test_what_another_plugin_refuses_is_a_failed_span(telemetry: Telemetry) -> None:
    class Refusing:
        @hookimpl
        def before_search(self) -> None:
            raise PermissionError(SECRET)

    async def run() -> None:
        async with telemetry.database(Refusing()) as db:
            with pytest.raises(PermissionError):
                await db.search_memories(SECRET)

    asyncio.run(run())
    (span,) = telemetry.spans()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "PermissionError"


def test_a_cancelled_call_ends_its_span_with_an_error(telemetry: Telemetry) -> None:
    async def run() -> None:
        entered = asyncio.Event()

        async def wait() -> None:
            entered.set()
            await asyncio.Event().wait()

        async with telemetry.database() as db:
            telemetry.embedder.first = wait
            adding = asyncio.create_task(db.add_memories([record()]))
            await entered.wait()
            assert telemetry.spans() == []
            adding.cancel()
            with pytest.raises(asyncio.CancelledError):
                await adding

    asyncio.run(run())
    (span,) = telemetry.spans()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "asyncio.exceptions.CancelledError"
    assert span.status.status_code is StatusCode.ERROR
    assert telemetry.points("db.client.operation.duration")[0].count == 1


def test_spans_lie_under_those_of_the_caller_and_over_those_of_the_client(
    telemetry: Telemetry,
) -> None:
    async def embed_traced() -> None:
        with telemetry.tracer.start_as_current_span("embed"):
            await asyncio.sleep(0)

    async def request(db: MemoryVectorDatabase, number: int) -> None:
        with telemetry.tracer.start_as_current_span(f"request {number}"):
            await db.add_memories([record(f"{SECRET}{number}")])
            await db.search_memories(SECRET)

    async def run() -> None:
        telemetry.embedder.first = embed_traced
        async with telemetry.database() as db:
            await asyncio.gather(*(request(db, number) for number in range(20)))
            assert not trace.get_current_span().get_span_context().is_valid

    asyncio.run(run())
    spans = telemetry.spans()
    by_id = {each.context.span_id: each for each in spans if each.context}

    def parent(span: ReadableSpan) -> ReadableSpan:
        assert span.parent is not None
        return by_id[span.parent.span_id]

    calls = [each for each in spans if each.name.endswith(" memory")]
    assert len(calls) == 40
    names = [parent(each).name for each in calls]
    assert sorted(names) == sorted([f"request {number}" for number in range(20)] * 2)
    embeds = [each for each in spans if each.name == "embed"]
    assert {parent(each).name for each in embeds} == {
        "add_memories memory",
        "search_memories memory",
    }
    assert len({parent(each).context.span_id for each in embeds if parent(each).context}) == 40


def test_an_iteration_leaves_no_span_current_between_its_memories(telemetry: Telemetry) -> None:
    async def run() -> None:
        async with telemetry.database() as db:
            await db.add_memories([record()])
            with telemetry.tracer.start_as_current_span("outer") as outer:
                async for _ in db.iter_memories():
                    assert trace.get_current_span() is outer

    asyncio.run(run())


def test_a_backend_that_names_no_space_and_has_no_name() -> None:
    telemetry = Telemetry()

    class Unnamed(MemoryVectorDatabase):
        async def count_memories(self, **arguments: Any) -> int:
            return 7

        add_memories = delete_memories = update_memories = count_memories  # type: ignore[assignment]
        search_memories = list_memories = count_memories  # type: ignore[assignment]

    def make(embeddings: object) -> MemoryVectorDatabase:
        return Unnamed()

    async def run() -> None:
        db = create_memory_vector_db(make, embeddings=Embedder(), hooks=[telemetry.plugin])
        assert await db.count_memories() == 7

    asyncio.run(run())
    (span,) = telemetry.spans()
    assert span.name == "count_memories"
    assert span.attributes is not None
    assert "db.collection.name" not in span.attributes
    assert str(span.attributes["db.system.name"]).endswith("make")


def test_by_its_name_it_uses_the_global_providers() -> None:
    # Without an SDK these do nothing, and the plug-in only passes calls on.
    async def run() -> None:
        async with create_memory_vector_db("inmemory", embeddings=Embedder(), hooks=["otel"]) as db:
            assert await db.add_memories([record()]) == [SECRET]
            assert await db.count_memories() == 1

    asyncio.run(run())
