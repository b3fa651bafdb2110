"""`agent-memory` as its users meet it: a console script, in new processes, with files and pipes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_memory import MemoryRecord

SCRIPT = Path(sys.executable).with_name("agent-memory")

Run = Callable[..., subprocess.CompletedProcess[str]]

SLOW_BACKEND = """
import asyncio

import agent_memory_inmemory
from agent_memory import LocalEmbeddings


class SlowEmbeddings(LocalEmbeddings):
    async def aembed_documents(self, texts):
        print("embedding", flush=True)
        await asyncio.sleep(0.8)
        return await super().aembed_documents(texts)


def create(embeddings, **options):
    return agent_memory_inmemory.create(SlowEmbeddings(), **options)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The in-memory backend in a folder of its own, offline embeddings, and modules of the test."""
    inherited = ("PATH", "HOME", "SYSTEMROOT", "COVERAGE_PROCESS_START")
    return {
        **{name: os.environ[name] for name in inherited if name in os.environ},
        "MEMORY_VECTOR_DB_FACTORY": "inmemory",
        "EMBEDDING_MODEL": "local",
        "AGENT_MEMORY_INMEMORY_PATH": str(tmp_path / "memories"),
        "PYTHONPATH": str(tmp_path),
        "PYTHONUTF8": "1",
    }


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Run:
    """Run the console script in a new process and wait for its end."""

    def run_script(
        *arguments: str, stdin: str | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SCRIPT, *arguments],
            env=environment | variables,
            cwd=tmp_path,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=60,
        )

    return run_script


def memories(count: int) -> str:
    records = (
        MemoryRecord(id=f"m{number}", text=f"remembers number {number}") for number in range(count)
    )
    return "".join(record.model_dump_json() + "\n" for record in records)


def test_what_one_process_imports_the_next_ones_find_change_and_delete(
    run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "two.jsonl"
    file.write_text(
        '{"id": "1", "text": "Prefers window seats", "user_id": "ada"}\n'
        '{"id": "2", "text": "Is allergic to hazelnuts", "user_id": "bruno"}\n'
    )

    imported = run("import", "two.jsonl")
    assert (imported.returncode, imported.stdout, imported.stderr) == (0, "", "2 imported.\n")

    found = run("search", "where does she sit?", "--user-id", "ada", "--json")
    assert [each["id"] for each in json.loads(found.stdout)["memories"]] == ["1"]

    assert run("count").stdout == "2\n"
    assert "hazelnuts" in run("list", "--user-id", "bruno").stdout
    assert run("delete", "1").stdout == "1 deleted.\n"
    assert run("get", "1").returncode == 1


def test_an_export_imported_into_an_empty_space_and_exported_again_is_identical(
    run: Run, tmp_path: Path
) -> None:
    sample = Path(__file__).parents[3] / "examples" / "memories.jsonl"
    assert run("import", str(sample)).returncode == 0
    assert run("export", "first.jsonl").returncode == 0
    exported = (tmp_path / "first.jsonl").read_text("utf-8")
    assert len(exported.splitlines()) == 300

    assert run("import", "-", "--space", "copy", stdin=exported).returncode == 0
    assert run("export", "--space", "copy").stdout == exported


@pytest.fixture
def slow_import(environment: dict[str, str], tmp_path: Path) -> subprocess.Popen[str]:
    """An import in ten batches, each of which takes 0.8 s, that has begun its second batch."""
    (tmp_path / "slow_backend.py").write_text(textwrap.dedent(SLOW_BACKEND))
    (tmp_path / "many.jsonl").write_text(memories(100))
    process = subprocess.Popen(
        [SCRIPT, "import", "many.jsonl", "--batch-size", "10", "-b", "slow_backend.create"],
        env=environment,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["embedding\n", "embedding\n"]
    return process


def test_ctrl_c_finishes_the_batch_and_a_repeated_import_completes_without_duplicates(
    slow_import: subprocess.Popen[str], run: Run
) -> None:
    slow_import.send_signal(signal.SIGINT)
    _, stderr = slow_import.communicate(timeout=30)

    assert slow_import.returncode == 130
    assert "Interrupted: 20 imported." in stderr
    assert "Traceback" not in stderr
    assert run("count").stdout == "20\n"

    assert run("import", "many.jsonl").returncode == 0
    assert run("count").stdout == "100\n"


def test_a_second_ctrl_c_abandons_the_batch(slow_import: subprocess.Popen[str], run: Run) -> None:
    slow_import.send_signal(signal.SIGINT)
    assert slow_import.stderr is not None
    assert "Ctrl-C again stops at once" in slow_import.stderr.readline()
    slow_import.send_signal(signal.SIGINT)
    _, stderr = slow_import.communicate(timeout=30)

    assert slow_import.returncode == 130
    assert "Interrupted: 10 imported." in stderr
    assert "Traceback" not in stderr
    assert run("count").stdout == "10\n"


def test_a_reader_that_has_seen_enough_ends_an_export_quietly(
    run: Run, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "many.jsonl").write_text(memories(2_000))
    run("import", "many.jsonl")
    export = subprocess.Popen(
        [SCRIPT, "export"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert export.stdout is not None
    assert export.stderr is not None
    assert export.stdout.readline().startswith(b'{"id":')
    export.stdout.close()
    stderr = export.stderr.read()
    export.stderr.close()
    export.wait(timeout=30)
    assert stderr == b""


def test_an_import_in_a_terminal_shows_its_progress_on_stderr(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "some.jsonl").write_text(memories(20))
    terminal, stderr = pty.openpty()
    process = subprocess.Popen(
        [SCRIPT, "import", "some.jsonl", "--batch-size", "10"],
        env=environment | {"TERM": "xterm"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=stderr,
    )
    os.close(stderr)
    shown = b""
    try:
        while part := os.read(terminal, 65_536):
            shown += part
    except OSError:  # how Linux says that the other end of a terminal was closed
        pass
    os.close(terminal)
    stdout, _ = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (0, b"")
    assert b"20 memories" in shown
    assert b"20 imported." in shown


def test_without_the_extra_the_script_says_what_to_install(environment: dict[str, str]) -> None:
    without_click = (
        "import sys; sys.modules['click'] = None; from agent_memory.cli import main; main()"
    )
    process = subprocess.run(
        [sys.executable, "-c", without_click], env=environment, capture_output=True, text=True
    )
    assert process.returncode == 1
    assert 'pip install "agent-memory[cli]"' in process.stderr
    assert "Traceback" not in process.stderr


def test_help_loads_no_engine_no_model_and_no_tables(environment: dict[str, str]) -> None:
    show_help = textwrap.dedent("""
        import sys
        sys.argv = ["agent-memory", "search", "--help"]
        from agent_memory.cli import main
        try:
            main()
        finally:
            sys.stderr.write(",".join(sys.modules))
    """)
    process = subprocess.run(
        [sys.executable, "-c", show_help], env=environment, capture_output=True, text=True
    )
    loaded = process.stderr.split(",")
    assert process.returncode == 0
    assert "click" in loaded
    for heavy in ("numpy", "litellm", "wordllama", "rich", "agent_memory_inmemory"):
        assert heavy not in loaded


def test_the_demonstration_runs_offline_and_leaves_nothing_behind(run: Run, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    demo = run("demo", TMPDIR=str(tmp_path))
    assert (demo.returncode, demo.stderr) == (0, "")
    for lesson in ("1. Meaning", "2. Filter", "3. Words", "4. Recency"):
        assert lesson in demo.stdout
    assert max(map(len, demo.stdout.splitlines())) <= 100
    assert set(tmp_path.rglob("*")) == before
