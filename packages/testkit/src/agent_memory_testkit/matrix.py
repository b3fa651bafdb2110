"""Reports side by side, as a Markdown table: a row for each rule, a column for each backend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from agent_memory_testkit.report import BackendReport, Report, Status

_SHOWN: dict[Status, str] = {
    "pass": "pass",
    "fail": "**FAIL**",
    "error": "**ERROR**",
    "unsupported": "unsupported",
    "not run": "*not run*",
}
_UNKNOWN = "*not in this report*"


def matrix_of(reports: Mapping[str, Report]) -> str:
    """Return the backends of all reports side by side, as Markdown.

    Args:
        reports: by the names that stand above their columns; two reports of one backend are told
            apart by them. A report of several backends is named after each of those.
    """
    columns = [
        (name if len(report.backends) == 1 else backend.name, report, backend)
        for name, report in reports.items()
        for backend in report.backends
    ]
    backends = [backend for _, _, backend in columns]
    headings = [_escaped(name) for name, _, _ in columns]
    lines = ["# Conformance of backends", "", *_table(["", *headings], [
        ["**result**", *(f"**{each.result}**" for each in backends)],
        ["rules that pass", *(f"{each.count('pass')} of {len(each.rules)}" for each in backends)],
        ["backend", *(_escaped(each.versioned) for each in backends)],
        ["engine", *(_versions(each.engine_versions) for each in backends)],
        ["metric", *(each.metric for each in backends)],
        ["agent-memory", *(report.core.version for _, report, _ in columns)],
        ["kit", *(f"{report.kit.version}, {report.effort}" for _, report, _ in columns)],
        ["Python", *(report.python for _, report, _ in columns)],
        ["date", *(f"{report.started:%Y-%m-%d}" for _, report, _ in columns)],
    ])]  # fmt: skip
    for group, ids in _groups(backends).items():
        rows = [[f"{rule} {says}", *(_cell(each, rule) for each in backends)] for rule, says in ids]
        lines += ["", f"## {group}", "", *_table(["rule", *headings], rows)]
    if notes := list(_notes(zip(headings, backends, strict=True))):
        lines += ["", "## Why not", "", *notes]
    return "\n".join(lines) + "\n"


def _groups(backends: Iterable[BackendReport]) -> dict[str, list[tuple[str, str]]]:
    """Return id and text of every rule that any backend was tested by, under their headings."""
    groups: dict[str, dict[str, str]] = {}
    for backend in backends:
        for heading, rules in backend.by_group().items():
            for each in rules:
                groups.setdefault(heading, {}).setdefault(each.id, each.says)
    return {heading: list(rules.items()) for heading, rules in groups.items()}


def _cell(backend: BackendReport, rule: str) -> str:
    status = next((each.status for each in backend.rules if each.id == rule), None)
    return _UNKNOWN if status is None else _SHOWN[status]


def _notes(columns: Iterable[tuple[str, BackendReport]]) -> Iterable[str]:
    """Yield for each column why rules of it are unsupported or were not run."""
    for heading, backend in columns:
        reasons: dict[str, list[str]] = {}
        for each in backend.rules:
            if each.status in ("unsupported", "not run"):
                reasons.setdefault(f"{each.status}: {each.reason}", []).append(each.id)
        for reason, ids in reasons.items():
            yield f"- {heading}: {', '.join(ids)} {_escaped(reason)}"


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items()) or "-"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [headings, ["---"] * len(headings), *rows]
    return [f"| {' | '.join(map(_escaped_cell, each))} |" for each in lines]


def _escaped_cell(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|")


def _escaped(text: str) -> str:
    """Return text of an author such that Markdown does not act on it."""
    return "".join(f"\\{each}" if each in "\\`*_<>[]#" else each for each in text)
