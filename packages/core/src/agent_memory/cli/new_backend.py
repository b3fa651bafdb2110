"""``agent-memory new-backend``: the project of a backend, written from the templates beside this.

Imported by the command alone, as is the template engine. What a backend is made of is in
``new_backend_template``; here is only how a name becomes names, and a project a folder.
"""

from __future__ import annotations

import re
import shutil
import uuid
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import importlib_metadata
from jinja2 import Environment, PackageLoader, StrictUndefined
from packaging.utils import canonicalize_name
from packaging.version import Version

from agent_memory import __version__
from agent_memory.discovery import CORE_DISTRIBUTION, KNOWN_BACKENDS, installed_backends
from agent_memory.errors import InvalidArgumentError

MAX_LENGTH = 32
"""Characters of a name: with longer ones the lines of the project would need other breaks."""

_PREFIX = f"{CORE_DISTRIBUTION}-"
# As PEP 508 has it; `canonicalize_name(validate=True)` of some releases lets a newline follow.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_OTHERS_OF_OURS = ("core", "server", "server-compat", "testkit")
"""What would be taken for a part of this project, or import as one."""


@dataclass(frozen=True, slots=True)
class ProjectNames:
    """One backend under all the names that it has."""

    backend: str
    """What users ask for: ``my-store``."""
    distribution: str
    """What they install: ``agent-memory-my-store``."""
    package: str
    """What is imported: ``agent_memory_my_store``."""
    class_name: str
    """``MyStoreBackend``."""


def project_names(name: str) -> ProjectNames:
    """Return the names that follow from what the author calls the backend.

    Args:
        name: ASCII letters, digits and ``.``, ``_``, ``-`` inside, at most 32 characters. It is
            brought to the form of PEP 503 first, so that ``My_Store`` is ``my-store``.

    Raises:
        InvalidArgumentError: no distribution could have such a name, or it repeats our prefix.
    """
    if not _NAME.fullmatch(name):
        raise InvalidArgumentError(
            f"{name!r} is no name for a backend: expected ASCII letters and digits, with single "
            f"'-' between words, such as 'quill' or 'my-store'"
        )
    backend = canonicalize_name(name)
    if backend == CORE_DISTRIBUTION or backend.startswith(_PREFIX):
        meant = backend.removeprefix(_PREFIX) if backend.startswith(_PREFIX) else "my-store"
        raise InvalidArgumentError(
            f"{name!r}: give the name that users ask for, such as {meant!r}; the distribution "
            f"becomes {_PREFIX + meant!r} by itself"
        )
    if len(backend) > MAX_LENGTH:
        raise InvalidArgumentError(
            f"{name!r} is too long for a name: {len(backend)} characters, {MAX_LENGTH} at most"
        )
    words = "".join(word.capitalize() for word in backend.split("-"))
    return ProjectNames(
        backend=backend,
        distribution=f"{_PREFIX}{backend}",
        package=f"agent_memory_{backend.replace('-', '_')}",
        class_name=f"Backend{words}" if words[0].isdigit() else f"{words}Backend",
    )


def require_free(names: ProjectNames) -> None:
    """Check that no backend, distribution or module that is known here has one of the names.

    Names are compared as PEP 503 does. No index is asked: what others have published is not known.

    Raises:
        InvalidArgumentError: one has; the message says which.
    """
    if names.backend in _OTHERS_OF_OURS:
        raise InvalidArgumentError(
            f"{names.backend!r} would be taken for a part of {CORE_DISTRIBUTION} itself: choose "
            f"another name"
        )
    if names.backend in KNOWN_BACKENDS:
        raise InvalidArgumentError(
            f"{names.backend!r} is the backend of {KNOWN_BACKENDS[names.backend]}: choose another "
            f"name"
        )
    for each in installed_backends():
        if canonicalize_name(each.name) == names.backend:
            raise InvalidArgumentError(
                f"{names.backend!r} is taken: {each.distribution} {each.version} is installed and "
                f"registers the backend {each.name!r}. Choose another name, or uninstall it: "
                f"pip uninstall {each.distribution}"
            )
    for installed in importlib_metadata.distributions(name=names.distribution):
        raise InvalidArgumentError(
            f"{names.backend!r} is taken: the distribution {names.distribution} "
            f"{installed.version} is installed. Choose another name, or uninstall it: "
            f"pip uninstall {names.distribution}"
        )
    module = find_spec(names.package)
    if module is not None:
        raise InvalidArgumentError(
            f"{names.backend!r} is taken: the module {names.package} exists ({module.origin}). "
            f"Choose another name"
        )


def project_files(names: ProjectNames) -> dict[str, str]:
    """Return the files of the project: path inside its folder, with ``/`` → text."""
    templates = Environment(
        loader=PackageLoader("agent_memory.cli", "new_backend_template"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 (what comes of it is no HTML)
    )
    version = Version(__version__)
    values = {
        **asdict(names),
        "core_pin": compatible_range(version),
        # A kit and a contract belong together: its minor version is always pinned.
        "testkit_pin": f"~={_release(version)}",
    }
    return {
        path.removesuffix(".jinja").replace("src/package/", f"src/{names.package}/"): (
            templates.get_template(path).render(values)
        )
        for path in templates.list_templates(extensions=["jinja"])
    }


def compatible_range(version: Version) -> str:
    """Return the requirement on the core of a backend that was tried with ``version``.

    What comes later in the same minor version keeps what a backend uses; from 1.0 on, what comes
    later in the same major version does.
    """
    if version.major == 0:
        return f"~={_release(version)}"
    return f"~={version.major}.{version.minor}" + _pre_release(version)


def _release(version: Version) -> str:
    return f"{version.major}.{version.minor}.{version.micro}" + _pre_release(version)


def _pre_release(version: Version) -> str:
    """Return the end of the version without which it would not itself be in the range."""
    return version.public.removeprefix(version.base_version) if version.is_prerelease else ""


def write_project(names: ProjectNames, into: Path) -> tuple[Path, list[str]]:
    """Write the project into a new folder of ``into``; return the folder and its files.

    The folder appears whole or not at all, also if this is interrupted.

    Raises:
        InvalidArgumentError: something of that name exists there already.
        OSError: the folder cannot be written.
    """
    files = project_files(names)
    target = into.resolve() / names.distribution
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        for path, text in files.items():
            file = draft / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8", newline="\n")
        if target.exists() or target.is_symlink():
            raise InvalidArgumentError(
                f"{target} exists already and is left as it is: choose another name, or another "
                f"folder with --into"
            )
        draft.rename(target)
    finally:
        if draft.exists():
            shutil.rmtree(draft)
    return target, sorted(files)
