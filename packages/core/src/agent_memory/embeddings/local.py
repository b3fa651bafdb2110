"""Embeddings without a server, a key or a network: `LocalEmbeddings`, on wordllama's model.

Of wordllama only the model is used, its table of token vectors and its tokenizer. Averaging them
is done here, one text at a time, so that a vector depends on its text alone and a text of any
length takes bounded memory.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from agent_memory.errors import EmbeddingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MODEL = "wordllama-l2-supercat-256"
_DIMENSIONS = 256
_INLINE = 4_096
"""Up to this many characters are embedded on the event loop, in about 2 ms; more leave it."""
_PIECE = 4_096
"""Longer texts are tokenized in pieces of this many characters."""
_PROBE = "Prefers window seats, 2 of 3: 日本 👍"
_PROBE_STARTS = (-0.08249803, -0.0336128, 0.06550256, -0.02505452)
"""The first numbers of the vector of ``_PROBE``, by the model that ``_MODEL`` names."""


class LocalEmbeddings:
    """Embeds text on this machine, offline, with the model that comes inside wordllama's wheel.

    Vectors are NumPy arrays of float32, 256 numbers, of length one: the average of the vectors of
    a text's tokens. Equal texts have equal vectors to the last bit, whatever they are embedded
    with. Tokens reach down to single bytes, so every text has a vector, in any script; but the
    model was trained on English, and for emoji and rare scripts little more than the spelling
    is compared.

    The model is loaded on first use, in a thread, once for all instances: half a second, 35 MB.
    """

    @property
    def model(self) -> str:
        """The name of the model whose vectors these are; loading checks that it still is."""
        return _MODEL

    @property
    def dimensions(self) -> int:
        """256."""
        return _DIMENSIONS

    async def aembed_documents(self, texts: list[str]) -> NDArray[np.float32]:
        """Return the vectors of the texts, in order, as an array of shape (number of texts, 256).

        Raises:
            EmbeddingError: wordllama is missing, broken, or holds another model.
        """
        if _loaded is not None and sum(map(len, texts)) <= _INLINE:
            return _vectors(_loaded, texts)
        return await asyncio.to_thread(lambda: _vectors(_load_once(), texts))

    async def aembed_query(self, text: str) -> NDArray[np.float32]:
        """Return the vector of a search query, of shape (256,).

        Raises:
            EmbeddingError: as `aembed_documents`.
        """
        vector: NDArray[np.float32] = (await self.aembed_documents([text]))[0]
        return vector


# --- the vector of a text ----------------------------------------------------------------------


class _Model(NamedTuple):
    """What embedding needs of wordllama."""

    numpy: ModuleType
    tokenizer: Any
    table: NDArray[np.float32]
    """A row of 256 numbers for each token."""


def _vectors(model: _Model, texts: list[str]) -> NDArray[np.float32]:
    vectors: NDArray[np.float32] = model.numpy.empty((len(texts), _DIMENSIONS), "float32")
    for row, text in enumerate(texts):
        # Of the average only the direction is kept, so the sum of the tokens will do. No product
        # of matrices here: its last bits may depend on what else it computes.
        total = sum(_sum_of_tokens(model, piece) for piece in _pieces(text))
        vectors[row] = total / model.numpy.sqrt(model.numpy.square(total).sum())
    return vectors


def _sum_of_tokens(model: _Model, text: str) -> NDArray[np.float64]:
    # A call for each text, not for a batch: those start threads, which forking a process breaks.
    tokens = model.tokenizer.encode(text, add_special_tokens=False).ids
    rows = model.table.take(tokens, axis=0)
    total: NDArray[np.float64] = rows.sum(axis=0, dtype="float64")
    return total


def _pieces(text: str) -> Iterator[str]:
    """Cut a text where a token ends anyway, at a space, or where there is none anywhere."""
    start = 0
    while len(text) - start > _PIECE:
        space = text.rfind(" ", start + 1, start + _PIECE)
        end = start + _PIECE if space < 0 else space
        yield text[start:end]
        # The tokenizer puts a space before each piece, so this one would be there twice.
        start = end if space < 0 else end + 1
    yield text[start:]


# --- loading the model -------------------------------------------------------------------------

_loaded: _Model | None = None
_loading = threading.Lock()


def _load_once() -> _Model:
    global _loaded
    with _loading:
        if _loaded is None:
            _loaded = _load()
        return _loaded


def _load() -> _Model:
    wordllama = _import_wordllama()
    folder = Path(wordllama.__file__ or "").parent
    try:
        # Both files are inside the wheel. wordllama looks for its tokenizer in a folder that does
        # not exist, and next in the cache; given its own folder as the cache, it finds it.
        loaded = wordllama.WordLlama.load(
            "l2_supercat", cache_dir=folder, dim=_DIMENSIONS, disable_download=True
        )
    except Exception as error:
        raise EmbeddingError(
            f"wordllama could not load the model that comes with it: {error}; reinstall it: pip "
            f"install --force-reinstall wordllama"
        ) from error
    model = _Model(importlib.import_module("numpy"), loaded.tokenizer, loaded.embedding)
    probe = _vectors(model, [_PROBE])[0]
    if not model.numpy.allclose(probe[: len(_PROBE_STARTS)], _PROBE_STARTS, atol=1e-4):
        raise EmbeddingError(
            f"wordllama {wordllama.__version__} holds another model than {_MODEL!r}, whose vectors "
            f"cannot be compared with those stored: pip install wordllama==0.4.0.post1"
        )
    return model


def _import_wordllama() -> ModuleType:
    # Importing wordllama configures the logging of the whole program, unless that is done already.
    root, placeholder = logging.getLogger(), logging.NullHandler()
    root.addHandler(placeholder)
    try:
        return importlib.import_module("wordllama")
    except ModuleNotFoundError as error:
        if error.name != "wordllama":
            raise EmbeddingError(
                f"wordllama is installed, but {error.name}, which it needs, is not: reinstall it "
                f'by pip install --force-reinstall "agent-memory[local]"'
            ) from error
        raise EmbeddingError(
            'wordllama is not installed: pip install "agent-memory[local]"'
        ) from error
    finally:
        root.removeHandler(placeholder)
