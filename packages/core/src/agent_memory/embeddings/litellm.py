"""Embeddings by a model behind an API, through LiteLLM: `LiteLLMEmbeddings`.

What LiteLLM does well is left to it: which provider a model belongs to, its protocol, its keys in
the environment, the size of its vectors. Done here: batches, concurrency, retries, and checking
and explaining what comes back. LiteLLM's own retries do not cover embeddings of every provider.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import logging
import math
import os
import random
import struct
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import ModuleType
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from agent_memory.errors import EmbeddingError, InvalidArgumentError

_FIRST_DELAY = 0.5
_LONGEST_DELAY = 8.0
"""Seconds between attempts, where the provider does not say how long to wait."""
_LONGEST_RETRY_AFTER = 60.0
"""A provider that asks to wait for more seconds than this is not waited for."""
_BASE64_WARNING = (
    r"Pydantic serializer warnings:\s+PydanticSerializationUnexpectedValue\(Expected "
    r"`list\[float\]`.*field_name='embedding'"
)
_SHOWN = 600
"""So many characters of a provider's message are repeated in ours."""
_SHORTEST_SECRET = 6
"""Shorter values are placeholders like ``none``; hiding them would garble the message."""


class LiteLLMEmbeddings:
    """Embeds text with any model that LiteLLM knows how to reach.

    LiteLLM is imported on first use, outside the event loop, since that takes seconds. Before
    that, two variables are set unless the environment has them: LITELLM_LOCAL_MODEL_COST_MAP=True,
    so that importing waits on no network, and LITELLM_MODE=PRODUCTION, so that it reads no
    ``.env`` file. ``litellm.suppress_debug_info`` is set too, since LiteLLM prints hints to
    standard output otherwise. Vectors travel as base64 where OpenAI's protocol is spoken; for a
    server that does not know base64 set LITELLM_DEFAULT_EMBEDDING_ENCODING_FORMAT=float. LiteLLM
    keeps connections open for the next call and closes them when
    the interpreter exits.

    Args:
        model: the model by its LiteLLM name, such as ``text-embedding-3-small``,
            ``azure/my-deployment`` or ``openai/my-model`` with an ``api_base``.
        dimensions: how many numbers a vector has, 1 or more. Needed where LiteLLM does not know
            the model. A size other than the model's own is asked of the provider, and refused by
            LiteLLM if the model has only one; for a model that LiteLLM does not know, vectors are
            only checked for it (``text-embedding-3`` under any name is asked).
        api_key: the provider's key; by default the variable that LiteLLM documents for the
            provider, such as ``OPENAI_API_KEY``.
        api_base: the address of the endpoint; by default the provider's.
        batch_size: at most so many texts in a request, 1 or more. 96 is what the strictest of the
            common providers accepts.
        max_concurrency: at most so many requests at once, over all calls, 1 or more.
        timeout: seconds for one request, above 0.
        max_retries: how often a request is repeated, 0 or more, after a rate limit, a failure of
            the server, a timeout or a lost connection. The waits double from half a second to
            eight, with jitter; a ``Retry-After`` of up to 60 seconds is obeyed instead.

    Raises:
        InvalidArgumentError: an argument is outside its range.
    """

    def __init__(
        self,
        model: str,
        *,
        dimensions: int | None = None,
        api_key: str | None = None,
        api_base: str | None = None,
        batch_size: int = 96,
        max_concurrency: int = 8,
        timeout: float = 60.0,
        max_retries: int = 4,
    ) -> None:
        if not model.strip():
            raise InvalidArgumentError(
                "model: it is blank; give a name such as 'text-embedding-3-small'"
            )
        if dimensions is not None:
            _check_at_least("dimensions", dimensions, 1)
        _check_at_least("batch_size", batch_size, 1)
        _check_at_least("max_concurrency", max_concurrency, 1)
        _check_at_least("max_retries", max_retries, 0)
        if not timeout > 0:
            raise InvalidArgumentError(f"timeout={timeout!r}: expected seconds, more than 0")
        self._model = model
        self._dimensions = dimensions
        self._api_key = api_key
        self._api_base = api_base
        self._batch_size = batch_size
        self._max_concurrency = max_concurrency
        self._timeout = timeout
        self._max_retries = max_retries
        self._resolved: _Resolved | None = None
        self._slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            WeakKeyDictionary()
        )

    @property
    def model(self) -> str:
        """The name as it was given."""
        return self._model

    @property
    def dimensions(self) -> int:
        """How many numbers a vector has. The first reading may import LiteLLM, for seconds.

        Raises:
            EmbeddingError: they were not given and LiteLLM does not know them, or it is missing.
        """
        return self._dimensions or self._resolve().dimensions

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one vector for each text, in order; no request for no texts.

        Raises:
            EmbeddingError: the provider could not be reached, refused, or sent something else than
                one finite vector of the right size for each text. The other requests of the call
                are cancelled.
        """
        if not texts:
            return []
        resolved = self._resolved
        if resolved is None:
            resolved = await asyncio.to_thread(self._resolve)
        tasks = [
            asyncio.create_task(
                self._embed(
                    resolved, _Batch(texts[start : start + self._batch_size], start, len(texts))
                )
            )
            for start in range(0, len(texts), self._batch_size)
        ]
        try:
            return [vector for vectors in await asyncio.gather(*tasks) for vector in vectors]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def aembed_query(self, text: str) -> list[float]:
        """Return the vector of a search query.

        Raises:
            EmbeddingError: as `aembed_documents`.
        """
        return (await self.aembed_documents([text]))[0]

    # --- one request -------------------------------------------------------------------------

    async def _embed(self, resolved: _Resolved, batch: _Batch) -> list[list[float]]:
        attempt = 0
        while True:
            attempt += 1
            try:
                response = await self._request(resolved, batch)
                break
            except Exception as error:
                delay = _delay_after(error, attempt)
                worth_it = _is_transient(resolved.litellm, error) and delay <= _LONGEST_RETRY_AFTER
                if attempt > self._max_retries or not worth_it:
                    raise self._failure(resolved.litellm, error, batch, attempt) from error
            await asyncio.sleep(delay)
        return self._vectors(response, batch, resolved.dimensions)

    async def _request(self, resolved: _Resolved, batch: _Batch) -> Any:
        # LiteLLM's timeout bounds each wait for the network, ours the request as a whole.
        async with self._slot(), asyncio.timeout(self._timeout):
            return await resolved.litellm.aembedding(
                model=self._model,
                input=batch.texts,
                dimensions=resolved.dimensions if resolved.asks_for_dimensions else None,
                encoding_format=resolved.encoding_format,
                api_key=self._api_key,
                api_base=self._api_base,
                timeout=self._timeout,
                max_retries=_NO_RETRIES,
            )

    def _slot(self) -> asyncio.Semaphore:
        # A semaphore belongs to one event loop, these embeddings may serve several in turn.
        loop = asyncio.get_running_loop()
        if loop not in self._slots:
            self._slots[loop] = asyncio.Semaphore(self._max_concurrency)
        return self._slots[loop]

    def _vectors(self, response: Any, batch: _Batch, dimensions: int) -> list[list[float]]:
        """Return the vectors of a response in the order of the texts, checked."""
        entries = response.data or []
        if len(entries) != len(batch.texts):
            raise self._wrong(batch, f"{len(entries)} vectors for {len(batch.texts)} texts")
        by_index = {entry["index"]: entry["embedding"] for entry in entries}
        if by_index.keys() != set(range(len(entries))):
            indices = [entry["index"] for entry in entries]
            raise self._wrong(
                batch, f"vectors numbered {_cut(str(indices))}, not 0, 1, 2 and so on"
            )
        try:
            vectors = [_numbers(by_index[index]) for index in range(len(entries))]
        except (ValueError, struct.error) as error:
            raise self._wrong(batch, f"base64 that holds no numbers ({error})") from error
        for vector in vectors:
            if len(vector) != dimensions:
                raise self._wrong(
                    batch,
                    f"vectors of {len(vector)} dimensions, expected {dimensions}; give the model's "
                    f"own number as dimensions=, or as EMBEDDING_DIMENSIONS",
                )
            try:
                finite = math.isfinite(sum(vector))
            except TypeError:
                finite = False
            if not finite:
                raise self._wrong(batch, "a vector with something else than finite numbers in it")
        return vectors

    # --- what LiteLLM knows ------------------------------------------------------------------

    def _resolve(self) -> _Resolved:
        """Import LiteLLM and find out the size of vectors; blocking, so not for the event loop."""
        if self._resolved is None:
            litellm = _import_litellm()
            own = _registered_dimensions(litellm, self._model)
            dimensions = self._dimensions or own
            if dimensions is None:
                raise EmbeddingError(
                    f"the size of vectors of {self._model!r} is not known to LiteLLM: pass "
                    f"dimensions=, or set EMBEDDING_DIMENSIONS, which create_memory_vector_db reads"
                )
            asks = self._dimensions is not None and (
                own not in (None, dimensions) or "text-embedding-3" in self._model
            )
            self._resolved = _Resolved(
                litellm, dimensions, asks, _encoding_format(litellm, self._model)
            )
        return self._resolved

    # --- explaining --------------------------------------------------------------------------

    def _failure(
        self, litellm: ModuleType, error: Exception, batch: _Batch, attempts: int
    ) -> EmbeddingError:
        secrets = self._secrets(litellm)
        _redact_chain(error, secrets)
        said = _cut(_redacted(str(error) or "no answer in time", secrets))
        tried = "once" if attempts == 1 else f"{attempts} times"
        return EmbeddingError(
            f"{self._model!r} could not embed {batch} (tried {tried}): "
            f"{self._advice(litellm, error)}. It failed with {type(error).__name__}: {said}"
        )

    def _wrong(self, batch: _Batch, what: str) -> EmbeddingError:
        return EmbeddingError(f"{self._model!r} returned, for {batch}, {what}")

    def _advice(self, litellm: ModuleType, error: Exception) -> str:
        """Say what is wrong and what to do about it."""
        status = getattr(error, "status_code", None)
        if status in (401, 403) or _is_setup(error):
            missing = litellm.validate_environment(model=self._model)["missing_keys"]
            if self._api_key is None and missing:
                return (
                    f"the environment lacks {', '.join(missing)}: set what the provider needs, or "
                    f"pass api_key="
                )
        if _is_setup(error):
            return "LiteLLM cannot use the model as it is set up here"
        if status in (401, 403):
            source = "in the environment" if self._api_key is None else "passed as api_key="
            return f"the provider refused the API key {source}: check it and what it permits"
        if status == 429:
            wait = _retry_after(error)
            asked = "" if wait is None else f" and asks to wait {wait:g} seconds"
            return (
                f"the provider limits the rate{asked}: wait, lower max_concurrency or raise "
                f"max_retries"
            )
        if status == 404:
            return f"the provider does not know the model: check its name and {self._address()}"
        if isinstance(error, TimeoutError) or status == 408:
            return (
                f"no answer within {self._timeout:g} seconds: check {self._address()}, raise "
                f"timeout or lower batch_size"
            )
        if isinstance(error, litellm.UnsupportedParamsError):
            return "LiteLLM cannot ask this model for another size of vectors: leave dimensions out"
        if isinstance(status, int) and 400 <= status < 500:
            return (
                "the provider refused the request: check the model's name and limits, and lower "
                "batch_size if the request is too large"
            )
        return f"the provider failed or cannot be reached: check {self._address()}, or try later"

    def _address(self) -> str:
        if self._api_base is None:
            return "the network (or api_base=, if it is not the provider's own endpoint)"
        parts = urlsplit(self._api_base)
        return f"api_base, {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def _secrets(self, litellm: ModuleType) -> list[str]:
        """Return everything that may be a key, the longest first."""
        found = {self._api_key, litellm.api_key, litellm.openai_key}
        if self._api_base is not None:
            parts = urlsplit(self._api_base)
            found |= {parts.password, parts.query}
        for name, value in os.environ.items():
            if any(word in name.upper() for word in ("KEY", "TOKEN", "SECRET", "PASSWORD")):
                found.add(value)
        return sorted(
            (each for each in found if each and len(each) >= _SHORTEST_SECRET),
            key=len,
            reverse=True,
        )


class _Resolved(NamedTuple):
    """What is known once LiteLLM is imported."""

    litellm: ModuleType
    dimensions: int
    asks_for_dimensions: bool
    """Whether requests name the dimensions."""
    encoding_format: str | None
    """How vectors travel; ``None`` where the provider has no choice."""


class _Batch(NamedTuple):
    """The texts of one request, and where they stand among those of the call."""

    texts: list[str]
    start: int
    of: int

    def __str__(self) -> str:
        if self.of == 1:
            return "the text"
        return f"texts {self.start + 1} to {self.start + len(self.texts)} of {self.of}"


class _Zero(int):
    """A zero that counts as given: LiteLLM takes a plain 0 for "not set" and retries twice."""

    def __bool__(self) -> bool:
        return True


_NO_RETRIES = _Zero(0)


def _check_at_least(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidArgumentError(f"{name}={value!r}: expected a whole number of {least} or more")


def _import_litellm() -> ModuleType:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")
    try:
        litellm = importlib.import_module("litellm")
    except ModuleNotFoundError as error:
        if error.name != "litellm":
            raise EmbeddingError(
                f"LiteLLM is installed, but {error.name}, which it needs, is not: reinstall it by "
                f'pip install --force-reinstall "agent-memory[litellm]"'
            ) from error
        raise EmbeddingError(
            'LiteLLM is not installed: pip install "agent-memory[litellm]", or use '
            'embeddings="local", which needs no provider'
        ) from error
    litellm.suppress_debug_info = True  # type: ignore[attr-defined]
    logging.getLogger("LiteLLM").addFilter(_is_news)
    # OpenAI's client declares numbers where we have it receive base64, and pydantic notices.
    warnings.filterwarnings("ignore", _BASE64_WARNING, UserWarning)
    return litellm


def _is_news(record: logging.LogRecord) -> bool:
    # Said whenever a program calls asyncio.run a second time; nothing is wrong then.
    return not str(record.msg).startswith("LoggingWorker: event loop changed")


def _registered_dimensions(litellm: ModuleType, model: str) -> int | None:
    try:
        size = litellm.get_model_info(model).get("output_vector_size")
    except Exception as error:  # it raises several kinds, a plain Exception among them
        logging.getLogger(__name__).debug("LiteLLM does not know %r: %s", model, error)
        return None
    return size if isinstance(size, int) else None


def _encoding_format(litellm: ModuleType, model: str) -> str | None:
    # What speaks OpenAI's protocol goes through OpenAI's client, which takes half a second on the
    # event loop for the numbers of one batch, and next to nothing for base64.
    if "LITELLM_DEFAULT_EMBEDDING_ENCODING_FORMAT" in os.environ:
        return None
    try:
        provider = litellm.get_llm_provider(model)[1]
    except litellm.BadRequestError:
        return None  # no provider has such a model, as the request is about to find out
    return "base64" if provider in ("openai", "azure", "litellm_proxy") else None


def _numbers(embedding: list[float] | str) -> list[float]:
    """Return the numbers of a vector that came as numbers or as float32 in base64."""
    if not isinstance(embedding, str):
        return embedding
    packed = base64.b64decode(embedding, validate=True)
    return list(struct.unpack(f"<{len(packed) // 4}f", packed))


# --- failures ----------------------------------------------------------------------------------


def _is_transient(litellm: ModuleType, error: Exception) -> bool:
    if isinstance(error, TimeoutError):
        return True
    # LiteLLM gives the status 500 to some bad requests, and to whatever it does not recognise.
    if isinstance(error, litellm.BadRequestError) or _is_setup(error):
        return False
    status = getattr(error, "status_code", None)
    return isinstance(status, int) and (status in (408, 409, 429) or status >= 500)


def _is_setup(error: Exception) -> bool:
    """Whether it began with something missing here, such as a key, before anything was sent."""
    first = list(_chain(error))[-1]
    if isinstance(first, json.JSONDecodeError):
        return False
    missing_key = importlib.import_module("openai").OpenAIError
    return isinstance(first, (ImportError, ValueError)) or type(first) is missing_key


def _delay_after(error: Exception, attempt: int) -> float:
    """Return how many seconds to wait after this attempt, the first being 1."""
    asked = _retry_after(error)
    if asked is not None:
        return asked
    longest = min(_FIRST_DELAY * 2.0 ** (attempt - 1), _LONGEST_DELAY)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter is no secret


def _retry_after(error: Exception) -> float | None:
    """Return the seconds of a ``Retry-After`` header, which may be a number or a date."""
    for value in _headers(error, "retry-after"):
        try:
            return max(0.0, float(value))
        except ValueError:
            pass
        try:
            return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
        except (ValueError, TypeError):  # neither: what cannot be read is not obeyed
            continue
    return None


def _headers(error: BaseException, name: str) -> Iterator[str]:
    # LiteLLM's own exceptions carry empty headers; those they were made from have the real ones.
    for each in _chain(error):
        for headers in (
            getattr(getattr(each, "response", None), "headers", None),
            getattr(each, "headers", None),
            getattr(each, "litellm_response_headers", None),
        ):
            for key, value in (headers or {}).items():
                if key.lower() == name:
                    yield value


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


def _redact_chain(error: BaseException, secrets: list[str]) -> None:
    """Take the secrets out of what a traceback prints of an exception and its causes."""
    for each in _chain(error):
        each.args = tuple(
            _redacted(value, secrets) if isinstance(value, str) else value for value in each.args
        )
        if isinstance(message := getattr(each, "message", None), str):
            each.message = _redacted(message, secrets)  # type: ignore[attr-defined]


def _redacted(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
