"""What must hold of the distributions of one release, beyond what other tools look at.

`nox -s wheels` runs it on the folder that it has built: every package as a wheel and as a source
distribution, of one version, with licence, types and everything that git knows of it inside.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import Any

from packaging.metadata import Metadata
from packaging.utils import (
    NormalizedName,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PLACES = [
    "packages/*/pyproject.toml",
    "examples/audit-log/pyproject.toml",
    "examples/redaction/pyproject.toml",
]
"""The projects that are built; the backend on Qdrant is checked as its own author does it."""


def problems(dist: Path) -> list[str]:
    """Return everything that is wrong with the distributions in a folder, a line each."""
    projects = {
        canonicalize_name(project["name"]): (file.parent, project)
        for file in sorted(each for place in PLACES for each in ROOT.glob(place))
        if (project := tomllib.loads(file.read_text("utf-8"))["project"])
    }
    wheels = {parse_wheel_filename(each.name)[0]: each for each in dist.glob("*.whl")}
    sdists = {parse_sdist_filename(each.name)[0]: each for each in dist.glob("*.tar.gz")}
    found = [
        f"{kind}: {sorted(built)} were built, {sorted(projects)} expected"
        for kind, built in (("wheels", wheels), ("sdists", sdists))
        if set(built) != set(projects)
    ]
    if found:
        return found
    versions = {name: parse_wheel_filename(each.name)[1] for name, each in wheels.items()}
    if len(set(versions.values())) != 1:
        found.append(f"the packages differ in version: {versions}")
    for name, (folder, project) in projects.items():
        found += [f"{wheels[name].name}: {each}" for each in _of_wheel(wheels[name], project)]
        found += [f"{sdists[name].name}: {each}" for each in _of_sdist(sdists[name], folder)]
        found += [f"{name}: {each}" for each in _of_pins(wheels[name], versions)]
    return found


def _of_wheel(file: Path, project: dict[str, Any]) -> Iterator[str]:
    with zipfile.ZipFile(file) as archive:
        files = set(archive.namelist())
        [info] = {each.partition("/")[0] for each in files if ".dist-info/" in each}
        metadata = _metadata(archive)
        licences = [f"{info}/licenses/{each}" for each in metadata.license_files or []]
        if metadata.license_expression != project["license"] or not licences:
            yield f"its licence is {metadata.license_expression} in {licences or 'no file'}"
        for each in licences:
            if each not in files or archive.read(each) != (ROOT / "LICENSE").read_bytes():
                yield f"{each} is not the licence of this repository"
        packages = {each.partition("/")[0] for each in files} - {info}
        for package in sorted(packages):
            if f"{package}/py.typed" not in files:
                yield f"{package}/py.typed is missing"
        if len(packages) != 1:
            yield f"it installs {sorted(packages)}: one package was expected"
        if str(metadata.requires_python) != project["requires-python"]:
            yield f"Requires-Python is {metadata.requires_python}"
        entries = {
            (each.group, each.name, each.value)
            for each in PathDistribution(zipfile.Path(archive, f"{info}/")).entry_points
        }
    expected = dict(project.get("entry-points", {}))
    if "scripts" in project:
        expected["console_scripts"] = project["scripts"]
    wanted = {(group, *each) for group, points in expected.items() for each in points.items()}
    if entries != wanted:
        yield f"its entry points are {sorted(entries)}, pyproject.toml has {sorted(wanted)}"


def _of_sdist(file: Path, folder: Path) -> Iterator[str]:
    """Yield what git has in the folder of a package and its source distribution lacks."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "."], cwd=folder, capture_output=True, text=True, check=True
    )
    tracked = {each for each in listed.stdout.split("\0") if (folder / each).is_file()} - {""}
    with tarfile.open(file) as archive:
        packed = {each.partition("/")[2] for each in archive.getnames()}
    yield from (f"{each} is missing" for each in sorted(tracked - packed))


def _of_pins(file: Path, versions: dict[NormalizedName, Version]) -> Iterator[str]:
    """Yield requirements on packages of ours that this release does not meet, or meets too widely.

    What the packages use of each other may change in a later minor version, and from 1.0 on in a
    later major one.
    """
    with zipfile.ZipFile(file) as archive:
        metadata = _metadata(archive)
    for requirement in metadata.requires_dist or []:
        version = versions.get(canonicalize_name(requirement.name))
        if version is None or not requirement.specifier:
            continue
        following = f"0.{version.minor + 1}.0" if version.major == 0 else f"{version.major + 1}.0.0"
        if not requirement.specifier.contains(version, prereleases=True):
            yield f"{str(requirement)!r} does not accept {version}"
        if requirement.specifier.contains(following):
            yield f"{str(requirement)!r} accepts {following}, with which nothing was tried"


def _metadata(wheel: zipfile.ZipFile) -> Metadata:
    [name] = [each for each in wheel.namelist() if each.endswith(".dist-info/METADATA")]
    return Metadata.from_email(wheel.read(name), validate=True)


if __name__ == "__main__":
    wrong = problems(Path(sys.argv[1]))
    for each in wrong:
        print(each, file=sys.stderr)
    sys.exit(bool(wrong))
