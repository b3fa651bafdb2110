"""Where a space lies on disk."""

from __future__ import annotations

import re
from pathlib import Path

from agent_memory import InvalidArgumentError

_SUFFIX = ".sqlite3"
_LONGEST_NAME = 200


def space_file(folder: Path, space: str) -> Path:
    """Return the file of ``space`` in ``folder``; different names never share a file.

    Everything but ``a-z``, ``0-9``, ``-`` and ``_`` is percent-encoded, capitals too, because some
    file systems do not tell them from small letters.

    Raises:
        InvalidArgumentError: the encoded name is longer than file systems allow.
    """
    name = re.sub(r"[^a-z0-9_-]", lambda match: _percent_encoded(match[0]), space)
    if len(name) > _LONGEST_NAME:
        raise InvalidArgumentError(
            f"the space's name {space[:40] + '...'!r} takes {len(name)} characters as a file name; "
            f"{_LONGEST_NAME} are possible"
        )
    return folder / (name + _SUFFIX)


def _percent_encoded(character: str) -> str:
    return "".join(f"%{byte:02x}" for byte in character.encode(errors="surrogatepass"))
