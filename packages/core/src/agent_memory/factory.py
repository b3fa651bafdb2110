"""Creating a backend from its name or its import path: choose, check, import, call, validate.

Each stage is a function of its own, for `create_memory_vector_db`, which does all of them, and
for the command line, which reports on each. Every stage has its own error. Nothing here falls back
to another backend. Which backends are installed is known to `agent_memory.discovery`.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from agent_memory import embeddings as embeddings_package
from agent_memory.database import MemoryVectorDatabase
from agent_memory.discovery import (
    CORE_DISTRIBUTION,
    HOOKS_VARIABLE,
    KNOWN_BACKENDS,
    BackendDescription,
    clear_cache,
    installed_backends,
    installed_hooks,
    unreadable_distributions,
)
from agent_memory.embeddings import Embeddings
from agent_memory.errors import (
    BackendAttributeError,
    BackendCompatibilityError,
    BackendConflictError,
    BackendDependencyError,
    BackendImportError,
    BackendNotFoundError,
    BackendTypeError,
    InvalidArgumentError,
)

if TYPE_CHECKING:
    from agent_memory.hooks.database import Hooks

BackendFactory = Callable[..., MemoryVectorDatabase]
"""Anything that can be called as ``factory(embeddings, **options)``."""

FACTORY_VARIABLE = "MEMORY_VECTOR_DB_FACTORY"
MODEL_VARIABLE = "EMBEDDING_MODEL"
DIMENSIONS_VARIABLE = "EMBEDDING_DIMENSIONS"

DEFAULT_BACKEND = "redis"
DEFAULT_MODEL = "text-embedding-3-small"

_SIGNATURE = "(embeddings, **options) -> MemoryVectorDatabase"
_EMBEDDINGS_MEMBERS = ("model", "dimensions", "aembed_documents", "aembed_query")


def create_memory_vector_db(
    factory: str | BackendFactory | None = None,
    *,
    embeddings: Embeddings | str | None = None,
    hooks: Sequence[object] | None = None,
    **options: Any,
) -> MemoryVectorDatabase:
    """Create a memory vector database. No I/O happens: the first call on it connects.

    A variable that is set to nothing, or to blanks, counts as not set; that is the only way to
    unset one in many container tools. Variables are read from the process's environment alone,
    never from a file.

    Args:
        factory: which backend. The name that an installed distribution registers (``"redis"``);
            an import path, which is any string with a ``.`` or ``:`` (``"package.module.attr"``,
            ``"package.module.Class.create"``, ``"package.module:attr"``); or a callable
            ``(embeddings, **options)``. ``None`` reads ``MEMORY_VECTOR_DB_FACTORY``, whose
            default is ``redis``.
        embeddings: what turns text into vectors. An object that follows `Embeddings`; ``"local"``
            for `LocalEmbeddings`; the name of any other model for `LiteLLMEmbeddings`, with
            ``EMBEDDING_DIMENSIONS`` if that is set. ``None`` reads ``EMBEDDING_MODEL``, whose
            default is ``text-embedding-3-small``.
        hooks: the plug-ins whose hooks run around every call, outermost first: objects, or names
            of installed ones (see `agent_memory.hooks`); ``"*"`` stands for every installed one
            that is not named; ``[]`` for none. ``None`` reads ``AGENT_MEMORY_HOOKS``: names with
            commas between them, or ``none``; its default is ``*``. Without a plug-in the backend
            itself is returned.
        **options: passed to the factory as they are. ``space="..."`` opens the space of that name
            with every backend.

    Raises:
        BackendNotFoundError: no installed distribution registers the name.
        BackendConflictError: several do.
        BackendCompatibilityError: the backend requires another version of the core.
        BackendImportError: the module of the path does not exist, or failed while being imported.
        BackendDependencyError: a module that it imports does not exist.
        BackendAttributeError: the module has no such attribute.
        BackendTypeError: what was found is not callable, or returned no `MemoryVectorDatabase`.
        HookError: a plug-in cannot be found, imported or used.
        InvalidArgumentError: ``embeddings``, ``EMBEDDING_DIMENSIONS`` or ``hooks`` cannot be used.

    What the factory itself raises passes unchanged, with a note that says which backend it was; so
    does what creating a plug-in raises.
    """
    choice = choose_backend(factory)
    check_compatibility(choice)
    create = import_factory(choice)
    around = resolve_hooks(hooks)
    database = call_factory(choice, create, resolve_embeddings(embeddings), **options)
    return apply_hooks(choice, database, around)


# --- choosing ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BackendChoice:
    """Which backend was asked for, by whom, and what is known of it before it is imported."""

    setting: str | BackendFactory
    """A registered name, an import path, or the factory itself."""
    source: str
    """Where the setting came from, in words."""
    description: BackendDescription | None
    """``None`` for a callable, and for a path that no distribution registers."""

    @property
    def is_path(self) -> bool:
        """Whether the setting is an import path."""
        return isinstance(self.setting, str) and _is_path(self.setting)

    @property
    def target(self) -> str:
        """Where the factory is: the user's own path, or else the registered one."""
        if self.description is not None and not self.is_path:
            return self.description.target
        if isinstance(self.setting, str):
            return _without_credentials(self.setting)
        return _name_of(self.setting)

    def __str__(self) -> str:
        if isinstance(self.setting, str):
            shown = repr(_without_credentials(self.setting))
        else:
            shown = _name_of(self.setting)
        if self.description is None:
            return f"backend {shown} (from {self.source})"
        return f"backend {shown} (from {self.source}; {_registered(self.description)})"


def choose_backend(
    factory: str | BackendFactory | None = None, *, source: str = "the argument factory"
) -> BackendChoice:
    """Find out which backend is meant; nothing is imported.

    Args:
        factory: as for `create_memory_vector_db`.
        source: what to call the place that ``factory`` came from.

    Raises:
        BackendNotFoundError: no installed distribution registers the name.
        BackendConflictError: several do.
    """
    setting: str | BackendFactory
    if factory is not None:
        setting = factory
    elif configured := _variable(FACTORY_VARIABLE):
        setting, source = configured, f"the environment variable {FACTORY_VARIABLE}"
    else:
        setting, source = DEFAULT_BACKEND, f"the default, as {FACTORY_VARIABLE} is not set"
    if not isinstance(setting, str):
        return BackendChoice(setting, source, None)
    if _is_path(setting):
        return BackendChoice(setting, source, _registered_at(setting))
    return BackendChoice(setting, source, _registered_as(setting, source))


def _variable(name: str) -> str:
    """Return an environment variable without blanks around it; nothing if it is not set."""
    return os.environ.get(name, "").strip()


def _is_path(setting: str) -> bool:
    return "." in setting or ":" in setting


def _registered_at(path: str) -> BackendDescription | None:
    """Return the backend that ``path`` leads to, if exactly one distribution registers it."""
    dotted = path.replace(":", ".")
    same = [each for each in installed_backends() if each.target.replace(":", ".") == dotted]
    owners = {each.distribution for each in same}
    return same[0] if len(owners) == 1 else None


def _registered_as(name: str, source: str) -> BackendDescription:
    same = [each for each in installed_backends() if each.name == name]
    if not same:
        message = _not_found(name, source)
        # What is missing may be installed before the next attempt in this process.
        clear_cache()
        raise BackendNotFoundError(message)
    if len(same) > 1:
        targets = list(dict.fromkeys(repr(each.target) for each in same))
        raise BackendConflictError(
            f"backend {name!r} (from {source}) is registered more than once: by "
            f"{_listed([_registered(each) for each in same], 'and by')}. Pick one by its path: set "
            f"{FACTORY_VARIABLE}, or the argument factory, to {_listed(targets, 'or')}; "
            f"or uninstall what you do not need"
        )
    return same[0]


def _not_found(name: str, source: str) -> str:
    installed = installed_backends()
    shown = _listed([f"{each.name!r} ({_versioned(each)})" for each in installed], "and")
    if name in KNOWN_BACKENDS:
        problem = (
            f"backend {name!r} (from {source}) is not installed: pip install {KNOWN_BACKENDS[name]}"
        )
    else:
        problem = f"no installed distribution registers the backend {name!r} (from {source})"
    return _sentences(
        problem,
        "" if name in KNOWN_BACKENDS else _meant_backend(name, installed),
        f"Installed: {shown or 'no backend at all'}",
        *(
            f"The metadata in {each.location} could not be read ({each.reason})"
            for each in unreadable_distributions()
        ),
        "A factory that no distribution registers is named by its import path: "
        "'package.module.attribute'",
    )


def _meant_backend(name: str, installed: Sequence[BackendDescription]) -> str:
    # Who writes the distribution's name, with dashes or underscores, means its backend.
    names = {each.distribution: each.name for each in installed}
    names.update((distribution, known) for known, distribution in KNOWN_BACKENDS.items())
    names.update((each.name, each.name) for each in installed)
    names.update((known, known) for known in KNOWN_BACKENDS)
    close = _closest(name.replace("_", "-"), names) or _closest(name, names)
    if close is None:
        return ""
    meant = names[close]
    if any(each.name == meant for each in installed):
        return f"Did you mean {meant!r}?"
    return f"Did you mean {meant!r}? It is not installed: pip install {KNOWN_BACKENDS[meant]}"


# --- compatibility -------------------------------------------------------------------------------


def check_compatibility(choice: BackendChoice) -> None:
    """Check that the running core is one that the chosen backend's distribution accepts.

    Raises:
        BackendCompatibilityError: it is not, or what the distribution demands cannot be read.
    """
    backend = choice.description
    if backend is None or backend.compatible:
        return
    from agent_memory import __version__

    assert backend.requirement is not None  # nothing demanded is always met
    if backend.problem is not None:
        raise BackendCompatibilityError(
            f"{choice} cannot be checked against {CORE_DISTRIBUTION} {__version__}: "
            f"{backend.problem}; upgrade it: pip install --upgrade {backend.distribution}"
        )
    newer = _demands_newer(backend.requirement, __version__)
    raise BackendCompatibilityError(
        f"{choice} requires {backend.requirement}, but {CORE_DISTRIBUTION} {__version__} is "
        f"installed: upgrade {'the core' if newer else 'the backend'}: "
        f"pip install --upgrade {CORE_DISTRIBUTION if newer else backend.distribution}"
    )


def _demands_newer(requirement: str, installed: str) -> bool:
    """Tell whether a requirement that ``installed`` does not meet asks for a later version."""
    from packaging.requirements import Requirement
    from packaging.version import Version

    core = Version(Version(installed).base_version)
    for clause in Requirement(requirement).specifier:
        if clause.contains(core, prereleases=True):
            continue
        if clause.operator in (">", ">="):
            return True
        if clause.operator in ("~=", "==") and Version(clause.version.removesuffix(".*")) > core:
            return True
    return False


# --- importing -----------------------------------------------------------------------------------


def import_factory(choice: BackendChoice) -> BackendFactory:
    """Import the chosen factory.

    Raises:
        BackendImportError: its module does not exist, or failed while being imported.
        BackendDependencyError: a module that it imports does not exist.
        BackendAttributeError: the module has no such attribute.
        BackendTypeError: what was found is not callable.
    """
    found = _follow_path(choice) if isinstance(choice.setting, str) else choice.setting
    if isinstance(found, ModuleType):
        raise BackendTypeError(
            f"{choice} is not callable: {choice.target} is a module ({_file_of(found)}); "
            f"name the factory in it: '{found.__name__}:<name>', callable as {_SIGNATURE}"
        )
    if not callable(found):
        raise BackendTypeError(
            f"{choice} is not callable: it is of type {_qualified(type(found))}; "
            f"expected a callable {_SIGNATURE}"
        )
    return cast("BackendFactory", found)


def _follow_path(choice: BackendChoice) -> object:
    """Import what the target's path leads to."""
    module_path, colon, attribute_path = _well_formed(choice)
    parts = module_path.split(".")
    module = _import_module(choice, parts[0], parent=None)
    if colon or not choice.is_path:
        for depth in range(2, len(parts) + 1):
            module = _import_module(choice, ".".join(parts[:depth]), parent=module)
        return _follow_attributes(choice, module, attribute_path.split(".") if colon else [])
    # Without a colon: modules as far as there are any, attributes from there on. The last part is
    # an attribute in any case, as a package may well hold a function of the name of its module.
    depth = 1
    while depth < len(parts) - 1 and _exists(".".join(parts[: depth + 1]), parent=module):
        depth += 1
        module = _import_module(choice, ".".join(parts[:depth]), parent=module)
    return _follow_attributes(choice, module, parts[depth:])


def _well_formed(choice: BackendChoice) -> tuple[str, str, str]:
    """Split the target at its colon, having checked that it can be a path at all."""
    path = choice.target
    module_path, colon, attribute_path = path.partition(":")
    parts = module_path.split(".") + (attribute_path.split(".") if colon else [])
    wrong = [part for part in parts if not part.isidentifier()]
    if wrong:
        raise BackendImportError(
            f"{choice} is not an import path, as {wrong[0]!r} is not a Python name; "
            f"expected 'package.module.attribute' or 'package.module:attribute'"
        )
    return module_path, colon, attribute_path


def _import_module(choice: BackendChoice, name: str, *, parent: ModuleType | None) -> ModuleType:
    if not _exists(name, parent=parent):
        raise _missing_module(choice, name, parent=parent)
    with _import_failures(choice, name):
        return importlib.import_module(name)


def _exists(name: str, *, parent: ModuleType | None) -> bool:
    """Tell whether there is a module of that full name; its parent has been imported.

    Looking before importing tells a path that is wrong from a module that fails, without trusting
    the ``name`` of a `ModuleNotFoundError`, which may be ``None``.
    """
    if sys.modules.get(name) is not None:
        return True
    if parent is not None and not _is_package(parent):
        return False
    return importlib.util.find_spec(name) is not None


def _is_package(module: ModuleType) -> bool:
    # Not hasattr: a module that makes its attributes on demand may fail at any of them.
    return _has_statically(module, "__path__")


def _missing_module(
    choice: BackendChoice, name: str, *, parent: ModuleType | None
) -> BackendImportError:
    part = name.rpartition(".")[2]
    if parent is None:
        problem = f"there is no module {part!r} on sys.path"
    elif _is_package(parent):
        problem = f"the package {parent.__name__!r} ({_file_of(parent)}) has no module {part!r}"
    else:
        problem = (
            f"{parent.__name__!r} ({_file_of(parent)}) is a module and not a package, so that it "
            f"has no module {part!r}"
        )
    return BackendImportError(
        _sentences(f"{choice} cannot be imported: {problem}", _missing_module_hint(choice, name)),
        name=name,
    )


def _missing_module_hint(choice: BackendChoice, name: str) -> str:
    return (
        _repair_hint(choice)
        or _compat_hint(name)
        or "Console scripts do not add the current directory to sys.path: install the module, or "
        "name its folder in PYTHONPATH"
    )


@contextlib.contextmanager
def _import_failures(choice: BackendChoice, module_name: str) -> Iterator[None]:
    """Make whatever code of a module raises while it is being imported an error of ours."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = "it does not say which" if error.name is None else repr(error.name)
        problem = (
            f"{choice} cannot be imported: {_file_found(module_name)} exists, but a module that it "
            f"imports does not: {missing} ({_told(error)})"
        )
        hint = (
            _compat_hint(error.name)
            or _repair_hint(choice)
            or "Install the distribution that provides it, whose name may differ from the module's"
        )
        raise BackendDependencyError(_sentences(problem, hint), name=error.name) from error
    except (Exception, SystemExit) as error:  # a script without a main guard may exit
        raise BackendImportError(
            f"{choice} cannot be imported: {_file_found(module_name)} raised "
            f"{type(error).__name__} while being imported ({_told(error)})",
            name=module_name,
        ) from error


def _compat_hint(missing: str | None) -> str:
    """Return what to install for backends written for ``agent_memory_server``, if that is it."""
    if missing != "agent_memory_server":
        return ""
    return (
        "Backends written for agent_memory_server need the distribution "
        "agent-memory-server-compat: pip install agent-memory-server-compat"
    )


def _repair_hint(choice: BackendChoice) -> str:
    """Return how to repair the distribution of the chosen backend, if that is known."""
    if choice.description is None:
        return ""
    return (
        f"The installation of {_versioned(choice.description)} looks incomplete: 'pip check' tells "
        f"what it lacks; to repair it: "
        f"pip install --force-reinstall {choice.description.distribution}"
    )


def _file_of(module: ModuleType) -> str:
    file = getattr(module, "__file__", None)
    if file is not None:
        return str(file)
    folders = list(getattr(module, "__path__", []))
    return ", ".join(folders) or "built in"


def _file_found(module_name: str) -> str:
    """Return the file of a module that may have failed while being imported."""
    if module := sys.modules.get(module_name):
        return _file_of(module)
    spec = importlib.util.find_spec(module_name)
    return (spec and spec.origin) or module_name


def _told(error: BaseException) -> str:
    """Return what an exception says and where it was raised."""
    said = _without_credentials(str(error)) or "no message"
    place = None
    step = error.__traceback__
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        if file not in _MACHINERY and not file.startswith("<frozen "):
            place = f"{file}, line {step.tb_lineno}"
        step = step.tb_next
    return said if place is None else f"{said}; at {place}"


_MACHINERY = {__file__, importlib.__file__, contextlib.__file__}
"""Files whose lines say nothing about why an import failed."""


# --- attributes ----------------------------------------------------------------------------------


def _follow_attributes(choice: BackendChoice, module: ModuleType, names: Sequence[str]) -> object:
    """Return the attribute of an attribute ... of ``module``."""
    found: object = module
    for position, name in enumerate(names):
        missing: AttributeError | None = None
        # A module may import on demand, in its own __getattr__.
        with _import_failures(choice, module.__name__):
            try:
                found = getattr(found, name)
            except AttributeError as error:
                missing = error
        if missing is not None:
            last = position == len(names) - 1
            raise _missing_attribute(choice, module, found, name, last=last) from missing
    return found


def _missing_attribute(
    choice: BackendChoice, module: ModuleType, holder: object, name: str, *, last: bool
) -> BackendAttributeError | BackendImportError:
    public = [each for each in dir(holder) if not each.startswith("_")]
    is_package = holder is module and _is_package(module)
    submodules = [each.name for each in pkgutil.iter_modules(module.__path__)] if is_package else []
    close = _closest(name, [*public, *submodules])
    meant = f"Did you mean {close!r}?" if close else ""
    if name in submodules:
        meant = (
            f"It is a module of that package: name the factory in it, "
            f"'{module.__name__}.{name}:<name>'"
        )
    owner = "" if holder is module else f"{_name_of(holder)} in "
    place = f"{owner}the module {module.__name__!r} ({_file_of(module)})"
    if is_package and not last and ":" not in choice.target:
        # In a path of dots alone this part is rather a module that is missing.
        return BackendImportError(
            _sentences(
                f"{choice} cannot be imported: {place} has neither a module nor an attribute "
                f"{name!r}",
                meant,
                _missing_module_hint(choice, f"{module.__name__}.{name}"),
            ),
            name=f"{module.__name__}.{name}",
        )
    return BackendAttributeError(
        _sentences(
            f"{choice} cannot be found: {place} has no attribute {name!r}",
            meant,
            _repair_hint(choice),
        )
    )


# --- calling -------------------------------------------------------------------------------------


def call_factory(
    choice: BackendChoice, factory: BackendFactory, embeddings: Embeddings, /, **options: Any
) -> MemoryVectorDatabase:
    """Call the imported factory and check what it returns.

    Raises:
        BackendTypeError: it returned something other than a `MemoryVectorDatabase`.

    What the factory itself raises passes unchanged, with a note that says which backend it was.
    """
    try:
        # Typed as what a factory promises; the rest of this function is about broken promises.
        database: object = factory(embeddings, **options)
    except Exception as error:
        error.add_note(f"while creating {choice} via {choice.target}")
        raise
    if isinstance(database, MemoryVectorDatabase):
        return database
    if inspect.iscoroutine(database):
        database.close()  # or Python would warn that it was never awaited
    raise BackendTypeError(
        f"{choice}: {choice.target} returned {_described_result(database)}; "
        f"expected a callable {_SIGNATURE}"
    )


def _described_result(result: object) -> str:
    """Say what a factory returned instead of a database, and what to do about it."""
    if result is None:
        return "None. Missing 'return'?"
    if isinstance(result, type):
        return (
            f"the class {_qualified(result)} and not an object: "
            f"return {result.__name__}(embeddings)"
        )
    if inspect.isawaitable(result):
        return (
            f"an awaitable ({_qualified(type(result))}). Factories are synchronous: define it with "
            f"'def', and connect at the first call of a method"
        )
    lacking = [
        name
        for name in vars(MemoryVectorDatabase)
        if name in MemoryVectorDatabase.__abstractmethods__ and not _has_statically(result, name)
    ]
    lacks = (
        f"it lacks {_listed(lacking, 'and')}" if lacking else "its class does not inherit from it"
    )
    return (
        f"an object of type {_qualified(type(result))}, which is not a MemoryVectorDatabase: "
        f"{lacks}"
    )


# --- hooks ---------------------------------------------------------------------------------------


def resolve_hooks(hooks: Sequence[object] | None = None) -> Hooks | None:
    """Return the hooks that an argument of `create_memory_vector_db` means; ``None`` if none.

    Raises:
        HookError: a plug-in cannot be found, imported or used.
        InvalidArgumentError: ``hooks`` is not a list of plug-ins and names.
    """
    if hooks is None and not _variable(HOOKS_VARIABLE) and not installed_hooks():
        return None  # the usual case: pluggy is not even imported
    from agent_memory.hooks.loading import load_hooks

    return load_hooks(hooks)


def apply_hooks(
    choice: BackendChoice, database: MemoryVectorDatabase, hooks: Hooks | None
) -> MemoryVectorDatabase:
    """Return the database with the hooks around it; without hooks the database itself."""
    if hooks is None:
        return database
    from agent_memory.hooks.database import HookedMemories

    backend = choice.target if choice.description is None else choice.description.name
    return HookedMemories(database, hooks, backend=backend)


# --- embeddings ----------------------------------------------------------------------------------


def resolve_embeddings(embeddings: Embeddings | str | None = None) -> Embeddings:
    """Return the embeddings that an argument of `create_memory_vector_db` means; no I/O.

    Raises:
        InvalidArgumentError: they do not follow the protocol `Embeddings`, their name is blank,
            or ``EMBEDDING_DIMENSIONS`` is no whole number of 1 or more.
    """
    if embeddings is None:
        return _embeddings_of(_variable(MODEL_VARIABLE) or DEFAULT_MODEL)
    if isinstance(embeddings, str):
        if not embeddings.strip():
            raise InvalidArgumentError(
                f"embeddings={embeddings!r}: it is blank; give the name of a model, 'local', or "
                f"None for what {MODEL_VARIABLE} says"
            )
        return _embeddings_of(embeddings)
    if isinstance(embeddings, type):
        raise InvalidArgumentError(
            f"embeddings: got the class {_qualified(embeddings)}; give an object of it"
        )
    lacking = [name for name in _EMBEDDINGS_MEMBERS if not _offers(embeddings, name)]
    if lacking:
        raise InvalidArgumentError(
            f"embeddings: an object of type {_qualified(type(embeddings))} does not follow the "
            f"Embeddings protocol: it lacks {_listed(lacking, 'and')}; give such an object, the "
            f"name of a model, or None"
        )
    return embeddings


def _embeddings_of(model: str) -> Embeddings:
    if model == "local":
        return embeddings_package.LocalEmbeddings()
    return embeddings_package.LiteLLMEmbeddings(model, dimensions=_configured_dimensions())


def _configured_dimensions() -> int | None:
    value = _variable(DIMENSIONS_VARIABLE)
    if not value:
        return None
    if not re.fullmatch("[0-9]+", value) or int(value) == 0:
        raise InvalidArgumentError(
            f"the environment variable {DIMENSIONS_VARIABLE} is {value!r}; expected a whole number "
            f"of 1 or more, or nothing at all for the model's own"
        )
    return int(value)


def _offers(embeddings: object, name: str) -> bool:
    """Tell whether an object has a member, without reading ``dimensions``, which may be slow."""
    if _has_statically(embeddings, name):
        return True
    # A proxy has its members only when they are read.
    return hasattr(type(embeddings), "__getattr__") and (
        name == "dimensions" or hasattr(embeddings, name)
    )


# --- words ---------------------------------------------------------------------------------------


def _has_statically(instance: object, name: str) -> bool:
    missing = object()
    return inspect.getattr_static(instance, name, missing) is not missing


def _closest(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that ``word`` is most likely a misspelling of, if any is likely."""
    folded = {each.casefold(): each for each in candidates}
    close = difflib.get_close_matches(word.casefold(), folded, n=1)
    return folded[close[0]] if close else None


def _sentences(*parts: str) -> str:
    """Join what was found and what to do about it; parts that are empty are left out."""
    text = ""
    for part in filter(None, parts):
        text += part if not text else f" {part}" if text.endswith("?") else f". {part}"
    return text


def _listed(items: Sequence[str], conjunction: str) -> str:
    """Return ``a, b and c``."""
    *first, last = items or [""]
    return f"{', '.join(first)} {conjunction} {last}" if first else last


def _versioned(description: BackendDescription) -> str:
    return f"{description.distribution} {description.version}"


def _registered(description: BackendDescription) -> str:
    return f"{_versioned(description)}, {description.target}"


def _qualified(kind: type) -> str:
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def _name_of(instance: object) -> str:
    """Return the dotted name of a function or class, or of what type an object is."""
    name = getattr(instance, "__qualname__", None)
    if name is None:
        return f"<{_qualified(type(instance))}>"
    return f"{getattr(instance, '__module__', None)}.{name}"


def _without_credentials(text: str) -> str:
    """Blank out user and password of URLs: a message must not print them."""
    return re.sub(r"://\S*@", "://***@", text)
