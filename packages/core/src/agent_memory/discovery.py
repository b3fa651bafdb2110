"""Which backends and plug-ins with hooks are installed: their entry points, as descriptions.

Everything here comes from the metadata of distributions; no plugin is imported. Choosing a backend,
importing it and all messages about what went wrong are in `agent_memory.factory`; the same for
hooks in `agent_memory.hooks.loading`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

# importlib_metadata and packaging cost a third of what `import agent_memory` does, and a program
# that is given its database never needs them: they are imported where a scan begins.
if TYPE_CHECKING:
    from importlib_metadata import Distribution, PackageMetadata
    from packaging.specifiers import SpecifierSet

BACKEND_GROUP = "agent_memory.backends"
"""Entry points of this group name factories: ``name = "package.module:attribute"``."""

HOOK_GROUP = "agent_memory.hooks"
"""Entry points of this group name plug-ins: ``name = "package.module:attribute"``."""

HOOKS_VARIABLE = "AGENT_MEMORY_HOOKS"
"""Says which of them run, and in which order."""

KNOWN_BACKENDS = {"inmemory": "agent-memory-inmemory", "redis": "agent-memory-redis"}
"""Backends of this project, by name, with the distribution that brings each of them."""

CORE_DISTRIBUTION = "agent-memory"

_HOOK_NAME = re.compile(r"(?!none$)[\w.-]+")


@dataclass(frozen=True, slots=True)
class _Description:
    """One entry point, and the distribution that registers it."""

    name: str
    """What a user asks for."""
    distribution: str
    version: str
    """The distribution's version; ``"unknown"`` if its metadata names none."""
    target: str
    """Where it is: ``package.module:attribute``."""
    requirement: str | None
    """What the distribution demands of the core (``agent-memory>=0.1``), ``None`` if nothing."""
    compatible: bool
    """Whether the running core meets the requirement."""
    problem: str | None
    """What is wrong with the metadata itself; ``None`` if nothing is."""


@dataclass(frozen=True, slots=True)
class BackendDescription(_Description):
    """One entry point of `BACKEND_GROUP`, and the distribution that registers it."""


@dataclass(frozen=True, slots=True)
class HookDescription(_Description):
    """One entry point of `HOOK_GROUP`, and the distribution that registers it."""


@dataclass(frozen=True, slots=True)
class UnreadableDistribution:
    """A distribution whose metadata could not be read, so that its plugins are not known."""

    location: str
    """The folder of its metadata."""
    reason: str


def installed_backends() -> list[BackendDescription]:
    """Return every registered backend, by name and distribution, without importing any.

    A name that two distributions register appears twice. Of a distribution that is on ``sys.path``
    more than once, the copy that Python finds first counts. The answer is kept for the life of the
    process: see `clear_cache`.
    """
    return list(_scan().backends)


def installed_hooks() -> list[HookDescription]:
    """Return every registered plug-in with hooks, as `installed_backends` does backends."""
    return list(_scan().hooks)


def unreadable_distributions() -> list[UnreadableDistribution]:
    """Return the distributions that could not be read, with reasons."""
    return list(_scan().unreadable)


def clear_cache() -> None:
    """Forget which plugins are installed; the next call looks again.

    Needed after installing something, or changing ``sys.path``, in a running process.
    """
    _scan.cache_clear()


class _Scan(NamedTuple):
    backends: tuple[BackendDescription, ...]
    hooks: tuple[HookDescription, ...]
    unreadable: tuple[UnreadableDistribution, ...]


@cache
def _scan() -> _Scan:
    import importlib_metadata

    # Keyed by the whole description: a second copy of a distribution adds nothing, and another
    # distribution with the same name and target stays apart.
    backends: dict[BackendDescription, None] = {}
    hooks: dict[HookDescription, None] = {}
    unreadable: list[UnreadableDistribution] = []
    for distribution in importlib_metadata.distributions():
        try:
            described = _plugins_of(distribution)
        except Exception as error:  # whatever is wrong with one must not hide the others
            unreadable.append(_unreadable(distribution, error))
            continue
        for each in described:
            if isinstance(each, BackendDescription):
                backends[each] = None
            else:
                hooks[each] = None
    return _Scan(
        tuple(sorted(backends, key=_place)), tuple(sorted(hooks, key=_place)), tuple(unreadable)
    )


def _place(description: _Description) -> tuple[str, str, str]:
    return description.name, description.distribution, description.target


def _plugins_of(distribution: Distribution) -> list[BackendDescription | HookDescription]:
    # Looking for the groups' names in the text spares parsing the metadata of all the others.
    text = distribution.read_text("entry_points.txt") or ""
    if BACKEND_GROUP not in text and HOOK_GROUP not in text:
        return []
    return list(_descriptions(_active(distribution)))


def _active(distribution: Distribution) -> Distribution:
    """Return what Python finds first under that name: ``distribution`` or a copy shadowing it."""
    import importlib_metadata

    try:
        return importlib_metadata.distribution(_metadata(distribution)["Name"])
    except importlib_metadata.PackageNotFoundError:  # its folder is not named after it
        return distribution


def _metadata(distribution: Distribution) -> PackageMetadata:
    """Return metadata that has at least a name."""
    metadata = distribution.metadata
    if metadata is None or not metadata.get("Name"):
        raise ValueError("its metadata names no distribution")
    return metadata


def _unreadable(distribution: Distribution, error: Exception) -> UnreadableDistribution:
    # A distribution that cannot be read has no name to give; the folder is not in the public API.
    location = getattr(distribution, "_path", distribution)
    return UnreadableDistribution(str(location), f"{type(error).__name__}: {error}")


def _descriptions(
    distribution: Distribution,
) -> Iterator[BackendDescription | HookDescription]:
    metadata = _metadata(distribution)
    demand = _demand(distribution)
    # An entry written twice is one entry; two that differ stay two.
    entries = dict.fromkeys(_entries(distribution.read_text("entry_points.txt") or ""))
    for group, name, value in entries:
        target, problem = _target(value)
        kind: type[BackendDescription | HookDescription] = BackendDescription
        if group == HOOK_GROUP:
            kind = HookDescription
            if problem is None and not _HOOK_NAME.fullmatch(name):
                problem = "a name of letters, digits, '-', '_' and '.' is needed, and not 'none'"
        elif problem is None and ("." in name or ":" in name):
            problem = "a name with '.' or ':' is read as an import path; choose it by its target"
        yield kind(
            name=name,
            distribution=metadata["Name"],
            version=metadata.get("Version") or "unknown",
            target=target,
            requirement=demand.requirement,
            compatible=demand.met,
            problem=demand.problem or problem,
        )


def _entries(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield group, name and value of each line in the sections of backends and of hooks.

    Read line by line, as the library parses all groups at once and gives up at the first bad line.
    """
    section = None
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip()
        elif section in (BACKEND_GROUP, HOOK_GROUP) and line and line[0] not in "#;":
            name, _, value = line.partition("=")
            yield section, name.strip(), value.strip()


def _target(value: str) -> tuple[str, str | None]:
    """Return ``module:attribute`` of an entry point's value, and what is wrong with it."""
    from importlib_metadata import EntryPoint

    # Its pattern alone: what an entry point does about a bad value differs between versions.
    parts = EntryPoint.pattern.match(value)
    if parts is None:
        return value, f"the entry point's value {value!r} is not 'package.module:attribute'"
    module, attribute = parts["module"], parts["attr"]
    return (f"{module}:{attribute}" if attribute else module), None


class _Demand(NamedTuple):
    """What a distribution demands of the core."""

    requirement: str | None
    met: bool
    problem: str | None


def _demand(distribution: Distribution) -> _Demand:
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    demanded: SpecifierSet | None = None
    for line in distribution.requires or []:
        if not _is_about_core(line):
            continue
        try:
            requirement = Requirement(line)
            # What only an extra of the backend would need does not bind the backend itself.
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        except ValueError as error:
            reason = str(error).splitlines()[0]
            return _Demand(line, False, f"its requirement {line!r} cannot be read: {reason}")
        if applies:
            demanded = requirement.specifier & (demanded or SpecifierSet())
    if demanded is None:
        return _Demand(None, True, None)
    return _Demand(f"{CORE_DISTRIBUTION}{demanded}", _accepts_core(demanded), None)


def _is_about_core(requirement: str) -> bool:
    name = re.match(r"\s*([\w.-]+)", requirement)
    return name is not None and _canonical(name[1]) == CORE_DISTRIBUTION


def _accepts_core(specifier: SpecifierSet) -> bool:
    from packaging.version import Version

    from agent_memory import __version__

    # The base version, since >=0.2 refuses 0.2.0.dev1; the full one for who pins a pre-release.
    return any(
        specifier.contains(version, prereleases=True)
        for version in (Version(__version__).base_version, __version__)
    )


def _canonical(name: str) -> str:
    from packaging.utils import canonicalize_name

    return canonicalize_name(name)
