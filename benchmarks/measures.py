"""The sections of the table: what is measured, against what, and what the goal is.

Each section is a function from a `Bench` to rows. Goals are those that the project set itself
before measuring; rows without one are there for orientation.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from material import BATCH, DIMENSIONS, NEAREST, Material, exact_answers
from ours import FEW, Ours, OursFromLists, OursWithGraph
from peers import BareNumPy, Chroma, FaissFlat, LangChain, LangChainFromLists, QdrantLocal
from process import StoreProcess
from report import Goal, Growth, Row, milliseconds
from rich.progress import Progress
from store import Store
from timing import Rounds, exponent, ratio, take_turns, typical, undisturbed_ratio

_FLOAT_BYTES = 4
_RECALL_QUERIES = 200
_IMPORT_ROUNDS = 5
_IMPORT_REPEATS = 3
_MILLION = 1_000_000

Subjects = Mapping[str, tuple[type[Store], str]]


@dataclass
class Bench:
    """What the sections share: the material, and stores that stay loaded."""

    folder: Path
    material: Material
    rounds: int
    progress: Progress
    processes: dict[type[Store], StoreProcess] = field(default_factory=dict)

    def loaded(self, kind: type[Store]) -> StoreProcess:
        """Return a process with all of the material in a store."""
        if kind not in self.processes:
            self.load([kind])
        return self.processes[kind]

    def load(self, kinds: list[type[Store]]) -> dict[type[Store], float]:
        """Fill new stores batch by batch in turns; return the seconds that each took in all."""
        opened = self.opened(kinds, self.material)
        self.processes.update(opened)
        seconds = dict.fromkeys(kinds, 0.0)
        starts = range(0, self.material.records, BATCH)
        names = ", ".join(each.__name__ for each in kinds)
        for number, start in enumerate(self.progress.track(starts, description=f"load {names}")):
            turn = number % len(kinds)
            for kind in kinds[turn:] + kinds[:turn]:
                seconds[kind] += opened[kind].add(start)
        return seconds

    def opened(
        self, kinds: list[type[Store]], material: Material
    ) -> dict[type[Store], StoreProcess]:
        """Return processes with empty stores."""
        return {kind: StoreProcess(kind, material) for kind in kinds}

    def times(self, subjects: Subjects) -> dict[str, Rounds]:
        """Measure operations of loaded stores in turns."""
        processes = {
            name: (self.loaded(kind), operation) for name, (kind, operation) in subjects.items()
        }
        return take_turns(processes, rounds=self.rounds)

    def other_material(self, records: int, *, clustered: bool) -> Material:
        """Make material apart from that of the run."""
        self.progress.console.print(f"making {records:,} vectors")
        return Material.make(Path(tempfile.mkdtemp(dir=self.folder)), records, clustered=clustered)

    def close(self, *kinds: type[Store]) -> None:
        """End the processes of some stores, or of all."""
        for kind in kinds or tuple(self.processes):
            self.processes.pop(kind).close()


def adding(bench: Bench) -> list[Row]:
    """Records per second, all of the material in batches."""
    kinds: list[type[Store]] = [
        Ours, OursFromLists, LangChain, LangChainFromLists, QdrantLocal, Chroma,
    ]  # fmt: skip
    seconds = bench.load(kinds)
    bench.close(OursFromLists, LangChainFromLists)
    rate = {kind: bench.material.records / seconds[kind] for kind in kinds}
    pairs: list[tuple[str, type[Store], str, type[Store]]] = [
        ("add, arrays", Ours, "LangChain, arrays made lists in the call", LangChain),
        ("add, arrays", Ours, "LangChain, lists exist beforehand", LangChainFromLists),
        ("add, lists", OursFromLists, "LangChain, lists exist beforehand", LangChainFromLists),
        ("add, arrays", Ours, "Qdrant local", QdrantLocal),
        ("add, arrays", Ours, "Chroma", Chroma),
    ]
    return [
        Row(
            what,
            f"{rate[mine]:,.0f}/s",
            against,
            f"{rate[theirs]:,.0f}/s",
            rate[mine] / rate[theirs],
            goal=Goal(1.0, at_most=False),
        )
        for what, mine, against, theirs in pairs
    ]


def searching(bench: Bench) -> list[Row]:
    """The ten nearest of everything."""
    times = bench.times(
        {
            "ours": (Ours, "search"),
            "bare NumPy": (BareNumPy, "search"),
            "FAISS flat": (FaissFlat, "search"),
            "Chroma (approximate)": (Chroma, "search"),
            "Qdrant local": (QdrantLocal, "search"),
            "LangChain": (LangChain, "search"),
        }
    )
    goals = {"bare NumPy": Goal(1.25, at_most=True)}
    return _against_each("search, exact", times, goals)


def filtering(bench: Bench) -> list[Row]:
    """The ten nearest of the 1 % that a filter keeps."""
    times = bench.times(
        {
            "ours": (Ours, "search_filtered"),
            "bare NumPy, unfiltered": (BareNumPy, "search"),
            "Chroma, filtered": (Chroma, "search_filtered"),
            "Qdrant local, filtered": (QdrantLocal, "search_filtered"),
            "LangChain, filtered": (LangChain, "search_filtered"),
        }
    )
    goals = {"bare NumPy, unfiltered": Goal(0.3, at_most=True)}
    return _against_each("search, filter keeps 1 %", times, goals)


def modes(bench: Bench) -> list[Row]:
    """The other ways to search, in terms of the bare product."""
    operations = {
        "search without a total": "search_without_total",
        "search within a distance": "search_threshold",
        "search with recency": "search_recency",
        "keyword search": "search_keyword",
        "hybrid search": "search_hybrid",
    }
    subjects: dict[str, tuple[type[Store], str]] = {
        what: (Ours, operation) for what, operation in operations.items()
    }
    times = bench.times({**subjects, "bare NumPy": (BareNumPy, "search")})
    return [compared(what, times[what], "bare NumPy", times["bare NumPy"]) for what in operations]


def memory(bench: Bench) -> list[Row]:
    """Bytes for each record beyond those of its vector, in fresh processes."""
    matrix_bytes = DIMENSIONS * _FLOAT_BYTES
    added = bench.material.records - BATCH
    rows = []
    for kind in (Ours, OursWithGraph, LangChain, QdrantLocal, Chroma):
        with StoreProcess(kind, bench.material) as process:
            process.add(0)
            _use(process, "search")
            # What a library needs once is there by now, and not counted.
            empty = process.resident_bytes()
            starts = range(BATCH, bench.material.records, BATCH)
            for start in bench.progress.track(starts, description=f"memory of {kind.__name__}"):
                process.add(start)
            above = (process.resident_bytes() - empty) / added - matrix_bytes
            rows.append(_of_memory("after adding", kind, above))
            if kind is Ours:
                _use(process, "list_first", "count_filtered", "search_filtered")
                above = (process.resident_bytes() - empty) / added - matrix_bytes
                rows.append(_of_memory("with indexes for lists and filters", kind, above))
                _use(process, "search_keyword")
                above = (process.resident_bytes() - empty) / added - matrix_bytes
                rows.append(_of_memory("with the words of keyword search too", kind, above))
    return rows


def graphs(bench: Bench) -> list[Row]:
    """Approximate search, on vectors in clusters and on vectors without any."""
    rows = _graph_rows(bench, "clustered vectors")
    bench.close(OursWithGraph)
    return rows


def graphs_isotropic(bench: Bench) -> list[Row]:
    """Approximate search on random directions, where neighbours are hardly nearer than others."""
    material = bench.other_material(bench.material.records, clustered=False)
    other = Bench(bench.folder, material, bench.rounds, bench.progress)
    try:
        return _graph_rows(other, "random directions")
    finally:
        other.close()


def imports(bench: Bench) -> list[Row]:
    """Importing the package, and what every program uses of it, in fresh processes."""
    whole, used = "import agent_memory", "from agent_memory import MemoryRecord"
    against = {whole: "import pydantic", used: "from pydantic import BaseModel"}
    statements = [each for pair in against.items() for each in pair]
    for statement in statements:
        _import_seconds(statement)  # compiled to bytecode from now on, as after an installation
    times: dict[str, Rounds] = {statement: [] for statement in statements}
    for _ in bench.progress.track(range(_IMPORT_ROUNDS), description="import"):
        turns = [[_import_seconds(each) for each in statements] for _ in range(_IMPORT_REPEATS)]
        for statement, seconds in zip(statements, zip(*turns, strict=True), strict=True):
            times[statement].append(list(seconds))
    # Both packages load what a name needs when it is asked for.
    goals = {whole: Goal(2.5, at_most=True)}
    return [
        compared(ours, times[ours], theirs, times[theirs], goals.get(ours))
        for ours, theirs in against.items()
    ]


def million(bench: Bench) -> list[Row]:
    """Exact search in a million."""
    material = bench.other_material(_MILLION, clustered=True)
    other = Bench(bench.folder, material, bench.rounds, bench.progress)
    try:
        times = other.times({"ours": (Ours, "search"), "bare NumPy": (BareNumPy, "search")})
    finally:
        other.close()
    return _against_each("search, exact, 1,000,000 records", times, {})


def growing(bench: Bench, sizes: list[int]) -> list[Growth]:
    """How the operations of our backend grow."""
    operations = {
        f"list {FEW}, first page": "list_first",
        f"list {FEW}, last page": "list_deep",
        "count": "count",
        "count, two filters": "count_filtered",
        f"get {FEW} by id": "get",
        f"delete {FEW} by id": "delete",
        "search": "search",
        "search, filter keeps 1 %": "search_filtered",
        "keyword search": "search_keyword",
        "hybrid search": "search_hybrid",
    }
    processes = {size: StoreProcess(Ours, Material(bench.material.folder, size)) for size in sizes}
    try:
        for process in processes.values():
            process.load()
        rows = []
        for what, operation in bench.progress.track(operations.items(), description="growth"):
            first = [
                process.turn(operation, 0, repeats=1, seconds=0.0).first
                for process in processes.values()
            ]
            subjects = {str(size): (processes[size], operation) for size in sizes}
            times = take_turns(subjects, rounds=bench.rounds)
            seconds = [typical(times[str(size)]) for size in sizes]
            rows.append(
                Growth(what, [each * 1e3 for each in seconds], exponent(sizes, seconds),
                       first[-1] * 1e3)
            )  # fmt: skip
        return rows
    finally:
        for process in processes.values():
            process.close()


SECTIONS: dict[str, Callable[[Bench], list[Row]]] = {
    "import": imports,
    "add": adding,
    "search": searching,
    "filter": filtering,
    "modes": modes,
    "hnsw": graphs,
    "memory": memory,
    "isotropic": graphs_isotropic,
    "million": million,
}
"""In the order in which they run; `growing` has a table of its own."""


def _graph_rows(bench: Bench, data: str) -> list[Row]:
    times = bench.times({"ours": (OursWithGraph, "search"), "Chroma": (Chroma, "search")})
    bench.progress.console.print("exact answers")
    exact = exact_answers(bench.material, queries=_RECALL_QUERIES)
    recalls = {
        kind: recall(bench.loaded(kind).answers("search", _RECALL_QUERIES), exact)
        for kind in (OursWithGraph, Chroma)
    }
    goals = (Goal(0.5, at_most=True), Goal(0.98, at_most=False))
    speed_goal, recall_goal = goals if data.startswith("clustered") else (None, None)
    return [
        compared(f"search, HNSW, {data}", times["ours"], "Chroma", times["Chroma"], speed_goal),
        Row(
            f"recall@{NEAREST}, {data}",
            f"{recalls[OursWithGraph]:.4f}",
            "Chroma",
            f"{recalls[Chroma]:.4f}",
            recalls[OursWithGraph],
            "",
            recall_goal,
        ),
    ]


def recall(found: list[list[int]], exact: list[set[int]]) -> float:
    """Return which part of the true nearest was found."""
    hits = sum(len(wanted.intersection(some)) for some, wanted in zip(found, exact, strict=True))
    return hits / (NEAREST * len(exact))


def _of_memory(when: str, kind: type[Store], above: float) -> Row:
    ours = issubclass(kind, Ours)
    name = "with the HNSW graph" if kind is OursWithGraph else when
    shown = f"{above:,.0f} B"
    return Row(
        f"memory a record, {name}" if ours else "memory a record",
        shown if ours else "",
        "the bare matrix" if ours else f"the bare matrix ({kind.__name__})",
        "" if ours else shown,
        above / 1024,
        "KB",
        Goal(1.0, at_most=True) if kind is Ours else None,
    )


def _use(process: StoreProcess, *operations: str) -> None:
    for operation in operations:
        process.answers(operation, 1)


def _import_seconds(statement: str) -> float:
    code = f"from time import perf_counter as t; a = t(); {statement}; print(t() - a)"
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
    )
    return float(done.stdout)


def _against_each(what: str, times: dict[str, Rounds], goals: Mapping[str, Goal]) -> list[Row]:
    return [
        compared(what, times["ours"], name, theirs, goals.get(name))
        for name, theirs in times.items()
        if name != "ours"
    ]


def compared(
    what: str, ours: Rounds, against: str, theirs: Rounds, goal: Goal | None = None
) -> Row:
    """Return the row of two subjects that were measured in turns."""
    return Row(
        what,
        milliseconds(typical(ours)),
        against,
        milliseconds(typical(theirs)),
        ratio(ours, theirs),
        goal=goal,
        undisturbed=undisturbed_ratio(ours, theirs),
    )
