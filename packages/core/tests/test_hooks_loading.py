"""Which plug-ins run, in which order, and what is said of one that cannot."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import agent_memory
from agent_memory import (
    HookCompatibilityError,
    HookConflictError,
    HookError,
    HookImportError,
    HookNotFoundError,
    HookTypeError,
    InvalidArgumentError,
    create_memory_vector_db,
)
from agent_memory.discovery import HookDescription, clear_cache, installed_backends, installed_hooks
from agent_memory.hooks import hookimpl

if TYPE_CHECKING:
    from factory_site import Site

cli = runpy.run_path(str(Path(__file__).with_name("cli_support.py")))["cli"]

Cli = Callable[..., Any]

PLUGIN = """
from agent_memory.hooks import hookimpl

made = []


class Plugin:
    def __init__(self):
        made.append(self)

    @hookimpl
    def before_add(self, memories): ...


def create():
    return Plugin()


def fail():
    raise KeyError("no configuration")


@hookimpl
async def before_add(memories): ...


class Nothing:
    def before_add(self, memories): ...


class Unknown:
    @hookimpl
    def before_ad(self, memories): ...


class Parameters:
    @hookimpl
    def before_add(self, call, records): ...


class Wrapper:
    @hookimpl(wrapper=True)
    def before_add(self, memories):
        return (yield)


ready = Plugin()
"""


@pytest.fixture
def plugins(site: Site) -> Site:
    """Three plug-ins of three kinds, registered by one distribution."""
    site.module("my_hooks", PLUGIN)
    site.module("my_backend", site.database)
    site.distribution(
        "my-hooks",
        "1.2",
        hooks={"beta": "my_hooks:Plugin", "alpha": "my_hooks:create", "gamma": "my_hooks"},
        requires=["agent-memory>=0.0.1"],
    )
    return site


def loaded(hooks: Any = None) -> list[str]:
    """Create a database and return the names of the plug-ins that run on it."""
    made: Any = create_memory_vector_db(
        "my_backend.create", embeddings=agent_memory.LocalEmbeddings(), hooks=hooks
    )
    return [each.name for each in made._hooks.plugins] if hasattr(made, "unhooked") else []


def test_describes_installed_plugins_and_imports_none(plugins: Site) -> None:
    assert installed_backends() == []
    assert [each.name for each in installed_hooks()] == ["alpha", "beta", "gamma"]
    assert installed_hooks()[0] == HookDescription(
        name="alpha",
        distribution="my-hooks",
        version="1.2",
        target="my_hooks:create",
        requirement="agent-memory>=0.0.1",
        compatible=True,
        problem=None,
    )
    assert "my_hooks" not in sys.modules


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ("", ["alpha", "beta", "gamma"]),
        ("*", ["alpha", "beta", "gamma"]),
        ("none", []),
        (" gamma , alpha", ["gamma", "alpha"]),
        ("gamma,*", ["gamma", "alpha", "beta"]),
        ("*,alpha", ["beta", "gamma", "alpha"]),
        ("otel,*", ["otel", "alpha", "beta", "gamma"]),
    ],
)
def test_the_environment_says_which_run_and_in_which_order(
    plugins: Site, monkeypatch: pytest.MonkeyPatch, setting: str, names: list[str]
) -> None:
    monkeypatch.setenv("AGENT_MEMORY_HOOKS", setting)
    assert loaded() == names


def test_the_argument_wins_over_the_environment(
    plugins: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_MEMORY_HOOKS", "alpha")
    assert loaded([]) == []
    assert loaded(["gamma"]) == ["gamma"]
    assert loaded(("beta", "*")) == ["beta", "alpha", "gamma"]

    class Mine:
        @hookimpl
        def before_read(self) -> None: ...

    first, second = Mine(), Mine()
    name = Mine.__qualname__
    assert loaded([first, "beta", second]) == [name, "beta", f"{name} #2"]


def test_only_what_is_chosen_is_imported(plugins: Site) -> None:
    assert loaded(["otel"]) == ["otel"]
    assert "my_hooks" not in sys.modules


def test_a_class_or_function_makes_a_plugin_for_each_database(plugins: Site) -> None:
    import my_hooks  # type: ignore[import-not-found]

    before = len(my_hooks.made)
    loaded(["alpha", "beta"])
    loaded(["alpha", "beta"])
    assert len(my_hooks.made) == before + 4


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        ("alpha", "expected a list of plug-ins or of their names, got str"),
        ({"alpha"}, "got set"),
        ([None], "got None in the list"),
        (["alpha", "alpha"], "'alpha' is named twice"),
        (["*", "*"], "named twice"),
        ([""], "a name is blank"),
    ],
    ids=str,
)
def test_what_is_no_list_of_plugins_is_refused(plugins: Site, hooks: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        loaded(hooks)


def test_a_blank_name_in_the_environment_is_refused(
    plugins: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_MEMORY_HOOKS", "alpha,")
    with pytest.raises(InvalidArgumentError, match=r"variable AGENT_MEMORY_HOOKS.*blank"):
        loaded()


def test_a_name_that_nobody_registers_is_an_error(
    plugins: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_MEMORY_HOOKS", "alhpa")
    late = plugins.distribution("late-hooks", hooks={"alhpa": "my_hooks:Plugin"})
    elsewhere = late.rename(plugins.folder / "not yet installed")
    clear_cache()
    with pytest.raises(HookNotFoundError) as missing:
        loaded()
    message = str(missing.value)
    assert "the environment variable AGENT_MEMORY_HOOKS" in message
    assert "Did you mean 'alpha'?" in message
    assert "'alpha', 'beta', 'gamma', 'otel'" in message
    elsewhere.rename(late)  # installed meanwhile, and found without being told
    assert loaded() == ["alhpa"]


def test_a_name_of_two_distributions_is_an_error_where_it_is_chosen(plugins: Site) -> None:
    plugins.distribution("other-hooks", "3", hooks={"beta": "my_hooks:ready"})
    assert loaded(["alpha"]) == ["alpha"]
    for hooks in (["beta"], None):
        with pytest.raises(HookConflictError, match=r"my-hooks 1.2, .* and by other-hooks 3, "):
            loaded(hooks)
    plugins.distribution("false-otel", hooks={"otel": "my_hooks:ready"})
    with pytest.raises(HookConflictError, match="false-otel"):
        loaded(["otel"])
    assert loaded(["alpha", "gamma"]) == ["alpha", "gamma"]


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ("no_such_module:x", HookImportError, "ModuleNotFoundError: No module named"),
        ("exploding:x", HookImportError, "ValueError: at import"),
        ("my_hooks:missing", HookImportError, "my_hooks has no attribute 'missing'"),
        ("my_hooks:Plugin.missing", HookImportError, "has no attribute 'missing'"),
        ("not a target", HookImportError, "is not 'package.module:attribute'"),
        ("my_hooks:Nothing", HookTypeError, "implements no hook: mark its functions"),
        ("my_hooks:Unknown", HookTypeError, "unknown hook 'before_ad'"),
        ("my_hooks:Parameters", HookTypeError, r"Argument\(s\) {'records'} are declared"),
        ("my_hooks:Wrapper", HookTypeError, "implement around_call"),
        ("my_hooks:made", HookTypeError, "implements no hook"),
    ],
    ids=str,
)
def test_a_broken_plugin_is_named_with_its_distribution(
    plugins: Site, target: str, error: type[HookError], message: str
) -> None:
    plugins.module("exploding", "raise ValueError('at import')")
    plugins.distribution("bad-hooks", "0.7", hooks={"bad": target})
    with pytest.raises(error, match=message) as broken:
        loaded()
    assert "plug-in 'bad' (bad-hooks 0.7, " in str(broken.value)
    assert loaded(["alpha"]) == ["alpha"]


def test_what_creating_a_plugin_raises_passes_with_a_note(plugins: Site) -> None:
    plugins.distribution("bad-hooks", "0.7", hooks={"bad": "my_hooks:fail"})
    with pytest.raises(KeyError, match="no configuration") as failed:
        loaded(["bad"])
    assert failed.value.__notes__ == ["while creating plug-in 'bad' (bad-hooks 0.7, my_hooks:fail)"]


def test_a_plugin_for_another_core_is_not_imported(plugins: Site) -> None:
    plugins.module("exploding", "raise SystemExit('imported')")
    plugins.distribution("new-hooks", hooks={"new": "exploding:x"}, requires=["agent-memory>=99"])
    with pytest.raises(HookCompatibilityError, match="requires agent-memory>=99, but"):
        loaded()


@pytest.mark.parametrize("name", ["none", "a,b", "*", "a b"])
def test_a_name_that_no_setting_can_hold_is_an_error(plugins: Site, name: str) -> None:
    plugins.distribution("odd-hooks", hooks={name: "my_hooks:Plugin"})
    assert [each.name for each in installed_hooks() if each.problem] == [name]
    if name != "*":
        with pytest.raises(HookImportError, match="a name of letters"):
            loaded()


def test_a_class_or_the_same_object_twice_is_refused(plugins: Site) -> None:
    import my_hooks

    with pytest.raises(HookTypeError, match=r"is the class Plugin: give an object"):
        loaded([my_hooks.Plugin])
    with pytest.raises(HookTypeError, match="given twice"):
        loaded([my_hooks.ready, my_hooks.ready])


def test_otel_without_its_extra_says_what_to_install(
    plugins: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "agent_memory.hooks.otel", None)
    with pytest.raises(HookImportError, match=r"pip install 'agent-memory\[otel\]'"):
        loaded(["otel"])


def test_the_command_lists_what_runs_and_imports_nothing(
    plugins: Site, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = cli("hooks", "list")
    assert (listed.code, listed.err) == (0, "")
    heading, _, *rows = listed.out.splitlines()
    assert heading.split() == ["runs", "name", "distribution", "version", "target", "compatible"]
    assert [row.split() for row in rows] == [
        ["1", "alpha", "my-hooks", "1.2", "my_hooks:create", "yes"],
        ["2", "beta", "my-hooks", "1.2", "my_hooks:Plugin", "yes"],
        ["3", "gamma", "my-hooks", "1.2", "my_hooks", "yes"],
    ]
    monkeypatch.setenv("AGENT_MEMORY_HOOKS", "otel,gamma")
    as_json = cli("hooks", "list", "--json").json
    assert as_json["unreadable"] == []
    assert [(each["name"], each["runs"]) for each in as_json["hooks"]] == [
        ("otel", 1),
        ("gamma", 2),
        ("alpha", None),
        ("beta", None),
    ]
    assert "my_hooks" not in sys.modules
    monkeypatch.setenv("AGENT_MEMORY_HOOKS", "nobody")
    assert cli("hooks", "list").code == 1


def test_the_command_says_so_where_there_is_none(site: Site, cli: Cli) -> None:
    assert "none is installed" in cli("hooks", "list").out
    assert cli("hooks", "list", "--json").json == {"hooks": [], "unreadable": []}


def test_the_doctor_examines_the_plugins(
    plugins: Site, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = cli("backends", "doctor", "my_backend.create", "--json").json["steps"]
    detail = {each["step"]: each["detail"] for each in steps}["hooks"]
    assert detail.startswith("plug-in 'alpha' (my-hooks 1.2, my_hooks:create), plug-in 'beta'")
    monkeypatch.setenv("AGENT_MEMORY_HOOKS", "none")
    steps = cli("backends", "doctor", "my_backend.create", "--json").json["steps"]
    assert {each["step"]: each["detail"] for each in steps}["hooks"] == "none"
    monkeypatch.setenv("AGENT_MEMORY_HOOKS", "nobody")
    examined = cli("backends", "doctor", "my_backend.create", "--json").json
    assert not examined["ok"]
    assert examined["steps"][-1]["step"] == "hooks"
    assert "registers the plug-in 'nobody'" in examined["steps"][-1]["detail"]


def test_the_commands_run_the_hooks(site: Site, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    site.module(
        "shouting",
        """
        from agent_memory.hooks import hookimpl

        @hookimpl
        def before_add(memories):
            for each in memories:
                each.text = each.text.upper()
        """,
    )
    site.distribution("shouting", hooks={"shouting": "shouting"})
    monkeypatch.setenv("MEMORY_VECTOR_DB_FACTORY", "agent_memory_inmemory.create")
    assert cli("add", "window seat", "--id", "1").code == 0
    assert cli("get", "1", "--json").json["memories"][0]["text"] == "WINDOW SEAT"
    refused = cli("add", "x", "--option", "hooks=shouting")
    assert (refused.code, "AGENT_MEMORY_HOOKS" in refused.err) == (2, True)
