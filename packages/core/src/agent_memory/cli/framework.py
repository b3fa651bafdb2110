"""How every command behaves: help in sections with examples, errors as one message, exit codes.

Nothing of memories is known here.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Sequence
from typing import Any

import click
from pydantic import ValidationError

from agent_memory.cli.output import visible
from agent_memory.errors import AgentMemoryError, InvalidArgumentError

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130

_SECTIONS = ("Options", "Database", "Output")


class SectionOption(click.Option):
    """An option that the help lists under the heading ``section``."""

    def __init__(self, *arguments: Any, section: str = "Options", **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.section = section


class Command(click.Command):
    """A command whose help ends in examples and whose failures are one message on stderr.

    Args:
        examples: command lines, shown as they are.
    """

    def __init__(self, *arguments: Any, examples: Sequence[str], **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.examples = examples
        self.params.append(
            SectionOption(
                ["--debug"],
                section="Output",
                is_flag=True,
                envvar="AGENT_MEMORY_DEBUG",
                help="Show the traceback of an error. Also AGENT_MEMORY_DEBUG=1.",
            )
        )

    def invoke(self, ctx: click.Context) -> Any:
        debug = ctx.params.pop("debug")
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(EXIT_INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except InvalidArgumentError as error:
            if debug:
                traceback.print_exc()
            raise click.UsageError(str(error), ctx) from error
        except Exception as error:
            if debug:
                traceback.print_exc()
            report_error(error, as_json=ctx.params.get("as_json", False))
            ctx.exit(EXIT_FAILED)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section in _SECTIONS:
            records = [
                record
                for option in self.get_params(ctx)
                if isinstance(option, click.Option)
                and getattr(option, "section", "Output") == section  # --help is click's own
                and (record := option.get_help_record(ctx)) is not None
            ]
            if records:
                with formatter.section(section):
                    formatter.write_dl(records, col_max=34)
            if section == "Options":
                self.format_filters(formatter)

    def format_filters(self, formatter: click.HelpFormatter) -> None:
        """Write the section about filters; a command without filters has none."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")


json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    cls=SectionOption,
    section="Output",
    help="Print one JSON object on stdout and nothing else there; errors as JSON on stderr.",
)


def report_error(error: Exception, *, as_json: bool) -> None:
    """Print what went wrong on stderr: as text, or as one JSON object ``{"error": {...}}``."""
    message = visible(described(error), keep="\n")
    if as_json:
        content = {"error": {"type": type(error).__name__, "message": message}}
        click.echo(json.dumps(content, ensure_ascii=False), err=True)
    else:
        click.echo(f"Error: {message}", err=True)


def described(error: Exception) -> str:
    """Return what the error says, with its notes.

    An exception that is none of ours also names its type, without which "'id'" says nothing.
    """
    if isinstance(error, ValidationError):
        message = describe_invalid(error)
    elif isinstance(error, AgentMemoryError):
        message = str(error)
    else:
        message = f"{type(error).__name__}: {error} (--debug shows where)"
    return "\n".join([message, *getattr(error, "__notes__", ())])


def describe_invalid(error: ValidationError) -> str:
    """Return every problem of a record in one line, each with the field that it is about."""
    problems = []
    for each in error.errors(include_url=False):
        place = ".".join(str(part) for part in each["loc"])
        message = (
            each["msg"].removeprefix("Value error, ").replace(" at line 1 column", " at column")
        )
        if each["type"] == "extra_forbidden":
            message = "no such field"
        problems.append(f"{place}: {message}" if place else message)
    return "; ".join(problems)
