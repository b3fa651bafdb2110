"""Which memories a command is about: the options for filters, generated from `FILTERS`."""

from __future__ import annotations

import difflib
import functools
import textwrap
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from agent_memory.cli.framework import Command
from agent_memory.errors import InvalidArgumentError
from agent_memory.filters import (
    FILTERS,
    LIST_TAG_FIELDS,
    SCALAR_TAG_FIELDS,
    TIME_FIELDS,
    And,
    Expression,
    Filter,
    as_filter,
    expression_from_json,
)

R = TypeVar("R")

_TAKES_MANY = ("any", "none", "all")
_TAKES_ONE = ("between", "inclusive")
"""Operators that belong together, so that a second value would have no first to go with."""
_TRUTH = {"true": True, "false": False}


def option_name(field: str) -> str:
    """Return the option that is named after a field: ``--user-id`` for ``user_id``."""
    return "--" + field.replace("_", "-")


class FilteredCommand(Command):
    """A command with filters, which its help explains in a section of their own."""

    def format_filters(self, formatter: click.HelpFormatter) -> None:
        with formatter.section("Filters (a memory must meet all of them)"):
            for fields, value, meaning in (
                (SCALAR_TAG_FIELDS, "VALUE", "Equal to VALUE. Repeated: equal to one of them."),
                (LIST_TAG_FIELDS, "VALUE", "Holds VALUE. Repeated: holds one of them."),
                (TIME_FIELDS, "TIME", "At this moment (ISO 8601); for a span see --filter."),
            ):
                _write_term(formatter, f"{', '.join(map(option_name, fields))} {value}", meaning)
            _write_term(
                formatter,
                "--filter FIELD.OPERATOR=VALUE",
                "Any operator of any field; repeatable. Repeat any, none and all for a list of "
                "values; exists takes true or false, between START..END, inclusive both, neither, "
                "left or right. The operators:",
            )
            with formatter.indentation():
                formatter.write_dl(
                    [
                        (name, " ".join(FILTERS[fields[0]].operators()))
                        for name, fields in (
                            ("times", TIME_FIELDS),
                            ("lists", LIST_TAG_FIELDS),
                            ("others", SCALAR_TAG_FIELDS),
                        )
                    ]
                )
            _write_term(
                formatter,
                "--where JSON",
                'A tree of filters, such as {"or": [{"user_id": "ada"}, '
                '{"not": {"topics": {"any": ["work", "travel"]}}}]}',
            )


def _write_term(formatter: click.HelpFormatter, term: str, meaning: str) -> None:
    for text, indent in ((term, formatter.current_indent), (meaning, formatter.current_indent + 2)):
        # Not formatter.write_text, which breaks lines inside the names of options.
        margin = " " * indent
        formatter.write(
            textwrap.fill(
                text,
                formatter.width,
                initial_indent=margin,
                subsequent_indent=margin,
                break_on_hyphens=False,
            )
            + "\n"
        )


def filter_options(command: Callable[..., R]) -> Callable[..., R]:
    """Add the options for filters; the command receives ``selection``, a call's keywords."""

    @functools.wraps(command)
    def with_selection(
        *arguments: Any, filter_texts: Sequence[str], where_json: str | None, **others: Any
    ) -> R:
        plain = {field: others.pop(field) for field in FILTERS}
        try:
            selection = read_selection(plain, filter_texts, where_json)
        except InvalidArgumentError as error:
            raise click.UsageError(str(error)) from error
        return command(*arguments, selection=selection, **others)

    decorated: Callable[..., R] = with_selection
    # Hidden from the list of options: FilteredCommand explains them together.
    decorated = click.option("--where", "where_json", hidden=True)(decorated)
    decorated = click.option("--filter", "filter_texts", multiple=True, hidden=True)(decorated)
    for field in FILTERS:
        decorated = click.option(option_name(field), field, multiple=True, hidden=True)(decorated)
    return decorated


def read_selection(
    plain: Mapping[str, Sequence[str]], filter_texts: Sequence[str], where_json: str | None
) -> dict[str, Any]:
    """Return the keyword filters, and ``where`` if needed, that the options stand for.

    Args:
        plain: values by field; one means equal, several mean equal to one of them.
        filter_texts: conditions written ``field.operator=value``.
        where_json: an expression as `expression_from_json` reads it.

    Raises:
        InvalidArgumentError: a condition cannot be honoured.
    """
    filters: list[Filter] = [
        as_filter(field, values[0] if len(values) == 1 else list(values))
        for field, values in plain.items()
        if values
    ]
    filters.extend(_read_filters(filter_texts))
    # Keywords as far as they go, since a backend may know no more; only a second condition on
    # the same field has to be an expression.
    selection: dict[str, Any] = {}
    rest: list[Expression] = []
    for each in filters:
        if each.field in selection:
            rest.append(each)
        else:
            selection[each.field] = each
    if where_json is not None:
        rest.append(expression_from_json(where_json))
    if rest:
        selection["where"] = rest[0] if len(rest) == 1 else And(tuple(rest))
    return selection


def _read_filters(texts: Sequence[str]) -> list[Filter]:
    given: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for text in texts:
        condition, equals, value = text.partition("=")
        field, _, operator = condition.partition(".")
        if not equals or not operator:
            raise InvalidArgumentError(
                f"--filter {text!r}: expected FIELD.OPERATOR=VALUE, such as user_id.startswith=a"
            )
        given[field][operator].append(value)
    return [
        each for field, operators in given.items() for each in _filters_of_field(field, operators)
    ]


def _filters_of_field(field: str, operators: Mapping[str, Sequence[str]]) -> list[Filter]:
    """Return one filter with every operator, and one for each further value of an operator."""
    together: dict[str, Any] = {}
    besides: list[tuple[str, Any]] = []
    for operator, values in operators.items():
        if operator in _TAKES_MANY:
            together[operator] = list(values)
            continue
        if operator in _TAKES_ONE and len(values) > 1:
            raise InvalidArgumentError(f"--filter {field}.{operator}: given {len(values)} times")
        first, *others = (_read_value(field, operator, value) for value in values)
        together[operator] = first
        besides.extend((operator, value) for value in others)
    return [
        _filter(field, together),
        *(_filter(field, {operator: value}) for operator, value in besides),
    ]


def _filter(field: str, operators: Mapping[str, Any]) -> Filter:
    if field not in FILTERS:
        close = difflib.get_close_matches(field, FILTERS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(FILTERS)}"
        raise InvalidArgumentError(
            f"--filter {field}.{next(iter(operators))}: no such field; {hint}"
        )
    make: Callable[..., Filter] = FILTERS[field]
    return make(**operators)


def _read_value(field: str, operator: str, value: str) -> Any:
    if operator == "exists":
        return _TRUTH.get(value.lower(), value)
    if operator == "between":
        start, dots, end = value.partition("..")
        if not dots:
            raise InvalidArgumentError(
                f"--filter {field}.between={value}: expected START..END, such as "
                f"2026-01-01..2026-02-01"
            )
        return [start, end]
    return value
