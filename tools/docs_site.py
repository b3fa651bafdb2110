"""The hook of MkDocs that makes one site of documents from several folders of the repository.

Every document keeps its path in the repository as the path that links are resolved by, so that a
link such as ``../benchmarks/README.md`` is right for who reads the repository and for who reads
the site. Only the addresses of the site leave the folder ``docs`` out. Nothing is copied.

A page that would fetch something from another host when it is read fails the build.
"""

from __future__ import annotations

import logging
import re
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

OUTSIDE = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "benchmarks/README.md",
    "benchmarks/behaviour*.py",
    "examples/*.md",
    "examples/*/README.md",
    "examples/*.py",
    "packages/*/README.md",
]
"""What of the repository belongs to the site besides the folder ``docs``."""

_log = logging.getLogger("mkdocs.hooks.docs_site")  # a warning fails a strict build
_ELSEWHERE = re.compile(r"(?:https?:)?//")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Give every document its path in the repository; add those outside of ``docs``."""
    others = [each for each in files if each.src_dir is None or Path(each.src_dir) != DOCS]
    inside = [f"docs/{each.src_uri}" for each in files if each not in others]
    outside = [path.relative_to(ROOT).as_posix() for each in OUTSIDE for path in ROOT.glob(each)]
    ours = [path for path in inside if PurePosixPath(path).suffix not in (".py", ".pyc")] + outside
    return Files(others + [_file(path, config) for path in ours])


def _file(path: str, config: MkDocsConfig) -> File:
    def placed(path: str, dest_uri: str | None = None) -> File:
        return File(path, str(ROOT), config.site_dir, config.use_directory_urls, dest_uri=dest_uri)

    return placed(path, placed(path.removeprefix("docs/")).dest_uri)


def on_post_build(config: MkDocsConfig) -> None:
    """Warn of everything that a browser would fetch from another host."""
    for page in sorted(Path(config.site_dir).rglob("*.html")):
        parser = _Fetched()
        parser.feed(page.read_text(encoding="utf-8"))
        for address in filter(_ELSEWHERE.match, parser.addresses):
            _log.warning("%s fetches %s when it is read", page, address)
    for sheet in sorted(Path(config.site_dir).rglob("*.css")):
        for address in re.findall(r"url\(['\"]?([^'\")]+)", sheet.read_text(encoding="utf-8")):
            if _ELSEWHERE.match(address):
                _log.warning("%s fetches %s when it is read", sheet, address)


class _Fetched(HTMLParser):
    """Collects what a page loads by itself; links that a reader follows are no such thing."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "src" or (tag == "link" and name == "href"):
                self.addresses.append(value or "")
