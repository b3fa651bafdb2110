"""Ranking by recency: how much a memory's age counts against how well it fits."""

import math
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field

from agent_memory.models import UtcDatetime

_DAY_SECONDS = 86_400.0


class RecencyParams(BaseModel):
    """Weights and half-lives for ranking by recency (rules RCY-1 and RCY-2 of the contract).

    ``boosted = semantic_weight * score + recency_weight * recency``, where ``recency`` is
    ``freshness_weight * 2**(-days since last_accessed / half_life_last_access_days)
    + novelty_weight * 2**(-days since created_at / half_life_created_days)``, clamped to 0..1.
    The decay is the usual exponential one: after one half-life, half is left.

    Raises:
        pydantic.ValidationError: a weight is negative, a half-life is not positive.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    semantic_weight: float = Field(default=0.8, ge=0)
    recency_weight: float = Field(default=0.2, ge=0)
    freshness_weight: float = Field(default=0.6, ge=0)
    novelty_weight: float = Field(default=0.4, ge=0)
    half_life_last_access_days: float = Field(default=7.0, gt=0)
    half_life_created_days: float = Field(default=30.0, gt=0)
    candidates: int = Field(default=1_000, ge=1, le=100_000)
    """How many of the nearest matches are ranked by ``boosted``; the rest follow by distance."""
    now: UtcDatetime | None = None
    """The moment that ages are measured from; the time of the call if ``None``."""

    def recency(self, *, last_accessed: datetime, created_at: datetime, now: datetime) -> float:
        """Return how recent a memory is, 0..1; a time in the future counts as ``now``."""
        freshness = math.exp2(-_days(last_accessed, now) / self.half_life_last_access_days)
        novelty = math.exp2(-_days(created_at, now) / self.half_life_created_days)
        recency = self.freshness_weight * freshness + self.novelty_weight * novelty
        return min(1.0, max(0.0, recency))

    def boosted(
        self, score: float, *, last_accessed: datetime, created_at: datetime, now: datetime
    ) -> float:
        """Return what memories are ranked by: ``score`` (0..1) and recency, weighed."""
        recency = self.recency(last_accessed=last_accessed, created_at=created_at, now=now)
        return self.semantic_weight * score + self.recency_weight * recency

    def reference_time(self) -> datetime:
        """Return ``now`` if it was given, else the present moment."""
        return self.now or datetime.now(UTC)


def _days(moment: datetime, now: datetime) -> float:
    return max(0.0, (now - moment).total_seconds()) / _DAY_SECONDS
