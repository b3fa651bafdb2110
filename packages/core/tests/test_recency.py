"""Ranking by recency: the formula of RCY-1, its bounds, and what is refused."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from agent_memory import RecencyParams

# A busy machine is slow, not wrong.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

NOW = datetime(2024, 5, 17, 12, tzinfo=UTC)
EVER = st.datetimes(timezones=st.just(UTC))
weights = st.floats(0, 1e308)
half_lives = st.floats(0, 1e308, exclude_min=True)


def days_ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def test_rcy_1_defaults() -> None:
    assert RecencyParams().model_dump() == {
        "semantic_weight": 0.8,
        "recency_weight": 0.2,
        "freshness_weight": 0.6,
        "novelty_weight": 0.4,
        "half_life_last_access_days": 7.0,
        "half_life_created_days": 30.0,
        "candidates": 1_000,
        "now": None,
    }


@pytest.mark.parametrize(
    ("accessed", "created", "recency"),
    [
        (0, 0, 1.0),
        (7, 0, 0.6 / 2 + 0.4),
        (0, 30, 0.6 + 0.4 / 2),
        (14, 60, 0.6 / 4 + 0.4 / 4),
        (-5, -5, 1.0),  # in the future: now
        (7, -5, 0.6 / 2 + 0.4),
        (10_000, 100_000, 0.0),
    ],
)
def test_rcy_1_a_half_is_left_after_a_half_life(
    accessed: float, created: float, recency: float
) -> None:
    params = RecencyParams()
    times = {"last_accessed": days_ago(accessed), "created_at": days_ago(created), "now": NOW}
    assert params.recency(**times) == pytest.approx(recency)
    assert params.boosted(0.5, **times) == pytest.approx(0.8 * 0.5 + 0.2 * recency)


@patient
@given(
    st.floats(0, 1),
    st.floats(0, 2),
    st.floats(0, 2),
    st.floats(0.1, 1_000),
    st.floats(0.1, 1_000),
    st.datetimes(datetime(1990, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),
    st.datetimes(datetime(1990, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),
)
def test_rcy_1_formula(
    score: float,
    freshness: float,
    novelty: float,
    access_days: float,
    created_days: float,
    accessed: datetime,
    created: datetime,
) -> None:
    params = RecencyParams(
        freshness_weight=freshness,
        novelty_weight=novelty,
        half_life_last_access_days=access_days,
        half_life_created_days=created_days,
    )
    ages = [max(0.0, (NOW - each) / timedelta(days=1)) for each in (accessed, created)]
    recency = freshness * 0.5 ** (ages[0] / access_days) + novelty * 0.5 ** (ages[1] / created_days)
    boosted = params.boosted(score, last_accessed=accessed, created_at=created, now=NOW)
    assert boosted == pytest.approx(0.8 * score + 0.2 * min(1.0, recency), abs=1e-9)


@patient
@given(weights, weights, half_lives, half_lives, EVER, EVER, EVER)
def test_recency_is_from_0_to_1_whatever_the_parameters(
    freshness: float,
    novelty: float,
    access_days: float,
    created_days: float,
    accessed: datetime,
    created: datetime,
    now: datetime,
) -> None:
    params = RecencyParams(
        freshness_weight=freshness,
        novelty_weight=novelty,
        half_life_last_access_days=access_days,
        half_life_created_days=created_days,
    )
    times = {"last_accessed": accessed, "created_at": created, "now": now}
    assert 0.0 <= params.recency(**times) <= 1.0
    assert not math.isnan(params.boosted(1.0, **times))


@patient
@given(EVER, EVER)
def test_a_later_time_never_counts_less(one: datetime, other: datetime) -> None:
    params = RecencyParams()
    earlier, later = sorted([one, other])
    for field in ("last_accessed", "created_at"):
        times = {"last_accessed": NOW, "created_at": NOW, "now": NOW}
        before, after = ({**times, field: moment} for moment in (earlier, later))
        assert params.recency(**before) <= params.recency(**after)


def test_now_is_the_time_of_the_call_unless_given() -> None:
    before = datetime.now(UTC)
    assert before <= RecencyParams().reference_time() <= datetime.now(UTC)
    assert RecencyParams(now=NOW).reference_time() == NOW
    naive = RecencyParams(now=NOW.replace(tzinfo=None))
    assert naive.reference_time() == NOW


@pytest.mark.parametrize(
    "wrong",
    [
        {"semantic_weight": -0.1},
        {"recency_weight": -1},
        {"freshness_weight": math.nan},
        {"novelty_weight": math.inf},
        {"half_life_last_access_days": 0},
        {"half_life_created_days": -7},
        {"half_life_created_days": math.inf},
        {"candidates": 0},
        {"candidates": 100_001},
        {"candidates": 1.5},
        {"now": 1_700_000_000},
        {"half_life": 7},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RecencyParams.model_validate(wrong)


def test_parameters_cannot_be_changed_and_round_trip_through_json() -> None:
    params = RecencyParams(now=NOW, candidates=5)
    with pytest.raises(ValidationError):
        params.candidates = 6
    assert RecencyParams.model_validate_json(params.model_dump_json()) == params
