"""Another process that uses the same backend: `started` by the suite, and what runs in it.

The process loads the module of the test class from its file, with the import path of this process
(pytest's ``pythonpath``, a conftest), and opens the space through the class's ``open``.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from agent_memory import InvalidArgumentError
from agent_memory_testkit.embedders import ExactEmbeddings
from agent_memory_testkit.samples import memory

ACKNOWLEDGED = "acknowledged"
"""What the process prints when its call has returned."""


@dataclass(frozen=True, slots=True)
class Task:
    """What another process does in a space."""

    space: str
    add: tuple[str, ...] = ()
    """Ids of the records that it adds."""
    then_hang: bool = False
    """Do not close the handle after that, but wait to be killed."""


def started(task: Task, *, suite: type, directory: Path) -> subprocess.Popen[str]:
    """Start a process that does ``task`` through the ``open`` of a test class.

    Raises:
        InvalidArgumentError: the class is not at the top level of a module that has a file.
    """
    module = sys.modules[suite.__module__]
    if "<locals>" in suite.__qualname__ or not getattr(module, "__file__", None):
        raise InvalidArgumentError(
            f"{suite.__qualname__} cannot be imported by another process: define it at the top "
            f"level of a module, or override second_process"
        )
    job = {
        "path": sys.path,
        "file": module.__file__,
        "module": suite.__module__,
        "suite": suite.__qualname__,
        "directory": str(directory),
        "task": asdict(task),
    }
    return subprocess.Popen(  # noqa: S603 - this interpreter, with a job of our own
        [sys.executable, "-c", f"from {__name__} import main; main()", json.dumps(job)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


async def _perform(suite: Any, task: Task) -> None:
    db = await suite.open(task.space, ExactEmbeddings())
    await db.add_memories([memory(each) for each in task.add])
    ids = sorted([each.id async for each in db.iter_memories()])
    print(json.dumps({"said": ACKNOWLEDGED, "ids": ids}), flush=True)  # noqa: T201 - the answer
    if task.then_hang:
        sys.stdin.read()
    await db.aclose()


def _loaded(name: str, file: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Do the job that the command line describes."""
    job = json.loads(sys.argv[1])
    sys.path[:] = job["path"]
    suite: Any = _loaded(job["module"], job["file"])
    for name in job["suite"].split("."):
        suite = getattr(suite, name)
    suite.directory = Path(job["directory"])
    task = Task(**{**job["task"], "add": tuple(job["task"]["add"])})
    asyncio.run(_perform(suite(), task))
