"""From what an application or the environment says to the plug-ins whose hooks run.

Choosing reads metadata alone; only what is chosen is imported. Nothing here is left out quietly: a
plug-in that was asked for, or that is installed and not ruled out, works or is an error.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
from collections.abc import Sequence
from types import ModuleType

from agent_memory.discovery import (
    CORE_DISTRIBUTION,
    HOOKS_VARIABLE,
    HookDescription,
    clear_cache,
    installed_hooks,
    unreadable_distributions,
)
from agent_memory.errors import (
    HookCompatibilityError,
    HookConflictError,
    HookImportError,
    HookNotFoundError,
    InvalidArgumentError,
)
from agent_memory.hooks.database import Hooks, Plugin

REST = "*"
"""Stands for every installed plug-in that is not named beside it."""
OTEL = "otel"
"""The plug-in of the core itself; it runs only where it is named."""

_OTEL_TARGET = "agent_memory.hooks.otel:OpenTelemetry"


def chosen_hooks(
    hooks: Sequence[object] | None = None,
) -> list[HookDescription | object]:
    """Return what is to run, outermost first; nothing of it is imported.

    Args:
        hooks: as for `create_memory_vector_db`.

    Raises:
        HookNotFoundError: no installed distribution registers a name.
        HookConflictError: several do.
        InvalidArgumentError: ``hooks`` is not a list, or names one twice.
    """
    if hooks is None:
        configured = os.environ.get(HOOKS_VARIABLE, "").strip()
        if configured == "none":
            return []
        source = f"the environment variable {HOOKS_VARIABLE}" if configured else "the default"
        wanted: list[object] = [each.strip() for each in (configured or REST).split(",")]
    elif isinstance(hooks, (list, tuple)):
        source, wanted = "the argument hooks", list(hooks)
    else:
        raise InvalidArgumentError(
            f"hooks: expected a list of plug-ins or of their names, got {type(hooks).__name__}"
        )
    names = [each for each in wanted if isinstance(each, str)]
    for name in names:
        if not name or names.count(name) > 1:
            raise InvalidArgumentError(
                f"hooks (from {source}): "
                + (f"{name!r} is named twice" if name else "a name is blank")
            )
    chosen: list[HookDescription | object] = []
    for each in wanted:
        if each == REST:
            rest = {found.name for found in installed_hooks()} - {*names, OTEL}
            chosen.extend(_described(name, source) for name in sorted(rest))
        else:
            chosen.append(_described(each, source) if isinstance(each, str) else each)
    return chosen


def load_hooks(hooks: Sequence[object] | None = None) -> Hooks | None:
    """Import the chosen plug-ins and return their hooks; ``None`` if no plug-in is chosen.

    Raises:
        HookError: one of them cannot be found or imported, does not fit this version of the core,
            or does not follow the specifications.
        InvalidArgumentError: as `chosen_hooks`.

    What the factory of a plug-in raises passes unchanged, with a note that says which it was.
    """
    plugins: list[Plugin] = []
    for each in chosen_hooks(hooks):
        plugin = _loaded(each) if isinstance(each, HookDescription) else _given(each)
        taken = sum(plugin.name == other.name.partition(" #")[0] for other in plugins)
        if taken:
            plugin = Plugin(f"{plugin.name} #{taken + 1}", plugin.hooks, plugin.origin)
        plugins.append(plugin)
    return Hooks(plugins) if plugins else None


def _described(name: str, source: str) -> HookDescription:
    same = [each for each in installed_hooks() if each.name == name]
    if name == OTEL:
        from agent_memory import __version__

        ours = HookDescription(OTEL, CORE_DISTRIBUTION, __version__, _OTEL_TARGET, None, True, None)
        same.append(ours)
    if not same:
        message = _not_found(name, source)
        # What is missing may be installed before the next attempt in this process.
        clear_cache()
        raise HookNotFoundError(message)
    if len(same) > 1:
        owners = " and by ".join(map(_registered, same))
        raise HookConflictError(
            f"plug-in {name!r} (from {source}) is registered more than once: by {owners}; "
            f"uninstall one, or pass the plug-in itself in hooks=[...]"
        )
    return same[0]


def _not_found(name: str, source: str) -> str:
    names = [*dict.fromkeys(each.name for each in installed_hooks()), OTEL]
    close = difflib.get_close_matches(name, names, n=1)
    unreadable = "".join(
        f". The metadata in {each.location} could not be read ({each.reason})"
        for each in unreadable_distributions()
    )
    return (
        f"no installed distribution registers the plug-in {name!r} (from {source})"
        f"{f'. Did you mean {close[0]!r}?' if close else '.'} There are: "
        f"{', '.join(map(repr, names))}{unreadable}. To run without it, take it out of "
        f"{HOOKS_VARIABLE} or of hooks=[...]"
    )


def _registered(description: HookDescription) -> str:
    return f"{description.distribution} {description.version}, {description.target}"


def _given(hooks: object) -> Plugin:
    if hooks is None:
        raise InvalidArgumentError("hooks: got None in the list; give plug-ins or their names")
    name = getattr(hooks, "__name__", None) or type(hooks).__qualname__
    return Plugin(str(name), hooks, "from the argument hooks")


def _loaded(description: HookDescription) -> Plugin:
    shown = f"plug-in {description.name!r} ({_registered(description)})"
    remedy = f"or leave it out of {HOOKS_VARIABLE} or of hooks=[...]"
    if description.problem is not None:
        raise HookImportError(f"{shown} cannot be used: {description.problem}; mend it, {remedy}")
    if not description.compatible:
        from agent_memory import __version__

        raise HookCompatibilityError(
            f"{shown} requires {description.requirement}, but {CORE_DISTRIBUTION} {__version__} is "
            f"installed: upgrade one of them, {remedy}"
        )
    found = _imported(description, shown)
    if inspect.isclass(found) or inspect.isroutine(found):
        try:
            found = found()
        except Exception as error:
            error.add_note(f"while creating {shown}")
            raise
    return Plugin(description.name, found, _registered(description))


def _imported(description: HookDescription, shown: str) -> object:
    module_path, _, attribute_path = description.target.partition(":")
    try:
        found: object = importlib.import_module(module_path)
    except Exception as error:
        cure = (
            f"pip install '{CORE_DISTRIBUTION}[otel]'"
            if description.distribution == CORE_DISTRIBUTION
            else f"repair it: pip install --force-reinstall {description.distribution}"
        )
        raise HookImportError(
            f"{shown} could not be imported: {type(error).__name__}: {error}; {cure}"
        ) from error
    for name in filter(None, attribute_path.split(".")):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            owner = found.__name__ if isinstance(found, ModuleType) else type(found).__name__
            raise HookImportError(
                f"{shown} could not be imported: {owner} has no attribute {name!r}"
            ) from error
    return found
