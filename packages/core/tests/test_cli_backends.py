"""`agent-memory backends`: what is installed, and at which step one of them fails."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import agent_memory

if TYPE_CHECKING:
    from factory_site import Site

cli = runpy.run_path(str(Path(__file__).with_name("cli_support.py")))["cli"]

Cli = Callable[..., Any]

STEPS = ["metadata", "compatibility", "import", "create", "hooks", "connect", "close"]

FAILING_LATE = """
from agent_memory import BackendUnavailableError


class Unreachable(MyDB):
    async def ping(self):
        raise BackendUnavailableError("nobody answers on port 1")


class Unclosable(MyDB):
    async def ping(self): ...

    async def aclose(self):
        raise BackendUnavailableError("the line is dead")
"""


@pytest.fixture
def broken(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Installed backends each of which fails at the step that it is named after."""
    monkeypatch.setenv("EMBEDDING_MODEL", "local")
    site.module("unimportable", "import no_such_module")
    site.module("uncreatable", "def create(embeddings, **options):\n    raise KeyError('port')")
    site.module("unreachable", site.database + FAILING_LATE)
    site.distribution(
        "broken-backends",
        "2.5",
        backends={
            "import": "unimportable:create",
            "create": "uncreatable:create",
            "connect": "unreachable:Unreachable",
            "close": "unreachable:Unclosable",
        },
        requires=["agent-memory>=0.0.1"],
    )
    site.distribution(
        "late-backend",
        backends={"compatibility": "unreachable:MyDB"},
        requires=["agent-memory>=999"],
    )
    return site


def test_list_shows_what_is_installed_and_imports_none_of_it(cli: Cli, broken: Site) -> None:
    listed = cli("backends", "list")
    assert (listed.code, listed.err) == (0, "")
    heading, _, *rows = listed.out.splitlines()
    assert heading.split() == ["name", "distribution", "version", "target", "compatible"]
    by_name = {row.split()[0]: row.split()[1:] for row in rows}
    assert by_name["create"] == ["broken-backends", "2.5", "uncreatable:create", "yes"]
    assert by_name["compatibility"][-2:] == ["no:", "agent-memory>=999"]
    assert "uncreatable" not in sys.modules

    as_json = cli("backends", "list", "--json").json
    assert as_json["unreadable"] == []
    assert {each["name"]: each["compatible"] for each in as_json["backends"]} == {
        **dict.fromkeys(["import", "create", "connect", "close"], True),
        "compatibility": False,
    }


def test_list_says_what_to_install_if_there_is_nothing(cli: Cli, site: Site) -> None:
    assert "pip install agent-memory-inmemory" in cli("backends", "list").out
    assert cli("backends", "list", "--json").json == {"backends": [], "unreadable": []}


def test_doctor_goes_all_the_way_with_a_backend_that_works(cli: Cli) -> None:
    examined = cli("backends", "doctor", "inmemory")
    assert (examined.code, examined.err) == (0, "")
    lines = examined.out.splitlines()
    assert [line.split()[:2] for line in lines] == [[step, "ok"] for step in STEPS]
    assert "agent-memory-inmemory" in lines[0]
    assert f"agent-memory {agent_memory.__version__} is installed" in lines[1]
    assert "keyword_search" in lines[3]

    as_json = cli("backends", "doctor", "--json").json  # by the environment
    assert as_json["ok"] is True
    assert [each["step"] for each in as_json["steps"]] == STEPS


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("compatibility", "requires agent-memory>=999"),
        ("import", "no_such_module"),
        ("create", "KeyError: 'port'"),
        ("connect", "nobody answers on port 1"),
        ("close", "the line is dead"),
    ],
)
def test_doctor_stops_at_the_first_step_that_fails(
    cli: Cli, broken: Site, step: str, message: str
) -> None:
    examined = cli("backends", "doctor", step)
    assert (examined.code, examined.err) == (1, "")
    reached = [line.split()[:2] for line in examined.out.splitlines() if line[0] != " "]
    passed = STEPS[: STEPS.index(step)]
    assert reached == [*([each, "ok"] for each in passed), [step, "FAILED"]]
    assert message in examined.out

    as_json = cli("backends", "doctor", step, "--json")
    assert as_json.code == 1
    assert as_json.json["ok"] is False
    assert [each["ok"] for each in as_json.json["steps"]] == [True] * len(passed) + [False]
    assert message in as_json.json["steps"][-1]["detail"]


def test_doctor_fails_at_the_metadata_of_a_name_that_nobody_registers(
    cli: Cli, broken: Site
) -> None:
    examined = cli("backends", "doctor", "conect")
    assert examined.code == 1
    assert examined.out.startswith("metadata       FAILED ")
    assert "Did you mean 'connect'?" in examined.out


def test_doctor_passes_options_to_the_factory_and_takes_a_path(cli: Cli, tmp_path: Path) -> None:
    target = "agent_memory_inmemory.create"
    path = str(tmp_path / "there")
    examined = cli("backends", "doctor", target, "--path", path, "--option", "metric=l2")
    assert examined.code == 0
    assert "persistent" in examined.out
    assert cli("backends", "doctor", target, "--option", "metric=no").code == 1
