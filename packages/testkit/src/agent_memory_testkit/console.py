"""What the command shows: progress on stderr while the suite runs, the result on stdout."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import pytest
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from agent_memory_testkit.plugin import WATCHER, Watcher
from agent_memory_testkit.report import STATUSES, BackendReport, Report, Status
from agent_memory_testkit.rules import GROUPS, checked_by
from agent_memory_testkit.verdict import as_lines

Again = Callable[[str, str], str]
"""Returns the command that repeats a test, given the id of its rule and its name."""

_COLOURS: dict[Status, str] = {
    "pass": "green",
    "fail": "bold red",
    "error": "bold red",
    "unsupported": "cyan",
    "not run": "yellow",
}
_RESULT_COLOURS = {"pass": "bold green", "fail": "bold red", "partial": "bold yellow"}
_PIPED_WIDTH = 100
# What would move the cursor, or change the colour or the direction of what follows.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class Progress:
    """A plugin of pytest that shows how far the run is; a context manager around the run.

    Args:
        name: the backend's name.
        seed: where generated examples follow from.
        again: for the report.
    """

    def __init__(self, name: str, *, seed: int, again: Again) -> None:
        # A copy of stderr, since pytest puts something else in its place while a test runs.
        self._stderr = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="backslashreplace")
        self._console = Console(file=self._stderr, highlight=False, markup=False, emoji=False)
        self._name = name
        self._seed = seed
        self._again = again
        self._failed = Counter[str]()
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[said]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._stderr.isatty(),
        )
        self._task = self._bar.add_task(name, total=None, said="")
        self._watcher: Watcher | None = None
        self._group: str | None = None
        self.troubles: list[str] = []
        """What pytest could not collect, and its own errors."""

    def __enter__(self) -> Self:
        self._console.print(f"{self._name}: examples follow from the seed {self._seed}")
        self._bar.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()
        self._stderr.close()

    @property
    def report(self) -> Report | None:
        """The verdict, after the run."""
        return None if self._watcher is None else self._watcher.report

    # --- hooks of pytest ---------------------------------------------------------------------

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        watcher = config.pluginmanager.get_plugin(WATCHER)
        assert isinstance(watcher, Watcher)
        watcher.seed = self._seed
        watcher.again = lambda place, rule, name: self._again(rule, name)
        self._watcher = watcher
        # Nobody sees pytest's tracebacks here, and making others than Python's takes seconds.
        config.option.tbstyle = "native"

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.troubles.append(report.longreprtext)

    def pytest_internalerror(self, excrepr: object) -> None:
        self.troubles.append(str(excrepr))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._bar.update(self._task, total=len(session.items))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        rule = checked_by(nodeid.rpartition("::")[2]) or ""
        group = GROUPS.get(rule.partition("-")[0], rule)
        self._bar.update(self._task, said=group)
        if group != self._group and self._bar.disable:
            self._console.print(f"  {group}")  # a log has no bar
        self._group = group

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed[report.nodeid] += 1
            if self._failed[report.nodeid] == 1:
                self._console.print(
                    f"  {report.nodeid.rpartition('::')[2]} failed", style="red", soft_wrap=True
                )
        if report.when == "teardown":
            self._bar.advance(self._task)


# --- the result ----------------------------------------------------------------------------------


def show(report: Report, *, files: Sequence[str]) -> None:
    """Print a report on stdout, and where it was written."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPED_WIDTH
    out = Console(width=width, highlight=False, markup=False, emoji=False)
    for backend in report.backends:
        _show_failures(out, backend)
        out.print(_table(backend))
        for number, line in enumerate(as_lines(backend)):
            style = _RESULT_COLOURS[backend.result] if number == 0 else "yellow"
            out.print(Text(_visible(line), style=style), soft_wrap=True)
    for file in files:
        out.print(f"report: {file}", soft_wrap=True)


def _show_failures(out: Console, backend: BackendReport) -> None:
    told: dict[str, list[str]] = {}
    for each in backend.failures:
        told.setdefault(each.story, []).append(each.test)
    for each in backend.failures:
        tests = told.pop(each.story, None)
        if tests is None:
            continue  # told already: an engine that is down says the same for every test
        more = f" and {len(tests) - 1} more tests" if len(tests) > 1 else ""
        out.print(Text(f"{each.status.upper()} {each.rule}: {each.test}{more}", style="bold red"))
        out.print(Text(_visible(each.story)), soft_wrap=True)
        if len(tests) == 1:
            out.print(Text(_visible(_indented(each.causes)), style="dim"), soft_wrap=True)
        out.print(Text(f"  again:     {_visible(each.reproduce)}"), soft_wrap=True)
        out.print()


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())


def _table(backend: BackendReport) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("rules")
    for status in STATUSES:
        table.add_column(status, justify="right")
    for group, rules in backend.by_group().items():
        counts = Counter(each.status for each in rules)
        cells = [Text(str(counts[s]) if counts[s] else "", style=_COLOURS[s]) for s in STATUSES]
        table.add_row(group, *cells)
    return table


def _visible(text: str) -> str:
    """Return ``text`` with every character that would act on a terminal written as an escape."""
    return _UNSAFE.sub(lambda match: ascii(match[0])[1:-1], text)
