"""`LiteLLMEmbeddings`: the real litellm, talking HTTP to an endpoint on loopback."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_memory import EmbeddingError, Embeddings, InvalidArgumentError, LiteLLMEmbeddings

if TYPE_CHECKING:
    from openai_endpoint import Endpoint

# pytest forgets, after each test, that the code under test filters this warning; what a program
# sees is checked in a new process below.
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")

# litellm prepares a request in a thread and sends it afterwards. Cancelled in between, it forgets
# the coroutine that would have sent it.
FORGETS_A_COROUTINE = pytest.mark.filterwarnings(
    "ignore:coroutine 'OpenAIChatCompletion.aembedding' was never awaited:RuntimeWarning",
    "ignore:.*OpenAIChatCompletion.aembedding:pytest.PytestUnraisableExceptionWarning",
)

T = TypeVar("T")

KEY = "sk-test-0123456789"
MODEL = "openai/some-model"
ANSWER = (
    b'{"object":"list","model":"m","usage":{"prompt_tokens":1,"total_tokens":1},'
    b'"data":[{"object":"embedding","index":0,"embedding":%s}]}'
)


def embeddings_at(endpoint: Endpoint, model: str = MODEL, **other: Any) -> LiteLLMEmbeddings:
    usual: dict[str, Any] = {"dimensions": 8, "api_key": KEY, "timeout": 10.0}
    return LiteLLMEmbeddings(model, **(usual | {"api_base": endpoint.url} | other))


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Run work on an event loop of its own, and close the connections that litellm keeps."""

    async def closing() -> T:
        try:
            return await work()
        finally:
            litellm = sys.modules.get("litellm")
            if litellm is not None:
                await litellm.close_litellm_async_clients()
                litellm.in_memory_llm_clients_cache.flush_cache()

    return asyncio.run(closing())


def documents(embeddings: LiteLLMEmbeddings, texts: list[str]) -> list[list[float]]:
    return run(lambda: embeddings.aembed_documents(texts))


def failure_of(embeddings: LiteLLMEmbeddings, texts: list[str] | None = None) -> EmbeddingError:
    with pytest.raises(EmbeddingError) as caught:
        documents(embeddings, ["a cat"] if texts is None else texts)
    return caught.value


# --- what is asked, and what comes back --------------------------------------------------------


def test_it_follows_the_protocol(endpoint: Endpoint) -> None:
    embeddings = embeddings_at(endpoint)
    assert isinstance(embeddings, Embeddings)
    assert embeddings.model == MODEL
    assert embeddings.dimensions == 8


def test_documents_come_back_in_order(endpoint: Endpoint, behaviours: ModuleType) -> None:
    assert documents(embeddings_at(endpoint), ["a cat", "a dog"]) == [
        behaviours.vector_of("a cat", 8),
        behaviours.vector_of("a dog", 8),
    ]
    (request,) = endpoint.requests
    assert request.path == "/v1/embeddings"
    assert request.key == KEY
    assert request.body["model"] == "some-model"
    assert request.texts == ["a cat", "a dog"]


def test_a_query_has_the_vector_of_the_same_document(
    endpoint: Endpoint, behaviours: ModuleType
) -> None:
    embeddings = embeddings_at(endpoint)
    assert run(lambda: embeddings.aembed_query("a cat")) == behaviours.vector_of("a cat", 8)
    assert [each.texts for each in endpoint.requests] == [["a cat"]]


def test_no_texts_need_no_request(endpoint: Endpoint) -> None:
    assert documents(embeddings_at(endpoint), []) == []
    assert endpoint.requests == []


def test_index_says_which_vector_is_whose(endpoint: Endpoint, behaviours: ModuleType) -> None:
    endpoint.usual = behaviours.backwards()
    texts = ["one", "two", "three"]
    assert documents(embeddings_at(endpoint), texts) == [
        behaviours.vector_of(text, 8) for text in texts
    ]


def test_vectors_travel_as_base64(endpoint: Endpoint) -> None:
    documents(embeddings_at(endpoint), ["a cat"])
    assert endpoint.requests[0].body["encoding_format"] == "base64"


def test_a_server_that_sends_numbers_all_the_same_is_understood(
    endpoint: Endpoint, behaviours: ModuleType
) -> None:
    endpoint.usual = behaviours.raw(ANSWER % b"[0,1,2,3,4,5,6,7]")
    assert documents(embeddings_at(endpoint), ["a cat"]) == [[0, 1, 2, 3, 4, 5, 6, 7]]


def test_litellms_own_setting_of_the_encoding_wins(
    monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint, behaviours: ModuleType
) -> None:
    monkeypatch.setenv("LITELLM_DEFAULT_EMBEDDING_ENCODING_FORMAT", "float")
    assert documents(embeddings_at(endpoint), ["a cat"]) == [behaviours.vector_of("a cat", 8)]
    assert endpoint.requests[0].body.get("encoding_format") != "base64"


@pytest.mark.parametrize("count", [1, 9, 10, 11, 95])
def test_texts_are_sent_in_batches_and_stay_in_order(
    endpoint: Endpoint, behaviours: ModuleType, count: int
) -> None:
    texts = [f"text {number} é 👍" for number in range(count)]
    vectors = documents(embeddings_at(endpoint, batch_size=10), texts)
    assert vectors == [behaviours.vector_of(text, 8) for text in texts]
    assert sorted(text for each in endpoint.requests for text in each.texts) == sorted(texts)
    assert len(endpoint.requests) == -(-count // 10)
    assert max(len(each.texts) for each in endpoint.requests) <= 10


def test_so_many_requests_run_at_once_and_no_more(
    endpoint: Endpoint, behaviours: ModuleType
) -> None:
    endpoint.usual = behaviours.slow(0.05)
    embeddings = embeddings_at(endpoint, batch_size=1, max_concurrency=3)

    async def several_calls() -> None:
        await asyncio.gather(
            *[embeddings.aembed_documents([f"{call}", "a", "b", "c"]) for call in range(4)]
        )

    run(several_calls)
    assert len(endpoint.requests) == 16
    assert endpoint.most_at_once == 3


def test_one_object_serves_several_event_loops(endpoint: Endpoint) -> None:
    embeddings = embeddings_at(endpoint, batch_size=1, max_concurrency=1)
    for _ in range(3):
        assert len(documents(embeddings, ["a", "b", "c"])) == 3


# --- dimensions --------------------------------------------------------------------------------


def test_litellm_knows_the_dimensions_of_common_models() -> None:
    assert LiteLLMEmbeddings("text-embedding-3-small").dimensions == 1536
    assert LiteLLMEmbeddings("openai/text-embedding-3-large").dimensions == 3072
    assert LiteLLMEmbeddings("gemini/gemini-embedding-001").dimensions == 3072


def test_the_dimensions_of_an_unknown_model_must_be_given() -> None:
    with pytest.raises(EmbeddingError, match=r"pass dimensions=, or set EMBEDDING_DIMENSIONS"):
        _ = LiteLLMEmbeddings("openai/some-model").dimensions
    error = failure_of(LiteLLMEmbeddings("openai/some-model", api_key=KEY))
    assert "'openai/some-model' is not known to LiteLLM" in str(error)


def test_the_models_own_dimensions_are_not_asked_for(endpoint: Endpoint) -> None:
    documents(embeddings_at(endpoint), ["a cat"])
    endpoint.upcoming = []
    assert "dimensions" not in endpoint.requests[0].body


def test_another_size_is_asked_of_a_model_that_has_several(endpoint: Endpoint) -> None:
    embeddings = embeddings_at(endpoint, model="openai/text-embedding-3-small", dimensions=256)
    assert len(documents(embeddings, ["a cat"])[0]) == 256
    assert endpoint.requests[0].body["dimensions"] == 256


def test_another_size_of_a_model_that_has_only_one_is_an_error(endpoint: Endpoint) -> None:
    embeddings = embeddings_at(endpoint, model="openai/text-embedding-ada-002", dimensions=256)
    error = failure_of(embeddings)
    assert "another size of vectors: leave dimensions out" in str(error)
    assert "tried once" in str(error)
    assert endpoint.requests == []


# --- replies that are wrong --------------------------------------------------------------------


def test_vectors_of_another_size_are_an_error(endpoint: Endpoint, behaviours: ModuleType) -> None:
    endpoint.usual = behaviours.embeddings(5)
    message = str(failure_of(embeddings_at(endpoint)))
    assert MODEL in message
    assert "vectors of 5 dimensions, expected 8" in message
    assert "EMBEDDING_DIMENSIONS" in message
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize("count", [0, 1, 3])
def test_another_number_of_vectors_is_an_error(
    endpoint: Endpoint, behaviours: ModuleType, count: int
) -> None:
    endpoint.usual = behaviours.vectors(lambda texts: [[0.5] * 8] * count)
    message = str(failure_of(embeddings_at(endpoint), ["a cat", "a dog"]))
    assert f"{count} vectors for 2 texts" in message


def test_vectors_that_belong_to_no_text_are_an_error(
    endpoint: Endpoint, behaviours: ModuleType
) -> None:
    endpoint.usual = behaviours.indexed(0, 0)
    message = str(failure_of(embeddings_at(endpoint), ["a cat", "a dog"]))
    assert "vectors numbered [0, 0]" in message


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_an_error(
    endpoint: Endpoint, behaviours: ModuleType, number: float
) -> None:
    endpoint.usual = behaviours.vectors(lambda texts: [[0.5] * 7 + [number]])
    assert "something else than finite numbers" in str(failure_of(embeddings_at(endpoint)))


@pytest.mark.parametrize("vector", [b"[0,0,0,0,0,0,0,null]", b'["0","0","0","0","0","0","0","0"]'])
def test_what_is_no_number_is_an_error(
    endpoint: Endpoint, behaviours: ModuleType, vector: bytes
) -> None:
    endpoint.usual = behaviours.raw(ANSWER % vector)
    assert "something else than finite numbers" in str(failure_of(embeddings_at(endpoint)))


@pytest.mark.parametrize("vector", [b'"AAAA"', b'"not base64"'])
def test_base64_of_no_numbers_is_an_error(
    endpoint: Endpoint, behaviours: ModuleType, vector: bytes
) -> None:
    endpoint.usual = behaviours.raw(ANSWER % vector)
    assert "base64 that holds no numbers" in str(failure_of(embeddings_at(endpoint)))


@pytest.mark.parametrize("body", [b"{broken", b"<html>bad gateway</html>", b"{}", b"null", b""])
def test_a_body_that_is_no_answer_is_an_error(
    endpoint: Endpoint, behaviours: ModuleType, body: bytes
) -> None:
    endpoint.usual = behaviours.raw(body)
    message = str(failure_of(embeddings_at(endpoint, max_retries=0)))
    assert MODEL in message


# --- failures that pass ------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_a_passing_failure_is_tried_again(
    endpoint: Endpoint, behaviours: ModuleType, status: int
) -> None:
    endpoint.upcoming = [behaviours.failure(status, retry_after="0")] * 2
    assert documents(embeddings_at(endpoint), ["a cat"]) == [behaviours.vector_of("a cat", 8)]
    assert len(endpoint.requests) == 3


def test_a_lost_connection_is_tried_again(endpoint: Endpoint, behaviours: ModuleType) -> None:
    endpoint.upcoming = [behaviours.hang_up]
    assert documents(embeddings_at(endpoint), ["a cat"]) == [behaviours.vector_of("a cat", 8)]
    assert len(endpoint.requests) == 2


def test_a_timeout_is_tried_again(endpoint: Endpoint, behaviours: ModuleType) -> None:
    endpoint.upcoming = [behaviours.slow(1)]
    vectors = documents(embeddings_at(endpoint, timeout=0.3), ["a cat"])
    assert vectors == [behaviours.vector_of("a cat", 8)]
    assert len(endpoint.requests) == 2


def test_only_the_batch_that_failed_is_sent_again(
    endpoint: Endpoint, behaviours: ModuleType
) -> None:
    endpoint.upcoming = [behaviours.failure(503, retry_after="0")]
    documents(embeddings_at(endpoint, batch_size=1), ["one", "two", "three"])
    sent = [text for each in endpoint.requests for text in each.texts]
    assert len(sent) == 4
    assert set(sent) == {"one", "two", "three"}


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_retries_are_as_many_as_asked_for(
    endpoint: Endpoint, behaviours: ModuleType, retries: int
) -> None:
    endpoint.usual = behaviours.failure(500, "out of order", retry_after="0")
    message = str(failure_of(embeddings_at(endpoint, max_retries=retries)))
    assert len(endpoint.requests) == 1 + retries
    assert ("tried once" if retries == 0 else f"tried {1 + retries} times") in message
    assert "out of order" in message


def test_the_wait_doubles_with_jitter(endpoint: Endpoint, behaviours: ModuleType) -> None:
    endpoint.usual = behaviours.failure(503)
    failure_of(embeddings_at(endpoint, max_retries=2))
    first, second, third = [each.arrived for each in endpoint.requests]
    assert 0.25 <= second - first < 0.5 + 0.3
    assert 0.5 <= third - second < 1.0 + 0.3


def test_retry_after_in_seconds_is_obeyed(endpoint: Endpoint, behaviours: ModuleType) -> None:
    endpoint.upcoming = [behaviours.failure(429, retry_after="1")]
    documents(embeddings_at(endpoint), ["a cat"])
    first, second = [each.arrived for each in endpoint.requests]
    assert 1.0 <= second - first < 1.4


def test_retry_after_as_a_date_is_obeyed(endpoint: Endpoint, behaviours: ModuleType) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    endpoint.upcoming = [behaviours.failure(429, retry_after=later)]
    documents(embeddings_at(endpoint), ["a cat"])
    first, second = [each.arrived for each in endpoint.requests]
    assert 0.8 <= second - first < 2.4  # a date has whole seconds


def test_a_wait_that_is_too_long_is_an_error_at_once(
    endpoint: Endpoint, behaviours: ModuleType
) -> None:
    endpoint.usual = behaviours.failure(429, retry_after="3600")
    message = str(failure_of(embeddings_at(endpoint)))
    assert "asks to wait 3600 seconds" in message
    assert len(endpoint.requests) == 1


def test_a_retry_after_that_cannot_be_read_is_not_obeyed(
    endpoint: Endpoint, behaviours: ModuleType
) -> None:
    endpoint.upcoming = [behaviours.failure(429, retry_after="soon")]
    documents(embeddings_at(endpoint), ["a cat"])
    first, second = [each.arrived for each in endpoint.requests]
    assert 0.25 <= second - first < 0.5 + 0.3


# --- failures that stay ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (400, "the provider refused the request"),
        (401, "the provider refused the API key passed as api_key=: check it"),
        (403, "the provider refused the API key passed as api_key=: check it"),
        (
            404,
            "the provider does not know the model: check its name and api_base, http://127.0.0.1",
        ),
        (413, "lower batch_size if the request is too large"),
        (422, "the provider refused the request"),
    ],
)
def test_a_refusal_is_not_tried_again(
    endpoint: Endpoint, behaviours: ModuleType, status: int, advice: str
) -> None:
    endpoint.usual = behaviours.failure(status, "the provider's own words")
    error = failure_of(embeddings_at(endpoint))
    assert len(endpoint.requests) == 1
    assert MODEL in str(error)
    assert "tried once" in str(error)
    assert advice in str(error)
    assert "the provider's own words" in str(error)
    assert error.__cause__ is not None


def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    message = str(failure_of(embeddings_at(endpoint, api_key=None)))
    assert (
        "the environment lacks OPENAI_API_KEY: set what the provider needs, or pass api_key="
        in message
    )
    assert endpoint.requests == []


def test_a_key_in_the_environment_is_used_and_blamed(
    monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint, behaviours: ModuleType
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment")
    endpoint.usual = behaviours.failure(401)
    message = str(failure_of(embeddings_at(endpoint, api_key=None)))
    assert "refused the API key in the environment" in message
    assert endpoint.requests[0].key == "sk-from-the-environment"


def test_a_persistent_rate_limit_says_what_to_do(
    endpoint: Endpoint, behaviours: ModuleType
) -> None:
    endpoint.usual = behaviours.failure(429, retry_after="0")
    message = str(failure_of(embeddings_at(endpoint, max_retries=1)))
    assert "lower max_concurrency or raise max_retries" in message


def test_an_endpoint_that_is_down_says_what_to_check(endpoint: Endpoint) -> None:
    nowhere = "http://127.0.0.1:9/v1"
    message = str(failure_of(embeddings_at(endpoint, api_base=nowhere, max_retries=0)))
    assert f"check api_base, {nowhere}" in message


def test_a_slow_endpoint_is_an_error_within_the_timeout(
    endpoint: Endpoint, behaviours: ModuleType
) -> None:
    endpoint.usual = behaviours.slow(2)
    began = time.perf_counter()
    message = str(failure_of(embeddings_at(endpoint, timeout=0.3, max_retries=0)))
    assert time.perf_counter() - began < 1.5
    assert "no answer within 0.3 seconds" in message
    assert "raise timeout or lower batch_size" in message


def test_the_batch_that_failed_is_named(endpoint: Endpoint, behaviours: ModuleType) -> None:
    endpoint.upcoming = [behaviours.embeddings()] * 2
    endpoint.usual = behaviours.failure(400)
    embeddings = embeddings_at(endpoint, batch_size=10, max_concurrency=1)
    message = str(failure_of(embeddings, [str(number) for number in range(25)]))
    assert "could not embed texts 21 to 25 of 25" in message


@FORGETS_A_COROUTINE
def test_after_a_failure_the_other_batches_are_cancelled(
    endpoint: Endpoint, behaviours: ModuleType
) -> None:
    endpoint.upcoming = [behaviours.failure(400)]
    endpoint.usual = behaviours.slow(0.2)
    failure_of(embeddings_at(endpoint, batch_size=1, max_concurrency=2), ["a"] * 40)
    seen = len(endpoint.requests)
    assert seen <= 3
    time.sleep(0.3)
    assert len(endpoint.requests) == seen


@FORGETS_A_COROUTINE
def test_cancelling_a_call_cancels_its_requests(endpoint: Endpoint, behaviours: ModuleType) -> None:
    endpoint.usual = behaviours.slow(0.3)
    embeddings = embeddings_at(endpoint, batch_size=1, max_concurrency=2)

    async def cancelled() -> None:
        call = asyncio.create_task(embeddings.aembed_documents(["a", "b", "c", "d"]))
        while len(endpoint.requests) < 2:  # noqa: ASYNC110 - they arrive in another thread
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        left = [repr(task.get_coro()) for task in asyncio.all_tasks()]
        assert not [each for each in left if "LiteLLMEmbeddings" in each]
        # The object is none the worse for it.
        endpoint.usual = behaviours.embeddings()
        assert len(await embeddings.aembed_documents(["e"])) == 1

    run(cancelled)
    assert [each.texts for each in endpoint.requests[2:]] == [["e"]]


# --- secrets -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
def test_a_key_that_the_provider_echoes_is_not_printed(
    endpoint: Endpoint, behaviours: ModuleType, status: int
) -> None:
    endpoint.usual = behaviours.failure(status, f"Incorrect API key provided: {KEY}.")
    error = failure_of(embeddings_at(endpoint, max_retries=0))
    printed = "".join(traceback.format_exception(error))
    assert "Incorrect API key provided: ***." in str(error)
    assert KEY not in printed
    assert error.__cause__ is not None


def test_a_key_of_the_environment_is_not_printed(
    monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint, behaviours: ModuleType
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment")
    endpoint.usual = behaviours.failure(401, "bad key: sk-from-the-environment")
    error = failure_of(embeddings_at(endpoint, api_key=None))
    assert "sk-from-the-environment" not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    "api_base", ["http://ada:opensesame@127.0.0.1:9/v1", "http://127.0.0.1:9/v1?code=opensesame"]
)
def test_a_password_in_api_base_is_not_printed(endpoint: Endpoint, api_base: str) -> None:
    error = failure_of(embeddings_at(endpoint, api_base=api_base, max_retries=0))
    assert "opensesame" not in "".join(traceback.format_exception(error))


def test_the_object_does_not_show_its_key(endpoint: Endpoint) -> None:
    assert KEY not in repr(embeddings_at(endpoint))


# --- arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"dimensions": 0},
        {"dimensions": 2.5},
        {"batch_size": 0},
        {"max_concurrency": 0},
        {"max_concurrency": True},
        {"max_retries": -1},
        {"timeout": 0},
        {"timeout": float("nan")},
    ],
    ids=str,
)
def test_an_argument_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(wrong))):
        LiteLLMEmbeddings(MODEL, **wrong)


@given(st.text(alphabet=" \t\n", max_size=3))
def test_a_blank_model_is_refused(blank: str) -> None:
    with pytest.raises(InvalidArgumentError, match="model: it is blank"):
        LiteLLMEmbeddings(blank)


# --- litellm itself ----------------------------------------------------------------------------


def in_new_process(code: str, *, folder: Path | None = None, **variables: str) -> tuple[str, str]:
    """Run code in a fresh interpreter; return what it printed to the two streams."""
    kept = {name: value for name, value in os.environ.items() if "LITELLM" not in name}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=folder,
        env=kept | variables,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_without_litellm_the_error_says_what_to_install() -> None:
    out, _ = in_new_process(
        "import sys; sys.modules['litellm'] = None\n"
        "import asyncio, agent_memory\n"
        "e = agent_memory.LiteLLMEmbeddings('text-embedding-3-small')\n"
        "for ask in (lambda: e.dimensions, lambda: asyncio.run(e.aembed_query('a cat'))):\n"
        "    try:\n"
        "        ask()\n"
        "    except agent_memory.EmbeddingError as error:\n"
        "        print(type(error.__cause__).__name__, error)\n"
    )
    first, second = out.splitlines()
    assert first == second
    assert first.startswith("ModuleNotFoundError LiteLLM is not installed")
    assert 'pip install "agent-memory[litellm]"' in first


def test_without_something_that_litellm_needs_the_error_names_it() -> None:
    out, _ = in_new_process(
        "import sys; sys.modules['dotenv'] = None\n"
        "import agent_memory\n"
        "try:\n"
        "    agent_memory.LiteLLMEmbeddings('text-embedding-3-small').dimensions\n"
        "except agent_memory.EmbeddingError as error:\n"
        "    print(error)\n"
    )
    assert "LiteLLM is installed, but dotenv, which it needs, is not" in out


def test_litellm_is_imported_on_first_use_off_the_event_loop_and_quietly(
    endpoint: Endpoint, behaviours: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("MEMORY_VECTOR_DB_FACTORY=from.a.file\n")
    endpoint.upcoming = [behaviours.embeddings(), behaviours.failure(400)]
    out, err = in_new_process(
        "import asyncio, os, sys, time, agent_memory\n"
        f"e = agent_memory.LiteLLMEmbeddings({MODEL!r}, dimensions=8, api_key={KEY!r},\n"
        f"    api_base={endpoint.url!r})\n"
        "assert e.dimensions == 8\n"
        "assert 'litellm' not in sys.modules\n"
        "async def main():\n"
        "    call = asyncio.create_task(e.aembed_query('a cat'))\n"
        "    beats = 0\n"
        "    while not call.done():\n"
        "        await asyncio.sleep(0.01)\n"
        "        beats += 1\n"
        "    await call\n"
        "    assert beats > 20, beats\n"
        "asyncio.run(main())\n"
        "try:\n"
        "    asyncio.run(e.aembed_query('a cat'))\n"
        "except agent_memory.EmbeddingError:\n"
        "    pass\n"
        "assert os.environ['LITELLM_LOCAL_MODEL_COST_MAP'] == 'True'\n"
        "assert 'MEMORY_VECTOR_DB_FACTORY' not in os.environ\n",
        folder=tmp_path,
    )
    assert (out, err) == ("", "")  # no hint, no log, no warning
    assert len(endpoint.requests) == 2


def test_what_the_environment_says_to_litellm_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "False")
    monkeypatch.setenv("LITELLM_MODE", "DEV")
    assert LiteLLMEmbeddings("text-embedding-3-small").dimensions == 1536
    assert os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] == "False"
    assert os.environ["LITELLM_MODE"] == "DEV"
