"""The scripts in ``examples/`` run as they stand, and the sample data is what it claims to be."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from agent_memory import MemoryRecord, MemoryTypeEnum

EXAMPLES = Path(__file__).parents[3] / "examples"


def run_example(name: str, folder: Path) -> str:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AGENT_MEMORY_", "EMBEDDING_", "MEMORY_VECTOR_DB_"))
    }
    process = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout


def test_quickstart_finds_the_memory_by_what_it_means(tmp_path: Path) -> None:
    assert run_example("quickstart.py", tmp_path).startswith("Prefers window seats (score ")


def test_multi_tenant_keeps_the_tenants_apart(tmp_path: Path) -> None:
    lines = run_example("multi_tenant.py", tmp_path).splitlines()
    assert lines[:4] == [
        "ada: ['Prefers window seats on trains']",
        "bruno: ['Prefers aisle seats on trains']",
        "bruno reads a1: []",
        "bruno deletes a1: 0",
    ]
    assert lines[4].startswith("bruno adds a1: 1 id(s) belong to memories outside this scope")
    assert lines[5] == "in all: 2"


@pytest.fixture(scope="module")
def sample() -> list[MemoryRecord]:
    lines = (EXAMPLES / "memories.jsonl").read_text("utf-8").splitlines()
    return [MemoryRecord.model_validate_json(line) for line in lines]


def test_the_sample_has_several_users_every_memory_type_and_dates_over_a_year(
    sample: list[MemoryRecord],
) -> None:
    assert len({each.id for each in sample}) == len(sample) == 300
    assert len({each.text for each in sample}) == 300
    assert {each.user_id for each in sample} == {"ada", "bruno", "chloe", "dev", "emi"}
    assert {each.memory_type for each in sample} == set(MemoryTypeEnum)
    created = [each.created_at for each in sample]
    assert max(created) - min(created) > timedelta(days=350)


def test_the_sample_is_consistent_in_itself(sample: list[MemoryRecord]) -> None:
    by_id = {each.id: each for each in sample}
    for each in sample:
        assert each.created_at <= min(each.last_accessed, each.updated_at)
        for source in each.extracted_from or []:
            assert by_id[source].user_id == each.user_id
            assert by_id[source].discrete_memory_extracted == "t"
            assert by_id[source].created_at < each.created_at
