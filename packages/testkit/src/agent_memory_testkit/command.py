"""``agent-memory-conformance``: proves a backend by its name, and puts reports side by side.

The command runs pytest in its own process, on the suite in `agent_memory_testkit.named`, without
the plugins and settings of the folder that it was started in. What a verdict is decided by is in
`agent_memory_testkit.verdict`; what is shown while it runs in `agent_memory_testkit.console`.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import os
import re
import secrets
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from agent_memory import AgentMemoryError, Capability, InvalidArgumentError
from agent_memory_testkit import __version__
from agent_memory_testkit.profile import METRICS
from agent_memory_testkit.report import read_report, without_credentials
from agent_memory_testkit.rules import RULES, WHOLE

if TYPE_CHECKING:
    from agent_memory_testkit.console import Again
    from agent_memory_testkit.job import Job
    from agent_memory_testkit.report import Report

EXIT_FAILED = 1
EXIT_NOT_RUN = 3
EXIT_INTERRUPTED = 130

_SUITE_FILE = Path(__file__).with_name("named.py")
_EXIT_CODES = (
    "Exit codes: 0 the backend passes (or is partial, without --strict); 1 it fails, or is partial "
    "with --strict; 2 the command line is wrong; 3 the backend could not be created or reached, so "
    "that no rule was judged; 130 stopped by Ctrl-C."
)
_OPTION = re.compile(r"(?P<key>[A-Za-z_]\w*)(?P<sign>:?=)(?P<value>.*)", re.DOTALL)
_SECRET = re.compile(r"pass|secret|token|key|credential", re.IGNORECASE)


class _RunByDefault(click.Group):
    """A group whose command ``run`` need not be named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {"--help", "-h", "--version", *self.commands}
        if args and args[0] not in own:
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "NAME [OPTIONS]")
        formatter.write_usage(ctx.command_path, "matrix FILE...")


class _Command(click.Command):
    """A command whose help ends in examples and exit codes."""

    def __init__(self, *arguments: Any, examples: Sequence[str], **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Examples"):
            for example in self._examples:
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")
        super().format_epilog(ctx, formatter)


@click.group(
    cls=_RunByDefault,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EXIT_CODES,
)
@click.version_option(__version__, prog_name="agent-memory-conformance")
def main() -> None:
    """Prove that a memory vector database does what the contract says, rule by rule.

    NAME is a registered backend or the import path of a factory, as for create_memory_vector_db;
    agent-memory-conformance run --help lists the options. No code is needed. (A backend named like
    a command is tested by: agent-memory-conformance run matrix)
    """


# --- the values of options -----------------------------------------------------------------------


def _assignments(
    ctx: click.Context, param: click.Parameter, values: Sequence[str]
) -> dict[str, Any]:
    """Read ``KEY=VALUE`` for text, ``KEY:=JSON`` for numbers and the like."""
    found: dict[str, Any] = {}
    for value in values:
        match = _OPTION.fullmatch(value)
        if match is None:
            raise click.BadParameter(f"{value!r}: expected KEY=VALUE or KEY:=JSON")
        key, sign, text = match["key"], match["sign"], match["value"]
        if key in ("factory", "embeddings", "space"):
            raise click.BadParameter(f"{key!r} is what the suite itself gives")
        if key in found:
            raise click.BadParameter(f"{key!r} is given twice")
        try:
            found[key] = text if sign == "=" else json.loads(text)
        except ValueError as error:
            raise click.BadParameter(f"the value of {key!r} is not JSON: {error}") from None
    return found


def _reasons(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """Read ``CAPABILITY=REASON``."""
    found: dict[str, str] = {}
    for value in values:
        capability, _, reason = value.partition("=")
        _require_known(capability, [each.value for each in Capability], "capability")
        if not reason.strip():
            raise click.BadParameter(f"{value!r}: say why, as {capability}=REASON")
        found[capability] = reason
    return found


def _address(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[str, int] | None:
    """Read ``HOST:PORT``."""
    if value is None:
        return None
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal():
        raise click.BadParameter(f"{value!r}: expected HOST:PORT")
    return host, int(port)


def _rule_names(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str]:
    names = [each.strip().upper() for each in (value or "").split(",") if each.strip()]
    for name in names:
        _require_known(name, [*RULES, *WHOLE], "rule")
    return names


def _require_known(name: str, known: Sequence[str], kind: str) -> None:
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
        raise click.UsageError(f"{name!r} is no {kind}: {hint}")


# --- run -----------------------------------------------------------------------------------------


@main.command(
    cls=_Command,
    epilog=_EXIT_CODES,
    examples=[
        "agent-memory-conformance inmemory --strict",
        "agent-memory-conformance inmemory --option path=./spaces --report conformance.json",
        "agent-memory-conformance my_package.my_module.create --rules DEL-1,DEL-2 --seed 7",
        "agent-memory-conformance redis --network localhost:6379 "
        "--through url=redis://{host}:{port}",
    ],
)
@click.argument("backend", metavar="NAME")
@click.option(
    "--option",
    "options",
    callback=_assignments,
    metavar="KEY=VALUE",
    multiple=True,
    help="An option of the factory, as text; KEY:=JSON for numbers and the like. Repeatable.",
)
@click.option("--report", metavar="FILE", help="Write the report there, as JSON.")
@click.option("--html", metavar="FILE", help="Write the report there, as a page.")
@click.option("--json", "as_json", is_flag=True, help="Print the report on stdout as JSON.")
@click.option("--strict", is_flag=True, help="Fail unless every rule was executed.")
@click.option(
    "--off",
    callback=_reasons,
    metavar="CAPABILITY=REASON",
    multiple=True,
    help="Expect that it lacks the capability, and say why. Otherwise what the backend declares is "
    "expected. Repeatable.",
)
@click.option(
    "--on",
    type=click.Choice([each.value for each in Capability]),
    metavar="CAPABILITY",
    multiple=True,
    help="Expect the capability, declared or not. Repeatable.",
)
@click.option(
    "--metric",
    type=click.Choice(METRICS),
    help="Test spaces of this metric; given to the factory as the option metric. Else cosine is "
    "expected, and nothing is given.",
)
@click.option(
    "--rules",
    callback=_rule_names,
    metavar="ID,...",
    help="Only these rules, or MODEL or CLEAN. The result is partial at best.",
)
@click.option("--thorough", is_flag=True, help="Ten times as many examples, and larger spaces.")
@click.option(
    "--patience",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="How long a test may take before it counts as hanging: more for a slow engine or a busy "
    "machine. Else 120.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), metavar="N", help="Repeat the examples of another run."
)
@click.option(
    "--network",
    callback=_address,
    metavar="HOST:PORT",
    help="Where the engine listens, if it is reached over a network. Needs --through.",
)
@click.option(
    "--through",
    callback=_assignments,
    metavar="KEY=VALUE",
    multiple=True,
    help="Option of the factory that makes it use another address, written {host} and {port}: that "
    "of a proxy which fails on purpose. Also where to make its timeouts short. Repeatable.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True, max=60),
    metavar="SECONDS",
    default=1.0,
    show_default=True,
    help="After how long a handle made with --through gives a call up.",
)
@click.pass_context
def run(ctx: click.Context, /, backend: str, **given: Any) -> None:
    """Run the conformance suite on the backend NAME.

    NAME is a registered backend, or the import path of a factory: my_package.my_module.create.
    (The current folder is not searched: install the module, or name its folder in PYTHONPATH.)

    Spaces of new names are opened, filled, emptied and checked to be empty. Embeddings are the
    kit's own. What the backend does not declare is asked for, too: it must refuse.
    """
    if both := sorted(set(given["on"]) & given["off"].keys()):
        raise click.UsageError(f"{', '.join(both)}: both --on and --off, choose one")
    job = _job(backend, given)
    seed = secrets.randbits(32) if given["seed"] is None else given["seed"]
    again = _repetition(ctx, given, seed)
    with tempfile.TemporaryDirectory(prefix="agent-memory-conformance-") as folder:
        _isolate(folder, thorough=given["thorough"], patience=given["patience"])
        job = _with_declared_capabilities(job, given)
        report = _tested(job, given, Path(folder), seed=seed, again=again)
    ctx.exit(_exit_code(report, strict=given["strict"]))


def _job(backend: str, given: dict[str, Any]) -> Job:
    from agent_memory_testkit.job import Job

    options = dict(given["options"])
    if bool(given["network"]) != bool(given["through"]):
        raise click.UsageError("--network and --through belong together: give both, or neither")
    if given["metric"] is not None:
        if "metric" in options:
            raise click.UsageError(
                "--metric gives the option metric: leave --option metric=... out"
            )
        options["metric"] = given["metric"]
    network = None
    if given["network"]:
        host, port = given["network"]
        network = {"host": host, "port": port, "timeout": given["timeout"]}
    return Job(
        backend=backend,
        options=options,
        on=[],
        off={},
        metric=given["metric"] or "cosine",
        network=network,
        through=given["through"],
    )


def _isolate(folder: str, *, thorough: bool, patience: float | None) -> None:
    """Shield this process's pytest and hypothesis from the settings of where it was started."""
    from agent_memory_testkit.suite.base import EFFORT_VARIABLE, PATIENCE_VARIABLE

    for variable in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS"):
        os.environ.pop(variable, None)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = folder
    if thorough:
        os.environ[EFFORT_VARIABLE] = "thorough"
    if patience is not None:
        os.environ[PATIENCE_VARIABLE] = str(patience)


def _with_declared_capabilities(job: Job, given: dict[str, Any]) -> Job:
    """Return the job with the capabilities that the backend declares, or as the options say."""
    from agent_memory_testkit.embedders import ExactEmbeddings
    from agent_memory_testkit.job import declared

    async def ask() -> tuple[list[str], dict[str, str]]:
        db = job.create(ExactEmbeddings(), space="conf_capabilities")
        try:
            return declared(db)
        finally:
            await db.aclose()

    try:
        on, off = asyncio.run(ask())
    except Exception as error:  # whatever a backend raises, no rule can be judged
        _cannot_run(error)
    for capability in given["on"]:
        off.pop(capability, None)
    on = sorted({*on, *given["on"]} - given["off"].keys())
    return replace(job, on=on, off={**off, **given["off"]})


def _cannot_run(error: Exception) -> NoReturn:
    said = str(error) if isinstance(error, AgentMemoryError) else f"{type(error).__name__}: {error}"
    lines = [said, *getattr(error, "__notes__", ())]
    click.echo(without_credentials(f"Could not run: {'; '.join(lines)}"), err=True)
    raise click.exceptions.Exit(EXIT_NOT_RUN)


def _repetition(ctx: click.Context, given: dict[str, Any], seed: int) -> Again:
    """Return a function that gives the command which repeats one rule of this run."""
    words = ["agent-memory-conformance", ctx.params["backend"]]
    for name in ("options", "through"):
        flag = "--option" if name == "options" else "--through"
        for key, value in given[name].items():
            words += [flag, _shown(key, value)]
    for capability, reason in given["off"].items():
        words += ["--off", f"{capability}={reason}"]
    for capability in given["on"]:
        words += ["--on", capability]
    if given["metric"]:
        words += ["--metric", given["metric"]]
    if given["network"]:
        host, port = given["network"]
        words += ["--network", f"{host}:{port}", "--timeout", f"{given['timeout']:g}"]
    if given["thorough"]:
        words.append("--thorough")
    if given["patience"] is not None:
        words += ["--patience", f"{given['patience']:g}"]

    def again(rule: str, test: str) -> str:
        return shlex.join([*words, "--rules", rule, "--seed", str(seed)])

    return again


def _shown(key: str, value: Any) -> str:
    """Return an option as it is given, unless it could be a secret."""
    if _SECRET.search(key):
        return f"{key}=***"
    if isinstance(value, str):
        return without_credentials(f"{key}={value}")
    return without_credentials(f"{key}:={json.dumps(value)}")


def _tested(
    job: Job, given: dict[str, Any], folder: Path, *, seed: int, again: Again
) -> Report | None:
    """Run the suite, show what happens and what came out; ``None`` if nothing could be judged."""
    import pytest
    from hypothesis import settings

    from agent_memory_testkit import console, plugin
    from agent_memory_testkit.job import JOB_VARIABLE
    from agent_memory_testkit.verdict import REQUIRED_TESTS

    os.environ[JOB_VARIABLE] = job.to_json()
    # What else is installed beside pytest has no say in a verdict, and takes time to import.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    settings.register_profile("agent-memory-conformance", derandomize=False, database=None)
    settings.load_profile("agent-memory-conformance")
    configuration = folder / "pytest.ini"
    configuration.write_text("[pytest]\n")
    arguments = [f"-c={configuration}", f"--rootdir={_SUITE_FILE.parent}", "--noconftest"]
    arguments += ["--import-mode=importlib", "-p", "no:cacheprovider", "-p", "no:terminal"]
    # No test of the kit needs pytest's reading of assert, which it would do to hypothesis as well.
    arguments.append("--assert=plain")
    if given["rules"]:
        chosen = [name for name, rule in REQUIRED_TESTS.items() if rule in given["rules"]]
        arguments += ["-k", " or ".join(chosen)]
    for option in ("report", "html"):
        if given[option]:
            arguments.append(f"--conformance-{option}={given[option]}")
    watched = console.Progress(job.backend, seed=seed, again=again)
    with watched:
        code = pytest.main([*arguments, str(_SUITE_FILE)], plugins=[plugin, watched])
    report = watched.report
    if report is None or not report.backends:
        click.echo("Could not run: pytest collected no suite.", err=True)
        click.echo(without_credentials("\n".join(watched.troubles)), err=True)
        return None
    if given["as_json"]:
        click.echo(report.to_json(), nl=False)
    else:
        console.show(report, files=[each for each in (given["report"], given["html"]) if each])
    if code == pytest.ExitCode.INTERRUPTED:
        click.echo("Interrupted.", err=True)
        raise click.exceptions.Exit(EXIT_INTERRUPTED)
    return report


def _exit_code(report: Report | None, *, strict: bool) -> int:
    if report is None or all(each.handle is None for each in report.backends):
        return EXIT_NOT_RUN
    failed = report.result == "fail" or (strict and report.result != "pass")
    return EXIT_FAILED if failed else 0


# --- matrix --------------------------------------------------------------------------------------


@main.command(
    cls=_Command,
    examples=["agent-memory-conformance matrix redis.json inmemory.json > matrix.md"],
)
@click.argument(
    "files",
    metavar="FILE...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
def matrix(files: tuple[Path, ...]) -> None:
    """Print the reports in FILEs side by side, as Markdown: a row for each rule.

    Columns are named after the files, by their whole paths if the names alone are not unique.
    """
    from agent_memory_testkit.matrix import matrix_of

    try:
        stems = {file.stem for file in files}
        reports = {
            file.stem if len(stems) == len(files) else str(file): read_report(file)
            for file in files
        }
    except (OSError, InvalidArgumentError) as error:
        raise click.UsageError(str(error)) from None
    click.echo(matrix_of(reports), nl=False)
