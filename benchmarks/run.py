"""Measure our backends against their peers, print the table and write it as JSON.

`nox -s bench` runs this in an environment that has all of them; see the README beside it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import psutil
from material import BATCH, DIMENSIONS, Material
from measures import SECTIONS as PEERS
from measures import Bench, growing
from redis_measures import SECTIONS as REDIS
from report import Report
from rich.console import Console
from rich.progress import Progress

SECTIONS = {**PEERS, **REDIS}
_RESULTS = Path(__file__).parent / "results"
_RECORDS = 100_000
_ROUNDS = 15
_WIDTH = 140
_BUSY = 0.5
"""The load average of each processor from which on the machine has other things to do."""
_QUICK_RECORDS = 10_000
_QUICK_ROUNDS = 3

# Nothing here is to wait for a network or to tell anybody.
_QUIET = {
    "ANONYMIZED_TELEMETRY": "False",
    "LANGCHAIN_TRACING_V2": "false",
    "LANGSMITH_TRACING": "false",
    "OTEL_SDK_DISABLED": "true",
}


def main() -> None:
    """Run what the command line asks for."""
    arguments = _arguments()
    os.environ.update(_QUIET)
    names = list(arguments.only or [each for each in (*SECTIONS, "growth") if each != "million"])
    if arguments.million and "million" not in names:
        names.append("million")
    records = arguments.records or (_QUICK_RECORDS if arguments.quick else _RECORDS)
    rounds = _QUICK_ROUNDS if arguments.quick else _ROUNDS
    sizes = [*(size for size in (1_000, 10_000, 100_000) if size < records), records]
    messages = Console(stderr=True)
    results = Console(width=None if sys.stdout.isatty() else _WIDTH)
    file = arguments.json or _RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    load = psutil.getloadavg()
    if load[0] > _BUSY * (os.cpu_count() or 1):
        messages.print(f"the machine is busy (load average {load[0]:.1f}): times will be too long")
    if records != _RECORDS:
        messages.print(f"the goals are for {_RECORDS:,} records; with {records:,} they say little")
    report = Report(records, DIMENSIONS, sizes, load)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        Progress(console=messages, transient=True) as progress,
    ):
        messages.print(f"making {records:,} vectors")
        material = Material.make(Path(folder), records, clustered=True)
        bench = Bench(Path(folder), material, rounds, progress)
        try:
            for name in names:
                messages.print(f"measuring: {name}")
                if name == "growth":
                    report.growth = growing(bench, sizes)
                else:
                    report.sections[name] = SECTIONS[name](bench)
                # Each at once, as all of them together take a while.
                results.print(report.table(name))
                report.write(file)
        finally:
            bench.close()
    messages.print(f"written: {file}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"{_QUICK_RECORDS:,} records and {_QUICK_ROUNDS} rounds: shows that all of it runs",
    )
    parser.add_argument(
        "--records", type=_whole_batches, help=f"how many; {_RECORDS:,} if not given"
    )
    parser.add_argument("--json", type=Path, help="where to write; else benchmarks/results")
    parser.add_argument(
        "--only",
        action="append",
        choices=[*SECTIONS, "growth"],
        help="measure this alone; may be given several times",
    )
    parser.add_argument(
        "--million",
        action="store_true",
        help="also search 1,000,000 records (8 GB of memory, some minutes)",
    )
    return parser.parse_args()


def _whole_batches(text: str) -> int:
    records = int(text)
    if records < 2 * BATCH or records % BATCH:
        raise argparse.ArgumentTypeError(f"expected {2 * BATCH:,} or another multiple of {BATCH:,}")
    return records


if __name__ == "__main__":
    main()
