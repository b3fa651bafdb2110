"""The connection's options, their variables, and URLs of every kind; no text betrays a password."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis import exceptions

from agent_memory import AgentMemoryError, BackendUnavailableError, InvalidArgumentError
from agent_memory_redis.connection import ConnectionSettings, address, connect, translated
from agent_memory_redis.settings import Target


def options_of(url: str) -> dict[str, Any]:
    """Return what redis-py is told for a URL of a single server."""
    options = connect(ConnectionSettings(url=url)).connection_pool.connection_kwargs  # type: ignore[union-attr]
    assert isinstance(options, dict)
    return options


# --- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        ("max_connections", 0),
        ("max_connections", 2.5),
        ("max_connections", True),
        ("retries", -1),
        ("timeout", 0),
        ("timeout", float("inf")),
        ("timeout", float("nan")),
        ("timeout", "5"),
        ("connect_timeout", -1),
        ("pool_timeout", 0.0),
    ],
)
def test_an_option_out_of_range_is_named_with_its_variable(option: str, wrong: Any) -> None:
    variable = f"REDIS_{option.upper()}"
    with pytest.raises(
        InvalidArgumentError, match=rf"^{option}={wrong!r} \({variable}\): expected"
    ):
        ConnectionSettings(**{option: wrong})


def test_the_environment_fills_what_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere:1")
    monkeypatch.setenv("REDIS_MAX_CONNECTIONS", "7")
    monkeypatch.setenv("REDIS_TIMEOUT", "2.5")
    monkeypatch.setenv("REDIS_RETRIES", "")  # as if it were not set
    settings = ConnectionSettings.resolved(timeout=1.5, pool_timeout=None)
    assert settings == ConnectionSettings(url="redis://elsewhere:1", max_connections=7, timeout=1.5)


def test_a_variable_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_RETRIES", "many")
    with pytest.raises(InvalidArgumentError, match=r"retries='many' \(REDIS_RETRIES\)"):
        ConnectionSettings.resolved()


# --- URLs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "kind", "place"),
    [
        ("redis://localhost:6379", "server", "Redis at localhost:6379, database 0"),
        ("redis://:p%40ss@h/2", "server", "Redis at h:6379, database 2"),
        ("rediss://u:p@[::1]:7/0", "server", "Redis at [::1]:7, database 0"),
        ("redis://h?db=3", "server", "Redis at h:6379, database 3"),
        ("unix:///run/r.sock?db=1", "server", "Redis at /run/r.sock, database 1"),
        ("unix://u:p@/run/r.sock", "server", "Redis at /run/r.sock, database 0"),
        ("redis+cluster://a:1,b:2", "cluster", "the Redis cluster at a:1,b:2"),
        ("rediss+cluster://u:p@a", "cluster", "the Redis cluster at a:6379"),
        ("redis://a:1?cluster=true", "cluster", "the Redis cluster at a:1"),
        ("redis://a:1?cluster=false", "server", "Redis at a:1, database 0"),
        ("redis://a:1,b:2", "cluster", "the Redis cluster at a:1,b:2"),
        ("redis+sentinel://a,b:2/svc/4", "sentinel",
         "Redis 'svc' (by the Sentinels at a:26379,b:2), database 4"),
        ("redis+sentinel://u:p@a", "sentinel",
         "Redis 'mymaster' (by the Sentinels at a:26379), database 0"),
    ],
)  # fmt: skip
def test_every_kind_of_url_is_understood(url: str, kind: str, place: str) -> None:
    assert Target.of(url).kind == kind
    assert address(url) == place
    connect(ConnectionSettings(url=url.replace("://a", "://127.0.0.1")))


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "must begin with one of"),
        ("localhost:6379", "must begin with one of"),
        ("http://localhost", "must begin with one of"),
        ("redis://h:port", "cannot be understood"),
        ("redis://h:99999", "cannot be understood"),
        ("redis://h/memories", "number of a database"),
        ("redis+sentinel://h/svc/db", "number of a database"),
        ("unix://", "needs its path"),
        ("unix://run/r.sock", "needs its path"),
        ("redis+cluster://h/1", "databases other than 0"),
        ("unix:///r.sock?cluster=true", "unix sockets"),
        ("redis://h?socket_timeout=soon", "Invalid value for 'socket_timeout'"),
        ("redis://h?protocol=3", "leave out protocol"),
        ("redis://h?decode_responses=true", "leave out decode_responses"),
        ("redis://h#x", "percent-encoded"),
        ("redis://u:p/w@h", "percent-encoded"),
        ("redis://u:/w@h", "percent-encoded"),
    ],
)
def test_a_url_that_cannot_be_understood_says_why(url: str, reason: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"^url \(REDIS_URL\): .*{reason}"):
        ConnectionSettings(url=url)


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster", "redis+sentinel"])
def test_a_query_parameter_that_nobody_knows_is_refused(scheme: str) -> None:
    settings = ConnectionSettings(url=f"{scheme}://127.0.0.1?sockt_timeout=1")
    with pytest.raises(InvalidArgumentError, match="no query parameter 'sockt_timeout'"):
        connect(settings)


def test_query_parameters_win_over_options_as_in_redis_py() -> None:
    options = options_of("redis://h?socket_timeout=1.5&health_check_interval=9&client_name=me")
    assert (options["socket_timeout"], options["health_check_interval"]) == (1.5, 9)
    assert options["client_name"] == "me"
    pool = connect(ConnectionSettings(url="redis://h?max_connections=3")).connection_pool  # type: ignore[union-attr]
    assert pool.max_connections == 3


@given(user=st.text(min_size=1), password=st.text(min_size=1))
def test_any_user_and_password_reach_the_client(user: str, password: str) -> None:
    options = options_of(f"redis://{quote(user, safe='')}:{quote(password, safe='')}@h:1/2")
    assert (options["username"], options["password"]) == (user, password)
    assert (options["host"], options["port"], options["db"]) == ("h", 1, 2)


# --- what errors say -----------------------------------------------------------------------------


def chain(error: BaseException) -> str:
    """Return all that a traceback of the error would say, of its causes as well."""
    texts = []
    seen: BaseException | None = error
    while seen is not None:
        texts.append(f"{seen!r} {seen}")
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return "\n".join(texts)


URLS = ["{}", "redis://u:{}@h:1", "redis://{}@h", "redis://u:{}@h:x", "rediss://:{}@h/db",
        "unix://u:{}@/s", "redis+cluster://:{}@a,b", "redis+sentinel://u:{}@a/b/c",
        "redis://h?password={}", "redis://h?password={}&nonsense=1", "redis+sentinel://:{}@a",
        "http://u:{}@h", "redis://h?socket_timeout={}"]  # fmt: skip


@given(
    st.sampled_from(URLS),
    st.text(st.characters(exclude_categories=["Cs", "L", "N", "Z"]), max_size=4),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
)
@example("redis://u:{}@h:1", "/", "")
@example("redis://u:{}@h:1", "", ":@#?[")
@example("redis://u:{}@h:1", "?", "")
@example("redis+sentinel://:{}@a", "/", "")
@example("unix://u:{}@/s", "/", "")
def test_no_error_of_settings_holds_a_password(form: str, before: str, after: str) -> None:
    secret = f"{before}Geheim7{after}"
    for written in (secret, quote(secret, safe="")):
        said = ""
        url = form.format(written)
        try:
            settings = ConnectionSettings(url=url)
            said = f"{settings} {Target.of(url)} {address(url)}"
            connect(settings)
        except AgentMemoryError as error:  # any other kind fails the test
            said += chain(error)
        assert "Geheim7" not in said


def test_no_error_of_a_client_holds_a_password(unused_url: str) -> None:
    async def scenario(url: str) -> None:
        client = connect(ConnectionSettings(url=url, retries=1, connect_timeout=1))
        try:
            with pytest.raises((exceptions.RedisError, exceptions.RedisClusterException)) as raised:
                await client.ping()
        finally:
            await client.aclose()
        ours = translated(raised.value, url=url)
        assert isinstance(ours, BackendUnavailableError)
        assert "Geheim7" not in str(ours)
        assert "Geheim7" not in chain(raised.value)

    place = unused_url.partition("://")[2]
    for scheme in ("redis", "rediss", "redis+cluster", "redis+sentinel"):
        asyncio.run(scenario(f"{scheme}://user:Geheim7@{place}"))


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (exceptions.BusyLoadingError("Redis is loading the dataset in memory"), "still loading"),
        (exceptions.MasterDownError("Link with MASTER is down"), "lost its primary"),
        (exceptions.ClusterDownError("The cluster is down"), "does not serve all its slots"),
        (exceptions.ResponseError("MISCONF Errors writing to the AOF file: No space"), "No space"),
        (exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."), "too few repl"),
        (exceptions.ResponseError("BUSY Redis is busy running a script."), "busy with a script"),
        (exceptions.ConnectionError("max number of clients reached"), "maxclients"),
        (exceptions.ResponseError("Timeout limit was reached"), "search-timeout"),
        (OSError(28, "No space left on device"), "cannot reach"),
    ],
)
def test_an_outage_says_what_to_do(error: Exception, says: str) -> None:
    # What a test can bring a real server to say is in test_redis_startup and test_redis_security.
    ours = translated(error, url="redis://u:p@h:1/2")
    assert isinstance(ours, BackendUnavailableError)
    assert says in str(ours)
    assert "Redis at h:1, database 2" in str(ours)


@pytest.mark.parametrize("error", [ValueError("ours"), exceptions.ResponseError("no such index")])
def test_what_is_not_about_the_connection_is_left_alone(error: Exception) -> None:
    assert translated(error, url="redis://h") is None


@pytest.mark.parametrize("said", ["no memory", 'it\'s \\ "full"', "('odd',)"])
def test_a_pipelines_error_gives_the_servers_words_and_not_the_record(said: str) -> None:
    inner = (f"MISCONF {said}",)
    error = exceptions.ResponseError(
        f"Command # 1 (HSET memory:1 text my\nsecret) of pipeline caused error: {inner}"
    )
    ours = str(translated(error, url="redis://h"))
    assert f"(MISCONF {said})" in ours
    assert "secret" not in ours


def test_every_text_of_an_error_is_whole() -> None:
    for said in ("a", "a {braces} b"):
        ours = translated(exceptions.ConnectionError(said), url="redis://h")
        assert re.search(
            rf"cannot reach Redis at h:6379, database 0: {re.escape(said)}\.", str(ours)
        )
