"""The report as one HTML page, complete in itself: `report.html.jinja`, filled."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from agent_memory_testkit.report import STATUSES, Report


def page_of(report: Report) -> str:
    """Return the page; it needs no script and fetches nothing."""
    source = files("agent_memory_testkit").joinpath("report.html.jinja").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source).render(report=report, statuses=STATUSES)
