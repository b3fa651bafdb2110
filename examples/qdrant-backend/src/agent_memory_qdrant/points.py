"""A record as a point of Qdrant, and back.

The payload holds the whole record as JSON text under ``record``, so that what is read is what was
written, whatever Qdrant thinks of floats, large numbers or empty lists. The other keys exist to be
found by: the tag fields and times that have a value, under their own names, and the few below.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
from agent_memory import MemoryRecord
from agent_memory.backend import (
    LIST_TAG_FIELDS,
    SCALAR_TAG_FIELDS,
    TIME_FIELDS,
    Metric,
    Vector,
)
from qdrant_client import models

CREATED: Final = "created_us"
"""``created_at`` in whole microseconds since 1970: what lists are ordered by."""
TEXT_HASH: Final = "text_sha256"
"""Tells whether a stored vector still fits a text, without reading the text."""
RECORD: Final = "record"

_NAMESPACE: Final = uuid.UUID("5a9f0f3e-6d0c-4b5c-9c55-0f8a5d6d2c11")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def point_id(record_id: str) -> str:
    """Return the id of the point that holds the record; Qdrant knows only numbers and UUIDs."""
    return str(uuid.uuid5(_NAMESPACE, record_id))


def text_hash(text: str) -> str:
    """Return the sha256 of a text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def payload_of(record: MemoryRecord) -> dict[str, Any]:
    """Return what is stored beside the vector."""
    payload: dict[str, Any] = {
        RECORD: record.model_dump_json(),
        CREATED: microseconds(record.created_at),
        TEXT_HASH: text_hash(record.text),
    }
    for field in SCALAR_TAG_FIELDS:
        value = getattr(record, field)
        if value is not None:
            payload[field] = str(value)
    for field in LIST_TAG_FIELDS:
        if values := getattr(record, field):
            payload[field] = list(values)
    for field in TIME_FIELDS:
        time = getattr(record, field)
        if time is not None:
            payload[field] = time.isoformat(timespec="microseconds")
    return payload


def record_of(payload: Mapping[str, Any]) -> MemoryRecord:
    """Return the record that a payload holds."""
    return MemoryRecord.model_validate_json(payload[RECORD])


def microseconds(time: datetime) -> int:
    """Return a time in microseconds since 1970, exactly."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def time_of(number: int) -> datetime:
    """Return the time that `microseconds` made ``number`` of."""
    return _EPOCH + timedelta(microseconds=number)


def stored_vector(vector: Vector, metric: Metric) -> list[float]:
    """Return the numbers that Qdrant gets: for the cosine, those of the vector of length one.

    Qdrant's own cosine does the same, but rounds an updated point otherwise than a new one, and
    then equal texts no longer have equal distances. Its inner product leaves vectors alone.
    """
    if metric is not Metric.COSINE:
        return [float(number) for number in vector]
    exact = np.asarray(vector, dtype=np.float64)
    numbers: list[float] = (exact / np.linalg.norm(exact)).astype(np.float32).tolist()
    return numbers


def distance_kind(metric: Metric) -> models.Distance:
    """Return the distance of Qdrant that a space of this metric uses."""
    return models.Distance.EUCLID if metric is Metric.L2 else models.Distance.DOT


def dist_of(score: float, metric: Metric) -> float:
    """Return a score of Qdrant as a distance of the metric, to seven decimals.

    Rounding to ten first takes away what depends on the order of additions.
    """
    return round(round(score if metric is Metric.L2 else 1.0 - score, 10), 7)


def score_bound(dist: float, metric: Metric) -> float:
    """Return a score that everything at this distance or nearer surely passes."""
    slack = 1e-5 * max(1.0, abs(dist))
    return dist + slack if metric is Metric.L2 else 1.0 - dist - slack
