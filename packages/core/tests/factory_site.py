"""`Site`: a folder on ``sys.path`` into which a test installs real little distributions."""

from __future__ import annotations

import importlib
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from agent_memory.discovery import clear_cache

DATABASE = '''
from agent_memory import MemoryVectorDatabase


class MyDB(MemoryVectorDatabase):
    """A backend as small as one can be; it keeps what it was created with."""

    def __init__(self, embeddings, **options):
        self.embeddings = embeddings
        self.options = options

    @classmethod
    def create(cls, embeddings, **options):
        return cls(embeddings, **options)

    async def add_memories(self, memories): ...
    async def search_memories(self, query, **kwargs): ...
    async def delete_memories(self, memory_ids): ...
    async def update_memories(self, memories): ...
    async def count_memories(self, **kwargs): ...
    async def list_memories(self, **kwargs): ...


def create(embeddings, **options):
    return MyDB(embeddings, **options)


def create_plainly(embeddings):
    return MyDB(embeddings)
'''
"""The code of a module that holds a backend and its factories."""


class Site:
    """Installs modules and distributions into a folder, which the test has on ``sys.path``."""

    database = DATABASE

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def module(self, name: str, code: str = DATABASE) -> Path:
        """Write the module of that dotted name, and the packages that it lies in if they are new.

        ``"package.__init__"`` is the package itself.
        """
        *packages, last = name.split(".")
        folder = self.folder
        for package in packages:
            folder /= package
            folder.mkdir(exist_ok=True)
            (folder / "__init__.py").touch()
        file = folder / f"{last}.py"
        file.write_text(textwrap.dedent(code), encoding="utf-8")
        importlib.invalidate_caches()
        return file

    def distribution(
        self,
        name: str,
        version: str = "1.0",
        *,
        backends: Mapping[str, str] | None = None,
        hooks: Mapping[str, str] | None = None,
        entry_points: str | None = None,
        requires: Sequence[str] = (),
    ) -> Path:
        """Install a distribution that registers plugins, and return its metadata folder.

        ``entry_points`` is the whole text of entry_points.txt, for one that is written by hand.
        """
        folder = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        if hooks is not None:
            registered = "".join(f"{each} = {target}\n" for each, target in hooks.items())
            entry_points = f"[agent_memory.hooks]\n{registered}"
        files = _metadata_files(name, version, backends, entry_points, requires)
        for file, text in files.items():
            (folder / file).write_text(text, encoding="utf-8")
        recorded = [f"{folder.name}/{each},," for each in [*files, "RECORD"]]
        (folder / "RECORD").write_text("\n".join(recorded) + "\n", encoding="utf-8")
        importlib.invalidate_caches()
        clear_cache()
        return folder

    def pip_install(
        self,
        name: str,
        version: str = "1.0",
        *,
        backends: Mapping[str, str],
        modules: Mapping[str, str],
    ) -> None:
        """Build a wheel and have it installed by pip, or by uv where there is no pip."""
        stem = f"{name.replace('-', '_')}-{version}"
        wheel = self.folder.with_name(f"{stem}-py3-none-any.whl")
        files = {f"{each}.py": code for each, code in modules.items()}
        metadata = _metadata_files(name, version, backends, None, ())
        metadata["WHEEL"] = (
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        files.update((f"{stem}.dist-info/{each}", text) for each, text in metadata.items())
        record = f"{stem}.dist-info/RECORD"
        files[record] = "".join(f"{each},,\n" for each in [*files, record])
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, text in files.items():
                archive.writestr(path, text)
        installer = [sys.executable, "-m", "pip"] if find_spec("pip") else ["uv", "pip"]
        options = ["--quiet", "--no-index", "--no-deps", "--target", str(self.folder)]
        subprocess.run([*installer, "install", *options, str(wheel)], check=True)
        importlib.invalidate_caches()
        clear_cache()


def _metadata_files(
    name: str,
    version: str,
    backends: Mapping[str, str] | None,
    entry_points: str | None,
    requires: Sequence[str],
) -> dict[str, str]:
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {each}" for each in requires]
    files = {"METADATA": "\n".join(lines) + "\n", "INSTALLER": "test\n"}
    if backends is not None:
        registered = "".join(f"{each} = {target}\n" for each, target in backends.items())
        entry_points = f"[agent_memory.backends]\n{registered}"
    if entry_points is not None:
        files["entry_points.txt"] = entry_points
    return files
