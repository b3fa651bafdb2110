"""The hook of MkDocs that makes one site of documents from several folders of the repository.

Every document keeps its path in the repository as the path that links are resolved by, so that a
link such as ``../benchmarks/README.md`` is right for who reads the repository and for who reads
the site. Only the addresses of the site leave the folder ``docs`` out. Nothing is copied.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent

OUTSIDE = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "benchmarks/README.md",
    "benchmarks/behaviour.py",
    "examples/*.md",
    "examples/*.py",
    "packages/*/README.md",
]
"""What of the repository belongs to the site besides the folder ``docs``."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Give every document its path in the repository; add those outside of ``docs``."""
    ours = {f"docs/{file.src_uri}" for file in files if file.src_dir and Path(file.src_dir) == DOCS}
    others = [file for file in files if f"docs/{file.src_uri}" not in ours]
    ours |= {path.relative_to(ROOT).as_posix() for each in OUTSIDE for path in ROOT.glob(each)}
    return Files(others + [_file(path, config) for path in sorted(ours) if _is_shown(path)])


DOCS = ROOT / "docs"


def _is_shown(path: str) -> bool:
    return not (path.startswith("docs/") and PurePosixPath(path).suffix in (".py", ".pyc"))


def _file(path: str, config: MkDocsConfig) -> File:
    def placed(path: str, dest_uri: str | None = None) -> File:
        return File(path, str(ROOT), config.site_dir, config.use_directory_urls, dest_uri=dest_uri)

    return placed(path, placed(path.removeprefix("docs/")).dest_uri)
