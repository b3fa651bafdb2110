"""From settings to a usable client: the pool, the cluster's turnstile, the policy of retrying.

`connect` makes a client for one server, for the primary that Sentinels name, or for a cluster, and
all three behave alike: a bounded number of connections that callers wait for, one policy of
retrying, RESP2, replies as bytes. What is stored on the server, and how, is not known here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar

from hiredis import pack_command
from redis import exceptions
from redis.asyncio import Redis, Sentinel
from redis.asyncio.cluster import ClusterNode, ClusterPipeline, RedisCluster
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    MasterNotFoundError,
    SentinelConnectionPool,
    SentinelManagedConnection,
)
from redis.backoff import FullJitterBackoff, NoBackoff

from agent_memory_redis.errors import (
    AccessDeniedError,
    NotConnectedError,
    UnsuitableServerError,
    translated,
)
from agent_memory_redis.settings import ConnectionSettings, Target, address, bad_url

__all__ = [
    "AccessDeniedError",
    "ConnectionSettings",
    "UnsuitableServerError",
    "address",
    "check_server",
    "connect",
    "eviction_policy",
    "translated",
]

_T = TypeVar("_T")


def connect(settings: ConnectionSettings) -> Redis | RedisCluster:
    """Return a client for the settings; it connects when it is first used. Close with `aclose`.

    Raises:
        InvalidArgumentError: the URL has a query parameter that redis-py does not know.
    """
    target = Target.of(settings.url)
    options: dict[str, Any] = {
        "socket_timeout": settings.timeout,
        "socket_connect_timeout": settings.connect_timeout,
        "max_connections": settings.max_connections,
        **target.options,
        "protocol": 2,  # redis-py would take 3, in which the query engine's replies differ
        "decode_responses": False,
    }
    pool_timeout = options.pop("timeout", settings.pool_timeout)
    policy = _RetryPolicy(settings.retries)
    try:
        if target.kind == "cluster":
            return _cluster(target, options, pool_timeout, policy)
        options |= {"pool_timeout": pool_timeout, "policy": policy, "retry": _never()}
        pool = (
            _sentinel_pool(target, options)
            if target.kind == "sentinel"
            else _WaitingPool(**options)
        )
        # No I/O, but redis-py checks what the URL asks for.
        pool.make_connection()
    except TypeError as error:
        named = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if named is None:
            raise
        raise bad_url(f"there is no query parameter {named[1]!r}") from None
    return _Client(pool, policy)


OLDEST_ENGINE = (2, 10, 5)
"""The oldest query engine that has all that is used (ADDSCORES and BM25STD came last)."""
OLDEST_ENGINE_OF_A_CLUSTER = (8, 0, 0)
"""The oldest that asks all nodes of a cluster; before, each node answers for itself alone."""


async def check_server(client: Redis | RedisCluster, *, url: str) -> None:
    """Check that the server's query engine is recent enough, as far as the server tells.

    Raises:
        UnsuitableServerError: it is too old; the text names both versions. A server without any
            says so at the first command that needs it.
    """
    is_cluster = isinstance(client, RedisCluster)
    oldest = OLDEST_ENGINE_OF_A_CLUSTER if is_cluster else OLDEST_ENGINE
    hello = _pairs(await client.execute_command("HELLO", **_some_node(client)))
    for module in map(_pairs, hello.get(b"modules", ())):
        if module[b"name"] in (b"search", b"searchlight"):
            found = (module[b"ver"] // 10_000, module[b"ver"] // 100 % 100, module[b"ver"] % 100)
            if found < oldest:
                needed = "on a cluster, this backend needs" if is_cluster else "this backend needs"
                raise UnsuitableServerError(
                    f"{address(url)} (version {hello[b'version'].decode()}) has the query engine "
                    f"{_version(found)}; {needed} {_version(oldest)} or newer: use Redis 8 or newer"
                )


async def eviction_policy(client: Redis | RedisCluster) -> str | None:
    """Return the server's ``maxmemory-policy``; ``None`` where it keeps its settings to itself.

    Managed servers do: they have pages of their own for it.
    """
    try:
        # In one word, by which redis-py knows it on a cluster, too.
        settings = await client.execute_command(
            "CONFIG GET", "maxmemory-policy", **_some_node(client)
        )
    except exceptions.ResponseError:
        return None
    policy: bytes | str = settings["maxmemory-policy"]
    return policy.decode() if isinstance(policy, bytes) else policy


def _some_node(client: Redis | RedisCluster) -> dict[str, Any]:
    cluster = isinstance(client, RedisCluster)
    return {"target_nodes": RedisCluster.DEFAULT_NODE} if cluster else {}


def _pairs(flat: Any) -> dict[bytes, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _version(numbers: tuple[int, int, int]) -> str:
    return ".".join(map(str, numbers))


def _never() -> Retry:
    return Retry(NoBackoff(), 0)


class _RetryPolicy:
    """What is tried again, and after which pause. Nothing is that may have been done already."""

    def __init__(self, retries: int) -> None:
        self._retries = retries
        self._pauses = FullJitterBackoff(cap=1.0, base=0.025)

    async def run(
        self, attempt: Callable[[], Awaitable[_T]], worthwhile: Callable[[Exception], bool]
    ) -> _T:
        failures = 0
        while True:
            try:
                return await attempt()
            except (exceptions.RedisError, exceptions.RedisClusterException) as error:
                failures += 1
                if failures > self._retries or not worthwhile(error):
                    raise
            await asyncio.sleep(self._pauses.compute(failures))


def _may_connect_later(error: Exception) -> bool:
    """Whether a failure to connect can pass; a refusal does not, and a timeout is no failure."""
    refused = (exceptions.AuthenticationError, exceptions.AuthorizationError)
    return (
        isinstance(error, exceptions.ConnectionError)
        and not isinstance(error, refused)
        and "[SSL: " not in str(error)
    )


_READS = frozenset(
    {
        "EXISTS", "FT.AGGREGATE", "FT.INFO", "FT.SEARCH", "FT._LIST", "GET", "HGET",
        "HGETALL", "HMGET", "INFO", "MGET", "PING", "SCAN",
    }
)  # fmt: skip
"""Commands that change nothing, so that repeating one is safe. Of those that are not named, many
would be as well; reading on from a cursor would not: it moves on."""


def _may_repeat(command: object, error: Exception) -> bool:
    """Whether a command that failed with this error may be sent again."""
    not_begun = (
        exceptions.BusyLoadingError,
        exceptions.ClusterDownError,
        exceptions.TryAgainError,
    )
    if isinstance(error, not_begun):  # by the server's own word
        return True
    tried_enough = isinstance(error, (NotConnectedError, exceptions.MaxConnectionsError))
    return str(command).upper() in _READS and _may_connect_later(error) and not tried_enough


class _WaitingPool(ConnectionPool):
    """A pool in which a call waits for a free connection, first come, first served.

    In redis-py's own, a call that is cancelled as its turn comes takes the turn with it, and the
    next one waits for nothing (on Python 3.11).
    """

    def __init__(self, *, pool_timeout: float, policy: _RetryPolicy, **options: Any) -> None:
        super().__init__(**options)
        self._pool_timeout = pool_timeout
        self._policy = policy
        self._free = asyncio.Semaphore(self.max_connections)
        self._idle: list[AbstractConnection] = []
        """Those that are free and sound. redis-py's pool counts them as in use: to hand one back to
        it and take it out again takes as long as to send a query."""
        self.connected = 0
        """How many connections were made so far: behind a new one may be another server."""

    def make_connection(self) -> AbstractConnection:
        connection: AbstractConnection = super().make_connection()  # type: ignore[no-untyped-call]
        connection.register_connect_callback(self._welcome)  # type: ignore[no-untyped-call]
        return connection

    async def _welcome(self, connection: AbstractConnection) -> None:
        self.connected += 1

    async def get_connection(
        self, command_name: Any = None, *keys: Any, **options: Any
    ) -> AbstractConnection:
        await _acquired(self._free, self._pool_timeout, self.max_connections)
        try:
            connection: AbstractConnection = (
                self._idle.pop() if self._idle else self.get_available_connection()  # type: ignore[no-untyped-call]
            )
        except BaseException:
            self._free.release()
            raise
        try:
            if not await _is_ready(connection):
                # Nothing was sent so far, whatever the command is.
                await self._policy.run(
                    lambda: self.ensure_connection(connection), _may_connect_later
                )
        except BaseException as error:
            await self.release(connection)
            if isinstance(error, exceptions.ConnectionError) and _may_connect_later(error):
                raise NotConnectedError(*error.args) from error
            raise
        return connection

    async def release(self, connection: AbstractConnection) -> None:
        try:
            if connection.should_reconnect():  # type: ignore[no-untyped-call]
                await super().release(connection)
            else:
                self._idle.append(connection)
        finally:
            self._free.release()

    async def disconnect(self, inuse_connections: bool = True) -> None:
        if not inuse_connections:
            await asyncio.gather(*(each.disconnect() for each in self._idle))
        await super().disconnect(inuse_connections)


async def _is_ready(connection: AbstractConnection) -> bool:
    """Tell whether a connection is open and nothing is left to be read from it."""
    try:
        return connection.is_connected and not await connection.can_read()
    except (OSError, exceptions.RedisError):  # closed by the other side
        return False


class _Sentinels(Sentinel):
    """Sentinels, asked for the primary such that a failover cannot lead back to the old one.

    While one is going on, their tables (SENTINEL MASTERS) name the old primary until the last
    replica follows the new one. An old one that is back by then looks sound, takes writes, and
    loses them when it becomes a replica. SENTINEL GET-MASTER-ADDR-BY-NAME knows better.
    """

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        unreachable: list[str] = []
        for place, sentinel in enumerate(self.sentinels):
            try:
                states: Any = await sentinel.sentinel_masters()
                named: Any = await sentinel.sentinel_get_master_addr_by_name(
                    service_name, return_responses=True
                )
            except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
                unreachable.append(str(error))
                continue
            state = states.get(service_name)
            if state is None or named is None:
                continue
            host, port = named[0].decode(), int(named[1])
            # The later answer counts. A server that it names anew was up when it was promoted.
            moved = (host, port) != (state["ip"], state["port"])
            if moved or self.check_master_state(state, service_name):
                self.sentinels.insert(0, self.sentinels.pop(place))  # it is asked first from now on
                return host, port
        raise MasterNotFoundError(f"no primary {service_name!r}: {', '.join(unreachable)}")


class _SentinelPool(_WaitingPool, SentinelConnectionPool):
    """The connections to the server that the Sentinels call the primary."""

    async def _welcome(self, connection: AbstractConnection) -> None:
        # A Sentinel that is not up to date may name a server that is a replica by now. HELLO says
        # so, and may be called by users who may call nothing else.
        try:
            await connection.send_command("HELLO")
            if _pairs(await connection.read_response())[b"role"] != b"master":
                raise exceptions.ConnectionError("the server that Sentinel names is a replica")
        except exceptions.RedisError:
            await connection.disconnect()  # otherwise it would count as connected
            raise
        await super()._welcome(connection)

    async def release(self, connection: AbstractConnection) -> None:
        # In use while the primary moved: it leads to the old one.
        assert isinstance(connection, SentinelManagedConnection)
        if self.master_address != (connection.host, connection.port):
            connection.mark_for_reconnect()  # type: ignore[no-untyped-call]
        await super().release(connection)

    async def disconnect(self, inuse_connections: bool = True) -> None:
        try:
            await super().disconnect(inuse_connections)
        finally:
            if inuse_connections:  # the client is being closed; else the primary has moved
                await asyncio.gather(*(each.aclose() for each in self.sentinel_manager.sentinels))


async def _acquired(free: asyncio.Semaphore, seconds: float, size: int) -> None:
    if not free.locked():  # the usual case, without a timer
        await free.acquire()
        return
    try:
        async with asyncio.timeout(seconds):
            await free.acquire()
    except TimeoutError:
        raise exceptions.MaxConnectionsError(
            f"all {size} connections were in use for {seconds:g} s"
        ) from None


class _Client(Redis):
    """redis-py's client with our policy of retrying."""

    def __init__(self, pool: ConnectionPool, policy: _RetryPolicy) -> None:
        super().__init__(connection_pool=pool)
        self.auto_close_connection_pool = True
        self._policy = policy

    @property
    def connected(self) -> int:
        """How many connections were made so far."""
        made: int = self.connection_pool.connected  # type: ignore[attr-defined]
        return made

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        execute = super().execute_command

        async def attempt() -> Any:
            return await execute(*args, **options)  # type: ignore[no-untyped-call]

        return await self._policy.run(attempt, partial(_may_repeat, args[0]))

    async def ask(self, *commands: Sequence[Any]) -> list[Any]:
        """Send commands in one round trip and return the replies as they come.

        Those that write come before those that read.

        `execute_command` and a pipeline do the same, but what they do around it (packing in Python,
        a task and a timer to send, measuring) takes half as long as a quick query.
        """
        if sum(each[0] not in _READS for each in commands) > 1:
            return await self._asked(commands)  # when one fails, others may be done
        return await self._policy.run(
            lambda: self._asked(commands), partial(_may_repeat, commands[0][0])
        )

    async def _asked(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        connection: Any = await self.connection_pool.get_connection()  # type: ignore[no-untyped-call]
        replies: list[Any] = []
        failure: exceptions.ResponseError | None = None
        try:
            # Into the buffer of a connection that was just seen to be open. Should the server not
            # take it, the time runs out that it has for its reply.
            packed = [pack_command(tuple(each)) for each in commands]
            writer = connection._writer
            writer.writelines(packed)
            try:
                for _ in commands:
                    try:
                        replies.append(await connection.read_response())
                    except exceptions.ResponseError as error:  # the other replies come all the same
                        failure = failure or error
            except BaseException:
                # The connection has given up this socket, which what is unsent would keep open.
                writer.transport.abort()
                raise
        finally:
            await self.connection_pool.release(connection)
        if failure is not None:
            raise failure
        return replies


def _sentinel_pool(target: Target, options: dict[str, Any]) -> _SentinelPool:
    # One login for servers and Sentinels, as in RedisVL.
    shared = {
        name: value
        for name, value in options.items()
        if name in ("username", "password", "retry", "protocol")
        or name.startswith(("socket_", "ssl_"))
    }
    if target.tls:
        options = {**options, "ssl": True}
        shared["ssl"] = True
    sentinel = _Sentinels(list(target.hosts), sentinel_kwargs=shared)  # type: ignore[no-untyped-call]
    return _SentinelPool(service_name=target.service, sentinel_manager=sentinel, **options)


# --- the cluster's client ------------------------------------------------------------------------

_holds_slot: ContextVar[bool] = ContextVar("_holds_slot", default=False)
"""Whether this task is inside a call that was let in: what that call sends needs no slot more."""


class _Slots:
    """The turnstile of a cluster's client, which itself refuses calls when it has too many."""

    def __init__(self, size: int, seconds: float) -> None:
        self._free = asyncio.Semaphore(size)
        self._size = size
        self._seconds = seconds

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        if _holds_slot.get():
            yield
            return
        await _acquired(self._free, self._seconds, self._size)
        token = _holds_slot.set(True)
        try:
            yield
        finally:
            _holds_slot.reset(token)
            self._free.release()


class _ClusterClient(RedisCluster):
    """redis-py's cluster client with a bounded number of calls and our policy of retrying."""

    connected = 0
    """Not counted: each of its nodes has connections of its own."""

    def __init__(self, slots: _Slots, policy: _RetryPolicy, **options: Any) -> None:
        super().__init__(**options)
        self.slots = slots
        self._policy = policy

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        execute = super().execute_command

        async def attempt() -> Any:
            async with self.slots.held():
                return await execute(*args, **options)

        return await self._policy.run(attempt, partial(_may_repeat, args[0]))

    def learn_the_nodes_anew(self) -> None:
        """Make the next call ask which nodes there are, as redis-py does after a failed command.

        After a failed pipeline it does so only if it is to try again itself.
        """
        self._initialize = True

    async def ask(self, *commands: Sequence[Any]) -> list[Any]:
        """Send commands side by side, wherever each belongs, and return the replies."""
        return await asyncio.gather(*(self.execute_command(*each) for each in commands))

    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> ClusterPipeline:
        if shard_hint is not None:
            raise NotImplementedError("a cluster's pipeline has no shard_hint")
        return _ClusterPipeline(self, transaction)  # type: ignore[abstract]


class _ClusterPipeline(ClusterPipeline):
    async def execute(
        self, raise_on_error: bool = True, allow_redirections: bool = True
    ) -> list[Any]:
        client = self.cluster_client
        assert isinstance(client, _ClusterClient)
        try:
            async with client.slots.held():
                return await super().execute(raise_on_error, allow_redirections)
        except RedisCluster.ERRORS_ALLOW_RETRY:
            client.learn_the_nodes_anew()
            raise


def _cluster(
    target: Target, options: dict[str, Any], pool_timeout: float, policy: _RetryPolicy
) -> RedisCluster:
    return _ClusterClient(
        _Slots(options.pop("max_connections"), pool_timeout),
        policy,
        startup_nodes=[ClusterNode(host, port) for host, port in target.hosts],
        ssl=target.tls,
        retry=_never(),
        # The slots bound the calls, and each takes one connection of a node at a time.
        max_connections=2**31 - 1,
        **options,
    )
