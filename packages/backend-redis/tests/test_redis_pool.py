"""The client that `connect` makes: its pool, its retries, and what cancelled calls leave behind."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis import exceptions
from redis.asyncio.cluster import RedisCluster
from redis_server import RedisServer

from agent_memory_redis.connection import ConnectionSettings, connect


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[Any]:
    client = connect(ConnectionSettings(url=url, **options))
    try:
        yield client
    finally:
        await client.aclose()


def clients_of(server: RedisServer) -> int:
    """Connections that the server has, without the one that asks."""
    return server.run("CLIENT", "LIST", "TYPE", "normal").count(" laddr=") - 1


@pytest.fixture(scope="module")
def sentinel_url() -> Any:
    with RedisServer() as primary, RedisServer(sentinel_of=primary) as sentinel:
        yield f"redis+sentinel://127.0.0.1:{sentinel.port}/main"


@pytest.fixture(scope="module")
def cluster_url() -> Any:
    with RedisServer(cluster=True) as node:
        yield node.url.replace("redis://", "redis+cluster://")


@pytest.fixture(params=["server", "sentinel", "cluster"])
def any_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(
        {"server": "redis_url", "sentinel": "sentinel_url", "cluster": "cluster_url"}[request.param]
    )
    return url


async def put_numbers(client: Any) -> None:
    pipeline = client.pipeline(transaction=False)
    for number in range(1000):
        pipeline.set(f"pool:number:{number}", number)
    await pipeline.execute()


async def number(client: Any, which: int) -> int:
    """Read a number that `put_numbers` has stored, so that a foreign answer would be seen."""
    return int(await client.get(f"pool:number:{which}"))


# --- many calls at once --------------------------------------------------------------------------


def test_a_thousand_calls_at_once_succeed(any_url: str) -> None:
    async def scenario() -> None:
        async with connected(any_url, max_connections=8) as client:
            await put_numbers(client)
            answers = await asyncio.gather(*(number(client, n) for n in range(1000)))
            assert answers == [*range(1000)]

    asyncio.run(scenario())


def test_a_thousand_pipelines_at_once_succeed(any_url: str) -> None:
    async def piped(client: Any, number: int) -> Any:
        pipeline = client.pipeline(transaction=False)
        pipeline.set(f"pool:{number % 10}", "x")
        pipeline.exists(f"pool:{number % 10}")
        return await pipeline.execute()

    async def scenario() -> None:
        async with connected(any_url, max_connections=8) as client:
            answers = await asyncio.gather(*(piped(client, n) for n in range(1000)))
            assert answers == [[True, 1]] * 1000

    asyncio.run(scenario())


@pytest.mark.parametrize("piped", [False, True])
@pytest.mark.parametrize("cluster", [False, True])
def test_connections_stay_below_the_bound(cluster: bool, piped: bool) -> None:
    async def write(client: Any, number: int) -> None:
        if piped:
            await client.pipeline(transaction=False).set(f"key:{number}", "x").execute()
        else:
            await client.set(f"key:{number}", "x")

    async def scenario(server: RedisServer) -> None:
        url = f"{server.url}?cluster={cluster}"
        async with connected(url, max_connections=5) as client:
            await asyncio.gather(*(write(client, n) for n in range(200)))
            # A cluster's client has one more, by which it has learned about the nodes.
            assert 0 < clients_of(server) <= 5 + cluster

    with RedisServer(cluster=cluster) as server:
        asyncio.run(scenario(server))


def test_a_call_that_gets_no_connection_in_time_says_so(redis_url: str) -> None:
    async def scenario() -> None:
        async with connected(redis_url, max_connections=1, pool_timeout=0.1) as client:
            holding = asyncio.create_task(client.blpop(["pool:nothing"], timeout=1))
            await asyncio.sleep(0.05)
            with pytest.raises(exceptions.MaxConnectionsError, match=r"all 1 .* for 0\.1 s"):
                await client.ping()
            await holding
            assert await client.ping()

    asyncio.run(scenario())


def test_those_that_wait_are_served_in_their_order(redis_url: str) -> None:
    served: list[int] = []

    async def call(client: Any, number: int) -> None:
        await client.ping()
        served.append(number)

    async def scenario() -> None:
        async with connected(redis_url, max_connections=1) as client:
            await asyncio.gather(*(call(client, n) for n in range(50)))
        assert served == list(range(50))

    asyncio.run(scenario())


# --- cancellation --------------------------------------------------------------------------------


def test_cancelled_calls_leave_no_foreign_answers_behind(any_url: str) -> None:
    async def scenario() -> None:
        randomly = random.Random(4)
        async with connected(any_url, max_connections=10) as client:
            await put_numbers(client)
            for _ in range(5):
                calls = [asyncio.create_task(number(client, 200 + n)) for n in range(200)]
                cancelled = 0
                for call in randomly.sample(calls, len(calls)):
                    if randomly.random() < 0.3:
                        await asyncio.sleep(randomly.random() * 0.002)
                    cancelled += call.cancel()
                await asyncio.gather(*calls, return_exceptions=True)
                assert cancelled
                answers = await asyncio.gather(*(number(client, n) for n in range(200)))
                assert answers == [*range(200)]

    asyncio.run(scenario())


def test_cancelled_pipelines_leave_no_foreign_answers_behind(any_url: str) -> None:
    async def piped(client: Any, number: int) -> Any:
        pipeline = client.pipeline(transaction=False)
        for _ in range(20):
            pipeline.hset(f"pool:hash:{number}", "field", str(number))
            pipeline.hget(f"pool:hash:{number}", "field")
        return (await pipeline.execute())[1::2]

    async def scenario() -> None:
        randomly = random.Random(5)
        async with connected(any_url, max_connections=10) as client:
            calls = [asyncio.create_task(piped(client, n)) for n in range(200)]
            for call in randomly.sample(calls, len(calls)):
                await asyncio.sleep(randomly.random() * 0.001)
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            answers = await asyncio.gather(*(piped(client, n) for n in range(200)))
            assert answers == [[str(n).encode()] * 20 for n in range(200)]

    asyncio.run(scenario())


async def asked(client: Any, which: int) -> list[int]:
    """Read numbers that `put_numbers` has stored in one round trip."""
    replies = await client.ask(*(("GET", f"pool:number:{which + n}") for n in range(20)))
    return [int(each) for each in replies]


def test_the_answer_to_a_cancelled_round_trip_is_nobody_elses(any_url: str) -> None:
    async def scenario() -> None:
        async with connected(any_url, max_connections=1) as client:
            await put_numbers(client)
            waiting = asyncio.create_task(client.ask(("BLPOP", "pool:nothing", 1)))
            await asyncio.sleep(0.1)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert await asked(client, 3) == [*range(3, 23)]

    asyncio.run(scenario())


def test_an_error_among_several_replies_is_raised_and_the_others_are_read(any_url: str) -> None:
    async def scenario() -> None:
        async with connected(any_url, max_connections=1) as client:
            await put_numbers(client)
            commands = [("GET", "pool:number:1"), ("HGET", "pool:number:1", "x")] * 2
            with pytest.raises(exceptions.ResponseError, match="WRONGTYPE"):
                await client.ask(*commands, ("GET", "pool:number:2"))
            connected_before = client.connected
            assert await asked(client, 3) == [*range(3, 23)]
            assert client.connected == connected_before  # nothing that was left over

    asyncio.run(scenario())


def test_a_waiting_call_that_is_cancelled_when_its_turn_comes_passes_it_on(redis_url: str) -> None:
    async def scenario() -> None:
        async with connected(redis_url, max_connections=1, pool_timeout=5) as client:
            held = await client.connection_pool.get_connection()
            second = asyncio.create_task(client.ping())
            third = asyncio.create_task(client.ping())
            await asyncio.sleep(0.01)
            await client.connection_pool.release(held)
            second.cancel()
            assert await asyncio.wait_for(third, 2)

    asyncio.run(scenario())


# --- retries -------------------------------------------------------------------------------------


def test_a_server_that_comes_back_in_time_is_not_noticed() -> None:
    async def scenario(server: RedisServer) -> None:
        async with connected(server.url, retries=20) as client:
            await client.set("key", "before")
            server.kill()
            await asyncio.sleep(0.05)
            write = asyncio.create_task(client.set("key", "after"))
            await asyncio.sleep(0.2)
            assert not write.done()
            await asyncio.to_thread(server.restart)
            assert await write
            assert await client.get("key") == b"after"

    with RedisServer() as server:
        asyncio.run(scenario(server))


def test_connections_that_died_meanwhile_are_replaced_unnoticed() -> None:
    async def scenario(server: RedisServer) -> None:
        async with connected(server.url, retries=0) as client:
            await asyncio.gather(*(client.ping() for _ in range(50)))
            server.run("CLIENT", "KILL", "TYPE", "normal")
            await asyncio.sleep(0.05)
            counts = await asyncio.gather(*(client.incr("n") for _ in range(50)))
            assert sorted(counts) == [*range(1, 51)]

    with RedisServer() as server:
        asyncio.run(scenario(server))


def test_without_a_server_a_call_fails_after_its_retries(unused_url: str) -> None:
    async def scenario() -> None:
        async with connected(unused_url, retries=3) as client:
            started = time.monotonic()
            with pytest.raises(exceptions.ConnectionError):
                await client.get("key")
            assert time.monotonic() - started < 2

    asyncio.run(scenario())


def test_a_refused_password_is_not_retried() -> None:
    async def scenario(server: RedisServer) -> None:
        async with connected(server.url_of(None, "wrong"), retries=5) as client:
            with pytest.raises(exceptions.AuthenticationError):
                await client.get("key")

    with RedisServer(password="right") as server:
        asyncio.run(scenario(server))
        assert "acl_access_denied_auth:1\r" in server.run("INFO", "stats")


def test_a_timeout_is_not_retried() -> None:
    async def scenario(server: RedisServer) -> None:
        async with connected(server.url, timeout=0.2, retries=20) as client:
            await client.ping()
            server.pause()
            started = time.monotonic()
            with pytest.raises(exceptions.TimeoutError):
                await client.get("key")
            assert time.monotonic() - started < 1
            server.resume()
            assert await client.ping()

    with RedisServer() as server:
        asyncio.run(scenario(server))


def test_a_server_that_takes_nothing_in_is_not_waited_for() -> None:
    async def scenario(server: RedisServer) -> None:
        async with connected(server.url, timeout=0.2, retries=20) as client:
            await client.ping()
            server.pause()
            async with asyncio.timeout(60):  # instead of waiting for ever
                with pytest.raises(exceptions.TimeoutError):
                    await client.ask(("SET", "key", b"x" * 20_000_000))
            server.resume()
            assert await client.ping()

    with RedisServer() as server:
        asyncio.run(scenario(server))


class BreakingServer:
    """Takes commands, and breaks the connection instead of answering until it has had enough."""

    def __init__(self, breaks: int) -> None:
        self.breaks = breaks
        self.commands: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                words = []
                for _ in range(int(line[1:])):
                    length = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(length + 2))[:-2])
                if words[0] == b"CLIENT":
                    writer.write(b"+OK\r\n")
                    continue
                self.commands.append(words[0])
                if len(self.commands) <= self.breaks:
                    break
                writer.write(b":1\r\n")
        finally:
            writer.close()

    @asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[Any]:
        listening = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        async with listening, connected(f"redis://127.0.0.1:{port}", **options) as client:
            yield client


def test_a_read_is_repeated_when_the_connection_breaks() -> None:
    async def scenario() -> None:
        server = BreakingServer(breaks=2)
        async with server.client(retries=3) as client:
            assert await client.exists("key") == 1
        assert server.commands == [b"EXISTS"] * 3
        server = BreakingServer(breaks=2)
        async with server.client(retries=3) as client:
            assert await client.ask(("EXISTS", "key"), ("EXISTS", "key")) == [1, 1]
        assert server.commands == [b"EXISTS"] * 4

    asyncio.run(scenario())


@pytest.mark.parametrize("command", [("INCR", "n"), ("DEL", "key"), ("FT.CURSOR", "READ", "i", 1)])
def test_what_may_have_been_done_is_not_repeated(command: tuple[Any, ...]) -> None:
    async def scenario() -> None:
        server = BreakingServer(breaks=1)
        async with server.client(retries=3) as client:
            with pytest.raises(exceptions.ConnectionError):
                await client.execute_command(*command)
        assert server.commands == [command[0].encode()]
        for commands in ([command], [command, command]):
            server = BreakingServer(breaks=1)
            async with server.client(retries=3) as client:
                with pytest.raises(exceptions.ConnectionError):
                    await client.ask(*commands)
            assert server.commands == [command[0].encode()]

    asyncio.run(scenario())


def test_a_pipeline_is_not_repeated() -> None:
    async def scenario() -> None:
        server = BreakingServer(breaks=1)
        async with server.client(retries=3) as client:
            pipeline = client.pipeline(transaction=False)
            pipeline.delete("key")
            with pytest.raises(exceptions.ConnectionError):
                await pipeline.execute()
        assert server.commands == [b"DEL"]

    asyncio.run(scenario())


# --- which client --------------------------------------------------------------------------------


def test_replies_are_bytes_in_the_shape_of_resp2(any_url: str) -> None:
    async def scenario() -> None:
        async with connected(any_url) as client:
            await client.set("pool:key", b"\xff")
            assert await client.get("pool:key") == b"\xff"
            await client.hset("pool:hash", "field", "value")
            script = "redis.setresp(3); return redis.call('HGETALL', KEYS[1])"
            assert await client.eval(script, 1, "pool:hash") == [b"field", b"value"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "form", ["redis+cluster://{}", "redis://{}?cluster=true", "redis://{0},{0}"]
)
def test_a_url_selects_the_clusters_client(cluster_url: str, form: str) -> None:
    async def scenario() -> None:
        host = cluster_url.partition("://")[2].rstrip("/0")
        async with connected(form.format(host)) as client:
            assert isinstance(client, RedisCluster)
            await asyncio.gather(*(client.set(f"pool:{n}", "x") for n in range(20)))

    asyncio.run(scenario())


def test_unix_sockets_and_databases() -> None:
    async def scenario(server: RedisServer) -> None:
        async with connected(f"unix://{server.socket}?db=3") as by_socket:
            await by_socket.set("key", "three")
        async with connected(f"redis://127.0.0.1:{server.port}/3") as by_path:
            assert await by_path.get("key") == b"three"
        async with connected(server.url) as zero:
            assert await zero.get("key") is None

    with RedisServer() as server:
        asyncio.run(scenario(server))


def test_closing_leaves_no_connection_behind() -> None:
    async def scenario(server: RedisServer, url: str) -> None:
        async with connected(url) as client:
            await asyncio.gather(*(client.ping() for _ in range(20)))
            assert clients_of(server) > 0
        for _ in range(100):
            if clients_of(server) == 0:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(server.run("CLIENT", "LIST"))

    for cluster in (False, True):
        with RedisServer(cluster=cluster) as server:
            asyncio.run(scenario(server, f"{server.url}?cluster={cluster}"))


@pytest.mark.parametrize("in_use", [False, True])
def test_disconnecting_means_those_that_wait_and_if_asked_those_in_use(in_use: bool) -> None:
    """As redis-py does when the primary has moved, and when a client is closed."""

    async def scenario(server: RedisServer) -> None:
        async with connected(server.url) as client:
            pool = client.connection_pool
            await asyncio.gather(*(client.ask(("PING",)) for _ in range(20)))
            waiting = clients_of(server) - 1
            used = await pool.get_connection()
            assert waiting > 1
            await pool.disconnect(inuse_connections=in_use)
            for _ in range(100):
                if clients_of(server) == (0 if in_use else 1):
                    break
                await asyncio.sleep(0.01)
            assert clients_of(server) == (0 if in_use else 1)
            await pool.release(used)
            assert await asyncio.gather(*(client.ask(("PING",)) for _ in range(20))) == (
                [[b"PONG"]] * 20
            )

    with RedisServer() as server:
        asyncio.run(scenario(server))
