"""Discovery: every registered backend is described, from metadata alone."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

import agent_memory
from agent_memory.discovery import (
    BackendDescription,
    clear_cache,
    installed_backends,
    unreadable_distributions,
)

if TYPE_CHECKING:
    from factory_site import Site

CORE = agent_memory.__version__


def described(distribution: str) -> BackendDescription:
    (description,) = [each for each in installed_backends() if each.distribution == distribution]
    return description


def test_describes_a_backend_that_pip_installed(site: Site) -> None:
    site.pip_install(
        "acme-memory", "2.3", backends={"acme": "acme_memory:create"}, modules={"acme_memory": ""}
    )
    assert installed_backends() == [
        BackendDescription(
            name="acme",
            distribution="acme-memory",
            version="2.3",
            target="acme_memory:create",
            requirement=None,
            compatible=True,
            problem=None,
        )
    ]


def test_imports_no_plugin(site: Site) -> None:
    site.module("explosive", "raise SystemExit('imported')")
    site.distribution("explosive-memory", backends={"explosive": "explosive:create"})
    assert described("explosive-memory").target == "explosive:create"
    assert "explosive" not in sys.modules


def test_lists_by_name_then_distribution(site: Site) -> None:
    site.distribution("z-memory", backends={"b": "z:create", "a": "z:create"})
    site.distribution("y-memory", backends={"b": "y:create"})
    assert [(each.name, each.distribution) for each in installed_backends()] == [
        ("a", "z-memory"),
        ("b", "y-memory"),
        ("b", "z-memory"),
    ]


def test_two_distributions_with_the_same_target_do_not_merge(site: Site) -> None:
    site.distribution("acme-memory", backends={"vec": "vec:create"})
    site.distribution("other-memory", backends={"vec": "vec:create"})
    assert [each.distribution for each in installed_backends()] == ["acme-memory", "other-memory"]


def test_other_groups_do_not_count(site: Site) -> None:
    site.distribution(
        "acme-memory",
        entry_points="[console_scripts]\nacme = acme:main\n\n"
        "[agent_memory.backends]\n# the one\nacme = acme:create\n\n"
        "[agent_memory.backends.old]\nold = acme:old\n",
    )
    assert [each.name for each in installed_backends()] == ["acme"]


def test_extras_of_an_entry_point_are_not_part_of_its_target(site: Site) -> None:
    site.distribution("acme-memory", backends={"acme": "acme.db:DB.create [fast]"})
    assert described("acme-memory").target == "acme.db:DB.create"


def test_of_two_copies_the_one_found_first_counts(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.distribution("acme-memory", "1.0", backends={"acme": "acme:create", "old": "acme:old"})
    newer = type(site)(site.folder.with_name("newer"))
    newer.folder.mkdir()
    newer.distribution("Acme_Memory", "2.0", backends={"acme": "acme:create"})
    monkeypatch.syspath_prepend(newer.folder)
    clear_cache()
    assert [(each.name, each.version) for each in installed_backends()] == [("acme", "2.0")]


# --- what is broken does not hide the rest -------------------------------------------------------


def test_a_bad_entry_point_hides_no_other_of_its_distribution(site: Site) -> None:
    site.distribution(
        "acme-memory",
        entry_points="[agent_memory.backends]\nbad = not a path!\nempty\ngood = acme:create\n",
    )
    problems = {each.name: each.problem for each in installed_backends()}
    assert problems["good"] is None
    assert "'not a path!' is not 'package.module:attribute'" in str(problems["bad"])
    assert "'' is not 'package" in str(problems["empty"])


def test_unreadable_entry_points_hide_no_other_distribution(site: Site) -> None:
    folder = site.distribution("broken-memory", backends={"broken": "broken:create"})
    (folder / "entry_points.txt").write_bytes(b"[agent_memory.backends]\nbroken = \xff\xfe\n")
    site.distribution("acme-memory", backends={"acme": "acme:create"})
    assert [each.name for each in installed_backends()] == ["acme"]
    (unreadable,) = unreadable_distributions()
    assert unreadable.location == str(folder)
    assert unreadable.reason.startswith("UnicodeDecodeError")


@pytest.mark.parametrize("metadata", [None, "Metadata-Version: 2.1\nVersion: 1.0\n"])
def test_a_distribution_without_a_name_hides_no_other(site: Site, metadata: str | None) -> None:
    folder = site.distribution("broken-memory", backends={"broken": "broken:create"})
    (folder / "METADATA").unlink()
    if metadata is not None:
        (folder / "METADATA").write_text(metadata)
    site.distribution("acme-memory", backends={"acme": "acme:create"})
    assert [each.name for each in installed_backends()] == ["acme"]
    (unreadable,) = unreadable_distributions()
    assert unreadable.location == str(folder)
    assert "names no distribution" in unreadable.reason


def test_a_distribution_without_a_version_is_listed(site: Site) -> None:
    folder = site.distribution("acme-memory", backends={"acme": "acme:create"})
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-memory\n")
    assert described("acme-memory").version == "unknown"


def test_a_folder_not_named_after_its_distribution_is_listed(site: Site) -> None:
    folder = site.distribution("acme-memory", backends={"acme": "acme:create"})
    folder.rename(folder.with_name("something_else-1.0.dist-info"))
    clear_cache()
    assert described("acme-memory").name == "acme"


def test_a_name_that_reads_as_a_path_is_a_problem(site: Site) -> None:
    site.distribution("acme-memory", backends={"acme.db": "acme:create"})
    assert "read as an import path" in str(described("acme-memory").problem)


# --- what the distribution demands of the core ---------------------------------------------------


@pytest.mark.parametrize(
    ("requires", "requirement", "compatible"),
    [
        ([], None, True),
        (["numpy>=99"], None, True),
        ([f"agent-memory>={CORE}"], f"agent-memory>={CORE}", True),
        ([f"Agent_Memory=={CORE}"], f"agent-memory=={CORE}", True),
        (["agent-memory[litellm,local]>=0.0.1"], "agent-memory>=0.0.1", True),
        (["agent-memory"], "agent-memory", True),
        (["agent-memory @ https://example.org/agent_memory.whl"], "agent-memory", True),
        (["agent-memory>=99"], "agent-memory>=99", False),
        (["agent-memory<0.0.1"], "agent-memory<0.0.1", False),
        (["agent-memory>=0.0.1", "agent-memory>=99"], "agent-memory>=0.0.1,>=99", False),
        (['agent-memory>=99; python_version < "3"'], None, True),
        (['agent-memory>=99; python_version >= "3"'], "agent-memory>=99", False),
        (["agent-memory>=0.0.1", 'agent-memory>=99; extra == "next"'], "agent-memory>=0.0.1", True),
        (["agent-memory-redis>=99"], None, True),
    ],
)
def test_compatible_if_its_own_requirement_accepts_the_core(
    site: Site, requires: list[str], requirement: str | None, compatible: bool
) -> None:
    site.distribution("acme-memory", backends={"acme": "acme:create"}, requires=requires)
    description = described("acme-memory")
    assert (description.requirement, description.compatible) == (requirement, compatible)
    assert description.problem is None


@pytest.mark.parametrize(
    ("core", "requirement", "compatible"),
    [
        ("0.2.0.dev1", ">=0.2", True),
        ("0.2.0rc1", ">=0.2,<0.3", True),
        ("0.2.0.dev1+local", ">=0.2", True),
        ("0.2.0.post1", "==0.2.0", True),
        ("0.2.0.dev1", "==0.2.0.dev1", True),
        ("0.2.0.dev1", "<0.2", False),
        ("0.2.0.dev1", ">=0.3", False),
    ],
)
def test_a_pre_release_of_the_core_counts_as_its_release(
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    core: str,
    requirement: str,
    compatible: bool,
) -> None:
    monkeypatch.setattr(agent_memory, "__version__", core)
    site.distribution(
        "acme-memory",
        backends={"acme": "acme:create"},
        requires=[f"agent-memory{requirement}"],
    )
    assert described("acme-memory").compatible is compatible


@pytest.mark.parametrize("line", ["agent-memory>=nonsense!", 'agent-memory; weather == "fine"'])
def test_a_requirement_on_the_core_that_cannot_be_read_is_a_problem(site: Site, line: str) -> None:
    site.distribution("acme-memory", backends={"acme": "acme:create"}, requires=[line])
    description = described("acme-memory")
    assert not description.compatible
    assert f"its requirement {line!r} cannot be read" in str(description.problem)


def test_other_requirements_are_not_read(site: Site) -> None:
    site.distribution("acme-memory", backends={"acme": "acme:create"}, requires=["what is >= this"])
    assert described("acme-memory").problem is None


# --- cost ----------------------------------------------------------------------------------------


def test_looks_once_in_a_process_until_told_otherwise(site: Site) -> None:
    folder = site.distribution("acme-memory", backends={"acme": "acme:create"})
    assert [each.name for each in installed_backends()] == ["acme"]
    (folder / "entry_points.txt").unlink()
    assert [each.name for each in installed_backends()] == ["acme"]
    clear_cache()
    assert installed_backends() == []


def test_what_a_caller_does_to_the_list_stays_with_the_caller(site: Site) -> None:
    site.distribution("acme-memory", backends={"acme": "acme:create"})
    installed_backends().clear()
    assert [each.name for each in installed_backends()] == ["acme"]


def test_many_distributions_take_milliseconds(site: Site) -> None:
    for number in range(120):
        site.distribution(f"other-{number}", backends=None, entry_points="[other]\nx = y:z\n")
    site.distribution("acme-memory", backends={"acme": "acme:create"})
    seconds = []
    for _ in range(5):
        clear_cache()
        start = time.perf_counter()
        assert described("acme-memory").name == "acme"
        seconds.append(time.perf_counter() - start)
    # It takes some 10 ms for twice as many; the bound leaves room for a busy machine.
    assert min(seconds) < 0.1


def test_importing_the_package_reads_no_metadata() -> None:
    code = (
        "import sys, agent_memory, agent_memory.discovery; "
        "print([each for each in ('importlib_metadata', 'packaging') if each in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
