"""The command `agent-memory-conformance`, run as a process, on backends found by their path."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_memory_testkit.report import read_report

BACKENDS = """
import tempfile
from pathlib import Path
from agent_memory_testkit.reference import ReferenceDatabase

class Forgetful(ReferenceDatabase):
    def _remove(self, memory_ids):
        return super()._remove(list(memory_ids)[:1])

class Modest(ReferenceDatabase):
    @property
    def capabilities(self):
        return super().capabilities - {"keyword_search"}

class Down(ReferenceDatabase):
    async def ping(self):
        raise ConnectionError("nobody answers at redis://ada:secret@localhost:1")

def correct(embeddings, *, space, url=None, metric="cosine"):
    return ReferenceDatabase(embeddings, space=space, directory=Path.cwd(), metric=metric)

def forgetful(embeddings, *, space, **options):
    return Forgetful(embeddings, space=space, directory=Path.cwd())

def modest(embeddings, *, space):
    return Modest(embeddings, space=space, directory=Path.cwd())

def down(embeddings, *, space):
    return Down(embeddings, space=space, directory=Path.cwd())

def refusing(embeddings, *, space):
    raise ValueError("no such place: redis://ada:secret@localhost:1")
"""

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    (tmp_path / "my_backends.py").write_text(BACKENDS)

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        code = "from agent_memory_testkit.command import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path), **variables},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def statuses(ran: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Return the status of every rule of the report on stdout."""
    [backend] = json.loads(ran.stdout)["backends"]
    return {each["id"]: each["status"] for each in backend["rules"]}


# --- what runs ---------------------------------------------------------------------------------


def test_a_backend_is_proven_by_its_path_alone(command: Command, tmp_path: Path) -> None:
    chosen = ["--rules", "CNT-2,life-3,CLEAN", "--report", "out/a.json", "--html", "out/a.html"]
    ran = command("my_backends.correct", *chosen)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "my_backends.correct (named.py::TestBackend): partial: 3 of 63 rules pass" in ran.stdout
    assert "seed" in ran.stderr
    [backend] = read_report(tmp_path / "out/a.json").backends
    # LIFE-3 starts other processes, which import the suite and the backend again.
    assert {each.id for each in backend.rules if each.status == "pass"} == {
        "CNT-2",
        "LIFE-3",
        "CLEAN",
    }
    assert "<h1" in (tmp_path / "out/a.html").read_text()
    assert not (tmp_path / ".hypothesis").exists()


def test_the_backend_of_the_authors_guide_is_proven(command: Command, tmp_path: Path) -> None:
    guide = (Path(__file__).parents[3] / "docs" / "backend.md").read_text()
    backend = re.findall(r"^```python\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)[0]
    (tmp_path / "dict_memory.py").write_text(backend)
    rules = "ADD-2,ADD-6,UPD-2,DEL-1,LST-1,SRCH-3,SRCH-4,SRCH-7,FLT-6,ISO-4,LIFE-4,CONC-2,ERR-4"
    ran = command("dict_memory.create", "--rules", rules, "--json")
    assert ran.returncode == 0, ran.stdout
    found = statuses(ran)
    assert {found[rule] for rule in rules.split(",")} == {"pass", "unsupported"}


def test_strict_fails_what_is_partial(command: Command) -> None:
    ran = command("my_backends.correct", "--rules", "CNT-2", "--strict")
    assert ran.returncode == 1
    assert "partial" in ran.stdout


def test_a_failure_exits_1_and_can_be_repeated(command: Command) -> None:
    secret = "redis://ada:secret@localhost:6379"
    options = ["--option", f"url={secret}", "--option", "password=hush", "--option", "n:=3"]
    ran = command("my_backends.forgetful", *options, "--rules", "DEL-1", "--seed", "7", "--json")
    assert ran.returncode == 1
    report = json.loads(ran.stdout)
    assert (report["result"], report["seed"]) == ("fail", 7)
    failure = report["backends"][0]["failures"][0]
    assert failure["story"].startswith("DEL-1 broken by my_backends.forgetful")
    assert failure["reproduce"] == (
        "agent-memory-conformance my_backends.forgetful --option "
        "'url=redis://***@localhost:6379' --option 'password=***' --option n:=3 "
        "--rules DEL-1 --seed 7"
    )
    assert "secret" not in ran.stdout + ran.stderr
    assert "hush" not in ran.stdout + ran.stderr


def test_the_same_seed_gives_the_same_examples(command: Command) -> None:
    arguments = ["my_backends.forgetful", "--rules", "DEL-2", "--seed", "11", "--json"]
    first, again = (command(*arguments, PYTHONHASHSEED="0", CI="true") for _ in range(2))
    stories = [
        [each["story"] for each in json.loads(ran.stdout)["backends"][0]["failures"]]
        for ran in (first, again)
    ]
    assert stories[0] == stories[1] != []


# --- capabilities ------------------------------------------------------------------------------


def test_what_the_backend_does_not_declare_is_unsupported(command: Command) -> None:
    ran = command("my_backends.modest", "--rules", "SRCH-7,ERR-4,ERR-1", "--json")
    assert ran.returncode == 0, ran.stderr
    found = statuses(ran)
    assert (found["SRCH-7"], found["ERR-4"], found["ERR-1"]) == (
        "unsupported",
        "pass",
        "unsupported",
    )
    [backend] = json.loads(ran.stdout)["backends"]
    assert backend["capabilities"]["keyword_search"] == {
        "expected": False,
        "reason": "the backend does not declare it",
    }


def test_a_reason_may_be_given_for_what_is_not_declared(command: Command) -> None:
    reason = "keyword_search=no index of words"
    ran = command("my_backends.modest", "--off", reason, "--rules", "SRCH-7", "--json")
    [backend] = json.loads(ran.stdout)["backends"]
    assert backend["capabilities"]["keyword_search"]["reason"] == "no index of words"


@pytest.mark.parametrize(
    "arguments",
    [
        ["my_backends.modest", "--on", "keyword_search"],
        ["my_backends.correct", "--off", "keyword_search=said so"],
    ],
)
def test_a_declaration_that_is_not_the_expected_one_fails(
    command: Command, arguments: list[str]
) -> None:
    ran = command(*arguments, "--rules", "ERR-4", "--json")
    assert (ran.returncode, statuses(ran)["ERR-4"]) == (1, "fail")


def test_the_metric_goes_to_the_backend_too(command: Command) -> None:
    ran = command("my_backends.correct", "--metric", "l2", "--rules", "SRCH-4", "--json")
    assert (ran.returncode, statuses(ran)["SRCH-4"]) == (0, "pass")
    assert json.loads(ran.stdout)["backends"][0]["metric"] == "l2"


# --- what cannot run ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rules", "DLE-1"], "'DLE-1' is no rule: did you mean"),
        (["--off", "hybrid=no"], "did you mean 'hybrid_search'"),
        (["--off", "shared"], "say why"),
        (["--on", "shared", "--off", "shared=no"], "both --on and --off"),
        (["--metric", "euclid"], "'euclid' is not one of"),
        (["--option", "path"], "expected KEY=VALUE"),
        (["--option", "space=x"], "what the suite itself gives"),
        (["--option", "a=1", "--option", "a=2"], "given twice"),
        (["--network", "localhost:6379"], "belong together"),
        (["--seed", "-1"], "not in the range"),
    ],
)
def test_a_wrong_command_line_exits_2(command: Command, arguments: list[str], message: str) -> None:
    ran = command("my_backends.correct", *arguments)
    assert ran.returncode == 2
    assert message in " ".join(ran.stderr.split())


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("no-such-backend", "no installed distribution registers"),
        ("my_backends.absent", "absent"),
        ("my_backends.refusing", "ValueError: no such place: redis://***@localhost:1"),
    ],
)
def test_a_backend_that_cannot_be_created_exits_3(
    command: Command, backend: str, message: str
) -> None:
    ran = command(backend)
    assert ran.returncode == 3
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr


def test_no_server_exits_3_with_every_rule_an_error(command: Command) -> None:
    ran = command("my_backends.down", "--json")
    assert ran.returncode == 3
    assert set(statuses(ran).values()) == {"error"}
    assert "nobody answers at redis://***@localhost:1" in ran.stdout
    assert "secret" not in ran.stdout + ran.stderr


def test_help_has_examples_and_exit_codes(command: Command) -> None:
    said = command("run", "--help").stdout
    assert "Examples:" in said
    assert "Exit codes:" in said
    assert "matrix" in command("--help").stdout


# --- matrix ------------------------------------------------------------------------------------


def test_reports_are_put_side_by_side(command: Command, tmp_path: Path) -> None:
    for name in ("correct", "modest"):
        command(f"my_backends.{name}", "--rules", "CNT-2,SRCH-7", "--report", f"{name}.json")
    ran = command("matrix", "correct.json", "modest.json")
    assert ran.returncode == 0
    [row] = [each for each in ran.stdout.splitlines() if each.startswith("| SRCH-7 ")]
    assert row.endswith("| pass | unsupported |")
    assert "| correct | modest |" in ran.stdout
    assert "- modest: SRCH-7 unsupported: keyword\\_search: the backend" in ran.stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [("{}", "has the schema version None"), ("no", "is not JSON"), ("[]", "schema version")],
)
def test_a_file_that_is_no_report_exits_2(
    command: Command, tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "x.json").write_text(content)
    ran = command("matrix", "x.json")
    assert ran.returncode == 2
    assert message in ran.stderr


def test_options_are_filled_with_the_address_of_the_proxy() -> None:
    from agent_memory_testkit.job import with_address

    filled: list[Any] = [
        with_address(each, "127.0.0.1", 81) for each in ("redis://{host}:{port}/0", "{port}", 3)
    ]
    assert filled == ["redis://127.0.0.1:81/0", 81, 3]


def test_plugins_with_hooks_do_not_run_on_what_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    from agent_memory_testkit.job import Job

    monkeypatch.setenv("AGENT_MEMORY_HOOKS", "otel")
    job = Job("inmemory", {}, on=[], off={}, metric="cosine", network=None, through={})
    assert not hasattr(job.create("local"), "unhooked")
