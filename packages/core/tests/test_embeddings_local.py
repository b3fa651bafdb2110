"""`LocalEmbeddings`, with the real wordllama and its real model."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agent_memory import EmbeddingError, Embeddings, LocalEmbeddings
from agent_memory.embeddings import local

Vectors = NDArray[np.float32]

# What a record may hold as its text: not blank, and without lone surrogates.
TEXTS = st.text(min_size=1, max_size=40).filter(lambda text: bool(text.strip()))


def documents(*texts: str) -> Vectors:
    return asyncio.run(LocalEmbeddings().aembed_documents(list(texts)))


def query(text: str) -> Vectors:
    return asyncio.run(LocalEmbeddings().aembed_query(text))


def in_new_process(code: str, *, isolated_from: str | None = None) -> str:
    """Run code in a fresh interpreter, where the module ``isolated_from`` cannot be found."""
    hidden = f"import sys; sys.modules[{isolated_from!r}] = None\n" if isolated_from else ""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", hidden + code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


# --- the protocol ------------------------------------------------------------------------------


def test_it_follows_the_protocol() -> None:
    assert isinstance(LocalEmbeddings(), Embeddings)
    assert LocalEmbeddings().model == "wordllama-l2-supercat-256"
    assert LocalEmbeddings().dimensions == 256


def test_documents_are_rows_in_the_order_of_the_texts() -> None:
    vectors = documents("a cat", "a dog", "a cat")
    assert vectors.shape == (3, 256)
    assert vectors.dtype == np.float32
    assert (vectors[0] == vectors[2]).all()
    assert (vectors[0] != vectors[1]).any()


def test_no_texts_give_no_rows() -> None:
    assert documents().shape == (0, 256)


def test_a_query_has_the_vector_of_the_same_document() -> None:
    vector = query("where does she sit?")
    assert vector.shape == (256,)
    assert vector.dtype == np.float32
    assert (vector == documents("where does she sit?")[0]).all()


# --- the vectors -------------------------------------------------------------------------------


def test_the_nearest_text_is_the_one_that_means_the_same() -> None:
    memories = [
        "Prefers window seats when flying",
        "Is allergic to peanuts",
        "Works as a nurse in Leeds",
        "Plays the violin on Sundays",
    ]
    vectors = documents(*memories)
    for question, answer in [
        ("which seat on the plane?", 0),
        ("what food is dangerous for her?", 1),
        ("what is her job in the hospital?", 2),
        ("which musical instrument?", 3),
    ]:
        assert int(np.argmax(vectors @ query(question))) == answer, question


def test_the_vectors_are_those_of_wordllama_at_length_one() -> None:
    texts = ["Prefers window seats", "日本語", "👍", "two\nlines", "a" * 300]
    model: Any = local._load_once()
    folder = Path(local._import_wordllama().__file__ or "").parent
    theirs = local._import_wordllama().WordLlama.load(cache_dir=folder, disable_download=True)
    assert model.table.shape == (32_000, 256)
    np.testing.assert_allclose(documents(*texts), theirs.embed(texts, norm=True), atol=1e-6)


@given(TEXTS)
@example("👍")
@example("。。。")
@example("\u200b")
@example("\x00")
@example("\U0010ffff")
@example("<unk>")
@example("e\u0301")
def test_every_text_has_a_vector_of_length_one(text: str) -> None:
    (vector,) = documents(text)
    assert np.isfinite(vector).all()
    assert abs(float(np.linalg.norm(vector)) - 1) < 1e-6


def test_every_byte_is_a_token_and_every_token_has_a_vector() -> None:
    model = local._load_once()
    known = model.tokenizer.get_vocab()
    assert all(f"<0x{byte:02X}>" in known for byte in range(256))
    assert float(np.linalg.norm(model.table, axis=1).min()) > 0.1


@settings(deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=80), st.data())
def test_a_vector_depends_on_its_text_alone(texts: list[str], data: st.DataObject) -> None:
    chosen = data.draw(st.sampled_from(texts))
    batch = documents(*texts, "x" * data.draw(st.integers(1, 9_000)), chosen)
    assert (batch[-1] == query(chosen)).all()
    assert (batch[texts.index(chosen)] == batch[-1]).all()


def test_a_vector_is_the_same_in_another_process() -> None:
    text = "Prefers window seats 👍"
    printed = in_new_process(
        "import asyncio, agent_memory\n"
        f"print(asyncio.run(agent_memory.LocalEmbeddings().aembed_query({text!r})).tobytes().hex())"
    )
    assert printed.strip() == query(text).tobytes().hex()


# --- long texts --------------------------------------------------------------------------------


def test_cutting_a_long_text_does_not_change_what_it_means() -> None:
    text = " ".join(f"word{number} and {number * 7} others" for number in range(2_000))
    model = local._load_once()
    whole = local._sum_of_tokens(model, text)
    np.testing.assert_allclose(query(text), whole / np.linalg.norm(whole), atol=1e-6)


@settings(deadline=None)
@given(st.text(st.sampled_from("ab é👍"), min_size=1, max_size=40), st.integers(1, 2_000))
def test_pieces_lose_only_spaces_at_cuts(part: str, times: int) -> None:
    text = part * times
    pieces = list(local._pieces(text))
    assert all(0 < len(piece) <= local._PIECE for piece in pieces)
    assert "".join(pieces).replace(" ", "") == text.replace(" ", "")
    assert len(text) - len("".join(pieces)) < len(pieces)


@pytest.mark.parametrize("character", ["a", "👍", "。", "a b "])
def test_a_text_of_one_mebibyte_takes_bounded_memory_and_time(character: str) -> None:
    text = character * (2**20 // len(character.encode()))
    query("load the model")
    tracemalloc.start()
    began = time.perf_counter()
    vector = query(text)
    took = time.perf_counter() - began
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.isfinite(vector).all()
    assert most < 64 * 2**20, f"{most / 2**20:.0f} MiB"
    assert took < 20, f"{took:.1f} s"


def test_the_event_loop_stays_responsive_while_much_is_embedded() -> None:
    async def longest_pause() -> float:
        embeddings = LocalEmbeddings()
        await embeddings.aembed_query("load the model")
        work = asyncio.create_task(
            embeddings.aembed_documents(["she likes window seats " * 9_000] * 5)
        )
        longest = 0.0
        while not work.done():
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - began)
        await work
        return longest

    # A call that held the loop would pause it for as long as it takes, half a second and more.
    assert asyncio.run(longest_pause()) < 0.25


# --- loading -----------------------------------------------------------------------------------


def test_importing_and_creating_load_nothing() -> None:
    in_new_process(
        "import sys, agent_memory\n"
        "e = agent_memory.LocalEmbeddings()\n"
        "e.model, e.dimensions\n"
        "assert not {'numpy', 'wordllama', 'litellm'} & sys.modules.keys()"
    )


def test_many_first_calls_load_the_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    really_load = local._load

    def counted() -> Any:
        loads.append(threading.current_thread())
        time.sleep(0.05)
        return really_load()

    monkeypatch.setattr(local, "_load", counted)
    monkeypatch.setattr(local, "_loaded", None)

    async def many() -> None:
        await asyncio.gather(*[LocalEmbeddings().aembed_query("a cat") for _ in range(20)])

    asyncio.run(many())
    assert len(loads) == 1
    assert loads[0] is not threading.main_thread()


def test_loading_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(local, "_loaded", None)
    assert query("a cat").shape == (256,)


def test_loading_says_nothing_and_leaves_logging_alone() -> None:
    printed = in_new_process(
        "import asyncio, logging, agent_memory\n"
        "asyncio.run(agent_memory.LocalEmbeddings().aembed_query('a cat'))\n"
        "assert logging.getLogger().level == logging.WARNING\n"
        "assert logging.getLogger().handlers == []\n"
    )
    assert printed == ""


# --- what can go wrong -------------------------------------------------------------------------

ASK_AND_PRINT_THE_ERROR = (
    "import asyncio, agent_memory\n"
    "try:\n"
    "    asyncio.run(agent_memory.LocalEmbeddings().aembed_query('a cat'))\n"
    "except agent_memory.EmbeddingError as error:\n"
    "    print(type(error.__cause__).__name__, error)\n"
)


def test_without_wordllama_the_error_says_what_to_install() -> None:
    printed = in_new_process(ASK_AND_PRINT_THE_ERROR, isolated_from="wordllama")
    assert printed == (
        'ModuleNotFoundError wordllama is not installed: pip install "agent-memory[local]"\n'
    )


def test_without_something_that_wordllama_needs_the_error_names_it() -> None:
    printed = in_new_process(ASK_AND_PRINT_THE_ERROR, isolated_from="safetensors")
    assert "wordllama is installed, but safetensors, which it needs, is not" in printed


def test_a_wordllama_with_another_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_PROBE", "another text stands for another model")
    with pytest.raises(
        EmbeddingError, match="holds another model than 'wordllama-l2-supercat-256'"
    ):
        local._load()


def test_a_wordllama_without_its_files_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wordllama = local._import_wordllama()
    monkeypatch.setattr(wordllama, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(EmbeddingError, match="could not load the model") as caught:
        local._load()
    assert isinstance(caught.value.__cause__, FileNotFoundError)
