"""The README's program runs, and its table names every option."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

from agent_memory_qdrant import create

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_program_runs(tmp_path: Path) -> None:
    [program] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert done.stdout.startswith("Prefers window seats 0.")
    assert done.stdout.endswith(" 2\n")


def test_the_table_has_every_option() -> None:
    table = README.partition("## Options")[2].partition("\n## ")[0]
    named = re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)
    options = {name for cell in named for name in re.findall(r"`(\w+)`", cell)}
    assert options == set(inspect.signature(create).parameters) - {"embeddings"}
