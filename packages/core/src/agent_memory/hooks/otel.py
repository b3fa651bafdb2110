"""OpenTelemetry: a span and two measurements for each call, by the database conventions.

Needs the extra ``agent-memory[otel]``. It runs only where it is asked for: as ``otel`` in
``AGENT_MEMORY_HOOKS`` or in ``hooks=["otel"]``, or as an object in ``hooks=[OpenTelemetry(...)]``.

Spans and measurements carry no text, no query, no id and no value of a filter, and no message of an
exception, as messages quote such values.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from opentelemetry.metrics import MeterProvider, get_meter
from opentelemetry.trace import (
    SpanKind,
    Status,
    StatusCode,
    TracerProvider,
    get_tracer,
    use_span,
)

from agent_memory import __version__
from agent_memory.hooks.specification import Call, hookimpl

_SCHEMA = "https://opentelemetry.io/schemas/1.33.0"
"""The first version of the conventions in which those of databases are stable."""
_READING = frozenset({"search_memories", "get_memories", "list_memories", "iter_memories"})
# What the conventions recommend.
_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
_ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


class OpenTelemetry:
    """A plug-in that traces and measures every call of the database.

    A span is of kind ``CLIENT``, named ``{operation} {space}``, and current while the backend
    works, so that the spans of its client lie under it. A call that fails or is cancelled has an
    ``error.type`` and the status ``ERROR``.

    Args:
        tracer_provider: where spans go; the global provider if ``None``.
        meter_provider: where measurements go; the global provider if ``None``.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self._tracer = get_tracer("agent_memory", __version__, tracer_provider, _SCHEMA)
        meter = get_meter("agent_memory", __version__, meter_provider, _SCHEMA)
        self._duration = meter.create_histogram(
            "db.client.operation.duration",
            unit="s",
            description="Duration of database client operations.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._rows = meter.create_histogram(
            "db.client.response.returned_rows",
            unit="{row}",
            description="The actual number of records returned by the database operation.",
            explicit_bucket_boundaries_advisory=_ROWS,
        )

    @hookimpl
    @asynccontextmanager
    async def around_call(self, call: Call) -> AsyncIterator[None]:
        """Trace and measure one call."""
        shared = {"db.system.name": call.backend, "db.operation.name": call.operation}
        name = call.operation
        if call.space is not None:
            shared["db.collection.name"] = call.space
            name = f"{call.operation} {call.space}"
        given = len(call.ids)
        # Both from one clock: the measurement is to equal the span's duration.
        started, ticks = time.time_ns(), time.perf_counter_ns()
        span = self._tracer.start_span(
            name, kind=SpanKind.CLIENT, attributes=shared, start_time=started
        )
        if given > 1:  # one alone is not a batch
            span.set_attribute("db.operation.batch.size", given)
        elapsed = 0
        try:
            with use_span(span, record_exception=False, set_status_on_exception=False):
                try:
                    yield
                except BaseException as error:  # a cancelled call has not succeeded either
                    shared["error.type"] = _type_of(error)
                    span.set_attribute("error.type", shared["error.type"])
                    span.set_status(Status(StatusCode.ERROR))
                    raise
                else:
                    if call.operation in _READING and call.count is not None:
                        span.set_attribute("db.response.returned_rows", call.count)
                        self._rows.record(call.count, shared)
                finally:
                    elapsed = time.perf_counter_ns() - ticks
                    self._duration.record(elapsed / 1e9, shared)
        finally:
            span.end(started + elapsed)


def _type_of(error: BaseException) -> str:
    kind = type(error)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"
