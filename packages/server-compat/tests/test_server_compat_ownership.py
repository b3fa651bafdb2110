"""Beside the server's own distribution this one cannot work, and says so when it is imported.

Wheels of both, as small as they can be on the server's side, are installed into a real environment,
by uv, or by pip where there is none.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pydantic
import pytest

import agent_memory
import agent_memory_server

OURS = "agent-memory-server-compat"
THEIRS = "agent-memory-server"
SOURCE = Path(agent_memory_server.__file__).parent
OUR_FILES = {f"agent_memory_server/{each.name}": each.read_text() for each in SOURCE.glob("*.py")}
THEIR_FILES = {
    "agent_memory_server/__init__.py": "",
    "agent_memory_server/config.py": "",
    "agent_memory_server/models.py": "class MemoryRecord: ...\n",
}


class Environment:
    """A virtual environment that holds the core and its dependencies, to install wheels into."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        venv.create(folder / "env", symlinks=True)
        self.python = folder / "env" / "bin" / "python"
        (site,) = (folder / "env" / "lib").glob("python*/site-packages")
        outside = {Path(each.__file__ or "").parents[1] for each in (agent_memory, pydantic)}
        (site / "outside.pth").write_text("".join(f"{each}\n" for each in outside))

    def install(self, name: str, files: Mapping[str, str], version: str = "1.2.3") -> None:
        stem = f"{name.replace('-', '_')}-{version}"
        wheel = self._folder / f"{stem}-py3-none-any.whl"
        metadata = {
            "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
            "Tag: py3-none-any\n",
        }
        contents = {**files, **{f"{stem}.dist-info/{k}": text for k, text in metadata.items()}}
        record = f"{stem}.dist-info/RECORD"
        contents[record] = "".join(f"{each},,\n" for each in [*contents, record])
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, text in contents.items():
                archive.writestr(path, text)
        installer = (
            ["uv", "pip", "install", "--python", str(self.python)]
            if shutil.which("uv")
            else [sys.executable, "-m", "pip", "--python", str(self.python), "install"]
        )
        options = ["--quiet", "--no-index", "--no-deps"]
        subprocess.run([*installer, *options, str(wheel)], check=True)

    def run(self, code: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.python, "-c", code], capture_output=True, text=True, check=False, cwd=self._folder
        )


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path)


def test_both_installed_is_an_error_that_says_what_to_do(environment: Environment) -> None:
    environment.install(THEIRS, THEIR_FILES)
    environment.install(OURS, OUR_FILES)

    imported = environment.run("import agent_memory_server.models")
    assert imported.returncode != 0
    assert "PackageConflictError: agent-memory-server 1.2.3 and" in imported.stderr
    assert f"pip uninstall {THEIRS} {OURS}" in imported.stderr

    caught = environment.run(
        "import agent_memory\n"
        "for kind in (ImportError, agent_memory.AgentMemoryError):\n"
        "    try:\n"
        "        import agent_memory_server\n"
        "    except kind:\n"
        "        continue\n"
        "    raise SystemExit('not raised')\n"
    )
    assert caught.returncode == 0, caught.stderr

    by_setting = environment.run(
        "from agent_memory import BackendImportError, create_memory_vector_db\n"
        "try:\n"
        "    create_memory_vector_db(\n"
        "        'agent_memory_server.memory_vector_db_factory.create_redis_memory_vector_db'\n"
        "    )\n"
        "except BackendImportError as error:\n"
        "    assert 'both own the import name agent_memory_server' in str(error), error\n"
        "else:\n"
        "    raise SystemExit('not raised')\n"
    )
    assert by_setting.returncode == 0, by_setting.stderr


def test_the_core_works_beside_the_server(environment: Environment) -> None:
    environment.install(THEIRS, THEIR_FILES)
    finished = environment.run("import agent_memory, agent_memory_server.config")
    assert finished.returncode == 0, finished.stderr


def test_alone_it_is_imported_in_silence(environment: Environment) -> None:
    environment.install(OURS, OUR_FILES)
    # Names that only begin alike are other distributions.
    environment.install("agent-memory-server-tools", {"agent_memory_server_tools.py": ""})
    finished = environment.run("import agent_memory_server.memory_vector_db_factory")
    assert (finished.returncode, finished.stderr) == (0, "")
