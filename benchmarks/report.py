"""What was measured, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from rich.table import Table

_DISTRIBUTIONS = (
    "agent-memory", "agent-memory-inmemory", "agent-memory-redis", "chromadb", "faiss-cpu",
    "hiredis", "langchain-core", "langchain-redis", "mem0ai", "numpy", "pydantic", "qdrant-client",
    "redis", "redisvl", "usearch",
)  # fmt: skip


@dataclass(frozen=True)
class Goal:
    """What a value is to be, at most or at least."""

    bound: float
    at_most: bool

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.bound:g}"

    def met_by(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound


@dataclass(frozen=True)
class Row:
    """One line of the table: a claim, what it was computed from, and the goal if there is one."""

    what: str
    ours: str
    against: str
    theirs: str
    value: float
    unit: str = "×"
    goal: Goal | None = None
    undisturbed: float | None = None
    """The same ratio from the fastest calls alone, where it is one of repeated calls."""

    @property
    def verdict(self) -> str:
        if self.goal is None:
            return ""
        return "met" if self.goal.met_by(self.value) else "missed"


@dataclass(frozen=True)
class Growth:
    """How one operation grows with the number of records."""

    what: str
    milliseconds: list[float]
    """For each number of records."""
    exponent: float
    """b of a * records**b; 0 is constant, 1 linear."""
    first_milliseconds: float
    """The first call of all, at the largest number, which may have to make an index."""


@dataclass
class Report:
    """All that one run measured."""

    records: int
    dimensions: int
    sizes: Sequence[int]
    load_average: tuple[float, float, float]
    """Of the machine before measuring, over 1, 5 and 15 minutes."""
    sections: dict[str, list[Row]] = field(default_factory=dict)
    growth: list[Growth] = field(default_factory=list)

    def table(self, title: str) -> Table:
        """Return one section as a table."""
        return self._growth_table() if title == "growth" else self._table(title)

    def write(self, file: Path) -> None:
        """Write everything as JSON."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(self._as_json(), indent=2, ensure_ascii=False) + "\n", "utf-8")

    def _table(self, title: str) -> Table:
        table = Table(
            title=f"{title}: {self.records:,} records × {self.dimensions} dimensions",
            title_justify="left",
        )
        table.add_column("what")
        table.add_column("ours", justify="right", no_wrap=True)
        table.add_column("against")
        table.add_column("theirs", justify="right", no_wrap=True)
        table.add_column("result", justify="right", no_wrap=True)
        table.add_column("fastest", justify="right", no_wrap=True)
        table.add_column("goal", justify="right", no_wrap=True)
        table.add_column("verdict", no_wrap=True)
        for row in self.sections[title]:
            table.add_row(
                row.what,
                row.ours,
                row.against,
                row.theirs,
                f"{row.value:.3g} {row.unit}".rstrip(),
                "" if row.undisturbed is None else f"{row.undisturbed:.3g} ×",
                str(row.goal or ""),
                row.verdict,
                style="red" if row.verdict == "missed" else None,
            )
        return table

    def _growth_table(self) -> Table:
        table = Table(title="growth: milliseconds by number of records", title_justify="left")
        table.add_column("what")
        for size in self.sizes:
            table.add_column(f"{size:,}", justify="right")
        table.add_column("exponent", justify="right")
        table.add_column(f"first call at {self.sizes[-1]:,}", justify="right")
        for each in self.growth:
            table.add_row(
                each.what,
                *(f"{value:.3g}" for value in each.milliseconds),
                f"{each.exponent:.2f}",
                f"{each.first_milliseconds:.3g}",
            )
        return table

    def _as_json(self) -> dict[str, Any]:
        return {
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {
                "system": platform.system(),
                "machine": platform.machine(),
                "cpus": os.cpu_count(),
                "memory_gb": round(psutil.virtual_memory().total / 2**30),
                "python": platform.python_version(),
                "load_average": self.load_average,
            },
            "versions": {name: version(name) for name in _DISTRIBUTIONS},
            "records": self.records,
            "dimensions": self.dimensions,
            "sections": {
                title: [
                    {**asdict(row), "goal": row.goal and str(row.goal), "verdict": row.verdict}
                    for row in rows
                ]
                for title, rows in self.sections.items()
            },
            "growth": {"sizes": list(self.sizes), "rows": [asdict(each) for each in self.growth]},
        }


def milliseconds(seconds: float) -> str:
    """Return a time as the table shows it."""
    return f"{seconds * 1e3:.3g} ms"
